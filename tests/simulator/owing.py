"""What a modelled life owes, worked out a second time in exact fractions, and what its invoices come to run by run.

It shares no calendar, proration or timeline code with the product, and prices by tests.pricing.oracle.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

from core.pricing.rules import Flat
from tests.pricing import oracle
from tests.simulator.held import DIGITS, Beside, Plan, Price, Stretch
from tests.simulator.model import Life
from tests.simulator.wall import TICK, cycles, part_of

Key = tuple[str, str, datetime]
"""Plan, price, beginning of the cycle."""
Usage = Mapping[str, Sequence[tuple[datetime, Decimal]]]
"""(instant, quantity) by metric."""
FOREVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Owes:
    """What is owed for one key: minor units, whether less than was billed is given back, and what kind of price it is."""

    minor: int
    credits: bool
    kind: str = "price"


@dataclass(frozen=True)
class Piece:
    """The part [start, end) of the cycle up to `over` that one price covers; `units` are held, `days` measures parts, `looks_at` names
    the prices that count for a price on spend."""

    start: datetime
    end: datetime
    over: datetime
    plan: Plan
    price: Price
    units: Decimal
    days: str
    credits: bool
    looks_at: frozenset[tuple[str, str]] = frozenset()


def owed(life: Life, as_of: datetime, usage: Usage) -> dict[Key, Owes]:
    """Everything owed by `as_of`: first prices, then discounts, each on what the ones before it left, then commitments."""
    due = {key: found for key, pieces in _pieces(life, as_of).items() if (found := [p for p in pieces if _due_at(p[0], p[-1]) <= as_of])}
    owes: dict[Key, Owes] = {}
    for key, groups in due.items():
        if groups[0][0].price.kind == "price":
            owes[key] = _of_price(life, key, groups, usage)
    for key in sorted((key for key in due if due[key][0][0].price.kind != "price"), key=lambda key: _rank(life, due[key][0][0])):
        mine = [piece for group in due[key] for piece in group]
        cycle = key[2], mine[0].over
        seen = {other: entry for other, entry in owes.items() if _counts(cycle, mine, [piece for group in due[other] for piece in group])}
        owes[key] = _of_spend(life, key, mine, seen)
    return owes


def _counts(cycle: tuple[datetime, datetime], mine: list[Piece], line: list[Piece]) -> bool:
    """Whether a line is billed for time in the cycle, and shares some of the time in which the price on spend holds."""
    in_advance = line[0].price.metric is None and line[0].price.in_advance
    moment = line[0].start if in_advance else line[-1].end - TICK
    return cycle[0] <= moment < cycle[1] and any(a.start < b.end and b.start < a.end for a in mine for b in line)


def billed_next(billed: Mapping[Key, int], owes: Mapping[Key, Owes]) -> dict[Key, int]:
    """What is billed in all after one more run. Where unused time is not given back, the discount on it stays as well."""
    after = dict(billed)
    for key, entry in owes.items():
        before = billed.get(key, 0)
        back = entry.minor < before if entry.kind == "price" else entry.kind == "discount" and entry.minor > before
        after[key] = before if back and not entry.credits else entry.minor
    for key in billed.keys() - owes.keys():
        after[key] = 0
    return after


def _pieces(life: Life, as_of: datetime) -> dict[Key, list[list[Piece]]]:
    """What each price covers of each cycle that has begun; of what stays whole, pieces that adjoin are one group."""
    found: dict[Key, list[list[Piece]]] = {}
    for stretch in life.stretches:
        if stretch.is_trial or stretch.start > as_of:
            continue
        end = stretch.end or FOREVER
        held = list(_held(life, stretch))
        for place, (plan, price, units, (first, last)) in enumerate(held):
            billed_like = plan if plan.kind == "add_on" else stretch.plan
            interval, count = price.cycle or (billed_like.interval, billed_like.count)
            hang = replace(stretch.hang, interval=interval, count=count)
            looks_at = _looked_at(place, held) if price.kind != "price" else frozenset()
            for begin, over in cycles(hang, life.timezone, stretch.start, min(as_of, end)):
                a, b = max(begin, first), min(over, last)
                if a < b and a <= as_of:
                    days = "none" if plan.kind == "coupon" else plan.days
                    piece = Piece(a, b, over, plan, price, units, days, stretch.plan.credits, looks_at)
                    _put(found.setdefault((plan.name, price.name, begin), []), piece)
    return found


def _held(life: Life, stretch: Stretch) -> Iterator[tuple[Plan, Price, Decimal, tuple[datetime, datetime]]]:
    """The prices of a stretch: the plan's, then those of what is beside it, in the order it was attached."""
    end = stretch.end or FOREVER
    for price in stretch.plan.prices:
        yield stretch.plan, price, _units(price, stretch.held.units, stretch), (stretch.start, end)
    for item in in_order(life.beside):
        first, last = max(item.start, stretch.start), min(item.end or FOREVER, end)
        for price in item.plan.prices if first < last else ():
            yield item.plan, price, _units(price, item.units, stretch), (first, last)


def in_order(beside: Sequence[Beside]) -> list[Beside]:
    """As they were attached; what holds from the same instant, as it came."""
    return sorted(beside, key=lambda item: item.start)


def _units(price: Price, own: Decimal, stretch: Stretch) -> Decimal:
    return own if price.named is None else stretch.held.seats


def _looked_at(place: int, held: Sequence[tuple[Plan, Price, Decimal, object]]) -> frozenset[tuple[str, str]]:
    """What the price on spend at this place counts: prices, and discounts: of a commitment all, of a discount those before it."""
    plan, price, _, _ = held[place]
    return frozenset(
        (other_plan.name, other.name)
        for n, (other_plan, other, _, _) in enumerate(held)
        if (other.kind == "price" or (other.kind == "discount" and (n < place or price.kind == "commitment")))
        and (price.covers is None or other.name in price.covers)
        and (other_plan.name, other.name) != (plan.name, price.name)
    )


def _put(groups: list[list[Piece]], piece: Piece) -> None:
    whole = piece.price.metric is not None or piece.days == "none" or piece.price.kind != "price"
    if whole and groups and groups[-1][-1].end == piece.start:
        groups[-1].append(piece)
    else:
        groups.append([piece])


def _due_at(first: Piece, last: Piece) -> datetime:
    in_advance = first.price.metric is None and first.price.in_advance
    return first.start if in_advance else last.end


def _of_price(life: Life, key: Key, groups: list[list[Piece]], usage: Usage) -> Owes:
    first, pieces = groups[0][0], [piece for group in groups for piece in group]
    price = first.price
    gives_back = price.metric is not None or all(group[0].credits for group in groups)
    if price.metric is not None:
        used = sum((q for at, q in usage.get(price.metric, ()) if any(p.start <= at < p.end for p in pieces)), Decimal(0))
        counted = pieces[:1] if first.days == "none" else pieces
        each = Fraction(price.included)
        free = sum((each * (Fraction(p.units) if price.named else 1) * _part(life, key, p) for p in counted), Fraction(0))
        amount = oracle.price(price.model, max(used - _twelve_places(free), Decimal(0)))
    elif first.days == "none":
        amount = oracle.price(price.model, first.units)
    else:
        amount = sum((oracle.price(price.model, p.units) * _part(life, key, p) for p in pieces), Fraction(0))
    return Owes(oracle.minor(amount, DIGITS[life.currency]), gives_back)


def _of_spend(life: Life, key: Key, pieces: list[Piece], owes: Mapping[Key, Owes]) -> Owes:
    first, digits = pieces[0], DIGITS[life.currency]
    looks_at = frozenset().union(*(piece.looks_at for piece in pieces))
    spend = max(sum(o.minor for (plan, name, _), o in owes.items() if (plan, name) in looks_at), 0)
    full = oracle.price(first.price.model, Decimal(spend).scaleb(-digits))
    share = Fraction(1) if first.days == "none" else sum((_part(life, key, piece) for piece in pieces), Fraction(0))
    gives_back = first.credits
    if first.price.kind == "discount":
        off = oracle.minor(full * (share if isinstance(first.price.model, Flat) else 1), digits)
        return Owes(-min(off, spend), gives_back, "discount")
    target = oracle.minor(full * share, digits)
    over = max(spend - target, 0) * (Fraction(first.price.factor) - 1)
    return Owes(oracle.minor(max(target - spend, 0) + over, 0), gives_back, "commitment")


def _rank(life: Life, piece: Piece) -> tuple[bool, bool, datetime, int]:
    """The order in which prices on spend look: the plans' discounts, coupons as attached, commitments."""
    place = next((n for n, item in enumerate(in_order(life.beside)) if item.plan == piece.plan and item.lasts(piece.start)), 0)
    if piece.plan.kind == "plan":
        return piece.price.kind == "commitment", False, piece.start, piece.plan.prices.index(piece.price)
    return False, True, FOREVER, place


def _part(life: Life, key: Key, piece: Piece) -> Fraction:
    return part_of(piece.start, piece.end, key[2], piece.over, piece.days, life.timezone)


def _twelve_places(units: Fraction) -> Decimal:
    return Decimal(oracle.minor(units, 12)).scaleb(-12)
