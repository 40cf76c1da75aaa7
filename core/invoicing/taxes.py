"""The tax of invoices: every organization assessed at its tax point, in sets; one tax group an invoice, rounded once."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import delete, func, select, text
from sqlalchemy.orm import Session

from core import config
from core.db import among, copy_rows
from core.identity.models import Organization
from core.invoicing.models import Invoice, InvoiceLine, InvoiceStatus, InvoiceTax
from core.pricing.tax import Totals, totals
from core.tax import numbers, rates
from core.tax.assess import TaxAssessment, assess

TaxPoint = tuple[uuid.UUID, date]
"""(organization id, local day): decides treatment and rate."""


@dataclass(frozen=True, slots=True)
class Taxed:
    """The sums of an invoice in minor units, and the assessment they rest on."""

    totals: Totals
    assessment: TaxAssessment

    def row(self, *, organization_id: uuid.UUID, invoice_id: uuid.UUID) -> dict[str, Any]:
        """The invoice's tax as a row of `invoice_taxes`."""
        return {
            "organization_id": organization_id,
            "invoice_id": invoice_id,
            "position": 1,
            "name": self.assessment.name,
            "treatment": self.assessment.treatment.value,
            "rate_percent": self.assessment.rate_percent,
            "taxable_minor": self.totals.net,
            "tax_minor": self.totals.tax,
            "note": self.assessment.note,
        }


def assessments(session: Session, points: Collection[TaxPoint]) -> dict[TaxPoint, TaxAssessment]:
    """How each organization is taxed on its day; two queries for all of them."""
    if not points:
        return {}
    known = rates.load(session)
    rows = session.execute(
        select(Organization.id, Organization.billing_address["country"].astext, Organization.tax_id, Organization.tax_rate_percent).where(
            among(Organization.id, {organization_id for organization_id, _ in points})
        )
    )
    buyers = {row[0]: row[1:] for row in rows}
    seller = config.current().seller.country
    memo: dict[tuple[Any, ...], TaxAssessment] = {}
    found: dict[TaxPoint, TaxAssessment] = {}
    for organization_id, on in points:
        country, tax_id, override = buyers[organization_id]
        valid = numbers.is_valid(tax_id, country)
        key = (country, valid, override, on)
        if key not in memo:
            memo[key] = assess(seller, country, valid, override, known, on)
        found[organization_id, on] = memo[key]
    return found


def assessment(session: Session, organization: Organization, on: date) -> TaxAssessment:
    """How one loaded organization is taxed on its day."""
    country, tax_id = organization.billing_address.get("country"), organization.tax_id
    valid = numbers.is_valid(tax_id, country)
    return assess(config.current().seller.country, country, valid, organization.tax_rate_percent, rates.load(session), on)


def taxed(net_minor: int, assessment: TaxAssessment, currency: str) -> Taxed:
    """The sums of an invoice whose lines add up to `net_minor`."""
    return Taxed(totals([(net_minor, assessment.rate_percent)], currency), assessment)


def renew(session: Session, invoice_ids: Collection[uuid.UUID], *, at: datetime) -> None:
    """Bring the sums and taxes of drafts in line with their lines and with the customers' tax status at `at`, where they differ."""
    drafts = session.execute(
        select(Invoice.id, Invoice.organization_id, Invoice.currency, Invoice.timezone, Invoice.subtotal_minor, Invoice.total_minor)
        .add_columns(func.coalesce(_net(), 0).label("net"))
        .where(among(Invoice.id, invoice_ids), Invoice.status == InvoiceStatus.DRAFT)
    ).all()
    stored = {
        row.invoice_id: row
        for row in session.scalars(
            select(InvoiceTax).where(among(InvoiceTax.invoice_id, invoice_ids)).execution_options(populate_existing=True)
        )
    }
    points = {row.id: (row.organization_id, local_day(at, row.timezone)) for row in drafts}
    known = assessments(session, set(points.values()))
    changed: dict[uuid.UUID, tuple[Any, Taxed]] = {}
    for draft in drafts:
        result = taxed(int(draft.net), known[points[draft.id]], draft.currency)
        tax = result.row(organization_id=draft.organization_id, invoice_id=draft.id)
        same = draft.id in stored and all(getattr(stored[draft.id], name) == value for name, value in tax.items())
        if not same or (draft.subtotal_minor, draft.total_minor) != (result.totals.net, result.totals.total):
            changed[draft.id] = (tax, result)
    if changed:
        session.execute(delete(InvoiceTax).where(among(InvoiceTax.invoice_id, changed)))
        copy_rows(session, InvoiceTax, [tax for tax, _ in changed.values()])
        _write_sums(session, {invoice_id: result.totals for invoice_id, (_, result) in changed.items()})


def local_day(at: datetime, timezone: str) -> date:
    """The customer's calendar day of an instant: what the document is dated by and taxed on."""
    return at.astimezone(ZoneInfo(timezone)).date()


def _net() -> Any:
    return select(func.sum(InvoiceLine.amount_minor)).where(InvoiceLine.invoice_id == Invoice.id).scalar_subquery()


def _write_sums(session: Session, sums: dict[uuid.UUID, Totals]) -> None:
    session.execute(
        _SUMS,
        {
            "id": list(sums),
            "net": [entry.net for entry in sums.values()],
            "tax": [entry.tax for entry in sums.values()],
            "total": [entry.total for entry in sums.values()],
        },
    )
    session.expire_all()


_SUMS = text(
    """
    UPDATE invoices SET subtotal_minor = summed.net, tax_minor = summed.tax, total_minor = summed.total,
           amount_due_minor = greatest(summed.total, 0) - credit_applied_minor - amount_paid_minor, updated_at = now()
      FROM unnest(:id ::uuid[], :net ::bigint[], :tax ::bigint[], :total ::bigint[]) AS summed(id, net, tax, total)
     WHERE invoices.id = summed.id
    """
)
