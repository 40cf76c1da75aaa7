"""Events without a metric, and the form that makes one of them."""

from __future__ import annotations

import re

from flask.testing import FlaskClient
from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from core import clock
from core.identity.models import OperatorRole, Organization
from core.metering.models import Metric, usage_event_names, usage_events, usage_unclaimed_names
from tests.admin.conftest import Enter
from tests.factories import make_organization

NEW = "/admin/catalog/metrics/new?event=llm.tokens"


def _keep(session: Session, organization: Organization, name: str, properties: bytes) -> None:
    """One event of a name that no metric reads."""
    number = session.execute(insert(usage_event_names).values(name=name).returning(usage_event_names.c.number)).scalar_one()
    given = {"organization_number": organization.number, "event_number": number}
    session.execute(insert(usage_unclaimed_names).values(**given))
    at = clock.now()
    row = {
        "timestamp": at,
        "received_at": at,
        "batch_id": 1,
        "position": 0,
        "quantity": 1,
        "idempotency_key": "k",
        "properties": properties,
    }
    session.execute(insert(usage_events).values(**given, **row))


def _form(client: FlaskClient, token: str, **given: str) -> dict[str, str]:
    keys = re.findall(r'name="idempotency_key" value="([^"]+)"', client.get(NEW).text)
    blank = dict.fromkeys(("code", "name", "unit", "event_name", "property", "percentile", "group_by"), "")
    return {**blank, "csrf_token": token, "idempotency_key": keys[0], "aggregation": "sum", **given}


def test_an_unclaimed_name_leads_to_its_metric(client: FlaskClient, session: Session, enter: Enter) -> None:
    organization = make_organization(session, name="Sends Ahead GmbH")
    _keep(session, organization, "llm.tokens", b'{"tokens": 5, "model": "m-1"}')
    enter(OperatorRole.SUPPORT)
    assert "A catalog administrator can create one." in client.get("/admin/events/unclaimed").text
    token = enter(OperatorRole.CATALOG_ADMIN)
    shown = client.get("/admin/events/unclaimed").text
    assert all(words in shown for words in ("llm.tokens", "Sends Ahead GmbH", "<code>model</code>", NEW))
    assert 'value="Llm tokens"' in client.get(NEW).text
    form = _form(client, token, code="tokens", name="Tokens", event_name="llm.tokens", property="tokens", group_by="model, region")
    for _ in range(2):
        assert client.post("/admin/catalog/metrics", data=form).headers["Location"] == "/admin/catalog/metrics"
    metric = session.scalars(select(Metric).where(Metric.event_name == "llm.tokens")).one()
    assert (metric.code, metric.property, metric.group_by) == ("tokens", "tokens", ["model", "region"])
    assert "llm.tokens" not in client.get("/admin/events/unclaimed").text


def test_a_wrong_metric_is_told_at_its_fields(client: FlaskClient, session: Session, enter: Enter) -> None:
    token = enter(OperatorRole.CATALOG_ADMIN)
    wrong = _form(client, token, code="no code", name="Tokens", aggregation="unique_count", percentile="many")
    answer = client.post("/admin/catalog/metrics", data=wrong)
    assert (answer.status_code, "Give a number such as 95." in answer.text, 'value="no code"' in answer.text) == (422, True, True)
    answer = client.post("/admin/catalog/metrics", data={**wrong, "percentile": ""})
    assert answer.text.count('aria-invalid="true"') == 3, answer.text
    token = enter(OperatorRole.SUPPORT)
    assert client.get(NEW).status_code == 403
    assert client.post("/admin/catalog/metrics", data={**wrong, "csrf_token": token}).status_code == 403
