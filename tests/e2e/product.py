"""A running copy of the whole product, as an operator starts it, and the ways in: HTTP, a browser, the database, the mail catcher."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyotp
import requests
from flask import Flask
from playwright.sync_api import Browser, BrowserContext, Page
from sqlalchemy.orm import Session

from core import config, schema
from core.config import Settings
from core.db import db, engine_options, transaction
from ops import home as homes
from ops import ports

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS_MAX = 540
STOP_SECONDS_MAX = 90
ANSWER_SECONDS_MAX = 60
SERVERS = ("DATABASE_", "REDIS_", "SMTP_", "STRIPE_", "VALUEVERSE_")
"""Variables that would lead the copy to another one's servers."""


@dataclass(frozen=True, slots=True)
class Stack:
    """The copy on `home`: its addresses and settings as it left them in its state."""

    home: Path
    state: dict[str, Any]

    @property
    def url(self) -> str:
        """Where both sites and the API are."""
        return str(self.state["urls"]["web"])

    @property
    def key(self) -> str:
        """The copy's own platform key."""
        return (self.home / "api-key").read_text(encoding="utf-8").strip()

    @property
    def environment(self) -> dict[str, str]:
        """What a command needs to work on this copy and no other."""
        return {**foreign_free(), "VALUEVERSE_HOME": str(self.home)}

    def login(self, who: str) -> dict[str, str]:
        """The demo login whose role's name begins with `who`."""
        return next(login for login in homes.read_logins(self.home) if login["who"].startswith(who))

    def api(self, method: str, path: str, body: Any = None, key: str = "", **headers: str) -> dict[str, Any]:
        """Call the API and return its JSON; fails on anything but success."""
        sent = {"Authorization": f"Bearer {key or self.key}", "Idempotency-Key": str(uuid.uuid4()), **headers}
        answer = requests.request(method, f"{self.url}/api/v1{path}", json=body, headers=sent, timeout=ANSWER_SECONDS_MAX)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text}"
        found: dict[str, Any] = answer.json()
        return found

    def advance(self, clock_id: str, to: str) -> None:
        """Move a test clock and wait until everything that fell due on the way is done."""
        self.api("POST", f"/test-clocks/{clock_id}/advance", {"to": to}, Prefer="wait=30")
        until(lambda: self.api("GET", f"/test-clocks/{clock_id}")["status"] == "ready", f"the clock stands at {to}", seconds=120)

    def mails(self, recipient: str) -> list[dict[str, Any]]:
        """What the mail catcher has for somebody, newest first."""
        caught: list[dict[str, Any]] = requests.get(f"{self.state['urls']['mail']}/mails.json", timeout=10).json()
        return [mail for mail in caught if recipient in mail["to"]]

    def command(self, *words: str, seconds: float = 240) -> subprocess.CompletedProcess[str]:
        """Run an operator's command on this copy."""
        return subprocess.run(
            [sys.executable, "-m", "ops.cli", *words],
            cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False, timeout=seconds,
        )  # fmt: skip

    @contextmanager
    def unit_of_work(self) -> Iterator[Session]:
        """One transaction on the copy's database; this process's settings are put back afterwards."""
        before = config._current
        settings = config.use(Settings.from_env(self.state["environment"]))
        schema.load_models()
        bare = Flask("e2e", static_folder=None)
        bare.config.update(
            SQLALCHEMY_DATABASE_URI=settings.database_url, SQLALCHEMY_ENGINE_OPTIONS=engine_options(1, statement_seconds_max=60)
        )
        db.init_app(bare)
        try:
            with bare.app_context(), transaction() as session:
                yield session
            with bare.app_context():
                db.engine.dispose()
        finally:
            config._current = before


def until(done: Any, what: str, *, seconds: float = ANSWER_SECONDS_MAX) -> Any:
    """The first true answer of `done`, asked again and again; fails when there is none in time."""
    end = time.monotonic() + seconds
    while not (found := done()):
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.2)
    return found


def foreign_free() -> dict[str, str]:
    """This process's environment without what names servers."""
    return {name: value for name, value in os.environ.items() if not name.startswith(SERVERS) and name != "MAKELEVEL"}


@contextmanager
def running(home: Path) -> Iterator[Stack]:
    """Start the product with its demo on `home`, wait until it is ready, and stop it as Ctrl-C does."""
    console = home.with_suffix(".console")
    command = [sys.executable, "-m", "ops.stack", "--home", str(home), "--port", str(ports.free())]
    with console.open("wb") as out:
        process = subprocess.Popen(command, cwd=ROOT, env=foreign_free(), stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        yield Stack(home, ready(home, process, console))
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def ready(home: Path, process: subprocess.Popen[bytes], console: Path) -> dict[str, Any]:
    """The state of the copy once it answers."""
    end = time.monotonic() + START_SECONDS_MAX
    while (state := homes.running(home)) is None:
        assert process.poll() is None, console.read_text()
        assert time.monotonic() < end, console.read_text()
        time.sleep(0.2)
    return state


class Visitor:
    """A browser window with a memory for what its pages complained about."""

    def __init__(self, browser: Browser, stack: Stack, *, width: int = 1280, scheme: str = "light", script: bool = True) -> None:
        self.stack, self.complaints = stack, list[str]()
        self.context: BrowserContext = browser.new_context(
            base_url=stack.url, viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=script,  # type: ignore[arg-type]
            accept_downloads=True, reduced_motion="reduce",
        )  # fmt: skip
        self.page: Page = self.context.new_page()
        self.page.on("console", lambda message: self.complaints.append(message.text) if message.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def sign_in(self, site: str, email: str, password: str, totp_secret: str = "") -> Page:
        """Through the site's own form, with the second factor where there is one."""
        page = self.page
        page.goto(f"/{site}/sign-in")
        page.get_by_label("Work e-mail").fill(email)
        page.get_by_label("Password").fill(password)
        page.get_by_role("button", name="Sign in").click()
        while totp_secret and page.get_by_label("Code").count():  # a code is good once; the next one comes within 30 s
            page.get_by_label("Code").fill(pyotp.TOTP(totp_secret).now())
            page.get_by_role("button", name="Continue").click()
            page.wait_for_load_state()
        page.wait_for_url(re.compile(rf"/{site}/$"))
        return page

    def close(self) -> None:
        """Close the window."""
        self.context.close()


def last_line(output: str) -> dict[str, Any]:
    """The JSON object a command ends with."""
    found: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    return found
