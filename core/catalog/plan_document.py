"""Reads a plan as customers of the API write it into checked values; every fault is collected with its JSON pointer. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from difflib import get_close_matches
from enum import StrEnum
from typing import Any, TypeVar

from core.catalog.models import BillingMode, CreditPolicy
from core.errors import FieldError, Invalid
from core.money import CURRENCIES, exponent, parse_decimal
from core.periods import Interval
from core.pricing.proration import Proration
from core.pricing.rules import PriceModel, RuleError, parse_model
from core.pricing.terms import Kind

BASE = "base"
"""Code of the rule that charges the base price."""
CODE_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}")
PERIOD_ALIASES = {
    "daily": Interval.DAY,
    "weekly": Interval.WEEK,
    "monthly": Interval.MONTH,
    "quarterly": Interval.QUARTER,
    "half_yearly": Interval.HALF_YEAR,
    "semiannual": Interval.HALF_YEAR,
    "yearly": Interval.YEAR,
    "annual": Interval.YEAR,
}
PRORATIONS = (Proration.SECONDS, Proration.DAYS, Proration.NONE)
PRICES_MAX = 100
NAME_LENGTH_MAX = 255
TRIAL_DAYS_MAX = 730
INTERVAL_COUNT_MAX = 120
OBJECT_BYTES_MAX = 16_384
PRICE_KEYS = {"metric", "code", "name", "billing_mode"}

E_ = TypeVar("E_", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Price:
    """One checked price: a usage price reads the metric `metric_code`, a recurring one has none."""

    code: str
    name: str
    kind: Kind
    metric_code: str | None
    model: PriceModel
    billing_mode: BillingMode


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked plan; `base_price` is in major units per billing period."""

    code: str
    name: str
    description: str
    currency: str
    billing_period: Interval
    interval_count: int
    base_price: Decimal
    billing_mode: BillingMode
    trial_period_days: int
    proration: Proration
    credit_policy: CreditPolicy
    prices: tuple[Price, ...]
    features: dict[str, Any]
    limits: dict[str, Any]
    metadata: dict[str, Any]
    is_public: bool


@dataclass(slots=True)
class Reader:
    """Collects faults while the document is read, so that one answer names all of them."""

    faults: list[FieldError] = field(default_factory=list)

    def fault(self, pointer: str, detail: str) -> None:
        """Note that the value at `pointer` is wrong."""
        self.faults.append(FieldError(pointer, detail))

    def text(self, pointer: str, value: object, *, longest: int = NAME_LENGTH_MAX, needed: bool = True) -> str:
        """A line of text without control characters; "" when it is absent or wrong."""
        if value is None and not needed:
            return ""
        if not isinstance(value, str) or (needed and not value.strip()):
            self.fault(pointer, "must be a text that is not empty")
        elif len(value) > longest:
            self.fault(pointer, f"must have at most {longest} characters")
        elif not storable(value):
            self.fault(pointer, "must not contain control characters")
        else:
            return value.strip()
        return ""

    def code(self, pointer: str, value: object) -> str:
        """An identifier of our vocabulary."""
        if isinstance(value, str) and CODE_FORM.fullmatch(value):
            return value
        self.fault(pointer, "must be 1 to 100 letters, digits and _ . : - and begin with a letter or digit")
        return ""

    def choice(self, pointer: str, value: object, options: Iterable[E_], default: E_) -> E_:
        """One of the options; `default` when it is absent or wrong."""
        by_name = {str(option): option for option in options}
        if value is None or value in by_name.values():
            return by_name[str(value)] if value is not None else default
        self.fault(pointer, f"must be one of {', '.join(by_name)}{did_you_mean(str(value), by_name)}")
        return default

    def whole(self, pointer: str, value: object, *, least: int, most: int) -> int:
        """A whole number between bounds; `least` when it is wrong."""
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        self.fault(pointer, f"must be a whole number from {least} to {most}")
        return least

    def amount(self, pointer: str, value: object, currency: str) -> Decimal:
        """Major units that the currency can express exactly."""
        try:
            amount = parse_decimal(str(as_text(value)))
        except ValueError as error:
            self.fault(pointer, str(error) if isinstance(value, (str, int, Decimal)) else 'must be a decimal string, such as "99.00"')
            return Decimal(0)
        if currency in CURRENCIES and amount != round(amount, exponent(currency)):
            self.fault(pointer, f"has more decimals than {currency} ({exponent(currency)})")
        return amount

    def object(self, pointer: str, value: object) -> dict[str, Any]:
        """A JSON object of bounded size; {} when it is absent or wrong."""
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self.fault(pointer, "must be an object")
            return {}
        plain = {str(key): as_text(item) for key, item in value.items()}
        try:
            written = json.dumps(plain, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            self.fault(pointer, "must hold JSON values only; write numbers with decimals as strings")
            return {}
        if len(written.encode("utf-8", "surrogatepass")) > OBJECT_BYTES_MAX or not storable(written) or "\\u0000" in written:
            self.fault(pointer, f"must be at most {OBJECT_BYTES_MAX} bytes without control characters")
            return {}
        return plain


def read_plan(document: Mapping[str, object], metric_codes: Collection[str]) -> Plan:
    """The checked plan; Invalid with a pointer to every fault. `metric_codes` are the metrics prices may read."""
    reader = Reader()
    currency = document.get("currency")
    if not isinstance(currency, str) or currency not in CURRENCIES:
        reader.fault("/currency", f"must be a currency code of ISO 4217, such as EUR{did_you_mean(str(currency).upper(), CURRENCIES)}")
        currency = ""
    default_mode = reader.choice("/billing_mode", document.get("billing_mode"), BillingMode, BillingMode.IN_ADVANCE)
    plan = Plan(
        code=reader.code("/code", document.get("code")),
        name=reader.text("/name", document.get("name")),
        description=reader.text("/description", document.get("description"), longest=2_000, needed=False),
        currency=currency,
        billing_period=_billing_period(reader, document.get("billing_period")),
        interval_count=reader.whole("/interval_count", document.get("interval_count", 1), least=1, most=INTERVAL_COUNT_MAX),
        base_price=reader.amount("/base_price", document.get("base_price", "0"), currency),
        billing_mode=default_mode,
        trial_period_days=reader.whole("/trial_period_days", document.get("trial_period_days", 0), least=0, most=TRIAL_DAYS_MAX),
        proration=reader.choice("/proration", document.get("proration"), PRORATIONS, Proration.SECONDS),
        credit_policy=reader.choice("/credit_policy", document.get("credit_policy"), CreditPolicy, CreditPolicy.CREDIT),
        prices=_prices(reader, document.get("prices", ()), metric_codes, default_mode),
        features=reader.object("/features", document.get("features")),
        limits=reader.object("/limits", document.get("limits")),
        metadata=reader.object("/metadata", document.get("metadata")),
        is_public=_flag(reader, "/is_public", document.get("is_public")),
    )
    if reader.faults:
        raise Invalid("The plan cannot be published as it is.", errors=tuple(reader.faults))
    return plan


def _billing_period(reader: Reader, value: object) -> Interval:
    return reader.choice("/billing_period", PERIOD_ALIASES.get(str(value), value) if value is not None else "", Interval, Interval.MONTH)


def _flag(reader: Reader, pointer: str, value: object) -> bool:
    if value is not None and not isinstance(value, bool):
        reader.fault(pointer, "must be true or false")
    return value is not False


def _prices(reader: Reader, value: object, metric_codes: Collection[str], default_mode: BillingMode) -> tuple[Price, ...]:
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        reader.fault("/prices", "must be a list")
        return ()
    if len(value) > PRICES_MAX:
        reader.fault("/prices", f"must have at most {PRICES_MAX} prices")
        return ()
    prices: list[Price] = []
    taken = {BASE: "the base price"}
    for i, item in enumerate(value):
        if not isinstance(item, Mapping):
            reader.fault(f"/prices/{i}", "must be an object")
            continue
        price = _price(reader, f"/prices/{i}", item, metric_codes, default_mode)
        if price.code in taken:
            reader.fault(f"/prices/{i}/code", f'"{price.code}" is taken by {taken[price.code]}; give each price a code of its own')
        elif price.code:
            taken[price.code] = f"/prices/{i}"
        prices.append(price)
    return tuple(prices)


def _price(reader: Reader, pointer: str, item: Mapping[str, object], metric_codes: Collection[str], default_mode: BillingMode) -> Price:
    metric = item.get("metric")
    if metric is not None and (not isinstance(metric, str) or metric not in metric_codes):
        reader.fault(f"{pointer}/metric", f'there is no metric "{str(metric)[:100]}"{did_you_mean(str(metric), metric_codes)}')
        metric = None
    usage = item.get("metric") is not None
    mode = reader.choice(
        f"{pointer}/billing_mode", item.get("billing_mode"), BillingMode, BillingMode.IN_ARREARS if usage else default_mode
    )
    if usage and mode is BillingMode.IN_ADVANCE:
        reader.fault(f"{pointer}/billing_mode", "usage can only be billed in_arrears: it is not known before")
    code = reader.code(f"{pointer}/code", item.get("code", metric or item.get("model")))
    return Price(
        code=code,
        name=reader.text(f"{pointer}/name", item["name"]) if item.get("name") is not None else "",
        kind=Kind.USAGE if usage else Kind.RECURRING,
        metric_code=str(metric) if metric is not None else None,
        model=_model(reader, pointer, item),
        billing_mode=mode,
    )


def _model(reader: Reader, pointer: str, item: Mapping[str, object]) -> PriceModel:
    try:
        return parse_model({key: as_text(value) for key, value in item.items() if key not in PRICE_KEYS})
    except RuleError as error:
        reader.fault(pointer + error.pointer, error.detail)
        return parse_model({"model": "flat", "flat_price": "0"})


def as_text(value: object) -> Any:
    """`value` with every Decimal in it as plain digits, the form prices are stored in."""
    if isinstance(value, Decimal):
        return f"{value:f}" if value.is_finite() and abs(value.adjusted()) < 40 else str(value)
    if isinstance(value, Mapping):
        return {str(key): as_text(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_text(item) for item in value]
    return value


def storable(text: str) -> bool:
    """Whether PostgreSQL and a page can hold the text: no control characters save line breaks and tabs, no lone surrogates."""
    return not any((ord(char) < 32 and char not in "\n\r\t") or char == "\x7f" or "\ud800" <= char <= "\udfff" for char in text)


def did_you_mean(word: str, known: Collection[str]) -> str:
    """ "; did you mean …?" with the nearest known words, or nothing."""
    near = get_close_matches(word[:100], list(known), n=2, cutoff=0.6)
    return f"; did you mean {' or '.join(near)}?" if near else ""
