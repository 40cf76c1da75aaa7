"""A life lived by the pricing kernel alone, beside the model: after every run both must have billed the same, to the minor unit."""

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from core.periods import Anchor, Interval, Period
from core.pricing.terms import Kind, LineKey, Rule, Segment, Term, Timing
from core.pricing.timeline import Owed, Proration, due, next_due, open_segments, owed, segments
from tests.simulator import chance
from tests.simulator.held import Held, Plan, Refused, Stretch
from tests.simulator.model import Life
from tests.simulator.owing import FOREVER, Key, billed_next, in_order
from tests.simulator.owing import owed as modelled_owed
from tests.simulator.wall import TICK

BEGIN = datetime(2026, 1, 5, 10, 30, tzinfo=UTC)
STEPS = 40


class Divergence(AssertionError):
    """The product and the model disagree."""


class Kernel:
    """One subscription; `run` bills it as an invoice run would."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.currency = self.rng.choice(("EUR", "JPY", "KWD"))
        documents = [chance.with_conditions(self.rng, chance.document(self.rng, f"plan{n}", self.currency)) for n in range(3)]
        self.plans = [chance.plan(document) for document in documents]
        self.extras = [chance.plan(made(self.rng, made.__name__, self.currency)) for made in (chance.add_on, chance.coupon)]
        self.extras.append(chance.plan(chance.coupon(self.rng, "other", self.currency)))
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

    def correct(self) -> None:
        """An event was wrong: it says something else now, or counts no more."""
        events = self.usage[self.rng.choice(chance.METRICS)]
        if not events:
            raise Refused
        at, quantity = events.pop(self.rng.randrange(len(events)))
        if self.rng.random() < 0.5:
            events.append((at, quantity + self.rng.randint(1, 900)))

    def start(self) -> None:
        """Subscribe, at first or again; now and then with a ramp."""
        if self.life.stretches and not self.life.is_over(self.now):
            raise Refused
        self.settle()
        trial, ramp, at = self.rng.choice((0, 0, 14)), [], self.now
        for _ in range(self.rng.choice((0, 0, 0, 1, 2))):
            at += timedelta(days=self.rng.randint(20, 90))
            ramp.append((at, self.rng.choice(self.plans), self._held()))
        self.life.start(self.now, self.rng.choice(self.plans), self._held(), trial, self.life.ends, ramp)
        self.life.ends, self.life.is_paused, self.life.beside = None, False, []
        self.billed, self.modelled, self.swept = {}, {}, self.now

    def change(self) -> None:
        self.life.change(self.now, self.rng.choice(self.plans), self._held())

    def change_back_then(self) -> None:
        """A change that holds from a day that has passed."""
        self.life.change(self.now, self.rng.choice(self.plans), self._held(), chance.back_then(self.rng, self.life, self.now))

    def seats(self) -> None:
        running = self.life.at(self.now)
        if running is None:
            raise Refused
        self.life.change(self.now, running.plan, self._held())

    def change_at_period_end(self) -> None:
        running = self.life.at(self.now)
        if running is None:
            raise Refused
        self.life.change(self.now, self.rng.choice(self.plans), self._held(), self.life.cycle_end(running, self.now))

    def undo_change(self) -> None:
        self.life.undo_change(self.now)

    def attach(self) -> None:
        self.life.attach(self.now, self.rng.choice(self.extras), Decimal(self.rng.randint(1, 5)))

    def hold_more(self) -> None:
        self.life.hold_more(self.now, chance.item(self.rng, self.life), Decimal(self.rng.randint(1, 5)))

    def detach(self) -> None:
        self.life.detach(self.now, chance.item(self.rng, self.life), at_period_end=self.rng.random() < 0.5)

    def pause(self) -> None:
        self.life.pause(self.now, chance.some_day(self.rng, self.now))

    def resume(self) -> None:
        self.life.resume(self.now, chance.some_day(self.rng, self.now))

    def undo_resume(self) -> None:
        self.life.undo_resume(self.now)

    def cancel(self) -> None:
        self.life.cancel(self.now, at_period_end=False)

    def cancel_at_period_end(self) -> None:
        self.life.cancel(self.now, at_period_end=True)

    def undo_cancel(self) -> None:
        self.life.undo_cancel(self.now)

    def reactivate(self) -> None:
        self.life.reactivate(self.now)

    def settle(self) -> None:
        """A run at this very moment; done again it bills nothing."""
        if self.life.stretches:
            self._run(self.now)
            assert not due(self._owing(self.now), self.billed), "a second run would bill something"

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

    def _run(self, as_of: datetime) -> None:
        """Bill by kernel and by model."""
        owing = self._owing(as_of)
        for item in due(owing, self.billed):
            self.billed[item.key] = self.billed.get(item.key, 0) + item.minor
        self.modelled = billed_next(self.modelled, modelled_owed(self.life, as_of, self.usage))
        self._compare(as_of, owing)

    def _compare(self, as_of: datetime, owing: dict[LineKey, Owed]) -> None:
        kernel = {(*key.rule_id.split("/"), key.cycle_start): minor for key, minor in self.billed.items() if minor}
        model = {key: minor for key, minor in self.modelled.items() if minor}
        if kernel != model:
            raise Divergence(f"as of {as_of}: kernel and model bill differently: {set(kernel.items()) ^ set(model.items())}")
        discounts = {key for key, entry in owing.items() if entry.rule.kind is Kind.DISCOUNT}
        if any(minor < 0 for key, minor in self.billed.items() if key not in discounts):
            raise Divergence(f"as of {as_of}: more was credited than billed")

    def _foretold(self, terms: list[Term], moment: datetime) -> None:
        """What the customer was shown a moment before a cycle ended is what is billed for it, to the minor unit."""
        shown = self._owed(open_segments(terms, as_of=moment - TICK))
        for key, entry in self._owing(moment).items():
            plain = entry.rule.kind in (Kind.RECURRING, Kind.USAGE)
            ended = plain and entry.cycle.end == moment and all(s.window.end == moment for part in entry.parts for s in part.segments)
            if ended and key in shown and not self._used_at(entry, moment - TICK) and shown[key].minor != entry.minor:
                raise Divergence(f"as of {moment}: {key} was foretold as {shown[key].minor} and is {entry.minor}")

    def _used_at(self, entry: Owed, at: datetime) -> bool:
        return any(used == at for used, _ in self.usage.get(entry.rule.metric_id or "", []))

    def _owing(self, as_of: datetime) -> dict[LineKey, Owed]:
        return self._owed(segments(self._terms(), as_of=as_of))

    def _owed(self, found: list[Segment]) -> dict[LineKey, Owed]:
        windows = {(s.rule.metric_id, s.window.start, s.window.end) for s in found if s.rule.metric_id}
        measured = {
            (metric, a, b): sum((q for at, q in self.usage[metric] if a <= at < b), Decimal(0)) for metric, a, b in windows if metric
        }
        return owed(found, measured, self.currency)

    def _terms(self) -> list[Term]:
        return [self._term(stretch, n) for n, stretch in enumerate(self.life.stretches)]

    def _term(self, stretch: Stretch, n: int) -> Term:
        anchor = Anchor(Interval(stretch.hang.interval), stretch.hang.count, stretch.hang.day, self.life.timezone)
        priced = () if stretch.is_trial else (*rules(stretch.plan), *self._attached(stretch))
        quantities = {"seats": stretch.held.seats}
        return Term(
            str(n), stretch.start, stretch.end, priced, stretch.held.units, anchor, stretch.plan.credits, quantities, stretch.is_trial
        )

    def _attached(self, stretch: Stretch) -> Iterator[Rule]:
        for item in in_order(self.life.beside):
            during = Period(item.start, item.end or FOREVER)
            if during.overlap(Period(stretch.start, stretch.end or FOREVER)) is None:
                continue
            own = (Interval(item.plan.interval), item.plan.count)
            for rule in rules(item.plan):
                if item.plan.kind == "coupon":
                    yield replace(rule, during=during, prorate=Proration.NONE)
                else:
                    yield replace(rule, during=during, quantity=item.units, cycle=own)

    def _held(self) -> Held:
        return Held(Decimal(self.rng.randint(1, 30)), Decimal(self.rng.choice((0, 3, 7))))


def rules(plan: Plan) -> tuple[Rule, ...]:
    """The kernel's rules of a plan of the model; a rule's id is plan/price."""
    kinds = {"discount": Kind.DISCOUNT, "commitment": Kind.COMMITMENT}
    return tuple(
        Rule(
            f"{plan.name}/{price.name}",
            price.name,
            kinds.get(price.kind) or (Kind.RECURRING if price.metric is None else Kind.USAGE),
            Timing.IN_ADVANCE if price.in_advance else Timing.IN_ARREARS,
            price.model,
            price.metric,
            Proration(plan.days),
            licensed=price.named,
            cycle=None if price.cycle is None else (Interval(price.cycle[0]), price.cycle[1]),
            included=price.included,
            covers=price.covers,
            overage_factor=price.factor,
        )
        for price in plan.prices
    )
