"""Licensed quantities in forms: a field for each that a plan has prices for, and what was typed into them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from core import rendering
from core.catalog.models import PlanVersion
from core.catalog.reader import Reader
from core.errors import Invalid
from core.pricing.terms import Kind
from core.subscriptions import quantities
from core.subscriptions.models import SubscriptionTerm
from core.subscriptions.quantities import OWN, Bounds


@dataclass(frozen=True, slots=True)
class Licensed:
    """A quantity that can be changed: the field it has, what it is called, how much is held, and what it may be."""

    field: str
    label: str
    held: Decimal
    hint: str


def fields(version: PlanVersion, term: SubscriptionTerm | None) -> list[Licensed]:
    """The quantities of the plan version with what the term holds of them, its own first. A flat price has none."""
    labels: dict[str, str] = {}
    for rule in version.rules:
        if rule.kind == Kind.RECURRING and (rule.licensed or rule.model != "flat"):
            labels.setdefault(rule.licensed or OWN, rule.name if rule.licensed else "Quantity")
    for rule in version.rules:
        if rule.licensed:
            labels.setdefault(rule.licensed, label(rule.licensed))
    known = quantities.bounds(version)
    found = []
    for name, said in sorted(labels.items(), key=lambda pair: pair[0] != OWN):
        bound = known.get(name, Bounds())
        found.append(Licensed(field_of(name), said, max(_held(term, name), bound.least), _hint(bound)))
    return found


def typed(form: Mapping[str, str], version: PlanVersion) -> dict[str, Decimal]:
    """The quantities typed into the fields of the version, by name; those left empty stay. Invalid at the fields."""
    names = {OWN, *(rule.licensed for rule in version.rules if rule.licensed)}
    given = {name: form.get(field_of(name), "").strip() for name in names}
    reader = Reader()
    found = quantities.read(reader, {name: text for name, text in given.items() if text}, version)
    if reader.faults:
        raise Invalid("The quantities cannot be taken.", errors=tuple(reader.faults))
    return found


def changes(
    version: PlanVersion, term: SubscriptionTerm | None, own: Decimal, named: Mapping[str, Decimal | str]
) -> list[tuple[str, str, str]]:
    """What becomes of each quantity that changes: (what, before, after)."""
    becomes = {OWN: own, **{name: Decimal(held) for name, held in named.items()}}
    labels = {entry.field: entry.label for entry in fields(version, term)}
    rows = [(name, _held(term, name), after) for name, after in becomes.items() if field_of(name) in labels]
    return [
        (labels[field_of(name)], rendering.quantity(before), rendering.quantity(after)) for name, before, after in rows if before != after
    ]


def label(name: str) -> str:
    """The name of a quantity as a word."""
    return name.replace("_", " ").capitalize()


def field_of(name: str) -> str:
    """The form's field for a quantity: where a refusal of it points."""
    return f"quantities_{name}" if name else "quantity"


def _held(term: SubscriptionTerm | None, name: str) -> Decimal:
    if term is None:
        return Decimal(1) if name == OWN else Decimal(0)
    return term.quantity if name == OWN else Decimal(term.quantities.get(name, "0"))


def _hint(bound: Bounds) -> str:
    if bound.most is not None:
        return f"{rendering.quantity(bound.least)} to {rendering.quantity(bound.most)}."
    return f"At least {rendering.quantity(bound.least)}." if bound.least else ""
