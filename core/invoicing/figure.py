"""What a change of a subscription's timeline costs: the lines the next billing would make of it, their tax, and the total.

The same computation as the invoice it leads to, on terms that are only proposed; nothing is saved. A quote locks one of these, and a
page shows one before a person pauses, cancels or brings back a subscription.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy.orm import Session

from core import config
from core.audit import plain
from core.errors import FieldError
from core.identity.models import Organization
from core.invoicing import lines, rating, statements, taxes
from core.invoicing.models import InvoiceStatus
from core.invoicing.rating import Subject
from core.invoicing.statement import Statement
from core.invoicing.statements import Labels, Line, Reader, Tax
from core.money import format_decimal
from core.pricing.tax import totals
from core.pricing.terms import Term
from core.subscriptions import proposal
from core.subscriptions.models import Subscription
from core.subscriptions.status import Act

Lines = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Figure:
    """Lines and taxes as JSON values, and their sums in minor units; a negative total is a credit to the account."""

    lines: Lines
    taxes: Lines
    net: int
    tax: int
    total: int


def of_terms(
    session: Session,
    subscription: Subscription,
    terms: tuple[Term, ...],
    *,
    as_of: datetime,
    at: datetime,
    uncounted: Collection[InvoiceStatus] = (InvoiceStatus.VOID,),
    due: bool = True,
) -> Figure:
    """What the timeline `terms` would make due by `as_of`, less what was billed on invoices that are not `uncounted`, taxed at `at`.

    Not `due`: nothing is charged yet, and the figure is zero.
    """
    rows: Lines = []
    if due:
        subject = Subject(subscription.id, subscription.organization_id, subscription.currency, terms, as_of)
        [rated] = rating.rate(session, [subject], adjustment_days=config.current().adjustment_days, uncounted=uncounted)
        rows = lines.rows(rated, lines.rule_names(session, {item.key.rule_id for item in rated.items}))
    organization = session.get_one(Organization, subscription.organization_id)
    point = (organization.id, taxes.local_day(at, organization.timezone))
    assessment = taxes.assessments(session, [point])[point]
    sums = totals([(sum(row["amount_minor"] for row in rows), assessment.rate_percent)], subscription.currency)
    kept = [{name: plain(row[name]) for name in _KEPT} | {"detail": row["detail"]()} for row in rows]
    tax = {"name": assessment.name, "rate_percent": str(assessment.rate_percent), "note": assessment.note}
    groups = [{**tax, "taxable_minor": group.net, "tax_minor": group.tax} for group in sums.groups]
    return Figure(kept, groups, sums.net, sums.tax, sums.total)


def of_act(session: Session, subscription: Subscription, act: Act, *, at: datetime) -> Figure:
    """What billing would make of one of `proposal.MOVING` acts, done now."""
    return of_terms(session, subscription, proposal.proposed(subscription, act, at=at), as_of=at, at=at)


def statement(found: Lines, taxed: Lines, organization: Organization, currency: str, *, title: str, total: str) -> Statement:
    """Lines and taxes, as a figure has them, as a page shows them."""
    tax = [Tax(entry["name"], Decimal(entry["rate_percent"]), entry["taxable_minor"], entry["tax_minor"], entry["note"]) for entry in taxed]
    reader = Reader(currency, organization.timezone, organization.locale)
    return statements.build([_line(entry) for entry in found], tax, reader, Labels(title, total=total))


def differences(before: Lines, now: Lines, currency: str) -> tuple[FieldError, ...]:
    """Each line that is another now, came, or went, with both amounts."""
    said, says = ({(line["code"], line["cycle_start"], line["kind"]): line for line in lines} for lines in (before, now))
    found = []
    for i, key in enumerate(dict.fromkeys([*said, *says])):
        was, becomes = (lines[key]["amount_minor"] if key in lines else None for lines in (said, says))
        if was != becomes:
            words = (format_decimal(amount, currency) if amount is not None else "absent" for amount in (was, becomes))
            found.append(FieldError(f"/lines/{i}", f"{key[0]}: was {next(words)}, is now {next(words)} {currency}"))
    return tuple(found)


def _line(entry: dict[str, Any]) -> Line:
    """A line as it was stored in the quote."""
    return Line(
        **{name: entry[name] for name in ("code", "name", "unit", "kind", "amount_minor", "detail")},
        quantity=Decimal(entry["quantity"]),
        window_start=datetime.fromisoformat(entry["window_start"]),
        window_end=datetime.fromisoformat(entry["window_end"]),
        metric_id=uuid.UUID(entry["metric_id"]) if entry["metric_id"] else None,
    )


_KEPT = (
    "code",
    "name",
    "unit",
    "kind",
    "amount_minor",
    "quantity",
    "window_start",
    "window_end",
    "cycle_start",
    "cycle_end",
    "metric_id",
)
