"""People and keys for tests, made through the product's own functions, and how a test client signs in."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Collection
from typing import Any

from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from core import clock
from core.audit import Actor
from core.identity import keys, sessions, users
from core.identity.models import LoginSession, OperatorRole, Organization, Role, User
from core.identity.permissions import Scope
from web import csrf

SETUP = Actor("system", "setup", "Test setup")
PASSWORD = "correct horse battery staple"
ALL_SCOPES = tuple(Scope)
_numbers = itertools.count(1)


def make_user(session: Session, *, operator_role: OperatorRole | None = None, **given: Any) -> User:
    """A person with PASSWORD."""
    number = next(_numbers)
    values = {"email": f"person{number}-{uuid.uuid4().hex[:6]}@customer.example", "name": f"Person {number}", "password": PASSWORD, **given}
    return users.create(session, **values, operator_role=operator_role, actor=SETUP, at=clock.now())


def make_member(session: Session, organization: Organization, role: Role = Role.OWNER, **given: Any) -> User:
    """A person with a role in the organization."""
    user = make_user(session, **given)
    users.add_member(session, organization_id=organization.id, user=user, role=role, actor=SETUP, at=clock.now())
    return user


def sign_in(client: FlaskClient, session: Session, user: User, organization: Organization | None = None, *, site: str = "portal") -> str:
    """Give the client a live sign-in of `user` on `site` (operators with their second factor); returns the CSRF token for its forms."""
    at = clock.now()
    row, token = sessions.begin(
        session,
        user,
        site=site,
        at=at,
        organization_id=organization.id if organization else None,
        mfa_at=at if site == sessions.ADMIN else None,
    )
    client.set_cookie(f"vv_{site}", token)
    return csrf_of(client, row)


def csrf_of(client: FlaskClient, row: LoginSession) -> str:
    """The token that forms of this sign-in carry."""
    with client.application.app_context():
        return csrf.token_for(row.csrf_secret)


def make_key(session: Session, organization: Organization | None, scopes: Collection[str] = ALL_SCOPES, **given: Any) -> str:
    """The secret of a new API key; organization None makes a platform key."""
    values = {"name": "Test key", "mode": "test", **given}
    owner = organization.id if organization else None
    return keys.create(session, organization_id=owner, scopes=scopes, actor=SETUP, at=clock.now(), **values)[1]


def bearer(token: str, **headers: str) -> dict[str, str]:
    """Request headers that carry the key; further ones with _ for -."""
    return {"Authorization": f"Bearer {token}", **{name.replace("_", "-"): value for name, value in headers.items()}}
