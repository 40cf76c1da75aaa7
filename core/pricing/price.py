"""What a quantity costs under a price model, and how that came about. Amounts are major units before rounding to the currency."""

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

from core.money import plain
from core.pricing.rules import (
    AnyTier,
    BlockTier,
    Flat,
    Graduated,
    GraduatedBlocks,
    GraduatedPercentage,
    Package,
    PerUnit,
    PriceModel,
    RateTier,
    Stairstep,
    Tier,
    Volume,
    VolumeBlocks,
)

_ZERO = Decimal(0)
LABELS = 32
_LABELS = tuple(f"tier {i}" for i in range(1, LABELS + 1))  # looking one up costs a fifth of making one
_new = tuple.__new__  # a named tuple's own constructor costs as much as the arithmetic it reports


class QuantityError(ValueError):
    """A negative quantity has no price. Whoever measures usage bills a negative total as 0."""

    def __init__(self, quantity: Decimal) -> None:
        super().__init__(f"quantity must not be negative, got {quantity}")


class Step(NamedTuple):
    """One step of an explanation: `quantity` units above `from_` up to `up_to`, at `unit_price` each, plus `flat_fee`."""

    label: str
    from_: Decimal
    up_to: Decimal | None
    quantity: Decimal
    unit_price: Decimal
    flat_fee: Decimal
    amount: Decimal

    def detail(self) -> dict[str, str | None]:
        """The step as JSON values, decimals as strings."""
        return {
            "label": self.label,
            "from": plain(self.from_),
            "up_to": None if self.up_to is None else plain(self.up_to),
            "quantity": plain(self.quantity),
            "unit_price": plain(self.unit_price),
            "flat_fee": plain(self.flat_fee),
            "amount": plain(self.amount),
        }


class Explanation(NamedTuple):
    """How an amount came about: `amount` equals `price()` and is the sum of the steps."""

    model: PriceModel
    quantity: Decimal
    amount: Decimal
    steps: tuple[Step, ...]

    @property
    def formula(self) -> str:
        """The rule in words."""
        match self.model:
            case PerUnit():
                return f"{self.quantity:f} × {self.model.unit_price:f}"
            case Graduated() | GraduatedPercentage():
                return "each unit at the price of its tier"
            case Volume():
                return "all units at the price of the tier the total falls in"
            case Package():
                return _package_formula(self.model, self.quantity)
            case Flat():
                return "one price for the cycle"
            case Stairstep():
                return "the fee of the tier the total falls in"
            case GraduatedBlocks():
                return "each tier's units in begun blocks of that tier"
            case VolumeBlocks():
                return "all units in begun blocks of the tier the total falls in"


def price(model: PriceModel, quantity: Decimal) -> Decimal:
    """Amount for `quantity` under `model`, unrounded; `QuantityError` if it is negative.

    Exact while the amount's digits fit the active decimal context; `money.EXACT` holds any accepted price and quantity.
    """
    if quantity < _ZERO:
        raise QuantityError(quantity)
    match model:
        case PerUnit():
            return quantity * model.unit_price
        case Graduated():
            return _graduated(model.tiers, quantity)
        case Volume():
            tier = model.tiers[tier_index(model.tiers, quantity)]
            return quantity * tier.unit_price + tier.flat_fee
        case Package():
            return packages(model, quantity) * model.package_price
        case Flat():
            return model.flat_price
        case GraduatedPercentage():
            return _graduated(model.tiers, quantity)
        case Stairstep():
            return model.tiers[tier_index(model.tiers, quantity)].flat_fee
        case GraduatedBlocks():
            return sum((step.amount for step in _block_steps(model.tiers, quantity)), _ZERO)
        case VolumeBlocks():
            block = model.tiers[tier_index(model.tiers, quantity)]
            return blocks(quantity, block.block_size) * block.block_price


def tier_index(tiers: Sequence[AnyTier], quantity: Decimal) -> int:
    """Position of the tier that holds the total `quantity` (bounds inclusive); the last one when all are bounded and passed."""
    for i, tier in enumerate(tiers):
        up_to = tier.up_to
        if up_to is None or quantity <= up_to:
            return i
    return len(tiers) - 1


def packages(model: Package, quantity: Decimal) -> Decimal:
    """Number of packages billed for `quantity`."""
    billable = quantity - model.free_units
    if billable <= _ZERO:
        return _ZERO
    return blocks(billable, model.package_size) if model.rounding == "up" else billable // model.package_size


def blocks(quantity: Decimal, size: Decimal) -> Decimal:
    """Number of blocks of `size` that `quantity` begins."""
    full, rest = divmod(quantity, size)  # not -(-q // size): Decimal's // truncates toward zero
    return full + 1 if rest else full


def _graduated(tiers: tuple[Tier | RateTier, ...], quantity: Decimal) -> Decimal:
    amount = lower = _ZERO
    for tier in tiers:
        up_to = tier.up_to
        if up_to is None or quantity <= up_to:
            return amount + (quantity - lower) * tier.unit_price + tier.flat_fee
        amount += (up_to - lower) * tier.unit_price + tier.flat_fee
        lower = up_to
    return amount


def explain(model: PriceModel, quantity: Decimal) -> Explanation:
    """`price()` with the steps that lead to it, for invoice lines and pages; exact and refusing as `price()`."""
    if quantity < _ZERO:
        raise QuantityError(quantity)
    match model:
        case PerUnit():
            amount = quantity * model.unit_price
            step = _new(Step, ("per unit", _ZERO, None, quantity, model.unit_price, _ZERO, amount))
            return _new(Explanation, (model, quantity, amount, (step,)))
        case Graduated():
            return _explained_tiers(model, quantity)
        case Volume():
            step = _whole_step(model.tiers, quantity, priced=True)
            return _new(Explanation, (model, quantity, step.amount, (step,)))
        case Package():
            count = packages(model, quantity)
            amount = count * model.package_price
            step = _new(Step, ("packages", model.free_units, None, count, model.package_price, _ZERO, amount))
            return _new(Explanation, (model, quantity, amount, (step,)))
        case Flat():
            return _explained(model, quantity, [_step("flat price", _ZERO, None, _ZERO, _ZERO, model.flat_price)])
        case GraduatedPercentage():
            return _explained_tiers(model, quantity)
        case Stairstep():
            return _explained(model, quantity, [_whole_step(model.tiers, quantity, priced=False)])
        case GraduatedBlocks():
            return _explained(model, quantity, _block_steps(model.tiers, quantity))
        case VolumeBlocks():
            return _explained(model, quantity, [_block_step(tier_index(model.tiers, quantity), model.tiers, quantity, _ZERO)])


def _explained(model: PriceModel, quantity: Decimal, steps: list[Step]) -> Explanation:
    amount = steps[0].amount
    for step in steps[1:]:
        amount += step.amount
    return _new(Explanation, (model, quantity, amount, tuple(steps)))


def _step(label: str, from_: Decimal, up_to: Decimal | None, quantity: Decimal, unit_price: Decimal, flat_fee: Decimal) -> Step:
    return Step(label, from_, up_to, quantity, unit_price, flat_fee, quantity * unit_price + flat_fee)


def _whole_step(tiers: tuple[Tier, ...], quantity: Decimal, *, priced: bool) -> Step:
    """The whole quantity at the tier it falls in; the last one when all are bounded and passed."""
    lower, last = _ZERO, len(tiers) - 1
    for i, tier in enumerate(tiers):
        up_to = tier.up_to
        if up_to is None or quantity <= up_to or i == last:
            break
        lower = up_to
    unit_price, flat_fee = tier.unit_price if priced else _ZERO, tier.flat_fee
    label = _LABELS[i] if i < LABELS else _label(i)
    return _new(Step, (label, lower, up_to, quantity, unit_price, flat_fee, quantity * unit_price + flat_fee))


def _explained_tiers(model: Graduated | GraduatedPercentage, quantity: Decimal) -> Explanation:
    steps: list[Step] = []
    amount = lower = _ZERO
    tiers: tuple[Tier | RateTier, ...] = model.tiers
    for i, tier in enumerate(tiers):
        up_to, unit_price, flat_fee = tier.up_to, tier.unit_price, tier.flat_fee
        last = up_to is None or quantity <= up_to
        units = (quantity if last or up_to is None else up_to) - lower
        costs = units * unit_price + flat_fee
        steps.append(_new(Step, (_LABELS[i] if i < LABELS else _label(i), lower, up_to, units, unit_price, flat_fee, costs)))
        amount += costs
        if last or up_to is None:
            break
        lower = up_to
    return _new(Explanation, (model, quantity, amount, tuple(steps)))


def _block_steps(tiers: tuple[BlockTier, ...], quantity: Decimal) -> list[Step]:
    return [_block_step(i, tiers, units, lower) for i, lower, units in _reached(tiers, quantity)]


def _reached(tiers: tuple[BlockTier, ...], quantity: Decimal) -> list[tuple[int, Decimal, Decimal]]:
    """The tiers that a graduated `quantity` reaches, each as (position, lower bound, units in it); the first is always reached."""
    reached: list[tuple[int, Decimal, Decimal]] = []
    lower = _ZERO
    for i, tier in enumerate(tiers):
        if tier.up_to is None or quantity <= tier.up_to:
            return [*reached, (i, lower, quantity - lower)]
        reached.append((i, lower, tier.up_to - lower))
        lower = tier.up_to
    return reached


def _block_step(i: int, tiers: tuple[BlockTier, ...], units: Decimal, lower: Decimal) -> Step:
    tier = tiers[i]
    label = f"{_label(i)}, blocks of {tier.block_size:f}"
    return _step(label, lower, tier.up_to, blocks(units, tier.block_size), tier.block_price, _ZERO)


def _label(i: int) -> str:
    return f"tier {i + 1}"


def _package_formula(model: Package, quantity: Decimal) -> str:
    begun = "begun" if model.rounding == "up" else "full"
    free = f" after {model.free_units:f} free" if model.free_units else ""
    count = packages(model, quantity)
    return f"{quantity:f} units{free} are {count:f} {begun} packages of {model.package_size:f}, {model.package_price:f} each"
