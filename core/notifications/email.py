"""Notifications as e-mails: claim and render in one transaction, speak SMTP outside of any, record the outcome in another.

`sending` is committed before the server is spoken to. A process killed in between leaves it there; `give_up_on_silent` turns it into
`unknown`, which nobody repeats by itself: a customer reads a reminder twice more angrily than a finance admin reads a list of doubts.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any

import css_inline
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from core import rendering
from core.config import Settings
from core.identity.models import Organization
from core.invoicing.models import Invoice, InvoiceDocument
from core.notifications import smtp
from core.notifications.dispatch import MAILS
from core.notifications.models import Notification, NotificationStatus
from core.payments.models import BillingTransaction

BATCH_MAX = 50
ATTEMPTS_MAX = 8
PDF_PATIENCE = timedelta(seconds=2)
SILENT_AFTER = timedelta(minutes=10)
BACKOFF_SECONDS = (5, 30, 120, 600, 1800, 7200, 21600, 43200)

SUBJECTS = {
    "invoice_issued": "Invoice {number}: {total}, due {due_date}",
    "payment_receipt": "Paid: {amount} for {number}",
    "payment_failed": "Payment of {amount} failed for {number}",
    "payment_action_needed": "Your bank needs you to confirm {amount}",
    "refund": "Refund: {amount} for {number}",
    "plan_changed": "Your plan changes: {organization}",
    "subscription_canceled": "Your subscription ends: {organization}",
    "subscription_suspended": "Your access is suspended: {organization}",
    "api_key_created": "A new API key was created for {organization}",
    "credit_expiring": "Your credit of {amount} expires on {expires}",
    "limit_warned": "{limit}: {percent} % used",
    "limit_reached": "{limit} reached{stopped}",
}


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message committed as `sending`, ready for the wire."""

    notification_id: int
    attempts: int
    message: EmailMessage


@dataclass(frozen=True, slots=True)
class Facts:
    """The rows a mail speaks of; `document` is the stored PDF."""

    organization: Organization
    invoice: Invoice | None
    payment: BillingTransaction | None
    document: bytes | None


def claim(session: Session, *, now: datetime, settings: Settings, limit: int = BATCH_MAX) -> list[Outgoing]:
    """Take due notifications, render them and mark them `sending`; one whose PDF is not rendered yet waits for it."""
    due = session.scalars(
        select(Notification)
        .where(Notification.status == NotificationStatus.PENDING, Notification.next_try_at <= now)
        .order_by(Notification.next_try_at, Notification.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    facts = _facts(session, due)
    outgoing = []
    for notification in due:
        about = facts[notification.id]
        if MAILS[notification.kind].attach_pdf and about.document is None:
            notification.next_try_at = now + PDF_PATIENCE
            continue
        message = compose(notification, about, settings=settings)
        notification.status = NotificationStatus.SENDING
        notification.attempts += 1
        notification.next_try_at = now
        notification.subject_line = message["Subject"]
        body = message.get_body(("plain",))
        notification.body_text = body.get_content() if body else ""
        outgoing.append(Outgoing(notification.id, notification.attempts, message))
    return outgoing


def record(session: Session, outgoing: Outgoing, answer: smtp.Answer, *, now: datetime) -> None:
    """Write down what became of a message: sent, again later, refused for good, or not known."""
    status, next_try_at = NotificationStatus.SENT, now
    if answer.sent is smtp.Sent.LATER and outgoing.attempts < ATTEMPTS_MAX:
        status = NotificationStatus.PENDING
        next_try_at = now + timedelta(seconds=BACKOFF_SECONDS[min(outgoing.attempts, len(BACKOFF_SECONDS)) - 1])
    elif answer.sent is smtp.Sent.UNKNOWN:
        status = NotificationStatus.UNKNOWN
    elif answer.sent is not smtp.Sent.OK:
        status = NotificationStatus.FAILED
    session.execute(
        update(Notification)
        .where(Notification.id == outgoing.notification_id, Notification.status == NotificationStatus.SENDING)
        .values(
            status=status,
            next_try_at=next_try_at,
            sent_at=now if status is NotificationStatus.SENT else None,
            last_error=None if status is NotificationStatus.SENT else answer.detail,
        )
    )


def give_up_on_silent(session: Session, *, now: datetime) -> int:
    """Messages that a killed process left in `sending` become `unknown`; returns how many."""
    left = session.execute(
        update(Notification)
        .where(Notification.status == NotificationStatus.SENDING, Notification.next_try_at < now - SILENT_AFTER)
        .values(status=NotificationStatus.UNKNOWN, last_error="the process ended while the message was being sent")
        .returning(Notification.id)
    )
    return len(left.all())


def compose(notification: Notification, about: Facts, *, settings: Settings) -> EmailMessage:
    """The message: text and HTML from the same facts, the invoice's PDF when the mail carries one."""
    mail = MAILS[notification.kind]
    headline = _headline(about, notification.data)
    context = _context(notification, about, settings) | {"headline": headline}
    message = EmailMessage()
    message["From"] = settings.mail_from
    message["To"] = notification.recipient
    message["Subject"] = " ".join(SUBJECTS[mail.template].format(**headline).split())
    message["Date"] = format_datetime(notification.created_at)
    message["Message-ID"] = f"<{notification.dedupe_key}@{settings.mail_from.rsplit('@', 1)[-1].rstrip('>')}>"
    message.set_content(rendering.render(f"emails/{mail.template}.txt", **context))
    html = css_inline.inline(rendering.render(f"emails/{mail.template}.html", **context), load_remote_stylesheets=False)
    message.add_alternative(html, subtype="html")
    if mail.attach_pdf and about.document is not None and about.invoice is not None:
        name = f"{about.invoice.invoice_number}.pdf"
        message.add_attachment(about.document, maintype="application", subtype="pdf", filename=name)
    return message


def _headline(about: Facts, data: dict[str, Any]) -> dict[str, str]:
    """What subject lines are made of, in the customer's locale."""
    organization, invoice, payment = about.organization, about.invoice, about.payment
    headline = {"organization": organization.name, "number": "", "total": "", "due_date": "", "amount": ""}
    headline |= {"limit": data.get("limit", ""), "percent": str(data.get("percent", ""))}
    headline["stopped"] = ": usage is refused" if data.get("stopped") else ""
    if invoice is not None:
        headline["number"] = invoice.invoice_number or ""
        headline["total"] = rendering.money(invoice.total_minor, invoice.currency, organization.locale)
        headline["due_date"] = rendering.date(invoice.due_date, organization.timezone, organization.locale) if invoice.due_date else ""
    if payment is not None:
        headline["amount"] = rendering.money(payment.amount_minor, payment.currency, organization.locale)
    if "remaining_minor" in data:
        headline["amount"] = rendering.money(data["remaining_minor"], data["currency"], organization.locale)
        headline["expires"] = rendering.date(datetime.fromisoformat(data["expires_at"]), organization.timezone, organization.locale)
    return headline


def _context(notification: Notification, about: Facts, settings: Settings) -> dict[str, object]:
    invoice = about.invoice
    return {
        "organization": about.organization,
        "invoice": invoice,
        "payment": about.payment,
        "data": notification.data,
        "seller": settings.seller,
        "locale": about.organization.locale,
        "timezone": about.organization.timezone,
        "portal_url": f"{settings.public_url}/portal/",
        "invoice_url": f"{settings.public_url}/portal/invoices/{invoice.invoice_number}" if invoice is not None else None,
    }


def _facts(session: Session, notifications: Sequence[Notification]) -> dict[int, Facts]:
    """The rows all these mails speak of, in a handful of queries whatever their number."""
    subjects = {n.id: (n.subject_type, uuid.UUID(n.subject_id)) for n in notifications}
    payment_ids = [i for kind, i in subjects.values() if kind == BillingTransaction.__tablename__]
    payments = {p.id: p for p in session.scalars(select(BillingTransaction).where(BillingTransaction.id.in_(payment_ids)))}
    invoice_ids = [i for kind, i in subjects.values() if kind == Invoice.__tablename__]
    invoice_ids += [p.invoice_id for p in payments.values() if p.invoice_id]
    invoices = {i.id: i for i in session.scalars(select(Invoice).where(Invoice.id.in_(invoice_ids)))}
    pdf = InvoiceDocument
    documents = {
        row.invoice_id: row.content for row in session.execute(select(pdf.invoice_id, pdf.content).where(pdf.invoice_id.in_(invoice_ids)))
    }
    owners = {n.organization_id for n in notifications}
    organizations = {o.id: o for o in session.scalars(select(Organization).where(Organization.id.in_(owners)))}
    found = {}
    for n in notifications:
        kind, subject_id = subjects[n.id]
        payment = payments.get(subject_id) if kind == BillingTransaction.__tablename__ else None
        invoice = invoices.get(payment.invoice_id if payment and payment.invoice_id else subject_id)
        document = documents.get(invoice.id) if invoice is not None else None
        found[n.id] = Facts(organizations[n.organization_id], invoice, payment, document)
    return found
