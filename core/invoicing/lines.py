"""A due line as it is stored: names, service period, quantity, amount, and the whole derivation in `detail`."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.catalog.models import PricingRule
from core.catalog.plan_document import PRICES_MAX
from core.db import among, new_id
from core.invoicing.rating import Rated
from core.metering.models import Metric
from core.money import format_decimal
from core.periods import Period
from core.pricing.replay import inputs
from core.pricing.rules import Flat
from core.pricing.terms import ON_SPEND, Kind, Timing
from core.pricing.timeline import LineItem, LineKind

ROUNDING = "half away from zero, once per line"


@dataclass(frozen=True, slots=True)
class RuleName:
    """How a pricing rule is shown on an invoice, and its place among the rules of its plan."""

    code: str
    name: str
    unit: str
    metric_id: uuid.UUID | None
    position: int


def rule_names(session: Session, rule_ids: Collection[str]) -> dict[str, RuleName]:
    """The names of pricing rules, by rule id; one query."""
    rows = session.execute(
        select(PricingRule.id, PricingRule.code, PricingRule.name, PricingRule.metric_id, PricingRule.position)
        .add_columns(PricingRule.licensed, Metric.unit)
        .outerjoin(Metric, Metric.id == PricingRule.metric_id)
        .where(among(PricingRule.id, map(uuid.UUID, rule_ids)))
    )
    return {str(row.id): RuleName(row.code, row.name, row.unit or row.licensed or "", row.metric_id, row.position) for row in rows}


def loaded_names(rules: Iterable[PricingRule]) -> dict[str, RuleName]:
    """The same of rules that are loaded with their metrics."""
    return {
        str(rule.id): RuleName(
            rule.code, rule.name, (rule.metric.unit if rule.metric else rule.licensed) or "", rule.metric_id, rule.position
        )
        for rule in rules
    }


def rows(rated: Rated, names: dict[str, RuleName]) -> list[dict[str, Any]]:
    """The invoice lines of what is due, as table rows without their invoice; `detail` is a function that works it out.

    In-advance prices come first, then by cycle, each cycle in the plan's order.
    """
    subject = rated.subject
    found = []
    for position, item in enumerate(sorted(rated.items, key=lambda item: _order(item, names)), start=1):
        start, end = window(item, rated)
        found.append(
            {
                "id": new_id(),
                "organization_id": subject.organization_id,
                "position": position,
                "kind": item.kind.value,
                "subscription_id": subject.subscription_id,
                "pricing_rule_id": uuid.UUID(item.key.rule_id),
                **_called(item, rated, names),
                "cycle_start": item.key.cycle_start,
                "cycle_end": item.owed.cycle.end if item.owed else rated.billed[item.key].cycle_end,
                "window_start": start,
                "window_end": end,
                "quantity": quantity(item, rated),
                "amount_minor": item.minor,
                "detail": partial(detail, item, rated),
            }
        )
    return found


def quantity(item: LineItem, rated: Rated) -> Decimal:
    """The quantity of the line. Usage lines of one key add up to the quantity owed for; a recurring price shows its own quantity."""
    before = rated.billed.get(item.key)
    if item.owed is None:
        return -before.quantity if before else Decimal(0)
    rule = item.owed.rule
    if rule.kind is Kind.USAGE:
        return item.quantity - before.quantity if before else item.quantity
    return Decimal(1) if isinstance(rule.model, Flat) else item.quantity


def window(item: LineItem, rated: Rated) -> tuple[datetime, datetime]:
    """The service period: from the first to the last instant of what the line is owed for; of a whole credit, the cycle."""
    if item.owed is None:
        return item.key.cycle_start, rated.billed[item.key].cycle_end
    spans = [segment.window for part in item.owed.parts for segment in part.segments]
    return min(span.start for span in spans), max(span.end for span in spans)


def detail(item: LineItem, rated: Rated) -> dict[str, Any]:
    """How the amount came about, as JSON values: model, tiers walked, shares of the cycle, exact amount, owed, billed before.

    With the inputs from which `replay` works it out again.
    """
    currency = rated.subject.currency
    derivation = {**item.owed.detail(), **inputs(item.owed, rated.subject.terms)} if item.owed else {}
    return {
        **derivation,
        "currency": currency,
        "owed": format_decimal(item.owed.minor if item.owed else 0, currency),
        "billed_before": format_decimal(item.billed_before, currency),
        "amount": format_decimal(item.minor, currency),
        "rounding": ROUNDING,
        "timing": (Timing.IN_ADVANCE if _in_advance(item) else Timing.IN_ARREARS).value,
    }


def service_period(items: Iterable[LineItem], rated: Rated) -> Period | None:
    """The period an invoice is for: of its prices in arrears if it has any, else of all its lines."""
    listed = list(items)
    ended = [item for item in listed if item.owed and not _in_advance(item)]
    spans = [window(item, rated) for item in ended or listed]
    return Period(min(start for start, _ in spans), max(end for _, end in spans)) if spans else None


def _called(item: LineItem, rated: Rated, names: dict[str, RuleName]) -> dict[str, Any]:
    before = rated.billed.get(item.key)
    known = names.get(item.key.rule_id)
    named = known or before
    if named is None:
        raise LookupError(f"pricing rule {item.key.rule_id} has no name")
    return {"metric_id": named.metric_id, "code": named.code, "name": named.name, "unit": named.unit}


def _order(item: LineItem, names: dict[str, RuleName]) -> tuple[bool, datetime, int, bool]:
    known = names.get(item.key.rule_id)
    rule, position = item.rule, known.position if known else 0
    place = position if rule is None or rule.kind not in ON_SPEND else position + PRICES_MAX  # behind what it looks at
    return not _in_advance(item), item.key.cycle_start, place, item.kind is not LineKind.CREDIT


def _in_advance(item: LineItem) -> bool:
    rule = item.rule
    return rule is None or (rule.kind is not Kind.USAGE and rule.timing is Timing.IN_ADVANCE)
