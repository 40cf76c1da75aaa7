"""What is stored with a line is enough to work the line out again, for every price of the vocabulary."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from core.periods import Interval, calendar_anchor
from core.pricing.models import parse, to_json
from core.pricing.proration import Proration
from core.pricing.replay import again, inputs
from core.pricing.rules import Flat
from core.pricing.terms import Kind, Rule, Term, Timing
from core.pricing.timeline import Owed, owed, segments
from core.pricing.usage import Events
from tests.pricing.vocabulary import told

START, CHANGE, END = (datetime(2026, 2, day, tzinfo=UTC) for day in (1, 11, 28))
ANCHOR = calendar_anchor(Interval.MONTH, 1, START, "Europe/Berlin")


def term(*rules: Rule, start: datetime = START, end: datetime | None = CHANGE, quantity: str = "3") -> Term:
    return Term("term", start, end, rules, Decimal(quantity), ANCHOR)


def stored(entry: Owed, terms: list[Term]) -> dict[str, object]:
    """The detail of a line as the database gives it back."""
    kept: dict[str, object] = json.loads(json.dumps({**entry.detail(), **inputs(entry, terms), "timing": "in_arrears"}))
    return kept


def check(terms: list[Term], usage: dict[object, object], currency: str) -> None:
    for entry in owed(segments(terms, as_of=END), usage, currency).values():  # type: ignore[arg-type]
        detail = stored(entry, terms)
        found = again(detail, currency)
        assert found is not None
        assert found.minor == entry.minor, entry.rule.code
        assert json.loads(json.dumps(found.detail())) == {key: detail[key] for key in found.detail()}, entry.rule.code


def test_every_usage_price_comes_out_again() -> None:
    for case in told():
        rule = Rule(case.id, case.id, Kind.USAGE, Timing.IN_ARREARS, parse(case.price), "metric", Proration.DAYS)
        terms = [term(rule)]
        (window,) = [segment.window for segment in segments(terms, as_of=END)]
        check(terms, {(rule.reads, window.start, window.end): case.usage}, case.currency)


@pytest.mark.parametrize("policy", [Proration.SECONDS, Proration.DAYS, Proration.NONE, Proration.FIXED_30])
def test_seats_included_units_discounts_and_commitments_come_out_again(policy: Proration) -> None:
    per_seat, per_call = parse({"model": "per_unit", "unit_price": "9.99"}), parse({"model": "per_unit", "unit_price": "0.017"})
    seats = Rule("seats", "seats", Kind.RECURRING, Timing.IN_ADVANCE, per_seat, None, policy)
    calls = Rule("calls", "calls", Kind.USAGE, Timing.IN_ARREARS, per_call, "m", policy, included=Decimal(100))
    discount = Rule("less", "less", Kind.DISCOUNT, Timing.IN_ARREARS, Flat(Decimal("5.55")), None, policy)
    committed = Rule(
        "commitment", "commitment", Kind.COMMITMENT, Timing.IN_ARREARS, Flat(Decimal("500")), None, policy, overage_factor=Decimal("1.2")
    )  # fmt: skip
    rules = (seats, calls, discount, committed)
    terms = [term(*rules), replace(term(*rules, start=CHANGE, end=END, quantity="7"), id="later")]
    windows = [segment.window for segment in segments(terms, as_of=END) if segment.rule == calls]
    check(terms, {("m", window.start, window.end): Decimal(4321) for window in windows}, "EUR")


def test_of_any_number_of_events_a_few_figures_are_kept_and_are_enough() -> None:
    price = {"model": "percentage", "rate_percent": "1.1", "fixed_fee_per_event": "0.02", "free_events": "700", "free_amount": "31000"}
    bounded = {**price, "min_per_event": "0.40", "max_per_event": "0.9"}
    for model in (price, bounded, {"model": "percentage", "rate_percent": "2"}, {**price, "fixed_fee_per_event": "0"}):
        rule = Rule("share", "share", Kind.USAGE, Timing.IN_ARREARS, parse(model), "metric")
        usage = Events(tuple(Decimal(n % 97) for n in range(6001)))
        check([term(rule)], {(rule.reads, START, CHANGE): usage}, "EUR")
        ((_, entry),) = owed(segments([term(rule)], as_of=END), {(rule.reads, START, CHANGE): usage}, "EUR").items()
        assert len(json.dumps(inputs(entry, [term(rule)]))) < 300


def test_a_line_without_a_price_is_none() -> None:
    assert again({"owed": "0.00", "billed_before": "5.00"}, "EUR") is None
    assert to_json(Flat(Decimal(5))) == {"model": "flat", "flat_price": "5"}
