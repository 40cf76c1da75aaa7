"""The printed invoice: complete, tagged, self-contained, the same bytes every time."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from decimal import Decimal
from io import BytesIO
from pathlib import Path

import pytest
from pypdf import PdfReader

from core.invoicing import pdf
from core.invoicing.document import InvoiceDocument, Mark, PaymentLine
from core.invoicing.statement import Row
from tests.web.documents import invoice

ROOT = Path(__file__).resolve().parents[2]


def read(document: InvoiceDocument) -> PdfReader:
    return PdfReader(BytesIO(pdf.render_pdf(document)))


@pytest.fixture(scope="module")
def printed() -> PdfReader:
    return read(invoice())


def test_page_one_is_enough_for_accounts_payable(printed: PdfReader) -> None:
    text = " ".join(printed.pages[0].extract_text().split())
    for fact in (
        "INV-2026-0317",
        "1 Nov 2026",
        "15 Nov 2026",
        "1–31 Oct 2026",
        "DE314159267",
        "DE271828184",
        "4500018842",
        "1,444.36",
        "274.43",
        "1,718.79",
        "DE89 3704 0044 0532 0130 00",
        "Am Sandtorkai 48",
        "19 %",
        "Amtsgericht Charlottenburg",
        "€1,718.79",
        "Page 1 of 2",
    ):
        assert fact in text, fact


def test_the_annex_shows_each_tier_and_day(printed: PdfReader) -> None:
    text = " ".join(printed.pages[1].extract_text().split())
    for fact in (
        "Above 100,000,000",
        "141,793,100",
        "€3.20 per 1 M",
        "453.73792",
        "869.74",
        "Sat 31 Oct 2026",
        "Invoice INV-2026-0317 of 1 Nov 2026",
        "Page 2 of 2",
    ):
        assert fact in text, fact
    assert len(printed.pages) == 2


def test_it_is_tagged_titled_and_carries_its_fonts(printed: PdfReader) -> None:
    root = printed.trailer["/Root"]
    assert root["/MarkInfo"]["/Marked"]
    assert root["/Lang"] == "en"
    assert printed.metadata is not None
    assert printed.metadata.title == "Invoice INV-2026-0317"
    assert "pdfuaid:part" in root["/Metadata"].get_data().decode()
    fonts = [font.get_object() for page in printed.pages for font in page["/Resources"]["/Font"].values()]
    assert fonts
    for font in fonts:
        descriptor = font["/DescendantFonts"][0].get_object()["/FontDescriptor"]
        assert "Inter" in font["/BaseFont"]
        assert "/FontFile3" in descriptor or "/FontFile2" in descriptor
    assert len(pdf.render_pdf(invoice())) < 150_000


def test_another_process_prints_the_same_bytes() -> None:
    script = (
        "import hashlib; from core.invoicing.pdf import render_pdf; from tests.web.documents import invoice; "
        "print(hashlib.sha256(render_pdf(invoice())).hexdigest())"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
            env={"PYTHONHASHSEED": seed, "PATH": "/usr/bin", "HOME": "/tmp"},
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1]


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/x.png", "file:///etc/passwd", pdf.FONTS.as_uri() + "/../../core/config.py"])
def test_nothing_outside_the_product_is_fetched(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr(pdf.rendering, "render", lambda *_, **__: f'<img alt="" src="{address}">')
    with pytest.raises(pdf.ForeignResource, match="not part of the product"):
        pdf.render_pdf(invoice())


def test_text_of_a_customer_is_printed_and_not_obeyed() -> None:
    hostile = 'Ärger & Söhne <img src="http://127.0.0.1:9/x"> Łódź'
    text = read(replace(invoice(), buyer=replace(invoice().buyer, name=hostile))).pages[0].extract_text()
    assert "Ärger & Söhne <img" in text
    assert "Łódź" in text


def test_drafts_say_so_and_paid_ones_too() -> None:
    draft = read(replace(invoice(), mark=Mark.DRAFT, number="")).pages[0].extract_text()
    assert "Draft, not an invoice" in draft
    paid = replace(invoice(), mark=Mark.PAID, amount_due_minor=0, payments=(PaymentLine("Paid 15 Nov 2026, Visa •• 4242", 171879),))
    text = " ".join(read(paid).pages[0].extract_text().split())
    assert "−1,718.79" in text
    assert "Amount due, EUR 0.00" in text
    assert "IBAN" not in text


def test_a_credit_note_shows_its_total_though_nothing_is_due() -> None:
    statement = replace(invoice().statement, total=replace(invoice().statement.total, amount_minor=-5000))
    text = " ".join(read(replace(invoice(), title="Credit note", statement=statement, amount_due_minor=0)).pages[0].extract_text().split())
    assert "Total −50.00" in text
    assert "Amount due, EUR 0.00" in text


def test_a_long_invoice_repeats_its_head_and_loses_no_line() -> None:
    rows = tuple(Row(f"seat-{n}", f"Seat number {n}", 1000 + n, "", Decimal(1), "seat", "€10.00", tax_rate=Decimal(19)) for n in range(120))
    statement = replace(invoice().statement, groups=(replace(invoice().statement.groups[0], rows=rows),))
    document = read(replace(invoice(), statement=statement, usage=None))
    text = [page.extract_text() for page in document.pages]
    assert len(text) >= 4
    assert all("Description" in page for page in text[:3])
    joined = "\n".join(text)
    assert [n for n in range(120) if f"Seat number {n}" not in joined] == []


def test_the_transfer_code_holds_the_payment() -> None:
    assert pdf.payment_qr(invoice()).startswith("data:image/svg+xml;base64,")
    assert pdf.payment_qr(replace(invoice(), amount_due_minor=0)) == ""
    assert pdf.payment_qr(replace(invoice(), statement=replace(invoice().statement, currency="USD"))) == ""


def test_file_names_are_safe_everywhere() -> None:
    assert invoice().file_name == "INV-2026-0317_Northlight-AI-GmbH_Quillmark-GmbH.pdf"
    assert replace(invoice(), buyer=replace(invoice().buyer, name="../Söhne / Co")).file_name.endswith("_S-hne---Co.pdf")
