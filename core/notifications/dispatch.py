"""The outbox: each audit event becomes the notifications it calls for, once, and its outbox entry is deleted in the same transaction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core import jobs
from core.audit import AuditEvent, OutboxEntry
from core.identity.models import Organization
from core.notifications.models import Notification, NotificationStatus

BATCH_MAX = 500


@dataclass(frozen=True, slots=True)
class Mail:
    """What a kind of audit event sends: the template's name under templates/emails, and whether the invoice's PDF goes with it."""

    template: str
    attach_pdf: bool = False


MAILS: dict[str, Mail] = {
    "invoice.finalized": Mail("invoice_issued", attach_pdf=True),
    "payment.succeeded": Mail("payment_receipt", attach_pdf=True),
    "payment.failed": Mail("payment_failed"),
    "payment.requires_action": Mail("payment_action_needed"),
    "refund.succeeded": Mail("refund"),
    "subscription.plan_changed": Mail("plan_changed"),
    "subscription.canceled": Mail("subscription_canceled"),
    "subscription.suspended": Mail("subscription_suspended"),
    "api_key.created": Mail("api_key_created"),
    "credit.expiring": Mail("credit_expiring"),
    "limit.warned": Mail("limit_warned"),
    "limit.reached": Mail("limit_reached"),
}
"""Audit kind -> mail. Kinds that are missing here tell nobody outside."""


def dispatch_outbox(session: Session, *, now: datetime, limit: int = BATCH_MAX) -> int:
    """Turn up to `limit` waiting facts into notifications, oldest first; returns how many facts were dispatched.

    Two dispatchers share the work by SKIP LOCKED; a fact seen twice cannot notify twice (`dedupe_key` is unique).
    """
    waiting = session.execute(
        select(OutboxEntry.id, AuditEvent, Organization.billing_email)
        .join(AuditEvent, AuditEvent.id == OutboxEntry.audit_event_id)
        .outerjoin(Organization, Organization.id == AuditEvent.organization_id)
        .order_by(OutboxEntry.id)
        .limit(limit)
        .with_for_update(skip_locked=True, of=OutboxEntry)
    ).all()
    rows = [_row(event, recipient, now) for _, event, recipient in waiting if event.kind in MAILS and recipient]
    if rows:
        session.execute(insert(Notification).values(rows).on_conflict_do_nothing(index_elements=["dedupe_key"]))
        jobs.enqueue(session, "send_notifications")
    if waiting:
        session.execute(delete(OutboxEntry).where(OutboxEntry.id.in_([entry_id for entry_id, _, _ in waiting])))
    return len(waiting)


def _row(event: AuditEvent, recipient: str, now: datetime) -> dict[str, Any]:
    return {
        "organization_id": event.organization_id,
        "dedupe_key": f"{event.id}.{MAILS[event.kind].template}",
        "kind": event.kind,
        "subject_type": event.subject_type,
        "subject_id": event.subject_id,
        "recipient": recipient,
        "data": event.data,
        "status": NotificationStatus.PENDING,
        "next_try_at": now,
        "created_at": event.at,
    }
