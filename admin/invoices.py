"""Invoices and drafts of every account: the document, the one before, what happened; and what finance may do with it."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any
from uuid import UUID

from flask import g, make_response, request, url_for
from werkzeug.wrappers import Response

from admin import blueprint
from core import audit, clock, rendering
from core.db import db, transaction
from core.errors import BillingError, FieldError, Invalid, NotFound
from core.identity.queries import as_uuid
from core.invoicing import draft, finalize, listing, queries, replay, review, statements, void, write_off
from core.invoicing.models import InvoiceStatus
from core.money import exponent, parse_decimal
from core.notifications import queries as notifications
from core.payments import collect, external, refund
from core.payments import queries as payments
from web import pagination
from web.auth import requires
from web.forms import field_errors, once, once_stepwise
from web.htmx import page

STATUSES = (("", "All"), *((status.value, status.value.capitalize()) for status in InvoiceStatus))
REASON_LENGTH_MIN = 10


@blueprint.get("/invoices")
@requires("invoices.view")
def invoices() -> Response:
    """Newest first, of every account."""
    chosen = request.args.get("status", "")
    status = InvoiceStatus(chosen) if chosen in dict(STATUSES[1:]) else None
    before = as_uuid(pagination.after() or "")
    account, limit = as_uuid(request.args.get("account", "")), pagination.PAGE_ROWS + 1
    rows = (
        queries.invoices(db.session(), account, status=status, before_id=before, limit=limit)
        if account
        else queries.all_invoices(db.session(), status=status, before_id=before, limit=limit)
    )
    found = pagination.paginate(rows, key=lambda row: row.id)
    return page(
        "admin/invoices/index.html",
        partial="admin/invoices/_rows.html" if pagination.after() else "admin/invoices/_list.html",
        current="invoices",
        rows=found,
        names=queries.owner_names(db.session(), {row.organization_id for row in found.rows}),
        statuses=STATUSES,
        chosen=chosen,
        account=account,
    )


@blueprint.get("/invoices/<uuid:invoice_id>", endpoint="invoice")
@requires("invoices.view")
def show_invoice(invoice_id: UUID) -> Response:
    """One invoice or draft."""
    return _show(invoice_id)


@blueprint.get("/invoices/<uuid:invoice_id>/pdf", endpoint="invoice_pdf")
@requires("invoices.view")
def invoice_pdf(invoice_id: UUID) -> Response:
    """The document as it was issued."""
    found = queries.any_invoice(db.session(), invoice_id)
    stored = queries.document(db.session(), found.organization_id, invoice_id)
    response = make_response(stored.content)
    response.mimetype = "application/pdf"
    response.headers["Content-Disposition"] = f'inline; filename="{found.invoice_number}.pdf"'
    return response


@blueprint.get("/invoices/<uuid:invoice_id>/replay")
@requires("invoices.view")
def replay_invoice(invoice_id: UUID) -> Response:
    """The issued invoice worked out again, figure by figure."""
    found = queries.any_invoice(db.session(), invoice_id)
    return page(
        "admin/invoices/replay.html",
        partial="admin/invoices/_replay.html",
        current="invoices",
        invoice=found,
        replay=replay.replay(db.session(), found.organization_id, invoice_id),
    )


@blueprint.post("/invoices/<uuid:invoice_id>/finalization")
@requires("invoices.finalize")
def finalize_invoice(invoice_id: UUID) -> Response:
    """Make the draft a document that is owed."""
    return _act(invoice_id, lambda session, at: finalize.finalize_invoice(session, invoice_id, at=at, actor=g.actor))


@blueprint.post("/invoices/<uuid:invoice_id>/rating")
@requires("invoices.draft")
def rate_again(invoice_id: UUID) -> Response:
    """Rate the draft again with the usage known now."""
    return _act(invoice_id, lambda session, at: draft.refresh(session, invoice_id, as_of=at, actor=g.actor))


@blueprint.post("/invoices/<uuid:invoice_id>/hold")
@requires("runs.review")
def hold_invoice(invoice_id: UUID) -> Response:
    """Keep the draft back, or let it go on."""
    if request.form.get("do") == "release":
        return _act(invoice_id, lambda session, at: review.release(session, invoice_id, at=at, actor=g.actor))
    return _act(invoice_id, lambda session, at: review.hold(session, invoice_id, reason=_why(), at=at, actor=g.actor))


@blueprint.post("/invoices/<uuid:invoice_id>/void")
@requires("invoices.void")
def void_invoice(invoice_id: UUID) -> Response:
    """Take an open invoice back; what it billed is owed still."""
    return _act(invoice_id, lambda session, at: void.void_invoice(session, invoice_id, at=at, actor=g.actor, reason=_why()))


@blueprint.post("/invoices/<uuid:invoice_id>/write-off")
@requires("invoices.write_off")
def write_off_invoice(invoice_id: UUID) -> Response:
    """Give up on what is due; the claim stands."""
    return _act(invoice_id, lambda session, at: write_off.write_off(session, invoice_id, at=at, actor=g.actor, reason=_why()))


@blueprint.post("/invoices/<uuid:invoice_id>/payments")
@requires("payments.collect")
def collect_invoice(invoice_id: UUID) -> Response:
    """Charge the account's default method now."""

    def work() -> str:
        owner = queries.owner(db.session(), invoice_id)
        collect.pay(owner.id, invoice_id, at=clock.now(owner), actor=g.actor)
        return _here(invoice_id)

    return _stepwise(invoice_id, work)


@blueprint.post("/invoices/<uuid:invoice_id>/bank-payments")
@requires("payments.record")
def record_payment(invoice_id: UUID) -> Response:
    """Book money that came by bank transfer."""

    def work(session: Any, at: Any) -> None:
        found = queries.any_invoice(session, invoice_id)
        amount = _minor(request.form.get("amount", ""), found.currency)
        reference = request.form.get("reference", "")
        external.record_external(session, found.organization_id, invoice_id, amount_minor=amount, reference=reference, at=at, actor=g.actor)

    return _act(invoice_id, work)


@blueprint.post("/invoices/<uuid:invoice_id>/refunds")
@requires("refunds.request")
def refund_payment(invoice_id: UUID) -> Response:
    """Give back a payment of the invoice, or a part of it."""

    def work() -> str:
        owner = queries.owner(db.session(), invoice_id)
        charge_id = as_uuid(request.form.get("payment", ""))
        if charge_id is None:
            raise NotFound("There is no such payment.")
        found = queries.any_invoice(db.session(), invoice_id)
        typed = request.form.get("amount", "").strip()
        amount = _minor(typed, found.currency) if typed else None
        refund.refund(owner.id, charge_id, reason=_why(), at=clock.now(owner), actor=g.actor, amount_minor=amount)
        return _here(invoice_id)

    return _stepwise(invoice_id, work)


def _act(invoice_id: UUID, work: Callable[[Any, Any], object]) -> Response:
    """One transaction, once per form; a refusal is shown on the invoice's page."""

    def carry_out() -> str:
        session = db.session()
        work(session, clock.now(queries.owner(session, invoice_id)))
        return _here(invoice_id)

    try:
        return once(carry_out)
    except NotFound:
        raise
    except BillingError as error:
        return _show(invoice_id, error)


def _stepwise(invoice_id: UUID, work: Callable[[], str]) -> Response:
    try:
        return once_stepwise(work)
    except NotFound:
        raise
    except BillingError as error:
        return _show(invoice_id, error)


def _show(invoice_id: UUID, error: BillingError | None = None) -> Response:
    with transaction() as session:  # a fresh look, also after a refused change
        found = queries.any_invoice(session, invoice_id)
        owner = queries.owner(session, invoice_id)
        before = queries.previous(session, found)
        context: dict[str, Any] = {
            "invoice": found,
            "owner": owner,
            "overdue": listing.is_overdue(found, on=rendering.local_day(clock.now(owner), owner.timezone)),
            "statement_view": statements.of_invoice(found, caption="Statement"),
            "before": before,
            "before_view": statements.of_invoice(before, caption=f"Before: {before.invoice_number}") if before else None,
            "causes": review.split(before.lines, found.lines) if before else None,
            "transactions": payments.transactions(session, found.organization_id, invoice_ids=[found.id]),
            "mails": notifications.notifications(session, found.organization_id, subject_id=str(found.id)),
            "trail": audit.search(session, audit.Search(text=str(found.id)), limit=50),
        }
        return page(
            "admin/invoices/show.html",
            status=error.status if error else 200,
            current="invoices",
            errors=field_errors(error) if error else {},
            form=request.form,
            **context,
        )


def _here(invoice_id: UUID) -> str:
    return url_for("admin.invoice", invoice_id=invoice_id)


def _why() -> str:
    reason = request.form.get("reason", "").strip()
    if len(reason) < REASON_LENGTH_MIN:
        detail = f"Give a reason of at least {REASON_LENGTH_MIN} characters; it is kept in the audit trail."
        raise Invalid("A reason is needed.", errors=(FieldError("/reason", detail),))
    return reason


def _minor(text: str, currency: str) -> int:
    """An amount typed in major units; Invalid when it is none, or finer than the currency."""
    try:
        amount = parse_decimal(text.strip(), places=exponent(currency))
    except ValueError as error:
        raise Invalid("The amount cannot be read.", errors=(FieldError("/amount", str(error)),)) from error
    return int(amount * Decimal(10) ** exponent(currency))
