"""Signing in and out in a browser: cookies, forgery, second factor, open redirects, errors."""

from __future__ import annotations

import re

import pyotp
import pytest
from flask.testing import FlaskClient
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from core.identity import throttle
from core.identity.models import OperatorRole, Role, User
from tests.conftest import Clock
from tests.factories import make_organization
from tests.people import PASSWORD, SETUP, make_member, make_user, sign_in


def token_on(page: TestResponse) -> str:
    found = re.search(r'name="csrf_token" value="([0-9a-f]+)"', page.text)
    assert found is not None, page.text
    return found[1]


def post(client: FlaskClient, path: str, page: TestResponse | None = None, **fields: str) -> TestResponse:
    """Fill in the form on `page` (default: the form at `path`) as a browser does."""
    token = token_on(page or client.get(path))
    return client.post(path, data={"csrf_token": token, **fields}, headers={"Sec-Fetch-Site": "same-origin"})


def cookie(answer: TestResponse, name: str) -> str:
    return next(line for line in answer.headers.getlist("Set-Cookie") if line.startswith(f"{name}="))


@pytest.fixture
def member(session: Session, clock: Clock) -> User:
    return make_member(session, make_organization(session), Role.OWNER)


def test_a_member_signs_in_and_out_and_the_old_cookie_is_dead(client: FlaskClient, member: User) -> None:
    answer = post(client, "/portal/sign-in", email=member.email.upper(), password=PASSWORD)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/portal/")
    set_cookie = cookie(answer, "vv_portal")
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(set_cookie.split("; "))
    assert client.get("/portal/sign-in").status_code == 303

    stolen = set_cookie.partition("=")[2].partition(";")[0]
    left = client.post("/portal/sign-out", data={"csrf_token": _own_token(client, member)})
    assert left.headers["Location"] == "/portal/sign-in"
    client.set_cookie("vv_portal", stolen)
    assert client.post("/portal/sign-out").headers["Location"].startswith("/portal/sign-in?")


def _own_token(client: FlaskClient, member: User) -> str:
    from sqlalchemy import select

    from core.db import db
    from core.identity.models import LoginSession
    from tests.people import csrf_of

    row = db.session().scalars(select(LoginSession).where(LoginSession.user_id == member.id)).one()
    return csrf_of(client, row)


def test_over_tls_the_cookie_is_bound_to_the_host(client: FlaskClient, member: User) -> None:
    page = client.get("/portal/sign-in", base_url="https://billing.example")
    answer = client.post(
        "/portal/sign-in",
        base_url="https://billing.example",
        data={"csrf_token": token_on(page), "email": member.email, "password": PASSWORD},
    )
    parts = cookie(answer, "__Host-vv_portal").split("; ")
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"} <= set(parts)
    assert not any(part.startswith("Domain") for part in parts)
    assert answer.headers["Strict-Transport-Security"].startswith("max-age=31536000")


@pytest.mark.parametrize(
    ("site", "who"),
    [
        ("portal", "unknown"),
        ("portal", "wrong"),
        ("portal", "disabled"),
        ("admin", "unknown"),
        ("admin", "wrong"),
        ("admin", "no operator"),
    ],
)
def test_every_refusal_reads_the_same(client: FlaskClient, session: Session, clock: Clock, member: User, who: str, site: str) -> None:
    email, password = member.email, PASSWORD
    if who == "unknown":
        email = "nobody@customer.example"
    elif who == "wrong":
        password = "not the password"
    elif who == "disabled":
        member.disabled_at = clock.now()
    answer = post(client, f"/{site}/sign-in", email=email, password=password)
    assert answer.status_code == 422
    assert "E-mail address or password is wrong." in answer.text
    assert "<title>Error: " in answer.text
    assert not any(line.startswith(f"vv_{site}=") for line in answer.headers.getlist("Set-Cookie"))


def test_too_many_guesses_wait_and_say_how_long(client: FlaskClient, member: User) -> None:
    for _ in range(throttle.PER_ACCOUNT_MAX):
        assert post(client, "/portal/sign-in", email=member.email, password="not the password").status_code == 422
    answer = post(client, "/portal/sign-in", email=member.email, password=PASSWORD)
    assert answer.status_code == 429
    assert "Try again in 15 min." in answer.text


@pytest.mark.parametrize(
    ("given", "headers", "status"),
    [
        ({}, {}, 403),
        ({"csrf_token": "0" * 64}, {}, 403),
        ("right", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("right", {"Sec-Fetch-Site": "same-site"}, 403),
        ("right", {"Origin": "https://evil.example"}, 403),
        ("right", {"Origin": "http://localhost"}, 303),
        ("right", {}, 303),
    ],
)
def test_forms_of_other_sites_are_refused(client: FlaskClient, member: User, given: object, headers: dict[str, str], status: int) -> None:
    token = token_on(client.get("/portal/sign-in"))
    fields = {"csrf_token": token} if given == "right" else given
    answer = client.post("/portal/sign-in", data={"email": member.email, "password": PASSWORD, **fields}, headers=headers)
    assert answer.status_code == status


def test_a_form_token_of_another_visitor_is_worth_nothing(client: FlaskClient, app, member: User) -> None:
    theirs = token_on(app.test_client().get("/portal/sign-in"))
    client.get("/portal/sign-in")
    answer = client.post("/portal/sign-in", data={"csrf_token": theirs, "email": member.email, "password": PASSWORD})
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example",
        "https://evil.example",
        "https:evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "javascript:alert(1)",
        "/\t/evil.example",
        "///evil.example",
        "http:///evil.example",
        "/admin/",
        "portal/",
        "",
        "data:text/html,x",
        "/portal/sign-out",
        " //evil.example",
        "/%5cevil\x00",
    ],
)
def test_signing_in_never_leads_away(client: FlaskClient, member: User, target: str) -> None:
    answer = post(client, "/portal/sign-in", email=member.email, password=PASSWORD, next=target)
    assert answer.headers["Location"] == "/portal/"


def test_signing_in_leads_to_where_one_was_going(client: FlaskClient, member: User) -> None:
    answer = post(client, "/portal/sign-in", email=member.email, password=PASSWORD, next="/portal/invoices?status=open")
    assert answer.headers["Location"] == "/portal/invoices?status=open"


def test_a_cookie_set_beforehand_never_becomes_a_session(client: FlaskClient, member: User) -> None:
    client.set_cookie("vv_portal", "chosen-by-an-attacker")
    answer = post(client, "/portal/sign-in", email=member.email, password=PASSWORD)
    assert "chosen-by-an-attacker" not in cookie(answer, "vv_portal")


def test_an_operator_enrols_then_needs_a_code_each_time(client: FlaskClient, session: Session, clock: Clock) -> None:
    operator = make_user(session, operator_role=OperatorRole.FINANCE)
    answer = post(client, "/admin/sign-in", email=operator.email, password=PASSWORD)
    assert answer.headers["Location"] == "/admin/second-factor?next=/admin/"
    first_cookie = cookie(answer, "vv_admin")

    page = client.get("/admin/second-factor")
    secret = re.search(r"<code>([A-Z2-7 ]{32,})</code>", page.text)[1].replace(" ", "")
    hidden = re.search(r'name="enrolment" value="([^"]+)"', page.text)[1]
    assert secret not in hidden
    assert "data:image/svg+xml" in page.text
    app = pyotp.TOTP(secret)
    wrong = post(client, "/admin/second-factor", page, enrolment=hidden, code="000000")
    assert wrong.status_code == 422
    assert operator.totp_secret is None
    done = post(client, "/admin/second-factor", page, enrolment=hidden, code=app.at(int(clock.now().timestamp())))
    assert done.headers["Location"] == "/admin/"
    assert cookie(done, "vv_admin") != first_cookie

    clock.advance(minutes=2)
    client.delete_cookie("vv_admin")
    post(client, "/admin/sign-in", email=operator.email, password=PASSWORD)
    code = app.at(int(clock.now().timestamp()))
    assert "authenticator app" in client.get("/admin/second-factor").text
    assert post(client, "/admin/second-factor", code=code).status_code == 303
    assert post(client, "/admin/second-factor", code=code).status_code == 422


def test_an_enrolment_form_of_another_sign_in_is_worth_nothing(client: FlaskClient, session: Session, clock: Clock) -> None:
    mine, theirs = (make_user(session, operator_role=OperatorRole.FINANCE) for _ in range(2))
    post(client, "/admin/sign-in", email=theirs.email, password=PASSWORD)
    page = client.get("/admin/second-factor")
    secret = re.search(r"<code>([A-Z2-7 ]{32,})</code>", page.text)[1].replace(" ", "")
    hidden = re.search(r'name="enrolment" value="([^"]+)"', page.text)[1]
    client.delete_cookie("vv_admin")
    post(client, "/admin/sign-in", email=mine.email, password=PASSWORD)
    code = pyotp.TOTP(secret).at(int(clock.now().timestamp()))
    assert post(client, "/admin/second-factor", enrolment=hidden, code=code).status_code == 422


def test_a_member_chooses_among_their_own_organizations_only(client: FlaskClient, session: Session, clock: Clock) -> None:
    from core.identity import users

    mine, second, other = (make_organization(session) for _ in range(3))
    user = make_member(session, mine)
    users.add_member(session, organization_id=second.id, user=user, role=Role.VIEWER, actor=SETUP, at=clock.now())
    token = sign_in(client, session, user, mine)
    chosen = client.post("/portal/organization", data={"csrf_token": token, "organization": str(second.id)})
    assert chosen.status_code == 303
    for wrong in (str(other.id), "x", ""):
        assert client.post("/portal/organization", data={"csrf_token": token, "organization": wrong}).status_code == 404


def test_errors_are_pages_or_fragments_with_a_reference_and_never_insides(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail: SELECT * FROM users")

    monkeypatch.setitem(client.application.view_functions, "home", broken)
    for headers in ({}, {"HX-Request": "true"}):
        answer = client.get("/", headers=headers)
        assert answer.status_code == 500
        assert "secret detail" not in answer.text
        assert answer.headers["X-Request-ID"] in answer.text
        assert ("<html" in answer.text) == (not headers)


@pytest.mark.parametrize(
    "path",
    ["/portal/sign-in", "/admin/sign-in", "/nothing", "/healthz", "/readyz", "/api/v1/docs", "/api/v1/openapi.json", "/api/v1/nothing"],
)
def test_every_answer_carries_the_security_headers(client: FlaskClient, path: str) -> None:
    headers = client.get(path).headers
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Request-ID"].startswith("req_")


@pytest.mark.parametrize(("given", "kept"), [("abcdef-123456", True), ("short", False), ("x" * 65, False), ("evil id", False)])
def test_a_sane_request_id_is_taken_over(client: FlaskClient, given: str, kept: bool) -> None:
    assert (client.get("/healthz", headers={"X-Request-ID": given}).headers["X-Request-ID"] == given) == kept
