"""A customer's life as it is lived, kept as plainly as can be: plain lists of what held from when to when, one function an act.

It shares no timeline code with the product; what it owes is worked out in tests.simulator.owing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal

from tests.simulator.held import Beside, Bond, Held, Plan, Refused, Stretch
from tests.simulator.wall import TICK, Hang, begins_interval, boundary, cycles, fits, local_day, midnight, number

OPEN_DAYS = 45
"""How far back a change may hold."""


@dataclass
class Life:
    """One subscription: `mode` calendar or anniversary says where cycles begin."""

    timezone: str
    currency: str
    mode: str
    stretches: list[Stretch] = field(default_factory=list)
    beside: list[Beside] = field(default_factory=list)
    is_paused: bool = False
    ends: datetime | None = None
    bond: Bond | None = None

    def start(
        self,
        at: datetime,
        plan: Plan,
        held: Held,
        trial_days: int = 0,
        not_before: datetime | None = None,
        ramp: Sequence[tuple[datetime, Plan, Held]] = (),
    ) -> None:
        """The first local day counts whole, unless something of the customer's ended on it; a trial covers whole local days."""
        day = local_day(at, self.timezone)
        begin, paid = midnight(day, self.timezone), midnight(day + timedelta(days=trial_days), self.timezone)
        if not_before is not None:
            begin, paid = max(begin, not_before), max(paid, not_before)
        hang = self.hung(plan, paid)
        trial = [Stretch(begin, paid, plan, held, hang, is_trial=True)] if paid > begin else []
        self.stretches = [*trial, Stretch(paid, None, plan, held, hang)]
        for moment, following, quantities in ramp:
            self._turn(moment, following, quantities)

    def change(self, at: datetime, plan: Plan, held: Held, holds_from: datetime | None = None) -> None:
        """From then on another plan or quantity; what was planned for later is forgotten, an end and a running trial stay."""
        since = holds_from or at
        running = self.at(since)
        changed_since = any(since < stretch.start <= at for stretch in self.stretches)
        if self.is_over(at) or self.rests(at) or running is None or changed_since or since < at - timedelta(days=OPEN_DAYS):
            raise Refused
        if (running.plan, running.held) == (plan, held) and self.planned(since) is None:
            raise Refused
        self._forget(since, at)
        self._turn(since, plan, held)

    def planned(self, at: datetime) -> Stretch | None:
        """The change that is ahead."""
        before = self.at(at)
        for stretch in self.stretches:
            if stretch.start > at and before is not None and (before.plan, before.held) != (stretch.plan, stretch.held):
                return stretch
            before = stretch if stretch.start > at else before
        return None

    def until_then(self, since: datetime, at: datetime) -> Stretch | None:
        """What a change made now that holds from `since` comes after: nothing of what is planned to begin then."""
        return self.at(since if since <= at else since - TICK)

    def undo_change(self, at: datetime) -> None:
        """What holds now goes on."""
        running = self.at(at)
        if running is None or self.planned(at) is None:
            raise Refused
        self._turn(running.start, running.plan, running.held)

    def pause(self, at: datetime, until: datetime | None = None) -> None:
        """Nothing is owed from now on, or until then; what began this very instant cannot pause."""
        running = self.at(at)
        if running is None or running.is_trial or running.end is not None or running.start == at:
            raise Refused
        self.stretches, self.is_paused = self.until(at), True
        if until is not None:
            self.resume(at, until)

    def resume(self, at: datetime, then: datetime | None = None) -> None:
        """As before the pause, from now on or from then on; another return that was planned gives way."""
        if not self.rests(at):
            raise Refused
        before = self.until(at)
        self.stretches, self.is_paused = [*before, replace(before[-1], start=then or at, end=None)], then is not None

    def undo_resume(self, at: datetime) -> None:
        """It stays paused after all."""
        if not self.rests(at) or self.stretches[-1].start <= at:
            raise Refused
        self.stretches = self.until(at)

    def rests(self, at: datetime) -> bool:
        """Whether it is paused, and has not come back as planned."""
        return self.is_paused and self.at(at) is None

    def cancel(self, at: datetime, *, at_period_end: bool, break_bond: bool = False) -> None:
        """The end; of the running cycle, of the trial, or now. While a contract binds, it is the end of its term or none."""
        if self.is_over(at):
            raise Refused
        bound = None if break_bond else self.bound_until(at)
        if bound is not None and not at_period_end and at < bound:
            raise Refused
        if self.ends is not None:
            self.undo_cancel(at)
        running, ends = self.at(at), at
        if at_period_end and running is not None:
            ends = self.cycle_end(running, at) if bound is None else bound
        self.stretches, self.ends, self.is_paused = self.until(ends), ends, False

    def bound_until(self, at: datetime) -> datetime | None:
        """The end of the contract's term in which leaving now takes effect."""
        if self.bond is None:
            return None
        hang = Hang(self.bond.interval, self.bond.count, local_day(self.stretches[0].start, self.timezone))
        n = 0
        while boundary(hang, self.timezone, n) < at + timedelta(days=self.bond.notice_days):
            n += 1
        return boundary(hang, self.timezone, n)

    def undo_cancel(self, at: datetime) -> None:
        """It goes on; what followed a trial follows again."""
        if self.ends is None or self.is_over(at):
            raise Refused
        last = self.stretches[-1]
        if last.is_trial:
            self.stretches = [*self.stretches, self._after(last)]
        else:
            self.stretches = [*self.stretches[:-1], replace(last, end=None)]
        self.ends = None

    def reactivate(self, at: datetime) -> None:
        """As it ended; within the cycle the cycles go on, later they begin anew with the local day."""
        if not self.is_over(at) or not self.stretches:
            raise Refused
        last = self.stretches[-1]
        assert last.end is not None
        if not last.is_trial and at < next(cycles(last.hang, self.timezone, last.end, last.end))[1]:
            again = replace(last, start=at, end=None)
        else:
            begin = max(midnight(local_day(at, self.timezone), self.timezone), last.end)
            again = Stretch(begin, None, last.plan, last.held, self.hung(last.plan, begin))
        self.stretches, self.ends = [*self.stretches, again], None

    def attach(self, at: datetime, plan: Plan, units: Decimal) -> None:
        """An add-on from now on, or as soon as something is billed; a coupon for whole cycles."""
        billed = next((s for s in self.stretches if not s.is_trial and (s.end is None or s.end > at)), None)
        if self.is_over(at) or self.at(at) is None or billed is None:
            raise Refused
        start, end = max(at, billed.start), None
        if plan.kind == "coupon":
            first, units = number(billed.hang, self.timezone, start), Decimal(1)
            entered = min(s.start for s in self.stretches if s.hang == billed.hang and not s.is_trial)
            start = max(boundary(billed.hang, self.timezone, first), entered)
            if any(item.plan == plan and item.lasts(start) for item in self.beside):
                raise Refused
            end = None if plan.duration is None else boundary(billed.hang, self.timezone, first + plan.duration)
        elif not fits((plan.interval, plan.count), (billed.hang.interval, billed.hang.count)):
            raise Refused
        self.beside.append(Beside(plan, units, start, end))

    def hold_more(self, at: datetime, item: Beside, units: Decimal) -> None:
        """Another quantity of an add-on from now on."""
        if self.is_over(at) or self.at(at) is None or not item.lasts(at) or item.plan.kind == "coupon":
            raise Refused
        if item.start < at and item.units != units:
            self.beside.append(Beside(item.plan, units, at, item.end))
            item.end = at
        item.units = item.units if item.end == at else units

    def detach(self, at: datetime, item: Beside, *, at_period_end: bool) -> None:
        """Take it away, a coupon with the running cycle."""
        if not item.lasts(at):
            raise Refused
        running = self.at(at)
        late = (at_period_end or item.plan.kind == "coupon") and running is not None
        end = self.cycle_end(running, at) if late and running is not None else at
        if end <= item.start:
            self.beside.remove(item)
        else:
            item.end = end if item.end is None else min(end, item.end)

    def is_over(self, at: datetime) -> bool:
        return self.ends is not None and self.ends <= at

    def at(self, at: datetime) -> Stretch | None:
        """What holds at an instant."""
        return next((stretch for stretch in self.stretches if stretch.holds(at)), None)

    def until(self, at: datetime) -> list[Stretch]:
        """The life up to an instant."""
        return [replace(s, end=at) if s.end is None or s.end > at else s for s in self.stretches if s.start < at]

    def cycle_end(self, stretch: Stretch, at: datetime) -> datetime:
        """End of the cycle, or of the trial, that runs at `at`."""
        in_trial = stretch.end if stretch.is_trial else None
        return in_trial or next(cycles(stretch.hang, self.timezone, at, at))[1]

    def hung(self, plan: Plan, at: datetime) -> Hang:
        """Where the cycles of a plan hang that begins at `at`."""
        day = local_day(at, self.timezone)
        while self.mode == "calendar" and not begins_interval(day, plan.interval):
            day -= timedelta(days=1)
        return Hang(plan.interval, plan.count, day)

    def _forget(self, since: datetime, at: datetime) -> None:
        """What is planned for then or later will not be: what holds until then goes on."""
        before = self.until_then(since, at)
        if since > at and before is not None:
            self._turn(before.start, before.plan, before.held)

    def _turn(self, at: datetime, plan: Plan, held: Held) -> None:
        running = self.at(at)
        assert running is not None
        end, before = self.stretches[-1].end, self.until(at)
        if running.is_trial:
            trial_end = max(s.end for s in self.stretches if s.is_trial and s.end)
            trial = Stretch(at, trial_end, plan, held, running.hang, is_trial=True)
            rest = [] if end is not None and end <= trial_end else [replace(self._after(trial), end=end)]
            self.stretches = [*before, trial, *rest]
            return
        goes_on = (running.hang.interval, running.hang.count) == (plan.interval, plan.count)
        self.stretches = [*before, Stretch(at, end, plan, held, running.hang if goes_on else self.hung(plan, at))]

    def _after(self, trial: Stretch) -> Stretch:
        assert trial.end is not None
        return Stretch(trial.end, None, trial.plan, trial.held, self.hung(trial.plan, trial.end))
