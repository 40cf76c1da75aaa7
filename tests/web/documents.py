"""The sample invoice as a document."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal

from core import rendering
from core.invoicing.document import BankDetails, InvoiceDocument, Party, TaxLine, UsageTable
from tests.web import sample


def usage_table() -> UsageTable:
    """October, five metrics a day."""
    first = date(2026, 10, 1)
    days = [first + timedelta(days=offset) for offset in range(31)]
    rows = tuple(
        (
            f"{day:%a} {rendering.date(day)}",
            *(rendering.quantity(Decimal(step * (day.day + 7))) for step in (312_007, 991_113, 402_100, 1207, 1)),
        )
        for day in days
    )
    total = ("Total", "241,793,100", "771,952,344", "292,064,729", "998,669", "25.6")
    return UsageTable(("Day, Europe/Berlin", "Output tokens", "Input tokens", "Cached input", "Requests", "Storage, GB"), rows, total)


def invoice() -> InvoiceDocument:
    """An open invoice, to be charged to a card, two pages."""
    groups = tuple(replace(group, rows=tuple(replace(row, tax_rate=Decimal(19)) for row in group.rows)) for group in sample.INVOICE.groups)
    foot = tuple(
        replace(row, label=row.label.replace(" off usage of €1,661.51", "").replace(" on €1,444.36", "")) for row in sample.INVOICE.foot
    )
    return InvoiceDocument(
        "Invoice",
        "INV-2026-0317",
        date(2026, 11, 1),
        date(2026, 11, 15),
        "Northlight AI",
        Party(
            "Northlight AI GmbH",
            ("Torstraße 140", "10119 Berlin", "Germany"),
            "DE314159267",
            (
                "Managing director Dr. Ines Vogt",
                "Amtsgericht Charlottenburg HRB 231846 B",
                "billing@northlight.example",
                "+49 30 5557 0140",
            ),
        ),
        Party("Quillmark GmbH", ("Accounts payable", "Am Sandtorkai 48", "20457 Hamburg", "Germany"), "DE271828184"),
        (
            ("Invoice number", "INV-2026-0317"),
            ("Invoice date", "1 Nov 2026"),
            ("Service period", "1–31 Oct 2026"),
            ("Your PO number", "4500018842"),
            ("Your VAT ID", "DE271828184"),
            ("Customer number", "acc_7Qm2x"),
        ),
        replace(sample.INVOICE, groups=groups, foot=foot),
        (TaxLine("Standard rate 19 %", Decimal(19), 144436, 27443),),
        171879,
        ("We charge Visa ending 4242 on 15 Nov 2026.", "You need to do nothing."),
        bank=BankDetails("Northlight AI GmbH", "DE89370400440532013000", "COBADEFFXXX", "INV-2026-0317"),
        terms=(
            "Terms: 14 days net.",
            "A transfer that arrives by 12 Nov 2026 replaces the card charge.",
            "After the due date interest under §\u00a0288 BGB applies.",
            "Usage per tier and per day is in the annex.",
        ),
        usage=usage_table(),
    )
