"""Starting a subscription: the form, what would come of it, and doing it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from flask import g, request, url_for
from werkzeug.wrappers import Response

from admin import blueprint, subscription_form
from admin.subscription_view import bound_until
from core import clock, rendering
from core.catalog import queries as catalog
from core.db import db, transaction
from core.errors import BillingError, NotFound
from core.identity import queries
from core.identity.models import Organization
from core.invoicing import outlook
from core.invoicing.tried import tried
from core.subscriptions import timeline
from core.subscriptions.models import AnchorMode, Subscription
from web import lifeline, standing
from web.auth import requires
from web.forms import field_errors, once
from web.htmx import page
from web.licensed import label

ANCHORS = (
    (AnchorMode.ANNIVERSARY.value, "Anniversary", "Each period begins on the day of the month it started."),
    (AnchorMode.CALENDAR.value, "Calendar", "Periods are whole months; the first one is shorter and charged in proportion."),
)
TERMS = (("", "No contract"), ("month", "Months"), ("quarter", "Quarters"), ("half_year", "Half-years"), ("year", "Years"))
INVOICES_SHOWN = 4


@blueprint.get("/accounts/<uuid:account_id>/subscriptions/new")
@requires("subscriptions.change")
def new_subscription(account_id: UUID) -> Response:
    """The form."""
    return _form(_account(account_id))


@blueprint.post("/accounts/<uuid:account_id>/subscriptions")
@requires("subscriptions.change")
def start_subscription(account_id: UUID) -> Response:
    """Show what would come of it, or start it; the first invoice follows within seconds."""
    found, draft = _account(account_id), subscription_form.read(request.form)
    at = clock.now(found)

    def begin() -> Subscription:
        return subscription_form.begin(db.session(), found, draft, actor=g.actor, at=at)

    def work() -> str:
        return url_for("admin.subscription", subscription_id=begin().id)

    try:
        if request.form.get("act") != "preview":
            return once(work)
        with transaction() as session:
            preview = tried(session, begin, lambda made: _seen(made, found, at))
    except NotFound:
        raise
    except BillingError as error:
        return _form(_account(account_id), field_errors(error), status=error.status)
    return _form(_account(account_id), preview=preview)


def _seen(made: Subscription, owner: Organization, at: Any) -> dict[str, Any]:
    """What the page shows of a subscription that was only tried."""
    db.session().refresh(made)
    lanes = lifeline.lanes(made, at=at, bound_until=bound_until(made, at))
    said = standing.sentence(made, at=at, zone=owner.timezone)
    terms, as_of = timeline.terms(timeline.spans(made)), max(at, made.started_at)
    upcoming = outlook.upcoming(db.session(), owner, made, terms, as_of=as_of, count=INVOICES_SHOWN, now=True)
    return {
        "standing": said,
        "drawing": lifeline.drawing(lanes, at=at, zone=owner.timezone, sentence=f"Timeline. {said}"),
        "upcoming": upcoming,
    }


def _account(account_id: UUID) -> Organization:
    return queries.organization(db.session(), account_id)


def _form(
    found: Organization, errors: dict[str, str] | None = None, *, preview: dict[str, Any] | None = None, status: int = 200
) -> Response:
    versions = catalog.live_versions(db.session(), currency=found.currency, public=None)
    if not versions and not errors:
        errors = {"": f"No plan is offered in {found.currency}. Publish one first."}
    named = {rule.licensed for version in versions for rule in version.rules if rule.licensed}
    return page(
        "admin/accounts/subscribe.html",
        status=status,
        current="accounts",
        account=found,
        zone=found.timezone,
        form=subscription_form.read(request.form),
        errors=errors or {},
        versions=versions,
        prices=subscription_form.prices(versions, found.currency),
        quantities=[(f"quantities_{name}", label(name)) for name in sorted(named)],
        offered_items=[(version.plan.code, version.plan.name) for version in catalog.attachable(db.session(), found.currency)],
        anchors=ANCHORS,
        contract_terms=TERMS,
        preview=preview,
        today=rendering.local_day(clock.now(found), found.timezone),
    )
