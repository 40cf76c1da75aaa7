"""An account's limits: what bounds it, how it stands, what was reached; the operator's own are set and removed here."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID

from flask import g, request, url_for
from werkzeug.wrappers import Response

from admin import blueprint
from core import clock, config
from core.db import db, transaction
from core.entitlements import limits, standing, wording
from core.entitlements.bounds import features
from core.errors import FieldError, Invalid, NotFound
from core.identity import queries
from core.metering import metrics
from core.metering.models import LimitAction, LimitPeriod, LimitSource
from core.money import parse_decimal
from web.auth import requires
from web.forms import field_errors
from web.htmx import page, redirect_to

METRICS_MAX = 500
ACTIONS = (
    (LimitAction.BLOCK.value, "Refuse usage past it"),
    (LimitAction.ALLOW_OVERAGE.value, "Count and charge usage past it"),
    (LimitAction.NOTIFY.value, "Only tell the customer"),
)
PERIODS = ((LimitPeriod.DAILY.value, "A day"), (LimitPeriod.MONTHLY.value, "A month"), (LimitPeriod.TOTAL.value, "In total"))


@blueprint.get("/accounts/<uuid:account_id>/limits")
@requires("accounts.view")
def account_limits(account_id: UUID) -> Response:
    """Every limit with what is used of it, and the form for another."""
    return _show(account_id, {})


@blueprint.post("/accounts/<uuid:account_id>/limits")
@requires("accounts.change")
def set_account_limit(account_id: UUID) -> Response:
    """Set an operator's limit: it takes the place of the plan's on the same metric and period, at once."""
    form = {name: request.form.get(name, "").strip() for name in ("metric", "value", "period", "action")}
    found = queries.organization(db.session(), account_id)
    try:
        with transaction() as session:
            limits.set_limit(
                session,
                account_id,
                metric=metrics.find(session, form["metric"]),
                value=_number(form["value"]),
                period=LimitPeriod(form["period"]),
                action=LimitAction(form["action"]),
                source=LimitSource.OPERATOR,
                actor=g.actor,
                at=clock.now(),
                now=clock.now(found),
            )
    except Invalid as error:
        return _show(account_id, form, field_errors(error), status=422)
    except NotFound as error:
        return _show(account_id, form, {"metric": error.message}, status=422)
    except ValueError:
        return _show(account_id, form, {"period": "Choose a period and what happens past the limit."}, status=422)
    return redirect_to(url_for("admin.account_limits", account_id=account_id))


@blueprint.post("/accounts/<uuid:account_id>/limits/<uuid:limit_id>/removal")
@requires("accounts.change")
def remove_account_limit(account_id: UUID, limit_id: UUID) -> Response:
    """Remove an operator's limit; the plan's holds again. The customer's own are the customer's."""
    found = queries.organization(db.session(), account_id)
    with transaction() as session:
        limits.remove_limit(session, account_id, limit_id, source=LimitSource.OPERATOR, actor=g.actor, at=clock.now(), now=clock.now(found))
    return redirect_to(url_for("admin.account_limits", account_id=account_id))


def _show(account_id: UUID, form: dict[str, str], errors: dict[str, str] | None = None, *, status: int = 200) -> Response:
    session, found = db.session(), queries.organization(db.session(), account_id)
    [(facts, standings)] = standing.standings(session, [account_id], at=clock.now())
    names = {one.bound.subject: wording.name(one.bound) for one in standings}
    brand = config.current().seller.brand
    rows: list[dict[str, Any]] = [
        {
            "name": wording.name(one.bound),
            "used": wording.amount(one.bound, one.used, facts.locale),
            "value": wording.amount(one.bound, one.bound.value, facts.locale),
            "fraction": one.fraction,
            "reached": one.reached,
            "action": one.bound.action.value,
            "set_by": {"plan": "plan", "operator": brand}.get(one.bound.source, "customer"),
            "removable": one.bound.id if one.bound.source == LimitSource.OPERATOR else None,
        }
        for one in standings
    ]
    reached = limits.states(session, account_id, limit=10)
    return page(
        "admin/accounts/section.html",
        partial="admin/accounts/_limits.html",
        part="admin/accounts/_limits.html",
        status=status,
        errors=errors or {},
        current="accounts",
        account=found,
        zone=found.timezone,
        form=form,
        rows=rows,
        features=sorted(features(facts).items()),
        reached=[(names.get(state.subject, "A limit since removed"), state) for state in reached],
        metrics=[(metric.code, metric.name) for metric in metrics.page(session, limit=METRICS_MAX)],
        periods=PERIODS,
        actions=ACTIONS,
    )


def _number(text: str) -> Decimal:
    try:
        return parse_decimal(text)
    except ValueError as error:
        raise Invalid("The limit was not set.", errors=(FieldError("/value", "Give a number such as 1000 or 2.5."),)) from error
