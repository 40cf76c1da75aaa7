"""Test clocks: settable time for organizations that try out a billing life in minutes."""

from __future__ import annotations

import re
import time
import uuid
from datetime import datetime
from typing import Annotated

from flask import request
from msgspec import Meta

from api.call import Call
from api.contract import Answered, Input, Listing, Output, Page, endpoint, page_of
from api.values import FREE_PATTERN, cursor_id
from core import test_clocks
from core.db import transaction
from core.errors import Conflict
from core.identity import queries
from core.identity.models import TestClock
from core.identity.permissions import Scope

TAG = "Test clocks"
WAIT_SECONDS = 15
WAIT_SECONDS_MAX = 60
POLL_SECONDS = 0.1
WAIT = re.compile(r"(?:^|[,;\s])wait=([0-9]{1,4})(?:$|[,;\s])")


class TestClockIn(Input):
    """A new clock."""

    __test__ = False

    frozen_time: Annotated[datetime, Meta(tz=True)]
    name: Annotated[str, Meta(max_length=100, pattern=FREE_PATTERN)] = ""


class Advance(Input):
    """Where to."""

    to: Annotated[datetime, Meta(tz=True, description="At most two years after the clock's time.")]


class TestClockOut(Output):
    """A clock; `advancing` while what falls due on the way is being carried out."""

    __test__ = False

    id: uuid.UUID
    name: str
    status: str
    frozen_time: datetime
    advance_to: datetime | None
    created_at: datetime


@endpoint("POST", "/test-clocks", scope=Scope.BILLING_WRITE, tag=TAG, status=201)
def create_test_clock(call: Call, body: TestClockIn) -> TestClockOut:
    """Create a test clock. Organizations made with its id live in its time."""
    call.require_platform()
    clock = test_clocks.create(call.session, frozen_time=body.frozen_time, name=body.name, actor=call.actor, at=call.now())
    return _out(clock)


@endpoint("GET", "/test-clocks", scope=Scope.BILLING_READ, tag=TAG)
def list_test_clocks(call: Call, query: Listing) -> Page[TestClockOut]:
    """List test clocks, newest first."""
    call.require_platform()
    rows = queries.list_clocks(call.session, after=cursor_id(query), limit=query.limit + 1)
    return page_of(rows, query.limit, _out, lambda row: row.id)


@endpoint("GET", "/test-clocks/<uuid:test_clock_id>", scope=Scope.BILLING_READ, tag=TAG)
def get_test_clock(call: Call, test_clock_id: uuid.UUID) -> TestClockOut:
    """Read a test clock."""
    call.require_platform()
    return _out(test_clocks.get(call.session, test_clock_id))


@endpoint("POST", "/test-clocks/<uuid:test_clock_id>/advance", scope=Scope.BILLING_WRITE, tag=TAG, stepwise=True, statuses=(202,))
def advance_test_clock(call: Call, test_clock_id: uuid.UUID, body: Advance) -> Answered[TestClockOut]:
    """Advance a test clock.

    Everything that falls due on the way happens in order: renewals, invoices, charges, mails. The answer waits for it up to 15 s,
    or as long as `Prefer: wait=N` says (at most 60): 200 when the clock has arrived, 202 while it is still on its way.
    """
    call.require_platform()
    with transaction() as session:
        test_clocks.request_advance(session, test_clock_id, to=body.to, actor=call.actor, at=call.now())
    deadline = time.monotonic() + _wait_seconds()
    while True:
        with transaction() as session:
            clock = test_clocks.get(session, test_clock_id)
            error, shown = clock.last_error, _out(clock)
        if error:
            raise Conflict(f"The clock stopped at {shown.frozen_time.isoformat()}: {error}", code="advance_failed")
        if shown.advance_to is None:
            return Answered(shown, 200)
        if time.monotonic() >= deadline:
            return Answered(shown, 202)
        time.sleep(POLL_SECONDS)


def _wait_seconds() -> int:
    found = WAIT.search(request.headers.get("Prefer", ""))
    return min(int(found[1]), WAIT_SECONDS_MAX) if found else WAIT_SECONDS


def _out(clock: TestClock) -> TestClockOut:
    return TestClockOut(
        id=clock.id,
        name=clock.name,
        status=clock.status,
        frozen_time=clock.frozen_time,
        advance_to=clock.advance_to,
        created_at=clock.created_at,
    )
