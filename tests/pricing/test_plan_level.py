"""What must hold for any history of a plan with seats, add-ons, discounts and commitments."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import HealthCheck, given, settings

from core.periods import Interval, Period, anniversary_anchor
from core.pricing.models import parse
from core.pricing.rules import Flat, GraduatedPercentage, PerUnit, RateTier
from core.pricing.spend import Settled
from core.pricing.terms import ON_SPEND, Kind, Rule, Term, Timing
from core.pricing.timeline import due, next_due, owed, segments
from tests.pricing.histories import play
from tests.pricing.plan_level import END, Extended, extended_lives

some = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
JUNE, JULY = datetime(2026, 6, 1, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC)


@some
@given(extended_lives())
def test_any_order_of_runs_bills_what_the_final_timeline_owes(story: tuple[Extended, list[tuple]]) -> None:
    life, actions = story
    for action in actions:
        play(life, action)
        if action[0] == "run":
            assert life.run(action[1]) == 0  # a second run bills nothing
    life.end(END - timedelta(days=60))
    life.run(END)
    final = life.owed(END)
    assert {key: minor for key, minor in life.billed.items() if minor} == {key: e.minor for key, e in final.items() if e.minor}


@some
@given(extended_lives())
def test_no_price_is_credited_below_zero_and_no_discount_is_more_than_its_lines(story: tuple[Extended, list[tuple]]) -> None:
    life, actions = story
    for action in actions:
        play(life, action)
    discounts = {rule.id for plan in life.catalogue.values() for rule in plan if rule.kind is Kind.DISCOUNT}
    assert all(minor <= 0 if key.rule_id in discounts else minor >= 0 for key, minor in life.billed.items())
    entries = life.owed(END)
    for entry in entries.values():
        if entry.rule.kind in ON_SPEND:
            (part,) = entry.parts
            assert entry.rule.kind is Kind.COMMITMENT or -part.quantity <= part.amount <= 0
            assert entry.minor == round(entry.minor)
            assert entry.detail()["parts"] == [part.detail()]


def test_what_a_yearly_minimum_looks_back_on_is_settled() -> None:
    """In the last month of the year the other eleven are closed: what was billed in them counts."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    calls = Rule("calls", "calls", Kind.USAGE, Timing.IN_ARREARS, PerUnit(Decimal(1)), "calls")
    minimum = Rule("minimum", "minimum", Kind.COMMITMENT, Timing.IN_ARREARS, Flat(Decimal(1000)), cycle=(Interval.YEAR, 1))
    anchor = anniversary_anchor(Interval.MONTH, 1, start, "UTC")
    terms = [Term("t", start, None, (calls, minimum), Decimal(1), anchor)]
    end = datetime(2027, 1, 1, tzinfo=UTC)
    assert next_due(terms, after=end - timedelta(days=3)) == end
    all_of_it = segments(terms, as_of=end)
    usage = {("calls", s.window.start, s.window.end): Decimal(50) for s in all_of_it if s.rule is calls}
    whole = owed(all_of_it, usage, "EUR")
    billed = {key: entry.minor for key, entry in whole.items()}
    assert sum(billed.values()) == 100_000
    late = segments(terms, as_of=end, since=end - timedelta(days=20))
    december = datetime(2026, 12, 1, tzinfo=UTC)
    settled = {
        key: Settled(minor, whole[key].cycle, in_advance=False)
        for key, minor in billed.items()
        if key.rule_id == "calls" and key.cycle_start < december
    }
    (yearly,) = (key for key in whole if key.rule_id == "minimum")
    assert owed(late, usage, "EUR", settled)[yearly].minor == 40_000
    elsewhere = {key: entry._replace(window=Period(end, end + timedelta(days=1))) for key, entry in settled.items()}
    assert owed(late, usage, "EUR", elsewhere)[yearly].minor == 95_000  # what was billed for time outside the year does not count


def test_discounts_take_from_what_the_ones_before_them_left_and_none_is_credited_away_alone() -> None:
    base = Rule("base", "base", Kind.RECURRING, Timing.IN_ADVANCE, Flat(Decimal(100)))
    tenth = Rule("tenth", "tenth", Kind.DISCOUNT, Timing.IN_ADVANCE, GraduatedPercentage((RateTier(None, Decimal(10)),)))
    fixed = Rule("fixed", "fixed", Kind.DISCOUNT, Timing.IN_ADVANCE, Flat(Decimal(95)))
    anchor = anniversary_anchor(Interval.MONTH, 1, JUNE, "UTC")
    whole = Term("t", JUNE, None, (base, tenth, fixed), Decimal(1), anchor, credit_unused=False)
    entries = owed(segments([whole], as_of=JUNE), {}, "EUR")
    assert [entry.minor for entry in entries.values()] == [10_000, -1_000, -9_000]
    billed = {key: entry.minor for key, entry in entries.items()}
    ended = Term("t", JUNE, JUNE + timedelta(days=15), whole.rules, Decimal(1), anchor, credit_unused=False)
    assert due(owed(segments([ended], as_of=JULY), {}, "EUR"), billed) == []


def test_included_units_modifiers_discounts_and_commitments_apply_in_the_documented_order() -> None:
    """The table of docs/plans.md, in which order."""
    price = {"model": "per_unit", "unit_price": "20", "unit_conversion": {"operation": "divide", "factor": "1000", "rounding": "up"}}
    model = parse({**price, "usage_discount": "1", "discount_percent": "10", "maximum_amount": "150"})
    base = Rule("base", "base", Kind.RECURRING, Timing.IN_ARREARS, Flat(Decimal(100)))
    calls = Rule("calls", "calls", Kind.USAGE, Timing.IN_ARREARS, model, "calls", included=Decimal(2000))
    all_of_it, coupon = (
        Rule(name, name, Kind.DISCOUNT, Timing.IN_ARREARS, GraduatedPercentage((RateTier(None, Decimal(rate)),)))
        for name, rate in (("all", 20), ("coupon", 10))
    )
    off = Rule("off", "off", Kind.DISCOUNT, Timing.IN_ARREARS, Flat(Decimal(30)), covers=frozenset({"calls"}))
    minimum = Rule("minimum", "minimum", Kind.COMMITMENT, Timing.IN_ARREARS, Flat(Decimal(300)))
    rules = (base, calls, minimum, all_of_it, off, coupon)
    terms = [Term("t", JUNE, None, rules, Decimal(1), anniversary_anchor(Interval.MONTH, 1, JUNE, "UTC"))]
    entries = owed(segments(terms, as_of=JULY), {("calls", JUNE, JULY): Decimal(12000)}, "EUR")
    amounts = {key.rule_id: entry.minor for key, entry in entries.items()}
    assert amounts == {"base": 10_000, "calls": 15_000, "all": -5_000, "off": -3_000, "coupon": -1_700, "minimum": 14_700}
    assert sum(amounts.values()) == 30_000
