"""Looking at limits after usage was counted: thresholds are told once a window, usage past a hard limit is stopped, stops are lifted.

Everything is worked out from the counters, so looking twice changes nothing the second time.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import delete, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core import audit
from core.audit import Actor
from core.db import among
from core.entitlements.facts import Facts
from core.entitlements.models import LimitNotice, LimitState, UsageBlock
from core.entitlements.standing import Standing, standings
from core.entitlements.wording import told
from core.metering.models import UsageLimit

REASONS = {True: "limit_reached", False: "spend_cap_reached"}
REACHED = 100
SUBJECTS = {"limit": "usage_limits", "cap": "spend_caps", "plan": "metrics"}


def evaluate(
    session: Session,
    organization_ids: Collection[uuid.UUID],
    *,
    at: datetime,
    actor: Actor,
    touched_from: Mapping[uuid.UUID, datetime] | None = None,
) -> None:
    """Bring states, stops and notices of these customers up to real time `at`; facts are recorded at the customer's own time.

    `touched_from` is when the oldest usage arrived that nobody has looked at: the delay of a stop is measured from there.
    """
    everyone = standings(session, organization_ids, at=at)
    arrived = touched_from or {}
    reached_before = _reached_before(session, everyone)
    _write_states(session, everyone, reached_before, {key: at - since for key, since in arrived.items()})
    rows = _move_stops(session, everyone, actor=actor)
    rows += _tell(session, everyone, actor=actor)
    audit.record_all(session, rows)


Everyone = Sequence[tuple[Facts, Sequence[Standing]]]


def _key(standing: Standing) -> tuple[uuid.UUID, str, datetime]:
    return standing.bound.organization_id, standing.bound.subject, standing.bound.window.start


def _all(everyone: Everyone) -> list[tuple[Facts, Standing]]:
    """In the order of their keys, so that two writers take their locks alike."""
    return sorted(((facts, standing) for facts, mine in everyone for standing in mine), key=lambda pair: _key(pair[1]))


def _reached_before(session: Session, everyone: Everyone) -> dict[Any, tuple[datetime | None, Decimal | None]]:
    keys = [_key(standing) for _, standing in _all(everyone)]
    row = LimitState
    found = session.execute(
        select(row.organization_id, row.subject, row.window_start, row.reached_at, row.delay_seconds).where(
            tuple_(row.organization_id, row.subject, row.window_start).in_(keys)
        )
    )
    return {(item.organization_id, item.subject, item.window_start): (item.reached_at, item.delay_seconds) for item in found}


def _write_states(session: Session, everyone: Everyone, before: Mapping[Any, Any], delays: Mapping[uuid.UUID, Any]) -> None:
    rows = [_state(facts, one, before.get(_key(one), (None, None)), delays.get(facts.organization_id)) for facts, one in _all(everyone)]
    if not rows:
        return
    added = insert(LimitState).values(rows)
    changing = ("window_end", "action_on_exceed", "limit_value", "used", "overshoot", "reached_at", "delay_seconds", "evaluated_at")
    session.execute(
        added.on_conflict_do_update(
            index_elements=["organization_id", "subject", "window_start"], set_={name: added.excluded[name] for name in changing}
        )
    )
    shown = [
        {"id": one.bound.id, "current_usage": max(Decimal(0), row["used"]), "exceeded_at": row["reached_at"], "reset_at": row["window_end"]}
        for row, (_, one) in zip(rows, _all(everyone), strict=True)
        if one.bound.id is not None and one.bound.metric is not None
    ]
    if shown:
        session.execute(update(UsageLimit), shown)


def _state(facts: Facts, one: Standing, before: tuple[datetime | None, Decimal | None], delay: Any) -> dict[str, Any]:
    bound, (reached_at, known_delay) = one.bound, before
    seconds = known_delay if reached_at else Decimal(str(delay.total_seconds())) if delay is not None else None
    return {
        "organization_id": bound.organization_id,
        "subject": bound.subject,
        "window_start": bound.window.start,
        "window_end": bound.window.end,
        "metric_id": bound.metric.id if bound.metric else None,
        "currency": bound.currency,
        "action_on_exceed": bound.action.value,
        "limit_value": bound.value,
        "used": one.used,
        "overshoot": one.overshoot if bound.blocks else Decimal(0),
        "reached_at": (reached_at or facts.at) if one.reached else None,
        "delay_seconds": seconds if one.reached and bound.blocks else None,
        "evaluated_at": facts.at,
    }


def _move_stops(session: Session, everyone: Everyone, *, actor: Actor) -> list[dict[str, Any]]:
    """Stop who reached a hard limit, let go who did not; the facts of it."""
    wanted = {
        (one.bound.organization_id, one.bound.subject): (facts, one) for facts, one in _all(everyone) if one.reached and one.bound.blocks
    }
    owners = {facts.organization_id: facts for facts, _ in everyone}
    row = UsageBlock
    known = session.scalars(select(row).where(among(row.organization_id, owners)).order_by(row.organization_id, row.subject)).all()
    rows = []
    for block in known:
        now = wanted.pop((block.organization_id, block.subject), None)
        if now is not None and now[1].bound.window.start == block.window_start:
            block.window_end = now[1].bound.window.end
            continue
        session.execute(delete(row).where(row.organization_id == block.organization_id, row.subject == block.subject))
        session.expunge(block)
        if now is not None:
            wanted[block.organization_id, block.subject] = now
        else:
            rows.append(_fact("usage.resumed", owners[block.organization_id], block.subject, actor, {"reason": block.reason}))
    for (organization_id, subject), (facts, one) in wanted.items():
        window, metric = one.bound.window, one.bound.metric
        session.execute(
            insert(row)
            .values(
                organization_id=organization_id,
                subject=subject,
                metric_id=metric.id if metric else None,
                reason=REASONS[metric is not None],
                window_start=window.start,
                window_end=window.end,
                blocked_at=facts.at,
            )
            .on_conflict_do_nothing()
        )
        rows.append(_fact("usage.stopped", facts, subject, actor, told(facts, one)))
    return rows


def _tell(session: Session, everyone: Everyone, *, actor: Actor) -> list[dict[str, Any]]:
    """Note thresholds that are newly passed; of those of one limit passed at once, only the highest is told."""
    passed = [
        {
            "organization_id": one.bound.organization_id,
            "subject": one.bound.subject,
            "window_start": one.bound.window.start,
            "threshold": threshold,
            "limit_value": one.bound.value,
            "used": one.used,
            "at": facts.at,
        }
        for facts, one in _all(everyone)
        for threshold in one.passed()
    ]
    if not passed:
        return []
    row = LimitNotice
    added = insert(row).values(passed).on_conflict_do_nothing()
    fresh = session.execute(added.returning(row.organization_id, row.subject, row.threshold))
    highest: dict[tuple[uuid.UUID, str], int] = {}
    for organization_id, subject, threshold in fresh:
        highest[organization_id, subject] = max(threshold, highest.get((organization_id, subject), 0))
    rows = []
    for facts, one in _all(everyone):
        found = highest.get((one.bound.organization_id, one.bound.subject))
        if found is not None:
            kind = "limit.reached" if found >= REACHED else "limit.warned"
            rows.append(_fact(kind, facts, one.bound.subject, actor, {**told(facts, one), "threshold": found}))
    return rows


class _Subject:
    """What a fact is about, as the audit trail wants it: the stored limit or cap, or the metric that a plan limits."""

    def __init__(self, organization_id: uuid.UUID, subject: str) -> None:
        kind, _, row_id = subject.partition(":")
        self.__tablename__ = SUBJECTS[kind]
        self.organization_id, self.id = organization_id, row_id


def _fact(kind: str, facts: Facts, subject: str, actor: Actor, data: Mapping[str, Any]) -> dict[str, Any]:
    return audit.entry(actor, kind, _Subject(facts.organization_id, subject), at=facts.at, **data)
