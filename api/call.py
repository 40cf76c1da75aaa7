"""One authenticated API request: whose key it carries, what that key may see, and the instant its organizations live in."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flask import current_app, g, request

from core import clock
from core.audit import Actor
from core.db import db, transaction
from core.errors import FieldError, Forbidden, Invalid, NotFound, Unauthenticated
from core.identity import keys, permissions, queries
from core.identity.models import Organization
from core.metering.rates import Rates
from core.reader import Reads

NAME_IT = "A platform key names the organization: its id, external id or slug."


@dataclass(frozen=True, slots=True)
class Call:
    """`organization_id` is the one the key is bound to, None for a platform key. `reads` answers what needs no transaction."""

    reads: Reads
    actor: Actor
    organization_id: uuid.UUID | None
    scopes: tuple[str, ...]
    mode: str

    @property
    def session(self) -> Any:
        """The open transaction's; what never asks for it needs none."""
        return db.session()

    @property
    def platform(self) -> bool:
        """Whether the key may act on any organization."""
        return self.organization_id is None

    def organization(self, reference: str | None, pointer: str = "/organization_id") -> Organization:
        """The organization this request is about. A bound key may leave it out; another one's is NotFound, as if it did not exist."""
        if reference is None:
            if self.organization_id is None:
                raise Invalid(NAME_IT, errors=(FieldError(pointer, NAME_IT),))
            return queries.organization(self.session, self.organization_id)
        found = queries.organization_by_reference(self.session, reference)
        if not self.platform and found.id != self.organization_id:
            raise NotFound(queries.NO_ACCOUNT)
        return found

    def filter(self, reference: str | None) -> uuid.UUID | None:
        """The organization a list is narrowed to; None lists all of them (platform keys only)."""
        return None if reference is None and self.platform else self.organization(reference).id

    def owner(self, table: str, row_id: uuid.UUID) -> uuid.UUID:
        """The organization that owns the row, if this key may see it; NotFound otherwise."""
        return queries.owner(self.session, table, row_id, within=self.organization_id)

    def owning_organization(self, table: str, row_id: uuid.UUID) -> Organization:
        """As `owner`, loaded."""
        return queries.organization(self.session, self.owner(table, row_id))

    def require_platform(self) -> None:
        """Refuse a key that is bound to one organization."""
        if not self.platform:
            raise Forbidden("This needs a platform key: it concerns more than one organization.", code="platform_key_needed")

    def now(self, organization: Organization | None = None) -> datetime:
        """The present instant, in the organization's own time when it is bound to a test clock."""
        return clock.now(organization)


def authenticated(scope: str, *, recent: bool = False) -> Call:
    """The call of this request; raises Unauthenticated, or Forbidden when the key lacks `scope`.

    With `recent` the key may be one that was looked up a moment ago.
    """
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated("Send your API key as `Authorization: Bearer vv_…`.", code="missing_key")
    at = clock.now()
    reads: Reads = current_app.extensions["reader"]
    known: keys.RecentKeys | None = current_app.extensions["recent_keys"] if recent else None
    key = keys.authenticate(reads, token.strip(), at=at, recent=known)
    _limit(key.id)
    if keys.needs_touch(key, at=at):
        with transaction() as session:
            keys.touch(session, key.id, at=at)
        if known is not None:
            known.forget(token.strip())
    actor = Actor("api_key", str(key.id), f"{key.name} ({key.prefix})", g.get("request_id", ""), request.remote_addr or "")
    g.actor = actor
    if not permissions.scope_allows(key.scopes, scope):
        raise Forbidden(f"This key has not the scope {scope}. It has: {', '.join(key.scopes)}.", code="missing_scope")
    return Call(reads, actor, key.organization_id, tuple(key.scopes), key.mode)


def _limit(key_id: uuid.UUID) -> None:
    settings = current_app.config["SETTINGS"]
    rates: Rates | None = current_app.extensions.get("api_rates")
    if rates is None:
        made = Rates(settings.api_rate_per_second, "requests", workers=settings.web_workers, redis_url=settings.redis_url)
        rates = current_app.extensions.setdefault("api_rates", made)
    rates.check(key_id)
    rates.take(key_id, 1)
