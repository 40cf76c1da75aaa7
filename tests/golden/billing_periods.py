"""Billing periods: a case's start, anchor and interval become an anchor; its questions are asked of the cycles."""

from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import count, islice, takewhile
from typing import Any

from core.periods import (
    Anchor,
    Interval,
    Period,
    add_interval,
    aligned_anchor,
    anniversary_anchor,
    calendar_anchor,
    cycle_containing,
    cycles,
    local_date,
    midnight,
)
from core.pricing.rules import Flat
from core.pricing.timeline import Kind, Rule, Segment, Term, Timing, segments
from tests.golden.compare import Prefix, Unsupported
from tests.golden.reading import at, hung, interval_of, only

SECOND = timedelta(seconds=1)
FOREVER = 40


def answer(given: Mapping[str, Any]) -> dict[str, object]:
    """Dates and periods as the calendar module gives them."""
    questions: dict[str, Callable[[Mapping[str, Any]], dict[str, object]]] = {
        "next_period_start": _next_period_start,
        "calendar_anchor": _calendar_anchor,
        "periods": _periods,
        "period_containing": _period_containing,
        "boundaries": _boundaries,
        "billed_periods": _billed_periods,
        "cycle_dates": _cycle_dates,
        "billing_run_boundaries": _billing_run,
        "usage_periods": _usage_periods,
        "whole_periods": _whole_periods,
        "whole_periods_billed": _whole_periods_billed,
        "anchor_day": lambda g: {"anchor_day": local_date(at(g["start"]), g.get("timezone") or "UTC").day},
        "align_in_month": lambda g: {"date": hung(g, "date").boundary(0)},
        "next_cycle_date": lambda g: {"date": next(_boundaries_from(hung(g, "date"), at(g["date"])))},
    }
    op = given.get("op")
    if op not in questions:
        raise Unsupported(f"no question {op}")
    return questions[op](given)


def _boundaries_from(anchor: Anchor, start: datetime) -> Iterator[datetime]:
    """Boundaries at or after an instant."""
    first = anchor.index(start)
    return (bound for bound in (anchor.boundary(first + n) for n in count()) if bound >= start)


def _next_period_start(given: Mapping[str, Any]) -> dict[str, object]:
    only(given, "op period_start interval interval_count timezone anchor_mode anchor subscription_start subscription_end")
    interval, n = interval_of(given)
    timezone = given.get("timezone") or "UTC"
    start = at(given["period_start"], timezone)
    if given.get("anchor_mode") == "calendar" or "anchor" not in given:
        following = calendar_anchor(interval, n, start, timezone).boundary(1)
    else:
        like = at(given["anchor"], timezone)
        anchor = aligned_anchor(interval, n, start, like, timezone)
        hung = anchor.boundary(0)
        later = local_date(hung, timezone) > local_date(start, timezone)
        if later and interval is Interval.YEAR:
            raise Unsupported(
                "disagrees: an anchor later in the same year makes a first period of more than a year there, a short one here"
            )
        following = hung if later else anchor.boundary(1)
    end = given.get("subscription_end")
    return {"next_period_start": min(following, at(end, timezone)) if end else following}


def _calendar_anchor(given: Mapping[str, Any]) -> dict[str, object]:
    only(given, "op start interval interval_count timezone week_start")
    if given.get("week_start", "monday") != "monday":
        raise Unsupported("weeks begin on Monday")
    interval, n = interval_of(given)
    return {"anchor": calendar_anchor(interval, n, at(given["start"]), given.get("timezone") or "UTC").boundary(1)}


def _anchor(given: Mapping[str, Any], start: datetime) -> Anchor:
    interval, n = interval_of(given)
    timezone = given.get("timezone") or "UTC"
    if given.get("anchor_mode") == "calendar":
        return calendar_anchor(interval, n, start, timezone)
    return anniversary_anchor(interval, n, at(given.get("anchor") or given.get("subscription_at") or given["start"], timezone), timezone)


def _periods(given: Mapping[str, Any]) -> dict[str, object]:
    """Periods of a subscription; the first begins with the local day of the start, its usage with the very instant."""
    only(given, "op start end interval interval_count timezone anchor_mode anchor billing_mode")
    timezone = given.get("timezone") or "UTC"
    start = at(given["start"], timezone)
    anchor = _anchor(given, start)
    opening = midnight(local_date(start, timezone), timezone)
    until = at(given["end"], timezone) if given.get("end") else anchor.boundary(anchor.index(start) + FOREVER)
    found = [Period(max(cycle.start, opening), min(cycle.end, until)) for cycle in cycles(anchor, start, until)]
    return {
        "period_count": len(found),
        "period_ends": Prefix(period.end for period in found),
        "periods": Prefix({"start": period.start, "end": period.end} for period in found),
        "periods_inclusive": Prefix({"start": period.start, "end": period.end - SECOND} for period in found),
        "usage_starts": Prefix(max(period.start, start) for period in found),
    }


def _period_containing(given: Mapping[str, Any]) -> dict[str, object]:
    only(given, "op at interval interval_count timezone anchor_mode anchor")
    cycle = cycle_containing(_anchor(given, at(given["anchor"])), at(given["at"]))
    return {"period_start": cycle.start, "period_end": cycle.end}


def _boundaries(given: Mapping[str, Any]) -> dict[str, object]:
    only(given, "op start interval interval_count timezone anchor_day count")
    return {"boundaries": list(islice(_boundaries_from(hung(given), at(given["start"])), int(given["count"])))}


BILLED = "op start end as_of interval interval_count anchor_day billing_mode timezone"


def _billed_periods(given: Mapping[str, Any]) -> dict[str, object]:
    only(given, BILLED)
    windows = [segment.window for segment in _billed(given, Kind.RECURRING)]
    return {"periods": [{"start": window.start, "end": window.end} for window in windows]}


def _usage_periods(given: Mapping[str, Any]) -> dict[str, object]:
    """The windows of usage that have ended: usage is billed in arrears, whatever the fee is."""
    only(given, BILLED)
    windows = [segment.window for segment in _billed({**given, "billing_mode": "in_arrears"}, Kind.USAGE)]
    bounds = [windows[0].start, *(window.end for window in windows)] if windows else []
    return {
        "periods": [{"start": window.start, "end": window.end} for window in windows],
        "periods_inclusive": [{"start": window.start, "end": window.end - SECOND} for window in windows],
        "period_count": len(windows),
        "count": len(windows),
        "boundaries": bounds,
    }


def _whole_periods_billed(given: Mapping[str, Any]) -> dict[str, object]:
    """How many of the billed periods are whole cycles."""
    only(given, BILLED)
    given = {"billing_mode": "in_advance", "as_of": given.get("end"), **given}
    whole = sum(segment.fraction == 1 for segment in _billed(given, Kind.RECURRING))
    return {"count": whole, "whole_periods": whole}


def _billed(given: Mapping[str, Any], kind: Kind) -> list[Segment]:
    metric = "metric" if kind is Kind.USAGE else None
    rule = Rule("price", "price", kind, Timing(given["billing_mode"]), Flat(Decimal(1)), metric)
    term = Term("term", at(given["start"]), at(given["end"]) if given.get("end") else None, (rule,), Decimal(1), hung(given))
    return segments([term], as_of=at(given["as_of"]))


def _cycle_dates(given: Mapping[str, Any]) -> dict[str, object]:
    """The first boundary on or after the start, and how far a run at `as_of` bills."""
    only(given, "op start end as_of interval interval_count anchor_day billing_mode timezone")
    anchor, start = hung(given), at(given["start"])
    out: dict[str, object] = {"first_cycle_date": next(_boundaries_from(anchor, start))}
    if given.get("as_of") in (None, "any"):
        return out
    as_of, end = at(given["as_of"]), at(given["end"]) if given.get("end") else None
    passed = list(takewhile(lambda bound: bound <= as_of, _boundaries_from(anchor, start)))
    ended = end is not None and end <= as_of
    if given["billing_mode"] == "in_advance":
        through = next(bound for bound in _boundaries_from(anchor, start) if bound > as_of)
        through = min(through, end) if end else through
        something = start <= as_of
    else:
        bounds = [bound for bound in passed if end is None or bound <= end] + ([end] if ended and end else [])
        through = max(bounds, default=start)
        something = bool(bounds)
    reached = list(takewhile(lambda bound: bound <= through, _boundaries_from(anchor, start)))
    following = next(bound for bound in _boundaries_from(anchor, start) if bound > through)
    out |= {"something_to_bill": something, "billed_through": through, "next_cycle_date": following}
    return out | {"last_cycle_date": reached[-1]} if reached else out


def _billing_run(given: Mapping[str, Any]) -> dict[str, object]:
    """The period a run bills: the running cycle in advance or when the subscription has ended, else the one before."""
    only(given, "op interval interval_count anchor_mode subscription_at started_at billing_at timezone billing_mode terminated_at")
    timezone = given.get("timezone") or "UTC"
    billing, started = at(given["billing_at"]), at(given["started_at"])
    anchor = _anchor(given, billing)
    n = anchor.index(billing)
    running, before = anchor.cycle(n), anchor.cycle(n - 1)
    opening = midnight(local_date(started, timezone), timezone)
    ended = at(given["terminated_at"]) if given.get("terminated_at") else None
    in_advance = given["billing_mode"] == "in_advance"
    billed = running if in_advance or ended else before
    usage = running if ended else before
    return {
        "period_start": max(billed.start, opening),
        "period_end_inclusive": (min(billed.end, ended + SECOND) if ended else billed.end) - SECOND,
        "usage_start": max(usage.start, started),
        "usage_end_inclusive": (min(usage.end, ended + SECOND) if ended else usage.end) - SECOND,
        "next_end_of_period_inclusive": running.end - SECOND,
        "previous_period_start": before.start,
        "current_period_start": running.start,
    }


def _whole_periods(given: Mapping[str, Any]) -> dict[str, object]:
    only(given, "op start end interval interval_count timezone")
    interval, n = interval_of(given)
    start, end = date.fromisoformat(given["start"][:10]), date.fromisoformat(given["end"][:10])
    return {"count": sum(1 for _ in takewhile(lambda k: add_interval(start, interval, n * k) <= end, count(1)))}
