"""What decides about a customer's usage, read with one statement however many customers: plan terms, limits, caps, blocks, overrides."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import TextClause, text

from core.errors import NotFound
from core.metering.models import Aggregation, LimitAction, LimitPeriod, LimitSource
from core.periods import Anchor, Interval
from core.reader import Reads

SIMPLE = "m.aggregation IN ('sum', 'count', 'max', 'min') AND m.bucket_size IS NULL AND m.rounding IS NULL AND NOT m.recurring"
# The instant of an organization is its test clock's, else the real time :at. Numbers leave as text: JSON would make floats of them.
_FACTS = f"""
SELECT o.id, o.number, o.timezone, o.currency, o.locale, o.status, now_there.at,
  ARRAY(SELECT jsonb_build_object('subscription_id', s.id, 'plan', p.name, 'since', s.started_at, 'features', v.features,
      'limits', v.limits, 'interval', t.interval, 'count', t.interval_count, 'day', t.anchor_day, 'timezone', t.timezone,
      'metered', (SELECT jsonb_object_agg(m.code,
          jsonb_build_object('metric_id', m.id, 'name', m.name, 'unit', m.unit, 'aggregation', m.aggregation, 'number', m.number,
            'simple', {SIMPLE}))
        FROM jsonb_object_keys(v.limits) AS named(code) JOIN metrics m ON m.code = named.code))
    FROM subscriptions s JOIN subscription_terms t ON t.subscription_id = s.id JOIN plan_versions v ON v.id = t.plan_version_id
    JOIN subscription_plans p ON p.id = v.plan_id
    WHERE s.organization_id = o.id AND s.status NOT IN ('canceled', 'suspended')
      AND t.start_at <= now_there.at AND (t.end_at IS NULL OR t.end_at > now_there.at) ORDER BY s.started_at, s.id) AS terms,
  ARRAY(SELECT jsonb_build_object('id', l.id, 'value', l.limit_value::text, 'period', l.period, 'action', l.action_on_exceed,
      'source', l.source, 'thresholds', l.thresholds, 'since', l.created_at, 'metric_id', m.id, 'code', m.code, 'name', m.name,
      'unit', m.unit, 'aggregation', m.aggregation, 'number', m.number, 'simple', {SIMPLE})
    FROM usage_limits l JOIN metrics m ON m.id = l.metric_id WHERE l.organization_id = o.id ORDER BY m.code, l.id) AS limits,
  ARRAY(SELECT jsonb_build_object('id', c.id, 'amount', c.amount_minor::text, 'action', c.action_on_exceed, 'thresholds', c.thresholds)
    FROM spend_caps c WHERE c.organization_id = o.id ORDER BY c.action_on_exceed) AS caps,
  ARRAY(SELECT jsonb_build_object('subject', b.subject, 'reason', b.reason, 'start', b.window_start, 'end', b.window_end,
      'since', b.blocked_at)
    FROM usage_blocks b WHERE b.organization_id = o.id AND (b.window_end IS NULL OR b.window_end > now_there.at)) AS blocks,
  (SELECT jsonb_object_agg(f.feature, f.value) FROM feature_overrides f WHERE f.organization_id = o.id) AS overrides{{more}}
FROM organizations o LEFT JOIN test_clocks k ON k.id = o.test_clock_id
CROSS JOIN LATERAL (SELECT coalesce(k.frozen_time, CAST(:at AS timestamptz)) AS at) AS now_there
WHERE o.id """  # noqa: S608 - constants only
COLUMNS = 12
FACTS = text(f"{_FACTS.format(more='')}= ANY(CAST(:ids AS uuid[]))")


@dataclass(frozen=True, slots=True)
class Measured:
    """The metric a limit is on. The quantity of a `simple` one is the sum, greatest or least of its hourly rollups."""

    id: uuid.UUID
    code: str
    name: str
    unit: str
    aggregation: Aggregation
    number: int
    simple: bool


@dataclass(frozen=True, slots=True)
class SetLimit:
    """A stored limit on a metric; `since` is when it was set."""

    id: uuid.UUID
    metric: Measured
    value: Decimal
    period: LimitPeriod
    action: LimitAction
    source: LimitSource
    thresholds: tuple[int, ...]
    since: datetime


@dataclass(frozen=True, slots=True)
class SetCap:
    """A stored spend cap, `amount_minor` in the customer's currency."""

    id: uuid.UUID
    amount_minor: int
    action: LimitAction
    thresholds: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Stop:
    """Usage that is refused now; `end` None: until somebody changes the limit."""

    subject: str
    reason: str
    start: datetime
    end: datetime | None
    since: datetime


@dataclass(frozen=True, slots=True)
class PlanTerms:
    """What a running term's plan version grants; `metered` are the metrics that its limits name, `since` is when the subscription began."""

    subscription_id: uuid.UUID
    plan: str
    since: datetime
    features: Mapping[str, Any]
    limits: Mapping[str, Any]
    metered: Mapping[str, Measured]
    anchor: Anchor


@dataclass(frozen=True, slots=True)
class Facts:
    """One customer at its instant `at`. `plans` are those that run then, the newest last."""

    organization_id: uuid.UUID
    number: int
    timezone: str
    currency: str
    locale: str
    active: bool
    at: datetime
    plans: tuple[PlanTerms, ...] = ()
    limits: tuple[SetLimit, ...] = ()
    caps: tuple[SetCap, ...] = ()
    stops: tuple[Stop, ...] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)


def read(reads: Reads, organization_ids: Collection[uuid.UUID], *, at: datetime) -> dict[uuid.UUID, Facts]:
    """The facts of these customers in real time `at`; one that does not exist is missing."""
    return {row.id: _facts(row) for row in reads.execute(FACTS, {"ids": list(organization_ids), "at": at})}


def of_one(reads: Reads, organization_id: uuid.UUID, *, at: datetime) -> Facts:
    """The facts of one customer in real time `at`; NotFound."""
    return read_one(reads, OF_ONE, {"organization_id": organization_id, "at": at})[0]


def read_one(reads: Reads, statement: TextClause, values: Mapping[str, Any]) -> tuple[Facts, Sequence[Any]]:
    """The facts by a statement of `about_one`, and its further columns; NotFound."""
    for row in reads.execute(statement, values):
        return _facts(row), row[COLUMNS:]
    raise NotFound("There is no such account.")


def about_one(more: Iterable[str] = ()) -> TextClause:
    """The statement about the customer `organization_id` in real time `at`, with `more` columns.

    It is another than that about many because PostgreSQL keeps its plan, and planning is the larger half of it.
    """
    return text(f"{_FACTS.format(more=''.join(f', {column}' for column in more))}= CAST(:organization_id AS uuid)")


OF_ONE = about_one()


def _facts(row: Any) -> Facts:
    return Facts(
        row.id,
        row.number,
        row.timezone,
        row.currency,
        row.locale,
        row.status == "active",
        row.at,
        tuple(_plan(item) for item in row.terms),
        tuple(_limit(item) for item in row.limits),
        tuple(
            SetCap(uuid.UUID(item["id"]), int(item["amount"]), LimitAction(item["action"]), tuple(item["thresholds"])) for item in row.caps
        ),
        tuple(_stop(item) for item in row.blocks),
        row.overrides or {},
    )


def _plan(item: Mapping[str, Any]) -> PlanTerms:
    anchor = Anchor(Interval(item["interval"]), item["count"], date.fromisoformat(item["day"]), item["timezone"])
    metered = {code: _measured(code, found) for code, found in (item["metered"] or {}).items()}
    since = datetime.fromisoformat(item["since"])
    return PlanTerms(uuid.UUID(item["subscription_id"]), item["plan"], since, item["features"], item["limits"], metered, anchor)


def _limit(item: Mapping[str, Any]) -> SetLimit:
    return SetLimit(
        uuid.UUID(item["id"]),
        _measured(item["code"], item),
        Decimal(item["value"]),
        LimitPeriod(item["period"]),
        LimitAction(item["action"]),
        LimitSource(item["source"]),
        tuple(item["thresholds"]),
        datetime.fromisoformat(item["since"]),
    )


def _stop(item: Mapping[str, Any]) -> Stop:
    start, since = datetime.fromisoformat(item["start"]), datetime.fromisoformat(item["since"])
    return Stop(item["subject"], item["reason"], start, datetime.fromisoformat(item["end"]) if item["end"] else None, since)


def _measured(code: str, item: Mapping[str, Any]) -> Measured:
    return Measured(
        uuid.UUID(item["metric_id"]), code, item["name"], item["unit"], Aggregation(item["aggregation"]), item["number"], item["simple"]
    )
