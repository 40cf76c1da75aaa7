"""Tax: each rate is applied once to the sum of its lines, and rounded once."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction

from core.money import EXACT, round_half_up, to_decimal

_PERCENT = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class TaxGroup:
    """All lines of one rate: `net` and `tax` in minor units."""

    rate_percent: Decimal
    net: int
    tax: int


@dataclass(frozen=True, slots=True)
class Totals:
    """An invoice's sums in minor units; `total` is `net + tax`."""

    net: int
    tax: int
    total: int
    groups: tuple[TaxGroup, ...]


def tax_minor(net_minor: int, rate_percent: Decimal, currency: str) -> int:
    """Tax on a net amount, minor units: `rate_percent` 19 is 19 %."""
    with localcontext(EXACT):
        return round_half_up(to_decimal(net_minor, currency) * rate_percent * _PERCENT, currency)


def included_tax_minor(gross_minor: int, rate_percent: Decimal, currency: str) -> int:
    """The tax that a gross amount, minor units, contains."""
    rate = Fraction(rate_percent)
    return round_half_up(Fraction(to_decimal(gross_minor, currency)) * rate / (100 + rate), currency)


def totals(lines: Iterable[tuple[int, Decimal]], currency: str) -> Totals:
    """Sums of an invoice from (net minor units, rate percent) lines, one tax amount per rate, rates ascending.

    Rounding the sum of a rate, not each line, keeps the invoice's tax equal to its taxable sum times the rate (EN 16931, BR-CO-17).
    """
    nets: dict[Decimal, int] = {}
    for net, rate in lines:
        nets[rate] = nets.get(rate, 0) + net
    groups = tuple(TaxGroup(rate, nets[rate], tax_minor(nets[rate], rate, currency)) for rate in sorted(nets))
    net, tax = sum(group.net for group in groups), sum(group.tax for group in groups)
    return Totals(net, tax, net + tax, groups)
