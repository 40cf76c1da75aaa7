"""Every page of the portal: whole, as a fragment, for each role, for strangers, and with a constant number of statements."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from flask.testing import FlaskClient
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session

from core.db import db
from core.identity.models import Role
from core.invoicing import listing
from tests.factories import make_organization
from tests.portal.conftest import SignIn
from tests.portal.story import Story

PAGES = (
    "/", "/spend", "/usage", "/usage?group=project&measure=quantity&per=week&compare=year", "/usage?period=90&per=month", "/usage?period=previous",
    "/usage/events", "/usage/rejected", "/invoices", "/invoices?status=overdue&year=2026", "/plan", "/plan/compare", "/plan/compare?only=differences",
    "/plan/change?plan=scale", "/plan/cancellation", "/payment-methods", "/settings/billing", "/settings/team", "/settings/keys", "/settings/keys/new",
    "/settings/audit", "/start", "/start/live",
)  # fmt: skip
FRAGMENTS = {
    "/spend": "spend", "/usage": "explorer", "/invoices": "list", "/settings/audit": "trail", "/usage/events": "events", "/start/live": "feed",
    "/settings/billing/tax?tax_id=DE136695976&country=DE": "tax-effect",
}  # fmt: skip
REFUSED = {
    Role.BILLING: ("/settings/keys", "/settings/audit", "/usage/events", "/start"),
    Role.DEVELOPER: ("/plan/cancellation", "/settings/audit"),
    Role.VIEWER: ("/settings/keys", "/settings/audit", "/usage/events", "/plan/cancellation", "/start"),
}
STATEMENTS_MAX = 22


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


def number_of(session: Session, quillmark: Story) -> str:
    """The number of the newest invoice."""
    return str(listing.invoices(session, quillmark.organization.id, on=listing_day())[0].invoice_number)


def listing_day():  # type: ignore[no-untyped-def]
    from datetime import date

    return date(2026, 11, 22)


def test_every_page_is_whole_and_titled(client: FlaskClient, session: Session, quillmark: Story, enter: SignIn) -> None:
    enter(quillmark.organization)
    number = number_of(session, quillmark)
    titles = {}
    for path in (*PAGES, f"/invoices/{number}"):
        answer = client.get(f"/portal{path}")
        assert answer.status_code == 200, path
        assert answer.text.count("<h1") == 1, path
        assert "style=" not in answer.text, path
        assert answer.headers["Cache-Control"] == "private, no-store"
        titles[path.split("?")[0]] = re.findall("<title>(.*?)</title>", answer.text, re.S)[0]
    assert all("Northlight AI" in title for title in titles.values())


@pytest.mark.parametrize(("path", "root"), FRAGMENTS.items())
def test_fragments_are_parts_and_whole_pages_without_htmx(client: FlaskClient, quillmark: Story, enter: SignIn, path: str, root: str) -> None:
    enter(quillmark.organization)
    part = client.get(f"/portal{path}", headers={"HX-Request": "true"})
    assert "<html" not in part.text
    assert re.match(rf"\s*<\w+[^>]* id=\"{root}\"", part.text), part.text[:200]
    assert "HX-Request" in part.headers["Vary"]
    assert "<html" in client.get(f"/portal{path}").text
    restored = client.get(f"/portal{path}", headers={"HX-Request": "true", "HX-History-Restore-Request": "true"})
    assert "<html" in restored.text


@pytest.mark.parametrize("role", list(Role))
def test_roles_see_what_their_table_says(client: FlaskClient, quillmark: Story, enter: SignIn, role: Role) -> None:
    enter(quillmark.organization, role)
    refused = REFUSED.get(role, ())
    for path in PAGES:
        bare = path.split("?")[0]
        expected = 403 if any(bare == known or bare.startswith(f"{known}/") for known in refused) else 200
        assert client.get(f"/portal{path}").status_code == expected, (role, path)


def test_a_stranger_finds_nothing(client: FlaskClient, session: Session, quillmark: Story, enter: SignIn) -> None:
    number = number_of(session, quillmark)
    line = next(iter(quillmark_lines(session, quillmark, number)))
    token = enter(make_organization(session))
    for path in (f"/invoices/{number}", f"/invoices/{number}/pdf", f"/invoices/{number}/payment", f"/invoices/{number}/lines/{line}"):
        assert client.get(f"/portal{path}").status_code == 404, path
    paid = client.post(f"/portal/invoices/{number}/payments", data={"csrf_token": token, "idempotency_key": "0123456789"})
    assert paid.status_code == 404
    assert client.get("/portal/plan/change?plan=build").status_code == 404


def quillmark_lines(session: Session, quillmark: Story, number: str) -> list[str]:
    """Line ids of an invoice."""
    from core.invoicing import queries

    return [str(line.id) for line in queries.invoice_by_number(session, quillmark.organization.id, number).lines]


def test_nobody_is_sent_to_sign_in(client: FlaskClient, quillmark: Story) -> None:
    for path in PAGES:
        answer = client.get(f"/portal{path}")
        assert (answer.status_code, answer.headers["Location"].split("?")[0]) == (303, "/portal/sign-in"), path


def test_pages_send_few_statements_however_much_there_is(client: FlaskClient, session: Session, quillmark: Story, enter: SignIn) -> None:
    enter(quillmark.organization)
    number = number_of(session, quillmark)
    counts = {}
    for path in (*PAGES, f"/invoices/{number}"):
        with counting() as sent:
            client.get(f"/portal{path}")
        counts[path] = len(sent)
    assert {path: count for path, count in counts.items() if count > STATEMENTS_MAX} == {}, counts
    assert db.session is not None


def test_a_new_account_is_told_how_to_begin(client: FlaskClient, session: Session, enter: SignIn) -> None:
    enter(make_organization(session))
    for path in ("/", "/usage", "/invoices", "/plan", "/payment-methods", "/settings/keys", "/settings/billing", "/start", "/usage/events"):
        answer = client.get(f"/portal{path}")
        assert answer.status_code == 200, path
    assert "Send your first event" in client.get("/portal/").text
