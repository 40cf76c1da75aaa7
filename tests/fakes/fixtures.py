"""Start the fakes as processes of their own, and stop them."""

import contextlib
import json
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 20


@dataclass(frozen=True, slots=True)
class ProviderFake:
    """A running provider: give `url` to the product as STRIPE_API_BASE, `api_key` as STRIPE_API_KEY."""

    url: str
    data: Path
    webhook_secret: str
    process: "subprocess.Popen[str]"
    api_key: str = "sk_test_fake"

    def control(self, path: str, body: dict[str, Any] | None = None, method: str = "") -> dict[str, Any]:
        """Ask or tell `/_control/…`."""
        answer = requests.request(method or ("POST" if body is not None else "GET"), f"{self.url}/_control/{path}", json=body, timeout=10)
        answer.raise_for_status()
        result: dict[str, Any] = answer.json()
        return result

    def mode(self, mode: str, **match: Any) -> None:
        """Let requests go wrong: `mode("charge_then_drop", next=2)`, `mode("decline:lost_card", customer="cus_…")`."""
        self.control("mode", {"mode": mode, "match": match or {"next": 1}})

    def heal(self) -> None:
        """Take all failure modes away."""
        self.control("mode", method="DELETE")

    def charges(self) -> list[dict[str, Any]]:
        """The record of what was charged, oldest first: charge, payment_intent, attempt, customer, amount, currency, …"""
        found: list[dict[str, Any]] = self.control("charges")["charges"]
        return found

    def refunds(self) -> list[dict[str, Any]]:
        """The record of what was given back."""
        found: list[dict[str, Any]] = self.control("charges")["refunds"]
        return found

    def webhooks(self, **knobs: Any) -> None:
        """Turn the knobs of delivery: url, secret, dup, drop, delay, shuffle."""
        self.control("webhooks", knobs)

    def deliveries(self) -> list[dict[str, Any]]:
        """Every delivery so far: event, url, status, at."""
        found: list[dict[str, Any]] = self.control("deliveries")["deliveries"]
        return found

    def replay(self, event: str, times: int = 1) -> None:
        """Deliver an event again."""
        self.control("webhooks/replay", {"event": event, "times": times})

    def advance_clock(self, seconds: int) -> None:
        """Let the provider's time pass."""
        self.control("clock", {"advance": seconds})


@contextlib.contextmanager
def provider_fake(
    data: Path | None = None, *, webhook_url: str | None = None, webhook_secret: str = "whsec_test_secret", port: int = 0
) -> Iterator[ProviderFake]:
    """Run the provider on a free port of loopback until the block is left. With `data` it remembers an earlier run."""
    with contextlib.ExitStack() as stack:
        if data is None:
            data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="provider-"))) / "provider.sqlite"
        command = [
            sys.executable,
            "-m",
            "tests.fakes.provider",
            "--port",
            str(port),
            "--data",
            str(data),
            "--webhook-secret",
            webhook_secret,
        ]
        if webhook_url:
            command += ["--webhook-url", webhook_url]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        stack.callback(_stop, process)
        yield ProviderFake(_address(process), data, webhook_secret, process)


def _address(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], START_SECONDS)
    line = process.stdout.readline() if readable else ""
    if not line:
        raise RuntimeError(f"the provider did not start within {START_SECONDS} s (exit status {process.poll()})")
    return str(json.loads(line)["url"])


def _stop(process: "subprocess.Popen[str]") -> None:
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
