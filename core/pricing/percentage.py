"""A fee on every event, and how few figures of any number of events are enough to work it out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from core.pricing.usage import NO_EVENTS, Band, Events

_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Percentage:
    """A fee on every event: `rate_percent` of its amount plus a fixed fee, held between `min_per_event` and `max_per_event`.

    An event is free while fewer than `free_events` and less than `free_amount` were used; when both are given, both must hold.
    The event that crosses `free_amount` pays for the excess.
    """

    rate_percent: Decimal
    fixed_fee_per_event: Decimal = _ZERO
    free_events: int | None = None
    free_amount: Decimal | None = None
    min_per_event: Decimal | None = None
    max_per_event: Decimal | None = None

    @property
    def reads_sums(self) -> bool:
        """Whether the number of events and the sum of their amounts are enough."""
        bounded = self.min_per_event is not None or self.max_per_event is not None
        return not bounded and self.free_events is None and (self.free_amount is None or not self.fixed_fee_per_event)

    def fold(self) -> "Fold":
        """Something to add events to, one by one."""
        return Fold(self)


@dataclass(frozen=True, slots=True)
class PaidEvents:
    """Result of a percentage price: the fee, and the amount and number of events it was charged on. Major units, unrounded."""

    fee: Decimal
    paid_amount: Decimal
    paid_events: int


def percentage(model: Percentage, amounts: Sequence[Decimal], bands: Sequence[Band] = ()) -> PaidEvents:
    """The fee on events of these amounts, in the order they happened, and on those of `bands`, which come when nothing is free any more."""
    charged = [Band(1, amount) for amount in _charged_amounts(model, amounts) if amount is not None] + list(bands)
    fee = sum((_fee(model, band) for band in charged), _ZERO)
    return PaidEvents(fee, sum((band.amount for band in charged), _ZERO), sum(band.events for band in charged))


def summed(model: Percentage, events: int, amount: Decimal) -> Events:
    """The usage of a model that `reads_sums`, from the number of events and their sum."""
    if not events:
        return Events(())
    return Events((amount,)) if model.free_amount is not None else Events((), (Band(events, amount),))


def settled(model: Percentage, usage: Events) -> Events:
    """The same usage in few figures, once nothing is added to it any more: what was free, and bands of what is charged."""
    fold, free, excess = Fold(model, began=True), usage.free, _ZERO
    for amount, charged in zip(usage.amounts, _charged_amounts(model, usage.amounts), strict=True):
        if charged is None:
            free = Band(free.events + 1, free.amount + amount)
        else:
            fold.add(charged)
            excess += amount - charged
    return Events((), (*fold.events().bands, *usage.bands), Band(free.events, free.amount + excess))


@dataclass(slots=True)
class Fold:
    """Events one by one in order of time; keeps those by which free events and amounts may be used up, and sums of the others.

    The others are in three bands: held up to the minimum, neither, held down to the maximum. `began`: nothing is free.
    """

    model: Percentage
    began: bool = False
    amounts: list[Decimal] = field(default_factory=list)
    bands: list[Band] = field(default_factory=lambda: [NO_EVENTS] * 3)
    used: Decimal = _ZERO

    def add(self, amount: Decimal) -> None:
        """The next event."""
        if not self.began and _may_be_free(self.model, len(self.amounts), self.used):
            self.amounts.append(amount)
            self.used += amount
            return
        self.began = True
        place = self._place(amount)
        events, total = self.bands[place]
        self.bands[place] = Band(events + 1, total + amount)

    def events(self) -> Events:
        """The usage so far."""
        return Events(tuple(self.amounts), tuple(band for band in self.bands if band.events))

    def _place(self, amount: Decimal) -> int:
        fee = amount * self.model.rate_percent.scaleb(-2) + self.model.fixed_fee_per_event
        if self.model.min_per_event is not None and fee < self.model.min_per_event:
            return 0
        return 2 if self.model.max_per_event is not None and fee > self.model.max_per_event else 1


def _may_be_free(model: Percentage, events_before: int, amount_before: Decimal) -> bool:
    events, allowance = model.free_events, model.free_amount
    if events is None and allowance is None:
        return False
    return (events is None or events_before < events) and (allowance is None or amount_before <= allowance)


def _charged_amounts(model: Percentage, amounts: Sequence[Decimal]) -> list[Decimal | None]:
    """The part of each event that is charged; None if the event is free."""
    found: list[Decimal | None] = []
    used, allowance = _ZERO, model.free_amount
    for events_before, amount in enumerate(amounts):
        if not _may_be_free(model, events_before, used):
            found.append(amount)
        elif allowance is None or used + amount <= allowance:
            found.append(None)
        else:
            found.append(min(amount, used + amount - allowance))
        used += amount
    return found


def _fee(model: Percentage, band: Band) -> Decimal:
    """The fee on events that are all held up, all held down, or none of them."""
    fee = band.amount * model.rate_percent.scaleb(-2) + model.fixed_fee_per_event * band.events
    if model.min_per_event is not None:
        fee = max(fee, model.min_per_event * band.events)
    return fee if model.max_per_event is None else min(fee, model.max_per_event * band.events)
