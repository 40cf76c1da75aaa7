"""Credit on an account: what was granted or given back, and what is left of it."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Annotated

from msgspec import Meta

from api.call import Call
from api.contract import Input, Listing, Output, Page, endpoint, page_of
from api.reading import Exact
from api.values import FREE_PATTERN, Reference, Text, amount, cursor_id
from core.catalog.reader import Reader
from core.errors import Invalid
from core.identity.permissions import Scope
from core.invoicing import grants
from core.invoicing.credit_models import AccountCredit
from core.money import round_half_up

TAG = "Credits"


class CreditIn(Input):
    """Credit for an account, in its currency."""

    amount: Annotated[Exact, Meta(description="In major units.")]
    name: Text
    organization_id: Reference | None = None
    priority: Annotated[int, Meta(ge=0, le=100, description="Invoices use the lowest first.")] = 50
    expires_at: Annotated[datetime, Meta(tz=True, description="Left out: never.")] | None = None
    reason: Annotated[str, Meta(max_length=500, pattern=FREE_PATTERN, description="Kept in the audit trail.")] | None = None


class CreditList(Listing):
    """Whose credits."""

    organization_id: Reference | None = None


class CreditOut(Output):
    """One credit. `invoice_id` is the invoice that gave it back; none for a grant."""

    id: uuid.UUID
    organization_id: uuid.UUID
    name: str
    currency: str
    amount: str
    remaining: str
    priority: int
    expires_at: datetime | None
    invoice_id: uuid.UUID | None
    created_at: datetime


@endpoint("POST", "/billing/credits", scope=Scope.BILLING_WRITE, tag=TAG, status=201)
def grant_credit(call: Call, body: CreditIn) -> CreditOut:
    """Grant credit to an account. Needs a platform key. Its next invoices use it up, after tax."""
    call.require_platform()
    organization = call.organization(body.organization_id)
    reader = Reader()
    value = reader.amount("/amount", body.amount, organization.currency)
    if reader.faults:
        raise Invalid("The credit cannot be granted like this.", errors=tuple(reader.faults))
    credit = grants.grant(
        call.session,
        organization,
        amount_minor=round_half_up(value, organization.currency),
        name=body.name,
        priority=body.priority,
        expires_at=body.expires_at,
        reason=body.reason,
        at=call.now(organization),
        actor=call.actor,
    )
    return _out(credit)


@endpoint("GET", "/billing/credits", scope=Scope.BILLING_READ, tag=TAG)
def list_credits(call: Call, query: CreditList) -> Page[CreditOut]:
    """List an account's credits, newest first."""
    organization = call.organization(query.organization_id)
    rows = grants.of_account(call.session, organization.id, before_id=cursor_id(query), limit=query.limit + 1)
    return page_of(rows, query.limit, _out, lambda row: row.id)


def _out(row: AccountCredit) -> CreditOut:
    return CreditOut(
        id=row.id,
        organization_id=row.organization_id,
        name=row.name,
        currency=row.currency,
        amount=amount(row.amount_minor, row.currency),
        remaining=amount(row.remaining_minor, row.currency),
        priority=row.priority,
        expires_at=row.expires_at,
        invoice_id=row.source_invoice_id,
        created_at=row.created_at,
    )
