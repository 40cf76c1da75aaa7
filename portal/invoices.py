"""Invoices: find, check, pay, hand to accounting; and each line down to the events behind it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from uuid import UUID
from zoneinfo import ZoneInfo

from flask import current_app, g, make_response, request, url_for
from werkzeug.wrappers import Response

from core import clock
from core.db import db
from core.errors import Conflict, NotFound
from core.identity.queries import as_uuid
from core.invoicing import late_usage, listing, queries, statements, wording
from core.invoicing.models import Invoice, InvoiceLine
from core.invoicing.statements import Line
from core.invoicing.usage_cost import line_days
from core.metering import queries as metering
from core.money import to_decimal
from core.notifications import mails
from core.payments import collect
from core.payments import queries as payments
from portal import blueprint
from portal.invoice_view import Standing, parties
from portal.line_view import day_chart
from web import pagination
from web.auth import may, requires
from web.downloads import csv_file
from web.forms import once_stepwise
from web.htmx import page

STATUSES = (("", "All"), ("open", "Due"), ("overdue", "Overdue"), ("paid", "Paid"), ("void", "Void"), ("uncollectible", "Uncollectible"))
POLLS_MAX = 15
SAMPLE = 20


@blueprint.get("/invoices")
@requires("invoices.view")
def invoices() -> Response:
    """The list, newest first, with what is due and overdue."""
    now = clock.now(g.organization)
    today = now.astimezone(ZoneInfo(g.organization.timezone)).date()
    status, year, text = request.args.get("status", ""), request.args.get("year", ""), request.args.get("q", "").strip()
    rows = listing.invoices(
        db.session(),
        g.organization.id,
        on=today,
        status=status if status in dict(STATUSES) else None,
        year=int(year) if year.isdigit() and len(year) == 4 else None,
        text=text,
        after=as_uuid(pagination.after() or ""),
        limit=pagination.PAGE_ROWS + 1,
    )
    found = pagination.paginate(rows, key=lambda row: row.id)
    states = {row.id: "overdue" if listing.is_overdue(row, on=today) else row.status for row in found.rows}
    return page(
        "portal/invoices/index.html",
        partial="portal/invoices/_rows.html" if pagination.after() else "portal/invoices/_list.html",
        current="invoices",
        rows=found,
        states=states,
        statuses=STATUSES,
        chosen_status=status,
        year=year,
        q=text,
        dues=listing.dues(db.session(), g.organization.id, on=today),
        years=listing.years(db.session(), g.organization.id),
        filtered=bool(status or year or text),
        announce=f"{len(found.rows)} invoices",
    )


@blueprint.get("/invoices.csv")
@requires("invoices.view")
def invoices_csv() -> Response:
    """Every line of the invoices of a year, for accounting."""
    year = int(request.args["year"]) if request.args.get("year", "").isdigit() else clock.now(g.organization).year
    head = ("invoice", "issued", "due", "status", "line", "code", "from", "to", "quantity", "unit", "net", "currency")
    rows = (
        (
            invoice.invoice_number,
            invoice.issue_date,
            invoice.due_date,
            invoice.status,
            line.name,
            line.code,
            line.window_start,
            line.window_end,
            line.quantity,
            line.unit,
            to_decimal(line.amount_minor, invoice.currency),
            invoice.currency,
        )
        for invoice, line in listing.lines_of_year(db.session(), g.organization.id, min(max(year, 1970), 9999))
    )
    return csv_file(f"invoices-{year}", head, rows)


@blueprint.get("/invoices/<number>")
@requires("invoices.view")
def invoice(number: str) -> Response:
    """The whole invoice: status, statement, tax, payments, documents."""
    return _show(_invoice(number))


@blueprint.get("/invoices/<number>/payment")
@requires("invoices.view")
def invoice_payment(number: str) -> Response:
    """The pay panel alone; while a payment is on its way it asks again every other second, 15 times."""
    return _show(_invoice(number), partial="portal/invoices/_payment.html")


@blueprint.post("/invoices/<number>/payments")
@requires("invoices.pay")
def pay_invoice(number: str) -> Response:
    """Charge what is due, now. Sent twice, or from two tabs, it is charged once."""
    found = _invoice(number)
    here = url_for("portal.invoice", number=number)

    def pay() -> str:
        collect.pay(
            g.organization.id,
            found.id,
            at=clock.now(g.organization),
            actor=g.actor,
            payment_method_id=as_uuid(request.form.get("method", "")),
            return_url=url_for("portal.invoice", number=number, _external=True),
        )
        return here

    try:
        return once_stepwise(pay)
    except Conflict as refusal:
        return _show(_invoice(number), errors={"": refusal.message}, status=409)


@blueprint.get("/invoices/<number>/pdf")
@requires("invoices.view")
def invoice_pdf(number: str) -> Response:
    """The document as it was issued, byte for byte."""
    found = _invoice(number)
    try:
        stored = queries.document(db.session(), g.organization.id, found.id)
    except NotFound as error:
        if error.code != "document_not_ready":
            raise
        return page("portal/invoices/printing.html", status=503, current="invoices", invoice=found)
    response = make_response(stored.content)
    response.mimetype = "application/pdf"
    response.headers["Content-Disposition"] = f'inline; filename="{found.invoice_number}.pdf"'
    return response


@blueprint.get("/invoices/<number>/lines/<uuid:line_id>")
@requires("invoices.view")
def invoice_line(number: str, line_id: UUID) -> Response:
    """One line: the formula, the tiers walked, the days of exactly the billed window, a sample of its events."""
    found = _invoice(number)
    line = _line(found, line_id)
    shown = statements.of_invoice(found, href=lambda item: str(item.id))
    row = next(replace(row, href=None) for group in shown.groups for row in group.rows if row.href == str(line_id))
    days = line_days(db.session(), line, timezone=found.timezone, currency=found.currency)
    sample = None
    if days is not None and may("events.view") and line.window_start and line.window_end:
        sample = metering.events_page(
            db.session(),
            g.organization.id,
            start=line.window_start,
            end=line.window_end,
            metric_id=line.metric_id,
            cursor=pagination.after(),
            limit=SAMPLE,
        )
    more = (
        url_for("portal.invoice_line", number=number, line_id=line_id, after=sample.next_cursor) if sample and sample.next_cursor else None
    )
    return page(
        "portal/invoices/line.html",
        partial="portal/events/_rows.html" if pagination.after() else None,
        current="invoices",
        invoice=found,
        line=line,
        row=row,
        days=days,
        chart=day_chart(days, found.timezone) if days else None,
        rows=pagination.Page(sample.rows, more) if sample else None,
        late=late_usage.of_events(db.session(), g.organization.id, sample.rows) if sample else {},
        csv_href=url_for("portal.invoice_line_csv", number=number, line_id=line_id),
        shares=_shares(line),
    )


@blueprint.get("/invoices/<number>/lines/<uuid:line_id>.csv")
@requires("invoices.view")
def invoice_line_csv(number: str, line_id: UUID) -> Response:
    """The days of a line; for lines without usage, the line itself."""
    found = _invoice(number)
    line = _line(found, line_id)
    days = line_days(db.session(), line, timezone=found.timezone, currency=found.currency)
    head = ("from", "to", f"quantity_{line.code}", f"cost_{found.currency}")
    if days is None:
        rows = [(line.window_start, line.window_end, line.quantity, to_decimal(line.amount_minor, found.currency))]
    else:
        rows = [(day.start, day.end, day.quantity, to_decimal(day.minor, found.currency)) for day in days.buckets]
    return csv_file(f"{found.invoice_number}-{line.code}", head, rows)


def _invoice(number: str) -> Invoice:
    """The account's invoice with this number; a draft has none and is not shown."""
    return queries.invoice_by_number(db.session(), g.organization.id, number)


def _line(found: Invoice, line_id: UUID) -> InvoiceLine:
    line = next((line for line in found.lines if line.id == line_id), None)
    if line is None:
        raise NotFound("There is no such line on this invoice.")
    return line


def _show(
    found: Invoice, *, partial: str = "portal/invoices/_payment.html", errors: dict[str, str] | None = None, status: int = 200
) -> Response:
    session, here = db.session(), url_for("portal.invoice", number=found.invoice_number)
    paid = payments.transactions(session, g.organization.id, invoice_ids=[found.id])
    standing = Standing(found, paid, payments.all_methods(session, g.organization.id), clock.now(g.organization), g.organization.timezone)
    polls = min(int(request.args.get("n", "0")) if request.args.get("n", "0").isdigit() else 0, POLLS_MAX)
    expand = request.args.get("tiers") == "all"
    return page(
        "portal/invoices/show.html",
        partial=partial,
        status=status,
        current="invoices",
        errors=errors or {},
        invoice=found,
        standing=standing,
        expand=expand,
        statement_view=statements.of_invoice(
            found, caption="Statement", href=lambda line: _href(found, line), csv_href=lambda line: _csv_href(found, line)
        ),
        here=here,
        parties=parties(found),
        polls=polls,
        polls_max=POLLS_MAX,
        pdf_bytes=listing.document_bytes(session, g.organization.id, found.id),
        timeline=standing.timeline(mails.sent_about(session, g.organization.id, found.id)),
        credits=queries.credits_used(session, g.organization.id, found.id),
        seller_now=current_app.config["SETTINGS"].seller,
        announce=standing.sentence,
    )


def _shares(line: InvoiceLine) -> list[tuple[str, datetime, datetime]]:
    """The parts of a cycle the line is for, when it is not for the whole: (fraction, from, to)."""
    parts = [part for part in line.detail.get("parts", ()) if part["fraction"] != "1"]
    return [
        (wording.part_of_cycle(part["fraction"]), datetime.fromisoformat(begins), datetime.fromisoformat(ends))
        for part in parts
        for begins, ends in part["windows"]
    ]


def _href(found: Invoice, line: Line) -> str:
    return url_for("portal.invoice_line", number=found.invoice_number, line_id=line.id)


def _csv_href(found: Invoice, line: Line) -> str:
    return url_for("portal.invoice_line_csv", number=found.invoice_number, line_id=line.id)
