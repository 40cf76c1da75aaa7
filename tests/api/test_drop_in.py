"""Foreign clients pointed at us: the official libraries of OpenMeter, Lago and Stripe over real HTTP, into the counted events."""

from __future__ import annotations

import base64
import json
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.request import Request, urlopen

import pytest
import stripe
from corehttp.exceptions import ClientAuthenticationError, HttpResponseError
from flask import Flask
from lago_python_client import Client as Lago
from lago_python_client.exceptions import LagoApiError
from lago_python_client.models import BatchEvent, Event
from openmeter import Client as OpenMeter
from werkzeug.serving import make_server

from api.drop_in import cloud_events, sessions
from core import clock
from core.db import db, transaction
from core.payments.models import PaymentCustomer
from tests.factories import make_plan, make_subscription
from tests.metering.conftest import Metering


@dataclass
class Served:
    """The product on a port of its own."""

    base: str
    metering: Metering

    def events(self, organization_id: uuid.UUID) -> list[tuple[str, str, str, dict[str, Any]]]:
        """What was counted for the organization: name, key, quantity, properties."""
        self.metering.count()
        rows = self.metering.rows(
            """SELECT n.name, e.idempotency_key, trim_scale(e.quantity)::text, e.properties FROM usage_events e
            JOIN organizations o ON o.number = e.organization_number JOIN usage_event_names n ON n.number = e.event_number
            WHERE o.id = %s ORDER BY e.idempotency_key""",
            organization_id,
        )
        return [(name, key, quantity, json.loads(raw)) for name, key, quantity, raw in rows]

    def rejected(self, organization_id: uuid.UUID) -> list[str]:
        """Codes of the organization's refused events."""
        return [row[0] for row in self.metering.rows("SELECT code FROM usage_rejections WHERE organization_id = %s", organization_id)]

    def post(self, path: str, body: bytes, **headers: str) -> tuple[int, Any]:
        """A request as curl sends it; status and JSON, also of a refusal."""
        request = Request(f"{self.base}{path}", body, {name.replace("_", "-"): value for name, value in headers.items()})
        try:
            with urlopen(request, timeout=30) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except OSError as refused:
            return refused.code, json.loads(refused.read())  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def served(committed_app: Flask, committed_database_url: str) -> Iterator[Served]:
    """Metrics as people bring them along: of the quantity, of a property, and a count."""
    metering = Metering(committed_app, committed_database_url, committed_app.extensions["usage_endpoint"])
    metering.metric("api_requests")
    metering.metric("tokens", property="tokens", event_name="tokens", group_by=["model"])
    metering.metric("signups", "count")
    server = make_server("127.0.0.1", 0, committed_app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield Served(f"http://127.0.0.1:{server.server_port}", metering)
    server.shutdown()
    thread.join()
    metering.endpoint.close()


def cloud_event(event_id: str, **given: Any) -> dict[str, Any]:
    """A CloudEvent of 10 tokens."""
    return {"specversion": "1.0", "id": event_id, "source": "svc", "type": "tokens", "data": {"tokens": 10, "model": "m-1"}, **given}


def test_openmeters_client_ingests_one_and_many(served: Served) -> None:
    organization_id, token = served.metering.organization(external_id="customer-1")
    with OpenMeter(endpoint=served.base, token=token) as client:
        client.events.ingest_event(cloud_event("one", subject="customer-1", time=datetime.now(UTC)))
        many = [cloud_event(f"many-{i}", subject="customer-1", data={"tokens": f"{i}.5", "model": "m-2"}) for i in range(10)]
        client.events.ingest_events([*many, many[0]])
        client.events.ingest_events_json([cloud_event("one", source="other", subject="customer-1")])
    counted = served.events(organization_id)
    assert [key for _, key, _, _ in counted] == sorted(["one@svc", "one@other", *(f"many-{i}@svc" for i in range(10))])
    assert counted[0] == ("tokens", "many-0@svc", "1", {"tokens": "0.5", "model": "m-2"})


def test_openmeters_client_sees_what_is_wrong_and_nothing_is_kept(served: Served) -> None:
    organization_id, token = served.metering.organization(external_id="customer-2")
    good, bad = cloud_event("good", subject="customer-2"), cloud_event("bad", subject="customer-1", data={"tokens": "many"})
    with OpenMeter(endpoint=served.base, token=token) as client, pytest.raises(HttpResponseError) as refused:
        client.events.ingest_events([good, bad, {"id": "worse"}])
    problem = refused.value.response.json()  # type: ignore[union-attr]
    assert (problem["status"], problem["detail"][:44]) == (400, "2 of 3 events refused. Event 1: This key bel")
    assert [error["pointer"] for error in problem["errors"]] == ["/1/subject", "/2/specversion"]
    assert served.events(organization_id) == []
    assert sorted(served.rejected(organization_id)) == ["invalid_field", "unknown_organization"]
    with OpenMeter(endpoint=served.base, token="vv_test_" + "0" * 43) as client, pytest.raises(ClientAuthenticationError):
        client.events.ingest_event(good)


def test_cloud_events_are_taken_where_usage_is_recorded(served: Served) -> None:
    organization_id, token = served.metering.organization(external_id="customer-3")
    key = {"Authorization": f"Bearer {token}"}
    path = "/api/v1/billing/usage"
    batch = [cloud_event(f"b{i}", data={"tokens": i, "usage": {"kind": "x"}}) for i in range(9)]
    status, answer = served.post(
        path,
        json.dumps([*batch, {"id": 7}, batch[0] | {"type": "nope"}]).encode(),
        Content_Type="application/cloudevents-batch+json",
        **key,
    )
    assert (status, answer["accepted"], answer["rejected"]) == (202, 9, 2)
    assert [(one["index"], one["pointer"]) for one in answer["events"] if one["status"] == "rejected"] == [
        (9, "/9/specversion"),
        (10, "/10/type"),
    ]
    headers = {"ce-specversion": "1.0", "ce-id": "binary%20one", "ce-source": "/svc", "ce-type": "api_requests", "ce-subject": "customer-3"}
    status, answer = served.post(path, b'{"quantity": 2.5}', Content_Type="application/json; charset=utf-8", **key, **headers)
    assert (status, answer["events"][0]["metrics"]) == (202, ["api_requests"])
    counted = served.events(organization_id)
    assert counted[-1] == ("api_requests", "binary%20one@/svc", "2.5", {"quantity": 2.5})
    assert counted[3] == ("tokens", "b3@svc", "1", {"tokens": 3, "usage.kind": "x"})
    missing = {**headers, "ce-id": ""}
    assert served.post(path, b"", Content_Type="application/json", **key, **missing)[1]["errors"][0]["pointer"] == "/id"


def test_a_source_and_id_make_one_key_and_no_two_pairs_the_same() -> None:
    pairs = [("a@b", "c"), ("a", "b@c"), ("%40", "a"), ("@", "a"), ("x" * 300, "1"), ("x" * 301, "1"), ("s", "é"), ("s", "%C3%A9")]
    made = [cloud_events.idempotency_key(source, event_id) for source, event_id in pairs]
    assert len(set(made)) == len(pairs)
    assert all(len(key) <= 255 and key.isascii() and " " not in key for key in made)


@pytest.fixture(scope="module")
def lago_customer(served: Served) -> tuple[uuid.UUID, str, str]:
    """An organization with a subscription `sub-1`: its id, a key of its own, a platform key."""
    organization_id, token = served.metering.organization()
    with served.metering.app.app_context(), transaction() as session:
        from core.identity.models import Organization

        owner = session.get_one(Organization, organization_id)
        make_subscription(session, owner, make_plan(session, currency=owner.currency), external_id="sub-1")
    return organization_id, token, served.metering.platform_key()


def test_lagos_client_sends_one_and_many(served: Served, lago_customer: tuple[uuid.UUID, str, str]) -> None:
    organization_id, _, platform = lago_customer
    client = Lago(api_key=platform, api_url=served.base)
    now = int(clock.now().timestamp())
    given = {"external_subscription_id": "sub-1", "code": "tokens"}
    made = client.events.create(Event(transaction_id="t 1", timestamp=now, properties={"tokens": 12, "model": "m-1"}, **given))
    assert made is not None
    assert (made.transaction_id, made.external_subscription_id, made.lago_customer_id) == ("t 1", "sub-1", str(organization_id))
    batch = [Event(transaction_id=f"t{i}", timestamp=f"{now - i}.25", properties={"tokens": "1.5"}, **given) for i in range(5)]
    client.events.batch_create(BatchEvent(events=[*batch, batch[0]]))
    counted = served.events(organization_id)
    assert [key for _, key, _, _ in counted][-5:] == [f"t{i}" for i in range(5)]
    assert counted[0][1].startswith("sha256:")
    assert {row[3]["tokens"] if row[1][0] == "t" else "12" for row in counted} == {"1.5", "12"}
    linked = served.metering.value("SELECT count(*) FROM usage_events e JOIN subscriptions s ON s.id = e.subscription_id")
    assert linked == 6


def test_lagos_client_sees_what_is_wrong(served: Served, lago_customer: tuple[uuid.UUID, str, str]) -> None:
    _, own, _platform = lago_customer
    stranger_id, stranger = served.metering.organization()
    given = {"transaction_id": "x1", "code": "tokens", "external_subscription_id": "sub-1"}
    with pytest.raises(LagoApiError) as refused:
        Lago(api_key=stranger, api_url=served.base).events.create(Event(properties={"tokens": 1}, **given))
    assert (refused.value.status_code, refused.value.response["code"]) == (422, "validation_errors")
    assert refused.value.response["error_details"] == {"external_subscription_id": ["unknown_subscription"]}
    batch = [Event(properties={"tokens": 1}, **given), Event(properties={"tokens": 1}, **given | {"code": "tokns"})]
    with pytest.raises(LagoApiError) as refused:
        Lago(api_key=own, api_url=served.base).events.batch_create(BatchEvent(events=batch))
    assert refused.value.response["error_details"] == {"1": {"code": ["unknown_metric"]}}
    assert "Did you mean tokens?" in refused.value.response["detail"]
    with pytest.raises(LagoApiError) as refused:
        Lago(api_key="wrong", api_url=served.base).events.create(batch[0])
    assert (refused.value.status_code, refused.value.response["error"]) == (401, "Unauthorized")
    assert served.events(stranger_id) == []
    assert served.metering.value("SELECT count(*) FROM usage_events WHERE idempotency_key = 'x1'") == 0


@pytest.fixture(scope="module")
def stripe_customer(served: Served) -> tuple[uuid.UUID, str]:
    """An organization that pays as cus_42 at Stripe, and a platform key."""
    organization_id, _ = served.metering.organization(external_id="acme")
    with served.metering.app.app_context(), transaction() as session:
        given = {"organization_id": organization_id, "provider": "stripe", "provider_customer_id": "cus_42"}
        session.add(PaymentCustomer(**given, created_at=clock.now()))
    return organization_id, served.metering.platform_key()


def library(served: Served, token: str) -> stripe.StripeClient:
    """The official library, pointed at us."""
    return stripe.StripeClient(token, base_addresses={"api": served.base, "meter_events": served.base}, max_network_retries=0)


def test_stripes_library_sends_meter_events(served: Served, stripe_customer: tuple[uuid.UUID, str]) -> None:
    organization_id, token = stripe_customer
    client = library(served, token)
    at = int(clock.now().timestamp()) - 60
    paid = {"stripe_customer_id": "cus_42", "value": "25"}
    for _ in range(2):
        made = client.v1.billing.meter_events.create({"event_name": "api_requests", "payload": paid, "identifier": "v1-a", "timestamp": at})
    assert (made.object, made.identifier, made.timestamp, made.livemode) == ("billing.meter_event", "v1-a", at, False)
    named = {"stripe_customer_id": "acme", "tokens": "7", "model": "m-1"}
    unnamed = client.v1.billing.meter_events.create({"event_name": "tokens", "payload": named}, {"idempotency_key": "v1-retry"})
    assert unnamed.identifier == "v1-retry"
    second = client.v2.billing.meter_events.create({"event_name": "api_requests", "payload": paid, "identifier": "v2-a"})
    assert (second.object, second.payload["value"]) == ("v2.billing.meter_event", "25")
    basic = {"Authorization": f"Basic {base64.b64encode(f'{token}:'.encode()).decode()}"}
    form = b"event_name=api_requests&identifier=v1-b&payload[stripe_customer_id]=cus_42&payload[value]=25"
    assert served.post("/v1/billing/meter_events", form, **basic)[1]["identifier"] == "v1-b"
    session = client.v2.billing.meter_event_session.create()
    streamed = [{"event_name": "api_requests", "payload": paid, "identifier": f"v2-s{i}"} for i in range(3)]
    library(served, session.authentication_token).v2.billing.meter_event_stream.create({"events": streamed})  # type: ignore[typeddict-item]
    assert served.events(organization_id) == [
        ("api_requests", "v1-a", "25", {"value": "25"}),
        ("api_requests", "v1-b", "25", {"value": "25"}),
        ("tokens", "v1-retry", "1", {"tokens": "7", "model": "m-1"}),
        *(("api_requests", key, "25", {"value": "25"}) for key in ("v2-a", "v2-s0", "v2-s1", "v2-s2")),
    ]


def test_stripes_library_raises_the_right_exceptions(served: Served, stripe_customer: tuple[uuid.UUID, str]) -> None:
    organization_id, token = stripe_customer
    client, before = library(served, token), served.events(organization_id)
    good: Any = {"event_name": "api_requests", "payload": {"stripe_customer_id": "cus_42", "value": "1"}, "identifier": "bad"}
    long_ago = int((clock.now() - timedelta(days=40)).timestamp())
    for change, code, param in [
        ({"event_name": "api_request"}, "no_meter", "event_name"),
        ({"payload": {"stripe_customer_id": "cus_nobody", "value": "1"}}, "meter_event_customer_not_found", "payload[stripe_customer_id]"),
        ({"payload": {"stripe_customer_id": "cus_42", "value": "-1"}}, "meter_event_invalid_value", "payload[value]"),
        ({"timestamp": long_ago}, "timestamp_too_far_in_past", "timestamp"),
    ]:
        with pytest.raises(stripe.InvalidRequestError) as refused:
            client.v1.billing.meter_events.create({**good, **change})
        assert (refused.value.code, refused.value.param) == (code, param)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v2.billing.meter_event_stream.create({"events": [good, {**good, "event_name": "nope"}]})
    assert refused.value.param == "events[1][event_name]"
    with pytest.raises(stripe.AuthenticationError):
        library(served, "vv_test_nobody").v1.billing.meter_events.create(good)
    _, reader = served.metering.organization()
    with served.metering.app.app_context():
        from tests.people import make_key

        reader = make_key(db.session(), None, ["billing:read"])
        db.session().commit()
    with pytest.raises(stripe.PermissionError):
        library(served, reader).v1.billing.meter_events.create(good)
    with pytest.raises(stripe.InvalidRequestError, match="cannot be cancelled"):
        client.v1.billing.meter_event_adjustments.create({"type": "cancel", "event_name": "api_requests", "cancel": {"identifier": "v1-a"}})
    assert served.events(organization_id) == before


def test_a_session_ends_and_cannot_be_made_up(served: Served, stripe_customer: tuple[uuid.UUID, str]) -> None:
    _, token = stripe_customer
    with served.metering.app.app_context():
        over = sessions.token({"HTTP_AUTHORIZATION": f"Bearer {token}"}, until=clock.now() - timedelta(seconds=1))
    for forged in (over, over[:-6] + "AAAAA=", sessions.PREFIX + "nonsense", sessions.PREFIX):
        with pytest.raises(stripe.AuthenticationError):
            library(served, forged).v2.billing.meter_event_stream.create({"events": []})


@pytest.mark.parametrize(
    ("path", "kind", "body", "status"),
    [
        ("/api/v1/events", "application/json", b"{", 400),
        ("/api/v1/events", "application/json", b"[]", 400),
        ("/api/v1/events", "application/json", b'{"event": 7}', 422),
        ("/api/v1/events", "application/cloudevents+json", b"[7, null]", 400),
        ("/api/v1/events", "application/cloudevents-batch+json", b'[{"data": {"n": 1e9999999999999999999}}]', 400),
        ("/api/v1/events", "application/cloudevents+json", b'{"id": "\\ud800"}', 400),
        ("/api/v1/events/batch", "application/json", b'{"events": {}}', 400),
        ("/api/v1/events/batch", "application/json", b'{"events": [{"external_subscription_id": "\\u0000", "properties": []}]}', 422),
        ("/v1/billing/meter_events", "application/x-www-form-urlencoded", b"payload=1&event_name=tokens&identifier=", 400),
        ("/v1/billing/meter_events", "application/x-www-form-urlencoded", b"payload[a][b]=1&event_name=tokens", 400),
        ("/v1/billing/meter_events", "application/x-www-form-urlencoded", b"payload[value]=%ff", 400),
        (
            "/v1/billing/meter_events",
            "application/x-www-form-urlencoded",
            b"timestamp=" + b"9" * 29 + b"&payload[value]=1&event_name=a",
            400,
        ),
        ("/v2/billing/meter_events", "application/json", b'{"payload": {"value": {}}, "event_name": 1, "identifier": 5}', 400),
        ("/v2/billing/meter_events", "application/json", b'{"payload": {"value": 1e999}, "event_name": "tokens", "timestamp": 5}', 400),
        ("/v2/billing/meter_event_stream", "application/json", b'{"events": [7]}', 400),
    ],
)
def test_bad_input_is_refused_politely(
    served: Served, stripe_customer: tuple[uuid.UUID, str], path: str, kind: str, body: bytes, status: int
) -> None:
    found, answer = served.post(path, body, Content_Type=kind, Authorization=f"Bearer {stripe_customer[1]}")
    assert found == status
    assert answer["error"]["message"] if path.startswith(("/v1", "/v2")) else answer["detail"]
