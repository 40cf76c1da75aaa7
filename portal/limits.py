"""Limits and alerts: what stops usage, what only tells, how much is left, and how exactly limits were kept."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from flask import g, request, url_for
from werkzeug.wrappers import Response

from core import clock, config
from core.db import db, transaction
from core.entitlements import limits, standing, wording
from core.entitlements.facts import Facts
from core.entitlements.models import CapAction, LimitState
from core.entitlements.standing import Standing
from core.errors import FieldError, Invalid, NotFound
from core.identity.models import Organization
from core.metering import metrics
from core.metering.models import LimitAction, LimitPeriod, LimitSource, Metric
from core.money import exponent, format_decimal, parse_decimal
from portal import blueprint
from portal.account import billed_metrics, my_subscription
from web.auth import requires
from web.forms import field_errors
from web.htmx import page, redirect_to

NEAR = Decimal("0.8")
ACTIONS = (
    (LimitAction.BLOCK.value, "Refuse usage past it"),
    (LimitAction.NOTIFY.value, "Only tell us"),
)
PERIODS = ((LimitPeriod.DAILY.value, "A day"), (LimitPeriod.MONTHLY.value, "A month"), (LimitPeriod.TOTAL.value, "In total"))
SAVED = {
    "limit": "The limit is set and holds from now on.",
    "cap": "The spend cap is set and holds from now on.",
    "alert": "The spend alert is set.",
    "removed": "Removed. It holds nothing back from now on.",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One limit as the page shows it; `removable` is the id of one the customer set."""

    name: str
    used: str
    value: str
    fraction: Decimal
    sentence: str
    set_by: str
    near: bool
    removable: UUID | None
    thresholds: str
    key: str


@blueprint.get("/limits")
@requires("usage.view")
def limits_and_alerts() -> Response:
    """Spend cap and alert, limits on usage, what is stopped now, what was reached before."""
    return _show({})


@blueprint.post("/limits")
@requires("alerts.change")
def set_usage_limit() -> Response:
    """Set a limit of one's own on a metric; it holds at once."""
    form = {name: request.form.get(name, "").strip() for name in ("metric", "value", "period", "action", "thresholds")}
    try:
        with transaction() as session:
            limits.set_limit(
                session,
                g.organization.id,
                metric=_metric(form["metric"]),
                value=_decimal(form["value"], "/value"),
                period=_choice(LimitPeriod, form["period"], "/period"),
                action=_choice(LimitAction, form["action"], "/action"),
                source=LimitSource.CUSTOMER,
                thresholds=_percentages(form["thresholds"], "/thresholds"),
                actor=g.actor,
                at=clock.now(),
                now=clock.now(g.organization),
            )
    except Invalid as error:
        return _show(form, field_errors(error), status=422)
    return redirect_to(url_for("portal.limits_and_alerts", saved="limit"))


@blueprint.post("/limits/<uuid:limit_id>/removal")
@requires("alerts.change")
def remove_usage_limit(limit_id: UUID) -> Response:
    """Remove a limit of one's own; the plan's and ours stay."""
    with transaction() as session:
        limits.remove_limit(
            session,
            g.organization.id,
            limit_id,
            source=LimitSource.CUSTOMER,
            actor=g.actor,
            at=clock.now(),
            now=clock.now(g.organization),
        )
    return redirect_to(url_for("portal.limits_and_alerts", saved="removed"))


@blueprint.post("/spend-caps")
@requires("alerts.change")
def set_spend_cap() -> Response:
    """Set the spend cap or the spend alert."""
    form = {name: request.form.get(name, "").strip() for name in ("cap_amount", "cap_action", "cap_thresholds")}
    try:
        action = _choice(CapAction, form["cap_action"], "/cap_action")
        with transaction() as session:
            limits.set_cap(
                session,
                g.organization.id,
                amount_minor=_minor(form["cap_amount"], g.organization),
                action=action,
                thresholds=_percentages(form["cap_thresholds"], "/cap_thresholds"),
                actor=g.actor,
                at=clock.now(),
                now=clock.now(g.organization),
            )
    except Invalid as error:
        errors = {f"cap_{name.removeprefix('cap_')}" if name else "": text for name, text in field_errors(error).items()}
        return _show(form, errors, status=422)
    return redirect_to(url_for("portal.limits_and_alerts", saved="cap" if action is CapAction.BLOCK else "alert"))


@blueprint.post("/spend-caps/<uuid:cap_id>/removal")
@requires("alerts.change")
def remove_spend_cap(cap_id: UUID) -> Response:
    """Remove the spend cap or the spend alert."""
    with transaction() as session:
        limits.remove_cap(session, g.organization.id, cap_id, actor=g.actor, at=clock.now(), now=clock.now(g.organization))
    return redirect_to(url_for("portal.limits_and_alerts", saved="removed"))


def _show(form: dict[str, str], errors: dict[str, str] | None = None, *, status: int = 200) -> Response:
    organization, session = g.organization, db.session()
    [(facts, standings)] = standing.standings(session, [organization.id], at=clock.now())
    rows = [_row(facts, one) for one in standings]
    names = {one.bound.subject: wording.name(one.bound) for one in standings}
    reached = limits.states(session, organization.id, limit=20)
    spend_cap = next((one for one in standings if one.bound.metric is None and one.bound.blocks), None)
    return page(
        "portal/limits/index.html",
        status=status,
        errors=errors or {},
        current="limits",
        form=form,
        saved=SAVED.get(request.args.get("saved", ""), ""),
        caps=[row for row, one in zip(rows, standings, strict=True) if one.bound.metric is None],
        rows=[row for row, one in zip(rows, standings, strict=True) if one.bound.metric is not None],
        stops=[(names.get(stop.subject, "A limit"), stop) for stop in limits.stops(session, organization.id, now=facts.at)],
        reached=[(names.get(state.subject, "A limit since removed"), state) for state in reached],
        kept=_kept([state for state in reached if state.delay_seconds is not None]),
        metrics=[(metric.code, metric.name) for metric in billed_metrics()],
        periods=PERIODS,
        actions=ACTIONS,
        has_cap=spend_cap is not None,
        spends=my_subscription() is not None,
        suggested=format_decimal(int(spend_cap.bound.value), organization.currency) if spend_cap else "",
    )


def _row(facts: Facts, one: Standing) -> Row:
    bound = one.bound
    own = bound.source == LimitSource.CUSTOMER
    return Row(
        wording.name(bound),
        wording.amount(bound, one.used, facts.locale),
        wording.amount(bound, bound.value, facts.locale),
        max(Decimal(0), one.fraction),
        wording.consequence(facts, bound),
        wording.set_by(bound, config.current().seller.brand),
        one.fraction >= NEAR,
        bound.id if own else None,
        ", ".join(f"{threshold} %" for threshold in bound.thresholds),
        bound.subject.replace(":", "-"),
    )


def _kept(states: list[LimitState]) -> dict[str, Any]:
    """How long the last stops took at most, and how many there were."""
    return {"count": len(states), "seconds": max((state.delay_seconds or Decimal(0) for state in states), default=Decimal(0))}


def _metric(code: str) -> Metric:
    try:
        return metrics.find(db.session(), code)
    except NotFound as error:
        raise Invalid("The limit was not set.", errors=(FieldError("/metric", "Choose what to limit."),)) from error


def _choice(kind: Any, value: str, pointer: str) -> Any:
    try:
        return kind(value)
    except ValueError as error:
        raise Invalid("Nothing was set.", errors=(FieldError(pointer, "Choose one of them."),)) from error


def _decimal(text: str, pointer: str) -> Decimal:
    try:
        return parse_decimal(text)
    except ValueError as error:
        raise Invalid("Nothing was set.", errors=(FieldError(pointer, "Give a number such as 1000 or 2.5."),)) from error


def _minor(text: str, organization: Organization) -> int:
    amount = _decimal(text, "/cap_amount").scaleb(exponent(organization.currency))
    if amount != int(amount):
        places = exponent(organization.currency)
        detail = f"{organization.currency} has {places} decimals." if places else f"{organization.currency} has no decimals."
        raise Invalid("Nothing was set.", errors=(FieldError("/cap_amount", detail),))
    return int(amount)


def _percentages(text: str, pointer: str) -> list[int]:
    parts = [part.strip().removesuffix("%").strip() for part in text.split(",")] if text else []
    if not all(part.isascii() and part.isdigit() and len(part) < 5 for part in parts):
        raise Invalid("Nothing was set.", errors=(FieldError(pointer, "Give percentages such as 50, 80, 100."),))
    return [int(part) for part in parts]
