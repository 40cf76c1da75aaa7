"""Sign-ins as rows: the cookie holds a random token, the row its SHA-256.

Signing out, disabling a user or changing a role therefore acts at once.
"""

from __future__ import annotations

import hashlib
import secrets
import uuid
from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session, joinedload

from core import audit
from core.audit import Actor
from core.identity.models import LoginSession, User

PORTAL, ADMIN = "portal", "admin"
IDLE_MAX = {PORTAL: timedelta(hours=12), ADMIN: timedelta(minutes=30)}
LIFE_MAX = {PORTAL: timedelta(days=7), ADMIN: timedelta(hours=8)}
SEEN_EVERY = timedelta(minutes=1)
USER_AGENT_LENGTH_MAX = 255


def begin(
    session: Session,
    user: User,
    *,
    site: str,
    at: datetime,
    organization_id: uuid.UUID | None = None,
    mfa_at: datetime | None = None,
    ip: str = "",
    user_agent: str = "",
) -> tuple[LoginSession, str]:
    """A new sign-in on `site` and the token for its cookie. Every sign-in and every new factor begins a new one (no fixation)."""
    token = secrets.token_urlsafe(32)
    row = LoginSession(
        token_hash=_hash(token),
        user=user,
        site=site,
        organization_id=organization_id,
        csrf_secret=secrets.token_urlsafe(32),
        mfa_at=mfa_at,
        created_at=at,
        last_seen_at=at,
        expires_at=at + LIFE_MAX[site],
        ip=ip,
        user_agent=user_agent[:USER_AGENT_LENGTH_MAX],
    )
    session.add(row)
    session.flush()
    return row, token


def resolve(session: Session, token: str, *, site: str, at: datetime) -> LoginSession | None:
    """The live sign-in behind a cookie of `site` with its user loaded; None when it ended, idled out or its user is disabled."""
    return session.scalar(
        select(LoginSession)
        .join(LoginSession.user)
        .options(joinedload(LoginSession.user))
        .where(
            LoginSession.token_hash == _hash(token),
            LoginSession.site == site,
            LoginSession.ended_at.is_(None),
            LoginSession.expires_at > at,
            LoginSession.last_seen_at > at - IDLE_MAX[site],
            User.disabled_at.is_(None),
        )
    )


def needs_touch(row: LoginSession, *, at: datetime) -> bool:
    """Whether the last sign of life is old enough to be written again."""
    return row.last_seen_at < at - SEEN_EVERY


def touch(session: Session, session_id: uuid.UUID, *, at: datetime) -> None:
    """Note that the session is in use."""
    session.execute(
        update(LoginSession).where(LoginSession.id == session_id).values(last_seen_at=at).execution_options(synchronize_session=False)
    )


def choose_organization(session: Session, row: LoginSession, organization_id: uuid.UUID) -> None:
    """Look at another of the user's organizations; the caller has checked the membership."""
    row.organization_id = organization_id
    session.flush()


def end(session: Session, row: LoginSession, *, actor: Actor, at: datetime) -> None:
    """Sign out: the cookie is worth nothing from the commit on."""
    if row.ended_at is None:
        row.ended_at = at
        session.flush()
        audit.record(session, actor, "user.signed_out", row.user, at=at, organization_id=row.organization_id, site=row.site)


def end_all(session: Session, user: User, *, actor: Actor, at: datetime) -> int:
    """End every sign-in of a user (role change, password change, disabled); returns how many."""
    live = LoginSession.user_id == user.id, LoginSession.ended_at.is_(None)
    ended = len(session.scalars(update(LoginSession).where(*live).values(ended_at=at).returning(LoginSession.id)).all())
    if ended:
        audit.record(session, actor, "user.sessions_ended", user, at=at, sessions=ended)
    return ended


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
