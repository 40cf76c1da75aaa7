"""What is frozen when an invoice is finalized: the parties as they are that day, and a hash over the whole content.

The hash is SHA-256 over the SHA-256 of the canonical JSON (sorted keys, no blanks) of invoice, lines and taxes, and the number. It is
taken in two steps so that everything costly is done before the number's series is locked.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from core.config import Seller
from core.db import among
from core.invoicing.models import Invoice, InvoiceLine, InvoiceTax
from core.tax import numbers

INVOICE = (
    "id", "organization_id", "subscription_id", "reason", "currency", "subtotal_minor", "tax_minor", "total_minor", "credit_applied_minor",
    "billing_period_start", "billing_period_end", "timezone", "issue_date", "due_date", "finalized_at", "seller", "buyer",
    "po_number", "memo",
)  # fmt: skip
LINE = (
    "position", "kind", "subscription_id", "pricing_rule_id", "metric_id", "code", "name", "cycle_start", "cycle_end", "window_start",
    "window_end", "quantity", "unit", "amount_minor", "detail",
)  # fmt: skip
CHECKED_AT_ONCE = 500
TAX = ("position", "name", "treatment", "rate_percent", "taxable_minor", "tax_minor", "note")


def seller(entity: Seller) -> dict[str, Any]:
    """The issuing legal entity as the invoice shows it."""
    return {**asdict(entity), "address_lines": list(entity.address_lines)}


def buyer(organization: Any) -> dict[str, Any]:
    """The customer as the invoice shows it; a valid VAT id in its written form."""
    address = dict(organization.billing_address)
    country = address.get("country")
    tax_id = organization.tax_id
    if tax_id and country and numbers.is_valid(tax_id, country):
        tax_id = numbers.compact(tax_id, country)
    return {
        "name": organization.name,
        "email": organization.billing_email,
        "address": address,
        "tax_id": tax_id,
        "locale": organization.locale,
    }


def digest(invoice: Mapping[Any, Any], lines: Sequence[Mapping[Any, Any]], taxes: Sequence[Mapping[Any, Any]]) -> bytes:
    """Hash of the content without the number; `lines` and `taxes` are in order of position."""
    content = {
        "invoice": {name: _plain(invoice[name]) for name in INVOICE},
        "lines": [{name: _plain(line[name]) for name in LINE} for line in lines],
        "taxes": [{name: _plain(tax[name]) for name in TAX} for tax in taxes],
    }
    return hashlib.sha256(msgspec.json.encode(content, order="sorted")).digest()


def content_hash(content_digest: bytes, number: str) -> bytes:
    """The hash stored with the invoice."""
    return hashlib.sha256(content_digest + number.encode()).digest()


def changed(session: Session) -> Iterator[str]:
    """Numbers of the finalized invoices whose content no longer has the hash it was finalized with; a few hundred are held at a time."""
    last: uuid.UUID | None = None
    table = Invoice.__table__
    while True:
        wanted = select(table).where(table.c.content_hash.is_not(None)).order_by(table.c.id).limit(CHECKED_AT_ONCE)
        batch = session.execute(wanted if last is None else wanted.where(table.c.id > last)).mappings().all()
        if not batch:
            return
        ids = [invoice["id"] for invoice in batch]
        lines, taxes = by_invoice(session, InvoiceLine, ids), by_invoice(session, InvoiceTax, ids)
        for invoice in batch:
            found = digest(invoice, lines.get(invoice["id"], []), taxes.get(invoice["id"], []))
            if content_hash(found, invoice["invoice_number"]) != invoice["content_hash"]:
                yield invoice["invoice_number"]
        last = ids[-1]


def by_invoice(
    session: Session, model: type[InvoiceLine] | type[InvoiceTax], invoice_ids: Sequence[uuid.UUID]
) -> dict[uuid.UUID, list[Mapping[Any, Any]]]:
    """The lines or taxes of many invoices as plain rows, in order of position; one query."""
    table = model.__table__
    rows = session.execute(select(table).where(among(table.c.invoice_id, invoice_ids)).order_by(table.c.invoice_id, table.c.position))
    found: dict[uuid.UUID, list[Mapping[Any, Any]]] = {}
    for row in rows.mappings():
        found.setdefault(row["invoice_id"], []).append(row)
    return found


def _plain(value: Any) -> Any:
    """One spelling for each value, whatever the driver makes of it: UTC instants, decimals without trailing zeros."""
    if value is None or isinstance(value, (bool, int, str, dict, list)):
        return value
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return f"{value.normalize():f}" if value else "0"
    return str(value)
