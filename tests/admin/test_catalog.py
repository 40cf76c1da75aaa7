"""The catalogue: what is on offer, what changed between versions, and the editor that publishes the next one."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from core.catalog import queries
from core.identity.models import OperatorRole
from tests.factories import make_metric
from tests.people import make_user, sign_in

FORM = {
    "code": "inference",
    "name": "Inference",
    "currency": "EUR",
    "billing_period": "month",
    "base_price": "99.00",
    "billing_mode": "in_arrears",
    "proration": "seconds",
    "credit_policy": "credit",
    "trial_period_days": "0",
    "description": "",
    "prices_0_model": "graduated",
    "prices_0_tiers_0_up_to": "10000000",
    "prices_0_tiers_0_unit_price": "0.000002",
    "prices_0_tiers_1_up_to": "",
    "prices_0_tiers_1_unit_price": "0.0000015",
    "quantity_0": "22361870",
}


@pytest.fixture
def editor(client: FlaskClient, session: Session) -> tuple[FlaskClient, dict[str, str]]:
    """A catalogue admin's browser, and the form with its token and key."""
    token = sign_in(client, session, make_user(session, operator_role=OperatorRole.CATALOG_ADMIN), site="admin")
    metric = make_metric(session, "tokens")
    return client, {**FORM, "prices_0_metric": metric.code, "csrf_token": token, "idempotency_key": "editor-form-1"}


def test_the_calculator_prices_with_the_code_that_bills(editor: tuple[FlaskClient, dict[str, str]]) -> None:
    client, form = editor
    shown = client.post("/admin/catalog/versions", data={**form, "act": "calculate"}).text
    assert "€38.54" in shown
    assert "€137.54" in shown


def test_publishing_makes_a_version_once(editor: tuple[FlaskClient, dict[str, str]], session: Session) -> None:
    client, form = editor
    for _ in range(2):
        answer = client.post("/admin/catalog/versions", data={**form, "act": "publish"})
        assert answer.status_code == 303
        assert answer.location.endswith("/admin/catalog/plans/inference")
    assert [version.version for version in queries.plan(session, "inference").versions] == [1]
    assert "Version 1" in client.get("/admin/catalog/plans/inference").text


def test_a_next_version_shows_what_changed(editor: tuple[FlaskClient, dict[str, str]]) -> None:
    client, form = editor
    client.post("/admin/catalog/versions", data={**form, "act": "publish"})
    begun = client.get("/admin/catalog/plans/inference/next").text
    assert 'value="0.0000015"' in begun
    client.post("/admin/catalog/versions", data={**form, "base_price": "120.00", "act": "publish", "idempotency_key": "editor-form-2"})
    shown = client.get("/admin/catalog/plans/inference").text
    assert "120.00" in shown
    assert "What changed since version 1" in shown


def test_rows_come_and_go_without_script(editor: tuple[FlaskClient, dict[str, str]]) -> None:
    client, form = editor
    assert "prices_0_tiers_2_up_to" in client.post("/admin/catalog/versions", data={**form, "act": "add_tier:0"}).text
    assert "prices_1_model" in client.post("/admin/catalog/versions", data={**form, "act": "add_price"}).text
    assert "prices_0_model" not in client.post("/admin/catalog/versions", data={**form, "act": "remove_price:0"}).text


def test_a_refusal_names_the_tier(editor: tuple[FlaskClient, dict[str, str]]) -> None:
    client, form = editor
    answer = client.post("/admin/catalog/versions", data={**form, "prices_0_tiers_0_up_to": "many", "act": "publish"})
    assert answer.status_code == 422
    assert 'href="#f-prices_0_tiers_0_up_to"' in answer.text
    assert 'value="many"' in answer.text


@pytest.mark.parametrize("pasted", ["{", "[]", '{"code": "x"}', '{"code": "x", "name": "X", "currency": "EUR", "prize": 1}', "[" * 100_000])
def test_json_that_is_no_plan_is_refused_and_kept(editor: tuple[FlaskClient, dict[str, str]], pasted: str) -> None:
    client, form = editor
    answer = client.post("/admin/catalog/versions", data={**form, "view": "json", "json": pasted, "act": "publish"})
    assert answer.status_code == 422


def test_only_a_catalogue_admin_publishes(client: FlaskClient, session: Session) -> None:
    token = sign_in(client, session, make_user(session, operator_role=OperatorRole.FINANCE), site="admin")
    assert client.get("/admin/catalog").status_code == 200
    assert client.get("/admin/catalog/metrics").status_code == 200
    form = {**FORM, "csrf_token": token, "idempotency_key": "editor-form-3", "act": "publish"}
    assert client.post("/admin/catalog/versions", data=form).status_code == 403


def test_prices_without_fields_are_written_as_json(editor: tuple[FlaskClient, dict[str, str]], session: Session) -> None:
    client, form = editor
    form |= {"prices_0_model": "time_of_use", "idempotency_key": "editor-form-4", "act": "publish"}
    begun = client.post("/admin/catalog/versions", data={**form, "act": ""}).text
    assert "&#34;windows&#34;" in begun
    refused = client.post("/admin/catalog/versions", data={**form, "prices_0_more": '{"windows": [{"name": "peak", "from": "25:00"}]}'})
    assert refused.status_code == 422
    assert 'href="#f-prices_0_more"' in refused.text
    assert "windows_0_" in refused.text
    assert client.post("/admin/catalog/versions", data={**form, "prices_0_more": "{"}).status_code == 422
    more = '{"windows": [{"name": "peak", "from": "08:00", "to": "20:00", "unit_price": "0.30"}], "default": {"unit_price": "0.20"}}'
    assert client.post("/admin/catalog/versions", data={**form, "prices_0_more": more}).status_code == 303
    shown = client.get("/admin/catalog/plans/inference").text
    assert "peak, 08:00–20:00" in shown
    assert "other hours" in shown
