"""An invoice run: everything due at an instant is rated into drafts, reviewed by people, finalized in bulk.

Work goes in sets, one transaction each, found by state: a run that was interrupted goes on where it stopped, and two workers on one run
do each other's work. The counters are progress for people; the invoices are the truth.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from core import audit, jobs
from core.audit import Actor
from core.errors import BillingError, Conflict, NotFound
from core.identity.models import Organization
from core.invoicing import draft, finalize
from core.invoicing.models import Invoice, InvoiceReason, InvoiceRun, InvoiceStatus, RunError, RunStatus
from core.invoicing.run_errors import EXPECTED
from core.subscriptions import queries as subscriptions
from core.subscriptions.models import Subscription

FINALIZE_SET_SIZE = 500


@dataclass(frozen=True, slots=True)
class Totals:
    """The drafts and invoices of a run in one currency; amounts in minor units, tax included."""

    currency: str
    drafts: int
    drafts_minor: int
    held: int
    issued: int
    issued_minor: int


def start(session: Session, *, as_of: datetime, actor: Actor, at: datetime) -> InvoiceRun:
    """Begin a run over everything due by `as_of`; the job `rate_run` does the work. Conflict while another run is being rated."""
    if session.scalar(select(InvoiceRun.id).where(InvoiceRun.status == RunStatus.RATING).limit(1)):
        raise Conflict("Another run is being rated; wait until it is ready for review.", code="run_in_progress")
    waiting = (
        select(func.count())
        .select_from(Subscription)
        .join(Organization, Organization.id == Subscription.organization_id)
        .where(Subscription.next_bill_at <= as_of, Organization.test_clock_id.is_(None))
    )
    due = session.scalar(waiting) or 0
    run = InvoiceRun(status=RunStatus.RATING, as_of=as_of, started_by=actor.label, subscriptions_due=due, created_at=at)
    session.add(run)
    session.flush()
    _adopt(session, run)
    audit.record(session, actor, "invoice_run.started", run, at=at, as_of=as_of, subscriptions_due=due)
    jobs.enqueue(session, "rate_run", run.id)
    return run


def rate_set(session: Session, run_id: uuid.UUID, *, after_id: uuid.UUID | None, at: datetime, actor: Actor) -> uuid.UUID | None:
    """Rate the next set of due subscriptions behind `after_id`; returns where the next begins, None when the run is ready for review."""
    run = get(session, run_id)
    if run.status != RunStatus.RATING:
        return None
    ids = subscriptions.due_ids(session, as_of=run.as_of, after_id=after_id, limit=draft.SET_SIZE_MAX)
    if ids:
        draft.bill_many(session, ids, as_of=run.as_of, actor=actor, run_id=run_id)
        _count(session, run_id, subscriptions_done=InvoiceRun.subscriptions_done + len(ids))
        return ids[-1]
    _count(session, run_id, status=RunStatus.REVIEW.value, rated_at=at)
    audit.record(session, actor, "invoice_run.rated", run, at=at)
    return None


def request_finalize(session: Session, run_id: uuid.UUID, *, at: datetime, actor: Actor) -> InvoiceRun:
    """Let the run's drafts be finalized, held ones excepted; the job `finalize_run` does it. Asked again, it goes on.

    Conflict while the run is being rated.
    """
    run = get(session, run_id, lock=True)
    if run.status == RunStatus.RATING:
        raise Conflict("The run is still being rated.", code="run_in_progress")
    ready = session.scalar(select(func.count()).select_from(Invoice).where(*_ready(run_id))) or 0
    if ready == 0 and run.status == RunStatus.DONE:
        return run
    run.finalize_total = run.finalize_done + ready
    run.finalize_requested_at, run.finished_at, run.status = at, None, RunStatus.FINALIZING.value
    audit.record(session, actor, "invoice_run.finalize_requested", run, at=at, drafts=ready)
    jobs.enqueue(session, "finalize_run", run.id)
    return run


def pause(session: Session, run_id: uuid.UUID, *, at: datetime, actor: Actor) -> InvoiceRun:
    """Stop finalizing after the present set; `request_finalize` goes on."""
    run = get(session, run_id, lock=True)
    if run.status == RunStatus.FINALIZING:
        run.status = RunStatus.REVIEW.value
        audit.record(session, actor, "invoice_run.paused", run, at=at)
    return run


def finalize_set(session: Session, run_id: uuid.UUID, *, at: datetime, actor: Actor) -> bool:
    """Finalize the next set of the run's drafts; False when none is left or the run was paused.

    A draft that cannot be finalized is held back with the reason, and the others go on.
    """
    run = get(session, run_id)
    if run.status != RunStatus.FINALIZING:
        return False
    ids = list(session.scalars(select(Invoice.id).where(*_ready(run_id)).order_by(Invoice.id).limit(FINALIZE_SET_SIZE)))
    if not ids:
        _count(session, run_id, status=RunStatus.DONE.value, finished_at=at)
        audit.record(session, actor, "invoice_run.finished", run, at=at, finalized=run.finalize_done)
        return False
    done = finalize_or_hold(session, ids, at=at, actor=actor)
    _count(session, run_id, finalize_done=InvoiceRun.finalize_done + len(done))
    return True


def finalize_or_hold(session: Session, invoice_ids: Sequence[uuid.UUID], *, at: datetime, actor: Actor) -> list[uuid.UUID]:
    """Finalize in one set; if it fails, each half, and hold back the one draft that fails alone."""
    if not invoice_ids:
        return []
    try:
        with session.begin_nested():
            return finalize.finalize_many(session, invoice_ids, at=at, actor=actor)
    except OperationalError:
        raise
    except EXPECTED as error:
        if len(invoice_ids) > 1:
            middle = len(invoice_ids) // 2
            halves = (invoice_ids[:middle], invoice_ids[middle:])
            return [done for half in halves for done in finalize_or_hold(session, half, at=at, actor=actor)]
        words = error.message if isinstance(error, BillingError) else f"{type(error).__name__}: {error}"
        session.execute(update(Invoice).where(Invoice.id == invoice_ids[0]).values(held_reason=f"Could not be finalized. {words}"))
        return []


def get(session: Session, run_id: uuid.UUID, *, lock: bool = False) -> InvoiceRun:
    """The run as committed; NotFound."""
    run = session.get(InvoiceRun, run_id, populate_existing=True, with_for_update=True if lock else None)
    if run is None:
        raise NotFound("There is no such invoice run.")
    return run


def runs(session: Session, *, limit: int = 50) -> Sequence[InvoiceRun]:
    """The runs, newest first."""
    return session.scalars(select(InvoiceRun).order_by(InvoiceRun.created_at.desc()).limit(limit)).all()


def unfinished(session: Session) -> Sequence[InvoiceRun]:
    """Runs a worker should be busy with: the sweep rings for them."""
    return session.scalars(select(InvoiceRun).where(InvoiceRun.status.in_((RunStatus.RATING, RunStatus.FINALIZING)))).all()


def totals(session: Session, run_id: uuid.UUID) -> list[Totals]:
    """What the run's documents come to, by currency."""
    drafted, held = Invoice.status == InvoiceStatus.DRAFT, Invoice.held_reason.is_not(None)
    issued = Invoice.status.not_in((InvoiceStatus.DRAFT, InvoiceStatus.VOID))
    count, total = func.count(), func.coalesce(func.sum(Invoice.total_minor), 0)
    rows = session.execute(
        select(
            Invoice.currency,
            count.filter(drafted),
            func.coalesce(func.sum(Invoice.total_minor).filter(drafted), 0),
            count.filter(drafted, held),
            count.filter(issued),
            func.coalesce(func.sum(Invoice.total_minor).filter(issued), 0),
        )
        .where(Invoice.run_id == run_id)
        .group_by(Invoice.currency)
        .order_by(total.desc())
    )
    return [Totals(currency, *(int(value) for value in values)) for currency, *values in rows]


def errors(session: Session, run_id: uuid.UUID) -> Sequence[RunError]:
    """Subscriptions the run could not rate and that still wait, in order."""
    return session.scalars(select(RunError).where(RunError.run_id == run_id, RunError.resolved_at.is_(None)).order_by(RunError.id)).all()


def _adopt(session: Session, run: InvoiceRun) -> None:
    """Renewals drafted before that wait for their hour to pass: the run reviews them too."""
    in_real_time = select(Organization.id).where(Organization.test_clock_id.is_(None))
    session.execute(
        update(Invoice)
        .where(
            Invoice.status == InvoiceStatus.DRAFT,
            Invoice.reason == InvoiceReason.PERIOD,
            Invoice.run_id.is_(None),
            Invoice.organization_id.in_(in_real_time),
        )
        .values(run_id=run.id, auto_finalize_at=None)
        .execution_options(synchronize_session=False)
    )


def _ready(run_id: uuid.UUID) -> tuple[Any, ...]:
    return Invoice.run_id == run_id, Invoice.status == InvoiceStatus.DRAFT, Invoice.held_reason.is_(None)


def _count(session: Session, run_id: uuid.UUID, **values: Any) -> None:
    session.execute(update(InvoiceRun).where(InvoiceRun.id == run_id).values(**values).execution_options(synchronize_session=False))
