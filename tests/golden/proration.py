"""Proration: a case's periods and instants become windows; shares, timelines and roundings are the kernel's."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

from core.money import round_half_up, to_decimal
from core.periods import Anchor, Interval, Period, add_interval, anniversary_anchor, calendar_anchor, cycle_containing, local_date, midnight
from core.pricing.modifiers import Rounding, capped_credit, round_quantity
from core.pricing.proration import Proration, length, share
from core.pricing.rules import Flat
from core.pricing.tax import tax_minor
from core.pricing.timeline import Kind, Rule, Term, Timing, current_cycle, segments
from tests.golden.compare import Unsupported
from tests.golden.reading import at, decimal, hung, interval_of, only

DAY, SECOND = timedelta(days=1), timedelta(seconds=1)
REST = "op currency period_start period_end period_end_inclusive interval at timezone day_count amount_paid previous_credits"
POLICIES = {
    "seconds": Proration.SECONDS,
    "actual": Proration.DAYS,
    "actual_days_inclusive": Proration.DAYS,  # the cases name the last day of a period; `_period` makes its end exclusive
    "fixed_30": Proration.FIXED_30,
    "fixed_28": Proration.FIXED_28,
}


def answer(given: Mapping[str, Any]) -> dict[str, object]:
    """Shares of periods and the money they make."""
    questions: dict[str, Callable[[Mapping[str, Any]], dict[str, object]]] = {
        "billed_cycles": _billed_cycles,
        "fraction": _fraction,
        "days": _days,
        "change": _change,
        "change_by_days": _change_by_days,
        "remaining": _remaining,
        "cap_credit": _cap_credit,
        "cancel": _cancel,
        "fee_for_days": _fee_for_days,
        "terminate_fee": _terminate_fee,
        "create_and_terminate": _create_and_terminate,
        "fee_after_trial": _fee_after_trial,
        "credit_on_upgrade": _credit_on_upgrade,
        "change_then_renew": _change_then_renew,
    }
    op = given.get("op")
    if op not in questions:
        raise Unsupported(f"no question {op}")
    return questions[op](given)


def _policy(given: Mapping[str, Any], default: str = "actual") -> Proration:
    name = given.get("day_count", default)
    if name not in POLICIES:
        raise Unsupported(f"day count {name}")
    return POLICIES[name]


def _money(amount: Decimal | Fraction, given: Mapping[str, Any]) -> Decimal:
    currency = given.get("currency", "USD")
    return to_decimal(round_half_up(amount, currency), currency)


def _period(given: Mapping[str, Any]) -> Period:
    """The case's period with an exclusive end; without one, an interval from its start."""
    timezone = given.get("timezone") or "UTC"
    start = at(given["period_start"], timezone)
    if "period_end_inclusive" in given:
        last = str(given["period_end_inclusive"])
        return Period(start, at(last, timezone) + (DAY if len(last) == 10 else SECOND))
    if "period_end" in given:
        return Period(start, at(given["period_end"], timezone))
    interval = Interval(given.get("old_interval") or given.get("interval") or "month")
    return cycle_containing(anniversary_anchor(interval, 1, start, timezone), start)


def _rest(given: Mapping[str, Any]) -> Fraction:
    """Share of the period from `at` on."""
    period, timezone = _period(given), given.get("timezone") or "UTC"
    moment = min(max(at(given["at"], timezone), period.start), period.end)
    return share(Period(moment, period.end), period, _policy(given), timezone)


def _billed_cycles(given: Mapping[str, Any]) -> dict[str, object]:
    only(given, "op start end as_of anchor_day interval interval_count billing_mode timezone day_count")
    start, as_of = at(given["start"]), at(given["as_of"])
    end = at(given["end"]) if given.get("end") else None
    rule = Rule("price", "price", Kind.RECURRING, Timing(given["billing_mode"]), Flat(Decimal(1)), prorate=_policy(given))
    terms = [Term("term", start, end, (rule,), Decimal(1), hung(given))]
    if as_of < start and current_cycle(terms, as_of=as_of) is None:
        return {"error": "not running"}  # a run bills nothing then; a question about such a time is refused
    found = segments(terms, as_of=as_of)
    cycles = sum((segment.fraction for segment in found), Fraction(0))
    return {"cycles": round_quantity(cycles, Rounding.HALF_UP, 9), "cycles_expression": cycles}


def _fraction(given: Mapping[str, Any]) -> dict[str, object]:
    only(given, "op start end interval interval_count day_count timezone")
    timezone = given.get("timezone") or "UTC"
    interval, count = interval_of(given)
    window = Period(at(given["start"], timezone), at(given["end"], timezone))
    cycle = Anchor(interval, count, local_date(window.start, timezone), timezone).cycle(0)
    policy = _policy(given)
    part = share(window, cycle, policy, timezone)
    return {"fraction": round_quantity(part, Rounding.HALF_UP, 9), "days": length(window, policy, timezone)}


def _days(given: Mapping[str, Any]) -> dict[str, object]:
    only(given, "op start end day_count timezone")
    timezone = given.get("timezone") or "UTC"
    return {"days": length(Period(at(given["start"], timezone), at(given["end"], timezone)), _policy(given), timezone)}


def _change(given: Mapping[str, Any]) -> dict[str, object]:
    only(
        given,
        "op action currency period_start period_end period_end_inclusive at timezone day_count old_price old_quantity "
        "new_price new_quantity amount_paid previous_credits old_interval new_interval interval_change old_discount "
        "new_discount proration_behavior interval",
    )
    behavior = given.get("proration_behavior", "prorate")
    old, new = _side(given, "old"), _side(given, "new")
    if behavior in ("none", "no_proration"):  # what was paid stays, the new price begins with the next period
        return _netted(Decimal(0), Decimal(0)) | {"new_period_start": _period(given).start}
    if behavior == "reset":
        return _netted(Decimal(0), _money(new, given)) | {"new_period_start": at(given["at"])}
    if behavior not in ("prorate", "invoice", "next_period", "create_prorations", "always_invoice"):  # they differ in when it is invoiced
        raise Unsupported(f"proration behavior {behavior}")
    rest = _rest(given)
    restarts = given.get("interval_change") == "resets_cycle" and given.get("old_interval") != given.get("new_interval")
    credit = _money(old * rest, given)
    if "amount_paid" in given:
        credit = capped_credit(credit, decimal(given["amount_paid"]), decimal(given.get("previous_credits") or 0))
    starts = at(given["at"]) if restarts else _period(given).start
    return _netted(-credit, _money(new if restarts else new * rest, given)) | {"new_period_start": starts}


def _side(given: Mapping[str, Any], side: str) -> Fraction:
    amount = Fraction(decimal(given.get(f"{side}_price") or 0)) * Fraction(decimal(given.get(f"{side}_quantity") or 1))
    discount = given.get(f"{side}_discount")
    if not discount:
        return amount
    if discount["type"] == "percent":
        return amount * (100 - Fraction(decimal(discount["value"]))) / 100
    return max(amount - Fraction(decimal(discount["value"])), Fraction(0))


def _netted(credit: Decimal, charge: Decimal) -> dict[str, object]:
    """Each side was rounded; the net is their sum."""
    return {"credit_rounded": credit, "charge_rounded": charge, "net_rounded": credit + charge}


def _change_by_days(given: Mapping[str, Any]) -> dict[str, object]:
    only(given, "op interval old_price new_price days_used days_total currency")
    rest = 1 - Fraction(int(given["days_used"]), int(given["days_total"]))
    return _netted(-_money(decimal_times(given["old_price"], rest), given), _money(decimal_times(given["new_price"], rest), given))


def decimal_times(amount: object, part: Fraction) -> Fraction:
    """A case's amount times a share, exact."""
    return Fraction(decimal(amount)) * part


def _remaining(given: Mapping[str, Any]) -> dict[str, object]:
    only(given, f"{REST} amount decimals")
    rest = _rest(given)
    exact = decimal_times(given["amount"], rest)
    amount = round_quantity(exact, Rounding.HALF_UP, int(given["decimals"])) if "decimals" in given else exact
    out: dict[str, object] = {"amount": amount, "fraction": rest, "amount_rounded": _money(exact, given)}
    if "amount_paid" in given:
        out["credit_rounded"] = capped_credit(
            _money(exact, given), decimal(given["amount_paid"]), decimal(given.get("previous_credits") or 0)
        )
    return out


def _cap_credit(given: Mapping[str, Any]) -> dict[str, object]:
    only(given, "op potential_credit amount_paid previous_credits currency")
    paid, before = decimal(given["amount_paid"]), decimal(given.get("previous_credits", 0))
    return {"credit": capped_credit(decimal(given["potential_credit"]), paid, before)}


def _cancel(given: Mapping[str, Any]) -> dict[str, object]:
    only(given, f"{REST} price quantity")
    exact = decimal_times(given["price"], _rest(given)) * Fraction(decimal(given.get("quantity", 1)))
    credit = _money(exact, given)
    if "amount_paid" in given:
        credit = capped_credit(credit, decimal(given["amount_paid"]), decimal(given.get("previous_credits", 0)))
    return {"net_rounded": -credit, "credit_rounded": -credit}


def _cycle(given: Mapping[str, Any], moment: datetime) -> Period:
    """The nominal cycle around an instant: calendar, or anniversaries of the subscription."""
    interval, count = interval_of(given)
    timezone = given.get("timezone") or "UTC"
    if given.get("anchor_mode", "calendar") == "calendar":
        return cycle_containing(calendar_anchor(interval, count, moment, timezone), moment)
    since = at(given.get("subscription_at") or given.get("started_at") or given["from"], timezone)
    return cycle_containing(anniversary_anchor(interval, count, since, timezone), moment)


def _local_days(given: Mapping[str, Any], first: datetime, last: datetime) -> Period:
    """The local days from that of `first` to that of `last`, both whole."""
    timezone = given.get("timezone") or "UTC"
    following = add_interval(local_date(last, timezone), Interval.DAY, 1)
    return Period(midnight(local_date(first, timezone), timezone), midnight(following, timezone))


def _part_of_cycle(given: Mapping[str, Any], window: Period) -> Fraction:
    """Share of the cycle in which the window lies, in local days."""
    cycle = _cycle(given, window.start)
    inside = window.overlap(cycle)
    return share(inside, cycle, Proration.DAYS, given.get("timezone") or "UTC") if inside else Fraction(0)


def _fee_for_days(given: Mapping[str, Any]) -> dict[str, object]:
    only(given, "op currency price day_count interval interval_count from to_inclusive anchor_mode subscription_at timezone")
    window = _local_days(
        given, at(given["from"], given.get("timezone") or "UTC"), at(given["to_inclusive"], given.get("timezone") or "UTC")
    )
    exact = decimal_times(given["price"], _part_of_cycle(given, window))
    currency = given.get("currency", "USD")
    minor = round_half_up(exact, currency)
    return {
        "amount": to_decimal(minor, currency),
        "amount_minor": minor,
        "amount_minor_precise": exact / Fraction(to_decimal(1, currency)),
    }


def _terminate_fee(given: Mapping[str, Any]) -> dict[str, object]:
    """Billed in arrears: the days of the last cycle up to that of the termination, which is billed."""
    only(given, "op currency price interval interval_count anchor_mode subscription_at started_at terminated_at timezone billing_mode")
    timezone = given.get("timezone") or "UTC"
    ended = at(given["terminated_at"], timezone)
    cycle = _cycle(given, ended)
    window = _local_days(given, max(at(given["started_at"], timezone), cycle.start), ended)
    return {"amount": _money(decimal_times(given["price"], _part_of_cycle(given, window)), given)}


def _create_and_terminate(given: Mapping[str, Any]) -> dict[str, object]:
    """Paid in advance from the first day; credited for the days after that of the termination. Tax on each rounded amount."""
    only(
        given,
        "op currency price tax_percent interval interval_count anchor_mode billing_mode started_at terminated_at timezone subscription_at",
    )
    currency = given.get("currency", "USD")
    started, ended = at(given["started_at"]), at(given["terminated_at"])
    cycle = _cycle(given, started)
    last_day = cycle.end - SECOND
    billed = _part_of_cycle(given, _local_days(given, started, last_day))
    kept = _part_of_cycle(given, _local_days(given, started, ended))
    rate = decimal(given["tax_percent"])
    invoice = round_half_up(decimal_times(given["price"], billed), currency)
    credit = round_half_up(decimal_times(given["price"], billed - kept), currency)
    tax = tax_minor(credit, rate, currency)
    return {
        "invoice_total": to_decimal(invoice + tax_minor(invoice, rate, currency), currency),
        "credit_note_subtotal": to_decimal(credit, currency),
        "credit_note_tax": to_decimal(tax, currency),
        "credit_note_total": to_decimal(credit + tax, currency),
    }


def _fee_after_trial(given: Mapping[str, Any]) -> dict[str, object]:
    """The trial ends on a local day; from that day the rest of its cycle is billed."""
    only(given, "op currency price interval interval_count anchor_mode billing_mode started_at trial_days timezone subscription_at")
    timezone = given.get("timezone") or "UTC"
    first = midnight(add_interval(local_date(at(given["started_at"]), timezone), Interval.DAY, int(given["trial_days"])), timezone)
    window = _local_days(given, first, _cycle(given, first).end - SECOND)
    return {"amount": _money(decimal_times(given["price"], _part_of_cycle(given, window)), given)}


def _credit_on_upgrade(given: Mapping[str, Any]) -> dict[str, object]:
    """Paid in advance; the day of the change belongs to the new plan, so that day and the rest of the cycle are credited."""
    only(
        given,
        "op currency price old_price interval interval_count anchor_mode billing_mode subscription_at started_at at upgraded_at "
        "terminated_at timezone",
    )
    timezone = given.get("timezone") or "UTC"
    moment = at(next(given[key] for key in ("at", "upgraded_at", "terminated_at") if given.get(key)), timezone)
    window = _local_days(given, moment, _cycle(given, moment).end - SECOND)
    price = given["price"] if "price" in given else given["old_price"]
    return {"credit": _money(decimal_times(price, _part_of_cycle(given, window)), given)}


def _change_then_renew(given: Mapping[str, Any]) -> dict[str, object]:
    only(given, "op old_price new_price interval period_start at_fraction_remaining currency")
    rest = Fraction(decimal(given["at_fraction_remaining"]))
    net = _money(decimal_times(given["new_price"], rest), given) - _money(decimal_times(given["old_price"], rest), given)
    return {"proration_net": net, "next_invoice_total": decimal(given["new_price"]) + net}
