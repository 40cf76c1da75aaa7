"""Prices of events, of prorated changes and of capacities."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.pricing.charge import explain_charge
from core.pricing.compound import CapacityTier, PaidEvents, Percentage, ProratedChange, capacity, graduated_prorated, percentage
from core.pricing.percentage import settled, summed
from core.pricing.price import price
from core.pricing.rules import Graduated, Tier
from core.pricing.usage import Events, merged

D = Decimal
TIERS = (Tier(D(5), D(10), D(100)), Tier(None, D(5), D(50)))


@pytest.mark.parametrize(
    ("model", "amounts", "expected"),
    [
        (Percentage(D("1.2"), D("0.10"), 3, D(500)), [200, 100, 100, 50], ("0.70", 50, 1)),
        (Percentage(D("1.2"), D("0.10"), None, D(250)), [200, 100, 50], ("1.40", 100, 2)),
        (Percentage(D(10), D(0), 2), [10, 10, 10], (1, 10, 1)),
        (Percentage(D(10)), [10, 10], (2, 20, 2)),
        (Percentage(D("2.99"), D(2), None, None, D("1.75"), D(12)), [10, 80, 10000], ("18.691", 10090, 3)),
        (Percentage(D(1), D(0), None, None, D("0.50")), [1], ("0.50", 1, 1)),
        (Percentage(D(10), D(1)), [], (0, 0, 0)),
        (Percentage(D(10), D(1), None, D(10)), [10, 0, 1], ("1.1", 1, 1)),
    ],
)
def test_a_percentage_is_charged_event_by_event(model: Percentage, amounts: list[int], expected: tuple) -> None:
    fee, paid_amount, paid_events = expected
    assert percentage(model, [D(amount) for amount in amounts]) == PaidEvents(D(fee), D(paid_amount), paid_events)


def test_changes_are_priced_in_the_tier_the_running_quantity_is_in() -> None:
    changes = [ProratedChange(D(4), D("2.8")), ProratedChange(D(2), D(1)), ProratedChange(D(-3), D("-0.6"))]
    assert graduated_prorated(TIERS, changes) == Fraction("180.5")
    assert graduated_prorated(TIERS, []) == 100
    assert graduated_prorated(TIERS, [ProratedChange(D(5), D(2)), ProratedChange(D(-100), D("-33.33"))]) == 0


@given(st.lists(st.decimals(0, 50, places=2), max_size=6))
def test_changes_that_count_in_full_cost_the_graduated_price(units: list[Decimal]) -> None:
    changes = [ProratedChange(unit, unit) for unit in units]
    assert graduated_prorated(TIERS, changes) == Fraction(price(Graduated(TIERS), sum(units, D(0))))


def test_capacity_takes_the_first_tier_that_holds_everything() -> None:
    tiers = [CapacityTier(D(10), {"seats": D(5), "projects": D(2)}), CapacityTier(D(30), {"seats": None, "projects": D(20)})]
    assert capacity(tiers, {"seats": D(5), "projects": D(2)}) == 10
    assert capacity(tiers, {"seats": D(6)}) == 30
    for too_much in ({"projects": D(21)}, {"unheard of": D(1)}):
        with pytest.raises(ValueError, match="no capacity tier"):
            capacity(tiers, too_much)


amounts = st.lists(st.decimals("0", "200", places=2), max_size=30)
maybe = st.one_of(st.none(), st.decimals("0", "300", places=1))
percentages = st.builds(
    lambda rate, fixed, free, allowance, bounds: Percentage(rate, fixed, free, allowance, *bounds),
    st.decimals("0", "9", places=2),
    st.sampled_from([D(0), D("0.3")]),
    st.one_of(st.none(), st.integers(0, 8)),
    maybe,
    st.sampled_from([(None, None), (D("0.5"), None), (None, D("1.5")), (D("0.5"), D("1.5"))]),
)


@given(percentages, amounts, amounts)
def test_what_is_kept_of_events_is_as_good_as_all_of_them(model: Percentage, first: list[Decimal], then: list[Decimal]) -> None:
    """Also when windows that were read apart are added up, and when what is left is stored."""
    whole = explain_charge(model, Events((*first, *then)))
    folded = []
    for part in (first, then):
        fold = model.fold()
        for amount in part:
            fold.add(amount)
        folded.append(fold.events())
    kept = merged(folded, Events(()))
    assert isinstance(kept, Events)
    assert explain_charge(model, kept) == whole
    assert explain_charge(model, settled(model, kept)) == whole
    if model.reads_sums:
        sums = [summed(model, len(part), sum(part, D(0))) for part in (first, then)]
        assert explain_charge(model, merged(sums, Events(()))) == whole
