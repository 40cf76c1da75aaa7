"""Reads a plan as customers of the API write it into checked values; every fault is collected with its JSON pointer. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from core.catalog.conditions import (
    INTERVAL_COUNT_MAX,
    KEYS,
    PLAIN,
    PRORATIONS,
    SPEND_MODELS,
    Conditions,
    billing_period,
    read_conditions,
    spend_model,
)
from core.catalog.models import AfterTrial, BillingMode, CreditPolicy, PlanKind
from core.catalog.price_model import NOTHING, read_model
from core.catalog.reader import Reader, as_text, did_you_mean
from core.errors import Invalid
from core.metering.models import Metric
from core.money import CURRENCIES
from core.periods import Interval
from core.pricing.models import Model, name_of, reads_one
from core.pricing.proration import Proration
from core.pricing.rules import Flat
from core.pricing.terms import Kind

BASE = "base"
"""Code of the rule that charges the base price."""
PRICES_MAX = 100
TRIAL_DAYS_MAX = 730
PRICE_KEYS = {"metric", "code", "name", "billing_mode", *KEYS}


@dataclass(frozen=True, slots=True)
class Price:
    """One checked price: a usage price reads the metric `metric_code`, a recurring one has none."""

    code: str
    name: str
    kind: Kind
    metric_code: str | None
    model: Model
    billing_mode: BillingMode
    conditions: Conditions = PLAIN
    currency: str | None = None
    """None: the currency of the plan."""


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
    trial_end_without_method: AfterTrial
    proration: Proration
    credit_policy: CreditPolicy
    prices: tuple[Price, ...]
    features: dict[str, Any]
    limits: dict[str, Any]
    metadata: dict[str, Any]
    is_public: bool
    kind: PlanKind = PlanKind.PLAN
    duration_cycles: int | None = None
    customers_may_pause: bool = True


@dataclass(frozen=True, slots=True)
class _Frame:
    """What the prices of a document are read against."""

    metrics: Mapping[str, Metric]
    default_mode: BillingMode
    cycle: tuple[Interval, int]


def read_plan(document: Mapping[str, object], metrics: Mapping[str, Metric]) -> Plan:
    """The checked plan; Invalid with a pointer to every fault. `metrics`, by code, are those prices may read."""
    reader = Reader()
    currency = document.get("currency")
    if not isinstance(currency, str) or currency not in CURRENCIES:
        reader.fault("/currency", f"must be a currency code of ISO 4217, such as EUR{did_you_mean(str(currency).upper(), CURRENCIES)}")
        currency = ""
    default_mode = reader.choice("/billing_mode", document.get("billing_mode"), BillingMode, BillingMode.IN_ADVANCE)
    period = billing_period(reader, "/billing_period", document.get("billing_period"))
    count = reader.whole("/interval_count", document.get("interval_count", 1), least=1, most=INTERVAL_COUNT_MAX)
    frame = _Frame(metrics, default_mode, (period, count))
    plan = Plan(
        code=reader.code("/code", document.get("code")),
        name=reader.text("/name", document.get("name")),
        description=reader.text("/description", document.get("description"), longest=2_000, needed=False),
        currency=currency,
        billing_period=period,
        interval_count=count,
        base_price=reader.amount("/base_price", document.get("base_price", "0"), currency),
        billing_mode=default_mode,
        trial_period_days=reader.whole("/trial_period_days", document.get("trial_period_days", 0), least=0, most=TRIAL_DAYS_MAX),
        trial_end_without_method=reader.choice(
            "/trial_end_without_method", document.get("trial_end_without_method"), AfterTrial, AfterTrial.CONVERT
        ),
        proration=reader.choice("/proration", document.get("proration"), PRORATIONS, Proration.SECONDS),
        credit_policy=reader.choice("/credit_policy", document.get("credit_policy"), CreditPolicy, CreditPolicy.CREDIT),
        prices=(*_prices(reader, "/prices", document.get("prices", ()), frame), *_currencies(reader, document, currency, frame)),
        features=reader.object("/features", document.get("features")),
        limits=reader.object("/limits", document.get("limits")),
        metadata=reader.object("/metadata", document.get("metadata")),
        is_public=_flag(reader, "/is_public", document.get("is_public")),
        kind=reader.choice("/kind", document.get("kind"), PlanKind, PlanKind.PLAN),
        duration_cycles=_duration(reader, document),
        customers_may_pause=_flag(reader, "/customers_may_pause", document.get("customers_may_pause")),
    )
    _check_coupon(reader, plan)
    if reader.faults:
        raise Invalid("The plan cannot be published as it is.", errors=tuple(reader.faults))
    return plan


def _flag(reader: Reader, pointer: str, value: object) -> bool:
    if value is not None and not isinstance(value, bool):
        reader.fault(pointer, "must be true or false")
    return value is not False


def read_prices(
    reader: Reader,
    pointer: str,
    prices: object,
    *,
    metrics: Mapping[str, Metric],
    default_mode: BillingMode,
    cycle: tuple[Interval, int],
    known: Collection[str],
) -> tuple[Price, ...]:
    """Prices written beside those of a plan whose codes are `known`; faults are left with the reader."""
    return _prices(reader, pointer, prices, _Frame(metrics, default_mode, cycle), known)


def _duration(reader: Reader, document: Mapping[str, object]) -> int | None:
    value = document.get("duration_cycles")
    if value is not None and document.get("kind") != PlanKind.COUPON:
        reader.fault("/duration_cycles", "is known for a coupon only")
    return None if value is None else reader.whole("/duration_cycles", value, least=1, most=INTERVAL_COUNT_MAX)


def _check_coupon(reader: Reader, plan: Plan) -> None:
    if plan.kind is PlanKind.COUPON and (plan.base_price or not plan.prices or any(p.kind is not Kind.DISCOUNT for p in plan.prices)):
        reader.fault("/prices", 'a coupon has no base price, and prices of the model "discount" only')


def _currencies(reader: Reader, document: Mapping[str, object], own: str, frame: _Frame) -> list[Price]:
    """The base price and prices in each further currency the plan is sold in."""
    given = document.get("currencies") or {}
    if not isinstance(given, Mapping):
        reader.fault("/currencies", "must be an object of currencies, each with base_price and prices")
        return []
    found: list[Price] = []
    for currency, part in given.items():
        pointer = f"/currencies/{currency}"
        if currency not in CURRENCIES or currency == own or not isinstance(part, Mapping):
            reader.fault(pointer, "must be another currency of ISO 4217, with an object of base_price and prices")
            continue
        for key in sorted(part.keys() - {"base_price", "prices"}):
            reader.fault(f"{pointer}/{key}", "is not a key here; known: base_price, prices")
        base = reader.amount(f"{pointer}/base_price", part.get("base_price", "0"), currency)
        if base:
            found.append(Price(BASE, "", Kind.RECURRING, None, Flat(base), frame.default_mode, currency=currency))
        prices = _prices(reader, f"{pointer}/prices", part.get("prices", ()), frame)
        found += [replace(price, currency=currency) for price in prices]
    return found


def _prices(reader: Reader, pointer: str, value: object, frame: _Frame, known: Collection[str] = ()) -> tuple[Price, ...]:
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        reader.fault(pointer, "must be a list")
        return ()
    if len(value) > PRICES_MAX:
        reader.fault(pointer, f"must have at most {PRICES_MAX} prices")
        return ()
    prices: list[Price] = []
    taken = {BASE: "the base price"}
    for i, item in enumerate(value):
        if not isinstance(item, Mapping):
            reader.fault(f"{pointer}/{i}", "must be an object")
            continue
        price = _price(reader, f"{pointer}/{i}", item, frame)
        if price.code in taken:
            reader.fault(f"{pointer}/{i}/code", f'"{price.code}" is taken by {taken[price.code]}; give each price a code of its own')
        elif price.code:
            taken[price.code] = f"{pointer}/{i}"
        prices.append(price)
    _check_covers(reader, pointer, prices, {*taken, *known})
    return tuple(prices)


def _check_covers(reader: Reader, pointer: str, prices: Sequence[Price], known: Collection[str]) -> None:
    for i, price in enumerate(prices):
        for code in price.conditions.covers or ():
            if code and code not in known:
                reader.fault(f"{pointer}/{i}/covers", f'there is no price "{code}"{did_you_mean(code, known)}')


def _price(reader: Reader, pointer: str, item: Mapping[str, object], frame: _Frame) -> Price:
    metric = item.get("metric")
    if metric is not None and (not isinstance(metric, str) or metric not in frame.metrics):
        reader.fault(f"{pointer}/metric", f'there is no metric "{str(metric)[:100]}"{did_you_mean(str(metric), frame.metrics)}')
        metric = None
    kind = _kind(reader, pointer, item)
    settled_later = kind in (Kind.USAGE, Kind.COMMITMENT)
    mode = reader.choice(
        f"{pointer}/billing_mode",
        item.get("billing_mode"),
        BillingMode,
        BillingMode.IN_ADVANCE if kind is Kind.DISCOUNT else BillingMode.IN_ARREARS if settled_later else frame.default_mode,
    )
    if kind is Kind.USAGE and mode is BillingMode.IN_ADVANCE:
        reader.fault(f"{pointer}/billing_mode", "usage can only be billed in_arrears: it is not known before")
    code = reader.code(f"{pointer}/code", item.get("code", metric or item.get("licensed") or item.get("model")))
    return Price(
        code=code,
        name=reader.text(f"{pointer}/name", item["name"]) if item.get("name") is not None else "",
        kind=kind,
        metric_code=str(metric) if metric is not None else None,
        model=_model(reader, pointer, item, frame),
        billing_mode=mode,
        conditions=read_conditions(reader, pointer, item, kind, frame.cycle),
    )


def _kind(reader: Reader, pointer: str, item: Mapping[str, object]) -> Kind:
    on_spend = SPEND_MODELS.get(str(item.get("model")))
    if on_spend is not None and item.get("metric") is not None:
        reader.fault(f"{pointer}/metric", f"a {on_spend} looks at other prices (covers), not at a metric")
    return on_spend or (Kind.USAGE if item.get("metric") is not None else Kind.RECURRING)


def _model(reader: Reader, pointer: str, item: Mapping[str, object], frame: _Frame) -> Model:
    written = {key: as_text(value) for key, value in item.items() if key not in PRICE_KEYS}
    if item.get("model") in SPEND_MODELS:
        written = spend_model(reader, pointer, written)
    named = item.get("metric")
    if named is not None and named not in frame.metrics:
        return NOTHING
    model = read_model(reader, pointer, written, frame.metrics[str(named)] if named is not None else None, frame.metrics)
    if item.get("included") is not None and not reads_one(model):
        reader.fault(f"{pointer}/included", f"is for prices of one quantity, which {name_of(model)} is not")
    return model
