"""The end of a trial: with a payment method it converts; without one the subscription does what was agreed for that."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Uuid, column, exists, select, table
from sqlalchemy.orm import Session

from core.audit import SYSTEM
from core.catalog.models import AfterTrial
from core.db import among
from core.subscriptions import spans as timelines
from core.subscriptions import timeline
from core.subscriptions.models import Subscription, SubscriptionStatus
from core.subscriptions.status import move

REASON = "the trial ended without a payment method"
_METHODS = table("payment_methods", column("organization_id", Uuid), column("removed_at"))
"""Saved methods, by name: payments stand above this package, and whether there is one is all that is asked."""


def end_without_method(session: Session, as_of: Mapping[uuid.UUID, datetime]) -> None:
    """Cancel or pause those of the subscriptions whose trial is over by their instant and whose account has no payment method.

    Call it with the rows locked, before they are rated: what was to follow the trial is taken off the timeline.
    """
    has_method = exists().where(_METHODS.c.organization_id == Subscription.organization_id, _METHODS.c.removed_at.is_(None))
    unpaid = (
        select(Subscription)
        .where(
            among(Subscription.id, as_of),
            Subscription.status == SubscriptionStatus.TRIALING,
            Subscription.trial_end_without_method != AfterTrial.CONVERT,
            ~has_method,
        )
        .execution_options(populate_existing=True)
    )
    for subscription in session.scalars(unpaid).all():
        ends = subscription.trial_end
        if ends is None or ends > as_of[subscription.id]:
            continue
        timeline.store(session, subscription, timelines.ended(timeline.spans(subscription), ends))
        if subscription.trial_end_without_method == AfterTrial.CANCEL:
            subscription.canceled_at = subscription.ends_at = ends
            move(session, subscription, SubscriptionStatus.CANCELED, at=ends, actor=SYSTEM, reason=REASON)
        else:
            move(session, subscription, SubscriptionStatus.PAUSED, at=ends, actor=SYSTEM, reason=REASON)
    session.flush()
