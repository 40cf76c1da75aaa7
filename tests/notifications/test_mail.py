"""Facts become mails once, wait for their PDF, and are never repeated when it is not known whether they arrived."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core import config
from core.audit import OutboxEntry
from core.invoicing import documents
from core.invoicing.models import Invoice
from core.notifications import dispatch, email, queries
from core.notifications.models import Notification
from core.notifications.smtp import Answer, Sent
from tests.factories import START, make_organization, make_plan, make_subscription
from tests.invoicing.books import issued

NOW = datetime(2026, 6, 1, 0, 5, tzinfo=UTC)


@pytest.fixture
def invoice(session: Session) -> Invoice:
    """An issued invoice whose fact waits in the outbox."""
    organization = make_organization(session, billing_email="ap@quillmark.example", name="Quillmark GmbH")
    return issued(session, make_subscription(session, organization, make_plan(session)), START)


def mails(session: Session, invoice: Invoice) -> list[Notification]:
    session.expire_all()
    return list(queries.notifications(session, invoice.organization_id))


def claimed(session: Session, invoice: Invoice, now: datetime = NOW) -> list[email.Outgoing]:
    return [one for one in email.claim(session, now=now, settings=config.current()) if one.message["To"] == "ap@quillmark.example"]


def test_an_invoice_is_told_once_however_often_the_outbox_is_read(session: Session, invoice: Invoice) -> None:
    assert queries.facts_wait(session)
    dispatch.dispatch_outbox(session, now=NOW)
    dispatch.dispatch_outbox(session, now=NOW)
    assert session.scalar(select(func.count()).select_from(OutboxEntry)) == 0
    [mail] = mails(session, invoice)
    assert (mail.kind, mail.recipient, mail.status) == ("invoice.finalized", "ap@quillmark.example", "pending")
    assert queries.mail_is_due(session, now=NOW)


def test_the_mail_waits_for_the_pdf_and_carries_it(session: Session, invoice: Invoice) -> None:
    dispatch.dispatch_outbox(session, now=NOW)
    assert claimed(session, invoice) == []
    stored = documents.render(session, invoice.id, at=NOW)
    [outgoing] = claimed(session, invoice, NOW + timedelta(seconds=5))
    message = outgoing.message
    assert message["Subject"] == f"Invoice {invoice.invoice_number}: €100.00, due 15 Jun 2026"
    assert message["Message-ID"].endswith("@northlight.example>")
    [attached] = list(message.iter_attachments())
    assert attached.get_content() == stored.content
    assert {part.get_content_type() for part in message.walk()} >= {"text/plain", "text/html", "application/pdf"}
    email.record(session, outgoing, Answer(Sent.OK, "250 OK"), now=NOW)
    [mail] = mails(session, invoice)
    assert (mail.status, mail.sent_at, mail.attempts) == ("sent", NOW, 1)


@pytest.mark.parametrize(("answer", "status"), [(Sent.UNKNOWN, "unknown"), (Sent.REFUSED, "failed"), (Sent.LATER, "pending")])
def test_only_what_was_certainly_not_taken_is_tried_again(session: Session, invoice: Invoice, answer: Sent, status: str) -> None:
    dispatch.dispatch_outbox(session, now=NOW)
    documents.render(session, invoice.id, at=NOW)
    [outgoing] = claimed(session, invoice)
    assert claimed(session, invoice) == []
    email.record(session, outgoing, Answer(answer, "said the server"), now=NOW)
    assert [mail.status for mail in mails(session, invoice)] == [status]
    again = claimed(session, invoice, NOW + timedelta(days=1))
    assert [one.message["Message-ID"] for one in again] == ([outgoing.message["Message-ID"]] if status == "pending" else [])


def test_a_mail_whose_sender_was_killed_becomes_unknown(session: Session, invoice: Invoice) -> None:
    dispatch.dispatch_outbox(session, now=NOW)
    documents.render(session, invoice.id, at=NOW)
    assert len(claimed(session, invoice)) == 1
    assert email.give_up_on_silent(session, now=NOW + timedelta(minutes=5)) == 0
    assert email.give_up_on_silent(session, now=NOW + timedelta(minutes=11)) == 1
    assert [mail.status for mail in mails(session, invoice)] == ["unknown"]
