"""A line in words: what it is for, how it was calculated, what was rounded. Pure; works on the stored derivation of the line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

from core import rendering
from core.invoicing.statement import TierRow
from core.money import format_decimal, to_decimal
from core.pricing.compound import Capacity, Dynamic, GraduatedProrated, Matrix, Percentage, Sum, TimeOfUse
from core.pricing.fields import RuleError
from core.pricing.models import Model, bare, parse
from core.pricing.modifiers import Modified
from core.pricing.rules import (
    Flat,
    Graduated,
    GraduatedBlocks,
    GraduatedPercentage,
    Package,
    PerUnit,
    Stairstep,
    Tier,
    Volume,
    VolumeBlocks,
)
from core.pricing.terms import ON_SPEND, Kind, Timing

TIERED = (Graduated, Volume, Stairstep)
SEVERAL = (Matrix, TimeOfUse, Percentage, Sum, GraduatedProrated, Capacity, Dynamic)
"""Models whose steps are shown even where there is one."""
_STEPS = {"per unit": "Units", "packages": "Packages", "flat price": "Flat price"}
_TIER = re.compile(r"(?P<of>.*, )?tier [0-9]+(?P<blocks>, blocks of .*)?")
READABLE_DENOMINATOR_MAX = 400
"""Days of a year and less: such a fraction is read more easily than a percentage."""


def model(detail: Mapping[str, Any]) -> Model | None:
    """The price model a stored line was rated with; None for lines by hand and for what is no longer owed."""
    if "model" not in detail:
        return None
    try:
        return parse(detail["model"])
    except RuleError:
        return None


def tier_rows(detail: Mapping[str, Any], locale: str) -> tuple[TierRow, ...]:
    """The price walk of a usage line, step by step, where there are steps to show; () for other prices."""
    parts, found = detail.get("parts") or [], model(detail)
    if len(parts) != 1 or found is None:
        return ()
    steps = parts[0]["steps"]
    converted = isinstance(found, Modified) and (found.bucket is not None or found.conversion is not None)
    if not converted and not isinstance(bare(found), (*TIERED, *SEVERAL)) and len(steps) < 2:
        return ()
    return tuple(_tier_row(step, locale) for step in steps)


def tiers_title(detail: Mapping[str, Any]) -> str:
    """What a step of the price walk is called: "Tier", or "Part" of a price that is more than tiers."""
    return "Tier" if isinstance(model(detail), TIERED) else "Part"


def _tier_row(step: Mapping[str, Any], locale: str) -> TierRow:
    quantity, fee = Decimal(step["quantity"]), Decimal(step["flat_fee"])
    is_lump = not quantity and fee and not _TIER.fullmatch(step["label"])
    return TierRow(
        label=_tier_label(step, locale),
        quantity=quantity,
        unit_price=None if is_lump else Decimal(step["unit_price"]),
        flat_fee=None if is_lump else fee or None,
        amount=Decimal(step["amount"]),
    )


def unit_price(detail: Mapping[str, Any], currency: str, locale: str) -> str:
    """The price of one unit, where there is one: "€8.00 per 1 M", "€99.00", "€0.40 per 1,000"; else ""."""
    if "unit_price" in detail:
        return rendering.unit_price(Decimal(detail["unit_price"]), currency, locale=locale)
    found = model(detail)
    if isinstance(found, Modified):
        if found.conversion is not None or found.bucket is not None:
            return ""
        found = found.model
    match found:
        case Flat():
            return rendering.unit_price(found.flat_price, currency, locale=locale)
        case PerUnit():
            return rendering.unit_price(found.unit_price, currency, locale=locale)
        case Package():
            per = rendering.quantity(found.package_size, locale=locale)
            return f"{rendering.unit_price(found.package_price, currency, locale=locale, scale=1)} per {per}"
        case Graduated() | Volume() if len(found.tiers) == 1:
            return rendering.unit_price(found.tiers[0].unit_price, currency, locale=locale)
    return ""


def price_range(detail: Mapping[str, Any], currency: str, locale: str) -> str:
    """The price list of a usage line in a few words: "3 tiers, €4.80 to €3.20 per 1 M"."""
    found = model(detail)
    bounds: list[tuple[str, Decimal | None]] = []
    if isinstance(found, Modified):
        bounds = [("at least", found.minimum_amount), ("at most", found.maximum_amount)]
    held = (f"{word} {rendering.unit_price(bound, currency, locale=locale, scale=1)}" for word, bound in bounds if bound is not None)
    return ", ".join(words for words in (_price_range(found, detail, currency, locale), *held) if words)


def _price_range(found: Model | None, detail: Mapping[str, Any], currency: str, locale: str) -> str:
    match None if found is None else bare(found):
        case Graduated() | Volume() as tiered if len(tiered.tiers) > 1:
            return f"{len(tiered.tiers)} tiers, {_tier_range(tiered.tiers, currency, locale)}"
        case Stairstep() | GraduatedProrated() | GraduatedPercentage() | GraduatedBlocks() | VolumeBlocks() as tiered:
            return f"{len(tiered.tiers)} tiers" if len(tiered.tiers) > 1 else "one tier"
        case Matrix() as matrix:
            return f"by {' and '.join(matrix.dimensions)}"
        case TimeOfUse():
            return "by time of day"
        case Percentage() as rate:
            return f"{rendering.quantity(rate.rate_percent, locale=locale)} % of each event"
        case Capacity() as sized:
            return f"by size, {len(sized.tiers)} sizes"
        case Dynamic():
            return "the price each event carries"
        case Sum() as added:
            return f"{len(added.parts)} prices added up"
    return unit_price(detail, currency, locale)


def formula(detail: Mapping[str, Any], unit: str, currency: str, locale: str) -> str:
    """How the amount came about, in words a customer can redo on paper; "" where the tiers say it all."""
    parts = detail.get("parts") or []
    if len(parts) > 1:  # seats that changed within the period
        return " + ".join(filter(None, (formula({**detail, "parts": [part]}, unit, currency, locale) for part in parts)))
    if not parts:
        return str(detail.get("formula", ""))
    part, found = parts[0], model(detail)
    if detail.get("kind") in ON_SPEND:
        return str(part["formula"])
    amount = rendering.quantity(Decimal(part["amount"]), locale=locale)
    fraction = "" if part["fraction"] == "1" else f" × {part_of_cycle(part['fraction'])} of the period"
    measured = rendering.quantity(Decimal(part["quantity"]), unit, locale)
    if "included" in part:
        measured = f"{rendering.quantity(Decimal(part['included']), unit, locale)} included, {measured}"
    match found:
        case Flat():
            return f"{rendering.unit_price(found.flat_price, currency, locale=locale)}{fraction} = {amount}" if fraction else ""
        case PerUnit():
            price = rendering.unit_price(found.unit_price, currency, locale=locale, scale=1)
            return f"{measured} × {price}{fraction} = {amount}"
        case Package():
            size = rendering.quantity(found.package_size, locale=locale)
            price = rendering.unit_price(found.package_price, currency, locale=locale, scale=1)
            return f"{measured} in packages of {size}, {found.rounding}: {part['formula']} at {price} = {amount}"
    return f"{part['formula']}{fraction}"


def rounding(detail: Mapping[str, Any], currency: str, locale: str) -> str:
    """What was rounded, if anything was: "38.542805 rounded to €38.54, half away from zero"."""
    exact, rounded = detail.get("exact"), detail.get("rounded", detail.get("amount"))
    if exact is None or rounded is None or Decimal(exact) == Decimal(rounded):
        return ""
    shown = rendering.unit_price(Decimal(rounded), currency, locale=locale, scale=1)
    return f"{rendering.quantity(Decimal(exact), locale=locale)} rounded to {shown}, {detail.get('rounding', '')}".rstrip(", ")


def correction(detail: Mapping[str, Any], currency: str, locale: str) -> str:
    """For a line that changes what was billed before: both amounts."""

    def shown(amount: str) -> str:
        return rendering.unit_price(Decimal(amount), currency, locale=locale, scale=1)

    return f"{shown(detail['owed'])} owed, {shown(detail['billed_before'])} billed before"


def corrected(name: str, detail: Mapping[str, Any]) -> str:
    """What a line gives back is called: the time that was not used, what a prepaid commitment paid for, or the line itself."""
    if detail.get("kind") == Kind.COMMITMENT and detail.get("timing") == Timing.IN_ADVANCE:
        return f"{name}, drawn down"
    return name if detail.get("kind") in ON_SPEND else f"{name}, unused time"


def service(detail: Mapping[str, Any], start: datetime, end: datetime, timezone: str, locale: str) -> str:
    """The service period of a recurring price; of a part of a cycle also which part: "16–30 Jun 2026, 1/2 of 1–30 Jun 2026"."""
    text = rendering.period(start, end, timezone, locale)
    parts = detail.get("parts") or []
    shares = [part_of_cycle(part["fraction"]) for part in parts]
    if not parts or set(shares) == {"1"}:
        return text
    cycle = [datetime.fromisoformat(instant) for instant in detail["cycle"]]
    return f"{text}, {' + '.join(shares)} of {rendering.period(cycle[0], cycle[1], timezone, locale)}"


def part_of_cycle(fraction: str) -> str:
    """A fraction of a cycle as people read it: "1/2", "14/30"; one of seconds as a percentage (the detail keeps it exact)."""
    exact = Fraction(fraction)
    if exact.denominator <= READABLE_DENOMINATOR_MAX:
        return fraction
    return f"{Decimal(exact.numerator * 100) / exact.denominator:.4f} %"


def amount_text(minor: int, currency: str) -> str:
    """The amount as the API writes it, for CSV files."""
    return format_decimal(minor, currency)


def _tier_label(step: Mapping[str, Any], locale: str) -> str:
    """The reach of a tier in place of its number; the label of any other step."""
    named = _TIER.fullmatch(step["label"])
    if named is None:
        return _STEPS.get(str(step["label"]), str(step["label"]))
    reach = _reach(Decimal(step["from"]), step["up_to"], locale)
    of = named["of"] or ""
    return f"{of}{reach[:1].lower() + reach[1:] if of else reach}{named['blocks'] or ''}"


def _reach(lower: Decimal, up_to: str | None, locale: str) -> str:
    if up_to is None:
        return f"Over {rendering.quantity(lower, locale=locale)}" if lower else "All units"
    upper = rendering.quantity(Decimal(up_to), locale=locale)
    return f"Over {rendering.quantity(lower, locale=locale)} to {upper}" if lower else f"First {upper}"


def _tier_range(tiers: tuple[Tier, ...], currency: str, locale: str) -> str:
    prices = [tier.unit_price for tier in tiers]
    scale = max(rendering.price_scale(price) for price in prices)
    first, last = (rendering.unit_price(price, currency, locale=locale, scale=scale) for price in (prices[0], prices[-1]))
    plain = first.split(" per ")[0]
    return f"{plain} to {last}" if prices[0] else f"{rendering.quantity(tiers[0].up_to or 0, locale=locale)} included, then {last}"


def share(amount_minor: int, subtotal_minor: int, currency: str) -> Decimal | None:
    """The part of the subtotal a charge makes up, 0 to 1; None where that means nothing."""
    if subtotal_minor <= 0 or amount_minor < 0:
        return None
    return to_decimal(amount_minor, currency) / to_decimal(subtotal_minor, currency)
