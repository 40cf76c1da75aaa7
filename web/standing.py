"""What a subscription's status means just now, in one sentence with the next date: the same words for customers and operators."""

from __future__ import annotations

from datetime import datetime

from core import rendering
from core.catalog.models import AfterTrial
from core.subscriptions.models import Subscription, SubscriptionStatus, SuspensionCause
from core.subscriptions.status import present, resumes_at

Status = SubscriptionStatus
AFTER_TRIAL = {
    AfterTrial.CONVERT: "Then it goes on and is billed.",
    AfterTrial.CANCEL: "Then it ends, unless the account has a payment method.",
    AfterTrial.PAUSE: "Then it pauses, unless the account has a payment method.",
}


def sentence(subscription: Subscription, *, at: datetime, zone: str, locale: str = rendering.LOCALE) -> str:
    """The status in plain words: what holds, what is owed, what happens next and on which day of the customer's."""

    def day(when: datetime | None) -> str:
        return rendering.date(when, zone, locale) if when is not None else ""

    ends, status = subscription.ends_at, present(subscription, at)
    if status is Status.CANCELED:
        return f"Ended on {day(ends)}. Usage that arrives later is still billed once." if ends else "Ended before it began."
    if subscription.started_at > at:
        return f"Begins on {day(subscription.started_at)}. Nothing is owed before."
    if status is Status.PAUSED:
        back = resumes_at(subscription, at)
        return f"Paused: nothing is owed. It goes on by itself on {day(back)}." if back else "Paused: nothing is owed until it is resumed."
    if status is Status.SUSPENDED:
        unpaid = subscription.suspension_cause == SuspensionCause.UNPAID
        until = "until the open invoice is paid" if unpaid else "until an operator gives it back"
        return f"Access is off {until}. The plan goes on being billed."
    if ends is not None:
        return f"Runs until {day(ends)} and ends then. A last invoice follows for the usage until that day."
    if status is Status.TRIALING:
        after = AFTER_TRIAL[AfterTrial(subscription.trial_end_without_method)]
        return f"In its trial until {day(subscription.trial_end)}: nothing is owed yet. {after}"
    if status is Status.PAST_DUE:
        return "Runs, but a payment was refused. It is tried again; access goes off if the invoice stays unpaid."
    period = subscription.current_period_end
    return f"Runs and is billed. The running period ends on {day(period)}." if period else "Runs and is billed."
