"""A metric on the finance site: all its fields, another definition with what it would change, and who may."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from flask.testing import FlaskClient
from psycopg.rows import namedtuple_row
from sqlalchemy import select
from sqlalchemy.orm import Session

from core import clock
from core.audit import SYSTEM
from core.identity.models import OperatorRole, Organization
from core.metering import backfill, rollups
from core.metering.corrections import gate
from core.metering.counted import METERS
from core.metering.meters import meter
from core.metering.models import Metric
from core.subscriptions import lifecycle
from tests.admin.conftest import Enter
from tests.factories import make_organization, make_plan
from tests.metering.stored import Store

WHY = "Cached tokens were left out."


def _post(client: FlaskClient, address: str, token: str, step: str, **given: str) -> str:
    """Post a form; where it leads, or the page when it is shown again."""
    blank = dict.fromkeys(("code", "name", "unit", "event_name", "property", "percentile", "group_by", "filters", "late_after_hours"), "")
    answer = client.post(address, data={**blank, "csrf_token": token, "idempotency_key": f"metric-{step}", **given})
    return answer.location if answer.status_code == 303 else answer.text


def test_the_form_takes_every_field_and_says_what_is_wrong_at_each(client: FlaskClient, session: Session, enter: Enter) -> None:
    token = enter(OperatorRole.CATALOG_ADMIN)
    wrong = {"aggregation": "percentile", "filters": "region eu", "late_policy": "reject", "bucket_size": "day", "name": "P", "code": "p95"}
    shown = _post(client, "/admin/catalog/metrics", token, "wrong-1", **wrong)
    assert "“region eu” is no condition" in shown
    shown = _post(client, "/admin/catalog/metrics", token, "wrong-2", **{**wrong, "filters": "region = eu"})
    for words in ("Say which percentile", "Say after how many hours", "A bucket has a size and a total"):
        assert words in shown
    right = {**wrong, "filters": "region = eu, us", "percentile": "95", "late_after_hours": "48", "bucket_total": "max"}
    rounding = {"rounding": "up", "rounding_precision": "-3", "expression": "a + b"}
    assert _post(client, "/admin/catalog/metrics", token, "right", **right, **rounding) == "/admin/catalog/metrics"
    metric = session.scalars(select(Metric).where(Metric.code == "p95")).one()
    assert (metric.filters, metric.percentile) == ([{"property": "region", "in": ["eu", "us"]}], Decimal(95))
    assert (metric.bucket_size, metric.rounding, metric.rounding_precision) == ("day", "up", -3)
    assert (metric.late_policy, metric.late_after_hours) == ("reject", 48)
    changed = {"name": "Ninety-fifth", "unit": "ms", "late_policy": "ignore"}
    assert _post(client, "/admin/catalog/metrics/p95/change", token, "change", **changed) == "/admin/catalog/metrics/p95"
    page = client.get("/admin/catalog/metrics/p95").text
    for words in (
        "Ninety-fifth",
        "region = eu, us",
        "leave billed periods as they are",
        "by day, billed is their max",
        "Counting the past",
    ):
        assert words in page


@pytest.fixture
def account(session: Session, enter: Enter) -> Organization:
    """Used 10 input and 5 cached tokens yesterday, at 0.50 each counted one."""
    store, now = Store(session, event_name="tokens"), clock.now()
    metric = store.metric("sum", property="input")
    organization = make_organization(session, timezone="UTC", name="Quillmark GmbH")
    plan = make_plan(session, base_price="10.00", prices=[(metric, {"model": "per_unit", "unit_price": "0.50"})])
    lifecycle.start(session, organization.id, plan=plan.plan.code, at=now.replace(day=1), actor=SYSTEM, trial_period_days=0)
    store.count(organization, [(now - timedelta(days=1), {"input": "10", "cached": "5"}), (now - timedelta(days=1), {"input": "1"})])
    return organization


def test_a_revision_shows_what_it_does_to_money_before_it_holds(
    client: FlaskClient, session: Session, enter: Enter, account: Organization
) -> None:
    token = enter(OperatorRole.CATALOG_ADMIN)
    metric = session.scalars(select(Metric).where(Metric.event_name == "tokens")).one()
    address = f"/admin/catalog/metrics/{metric.code}"
    assert 'value="input"' in client.get(f"{address}/revise").text
    given = {"aggregation": "sum", "expression": "input + cached", "reason": WHY}
    assert "Give a reason" in _post(client, f"{address}/revise", token, "no", **{**given, "reason": ""})
    where = _post(client, f"{address}/revise", token, "yes", **given)
    assert "are being counted" in client.get(where).text
    _count(session)
    shown = client.get(where).text
    for words in ("Quillmark GmbH", "€5.50</data> → ", "€7.50", "€2.00", "No issued invoice changes", "input + cached"):
        assert words in shown
    session.expire_all()
    assert metric.property == "input"  # it was only tried
    enter(OperatorRole.SUPPORT)
    assert "Apply" not in client.get(where).text
    token = enter(OperatorRole.CATALOG_ADMIN)
    assert _post(client, f"{where}/apply", token, "apply") == address
    after = client.get(address).text
    assert "version 2" in after
    assert "Applied" in after
    assert "was applied" in _post(client, f"{where}/apply", token, "again")


def _count(session: Session) -> None:
    """Count the open revision's past as the aggregator does, in the test's own transaction."""
    connection = Store(session).connection
    rollups.prepare(connection)
    rows = connection.cursor(row_factory=namedtuple_row).execute(METERS).fetchall()
    [row] = [row for row in rows if row.counted_at is None]
    through: datetime | None = None
    while (done := backfill.step(connection, replace(meter(row), counted_through=through), row.event_number, timedelta(days=1))).through:
        gate.emptied(connection)
        through = done.through
    connection.execute("UPDATE metric_revisions SET counted_at = now()")
    session.expire_all()
