"""One subscription that cannot be rated must not stop a thousand others: sets are halved until the culprit stands alone."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Collection, Sequence
from datetime import datetime

from sqlalchemy import insert, select, update
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from core.db import among
from core.errors import BillingError
from core.invoicing.models import RunError
from core.subscriptions.models import Subscription

log = logging.getLogger(__name__)

EXPECTED = (BillingError, ValueError, TypeError, ArithmeticError, LookupError, AttributeError, DBAPIError)
"""What a corrupt row can raise while it is read, priced or written; a lost connection or a deadlock is no row's fault."""


def isolate(
    session: Session,
    subscription_ids: Sequence[uuid.UUID],
    bill_set: Callable[[Collection[uuid.UUID]], list[uuid.UUID]],
    *,
    run_id: uuid.UUID | None,
    at: datetime,
) -> list[uuid.UUID]:
    """Bill the set inside a savepoint; if it fails, each half of it, and record the one subscription that fails alone."""
    if not subscription_ids:
        return []
    try:
        with session.begin_nested():
            return bill_set(subscription_ids)
    except OperationalError:
        raise
    except EXPECTED as error:
        if len(subscription_ids) == 1:
            log.exception("subscription %s could not be rated", subscription_ids[0])
            _record(session, subscription_ids[0], f"{type(error).__name__}: {error}", run_id=run_id, at=at)
            return []
        middle = len(subscription_ids) // 2
        halves = (subscription_ids[:middle], subscription_ids[middle:])
        return [invoice_id for half in halves for invoice_id in isolate(session, half, bill_set, run_id=run_id, at=at)]


def resolve(session: Session, subscription_ids: Collection[uuid.UUID], *, at: datetime) -> None:
    """The subscriptions have been rated: what stood in the way is settled."""
    open_errors = among(RunError.subscription_id, subscription_ids), RunError.resolved_at.is_(None)
    session.execute(update(RunError).where(*open_errors).values(resolved_at=at))


def unresolved(session: Session, *, run_id: uuid.UUID | None = None) -> Sequence[RunError]:
    """Subscriptions that could not be rated and still cannot, newest first; of one run, or of all."""
    wanted = select(RunError).where(RunError.resolved_at.is_(None)).order_by(RunError.id.desc())
    return session.scalars(wanted.where(RunError.run_id == run_id) if run_id else wanted).all()


def _record(session: Session, subscription_id: uuid.UUID, detail: str, *, run_id: uuid.UUID | None, at: datetime) -> None:
    """Note the failure once: a repeated one only moves the time of the open note."""
    again = session.execute(
        update(RunError)
        .where(RunError.subscription_id == subscription_id, RunError.resolved_at.is_(None))
        .values(detail=detail, at=at, **({"run_id": run_id} if run_id else {}))
    )
    if again.rowcount == 0:  # type: ignore[attr-defined]
        organization_id = select(Subscription.organization_id).where(Subscription.id == subscription_id).scalar_subquery()
        session.execute(
            insert(RunError).values(run_id=run_id, organization_id=organization_id, subscription_id=subscription_id, detail=detail, at=at)
        )
