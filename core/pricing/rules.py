"""Price models of one quantity as plain values, and their JSON form; those of several quantities are in core.pricing.models."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import TypeVar

from core.money import plain
from core.pricing.fields import RuleError, amount, only, positive

__all__ = [
    "MODEL_NAMES", "AnyTier", "BlockTier", "Flat", "Graduated", "GraduatedBlocks", "GraduatedPercentage", "Package", "PerUnit",
    "PriceModel", "RateTier", "RuleError", "Stairstep", "Tier", "Volume", "VolumeBlocks", "name_of", "parse_model", "to_json",
]  # fmt: skip

_ZERO = Decimal(0)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Tier:
    """Quantities above the tier before it, up to and including `up_to` (None: without end)."""

    up_to: Decimal | None
    unit_price: Decimal = _ZERO
    flat_fee: Decimal = _ZERO


@dataclass(frozen=True, slots=True)
class RateTier:
    """As `Tier`, with a percentage of the amount in place of a unit price: `rate_percent` 2 is 2 %."""

    up_to: Decimal | None
    rate_percent: Decimal = _ZERO
    flat_fee: Decimal = _ZERO

    @property
    def unit_price(self) -> Decimal:
        """The rate as a price per unit of the amount."""
        return self.rate_percent.scaleb(-2)


@dataclass(frozen=True, slots=True)
class BlockTier:
    """As `Tier`, sold in blocks of `block_size` units for `block_price` each; a block begun is a block paid."""

    up_to: Decimal | None
    block_size: Decimal
    block_price: Decimal


@dataclass(frozen=True, slots=True)
class Flat:
    """One price, whatever the quantity."""

    flat_price: Decimal


@dataclass(frozen=True, slots=True)
class PerUnit:
    """Quantity times `unit_price`."""

    unit_price: Decimal


@dataclass(frozen=True, slots=True)
class Graduated:
    """Each unit at the price of the tier it falls in; a tier's flat fee once when the tier is reached, the first tier's at 0 units.

    Units past a bounded last tier have no price and cost nothing.
    """

    tiers: tuple[Tier, ...]


@dataclass(frozen=True, slots=True)
class Volume:
    """All units at the price of the tier the total falls in, plus that tier's flat fee; past a bounded last tier its price goes on."""

    tiers: tuple[Tier, ...]


@dataclass(frozen=True, slots=True)
class Stairstep:
    """The flat fee of the tier the total falls in; past a bounded last tier its fee stays."""

    tiers: tuple[Tier, ...]


@dataclass(frozen=True, slots=True)
class Package:
    """`package_price` for every package of `package_size` units begun after `free_units`; with rounding "down", for every full one."""

    package_size: Decimal
    package_price: Decimal
    free_units: Decimal = _ZERO
    rounding: str = "up"


@dataclass(frozen=True, slots=True)
class GraduatedPercentage:
    """A percentage of an amount, the quantity in major units: each part at the rate of its tier; flat fees as in `Graduated`."""

    tiers: tuple[RateTier, ...]


@dataclass(frozen=True, slots=True)
class GraduatedBlocks:
    """Each tier's units in blocks of that tier; units past a bounded last tier cost nothing."""

    tiers: tuple[BlockTier, ...]


@dataclass(frozen=True, slots=True)
class VolumeBlocks:
    """All units in blocks of the tier the total falls in; past a bounded last tier its blocks go on."""

    tiers: tuple[BlockTier, ...]


PriceModel = Flat | PerUnit | Graduated | Volume | Stairstep | Package | GraduatedPercentage | GraduatedBlocks | VolumeBlocks
AnyTier = Tier | RateTier | BlockTier
_NAMES: dict[type, str] = {
    Flat: "flat",
    PerUnit: "per_unit",
    Graduated: "graduated",
    Volume: "volume",
    Stairstep: "stairstep",
    Package: "package",
    GraduatedPercentage: "graduated_percentage",
    GraduatedBlocks: "graduated_blocks",
    VolumeBlocks: "volume_blocks",
}
MODEL_NAMES = tuple(_NAMES.values())


def name_of(model: PriceModel) -> str:
    """The `model` word of the JSON form."""
    return _NAMES[type(model)]


def parse_model(data: Mapping[str, object]) -> PriceModel:
    """A price model from its JSON object: amounts as decimal strings in major units. `RuleError` names the first value that is wrong.

    A key the model does not have is refused, so a misspelt price is never a free one.
    """
    if not isinstance(data, Mapping):
        raise RuleError("", "must be an object")
    rest = {key: value for key, value in data.items() if key != "model"}
    match data.get("model"):
        case "flat":
            return Flat(_only_amount(rest, "flat_price"))
        case "per_unit":
            return PerUnit(_only_amount(rest, "unit_price"))
        case "graduated":
            return Graduated(_tiers(rest, _tier))
        case "volume":
            return Volume(_tiers(rest, _tier))
        case "stairstep":
            return Stairstep(_tiers(rest, _tier))
        case "package":
            return _package(rest)
        case "graduated_percentage":
            return GraduatedPercentage(_tiers(rest, _rate_tier))
        case "graduated_blocks":
            return GraduatedBlocks(_tiers(rest, _block_tier))
        case "volume_blocks":
            return VolumeBlocks(_tiers(rest, _block_tier))
        case _:
            raise RuleError("/model", f"must be one of {', '.join(MODEL_NAMES)}")


def to_json(model: PriceModel) -> dict[str, object]:
    """The JSON form that `parse_model` reads back to an equal model."""
    return {"model": name_of(model), **_plain(model)}


def _plain(value: PriceModel | AnyTier) -> dict[str, object]:
    out: dict[str, object] = {}
    for field in fields(value):
        item = getattr(value, field.name)
        if isinstance(item, tuple):
            item = [_plain(tier) for tier in item]
        elif isinstance(item, Decimal):
            item = plain(item)
        out[field.name] = item
    return out


def _only_amount(data: Mapping[str, object], key: str) -> Decimal:
    only(data, {key}, "")
    return amount(data, key, "")


def _package(data: Mapping[str, object]) -> Package:
    only(data, {"package_size", "package_price", "free_units", "rounding"}, "")
    size = positive(data, "package_size", "")
    rounding = data.get("rounding", "up")
    if rounding not in ("up", "down"):
        raise RuleError("/rounding", 'must be "up" or "down"')
    return Package(size, amount(data, "package_price", ""), amount(data, "free_units", "", _ZERO), str(rounding))


def _tiers(data: Mapping[str, object], parse: Callable[[Mapping[str, object], str, Decimal | None], T]) -> tuple[T, ...]:
    """The tiers, each bound above the one before it, so that a gap or an overlap cannot be written down."""
    only(data, {"tiers"}, "")
    items = data.get("tiers")
    if not isinstance(items, list) or not items:
        raise RuleError("/tiers", "must be a list of at least one tier")
    tiers: list[T] = []
    lower = _ZERO
    for i, item in enumerate(items):
        pointer = f"/tiers/{i}"
        if not isinstance(item, Mapping):
            raise RuleError(pointer, "must be an object")
        if "up_to" not in item:
            raise RuleError(f"{pointer}/up_to", "is missing; null means without end")
        up_to = None if item["up_to"] is None else amount(item, "up_to", pointer)
        if up_to is None and i < len(items) - 1:
            raise RuleError(f"{pointer}/up_to", "only the last tier may be without end")
        if up_to is not None and up_to <= lower:
            raise RuleError(f"{pointer}/up_to", "must be more than the tier before it")
        tiers.append(parse(item, pointer, up_to))
        lower = up_to or lower
    return tuple(tiers)


def _tier(item: Mapping[str, object], pointer: str, up_to: Decimal | None) -> Tier:
    return Tier(up_to, *_price_and_fee(item, pointer, "unit_price"))


def _rate_tier(item: Mapping[str, object], pointer: str, up_to: Decimal | None) -> RateTier:
    return RateTier(up_to, *_price_and_fee(item, pointer, "rate_percent"))


def _price_and_fee(item: Mapping[str, object], pointer: str, price: str) -> tuple[Decimal, Decimal]:
    only(item, {"up_to", price, "flat_fee"}, pointer)
    if price not in item and "flat_fee" not in item:
        raise RuleError(pointer, f"must have a {price} or a flat_fee")
    return amount(item, price, pointer, _ZERO), amount(item, "flat_fee", pointer, _ZERO)


def _block_tier(item: Mapping[str, object], pointer: str, up_to: Decimal | None) -> BlockTier:
    only(item, {"up_to", "block_size", "block_price"}, pointer)
    return BlockTier(up_to, positive(item, "block_size", pointer), amount(item, "block_price", pointer))
