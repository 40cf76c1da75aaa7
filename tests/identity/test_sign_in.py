"""Passwords, throttling, second factor, sessions: what ends access ends it at once, and guessing gets nobody far."""

from __future__ import annotations

import statistics
import time
from datetime import timedelta

import pyotp
import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from core.audit import Actor
from core.errors import Conflict, Forbidden, Invalid, RateLimited
from core.identity import encryption, passwords, sessions, throttle, totp, users
from core.identity.models import OperatorRole, Role, User
from tests.conftest import Clock
from tests.factories import make_organization
from tests.people import PASSWORD, SETUP, make_member, make_user


def guess(session: Session, clock: Clock, email: str, password: str = "wrong password here", ip: str = "192.0.2.1") -> User | None:
    return users.check_password(session, email=email, password=password, ip=ip, at=clock.now())


@pytest.mark.parametrize(
    "password", ["a" * 71 + "bcdef", "päßwörter sind schön", "space in the middle 1", "x9$Qw7!" * 20, "ключ от квартиры 77"]
)
def test_any_long_password_signs_in_verbatim(session: Session, clock: Clock, password: str) -> None:
    user = make_user(session, password=password)
    assert guess(session, clock, user.email, password) is not None
    assert guess(session, clock, user.email, password + "x") is None
    assert guess(session, clock, user.email, password[:-1]) is None


def test_stored_hashes_are_argon2id_with_owasp_parameters(session: Session, clock: Clock) -> None:
    stored = make_user(session).password_hash
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")


@pytest.mark.parametrize("password", ["short", "password1234!", "aaaaaaaaaaaaaaaa", "x" * 257, "passwordpassword", "person.customer1"])
def test_guessable_passwords_are_refused(session: Session, clock: Clock, password: str) -> None:
    with pytest.raises(Invalid) as refused:
        make_user(session, email="person@customer.example", password=password)
    assert refused.value.errors[0].pointer == "/password"


def test_an_older_hash_is_replaced_when_its_owner_signs_in(session: Session, clock: Clock) -> None:
    user = make_user(session)
    user.password_hash = passwords.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    assert guess(session, clock, user.email, PASSWORD) is not None
    assert "m=19456" in user.password_hash


def test_two_people_cannot_share_an_address(session: Session, clock: Clock) -> None:
    user = make_user(session)
    with pytest.raises(Conflict):
        make_user(session, email=user.email.upper())


def test_an_account_is_guessed_at_ten_times_and_then_waits_but_not_for_ever(session: Session, clock: Clock) -> None:
    user = make_user(session)
    for _ in range(throttle.PER_ACCOUNT_MAX):
        assert guess(session, clock, user.email) is None
    with pytest.raises(RateLimited) as refused:
        guess(session, clock, user.email, PASSWORD, ip="198.51.100.7")
    assert 0 < refused.value.retry_after_seconds <= 900
    clock.advance(minutes=15, seconds=1)
    assert guess(session, clock, user.email, PASSWORD) is not None


def test_one_address_trying_many_accounts_is_stopped_while_others_sign_in(session: Session, clock: Clock) -> None:
    user = make_user(session)
    for number in range(throttle.PER_ADDRESS_MAX):
        guess(session, clock, f"nobody{number}@customer.example")
    with pytest.raises(RateLimited):
        guess(session, clock, user.email, PASSWORD)
    assert guess(session, clock, user.email, PASSWORD, ip="198.51.100.7") is not None


def test_unknown_and_wrong_take_the_same_time(session: Session, clock: Clock) -> None:
    user = make_user(session)

    def seconds(email: str, number: int) -> float:
        clock.advance(hours=1)
        began = time.perf_counter()
        assert guess(session, clock, email, ip=f"192.0.2.{number}") is None
        return time.perf_counter() - began

    pairs = [(seconds(user.email, number), seconds(f"nobody{number}@customer.example", number)) for number in range(25)]
    known, unknown = (statistics.median(column) for column in zip(*pairs, strict=True))
    assert abs(known - unknown) < 0.35 * max(known, unknown)


def test_a_disabled_person_cannot_sign_in_and_open_sessions_end(session: Session, clock: Clock) -> None:
    user = make_user(session)
    _, token = sessions.begin(session, user, site="portal", at=clock.now())
    users.disable(session, user, actor=SETUP, at=clock.now())
    assert guess(session, clock, user.email, PASSWORD) is None
    assert sessions.resolve(session, token, site="portal", at=clock.now()) is None


def test_a_change_of_role_ends_the_persons_sessions_and_nobody_changes_their_own(session: Session, clock: Clock) -> None:
    organization = make_organization(session)
    user = make_member(session, organization, Role.OWNER)
    _, token = sessions.begin(session, user, site="portal", at=clock.now(), organization_id=organization.id)
    grant = {"organization_id": organization.id, "user": user, "role": Role.VIEWER, "at": clock.now()}
    with pytest.raises(Forbidden):
        users.add_member(session, **grant, actor=Actor("user", str(user.id), user.email))
    users.add_member(session, **grant, actor=SETUP)
    assert sessions.resolve(session, token, site="portal", at=clock.now()) is None


@pytest.mark.parametrize(
    ("site", "idle", "life"), [("portal", timedelta(hours=12), timedelta(days=7)), ("admin", timedelta(minutes=30), timedelta(hours=8))]
)
def test_sessions_idle_out_and_grow_old(session: Session, clock: Clock, site: str, idle: timedelta, life: timedelta) -> None:
    row, token = sessions.begin(session, make_user(session), site=site, at=clock.now())
    start = clock.now()
    assert sessions.resolve(session, token, site=site, at=start + idle - timedelta(seconds=1)) is not None
    assert sessions.resolve(session, token, site=site, at=start + idle) is None
    row.last_seen_at = start + life
    session.flush()
    assert sessions.resolve(session, token, site=site, at=start + life) is None


def test_a_session_of_one_site_is_worth_nothing_on_the_other(session: Session, clock: Clock) -> None:
    _, token = sessions.begin(session, make_user(session), site="portal", at=clock.now())
    assert sessions.resolve(session, token, site="admin", at=clock.now()) is None


def enrolled(session: Session, clock: Clock) -> tuple[User, pyotp.TOTP]:
    user, secret = make_user(session, operator_role=OperatorRole.FINANCE), totp.new_secret()
    code = pyotp.TOTP(secret).at(int(clock.now().timestamp()))
    assert totp.enroll(session, user, secret=secret, code=code, actor=SETUP, at=clock.now())
    clock.advance(seconds=60)
    return user, pyotp.TOTP(secret)


def test_a_code_passes_once_within_its_step_and_one_beside_it(session: Session, clock: Clock) -> None:
    user, app = enrolled(session, clock)
    code = app.at(int(clock.now().timestamp()))
    assert totp.check(session, user, code, at=clock.now())
    assert not totp.check(session, user, code, at=clock.now())
    clock.advance(seconds=90)
    assert totp.check(session, user, app.at(int(clock.now().timestamp()) - 30), at=clock.now())
    clock.advance(seconds=90)
    assert not totp.check(session, user, app.at(int(clock.now().timestamp()) - 90), at=clock.now())


def test_ten_wrong_codes_make_the_next_one_wait(session: Session, clock: Clock) -> None:
    user, app = enrolled(session, clock)
    for _ in range(throttle.PER_CODE_MAX):
        assert not totp.check(session, user, "000000", at=clock.now())
    with pytest.raises(RateLimited):
        totp.check(session, user, app.at(int(clock.now().timestamp())), at=clock.now())


def test_the_secret_is_encrypted_and_bound_to_its_user(session: Session, clock: Clock) -> None:
    user, app = enrolled(session, clock)
    dump = session.execute(text("SELECT string_agg(row_to_json(u)::text, '') FROM users u")).scalar_one()
    assert app.secret not in dump
    other = make_user(session)
    with pytest.raises(encryption.NotDecryptable):
        encryption.decrypt(str(user.totp_secret), place=f"users:totp_secret:{other.id}")


def test_encryption_notices_every_changed_byte_and_differs_each_time() -> None:
    one, other = (encryption.encrypt("top secret", place="here") for _ in range(2))
    assert one != other
    assert encryption.decrypt(one, place="here") == "top secret"
    body = one.rpartition(".")[2]
    for index in range(0, len(body) - 2, 5):
        changed = body[:index] + ("A" if body[index] != "A" else "B") + body[index + 1 :]
        with pytest.raises(encryption.NotDecryptable):
            encryption.decrypt(one.replace(body, changed), place="here")
