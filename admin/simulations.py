"""Price simulations: other prices held against the usage of closed periods; started, watched, read and taken along as CSV."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from flask import Response as FlaskResponse
from flask import g, request, url_for
from werkzeug.wrappers import Response

from admin import blueprint
from core import clock
from core.catalog import queries as catalog
from core.catalog.models import PlanKind, PlanVersion
from core.db import db
from core.errors import BillingError, FieldError, Invalid, NotFound
from core.identity import queries as identity
from core.invoicing import simulation, simulation_results
from core.invoicing.simulation import PERIODS_MAX, Segment
from core.invoicing.simulation_models import PriceSimulation, SimulationStatus
from core.invoicing.simulation_results import BANDS, Row, Totals
from core.money import CURRENCIES, format_decimal
from web import pagination
from web.auth import requires
from web.charts import Bar, Chart, bar_chart
from web.downloads import csv_file
from web.forms import field_errors, once
from web.htmx import page, redirect_to

PLANS_MAX = 200
SHORT = ("<−50", "−50", "−20", "−5", "0", "+5", "+20", "+50", ">50")
"""The end of each band that lies farther from no change."""
HEAD = ("subscription_id", "organization_id", "account", "currency", "periods", "billed", "simulated", "difference", "percent", "error")
CURSOR = re.compile(r"(-?[0-9]{1,18})\.([0-9a-f-]{36})")


@blueprint.get("/simulations")
@requires("catalog.view")
def simulations() -> Response:
    """What was simulated, newest first, and the form for the next."""
    return _index(request.args.to_dict())


@blueprint.post("/simulations")
@requires("simulations.start")
def start_simulation() -> Response:
    """Begin with a published version or a plan document."""
    form = {name: request.form.get(name, "").strip() for name in ("version", "json", "plan", "currency", "accounts", "periods")}
    try:
        prices = _prices(form)
        return once(lambda: begin(prices, _segment(form), _whole(form["periods"])))
    except BillingError as error:
        return _index(form, error)


@blueprint.get("/simulations/<uuid:simulation_id>", endpoint="simulation")
@requires("catalog.view")
def show_simulation(simulation_id: uuid.UUID) -> Response:
    """Sums, winners and losers, and the subscriptions, the largest increase first."""
    session = db.session()
    found = simulation.get(session, simulation_id)
    after = pagination.after() or ""
    rows = simulation_results.rows(session, simulation_id, after=_cursor(after), limit=pagination.PAGE_ROWS + 1)
    totals = simulation_results.totals(session, simulation_id)
    young, failed = simulation_results.left_out(session, simulation_id)
    return page(
        "admin/simulations/show.html",
        partial="admin/simulations/_rows.html" if after else None,
        current="simulations",
        simulation=found,
        version=simulation.version_of(session, found),
        segment=Segment.stored(found.segment),
        totals=totals,
        charts=[_chart(found, entry) for entry in totals],
        bands=BANDS,
        young=young,
        failed=failed,
        rows=pagination.paginate(rows, key=lambda row: f"{row.difference_minor}.{row.subscription_id}"),
    )


@blueprint.get("/simulations/<uuid:simulation_id>/progress")
@requires("catalog.view")
def simulation_progress(simulation_id: uuid.UUID) -> Response:
    """The moving part of the page: asked for every second until all is done."""
    found = simulation.get(db.session(), simulation_id)
    if found.status == SimulationStatus.DONE:
        return redirect_to(url_for("admin.simulation", simulation_id=simulation_id))
    return page("admin/simulations/progress.html", partial="admin/simulations/_progress.html", current="simulations", simulation=found)


@blueprint.get("/simulations/<uuid:simulation_id>/rows.csv")
@requires("catalog.view")
def simulation_csv(simulation_id: uuid.UUID) -> FlaskResponse:
    """Every subscription of it."""
    simulation.get(db.session(), simulation_id)
    rows = simulation_results.rows(db.session(), simulation_id, limit=None)
    return csv_file(f"price-simulation-{simulation_id}", HEAD, (_line(row) for row in rows))


def begin(prices: PlanVersion | dict[str, Any], segment: Segment, periods: int) -> str:
    """Start one in the open transaction; the address of its page."""
    made = simulation.start(db.session(), plan=prices, segment=segment, periods=periods, at=clock.now(), actor=g.actor)
    return url_for("admin.simulation", simulation_id=made.id)


def everybody_on(code: str) -> Segment:
    """The subscriptions on the plan; all of them while nobody has published it."""
    try:
        return Segment(plan=catalog.plan(db.session(), code).code)
    except NotFound:
        return Segment()


def _index(form: dict[str, str], error: BillingError | None = None) -> Response:
    plans = [plan for plan in catalog.plans(db.session(), active=None, limit=PLANS_MAX) if plan.kind == PlanKind.PLAN]
    versions = [(version.id, f"{plan.name}, version {version.version}") for plan in plans for version in reversed(plan.versions)]
    errors = {name.removeprefix("segment_"): text for name, text in field_errors(error).items()} if error else {}
    found = simulation.simulations(db.session())
    return page(
        "admin/simulations/index.html",
        status=error.status if error else 200,
        current="simulations",
        errors=errors,
        form={"periods": "3", **form},
        versions=[*versions, ("", "The plan document below")],
        plans=[("", "Every plan"), *((plan.code, plan.name) for plan in plans)],
        currencies=[("", "Every currency"), *((code, code) for code in sorted(CURRENCIES))],
        periods_max=PERIODS_MAX,
        simulations=[(row, simulation.version_of(db.session(), row)) for row in found],
    )


def _prices(form: dict[str, str]) -> PlanVersion | dict[str, Any]:
    if form["version"]:
        named = identity.as_uuid(form["version"])
        if named is None:
            raise NotFound("There is no such plan version.")
        return catalog.version(db.session(), named)
    try:
        document = json.loads(form["json"], parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        raise _fault("json", "choose a version, or give a plan as JSON") from error
    if not isinstance(document, dict):
        raise _fault("json", "a plan is a JSON object")
    return document


def _segment(form: dict[str, str]) -> Segment:
    try:
        named = [identity.organization_by_reference(db.session(), name) for name in re.split(r"[\s,;]+", form["accounts"]) if name]
    except NotFound as error:
        raise _fault("accounts", error.message) from None
    return Segment(form["plan"], form["currency"], tuple(str(found.id) for found in named))


def _whole(text: str) -> int:
    if not text.isdecimal() or len(text) > len(str(PERIODS_MAX)):
        raise _fault("periods", f"must be 1 to {PERIODS_MAX}")
    return int(text)


def _fault(name: str, detail: str) -> Invalid:
    return Invalid("This cannot be simulated.", errors=(FieldError(f"/{name}", detail),))


def _cursor(text: str) -> tuple[int, uuid.UUID] | None:
    found = CURSOR.fullmatch(text)
    named = identity.as_uuid(found[2]) if found else None
    return (int(found[1]), named) if found and named else None


def _chart(row: PriceSimulation, totals: Totals) -> tuple[Totals, Any]:
    bars = tuple(Bar((Decimal(count),), name, short) for (name, _), short, count in zip(BANDS, SHORT, totals.bands, strict=True))
    sentence = f"{totals.cheaper:,} subscriptions in {totals.currency} would have paid less, {totals.dearer:,} more."
    return totals, bar_chart(Chart(f"bands-{row.id}-{totals.currency}", sentence, bars))


def _line(row: Row) -> Sequence[object]:
    percent = None if row.ratio is None else (row.ratio * 100).quantize(Decimal("0.01"))
    amounts = (format_decimal(minor, row.currency) for minor in (row.billed_minor, row.simulated_minor, row.difference_minor))
    exact = [Decimal(amount) for amount in amounts]
    return (row.subscription_id, row.organization_id, row.name, row.currency, row.periods, *exact, percent, row.error)
