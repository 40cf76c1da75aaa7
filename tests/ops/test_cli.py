"""The `valueverse` command: dispatch, and the commands that make the first accounts."""

from __future__ import annotations

import json
import os
from pathlib import Path

import psycopg
import pyotp
import pytest

from core import config
from core.config import Settings
from ops import accounts, cli, context


@pytest.fixture
def settings(committed_database_url: str, valkey_server_url: str, monkeypatch: pytest.MonkeyPatch):
    """The command's process stands on the module's own database."""
    before = config._current
    config.use(Settings(environment="test", database_url=committed_database_url, redis_url=valkey_server_url))
    monkeypatch.setenv("DATABASE_URL", committed_database_url)
    context.app.cache_clear()
    yield
    context.app.cache_clear()
    config._current = before


def test_help_lists_every_command_and_a_wrong_one_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["help"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in cli.COMMANDS)
    assert cli.main(["frobnicate"]) == 2
    assert "'frobnicate'" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_leads_to_a_function(name: str) -> None:
    assert callable(cli.load(cli.COMMANDS[name].target))


def test_an_unknown_measurement_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "nothing"]) == 2
    assert "rating" in capsys.readouterr().err


def test_a_command_on_an_empty_home_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.setenv("VALUEVERSE_HOME", str(tmp_path / "nothing"))
    assert cli.main(["verify"]) == 1
    assert "make run" in capsys.readouterr().err


def test_an_operator_is_made_once(settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["create-operator", "--email", "ada@northlight.example", "--name", "Ada", "--role", "finance"]
    monkeypatch.setenv("OPERATOR_PASSWORD", "correct horse battery staple")
    assert cli.main(words) == 0
    assert cli.main(words) == 1
    assert "There is a user with this e-mail address." in capsys.readouterr().err
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        assert connection.execute("SELECT email, operator_role FROM users").fetchall() == [("ada@northlight.example", "finance")]
        assert connection.execute("SELECT count(*) FROM audit_events WHERE kind = 'user.created'").fetchone() == (1,)


def test_a_key_is_saved_for_our_eyes_only_and_stored_hashed(settings, tmp_path: Path) -> None:
    path = tmp_path / "key"
    assert cli.main(["create-key", "--name", "Ours", "--save", str(path)]) == 0
    token = path.read_text().strip()
    assert token.startswith("vv_test_")
    assert path.stat().st_mode & 0o777 == 0o600
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        row = connection.execute("SELECT row_to_json(k)::text FROM api_keys k WHERE name = 'Ours'").fetchone()
    assert row is not None
    assert token.removeprefix("vv_test_") not in row[0]


def test_demo_codes_are_those_of_an_authenticator(tmp_path: Path, monkeypatch, clock, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("VALUEVERSE_HOME", str(tmp_path))
    assert accounts.demo_code([]) == 1
    secret = pyotp.random_base32()
    login = {"who": "Finance", "path": "/admin/sign-in", "email": "fin@northlight.example", "password": "x", "totp_secret": secret}
    (tmp_path / "logins.json").write_text(json.dumps([login]))
    assert accounts.demo_code([]) == 0
    assert pyotp.TOTP(secret).at(clock.now()) in capsys.readouterr().out


def test_usage_is_recounted_and_compared_with_invoices(settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["usage", "recount", "--days", "1"]) == 0
    assert "0 lines of issued invoices were compared: all hold what is counted; 0 wait" in capsys.readouterr().out


def test_events_are_moved_into_a_hypertable_only_where_there_is_one(settings, capsys: pytest.CaptureFixture[str]) -> None:
    if cli.main(["usage", "hypertable"]):
        assert "has no TimescaleDB" in capsys.readouterr().out
    else:
        assert cli.main(["usage", "hypertable"]) == 1, "once is enough"
