"""The look: every component on pages of its own, in a real browser, in both themes, wide and narrow."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright
from werkzeug.serving import make_server

from tests.web.app import PAGES, create_app

ROOT = Path(__file__).resolve().parents[2]
FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
AXE = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"]}}
COLOURS = {"runOnly": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}}
"""The rules that can tell one theme from the other; the rest reads the same markup."""
STATES = (*PAGES, "invoice?tiers=all", "forms?errors=1")

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = make_server("127.0.0.1", 0, create_app(), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(10)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS.split())
        yield running
        running.close()


@pytest.fixture
def complaints() -> list[str]:
    return []


def open_page(browser: Browser, complaints: list[str], width: int, scheme: str = "light", **options: object) -> Page:
    page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **options).new_page()  # type: ignore[arg-type]
    page.on(
        "console",
        lambda message: complaints.append(message.text) if message.type in ("error", "warning") and "422" not in message.text else None,
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return page


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_every_page_is_accessible_and_quiet(browser: Browser, site: str, complaints: list[str], width: int, scheme: str) -> None:
    page = open_page(browser, complaints, width, scheme)
    found = []
    for state in STATES:
        page.goto(f"{site}/{state}")
        result = Axe().run(page, options=AXE if scheme == "light" else COLOURS)
        found += [
            f"{state}: {v['id']}: {n['target']} {n.get('failureSummary', '')}" for v in result.response["violations"] for n in v["nodes"]
        ]
    page.context.close()
    assert not found, "\n".join(found)
    assert not complaints, complaints


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_no_page_scrolls_sideways(browser: Browser, site: str, complaints: list[str], width: int) -> None:
    page = open_page(browser, complaints, width)
    wide = {}
    for state in STATES:
        page.goto(f"{site}/{state}")
        wide[state] = page.evaluate("document.documentElement.scrollWidth")
    page.context.close()
    assert {state: found for state, found in wide.items() if found > width} == {}


def test_tiers_open_without_javascript(browser: Browser, site: str, complaints: list[str]) -> None:
    page = open_page(browser, complaints, 1280, java_script_enabled=False)
    page.goto(f"{site}/invoice")
    first = page.locator(".walk-box").first
    assert not first.is_visible()
    page.get_by_text("Output tokens", exact=False).first.click()
    assert first.is_visible()
    assert "€453.73792" in first.inner_text()
    assert not page.locator(".walk-box").nth(1).is_visible()
    page.context.close()


def test_a_refused_form_takes_focus_to_the_summary_and_links_to_the_field(browser: Browser, site: str, complaints: list[str]) -> None:
    page = open_page(browser, complaints, 1280)
    page.goto(f"{site}/forms?errors=1")
    assert page.title().startswith("Error: ")
    assert page.evaluate("document.activeElement.className") == "error-summary"
    page.get_by_role("link", name="Enter an e-mail address like finance@company.example").click()
    assert page.evaluate("document.activeElement.id") == "f-billing_email"
    described = page.locator("#f-billing_email").get_attribute("aria-describedby") or ""
    assert described.split() == ["f-billing_email-hint", "f-billing_email-error"]
    page.context.close()


def test_more_rows_arrive_in_place_and_take_focus(browser: Browser, site: str, complaints: list[str]) -> None:
    page = open_page(browser, complaints, 1280)
    page.goto(f"{site}/run")
    before = page.locator(".exceptions > tbody > tr").count()
    page.get_by_role("link", name="Show 50 more").click()
    page.get_by_role("link", name="Account 54").wait_for()
    assert page.locator(".exceptions > tbody > tr").count() == before - 1 + 5
    assert page.evaluate("document.activeElement.textContent") == "Account 50"
    assert complaints == []
    page.context.close()


def test_a_dialog_opens_over_the_page_and_gives_focus_back(browser: Browser, site: str, complaints: list[str]) -> None:
    page = open_page(browser, complaints, 1280)
    page.goto(f"{site}/parts")
    page.locator("#revoke").click()
    page.locator("dialog[open]").wait_for()
    page.keyboard.press("Escape")
    page.locator("dialog[open]").wait_for(state="hidden")
    assert page.evaluate("document.activeElement.id") == "revoke"
    assert page.locator("#dialog").inner_html() == ""
    page.context.close()


def test_live_parts_refresh_say_so_and_can_be_paused(browser: Browser, site: str, complaints: list[str]) -> None:
    page = open_page(browser, complaints, 1280)
    page.goto(f"{site}/overview")
    page.evaluate("htmx.trigger(document.body, 'refresh')")
    page.locator("#live", has_text="Spend so far €1,381.27").wait_for(state="attached")
    page.get_by_role("button", name="Pause updates").first.click()
    assert page.locator("[data-pause]").first.get_attribute("aria-pressed") == "true"
    assert page.evaluate("document.querySelectorAll('#spend').length") == 1
    page.context.close()


def test_copying_takes_the_whole_text_and_is_announced(browser: Browser, site: str, complaints: list[str]) -> None:
    page = open_page(browser, complaints, 1280, permissions=["clipboard-read", "clipboard-write"])
    page.goto(f"{site}/forms")
    page.get_by_role("button", name="Copy").click()
    page.locator("#live", has_text="Copied").wait_for(state="attached")
    assert page.evaluate("navigator.clipboard.readText()") == "curl -sS https://northlight.example/api/v1/billing/usage"
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_plotly_takes_over_with_the_page_colours_and_no_complaint(browser: Browser, site: str, complaints: list[str], scheme: str) -> None:
    page = open_page(browser, complaints, 1280, scheme)
    page.goto(f"{site}/usage")
    before = page.locator("#projects").bounding_box()
    page.locator("#projects.live .bars").first.wait_for(state="attached", timeout=20_000)
    after = page.locator("#projects").bounding_box()
    assert before == after
    colour = page.evaluate("getComputedStyle(document.querySelector('#projects .xtick text')).fill")
    assert colour == {"light": "rgb(93, 102, 117)", "dark": "rgb(149, 160, 174)"}[scheme]
    assert complaints == []
    page.context.close()


def test_search_is_one_key_away(browser: Browser, site: str, complaints: list[str]) -> None:
    page = open_page(browser, complaints, 1280)
    page.goto(f"{site}/dashboard")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.context.close()


def test_the_chosen_theme_is_in_the_first_byte_and_returns_to_the_page(browser: Browser, site: str, complaints: list[str]) -> None:
    page = open_page(browser, complaints, 1280, java_script_enabled=False)
    page.goto(f"{site}/parts")
    page.locator(".rail-inner summary").click()
    page.get_by_role("button", name="Dark theme").last.click()
    assert page.url.rstrip("?") == f"{site}/parts"
    assert page.locator("html").get_attribute("data-theme") == "dark"
    page.context.close()


def test_templates_hold_no_inline_code_and_no_formatted_floats() -> None:
    banned = re.compile(
        r"""\sstyle=|<style|\shx-on|\son(?:blur|change|click|error|focus|input|key\w+|load|mouse\w+|pointer\w+|scroll|submit|toggle|touch\w+)=|<script(?![^>]*(?:src=|type="application/json"))|%\.\df|\|\s*float|javascript:"""
    )
    pages = [path for path in (ROOT / "templates").rglob("*.html") if path.parent.name not in ("emails", "documents")]
    assert len(pages) > 20
    assert [f"{path.name}: {found.group()}" for path in pages if (found := banned.search(path.read_text()))] == []


def test_parts_stay_small() -> None:
    limits = {"templates/**/*.html": 120, "static/js/*.js": 60}
    sizes = {
        str(path.relative_to(ROOT)): (len(path.read_text().splitlines()), limit)
        for glob, limit in limits.items()
        for path in ROOT.glob(glob)
    }
    assert {name: size for name, size in sizes.items() if size[0] > size[1]} == {}
