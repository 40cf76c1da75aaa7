"""Customers far away, with money of no and of three decimals: month by month through their pages, mails and documents."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal

import pytest
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from core import config
from core.audit import SYSTEM
from core.catalog import publish
from core.identity.models import Organization
from core.invoicing import documents
from core.invoicing.models import Invoice
from core.notifications import dispatch, email
from core.periods import midnight
from core.subscriptions import lifecycle
from tests.conftest import Clock
from tests.factories import make_metric, make_organization, use
from tests.invoicing.books import issued
from tests.portal.conftest import SignIn


@dataclass(frozen=True, slots=True)
class Far:
    """A customer: its money and place, three prices, and what October, November, two more seats and December come to, as they are read."""

    currency: str
    zone: str
    tax: int
    base: str
    seat: str
    call: str
    totals: tuple[str, str, str, str]


AUCKLAND = Far("JPY", "Pacific/Auckland", 10, "9800", "1200", "0.5", ("JP¥14,740", "JP¥21,530", "JP¥1,320", "JP¥17,383"))
CALIFORNIA = Far("KWD", "America/Los_Angeles", 0, "30.500", "4.250", "0.0005", ("KWD 43.250", "KWD 49.423", "KWD 4.250", "KWD 51.753"))


def plain(text: str) -> str:
    """As a person reads it: tags are gone, all space is one space."""
    return " ".join(re.sub(r"<[^>]+>", " ", text).replace("\N{NO-BREAK SPACE}", " ").replace("\N{NARROW NO-BREAK SPACE}", " ").split())


def printed(session: Session, invoice: Invoice, at: datetime) -> str:
    """The text of the PDF."""
    content = documents.render(session, invoice.id, at=at).content
    return plain(
        subprocess.run(("pdftotext", "-layout", "-", "-"), input=content, capture_output=True, check=True, timeout=60).stdout.decode()
    )


@pytest.mark.parametrize("far", [AUCKLAND, CALIFORNIA], ids=lambda far: far.currency)
def test_a_quarter_far_away(client: FlaskClient, session: Session, enter: SignIn, clock: Clock, far: Far) -> None:
    october, november, december = (midnight(date(2026, month, 1), far.zone) for month in (10, 11, 12))
    metric = make_metric(session, name="Calls", unit="calls")
    customer = make_organization(session, currency=far.currency, timezone=far.zone, tax_rate_percent=Decimal(far.tax))
    prices = [
        {"licensed": "seats", "name": "Seats", "model": "per_unit", "unit_price": far.seat},
        {"metric": metric.code, "model": "per_unit", "unit_price": far.call},
    ]
    publish.create_version(
        session, code="far", name="Far", currency=far.currency, billing_period="month", base_price=far.base, proration="days",
        prices=prices, actor=SYSTEM, at=october,
    )  # fmt: skip
    clock.at(october)
    made = lifecycle.start(session, customer.id, plan="far", at=october, actor=SYSTEM, quantities={"seats": 3})
    seen(client, session, enter, customer, issued(session, made, october), october, far.totals[0], ("1 Oct 2026", "1–31 Oct 2026"))

    use(session, customer, metric, november - timedelta(minutes=30), 12_345)  # the last half-hour of October there
    use(session, customer, metric, november + timedelta(minutes=30), 5)
    clock.at(november)
    session.expire_all()
    seen(client, session, enter, customer, issued(session, made, november), november, far.totals[1], ("1 Nov 2026", "1–30 Nov 2026"))

    clock.at(midnight(date(2026, 11, 16), far.zone))
    token = enter(customer)
    form = {"csrf_token": token, "plan": str(made.terms[0].plan_version_id), "when": "now", "quantities_seats": "5"}
    quoted = client.post("/portal/plan/change", data=form).headers["Location"]
    page = plain(client.get(quoted).text)
    assert f"Confirm and pay {far.totals[2]}" in page
    assert far.totals[3] in page  # the next invoice as it will be
    confirmed = client.post(quoted, data={"csrf_token": token, "idempotency_key": "two-more-seats"})
    assert far.totals[2] in plain(client.get(confirmed.headers["Location"]).text)

    clock.at(december)
    session.expire_all()
    seen(client, session, enter, customer, issued(session, made, december), december, far.totals[3], ("1 Dec 2026", "1–31 Dec 2026"))
    compared = plain(client.get("/portal/plan/compare").text)
    assert far.currency.replace("JPY", "JP¥") in compared
    assert "1–30 Nov 2026" in compared


def seen(
    client: FlaskClient,
    session: Session,
    enter: SignIn,
    customer: Organization,
    invoice: Invoice,
    at: datetime,
    total: str,
    days: tuple[str, ...],
) -> None:
    """The invoice says its total and its days alike on its page, on paper, and in its mail."""
    enter(customer)
    page, paper = plain(client.get(f"/portal/invoices/{invoice.invoice_number}").text), printed(session, invoice, at)
    for said in (total, *days):
        assert said in page, said
        assert said in paper, said
    dispatch.dispatch_outbox(session, now=at)
    sent = [one.message for one in email.claim(session, now=at + timedelta(seconds=5), settings=config.current())]
    [subject] = [plain(str(message["Subject"])) for message in sent if invoice.invoice_number in str(message["Subject"])]
    assert f": {total}, due " in subject
    assert total in plain(client.get("/portal/invoices").text)
