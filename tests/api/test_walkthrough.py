"""The walk-through of docs/api.md works as it is written: its curl commands are read from the page and carried out."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from core.db import db
from tests.fakes.fixtures import provider_fake
from tests.payments.billing import charging_at
from tests.people import make_key

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)
CAPTURE = re.compile(r"(?P<name>[A-Z]+)=\$\((?P<command>curl .*) \| jq -r \.(?P<path>[a-z_.]+)\)", re.DOTALL)
COMMANDS = [command for block in BLOCK.findall(PAGE) for command in re.split(r"\n(?=curl |[A-Z]+=)", block.strip()) if "curl " in command]


@pytest.fixture
def reader(committed_app: Flask) -> Iterator[tuple[FlaskClient, dict[str, str]]]:
    """A client and the shell variables of somebody who reads the page."""
    with committed_app.app_context():
        key = make_key(db.session(), None)
        db.session().commit()
    with provider_fake() as provider, charging_at(provider):
        yield committed_app.test_client(), {"API": "/api/v1", "KEY": key}


def curl(client: FlaskClient, command: str, variables: dict[str, str]) -> TestResponse:
    """What curl would send."""
    filled = re.sub(r"\$([A-Z]+)", lambda found: variables[found[1]], command.replace("\\\n", " "))
    words = shlex.split(filled)[1:]
    headers, body, method, address = {}, None, None, ""
    while words:
        word = words.pop(0)
        if word == "-H":
            name, _, value = words.pop(0).partition(": ")
            headers[name] = "wait=0" if name == "Prefer" else value  # no worker moves the clock here
        elif word == "-d":
            body = words.pop(0)
        elif word == "-X":
            method = words.pop(0)
        elif not word.startswith("-"):
            address = word
    return client.open(address, method=method or ("POST" if body else "GET"), headers=headers, data=body)


def test_every_command_of_the_page_works_in_order(reader: tuple[FlaskClient, dict[str, str]]) -> None:
    client, variables = reader
    assert len(COMMANDS) > 15
    for command in COMMANDS:
        captured = CAPTURE.fullmatch(command)
        answer = curl(client, captured["command"] if captured else command, variables)
        assert answer.status_code in {200, 201, 202}, f"{command}\n{answer.status_code} {answer.text}"
        if captured:
            found: Any = answer.get_json()
            for step in captured["path"].split("."):
                found = found[step]
            variables[captured["name"]] = found
    invoice = client.get(f"/api/v1/billing/invoices/{variables['INVOICE']}", headers={"Authorization": f"Bearer {variables['KEY']}"})
    assert (invoice.get_json()["status"], invoice.get_json()["subtotal"]) == ("paid", "900.00")
