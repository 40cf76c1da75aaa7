"""The plan editor's form: what was typed, as the plan document the catalogue reads, and back. Pure: no request, no database."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from admin import price_rows
from admin.plan_extras import FEATURE, LIMIT, features_of, limit, limits_of, shown, value_of
from core.catalog import written
from core.catalog.models import PlanVersion
from core.errors import FieldError, Invalid

PLAN_TEXTS = (
    "code", "name", "description", "kind", "currency", "billing_period", "interval_count", "base_price", "billing_mode", "proration",
    "credit_policy", "trial_period_days", "trial_end_without_method", "duration_cycles", "is_public", "customers_may_pause",
)  # fmt: skip
WHOLE = ("interval_count", "trial_period_days", "duration_cycles")
FLAGS = ("is_public", "customers_may_pause")
NEW_PLAN = {
    "kind": "plan", "currency": "EUR", "billing_period": "month", "interval_count": "1", "base_price": "0", "billing_mode": "in_advance",
    "proration": "seconds", "credit_policy": "credit", "trial_period_days": "0", "trial_end_without_method": "convert", "is_public": "yes",
    "customers_may_pause": "yes",
}  # fmt: skip
NEW_PRICE: dict[str, Any] = {"metric": "", "model": "per_unit", "unit_price": "", "use": {}}
ACT = re.compile(r"(add|remove|up|down):([A-Za-z0-9_.]{1,200})")
CURRENCY = re.compile(r"[A-Z]{3}")


@dataclass(frozen=True, slots=True)
class Draft:
    """What stands in the form: `plan` has the plan's fields as texts, and under "prices", "features", "limits" and "currencies" its rows.

    `focus` is the path of a row that was added just now.
    """

    plan: dict[str, Any]
    focus: str = field(default="", compare=False)

    @property
    def prices(self) -> list[dict[str, Any]]:
        """The rows of prices in the plan's own currency."""
        found: list[dict[str, Any]] = self.plan["prices"]
        return found

    @property
    def currencies(self) -> dict[str, dict[str, Any]]:
        """Further currencies, each with `base_price` and `prices`."""
        found: dict[str, dict[str, Any]] = self.plan["currencies"]
        return found


def empty() -> Draft:
    """A new plan with one price to fill in."""
    plan = dict.fromkeys(PLAN_TEXTS, "") | NEW_PLAN
    return Draft({**plan, "prices": [copy.deepcopy(NEW_PRICE)], "features": [], "limits": [], "currencies": {}, "more": ""})


def of_version(version: PlanVersion) -> Draft:
    """A published version as the beginning of the next one."""
    return of_document(written.document(version))


def of_document(given: Mapping[str, Any]) -> Draft:
    """A plan document, complete or not, as it stands in the form."""
    rest = dict(given)
    plan: dict[str, Any] = {name: shown(rest.pop(name, NEW_PLAN.get(name))) for name in PLAN_TEXTS}
    plan["prices"] = _prices_of(rest.pop("prices", []))
    features, limits, currencies = (_object(rest.pop(name, None)) for name in ("features", "limits", "currencies"))
    plan["features"], kept = features_of(features)
    plan["limits"], refused = limits_of(limits)
    plan["currencies"] = {
        code: {"base_price": shown(part.get("base_price", "0")), "prices": _prices_of(part.get("prices", []))}
        for code, part in currencies.items()
        if isinstance(part, Mapping)
    }
    more = {**{key: value for key, value in rest.items() if value not in (None, {})}, **_named(features=kept, limits=refused)}
    return Draft({**plan, "more": json.dumps(more, indent=2, ensure_ascii=False, default=str) if more else ""})


def read(form: Mapping[str, str]) -> Draft:
    """The form as it was sent, nothing judged yet."""
    plan: dict[str, Any] = {name: form.get(name, "").strip() for name in (*PLAN_TEXTS, "more")}
    plan["prices"] = _prices(form, "prices")
    plan["features"] = _rows(form, "features", FEATURE)
    plan["limits"] = _rows(form, "limits", LIMIT)
    codes = [code for code in form.get("currency_codes", "").split(",") if CURRENCY.fullmatch(code)]
    plan["currencies"] = {
        code: {
            "base_price": form.get(f"currencies_{code}_base_price", "").strip(),
            "prices": _prices(form, f"currencies_{code}_prices"),
        }
        for code in codes
    }
    return Draft(plan)


def acted(draft: Draft, act: str, new_currency: str = "") -> Draft | None:
    """The draft after "add:prices.0.tiers", "remove:prices.1", "up:prices.1", "add:currencies"; None when `act` is none of these."""
    found = ACT.fullmatch(act)
    if found is None:
        return None
    plan, path = copy.deepcopy(draft.plan), found[2].split(".")
    if found[1] == "add":
        return Draft(plan, _added(plan, path, new_currency.strip().upper()))
    rows, place = _at(plan, path[:-1]), path[-1]
    if isinstance(rows, dict) and path[0] == "currencies":
        rows.pop(place, None)
    elif isinstance(rows, list) and place.isdecimal() and int(place) < len(rows):
        row = rows.pop(int(place))
        if found[1] != "remove":
            rows.insert(max(int(place) + (1 if found[1] == "down" else -1), 0), row)
    return Draft(plan)


def document(draft: Draft) -> dict[str, Any]:
    """The plan document (the API's vocabulary); what was left empty is left out. Invalid where other keys are not JSON."""
    plan: dict[str, Any] = {}
    for name in PLAN_TEXTS:
        value = draft.plan[name]
        if value:
            plan[name] = price_rows.whole(value) if name in WHOLE else value == "yes" if name in FLAGS else value
    plan["prices"] = _written(draft.prices, "/prices")
    if draft.currencies:
        plan["currencies"] = {
            code: {"base_price": part["base_price"] or "0", "prices": _written(part["prices"], f"/currencies/{code}/prices")}
            for code, part in draft.currencies.items()
        }
    try:
        more = json.loads(draft.plan.get("more") or "{}", parse_float=Decimal)
        if not isinstance(more, dict):
            raise ValueError("must be a JSON object of the other keys")
    except (ValueError, RecursionError) as error:
        raise Invalid("Other keys are not JSON.", errors=(FieldError("/more", f"is not JSON: {error}"),)) from error
    features = {row["name"]: value_of(row["value"]) for row in draft.plan["features"] if row["name"]}
    limits = {row["metric"]: limit(row) for row in draft.plan["limits"] if row["metric"]}
    plan |= _named(features={**_object(more.pop("features", None)), **features}, limits={**_object(more.pop("limits", None)), **limits})
    return plan | {key: value for key, value in more.items() if key not in plan}


def as_json(draft: Draft) -> str:
    """The document as text, for the JSON view; "" while other keys are not JSON."""
    try:
        return json.dumps(document(draft), indent=2, ensure_ascii=False, default=str)
    except Invalid:
        return ""


def placed(errors: Iterable[FieldError], draft: Draft) -> dict[str, str]:
    """Refusals by the name of the field they are shown at; one whose value has no field of its own at what it is a part of."""
    known = set(_names(draft))
    found: dict[str, str] = {}
    for error in errors:
        parts = [part for part in error.pointer.split("/") if part]
        keep = next((n for n in range(len(parts), 0, -1) if "_".join(parts[:n]) in known), 0)
        name, rest = "_".join(parts[:keep]), " ".join(parts[keep:])
        sentence = f"{rest}: {error.detail}" if rest else error.detail
        sentence = sentence[:1].upper() + sentence[1:] + ("" if sentence.endswith((".", "?")) else ".")
        found[name] = f"{found[name]} {sentence}" if name in found else sentence
    return found


def spoken(pointer: str) -> str:
    """A place of the document for people: /prices/0/tiers/1/up_to is "price 1, tier 2, up to"."""
    words: list[str] = []
    for part in (part for part in pointer.split("/") if part):
        if part.isdecimal() and words:
            words[-1] = f"{words[-1].removesuffix('s')} {int(part) + 1}"
        else:
            words.append(part.replace("_", " "))
    return ", ".join(words)


def uses(draft: Draft, currency: str) -> list[dict[str, str]]:
    """What was typed into the calculator for each price in the currency."""
    return [price.get("use", {}) for price in rows_in(draft, currency)[0]]


def rows_in(draft: Draft, currency: str) -> tuple[list[dict[str, Any]], str]:
    """(the rows of prices in the currency, what the names of their fields begin with)."""
    if currency in draft.currencies:
        return draft.currencies[currency]["prices"], f"currencies_{currency}_prices"
    return draft.prices, "prices"


def usage_of(draft: Draft) -> dict[str, dict[str, str]]:
    """What was typed into the calculator, by the place of the price, as it is stored with a draft."""
    return {f"prices_{i}": dict(price["use"]) for i, price in enumerate(draft.prices) if any(price.get("use", {}).values())}


def with_usage(draft: Draft, usage: Mapping[str, Any]) -> Draft:
    """The draft with what was typed into the calculator before."""
    prices = [{**price, "use": dict(usage.get(f"prices_{i}", {}))} for i, price in enumerate(draft.prices)]
    return Draft({**draft.plan, "prices": prices})


def _prices(form: Mapping[str, str], at: str) -> list[dict[str, Any]]:
    return [price_rows.read(form, f"{at}_{i}") for i in range(price_rows.count(form, f"{at}_{{}}_model"))]


def _prices_of(given: Any) -> list[dict[str, Any]]:
    return [price_rows.of_document(price) for price in given if isinstance(price, Mapping)] if isinstance(given, list) else []


def _written(prices: list[dict[str, Any]], pointer: str) -> list[dict[str, Any]]:
    found = []
    for i, price in enumerate(prices):
        try:
            found.append(price_rows.document(price))
        except (ValueError, RecursionError) as error:
            raise Invalid("Other keys are not JSON.", errors=(FieldError(f"{pointer}/{i}/more", f"is not JSON: {error}"),)) from error
    return found


def _added(plan: dict[str, Any], path: list[str], currency: str) -> str:
    """Add a row under `path`; the path of what should be typed into next."""
    if path == ["currencies"]:
        if CURRENCY.fullmatch(currency) and currency != plan["currency"]:
            plan["currencies"].setdefault(currency, {"base_price": plan["base_price"], "prices": copy.deepcopy(plan["prices"])})
        return f"currencies_{currency}_base_price"
    rows = _at(plan, path)
    if not isinstance(rows, list):
        return ""
    if len(path) == (3 if path[0] == "currencies" else 1) and path[-1] == "prices":
        rows.append(copy.deepcopy(NEW_PRICE))
    elif len(path) == 1:
        rows.append(dict.fromkeys(FEATURE if path[0] == "features" else LIMIT, ""))
    else:
        rows.append(price_rows.new_row(_at(plan, path[:-1])))
    return "_".join((*path, str(len(rows) - 1)))


def _at(plan: dict[str, Any], path: list[str]) -> Any:
    """What stands under the path; None where there is nothing."""
    found: Any = plan
    for part in path:
        if isinstance(found, list) and part.isdecimal() and int(part) < len(found):
            found = found[int(part)]
        elif isinstance(found, dict):
            found = found.get(part)
        else:
            return None
    return found


def _names(draft: Draft) -> Iterator[str]:
    yield from (*PLAN_TEXTS, "more", "prices", "features", "limits", "currencies")
    for i, price in enumerate(draft.prices):
        yield from price_rows.names(price, f"prices_{i}")
    for i, _ in enumerate(draft.plan["features"]):
        yield from (f"features_{i}_{name}" for name in FEATURE)
    for code, part in draft.currencies.items():
        yield from (f"currencies_{code}", f"currencies_{code}_base_price", f"currencies_{code}_prices")
        for i, price in enumerate(part["prices"]):
            yield from price_rows.names(price, f"currencies_{code}_prices_{i}")


def _rows(form: Mapping[str, str], at: str, names: tuple[str, ...]) -> list[dict[str, Any]]:
    found = range(price_rows.count(form, f"{at}_{{}}_{names[0]}"))
    return [{name: form.get(f"{at}_{i}_{name}", "").strip() for name in names} for i in found]


def _object(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _named(**parts: dict[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in parts.items() if part}
