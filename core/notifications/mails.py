"""Reading what was mailed."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.notifications.models import Notification, NotificationStatus


def sent_about(session: Session, organization_id: uuid.UUID, subject_id: uuid.UUID) -> Sequence[tuple[str, datetime]]:
    """Recipient and instant (in the organization's time) of every mail sent about a row, oldest first."""
    rows = session.execute(
        select(Notification.recipient, Notification.created_at)
        .where(Notification.organization_id == organization_id, Notification.subject_id == str(subject_id))
        .where(Notification.status == NotificationStatus.SENT)
        .order_by(Notification.id)
    )
    return [(recipient, at) for recipient, at in rows]
