"""The portal in a real browser: accessible in both themes, narrow without scrolling sideways, and working without JavaScript."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright
from werkzeug.serving import make_server

from core import clock, config
from core.db import transaction
from core.identity import sessions
from core.invoicing import listing, queries
from core.payments import methods
from ops import ports
from tests import database
from tests.fakes.fixtures import provider_fake
from tests.people import make_member
from tests.portal import story
from tests.portal.conftest import NOW
from tests.web.test_look import AXE, FLAGS

pytestmark = pytest.mark.browser
PAGES = (
    "/",
    "/usage?group=project",
    "/usage?period=custom&from=&to=",
    "/usage/events",
    "/usage/rejected",
    "/invoices",
    "/invoices/{number}",
    "/invoices/{number}?tiers=all",
    "/invoices/{number}/lines/{line}",
    "/plan",
    "/plan/compare",
    "/plan/change?plan=scale",
    "/plan/cancellation",
    "/plan/acts/pause",
    "/payment-methods",
    "/settings/billing",
    "/settings/team",
    "/settings/keys",
    "/settings/keys/new",
    "/settings/audit",
    "/start",
)


@dataclass(frozen=True, slots=True)
class Site:
    """The running portal: its address, a signed-in cookie, an open invoice's number and one of its usage lines."""

    url: str
    token: str
    number: str
    line: str


@pytest.fixture(scope="module")
def site(committed_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    port = ports.free()
    with provider_fake() as provider, clock.frozen(NOW):
        app = database.make_app(
            committed_database_url, tmp_path_factory.mktemp("home"), public_url=f"http://127.0.0.1:{port}", stripe_api_key=provider.api_key,
            stripe_api_base=provider.url, stripe_webhook_secrets=(provider.webhook_secret,),
        )  # fmt: skip
        config.use(app.config["SETTINGS"])
        with app.app_context():
            site = _filled(f"http://127.0.0.1:{port}")
        server = make_server("127.0.0.1", port, app, threaded=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield site
        server.shutdown()
        thread.join(10)


def _filled(url: str) -> Site:
    with transaction() as session:
        told = story.tell(session, now=NOW, months=2)
        owner = make_member(session, told.organization, name="Lena Hartmann")
        token = sessions.begin(session, owner, site="portal", organization_id=told.organization.id, mfa_at=NOW, at=NOW)[1]
        organization_id = told.organization.id
    for card in ("pm_card_visa", "pm_card_mastercard"):
        methods.attach(organization_id, provider_token=card, at=NOW, actor=story.SETUP, make_default=card == "pm_card_visa")
    with transaction() as session:
        number = str(listing.open_invoices(session, organization_id)[0].invoice_number)
        lines = queries.invoice_by_number(session, organization_id, number).lines
        return Site(url, token, number, str(next(line.id for line in lines if line.metric_id)))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS.split())
        yield running
        running.close()


def open_page(
    browser: Browser, site: Site, complaints: list[str] | None = None, *, width: int = 1280, scheme: str = "light", script: bool = True
) -> Page:
    """A signed-in tab; what the browser complains about is added to `complaints`."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=script, base_url=site.url
    )  # type: ignore[arg-type]
    context.add_cookies([{"name": "vv_portal", "value": site.token, "url": site.url}])
    page = context.new_page()
    if complaints is not None:
        page.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
    return page


def addresses(site: Site) -> list[str]:
    """Every page of PAGES with the invoice's number and line put in."""
    return [f"/portal{path.format(number=site.number, line=site.line)}" for path in PAGES]


def test_every_page_is_accessible_and_quiet(browser: Browser, site: Site) -> None:
    """In the light on a narrow screen; the demo's pages are looked at in the other combinations."""
    complaints: list[str] = []
    found = []
    page = open_page(browser, site, complaints, width=390, scheme="light")
    for path in addresses(site):
        page.goto(path)
        result = Axe().run(page, options=AXE)
        found += [
            f"{path}: {v['id']}: {n['target']} {n.get('failureSummary', '')}" for v in result.response["violations"] for n in v["nodes"]
        ]
    page.context.close()
    assert not found, "\n".join(found)
    assert [text for text in complaints if "422" not in text] == []


@pytest.mark.parametrize("width", [320, 390])
def test_no_page_scrolls_sideways(browser: Browser, site: Site, width: int) -> None:
    page = open_page(browser, site, width=width)
    wide = {}
    for path in addresses(site):
        page.goto(path)
        wide[path] = page.evaluate("document.documentElement.scrollWidth")
    page.context.close()
    assert {path: found for path, found in wide.items() if found > width} == {}


def test_spend_forecast_and_next_invoice_are_read_at_a_glance(browser: Browser, site: Site) -> None:
    page = open_page(browser, site, script=False)
    page.goto("/portal/")
    assert page.locator(".big data").get_attribute("value")
    assert page.locator(".spend .mid data").first.get_attribute("value")
    assert page.get_by_text("1 Dec 2026").first.is_visible()
    assert "s ago" in page.locator(".fresh").inner_text()
    page.context.close()


def test_from_a_charge_to_its_days_without_script(browser: Browser, site: Site) -> None:
    page = open_page(browser, site, script=False)
    page.goto(f"/portal/invoices/{site.number}?tiers=all")
    page.get_by_role("link", name="Show the usage").first.click()
    shown = page.locator(".mid data").first.get_attribute("value")
    assert page.locator("tfoot td").last.inner_text().replace(",", "") == shown
    assert page.locator(".recon").is_visible()
    page.context.close()


def test_the_explorer_changes_in_place_and_back_returns_a_whole_page(browser: Browser, site: Site) -> None:
    complaints: list[str] = []
    page = open_page(browser, site, complaints)
    page.goto("/portal/usage")
    page.get_by_label("Measure").focus()
    page.get_by_label("Measure").select_option("quantity")
    page.get_by_role("heading", name="quantity per day").wait_for()
    assert "measure=quantity" in page.url
    assert page.evaluate("document.activeElement.id") == "f-measure"
    page.get_by_label("Period").select_option("custom")
    page.get_by_label("From").wait_for()
    page.go_back()
    page.get_by_role("heading", name="Usage", exact=True).wait_for()
    assert page.locator("nav").count() > 0
    page.context.close()
    assert complaints == []


def test_a_plan_is_scheduled_and_taken_back_without_script(browser: Browser, site: Site) -> None:
    page = open_page(browser, site, script=False)
    page.goto("/portal/plan/compare")
    page.get_by_role("link", name="Preview change").first.click()
    page.get_by_label("At the end of the period").check()
    page.get_by_role("button", name="Preview the change").click()
    assert "Nothing is charged today" in page.locator("main").inner_text()
    page.get_by_role("button", name="Confirm the change").click()
    assert page.get_by_text("Planned. Nothing is charged today.").is_visible()
    page.get_by_role("button", name="Undo").click()
    assert page.get_by_text("Taken back. Your plan stays as it is.").is_visible()
    page.context.close()


def test_a_key_is_made_and_revoked_without_script(browser: Browser, site: Site) -> None:
    page = open_page(browser, site, script=False)
    page.goto("/portal/settings/keys/new")
    page.get_by_label("Name").fill("nightly")
    page.get_by_role("button", name="Create key").click()
    assert re.fullmatch(r"vv_live_\w{43}", page.get_by_label("Secret").input_value())
    page.get_by_role("link", name="I have stored it").click()
    page.get_by_role("link", name="Revoke").first.click()
    page.get_by_role("button", name="Revoke “nightly”").click()
    assert page.get_by_role("row", name="nightly").get_by_text("Revoked").is_visible()
    page.context.close()


def test_a_card_is_saved_on_the_providers_page_without_script(browser: Browser, site: Site) -> None:
    page = open_page(browser, site, script=False)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.post_data or "") if request.url.startswith(site.url) else None)
    page.goto("/portal/payment-methods")
    page.get_by_role("button", name="Add at the provider").click()
    page.get_by_role("link", name="Continue at the provider").click()
    assert not page.url.startswith(site.url)
    page.locator("button, input[type=submit]").first.click()
    page.wait_for_url(f"{site.url}/portal/payment-methods**")
    assert page.get_by_text("Saved. We charge it").is_visible()
    assert not any("4242424242424242" in body for body in asked)
    page.context.close()


def test_an_open_invoice_is_paid_without_script_from_the_overview(browser: Browser, site: Site) -> None:
    page = open_page(browser, site, script=False)
    page.goto("/portal/")
    page.get_by_role("button", name=re.compile("^Pay €")).click()
    assert page.get_by_text(re.compile("^Paid on")).is_visible()
    page.context.close()


def test_a_plan_changes_now_for_what_the_button_says_without_script(browser: Browser, site: Site) -> None:
    page = open_page(browser, site, script=False)
    page.goto("/portal/plan/change?plan=scale")
    page.get_by_role("button", name="Preview the change").click()
    button = page.get_by_role("button", name=re.compile("^Confirm and pay"))
    amount = button.inner_text().removeprefix("Confirm and pay ")
    button.click()
    assert "Paid on" in page.locator(".lead").first.inner_text()
    assert page.locator(".statement .total .amount").inner_text() == amount
    page.context.close()


def test_the_first_event_is_sent_from_the_page_without_script(browser: Browser, site: Site) -> None:
    page = open_page(browser, site, script=False)
    page.goto("/portal/start")
    page.get_by_role("button", name="Make my test key").click()
    shown, copied = page.locator("#snippet").inner_text(), page.locator("#snippet").get_attribute("data-copy-text") or ""
    secret = re.findall(r"vv_test_\w{43}", copied)[0]
    assert secret not in shown
    assert "Waiting for your first event" in page.locator("#feed").inner_text()
    page.get_by_role("button", name="Send it for me").click()
    assert "Answer, 202" in page.get_by_role("status", name="Answer").inner_text()
    assert '"accepted": 1' in page.locator(".answer").inner_text()
    page.context.close()
