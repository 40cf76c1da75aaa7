"""Doing something only to see what comes of it: it is done in a savepoint, looked at, and taken back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from sqlalchemy.orm import Session

from core import jobs

Done = TypeVar("Done")
Seen = TypeVar("Seen")


class _OnlyTried(Exception):
    """Leaves the savepoint, so that all of it is taken back."""


def tried(session: Session, work: Callable[[], Done], look: Callable[[Done], Seen]) -> Seen:
    """What `look` makes of the outcome of `work`, which is then taken back with the jobs it enqueued; errors of `work` are raised.

    `look` returns plain values: rows are gone afterwards.
    """
    seen: list[Seen] = []
    try:
        with suppress(_OnlyTried), session.begin_nested():
            seen.append(look(work()))
            raise _OnlyTried
    finally:
        jobs.drop(session)
        session.expire_all()
    return seen[0]
