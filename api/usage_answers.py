"""The answer to a usage request: the verdict on each of its events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from core.metering import unclaimed
from core.metering.accept import Verdict
from core.metering.careful import Refused
from core.metering.chosen import Chosen, Row
from core.metering.results import Result

EVENTS_MAX = 10_000
PLACES = [f'{{"index":{i},"status":"accepted","metrics":' for i in range(EVENTS_MAX)]
PLACES_ROW = Row(PLACES)


def render(verdict: Verdict, batch_id: int | None, result: Result | None = None) -> bytes:
    """The answer's body: the verdict on each event in the order they were sent."""
    refused = {one.index: one for one in verdict.refused}
    if isinstance(verdict.fed, Chosen) and not refused and result is None:
        events = verdict.fed.behind(PLACES_ROW, "},")[:-1]
    else:
        fed = iter(verdict.fed)
        events = ",".join([_rendered(verdict, i, refused, fed, result) for i in range(verdict.events)]).encode()
    accepted = verdict.events - len(refused)
    counts = f'"accepted":{accepted},"rejected":{len(refused)}'
    if verdict.unclaimed:
        counts += f',"unclaimed":{verdict.unclaimed}'
    if result is not None:
        counts += f',"duplicates":{len(result.duplicates)},"conflicts":{len(result.conflicts)}'
    batch = f'"{batch_id}"' if batch_id is not None else "null"
    return b'{"batch_id":%b,%b,"events":[%b]}' % (batch.encode(), counts.encode(), events)


def refusals(verdict: Verdict) -> list[dict[str, Any]]:
    """The verdict on each refused event, as JSON objects."""
    return [_refusal(verdict, one) for one in verdict.refused]


def _refusal(verdict: Verdict, one: Refused) -> dict[str, Any]:
    return {"index": one.index, "status": "rejected", "code": one.code, "detail": one.detail, "pointer": pointer(verdict, one)}


def pointer(verdict: Verdict, one: Refused) -> str:
    """JSON pointer into the request: a request that is one object has no index."""
    return one.pointer if verdict.single else f"/{one.index}{one.pointer}"


def _rendered(verdict: Verdict, index: int, refused: dict[int, Refused], fed: Iterator[str], result: Result | None) -> str:
    one = refused.get(index)
    if one is not None:
        return msgspec.json.encode(_refusal(verdict, one)).decode()
    codes = next(fed)
    if result is not None and index in result.duplicates:
        return f'{{"index":{index},"status":"duplicate","metrics":{codes}}}'
    if result is not None and index in result.conflicts:
        detail = "An event with this idempotency key but other content was counted before; this one was not."
        return f'{{"index":{index},"status":"conflict","detail":"{detail}","metrics":{codes}}}'
    if codes == unclaimed.FED:
        return f'{{"index":{index},"status":"unclaimed","metrics":[]}}'
    return f"{PLACES[index]}{codes}}}"
