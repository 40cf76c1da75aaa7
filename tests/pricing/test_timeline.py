"""A subscription's story as terms, and what each invoice run bills."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

from core.periods import Interval, calendar_anchor
from core.pricing.rules import Flat, Graduated, PerUnit, Tier
from core.pricing.timeline import Kind, LineKey, Proration, Rule, Term, Timing, due, open_segments, owed, segments

Usage = Mapping[tuple[str, datetime, datetime], Decimal]


def at(month: int, day: int, hour: int = 0) -> datetime:
    return datetime(2026, month, day, hour, tzinfo=UTC)


ANCHOR = calendar_anchor(Interval.MONTH, 1, at(6, 1), "UTC")
STARTER = Rule("r1", "starter.base", Kind.RECURRING, Timing.IN_ADVANCE, Flat(Decimal(100)))
PRO = Rule("r2", "pro.base", Kind.RECURRING, Timing.IN_ADVANCE, Flat(Decimal(200)))
CALLS = Rule("r3", "calls", Kind.USAGE, Timing.IN_ARREARS, PerUnit(Decimal("0.01")), "calls")
SEATS = Rule("r4", "seats", Kind.RECURRING, Timing.IN_ADVANCE, PerUnit(Decimal(30)))
SUPPORT = Rule("r5", "support", Kind.RECURRING, Timing.IN_ARREARS, Flat(Decimal(40)))


def term(name: str, start: datetime, end: datetime | None, *rules: Rule, quantity: int = 1, credit_unused: bool = True) -> Term:
    return Term(name, start, end, rules, Decimal(quantity), ANCHOR, credit_unused)


class Books:
    """What was billed so far; `run` bills what is due and tells it as {code: minor units}."""

    def __init__(self) -> None:
        self.billed: dict[LineKey, int] = {}

    def run(self, terms: list[Term], as_of: datetime, usage: Usage | None = None, since: datetime | None = None) -> dict[str, int]:
        items = due(owed(segments(terms, as_of=as_of, since=since), usage or {}, "EUR"), self.billed, since=since)
        for item in items:
            self.billed[item.key] = self.billed.get(item.key, 0) + item.minor
        return {item.rule.code if item.rule else item.key.rule_id: item.minor for item in items}


def test_usage_that_was_not_used_after_all_is_given_back_whatever_becomes_of_unused_time() -> None:
    books, june = Books(), ("calls", at(6, 1), at(7, 1))
    terms = [term("a", at(6, 1), None, CALLS, STARTER, credit_unused=False)]
    assert books.run(terms, at(7, 1), {june: Decimal(300)}) == {"calls": 300, "starter.base": 10000}
    assert books.run(terms, at(7, 2), {june: Decimal(100)}) == {"calls": -200}


def test_upgrade_in_the_middle_of_a_month_with_late_usage() -> None:
    books = Books()
    assert books.run([term("a", at(6, 1), None, STARTER, CALLS)], at(6, 1)) == {"starter.base": 10000}
    assert books.run([term("a", at(6, 1), None, STARTER, CALLS)], at(6, 1)) == {}
    changed = [term("a", at(6, 1), at(6, 16), STARTER, CALLS), term("b", at(6, 16), None, PRO, CALLS)]
    assert books.run(changed, at(6, 16)) == {"starter.base": -5000, "pro.base": 10000}
    june = ("calls", at(6, 1), at(7, 1))
    assert books.run(changed, at(7, 1), {june: Decimal(100)}) == {"calls": 100, "pro.base": 20000}
    assert books.run(changed, at(7, 3), {june: Decimal(200)}) == {"calls": 100}
    assert books.run(changed, at(7, 3), {june: Decimal(150)}) == {"calls": -50}


def test_prices_in_arrears_wait_for_the_end_of_the_cycle_and_zero_usage_is_shown_once() -> None:
    books = Books()
    terms = [term("a", at(6, 1), None, SUPPORT, CALLS)]
    assert books.run(terms, at(6, 30, 23)) == {}
    assert books.run(terms, at(7, 1)) == {"support": 4000, "calls": 0}
    assert books.run(terms, at(7, 1)) == {}


def test_a_trial_bills_nothing_and_the_rest_of_its_month_in_part() -> None:
    books = Books()
    terms = [term("trial", at(6, 1), at(6, 16)), term("paid", at(6, 16), None, STARTER)]
    assert books.run(terms, at(6, 10)) == {}
    assert books.run(terms, at(6, 16)) == {"starter.base": 5000}


def test_a_pause_is_a_gap_that_nothing_is_owed_for() -> None:
    books = Books()
    assert books.run([term("a", at(6, 1), None, STARTER)], at(6, 1)) == {"starter.base": 10000}
    paused = [term("a", at(6, 1), at(6, 7), STARTER), term("b", at(6, 22), None, STARTER)]
    assert books.run(paused, at(6, 22)) == {"starter.base": -5000}


def test_cancelling_gives_back_what_is_unused_unless_the_term_keeps_it() -> None:
    for keeps, expected in ((False, {"starter.base": -5000}), (True, {})):
        books = Books()
        books.run([term("a", at(6, 1), None, STARTER)], at(6, 1))
        ended = [term("a", at(6, 1), at(6, 16), STARTER, credit_unused=not keeps)]
        assert books.run(ended, at(6, 16)) == expected
        assert books.run(ended, at(9, 1)) == {}


def test_a_plan_change_at_the_very_start_of_a_cycle_gives_back_all_of_it() -> None:
    books = Books()
    books.run([term("a", at(6, 1), None, STARTER)], at(6, 1))
    changed = [term("b", at(6, 1), None, PRO)]
    assert books.run(changed, at(6, 1)) == {"pro.base": 20000, "r1": -10000}


def test_a_plan_tried_for_an_hour_leaves_no_line_when_days_are_billed() -> None:
    starter, pro = replace(STARTER, prorate=Proration.DAYS), replace(PRO, prorate=Proration.DAYS)
    books = Books()
    books.run([term("a", at(6, 1), None, starter)], at(6, 1))
    back = [term("a", at(6, 1), at(6, 9, 10), starter), term("b", at(6, 9, 10), at(6, 9, 11), pro), term("c", at(6, 9, 11), None, starter)]
    assert books.run(back, at(6, 9, 11)) == {}


def test_seats_added_in_the_middle_cost_their_part() -> None:
    books = Books()
    assert books.run([term("a", at(6, 1), None, SEATS, quantity=2)], at(6, 1)) == {"seats": 6000}
    more = [term("a", at(6, 1), at(6, 16), SEATS, quantity=2), term("b", at(6, 16), None, SEATS, quantity=5)]
    assert books.run(more, at(6, 16)) == {"seats": 4500}


def test_usage_is_priced_over_the_whole_cycle_when_seats_change_and_when_a_pause_cuts_it() -> None:
    tiers = (Tier(Decimal(10), Decimal(1)), Tier(None, Decimal("0.5")))
    calls = Rule("r9", "calls", Kind.USAGE, Timing.IN_ARREARS, Graduated(tiers), "calls")
    seats_changed = [term("a", at(6, 1), at(6, 16), calls, quantity=2), term("b", at(6, 16), None, calls, quantity=5)]
    assert Books().run(seats_changed, at(6, 20)) == {}
    assert Books().run(seats_changed, at(7, 1), {("calls", at(6, 1), at(7, 1)): Decimal(20)}) == {"calls": 1500}
    paused = [term("a", at(6, 1), at(6, 10), calls), term("b", at(6, 20), None, calls)]
    usage = {("calls", at(6, 1), at(6, 10)): Decimal(10), ("calls", at(6, 20), at(7, 1)): Decimal(10)}
    books = Books()
    assert books.run(paused, at(6, 10), usage) == {"calls": 1000}
    assert books.run(paused, at(7, 1), usage) == {"calls": 500}


def test_negative_usage_is_billed_as_nothing() -> None:
    assert Books().run([term("a", at(6, 1), None, CALLS)], at(7, 1), {("calls", at(6, 1), at(7, 1)): Decimal(-5)}) == {"calls": 0}


def test_without_proration_a_cycle_is_owed_once_and_whole() -> None:
    base = Rule("r1", "base", Kind.RECURRING, Timing.IN_ADVANCE, Flat(Decimal(100)), prorate=Proration.NONE)
    books = Books()
    assert books.run([term("a", at(6, 10), None, base)], at(6, 10)) == {"base": 10000}
    changed = [term("a", at(6, 10), at(6, 20), base), term("b", at(6, 20), None, base)]
    assert books.run(changed, at(6, 20)) == {}


def test_without_proration_a_pause_changes_nothing_in_its_cycle() -> None:
    base = Rule("r1", "base", Kind.RECURRING, Timing.IN_ADVANCE, Flat(Decimal(100)), prorate=Proration.NONE)
    paused = [term("a", at(6, 1), at(6, 10), base), term("b", at(6, 20), None, base)]
    books = Books()
    assert books.run(paused, at(6, 1)) == {"base": 10000}
    assert books.run(paused, at(6, 20)) == {}


def test_closed_cycles_are_left_alone() -> None:
    books = Books()
    terms = [term("a", at(6, 1), None, CALLS)]
    assert books.run(terms, at(7, 1), {("calls", at(6, 1), at(7, 1)): Decimal(100)}) == {"calls": 100}
    late = {("calls", at(6, 1), at(7, 1)): Decimal(900)}
    assert books.run(terms, at(7, 15), late, since=at(7, 1)) == {}
    assert books.run(terms, at(7, 15), late, since=at(6, 30)) == {"calls": 800}


def test_a_long_cycle_keeps_the_parts_of_terms_that_ended_long_ago() -> None:
    yearly = replace(ANCHOR, interval=Interval.YEAR)
    few = replace(term("a", at(6, 1), at(7, 1), SEATS, quantity=2), anchor=yearly)
    many = replace(term("b", at(7, 1), None, SEATS, quantity=5), anchor=yearly)
    books = Books()
    books.run([replace(few, end=None)], at(6, 1))
    books.run([few, many], at(7, 1))
    assert books.run([few, many], at(12, 1), since=at(10, 15)) == {}


def test_a_rule_without_credits_never_gives_back() -> None:
    billed = {LineKey("r1", at(6, 1)): 10000}
    now = owed(segments([term("a", at(6, 1), at(6, 16), STARTER)], as_of=at(6, 16)), {}, "EUR")
    assert due(now, billed, no_credit={"r1"}) == []
    assert due({}, billed, no_credit={"r1"}) == []
    assert [item.minor for item in due(now, billed)] == [-5000]


def test_the_running_cycle_shows_usage_so_far_and_recurring_prices_in_full() -> None:
    running = open_segments([term("a", at(6, 1), None, SUPPORT, CALLS)], as_of=at(7, 11))
    usage = {("calls", at(7, 1), at(7, 11)): Decimal(300)}
    assert {entry.rule.code: entry.minor for entry in owed(running, usage, "EUR").values()} == {"support": 4000, "calls": 300}


def test_a_line_tells_its_whole_derivation() -> None:
    entry = next(iter(owed(segments([term("a", at(6, 11), None, SEATS, quantity=3)], as_of=at(6, 11)), {}, "EUR").values()))
    detail = entry.detail()
    assert detail["rounded"] == "60.00"
    assert detail["exact"] == "60"
    part = detail["parts"][0]
    assert (part["price"], part["fraction"], part["amount"]) == ("90", "2/3", "60")
