"""The verdict on each event of a request: accepted and which metrics it feeds, or refused, why and where. Nothing is written here.

Four roads lead to the same verdict: `compiled` judges a request whose events are all in order in one pass of machine code, `quick`
column by column, where that is not installed; `lone` a request of one event in order. Anything unusual goes the `careful` road.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from core.errors import Forbidden
from core.metering import bodies, careful, compiled, lone, quick, unclaimed
from core.metering.accounts import Account
from core.metering.bodies import Form, Malformed
from core.metering.careful import Refused, Window
from core.metering.columns import Columns, Lone
from core.metering.directory import Directory, Principal

SCOPES = frozenset({"usage:write", "admin"})
QUICK_OBJECTS_MIN = 12
"""Events and properties: fewer than this are judged faster one by one."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a request of `events` events. `fed[i]` is the JSON list of metric codes that the i-th accepted event feeds."""

    events: int
    accepted: Columns | Lone | None
    fed: Sequence[str]
    refused: tuple[Refused, ...]
    organization_id: uuid.UUID | None
    api_key_id: uuid.UUID
    single: bool = False
    """Whether the request was one event, not a list of them."""
    unclaimed: int = 0
    """How many of the accepted events no metric reads yet."""


def judge(directory: Directory, principal: Principal, body: bytes, form: Form, *, window: Window, at: datetime) -> Verdict:
    """Judge every event of `body` at the real time `at`; organizations on a test clock are judged by their own time.

    Raises Malformed, TooLarge, Forbidden or Unavailable when the request as a whole cannot be taken.
    """
    own = own_account(directory, principal)
    most = min(bodies.objects(body), window.events_max)
    if most >= QUICK_OBJECTS_MIN:
        answer = compiled.judge(directory, own, body, form, window=window, at=at, most=most)
        if answer is None:
            answer = quick.judge(directory, own, body, form, window=window, at=at)
        if answer is not None:
            columns, fed = answer
            return Verdict(len(columns), columns, fed, (), principal.organization_id, principal.key_id)
    raws = bodies.cut(body, form, events_max=window.events_max)
    if not raws:
        raise Malformed("There is no event in the request.")
    single = form == Form.JSON and not body.lstrip().startswith(b"[")
    if len(raws) == 1 and (found := lone.judge(directory, own, raws[0], window=window, at=at)) is not None:
        return Verdict(1, found[0], (found[1],), (), principal.organization_id, principal.key_id, single)
    accepted, fed, refused = careful.judge(directory, own, raws, window=window, at=at)
    return Verdict(len(raws), accepted, fed, refused, principal.organization_id, principal.key_id, single, fed.count(unclaimed.FED))


def own_account(directory: Directory, principal: Principal) -> Account | None:
    """The organization the key belongs to, None for a platform key. Raises Forbidden."""
    if not principal.scopes & SCOPES:
        raise Forbidden("This key may not send usage; it needs the scope usage:write.", code="insufficient_scope")
    if principal.organization_id is None:
        return None
    reference = str(principal.organization_id)
    own = directory.accounts((reference,))[reference]
    if own.status == "closed":
        raise Forbidden("This organization is closed.", code="organization_closed")
    return own
