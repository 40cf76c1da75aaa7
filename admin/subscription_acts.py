"""Acts on a subscription, each on a page of its own: what it means, what billing would make of it, and the reason it is done for."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from flask import g, request, url_for
from werkzeug.wrappers import Response

from admin import blueprint
from admin.reason import why
from admin.subscriptions import of_account
from core import clock
from core.db import db, transaction
from core.errors import BillingError, NotFound
from core.invoicing import figure
from core.subscriptions import lifecycle, plan_change
from core.subscriptions.models import Subscription
from core.subscriptions.proposal import MOVING
from core.subscriptions.status import Act, possible, resumes_at
from web.auth import requires
from web.dates import planned_return
from web.forms import field_errors, once
from web.htmx import page


class Undo(StrEnum):
    """What was planned and can be taken back, beside an end (Act.UNDO_CANCEL)."""

    UNDO_CHANGE = "undo_change"
    UNDO_RESUME = "undo_resume"


Carry = Callable[..., Any]
ACTS: dict[Act | Undo, Carry] = {
    Act.PAUSE: lifecycle.pause,
    Act.RESUME: lifecycle.resume,
    Act.SUSPEND: lifecycle.suspend,
    Act.REINSTATE: lifecycle.reinstate,
    Act.REACTIVATE: lifecycle.reactivate,
    Act.UNDO_CANCEL: lifecycle.undo_cancel,
    Undo.UNDO_CHANGE: plan_change.undo_scheduled,
    Undo.UNDO_RESUME: lifecycle.undo_resume,
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


def _known(act: str) -> Act | Undo:
    """The act that the address names; NotFound for another word, and for acts with pages of their own."""
    found = next((known for known in ACTS if known == act), None)
    if found is None:
        raise NotFound("There is no such act.")
    return found


def _may(row: Subscription, act: Act | Undo, at: datetime) -> bool:
    match act:
        case Undo.UNDO_CHANGE:
            return plan_change.scheduled_change(row, at=at) is not None
        case Undo.UNDO_RESUME:
            return resumes_at(row, at) is not None
        case _:
            return act in possible(row, at)


def _ask(subscription_id: UUID, act: Act | Undo, error: BillingError | None = None) -> Response:
    with transaction() as session:  # a fresh look, also after a refused act
        owner, row = of_account(subscription_id)
        at = clock.now(owner)
        may_be = _may(row, act, at)
        found = figure.of_act(session, row, act, at=at) if may_be and isinstance(act, Act) and act in MOVING else None
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
            change=plan_change.scheduled_change(row, at=at),
            resumes=resumes_at(row, at),
            statement_view=_statement(found, owner, row.currency),
        )


def _statement(found: figure.Figure | None, owner: Any, currency: str) -> Any:
    if found is None or not found.lines:
        return None
    total = "Due now" if found.total >= 0 else "Credit to the account"
    return figure.statement(found.lines, found.taxes, owner, currency, title="What it changes", total=total)
