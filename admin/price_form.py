"""What the form of a price has for each model: its fields, its rows, a sentence that says what it does. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from core.catalog.conditions import SPEND_MODELS
from core.pricing.compound_fields import WEEKDAYS
from core.pricing.rules import MODEL_NAMES
from core.pricing.terms import Kind

Options = tuple[tuple[str, str], ...]


class Field(NamedTuple):
    """One input. `kind`: decimal, whole, text, code, choice (of `options`), names (with commas), time, days."""

    name: str
    label: str
    kind: str = "decimal"
    options: Options = ()
    hint: str = ""


class Rows(NamedTuple):
    """A table of rows under `name`, each called `one`; `priced` rows have a price of their own. A model begins with `least` of them."""

    name: str
    one: str
    columns: tuple[Field, ...] = ()
    priced: bool = False
    least: int = 1

    @property
    def marker(self) -> str:
        """The input that every row has, by which rows are counted."""
        return "model" if self.priced else self.columns[0].name


class ModelForm(NamedTuple):
    """The inputs of a model; with `default` it has a price for all else."""

    label: str
    says: str
    fields: tuple[Field, ...] = ()
    rows: Rows | None = None
    default: bool = False


UP_TO = Field("up_to", "Up to")
UNIT_PRICE = Field("unit_price", "Unit price")
FLAT_FEE = Field("flat_fee", "Flat fee")
UNIT_TIERS = Rows("tiers", "Tier", (UP_TO, UNIT_PRICE, FLAT_FEE))
BLOCK_TIERS = Rows("tiers", "Tier", (UP_TO, Field("block_size", "Block of"), Field("block_price", "Price a block")))
SHARE_TIERS = Rows("tiers", "Tier", (UP_TO, Field("percent_off", "% off")), least=0)
ROUNDING = (("up", "Each one begun"), ("down", "Full ones only"))
OPERATION = (("", "As metered"), ("divide", "Divided by"), ("multiply", "Times"))
QUANTITY_ROUNDING = (("", "Not rounded"), ("up", "Up"), ("down", "Down"), ("half_up", "Half up"))
BUCKETS = (
    ("", "The whole period at once"),
    ("hour", "Each hour alone"),
    ("day", "Each day"),
    ("week", "Each week"),
    ("month", "Each month"),
)
MODES = (("", "As usual"), ("in_advance", "In advance"), ("in_arrears", "In arrears"))
SHARES = (("yes", "Their share"), ("no", "The whole of them"))
PERIODS = (
    ("", "The plan's"), ("day", "Day"), ("week", "Week"), ("month", "Month"), ("quarter", "Quarter"),
    ("half_year", "Half-year"), ("year", "Year"),
)  # fmt: skip
PRORATION = (
    ("", "As the plan"), ("seconds", "By seconds"), ("days", "By days"), ("fixed_30", "By days, months of 30"), ("none", "Whole price"),
)  # fmt: skip

MODELS: dict[str, ModelForm] = {
    "per_unit": ModelForm("Per unit", "Every unit costs the same.", (UNIT_PRICE,)),
    "graduated": ModelForm("Graduated tiers", "Each unit costs the price of the tier it falls in.", rows=UNIT_TIERS),
    "volume": ModelForm("Volume tiers", "The total picks one tier, which prices every unit.", rows=UNIT_TIERS),
    "stairstep": ModelForm(
        "Stairstep", "The total picks one tier; its fee is all that is owed.", rows=Rows("tiers", "Tier", (UP_TO, FLAT_FEE))
    ),
    "package": ModelForm(
        "Packages",
        "Units are sold in packages; a package begun is paid, or only full ones are.",
        (
            Field("package_size", "Units a package"),
            Field("package_price", "Price a package"),
            Field("free_units", "Free units"),
            Field("rounding", "Counted are", "choice", ROUNDING),
        ),
    ),
    "flat": ModelForm("Flat", "One price, whatever the quantity.", (Field("flat_price", "Price"),)),
    "graduated_blocks": ModelForm("Graduated blocks", "Each tier's units are sold in blocks; a block begun is paid.", rows=BLOCK_TIERS),
    "volume_blocks": ModelForm("Volume blocks", "The total picks one tier; all units are sold in its blocks.", rows=BLOCK_TIERS),
    "percentage": ModelForm(
        "Percentage of each event",
        "Each event owes a share of its amount and a fee, held between a least and a most.",
        (
            Field("rate_percent", "Rate, %"),
            Field("fixed_fee_per_event", "Fee an event"),
            Field("free_events", "Free events"),
            Field("free_amount", "Free amount"),
            Field("min_per_event", "Least an event"),
            Field("max_per_event", "Most an event"),
        ),
    ),
    "graduated_percentage": ModelForm(
        "Percentage by tier",
        "A share of an amount of money, each part at the rate of its tier.",
        rows=Rows("tiers", "Tier", (UP_TO, Field("rate_percent", "Rate, %"), FLAT_FEE)),
    ),
    "graduated_prorated": ModelForm(
        "Graduated, by time held", "As graduated tiers, for what comes and goes: a unit owes the time it was there.", rows=UNIT_TIERS
    ),
    "dynamic": ModelForm(
        "Price carried by events",
        "Each event says what it costs; that is billed, times a factor.",
        (Field("multiplier", "Times"), Field("amount_property", "Amount is in property", "code")),
    ),
    "matrix": ModelForm(
        "By dimensions (matrix)",
        "Every combination of values, such as model and region, has a price of its own; all others have the default.",
        (Field("dimensions", "Dimensions", "names", hint="Properties the metric is broken down by."),),
        Rows("prices", "Combination", priced=True),
        default=True,
    ),
    "time_of_use": ModelForm(
        "By time of day",
        "Usage costs what the hour of the week costs, in the customer's time zone; the first window that holds the hour counts.",
        rows=Rows(
            "windows",
            "Window",
            (
                Field("name", "Name", "text"),
                Field("weekdays", "On", "days"),
                Field("from", "From", "time"),
                Field("to", "To", "time"),
            ),
            priced=True,
        ),
        default=True,
    ),
    "capacity": ModelForm(
        "By size (capacity)",
        "The price of the smallest size that holds all that is used.",
        (Field("metrics", "Metrics", "names", hint="Codes of the metrics a size limits."),),
        Rows("capacity_tiers", "Size", (Field("price", "Price"),)),
    ),
    "sum": ModelForm(
        "Sum of prices", "Several prices added up to one line, which is rounded once.", rows=Rows("parts", "Part", priced=True)
    ),
    "discount": ModelForm(
        "Discount",
        "Takes a percentage, an amount, or the percentage of the tier that the spend falls in, from other prices.",
        (Field("percent_off", "% off"), Field("amount_off", "Amount off")),
        SHARE_TIERS,
    ),
    "commitment": ModelForm(
        "Commitment", "What is missing to the amount is billed; paid in advance, usage is drawn from it.", (Field("amount", "Amount"),)
    ),
}
EVERY: Options = tuple((name, form.label) for name, form in MODELS.items())
OF_ONE_QUANTITY: Options = tuple((name, MODELS[name].label) for name in MODEL_NAMES)
OF_A_PART: Options = tuple(pair for pair in EVERY if pair[0] not in {"sum", *SPEND_MODELS})
HEAD = (
    Field("metric", "Metric", "choice"),
    Field("model", "Model", "choice"),
    Field("name", "Label on the invoice", "text"),
    Field("code", "Code", "code"),
)
AROUND = (
    Field("unit_conversion_operation", "Units are", "choice", OPERATION),
    Field("unit_conversion_factor", "This number"),
    Field("unit_conversion_rounding", "Rounded", "choice", QUANTITY_ROUNDING),
    Field("unit_conversion_precision", "To so many places", "whole"),
    Field("usage_discount", "Free units"),
    Field("bucket", "Priced is", "choice", BUCKETS),
    Field("discount_percent", "% off"),
    Field("minimum_amount", "At least"),
    Field("maximum_amount", "At most"),
    Field("prorate", "In part of a period, these count", "choice", SHARES),
)
"""Modifiers, the usual order of their work."""
_LICENSED = Field("licensed", "Times the number of", "code", hint="Such as seats. Empty: the subscription's quantity.")
_EACH = Field("licensed", "For each of", "code", hint="Such as seats. Empty: once.")
_CYCLE = (Field("billing_period", "Billed every", "choice", PERIODS), Field("interval_count", "So many of them", "whole"))
_MODE = Field("billing_mode", "Due", "choice", MODES)
_PRORATION = Field("proration", "Parts of a period", "choice", PRORATION)
_COVERS = Field("covers", "Of these prices", "names", hint="Their codes. Empty: all.")
CONDITIONS: dict[Kind, tuple[Field, ...]] = {
    Kind.RECURRING: (
        _LICENSED,
        Field("quantity_min", "At least so many"),
        Field("quantity_max", "At most so many"),
        _MODE,
        *_CYCLE,
        _PRORATION,
    ),
    Kind.USAGE: (Field("included", "Included units"), _EACH, *_CYCLE, _PRORATION),
    Kind.DISCOUNT: (_COVERS, _PRORATION),
    Kind.COMMITMENT: (_MODE, *_CYCLE, _COVERS, Field("overage_factor", "Above it, times"), _PRORATION),
}
"""What a price says beside its model, by what it is asked with."""


def kind_of(price: Mapping[str, Any]) -> Kind:
    """What a price as typed is asked with."""
    return SPEND_MODELS.get(price.get("model", "")) or (Kind.USAGE if price.get("metric") else Kind.RECURRING)


def columns(price: Mapping[str, Any]) -> tuple[Field, ...]:
    """The columns of the price's rows, with those its dimensions or metrics make."""
    form = MODELS.get(price.get("model", ""))
    own = form.rows.columns if form and form.rows else ()
    match price.get("model"):
        case "matrix":
            return tuple(Field(f"values_{name}", name, "text") for name in price.get("dimensions", ()))
        case "capacity":
            return (*(Field(f"limits_{name}", f"Up to, {name}") for name in price.get("metrics", ())), *own)
        case "sum":
            return (Field("metric", "Metric", "choice"),)
    return own


def fields(price: Mapping[str, Any], level: str) -> tuple[Field, ...]:
    """The inputs of a price but for its rows: of a whole one ("price"), of a part of a sum, or "one" inside another."""
    form = MODELS.get(price.get("model", ""))
    own = (Field("model", "Model", "choice"), *(form.fields if form else ()))
    if level != "price":
        return own
    around = () if kind_of(price) in (Kind.DISCOUNT, Kind.COMMITMENT) else AROUND
    return (*(head for head in HEAD if head.name != "model"), *own, *around, *CONDITIONS[kind_of(price)])


def models_of(level: str) -> Options:
    """The models there are at a level."""
    return {"price": EVERY, "part": OF_A_PART}.get(level, OF_ONE_QUANTITY)


def level_of_rows(model: str) -> str:
    """The level of the prices in the model's rows."""
    return "part" if model == "sum" else "one"


def with_value(options: Sequence[tuple[str, str]], value: str | None) -> list[tuple[str, str]]:
    """The options, and the value as one more where it is none of them: what was written is shown as it is, and refused by name."""
    known = not value or any(option == value for option, _ in options)
    return [*options, *(() if known else ((str(value), f"{value} (unknown)"),))]


__all__ = [
    "CONDITIONS",
    "MODELS",
    "WEEKDAYS",
    "Field",
    "ModelForm",
    "Rows",
    "columns",
    "fields",
    "kind_of",
    "level_of_rows",
    "models_of",
    "with_value",
]
