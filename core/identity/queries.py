"""Reading identity: organizations, keys, members, test clocks; and whose row an id is. Rows come with what pages and the API show."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence

from sqlalchemy import or_, select
from sqlalchemy.orm import Session, joinedload

from core.db import Base
from core.errors import NotFound
from core.identity.models import ApiKey, Membership, Organization, TestClock, User

NO_ACCOUNT = "There is no such account."


def organization(session: Session, organization_id: uuid.UUID) -> Organization:
    """The organization with its test clock; raises NotFound."""
    found = session.get(Organization, organization_id)
    if found is None:
        raise NotFound(NO_ACCOUNT)
    return found


def organization_by_reference(session: Session, reference: str) -> Organization:
    """The organization whose id, external id or slug is `reference`, in this order; raises NotFound."""
    wanted = as_uuid(reference)
    found = session.get(Organization, wanted) if wanted else None
    if found is None:
        found = session.scalar(select(Organization).where(Organization.external_id == reference))
    if found is None:
        found = session.scalar(select(Organization).where(Organization.slug == reference))
    if found is None:
        raise NotFound(NO_ACCOUNT)
    return found


def organizations(
    session: Session,
    *,
    only: uuid.UUID | None = None,
    search: str = "",
    external_id: str | None = None,
    test_clock_id: uuid.UUID | None = None,
    after: uuid.UUID | None = None,
    limit: int,
) -> Sequence[Organization]:
    """Newest first, at most `limit`, those before the id `after`; `only` narrows to the one a bound key may see."""
    query = select(Organization).order_by(Organization.id.desc()).limit(limit)
    if only:
        query = query.where(Organization.id == only)
    if external_id is not None:
        query = query.where(Organization.external_id == external_id)
    if test_clock_id is not None:
        query = query.where(Organization.test_clock_id == test_clock_id)
    if after:
        query = query.where(Organization.id < after)
    if search:
        query = query.where(or_(Organization.name.icontains(search, autoescape=True), Organization.slug.icontains(search, autoescape=True)))
    return session.scalars(query).all()


def owner(session: Session, table: str, row_id: uuid.UUID, *, within: uuid.UUID | None) -> uuid.UUID:
    """The organization that row `row_id` of a tenant's `table` belongs to; `within` is the only one the caller may see.

    A row of somebody else and a row that does not exist raise the same NotFound.
    """
    columns = Base.metadata.tables[table].c
    query = select(columns.organization_id).where(columns.id == row_id)
    if within:
        query = query.where(columns.organization_id == within)
    found = session.scalar(query)
    if found is None:
        raise NotFound("There is nothing with this id.")
    return uuid.UUID(str(found))


def api_keys(session: Session, organization_id: uuid.UUID | None, *, after: uuid.UUID | None = None, limit: int = 100) -> Sequence[ApiKey]:
    """The organization's keys, newest first, revoked ones included; None lists the platform's own."""
    mine = ApiKey.organization_id == organization_id if organization_id else ApiKey.organization_id.is_(None)
    query = select(ApiKey).where(mine).order_by(ApiKey.id.desc()).limit(limit)
    return session.scalars(query.where(ApiKey.id < after) if after else query).all()


def key_labels(session: Session, key_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, str]:
    """Names of keys of any account, for lists over many: for operators only."""
    rows = session.execute(select(ApiKey.id, ApiKey.name).where(ApiKey.id.in_(key_ids)))
    return {row[0]: row[1] for row in rows}


def key_owner(session: Session, key_id: uuid.UUID) -> uuid.UUID | None:
    """The organization a key is bound to, None for a platform key; raises NotFound."""
    key = session.get(ApiKey, key_id)
    if key is None:
        raise NotFound("There is no such API key.")
    return key.organization_id


def members(session: Session, organization_id: uuid.UUID) -> Sequence[Membership]:
    """The organization's members with their users, in the order they joined."""
    query = select(Membership).options(joinedload(Membership.user)).where(Membership.organization_id == organization_id)
    return session.scalars(query.order_by(Membership.id)).all()


def memberships(session: Session, user_id: uuid.UUID) -> Sequence[Membership]:
    """The organizations a user belongs to, in the order they joined."""
    query = select(Membership).options(joinedload(Membership.organization)).where(Membership.user_id == user_id)
    return session.scalars(query.order_by(Membership.id)).all()


def operators(session: Session) -> Sequence[User]:
    """Everybody with a role on the finance side."""
    return session.scalars(select(User).where(User.operator_role.is_not(None)).order_by(User.email)).all()


def list_clocks(session: Session, *, after: uuid.UUID | None = None, limit: int) -> Sequence[TestClock]:
    """Test clocks, newest first."""
    query = select(TestClock).order_by(TestClock.id.desc()).limit(limit)
    return session.scalars(query.where(TestClock.id < after) if after else query).all()


def as_uuid(text: str) -> uuid.UUID | None:
    """`text` as a UUID, None when it is not one."""
    try:
        return uuid.UUID(text)
    except ValueError:
        return None
