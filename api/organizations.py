"""Organizations: the customer accounts everything else belongs to."""

from __future__ import annotations

import uuid
from datetime import datetime
from decimal import Decimal
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType, field

from api.call import Call
from api.contract import Input, Listing, Output, Page, endpoint, page_of
from api.reading import Exact
from api.values import Address, Currency, Metadata, Text, Timezone, cursor_id
from core.identity import organizations, queries
from core.identity.models import Organization
from core.identity.permissions import Scope
from core.tax import numbers

TAG = "Organizations"
EMAIL_PATTERN = r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9-]{1,63})+$"
Email = Annotated[str, Meta(pattern=EMAIL_PATTERN, max_length=254, examples=["billing@quillmark.example"])]
Slug = Annotated[str, Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,98}[a-z0-9])?$", max_length=100, examples=["quillmark"])]
TaxId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ./-]{1,49}$", description="VAT or tax number.", examples=["DE136695976"])]


class OrganizationIn(Input):
    """A new account."""

    name: Text
    slug: Slug
    billing_email: Email
    currency: Currency
    timezone: Timezone
    billing_address: Address
    external_id: Text | None = None
    tax_id: TaxId | None = None
    tax_rate_percent: Annotated[Exact, Meta(description="Overrides the assessed tax rate, in percent.")] | None = None
    auto_collect: Annotated[bool, Meta(description="Charge the default payment method when an invoice is finalized.")] = True
    metadata: Metadata = field(default_factory=dict)
    test_clock_id: uuid.UUID | None = None


class OrganizationChange(Input):
    """What may change; whatever is left out stays."""

    name: Text | UnsetType = UNSET
    billing_email: Email | UnsetType = UNSET
    billing_address: Address | UnsetType = UNSET
    tax_id: TaxId | UnsetType | None = UNSET
    tax_rate_percent: Exact | UnsetType | None = UNSET
    auto_collect: bool | UnsetType = UNSET
    metadata: Metadata | UnsetType = UNSET


class OrganizationList(Listing):
    """Filters of the list."""

    external_id: str | None = None
    search: Annotated[str, Meta(description="Part of the name or slug.", max_length=255)] | None = None
    test_clock_id: uuid.UUID | None = None


class OrganizationOut(Output):
    """An account."""

    id: uuid.UUID
    name: str
    slug: str
    external_id: str | None
    status: str
    billing_email: str
    currency: str
    timezone: str
    billing_address: dict[str, str]
    tax_id: str | None
    tax_id_valid: Annotated[bool, Meta(description="Format and check digit are those of the country; decides on reverse charge.")]
    tax_rate_percent: Decimal | None
    auto_collect: bool
    metadata: Metadata
    test_clock_id: uuid.UUID | None
    created_at: datetime
    updated_at: datetime


@endpoint("POST", "/billing/organizations", scope=Scope.BILLING_WRITE, tag=TAG, status=201)
def create_organization(call: Call, body: OrganizationIn) -> OrganizationOut:
    """Create an organization.

    Needs a platform key. Currency and time zone stay for good. An organization bound to a test clock lives in that clock's time.
    """
    call.require_platform()
    values = msgspec.structs.asdict(body)
    values["billing_address"] = _address(body.billing_address)
    return organization_out(organizations.create(call.session, **values, actor=call.actor, at=call.now()))


@endpoint("GET", "/billing/organizations", scope=Scope.BILLING_READ, tag=TAG)
def list_organizations(call: Call, query: OrganizationList) -> Page[OrganizationOut]:
    """List organizations, newest first. A key bound to one organization sees that one."""
    rows = queries.organizations(
        call.session,
        only=call.organization_id,
        search=query.search or "",
        external_id=query.external_id,
        test_clock_id=query.test_clock_id,
        after=cursor_id(query),
        limit=query.limit + 1,
    )
    return page_of(rows, query.limit, organization_out, lambda row: row.id)


@endpoint("GET", "/billing/organizations/<organization>", scope=Scope.BILLING_READ, tag=TAG)
def get_organization(call: Call, organization: str) -> OrganizationOut:
    """Read an organization by its id, external id or slug."""
    return organization_out(call.organization(organization))


@endpoint("PATCH", "/billing/organizations/<organization>", scope=Scope.BILLING_WRITE, tag=TAG)
def change_organization(call: Call, organization: str, body: OrganizationChange) -> OrganizationOut:
    """Change an organization. Finalized invoices keep what they were issued with."""
    found = call.organization(organization)
    changes = {name: value for name, value in msgspec.structs.asdict(body).items() if value is not UNSET}
    if isinstance(body.billing_address, Address):
        changes["billing_address"] = _address(body.billing_address)
    if "metadata" in changes:
        changes["extra"] = changes.pop("metadata")
    return organization_out(organizations.update(call.session, found, changes, actor=call.actor, at=call.now(found)))


def organization_out(row: Organization) -> OrganizationOut:
    """The row as the API shows it."""
    return OrganizationOut(
        id=row.id,
        name=row.name,
        slug=row.slug,
        external_id=row.external_id,
        status=row.status,
        billing_email=row.billing_email,
        currency=row.currency,
        timezone=row.timezone,
        billing_address=row.billing_address,
        tax_id=row.tax_id,
        tax_id_valid=numbers.is_valid(row.tax_id, row.billing_address.get("country")),
        tax_rate_percent=row.tax_rate_percent,
        auto_collect=row.auto_collect,
        metadata=row.extra,
        test_clock_id=row.test_clock_id,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _address(address: Address) -> dict[str, str]:
    return {name: value for name, value in msgspec.structs.asdict(address).items() if value}
