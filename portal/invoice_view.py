"""What an invoice's page says in words: how it stands, what happens next, what has happened. Plain values in, plain values out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID
from zoneinfo import ZoneInfo

from core import rendering
from core.identity.organizations import countries
from core.invoicing.listing import is_overdue
from core.invoicing.models import Invoice, InvoiceStatus
from core.payments.models import LIVE, BillingTransaction, PaymentMethod, TransactionStatus, TransactionType
from portal.payment_methods import method_name


def parties(invoice: Invoice) -> list[tuple[str, str, list[str], str]]:
    """Seller and buyer as they were frozen with the invoice: (heading, name, address lines, tax number)."""
    seller, buyer = invoice.seller or {}, invoice.buyer or {}
    address = buyer.get("address", {})
    town = " ".join(part for part in (address.get("postal_code"), address.get("city")) if part)
    country = countries().get(address.get("country", ""), "")
    lines = [part for part in (address.get("line1"), address.get("line2"), town, address.get("state"), country) if part]
    return [
        ("From", seller.get("legal_name", ""), list(seller.get("address_lines", ())), seller.get("vat_id", "")),
        ("To", buyer.get("name", ""), lines, buyer.get("tax_id") or ""),
    ]


@dataclass(frozen=True, slots=True)
class Standing:
    """How an invoice stands at one instant of its customer's time."""

    invoice: Invoice
    transactions: Sequence[BillingTransaction]
    methods: Mapping[UUID, PaymentMethod]
    now: datetime
    zone: str

    @property
    def today(self) -> date:
        """The customer's calendar day."""
        return self.now.astimezone(ZoneInfo(self.zone)).date()

    @property
    def state(self) -> str:
        """The badge: overdue and processing are told apart from open."""
        if self.live is not None and self.invoice.status == InvoiceStatus.OPEN:
            return "processing"
        return "overdue" if is_overdue(self.invoice, on=self.today) else self.invoice.status

    @property
    def live(self) -> BillingTransaction | None:
        """The charge on its way, if there is one."""
        return next((row for row in self.transactions if row.type == TransactionType.CHARGE and row.status in LIVE), None)

    @property
    def failed(self) -> BillingTransaction | None:
        """The last charge, if it failed."""
        last = next((row for row in self.transactions if row.type == TransactionType.CHARGE), None)
        return last if last is not None and last.status == TransactionStatus.FAILED else None

    @property
    def default(self) -> PaymentMethod | None:
        """What will be charged: the invoice's own method, else the default."""
        usable = [method for method in self.methods.values() if method.removed_at is None]
        chosen = next((method for method in usable if method.id == self.invoice.payment_method_id), None)
        return chosen or next((method for method in usable if method.is_default), None)

    @property
    def usable(self) -> list[PaymentMethod]:
        """The methods one may pay with, the default first."""
        return sorted((m for m in self.methods.values() if m.removed_at is None), key=lambda m: not m.is_default)

    @property
    def payable(self) -> bool:
        """Whether money is due and none is on its way."""
        return self.invoice.status == InvoiceStatus.OPEN and self.invoice.amount_due_minor > 0 and self.live is None

    def name(self, row: BillingTransaction) -> str:
        """What a movement of money was made with."""
        if row.payment_method_id is None:
            return "Bank transfer"
        return method_name(self.methods.get(row.payment_method_id))

    @property
    def sentence(self) -> str:
        """How it stands and what happens next, in one or two sentences."""
        invoice = self.invoice
        if invoice.status == InvoiceStatus.PAID:
            return self._paid()
        if invoice.status == InvoiceStatus.VOID:
            when = f" on {rendering.date(invoice.voided_at, self.zone)}" if invoice.voided_at else ""
            return f"This invoice was taken back{when}. Nothing is owed on it."
        if invoice.status == InvoiceStatus.UNCOLLECTIBLE:
            return "We have stopped asking for this invoice. You can still pay it by bank transfer."
        return " ".join(part for part in (self._due(), self._attempt(), self._next()) if part)

    def _paid(self) -> str:
        invoice = self.invoice
        done = next(
            (row for row in self.transactions if row.status == TransactionStatus.SUCCEEDED and row.type == TransactionType.CHARGE), None
        )
        if done is not None:
            return f"Paid on {rendering.date(invoice.paid_at or done.created_at, self.zone)} with {self.name(done)}. Nothing more to do."
        if invoice.total_minor < 0:
            return "The total is a credit: it is set against your next invoices."
        return "Nothing was left to pay." if invoice.total_minor == 0 else "Paid from your credit. Nothing more to do."

    def _due(self) -> str:
        due = self.invoice.due_date
        if due is None:
            return ""
        days = (self.today - due).days
        if days > 0:
            return f"Due {rendering.date(due)}, {days} {'day' if days == 1 else 'days'} ago."
        return f"Due {rendering.date(due)}, today." if days == 0 else f"Due {rendering.date(due)}."

    def _attempt(self) -> str:
        if self.live is not None:
            return {
                TransactionStatus.REQUIRES_ACTION: f"Your bank asks you to confirm the payment with {self.name(self.live)}.",
                TransactionStatus.PROCESSING: f"The payment with {self.name(self.live)} is being processed. Nothing more to do.",
                TransactionStatus.UNKNOWN: "We are asking the payment provider how the last payment went. You are not charged twice.",
            }.get(TransactionStatus(self.live.status), f"The payment with {self.name(self.live)} is on its way.")
        if self.failed is not None:
            day = rendering.day_month(self.failed.created_at, self.zone)
            reason = f" ({self.failed.failure_reason})" if self.failed.failure_reason else ""
            return f"{self.name(self.failed)} was declined on {day}{reason}. Nothing was charged."
        return ""

    def _next(self) -> str:
        if self.invoice.next_collect_at is None or self.live is not None:
            return "" if self.default or self.live else "There is no payment method to charge."
        if self.default is None:
            return "There is no payment method to charge."
        again = " again" if self.failed else ""
        if self.invoice.next_collect_at <= self.now:
            return f"We charge {method_name(self.default)}{again} within minutes."
        return f"We charge {method_name(self.default)}{again} on {rendering.datetime_tz(self.invoice.next_collect_at, self.zone)}."

    def timeline(self, mails: Sequence[tuple[str, datetime]] = ()) -> list[dict[str, str]]:
        """What happened, newest first, below what is planned."""
        invoice = self.invoice
        known: list[tuple[datetime, str, str, str]] = []
        if invoice.finalized_at:
            known.append((invoice.finalized_at, "Issued", "", "ok"))
        known += [(at, f"Sent to {recipient}", "", "") for recipient, at in mails]
        known += [(row.settled_at or row.created_at, *self._event(row)) for row in self.transactions]
        if invoice.voided_at:
            known.append((invoice.voided_at, "Taken back", "Nothing is owed", ""))
        newest = sorted(range(len(known)), key=lambda i: (known[i][0], i), reverse=True)
        done = [
            {"title": title, "detail": f"{rendering.datetime_tz(at, self.zone)}{'. ' + detail if detail else ''}", "tone": tone}
            for at, title, detail, tone in (known[i] for i in newest)
        ]
        if invoice.next_collect_at is not None and self.payable and self.default is not None:
            detail = f"{rendering.datetime_tz(max(invoice.next_collect_at, self.now), self.zone)}, {method_name(self.default)}"
            done.insert(0, {"title": "Next automatic try" if self.failed else "Automatic payment", "detail": detail, "tone": "future"})
        return done

    def _event(self, row: BillingTransaction) -> tuple[str, str, str]:
        amount = rendering.money(row.amount_minor, row.currency)
        if row.type == TransactionType.REFUND:
            return f"{amount} refunded", row.failure_reason or "", "ok" if row.status == TransactionStatus.SUCCEEDED else ""
        match row.status:
            case TransactionStatus.SUCCEEDED:
                return f"Paid {amount}", f"{self.name(row)}{', reference ' + row.reference if row.reference else ''}", "ok"
            case TransactionStatus.FAILED:
                return f"{self.name(row)} declined", (row.failure_reason or "").capitalize(), "bad"
            case TransactionStatus.REQUIRES_ACTION:
                return "Your bank asks you to confirm", self.name(row), ""
        return f"Payment of {amount} started", self.name(row), ""
