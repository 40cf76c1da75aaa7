"""Licensed quantities of a subscription: its own ("") and those with names, read and held to the plan's bounds. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from core.catalog.models import PlanVersion
from core.catalog.reader import Reader, did_you_mean
from core.money import parse_decimal, plain

OWN = ""
"""The subscription's own quantity among those with names."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of a quantity can be held: at least `least`, at most `most` (None: any number)."""

    least: Decimal = Decimal(0)
    most: Decimal | None = None

    def fault(self, quantity: Decimal) -> str | None:
        """What is wrong with the quantity, as the end of a sentence; None when it keeps the bounds."""
        if quantity < self.least:
            return f"must be at least {plain(self.least)}"
        if self.most is not None and quantity > self.most:
            return f"must be at most {plain(self.most)}"
        return None


def bounds(version: PlanVersion) -> dict[str, Bounds]:
    """The bounds of every quantity the version has prices for, by name; of several prices of one quantity the narrowest hold."""
    found: dict[str, Bounds] = {}
    for rule in version.rules:
        if rule.licensed is None and rule.quantity_min is None and rule.quantity_max is None:
            continue
        known = found.get(rule.licensed or OWN, Bounds())
        most = [bound for bound in (known.most, rule.quantity_max) if bound is not None]
        found[rule.licensed or OWN] = Bounds(max(known.least, rule.quantity_min or Decimal(0)), min(most, default=None))
    return found


def least(version: PlanVersion) -> dict[str, Decimal]:
    """The named quantities that are held even when none was asked for."""
    return {name: bound.least for name, bound in bounds(version).items() if name and bound.least}


def read(reader: Reader, given: Mapping[str, Decimal | str | int], version: PlanVersion, below: str = "") -> dict[str, Decimal]:
    """Quantities by name as numbers; faults for those the version has no price for, and those outside its bounds."""
    known = {rule.licensed for rule in version.rules if rule.licensed}
    found: dict[str, Decimal] = {}
    for name, quantity in given.items():
        if name and name not in known:
            reader.fault(_pointer(name, below), f'{version.plan.name} has no price for "{name[:100]}"{did_you_mean(name, known)}')
        try:
            found[name] = parse_decimal(str(quantity), digits=9, places=6)
        except ValueError as error:
            reader.fault(_pointer(name, below), str(error))
    check(reader, found, version, below)
    return {name: found.get(name, Decimal(0)) for name in given}


def check(reader: Reader, held: Mapping[str, Decimal], version: PlanVersion, below: str = "") -> None:
    """Faults for quantities outside the bounds of the version; those that are not held are not looked at."""
    for name, bound in bounds(version).items():
        fault = bound.fault(held[name]) if name in held else None
        if fault is not None:
            reader.fault(_pointer(name, below), fault)


def _pointer(name: str, below: str) -> str:
    return below + (f"/quantities/{name}" if name else "/quantity")
