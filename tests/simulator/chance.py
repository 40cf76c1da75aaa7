"""What chance decides in a simulated life: price lists, and what the customer does next. One seed, one life."""

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from core.pricing.rules import parse_model
from tests.simulator.held import DIGITS, Beside, Plan, Price, Refused
from tests.simulator.model import Life

ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "Pacific/Auckland", "Asia/Kolkata", "Australia/Lord_Howe", "America/Havana",
    "Africa/Casablanca", "Asia/Tokyo", "Pacific/Chatham",
)  # fmt: skip
METRICS = ("calls", "storage")
LATE_DAYS_MAX = 35
CONDITIONS = ("licensed", "included", "billing_period", "billing_mode", "covers", "overage_factor")
OWN_CYCLES: dict[tuple[str, int], tuple[str | None, ...]] = {
    ("month", 1): (None, None, "quarter", "year"), ("quarter", 1): (None, "month", "year"), ("year", 1): (None, "month", "quarter"),
}  # fmt: skip
"""Intervals that prices of their own cycle may have, by the plan's."""

Step = tuple[Any, ...]
"""What is done, then with what."""


def money(rng: random.Random, currency: str, most: int = 500) -> str:
    """A price that the currency can express, often 0."""
    digits = DIGITS[currency]
    return f"{Decimal(rng.choice((0, rng.randrange(most * 10**digits)))).scaleb(-digits):f}"


def unit_price(rng: random.Random) -> str:
    """A price of one unit, with up to six decimals."""
    return f"{Decimal(rng.randrange(1, 10 ** rng.randint(1, 6))).scaleb(-6):f}"


def tiers(rng: random.Random, currency: str) -> list[dict[str, object]]:
    """Up to four tiers, the last one open."""
    bounds: Sequence[int | None] = [*sorted(rng.sample(range(1, 5000), rng.randint(0, 3))), None]
    return [{"up_to": None if b is None else str(b), "unit_price": unit_price(rng), "flat_fee": money(rng, currency, 20)} for b in bounds]


def model(rng: random.Random, currency: str) -> dict[str, object]:
    """A price model as the API takes it."""
    match rng.randrange(5):
        case 0:
            return {"model": "per_unit", "unit_price": unit_price(rng)}
        case 1:
            return {"model": "graduated", "tiers": tiers(rng, currency)}
        case 2:
            return {"model": "volume", "tiers": tiers(rng, currency)}
        case 3:
            return {"model": "stairstep", "tiers": [{**tier, "unit_price": "0"} for tier in tiers(rng, currency)]}
        case _:
            free = str(rng.choice((0, 100)))
            size, price = str(rng.choice((1, 10, 250))), money(rng, currency, 9)
            return {"model": "package", "package_size": size, "package_price": price, "free_units": free}


def document(rng: random.Random, code: str, currency: str) -> dict[str, Any]:
    """A plan as the API takes it; its prices name metrics by METRICS."""
    metered = rng.sample(METRICS, rng.randint(0, len(METRICS)))
    return {
        "code": code,
        "name": code,
        "currency": currency,
        "billing_period": rng.choices(("month", "week", "quarter", "year"), (6, 2, 1, 1))[0],
        "interval_count": rng.choice((1, 1, 1, 2)),
        "base_price": money(rng, currency),
        "billing_mode": rng.choice(("in_advance", "in_advance", "in_arrears")),
        "proration": rng.choice(("seconds", "days", "none")),
        "credit_policy": rng.choice(("credit", "credit", "credit", "none")),
        "prices": [{"metric": metric, **model(rng, currency)} for metric in metered],
    }


def with_conditions(rng: random.Random, document: dict[str, Any]) -> dict[str, Any]:
    """The plan with what plans say beside their prices: seats, included units, cycles of a price's own, discounts, a commitment."""
    currency, period = document["currency"], document["billing_period"]
    own = OWN_CYCLES.get((period, document["interval_count"]), (None,))
    prices = [{**price, "included": str(rng.choice((0, 0, 50, 300)))} for price in document["prices"]]
    if rng.random() < 0.5:
        mode = rng.choice(("in_advance", "in_arrears"))
        prices.insert(0, {"licensed": "seats", "billing_mode": mode, **model(rng, currency), "billing_period": rng.choice(own)})
    for price in prices:
        if "metric" in price:
            price["licensed"] = rng.choice(("seats", None)) if "licensed" in prices[0] and prices[0]["licensed"] == "seats" else None
            price["billing_period"] = rng.choice(own)
    if rng.random() < 0.3:
        prices.append({"code": "loyal", "model": "discount", **off(rng, currency), "covers": rng.choice((None, ["base"]))})
    if rng.random() < 0.2:
        prices.append({"code": "second", "model": "discount", **off(rng, currency)})
    if rng.random() < 0.3:
        mode, factor = rng.choice(("in_advance", "in_arrears")), rng.choice(("1", "1.5"))
        period = rng.choice(own) if document["credit_policy"] != "none" else None
        amount = {"amount": money(rng, currency, 900), "overage_factor": factor}
        prices.append({"code": "minimum", "model": "commitment", **amount, "billing_mode": mode, "billing_period": period})
    return {**document, "prices": prices}


def off(rng: random.Random, currency: str) -> dict[str, object]:
    """What a discount takes off."""
    tiered = [{"up_to": "100", "percent_off": "5"}, {"up_to": None, "percent_off": "12.5"}]
    return rng.choice(({"percent_off": str(rng.randint(1, 100))}, {"amount_off": money(rng, currency, 60)}, {"tiers": tiered}))


def add_on(rng: random.Random, code: str, currency: str) -> dict[str, Any]:
    """An add-on as the API takes it."""
    made = document(rng, code, currency)
    made |= {"billing_period": rng.choice(("month", "month", "week", "year")), "interval_count": 1, "prices": []}
    return {**made, "kind": "add_on"}


def coupon(rng: random.Random, code: str, currency: str) -> dict[str, Any]:
    """A coupon as the API takes it."""
    prices = [{"code": "off", "model": "discount", **off(rng, currency)}]
    given = {"billing_period": "month", "base_price": "0", "prices": prices, "duration_cycles": rng.choice((1, 2, 3, None))}
    return {"code": code, "name": code, "currency": currency, "kind": "coupon", **given}


def sold_in(rng: random.Random, document: dict[str, Any], currency: str) -> dict[str, Any]:
    """The plan with prices in a second currency too: the same prices for other amounts."""
    prices = [_repriced(rng, price, currency) for price in document["prices"]]
    base = money(rng, currency) if Decimal(document["base_price"]) else "0"
    if not Decimal(base) and not prices:
        base = "7"  # what is free in a second currency is not sold in it
    return {**document, "currencies": {currency: {"base_price": base, "prices": prices}}}


def _repriced(rng: random.Random, price: dict[str, Any], currency: str) -> dict[str, Any]:
    kept = {key: price[key] for key in (*CONDITIONS, "metric", "code") if key in price}
    match price["model"]:
        case "discount":
            return {**kept, "model": "discount", **off(rng, currency)}
        case "commitment":
            return {**kept, "model": "commitment", "amount": money(rng, currency, 900)}
    return {**kept, **model(rng, currency)}


def plan(document: dict[str, Any], currency: str | None = None) -> Plan:
    """The same for the model, in its own currency or another that it is sold in."""
    listed = document["currencies"][currency] if currency and currency != document["currency"] else document
    mode, kind = document.get("billing_mode"), document.get("kind", "plan")
    base = {"model": "flat", "flat_price": listed["base_price"]}
    if kind == "add_on":
        base = {"model": "per_unit", "unit_price": listed["base_price"]}
    prices = [price(document, {"code": "base", **base, "billing_mode": mode})] if Decimal(listed["base_price"]) else []
    return Plan(
        document["code"], document["billing_period"], document.get("interval_count", 1),
        (*prices, *(price(document, each) for each in listed["prices"])), document.get("proration", "seconds"),
        document.get("credit_policy") != "none", kind, document.get("duration_cycles"),
    )  # fmt: skip


def price(document: dict[str, Any], told: dict[str, Any]) -> Price:
    """One price for the model."""
    written, kind, metric = told["model"], "price", told.get("metric")
    told_model = {key: value for key, value in told.items() if key not in (*CONDITIONS, "metric", "code")}
    mode = told.get("billing_mode", document.get("billing_mode"))
    if written == "discount":
        kind, mode, told_model = "discount", "in_advance", _plain(told)
    elif written == "commitment":
        kind, told_model = "commitment", {"model": "flat", "flat_price": told["amount"]}
    return Price(
        told.get("code") or metric or told.get("licensed") or written, parse_model(told_model), mode == "in_advance" and metric is None,
        metric, kind, told.get("licensed"), (told["billing_period"], 1) if told.get("billing_period") else None,
        Decimal(told.get("included", 0)), frozenset(told["covers"]) if told.get("covers") else None, Decimal(told.get("overage_factor", 1)),
    )  # fmt: skip


def _plain(told: dict[str, Any]) -> dict[str, Any]:
    """What a discount takes, as a plain model of the spend."""
    if "amount_off" in told:
        return {"model": "flat", "flat_price": told["amount_off"]}
    if "percent_off" in told:
        return {"model": "graduated_percentage", "tiers": [{"up_to": None, "rate_percent": told["percent_off"]}]}
    rates = [{"up_to": tier["up_to"], "unit_price": f"{Decimal(tier['percent_off']) / 100:f}"} for tier in told["tiers"]]
    return {"model": "volume", "tiers": rates}


def later(rng: random.Random, life: Life | None, now: datetime) -> datetime:
    """A moment to go on at: minutes, days or weeks later, often just where a cycle turns."""
    running = life.at(now) if life else None
    turn = life.cycle_end(running, now) if life and running else None
    ahead = now + rng.choice(
        (timedelta(minutes=rng.randint(1, 600)), timedelta(days=rng.randint(1, 12)), timedelta(days=rng.randint(8, 40)))
    )
    if turn is not None and turn > now and rng.random() < 0.4:
        return min(turn + rng.choice((timedelta(), timedelta(), timedelta(microseconds=-1), timedelta(seconds=1))), ahead + timedelta(60))
    return ahead


def usage(rng: random.Random, now: datetime, since: datetime) -> list[tuple[str, datetime, Decimal]]:
    """A few events, some of them weeks late, none from before `since`."""
    found = []
    for _ in range(rng.randint(1, 4)):
        late = rng.choice((timedelta(), timedelta(minutes=rng.randint(0, 3000)), timedelta(days=rng.uniform(0, LATE_DAYS_MAX - 1))))
        at = max(now - late, since)
        quantity = Decimal(rng.randrange(10 ** rng.randint(1, 4))).scaleb(-rng.choice((0, 0, 2)))
        found.append((rng.choice(METRICS), at, quantity))
    return found


ACTS = {
    "wait": 36, "use": 22, "correct": 4, "change": 6, "change_at_period_end": 4, "change_back_then": 5, "undo_change": 2, "seats": 5,
    "attach": 8, "hold_more": 3, "detach": 3, "pause": 3, "resume": 4, "undo_resume": 1, "cancel": 1,
    "cancel_at_period_end": 2, "undo_cancel": 3, "reactivate": 2, "start": 3, "settle": 4,
}  # fmt: skip


def act(rng: random.Random, more: dict[str, int] | None = None) -> str:
    """The next thing to try; `more` adds what a world can do beyond these, with its weight."""
    acts = {**ACTS, **(more or {})}
    return rng.choices(list(acts), list(acts.values()))[0]


def some_day(rng: random.Random, now: datetime) -> datetime | None:
    """A moment of the next weeks, often none."""
    return rng.choice((None, None, now + timedelta(days=rng.randint(1, 30)), now + timedelta(days=rng.uniform(0.01, 50))))


def back_then(rng: random.Random, life: Life, now: datetime) -> datetime:
    """A moment of the last weeks, often one at which something turned."""
    turns = [moment for stretch in life.stretches for moment in (stretch.start, stretch.end) if moment and moment <= now]
    return rng.choice([now - timedelta(days=rng.uniform(0, 50)), now - timedelta(days=rng.uniform(0, 12)), *turns[-1:]])


def item(rng: random.Random, life: Life) -> Beside:
    """One of what is beside the plan; Refused when there is nothing."""
    if not life.beside:
        raise Refused
    return rng.choice(life.beside)
