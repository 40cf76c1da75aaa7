"""Replaying an issued invoice: every figure worked out again from the inputs stored with it, and compared with what was issued.

Lines are priced anew by the kernel, what was billed before is added up from the lines issued before, sums and tax are taken again, and
the content is hashed again. Usage is not counted anew: that is what `verify` and `recount` do.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import Text, cast, func, select
from sqlalchemy.orm import Session

from core.audit import AuditEvent
from core.catalog.models import PricingRule
from core.db import among
from core.errors import Conflict, NotFound
from core.invoicing import frozen
from core.invoicing.models import Invoice, InvoiceLine, InvoiceStatus, InvoiceTax
from core.money import EXACT, format_decimal, plain, round_half_up
from core.pricing import replay as pricing
from core.pricing.models import parse, to_json
from core.pricing.tax import totals

HASH_DIGITS = 16
"""Of a hash, enough to see that two differ."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure that comes out otherwise: `where` names it, such as `line 3, amount`; both values as text."""

    where: str
    issued: str
    replayed: str


@dataclass(frozen=True, slots=True)
class Replay:
    """What replaying an invoice showed. `unpriced` are the lines that keep no inputs, with the reason: only their sums were checked."""

    number: str
    lines: int
    differences: tuple[Difference, ...]
    unpriced: tuple[tuple[int, str], ...] = ()

    @property
    def is_identical(self) -> bool:
        """Whether every figure came out as issued."""
        return not self.differences


def find(session: Session, number: str) -> Invoice:
    """An issued invoice by its number; NotFound."""
    invoice = session.scalars(select(Invoice).where(Invoice.invoice_number == number)).one_or_none()
    if invoice is None:
        raise NotFound(f"There is no invoice {number}.")
    return invoice


def replay(session: Session, organization_id: uuid.UUID, invoice_id: uuid.UUID) -> Replay:
    """Replay one invoice; nothing is changed. NotFound for an unknown one or a stranger's, Conflict for a draft: it is not issued yet."""
    wanted = select(Invoice.__table__).where(Invoice.id == invoice_id, Invoice.organization_id == organization_id)
    invoice = session.execute(wanted).mappings().one_or_none()
    if invoice is None:
        raise NotFound("There is no such invoice.")
    if invoice["status"] == InvoiceStatus.DRAFT:
        raise Conflict("A draft has not been issued: it is rated again before it is.", code="not_finalized")
    lines = frozen.by_invoice(session, InvoiceLine, [invoice_id]).get(invoice_id, [])
    taxes = frozen.by_invoice(session, InvoiceTax, [invoice_id]).get(invoice_id, [])
    before, sold = _billed_before(session, invoice, lines), _price_list(session, lines)
    differences: list[Difference] = []
    unpriced: list[tuple[int, str]] = []
    for line in lines:
        try:
            differences += _line(line, invoice["currency"], before, sold)
        except (ValueError, KeyError) as error:
            unpriced.append((line["position"], str(error)))
    differences += [*_sums(invoice, lines, taxes), *_content(invoice, lines, taxes)]
    return Replay(invoice["invoice_number"], len(lines), tuple(differences), tuple(unpriced))


def _line(line: Mapping[Any, Any], currency: str, before: dict[tuple[Any, ...], int], sold: dict[uuid.UUID, Any]) -> Iterator[Difference]:
    where, detail = f"line {line['position']}", line["detail"]
    if line["pricing_rule_id"] is None:
        exact = EXACT.multiply(line["quantity"], Decimal(detail["unit_price"])) if "unit_price" in detail else None
        if exact is not None:
            yield from _differ(where, "amount", format_decimal(line["amount_minor"], currency), _rounded(exact, currency))
        return
    billed = before.get(_key(line), 0)
    yield from _differ(where, "billed before", detail["billed_before"], format_decimal(billed, currency))
    entry = pricing.again(detail, currency)
    owed = entry.minor if entry is not None else 0
    yield from _differ(where, "owed", detail["owed"], format_decimal(owed, currency))
    yield from _differ(where, "amount", format_decimal(line["amount_minor"], currency), format_decimal(owed - billed, currency))
    if entry is not None:
        yield from _derivation(where, detail, entry.detail())
        listed = sold.get(line["pricing_rule_id"])
        yield from _differ(where, "price list", detail["model"], listed if listed is not None else detail["model"])


def _derivation(where: str, issued: Mapping[str, Any], replayed: Mapping[str, Any]) -> Iterator[Difference]:
    """The steps behind the amount: each part's quantity, share, steps and exact amount."""
    yield from _differ(where, "exact amount", issued["exact"], replayed["exact"])
    for i, (old, new) in enumerate(zip(issued["parts"], replayed["parts"], strict=True), start=1):
        for name in new:
            yield from _differ(f"{where}, part {i}", name, old.get(name), new[name])


def _sums(invoice: Mapping[Any, Any], lines: Sequence[Mapping[Any, Any]], taxes: Sequence[Mapping[Any, Any]]) -> Iterator[Difference]:
    currency = invoice["currency"]
    net = sum(line["amount_minor"] for line in lines)
    summed = totals([(tax["taxable_minor"], tax["rate_percent"]) for tax in taxes], currency)
    pairs = (
        ("subtotal", invoice["subtotal_minor"], net),
        ("taxable", sum(tax["taxable_minor"] for tax in taxes), net if taxes else 0),
        ("tax", invoice["tax_minor"], summed.tax),
        ("total", invoice["total_minor"], net + summed.tax),
    )
    for name, issued, replayed in pairs:
        yield from _differ("sums", name, format_decimal(issued, currency), format_decimal(replayed, currency))


def _content(invoice: Mapping[Any, Any], lines: Sequence[Mapping[Any, Any]], taxes: Sequence[Mapping[Any, Any]]) -> Iterator[Difference]:
    found = frozen.content_hash(frozen.digest(invoice, lines, taxes), invoice["invoice_number"])
    yield from _differ("content", "hash", invoice["content_hash"].hex()[:HASH_DIGITS], found.hex()[:HASH_DIGITS])


def _differ(where: str, what: str, issued: Any, replayed: Any) -> Iterator[Difference]:
    if issued != replayed:
        yield Difference(f"{where}, {what}", _text(issued), _text(replayed))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else plain(value) if isinstance(value, Decimal) else str(value)


def _rounded(exact: Decimal, currency: str) -> str:
    return format_decimal(round_half_up(exact, currency), currency)


def _key(line: Mapping[Any, Any]) -> tuple[Any, ...]:
    return line["subscription_id"], line["pricing_rule_id"], line["cycle_start"]


def _billed_before(session: Session, invoice: Mapping[Any, Any], lines: Sequence[Mapping[Any, Any]]) -> dict[tuple[Any, ...], int]:
    """Minor units that invoices issued earlier, and not void by then, had billed under the keys of the lines."""
    line = InvoiceLine
    issued = _recorded("invoice.finalized", str(invoice["id"])).scalar_subquery()
    rows: Any = session.execute(
        select(line.subscription_id, line.pricing_rule_id, line.cycle_start, func.sum(line.amount_minor))
        .join(Invoice, Invoice.id == line.invoice_id)
        .where(
            among(line.subscription_id, {entry["subscription_id"] for entry in lines if entry["subscription_id"]}),
            line.pricing_rule_id.is_not(None),
            line.invoice_id != invoice["id"],
            (Invoice.year < invoice["year"]) | ((Invoice.year == invoice["year"]) & (Invoice.sequence < invoice["sequence"])),
            Invoice.voided_at.is_(None)
            | ~_recorded("invoice.voided", cast(Invoice.id, Text)).where(AuditEvent.recorded_at < issued).exists(),
        )
        .group_by(line.subscription_id, line.pricing_rule_id, line.cycle_start)
    )
    return {(subscription, rule, start): int(minor) for subscription, rule, start, minor in rows}


def _recorded(kind: str, invoice_id: Any) -> Any:
    """When it was recorded, in real time: a test clock may stand still in between."""
    return select(AuditEvent.recorded_at).where(
        AuditEvent.kind == kind, AuditEvent.subject_type == "invoices", AuditEvent.subject_id == invoice_id
    )


def _price_list(session: Session, lines: Sequence[Mapping[Any, Any]]) -> dict[uuid.UUID, Any]:
    """The prices as the catalogue has them: a published price never changes."""
    ids = {line["pricing_rule_id"] for line in lines if line["pricing_rule_id"]}
    rows = session.execute(select(PricingRule.id, PricingRule.rules).where(among(PricingRule.id, ids)))
    return {rule_id: to_json(parse(rules)) for rule_id, rules in rows}
