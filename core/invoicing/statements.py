"""Building the Statement from lines: the same for an issued invoice, a draft, a quote and usage so far."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from core import rendering
from core.invoicing import wording
from core.invoicing.models import Invoice, InvoiceLine, InvoiceTax, LineKind
from core.invoicing.statement import FootRow, Group, Row, Statement
from core.pricing.tax import TaxGroup
from core.pricing.terms import Timing
from core.tax.assess import TaxAssessment

ROUNDING_NOTE = "Each charge is rounded once, half away from zero, to the smallest unit of the currency; tax once per rate."


@dataclass(frozen=True, slots=True)
class Line:
    """A line to show, stored or not: the columns of `invoice_lines` a reader needs."""

    code: str
    name: str
    unit: str
    kind: str
    amount_minor: int
    quantity: Decimal
    detail: Mapping[str, Any]
    window_start: datetime | None
    window_end: datetime | None
    metric_id: uuid.UUID | None
    id: uuid.UUID | None = None


@dataclass(frozen=True, slots=True)
class Tax:
    """A tax group to show: "VAT 19 % on €1,444.36"."""

    name: str
    rate_percent: Decimal
    taxable_minor: int
    tax_minor: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Labels:
    """The words around the figures."""

    caption: str
    net: str = "Net"
    total: str = "Total"
    note: str = ""
    compare: str = ""


@dataclass(frozen=True, slots=True)
class Reader:
    """For whom the statement is written. `href` gives a line's own page; `compared` an amount per code to hold against it."""

    currency: str
    timezone: str
    locale: str = rendering.LOCALE
    href: Callable[[Line], str | None] = field(default=lambda _: None)
    csv_href: Callable[[Line], str | None] = field(default=lambda _: None)
    compared: Mapping[str, int] | None = None
    compared_totals: tuple[int, int] | None = None
    """(net, total) of what is compared with, minor units."""


def stored_lines(rows: Iterable[InvoiceLine]) -> list[Line]:
    """The lines of an invoice, in order."""
    return [Line(**{item.name: getattr(row, item.name) for item in fields(Line)}) for row in rows]


def rated_lines(rows: Iterable[Mapping[str, Any]]) -> list[Line]:
    """Lines that were rated but not stored (core.invoicing.lines.rows)."""
    return [Line(**({item.name: row[item.name] for item in fields(Line)} | {"detail": row["detail"]()})) for row in rows]


def until(line: Line, as_of: datetime) -> Line:
    """The line with its service period cut at `as_of`."""
    return replace(line, window_end=as_of)


def stored_taxes(rows: Iterable[InvoiceTax]) -> list[Tax]:
    """The tax groups of an invoice."""
    return [Tax(row.name, row.rate_percent, row.taxable_minor, row.tax_minor, row.note) for row in rows]


def assessed_taxes(assessment: TaxAssessment, groups: Iterable[TaxGroup]) -> list[Tax]:
    """The tax groups of lines that are not stored."""
    return [Tax(assessment.name, group.rate_percent, group.net, group.tax, assessment.note) for group in groups]


def of_invoice(
    invoice: Invoice,
    *,
    caption: str = "Charges",
    locale: str = rendering.LOCALE,
    href: Callable[[Line], str | None] | None = None,
    csv_href: Callable[[Line], str | None] | None = None,
) -> Statement:
    """The statement of an invoice or draft whose lines and taxes are loaded."""
    nowhere: Callable[[Line], str | None] = lambda _: None  # noqa: E731 - the absence of a link
    reader = Reader(invoice.currency, invoice.timezone, locale, href or nowhere, csv_href or nowhere)
    return build(stored_lines(invoice.lines), stored_taxes(invoice.taxes), reader, Labels(caption))


def build(lines: Sequence[Line], taxes: Sequence[Tax], reader: Reader, labels: Labels) -> Statement:
    """Group the lines by what they are for, add them up, add the taxes."""
    net = sum(line.amount_minor for line in lines)
    total = net + sum(tax.tax_minor for tax in taxes)
    rate = taxes[0].rate_percent if len(taxes) == 1 else None
    grouped: dict[str, list[Row]] = {}
    for line in lines:
        grouped.setdefault(_title(line, reader), []).append(_row(line, net, rate, reader))
    before = reader.compared_totals
    foot = [FootRow(labels.net, net, before[0] if before else None, strong=True)]
    foot += [FootRow(_tax_label(tax, reader), tax.tax_minor) for tax in taxes]
    return Statement(
        currency=reader.currency,
        caption=labels.caption,
        groups=tuple(Group(title, tuple(rows)) for title, rows in grouped.items()),
        foot=tuple(foot),
        total=FootRow(labels.total, total, before[1] if before else None),
        note=labels.note,
        rounding_note=ROUNDING_NOTE,
        compare_label=labels.compare,
    )


def _row(line: Line, net: int, rate: Decimal | None, reader: Reader) -> Row:
    currency, locale, detail = reader.currency, reader.locale, line.detail
    corrects = line.kind in (LineKind.ADJUSTMENT, LineKind.CREDIT)
    return Row(
        code=line.code,
        name=_name(line),
        amount_minor=line.amount_minor,
        detail=_detail(line, reader),
        quantity=line.quantity,
        unit=line.unit,
        unit_price_text=wording.unit_price(detail, currency, locale),
        share=wording.share(line.amount_minor, net, currency),
        compare_minor=None if reader.compared is None else reader.compared.get(line.code, 0),
        href=reader.href(line),
        tiers=() if corrects or line.metric_id is None else wording.tier_rows(detail, locale),
        formula=_formula(line, reader),
        rounding=wording.rounding(detail, currency, locale),
        csv_href=reader.csv_href(line),
        tax_rate=rate,
        tiers_title=wording.tiers_title(detail),
    )


def _formula(line: Line, reader: Reader) -> str:
    found = wording.formula(line.detail, line.unit, reader.currency, reader.locale)
    if line.kind not in (LineKind.ADJUSTMENT, LineKind.CREDIT):
        return found
    both = wording.correction(line.detail, reader.currency, reader.locale)
    return f"{both}; {found}" if found and line.metric_id is None else both


def _title(line: Line, reader: Reader) -> str:
    if line.kind == LineKind.MANUAL or line.window_start is None or line.window_end is None:
        return "Other charges"
    span = rendering.period(line.window_start, line.window_end, reader.timezone, reader.locale)
    if line.metric_id is not None:
        first = "Late usage" if line.kind == LineKind.ADJUSTMENT else "Usage corrected" if line.kind == LineKind.CREDIT else "Usage"
        return f"{first}, {span} ({reader.timezone})"
    return "Plan, in advance" if line.detail.get("timing") == Timing.IN_ADVANCE else f"Plan, {span}"


def _name(line: Line) -> str:
    return wording.corrected(line.name, line.detail) if line.kind == LineKind.CREDIT and line.metric_id is None else line.name


def _detail(line: Line, reader: Reader) -> str:
    if line.kind == LineKind.MANUAL or line.window_start is None or line.window_end is None:
        return ""
    if line.kind in (LineKind.ADJUSTMENT, LineKind.CREDIT):
        return wording.correction(line.detail, reader.currency, reader.locale)
    if line.metric_id is not None:
        return wording.price_range(line.detail, reader.currency, reader.locale)
    return wording.service(line.detail, line.window_start, line.window_end, reader.timezone, reader.locale)


def _tax_label(tax: Tax, reader: Reader) -> str:
    rate = rendering.rate(tax.rate_percent, reader.locale)
    return f"{tax.name} {rate} on {rendering.money(tax.taxable_minor, reader.currency, reader.locale)}"
