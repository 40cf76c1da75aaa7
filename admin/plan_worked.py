"""What a plan as typed comes to, price by price, with the steps that lead there; and what keeps it from being published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from admin import plan_form
from admin.plan_form import Draft
from core.catalog import calculator, plan_document
from core.catalog.calculator import Ask, Calculation, Line
from core.catalog.plan_document import Plan
from core.errors import FieldError, Invalid
from core.metering.models import Metric
from core.pricing.compound_fields import MINUTES_A_DAY, WEEKDAYS
from core.pricing.rules import MODEL_NAMES

QUANTITY = Ask("quantity", "Quantity")
STAND_IN = {"code": "plan", "name": "Plan", "currency": "EUR"}
KEPT = ("currency", "billing_period", "interval_count", "base_price", "billing_mode", "proration", "kind")
"""What a calculation needs of a plan."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One price: what it is told, (question, answer) each, and the line it makes; None while it cannot be priced."""

    asks: tuple[tuple[Ask, str], ...]
    line: Line | None


@dataclass(slots=True)
class Worked:
    """The whole plan: a calculation for each currency, each price by the beginning of its fields' names, and the faults.

    A price that cannot be read yet is in it without a line, and is asked for a quantity where its model takes one.

    A fault is (name of the field, where that is in words, what is wrong).
    """

    calculations: list[Calculation] = field(default_factory=list)
    prices: dict[str, Asked] = field(default_factory=dict)
    faults: list[tuple[str, str, str]] = field(default_factory=list)
    currency: str = ""

    def currency_of(self, name: str) -> str:
        """The currency of the price whose fields begin so."""
        parts = name.split("_")
        return parts[1] if parts[0] == "currencies" else self.currency


def work_out(draft: Draft, metrics: Mapping[str, Metric]) -> Worked:
    """Price what can be priced, by the kernel that bills, and tell what is wrong with the rest."""
    found = Worked(currency=draft.plan["currency"])
    try:
        document = plan_form.document(draft)
    except Invalid as error:
        _note(found, error, draft)
        return found
    plan, broken = _readable(document, metrics, found, draft)
    for currency in (draft.plan["currency"], *draft.currencies):
        rows, prefix = plan_form.rows_in(draft, currency)
        found.prices |= {f"{prefix}_{i}": _unread(row) for i, row in enumerate(rows)}
        pointer = f"/{prefix}".replace("_", "/") if currency in draft.currencies else "/prices"
        kept = [i for i in range(len(rows)) if f"{pointer}/{i}" not in broken]
        if plan is not None:
            _calculate(found, plan, currency, [(f"{prefix}_{i}", rows[i]) for i in kept])
    return found


def _readable(document: dict[str, Any], metrics: Mapping[str, Metric], found: Worked, draft: Draft) -> tuple[Plan | None, set[str]]:
    """(the plan without the prices that are wrong, the pointers of those)."""
    try:
        return plan_document.read_plan(document, metrics), set()
    except Invalid as error:
        _note(found, error, draft)
        broken = {_price_of(item.pointer) for item in error.errors}
        wrong = {item.pointer.split("/")[1] for item in error.errors if "/" in item.pointer}
    kept = {name: document[name] for name in KEPT if name in document and name not in wrong}
    prices = [price for i, price in enumerate(document["prices"]) if f"/prices/{i}" not in broken]
    others = {
        code: {**part, "prices": [price for i, price in enumerate(part["prices"]) if f"/currencies/{code}/prices/{i}" not in broken]}
        for code, part in document.get("currencies", {}).items()
        if f"/currencies/{code}" not in broken
    }
    try:
        return plan_document.read_plan({**STAND_IN, **kept, "prices": prices, "currencies": others}, metrics), broken
    except Invalid:
        return None, broken


def _calculate(found: Worked, plan: Plan, currency: str, rows: list[tuple[str, dict[str, Any]]]) -> None:
    if not plan.currency or currency not in (plan.currency, *(price.currency for price in plan.prices)):
        return
    prices = calculator.prices_in(plan, currency)
    typed = []
    for (_, row), price in zip(rows, prices, strict=False):
        shown = calculator.sample(price)
        typed.append({key: row.get("use", {}).get(key, value) for key, value in shown.items()})
    try:
        result = calculator.calculate(plan, typed, currency)
        found.calculations.append(result)
    except Invalid as error:
        result = None
        for item in error.errors:
            place, _, key = item.pointer.rsplit("/", 3)[1:]
            found.faults.append((f"{rows[int(place)][0]}_use_{key}", "the quantities to calculate for", item.detail))
    for (name, _), price, answers in zip(rows, prices, typed, strict=False):
        told = tuple((ask, answers[ask.key]) for ask in calculator.asks(price))
        found.prices[name] = Asked(told, result.line(price) if result else None)


def _unread(row: Mapping[str, Any]) -> Asked:
    if row["model"] not in MODEL_NAMES or not row.get("metric"):
        return Asked((), None)
    return Asked(((QUANTITY, row.get("use", {}).get(QUANTITY.key, "10500")),), None)


def _price_of(pointer: str) -> str:
    """The pointer of the price, or the currency, that a pointer leads into."""
    parts = pointer.split("/")
    if len(parts) > 4 and parts[1] == "currencies" and parts[3] == "prices":
        return "/".join(parts[:5])
    return "/".join(parts[:3])


def _note(found: Worked, error: Invalid, draft: Draft) -> None:
    for item in error.errors or (FieldError("", error.message),):
        (name, _), *_ = plan_form.placed([item], draft).items()
        found.faults.append((name, plan_form.spoken(item.pointer), item.detail))


def week_of(price: Mapping[str, Any]) -> list[tuple[str, list[int | None]]]:
    """(day, for each of its hours the window that holds its beginning, None for other hours): the picture of a week."""
    windows = [
        (i, set(row["weekdays"]), _minute(row["from"], 0), _minute(row["to"], MINUTES_A_DAY)) for i, row in enumerate(price["windows"])
    ]
    return [(day, [_window_at(windows, n, hour * 60) for hour in range(24)]) for n, day in enumerate(WEEKDAYS)]


def _window_at(windows: list[tuple[int, set[str], int, int]], day: int, minute: int) -> int | None:
    for i, days, start, end in windows:
        here, before = WEEKDAYS[day] in days, WEEKDAYS[day - 1] in days
        if (here and start <= minute < end) if start < end else (here and minute >= start) or (before and minute < end):
            return i
    return None


def _minute(text: str, otherwise: int) -> int:
    hours, _, minutes = text.partition(":")
    return int(hours) * 60 + int(minutes) if hours.isdecimal() and minutes.isdecimal() else otherwise
