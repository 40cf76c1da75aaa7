"""API keys: made, listed and revoked by keys that have the scope admin."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from api.call import Call
from api.contract import Input, Listing, Output, Page, endpoint, page_of
from api.values import Reference, ShortText, cursor_id
from core.errors import Forbidden
from core.identity import keys, queries
from core.identity.models import ApiKey
from core.identity.permissions import Scope

TAG = "API keys"
ScopeName = Literal["usage:write", "billing:read", "billing:write", "admin"]


class ApiKeyIn(Input):
    """A new key. A platform key makes one for the organization it names, or with `platform` another platform key."""

    name: ShortText
    scopes: Annotated[list[ScopeName], Meta(min_length=1, max_length=4)]
    mode: Literal["live", "test"] | None = None
    organization_id: Reference | None = None
    platform: bool = False
    expires_at: Annotated[datetime, Meta(tz=True)] | None = None


class ApiKeyList(Listing):
    """Filters of the list."""

    organization_id: Reference | None = None


class ApiKeyOut(Output):
    """A key; `secret` is filled once, in the answer that made it."""

    id: uuid.UUID
    organization_id: uuid.UUID | None
    name: str
    mode: str
    prefix: str
    scopes: list[str]
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None
    secret: str | None = None


@endpoint("POST", "/billing/api-keys", scope=Scope.ADMIN, tag=TAG, status=201, secret="secret")  # noqa: S106 - the field's name
def create_api_key(call: Call, body: ApiKeyIn) -> ApiKeyOut:
    """Create an API key.

    The secret is in this answer and nowhere else: a replay of the same Idempotency-Key shows the key without it.
    """
    if body.platform:
        call.require_platform()
        if body.organization_id is not None:
            raise Forbidden("A platform key belongs to no organization: leave organization_id out.")
    organization_id = None if body.platform else call.organization(body.organization_id).id
    key, secret = keys.create(
        call.session,
        organization_id=organization_id,
        name=body.name,
        mode=body.mode or call.mode,
        scopes=body.scopes,
        actor=call.actor,
        at=call.now(),
        expires_at=body.expires_at,
    )
    return _out(key, secret)


@endpoint("GET", "/billing/api-keys", scope=Scope.ADMIN, tag=TAG)
def list_api_keys(call: Call, query: ApiKeyList) -> Page[ApiKeyOut]:
    """List API keys, newest first, revoked ones included. Without an organization a platform key lists the platform's own."""
    organization_id = call.filter(query.organization_id)
    rows = queries.api_keys(call.session, organization_id, after=cursor_id(query), limit=query.limit + 1)
    return page_of(rows, query.limit, _out, lambda row: row.id)


@endpoint("DELETE", "/billing/api-keys/<uuid:api_key_id>", scope=Scope.ADMIN, tag=TAG)
def revoke_api_key(call: Call, api_key_id: uuid.UUID) -> ApiKeyOut:
    """Revoke an API key. It is refused from this moment; revoking twice changes nothing."""
    organization_id = call.organization_id
    if organization_id is None:
        organization_id = queries.key_owner(call.session, api_key_id)
    return _out(keys.revoke(call.session, organization_id, api_key_id, actor=call.actor, at=call.now()))


def _out(key: ApiKey, secret: str | None = None) -> ApiKeyOut:
    return ApiKeyOut(
        id=key.id,
        organization_id=key.organization_id,
        name=key.name,
        mode=key.mode,
        prefix=key.prefix,
        scopes=list(key.scopes),
        created_at=key.created_at,
        last_used_at=key.last_used_at,
        expires_at=key.expires_at,
        revoked_at=key.revoked_at,
        secret=secret,
    )
