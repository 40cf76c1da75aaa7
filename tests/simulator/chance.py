"""What chance decides in a simulated life: price lists, and what the customer does next. One seed, one life."""

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from core.pricing.rules import parse_model
from tests.simulator.model import DIGITS, Life, Plan, Price

ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "Pacific/Auckland", "Asia/Kolkata", "Australia/Lord_Howe", "America/Havana",
    "Africa/Casablanca", "Asia/Tokyo", "Pacific/Chatham",
)  # fmt: skip
METRICS = ("calls", "storage")
LATE_DAYS_MAX = 35

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


def plan(document: dict[str, Any]) -> Plan:
    """The same for the model."""
    flat = {"model": "flat", "flat_price": document["base_price"]}
    base = [Price("base", parse_model(flat), document["billing_mode"] == "in_advance")] if Decimal(document["base_price"]) else []
    metered = [Price(price["metric"], parse_model(_without_metric(price)), False, price["metric"]) for price in document["prices"]]
    return Plan(
        document["code"], document["billing_period"], document["interval_count"], (*base, *metered), document["proration"],
        document["credit_policy"] == "credit",
    )  # fmt: skip


def with_seats(rng: random.Random, plan: Plan, currency: str) -> Plan:
    """The plan, perhaps with a price by the quantity held."""
    if rng.random() < 0.4:
        return plan
    return replace(plan, prices=(*plan.prices, Price("seats", parse_model(model(rng, currency)), rng.random() < 0.6)))


def _without_metric(price: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in price.items() if key != "metric"}


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
    "wait": 30, "use": 22, "change": 8, "change_at_period_end": 4, "seats": 5, "pause": 3, "resume": 4, "cancel": 1,
    "cancel_at_period_end": 2, "undo_cancel": 3, "start": 3, "settle": 4,
}  # fmt: skip


def act(rng: random.Random, more: dict[str, int] | None = None) -> str:
    """The next thing to try; `more` adds what a world can do beyond these, with its weight."""
    acts = {**ACTS, **(more or {})}
    return rng.choices(list(acts), list(acts.values()))[0]
