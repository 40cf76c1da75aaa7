"""Usage goes in at one end and a paid invoice comes out at the other: a real trace by command, a new customer by browser."""

from __future__ import annotations

import io
import re
import uuid
from dataclasses import dataclass
from typing import Any

import pytest
import requests
from playwright.sync_api import Page
from pypdf import PdfReader

from core import clock, selfcheck
from core.identity.models import Role
from core.identity.users import add_member
from ops import trace
from tests.e2e.conftest import Visit
from tests.e2e.product import Stack, last_line, until
from tests.people import PASSWORD, SETUP, make_user

pytestmark = [pytest.mark.stack, pytest.mark.browser]
TRACE_LINES = {"base": "99.00", "input_tokens": "38.54", "output_tokens": "32.71", "requests": "8.00"}
TRACE_ROWS = 19_366
PDF_BYTES_MIN = 10_000


@pytest.fixture(scope="module")
def told(stack: Stack) -> dict[str, Any]:
    """What the command says at its end about the shipped trace."""
    done = stack.command("trace")
    assert done.returncode == 0, done.stderr
    return last_line(done.stdout)


def traced_invoice(stack: Stack, number: str) -> dict[str, Any]:
    """The trace's invoice as the API tells it now."""
    found = stack.api("GET", "/billing/invoices?limit=100")["data"]
    return stack.api("GET", f"/billing/invoices/{next(row['id'] for row in found if row['invoice_number'] == number)}")


def test_the_shipped_trace_becomes_the_paid_invoice_its_plan_says(stack: Stack, told: dict[str, Any]) -> None:
    assert told["status"] == "paid"
    assert told["lines"] == TRACE_LINES
    assert (told["net"], told["tax"], told["total"]) == ("178.25", "33.87", "212.12")
    assert (told["events_accepted"], told["events_duplicate"]) == (TRACE_ROWS, 0)
    quantities = {line["code"]: line["quantity"] for line in traced_invoice(stack, told["invoice"])["lines"]}
    assert {code: quantities[code] for code in TRACE_LINES if code != "base"} == {
        "input_tokens": "22361870", "output_tokens": "4088665", "requests": "19366",
    }  # fmt: skip


def test_the_whole_file_again_changes_nothing(stack: Stack, told: dict[str, Any]) -> None:
    before = traced_invoice(stack, told["invoice"])
    customer = before["organization_id"]
    asked = f"/billing/usage/summary?organization_id={customer}&start_date=2023-11-01&end_date=2023-11-30"
    summary = {name: value for name, value in stack.api("GET", asked).items() if name != "freshness"}
    assert "22361870" in {metric["quantity"] for metric in summary["metrics"]}
    rows = trace.read(trace.EXAMPLE)
    assert len(rows) == TRACE_ROWS
    duplicates = 0
    for batch in (rows[start : start + 10_000] for start in range(0, len(rows), 10_000)):
        answer = stack.api("POST", "/billing/usage", [row.event() | {"organization_id": customer} for row in batch], Prefer="wait=5")
        assert answer["rejected"] == 0
        counted = until(lambda path=f"/billing/usage/batches/{answer['batch_id']}": settled(stack, path), "the batch is counted")
        assert counted["conflicts"] == []
        duplicates += len(counted["duplicates"])
    assert duplicates == TRACE_ROWS
    assert traced_invoice(stack, told["invoice"]) == before
    assert stack.api("GET", asked).items() >= summary.items()


def settled(stack: Stack, path: str) -> dict[str, Any] | None:
    """The batch once it is counted."""
    batch = stack.api("GET", path)
    return batch if batch["status"] != "pending" else None


@dataclass(frozen=True, slots=True)
class Customer:
    """A new customer on a clock of its own at the start of January, with a plan and a card, and somebody who may sign in."""

    id: str
    name: str
    clock_id: str
    billing_email: str
    email: str
    metric: str


@pytest.fixture(scope="module")
def customer(stack: Stack) -> Customer:
    mark = uuid.uuid4().hex[:8]
    walk = stack.api("POST", "/test-clocks", {"frozen_time": "2026-01-01T00:00:00+01:00"})
    code = f"pages_{mark}"
    stack.api(
        "POST", "/billing/metrics",
        {"code": code, "name": "Pages rendered", "unit": "page", "aggregation": "sum", "property": "pages", "event_name": f"render_{mark}"},
    )  # fmt: skip
    tiers = [{"up_to": "1000", "unit_price": "0"}, {"up_to": None, "unit_price": "0.02"}]
    plan = {"code": f"studio-{mark}", "name": "Studio", "currency": "EUR", "billing_period": "month", "base_price": "49.00"}
    prices = [{"metric": code, "model": "graduated", "tiers": tiers}]
    stack.api("POST", "/billing/plans", {**plan, "billing_mode": "in_arrears", "prices": prices})
    made = stack.api(
        "POST", "/billing/organizations",
        {"name": f"Papierwerk {mark} GmbH", "slug": f"papierwerk-{mark}", "billing_email": f"rechnung@papierwerk-{mark}.example",
         "currency": "EUR", "timezone": "Europe/Berlin", "test_clock_id": walk["id"],
         "billing_address": {"line1": "Hafenstr. 12", "postal_code": "20457", "city": "Hamburg", "country": "DE"}},
    )  # fmt: skip
    card = {"organization_id": made["id"], "type": "card", "provider_token": "pm_card_visa", "is_default": True}
    stack.api("POST", "/billing/payment-methods", card)
    stack.api("POST", "/billing/subscriptions", {"organization_id": made["id"], "plan": plan["code"], "billing_anchor": "calendar"})
    with stack.unit_of_work() as session:
        member = make_user(session, name="Greta Voss")
        add_member(session, organization_id=uuid.UUID(made["id"]), user=member, role=Role.OWNER, actor=SETUP, at=clock.now())
        email = member.email
    return Customer(made["id"], made["name"], walk["id"], made["billing_email"], email, code)


def test_a_customer_goes_from_the_first_event_to_the_paid_invoice(stack: Stack, customer: Customer, visit: Visit) -> None:
    visitor = visit()
    page = visitor.sign_in("portal", customer.email, PASSWORD)
    send_first_event(stack, page)

    page.goto("/portal/")
    assert page.locator(".big data").get_attribute("value") == "53.00"  # the base price and 200 pages beyond the free ones

    stack.advance(customer.clock_id, "2026-02-02T00:00:00+01:00")
    row = page.locator("#list tbody tr")
    until(lambda: page.goto("/portal/invoices") and row.get_by_text("Paid").count() == 1, "the invoice is paid")
    assert row.count() == 1
    assert "€63.07" in row.inner_text()
    number = row.get_by_role("link").inner_text()
    row.get_by_role("link").click()
    page.wait_for_url(f"**/portal/invoices/{number}")
    assert page.locator(".statement .total .amount").inner_text() == "€63.07"

    page.get_by_role("link", name="Expand all tiers").click()
    page.get_by_role("link", name="Show the usage").click()
    page.get_by_role("heading", name="Events behind it").wait_for()
    assert page.locator(".mid data").first.get_attribute("value") == "4.00"
    assert page.locator("section[aria-labelledby=events-title] tbody tr").count() == 1
    assert "hello-" in page.locator("section[aria-labelledby=events-title] tbody").inner_text()

    page.goto(f"/portal/invoices/{number}")
    address = page.get_by_role("link", name="Invoice PDF").get_attribute("href") or ""
    document = until(lambda: (got := visitor.context.request.get(address)).status == 200 and got, "the PDF is made").body()
    assert_document(document, number)
    assert visitor.complaints == []

    mail = until(lambda: next((mail for mail in stack.mails(customer.billing_email) if mail["attachments"]), None), "the invoice is mailed")
    assert number in mail["subject"]
    attached = requests.get(f"{stack.state['urls']['mail']}/mails/{mail['id']}/attachments/0", timeout=10)
    assert attached.content == document

    admin_sees(stack, customer, number, visit)


def send_first_event(stack: Stack, page: Page) -> None:
    """Make the test key, run what the snippet says, and see the panel confirm it without a reload."""
    page.goto("/portal/start")
    page.get_by_role("button", name="Make my test key").click()
    page.get_by_text("Waiting for your first event").wait_for()
    snippet = page.locator("#snippet").get_attribute("data-copy-text") or ""
    found = re.fullmatch(r'curl -sS (\S+) \\\n  -H "(\S+): (.*?)" \\\n  -H "(\S+): (.*?)" \\\n  -d \'(.*)\'', snippet)
    assert found, snippet
    address, *headers, body = found.groups()
    answer = requests.post(address, data=body, headers=dict(zip(headers[::2], headers[1::2], strict=True)), timeout=10)
    assert (answer.status_code, answer.json()["accepted"]) == (202, 1), answer.text
    page.locator("#feed").get_by_text("Received").wait_for(timeout=20_000)
    page.locator("#feed").get_by_text("Rated, pages rendered").wait_for(timeout=20_000)


def assert_document(content: bytes, number: str) -> None:
    """The PDF says what the invoice says."""
    assert content.startswith(b"%PDF-")
    assert len(content) > PDF_BYTES_MIN
    text = " ".join(page.extract_text() for page in PdfReader(io.BytesIO(content)).pages)
    for wanted in (number, "53.00", "10.07", "63.07", "19"):
        assert wanted in text, f"{wanted} is not in: {text}"


def admin_sees(stack: Stack, customer: Customer, number: str, visit: Visit) -> None:
    """Finance signs in with a second factor and finds the same invoice and what was paid for it."""
    login = stack.login("Approver")
    visitor = visit()
    page = visitor.sign_in("admin", login["email"], login["password"], login["totp_secret"])
    page.goto(f"/admin/invoices?account={customer.id}")
    page.get_by_role("link", name=number).click()
    page.get_by_role("heading", name=number).wait_for()
    assert page.locator(".statement .total .amount").inner_text() == "€63.07"
    payments = page.locator("section[aria-labelledby=money] tbody tr")
    assert payments.count() == 1
    assert "€63.07" in payments.inner_text()
    assert "Paid" in payments.inner_text()
    assert visitor.complaints == []


def test_after_all_this_the_books_hold(stack: Stack, told: dict[str, Any], customer: Customer) -> None:
    with stack.unit_of_work() as session:
        assert selfcheck.run(session) == []
