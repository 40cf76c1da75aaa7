"""Every page of the portal: whole, as a fragment, for each role, for strangers, and with a constant number of statements."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

from flask.testing import FlaskClient
from sqlalchemy import event, insert
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session

from core.audit import SYSTEM
from core.identity.models import Role
from core.invoicing import grants, listing, queries
from core.invoicing.models import Invoice
from core.metering.models import usage_rollups
from tests.factories import make_organization
from tests.people import make_key, make_member
from tests.portal import story
from tests.portal.conftest import SignIn
from tests.portal.story import Story

PAGES = (
    "/",
    "/spend",
    "/usage",
    "/usage?group=project&measure=quantity&per=week&compare=year",
    "/usage?period=90&per=month",
    "/usage?period=previous",
    "/usage/events",
    "/usage/rejected",
    "/invoices",
    "/invoices?status=overdue&year=2026",
    "/plan",
    "/plan/compare",
    "/plan/compare?only=differences",
    "/plan/change?plan=scale",
    "/plan/cancellation",
    "/plan/acts/pause",
    "/payment-methods",
    "/settings/billing",
    "/settings/team",
    "/settings/keys",
    "/settings/keys/new",
    "/settings/audit",
    "/start",
    "/start/live",
)
FRAGMENTS = {
    "/spend": "spend",
    "/usage": "explorer",
    "/invoices": "list",
    "/settings/audit": "trail",
    "/usage/events": "events",
    "/start/live": "feed",
    "/settings/billing/tax?tax_id=DE136695976&country=DE": "tax-effect",
}
REFUSED = {
    Role.BILLING: ("/settings/keys", "/settings/audit", "/usage/events", "/usage/rejected", "/start"),
    Role.DEVELOPER: ("/plan/cancellation", "/plan/acts/pause", "/settings/audit"),
    Role.VIEWER: (
        "/settings/keys",
        "/settings/audit",
        "/usage/events",
        "/usage/rejected",
        "/plan/cancellation",
        "/plan/acts/pause",
        "/start",
    ),
}
STATEMENTS_MAX = {"/": 22}
"""The overview asks the usage of all its questions (so far, same days before, forecast, days) together."""
USUAL_STATEMENTS_MAX = 16


@contextmanager
def counting() -> Iterator[list[str]]:
    """The statements sent to the database inside the block."""
    sent: list[str] = []

    def note(_conn: object, _cursor: object, statement: str, *_: object) -> None:
        if not statement.startswith(("SAVEPOINT", "RELEASE", "ROLLBACK")):
            sent.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def newest(session: Session, quillmark: Story) -> Invoice:
    """The newest invoice with its lines."""
    number = listing.invoices(session, quillmark.organization.id, on=date(2026, 11, 22))[0].invoice_number
    return queries.invoice_by_number(session, quillmark.organization.id, str(number))


def test_every_page_is_whole_and_titled(client: FlaskClient, session: Session, quillmark: Story, enter: SignIn) -> None:
    enter(quillmark.organization)
    number = newest(session, quillmark).invoice_number
    titles = {}
    for path in (*PAGES, f"/invoices/{number}"):
        answer = client.get(f"/portal{path}")
        assert answer.status_code == 200, path
        assert answer.text.count("<h1") == 1, path
        assert "style=" not in answer.text, path
        assert answer.headers["Cache-Control"] == "private, no-store"
        titles[path.split("?")[0]] = re.findall("<title>(.*?)</title>", answer.text, re.S)[0]
    assert all("Northlight AI" in title for title in titles.values())


def test_fragments_are_parts_and_whole_pages_without_htmx(client: FlaskClient, quillmark: Story, enter: SignIn) -> None:
    enter(quillmark.organization)
    for path, root in FRAGMENTS.items():
        part = client.get(f"/portal{path}", headers={"HX-Request": "true"})
        assert "<html" not in part.text, path
        assert re.match(rf"\s*<\w+[^>]* id=\"{root}\"", part.text), part.text[:200]
        assert "HX-Request" in part.headers["Vary"]
        assert "<html" in client.get(f"/portal{path}").text, path
    restored = client.get("/portal/usage", headers={"HX-Request": "true", "HX-History-Restore-Request": "true"})
    assert "<html" in restored.text


def test_roles_see_what_their_table_says(client: FlaskClient, quillmark: Story, enter: SignIn) -> None:
    for role, refused in REFUSED.items():
        enter(quillmark.organization, role)
        for path in (page for page in PAGES if "?" not in page and page != "/spend"):
            expected = 403 if any(path == known or path.startswith(f"{known}/") for known in refused) else 200
            assert client.get(f"/portal{path}").status_code == expected, (role, path)


def test_who_may_not_act_sees_why_and_is_refused(client: FlaskClient, session: Session, quillmark: Story, enter: SignIn) -> None:
    number = newest(session, quillmark).invoice_number
    token = enter(quillmark.organization, Role.VIEWER)
    assert "Ask an owner or billing member" in client.get(f"/portal/invoices/{number}").text
    form = {"csrf_token": token, "idempotency_key": "0123456789", "plan": "scale", "when": "now"}
    for path in (
        f"/invoices/{number}/payments",
        "/plan/change",
        "/plan/cancellation",
        "/plan/acts/pause",
        "/payment-methods",
        "/settings/billing",
        "/settings/keys",
    ):
        assert client.post(f"/portal{path}", data=form).status_code == 403, path


def test_a_stranger_finds_nothing(client: FlaskClient, session: Session, quillmark: Story, enter: SignIn) -> None:
    found = newest(session, quillmark)
    number, line = found.invoice_number, found.lines[0].id
    token = enter(make_organization(session))
    for path in (f"/invoices/{number}", f"/invoices/{number}/pdf", f"/invoices/{number}/payment", f"/invoices/{number}/lines/{line}"):
        assert client.get(f"/portal{path}").status_code == 404, path
    paid = client.post(f"/portal/invoices/{number}/payments", data={"csrf_token": token, "idempotency_key": "0123456789"})
    assert paid.status_code == 404
    assert client.get("/portal/plan/change?plan=build").status_code == 404


def test_nobody_is_sent_to_sign_in(client: FlaskClient, quillmark: Story) -> None:
    for path in PAGES:
        answer = client.get(f"/portal{path}")
        assert (answer.status_code, answer.headers["Location"].split("?")[0]) == (303, "/portal/sign-in"), path


def test_pages_send_as_many_statements_for_many_rows_as_for_few(
    client: FlaskClient, session: Session, quillmark: Story, enter: SignIn
) -> None:
    enter(quillmark.organization)
    number = newest(session, quillmark).invoice_number
    paths = ("/", "/spend", "/usage", "/usage?group=project", "/usage/events", "/usage/rejected", "/invoices", f"/invoices/{number}",
             "/plan/compare", "/payment-methods", "/settings/team", "/settings/keys", "/settings/audit")  # fmt: skip
    few = {path: statements(client, path) for path in paths}
    for _ in range(8):
        make_member(session, quillmark.organization, Role.VIEWER)
        make_key(session, quillmark.organization)
    start = datetime(2026, 11, 3, 5, tzinfo=UTC)
    hours = [start + timedelta(days=number // 2, hours=number % 2) for number in range(24)]
    rows = [story.rollup(quillmark.organization, metric, hour, "new-project", 1000) for hour in hours for metric in quillmark.metrics]
    session.execute(insert(usage_rollups), rows)
    assert {path: statements(client, path) for path in paths} == few
    assert {path: n for path, n in few.items() if n > STATEMENTS_MAX.get(path, USUAL_STATEMENTS_MAX)} == {}


def statements(client: FlaskClient, path: str) -> int:
    """How many statements a page sends."""
    with counting() as sent:
        assert client.get(f"/portal{path}").status_code == 200
    return len(sent)


def test_a_new_account_is_told_how_to_begin(client: FlaskClient, session: Session, enter: SignIn) -> None:
    enter(make_organization(session))
    for path in ("/", "/usage", "/invoices", "/plan", "/payment-methods", "/settings/keys", "/settings/billing", "/start", "/usage/events"):
        answer = client.get(f"/portal{path}")
        assert answer.status_code == 200, path
    assert "Send your first event" in client.get("/portal/").text


def test_the_overview_says_when_credit_expires(
    client: FlaskClient, session: Session, enter: SignIn, quillmark: Story, now: datetime
) -> None:
    enter(quillmark.organization)
    given: dict[str, Any] = {"organization": quillmark.organization, "at": now, "actor": SYSTEM}
    grants.grant(session, **given, amount_minor=5000, name="Sorry")
    grants.grant(session, **given, amount_minor=4200, name="Welcome", expires_at=now + timedelta(days=9))
    said = " ".join(re.sub(r"<[^>]+>", " ", client.get("/portal/").text).split())
    assert re.search(r"Left \S*92\.00", said)
    assert re.search(r"Until 1 Dec 2026 \S*42\.00 of it", said)
    assert "what is left on that day expires" in said
