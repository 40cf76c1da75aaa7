"""What is frozen when an invoice is finalized: the parties as they are that day, and a hash over the whole content.

The hash is SHA-256 over the SHA-256 of the canonical JSON (sorted keys, no blanks) of invoice, lines and taxes, and the number. It is
taken in two steps so that everything costly is done before the number's series is locked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from core.config import Seller
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


def digest(invoice: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], taxes: Sequence[Mapping[str, Any]]) -> bytes:
    """Hash of the content without the number; `lines` and `taxes` are in order of position."""
    content = {
        "invoice": {name: _plain(invoice[name]) for name in INVOICE},
        "lines": [{name: _plain(line[name]) for name in LINE} for line in lines],
        "taxes": [{name: _plain(tax[name]) for name in TAX} for tax in taxes],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()).digest()


def content_hash(content_digest: bytes, number: str) -> bytes:
    """The hash stored with the invoice."""
    return hashlib.sha256(content_digest + number.encode()).digest()


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
