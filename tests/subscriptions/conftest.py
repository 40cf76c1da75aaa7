"""Counts the statements a block sends to the database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session


@dataclass
class Counted:
    """How many statements were sent."""

    count: int = 0


@pytest.fixture
def count_statements(session: Session) -> Callable[[], AbstractContextManager[Counted]]:
    """`with count_statements() as counted:` fills `counted.count`."""

    @contextmanager
    def counting() -> Iterator[Counted]:
        counted = Counted()

        def note(*_: object) -> None:
            counted.count += 1

        connection = session.connection()
        event.listen(connection, "before_cursor_execute", note)
        try:
            yield counted
        finally:
            event.remove(connection, "before_cursor_execute", note)

    return counting
