"""The finance site in a real browser: accessible in both themes, narrow without scrolling sideways, its forms whole without JavaScript."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import pytest
from axe_playwright_python.sync_playwright import Axe
from flask import Flask
from playwright.sync_api import Browser, Page, expect, sync_playwright
from sqlalchemy import insert
from werkzeug.serving import make_server

from core import clock, config
from core.db import db, transaction
from core.identity import sessions
from core.identity.models import OperatorRole
from core.invoicing import listing, run
from core.metering.rejections.tables import usage_rejections
from ops import ports
from tests import database
from tests.admin.conftest import NOW
from tests.people import make_user
from tests.portal import story
from tests.web.test_look import AXE, FLAGS

pytestmark = pytest.mark.browser
DECEMBER = NOW.replace(month=12, day=1, hour=6)
PAGES = (
    "/",
    "/search?q=quill&all=1",
    "/accounts",
    "/accounts/new",
    "/accounts/{account}",
    "/accounts/{account}/subscriptions/new",
    "/accounts/{account}/invoices/new",
    "/accounts/{account}/keys/new",
    "/accounts/{account}/event?key=nothing",
    "/subscriptions",
    "/subscriptions/{subscription}",
    "/subscriptions/{subscription}/change",
    "/invoices",
    "/invoices/{invoice}",
    "/runs",
    "/runs/{run}?reason=calm",
    "/runs/{run}/finalization",
    "/payments",
    "/events",
    "/events/rejected",
    "/events/unclaimed",
    "/mails",
    "/audit",
    "/audit/proof",
    "/health",
    "/health/books",
    "/catalog",
    "/catalog/metrics",
    "/catalog/plans/build",
)
EDITOR = "/catalog/plans/build/next"
OF_THE_CATALOGUE = (EDITOR, "/catalog/metrics/new?event=llm.tokens")
"""What only the catalogue's own operator opens."""


@dataclass(frozen=True, slots=True)
class Site:
    """The running finance site: its app and address, cookies of a finance and a catalogue admin, ids for the addresses."""

    app: Flask
    url: str
    finance: str
    catalog: str
    ids: dict[str, str]


@pytest.fixture(scope="module")
def site(committed_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    port = ports.free()
    with clock.frozen(DECEMBER):
        app = database.make_app(committed_database_url, tmp_path_factory.mktemp("home"))
        config.use(app.config["SETTINGS"])
        with app.app_context():
            site = _filled(app, f"http://127.0.0.1:{port}")
        server = make_server("127.0.0.1", port, app, threaded=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield site
        server.shutdown()
        thread.join(10)


def _filled(app: Flask, url: str) -> Site:
    with transaction() as session:
        told = story.tell(session, now=NOW, months=2)
        ids = {"account": str(told.organization.id), "subscription": str(told.subscription.id)}
        ids["invoice"] = str(listing.open_invoices(session, told.organization.id)[0].id)
        begun = run.start(session, as_of=DECEMBER, actor=story.SETUP, at=DECEMBER)
        ids["run"] = str(begun.id)
        _reject(session, ids["account"], "refused-1")
        tokens = [
            sessions.begin(session, make_user(session, operator_role=role), site="admin", at=DECEMBER, mfa_at=DECEMBER)[1]
            for role in (OperatorRole.FINANCE, OperatorRole.CATALOG_ADMIN)
        ]
    with transaction() as session:
        assert run.rate_set(session, begun.id, after_id=None, at=DECEMBER, actor=story.SETUP) is not None
    with transaction() as session:
        run.rate_set(session, begun.id, after_id=told.subscription.id, at=DECEMBER, actor=story.SETUP)
    return Site(app, url, tokens[0], tokens[1], ids)


def _reject(session: object, account: str, key: str) -> None:
    row = {"received_at": DECEMBER - timedelta(minutes=5), "organization_id": account, "position": 0, "code": "unknown_metric"}
    event = b'{"metric_name": "typo", "idempotency_key": "' + key.encode() + b'"}'
    db.session.execute(insert(usage_rejections).values(**row, pointer="/metric_name", detail="No metric reads it.", event=event))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS.split())
        yield running
        running.close()


def open_page(
    browser: Browser, site: Site, *, width: int = 1280, scheme: str = "light", script: bool = True, catalog: bool = False
) -> tuple[Page, list[str]]:
    """A signed-in tab, and what its browser complains about."""
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,  # type: ignore[arg-type]
        java_script_enabled=script,
        base_url=site.url,
    )
    context.add_cookies([{"name": "vv_admin", "value": site.catalog if catalog else site.finance, "url": site.url}])
    page, complaints = context.new_page(), list[str]()
    page.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return page, complaints


def test_every_page_is_accessible_and_fits(browser: Browser, site: Site) -> None:
    """In the dark at full width, then no wider than a phone; the demo's pages are looked at in the other combinations."""
    wrong: list[str] = []
    for addresses, catalog in ((PAGES, False), (OF_THE_CATALOGUE, True)):
        page, complaints = open_page(browser, site, scheme="dark", catalog=catalog)
        for address in addresses:
            page.set_viewport_size({"width": 1280, "height": 900})
            answer = page.goto(f"/admin{address.format(**site.ids)}")
            assert answer is not None
            page.wait_for_selector(".htmx-request", state="detached")
            found = Axe().run(page, options=AXE).response["violations"]
            wrong += [f"{address}: {answer.status}"] * (answer.status != 200)
            wrong += [f"{address}: {item['id']} {item['nodes'][0]['html'][:120]}" for item in found]
            page.set_viewport_size({"width": 390, "height": 900})
            wide = page.evaluate("document.documentElement.scrollWidth")
            wrong += [f"{address} is {wide} px wide"] * (wide > 390)
        wrong += complaints
    assert not wrong, "\n".join(wrong)


def test_the_late_parts_of_an_account_arrive(browser: Browser, site: Site) -> None:
    page, complaints = open_page(browser, site)
    page.goto(f"/admin/accounts/{site.ids['account']}")
    expect(page.locator("#usage svg.plot")).to_be_visible()
    expect(page.locator("#timeline")).to_contain_text("issued")
    expect(page.locator("#mails")).to_contain_text("No mail yet")
    assert complaints == []


def test_prices_are_calculated_while_they_are_typed(browser: Browser, site: Site) -> None:
    page, complaints = open_page(browser, site, catalog=True)
    page.goto(f"/admin{EDITOR}")
    expect(page.locator("#calculation")).to_contain_text("€99.00")
    output_tokens = page.locator('[name="prices_0_use_quantity"]')
    output_tokens.fill("20000000")
    expect(page.locator("#calculation")).to_contain_text("€96.00")
    expect(page.locator("#calculation")).to_contain_text("€719.12")
    page.get_by_label("Base price", exact=True).fill("4.00")
    expect(page.locator("#calculation")).to_contain_text("€624.12")
    assert output_tokens.input_value() == "20000000"
    assert complaints == []


def test_new_events_are_put_on_top_until_paused(browser: Browser, site: Site) -> None:
    page, complaints = open_page(browser, site)
    page.goto("/admin/events")
    expect(page.locator("table.tail")).to_contain_text("refused-1")
    with site.app.app_context(), transaction() as session:
        _reject(session, site.ids["account"], "refused-2")
    expect(page.locator("table.tail")).to_contain_text("refused-2", timeout=8_000)
    assert page.locator("table.tail tbody tr").count() == 2
    page.get_by_role("button", name="Pause updates").click()
    with site.app.app_context(), transaction() as session:
        _reject(session, site.ids["account"], "refused-3")
    page.wait_for_timeout(3_500)
    assert page.locator("table.tail tbody tr").count() == 2
    assert complaints == []


def test_buttons_that_move_money_work_without_javascript(browser: Browser, site: Site) -> None:
    page, _ = open_page(browser, site, script=False)
    page.goto(f"/admin/accounts/{site.ids['account']}")
    page.get_by_role("link", name="One-off invoice").click()
    page.get_by_label("Line 1, description").fill("Migration")
    page.get_by_label("Line 1, unit price").fill("450.00")
    page.get_by_label("Reason").fill("Agreed with Lena on 20 Nov")
    page.get_by_role("button", name="Make the draft").click()
    page.get_by_role("button", name="Rate again").click()
    page.get_by_role("button", name="Finalize €535.50").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("INV-2026-")
    page.goto(f"/admin/runs/{site.ids['run']}")
    page.get_by_role("link", name="Finalize 1 draft").click()
    page.get_by_role("button", name="Finalize 1", exact=True).click()
    expect(page.locator("main")).to_contain_text("Finalizing")
    page.goto("/admin/runs")
    page.get_by_role("button", name="Start a run of everything due").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Run of 1 Dec 2026")
