"""An account in words: the one-line summary, its methods, and its trail as a timeline. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

from core import rendering
from core.analytics.accounts import Sums
from core.audit import AuditEvent
from core.identity.models import Organization
from core.invoicing.models import Invoice
from core.invoicing.statement import Statement
from core.payments.models import PaymentMethod

BRANDS = {"visa": "Visa", "mastercard": "Mastercard", "amex": "American Express", "sepa debit": "SEPA debit"}
GOOD = frozenset({"payment.succeeded", "refund.succeeded", "subscription.started"})
BAD = frozenset(
    {"payment.failed", "payment.retries_exhausted", "payment.disputed", "payment.contradiction", "refund.failed", "invoice.voided"}
)
WORDS = {
    "invoice.finalized": "{number} issued, {total}",
    "invoice.voided": "{number} voided",
    "payment.succeeded": "{amount} paid",
    "payment.failed": "Payment of {amount} declined",
    "payment.started": "Payment of {amount} begun",
    "payment.requires_action": "The bank asks to confirm {amount}",
    "payment.retries_exhausted": "{amount} will not be tried again",
    "refund.succeeded": "{amount} refunded",
    "refund.started": "Refund of {amount} begun",
    "plan_change.quoted": "Plan change quoted",
    "api_key.created": "API key made",
    "api_key.revoked": "API key revoked",
    "organization.created": "Account created",
    "organization.changed": "Account details changed",
    "plan_change.confirmed": "Plan change confirmed, {total}",
}
HIDDEN = frozenset({"payment.started", "invoice.drafted", "invoice.paid", "plan_change.quoted"})
"""What has an entry of its own in other words: a step on the way, or the invoice's side of a payment."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One point of the timeline."""

    title: str
    detail: str
    tone: str


def method_name(method: PaymentMethod | None) -> str:
    """ "Visa •• 4242"."""
    if method is None:
        return "no method"
    brand = (method.brand or method.type).replace("_", " ")
    shown = BRANDS.get(brand, brand.capitalize())
    return f"{shown} •• {method.last_four}" if method.last_four else shown


def entries(trail: Iterable[AuditEvent], organization: Organization) -> list[Entry]:
    """What happened to the account, newest first, in words."""
    return [_entry(row, organization) for row in trail if row.kind not in HIDDEN]


def _entry(row: AuditEvent, organization: Organization) -> Entry:
    local = row.at.astimezone(ZoneInfo(organization.timezone))
    when = f"{rendering.date(local, organization.timezone)}, {local:%H:%M}"
    who = "" if row.actor_kind == "system" else row.actor_label
    about = row.reason or str(row.data.get("failure_reason") or row.data.get("invoice_number") or "")
    detail = ". ".join(part for part in (when, who, about) if part)
    tone = "bad" if row.kind in BAD else "ok" if row.kind in GOOD else ""
    return Entry(_title(row.kind, row.data, organization.currency), detail, tone)


def _title(kind: str, data: Mapping[str, Any], currency: str) -> str:
    plain = kind.replace(".", " ").replace("_", " ").capitalize()
    if kind not in WORDS:
        return plain
    money = str(data.get("currency") or currency)
    parts = {
        name: rendering.money(int(data[f"{name}_minor"]), money) for name in ("amount", "total") if data.get(f"{name}_minor") is not None
    }
    try:
        return WORDS[kind].format(number=data.get("number") or data.get("invoice_number") or "Invoice", **parts)
    except KeyError:
        return plain


def summary(
    paid: Sequence[Invoice], sums: Sums, method: PaymentMethod | None, statement: Statement | None, organization: Organization, on: date
) -> str:
    """What an operator should know first: how much a month and by what, what is late, where usage goes."""
    currency, said = organization.currency, []
    if paid:
        typical = sorted(invoice.total_minor for invoice in paid)[len(paid) // 2]
        said.append(f"Bills about {rendering.money(typical, currency)} a period, {_way(method, organization)}.")
    if sums.overdue_minor and sums.oldest_due:
        days = (on - sums.oldest_due).days
        said.append(f"{rendering.money(sums.overdue_minor, currency)} overdue, the oldest for {days} {'day' if days == 1 else 'days'}.")
    elif sums.open_minor:
        said.append(f"{rendering.money(sums.open_minor, currency)} open, not due yet.")
    strong = next((foot for foot in statement.foot if foot.strong), None) if statement else None
    if strong is not None and strong.compare_minor and strong.amount_minor != strong.compare_minor:
        said.append(f"Spend so far {rendering.change(strong.amount_minor, strong.compare_minor)} than on the same days of the last period.")
    return " ".join(said) or "Nothing has been billed yet."


def _way(method: PaymentMethod | None, organization: Organization) -> str:
    if not organization.auto_collect:
        return "by bank transfer"
    return f"by {method_name(method)}" if method else "no payment method saved"
