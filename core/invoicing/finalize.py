"""Finalizing: a draft becomes a document that is owed. One transaction does all of it, for one invoice or for a thousand.

In order: rate again, assess tax, use credits, freeze parties and content, post the ledger, take the number, record the fact. The number
comes last because its series is locked until the commit.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg.types.json import Jsonb
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from core import audit, config, jobs
from core.audit import Actor
from core.config import Settings
from core.db import among
from core.errors import Conflict, NotFound
from core.identity.models import Organization
from core.invoicing import account_credits, draft, frozen, numbering, taxes
from core.invoicing.models import Invoice, InvoiceLine, InvoiceStatus, InvoiceTax
from core.ledger import post
from core.ledger.models import AccountCode

JOBS_PER_SET_MAX = 50


@dataclass(frozen=True, slots=True)
class _Final:
    """A draft with everything that finalizing adds to it, but its number."""

    values: dict[str, Any]
    digest: bytes

    @property
    def id(self) -> uuid.UUID:
        return self.values["id"]  # type: ignore[no-any-return]

    @property
    def organization_id(self) -> uuid.UUID:
        return self.values["organization_id"]  # type: ignore[no-any-return]

    __tablename__ = "invoices"


def finalize_invoice(session: Session, invoice_id: uuid.UUID, *, at: datetime, actor: Actor) -> Invoice:
    """Finalize one draft at `at`; an invoice that is finalized already is returned as it is.

    NotFound for an unknown invoice; Conflict for a void one, one held by a reviewer, or one on which nothing is left.
    """
    invoice = session.get(Invoice, invoice_id, populate_existing=True)
    if invoice is None:
        raise NotFound("There is no such invoice.")
    if invoice.status == InvoiceStatus.VOID:
        raise Conflict("The invoice is void.", code="invoice_void")
    if invoice.held_reason is not None and invoice.status == InvoiceStatus.DRAFT:
        raise Conflict(f"The draft is held back: {invoice.held_reason}", code="invoice_held")
    if invoice.status == InvoiceStatus.DRAFT and not finalize_many(session, [invoice_id], at=at, actor=actor):
        raise Conflict("Nothing is left on the draft.", code="empty_draft")
    return session.get_one(Invoice, invoice_id, populate_existing=True)


def finalize_many(session: Session, invoice_ids: Collection[uuid.UUID], *, at: datetime, actor: Actor) -> list[uuid.UUID]:
    """Finalize those of the invoices that are drafts and not held back; returns their ids in order of number.

    A total of 0 or less is paid at once; a negative one becomes credit on the account. Done twice, the second time does nothing.
    """
    draft.refresh_many(session, invoice_ids, at=at, actor=actor)
    locked = _lock(session, invoice_ids)
    if not locked:
        return []
    taxes.renew(session, locked, at=at)
    session.flush()
    settings = config.current()
    finals = _freeze(session, locked, at, settings)
    claims = [account_credits.Claim(f.id, f.organization_id, f.values["currency"], f.values["total_minor"]) for f in finals]
    account_credits.grant(session, claims, at=at)
    post.post_all(session, [fact for final in finals for fact in facts(final.values, at)])
    years = [final.values["issue_date"].year for final in finals]
    numbers = numbering.take(session, entity=settings.seller.legal_name, series=settings.seller.series, years=years)
    _write(session, finals, numbers, settings)
    _record(session, finals, numbers, at, actor)
    session.expire_all()
    return locked


def facts(values: dict[str, Any], at: datetime) -> list[post.Fact]:
    """What a finalized invoice says in the books: revenue and tax against the receivable (or, if negative, the customer's credit)."""
    total, used = values["total_minor"], values["credit_applied_minor"]
    against = AccountCode.RECEIVABLE if total >= 0 else AccountCode.CUSTOMER_CREDIT
    entries = [(against, total), (AccountCode.REVENUE, -values["subtotal_minor"]), (AccountCode.TAX_PAYABLE, -values["tax_minor"])]
    common = (values["organization_id"], values["id"], values["currency"])
    found = [_fact("invoice", entries, *common, at, "Invoice")]
    if used:
        settled = [(AccountCode.CUSTOMER_CREDIT, used), (AccountCode.RECEIVABLE, -used)]
        found.append(_fact("credit_applied", settled, *common, at, "Credit used for an invoice"))
    return found


def _fact(
    kind: str, entries: post.Entries, organization_id: uuid.UUID, invoice_id: uuid.UUID, currency: str, at: datetime, description: str
) -> post.Fact:
    return post.Fact(organization_id, kind, "invoices", invoice_id, entries, currency, at, description)


def _lock(session: Session, invoice_ids: Collection[uuid.UUID]) -> list[uuid.UUID]:
    wanted = select(Invoice.id).where(among(Invoice.id, invoice_ids), Invoice.status == InvoiceStatus.DRAFT, Invoice.held_reason.is_(None))
    return list(session.scalars(wanted.order_by(Invoice.id).with_for_update()))


def _freeze(session: Session, invoice_ids: Sequence[uuid.UUID], at: datetime, settings: Settings) -> list[_Final]:
    """Everything that will be written, worked out: parties, dates, credit, status, digest."""
    invoices = session.execute(select(Invoice.__table__).where(among(Invoice.id, invoice_ids)).order_by(Invoice.id)).mappings().all()
    lines = frozen.by_invoice(session, InvoiceLine, invoice_ids)
    tax_rows = frozen.by_invoice(session, InvoiceTax, invoice_ids)
    buyers = {
        row.id: row for row in session.scalars(select(Organization).where(among(Organization.id, {i["organization_id"] for i in invoices})))
    }
    claims = [account_credits.Claim(i["id"], i["organization_id"], i["currency"], i["total_minor"]) for i in invoices]
    used = account_credits.apply(session, claims, at=at)
    seller = frozen.seller(settings.seller)
    finals = []
    for invoice in invoices:
        buyer = buyers[invoice["organization_id"]]
        values = {**invoice, **_dated(invoice, used.get(invoice["id"], 0), buyer, at, settings)}
        values |= {"seller": seller, "buyer": frozen.buyer(buyer)}
        finals.append(_Final(values, frozen.digest(values, lines.get(invoice["id"], []), tax_rows.get(invoice["id"], []))))
    return finals


def _dated(invoice: Any, used: int, buyer: Organization, at: datetime, settings: Settings) -> dict[str, Any]:
    due_minor = max(invoice["total_minor"], 0) - used
    issued = taxes.local_day(at, invoice["timezone"])
    return {
        "finalized_at": at,
        "issue_date": issued,
        "due_date": issued + timedelta(days=settings.payment_terms_days) if due_minor else issued,
        "credit_applied_minor": used,
        "amount_due_minor": due_minor,
        "status": (InvoiceStatus.OPEN if due_minor else InvoiceStatus.PAID).value,
        "paid_at": None if due_minor else at,
        "next_collect_at": at if due_minor and buyer.auto_collect else None,
    }


def _write(session: Session, finals: Sequence[_Final], numbers: Sequence[numbering.Number], settings: Settings) -> None:
    rows = [
        {
            **{name: final.values[name] for name in _COPIED},
            "buyer": Jsonb(final.values["buyer"]),
            "year": number.year,
            "sequence": number.sequence,
            "number": number.text,
            "content_hash": frozen.content_hash(final.digest, number.text),
        }
        for final, number in zip(finals, numbers, strict=True)
    ]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    shared = {"seller": Jsonb(frozen.seller(settings.seller)), "entity": numbers[0].entity, "series": numbers[0].series}
    session.execute(_FINALIZE, {**columns, **shared})


def _record(session: Session, finals: Sequence[_Final], numbers: Sequence[numbering.Number], at: datetime, actor: Actor) -> None:
    events = []
    for final, number in zip(finals, numbers, strict=True):
        values = final.values
        shown = {"number": number.text, "currency": values["currency"], "total_minor": values["total_minor"]}
        due = {"credit_applied_minor": values["credit_applied_minor"], "amount_due_minor": values["amount_due_minor"]}
        events.append(audit.entry(actor, "invoice.finalized", final, at=at, **shown, **due))
        if values["status"] == InvoiceStatus.PAID:
            events.append(audit.entry(actor, "invoice.paid", final, at=at, **shown, amount_paid_minor=0))
    audit.record_all(session, events)
    for final in finals if len(finals) <= JOBS_PER_SET_MAX else ():
        jobs.enqueue(session, "render_invoice_pdf", final.id)
        if final.values["next_collect_at"] is not None:
            jobs.enqueue(session, "collect_invoice", final.id)


_COPIED = (
    "id", "status", "credit_applied_minor", "amount_due_minor", "issue_date", "due_date", "finalized_at", "paid_at", "next_collect_at",
)  # fmt: skip
_FINALIZE = text(
    """
    UPDATE invoices SET status = final.status, credit_applied_minor = final.credit_applied_minor, amount_due_minor = final.amount_due_minor,
           issue_date = final.issue_date, due_date = final.due_date, finalized_at = final.finalized_at, paid_at = final.paid_at,
           next_collect_at = final.next_collect_at, seller = :seller, buyer = final.buyer, entity = :entity, series = :series,
           year = final.year, sequence = final.sequence, invoice_number = final.number, content_hash = final.content_hash,
           auto_finalize_at = NULL, updated_at = now()
      FROM unnest(:id ::uuid[], :status ::text[], :credit_applied_minor ::bigint[], :amount_due_minor ::bigint[], :issue_date ::date[],
                  :due_date ::date[], :finalized_at ::timestamptz[], :paid_at ::timestamptz[], :next_collect_at ::timestamptz[],
                  :buyer ::jsonb[], :year ::int[], :sequence ::int[], :number ::text[], :content_hash ::bytea[])
           AS final(id, status, credit_applied_minor, amount_due_minor, issue_date, due_date, finalized_at, paid_at, next_collect_at, buyer,
                    year, sequence, number, content_hash)
     WHERE invoices.id = final.id
    """
)
