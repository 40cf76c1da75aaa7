"""The provider keeps the promises that the tests of the product rest on."""

import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.fakes.fixtures import ProviderFake, provider_fake


@pytest.fixture(scope="module")
def running() -> Iterator[ProviderFake]:
    with provider_fake() as fake:
        yield fake


def call(fake: ProviderFake, path: str, form: dict[str, Any] | None = None, key: str | None = None) -> requests.Response:
    headers = {"Authorization": f"Bearer {fake.api_key}"} | ({"Idempotency-Key": key} if key else {})
    return requests.request("POST" if form is not None else "GET", f"{fake.url}/v1/{path}", data=form, headers=headers, timeout=10)


def payment(fake: ProviderFake, **more: Any) -> dict[str, Any]:
    customer = call(fake, "customers", {"name": "Ada"}).json()["id"]
    method = call(fake, "payment_methods/pm_card_visa/attach", {"customer": customer}).json()["id"]
    values = {"amount": 1000, "currency": "eur", "customer": customer, "payment_method": method, "confirm": "true"}
    return values | {"off_session": "true", "payment_method_types[0]": "card"} | more


def test_a_key_keeps_its_first_answer_for_a_day_of_the_providers_time(running: ProviderFake) -> None:
    form, key = payment(running), str(uuid.uuid4())
    first = call(running, "payment_intents", form, key)
    again = call(running, "payment_intents", form, key)
    assert again.json() == first.json()
    assert again.headers["Idempotent-Replayed"] == "true"
    other = call(running, "payment_intents", form | {"amount": 2000}, key)
    assert (other.status_code, other.json()["error"]["type"]) == (400, "idempotency_error")
    running.advance_clock(25 * 3600)
    late = call(running, "payment_intents", form, key)
    assert late.json()["id"] != first.json()["id"]
    assert len([row for row in running.charges() if row["customer"] == form["customer"]]) == 2


def test_a_refused_form_saves_nothing_under_its_key(running: ProviderFake) -> None:
    form, key = payment(running), str(uuid.uuid4())
    assert call(running, "payment_intents", form | {"amount": "ten"}, key).status_code == 400
    assert call(running, "payment_intents", form, key).status_code == 200


@pytest.mark.parametrize(
    ("form", "param", "code"),
    [
        ({"amount": 1000}, "currency", "parameter_missing"),
        ({"amount": 1000, "currency": "eur", "colour": "red"}, "colour", "parameter_unknown"),
        (
            {"amount": 1000, "currency": "eur", "automatic_payment_methods[maybe]": "1"},
            "automatic_payment_methods[maybe]",
            "parameter_unknown",
        ),
        ({"amount": "1e3", "currency": "eur"}, "amount", "parameter_invalid_integer"),
        ({"amount": -5, "currency": "eur"}, "amount", "parameter_invalid_integer"),
        ({"amount": 10, "currency": "eur"}, "amount", "amount_too_small"),
        ({"amount": 1234, "currency": "isk"}, "amount", "invalid_charge_amount"),
        ({"amount": 1000, "currency": "eur", "customer": "cus_x"}, "customer", "resource_missing"),
        ({"amount": 1000, "currency": "eur", "confirm": "true"}, "payment_method", "payment_intent_unexpected_state"),
    ],
)
def test_a_wrong_parameter_is_named(running: ProviderFake, form: dict[str, Any], param: str, code: str) -> None:
    answer = call(running, "payment_intents", form)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["param"], error["code"]) == (400, "invalid_request_error", param, code)


def test_confirming_without_a_way_back_is_refused_as_with_real_keys(running: ProviderFake) -> None:
    form = payment(running)
    del form["payment_method_types[0]"]
    assert call(running, "payment_intents", form).json()["error"]["param"] == "return_url"
    assert call(running, "payment_intents", form | {"return_url": "https://x.example"}).status_code == 200


def test_without_a_key_nothing_is_told(running: ProviderFake) -> None:
    assert requests.get(f"{running.url}/v1/charges", timeout=5).status_code == 401
    assert requests.get(f"{running.url}/v1/charges", headers={"Authorization": "Bearer sk_live_x"}, timeout=5).status_code == 401
    assert call(running, "nothing").json()["error"]["message"].startswith("Unrecognized request URL")


def test_lists_are_paged_newest_first_and_objects_expanded(running: ProviderFake) -> None:
    form = payment(running)
    made = [call(running, "payment_intents", form).json()["id"] for _ in range(3)]
    first = call(running, f"payment_intents?customer={form['customer']}&limit=2").json()
    assert ([entry["id"] for entry in first["data"]], first["has_more"]) == ([made[2], made[1]], True)
    rest = call(running, f"payment_intents?customer={form['customer']}&starting_after={made[1]}&expand[0]=data.latest_charge").json()
    assert ([entry["id"] for entry in rest["data"]], rest["has_more"]) == ([made[0]], False)
    assert rest["data"][0]["latest_charge"]["amount"] == 1000
    moved = call(running, f"balance_transactions?source={rest['data'][0]['latest_charge']['id']}").json()["data"]
    assert [(entry["amount"], entry["fee"], entry["net"]) for entry in moved] == [(1000, 59, 941)]


def test_the_search_finds_by_metadata(running: ProviderFake) -> None:
    attempt = str(uuid.uuid4())
    made = call(running, "payment_intents", payment(running, **{"metadata[attempt_id]": attempt})).json()["id"]
    found = call(running, f"payment_intents/search?query=metadata['attempt_id']:'{attempt}'").json()["data"]
    assert [entry["id"] for entry in found] == [made]


def test_modes_hit_every_nth_request_and_only_those_that_match(running: ProviderFake) -> None:
    form, other = payment(running), payment(running)
    running.mode("decline:do_not_honor", customer=form["customer"], every=3)
    assert [call(running, "payment_intents", form).status_code for _ in range(6)] == [200, 200, 402, 200, 200, 402]
    assert call(running, "payment_intents", other).status_code == 200
    running.heal()
    assert running.control("mode")["modes"] == []


@pytest.mark.parametrize("body", [{"mode": "explode"}, {"mode": "500", "match": {"moon": "full"}}, {"made": "500"}])
def test_a_mode_that_does_not_exist_is_refused(running: ProviderFake, body: dict[str, Any]) -> None:
    assert requests.post(f"{running.url}/_control/mode", json=body, timeout=5).status_code == 400


def test_the_record_survives_a_restart_and_cannot_be_changed(tmp_path: Path) -> None:
    data = tmp_path / "provider.sqlite"
    with provider_fake(data) as fake:
        form, key = payment(fake), str(uuid.uuid4())
        first = call(fake, "payment_intents", form, key).json()
        fake.process.kill()
    with provider_fake(data) as fake:
        assert call(fake, f"payment_intents/{first['id']}").json() == first
        assert call(fake, "payment_intents", form, key).json() == first
        assert [row["payment_intent"] for row in fake.charges()] == [first["id"]]
    with sqlite3.connect(data) as connection:
        for statement in ("DELETE FROM charged", "UPDATE charged SET amount = 1"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                connection.execute(statement)
    connection.close()
