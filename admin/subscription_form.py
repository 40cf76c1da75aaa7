"""The form a subscription is started with: what stands in it, and what it asks of the core: prices, phases and a contract agreed too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from core.audit import Actor
from core.catalog import queries as catalog
from core.catalog import written
from core.catalog.models import PlanVersion
from core.catalog.negotiated import negotiate
from core.catalog.reader import Reader
from core.errors import BillingError, FieldError, Invalid, NotFound
from core.identity.models import Organization
from core.periods import Interval
from core.pricing.terms import Kind
from core.subscriptions import items, lifecycle, quantities
from core.subscriptions.agreement import Contract, Phase
from core.subscriptions.models import AnchorMode, Subscription
from core.subscriptions.quantities import OWN
from web.dates import begins, read_day

ROWS = {"prices": ("code", "amount"), "phases": ("start_at", "plan", "base_price", "quantity", "quantities"), "items": ("plan", "quantity")}
ROWS_MAX = 12
KEPT = ("metric", "code", "name", "billing_mode", "licensed", "included", "billing_period", "interval_count", "proration")
"""Keys of a price that an agreed amount leaves as they are."""
REFUSED = "The subscription cannot start like this."


@dataclass(frozen=True, slots=True)
class Draft:
    """The form as it was sent, without its empty rows: `fields` by name, `rows` of agreed prices, phases and items."""

    fields: Mapping[str, str]
    rows: Mapping[str, list[dict[str, str]]]

    def __getitem__(self, name: str) -> str:
        """What was typed into a field; "" for nothing."""
        return self.fields.get(name, "").strip()

    @property
    def agrees(self) -> bool:
        """Whether anything is agreed beyond the plan."""
        return bool(self["base_price"] or self["contract_interval"] or self.rows["prices"] or self.rows["phases"])

    def shown(self, kind: str, least: int) -> list[dict[str, str]]:
        """The rows to render: those filled in, and empty ones, `least` together and always one."""
        filled = self.rows[kind]
        return filled + [{}] * max(1, least - len(filled))


def read(form: Mapping[str, str]) -> Draft:
    """The form; nothing is judged yet."""
    rows = {}
    for kind, names in ROWS.items():
        typed = [{name: form.get(f"{kind}_{i}_{name}", "").strip() for name in names} for i in range(ROWS_MAX)]
        rows[kind] = [row for row in typed if row[names[0]] or (kind != "items" and any(row.values()))]
    return Draft(form, rows)


def prices(versions: Sequence[PlanVersion], currency: str) -> list[tuple[str, str]]:
    """The prices that can be agreed, as (value, label) of a choice: those of quantities and usage, the base price has its own field."""
    return [
        (f"{version.plan.code}/{rule.code}", f"{version.plan.name}: {rule.name}")
        for version in versions
        for rule in version.rules_in(currency)
        if rule.code != "base" and rule.kind in (Kind.RECURRING, Kind.USAGE)
    ]


def begin(session: Any, owner: Organization, draft: Draft, *, actor: Actor, at: datetime) -> Subscription:
    """Start what the form asks for; Invalid at its fields, other errors as lifecycle.start."""
    plan = draft["plan"]
    try:
        listed = catalog.offered_version(session, plan)
    except NotFound as error:
        raise Invalid(REFUSED, errors=(FieldError("/plan", error.message),)) from None
    agreed = _agreed(session, owner, listed, draft["base_price"], draft.rows["prices"], "", actor, at)
    try:
        started = _started(session, owner, listed, agreed, draft, actor, at)
    except Invalid as error:
        raise Invalid(error.message, errors=tuple(replace(fault, pointer=_typed_as(fault.pointer)) for fault in error.errors)) from error

    for i, item in enumerate(draft.rows["items"]):
        try:
            items.attach(session, started, plan=item["plan"], quantity=item["quantity"] or 1, at=max(at, started.started_at), actor=actor)
        except BillingError as error:
            faults = error.errors or (FieldError("/plan", error.message),)
            raise Invalid(REFUSED, errors=tuple(FieldError(f"/items/{i}{fault.pointer}", fault.detail) for fault in faults)) from error
    return started


def _started(
    session: Any, owner: Organization, listed: PlanVersion, agreed: PlanVersion, draft: Draft, actor: Actor, at: datetime
) -> Subscription:
    return lifecycle.start(
        session,
        owner.id,
        plan=agreed.id,
        at=at,
        actor=actor,
        start_at=_day(draft["start"], owner, "/start") or at,
        anchor=draft["anchor"] or AnchorMode.ANNIVERSARY,
        quantity=draft["quantity"] or 1,
        quantities=_quantities(draft, listed),
        trial_period_days=_whole(draft["trial_period_days"], "/trial_period_days"),
        billing_day=_whole(draft["billing_day"], "/billing_day"),
        trial_end_without_method=draft["trial_end_without_method"] or None,
        phases=_phases(session, owner, listed, draft.rows["phases"], actor, at),
        contract=_contract(draft),
    )


def _typed_as(pointer: str) -> str:
    """The field of the form that a fault of the core belongs to."""
    return "/start" if pointer == "/start_at" else _one_field(pointer)


def _agreed(
    session: Any,
    owner: Organization,
    listed: PlanVersion,
    base_price: str,
    rows: Sequence[Mapping[str, str]],
    below: str,
    actor: Actor,
    at: datetime,
) -> PlanVersion:
    """The version as agreed; the listed one where nothing else was."""
    if not base_price and not rows:
        return listed
    given = [_price(listed, owner.currency, row, f"{below}/prices/{i}") for i, row in enumerate(rows)]
    try:
        return negotiate(
            session,
            listed,
            organization_id=owner.id,
            currency=owner.currency,
            base_price=base_price or None,
            prices=given,
            pointer=below,
            at=at,
            actor=actor,
        )
    except Invalid as error:
        raise Invalid(error.message, errors=tuple(replace(fault, pointer=_field(fault.pointer)) for fault in error.errors)) from error


def _price(listed: PlanVersion, currency: str, row: Mapping[str, str], pointer: str) -> dict[str, Any]:
    plan, _, code = row["code"].partition("/")
    document = written.document(listed)
    known = [*document.get("currencies", {}).get(currency, {}).get("prices", []), *document.get("prices", [])]
    price = next((entry for entry in known if entry["code"] == code), None)
    if plan != listed.plan.code or price is None:
        raise Invalid(REFUSED, errors=(FieldError(f"{pointer}/code", f"Choose a price of {listed.plan.name}."),))
    kept = {key: price[key] for key in KEPT if key in price}
    if price["model"] == "flat":
        return {**kept, "model": "flat", "flat_price": row["amount"]}
    return {**kept, "model": "per_unit", "unit_price": row["amount"]}


def _phases(
    session: Any, owner: Organization, listed: PlanVersion, rows: Sequence[Mapping[str, str]], actor: Actor, at: datetime
) -> list[Phase]:
    """The phases; one with a base price of its own and no plan is agreed from the plan of the phase before."""
    found: list[Phase] = []
    for i, row in enumerate(rows):
        start = _day(row["start_at"], owner, f"/phases/{i}/start_at")
        if start is None:
            raise Invalid(REFUSED, errors=(FieldError(f"/phases/{i}/start_at", "Enter the day from which it holds."),))
        version = None
        if row["plan"] or row["base_price"]:
            listed = catalog.offered_version(session, row["plan"]) if row["plan"] else listed
            version = _agreed(session, owner, listed, row["base_price"], (), f"/phases/{i}", actor, at)
        held = _held(row, version or listed, f"/phases/{i}")
        found.append(Phase(start, version, held.pop(OWN, None), held))
    return found


def _held(row: Mapping[str, str], version: PlanVersion, pointer: str) -> dict[str, Decimal]:
    """The quantities of a phase, "" being the subscription's own."""
    given = _named(row["quantities"], f"{pointer}/quantities") | ({OWN: row["quantity"]} if row["quantity"] else {})
    reader = Reader()
    held = quantities.read(reader, given, version, pointer)
    if reader.faults:
        raise Invalid(REFUSED, errors=tuple(replace(fault, pointer=_one_field(fault.pointer)) for fault in reader.faults))
    return held


def _one_field(pointer: str) -> str:
    """All named quantities of a phase are typed into one field."""
    before, named, _ = pointer.partition("/quantities/")
    return f"{before}/quantities" if named and before else pointer


def _named(text: str, pointer: str) -> dict[str, str]:
    """The words "seats 25, instances 3" as quantities by name."""
    found: dict[str, str] = {}
    for part in text.replace("=", " ").split(","):
        words = part.split()
        if words and len(words) != 2:
            raise Invalid(REFUSED, errors=(FieldError(pointer, "Enter names with numbers, such as seats 25, instances 3."),))
        if words:
            found[words[0]] = words[1]
    return found


def _quantities(draft: Draft, version: PlanVersion) -> dict[str, Any]:
    names = {rule.licensed for rule in version.rules if rule.licensed}
    return {name: draft[f"quantities_{name}"] for name in names if draft[f"quantities_{name}"]}


def _contract(draft: Draft) -> Contract | None:
    if not draft["contract_interval"]:
        return None
    if draft["contract_interval"] not in list(Interval):
        raise Invalid(REFUSED, errors=(FieldError("/contract_interval", "Choose how long it binds."),))
    count = _whole(draft["contract_count"], "/contract_count") or 1
    renews, notice = draft["contract_renews"] != "no", _whole(draft["notice_days"], "/notice_days") or 0
    return Contract(Interval(draft["contract_interval"]), count, renews, notice)


def _day(typed: str, owner: Organization, pointer: str) -> datetime | None:
    day = read_day(typed)
    if typed and day is None:
        raise Invalid(REFUSED, errors=(FieldError(pointer, "Enter a day, such as 2026-12-01."),))
    return begins(day, owner.timezone) if day else None


def _whole(typed: str, pointer: str) -> int | None:
    if typed and (not typed.isascii() or not typed.isdigit() or len(typed) > 4):
        raise Invalid(REFUSED, errors=(FieldError(pointer, "Enter a whole number."),))
    return int(typed) if typed else None


def _field(pointer: str) -> str:
    """Where the form has what an agreed price is refused for: /prices/0/tiers/1 is the amount of its row."""
    parts = pointer.split("/")
    if "prices" not in parts:
        return pointer
    at = parts.index("prices")
    return "/".join([*parts[: at + 2], "amount"])
