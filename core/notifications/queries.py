"""Reading notifications: what waits, and what was sent to whom."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from core.audit import OutboxEntry
from core.errors import NotFound
from core.notifications.models import Notification, NotificationStatus

PAGE_SIZE_MAX = 200


def facts_wait(session: Session) -> bool:
    """Whether some fact has not been dispatched yet."""
    return session.scalar(select(OutboxEntry.id).limit(1)) is not None


def mail_is_due(session: Session, *, now: datetime) -> bool:
    """Whether some message should be sent by `now` (real time)."""
    due = Notification.status == NotificationStatus.PENDING, Notification.next_try_at <= now
    return session.scalar(select(Notification.id).where(*due).limit(1)) is not None


def notifications(
    session: Session, organization_id: uuid.UUID, *, subject_id: str | None = None, before_id: int | None = None, limit: int = 50
) -> Sequence[Notification]:
    """Messages to the organization, newest first, about one subject or all; the page behind `before_id`."""
    wanted = select(Notification).where(Notification.organization_id == organization_id)
    if subject_id is not None:
        wanted = wanted.where(Notification.subject_id == subject_id)
    return _page(session, wanted, before_id, limit)


def all_notifications(
    session: Session, *, status: NotificationStatus | None = None, before_id: int | None = None, limit: int = 50
) -> Sequence[Notification]:
    """Messages to every organization, newest first: for operators only."""
    wanted = select(Notification)
    return _page(session, wanted.where(Notification.status == status) if status else wanted, before_id, limit)


def _page(session: Session, wanted: Select[Notification], before_id: int | None, limit: int) -> Sequence[Notification]:
    behind = wanted if before_id is None else wanted.where(Notification.id < before_id)
    return session.scalars(behind.order_by(Notification.id.desc()).limit(min(limit, PAGE_SIZE_MAX))).all()


def undelivered(session: Session) -> tuple[int, datetime | None]:
    """How many messages were refused or have an unknown fate, and when the oldest of them was made."""
    lost = Notification.status.in_((NotificationStatus.FAILED, NotificationStatus.UNKNOWN))
    count, oldest = session.execute(select(func.count(), func.min(Notification.created_at)).where(lost)).one()
    return count, oldest


def one(session: Session, notification_id: int) -> Notification:
    """One message to anybody, for operators; NotFound."""
    found = session.get(Notification, notification_id)
    if found is None:
        raise NotFound("There is no such mail.")
    return found
