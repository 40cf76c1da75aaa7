"""The pages an auditor and an operator open: the audit trail and its proof, mails, health, the proof of the books."""

from __future__ import annotations

from datetime import timedelta

import pytest
from flask.testing import FlaskClient
from sqlalchemy import text
from sqlalchemy.orm import Session

from core import audit, clock
from core.identity.models import OperatorRole
from core.metering.archive.models import UsageKeeping
from core.metering.holds import LegalHold
from core.notifications.models import Notification
from tests.factories import make_organization
from tests.people import SETUP, make_user, sign_in


@pytest.fixture
def auditor(client: FlaskClient, session: Session) -> FlaskClient:
    """A browser signed in as an auditor."""
    sign_in(client, session, make_user(session, operator_role=OperatorRole.AUDITOR), site="admin")
    return client


def test_the_trail_finds_by_kind_and_shows_the_change(auditor: FlaskClient, session: Session) -> None:
    organization = make_organization(session, name="Quillmark GmbH")
    audit.record(
        session,
        SETUP,
        "organization.changed",
        organization,
        at=clock.now(),
        reason="New address",
        before={"city": "Bonn"},
        after={"city": "Berlin"},
    )
    shown = auditor.get("/admin/audit?q=organization.changed").text
    assert "New address" in shown
    assert "Bonn" in shown
    assert "Berlin" in shown
    assert "Bonn" not in auditor.get("/admin/audit?q=invoice.").text
    assert "Bonn" not in auditor.get(f"/admin/audit?since={(clock.now() + timedelta(days=2)):%Y-%m-%d}").text


def test_the_trail_answers_htmx_with_the_list_alone(auditor: FlaskClient) -> None:
    fragment = auditor.get("/admin/audit", headers={"HX-Request": "true"})
    assert fragment.text.lstrip().startswith('<div id="trail">')
    assert fragment.headers["Vary"] == "HX-Request"


def test_the_trail_as_a_file_neutralises_formulas(auditor: FlaskClient, session: Session) -> None:
    organization = make_organization(session)
    audit.record(session, SETUP, "organization.changed", organization, at=clock.now(), reason="=HYPERLINK(1)")
    assert "'=HYPERLINK(1)" in auditor.get("/admin/audit.csv?q=organization.changed").text


def test_the_proof_names_a_broken_chain(auditor: FlaskClient, session: Session) -> None:
    organization = make_organization(session)
    audit.record(session, SETUP, "organization.changed", organization, at=clock.now(), note="first")
    audit.seal(session)
    assert "unchanged" in auditor.get("/admin/audit/proof").text
    session.execute(text("ALTER TABLE audit_events DISABLE TRIGGER USER"))
    session.execute(text("UPDATE audit_events SET reason = 'edited'"))
    session.expire_all()
    assert "The chain is broken" in auditor.get("/admin/audit/proof").text


def test_mails_are_listed_and_shown_as_rendered(auditor: FlaskClient, session: Session) -> None:
    organization = make_organization(session)
    mail = Notification(
        organization_id=organization.id,
        dedupe_key="k",
        kind="invoice.finalized",
        subject_type="invoices",
        subject_id="x",
        recipient="a@b.example",
        data={},
        status="sent",
        next_try_at=clock.now(),
        subject_line="Invoice INV-2026-0042",
        body_text="Dear <finance>",
        created_at=clock.now(),
    )
    session.add(mail)
    session.flush()
    assert "Invoice INV-2026-0042" in auditor.get("/admin/mails?status=sent").text
    assert "Invoice INV-2026-0042" not in auditor.get("/admin/mails?status=failed").text
    assert "Dear &lt;finance&gt;" in auditor.get(f"/admin/mails/{mail.id}").text
    assert auditor.get("/admin/mails/999999").status_code == 404


def test_health_says_what_is_late_and_proves_the_books(auditor: FlaskClient) -> None:
    assert "all accepted usage is counted" in auditor.get("/admin/health").text
    assert "invariants hold" in auditor.get("/admin/health/books").text


def test_daily_runs_are_shown_with_what_they_left(auditor: FlaskClient, session: Session) -> None:
    assert "The first run begins" in auditor.get("/admin/health/keeping").text
    run = UsageKeeping(started_at=clock.now(), finished_at=clock.now() + timedelta(minutes=3), archived_days=2, archived_events=40_000)
    run.left = [{"what": "events of 2026-01-02", "why": "The table has events <that> no archive has."}]
    organization = make_organization(session, slug="heldco")
    session.add_all([run, LegalHold(organization_id=organization.id, reason="case 4711", placed_at=clock.now())])
    session.flush()
    shown = auditor.get("/admin/health/keeping").text
    assert all(
        text in shown
        for text in ("40,000", "events of 2 days, ", "Left: events of 2026-01-02. The table has events &lt;that&gt;", "heldco", "case 4711")
    )
    assert "could not be archived or purged" in auditor.get("/admin/health").text


def test_support_may_not_read_the_trail(client: FlaskClient, session: Session) -> None:
    sign_in(client, session, make_user(session, operator_role=OperatorRole.SUPPORT), site="admin")
    assert client.get("/admin/audit").status_code == 403
    assert client.get("/admin/health").status_code == 403
    assert client.get("/admin/mails").status_code == 200
