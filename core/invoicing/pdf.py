"""The invoice as PDF: one page for accounts payable, an annex that shows how each usage charge was calculated.

Tagged (PDF/UA-1) and self-contained; the same document gives the same bytes, since no clock and no random id goes in.
"""

from __future__ import annotations

import atexit
import base64
import hashlib
import threading
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import rendering
from core.invoicing.document import InvoiceDocument
from core.money import format_decimal

if TYPE_CHECKING:
    from weasyprint import CSS
    from weasyprint.text.fonts import FontConfiguration

ROOT = Path(__file__).resolve().parents[2]
STYLESHEET = ROOT / "templates" / "documents" / "invoice.css"
FONTS = ROOT / "static" / "fonts"
VARIANT = "pdf/ua-1"

_press = threading.local()


class ForeignResource(RuntimeError):
    """A document asked for a file or an address outside the product."""


def render_pdf(document: InvoiceDocument) -> bytes:
    """Print `document`. Pure: the bytes depend on the document, the templates and the fonts alone.

    Raises ForeignResource when a template asks for anything that is not part of the product.
    """
    from weasyprint import HTML
    from weasyprint.urls import FatalURLFetchingError

    stylesheet, fonts = _stylesheet()
    source = rendering.render("documents/invoice.html", document=document, qr=payment_qr(document))
    identifier = hashlib.sha256(source.encode()).hexdigest()[:32].encode()
    page = HTML(string=source, base_url=FONTS.as_uri() + "/", url_fetcher=_fetcher())
    try:
        return bytes(page.write_pdf(stylesheets=[stylesheet], font_config=fonts, pdf_variant=VARIANT, pdf_identifier=identifier))
    except FatalURLFetchingError as error:  # a BaseException there, which would end the worker
        raise ForeignResource(str(error)) from error


def payment_qr(document: InvoiceDocument) -> str:
    """A data URI of the SEPA credit transfer QR code (EPC069-12 version 002), "" when a transfer is not offered or not in euro."""
    bank = document.bank
    if bank is None or document.currency != "EUR" or document.amount_due_minor <= 0:
        return ""
    import segno

    amount = f"EUR{format_decimal(document.amount_due_minor, 'EUR')}"
    lines = ("BCD", "002", "1", "SCT", bank.bic, bank.name[:70], bank.iban.replace(" ", ""), amount, "", "", bank.reference[:140], "")
    svg = segno.make("\n".join(lines), error="m", micro=False).svg_inline(border=0, scale=1, omitsize=True, dark="#000")
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _stylesheet() -> tuple[CSS, FontConfiguration]:
    """The parsed stylesheet with its fonts, once per thread: reading the fonts costs more than printing a page."""
    if not hasattr(_press, "parsed"):
        from weasyprint import CSS
        from weasyprint.text.fonts import FontConfiguration

        fonts = FontConfiguration()
        sheet = CSS(string=STYLESHEET.read_text(), base_url=FONTS.as_uri() + "/", font_config=fonts, url_fetcher=_fetcher())
        _press.parsed = (sheet, fonts)
        if threading.current_thread() is threading.main_thread():
            atexit.register(vars(_press).clear)  # fonts must go while the interpreter still stands
    parsed: tuple[CSS, FontConfiguration] = _press.parsed
    return parsed


@lru_cache(maxsize=1)
def _fetcher() -> Any:
    """Reads the bundled fonts and data URIs; everything else, the network above all, is refused and stops the print."""
    from weasyprint.urls import FatalURLFetchingError, URLFetcher

    allowed = FONTS.as_uri() + "/"

    class Bundled(URLFetcher):  # type: ignore[misc]
        def fetch(self, url: str, headers: Any = None) -> Any:
            if not (url.startswith(("data:", allowed)) and ".." not in url):
                raise FatalURLFetchingError(f"{url} is not part of the product")
            return super().fetch(url, headers)

    return Bundled(allowed_protocols=("file", "data"))
