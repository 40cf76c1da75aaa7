"""What the prices of a plan come to for typed quantities: one billing period of one subscription, by the kernel that bills. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import NamedTuple

from core.catalog.plan_document import BASE, Plan, Price
from core.errors import FieldError, Invalid
from core.money import EXACT, parse_decimal, plain
from core.periods import Anchor, Interval
from core.pricing.compound import OTHER_HOURS, Capacity, Dynamic, GraduatedProrated, Matrix, Percentage, Sum, TimeOfUse
from core.pricing.models import Model
from core.pricing.modifiers import Modified
from core.pricing.price import Step
from core.pricing.rules import Flat, Graduated, GraduatedBlocks, GraduatedPercentage, Package, PerUnit, Stairstep, Volume, VolumeBlocks
from core.pricing.segments import segments
from core.pricing.terms import ON_SPEND, Kind, Rule, Term, Timing
from core.pricing.timeline import Owed, Part, owed
from core.pricing.usage import ByMetric, Carried, Changes, Events, Grouped, ProratedChange, Several, Usage

BEGIN = date(2026, 6, 1)
"""Of the period that is calculated; a June has 30 days."""
ANY = "any other"
VALUES_MAX = 1_000
_ZERO = Decimal(0)
Typed = Mapping[str, str]


class Ask(NamedTuple):
    """One thing a price has to be told: `many` are numbers in order, separated by spaces."""

    key: str
    label: str
    many: bool = False


class Line(NamedTuple):
    """One price: `minor` for the whole period, which holds `cycles` cycles of the price; `steps` and `formula` explain one of them."""

    price: Price
    minor: int
    cycles: int
    quantity: Decimal
    included: Decimal
    formula: str
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Calculation:
    """The lines in order, the base price first if there is one, and their sum in minor units of `currency`."""

    currency: str
    period: tuple[Interval, int]
    lines: tuple[Line, ...]

    @property
    def total_minor(self) -> int:
        """Before tax."""
        return sum(line.minor for line in self.lines)

    def line(self, price: Price) -> Line | None:
        """The line of the price."""
        return next((line for line in self.lines if line.price is price), None)


def asks(price: Price) -> tuple[Ask, ...]:
    """What the price has to be told; () for a discount or a commitment, which look at the other lines."""
    if price.kind in ON_SPEND:
        return ()
    if price.kind is Kind.RECURRING:
        return () if isinstance(price.model, Flat) else (Ask("held", f"Number of {price.conditions.licensed or 'units held'}"),)
    held = (Ask("held", f"Number of {price.conditions.licensed}"),) if price.conditions.licensed else ()
    return (*_asks(price.model), *held)


def prices_in(plan: Plan, currency: str) -> tuple[Price, ...]:
    """The prices in one of the plan's currencies; its base price is not among them."""
    wanted = None if currency == plan.currency else currency
    return tuple(price for price in plan.prices if price.currency == wanted and price.code != BASE)


def calculate(plan: Plan, typed: Sequence[Typed], currency: str = "") -> Calculation:
    """One period of the plan; `typed` has the answers to `asks` of each of `prices_in`, what is empty counts as 0.

    Invalid with pointers such as /prices/0/use/quantity for answers that are no numbers.
    """
    currency = currency or plan.currency
    prices, faults = list(prices_in(plan, currency)), list[FieldError]()
    within = "" if currency == plan.currency else f"/currencies/{currency}"
    usages: dict[str, Usage] = {}
    rules: list[Rule] = []
    own = next((p for p in plan.prices if p.code == BASE and p.currency == currency), None)
    base = Price(BASE, plan.name, Kind.RECURRING, None, Flat(plan.base_price), plan.billing_mode) if currency == plan.currency else own
    given = [*typed, *({} for _ in prices[len(typed) :])]
    places = list(range(len(prices)))
    if base is not None and base.model != Flat(_ZERO):
        prices.insert(0, base)
        given, places = [{}, *given], [-1, *places]
    for place, price in enumerate(prices):
        answers = _Answers(f"{within}/prices/{places[place]}/use", given[place], faults)
        rules.append(_rule(plan, price, place, answers))
        if price.kind is Kind.USAGE:
            usages[rules[-1].reads] = _usage(price.model, answers)
    if faults:
        raise Invalid("These quantities cannot be priced.", errors=tuple(faults))
    cycles = [(plan.billing_period, plan.interval_count), *(rule.cycle for rule in rules if rule.cycle)]
    period = max(cycles, key=lambda cycle: _anchor(cycle).boundary(1))
    found = _owed(rules, usages, (plan.billing_period, plan.interval_count), period, currency)
    return Calculation(currency, period, tuple(_line(price, found.get(rule.id, [])) for price, rule in zip(prices, rules, strict=True)))


def _owed(
    rules: Sequence[Rule], usages: Mapping[str, Usage], cycle: tuple[Interval, int], period: tuple[Interval, int], currency: str
) -> dict[str, list[Owed]]:
    """What each rule owes in the period: the same usage in each of its cycles that end in it."""
    anchor, end = _anchor(cycle), _anchor(period).boundary(1)
    term = Term("calculator", anchor.boundary(0), end, tuple(rules), Decimal(1), anchor)
    whole = [segment for segment in segments((term,), as_of=end) if segment.window == segment.cycle]
    usage = {(s.rule.reads, s.window.start, s.window.end): usages[s.rule.reads] for s in whole if s.rule.kind is Kind.USAGE}
    found: dict[str, list[Owed]] = {}
    for key, entry in owed(whole, usage, currency).items():
        found.setdefault(key.rule_id, []).append(entry)
    return found


def _anchor(cycle: tuple[Interval, int]) -> Anchor:
    return Anchor(cycle[0], cycle[1], BEGIN, "UTC")


def _rule(plan: Plan, price: Price, place: int, answers: _Answers) -> Rule:
    said, name = price.conditions, str(place)
    model = price.model
    if plan.kind == "add_on" and price.code == BASE and isinstance(model, Flat):
        model = PerUnit(model.flat_price)
    held = answers.one("held") if any(ask.key == "held" for ask in asks(price)) else Decimal(1)
    return Rule(
        id=name,
        code=price.code,
        kind=price.kind,
        timing=Timing(price.billing_mode),
        model=model,
        metric_id=name if price.kind is Kind.USAGE else None,
        prorate=said.proration or plan.proration,
        licensed=said.licensed,
        quantity=held,
        cycle=said.cycle,
        included=said.included,
        covers=frozenset(said.covers) if said.covers is not None else None,
        overage_factor=said.overage_factor,
    )


def _line(price: Price, entries: Sequence[Owed]) -> Line:
    if not entries:
        return Line(price, 0, 0, _ZERO, _ZERO, "", ())
    part = entries[0].parts[0]
    minor = sum(entry.minor for entry in entries)
    if not isinstance(part, Part):
        return Line(price, minor, len(entries), part.quantity, _ZERO, part.formula, ())
    told = part.explain()
    return Line(price, minor, len(entries), part.quantity + part.included, part.included, told.formula, told.steps)


class _Answers:
    """What was typed for one price; what is no number becomes a fault at its place."""

    def __init__(self, pointer: str, typed: Typed, faults: list[FieldError], prefix: str = "") -> None:
        self._pointer, self._typed, self._faults, self._prefix = pointer, typed, faults, prefix

    def below(self, prefix: str) -> _Answers:
        """The answers whose keys begin so."""
        return _Answers(self._pointer, self._typed, self._faults, self._prefix + prefix)

    def one(self, key: str) -> Decimal:
        """A number; 0 where nothing was typed."""
        return self._number(key, self._typed.get(self._prefix + key, "").strip() or "0")

    def many(self, key: str) -> tuple[Decimal, ...]:
        """Numbers in order."""
        words = self._typed.get(self._prefix + key, "").replace(";", " ").split()
        if len(words) > VALUES_MAX:
            self._fault(key, f"must be at most {VALUES_MAX} numbers")
        return tuple(self._number(key, word) for word in words[:VALUES_MAX])

    def _number(self, key: str, word: str) -> Decimal:
        try:
            return parse_decimal(word.replace(",", "") if word.count(".") <= 1 else word)
        except ValueError as error:
            self._fault(key, str(error))
            return _ZERO

    def _fault(self, key: str, detail: str) -> None:
        self._faults.append(FieldError(f"{self._pointer}/{self._prefix}{key}", detail))


def _asks(model: Model) -> tuple[Ask, ...]:
    match model:
        case Modified() if model.bucket is not None:
            return (Ask("buckets", f"Used in each {model.bucket.value}", many=True),)
        case Modified():
            return _asks(model.model)
        case Percentage():
            return (Ask("events", "Amount of each event", many=True),)
        case GraduatedProrated():
            return (Ask("units", "Units that came", many=True), Ask("shares", "Each there for so many % of the period", many=True))
        case Capacity():
            return tuple(Ask(f"of_{code}", f"Used of {code}") for code in model.metrics)
        case Matrix():
            cells = (Ask(f"cell_{i}", f"Used of {' · '.join(cell.values.values())}") for i, cell in enumerate(model.cells))
            return (*cells, Ask("cell_other", "Used of all others"))
        case TimeOfUse():
            return (*(Ask(f"slot_{i}", f"Used in {slot.name}") for i, slot in enumerate(model.slots)), Ask("slot_other", "In other hours"))
        case Dynamic() if model.amount_property is not None:
            return (Ask("quantity", "Quantity"), Ask("amount", "Amount that the events carry"))
        case Sum():
            parts = ((i, part.metric or "", ask) for i, part in enumerate(model.parts) for ask in _asks(part.price))
            return tuple(Ask(f"part_{i}_{ask.key}", f"{ask.label}{f' of {name}' if name else ''}", ask.many) for i, name, ask in parts)
    return (Ask("quantity", "Quantity"),)


def _usage(model: Model, answers: _Answers) -> Usage:
    match model:
        case Modified() if model.bucket is not None:
            return Grouped({(str(i),): quantity for i, quantity in enumerate(answers.many("buckets"))})
        case Modified():
            return _usage(model.model, answers)
        case Percentage():
            return Events(answers.many("events"))
        case GraduatedProrated():
            units, shares = answers.many("units"), answers.many("shares")
            whole = (*shares, *(Decimal(100) for _ in units[len(shares) :]))
            return Changes(tuple(ProratedChange(unit, unit * share / 100) for unit, share in zip(units, whole, strict=False)))
        case Capacity():
            return ByMetric({code: answers.one(f"of_{code}") for code in model.metrics})
        case Matrix():
            return Grouped(_combinations(model, answers))
        case TimeOfUse():
            used: dict[tuple[str, ...], Decimal] = {(slot.name,): answers.one(f"slot_{i}") for i, slot in enumerate(model.slots)}
            return Grouped({**used, (OTHER_HOURS,): answers.one("slot_other")})
        case Dynamic() if model.amount_property is not None:
            return Carried(answers.one("quantity"), answers.one("amount"))
        case Sum():
            return Several(tuple(_usage(part.price, answers.below(f"part_{i}_")) for i, part in enumerate(model.parts)))
    return answers.one("quantity")


def _combinations(model: Matrix, answers: _Answers) -> dict[tuple[str, ...], Decimal]:
    found: dict[tuple[str, ...], Decimal] = {}
    for i, cell in enumerate(model.cells):
        key = tuple(cell.values.get(name, ANY) for name in model.dimensions)
        found[key] = found.get(key, _ZERO) + answers.one(f"cell_{i}")
    found[(ANY,) * len(model.dimensions)] = answers.one("cell_other")
    return found


def sample(price: Price) -> dict[str, str]:
    """Answers to `asks` that show how the price works: a little more than the last bound, a few events, a few hours."""
    found = {ask.key: _sample(price.model, ask.key) for ask in asks(price)}
    if price.conditions.included and "quantity" in found:
        found["quantity"] = plain(Decimal(found["quantity"]) + price.conditions.included * (5 if "held" in found else 1))
    return found


def _sample(model: Model, key: str) -> str:
    inner = model.model if isinstance(model, Modified) else model
    if isinstance(inner, Sum) and key.startswith("part_"):
        _, place, rest = key.split("_", 2)
        return _sample(inner.parts[int(place)].price, rest)
    if isinstance(inner, Capacity) and key.startswith("of_"):
        limit = inner.tiers[0].limits.get(key.removeprefix("of_"))
        return plain((limit or Decimal(100)) / 2)
    if key == "quantity":
        return plain(_past_bounds(inner))
    known = {"held": "5", "events": "50 100 250 400", "units": "5 2", "shares": "100 50", "buckets": "3 8 5", "amount": "120"}
    return known.get(key, "40" if key.endswith("_other") else "100")


def _past_bounds(model: Model) -> Decimal:
    """A quantity that reaches every tier, or a package begun."""
    if isinstance(model, Package):
        return (model.package_size * Decimal("2.5") + model.free_units).normalize(EXACT)
    tiers = model.tiers if isinstance(model, Graduated | Volume | Stairstep | GraduatedPercentage | GraduatedBlocks | VolumeBlocks) else ()
    last = max((tier.up_to for tier in tiers if tier.up_to is not None), default=Decimal(10_000))
    return (last * Decimal("1.05")).quantize(Decimal(1)) if last >= 20 else last + 1
