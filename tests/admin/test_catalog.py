"""The catalogue: what is on offer, what changed between versions, and the editor that publishes the next one."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from core.catalog import queries
from core.identity.models import OperatorRole
from core.pricing.models import parse
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
    "prices_0_use_quantity": "22361870",
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
    assert "prices_0_tiers_2_up_to" in client.post("/admin/catalog/versions", data={**form, "act": "add:prices.0.tiers"}).text
    assert "prices_1_model" in client.post("/admin/catalog/versions", data={**form, "act": "add:prices"}).text
    assert "prices_0_model" not in client.post("/admin/catalog/versions", data={**form, "act": "remove:prices.0"}).text


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


class Inputs(HTMLParser):
    """What a browser would send of the editor's form."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self.area: str | None = None
        self.select: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an input's value, and the option that is chosen."""
        given = dict(attrs)
        name = given.get("name") or ""
        if tag == "input" and name and (given.get("type") not in ("checkbox", "radio") or "checked" in given):
            self.found[name] = given.get("value") or ""
        elif tag == "select":
            self.select = name
        elif tag == "option" and self.select and ("selected" in given or self.select not in self.found):
            self.found[self.select] = given.get("value") or ""
        elif tag == "textarea":
            self.area, self.found[name] = name, ""

    def handle_data(self, data: str) -> None:
        """The text of a textarea."""
        if self.area:
            self.found[self.area] += data

    def handle_endtag(self, tag: str) -> None:
        """A select or textarea is over."""
        self.area, self.select = (None, None) if tag in ("textarea", "select") else (self.area, self.select)


def test_every_model_is_written_in_fields_alone(editor: tuple[FlaskClient, dict[str, str]], session: Session) -> None:
    client, form = editor
    text = (Path(__file__).parents[2] / "docs" / "pricing-models.md").read_text()
    prices = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]
    prices += [
        {"model": "commitment", "amount": "5", "covers": ["a", "b"]},
        {"model": "discount", "tiers": [{"up_to": None, "percent_off": "5"}]},
    ]
    given = {"code": "all", "name": "All", "currency": "EUR", "prices": prices, "features": {"sso": True, "days": 90}}
    given |= {
        "limits": {"tokens": 500, "calls": {"value": 9, "period": "daily"}},
        "currencies": {"USD": {"base_price": "9", "prices": prices[:2]}},
    }
    posted = {"csrf_token": form["csrf_token"], "view": "json", "json": json.dumps(given)}
    reader = Inputs()
    reader.feed(client.post("/admin/catalog/versions", data={**posted, "view": "form"}).text)
    assert not [name for name in reader.found if name.endswith("_more")], "a key has no field of its own"
    again = Inputs()
    again.feed(client.post("/admin/catalog/versions", data={**reader.found, "view": "json"}).text)
    got = json.loads(again.found["json"])
    on_spend = [price for price in got["prices"] if price["model"] in ("commitment", "discount")]
    assert on_spend == prices[-2:]
    assert [parse(price) for price in got["prices"][:-2]] == [parse(price) for price in prices[:-2]]
    assert {key: got[key] for key in ("features", "limits")} == {key: given[key] for key in ("features", "limits")}
    assert len(got["currencies"]["USD"]["prices"]) == 2


def test_a_draft_is_saved_changed_by_two_people_and_published(editor: tuple[FlaskClient, dict[str, str]], session: Session) -> None:
    client, form = editor
    saved = client.post("/admin/catalog/versions", data={**form, "name": "", "draft_name": "Autumn", "act": "save"})
    assert saved.status_code == 303
    shown = client.get(saved.location).text
    assert "must be a text that is not empty" in shown
    assert "Publish</button>" not in shown
    edit, mine = f"{saved.location}/edit", {**form, "draft_name": "Autumn", "revision": "1"}
    assert 'value="22361870"' in client.get(edit).text  # what was typed into the calculator
    assert client.post(edit, data={**mine, "act": "save", "idempotency_key": "draft-key-2"}).status_code == 303
    late = client.post(edit, data={**mine, "base_price": "77", "act": "save", "idempotency_key": "draft-key-3"})
    assert late.status_code == 409
    assert "What you typed is below" in late.text
    assert 'name="revision" value="2"' in late.text
    assert "€137.54" not in client.get(saved.location).text  # lines, not the sum
    assert "€38.54" in client.get(saved.location).text
    published = client.post(f"{saved.location}/acts", data={**form, "act": "publish", "revision": "2", "idempotency_key": "draft-key-4"})
    assert published.location.endswith("/admin/catalog/plans/inference")
    assert [version.base_price for version in queries.plan(session, "inference").versions] == [99]
    assert client.get(edit).status_code == 409
    assert "Autumn" in client.get("/admin/catalog/drafts?all=1").text
