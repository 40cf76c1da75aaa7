"""Price simulations: what the customers of a segment would have paid for their last closed periods under other prices."""

from __future__ import annotations

import uuid
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from msgspec import Meta, field, to_builtins

from api.call import Call
from api.contract import Input, Listing, Output, Page, endpoint, page_of
from api.plans import TAG, PlanIn
from api.values import Code, Currency, Reference, Text, amount
from core.catalog import publish
from core.catalog import queries as catalog
from core.catalog.models import PlanVersion
from core.errors import FieldError, Invalid, NotFound
from core.identity.permissions import Scope
from core.identity.queries import as_uuid
from core.invoicing import simulation, simulation_results
from core.invoicing.simulation import Segment
from core.invoicing.simulation_models import PriceSimulation
from core.invoicing.simulation_results import BANDS, Row, Totals


class SegmentIn(Input):
    """Whose usage is simulated; what is left out does not narrow."""

    plan: Annotated[Code | None, Meta(description="Subscriptions on the plan with this code.")] = None
    currency: Currency | None = None
    organizations: Annotated[list[Reference], Meta(max_length=100)] = field(default_factory=list)


class PriceSimulationIn(Input):
    """The prices, and whose periods they are held against."""

    plan: Annotated[Text | None, Meta(description="A plan's code or id, or the id of any of its versions.")] = None
    document: Annotated[PlanIn | None, Meta(description="A plan nobody has published, as `POST /billing/plans` takes it.")] = None
    segment: SegmentIn = field(default_factory=SegmentIn)
    periods: Annotated[int, Meta(ge=1, le=simulation.PERIODS_MAX, description="How many closed periods of each subscription.")] = 3


class SimulationBand(Output):
    """How many subscriptions would have paid so much more or less."""

    change: str
    subscriptions: int


class SimulationTotals(Output):
    """The sums of one currency, net of tax."""

    currency: str
    subscriptions: int
    billed: str
    simulated: str
    difference: str
    difference_percent: Decimal | None
    cheaper: int
    dearer: int
    bands: list[SimulationBand]


class PriceSimulationOut(Output):
    """A simulation. `totals` are of the subscriptions done so far; those without a closed period are in none of them."""

    id: uuid.UUID
    status: str
    plan: str
    version: int | None
    periods: int
    as_of: datetime
    subscriptions_total: int
    subscriptions_done: int
    without_period: int
    failed: int
    totals: list[SimulationTotals]
    created_at: datetime
    finished_at: datetime | None


class SimulatedRow(Output):
    """One subscription, net of tax: its closed periods at the prices it had, and at the simulated ones."""

    subscription_id: uuid.UUID
    organization_id: uuid.UUID
    organization: str
    currency: str
    periods: int
    billed: str
    simulated: str
    difference: str
    difference_percent: Decimal | None
    error: str | None


@endpoint("POST", "/billing/price-simulations", scope=Scope.BILLING_WRITE, tag=TAG, status=202)
def simulate_prices(call: Call, body: PriceSimulationIn) -> PriceSimulationOut:
    """Begin to simulate prices on real usage.

    Needs a platform key. The prices are those of a published version (`plan`) or of a plan nobody has published (`document`). Each
    running subscription of the segment is rated on the usage of its last closed periods, at the prices it had and at these. Nothing
    else changes. Read the simulation until its `status` is `done`.
    """
    call.require_platform()
    wanted = body.segment
    organizations = tuple(str(call.organization(each, f"/segment/organizations/{i}").id) for i, each in enumerate(wanted.organizations))
    segment = Segment(wanted.plan or "", wanted.currency or "", organizations)
    row = simulation.start(call.session, plan=_prices(call, body), segment=segment, periods=body.periods, at=call.now(), actor=call.actor)
    return _out(call, row)


@endpoint("GET", "/billing/price-simulations/<uuid:simulation_id>", scope=Scope.BILLING_READ, tag=TAG)
def get_price_simulation(call: Call, simulation_id: uuid.UUID) -> PriceSimulationOut:
    """Read a simulation with its sums and how many win and lose. Needs a platform key."""
    call.require_platform()
    return _out(call, simulation.get(call.session, simulation_id))


@endpoint("GET", "/billing/price-simulations/<uuid:simulation_id>/rows", scope=Scope.BILLING_READ, tag=TAG)
def list_price_simulation_rows(call: Call, simulation_id: uuid.UUID, query: Listing) -> Page[SimulatedRow]:
    """List the subscriptions of a simulation, the largest increase first. Needs a platform key."""
    call.require_platform()
    found = simulation.get(call.session, simulation_id)
    rows = simulation_results.rows(call.session, found.id, after=_after(query), limit=query.limit + 1)
    return page_of(rows, query.limit, _row, lambda row: f"{row.difference_minor}.{row.subscription_id}")


def _prices(call: Call, body: PriceSimulationIn) -> PlanVersion | dict[str, Any]:
    if (body.plan is None) == (body.document is None):
        raise Invalid("This cannot be simulated.", errors=(FieldError("/plan", "Give either a plan or a document."),))
    if body.plan is not None:
        try:
            named = as_uuid(body.plan)
            return catalog.offered_version(call.session, named or body.plan)
        except NotFound as error:
            raise Invalid("This cannot be simulated.", errors=(FieldError("/plan", error.message),)) from None
    values = {name: getattr(body.document, name) for name in PlanIn.__struct_fields__}
    values["limits"] = to_builtins(values["limits"])
    try:
        publish.unpublished(call.session, values)
    except Invalid as error:
        errors = tuple(FieldError(f"/document{item.pointer}", item.detail) for item in error.errors)
        raise Invalid("This cannot be simulated.", errors=errors) from None
    return values


def _after(query: Listing) -> tuple[int, uuid.UUID] | None:
    if query.cursor is None:
        return None
    difference, _, name = query.cursor.partition(".")
    found = as_uuid(name)
    if found is None or not difference.removeprefix("-").isdecimal() or len(difference) > len(str(-(2**63))):
        raise Invalid("This page does not exist.", errors=(FieldError("/cursor", "Use a next_cursor of an earlier answer."),))
    return int(difference), found


def _out(call: Call, row: PriceSimulation) -> PriceSimulationOut:
    version = simulation.version_of(call.session, row)
    young, failed = simulation_results.left_out(call.session, row.id)
    return PriceSimulationOut(
        id=row.id,
        status=row.status,
        plan=version.plan.code,
        version=version.version or None,
        periods=row.periods,
        as_of=row.as_of,
        subscriptions_total=row.subscriptions_total,
        subscriptions_done=row.subscriptions_done,
        without_period=young,
        failed=failed,
        totals=[_totals(entry) for entry in simulation_results.totals(call.session, row.id)],
        created_at=row.created_at,
        finished_at=row.finished_at,
    )


def _totals(found: Totals) -> SimulationTotals:
    return SimulationTotals(
        currency=found.currency,
        subscriptions=found.subscriptions,
        billed=amount(found.billed_minor, found.currency),
        simulated=amount(found.simulated_minor, found.currency),
        difference=amount(found.difference_minor, found.currency),
        difference_percent=_percent(found.ratio),
        cheaper=found.cheaper,
        dearer=found.dearer,
        bands=[SimulationBand(change=name, subscriptions=count) for (name, _), count in zip(BANDS, found.bands, strict=True)],
    )


def _row(found: Row) -> SimulatedRow:
    return SimulatedRow(
        subscription_id=found.subscription_id,
        organization_id=found.organization_id,
        organization=found.name,
        currency=found.currency,
        periods=found.periods,
        billed=amount(found.billed_minor, found.currency),
        simulated=amount(found.simulated_minor, found.currency),
        difference=amount(found.difference_minor, found.currency),
        difference_percent=_percent(found.ratio),
        error=found.error,
    )


def _percent(ratio: Decimal | None) -> Decimal | None:
    return None if ratio is None else (ratio * 100).quantize(Decimal("0.01"))
