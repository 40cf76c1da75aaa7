"""Changing a metric: its words and its late policy at once, its definition through a revision that is counted beside it first."""

from __future__ import annotations

import uuid
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType, field

from api.call import Call
from api.contract import Input, Listing, Output, Page, endpoint, page_of
from api.metrics import Bucket, Condition, Counting, Expression, Late, MetricOut, Property, Rounding, counting, metric_out
from api.usage_corrections import ChangeOut, Why, changes_out
from api.values import FREE_PATTERN, Text, cursor_id
from core.identity.permissions import Scope
from core.invoicing import revision_effect
from core.invoicing.usage_effect import Effect
from core.metering import metrics
from core.metering.revisions import proposing, settling
from core.metering.revisions.models import MetricRevision

TAG = "Metrics"
PATH = "/billing/metrics/<metric>/revisions"
TOLD_MAX = 200


class MetricChange(Input):
    """What is to change now; what is left out stays. Events that were taken already are not judged again."""

    name: Text | UnsetType = UNSET
    unit: Annotated[str, Meta(max_length=50, pattern=FREE_PATTERN)] | UnsetType = UNSET
    late: Late | UnsetType = UNSET


class RevisionIn(Input):
    """The whole definition that is to hold instead, and why. `since`: events before this whole hour are read as until now."""

    aggregation: Literal["count", "sum", "max", "min", "avg", "latest", "unique_count", "weighted_sum", "percentile"]
    reason: Why
    property: Property | None = None
    filters: Annotated[list[Condition], Meta(max_length=20)] = field(default_factory=list)
    group_by: Annotated[list[Property], Meta(max_length=5)] = field(default_factory=list)
    expression: Expression | None = None
    operation_property: Property | None = None
    percentile: Decimal | None = None
    recurring: bool = False
    bucket: Bucket | None = None
    rounding: Rounding | None = None
    since: Annotated[datetime, Meta(tz=True)] | None = None


class RevisionOut(Output):
    """A definition counted beside the metric's. Once `applied`, `definition` is what the metric said before."""

    id: uuid.UUID
    metric: str
    status: Literal["open", "applied", "discarded"]
    definition: dict[str, Any]
    since: datetime | None
    reason: str
    created_at: datetime
    created_by: str
    settled_at: datetime | None
    settled_by: str | None
    past: Counting


class Applying(Input):
    """Whether to do it."""

    dry_run: Annotated[bool, Meta(description="Only say what would change.")] = False


class DiffersOut(Output):
    """An account whose usage differs: in `hours` that can still be billed, and in `closed_hours` of cycles that may be closed for good.

    `changes` are what its next invoice settles.
    """

    organization_id: uuid.UUID
    hours: int
    closed_hours: int
    events_before: int
    events_after: int
    changes: list[ChangeOut]


class RevisionEffectOut(Output):
    """What was done, or with `dry_run` would be. Accounts: the 200 whose usage differs most, of `accounts`.

    Usage before `open_at` is not billed again where its cycle is closed; no issued invoice changes.
    """

    dry_run: bool
    revision: RevisionOut
    accounts: int
    open_at: datetime
    differs: list[DiffersOut]


@endpoint("PATCH", "/billing/metrics/<metric>", scope=Scope.BILLING_WRITE, tag=TAG)
def update_metric(call: Call, metric: str, body: MetricChange) -> MetricOut:
    """Change a metric's name, unit or late policy. Needs a platform key. Its definition changes through a revision."""
    call.require_platform()
    found = metrics.find(call.session, metric)
    late = Late(policy=found.late_policy, after_hours=found.late_after_hours) if body.late is UNSET else body.late  # type: ignore[arg-type]
    changed = metrics.change(
        call.session,
        found,
        name=found.name if body.name is UNSET else body.name,
        unit=found.unit if body.unit is UNSET else body.unit,
        late_policy=late.policy,
        late_after_hours=late.after_hours,
        actor=call.actor,
        at=call.now(),
    )
    return metric_out(changed)


@endpoint("POST", PATH, scope=Scope.BILLING_WRITE, tag=TAG, status=201)
def propose_metric_revision(call: Call, metric: str, body: RevisionIn) -> RevisionOut:
    """Propose another definition of a metric: it is counted beside the one that holds, from the stored events. Needs a platform key."""
    call.require_platform()
    made = proposing.propose(
        call.session,
        metrics.find(call.session, metric),
        since=body.since,
        reason=body.reason,
        actor=call.actor,
        at=call.now(),
        aggregation=body.aggregation,
        property=body.property,
        filters=[{"property": one.property, "in": one.values} for one in body.filters],
        group_by=body.group_by,
        expression=body.expression,
        operation_property=body.operation_property,
        percentile=body.percentile,
        recurring=body.recurring,
        bucket_size=body.bucket.size if body.bucket else None,
        bucket_total=body.bucket.total if body.bucket else None,
        rounding=body.rounding.function if body.rounding else None,
        rounding_precision=body.rounding.precision if body.rounding else 0,
    )
    return _out(made)


@endpoint("GET", PATH, scope=Scope.BILLING_READ, tag=TAG)
def list_metric_revisions(call: Call, metric: str, query: Listing) -> Page[RevisionOut]:
    """List a metric's revisions, newest first."""
    rows = proposing.newest(call.session, metrics.find(call.session, metric), before=cursor_id(query), limit=query.limit + 1)
    return page_of(rows, query.limit, _out, lambda row: row.id)


@endpoint("GET", f"{PATH}/<uuid:revision_id>", scope=Scope.BILLING_READ, tag=TAG)
def get_metric_revision(call: Call, metric: str, revision_id: uuid.UUID) -> RevisionOut:
    """Read a revision, and how far it is counted."""
    return _out(proposing.get(call.session, metrics.find(call.session, metric), revision_id))


@endpoint("POST", f"{PATH}/<uuid:revision_id>/apply", scope=Scope.BILLING_WRITE, tag=TAG)
def apply_metric_revision(call: Call, metric: str, revision_id: uuid.UUID, body: Applying) -> RevisionEffectOut:
    """Let a counted revision be what the metric says. Needs a platform key.

    With `dry_run` it is done, measured and taken back: what it says is what will happen. Issued invoices never change; what open cycles
    owe otherwise is settled by the next invoice.
    """
    call.require_platform()
    revision = proposing.get(call.session, metrics.find(call.session, metric), revision_id)
    found = revision_effect.apply(call.session, revision, actor=call.actor, at=call.now(), dry_run=body.dry_run)
    differs = [
        DiffersOut(
            organization_id=one.organization_id,
            hours=one.hours,
            closed_hours=one.closed_hours,
            events_before=one.events_before,
            events_after=one.events_after,
            changes=changes_out(Effect(found.changes.get(one.organization_id, ()))),
        )
        for one in found.differs[:TOLD_MAX]
    ]
    return RevisionEffectOut(
        dry_run=body.dry_run, revision=_out(revision), accounts=len(found.differs), open_at=found.open_at, differs=differs
    )


@endpoint("POST", f"{PATH}/<uuid:revision_id>/discard", scope=Scope.BILLING_WRITE, tag=TAG)
def discard_metric_revision(call: Call, metric: str, revision_id: uuid.UUID) -> RevisionOut:
    """Give up a revision; the metric stays as it is. Needs a platform key."""
    call.require_platform()
    revision = proposing.get(call.session, metrics.find(call.session, metric), revision_id)
    return _out(settling.discard(call.session, revision, actor=call.actor, at=call.now()))


def _out(row: MetricRevision) -> RevisionOut:
    return RevisionOut(
        id=row.id,
        metric=row.metric.code,
        status=row.status,  # type: ignore[arg-type]
        definition=proposing.said(row),
        since=row.since,
        reason=row.reason,
        created_at=row.created_at,
        created_by=row.created_by_label,
        settled_at=row.settled_at,
        settled_by=row.settled_by_label,
        past=counting(row.counted_at, row.counted_through),
    )
