"""Operators' browsers and a customer with a life, for the tests of the finance site's pages."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from flask.testing import FlaskClient
from sqlalchemy import event
from sqlalchemy.orm import Session

from core.identity.models import OperatorRole
from tests.conftest import Clock
from tests.people import make_user, sign_in
from tests.portal import story
from tests.portal.story import Story

NOW = datetime(2026, 11, 22, 9, 41, 7, tzinfo=UTC)
Enter = Callable[..., str]
Count = Callable[[str], int]


@pytest.fixture
def now(clock: Clock) -> datetime:
    """22 Nov 2026, 10:41:07 in Berlin."""
    return clock.at(NOW)


@pytest.fixture
def quillmark(session: Session, now: datetime) -> Story:
    """A customer with two months behind it; the invoice of October is open and overdue."""
    return story.tell(session, now=now, months=2)


@pytest.fixture
def enter(client: FlaskClient, session: Session, now: datetime) -> Enter:
    """Sign the client in as an operator with a role; returns the CSRF token."""

    def as_role(role: OperatorRole = OperatorRole.FINANCE) -> str:
        return sign_in(client, session, make_user(session, operator_role=role), site="admin")

    return as_role


@pytest.fixture
def statements(client: FlaskClient, session: Session) -> Count:
    """How many SQL statements a page takes."""

    def count(address: str) -> int:
        seen: list[str] = []

        def note(*args: object) -> None:
            seen.append(str(args[2]))

        engine = session.get_bind()
        event.listen(engine, "before_cursor_execute", note)
        try:
            assert client.get(address).status_code == 200
        finally:
            event.remove(engine, "before_cursor_execute", note)
        return len(seen)

    return count
