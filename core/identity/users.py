"""People: creating them, checking who signs in, their roles in organizations, ending their access."""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from core import audit
from core.audit import Actor
from core.errors import Conflict, FieldError, Forbidden, Invalid, NotFound
from core.identity import passwords, sessions, throttle
from core.identity.models import Membership, OperatorRole, Role, User
from core.identity.organizations import is_email


def create(
    session: Session, *, email: str, name: str, password: str, actor: Actor, at: datetime, operator_role: OperatorRole | None = None
) -> User:
    """A new person, an operator of the finance side when a role is given. Raises Invalid, Conflict."""
    email = email.strip().lower()
    if not is_email(email):
        raise Invalid("The user was not created.", errors=(FieldError("/email", "This is not an e-mail address."),))
    passwords.require_acceptable(password, context=(email, name))
    if session.scalar(select(User.id).where(User.email == email)):
        raise Conflict("There is a user with this e-mail address.", code="email_taken")
    user = User(
        email=email,
        name=name.strip(),
        password_hash=passwords.hashed(password),
        operator_role=operator_role,
        totp_last_step=0,
        created_at=at,
    )
    session.add(user)
    session.flush()
    audit.record(session, actor, "user.created", user, at=at, email=email, operator_role=operator_role)
    return user


def check_password(session: Session, *, email: str, password: str, ip: str, at: datetime) -> User | None:
    """The user whom e-mail and password name, or None: unknown, disabled and wrong look and take the same.

    A failure is counted by account and by address. Raises RateLimited, without looking at the password, past the bounds.
    """
    email = email.strip().lower()[:255]
    limits = throttle.bounds(account=email, ip=ip)
    throttle.require_free(session, limits, at=at)
    user = session.scalar(select(User).where(User.email == email))
    right = passwords.matches(user.password_hash if user else None, password)
    if user is None or not right or user.disabled_at is not None:
        throttle.note_failure(session, limits, at=at)
        return None
    throttle.forget(session, f"account:{email}")
    if passwords.is_outdated(user.password_hash):
        user.password_hash = passwords.hashed(password)
        session.flush()
    return user


def add_member(session: Session, *, organization_id: uuid.UUID, user: User, role: Role, actor: Actor, at: datetime) -> Membership:
    """Give `user` a role in the organization, or another one than before (their sign-ins end)."""
    if actor.kind in {"user", "operator"} and actor.id == str(user.id):
        raise Forbidden("Nobody changes a role of their own.")
    member = session.scalar(select(Membership).where(Membership.organization_id == organization_id, Membership.user_id == user.id))
    if member is None:
        member = Membership(organization_id=organization_id, user_id=user.id, role=role, created_at=at)
        session.add(member)
    elif member.role != role:
        member.role = role
        sessions.end_all(session, user, actor=actor, at=at)
    session.flush()
    audit.record(session, actor, "membership.granted", member, at=at, user=user.email, role=role)
    return member


def membership(session: Session, organization_id: uuid.UUID, user_id: uuid.UUID) -> Membership:
    """The user's membership; raises NotFound for a stranger."""
    found = session.scalar(select(Membership).where(Membership.organization_id == organization_id, Membership.user_id == user_id))
    if found is None:
        raise NotFound("There is no such account.")
    return found


def first_organization_id(session: Session, user_id: uuid.UUID) -> uuid.UUID | None:
    """Where a member lands after signing in: the organization joined first."""
    return session.scalar(select(Membership.organization_id).where(Membership.user_id == user_id).order_by(Membership.id).limit(1))


def disable(session: Session, user: User, *, actor: Actor, at: datetime) -> None:
    """End a person's access everywhere, at once."""
    if user.disabled_at is None:
        user.disabled_at = at
        session.flush()
        audit.record(session, actor, "user.disabled", user, at=at)
        sessions.end_all(session, user, actor=actor, at=at)
