"""What was billed: the sums of issued lines, by subscription and line key. Drafts and void invoices do not count."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Text, and_, cast, false, func, select
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import Session, aliased

from core.catalog.models import PricingRule
from core.db import among
from core.invoicing.models import Invoice, InvoiceLine, InvoiceStatus
from core.metering.models import LatePolicy, Metric
from core.periods import Period
from core.pricing.terms import Kind, LineKey, Timing

UNBILLED = (InvoiceStatus.DRAFT, InvoiceStatus.VOID)


@dataclass(frozen=True, slots=True)
class Billed:
    """The sum of what was billed under one key, and how its lines were called. `minor` and `quantity` include credits.

    `window` is the time its newest line is for, `in_advance` whether that is due as it begins. `stays`: its metric ignores late usage, so
    that nothing is added once its cycle was billed.
    """

    minor: int
    quantity: Decimal
    code: str
    name: str
    unit: str
    metric_id: uuid.UUID | None
    cycle_end: datetime
    window: Period
    in_advance: bool
    stays: bool = False


BilledKeys = dict[LineKey, Billed]


def sums(
    session: Session,
    subscription_ids: Collection[uuid.UUID],
    *,
    open_at: datetime,
    uncounted: Collection[InvoiceStatus] = UNBILLED,
) -> dict[uuid.UUID, BilledKeys]:
    """By subscription, everything billed for cycles that end after `open_at`; one query for all of them."""
    line = InvoiceLine
    rows: Any = session.execute(
        select(
            line.subscription_id,
            line.pricing_rule_id,
            line.cycle_start,
            func.sum(line.amount_minor),
            func.sum(line.quantity),
            func.max(line.code),
            func.max(line.name),
            func.max(line.unit),
            func.max(cast(line.metric_id, Text)),
            func.max(line.cycle_end),
            _newest(line.window_start),
            _newest(line.window_end),
            func.bool_and(and_(PricingRule.kind != Kind.USAGE, PricingRule.billing_mode == Timing.IN_ADVANCE)),
            func.coalesce(func.bool_or(Metric.late_policy == LatePolicy.IGNORE), false()),
        )
        .join(Invoice, Invoice.id == line.invoice_id)
        .join(PricingRule, PricingRule.id == line.pricing_rule_id)
        .outerjoin(Metric, Metric.id == line.metric_id)
        .where(
            among(line.subscription_id, subscription_ids),
            line.pricing_rule_id.is_not(None),
            line.cycle_end > open_at,
            Invoice.status.not_in(uncounted),
        )
        .group_by(line.subscription_id, line.pricing_rule_id, line.cycle_start)
    )
    found: dict[uuid.UUID, BilledKeys] = {subscription_id: {} for subscription_id in subscription_ids}
    for (
        subscription_id,
        rule_id,
        cycle_start,
        minor,
        quantity,
        code,
        name,
        unit,
        metric_id,
        cycle_end,
        since,
        until,
        in_advance,
        stays,
    ) in rows:
        window = Period(since or cycle_start, until or cycle_end)
        entry = Billed(
            int(minor), quantity, code, name, unit, uuid.UUID(metric_id) if metric_id else None, cycle_end, window, in_advance, stays
        )
        found[subscription_id][LineKey(str(rule_id), cycle_start)] = entry
    return found


def _newest(column: Any) -> Any:
    """Of the line that was issued last."""
    return func.array_agg(aggregate_order_by(column, Invoice.finalized_at.desc(), InvoiceLine.id.desc()))[1]


def taken_back(session: Session, subscription_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, dict[LineKey, datetime]]:
    """By subscription, the keys that void invoices had billed and no invoice has since, each with the end of its cycle.

    They stay open until they are billed again: what was taken back must not be forgiven because it is old.
    """
    line, later, issued = InvoiceLine, aliased(InvoiceLine), aliased(Invoice)
    same_key = (
        later.subscription_id == line.subscription_id,
        later.pricing_rule_id == line.pricing_rule_id,
        later.cycle_start == line.cycle_start,
    )
    again = (
        select(later.id)
        .join(issued, issued.id == later.invoice_id)
        .where(*same_key, issued.status.not_in(UNBILLED), issued.finalized_at > Invoice.voided_at)
    )
    rows: Any = session.execute(
        select(line.subscription_id, line.pricing_rule_id, line.cycle_start, func.max(line.cycle_end))
        .join(Invoice, Invoice.id == line.invoice_id)
        .where(
            Invoice.status == InvoiceStatus.VOID,
            among(Invoice.subscription_id, subscription_ids),
            line.pricing_rule_id.is_not(None),
            ~again.exists(),
        )
        .group_by(line.subscription_id, line.pricing_rule_id, line.cycle_start)
    )
    found: dict[uuid.UUID, dict[LineKey, datetime]] = {subscription_id: {} for subscription_id in subscription_ids}
    for subscription_id, rule_id, cycle_start, cycle_end in rows:
        found[subscription_id][LineKey(str(rule_id), cycle_start)] = cycle_end
    return found
