"""Every mail: both bodies, the same facts, nothing fetched from elsewhere, one button."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import css_inline
import pytest

from core import rendering
from core.config import Seller

AT = datetime(2026, 11, 18, 5, 0, tzinfo=UTC)
KINDS = sorted(path.stem for path in (rendering.TEMPLATES / "emails").glob("*.html") if path.stem != "base")


def context(**data: object) -> dict[str, Any]:
    """What a mail is rendered from: rows stood in for by plain values."""
    return {
        "organization": SimpleNamespace(name="Quillmark <GmbH>", locale="en_GB", timezone="Europe/Berlin"),
        "invoice": SimpleNamespace(
            invoice_number="INV-2026-0317",
            currency="EUR",
            subtotal_minor=144436,
            tax_minor=27443,
            total_minor=171879,
            amount_due_minor=171879,
            credit_applied_minor=0,
            due_date=date(2026, 11, 15),
            next_collect_at=AT,
            billing_period_start=datetime(2026, 9, 30, 22, tzinfo=UTC),
            billing_period_end=datetime(2026, 10, 31, 23, tzinfo=UTC),
        ),
        "payment": SimpleNamespace(id=uuid.UUID(int=7), amount_minor=171879, currency="EUR", reference=None, settled_at=AT, created_at=AT),
        "data": {
            "next_try_at": "2026-11-24T05:00:00+00:00",
            "advice": "The card has expired. Save a card that is still valid.",
            "name": "prod-eu",
            "prefix": "vv_live_3fA",
            "mode": "live",
            "before": {"plan": "build"},
            "after": {"plan": "scale"},
            "effective_at": "2026-11-18T05:00:00+00:00",
            "limit": "Spend cap",
            "value": "€500.00",
            "used": "€503.10",
            "percent": 100,
            "threshold": 100,
            "stopped": True,
            "consequence": "Past it new usage is refused until 1 Dec 2026, 00:00 CET or until it is raised.",
            "window_start": "2026-10-31T23:00:00+00:00",
            "window_end": "2026-11-30T23:00:00+00:00",
            "remaining_minor": 4200,
            "currency": "EUR",
            "expires_at": "2026-12-01T10:00:00+00:00",
            **data,
        },
        "seller": Seller(),
        "locale": "en_GB",
        "timezone": "Europe/Berlin",
        "portal_url": "https://billing.example/portal/",
        "invoice_url": "https://billing.example/portal/invoices/INV-2026-0317",
        "headline": {},
    }


@pytest.mark.parametrize("kind", KINDS)
def test_both_bodies_say_the_same(kind: str) -> None:
    html, text = rendering.render(f"emails/{kind}.html", **context()), rendering.render(f"emails/{kind}.txt", **context())
    amounts = set(re.findall(r"€[\d,.]*\d", html))
    assert amounts == set(re.findall(r"€[\d,.]*\d", text)), kind
    assert set(re.findall(r"INV-[\d-]+\d", text)) <= set(re.findall(r"INV-[\d-]+\d", html))
    assert "<" not in text.replace("Quillmark <GmbH>", "")
    assert "Northlight AI GmbH" in text
    assert max(text.count("https://"), 1) == 1
    assert html.count('class="button"') == 1


@pytest.mark.parametrize("kind", KINDS)
def test_styles_are_inlined_and_nothing_is_loaded(kind: str) -> None:
    sent = css_inline.inline(rendering.render(f"emails/{kind}.html", **context()), load_remote_stylesheets=False)
    assert 'class="button" href="https://billing.example/portal/' in sent
    assert re.search(r'class="button"[^>]*style="[^"]*background', sent)
    assert "prefers-color-scheme: dark" in sent
    assert not re.search(r"<img|<script|<link|url\(|@import", sent)
    assert "<GmbH>" not in sent


def test_a_failed_payment_says_what_happens_next() -> None:
    again, last = (
        rendering.render("emails/payment_failed.txt", **context()),
        rendering.render("emails/payment_failed.txt", **context(next_try_at=None)),
    )
    assert "Nothing was charged." in again
    assert "We try again on 24 Nov 2026, 06:00\xa0CET" in again
    assert "We do not try this payment method again" in last


def test_an_invoice_without_anything_due_asks_for_nothing() -> None:
    paid = context()
    paid["invoice"].amount_due_minor = 0
    text = rendering.render("emails/invoice_issued.txt", **paid)
    assert "Nothing is left to pay" in text
    assert "Please pay" not in text


def test_every_mail_sent_has_its_templates() -> None:
    from core.notifications.dispatch import MAILS

    folder = Path(rendering.TEMPLATES) / "emails"
    assert [
        mail.template
        for mail in MAILS.values()
        if not ((folder / f"{mail.template}.txt").exists() and (folder / f"{mail.template}.html").exists())
    ] == []
