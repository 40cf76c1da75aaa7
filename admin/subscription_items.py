"""Add-ons and coupons of a subscription, as operators attach them and take them away."""

from __future__ import annotations

from uuid import UUID

from flask import g, request
from werkzeug.wrappers import Response

from admin import blueprint
from admin.reason import why
from admin.subscriptions import carry_out_on
from core.subscriptions import items
from web.auth import requires


@blueprint.post("/subscriptions/<uuid:subscription_id>/items")
@requires("subscriptions.change")
def attach_item(subscription_id: UUID) -> Response:
    """Attach one from now or from the next period on."""
    plan, quantity = request.form.get("plan", ""), request.form.get("quantity", "").strip() or "1"
    when = "period_end" if request.form.get("from") == "period_end" else "now"
    return carry_out_on(
        subscription_id,
        lambda session, row, at: items.attach(
            session, row, plan=plan, quantity=quantity, when=when, at=at, actor=g.actor, reason=why("item_reason")
        ),
    )


@blueprint.post("/subscriptions/<uuid:subscription_id>/items/<uuid:item_id>/removal")
@requires("subscriptions.change")
def detach_item(subscription_id: UUID, item_id: UUID) -> Response:
    """Take it away with the end of the period."""
    return carry_out_on(
        subscription_id, lambda session, row, at: items.detach(session, row, item_id, when="period_end", at=at, actor=g.actor)
    )
