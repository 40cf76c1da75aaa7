"""What needs attention on an account, worst first, each with the one thing to do about it. Plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID
from zoneinfo import ZoneInfo

from core import rendering
from core.entitlements.models import UsageBlock
from core.identity.models import Organization
from core.invoicing.models import Invoice
from core.payments.models import BillingTransaction, PaymentMethod
from core.subscriptions.models import Subscription, SubscriptionStatus
from portal.invoice_view import Standing
from portal.payment_methods import expiry, method_name

ACTIONS = ("pay", "invoice", "card", "events", "limits")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing: `action` of ACTIONS says which button stands beside it, `number` and `minor` of which invoice."""

    tone: str
    title: str
    detail: str
    action: str
    number: str = ""
    minor: int = 0


Problems = list[Problem]


def problems(
    due: Sequence[Invoice],
    transactions: Sequence[BillingTransaction],
    methods: Mapping[UUID, PaymentMethod],
    rejected: Mapping[str, int],
    subscription: Subscription | None,
    *,
    now: datetime,
    organization: Organization,
) -> Problems:
    """Failed and overdue payments, payments the bank asks about, cards that end too soon, refused events."""
    zone = organization.timezone
    found = [problem for invoice in due if (problem := _invoice(invoice, transactions, methods, now, zone))]
    usable = [method for method in methods.values() if method.removed_at is None]
    charged = next((method for method in usable if method.is_default), None)
    runs = subscription is not None and subscription.status in (SubscriptionStatus.ACTIVE, SubscriptionStatus.PAST_DUE)
    next_charge = subscription.current_period_end if subscription and subscription.current_period_end else now
    if charged is not None and runs:
        words, tone = expiry(charged, next_charge.astimezone(ZoneInfo(zone)).date())
        if tone:
            when = "has expired" if tone == "bad" else "expires soon"
            found.append(
                Problem(tone, f"{method_name(charged)} {when}", f"Valid until {words}. Save another method before the next charge.", "card")
            )
    elif runs and organization.auto_collect and not usable:
        day = rendering.date(next_charge, zone)
        found.append(
            Problem(
                "warn",
                "There is no payment method",
                f"The next invoice is issued on {day}. Save a card, or pay it by bank transfer.",
                "card",
            )
        )
    if rejected:
        count = sum(rejected.values())
        reasons = ", ".join(
            f"{rendering.quantity(n)} {code.replace('_', ' ')}" for code, n in sorted(rejected.items(), key=lambda item: -item[1])[:3]
        )
        title = f"{rendering.quantity(count)} {'event was' if count == 1 else 'events were'} rejected in the last 24 hours"
        found.append(Problem("warn", title, f"{reasons.capitalize()}. They are not billed until you fix and resend them.", "events"))
    return sorted(found, key=lambda problem: ("bad", "warn", "info").index(problem.tone))


def stopped(stops: Sequence[UsageBlock], organization: Organization) -> Problems:
    """Usage that is refused now, a line for each limit and cap."""
    found = []
    for stop in stops:
        what = "Spend cap reached" if stop.reason == "spend_cap_reached" else "Usage limit reached"
        since = rendering.datetime_tz(stop.blocked_at, organization.timezone)
        until = f", until {rendering.datetime_tz(stop.window_end, organization.timezone)}" if stop.window_end else ""
        detail = f"Since {since}{until}, or until you raise it."
        found.append(Problem("bad", f"{what}: new usage is refused", detail, "limits"))
    return found


def _invoice(
    invoice: Invoice, transactions: Sequence[BillingTransaction], methods: Mapping[UUID, PaymentMethod], now: datetime, zone: str
) -> Problem | None:
    standing = Standing(invoice, [row for row in transactions if row.invoice_id == invoice.id], methods, now, zone)
    amount, number = rendering.money(invoice.amount_due_minor, invoice.currency), invoice.invoice_number or ""
    days = (standing.today - invoice.due_date).days if invoice.due_date else 0
    late = f"{days} {'day' if days == 1 else 'days'} overdue"
    if standing.live is not None:
        if standing.live.action_url:
            return Problem("warn", f"Your bank asks you to confirm {amount}", f"{number}. {standing.sentence}", "invoice", number)
        return None
    if standing.failed is not None:
        title = f"Payment of {amount} failed" + (f", invoice is {late}" if days > 0 else "")
        return Problem("bad", title, f"{number}. {standing.sentence}", "pay", number, invoice.amount_due_minor)
    if days > 0:
        return Problem("bad", f"{amount} is {late}", f"{number}. {standing.sentence}", "pay", number, invoice.amount_due_minor)
    return None
