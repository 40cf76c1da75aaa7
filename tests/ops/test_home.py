"""A home keeps its secrets and ports, belongs to one copy at a time, and can be found by other commands."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.config import Settings
from ops import home as homes
from ops import ports, stack
from ops.home import Home, HomeError


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"
    link = tmp_path / "home" / "data"  # where the data live when PostgreSQL's user cannot reach the test's own folder
    if link.exists():
        shutil.rmtree(link.resolve())


def opened(folder: Path) -> Home:
    home = Home(folder)
    home.open()
    return home


def test_secrets_are_made_once_and_are_ours_alone(folder: Path) -> None:
    home = opened(folder)
    first = home.secrets()
    assert home.secrets() == first
    assert len(set(first.values())) == len(first)
    assert stat.S_IMODE((folder / "secrets.json").stat().st_mode) == 0o600
    assert Home(folder.with_name("other")).path != folder


def test_two_copies_cannot_share_a_home(folder: Path) -> None:
    opened(folder)
    with pytest.raises(HomeError, match=f"process {os.getpid()}"):
        opened(folder)


def test_a_home_is_running_only_while_its_lock_is_held_and_it_is_ready(folder: Path) -> None:
    assert homes.running(folder) is None
    home = opened(folder)
    assert homes.running(folder) is None
    home.save(ready=True, urls={"web": "http://127.0.0.1:8000"})
    state = homes.running(folder)
    assert state is not None
    assert state["urls"] == {"web": "http://127.0.0.1:8000"}


def test_ports_are_remembered_and_move_out_of_the_way(folder: Path) -> None:
    home = opened(folder)
    web = ports.free()
    first = home.choose_ports(web)
    assert first["web"] == web
    assert len(set(first.values())) == len(first)
    assert home.choose_ports(None) == first
    with socket.socket() as other:
        other.bind(("127.0.0.1", first["postgres"]))
        other.listen()
        moved = home.choose_ports(None)
    assert moved["postgres"] != first["postgres"]
    assert moved["web"] == web


def test_a_wanted_port_that_is_taken_is_refused(folder: Path) -> None:
    home = opened(folder)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(HomeError, match="is taken by another program"):
            home.choose_ports(other.getsockname()[1])


def test_settings_of_a_local_copy_are_complete(folder: Path) -> None:
    home = opened(folder)
    chosen = home.choose_ports(ports.free())
    made = Settings.from_env(stack.settings(home, chosen, {}))
    assert made.environment == "development"
    assert made.secret_key == home.secrets()["SECRET_KEY"]
    assert made.stripe_api_base == f"http://127.0.0.1:{chosen['provider']}"


def test_named_servers_are_used_and_not_started(folder: Path) -> None:
    home = opened(folder)
    chosen = home.choose_ports(ports.free())
    named = {"REDIS_URL": "redis://queue.example/0", "SMTP_URL": "smtp://mail.example", "STRIPE_API_KEY": "sk_test_theirs"}
    environment = stack.settings(home, chosen, named)
    assert environment["STRIPE_API_BASE"] == "https://api.stripe.com"
    assert stack.outside(home, chosen, environment) == []
    assert {service.name for service in stack.outside(home, chosen, stack.settings(home, chosen, {}))} == {
        "valkey",
        "mail catcher",
        "provider fake",
    }


def test_production_makes_nothing_up(folder: Path) -> None:
    home = opened(folder)
    environment = stack.settings(home, home.choose_ports(ports.free()), {"VALUEVERSE_ENV": "production"})
    assert "SECRET_KEY" not in environment
    assert environment["DATABASE_URL"] == ""


def test_state_is_replaced_whole(folder: Path) -> None:
    home = opened(folder)
    home.save(pid=1, ready=True)
    home.save(ready=None)
    assert json.loads((folder / "stack.json").read_text()) == {"pid": 1}


def test_the_state_of_a_killed_copy_is_not_taken_for_the_next_one_s(folder: Path) -> None:
    home = opened(folder)
    gone = subprocess.Popen(["true"])
    gone.wait()
    home.save(ready=True, pid=gone.pid)
    assert homes.running(folder) is None
