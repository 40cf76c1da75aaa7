"""From due to delivered: the scheduler rings, the actors do the work, and doing it twice changes nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import Message
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from flask import Flask
from sqlalchemy import func, select, text

from core import clock as time_source
from core import config, jobs
from core.audit import OutboxEntry
from core.db import only_one, transaction
from core.invoicing.models import Invoice, InvoiceDocument
from core.notifications.models import Notification
from ops import ports
from tests.factories import make_organization, make_plan, make_subscription
from tests.workers.conftest import Queue
from workers import clock

NOW = datetime(2026, 7, 1, 0, 0, 5, tzinfo=UTC)
UNSEALED = text("SELECT count(*) FROM audit_events e WHERE NOT EXISTS (SELECT 1 FROM audit_seals s WHERE s.audit_event_id = e.id)")


class Mailbox:
    """An SMTP server that keeps what it is given."""

    def __init__(self) -> None:
        self.received: list[Message] = []
        self.controller = Controller(self, hostname="127.0.0.1", port=ports.free())
        self.controller.start()

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        self.received.append(message_from_bytes(envelope.content))
        return "250 OK"

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.controller.port}"


@pytest.fixture
def mailbox() -> Any:
    box = Mailbox()
    yield box
    box.controller.stop()


def sweep(bell: clock.Bell, second: float) -> int:
    """One round of every search."""
    return clock.tick(clock.sweeps(), bell, now=second)


def settle(queue: Queue, *, times: int = 1, rounds: int = 12) -> list[str]:
    """Sweep and work until nothing is rung for any more."""
    handled, bell = [], clock.Bell()
    for round_number in range(rounds):
        bell.rung.clear()
        rung = sweep(bell, float(round_number * 100))
        handled += queue.drain(times=times)
        if not rung:
            return handled
    return handled


def subscribe(count: int, start_at: datetime) -> None:
    with transaction() as session:
        plan = make_plan(session)
        for _ in range(count):
            make_subscription(session, make_organization(session, auto_collect=False), plan, start_at=start_at)


@pytest.mark.parametrize("times", [1, 2])
def test_what_is_due_ends_as_a_mailed_invoice(worker: Flask, queue: Queue, mailbox: Mailbox, times: int) -> None:
    config.use(replace(config.current(), smtp_url=mailbox.url))
    now = NOW + timedelta(days=times)
    with time_source.frozen(now):
        subscribe(3, now.replace(second=0))
        queue.broker.flush_all()  # the queue loses everything
        settle(queue, times=times)
        with transaction() as session:
            made = session.execute(
                select(Invoice.invoice_number, InvoiceDocument.sha256)
                .outerjoin(InvoiceDocument, InvoiceDocument.invoice_id == Invoice.id)
                .where(Invoice.issue_date == now.date())
            ).all()
            assert len({number for number, _ in made}) == len(made) == 3
            assert None not in {sha256 for _, sha256 in made}
            assert session.scalar(select(func.count()).select_from(OutboxEntry)) == 0
            assert {(n.status, n.last_error) for n in session.scalars(select(Notification))} == {("sent", None)}
            assert session.scalar(UNSEALED) == 0
    assert len(mailbox.received) == 3
    assert len({message["Message-ID"] for message in mailbox.received}) == 3
    attached = [
        part.get_filename() for message in mailbox.received for part in message.walk() if part.get_content_type() == "application/pdf"
    ]
    assert len(attached) == 3


def test_a_second_scheduler_waits_for_the_first(worker: Flask, queue: Queue) -> None:
    with time_source.frozen(NOW + timedelta(days=40)), only_one(clock.LOCK) as mine:
        subscribe(1, NOW)
        queue.broker.flush_all()
        assert mine
        assert sweep(clock.Bell(), 0.0) == 0


def test_the_same_job_is_not_rung_for_twice_in_a_moment(worker: Flask, queue: Queue) -> None:
    bell = clock.Bell()
    assert bell.ring([("collect_invoice", ("a",)), ("bill_due", ())], 0.0) == 2
    assert bell.ring([("collect_invoice", ("a",)), ("bill_due", ())], 1.0) == 0
    assert bell.ring([("collect_invoice", ("a",)), ("bill_due", ())], 3.0) == 1
    assert bell.ring([("collect_invoice", ("a",))], 31.0) == 1
    assert queue.broker.queues[jobs.QUEUE].qsize() == 4


def test_a_mail_server_that_is_away_loses_no_mail(worker: Flask, queue: Queue) -> None:
    with time_source.frozen(NOW + timedelta(days=50)):
        with transaction() as session:
            make_subscription(
                session, make_organization(session, auto_collect=False), make_plan(session), start_at=NOW + timedelta(days=49)
            )
        settle(queue)
        with transaction() as session:
            waiting = session.scalars(select(Notification).where(Notification.status == "pending")).all()
            assert waiting
            assert {n.attempts > 0 and bool(n.last_error) for n in waiting} == {True}


def test_usage_is_archived_and_purged_once_a_day(worker: Flask, queue: Queue) -> None:
    search = [clock.Sweep(clock.keeping_time, 60)]
    begun = "UPDATE usage_keepings SET started_at = now() - interval '{0} days', finished_at = now() - interval '{0} days'"
    for days, rung in ((0, 0), (2, 1)):
        with transaction() as session:
            session.execute(text(begun.format(days)))
        assert clock.tick(search, clock.Bell(), now=100.0 * (days + 1)) == rung
    assert queue.drain(times=2) == ["keep_usage"]
    with transaction() as session:
        assert session.scalar(text("SELECT count(*) FROM usage_keepings WHERE finished_at > now() - interval '1 day'")) == 1
    assert clock.tick(search, clock.Bell(), now=1000.0) == 0
