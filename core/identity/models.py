"""Tables of identity: organizations, test clocks, users, memberships, sessions, API keys, login attempts."""

from __future__ import annotations

import uuid
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column, relationship

from core.db import Base, Currency, Id, finite, one_of


class OrganizationStatus(StrEnum):
    ACTIVE = "active"
    SUSPENDED = "suspended"
    CLOSED = "closed"


class Role(StrEnum):
    """What a member may do inside one organization (the customer's side)."""

    OWNER = "owner"
    BILLING = "billing"
    DEVELOPER = "developer"
    VIEWER = "viewer"


class OperatorRole(StrEnum):
    """What an operator may do on the finance side; RELIABILITY's segregation of duties."""

    SUPPORT = "support"
    BILLING_OPS = "billing_ops"
    FINANCE = "finance"
    FINANCE_APPROVER = "finance_approver"
    CATALOG_ADMIN = "catalog_admin"
    USER_ADMIN = "user_admin"
    AUDITOR = "auditor"
    OPERATOR = "operator"


class TestClock(Base):
    """A settable time; organizations bound to it live there. `advance_to` is set while it is on its way."""

    __tablename__ = "test_clocks"
    __test__ = False

    id: Mapped[Id]
    name: Mapped[str] = mapped_column(Text, server_default="")
    frozen_time: Mapped[datetime]
    advance_to: Mapped[datetime | None]
    last_error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    @property
    def status(self) -> str:
        """`ready` or `advancing`."""
        return "advancing" if self.advance_to else "ready"


class Organization(Base):
    """A customer account: the tenant every other row belongs to. `number` is its short key in the usage tables."""

    __tablename__ = "organizations"
    __table_args__ = (
        one_of("status", OrganizationStatus),
        finite("tax_rate_percent", minimum=0),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency_code"),
        CheckConstraint("slug ~ '^[a-z0-9][a-z0-9-]*$'", name="slug_form"),
    )

    id: Mapped[Id]
    number: Mapped[int] = mapped_column(Integer, Identity(always=True), unique=True)
    name: Mapped[str] = mapped_column(String(255))
    slug: Mapped[str] = mapped_column(String(100), unique=True)
    external_id: Mapped[str | None] = mapped_column(String(255), unique=True)
    status: Mapped[str] = mapped_column(String(50), server_default=OrganizationStatus.ACTIVE)
    billing_email: Mapped[str] = mapped_column(String(255))
    currency: Mapped[Currency]
    timezone: Mapped[str] = mapped_column(String(64))
    locale: Mapped[str] = mapped_column(String(16), server_default="en_GB")
    billing_address: Mapped[dict[str, Any]]
    tax_id: Mapped[str | None] = mapped_column(String(50))
    tax_rate_percent: Mapped[Decimal | None]
    """A rate that overrides the assessed one (percent, 19 = 19 %); None means: assess by country and tax id."""
    auto_collect: Mapped[bool] = mapped_column(server_default=text("true"))
    extra: Mapped[dict[str, Any]] = mapped_column("metadata", server_default=text("'{}'"))
    test_clock_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("test_clocks.id"), index=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now(), index=True)

    test_clock: Mapped[TestClock | None] = relationship(lazy="joined")

    @property
    def frozen_time(self) -> datetime | None:
        """The time of its test clock; None when it lives in real time."""
        return self.test_clock.frozen_time if self.test_clock else None

    @property
    def organization_id(self) -> uuid.UUID:
        """Its own id: an organization is the subject and the tenant of its audit events."""
        return self.id


class User(Base):
    """A person. `operator_role` is set for finance-side operators, who must have TOTP; members have memberships."""

    __tablename__ = "users"
    __table_args__ = (one_of("operator_role", OperatorRole), CheckConstraint("email = lower(email)", name="email_lower"))

    id: Mapped[Id]
    email: Mapped[str] = mapped_column(String(255), unique=True)
    name: Mapped[str] = mapped_column(String(255))
    password_hash: Mapped[str] = mapped_column(Text)
    operator_role: Mapped[str | None] = mapped_column(String(32))
    totp_secret: Mapped[str | None] = mapped_column(Text)
    """Encrypted (core.identity.encryption); None until enrolled."""
    totp_last_step: Mapped[int] = mapped_column(BigInteger, server_default="0")
    disabled_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Membership(Base):
    """A user's role in one organization."""

    __tablename__ = "memberships"
    __table_args__ = (UniqueConstraint("organization_id", "user_id"), one_of("role", Role))

    id: Mapped[Id]
    organization_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("organizations.id"))
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id"), index=True)
    role: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    organization: Mapped[Organization] = relationship(lazy="raise_on_sql")
    user: Mapped[User] = relationship(lazy="raise_on_sql")


class LoginSession(Base):
    """One sign-in, kept as a row so that signing out really ends it. `token_hash` is SHA-256 of the cookie's value."""

    __tablename__ = "sessions"

    id: Mapped[Id]
    token_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id"), index=True)
    site: Mapped[str] = mapped_column(String(8))
    """`portal` or `admin`: a session of one site is worth nothing on the other."""
    organization_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("organizations.id"))
    csrf_secret: Mapped[str] = mapped_column(Text)
    mfa_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    ip: Mapped[str] = mapped_column(Text, server_default="")
    user_agent: Mapped[str] = mapped_column(Text, server_default="")

    user: Mapped[User] = relationship(lazy="raise_on_sql")


class LoginAttempt(Base):
    """A failed sign-in, by account and by address, for throttling."""

    __tablename__ = "login_attempts"
    __table_args__ = (Index("ix_login_attempts_key_at", "key", "at"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    key: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime]


class ApiKey(Base):
    """A secret an engineer's program sends. Only an HMAC is stored; `organization_id` None marks a platform key."""

    __tablename__ = "api_keys"
    __table_args__ = (UniqueConstraint("organization_id", "id"),)

    id: Mapped[Id]
    organization_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("organizations.id"), index=True)
    name: Mapped[str] = mapped_column(String(100))
    mode: Mapped[str] = mapped_column(String(4))
    prefix: Mapped[str] = mapped_column(String(24))
    """The part that may be shown: `vv_test_3fA9…`."""
    key_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    created_by: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class IdempotencyRecord(Base):
    """The answer to one POST that carried an Idempotency-Key; kept 42 days. `status` None: still being worked on."""

    __tablename__ = "idempotency_records"
    __table_args__ = (UniqueConstraint("principal", "key"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    principal: Mapped[str] = mapped_column(Text)
    key: Mapped[str] = mapped_column(String(255))
    request_hash: Mapped[bytes] = mapped_column(LargeBinary)
    status: Mapped[int | None]
    content_type: Mapped[str | None] = mapped_column(Text)
    body: Mapped[bytes | None] = mapped_column(LargeBinary)
    created_at: Mapped[datetime]
