"""API keys: `vv_live_…` and `vv_test_…` with 32 random bytes, shown once; the database holds an HMAC-SHA256 under a pepper.

A fast keyed hash is right here: the secret has 256 bits of its own, so a dump without the pepper cannot be tried out.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
import time
import uuid
from collections.abc import Collection
from datetime import datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from sqlalchemy import or_, select, text, update
from sqlalchemy.orm import Session

from core import audit, config
from core.audit import Actor
from core.errors import FieldError, Invalid, NotFound, Unauthenticated
from core.identity.models import ApiKey
from core.identity.permissions import Scope
from core.reader import Reads

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
SECRET_BYTES = 32
SECRET_LENGTH = 43
"""Base62 digits of 256 bits, left-padded."""
TOKEN = re.compile(rf"vv_(live|test)_[0-9A-Za-z]{{{SECRET_LENGTH}}}")
MODES = ("live", "test")
SHOWN_LENGTH = 4
TOUCH_EVERY = timedelta(minutes=1)
RECENT_SECONDS = 1.0
RECENT_KEYS_MAX = 20_000
KNOWN = text("""SELECT id, organization_id, name, mode, prefix, scopes, last_used_at, expires_at, revoked_at
  FROM api_keys WHERE key_hash = :key_hash""")


class KnownKey(NamedTuple):
    """An API key that a request carries; `organization_id` None: a platform key."""

    id: uuid.UUID
    organization_id: uuid.UUID | None
    name: str
    mode: str
    prefix: str
    scopes: list[str]
    last_used_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None


def create(
    session: Session,
    *,
    organization_id: uuid.UUID | None,
    name: str,
    mode: str,
    scopes: Collection[str],
    actor: Actor,
    at: datetime,
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """A new key and its secret, which nobody can read again. `organization_id` None makes a platform key, for any organization."""
    errors = []
    if not 1 <= len(name.strip()) <= 100:
        errors.append(FieldError("/name", "Give a name of 1 to 100 characters."))
    if mode not in MODES:
        errors.append(FieldError("/mode", "Choose live or test."))
    if not scopes or not set(scopes) <= set(Scope):
        errors.append(FieldError("/scopes", f"Choose at least one of {', '.join(Scope)}."))
    if expires_at is not None and expires_at <= at:
        errors.append(FieldError("/expires_at", "This moment has passed."))
    if errors:
        raise Invalid("The key was not created.", errors=tuple(errors))
    secret = base62(secrets.token_bytes(SECRET_BYTES))
    token = f"vv_{mode}_{secret}"
    key = ApiKey(
        organization_id=organization_id,
        name=name.strip(),
        mode=mode,
        prefix=f"vv_{mode}_{secret[:SHOWN_LENGTH]}…{secret[-SHOWN_LENGTH:]}",
        key_hash=hash_token(token),
        scopes=sorted(set(scopes)),
        created_by=actor.label,
        created_at=at,
        expires_at=expires_at,
    )
    session.add(key)
    session.flush()
    audit.record(session, actor, "api_key.created", key, at=at, name=key.name, mode=mode, scopes=key.scopes, prefix=key.prefix)
    return key, token


class RecentKeys:
    """Keys as they were at most RECENT_SECONDS ago: who asks before every request of a product is not looked up each time."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[float, KnownKey]] = {}

    def find(self, reads: Reads, key_hash: bytes) -> KnownKey | None:
        """The key, revoked or not; None when there is none, which is not remembered."""
        known = self._known.get(key_hash)
        began = time.monotonic()
        if known is not None and began - known[0] < RECENT_SECONDS:
            return known[1]
        found = _find(reads, key_hash)
        if len(self._known) >= RECENT_KEYS_MAX:
            self._known.clear()
        if found is not None:
            self._known[key_hash] = began, found
        return found

    def forget(self, token: str) -> None:
        """Look this one up again."""
        self._known.pop(hash_token(token), None)


def authenticate(reads: Reads, token: str, *, at: datetime, recent: RecentKeys | None = None) -> KnownKey:
    """The live key `token` is; raises Unauthenticated, saying whether it was cut off, expired, revoked or never existed."""
    if not TOKEN.fullmatch(token):
        known = token.startswith(("vv_live_", "vv_test_"))
        detail = (
            f"The key was cut off: it has {len(token)} of {len('vv_live_') + SECRET_LENGTH} characters."
            if known
            else "This is not an API key."
        )
        raise Unauthenticated(detail, code="malformed_key")
    key = recent.find(reads, hash_token(token)) if recent else _find(reads, hash_token(token))
    if key is None:
        raise Unauthenticated("There is no such API key.", code="unknown_key")
    if key.revoked_at is not None:
        raise Unauthenticated("This API key has been revoked.", code="revoked_key")
    if key.expires_at is not None and key.expires_at <= at:
        raise Unauthenticated("This API key has expired.", code="expired_key")
    return key


def _find(reads: Reads, key_hash: bytes) -> KnownKey | None:
    return next((KnownKey(*row) for row in reads.execute(KNOWN, {"key_hash": key_hash})), None)


def hash_token(token: str) -> bytes:
    """What is stored of a key: HMAC-SHA256 under the API_KEY_PEPPER."""
    keyed = _keyed(config.current().api_key_pepper).copy()
    keyed.update(token.encode())
    return keyed.digest()


@lru_cache(4)
def _keyed(pepper: str) -> hmac.HMAC:
    """An HMAC that has taken in the pepper. A copy of it keeps the interpreter's lock, which hmac.digest() passes on at each call."""
    return hmac.new(pepper.encode(), digestmod=hashlib.sha256)


def touch(session: Session, key_id: uuid.UUID, *, at: datetime) -> None:
    """Note that the key was used, at most once a minute."""
    stale = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < at - TOUCH_EVERY)
    session.execute(update(ApiKey).where(ApiKey.id == key_id, stale).values(last_used_at=at).execution_options(synchronize_session=False))


def needs_touch(key: KnownKey | ApiKey, *, at: datetime) -> bool:
    """Whether `touch` would write something."""
    return key.last_used_at is None or key.last_used_at < at - TOUCH_EVERY


def revoke(session: Session, organization_id: uuid.UUID | None, key_id: uuid.UUID, *, actor: Actor, at: datetime) -> ApiKey:
    """End the key for good; it is refused from the commit on. Revoking twice changes nothing. Raises NotFound."""
    mine = ApiKey.organization_id == organization_id if organization_id else ApiKey.organization_id.is_(None)
    key = session.scalar(select(ApiKey).where(ApiKey.id == key_id, mine).with_for_update())
    if key is None:
        raise NotFound("There is no such API key.")
    if key.revoked_at is None:
        key.revoked_at = at
        session.flush()
        audit.record(session, actor, "api_key.revoked", key, at=at, name=key.name, prefix=key.prefix)
    return key


def base62(raw: bytes) -> str:
    """`raw` as a number in base 62, padded to SECRET_LENGTH digits."""
    number, digits = int.from_bytes(raw, "big"), []
    for _ in range(SECRET_LENGTH):
        number, digit = divmod(number, len(ALPHABET))
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))
