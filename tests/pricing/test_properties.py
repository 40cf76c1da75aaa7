"""What must hold for any history, any price and any split of a period."""

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import pairwise

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from core.money import EXACT, allocate, exponent, round_half_up
from core.periods import Period
from core.pricing.price import explain, price
from core.pricing.proration import Proration, share
from core.pricing.rules import (
    Graduated,
    GraduatedBlocks,
    GraduatedPercentage,
    Package,
    PerUnit,
    PriceModel,
    parse_model,
    to_json,
)
from core.pricing.tax import tax_minor, totals
from core.pricing.timeline import Kind, Term, open_segments, segments
from tests.pricing import oracle
from tests.pricing.histories import PLANS, START, Catalogue, Life, catalogues, lives, models, moments, play, quantities

END = START + timedelta(days=800)
many = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@many
@given(lives())
def test_billed_over_any_history_is_what_the_final_timeline_owes(story: tuple[Life, list[tuple]]) -> None:
    life, actions = story
    for action in actions:
        play(life, action)
    life.end(END - timedelta(days=60))
    life.run(END)
    billed = {key: minor for key, minor in life.billed.items() if minor}
    assert billed == {key: entry.minor for key, entry in life.owed(END).items() if entry.minor}


@many
@given(lives())
def test_a_second_run_bills_nothing(story: tuple[Life, list[tuple]]) -> None:
    life, actions = story
    for action in actions:
        play(life, action)
        if action[0] == "run":
            assert life.run(action[1]) == 0
    life.run(END)
    assert life.run(END) == 0


@many
@given(lives())
def test_no_line_is_ever_credited_below_zero(story: tuple[Life, list[tuple]]) -> None:
    life, actions = story
    for action in actions:
        play(life, action)
        assert all(minor >= 0 for minor in life.billed.values())


@many
@given(lives(), moments)
def test_the_kernel_agrees_with_exact_fractions_month_by_month(story: tuple[Life, list[tuple]], as_of: datetime) -> None:
    life, actions = story
    for action in actions:
        if action[0] != "run":
            play(life, action)
    expected: dict[tuple[str, datetime], int] = {}
    for rule in {rule for plan in life.catalogue.values() for rule in plan}:
        for number in range(1, 8):
            start, end = oracle.month(2026, number), oracle.month(2026, number + 1)
            usage = life.usage_by_month.get(start.year * 12 + start.month, Decimal(0))
            amount = oracle.owed_by_month(life.terms, rule, start, end, usage, as_of)
            if amount is not None:
                expected[rule.id, start] = oracle.minor(amount, 2)
    assert {(key.rule_id, key.cycle_start): entry.minor for key, entry in life.owed(as_of).items()} == expected


@many
@given(
    catalogues([Kind.RECURRING], [Proration.DAYS]),
    st.integers(1, 30),
    st.lists(st.tuples(st.integers(0, 1439), st.sampled_from(PLANS)), max_size=8),
)
def test_changes_of_mind_within_one_day_cost_nothing(catalogue: Catalogue, day: int, changes: list[tuple[int, str]]) -> None:
    changed, steady = Life(catalogue, [], {}, {}), Life(catalogue, [], {}, {})
    for life in (changed, steady):
        life.begin(START, "starter", Decimal(3))
        life.run(START)
    morning = START + timedelta(days=day)
    for minute, plan in [*sorted(changes), (1439, "starter")]:
        changed.begin(morning + timedelta(minutes=minute), plan, Decimal(3))
        changed.run(morning + timedelta(minutes=minute))
    for life in (changed, steady):
        life.end(START + timedelta(days=31))
        life.run(END)
    assert {key: minor for key, minor in changed.billed.items() if minor} == {key: minor for key, minor in steady.billed.items() if minor}


@many
@given(lives(), moments, moments)
def test_closed_cycles_are_left_out_whole_and_open_ones_kept_whole(
    story: tuple[Life, list[tuple]], as_of: datetime, since: datetime
) -> None:
    life, actions = story
    for action in actions:
        play(life, action)
    everything = segments(life.terms, as_of=as_of)
    assert segments(life.terms, as_of=as_of, since=since) == [segment for segment in everything if segment.cycle.end > since]


@many
@given(lives())
def test_what_was_held_is_covered_once_and_whole(story: tuple[Life, list[tuple]]) -> None:
    life, actions = story
    for action in actions:
        play(life, action)
    life.end(END - timedelta(days=60))
    windows: dict[str, list[Period]] = {}
    for segment in segments(life.terms, as_of=END):
        windows.setdefault(segment.rule.id, []).append(segment.window)
    for rule in {rule for term in life.terms for rule in term.rules}:
        found = sorted(windows.pop(rule.id), key=lambda window: window.start)
        assert all(earlier.end <= later.start for earlier, later in pairwise(found))
        held = [term for term in life.terms if rule in term.rules]
        assert sum(window.microseconds for window in found) == sum(Period(t.start, t.end or END).microseconds for t in held)
    assert not windows


@many
@given(lives(), st.lists(moments, max_size=6))
def test_cutting_terms_into_pieces_changes_no_amount(story: tuple[Life, list[tuple]], cuts: list[datetime]) -> None:
    """Days counted at both ends are counted twice where a term is cut; that is what they are for."""
    life, actions = story
    for action in actions:
        play(life, action)
    assume(all(rule.prorate is not Proration.ACTUAL_DAYS_INCLUSIVE for plan in life.catalogue.values() for rule in plan))
    whole = {key: entry.amount for key, entry in life.owed(END).items()}
    for cut in cuts:
        life.terms = [piece for term in life.terms for piece in halves(term, cut)]
    assert {key: entry.amount for key, entry in life.owed(END).items()} == whole


def halves(term: Term, at: datetime) -> tuple[Term, ...]:
    """The term, in two where the instant lies inside."""
    if not (term.start < at and (term.end is None or at < term.end)):
        return (term,)
    return replace(term, end=at), replace(term, id=f"{term.id}'", start=at)


@many
@given(lives(), moments)
def test_the_running_cycle_holds_what_is_owed_for_it_and_more(story: tuple[Life, list[tuple]], as_of: datetime) -> None:
    life, actions = story
    for action in actions:
        play(life, action)
    running = open_segments(life.terms, as_of=as_of)
    assert all(segment.cycle.contains(as_of) for segment in running)
    assert all(segment.window.end <= as_of for segment in running if segment.rule.kind is Kind.USAGE)
    due_now = {segment.key for segment in segments(life.terms, as_of=as_of) if segment.cycle.contains(as_of)}
    assert due_now <= {segment.key for segment in running}


@many
@given(models, quantities, st.sampled_from(["EUR", "JPY", "KWD", "CLF"]))
def test_prices_agree_with_exact_fractions(model: PriceModel, quantity: Decimal, currency: str) -> None:
    amount = price(model, quantity)
    assert Fraction(amount) == oracle.price(model, quantity)
    assert round_half_up(amount, currency) == oracle.minor(oracle.price(model, quantity), exponent(currency))


@many
@given(models, quantities)
def test_an_explanation_adds_up(model: PriceModel, quantity: Decimal) -> None:
    explanation = explain(model, quantity)
    assert explanation.amount == price(model, quantity) == sum(step.amount for step in explanation.steps)


@many
@given(models)
def test_json_keeps_the_model(model: PriceModel) -> None:
    assert parse_model(to_json(model)) == model


@many
@given(models, quantities, quantities)
def test_more_never_costs_less_where_the_model_promises_it(model: PriceModel, one: Decimal, other: Decimal) -> None:
    """Volume and stairstep prices may fall at a bound, by their meaning; the others may not."""
    assume(isinstance(model, PerUnit | Graduated | Package | GraduatedPercentage | GraduatedBlocks))
    assert price(model, min(one, other)) <= price(model, max(one, other))


@many
@given(
    st.lists(moments, min_size=1, max_size=8),
    st.sampled_from([Proration.SECONDS, Proration.DAYS, Proration.FIXED_30, Proration.FIXED_28]),
)
def test_shares_of_the_parts_of_a_cycle_add_up_to_one(cuts: list[datetime], policy: Proration) -> None:
    cycle = Period(START, START + timedelta(days=120))
    bounds = [cycle.start, *sorted(cuts), cycle.end]
    parts = [Period(a, b) for a, b in pairwise(bounds)]
    assert sum(share(part, cycle, policy, "UTC") for part in parts) == 1


@many
@given(st.integers(-(10**12), 10**12), st.lists(st.integers(0, 10**6), min_size=1, max_size=12))
def test_allocation_loses_nothing_and_is_never_off_by_one_unit(total: int, weights: list[int]) -> None:
    assume(sum(weights))
    parts = allocate(total, weights)
    assert sum(parts) == total
    assert all(abs(part - Fraction(total * weight, sum(weights))) < 1 for part, weight in zip(parts, weights, strict=True))


@many
@given(
    st.lists(st.tuples(st.integers(-(10**9), 10**9), st.sampled_from([Decimal("19"), Decimal("7.7"), Decimal(0)])), max_size=20),
    st.sampled_from(["EUR", "JPY", "KWD"]),
)
def test_tax_is_rounded_once_per_rate(lines: list[tuple[int, Decimal]], currency: str) -> None:
    sums = totals(lines, currency)
    assert sums.net == sum(net for net, _ in lines)
    assert sums.total == sums.net + sums.tax
    for group in sums.groups:
        exact = Fraction(group.net) * Fraction(group.rate_percent) / 100
        assert group.tax == oracle.minor(exact, 0) == tax_minor(group.net, group.rate_percent, currency)


def test_a_price_of_the_largest_accepted_numbers_is_exact() -> None:
    widest = Decimal("99999999999999.999999999999")
    with localcontext(EXACT):
        explanation = explain(PerUnit(widest), widest)
    assert Fraction(explanation.amount) == Fraction(widest) ** 2
