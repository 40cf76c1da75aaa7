"""Plan changes: a quote that holds for fifteen minutes, and carrying it out for exactly that amount."""

from __future__ import annotations

import uuid
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from msgspec import Meta, field

from api.agreements import Quantities
from api.call import Call
from api.contract import Input, Output, endpoint
from api.invoices import InvoiceOut, invoice_head
from api.reading import Exact
from api.subscriptions import TAG, SubscriptionOut, When, load, subscription_out
from api.values import Text, amount, instant
from core.catalog import queries as catalog
from core.catalog.models import PlanVersion
from core.errors import Conflict, FieldError, Invalid
from core.identity.permissions import Scope
from core.invoicing import quote as quotes
from core.invoicing.wishes import Settled
from core.subscriptions import agreement, plan_change, timeline
from core.subscriptions.models import PlanChangeQuote, Subscription


class PlanChangeIn(Input):
    """What it changes to and when; or the quote of a preview, to be carried out as it stands."""

    plan: Annotated[Text | None, Meta(description="A plan's code or id, or the id of a version; left out: the plan stays.")] = None
    quantity: Annotated[Exact | None, Meta(description="Left out: the quantity stays.")] = None
    quantities: Annotated[Quantities, Meta(description="Named quantities that change; the others stay.")] = field(default_factory=dict)
    when: When = "now"
    preview: Annotated[bool, Meta(description="Only make the quote.")] = False
    quote_id: Annotated[uuid.UUID | None, Meta(description="Carry this quote out, charging exactly what it says.")] = None


class QuoteLine(Output):
    """One line of the quote; credits are negative."""

    code: str
    name: str
    kind: str
    quantity: Decimal
    amount: str
    period_start: datetime | None
    period_end: datetime | None
    detail: dict[str, Any]


class QuoteTax(Output):
    """Tax of one rate."""

    name: str
    rate_percent: Decimal
    taxable: str
    tax: str
    note: str


class QuoteOut(Output):
    """What the change costs. A negative total becomes credit on the account; a change that is not now costs nothing today.

    `billed` says where the lines are charged: `now` on an invoice of their own, on the `next_invoice` where the plan left says so, or
    `later`, as they fall due.
    """

    id: uuid.UUID
    subscription_id: uuid.UUID
    plan: str
    version: int
    quantity: Decimal
    quantities: dict[str, Decimal]
    effective_at: datetime
    billed: str
    currency: str
    subtotal: str
    tax: str
    total: str
    lines: list[QuoteLine]
    taxes: list[QuoteTax]
    expires_at: datetime
    confirmed_at: datetime | None


class PlanChangeOut(Output):
    """The quote, the subscription as it is now, and the invoice of a change that has been carried out."""

    quote: QuoteOut
    subscription: SubscriptionOut
    invoice: InvoiceOut | None


@endpoint("POST", "/billing/subscriptions/<uuid:subscription_id>/plan-change", scope=Scope.BILLING_WRITE, tag=TAG)
def change_plan(call: Call, subscription_id: uuid.UUID, body: PlanChangeIn) -> PlanChangeOut:
    """Preview or carry out a change of plan or quantity.

    With `preview` the answer is a quote, valid for 15 minutes, and nothing changes. Send its id as `quote_id` to carry it out for
    exactly its total; when the amount has changed meanwhile the answer is 409, `errors` name the lines with both amounts, and nothing
    has happened. Without either, the change is quoted and carried out at once. With a platform key `when` may lie behind, as far as
    periods are open to adjustment; what was billed since is set right by the same invoice.
    """
    organization, subscription = load(call, subscription_id)
    at = call.now(organization)
    if body.quote_id is None:
        when = body.when if body.when in ("now", "period_end") else instant(body.when, organization, "/when")
        to = _version(call, subscription, body, at)
        if not call.platform:
            wanted = {**body.quantities, **({} if body.quantity is None else {"": body.quantity})}
            agreement.check_customer(subscription, timeline.spans(subscription), at, to=to, quantities=wanted)
        quote = quotes.create(
            call.session,
            organization.id,
            subscription_id,
            to=to,
            when=when,
            at=at,
            actor=call.actor,
            quantity=body.quantity,
            quantities=body.quantities,
            backdate=call.platform,
        )
    else:
        quote = quotes.get(call.session, organization.id, body.quote_id)
        if quote.subscription_id != subscription_id or body.preview or body.plan is not None:
            raise Invalid(
                "The quote cannot be used like this.", errors=(FieldError("/quote_id", "Send it alone, for its own subscription."),)
            )
    invoice = None
    if not body.preview:
        try:
            invoice = quotes.confirm(call.session, organization.id, quote.id, at=at, actor=call.actor)
        except quotes.QuoteChanged as error:
            now = "" if error.total_minor is None else f" It would be {amount(error.total_minor, quote.currency)} {quote.currency} now."
            raise Conflict(f"{error.message}{now}", code=error.code, errors=error.errors) from error
    shown = InvoiceOut(**invoice_head(invoice)) if invoice else None
    return PlanChangeOut(quote=quote_out(quote), subscription=subscription_out(subscription, at), invoice=shown)


@endpoint("DELETE", "/billing/subscriptions/<uuid:subscription_id>/plan-change", scope=Scope.BILLING_WRITE, tag=TAG)
def undo_plan_change(call: Call, subscription_id: uuid.UUID) -> SubscriptionOut:
    """Take a scheduled plan change back."""
    organization, subscription = load(call, subscription_id)
    at = call.now(organization)
    if not call.platform:
        running = plan_change.version_at(subscription, at)
        agreement.check_customer(subscription, timeline.spans(subscription), at, to=running, quantities={})
    return subscription_out(plan_change.undo_scheduled(call.session, subscription, at=at, actor=call.actor), at)


def _version(call: Call, subscription: Subscription, body: PlanChangeIn, at: datetime) -> PlanVersion:
    if body.plan is not None:
        return catalog.offered_version(call.session, body.plan)
    if body.quantity is None and not body.quantities:
        raise Invalid("Nothing would change.", errors=(FieldError("/plan", "Give a plan, a quantity or a quote_id."),))
    running = [term for term in subscription.terms if term.start_at <= at]
    return (running or list(subscription.terms))[-1].plan_version


def quote_out(row: PlanChangeQuote) -> QuoteOut:
    """A stored quote as the API shows it."""
    return QuoteOut(
        id=row.id,
        subscription_id=row.subscription_id,
        plan=row.content["plan"],
        version=row.content["version"],
        quantity=row.quantity,
        quantities={name: Decimal(held) for name, held in row.quantities.items()},
        effective_at=row.effective_at,
        billed=row.content.get("billed", Settled.NOW),
        currency=row.currency,
        subtotal=amount(row.subtotal_minor, row.currency),
        tax=amount(row.tax_minor, row.currency),
        total=amount(row.total_minor, row.currency),
        lines=[quote_line(entry, row.currency) for entry in row.content["lines"]],
        taxes=[quote_tax(entry, row.currency) for entry in row.content["taxes"]],
        expires_at=row.expires_at,
        confirmed_at=row.confirmed_at,
    )


def quote_line(entry: dict[str, Any], currency: str) -> QuoteLine:
    """A line of a figure as the API shows it."""
    start, end = (entry[name] and datetime.fromisoformat(entry[name]) for name in ("window_start", "window_end"))
    return QuoteLine(
        code=entry["code"],
        name=entry["name"],
        kind=entry["kind"],
        quantity=Decimal(entry["quantity"]),
        amount=amount(entry["amount_minor"], currency),
        period_start=start,
        period_end=end,
        detail=entry["detail"],
    )


def quote_tax(entry: dict[str, Any], currency: str) -> QuoteTax:
    """A tax of a figure as the API shows it."""
    return QuoteTax(
        name=entry["name"],
        rate_percent=Decimal(entry["rate_percent"]),
        taxable=amount(entry["taxable_minor"], currency),
        tax=amount(entry["tax_minor"], currency),
        note=entry["note"],
    )
