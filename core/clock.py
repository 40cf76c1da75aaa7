"""The one source of time. Only the edges call it; everything below takes `at` or `as_of`.

An organization bound to a test clock lives in that clock's time. A process-wide frozen instant serves tests and simulations.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Protocol


class LivesInTime(Protocol):
    """What may have a time of its own: an organization bound to a test clock."""

    @property
    def frozen_time(self) -> datetime | None: ...


_frozen: datetime | None = None


def now(organization: LivesInTime | None = None) -> datetime:
    """The current instant, timezone-aware UTC, as `organization` lives it."""
    if organization is not None and organization.frozen_time is not None:
        return organization.frozen_time
    return _frozen if _frozen is not None else datetime.now(UTC)


@contextmanager
def frozen(at: datetime) -> Iterator[None]:
    """Hold `now()` at one instant inside the block (tests and simulations)."""
    global _frozen  # noqa: PLW0603 - one process, one clock
    before, _frozen = _frozen, at.astimezone(UTC)
    try:
        yield
    finally:
        _frozen = before
