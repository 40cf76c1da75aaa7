"""The timeline an act would make, before anybody decides: what a page asks billing about, and nothing is saved."""

from __future__ import annotations

from datetime import datetime

from core.pricing.terms import Term
from core.subscriptions import spans as timelines
from core.subscriptions import timeline
from core.subscriptions.models import Subscription
from core.subscriptions.spans import hanging
from core.subscriptions.status import Act, require

MOVING = (Act.PAUSE, Act.RESUME, Act.CANCEL, Act.REACTIVATE)
"""Acts that change the timeline at once, and with it what is owed; a cancellation is the one with immediate effect."""


def proposed(subscription: Subscription, act: Act, *, at: datetime) -> tuple[Term, ...]:
    """The terms as one of the MOVING acts at `at` would leave them. InvalidTransition when the status does not allow it."""
    require(subscription, act, at)
    planned = timeline.spans(subscription)
    if act in (Act.PAUSE, Act.CANCEL):
        return timeline.terms(timelines.ended(planned, at))
    if not planned:
        return ()
    follow = timelines.resumed if act is Act.RESUME else timelines.reactivated
    return timeline.terms(follow(timelines.ended(planned, at), at, hanging(subscription)))
