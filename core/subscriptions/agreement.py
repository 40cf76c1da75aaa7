"""What is agreed with a customer beyond a plan: phases with their own prices and quantities, and how long the contract binds. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from core.catalog.models import PlanVersion
from core.errors import Conflict, FieldError, Invalid
from core.periods import Anchor, Interval, anniversary_anchor, local_date
from core.subscriptions.models import Subscription
from core.subscriptions.spans import Hanging, Span, changed, scheduled

PHASES_MAX = 24
YEARS_MAX = 10


@dataclass(frozen=True, slots=True)
class Phase:
    """From `start` on, this version and these quantities hold; None: as in the phase before."""

    start: datetime
    version: PlanVersion | None = None
    quantity: Decimal | None = None
    quantities: Mapping[str, Decimal] | None = None


@dataclass(frozen=True, slots=True)
class Contract:
    """A term of `count` intervals from the start, that `renews` for as long again or ends the subscription.

    A cancellation less than `notice_days` before the end of a term holds from the end of the next.
    """

    interval: Interval
    count: int = 1
    renews: bool = True
    notice_days: int = 0


def ramped(spans: Sequence[Span], phases: Sequence[Phase], mode: Hanging) -> tuple[Span, ...]:
    """The timeline with its phases, in order of time; Invalid with the pointer of one that does not come after the one before it."""
    if len(phases) > PHASES_MAX:
        raise Invalid("The subscription cannot start like this.", errors=(FieldError("/phases", f"must be at most {PHASES_MAX}"),))
    planned = tuple(spans)
    for i, phase in enumerate(phases):
        running = planned[-1]
        if not running.start < phase.start <= spans[0].start + timedelta(days=366 * YEARS_MAX):
            detail = f"must be after the phase before it, within {YEARS_MAX} years of the start"
            raise Invalid("The subscription cannot start like this.", errors=(FieldError(f"/phases/{i}/start_at", detail),))
        planned = changed(
            planned,
            version=phase.version or running.version,
            quantity=running.quantity if phase.quantity is None else phase.quantity,
            quantities=phase.quantities,
            at=phase.start,
            mode=mode,
        )
    return planned


def bind(subscription: Subscription, contract: Contract, *, start: datetime, timezone: str) -> None:
    """Set the contract's columns; its first term begins with the local day of `start`."""
    subscription.contract_ends_at = anniversary_anchor(contract.interval, contract.count, start, timezone).boundary(1)
    subscription.contract_interval, subscription.contract_count = contract.interval, contract.count
    subscription.contract_renews, subscription.notice_days = contract.renews, contract.notice_days


def check_customer(
    subscription: Subscription, spans: Sequence[Span], at: datetime, *, to: PlanVersion, quantities: Mapping[str, Decimal]
) -> None:
    """Conflict where a customer under contract asks for another plan, for fewer of something, or to leave what is planned.

    `quantities` by name, "" being the subscription's own. Operators may change what was agreed.
    """
    bound = bound_until(subscription, spans, at)
    running = next((span for span in spans if span.contains(at)), None)
    if bound is None or running is None:
        return
    held = {**running.quantities, "": running.quantity}
    fewer = any(wanted < held.get(name, Decimal(0)) for name, wanted in quantities.items())
    if to.id != running.version.id or fewer or scheduled(spans, at) is not None:
        day = local_date(bound, running.anchor.timezone)
        raise Conflict(f"The contract binds until {day}: write to us, and we change it together.", code="under_contract")


def bound_until(subscription: Subscription, spans: Sequence[Span], at: datetime) -> datetime | None:
    """The end of the contract term in which a cancellation at `at` holds; None without a contract.

    Terms follow each other from the first one's end; one whose notice has passed goes into the next.
    """
    first_end = subscription.contract_ends_at
    if first_end is None or subscription.contract_interval is None or subscription.contract_count is None:
        return None
    if not subscription.contract_renews:
        return first_end if at < first_end else None
    zone = spans[0].anchor.timezone
    terms: Anchor = anniversary_anchor(Interval(subscription.contract_interval), subscription.contract_count, spans[0].start, zone)
    in_time = at + timedelta(days=subscription.notice_days)
    number = max(terms.index(in_time), 0)
    return in_time if terms.boundary(number) == in_time else terms.boundary(number + 1)
