"""Random subscriptions: lives made of starts, changes, pauses and cancellations, with usage that keeps being corrected."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import strategies as st

from core.periods import Interval, calendar_anchor
from core.pricing.rules import (
    BlockTier,
    Flat,
    Graduated,
    GraduatedBlocks,
    GraduatedPercentage,
    Package,
    PerUnit,
    PriceModel,
    RateTier,
    Stairstep,
    Tier,
    Volume,
    VolumeBlocks,
)
from core.pricing.timeline import Kind, LineKey, Measure, Owed, Proration, Rule, Term, Timing, due, owed, segments

START = datetime(2026, 1, 1, tzinfo=UTC)
ANCHOR = calendar_anchor(Interval.MONTH, 1, START, "UTC")

amounts = st.decimals("0", "5000", places=6)
quantities = st.decimals("0", "30000", places=3)


sizes = st.decimals("0.5", "1000", places=1)
bounds = st.builds(
    lambda inner, last: (*sorted(inner), last),
    st.sets(st.decimals("0.001", "20000", places=3), max_size=4),
    st.sampled_from([None, Decimal(20001)]),
)


@st.composite
def tiers(draw: st.DrawFn) -> tuple[Tier, ...]:
    return tuple(Tier(bound, draw(amounts), draw(amounts)) for bound in draw(bounds))


@st.composite
def rate_tiers(draw: st.DrawFn) -> tuple[RateTier, ...]:
    return tuple(RateTier(bound, draw(st.decimals(0, 100, places=2)), draw(amounts)) for bound in draw(bounds))


@st.composite
def block_tiers(draw: st.DrawFn) -> tuple[BlockTier, ...]:
    return tuple(BlockTier(bound, draw(sizes), draw(amounts)) for bound in draw(bounds))


models: st.SearchStrategy[PriceModel] = st.one_of(
    st.builds(Flat, amounts),
    st.builds(PerUnit, amounts),
    st.builds(Graduated, tiers()),
    st.builds(Volume, tiers()),
    st.builds(Stairstep, tiers()),
    st.builds(Package, sizes, amounts, st.decimals("0", "500", places=1), st.sampled_from(["up", "down"])),
    st.builds(GraduatedPercentage, rate_tiers()),
    st.builds(GraduatedBlocks, block_tiers()),
    st.builds(VolumeBlocks, block_tiers()),
)


@st.composite
def rules(draw: st.DrawFn, name: str, kinds: Sequence[Kind], policies: Sequence[Proration]) -> Rule:
    kind = draw(st.sampled_from(kinds))
    timing = draw(st.sampled_from(Timing)) if kind is Kind.RECURRING else Timing.IN_ARREARS
    measure = draw(st.sampled_from(MEASURES)) if kind is Kind.USAGE else Measure.FLOW
    metric = measure.value if kind is Kind.USAGE else None
    return Rule(name, name, kind, timing, draw(models), metric, draw(st.sampled_from(policies)), measure=measure)


PLANS = ("starter", "pro", "trial")
MEASURES = (Measure.FLOW, Measure.LEVEL)
Catalogue = dict[str, tuple[Rule, ...]]


@st.composite
def catalogues(
    draw: st.DrawFn, kinds: Sequence[Kind] = (Kind.RECURRING, Kind.USAGE), policies: Sequence[Proration] = tuple(Proration)
) -> Catalogue:
    """Three plans; they share a rule, so that a change of plan also continues one, and the trial has none."""
    shared, a, b, pro = (draw(rules(name, kinds, policies)) for name in ("shared", "starter.a", "starter.b", "pro.a"))
    return {"starter": (shared, a, b), "pro": (shared, pro), "trial": ()}


@dataclass
class Life:
    """A subscription as its owner changes it, and what its invoice runs have billed."""

    catalogue: Catalogue
    terms: list[Term]
    usage_by_month: dict[int, Decimal]
    billed: dict[LineKey, int]

    def begin(self, at: datetime, plan: str, quantity: Decimal) -> None:
        self.end(at)
        self.terms.append(Term(f"t{len(self.terms)}", at, None, self.catalogue[plan], quantity, ANCHOR))

    def end(self, at: datetime) -> None:
        """End what holds at `at`; what would have begun later never does."""
        self.terms = [t for t in self.terms if t.start < at]
        if self.terms and (self.terms[-1].end is None or self.terms[-1].end > at):
            self.terms[-1] = replace(self.terms[-1], end=at)

    def owed(self, as_of: datetime) -> dict[LineKey, Owed]:
        """What is owed by `as_of`; all usage of a month falls in the first window of it that is due."""
        due_by_now = segments(self.terms, as_of=as_of)
        usage: dict[tuple[str, datetime, datetime], Decimal] = {}
        seen: set[LineKey] = set()
        for segment in due_by_now:
            if segment.rule.metric_id and (segment.rule.is_level or segment.key not in seen):
                seen.add(segment.key)
                month = segment.cycle.start.year * 12 + segment.cycle.start.month
                window = (segment.rule.reads, segment.window.start, segment.window.end)
                usage[window] = self.usage_by_month.get(month, Decimal(0))
        return owed(due_by_now, usage, "EUR")

    def run(self, as_of: datetime) -> int:
        """One invoice run; returns how many lines it billed."""
        items = due(self.owed(as_of), self.billed)
        for item in items:
            self.billed[item.key] = self.billed.get(item.key, 0) + item.minor
        return len(items)


moments = st.integers(0, 4 * 30 * 24 * 60).map(lambda minutes: START + timedelta(minutes=minutes)) | st.integers(0, 120).map(
    lambda days: START + timedelta(days=days)
)
actions = st.one_of(
    st.tuples(st.just("begin"), moments, st.sampled_from(PLANS), st.integers(0, 50).map(Decimal)),
    st.tuples(st.just("end"), moments),
    st.tuples(st.just("usage"), st.integers(1, 4), st.decimals("-100", "30000", places=3)),
    st.tuples(st.just("run"), moments),
    st.tuples(st.just("run"), moments),
)


@st.composite
def lives(draw: st.DrawFn) -> tuple[Life, list[tuple]]:
    life = Life(draw(catalogues()), [], {}, {})
    life.begin(draw(moments), draw(st.sampled_from(PLANS)), Decimal(draw(st.integers(0, 50))))
    return life, draw(st.lists(actions, max_size=25))


def play(life: Life, action: tuple) -> None:
    """Do one action; runs and changes come in any order of time, as they do when clocks and queues slip."""
    match action:
        case ("begin", at, plan, quantity):
            life.begin(at, plan, quantity)
        case ("end", at):
            life.end(at)
        case ("usage", number, quantity):
            life.usage_by_month[2026 * 12 + number] = quantity
        case ("run", as_of):
            life.run(as_of)
