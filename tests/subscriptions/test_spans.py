"""What each change makes of a timeline: pure, no database."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.catalog.models import PlanVersion
from core.db import new_id
from core.subscriptions import spans as timelines
from core.subscriptions.models import AnchorMode
from core.subscriptions.spans import Span

BERLIN = "Europe/Berlin"
ONE = Decimal(1)


def version(period: str = "month", count: int = 1) -> PlanVersion:
    return PlanVersion(id=new_id(), billing_period=period, interval_count=count)


def berlin(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=ZoneInfo(BERLIN)).astimezone(UTC)


def opening(
    start: datetime, *, plan: PlanVersion | None = None, mode: AnchorMode = AnchorMode.ANNIVERSARY, trial: int = 0
) -> tuple[Span, ...]:
    return timelines.opening(plan or version(), start=start, timezone=BERLIN, mode=mode, quantity=ONE, trial_days=trial)


def shape(spans: tuple[Span, ...]) -> list[tuple[datetime, datetime | None, bool]]:
    return [(span.start, span.end, span.is_trial) for span in spans]


def test_it_begins_with_the_local_day() -> None:
    (span,) = opening(datetime(2026, 6, 15, 22, 30, tzinfo=UTC))  # 00:30 on the 16th in Berlin
    assert (span.start, span.end) == (berlin(2026, 6, 16), None)
    assert span.anchor.cycle(0).start == span.start


def test_calendar_cycles_hang_on_the_first() -> None:
    (span,) = opening(berlin(2023, 11, 1, 1), mode=AnchorMode.CALENDAR)
    assert span.start == berlin(2023, 11, 1)
    assert (span.anchor.cycle(0).start, span.anchor.cycle(0).end) == (berlin(2023, 11, 1), berlin(2023, 12, 1))


def test_a_trial_covers_its_local_days_across_a_clock_change() -> None:
    trial, paid = opening(berlin(2026, 3, 20, 9), trial=14)
    assert shape((trial, paid)) == [(berlin(2026, 3, 20), berlin(2026, 4, 3), True), (berlin(2026, 4, 3), None, False)]
    assert paid.anchor.cycle(0).start == paid.start


def test_ending_cuts_the_running_term_and_drops_later_ones() -> None:
    spans = timelines.changed(
        opening(berlin(2026, 1, 1)), version=version(), quantity=ONE, at=berlin(2026, 3, 1), mode=AnchorMode.ANNIVERSARY
    )
    assert shape(timelines.ended(spans, berlin(2026, 2, 10))) == [(berlin(2026, 1, 1), berlin(2026, 2, 10), False)]
    assert timelines.ended(spans, berlin(2026, 1, 1)) == ()


def test_undoing_an_end_in_a_trial_brings_the_paid_term_back() -> None:
    spans = opening(berlin(2026, 1, 1), trial=10)
    ended = timelines.ended(spans, berlin(2026, 1, 11))
    assert len(ended) == 1
    assert shape(timelines.reopened(ended, AnchorMode.ANNIVERSARY)) == shape(spans)


def test_the_same_period_keeps_the_cycles_and_another_begins_them_anew() -> None:
    spans, at = opening(berlin(2026, 1, 31)), berlin(2026, 3, 10, 15)
    same = timelines.changed(spans, version=version("month"), quantity=ONE, at=at, mode=AnchorMode.ANNIVERSARY)[-1]
    assert same.anchor == spans[0].anchor
    yearly = timelines.changed(spans, version=version("year"), quantity=ONE, at=at, mode=AnchorMode.ANNIVERSARY)[-1]
    assert yearly.anchor.cycle(0).start == berlin(2026, 3, 10)


def test_a_change_in_a_trial_keeps_the_trial() -> None:
    plan = version()
    spans = timelines.changed(
        opening(berlin(2026, 1, 1), trial=10), version=plan, quantity=ONE, at=berlin(2026, 1, 4, 12), mode=AnchorMode.ANNIVERSARY
    )
    assert shape(spans) == [
        (berlin(2026, 1, 1), berlin(2026, 1, 4, 12), True),
        (berlin(2026, 1, 4, 12), berlin(2026, 1, 11), True),
        (berlin(2026, 1, 11), None, False),
    ]
    assert [span.version is plan for span in spans] == [False, True, True]


def test_a_planned_change_is_seen_and_undone() -> None:
    spans = opening(berlin(2026, 1, 1))
    assert timelines.scheduled(spans, berlin(2026, 1, 5)) is None
    planned = timelines.changed(spans, version=version(), quantity=ONE, at=berlin(2026, 2, 1), mode=AnchorMode.ANNIVERSARY)
    change = timelines.scheduled(planned, berlin(2026, 1, 5))
    assert change is not None
    assert change.start == berlin(2026, 2, 1)
    assert timelines.unscheduled(planned, berlin(2026, 1, 5), AnchorMode.ANNIVERSARY) == spans


def test_the_end_of_a_trial_is_no_planned_change() -> None:
    assert timelines.scheduled(opening(berlin(2026, 1, 1), trial=10), berlin(2026, 1, 5)) is None


def test_a_pause_leaves_a_gap_and_the_cycles_go_on() -> None:
    spans = opening(berlin(2026, 1, 1))
    resumed = timelines.resumed(timelines.ended(spans, berlin(2026, 1, 10)), berlin(2026, 2, 20), AnchorMode.ANNIVERSARY)
    assert shape(resumed) == [(berlin(2026, 1, 1), berlin(2026, 1, 10), False), (berlin(2026, 2, 20), None, False)]
    assert resumed[1].anchor == spans[0].anchor


CHANGES = st.lists(
    st.tuples(st.sampled_from(["change", "end", "reopen", "undo", "quantity"]), st.integers(1, 400), st.integers(0, 86399)), max_size=12
)


@settings(max_examples=200)
@given(changes=CHANGES, trial=st.integers(0, 40), period=st.sampled_from(["month", "year", "week"]), mode=st.sampled_from(AnchorMode))
def test_whatever_happens_terms_stay_in_order_and_apart(
    changes: list[tuple[str, int, int]], trial: int, period: str, mode: AnchorMode
) -> None:
    spans = opening(berlin(2026, 1, 1), trial=trial, mode=mode, plan=version(period))
    versions = [version("month"), version("year"), version("month", 2)]
    for kind, day, second in changes:
        at = datetime.fromtimestamp(spans[0].start.timestamp() + day * 86400 + second, UTC)
        if kind == "end":
            spans = timelines.ended(spans, at)
        elif kind == "reopen":
            spans = timelines.reopened(spans, mode)
        elif kind == "undo":
            spans = timelines.unscheduled(spans, at, mode)
        elif any(span.contains(at) for span in spans):
            quantity = Decimal(day) if kind == "quantity" else ONE
            spans = timelines.changed(spans, version=versions[day % 3], quantity=quantity, at=at, mode=mode)
        for before, after in pairwise(spans):
            assert before.end == after.start
        assert all(span.end is None or span.end > span.start for span in spans)
        assert not any(span.is_trial for span in spans[1:]) or spans[0].is_trial


@pytest.mark.parametrize("zone", ["Pacific/Auckland", "America/St_Johns", "Asia/Kolkata"])
def test_the_first_anniversary_period_is_whole_anywhere(zone: str) -> None:
    (span,) = timelines.opening(
        version(), start=datetime(2026, 4, 4, 17, 45, tzinfo=UTC), timezone=zone, mode=AnchorMode.ANNIVERSARY, quantity=ONE, trial_days=0
    )
    assert span.anchor.cycle(span.anchor.index(span.start)).start == span.start
