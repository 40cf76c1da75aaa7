"""Who may call what: keys, scopes on every endpoint, and strangers who find nothing anywhere."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from api.contract import ENDPOINTS, Endpoint
from api.openapi import PARAMETER
from core.identity import keys
from core.identity.models import ApiKey, Organization
from core.identity.permissions import Scope, scope_allows
from core.metering.rates import Rates
from core.payments.models import PaymentMethod
from tests.api.conftest import Api, organization_body, plan_body
from tests.conftest import Clock
from tests.factories import make_organization
from tests.people import SETUP, bearer, make_key

NAMES = [f"{declared.method} {declared.path}" for declared in ENDPOINTS]
BODIES: dict[str, Any] = {
    "create_organization": organization_body(),
    "create_metric": {"code": "m", "name": "M", "aggregation": "count"},
    "publish_plan": plan_body("p"),
    "start_subscription": {"plan": "starter"},
    "change_plan": {"plan": "starter"},
    "attach_item": {"plan": "support"},
    "change_item": {"quantity": "2"},
    "quote_item": {"plan": "support"},
    "add_payment_method": {"provider_token": "pm_card_visa"},
    "open_setup_session": {"success_url": "https://a.example/", "cancel_url": "https://a.example/"},
    "refund_invoice": {"reason": "A mistake"},
    "create_api_key": {"name": "K", "scopes": ["usage:write"]},
    "create_test_clock": {"frozen_time": "2026-01-01T00:00:00Z"},
    "advance_test_clock": {"to": "2026-02-01T00:00:00Z"},
    "set_feature": {"value": True},
    "revert_usage_backfill": {"reason": "The wrong file"},
}
QUERIES = {"preview_act": "?act=pause", "check_entitlement": "?feature=exports"}
"""What an endpoint cannot do without."""
PLATFORM_ONLY = "Needs a platform key"
"""Said in the description of an endpoint no customer's key may call."""


def address(declared: Endpoint, ids: dict[str, str]) -> str:
    return PARAMETER.sub(
        lambda found: ids.get(found["name"], str(uuid.uuid4()) if found["kind"] == "uuid" else "987654321"), declared.path
    ) + QUERIES.get(declared.view.__name__, "")


def body_for(declared: Endpoint) -> Any:
    return None if declared.method in {"GET", "DELETE"} else BODIES.get(declared.view.__name__, {})


@pytest.mark.parametrize("declared", ENDPOINTS, ids=NAMES)
def test_nobody_gets_in_without_a_key(bare: FlaskClient, declared: Endpoint) -> None:
    answer = bare.open(f"/api/v1{address(declared, {})}", method=declared.method, json=body_for(declared))
    assert answer.status_code == 401
    assert answer.mimetype == "application/problem+json"
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("declared", ENDPOINTS, ids=NAMES)
def test_a_key_without_the_scope_is_told_which_one_it_needs(api: Api, session: Session, declared: Endpoint) -> None:
    for scope in Scope:
        if scope_allows([scope], declared.scope):
            continue
        answer = Api(api.client, make_key(session, None, [scope])).call(declared.method, address(declared, {}), body_for(declared))
        assert (answer.status_code, answer.get_json()["code"]) == (403, "missing_scope")
        assert declared.scope in answer.get_json()["detail"]


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Basic dXNlcjpwYXNz", "Bearer vv_live_short", "bearer  ", "Bearer " + "x" * 5_000, "Bearer vv_test_\u00e9"]
)
def test_broken_credentials_are_401(bare: FlaskClient, header: str) -> None:
    answer = bare.get("/api/v1/billing/invoices", headers={"Authorization": header.encode("utf-8").decode("latin-1")})
    assert answer.status_code == 401


def test_a_revoked_or_expired_key_stops_with_the_next_request(api: Api, session: Session, clock: Clock) -> None:
    for end in ("revoke", "expire"):
        token = make_key(session, None, expires_at=clock.now() + timedelta(hours=1))
        one = Api(api.client, token)
        assert one.get("/billing/organizations").status_code == 200
        if end == "expire":
            clock.advance(hours=1)
        else:
            row = session.scalars(select(ApiKey).where(ApiKey.key_hash == keys.hash_token(token))).one()
            keys.revoke(session, None, row.id, actor=SETUP, at=clock.now())
        assert one.get("/billing/organizations").status_code == 401


def test_use_of_a_key_is_noted(api: Api, session: Session, clock: Clock) -> None:
    clock.advance(minutes=5)
    api.get("/billing/metrics")
    row = session.scalars(select(ApiKey).where(ApiKey.key_hash == keys.hash_token(api.token))).one()
    assert row.last_used_at == clock.now()


@pytest.fixture
def theirs(api: Api, session: Session, clock: Clock) -> dict[str, str]:
    """Ids of everything one customer has, by the name of the path parameter."""
    owner = api.made("/billing/organizations", organization_body(external_id="the-owner"))
    api.made("/billing/plans", plan_body("starter"))
    subscription = api.made("/billing/subscriptions", {"organization_id": owner["id"], "plan": "starter"})
    invoice = api.made("/billing/invoices", {"organization_id": owner["id"], "line_items": [{"description": "Work", "unit_price": "5"}]})
    method = PaymentMethod(
        organization_id=uuid.UUID(owner["id"]),
        type="card",
        provider="stripe",
        provider_payment_method_id="pm_1",
        is_default=True,
        created_at=clock.now(),
    )
    session.add(method)
    session.flush()
    key = api.made("/billing/api-keys", {"name": "Server", "scopes": ["usage:write"], "organization_id": owner["id"]})
    return {
        "organization": owner["id"],
        "subscription_id": subscription["id"],
        "invoice_id": invoice["id"],
        "payment_method_id": str(method.id),
        "api_key_id": key["id"],
        "test_clock_id": api.made("/test-clocks", {"frozen_time": "2026-01-01T00:00:00Z"})["id"],
    }


TENANT = [declared for declared in ENDPOINTS if "<" in declared.path and declared.tag not in {"Metrics", "Plans"}]


@pytest.mark.parametrize("declared", TENANT, ids=[f"{declared.method} {declared.path}" for declared in TENANT])
def test_a_stranger_finds_nothing_and_cannot_tell_it_from_nothing(
    api: Api, session: Session, theirs: dict[str, str], declared: Endpoint
) -> None:
    stranger = Api(api.client, make_key(session, make_organization(session)))
    answers = []
    for ids in (theirs, {}):
        answer = stranger.call(declared.method, address(declared, ids), body_for(declared))
        shown = answer.get_json()
        answers.append((answer.status_code, shown["code"], shown["detail"], shown["title"]))
    assert answers[0] == answers[1]
    platform_only = "test_clock_id" in declared.path or PLATFORM_ONLY in (declared.view.__doc__ or "")
    assert answers[0][0] == (403 if platform_only else 404)


LISTS = [
    declared
    for declared in ENDPOINTS
    if declared.method == "GET" and declared.query is not None and "organization_id" in declared.query.__struct_fields__
]


@pytest.mark.parametrize("declared", LISTS, ids=[declared.path for declared in LISTS])
@pytest.mark.parametrize("named_by", ["id", "external_id", "slug"])
def test_a_bound_key_cannot_name_another_organization(
    api: Api, session: Session, theirs: dict[str, str], declared: Endpoint, named_by: str
) -> None:
    stranger = Api(api.client, make_key(session, make_organization(session)))
    owner = session.get_one(Organization, uuid.UUID(theirs["organization"]))
    needed = dict(parse_qsl(QUERIES.get(declared.view.__name__, "").removeprefix("?")))
    answer = stranger.get(declared.path, organization_id=str(getattr(owner, named_by)), **needed)
    assert answer.status_code == 404
    mine = stranger.get(declared.path, **needed)
    assert mine.status_code == 200
    assert theirs["subscription_id"] not in mine.text
    assert theirs["invoice_id"] not in mine.text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/billing/subscriptions", {"plan": "starter"}),
        ("/billing/invoices", {"line_items": [{"description": "Work", "unit_price": "5"}]}),
        ("/billing/payment-methods", {"provider_token": "pm_card_visa"}),
        ("/billing/api-keys", {"name": "Mine", "scopes": ["admin"]}),
    ],
)
def test_a_bound_key_cannot_write_into_another_organization(
    api: Api, session: Session, theirs: dict[str, str], path: str, body: Any
) -> None:
    stranger = Api(api.client, make_key(session, make_organization(session)))
    assert stranger.post(path, {**body, "organization_id": theirs["organization"]}).status_code == 404


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/billing/organizations", organization_body()),
        ("/billing/metrics", BODIES["create_metric"]),
        ("/billing/plans", BODIES["publish_plan"]),
        ("/test-clocks", BODIES["create_test_clock"]),
        ("/billing/api-keys", {"name": "All", "scopes": ["admin"], "platform": True}),
    ],
)
def test_what_concerns_everybody_needs_a_platform_key(api: Api, session: Session, path: str, body: Any) -> None:
    answer = Api(api.client, make_key(session, make_organization(session))).post(path, body)
    assert (answer.status_code, answer.get_json()["code"]) == (403, "platform_key_needed")


def test_a_platform_key_must_say_whom_it_means(api: Api) -> None:
    answer = api.get("/billing/usage/summary")
    assert answer.status_code == 422
    assert answer.get_json()["errors"][0]["pointer"] == "/organization_id"


def test_a_secret_is_shown_once_even_to_a_replay(api: Api, session: Session) -> None:
    body = {"name": "Server", "scopes": ["usage:write"], "platform": True}
    first, again = (api.post("/billing/api-keys", body, key="k1") for _ in range(2))
    assert first.get_json()["secret"].startswith("vv_test_")
    assert again.get_json() == {**first.get_json(), "secret": None}
    assert again.headers["Idempotent-Replayed"] == "true"
    assert first.get_json()["secret"] not in api.get("/billing/api-keys").text
    assert api.client.get("/api/v1/billing/organizations", headers=bearer(first.get_json()["secret"])).status_code == 403


def test_a_key_that_asks_too_often_waits_and_others_do_not(api: Api, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(api.client.application.extensions, "api_rates", Rates(1, "requests"))
    answers = [api.get("/billing/metrics") for _ in range(12)]
    assert [answer.status_code for answer in answers[:10]] == [200] * 10
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["Retry-After"]) >= 1
    assert Api(api.client, make_key(session, None)).get("/billing/metrics").status_code == 200
