"""A life lived by the pricing kernel alone, beside the model: after every run both must have billed the same, to the minor unit."""

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from core.periods import Anchor, Interval
from core.pricing.timeline import (
    Kind,
    LineKey,
    Owed,
    Proration,
    Rule,
    Segment,
    Term,
    Timing,
    due,
    next_due,
    open_segments,
    owed,
    segments,
)
from tests.simulator import chance
from tests.simulator.model import TICK, Key, Life, Plan, Refused, Stretch, billed_next

BEGIN = datetime(2026, 1, 5, 10, 30, tzinfo=UTC)
STEPS = 40


class Divergence(AssertionError):
    """The product and the model disagree."""


class Kernel:
    """One subscription; `run` bills it as an invoice run would."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.currency = self.rng.choice(("EUR", "JPY", "KWD"))
        self.plans = [
            chance.with_seats(self.rng, chance.plan(chance.document(self.rng, f"plan{n}", self.currency)), self.currency) for n in range(3)
        ]
        self.life = Life(self.rng.choice(chance.ZONES), self.currency, self.rng.choice(("anniversary", "calendar")))
        self.now = self.rng.choice((BEGIN, BEGIN + timedelta(days=self.rng.uniform(0, 360))))
        self.usage: dict[str, list[tuple[datetime, Decimal]]] = {metric: [] for metric in chance.METRICS}
        self.billed: dict[LineKey, int] = {}
        self.modelled: dict[Key, int] = {}
        self.swept = self.now
        self.start()

    def live(self, steps: int = STEPS) -> None:
        """Do whatever chance has in mind, then end it and settle."""
        for _ in range(steps):
            try:
                getattr(self, chance.act(self.rng))()
            except Refused:
                continue
        if not self.life.is_over(self.now):
            self.cancel()
        self.sweep()
        self.settle()
        assert self._run(self.now) == 0, "a second run billed something"

    def wait(self) -> None:
        """Time passes; due runs are done on the way, or not yet."""
        self.now = chance.later(self.rng, self.life, self.now)
        if self.rng.random() < 0.7:
            self.sweep()

    def use(self) -> None:
        if not self.life.stretches:
            raise Refused
        for metric, at, quantity in chance.usage(self.rng, self.now, self.life.stretches[0].start):
            self.usage[metric].append((at, quantity))

    def start(self) -> None:
        """Subscribe, at first or again."""
        if self.life.stretches and not self.life.is_over(self.now):
            raise Refused
        self.settle()
        self.life.start(self.now, self.rng.choice(self.plans), self._units(), self.rng.choice((0, 0, 14)), self.life.ends)
        self.life.ends, self.life.is_paused = None, False
        self.billed, self.modelled, self.swept = {}, {}, self.now

    def change(self) -> None:
        self.life.change(self.now, self.rng.choice(self.plans), self._units())

    def seats(self) -> None:
        running = self.life.at(self.now)
        if running is None:
            raise Refused
        self.life.change(self.now, running.plan, self._units())

    def change_at_period_end(self) -> None:
        running = self.life.at(self.now)
        if running is None:
            raise Refused
        self.life.change(self.life.cycle_end(running, self.now), self.rng.choice(self.plans), self._units())

    def pause(self) -> None:
        self.life.pause(self.now)

    def resume(self) -> None:
        self.life.resume(self.now)

    def cancel(self) -> None:
        self.life.cancel(self.now, at_period_end=False)

    def cancel_at_period_end(self) -> None:
        self.life.cancel(self.now, at_period_end=True)

    def undo_cancel(self) -> None:
        self.life.undo_cancel(self.now)

    def settle(self) -> None:
        """A run at this very moment; done again it bills nothing."""
        if self.life.stretches:
            self._run(self.now)
            assert self._run(self.now) == 0, "a second run billed something"

    def sweep(self) -> None:
        """Look whenever the timeline says that something falls due. Now and then a run dies before it has written anything."""
        terms = self._terms()
        while (moment := next_due(terms, after=self.swept)) is not None and moment <= self.now:
            self._foretold(terms, moment)
            if self.rng.random() < 0.9:
                self._run(moment)
            self.swept = moment
        self.swept = self.now
        self._run(self.now)

    def _run(self, as_of: datetime) -> int:
        """Bill by kernel and by model; returns how many lines there were."""
        terms = self._terms()
        owing = self._owed(segments(terms, as_of=as_of), terms)
        items = due(owing, self.billed)
        for item in items:
            self.billed[item.key] = self.billed.get(item.key, 0) + item.minor
        self.modelled = billed_next(self.modelled, self.life.owed(as_of, self.usage))
        self._compare(as_of)
        return len(items)

    def _compare(self, as_of: datetime) -> None:
        kernel = {(*key.rule_id.split("/"), key.cycle_start): minor for key, minor in self.billed.items() if minor}
        model = {key: minor for key, minor in self.modelled.items() if minor}
        if kernel != model:
            raise Divergence(f"as of {as_of}: kernel and model bill differently: {set(kernel.items()) ^ set(model.items())}")
        if any(minor < 0 for minor in self.billed.values()):
            raise Divergence(f"as of {as_of}: more was credited than billed")

    def _foretold(self, terms: list[Term], moment: datetime) -> None:
        """What the customer was shown a moment before a cycle ended is what is billed for it, to the minor unit."""
        shown = self._owed(open_segments(terms, as_of=moment - TICK), terms)
        for key, entry in self._owed(segments(terms, as_of=moment), terms).items():
            ended = entry.cycle.end == moment and all(segment.window.end == moment for part in entry.parts for segment in part.segments)
            if ended and key in shown and not self._used_at(entry, moment - TICK) and shown[key].minor != entry.minor:
                raise Divergence(f"as of {moment}: {key} was foretold as {shown[key].minor} and is {entry.minor}")

    def _used_at(self, entry: Owed, at: datetime) -> bool:
        return any(used == at for used, _ in self.usage.get(entry.rule.metric_id or "", []))

    def _owed(self, found: list[Segment], terms: list[Term]) -> dict[LineKey, Owed]:
        windows = {(s.rule.metric_id, s.window.start, s.window.end) for s in found if s.rule.metric_id}
        measured = {
            (metric, a, b): sum((q for at, q in self.usage[metric] if a <= at < b), Decimal(0)) for metric, a, b in windows if metric
        }
        return owed(found, measured, self.currency)

    def _terms(self) -> list[Term]:
        return [self._term(stretch, n) for n, stretch in enumerate(self.life.stretches)]

    def _term(self, stretch: Stretch, n: int) -> Term:
        anchor = Anchor(Interval(stretch.hang.interval), stretch.hang.count, stretch.hang.day, self.life.timezone)
        priced = () if stretch.is_trial else rules(stretch.plan)
        return Term(str(n), stretch.start, stretch.end, priced, stretch.quantity, anchor, stretch.plan.credits)

    def _units(self) -> Decimal:
        return Decimal(self.rng.randint(1, 30))


def rules(plan: Plan) -> tuple[Rule, ...]:
    """The kernel's rules of a plan of the model; a rule's id is plan/price."""
    return tuple(
        Rule(
            f"{plan.name}/{price.name}",
            price.name,
            Kind.RECURRING if price.metric is None else Kind.USAGE,
            Timing.IN_ADVANCE if price.in_advance else Timing.IN_ARREARS,
            price.model,
            price.metric,
            Proration(plan.days),
        )
        for price in plan.prices
    )
