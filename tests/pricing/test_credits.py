"""Which credits pay, and that none is spent twice."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from core.periods import Anchor, Interval
from core.pricing.credits import Balances, Lot, after_reset, balances, draw, draw_order

D = Decimal
START = datetime(2026, 1, 1, tzinfo=UTC)
END = START + timedelta(days=30)
amounts = st.decimals(0, 100, places=2)


def day(number: int) -> datetime:
    return START + timedelta(days=number)


def test_order_is_priority_then_granted_then_expiry_then_age() -> None:
    lots = [
        Lot("purchased", D(1)),
        Lot("granted", D(1)),
        Lot("soon", D(1), expires_at=day(9)),
        Lot("older", D(1), created_at=day(1)),
        Lot("newer", D(1), created_at=day(2)),
        Lot("first", D(1), priority=0),
    ]
    lots[0] = Lot("purchased", D(1), purchased=True, expires_at=day(1))
    assert [lot.id for lot in draw_order(lots)] == ["first", "soon", "granted", "older", "newer", "purchased"]


@given(st.lists(amounts, max_size=6), amounts)
def test_a_draw_takes_what_is_there_and_tells_the_rest(sizes: list[Decimal], amount: Decimal) -> None:
    lots = [Lot(str(i), size, priority=i % 2) for i, size in enumerate(sizes)]
    drawn = draw(lots, {lot.id: lot.amount for lot in lots}, amount)
    assert sum(drawn.taken.values()) + drawn.overage == amount
    assert drawn.overage == max(amount - sum(sizes), 0)
    assert all(0 < part <= sizes[int(lot_id)] for lot_id, part in drawn.taken.items())


@given(
    st.lists(st.tuples(amounts, st.integers(0, 29)), max_size=5),
    st.lists(st.tuples(st.integers(0, 29), amounts), max_size=8),
)
def test_over_time_credits_less_usage_is_what_is_left_less_overage(
    sizes: list[tuple[Decimal, int]], used: list[tuple[int, Decimal]]
) -> None:
    lots = [Lot(str(i), size, effective_at=day(effective)) for i, (size, effective) in enumerate(sizes)]
    found = balances(lots, [(day(n), amount) for n, amount in used], {}, start=START, until=END)
    assert all(balance >= 0 for balance in found.left.values())
    assert sum(found.left.values()) - found.overage == sum(size for size, _ in sizes) - sum(amount for _, amount in used)


def test_a_recurring_lot_is_filled_up_and_pays_what_was_over() -> None:
    daily = Lot("daily", D(100), recurrence=Anchor(Interval.DAY, 1, date(2026, 1, 1), "UTC"))
    usage = [(START + timedelta(hours=1), D(120))]
    assert balances([daily], usage, {}, start=START, until=START + timedelta(hours=23)) == Balances({"daily": D(0)}, D(20))
    assert balances([daily], usage, {}, start=START, until=START + timedelta(hours=25)) == Balances({"daily": D(80)}, D(0))
    assert balances([daily], usage, {}, start=START, until=day(2)) == Balances({"daily": D(100)}, D(0))


def test_an_expired_lot_pays_nothing_and_is_empty() -> None:
    short, late = Lot("short", D(10), expires_at=day(2)), Lot("late", D(10), effective_at=day(4))
    usage = [(day(1), D(4)), (day(3), D(5))]
    assert balances([short, late], usage, {}, start=START, until=day(3)) == Balances({"short": D(0), "late": D(0)}, D(0))
    assert balances([short, late], usage, {}, start=START, until=day(5)) == Balances({"short": D(0), "late": D(5)}, D(0))


def test_opening_balances_stand_in_for_the_amount() -> None:
    lots = [Lot("half", D(100))]
    assert balances(lots, [(day(1), D(10))], {"half": D(50)}, start=START, until=day(2)).left == {"half": D(40)}


def test_a_reset_rolls_over_within_bounds_and_pays_the_overage_if_kept() -> None:
    lots = [Lot("a", D(100)), Lot("b", D(100))]
    before = Balances({"a": D(80), "b": D(80)}, D(10))
    assert after_reset(before, {"a": (D(0), D(50))}, keep_overage=True, lots=lots) == Balances({"a": D(40), "b": D(0)}, D(0))
    assert after_reset(before, {"a": (D(90), D(95))}, keep_overage=False, lots=lots) == Balances({"a": D(90), "b": D(0)}, D(0))


def test_a_lot_that_becomes_effective_at_the_instant_of_usage_pays_for_it() -> None:
    lots = [Lot("old", D(100)), Lot("new", D(100), priority=0, effective_at=day(2))]
    assert balances(lots, [(day(2), D(20))], {}, start=START, until=day(3)).left == {"old": D(100), "new": D(80)}
