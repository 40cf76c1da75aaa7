"""Acts on a subscription, each on a page of its own: what it means, what billing would make of it, and the reason it is done for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from flask import g, request, url_for
from werkzeug.wrappers import Response

from admin import blueprint
from admin.reason import why
from admin.subscriptions import carry_out_on, of_account
from core import clock
from core.db import db, transaction
from core.errors import BillingError, NotFound
from core.invoicing import figure
from core.subscriptions import lifecycle
from core.subscriptions.proposal import MOVING
from core.subscriptions.status import Act, possible
from web.auth import requires
from web.dates import planned_return
from web.forms import field_errors, once
from web.htmx import page

Carry = Callable[..., Any]
ACTS: dict[Act, Carry] = {
    Act.PAUSE: lifecycle.pause,
    Act.RESUME: lifecycle.resume,
    Act.SUSPEND: lifecycle.suspend,
    Act.REINSTATE: lifecycle.reinstate,
    Act.REACTIVATE: lifecycle.reactivate,
}


@blueprint.get("/subscriptions/<uuid:subscription_id>/acts/<act>")
@requires("subscriptions.change")
def subscription_act(subscription_id: UUID, act: str) -> Response:
    """What it means, and what it costs or gives back if it is done now."""
    return _ask(subscription_id, _known(act))


@blueprint.post("/subscriptions/<uuid:subscription_id>/acts/<act>")
@requires("subscriptions.change")
def do_subscription_act(subscription_id: UUID, act: str) -> Response:
    """Do it; a refusal is shown on the same page."""
    chosen = _known(act)

    def carry_out() -> str:
        reason = why()
        owner, row = of_account(subscription_id)
        ACTS[chosen](db.session(), row, at=clock.now(owner), actor=g.actor, reason=reason, **planned_return(chosen, owner.timezone))
        return url_for("admin.subscription", subscription_id=subscription_id)

    try:
        return once(carry_out)
    except NotFound:
        raise
    except BillingError as error:
        return _ask(subscription_id, chosen, error)


@blueprint.post("/subscriptions/<uuid:subscription_id>/planned-resumption/undo")
@requires("subscriptions.change")
def stay_paused(subscription_id: UUID) -> Response:
    """Take a planned return from a pause back."""
    return carry_out_on(subscription_id, lambda session, row, at: lifecycle.undo_resume(session, row, at=at, actor=g.actor))


def _known(act: str) -> Act:
    """The act that the address names; NotFound for another word, and for acts with pages of their own."""
    if act not in ACTS:
        raise NotFound("There is no such act.")
    return Act(act)


def _ask(subscription_id: UUID, act: Act, error: BillingError | None = None) -> Response:
    with transaction() as session:  # a fresh look, also after a refused act
        owner, row = of_account(subscription_id)
        at = clock.now(owner)
        may_be = act in possible(row, at)
        found = figure.of_act(session, row, act, at=at) if may_be and act in MOVING else None
        return page(
            "admin/subscriptions/act.html",
            status=error.status if error else 200,
            current="subscriptions",
            errors=field_errors(error) if error else {},
            form=request.form,
            act=act,
            possible=may_be,
            subscription=row,
            owner=owner,
            zone=owner.timezone,
            figure=found,
            statement_view=_statement(found, owner, row.currency),
        )


def _statement(found: figure.Figure | None, owner: Any, currency: str) -> Any:
    if found is None or not found.lines:
        return None
    total = "Due now" if found.total >= 0 else "Credit to the account"
    return figure.statement(found.lines, found.taxes, owner, currency, title="What it changes", total=total)
