"""Invoices and lines written by hand: services outside any plan, corrections agreed with the customer."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core import audit
from core.audit import Actor
from core.db import new_id
from core.errors import Conflict, FieldError, Invalid, NotFound
from core.identity.models import Organization
from core.invoicing import taxes
from core.invoicing.models import Invoice, InvoiceLine, InvoiceReason, InvoiceStatus, LineKind
from core.money import EXACT, format_decimal, parse_decimal, round_half_up

POSITION_MIN = 10_000
"""Lines by hand stand behind the rated ones, which may be written anew at any time."""
LINES_MAX = 200
NAME_LENGTH_MAX = 255
UNIT_LENGTH_MAX = 50


def create(
    session: Session,
    organization_id: uuid.UUID,
    *,
    lines: Sequence[Mapping[str, Any]],
    at: datetime,
    actor: Actor,
    po_number: str | None = None,
    memo: str | None = None,
) -> Invoice:
    """A draft with the given lines: {description, quantity?, unit_price, unit?, code?}, decimals as strings in major units.

    A negative unit price gives something back. Invalid with pointers such as /lines/0/unit_price; NotFound for an unknown organization.
    """
    organization = session.get(Organization, organization_id)
    if organization is None:
        raise NotFound("There is no such organization.")
    errors: list[FieldError] = []
    rows = [_line(entry, f"/lines/{at_index}", organization.currency, errors) for at_index, entry in enumerate(lines)]
    if not 1 <= len(lines) <= LINES_MAX:
        errors.append(FieldError("/lines", f"must hold 1 to {LINES_MAX} lines"))
    if errors:
        raise Invalid("The invoice was not created.", errors=tuple(errors))
    invoice = Invoice(
        id=new_id(),
        organization_id=organization_id,
        status=InvoiceStatus.DRAFT,
        reason=InvoiceReason.MANUAL,
        currency=organization.currency,
        subtotal_minor=0,
        tax_minor=0,
        total_minor=0,
        amount_due_minor=0,
        timezone=organization.timezone,
        po_number=po_number,
        memo=memo,
        created_at=at,
    )
    session.add(invoice)
    session.flush()
    _add(session, invoice, rows, first=POSITION_MIN)
    taxes.renew(session, [invoice.id], at=at)
    audit.record(session, actor, "invoice.drafted", invoice, at=at, reason_code=invoice.reason, lines=len(rows))
    return session.get_one(Invoice, invoice.id, populate_existing=True)


def add_line(
    session: Session, organization_id: uuid.UUID, invoice_id: uuid.UUID, line: Mapping[str, Any], *, at: datetime, actor: Actor
) -> Invoice:
    """Add a line to a draft; rating it again leaves the line alone. NotFound, Conflict when it is finalized, Invalid as `create`."""
    invoice = _draft(session, organization_id, invoice_id)
    errors: list[FieldError] = []
    row = _line(line, "", invoice.currency, errors)
    if errors:
        raise Invalid("The line was not added.", errors=tuple(errors))
    last = session.scalar(select(func.max(InvoiceLine.position)).where(InvoiceLine.invoice_id == invoice.id)) or 0
    _add(session, invoice, [row], first=max(last + 1, POSITION_MIN))
    audit.record(session, actor, "invoice.line_added", invoice, at=at, name=row["name"], amount_minor=row["amount_minor"])
    return _renewed(session, invoice, at)


def remove_line(
    session: Session, organization_id: uuid.UUID, invoice_id: uuid.UUID, line_id: uuid.UUID, *, at: datetime, actor: Actor
) -> Invoice:
    """Take a line written by hand off a draft; NotFound for any other line."""
    invoice = _draft(session, organization_id, invoice_id)
    line = session.scalars(
        select(InvoiceLine).where(InvoiceLine.invoice_id == invoice.id, InvoiceLine.id == line_id, InvoiceLine.kind == LineKind.MANUAL)
    ).one_or_none()
    if line is None:
        raise NotFound("There is no such line written by hand.")
    audit.record(session, actor, "invoice.line_removed", invoice, at=at, name=line.name, amount_minor=line.amount_minor)
    session.delete(line)
    session.flush()
    return _renewed(session, invoice, at)


def _draft(session: Session, organization_id: uuid.UUID, invoice_id: uuid.UUID) -> Invoice:
    invoice = session.scalars(
        select(Invoice).where(Invoice.organization_id == organization_id, Invoice.id == invoice_id).with_for_update()
    ).one_or_none()
    if invoice is None:
        raise NotFound("There is no such invoice.")
    if invoice.status != InvoiceStatus.DRAFT:
        raise Conflict(f"The invoice is {invoice.status}: only a draft can be edited.", code="not_a_draft")
    return invoice


def _renewed(session: Session, invoice: Invoice, at: datetime) -> Invoice:
    taxes.renew(session, [invoice.id], at=at)
    return session.get_one(Invoice, invoice.id, populate_existing=True)


def _add(session: Session, invoice: Invoice, rows: Sequence[Mapping[str, Any]], *, first: int) -> None:
    common = {"organization_id": invoice.organization_id, "invoice_id": invoice.id, "kind": LineKind.MANUAL}
    session.add_all(InvoiceLine(**row, **common, position=position) for position, row in enumerate(rows, start=first))
    session.flush()


def _line(given: Mapping[str, Any], pointer: str, currency: str, errors: list[FieldError]) -> dict[str, Any]:
    """The line as columns; what is wrong with it is added to `errors`."""
    name = _text(given.get("description"), f"{pointer}/description", NAME_LENGTH_MAX, errors, needed=True)
    unit = _text(given.get("unit"), f"{pointer}/unit", UNIT_LENGTH_MAX, errors)
    code = _text(given.get("code"), f"{pointer}/code", 100, errors) or "manual"
    quantity = _decimal(given.get("quantity", "1"), f"{pointer}/quantity", errors)
    unit_price = _decimal(given.get("unit_price"), f"{pointer}/unit_price", errors, signed=True)
    exact = EXACT.multiply(quantity, unit_price)
    amount = round_half_up(exact, currency)
    detail = {
        "formula": f"{quantity:f} × {unit_price:f}",
        "unit_price": f"{unit_price:f}",
        "currency": currency,
        "exact": f"{exact:f}",
        "amount": format_decimal(amount, currency),
        "rounding": "half away from zero, once per line",
    }
    return {"code": code, "name": name, "unit": unit, "quantity": quantity, "amount_minor": amount, "detail": detail}


def _text(value: Any, pointer: str, longest: int, errors: list[FieldError], *, needed: bool = False) -> str:
    text = value.strip() if isinstance(value, str) else ""
    if value is not None and not isinstance(value, str):
        errors.append(FieldError(pointer, "must be text"))
    elif needed and not text:
        errors.append(FieldError(pointer, "is required"))
    elif len(text) > longest or "\x00" in text:
        errors.append(FieldError(pointer, f"must be at most {longest} characters"))
    return text


def _decimal(value: Any, pointer: str, errors: list[FieldError], *, signed: bool = False) -> Decimal:
    try:
        return parse_decimal(f"{value:f}" if isinstance(value, Decimal) else str(value), signed=signed)
    except ValueError as error:
        errors.append(FieldError(pointer, "is required" if value is None else str(error)))
        return Decimal(0)
