"""A price in the words of a price list, for customers and operators alike. Plain values."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from core import rendering
from core.pricing.compound import Capacity, Dynamic, GraduatedProrated, Matrix, Percentage, Slot, Sum, TimeOfUse
from core.pricing.models import Model, parse
from core.pricing.modifiers import Modified
from core.pricing.rules import BlockTier, Flat, GraduatedBlocks, GraduatedPercentage, Package, PerUnit, RateTier, Tier, VolumeBlocks

Words = tuple[tuple[str, str], ...]
CELLS_MAX = 12
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
AROUND = frozenset({"free", "at least", "at most", "off", "counted", "priced"})
"""What stands before the words that say what is done around a price."""


def stored_words(rules: dict[str, object], currency: str, unit: str) -> Words:
    """`price_words` of a price as it is stored."""
    return price_words(parse(rules), currency, unit)


def price_words(model: Model, currency: str, unit: str) -> Words:
    """A price in words, a pair a line: ("first 20 M", "€4.80 per 1 M"), ("above", "€3.20 per 1 M")."""
    match model:
        case Modified():
            return (*_before(model, unit), *price_words(model.model, currency, _converted(model, unit)), *_after(model, currency))
        case Flat():
            return (("", _money(model.flat_price, currency)),)
        case PerUnit():
            return (("", rendering.unit_price(model.unit_price, currency, unit)),)
        case Package():
            free = (("included", count(model.free_units)),) if model.free_units else ()
            full = "" if model.rounding == "up" else " full"
            per = f"{_money(model.package_price, currency)} per{full} {count(model.package_size)}"
            return (*free, ("then" if free else "", per))
        case GraduatedPercentage():
            return _tiers([(tier, _rate(tier, currency)) for tier in model.tiers])
        case GraduatedBlocks() | VolumeBlocks():
            return _tiers([(tier, f"{_money(tier.block_price, currency)} per {count(tier.block_size)} begun") for tier in model.tiers])
        case Dynamic():
            times = "" if model.multiplier == 1 else f"{rendering.quantity(model.multiplier)} times "
            return (("", f"{times}the price that each event carries"),)
        case Percentage():
            return _percentage(model, currency)
        case GraduatedProrated():
            return (*_unit_tiers(model.tiers, currency, unit), ("counted", "from the time of each change"))
        case Capacity():
            return _capacity(model, currency)
        case Matrix():
            return _matrix(model, currency, unit)
        case TimeOfUse():
            hours = ((_hours(slot), _line(price_words(slot.price, currency, unit))) for slot in model.slots)
            return (*hours, ("other hours", _line(price_words(model.default, currency, unit))))
        case Sum():
            return tuple((part.metric or "", _line(price_words(part.price, currency, ""))) for part in model.parts)
        case _:
            return _unit_tiers(model.tiers, currency, unit)


def count(value: Decimal) -> str:
    """A quantity as short as it can be said exactly: "20 M"."""
    for size, letter in ((Decimal(10) ** 9, " G"), (Decimal(10) ** 6, " M")):
        if value >= size and value % (size / 10) == 0:
            return f"{rendering.quantity(value / size)}{letter}"
    return rendering.quantity(value)


def _unit_tiers(tiers: Iterable[Tier], currency: str, unit: str) -> Words:
    found = list(tiers)
    scale = max((rendering.price_scale(tier.unit_price) for tier in found if tier.unit_price), default=1)
    return _tiers([(tier, _unit_tier(tier, currency, unit, scale)) for tier in found])


def _unit_tier(tier: Tier, currency: str, unit: str, scale: int) -> str:
    if not tier.unit_price:
        return _money(tier.flat_fee, currency) if tier.flat_fee else "included"
    fee = f" + {_money(tier.flat_fee, currency)}" if tier.flat_fee else ""
    return rendering.unit_price(tier.unit_price, currency, unit, scale=scale) + fee


def _rate(tier: RateTier, currency: str) -> str:
    fee = f" + {_money(tier.flat_fee, currency)}" if tier.flat_fee else ""
    return f"{rendering.quantity(tier.rate_percent)} %{fee}"


def _tiers(priced: list[tuple[Tier | RateTier | BlockTier, str]]) -> Words:
    lines, lower = [], Decimal(0)
    for tier, price in priced:
        lines.append((_reach(lower, tier.up_to, len(priced)), price))
        lower = tier.up_to or lower
    return tuple(lines)


def _reach(lower: Decimal, up_to: Decimal | None, tiers: int) -> str:
    if tiers == 1:
        return ""
    if up_to is None:
        return "above"
    return f"to {count(up_to)}" if lower else f"first {count(up_to)}"


def _percentage(model: Percentage, currency: str) -> Words:
    fee = f" + {_money(model.fixed_fee_per_event, currency)}" if model.fixed_fee_per_event else ""
    free = [f"first {count(Decimal(model.free_events))} events"] if model.free_events else []
    free += [f"first {_money(model.free_amount, currency)}"] if model.free_amount else []
    bounds = (("at least", model.min_per_event), ("at most", model.max_per_event))
    return (
        ("", f"{rendering.quantity(model.rate_percent)} % of each event{fee}"),
        *((("free", ", ".join(free)),) if free else ()),
        *((word, f"{_money(bound, currency)} per event") for word, bound in bounds if bound is not None),
    )


def _capacity(model: Capacity, currency: str) -> Words:
    lines = []
    for tier in model.tiers:
        limits = [f"{count(limit)} {code}" for code, limit in tier.limits.items() if limit is not None]
        lines.append((f"to {', '.join(limits)}" if limits else "above", _money(tier.price, currency)))
    return tuple(lines)


def _matrix(model: Matrix, currency: str, unit: str) -> Words:
    cells = [(" · ".join(cell.values.values()), _line(price_words(cell.price, currency, unit))) for cell in model.cells]
    more = [("", f"and {len(cells) - CELLS_MAX} more prices")] if len(cells) > CELLS_MAX else []
    rest = "included" if model.default is None else _line(price_words(model.default, currency, unit))
    return (*cells[:CELLS_MAX], *more, ("all others" if cells else f"each {' · '.join(model.dimensions)}", rest))


def _hours(slot: Slot) -> str:
    days = sorted(slot.weekdays)
    run = days == list(range(days[0], days[-1] + 1))
    named = (
        ""
        if len(days) == len(DAYS)
        else f"{DAYS[days[0]]}–{DAYS[days[-1]]} "
        if run and days[1:]
        else f"{', '.join(DAYS[d] for d in days)} "
    )
    return f"{slot.name}, {named}{_clock(slot.start)}–{_clock(slot.end)}"


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def _before(model: Modified, unit: str) -> Words:
    words = []
    if model.usage_discount:
        words.append(("included", count(model.usage_discount)))
    if model.conversion is not None:
        how = "each is" if model.conversion.multiply else "in units of"
        rounded = f", rounded {model.conversion.rounding.value.replace('_', ' ')}" if model.conversion.rounding else ""
        words.append(
            ("counted", f"{how} {count(model.conversion.factor)}{f' {unit}' if unit and not model.conversion.multiply else ''}{rounded}")
        )
    if model.bucket is not None:
        words.append(("priced", f"each {model.bucket.value} alone"))
    return tuple(words)


def _after(model: Modified, currency: str) -> Words:
    bounds = (("at least", model.minimum_amount), ("at most", model.maximum_amount))
    off = (("off", f"{rendering.quantity(model.discount_percent)} %"),) if model.discount_percent else ()
    return (*off, *((word, _money(bound, currency)) for word, bound in bounds if bound is not None))


def _converted(model: Modified, unit: str) -> str:
    return unit if model.conversion is None else ""


def _line(words: Words) -> str:
    return ", ".join(f"{before} {price}".strip() for before, price in words)


def _money(amount: Decimal, currency: str) -> str:
    return rendering.unit_price(amount, currency, scale=1)
