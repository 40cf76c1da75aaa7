"""From a frozen invoice to the document that is printed, and the printing: once per invoice, bytes and SHA-256 stored."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from babel import Locale
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core import rendering
from core.errors import Conflict
from core.invoicing import annex, queries, statements
from core.invoicing.document import BankDetails, InvoiceDocument, Mark, Party, PaymentLine, TaxLine
from core.invoicing.models import Invoice
from core.invoicing.models import InvoiceDocument as StoredDocument
from core.invoicing.pdf import render_pdf


def render(session: Session, invoice_id: uuid.UUID, *, at: datetime) -> StoredDocument:
    """The stored PDF of a finalized invoice; printed and stored if it is not there yet. Conflict for a draft.

    The document shows the invoice as it was issued.
    """
    key = int.from_bytes(invoice_id.bytes[-8:], signed=True)
    session.execute(select(func.pg_advisory_xact_lock(key)))  # whoever comes second waits instead of printing it again
    stored = session.get(StoredDocument, invoice_id, populate_existing=True)
    if stored is not None:
        return stored
    invoice = queries.any_invoice(session, invoice_id)
    if invoice.finalized_at is None:
        raise Conflict("A draft has no document yet.", code="not_finalized")
    content = render_pdf(as_issued(session, invoice))
    row = {
        "invoice_id": invoice.id,
        "organization_id": invoice.organization_id,
        "sha256": hashlib.sha256(content).digest(),
        "content": content,
        "rendered_at": at,
    }
    session.execute(insert(StoredDocument).values(row).on_conflict_do_nothing())
    return session.scalars(select(StoredDocument).where(StoredDocument.invoice_id == invoice.id)).one()


def as_issued(session: Session, invoice: Invoice) -> InvoiceDocument:
    """The document of a finalized invoice, from its frozen content alone (and the usage of its windows for the annex)."""
    seller, buyer = invoice.seller or {}, invoice.buyer or {}
    paid_by_credit = invoice.total_minor - invoice.credit_applied_minor <= 0
    return _document(
        invoice,
        seller,
        buyer,
        mark=Mark.PAID if paid_by_credit else Mark.NONE,
        due_minor=max(invoice.total_minor, 0) - invoice.credit_applied_minor,
        usage=annex.daily_usage(session, invoice),
    )


def preview_of_draft(session: Session, invoice: Invoice, *, seller: Mapping[str, Any], buyer: Mapping[str, Any]) -> InvoiceDocument:
    """How a draft would look, marked as no invoice; nothing is stored."""
    return _document(invoice, seller, buyer, mark=Mark.DRAFT, due_minor=invoice.amount_due_minor, usage=annex.daily_usage(session, invoice))


def _document(
    invoice: Invoice, seller: Mapping[str, Any], buyer: Mapping[str, Any], *, mark: Mark, due_minor: int, usage: Any
) -> InvoiceDocument:
    locale = buyer.get("locale", rendering.LOCALE)
    statement = statements.of_invoice(invoice, locale=locale)
    issued = invoice.issue_date or rendering.local_day(invoice.created_at, invoice.timezone)
    credit = (PaymentLine("Account credit used", invoice.credit_applied_minor),) if invoice.credit_applied_minor else ()
    return InvoiceDocument(
        title="Invoice" if invoice.total_minor >= 0 else "Credit note",
        number=invoice.invoice_number or "",
        issued_on=issued,
        due_on=invoice.due_date if due_minor else None,
        brand=seller["legal_name"].rsplit(" ", 1)[0],
        seller=_seller(seller),
        buyer=_buyer(buyer),
        facts=tuple(_facts(invoice, buyer, locale)),
        statement=statement,
        tax_lines=tuple(
            TaxLine(f"{tax.name} {rendering.rate(tax.rate_percent, locale)}", tax.rate_percent, tax.taxable_minor, tax.tax_minor, tax.note)
            for tax in invoice.taxes
        ),
        amount_due_minor=due_minor,
        how_paid=tuple(_how_paid(invoice, due_minor)),
        payments=credit,
        bank=_bank(invoice, seller) if due_minor else None,
        terms=("Please quote the invoice number with every payment and question.",) if due_minor else (),
        usage=usage,
        mark=mark,
        tax_name=invoice.taxes[0].name if invoice.taxes else "VAT",
    )


def _seller(seller: Mapping[str, Any]) -> Party:
    facts = (seller["register_entry"], f"Managing directors: {seller['managing_directors']}", seller["email"])
    return Party(seller["legal_name"], tuple(seller["address_lines"]), seller["vat_id"], facts)


def _buyer(buyer: Mapping[str, Any]) -> Party:
    address = buyer.get("address", {})
    city = " ".join(part for part in (address.get("postal_code"), address.get("city")) if part)
    names = Locale.parse(buyer.get("locale", rendering.LOCALE)).territories
    country = names.get(address.get("country", ""), address.get("country", ""))
    lines = (address.get("line1"), address.get("line2"), city, address.get("state"), country)
    return Party(buyer["name"], tuple(line for line in lines if line), buyer.get("tax_id") or "")


def _facts(invoice: Invoice, buyer: Mapping[str, Any], locale: str) -> list[tuple[str, str]]:
    facts = [("Invoice number", invoice.invoice_number or "none yet")]
    if invoice.issue_date:
        facts.append(("Issue date", rendering.date(invoice.issue_date, locale=locale)))
    if invoice.billing_period_start and invoice.billing_period_end:
        period = rendering.period(invoice.billing_period_start, invoice.billing_period_end, invoice.timezone, locale)
        facts.append(("Service period", period))
    if invoice.due_date and invoice.due_date != invoice.issue_date:
        facts.append(("Due date", rendering.date(invoice.due_date, locale=locale)))
    if invoice.po_number:
        facts.append(("Purchase order", invoice.po_number))
    if buyer.get("tax_id"):
        facts.append(("Your VAT ID", buyer["tax_id"]))
    return facts


def _how_paid(invoice: Invoice, due_minor: int) -> list[str]:
    if invoice.total_minor < 0:
        return ["The amount is credit on your account and is used for your next invoices."]
    if not due_minor:
        return ["Nothing is left to pay."]
    if invoice.next_collect_at is not None or invoice.collect_attempts:
        return ["We charge your saved payment method. Without one, please pay by transfer."]
    return ["Please pay by transfer until the due date."]


def _bank(invoice: Invoice, seller: Mapping[str, Any]) -> BankDetails:
    return BankDetails(seller["legal_name"], seller["iban"], seller["bic"], invoice.invoice_number or "")
