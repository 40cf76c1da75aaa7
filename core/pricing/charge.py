"""What usage costs under any price, and how that came about: the models of several quantities, and what modifiers do around a model.

One quantity under one model is `price.price`; everything else is the sum of its explained steps. Major units, not rounded to the currency.
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from core.money import plain
from core.pricing.compound import (
    Capacity,
    Dynamic,
    GraduatedProrated,
    Matrix,
    Percentage,
    Sum,
    TimeOfUse,
    capacity,
    graduated_prorated,
    percentage,
    prorated_units,
)
from core.pricing.models import Model
from core.pricing.modifiers import Modified, after_free_units, round_quantity
from core.pricing.modifiers import Rounding as Direction
from core.pricing.price import Explanation, Step, explain, price
from core.pricing.rules import PriceModel
from core.pricing.usage import ByMetric, Carried, Changes, Events, Grouped, Several, Usage, total

_ZERO = Decimal(0)
_COMPOUND = (Modified, Dynamic, Percentage, GraduatedProrated, Capacity, Matrix, TimeOfUse, Sum)
PLACES = 12
"""Of an amount that is an endless fraction, in the steps that explain it."""


class Charged(NamedTuple):
    """How an amount came about: the sum of the steps, save for the steps' own rounding to PLACES of endless fractions."""

    quantity: Decimal
    amount: Decimal | Fraction
    steps: tuple[Step, ...]
    formula: str


def charge(model: Model, usage: Usage) -> Decimal | Fraction:
    """Amount of `usage` under `model`, exact. `TypeError` when the usage is not of the kind the model reads."""
    if isinstance(usage, Decimal) and not isinstance(model, _COMPOUND):
        return price(model, usage)
    return explain_charge(model, usage).amount


def explain_charge(model: Model, usage: Usage) -> Charged | Explanation:
    """`charge` with the steps that lead to it, for invoice lines and pages."""
    match model, usage:
        case Modified(), _:
            return _modified(model, usage)
        case Dynamic(), Decimal():
            step = _step("Price carried by the events", usage, model.multiplier)
            return _charged(usage, [step], "the amounts that the events carry" + _times(model.multiplier))
        case Dynamic(), Carried():
            step = _step("Price carried by the events", usage.amount, model.multiplier)
            return _charged(usage.quantity, [step], "the amounts that the events carry" + _times(model.multiplier))
        case Percentage(), Events():
            return _percentage(model, usage)
        case GraduatedProrated(), Changes():
            return _prorated(model, usage)
        case Capacity(), ByMetric():
            return _capacity(model, usage)
        case Matrix(), Grouped():
            prices = [(" · ".join(value or "none" for value in key), model.price_of(key), key) for key in sorted(usage.quantities)]
            return _grouped(usage, prices, "each combination of values at its own price")
        case TimeOfUse(), Grouped():
            names = [name for name in (*(slot.name for slot in model.slots), "other hours") if (name,) in usage.quantities]
            return _grouped(usage, [(name, model.price_of(name), (name,)) for name in names], "each hour at the price of its time of day")
        case Sum(), Several():
            return _sum(model, usage)
        case ((Modified() | Dynamic() | Percentage() | GraduatedProrated() | Capacity() | Matrix() | TimeOfUse() | Sum()), _):
            raise TypeError(f"{type(model).__name__} is not asked with {type(usage).__name__}")
        case simple, Decimal():
            return explain(simple, usage)
    raise TypeError(f"{type(model).__name__} is not asked with {type(usage).__name__}")


def nothing(model: Model) -> Usage:
    """What the model is asked with when nothing was used."""
    match model:
        case Modified():
            return Grouped({}) if model.bucket is not None else nothing(model.model)
        case Percentage():
            return Events(())
        case GraduatedProrated():
            return Changes(())
        case Capacity():
            return ByMetric(dict.fromkeys(model.metrics, _ZERO))
        case Matrix() | TimeOfUse():
            return Grouped({})
        case Dynamic() if model.amount_property is not None:
            return Carried(_ZERO, _ZERO)
        case Sum():
            return Several(tuple(nothing(part.price) for part in model.parts))
    return _ZERO


def _charged(quantity: Decimal, steps: Sequence[Step], formula: str) -> Charged:
    return Charged(quantity, sum((step.amount for step in steps), _ZERO), tuple(steps), formula)


def _step(label: str, quantity: Decimal, unit_price: Decimal, flat_fee: Decimal = _ZERO) -> Step:
    return Step(label, _ZERO, None, quantity, unit_price, flat_fee, quantity * unit_price + flat_fee)


def _lump(label: str, amount: Decimal) -> Step:
    return Step(label, _ZERO, None, _ZERO, _ZERO, amount, amount)


def _times(multiplier: Decimal) -> str:
    return "" if multiplier == 1 else f" × {plain(multiplier)}"


def _percentage(model: Percentage, usage: Events) -> Charged:
    found = percentage(model, usage.amounts, usage.bands)
    rate = model.rate_percent.scaleb(-2)
    steps = [_step(f"{plain(model.rate_percent)} % of the amount", found.paid_amount, rate)]
    if model.fixed_fee_per_event:
        steps.append(_step("Fee per event", Decimal(found.paid_events), model.fixed_fee_per_event))
    if held := found.fee - sum((step.amount for step in steps), _ZERO):
        steps.append(_lump("Least and most per event", held))
    return _charged(total(usage), steps, _free_words(model, usage.count, found.paid_events))


def _free_words(model: Percentage, events: int, paid: int) -> str:
    if model.reads_sums and model.free_amount is not None:
        return f"all events together, the first {plain(model.free_amount)} free"
    return "each event on its own" + ("" if paid == events else f", {events - paid} of {events} events free")


def _prorated(model: GraduatedProrated, usage: Changes) -> Charged:
    steps, lower = [], _ZERO
    for i, (tier, held) in enumerate(zip(model.tiers, prorated_units(model.tiers, usage.changes), strict=False)):
        amount = held * Fraction(tier.unit_price) + Fraction(tier.flat_fee)
        steps.append(Step(f"tier {i + 1}", lower, tier.up_to, _shown(held), tier.unit_price, tier.flat_fee, _shown(amount)))
        lower = tier.up_to or lower
    amount = graduated_prorated(model.tiers, usage.changes)
    if not amount and (below := sum((step.amount for step in steps), _ZERO)):
        steps.append(_lump("Never below 0", -below))
    return Charged(total(usage), amount, tuple(steps), "full units choose the tier, prorated units are priced")


def _capacity(model: Capacity, usage: ByMetric) -> Charged:
    amount = capacity(model.tiers, usage.quantities)
    used = ", ".join(f"{name} {plain(quantity)}" for name, quantity in usage.quantities.items())
    return _charged(total(usage), [_lump("The smallest size that holds it all", amount)], f"sized by {used}")


def _grouped(usage: Grouped, prices: Iterable[tuple[str, PriceModel | None, tuple[str, ...]]], formula: str) -> Charged:
    steps: list[Step] = []
    for name, model, key in prices:
        quantity = usage.quantities[key]
        if not quantity:
            continue
        found = explain(model, quantity).steps if model is not None else (_step("free", quantity, _ZERO),)
        steps += [step._replace(label=name if len(found) == 1 else f"{name}, {step.label}") for step in found]
    return _charged(total(usage), steps, formula)


def _sum(model: Sum, usage: Several) -> Charged:
    steps: list[Step] = []
    amount: Decimal | Fraction = _ZERO
    for i, (part, used) in enumerate(zip(model.parts, usage.parts, strict=True), start=1):
        found = explain_charge(part.price, max(used, _ZERO) if isinstance(used, Decimal) else used)
        name = part.metric or f"part {i}"
        steps += [step._replace(label=name if len(found.steps) == 1 else f"{name}, {step.label}") for step in found.steps]
        amount = _plus(amount, found.amount)
    return Charged(total(usage), amount, tuple(steps), "the sum of its parts")


def _plus(one: Decimal | Fraction, other: Decimal | Fraction) -> Decimal | Fraction:
    if isinstance(one, Decimal) and isinstance(other, Decimal):
        return one + other
    return Fraction(one) + Fraction(other)


def _modified(model: Modified, usage: Usage) -> Charged:
    """Convert, take included units off, price, discount, hold between minimum and maximum."""
    if model.bucket is not None and isinstance(usage, Grouped):
        found = _bucketed(model, usage)
    elif isinstance(usage, Decimal):
        billed, words = _billable(model, usage)
        inner = explain_charge(model.model, billed)
        found = Charged(usage, inner.amount, inner.steps, "; ".join((*words, inner.formula)))
    else:
        inner = explain_charge(model.model, usage)
        found = Charged(inner.quantity, inner.amount, inner.steps, inner.formula)
    return _held(model, found)


def _billable(model: Modified, quantity: Decimal) -> tuple[Decimal, list[str]]:
    """The quantity that is priced, and how it came about."""
    words = []
    if model.conversion is not None:
        how, before = model.conversion, quantity
        quantity = how.apply(quantity)
        rounded = f", rounded {how.rounding.value.replace('_', ' ')}," if how.rounding else ""
        words.append(f"{plain(before)} {'×' if how.multiply else '÷'} {plain(how.factor)}{rounded} is {plain(quantity)}")
    if model.usage_discount:
        quantity, _ = after_free_units(quantity, _ZERO, model.usage_discount)
        words.append(f"{plain(model.usage_discount)} included, {plain(quantity)} billed")
    return quantity, words


def _bucketed(model: Modified, usage: Grouped) -> Charged:
    """Each bucket priced alone; steps alike of all buckets are shown as one."""
    alike: dict[tuple[str, Decimal, Decimal], Step] = {}
    used = [quantity for quantity in usage.quantities.values() if quantity]
    for quantity in used:
        billed, _ = _billable(model, quantity)
        for step in explain_charge(model.model, billed).steps:
            key = (step.label, step.from_, step.unit_price)
            known = alike.get(key)
            alike[key] = step if known is None else _together(known, step)
    count = f"{len(used)} {model.bucket}{'' if len(used) == 1 else 's'}" if model.bucket else ""
    return _charged(total(usage), list(alike.values()), f"{count} with usage, each priced alone, then added up")


def _together(one: Step, other: Step) -> Step:
    fee = one.flat_fee + other.flat_fee
    return one._replace(quantity=one.quantity + other.quantity, flat_fee=fee, amount=one.amount + other.amount)


def _held(model: Modified, found: Charged) -> Charged:
    steps, amount = list(found.steps), found.amount
    if model.discount_percent:
        less = Fraction(amount) * Fraction(model.discount_percent) / 100
        exact = amount * model.discount_percent.scaleb(-2) if isinstance(amount, Decimal) else less
        steps.append(_lump(f"{plain(model.discount_percent)} % off", -_shown(exact)))
        amount = amount - exact if isinstance(amount, Decimal) and isinstance(exact, Decimal) else Fraction(amount) - less
    if model.minimum_amount is not None and amount < model.minimum_amount:
        steps.append(
            _lump(f"Up to the minimum of {plain(model.minimum_amount)}", _shown(Fraction(model.minimum_amount) - Fraction(amount)))
        )
        amount = model.minimum_amount
    if model.maximum_amount is not None and amount > model.maximum_amount:
        cut = Fraction(amount) - Fraction(model.maximum_amount)
        steps.append(_lump(f"Down to the maximum of {plain(model.maximum_amount)}", -_shown(cut)))
        amount = model.maximum_amount
    return Charged(found.quantity, amount, tuple(steps), found.formula)


def _shown(amount: Decimal | Fraction) -> Decimal:
    return amount if isinstance(amount, Decimal) else round_quantity(amount, Direction.HALF_UP, PLACES)
