"""Every route of both sites, walked by people who have no business there: nobody, a stranger, an operator without a second factor.

A route is found by walking the application's own map, so a new one is measured the day it is added.
"""

from __future__ import annotations

import uuid
from decimal import Decimal

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session
from werkzeug.routing import Rule

from core.catalog import publish
from core.entitlements import limits
from core.entitlements.models import CapAction
from core.identity import keys, sessions
from core.identity.models import OperatorRole, Role
from core.invoicing import finalize, manual, queries, quote
from core.metering.models import LimitAction, LimitPeriod, LimitSource
from core.payments.models import PaymentMethod, SetupAttempt
from core.subscriptions import items, lifecycle
from tests.conftest import Clock
from tests.factories import make_metric, make_organization
from tests.people import SETUP, csrf_of, make_member, make_user, sign_in

OPEN = {"portal.sign_in", "portal.begin_session", "admin.sign_in", "admin.begin_session"}
SIGNED_IN = {"portal.end_session", "portal.choose_organization", "admin.end_session", "admin.second_factor", "admin.confirm_second_factor"}
SAMPLES = {"UUIDConverter": uuid.UUID(int=7), "IntegerConverter": 7}


def routes(app: Flask, site: str) -> list[tuple[str, str, str]]:
    """Endpoint, method and a filled-in address of every route of a site that needs a sign-in."""
    found = []
    for rule in app.url_map.iter_rules():
        if rule.endpoint.startswith(f"{site}.") and rule.endpoint not in OPEN | SIGNED_IN:
            methods = (rule.methods or set()) - {"HEAD", "OPTIONS"}
            found += [(rule.endpoint, method, filled(app, rule)) for method in sorted(methods)]
    return found


def filled(app: Flask, rule: Rule) -> str:
    values = {name: SAMPLES.get(type(converter).__name__, "x-7") for name, converter in rule._converters.items()}
    _, address = rule.build(values)  # type: ignore[misc]
    return str(address)


def send(client: FlaskClient, method: str, address: str, token: str = "") -> int:
    data = None if method == "GET" else {"csrf_token": token}
    return client.open(address, method=method, data=data).status_code


@pytest.mark.parametrize("site", ["portal", "admin"])
def test_nobody_is_sent_to_the_sign_in_page(app: Flask, client: FlaskClient, site: str, clock: Clock) -> None:
    for endpoint, method, address in routes(app, site):
        answer = client.open(address, method=method)
        assert answer.status_code == 303, (endpoint, method, answer.status_code)
        assert answer.headers["Location"].startswith(f"/{site}/sign-in?"), endpoint
        part = client.open(address, method=method, headers={"HX-Request": "true"})
        assert (part.status_code, part.headers["HX-Redirect"][:9]) == (401, f"/{site}/sign"[:9]), endpoint


def test_a_member_finds_no_admin_page(app: Flask, client: FlaskClient, session: Session, clock: Clock) -> None:
    organization = make_organization(session)
    token = sign_in(client, session, make_member(session, organization, Role.OWNER), organization)
    for endpoint, method, address in routes(app, "admin"):
        assert send(client, method, address, token) == 404, (endpoint, method)


def test_an_operator_finds_no_portal_page(app: Flask, client: FlaskClient, session: Session, clock: Clock) -> None:
    token = sign_in(client, session, make_user(session, operator_role=OperatorRole.FINANCE), site="admin")
    for endpoint, method, address in routes(app, "portal"):
        assert send(client, method, address, token) == 303, (endpoint, method)


def test_somebody_without_a_membership_gets_404_everywhere(app: Flask, client: FlaskClient, session: Session, clock: Clock) -> None:
    token = sign_in(client, session, make_user(session), make_organization(session))
    for endpoint, method, address in routes(app, "portal"):
        assert send(client, method, address, token) == 404, (endpoint, method)


def test_an_operator_without_a_second_factor_reaches_only_its_enrolment(
    app: Flask, client: FlaskClient, session: Session, clock: Clock
) -> None:
    user = make_user(session, operator_role=OperatorRole.FINANCE)
    row, token = sessions.begin(session, user, site="admin", at=clock.now())
    client.set_cookie("vv_admin", token)
    for endpoint, method, address in routes(app, "admin"):
        answer = client.open(address, method=method, data=None if method == "GET" else {"csrf_token": csrf_of(client, row)})
        assert (answer.status_code, answer.headers.get("Location")) == (303, "/admin/second-factor"), (endpoint, method)


@pytest.mark.parametrize("site", ["portal", "admin"])
def test_every_unsafe_route_refuses_a_form_without_its_token(
    app: Flask, client: FlaskClient, session: Session, clock: Clock, site: str
) -> None:
    organization = make_organization(session)
    user = make_member(session, organization, operator_role=OperatorRole.FINANCE)
    sign_in(client, session, user, organization, site=site)
    for endpoint, method, address in routes(app, site):
        if method != "GET":
            assert send(client, method, address, "0" * 64) == 403, (endpoint, method)


@pytest.mark.parametrize("site", ["portal", "admin"])
def test_every_route_names_the_permission_it_needs(app: Flask, site: str) -> None:
    for endpoint, _, address in routes(app, site):
        assert getattr(app.view_functions[endpoint], "permission", None), f"{endpoint} ({address}) has no @requires"


@pytest.fixture
def theirs(session: Session, clock: Clock) -> dict[str, object]:
    """One of everything a customer has, by the name routes give its parameter."""
    owner, at = make_organization(session), clock.now()
    publish.create_version(
        session, code="starter", name="Starter", currency="EUR", billing_period="month", base_price="10.00", actor=SETUP, at=at
    )
    pro = publish.create_version(
        session, code="pro", name="Pro", currency="EUR", billing_period="month", base_price="20.00", actor=SETUP, at=at
    )
    subscription = lifecycle.start(session, owner.id, plan="starter", at=at, actor=SETUP)
    publish.create_version(
        session, code="care", name="Care", kind="add_on", currency="EUR", billing_period="month", base_price="2.00", actor=SETUP, at=at
    )
    item = items.attach(session, subscription, plan="care", at=at, actor=SETUP)
    draft = manual.create(session, owner.id, lines=[{"description": "Work", "unit_price": "5"}], at=at, actor=SETUP)
    invoice = finalize.finalize_invoice(session, draft.id, at=at, actor=SETUP)
    clock.advance(days=1)
    offer = quote.create(session, owner.id, subscription.id, to=pro, when="now", at=clock.now(), actor=SETUP)
    method = PaymentMethod(
        organization_id=owner.id, type="card", provider="stripe", provider_payment_method_id="pm_1", is_default=True, created_at=at
    )
    attempt = SetupAttempt(organization_id=owner.id, provider="stripe", provider_session_id="cs_1", created_at=at)
    session.add_all([method, attempt])
    session.flush()
    key, _ = keys.create(session, organization_id=owner.id, name="Server", mode="test", scopes=["usage:write"], actor=SETUP, at=at)
    cap = limits.set_cap(session, owner.id, amount_minor=100, action=CapAction.NOTIFY, actor=SETUP, at=at, now=at)
    metric = make_metric(session)
    limit = limits.set_limit(
        session, owner.id, metric=metric, value=Decimal(1), period=LimitPeriod.DAILY, action=LimitAction.NOTIFY,
        source=LimitSource.CUSTOMER,
        actor=SETUP, at=at, now=at,
    )  # fmt: skip
    line = queries.invoice(session, owner.id, invoice.id).lines[0]
    return {
        "number": invoice.invoice_number,
        "line_id": line.id,
        "method_id": method.id,
        "attempt_id": attempt.id,
        "key_id": key.id,
        "quote_id": offer.id,
        "act": "pause",
        "code": "care",
        "item_id": item.id,
        "cap_id": cap.id,
        "limit_id": limit.id,
    }


def test_a_member_of_another_organization_finds_nothing_of_theirs(
    app: Flask, client: FlaskClient, session: Session, clock: Clock, theirs: dict[str, object]
) -> None:
    organization = make_organization(session)
    token = sign_in(client, session, make_member(session, organization, Role.OWNER), organization)
    walked = 0
    for rule in app.url_map.iter_rules():
        if not rule.endpoint.startswith("portal.") or not rule.arguments:
            continue
        assert rule.arguments <= set(theirs), f"{rule.rule}: say in `theirs` what a stranger would ask for"
        _, address = rule.build({name: theirs[name] for name in rule.arguments})  # type: ignore[misc]
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            data = None if method == "GET" else {"csrf_token": token, "idempotency_key": str(uuid.uuid4()), "confirm": "yes"}
            assert client.open(address, method=method, data=data).status_code == 404, (rule.rule, method)
            walked += 1
    assert walked > 10
