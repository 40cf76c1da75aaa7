"""API keys: shown once, stored as a keyed hash, scoped, expiring, revocable at once."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from core.errors import Invalid, NotFound, Unauthenticated
from core.identity import keys
from core.identity.permissions import Scope, scope_allows
from tests.conftest import Clock
from tests.factories import make_organization
from tests.people import SETUP


def make(session: Session, clock: Clock, **given: object) -> tuple[keys.ApiKey, str]:
    values = {"organization_id": make_organization(session).id, "name": "Server", "mode": "test", "scopes": ["usage:write"], **given}
    return keys.create(session, **values, actor=SETUP, at=clock.now())


def test_a_new_key_authenticates_and_its_secret_is_nowhere_in_the_database(session: Session, clock: Clock) -> None:
    key, token = make(session, clock)
    assert keys.authenticate(session, token, at=clock.now()).id == key.id
    assert token.startswith("vv_test_")
    assert len(token) == len("vv_test_") + keys.SECRET_LENGTH
    secret = token.removeprefix("vv_test_")
    rows = session.execute(
        text("SELECT row_to_json(k)::text FROM api_keys k UNION ALL SELECT row_to_json(a)::text FROM audit_events a")
    ).scalars()
    assert not any(secret in row or secret[:12] in row for row in rows)


def test_two_keys_differ_and_the_hash_depends_on_the_pepper(session: Session, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    _, one = make(session, clock)
    _, other = make(session, clock)
    assert one != other
    before = keys.hash_token(one)
    settings = keys.config.current()
    object_with_pepper = type(settings)(database_url=settings.database_url, api_key_pepper="another pepper")
    monkeypatch.setattr(keys.config, "_current", object_with_pepper)
    assert keys.hash_token(one) != before


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda token: token[:-1], "malformed_key"),
        (lambda token: token[:-1] + ("a" if token[-1] != "a" else "b"), "unknown_key"),
        (lambda token: "", "malformed_key"),
        (lambda token: token + "x", "malformed_key"),
        (lambda token: "sk_live_" + token[8:], "malformed_key"),
        (lambda token: token + "\n", "malformed_key"),
    ],
)
def test_a_wrong_key_is_refused_and_says_why(session: Session, clock: Clock, change, code: str) -> None:
    _, token = make(session, clock)
    with pytest.raises(Unauthenticated) as refused:
        keys.authenticate(session, change(token), at=clock.now())
    assert refused.value.code == code


def test_an_expired_key_is_refused_from_the_instant_it_expires(session: Session, clock: Clock) -> None:
    _, token = make(session, clock, expires_at=clock.now() + timedelta(hours=1))
    keys.authenticate(session, token, at=clock.now() + timedelta(minutes=59))
    with pytest.raises(Unauthenticated, match="expired"):
        keys.authenticate(session, token, at=clock.now() + timedelta(hours=1))


def test_a_revoked_key_is_refused_and_revoking_again_changes_nothing(session: Session, clock: Clock) -> None:
    key, token = make(session, clock)
    first = keys.revoke(session, key.organization_id, key.id, actor=SETUP, at=clock.now()).revoked_at
    later = clock.now() + timedelta(days=1)
    assert keys.revoke(session, key.organization_id, key.id, actor=SETUP, at=later).revoked_at == first
    with pytest.raises(Unauthenticated, match="revoked"):
        keys.authenticate(session, token, at=clock.now())


def test_a_stranger_cannot_revoke_a_key(session: Session, clock: Clock) -> None:
    key, _ = make(session, clock)
    with pytest.raises(NotFound):
        keys.revoke(session, make_organization(session).id, key.id, actor=SETUP, at=clock.now())


def test_last_use_is_written_at_most_once_a_minute(session: Session, clock: Clock) -> None:
    key, _ = make(session, clock)
    keys.touch(session, key.id, at=clock.now())
    session.refresh(key)
    first = key.last_used_at
    keys.touch(session, key.id, at=clock.now() + timedelta(seconds=59))
    session.refresh(key)
    assert key.last_used_at == first
    assert keys.needs_touch(key, at=clock.now() + timedelta(seconds=61))


@pytest.mark.parametrize(
    ("given", "pointer"),
    [({"name": ""}, "/name"), ({"mode": "prod"}, "/mode"), ({"scopes": []}, "/scopes"), ({"scopes": ["root"]}, "/scopes")],
)
def test_bad_keys_are_not_made(session: Session, clock: Clock, given: dict[str, object], pointer: str) -> None:
    with pytest.raises(Invalid) as refused:
        make(session, clock, **given)
    assert [error.pointer for error in refused.value.errors] == [pointer]


def test_scopes_imply_what_they_should_and_no_more() -> None:
    allowed = {scope: {needed for needed in Scope if scope_allows([scope], needed)} for scope in Scope}
    assert allowed == {
        "usage:write": {"usage:write"},
        "billing:read": {"billing:read"},
        "billing:write": {"billing:read", "billing:write"},
        "admin": set(Scope),
    }
    assert not scope_allows([], Scope.BILLING_READ)
