"""Payments of invoices, and the payment methods they are charged to."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from api.call import Call
from api.contract import Answered, Input, Listing, Output, Page, endpoint
from api.reading import Exact
from api.values import LINE_PATTERN, Reference, Text, amount
from core.db import transaction
from core.errors import Conflict, Declined, FieldError, Invalid, NotFound
from core.identity.permissions import Scope
from core.invoicing import queries as invoices
from core.money import round_half_up, to_decimal
from core.payments import collect, external, methods, queries, refund, setups
from core.payments.models import LIVE, BillingTransaction, PaymentMethod, TransactionStatus, TransactionType

TAG = "Payments"
Url = Annotated[str, Meta(pattern=r"^https?://[!-~]+$", max_length=1000)]
Token = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_]+$", min_length=1, max_length=255, examples=["pm_card_visa"])]


class PaymentIn(Input):
    """Empty: charge the default payment method. With `reference`: book a payment that arrived outside the provider."""

    payment_method_id: uuid.UUID | None = None
    reference: Annotated[Text, Meta(description="The bank's reference of a payment made outside the provider.")] | None = None
    amount: Annotated[Exact, Meta(description="What arrived; left out: the amount due. Only with `reference`.")] | None = None
    return_url: Annotated[Url, Meta(description="Where the cardholder returns to after confirming at the bank.")] | None = None


class PaymentOut(Output):
    """One movement of money, or an attempt at one."""

    id: uuid.UUID
    invoice_id: uuid.UUID | None
    payment_method_id: uuid.UUID | None
    type: str
    status: str
    amount: str
    currency: str
    provider: str
    provider_transaction_id: str | None
    reference: str | None
    action_url: str | None
    failure_code: str | None
    failure_reason: str | None
    created_at: datetime
    settled_at: datetime | None


class RefundIn(Input):
    """What is given back of one payment of the invoice."""

    reason: Annotated[str, Meta(pattern=LINE_PATTERN, min_length=3, max_length=255)]
    payment_id: Annotated[uuid.UUID, Meta(description="Left out: the newest payment that succeeded.")] | None = None
    amount: Annotated[Exact, Meta(description="Left out: all that is left of it.")] | None = None


class PaymentMethodIn(Input):
    """The provider's token of a card or account; no card number ever reaches this API."""

    provider_token: Token
    organization_id: Reference | None = None
    type: Literal["card", "bank_account"] | None = None
    is_default: bool = False


class SetupIn(Input):
    """Where the provider's page leads back to."""

    success_url: Annotated[Url, Meta(description="`{SESSION_ID}` in it becomes the provider's session id.")]
    cancel_url: Url
    organization_id: Reference | None = None


class SetupOut(Output):
    """A page of the provider on which the customer saves a payment method."""

    id: uuid.UUID
    url: str


class PaymentMethodList(Listing):
    """Filters of the list."""

    organization_id: Reference | None = None


class PaymentMethodOut(Output):
    """A saved payment method."""

    id: uuid.UUID
    organization_id: uuid.UUID
    type: str
    provider: str
    brand: str | None
    last_four: str | None
    exp_month: int | None
    exp_year: int | None
    is_default: bool
    created_at: datetime


@endpoint(
    "POST", "/billing/invoices/<uuid:invoice_id>/payments", scope=Scope.BILLING_WRITE, tag=TAG, status=201, stepwise=True, statuses=(202,)
)
def pay_invoice(call: Call, invoice_id: uuid.UUID, body: PaymentIn) -> Answered[PaymentOut]:
    """Pay an open invoice.

    201: paid. 202: the provider has not decided yet, or the cardholder must confirm at `action_url`. 402: declined, nothing was charged.
    """
    organization = call.owning_organization("invoices", invoice_id)
    organization_id, at = organization.id, call.now(organization)
    if body.reference is not None:
        return Answered(_book(call, organization_id, invoice_id, body.reference, body.amount, at), 201)
    if body.amount is not None:
        raise Invalid("A charge is always of the amount due.", errors=(FieldError("/amount", "Leave it out, or give a reference."),))
    paid = collect.pay(
        organization_id,
        invoice_id,
        at=at,
        actor=call.actor,
        payment_method_id=body.payment_method_id,
        return_url=body.return_url,
    )
    if paid.status == TransactionStatus.FAILED:
        raise Declined(paid.failure_reason or "The payment was declined.")
    return Answered(payment_out(paid), 202 if paid.status in LIVE else 201)


@endpoint("GET", "/billing/invoices/<uuid:invoice_id>/payments", scope=Scope.BILLING_READ, tag=TAG)
def list_invoice_payments(call: Call, invoice_id: uuid.UUID) -> Page[PaymentOut]:
    """List the payments, attempts and refunds of an invoice."""
    rows = queries.transactions(call.session, call.owner("invoices", invoice_id), invoice_ids=[invoice_id])
    return Page(data=[payment_out(row) for row in rows], has_more=False)


@endpoint(
    "POST", "/billing/invoices/<uuid:invoice_id>/refunds", scope=Scope.BILLING_WRITE, tag=TAG, status=201, stepwise=True, statuses=(202,)
)
def refund_invoice(call: Call, invoice_id: uuid.UUID, body: RefundIn) -> Answered[PaymentOut]:
    """Refund a payment of an invoice, in whole or in part. 202 while the provider has not decided; never more than was captured."""
    organization = call.owning_organization("invoices", invoice_id)
    organization_id, at = organization.id, call.now(organization)
    paid = _refundable(queries.transactions(call.session, organization_id, invoice_ids=[invoice_id]), body.payment_id)
    minor = None if body.amount is None else _minor(body.amount, paid.currency)
    refunded = refund.refund(organization_id, paid.id, reason=body.reason, at=at, actor=call.actor, amount_minor=minor)
    if refunded.status == TransactionStatus.FAILED:
        raise Declined(refunded.failure_reason or "The refund was refused.", code="refund_refused")
    return Answered(payment_out(refunded), 202 if refunded.status in LIVE else 201)


@endpoint("POST", "/billing/payment-methods", scope=Scope.BILLING_WRITE, tag=TAG, status=201, stepwise=True)
def add_payment_method(call: Call, body: PaymentMethodIn) -> PaymentMethodOut:
    """Save a payment method from the provider's token. The first one is the default; open invoices waiting for one are charged."""
    organization = call.organization(body.organization_id)
    at = call.now(organization)
    try:
        saved = methods.attach(organization.id, provider_token=body.provider_token, at=at, actor=call.actor, make_default=body.is_default)
    except Invalid as error:  # the gateway speaks of its own parameter
        raise Invalid(error.message, errors=(FieldError("/provider_token", error.message),)) from error
    return _method(saved)


@endpoint("POST", "/billing/payment-methods/setup-sessions", scope=Scope.BILLING_WRITE, tag=TAG, status=201, stepwise=True)
def open_setup_session(call: Call, body: SetupIn) -> SetupOut:
    """Open a page of the provider. Send the customer to its address; the saved method appears when they have finished there."""
    organization = call.organization(body.organization_id)
    opened = setups.start(organization.id, success_url=body.success_url, cancel_url=body.cancel_url, at=call.now(organization))
    return SetupOut(id=opened.id, url=opened.url)


@endpoint("GET", "/billing/payment-methods", scope=Scope.BILLING_READ, tag=TAG)
def list_payment_methods(call: Call, query: PaymentMethodList) -> Page[PaymentMethodOut]:
    """List an organization's payment methods, the default first."""
    rows = queries.methods(call.session, call.organization(query.organization_id).id)
    return Page(data=[_method(row) for row in rows], has_more=False)


@endpoint("POST", "/billing/payment-methods/<uuid:payment_method_id>/default", scope=Scope.BILLING_WRITE, tag=TAG)
def make_payment_method_default(call: Call, payment_method_id: uuid.UUID) -> PaymentMethodOut:
    """Make a payment method the default. It is charged from now on."""
    organization = call.owning_organization("payment_methods", payment_method_id)
    return _method(methods.set_default(call.session, organization.id, payment_method_id, at=call.now(organization), actor=call.actor))


@endpoint("DELETE", "/billing/payment-methods/<uuid:payment_method_id>", scope=Scope.BILLING_WRITE, tag=TAG, status=204, stepwise=True)
def remove_payment_method(call: Call, payment_method_id: uuid.UUID) -> None:
    """Remove a payment method, here and at the provider. 409 while it is needed."""
    organization = call.owning_organization("payment_methods", payment_method_id)
    methods.remove(organization.id, payment_method_id, at=call.now(organization), actor=call.actor)


def payment_out(row: BillingTransaction) -> PaymentOut:
    """The row as the API shows it."""
    plain = {name: getattr(row, name) for name in PaymentOut.__struct_fields__ if name != "amount"}
    return PaymentOut(**plain, amount=amount(row.amount_minor, row.currency))


def _book(call: Call, organization_id: uuid.UUID, invoice_id: uuid.UUID, reference: str, given: Exact | None, at: datetime) -> PaymentOut:
    with transaction() as session:
        invoice = invoices.invoice(session, organization_id, invoice_id)
        minor = invoice.amount_due_minor if given is None else _minor(given, invoice.currency)
        booked = external.record_external(
            session, organization_id, invoice_id, amount_minor=minor, reference=reference, at=at, actor=call.actor
        )
        return payment_out(booked)


def _minor(given: Exact, currency: str) -> int:
    minor = round_half_up(given, currency)
    if to_decimal(minor, currency) != given or minor <= 0:
        detail = f"Give more than 0, with the decimals {currency} has."
        raise Invalid("The amount cannot be moved.", errors=(FieldError("/amount", detail),))
    return minor


def _refundable(rows: Sequence[BillingTransaction], payment_id: uuid.UUID | None) -> BillingTransaction:
    charges = [row for row in rows if row.type == TransactionType.CHARGE and row.status == TransactionStatus.SUCCEEDED]
    chosen = next((row for row in charges if payment_id in (None, row.id)), None)
    if chosen is None and payment_id is None:
        raise Conflict("Nothing was paid on this invoice.", code="nothing_paid")
    if chosen is None:
        raise NotFound("This invoice has no such payment.")
    return chosen


def _method(row: PaymentMethod) -> PaymentMethodOut:
    return PaymentMethodOut(**{name: getattr(row, name) for name in PaymentMethodOut.__struct_fields__})
