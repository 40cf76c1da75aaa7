"""A customer with two months behind it, and its people, for the tests of the portal's pages."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from core.identity.models import Organization, Role
from tests.conftest import Clock
from tests.people import make_member, sign_in
from tests.portal import story
from tests.portal.story import Story

NOW = datetime(2026, 11, 22, 9, 41, 7, tzinfo=UTC)
SignIn = Callable[..., str]


@pytest.fixture
def now(clock: Clock) -> datetime:
    """The moment the tests look at: 22 Nov 2026, 10:41:07 in Berlin."""
    return clock.at(NOW)


@pytest.fixture
def quillmark(session: Session, now: datetime) -> Story:
    """The customer."""
    return story.tell(session, now=now, months=2)


@pytest.fixture
def enter(client: FlaskClient, session: Session) -> SignIn:
    """Sign the client in as a member with a role; returns the CSRF token."""

    def as_role(organization: Organization, role: Role = Role.OWNER) -> str:
        return sign_in(client, session, make_member(session, organization, role, name="Lena Hartmann"), organization)

    return as_role
