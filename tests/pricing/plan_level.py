"""Random plans with everything a plan can say: named quantities, cycles of their own, included units, discounts, commitments, add-ons."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

from hypothesis import strategies as st

from core.periods import Interval, Period
from core.pricing.proration import Proration
from core.pricing.rules import Flat, GraduatedPercentage, PerUnit, RateTier
from core.pricing.terms import Kind, Rule, Timing
from tests.pricing.histories import START, Catalogue, Life, actions, models, moments

CYCLES = (None, (Interval.QUARTER, 1), (Interval.YEAR, 1))
money = st.decimals("0", "3000", places=2)
percentages = st.decimals("0", "100", places=1).map(lambda rate: GraduatedPercentage((RateTier(None, rate),)))


@st.composite
def extended(draw: st.DrawFn) -> Catalogue:
    """Two plans that share a coupon and an add-on for part of the time; the second has a commitment of its own."""
    policy = draw(st.sampled_from([Proration.SECONDS, Proration.DAYS, Proration.NONE]))
    timing = st.sampled_from(Timing)
    base = Rule("base", "base", Kind.RECURRING, draw(timing), draw(models), prorate=policy, cycle=draw(st.sampled_from(CYCLES)))
    seats = Rule("seats", "seats", Kind.RECURRING, draw(timing), PerUnit(draw(money)), prorate=policy, licensed="seats")
    calls = Rule("calls", "calls", Kind.USAGE, Timing.IN_ARREARS, draw(models), "calls", policy, included=draw(money))
    begins = draw(moments)
    during = Period(begins, begins + timedelta(days=draw(st.integers(1, 90))))
    add_on = Rule("add_on", "add_on", Kind.RECURRING, Timing.IN_ADVANCE, PerUnit(draw(money)), during=during, quantity=Decimal(3))
    coupon = Rule("coupon", "coupon", Kind.DISCOUNT, Timing.IN_ADVANCE, draw(st.one_of(percentages, st.builds(Flat, money))))
    loyal = replace(coupon, id="loyal", code="loyal", model=draw(percentages), covers=draw(st.sampled_from([None, frozenset({"calls"})])))
    minimum = Rule(
        "minimum",
        "minimum",
        Kind.COMMITMENT,
        draw(timing),
        Flat(draw(money)),
        prorate=policy,
        cycle=draw(st.sampled_from(CYCLES)),
        overage_factor=draw(st.decimals("1", "2", places=1)),
    )
    return {"starter": (base, seats, calls, add_on, coupon), "pro": (base, calls, coupon, loyal, minimum), "trial": ()}


class Extended(Life):
    """A life whose quantity is also its number of seats."""

    def begin(self, at, plan, quantity):  # type: ignore[no-untyped-def]
        """Begin a term that holds as many seats."""
        super().begin(at, plan, quantity)
        self.terms[-1] = replace(self.terms[-1], quantities={"seats": quantity})


@st.composite
def extended_lives(draw: st.DrawFn) -> tuple[Extended, list[tuple]]:
    life = Extended(draw(extended()), [], {}, {})
    life.begin(draw(moments), draw(st.sampled_from(["starter", "pro"])), Decimal(draw(st.integers(0, 50))))
    return life, draw(st.lists(actions, max_size=15))


END = START + timedelta(days=800)
