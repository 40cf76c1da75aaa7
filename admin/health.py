"""Health: is everything that bills running, and are the books right?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from werkzeug.wrappers import Response

from admin import blueprint
from core import audit, clock, config, jobs, rendering, selfcheck
from core.db import db
from core.invoicing import due
from core.metering import holds, keeping, sampling
from core.metering import queries as metering
from core.notifications import queries as notifications
from core.payments import queries as payments
from web.auth import requires
from web.htmx import page

BEHIND_SECONDS_WATCH = 5
BEHIND_SECONDS_BAD = 60
SEALS_WAITING_WATCH = 1_000
RECOUNTS_SHOWN = timedelta(days=1)
KEEPING_LATE = timedelta(days=2)
RUNS_SHOWN = 30


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the page: `state` is ok, warn, bad or unknown; `advice` says what to do when it is not ok."""

    name: str
    state: str
    detail: str
    advice: str = ""


@blueprint.get("/health")
@requires("jobs.view")
def health() -> Response:
    """The checks that are cheap enough for every look; the books are proved on demand."""
    return page(
        "admin/health/index.html", partial="admin/health/_checks.html", current="health", checks=_checks(), rules=len(selfcheck.codes())
    )


@blueprint.get("/health/books")
@requires("jobs.view")
def books() -> Response:
    """Every invariant of the money, now; reads only."""
    findings = selfcheck.run(db.session())
    return page("admin/health/books.html", current="health", findings=findings, rules=len(selfcheck.codes()))


@blueprint.get("/health/keeping")
@requires("jobs.view")
def kept() -> Response:
    """What the daily runs archived and purged, what they left and why, and who is under a legal hold."""
    session = db.session()
    return page(
        "admin/health/keeping.html",
        current="health",
        runs=[run for run in keeping.runs(session, limit=RUNS_SHOWN) if run.finished_at != run.started_at],
        holds=holds.named(session),
        settings=config.current(),
    )


def _checks() -> list[Check]:
    return [
        Check("Database", "ok", "answers"),
        _queue(),
        _metering(),
        _recounted(),
        _kept(),
        _facts(),
        _mails(),
        _payments(),
        _invoices(),
        _seals(),
    ]


def _queue() -> Check:
    waiting = jobs.waiting()
    if waiting is None:
        return Check("Queue", "bad", "Valkey does not answer", "Nothing is lost: work is found in the database. Start Valkey again.")
    return Check("Queue", "ok", f"{waiting} jobs wait")


def _metering() -> Check:
    fresh = metering.freshness(db.session(), None, at=clock.now())
    behind = float(fresh.behind_seconds)
    state = "ok" if behind < BEHIND_SECONDS_WATCH else "warn" if behind < BEHIND_SECONDS_BAD else "bad"
    since = rendering.relative(fresh.counted_up_to, clock.now())
    waits = "1 event waits" if fresh.backlog == 1 else f"{fresh.backlog:,} events wait"
    detail = f"usage counted up to {since}, {waits}" if fresh.backlog else "all accepted usage is counted"
    return Check("Metering", state, detail, "Amounts will rise. Is the aggregator running? Accepted events are safe in the log.")


def _recounted() -> Check:
    now = clock.now()
    made = sampling.latest(db.session(), since=now - RECOUNTS_SHOWN)
    if made is None:
        return Check("Recount", "unknown", "no usage was counted anew in the last day", "Is the scheduler running?")
    when = rendering.relative(made.at, now)
    if not made.differences:
        return Check("Recount", "ok", f"usage counted anew {when}: every sum is that of its events")
    one = made.differences[0]
    detail = f"{len(made.differences)} sums differ, seen {when}: {one.organization}, {one.metric}, {one.hour}: stored {one.stored}"
    advice = "Hold the invoices of these customers; `valueverse usage recount --days 35` names every difference."
    return Check("Recount", "bad", f"{detail}, counted anew {one.recounted}", advice)


def _kept() -> Check:
    now, hour = clock.now(), config.current().usage_keeping_hour
    if hour is None:
        return Check(
            "Keeping", "unknown", "archiving and purging is left to the command line", "Set USAGE_KEEPING_HOUR to do it every day."
        )
    runs = keeping.runs(db.session(), limit=1)
    if not runs or runs[0].started_at < now - KEEPING_LATE:
        return Check("Keeping", "bad", "no usage was archived or purged for two days", "Are the scheduler and the workers running?")
    last, when = runs[0], rendering.relative(runs[0].started_at, now)
    if last.finished_at is None:
        return Check("Keeping", "ok", f"archiving and purging since {when}")
    if last.left:
        left = f"{len(last.left)} things could not be archived or purged {when}"
        return Check("Keeping", "warn", left, "They are tried again tomorrow; the page behind the button says why.")
    return Check("Keeping", "ok", f"{last.archived_days} days archived, {last.purged_days} purged {when}")


def _facts() -> Check:
    waits = notifications.facts_wait(db.session())
    return Check("Outbox", "ok", "facts wait for their turn" if waits else "every fact has been dispatched")


def _mails() -> Check:
    due = notifications.mail_is_due(db.session(), now=clock.now())
    return Check(
        "Mail",
        "warn" if due else "ok",
        "mails are due" if due else "nothing waits",
        "They leave within seconds when the mail server answers.",
    )


def _payments() -> Check:
    waiting = len(payments.unresolved_ids(db.session(), now=clock.now()))
    if not waiting:
        return Check("Payments", "ok", "no attempt is undecided")
    return Check("Payments", "warn", f"{waiting} attempts are undecided", "They are looked up at the provider until they are settled.")


def _invoices() -> Check:
    waiting = len(due.to_print(db.session()))
    return Check(
        "Documents", "warn" if waiting else "ok", f"{waiting} PDFs are being made" if waiting else "every issued invoice has its PDF"
    )


def _seals() -> Check:
    chain = audit.chain_state(db.session())
    state = "warn" if chain.waiting > SEALS_WAITING_WATCH else "ok"
    return Check("Audit chain", state, f"sealed through entry {chain.sealed:,}, {chain.waiting:,} wait", "Is the scheduler running?")
