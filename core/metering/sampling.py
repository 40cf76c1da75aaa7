"""A recount every hour of an hour that is over, for a few organizations: what is found is logged, audited and shown to operators."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core import audit
from core.audit import SYSTEM
from core.metering import recount
from core.metering.models import Metric
from core.metering.recount import Difference
from core.metering.sums import organizations
from core.metering.tables import usage_recounts
from core.metering.windows import HOUR, hour_floor

log = structlog.get_logger("valueverse.metering")

SAMPLED_ORGANIZATIONS = 100
LOOK_BACK_HOURS = 35 * 24
TOLD_MAX = 50


@dataclass(frozen=True, slots=True)
class Told:
    """A difference with names: both figures as texts, "nothing" where there is no such sum or there are no such events.

    `hour` is an hour, a day, or an invoice, whose line is in `group`.
    """

    organization: str
    metric: str
    hour: str
    group: str
    stored: str
    recounted: str


@dataclass(frozen=True, slots=True)
class Recount:
    """A recount that was made of [since, until) for `compared` organizations."""

    id: int
    at: datetime
    since: datetime
    until: datetime
    compared: int
    differences: tuple[Told, ...]


Billed = Callable[[datetime, datetime, Sequence[int]], Sequence[Told]]
"""What invoices billed that is not what is counted: (start, end, numbers of organizations)."""


def sample(session: Session, *, at: datetime, billed: Billed = lambda *_: ()) -> list[Recount]:
    """Recount the hour that ended an hour ago, and one of the last weeks, for organizations chosen by chance; write down what was found.

    Begin a transaction with it that sees one state: `steady(session)`. What is chosen follows from the hour of `at`.
    """
    chosen = random.Random(int(hour_floor(at).timestamp()))  # noqa: S311 - a sample, not a secret
    numbers = list(session.scalars(select(organizations.c.number).order_by(organizations.c.number)))
    made = []
    for back in (2, chosen.randrange(3, LOOK_BACK_HOURS)):
        since = hour_floor(at) - back * HOUR
        some = chosen.sample(numbers, min(SAMPLED_ORGANIZATIONS, len(numbers)))
        found = recount.differences(session, start=since, end=since + HOUR, organization_numbers=some)
        told = billed(since, since + HOUR, some)
        made.append(keep(session, found, since=since, until=since + HOUR, compared=len(some), at=at, billed=told))
    return made


def steady(session: Session) -> None:
    """Let the transaction that begins now see one state of the database throughout."""
    session.connection(execution_options={"isolation_level": "REPEATABLE READ"})


def keep(
    session: Session,
    found: Sequence[Difference],
    *,
    since: datetime,
    until: datetime,
    compared: int,
    at: datetime,
    billed: Sequence[Told] = (),
) -> Recount:
    """Write down a recount; a difference is an error in the log and an entry of the audit trail."""
    told = (*named(session, found[:TOLD_MAX]), *billed[:TOLD_MAX])
    rows = [{name: getattr(one, name) for name in Told.__slots__} for one in told]
    values = {"at": at, "since": since, "until": until, "compared": compared, "differences": rows}
    number = session.execute(usage_recounts.insert().values(values).returning(usage_recounts.c.id)).scalar_one()
    made = Recount(number, at, since, until, compared, told)
    for one in rows:
        log.error("usage sums differ from their events", **one)
    if rows:
        audit.record(session, SYSTEM, "usage.recount_differed", made, at=at, differences=len(found) + len(billed), first=rows[0])
    return made


def latest(session: Session, *, since: datetime) -> Recount | None:
    """The newest recount since then that found differences; if none did, the newest one."""
    r = usage_recounts.c
    wrong = func.jsonb_array_length(r.differences) > 0
    row = session.execute(select(usage_recounts).where(r.at >= since).order_by(wrong.desc(), r.at.desc()).limit(1)).first()
    return (
        None if row is None else Recount(row.id, row.at, row.since, row.until, row.compared, tuple(Told(**one) for one in row.differences))
    )


def forget(session: Session, *, at: datetime, days: int = 90) -> None:
    """Delete what was written down longer ago."""
    session.execute(usage_recounts.delete().where(usage_recounts.c.at < at - timedelta(days=days)))


def named(session: Session, found: Sequence[Difference]) -> list[Told]:
    """Differences with the codes and slugs of what they are about."""
    wanted = {one.metric_number for one in found}
    codes = {row.number: row.code for row in session.execute(select(Metric.number, Metric.code).where(Metric.number.in_(wanted)))}
    numbers = {one.organization_number for one in found}
    slugs = {
        row.number: row.slug
        for row in session.execute(select(organizations.c.number, organizations.c.slug).where(organizations.c.number.in_(numbers)))
    }
    return [
        Told(
            slugs.get(one.organization_number, str(one.organization_number)),
            codes.get(one.metric_number, "log"),
            f"day {one.hour:%Y-%m-%d}" if one.daily else one.hour.isoformat(),
            one.group_key,
            _figures(one.stored),
            _figures(one.recounted),
        )
        for one in found
    ]


def _figures(figures: tuple[int, Any] | None) -> str:
    return "nothing" if figures is None else f"{figures[1]:f} in {figures[0]} events"
