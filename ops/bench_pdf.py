"""`python -m ops.bench_pdf`: printed invoices per second of one process, against printing the same page without anything kept.

Two pages each: charges, tiers and a month of daily usage. The bare loop gives WeasyPrint the same HTML and stylesheet, but lets it read
stylesheet and fonts anew each time. Prints a JSON line; exits 1 if the goal is missed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal

from core import rendering
from core.invoicing import pdf
from core.invoicing.document import BankDetails, InvoiceDocument, Party, TaxLine, UsageTable
from core.invoicing.statement import FootRow, Group, Row, Statement, TierRow

PRINTS, BARE_PRINTS = 20, 5
GOAL_PER_SECOND = 10
ISSUED = date(2026, 11, 1)


def main() -> int:
    """Measure and print; 0 if the goal is met."""
    pages = [replace(sample(), number=f"INV-2026-{number:04d}") for number in range(PRINTS)]
    pdf.render_pdf(sample())  # the library is read and the fonts are found once per process
    kept = PRINTS / seconds(lambda: [pdf.render_pdf(page) for page in pages])
    bare = BARE_PRINTS / seconds(lambda: [bare_print(page) for page in pages[:BARE_PRINTS]])
    line = {
        "name": "invoice_pdf",
        "value": round(kept, 1),
        "unit": "PDF/s",
        "ratio": round(kept / bare, 2),
        "against": f"the same HTML printed with nothing kept between prints, {bare:.1f} PDF/s",
        "goal": f">= {GOAL_PER_SECOND}",
        "met": kept >= GOAL_PER_SECOND,
    }
    print(json.dumps(line), flush=True)
    return 0 if line["met"] else 1


def seconds(work: Callable[[], object]) -> float:
    """How long the work took."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def bare_print(document: InvoiceDocument) -> bytes:
    """The library alone."""
    from weasyprint import CSS, HTML

    source = rendering.render("documents/invoice.html", document=document, qr=pdf.payment_qr(document))
    base = pdf.FONTS.as_uri() + "/"
    sheet = CSS(string=pdf.STYLESHEET.read_text(encoding="utf-8"), base_url=base)
    return bytes(HTML(string=source, base_url=base).write_pdf(stylesheets=[sheet], pdf_variant=pdf.VARIANT))


def sample() -> InvoiceDocument:
    """An open invoice of five charges, two of them tiered, with its annex."""
    tiers = tuple(TierRow(f"Tier {n}", Decimal(10_000_000), Decimal("0.0000015"), None, Decimal(15)) for n in range(1, 4))
    rows = tuple(
        Row(
            f"charge_{n}", f"Charge {n}", 4500, "3 tiers", Decimal(30_000_000), "tokens", tiers=tiers if n < 3 else (), tax_rate=Decimal(19)
        )
        for n in range(1, 6)
    )
    foot = (FootRow("Net", 22500, strong=True), FootRow("VAT 19 %", 4275))
    days = tuple((str(ISSUED + timedelta(days=day)), *("1,234,567",) * 4) for day in range(30))
    return InvoiceDocument(
        title="Invoice",
        number="INV-2026-0001",
        issued_on=ISSUED,
        due_on=ISSUED + timedelta(days=14),
        brand="Northlight AI",
        seller=Party("Northlight AI GmbH", ("Torstraße 140", "10119 Berlin", "Germany"), "DE811907980", ("Amtsgericht Charlottenburg",)),
        buyer=Party("Quillmark GmbH", ("Am Sandtorkai 48", "20457 Hamburg", "Germany"), "DE136695976"),
        facts=(("Invoice number", "INV-2026-0001"), ("Issue date", "1 Nov 2026"), ("Service period", "1–31 Oct 2026")),
        statement=Statement("EUR", "Charges", (Group("Usage, 1–31 Oct 2026", rows),), foot, FootRow("Total", 26775)),
        tax_lines=(TaxLine("VAT 19 %", Decimal(19), 22500, 4275),),
        amount_due_minor=26775,
        how_paid=("Please pay by transfer until the due date.",),
        bank=BankDetails("Northlight AI GmbH", "DE89370400440532013000", "COBADEFFXXX", "INV-2026-0001"),
        usage=UsageTable(("Day", "Input", "Output", "Cached", "Requests"), days, ("Billed", *("37,037,010",) * 4)),
    )


if __name__ == "__main__":
    sys.exit(main())
