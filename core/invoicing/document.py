"""The invoice as a document: what EN 16931 and article 226 of Directive 2006/112/EC ask to be on it, as plain values.

core.invoicing fills it from the frozen invoice, core.invoicing.pdf prints it, mail quotes it. Amounts are minor units of
the statement's currency; dates are calendar days in the customer's billing time zone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import StrEnum

from core.invoicing.statement import Statement


class Mark(StrEnum):
    """What stands on the document besides its figures."""

    NONE = ""
    DRAFT = "Draft, not an invoice"
    PAID = "Paid"
    VOID = "Void"


@dataclass(frozen=True, slots=True)
class Party:
    """Seller or buyer: legal name, full address, tax number; `lines` are further facts (register, directors, e-mail)."""

    name: str
    address_lines: tuple[str, ...]
    vat_id: str = ""
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TaxLine:
    """One rate of the tax breakdown (EN 16931 BG-23); `note` is the reason where no tax is charged."""

    label: str
    rate: Decimal
    net_minor: int
    tax_minor: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class PaymentLine:
    """Money already received: "Paid 15 Nov 2026, Visa •• 4242"."""

    label: str
    amount_minor: int


@dataclass(frozen=True, slots=True)
class BankDetails:
    """Where a transfer goes (SEPA); `reference` is what the payer writes."""

    name: str
    iban: str
    bic: str
    reference: str

    @property
    def iban_in_groups(self) -> str:
        """The IBAN as it is printed on paper, in groups of four (ISO 13616)."""
        bare = self.iban.replace(" ", "")
        return " ".join(bare[start : start + 4] for start in range(0, len(bare), 4))


@dataclass(frozen=True, slots=True)
class UsageTable:
    """The annex's daily figures, already written: heads, rows and the total row, the first column being the day."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    total: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class InvoiceDocument:
    """Everything printed on an invoice or credit note.

    `facts` are pairs for the block beside the address (number, dates, period, purchase order, VAT id, customer number), the
    first in bold. `how_paid` says in sentences what the reader has to do. `bank` is None when a transfer is not offered.
    """

    title: str
    number: str
    issued_on: date
    due_on: date | None
    brand: str
    seller: Party
    buyer: Party
    facts: tuple[tuple[str, str], ...]
    statement: Statement
    tax_lines: tuple[TaxLine, ...]
    amount_due_minor: int
    how_paid: tuple[str, ...] = ()
    payments: tuple[PaymentLine, ...] = ()
    bank: BankDetails | None = None
    terms: tuple[str, ...] = ()
    usage: UsageTable | None = None
    mark: Mark = Mark.NONE
    tax_name: str = "VAT"

    @property
    def currency(self) -> str:
        """ISO 4217 code of every amount on the document."""
        return self.statement.currency

    @property
    def file_name(self) -> str:
        """The attachment's name: number, seller, buyer; only characters every file system takes."""
        parts = (self.number or "draft", self.seller.name, self.buyer.name)
        return "_".join(re.sub(r"[^A-Za-z0-9-]", "-", part).strip("-") for part in parts) + ".pdf"
