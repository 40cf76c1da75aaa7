"""Invoices: reading them down to the tiers, writing them by hand, finalizing, voiding, their PDF."""

from __future__ import annotations

import time
import uuid
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from flask import Response
from msgspec import Meta, field

from api.call import Call
from api.contract import Input, Listing, Output, Page, endpoint, page_of
from api.payments import PaymentOut, payment_out
from api.reading import Exact
from api.values import FREE_PATTERN, Code, Reference, ShortText, Text, amount, cursor_id, plain_decimal
from core.db import transaction
from core.errors import Conflict, FieldError, Invalid, NotFound
from core.identity.models import Organization
from core.identity.permissions import Scope
from core.invoicing import draft, finalize, manual, queries, void, write_off
from core.invoicing.models import Invoice, InvoiceLine, InvoiceStatus, InvoiceTax
from core.payments import queries as payments

TAG = "Invoices"
PDF = "application/pdf"
PDF_WAIT_SECONDS = 10


class LineItemIn(Input):
    """A line written by hand. A negative unit price gives something back."""

    description: Text
    unit_price: Annotated[Exact, Meta(description="Major units of the organization's currency.")]
    quantity: Exact = field(default_factory=lambda: Exact("1"))
    unit: Annotated[str, Meta(max_length=50, pattern=FREE_PATTERN)] | None = None
    code: Code | None = None


class InvoiceIn(Input):
    """A new draft: lines written by hand, or what a subscription owes now, or both."""

    organization_id: Reference | None = None
    subscription_id: uuid.UUID | None = None
    line_items: Annotated[list[LineItemIn], Meta(max_length=200)] = field(default_factory=list)
    po_number: ShortText | None = None
    memo: Annotated[str, Meta(max_length=1000, pattern=FREE_PATTERN)] | None = None


class ReasonIn(Input):
    """Why."""

    reason: Text | None = None


class InvoiceList(Listing):
    """Filters of the list."""

    organization_id: Reference | None = None
    subscription_id: uuid.UUID | None = None
    status: Literal["draft", "open", "paid", "void", "uncollectible"] | None = None


class LineOut(Output):
    """One line, tax excluded. `detail` explains the amount: model, tiers walked, fraction of the cycle, rounding."""

    id: uuid.UUID
    kind: str
    code: str
    name: str
    quantity: Decimal
    unit: str
    amount: str
    period_start: datetime | None
    period_end: datetime | None
    subscription_id: uuid.UUID | None
    tiers: Annotated[list[dict[str, Any]], Meta(description="The steps of the price walked, exact.")]
    detail: dict[str, Any]


class TaxOut(Output):
    """Tax of one rate, rounded once for all its lines."""

    name: str
    treatment: str
    rate_percent: Decimal
    taxable: str
    tax: str
    note: str


class InvoiceOut(Output):
    """An invoice without its lines. total = subtotal + tax; amount_due = total - credit_applied - amount_paid."""

    id: uuid.UUID
    organization_id: uuid.UUID
    subscription_id: uuid.UUID | None
    invoice_number: str | None
    status: str
    reason: str
    currency: str
    subtotal: str
    tax: str
    total: str
    credit_applied: str
    amount_paid: str
    amount_due: str
    billing_period_start: datetime | None
    billing_period_end: datetime | None
    timezone: str
    issue_date: date | None
    due_date: date | None
    finalized_at: datetime | None
    paid_at: datetime | None
    voided_at: datetime | None
    auto_finalize_at: datetime | None
    po_number: str | None
    memo: str | None
    created_at: datetime


class InvoiceDetail(InvoiceOut):
    """An invoice with lines, taxes and payments. Seller and buyer are as they were when it was finalized."""

    lines: list[LineOut]
    taxes: list[TaxOut]
    payments: list[PaymentOut]
    seller: dict[str, Any] | None
    buyer: dict[str, Any] | None


@endpoint("GET", "/billing/invoices", scope=Scope.BILLING_READ, tag=TAG)
def list_invoices(call: Call, query: InvoiceList) -> Page[InvoiceOut]:
    """List invoices, newest first."""
    organization_id = call.filter(query.organization_id)
    status = InvoiceStatus(query.status) if query.status else None
    before_id, limit = cursor_id(query), query.limit + 1
    if query.subscription_id is not None:
        organization_id = call.owner("subscriptions", query.subscription_id)
        rows = queries.invoices(
            call.session, organization_id, status=status, subscription_id=query.subscription_id, before_id=before_id, limit=limit
        )
    elif organization_id is not None:
        rows = queries.invoices(call.session, organization_id, status=status, before_id=before_id, limit=limit)
    else:
        rows = queries.all_invoices(call.session, status=status, before_id=before_id, limit=limit)
    return page_of(rows, query.limit, lambda row: InvoiceOut(**invoice_head(row)), lambda row: row.id)


@endpoint("POST", "/billing/invoices", scope=Scope.BILLING_WRITE, tag=TAG, status=201)
def create_invoice(call: Call, body: InvoiceIn) -> InvoiceDetail:
    """Create a draft invoice. With `subscription_id` everything the subscription owes by now is put on it; 409 when that is nothing."""
    lines = [_line_document(item) for item in body.line_items]
    if body.subscription_id is None:
        return _written(call, call.organization(body.organization_id), lines, body)
    organization = call.owning_organization("subscriptions", body.subscription_id)
    if body.organization_id is not None and call.organization(body.organization_id).id != organization.id:
        raise NotFound("There is no such subscription.")
    at = call.now(organization)
    billed = draft.bill(call.session, body.subscription_id, as_of=at, actor=call.actor)
    if billed is None and not lines:
        raise Conflict("Nothing is due on this subscription now.", code="nothing_due")
    if billed is None:
        return _written(call, organization, lines, body)
    for line in lines:
        manual.add_line(call.session, organization.id, billed.id, line, at=at, actor=call.actor)
    return _detail(call, organization.id, billed.id)


@endpoint("GET", "/billing/invoices/<uuid:invoice_id>", scope=Scope.BILLING_READ, tag=TAG)
def get_invoice(call: Call, invoice_id: uuid.UUID) -> InvoiceDetail:
    """Read an invoice with lines, tiers, taxes and payments."""
    return _detail(call, call.owner("invoices", invoice_id), invoice_id)


@endpoint("POST", "/billing/invoices/<uuid:invoice_id>/finalization", scope=Scope.BILLING_WRITE, tag=TAG)
def finalize_invoice(call: Call, invoice_id: uuid.UUID) -> InvoiceDetail:
    """Finalize a draft. It is rated once more, gets its number and never changes again; then it is collected and mailed."""
    organization = call.owning_organization("invoices", invoice_id)
    finalize.finalize_invoice(call.session, invoice_id, at=call.now(organization), actor=call.actor)
    return _detail(call, organization.id, invoice_id)


@endpoint("POST", "/billing/invoices/<uuid:invoice_id>/void", scope=Scope.BILLING_WRITE, tag=TAG)
def void_invoice(call: Call, invoice_id: uuid.UUID, body: ReasonIn) -> InvoiceDetail:
    """Void an open invoice. Its number stays; what it billed is owed still and comes with the next invoice."""
    organization = call.owning_organization("invoices", invoice_id)
    void.void_invoice(call.session, invoice_id, at=call.now(organization), actor=call.actor, reason=body.reason)
    return _detail(call, organization.id, invoice_id)


@endpoint("POST", "/billing/invoices/<uuid:invoice_id>/write-off", scope=Scope.BILLING_WRITE, tag=TAG)
def write_off_invoice(call: Call, invoice_id: uuid.UUID, body: ReasonIn) -> InvoiceDetail:
    """Give up on an open invoice: it becomes uncollectible, what is due is bad debt. A payment that still arrives is taken."""
    organization = call.owning_organization("invoices", invoice_id)
    write_off.write_off(call.session, invoice_id, at=call.now(organization), actor=call.actor, reason=body.reason)
    return _detail(call, organization.id, invoice_id)


@endpoint("GET", "/billing/invoices/<uuid:invoice_id>/pdf", scope=Scope.BILLING_READ, tag=TAG, produces=PDF)
def get_invoice_pdf(call: Call, invoice_id: uuid.UUID) -> Response:
    """Download the PDF of a finalized invoice. Just after finalizing, the answer waits until it has been made."""
    organization_id = call.owner("invoices", invoice_id)
    invoice = queries.invoice(call.session, organization_id, invoice_id)
    if invoice.finalized_at is None:
        raise Conflict("A draft has no PDF: finalize it first.", code="not_finalized")
    name, deadline = invoice.invoice_number, time.monotonic() + PDF_WAIT_SECONDS
    while True:
        try:
            with transaction() as session:
                content = queries.document(session, organization_id, invoice_id).content
        except NotFound:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return Response(content, headers={"Content-Disposition": f'attachment; filename="{name}.pdf"'}, content_type=PDF)


def invoice_head(row: Invoice) -> dict[str, Any]:
    """The fields of InvoiceOut."""
    plain = {name: getattr(row, name) for name in InvoiceOut.__struct_fields__ if hasattr(row, name)}
    money = ("subtotal", "tax", "total", "credit_applied", "amount_paid", "amount_due")
    return {**plain, **{name: amount(getattr(row, f"{name}_minor"), row.currency) for name in money}}


def _written(call: Call, organization: Organization, lines: list[dict[str, str]], body: InvoiceIn) -> InvoiceDetail:
    if not lines:
        raise Invalid("The invoice has no lines.", errors=(FieldError("/line_items", "Give at least one line, or a subscription_id."),))
    at, extra = call.now(organization), {"po_number": body.po_number, "memo": body.memo}
    try:
        created = manual.create(call.session, organization.id, lines=lines, at=at, actor=call.actor, **extra)
    except Invalid as error:
        pointed = (FieldError(item.pointer.replace("/lines", "/line_items", 1), item.detail) for item in error.errors)
        raise Invalid(error.message, errors=tuple(pointed)) from error
    return _detail(call, organization.id, created.id)


def _line_document(item: LineItemIn) -> dict[str, str]:
    given = {"description": item.description, "unit": item.unit, "code": item.code}
    decimals = {"quantity": plain_decimal(item.quantity), "unit_price": plain_decimal(item.unit_price)}
    return {**{name: value for name, value in given.items() if value is not None}, **decimals}


def _detail(call: Call, organization_id: uuid.UUID, invoice_id: uuid.UUID) -> InvoiceDetail:
    call.session.flush()
    row = queries.invoice(call.session, organization_id, invoice_id)
    return InvoiceDetail(
        **invoice_head(row),
        lines=[_line(line, row.currency) for line in row.lines],
        taxes=[_tax(tax, row.currency) for tax in row.taxes],
        payments=[payment_out(paid) for paid in payments.transactions(call.session, organization_id, invoice_ids=[invoice_id])],
        seller=row.seller,
        buyer=row.buyer,
    )


def _line(row: InvoiceLine, currency: str) -> LineOut:
    return LineOut(
        id=row.id,
        kind=row.kind,
        code=row.code,
        name=row.name,
        quantity=row.quantity,
        unit=row.unit,
        amount=amount(row.amount_minor, currency),
        period_start=row.window_start or row.cycle_start,
        period_end=row.window_end or row.cycle_end,
        subscription_id=row.subscription_id,
        tiers=[step for part in row.detail.get("parts", ()) for step in part.get("steps", ())],
        detail=row.detail,
    )


def _tax(row: InvoiceTax, currency: str) -> TaxOut:
    return TaxOut(
        name=row.name,
        treatment=row.treatment,
        rate_percent=row.rate_percent,
        taxable=amount(row.taxable_minor, currency),
        tax=amount(row.tax_minor, currency),
        note=row.note,
    )
