"""The Statement: one view of what is owed, shown alike on the overview, a quote, a draft, an invoice page and in mail.

Plain values only; core.invoicing fills them from the priced lines, templates/components/statement.html shows them.
Amounts are minor units of `Statement.currency`.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class TierRow:
    """One step of a price walked: `quantity` units of this tier at `unit_price` each, plus `flat_fee`, in major units, exact."""

    label: str
    quantity: Decimal
    unit_price: Decimal | None
    flat_fee: Decimal | None
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Row:
    """One charge. `share` is its part of the subtotal (0..1), None where shares mean nothing; `tax_rate` is in percent.

    `tiers_title` is what one of `tiers` is called.
    """

    code: str
    name: str
    amount_minor: int
    detail: str = ""
    quantity: Decimal | None = None
    unit: str = ""
    unit_price_text: str = ""
    share: Decimal | None = None
    compare_minor: int | None = None
    href: str | None = None
    tiers: tuple[TierRow, ...] = ()
    formula: str = ""
    rounding: str = ""
    quantity_text: str = ""
    csv_href: str | None = None
    tax_rate: Decimal | None = None
    tiers_title: str = "Tier"


@dataclass(frozen=True, slots=True)
class Group:
    """Rows under one bold heading: "Plan, in advance", "Usage, 1–31 Oct 2026 (Europe/Berlin)"."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class FootRow:
    """A sum, discount, credit or tax under the charges; `strong` marks the sums a reader looks for (Net, Spend so far)."""

    label: str
    amount_minor: int
    compare_minor: int | None = None
    strong: bool = False


@dataclass(frozen=True, slots=True)
class Statement:
    """What is owed: groups of charges, the sums under them and the total. `compare_label` heads the comparison column."""

    currency: str
    caption: str
    groups: tuple[Group, ...]
    foot: tuple[FootRow, ...]
    total: FootRow
    note: str = ""
    rounding_note: str = ""
    compare_label: str = ""

    @property
    def has_tiers(self) -> bool:
        """Whether any charge can be opened to its price walk."""
        return any(row.tiers for group in self.groups for row in group.rows)
