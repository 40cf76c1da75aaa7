"""`make trace [CSV=path]`: a usage trace goes in over HTTP, a paid invoice with its PDF comes out.

The trace has the columns TIMESTAMP (UTC), ContextTokens, GeneratedTokens, one row a request. Its customer lives in Germany on a test clock
that starts with the month of the first row; every month of the trace is posted, closed, invoiced, charged and mailed.
The last line of output is JSON: {"invoice", "status", "lines": {code: amount}, "net", "tax", "total", "events_accepted",
"events_duplicate"}, amounts as decimal strings; over several months the amounts are those of the last invoice and "invoices" lists all.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import sys
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import requests

from core import clock
from core.audit import SYSTEM
from core.identity import keys
from core.identity.permissions import Scope
from ops.context import unit_of_work
from ops.home import ROOT

EXAMPLE = ROOT / "examples" / "azure_llm_trace_conv.csv.gz"
ZONE = ZoneInfo("Europe/Berlin")
EVENT = "llm.request"
BATCH = 1_000
TIMEOUT_SECONDS = 120
SETTLE_SECONDS_MAX = 120


def _sum(code: str, name: str) -> dict[str, Any]:
    return {"code": code, "name": name, "unit": "token", "aggregation": "sum", "property": code, "event_name": EVENT}


METRICS: tuple[dict[str, Any], ...] = (
    _sum("input_tokens", "Input tokens"),
    _sum("output_tokens", "Output tokens"),
    {"code": "requests", "name": "Requests", "unit": "request", "aggregation": "count", "event_name": EVENT},
)
PLAN: dict[str, Any] = {
    "code": "inference",
    "name": "Inference",
    "currency": "EUR",
    "billing_period": "month",
    "base_price": "99.00",
    "billing_mode": "in_arrears",
    "prices": [
        {
            "metric": "input_tokens",
            "model": "graduated",
            "tiers": [{"up_to": "10000000", "unit_price": "0.000002"}, {"up_to": None, "unit_price": "0.0000015"}],
        },
        {"metric": "output_tokens", "model": "per_unit", "unit_price": "0.000008"},
        {"metric": "requests", "model": "package", "package_size": "1000", "package_price": "0.40"},
    ],
}


class TraceError(Exception):
    """The trace cannot be billed; the text says why."""


@dataclass(frozen=True, slots=True)
class Row:
    """One request: `number` is its place in the file, from 1."""

    number: int
    at: datetime
    context_tokens: int
    generated_tokens: int

    def event(self) -> dict[str, Any]:
        """The usage event that is posted for it."""
        return {
            "event_name": EVENT,
            "timestamp": self.at.isoformat(),
            "idempotency_key": f"row-{self.number}",
            "properties": {"input_tokens": self.context_tokens, "output_tokens": self.generated_tokens},
        }


class Api:
    """The product's own HTTP API, as any customer's engineer would call it."""

    def __init__(self, base: str, key: str) -> None:
        self.base = f"{base.rstrip('/')}/api/v1"
        self.http = requests.Session()
        self.http.headers["Authorization"] = f"Bearer {key}"

    def post(self, path: str, body: Any, *, may_exist: bool = False, **headers: str) -> dict[str, Any] | None:
        """POST JSON; None when `may_exist` and it does (409). TraceError carries the problem the API reported."""
        answer = self.http.post(
            self.base + path, json=body, headers={"Idempotency-Key": str(uuid.uuid4()), **headers}, timeout=TIMEOUT_SECONDS
        )
        if answer.status_code == 409 and may_exist:
            return None
        return self._json(answer)

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """GET JSON."""
        return self._json(self.http.get(self.base + path, params=query, timeout=TIMEOUT_SECONDS))

    def _json(self, answer: requests.Response) -> dict[str, Any]:
        if answer.status_code >= 400:
            raise TraceError(f"{answer.request.method} {answer.request.url} answered {answer.status_code}: {answer.text}")
        found: dict[str, Any] = answer.json()
        return found


def read(path: Path) -> list[Row]:
    """The rows in order of time. TraceError for a file that is missing, empty or of other columns."""
    with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as file:
        try:
            rows = [_row(number, line) for number, line in enumerate(csv.DictReader(file), start=1)]
        except (KeyError, TypeError, ValueError) as error:
            raise TraceError(f"{path} is no trace: it needs the columns TIMESTAMP, ContextTokens, GeneratedTokens ({error!r})") from error
    if not rows:
        raise TraceError(f"{path} has no rows")
    return sorted(rows, key=lambda row: (row.at, row.number))


def _row(number: int, line: dict[str, str]) -> Row:
    text, _, digits = line["TIMESTAMP"].strip().removesuffix("Z").partition(".")
    at = datetime.fromisoformat(text).replace(tzinfo=UTC, microsecond=int(digits[:6].ljust(6, "0")) if digits else 0)
    return Row(number, at, int(line["ContextTokens"]), int(line["GeneratedTokens"]))


def month_start(at: datetime, later: int = 0) -> datetime:
    """Local midnight of the first of the month of `at`, `later` months on."""
    local = at.astimezone(ZONE)
    year, month = divmod(local.year * 12 + local.month - 1 + later, 12)
    return datetime(year, month + 1, 1, tzinfo=ZONE)


def bill(api: Api, rows: Sequence[Row]) -> dict[str, Any]:
    """The whole way; returns what the last line of output says."""
    walk = api.post("/test-clocks", {"frozen_time": month_start(rows[0].at).isoformat(), "name": "Usage trace"}) or {}
    customer = _customer(api, walk["id"])
    counts = {"events_accepted": 0, "events_duplicate": 0}
    invoices = []
    for first, group in groupby(rows, key=lambda row: month_start(row.at)):
        month = list(group)
        _advance(api, walk["id"], month[-1].at + timedelta(minutes=1))
        for batch in _batches(month):
            _post_usage(api, customer["id"], batch, counts, total=len(rows))
        _advance(api, walk["id"], month_start(first, 1) + timedelta(days=1))
        invoices.append(_settled(api, customer["id"], first))
    return _summary(invoices) | counts


def _customer(api: Api, clock_id: str) -> dict[str, Any]:
    for metric in METRICS:
        if api.post("/billing/metrics", metric, may_exist=True) is None:
            _require_same(metric, api.get(f"/billing/metrics/{metric['code']}"))
    api.post("/billing/plans", PLAN)
    mark = uuid.uuid4().hex[:8]
    customer = api.post(
        "/billing/organizations",
        {
            "name": f"Trace {mark} GmbH",
            "slug": f"trace-{mark}",
            "external_id": f"trace-{mark}",
            "billing_email": f"billing@trace-{mark}.example",
            "currency": "EUR",
            "timezone": ZONE.key,
            "billing_address": {"line1": "Unter den Linden 1", "postal_code": "10117", "city": "Berlin", "country": "DE"},
            "test_clock_id": clock_id,
        },
    )
    assert customer is not None
    card = {"organization_id": customer["id"], "type": "card", "provider_token": "pm_card_visa", "is_default": True}
    api.post("/billing/payment-methods", card)
    api.post("/billing/subscriptions", {"organization_id": customer["id"], "plan": PLAN["code"], "billing_anchor": "calendar"})
    say(f"customer {customer['name']} on plan {PLAN['name']}")
    return customer


def _require_same(wanted: dict[str, Any], found: dict[str, Any]) -> None:
    if any(found[name] != wanted.get(name) for name in ("aggregation", "property", "event_name")) or found["filters"]:
        raise TraceError(f"a metric {wanted['code']} exists and measures something else ({found['aggregation']} of {found['event_name']})")


def _post_usage(api: Api, customer_id: str, batch: Iterable[Row], counts: dict[str, int], *, total: int) -> None:
    events = [row.event() | {"organization_id": customer_id} for row in batch]
    answer = api.post("/billing/usage", events, Prefer="wait=10") or {}
    if answer["rejected"]:
        raise TraceError(f"{answer['rejected']} events were rejected: {json.dumps(answer['events'][:3])}")
    duplicates = len(_batch(api, answer["batch_id"])["duplicates"])
    counts["events_duplicate"] += duplicates
    counts["events_accepted"] += answer["accepted"] - duplicates
    say(f"{counts['events_accepted'] + counts['events_duplicate']:,} of {total:,} events posted")


def _batch(api: Api, batch_id: str) -> dict[str, Any]:
    """The batch once its duplicates are known."""
    for _ in _polls():
        batch = api.get(f"/billing/usage/batches/{batch_id}")
        if batch["status"] != "pending":
            return batch
    raise TraceError(f"batch {batch_id} was not counted within {SETTLE_SECONDS_MAX} s")


def _advance(api: Api, clock_id: str, to: datetime) -> None:
    api.post(f"/test-clocks/{clock_id}/advance", {"to": to.isoformat()}, Prefer="wait=30")
    for _ in _polls():
        found = api.get(f"/test-clocks/{clock_id}")
        if found["status"] == "ready":
            say(f"the clock stands at {found['frozen_time']}")
            return
    raise TraceError(f"the clock did not reach {to.isoformat()} within {SETTLE_SECONDS_MAX} s")


def _settled(api: Api, customer_id: str, month: datetime) -> dict[str, Any]:
    """The month's invoice, once its payment has come to an end."""
    for _ in _polls():
        for found in api.get("/billing/invoices", organization_id=customer_id)["data"]:
            if datetime.fromisoformat(found["billing_period_start"]) == month and found["status"] not in {"draft", "open"}:
                return api.get(f"/billing/invoices/{found['id']}")
    raise TraceError(f"the invoice of {month:%B %Y} was not paid within {SETTLE_SECONDS_MAX} s")


def _summary(invoices: Sequence[dict[str, Any]]) -> dict[str, Any]:
    told = [
        {
            "invoice": invoice["invoice_number"],
            "status": invoice["status"],
            "lines": {line["code"]: line["amount"] for line in invoice["lines"]},
            "net": invoice["subtotal"],
            "tax": invoice["tax"],
            "total": invoice["total"],
        }
        for invoice in invoices
    ]
    for invoice, words in zip(invoices, told, strict=True):
        say(f"invoice {words['invoice']} is {words['status']}")
        for line in invoice["lines"]:
            say(f"  {line['name']:<16} {line['quantity']:>16} {line['amount']:>12} {invoice['currency']}")
        say(f"  {'net':<16} {'':>16} {invoice['subtotal']:>12}\n  {'tax':<16} {'':>16} {invoice['tax']:>12}")
        say(f"  {'total':<16} {'':>16} {invoice['total']:>12} {invoice['currency']}")
    return told[-1] | ({"invoices": told} if len(told) > 1 else {})


def _batches(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    return (rows[start : start + BATCH] for start in range(0, len(rows), BATCH))


def _polls() -> Iterator[None]:
    end = time.monotonic() + SETTLE_SECONDS_MAX
    while time.monotonic() < end:
        yield
        time.sleep(0.2)


def say(text: str) -> None:
    """Progress, beside the result."""
    print(text, file=sys.stderr, flush=True)


def main(words: list[str] | None = None) -> int:
    """Bill the trace on the copy of the product that the environment names; exit 1 when something stands in the way."""
    parser = argparse.ArgumentParser(prog="valueverse trace", description="Bill a usage trace from first event to paid invoice.")
    parser.add_argument("--csv", type=Path, default=EXAMPLE, help="columns TIMESTAMP, ContextTokens, GeneratedTokens; .csv or .csv.gz")
    chosen = parser.parse_args(words)
    try:
        rows = read(chosen.csv)
        result = bill(Api(os.environ["PUBLIC_URL"], _key()), rows)
    except (TraceError, OSError) as error:
        say(str(error))
        return 1
    print(json.dumps(result))
    return 0


def _key() -> str:
    """The platform key to call with: $VALUEVERSE_API_KEY, else one made for this run in the product's database."""
    if given := os.environ.get("VALUEVERSE_API_KEY"):
        return given
    with unit_of_work() as session:
        _, token = keys.create(
            session, organization_id=None, name="Usage trace", mode="test", scopes=[*Scope], actor=SYSTEM, at=clock.now()
        )
    return token


if __name__ == "__main__":
    raise SystemExit(main())
