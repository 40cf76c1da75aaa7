"""Every page of both sites over the demo: reachable by links, accessible, quiet, narrow enough; and the core flows without JavaScript.

The pictures are kept in tests/e2e/artifacts for people to look at.
"""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from ops.demo_data import EVENT
from tests.e2e.conftest import Visit
from tests.e2e.product import Stack, Visitor, until
from tests.e2e.walk import Sites, crawl
from tests.web.test_look import AXE

pytestmark = [pytest.mark.stack, pytest.mark.browser]
ARTIFACTS = Path(__file__).parent / "artifacts"
LOOKS = ((1280, "light"), (390, "dark"))
"""Width and theme."""
BEFORE_SIGN_IN = {"portal.sign_in", "admin.sign_in", "admin.second_factor"}
ON_THE_WAY = {
    "portal.finish_setup": "the provider leads back to it",
    "portal.continue_setup": "a form leads to it",
    "portal.plan_quote": "a form leads to it",
    "portal.new_add_on": "a plan with add-ons on offer leads to it",
    "portal.add_on": "a subscription with an add-on leads to it",
    "portal.plan_act": "a plan in good standing, a paused or an ended one leads to it",
    "admin.plan_quote": "a form leads to it",
    "admin.search": "a form leads to it",
    "admin.run_progress": "asked while a run is at work",
    "admin.events_tail": "asked while somebody watches",
    "admin.new_plan": "the catalogue's own operator is led to it",
    "admin.next_version": "the catalogue's own operator is led to it",
    "admin.draft": "a saved draft leads to it",
    "admin.edit_draft": "a saved draft leads to it",
    "admin.correct_event": "the page of a counted event leads to it",
    "admin.simulation": "a form leads to it",
    "admin.simulation_csv": "a simulation's page leads to it",
    "admin.simulation_progress": "asked while a simulation is at work",
    "admin.move": "a form leads to it",
    "admin.move_progress": "asked while a move is at work",
    "admin.new_metric": "the catalogue's own operator is led to it",
    "admin.change_metric": "the catalogue's own operator is led to it",
    "admin.revise_metric": "the catalogue's own operator is led to it",
    "admin.metric_revision": "a proposed revision leads to it",
    "admin.backfill": "a file that was sent leads to it",
    "admin.backfill_work": "asked while a file is being applied",
    "portal.settings": "forwards to the first of its pages",
    "portal.check_tax": "a field asks for it",
    "portal.invoice_payment": "asked while a payment is under way",
    "portal.live_events": "asked while the panel listens",
}


def enter(visit: Visit, stack: Stack, who: str, **options: object) -> Visitor:
    """A window in which the demo login is signed in."""
    visitor, login = visit(**options), stack.login(who)
    visitor.sign_in(urlsplit(login["path"]).path.split("/")[1], login["email"], login["password"], login.get("totp_secret", ""))
    return visitor


def look(page: Page, name: str) -> list[str]:
    """Put one loaded page through every width and theme; what is wrong with it, of which there is a picture then."""
    wrong = []
    for width, scheme in LOOKS:
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
        found = audit(page, f"{name} {scheme}")
        if (wide := page.evaluate("document.documentElement.scrollWidth")) > width:
            found.append(f"{name} is {wide} px wide at {width}")
        if found:
            page.screenshot(path=ARTIFACTS / f"{name}-{width}-{scheme}.png", full_page=True)
        wrong += found
    return wrong


def audit(page: Page, name: str) -> list[str]:
    """What axe finds on the page as it stands."""
    found = Axe().run(page, options=AXE).response["violations"]
    return [f"{name} {v['id']}: {n['target']} {n.get('failureSummary', '')}" for v in found for n in v["nodes"]]


def walk_site(visitor: Visitor, site: str, start: list[str]) -> list[str]:
    """Open every page of a site that links lead to; what is wrong, with the site's routes that nothing leads to."""
    sites = Sites()
    found, wrong = crawl(sites, visitor.context.request, start)
    missing = {name for name in sites.routes if name.startswith(f"{site}.")} - set(found) - BEFORE_SIGN_IN - set(ON_THE_WAY)
    wrong += [f"no link leads to {sites.routes[name]} ({name})" for name in sorted(missing)]
    for endpoint, addresses in found.items():
        if not endpoint.startswith(f"{site}.") or endpoint.endswith(("_csv", "_pdf", "_proof")):
            continue
        for number, address in enumerate(addresses):
            answer = visitor.page.goto(address)
            if answer is None or answer.status != 200:
                wrong.append(f"{address} answered {answer.status if answer else 'nothing'}")
            wrong += look(visitor.page, endpoint) if number == 0 else []
            wrong += [f"{address}: {text}" for text in visitor.complaints]
            visitor.complaints.clear()
    return wrong


def test_every_page_of_the_portal(stack: Stack, visit: Visit) -> None:
    visitor = enter(visit, stack, "Customer")
    wrong = walk_site(visitor, "portal", ["/portal/"])
    assert wrong == [], "\n".join(wrong)


def test_every_page_of_the_admin(stack: Stack, visit: Visit) -> None:
    visitor = enter(visit, stack, "Finance admin")
    wrong = walk_site(visitor, "admin", ["/admin/"])
    assert wrong == [], "\n".join(wrong)


@pytest.mark.parametrize("site", ["portal", "admin"])
def test_the_way_in(visit: Visit, site: str) -> None:
    visitor = visit()
    visitor.page.goto(f"/{site}/sign-in")
    assert look(visitor.page, f"{site}.sign_in") == []
    assert visitor.complaints == []


def test_the_overdue_invoice_is_paid_without_script(stack: Stack, visit: Visit) -> None:
    page = enter(visit, stack, "Customer", script=False).page
    page.goto("/portal/")
    pay = page.get_by_role("button", name=re.compile("^Pay €")).first
    amount = pay.inner_text().removeprefix("Pay ")
    assert "insufficient funds" in page.locator("main").inner_text()  # what the bank said last, and that nothing was charged
    pay.click()
    assert page.get_by_text(re.compile("^Paid on")).first.is_visible()
    page.screenshot(path=ARTIFACTS / "journey-paid.png", full_page=True)
    page.goto("/portal/")
    assert page.get_by_role("button", name=f"Pay {amount}").count() == 0


def test_a_plan_change_is_previewed_and_confirmed_without_script(stack: Stack, visit: Visit) -> None:
    page = enter(visit, stack, "Customer", script=False).page
    page.goto("/portal/plan/compare")
    page.get_by_role("link", name="Preview change").first.click()
    page.get_by_role("button", name="Preview the change").click()
    button = page.get_by_role("button", name=re.compile("^Confirm"))
    amount = button.inner_text().removeprefix("Confirm and pay ")
    page.screenshot(path=ARTIFACTS / "journey-plan-quote.png", full_page=True)
    button.click()
    assert page.get_by_text("Your plan has changed.").is_visible()
    assert page.locator(".statement .total .amount").inner_text() == amount
    page.screenshot(path=ARTIFACTS / "journey-plan-changed.png", full_page=True)


def test_a_key_is_made_works_and_is_revoked_without_script(stack: Stack, visit: Visit) -> None:
    page, name = enter(visit, stack, "Customer", script=False).page, f"nightly-{uuid.uuid4().hex[:6]}"
    page.goto("/portal/settings/keys")
    page.get_by_role("link", name="Create a key").click()
    page.get_by_label("Name").fill(name)
    page.get_by_role("button", name="Create key").click()
    token = page.get_by_label("Secret").input_value()
    assert post_event(stack, token) == 202
    page.get_by_role("link", name="I have stored it").click()
    page.get_by_role("row", name=name).get_by_role("link", name="Revoke").click()
    page.get_by_role("button", name=f"Revoke “{name}”").click()
    assert page.get_by_role("row", name=name).get_by_text("Revoked").is_visible()
    until(lambda: post_event(stack, token) == 401, "the key is refused")  # within a second: each web process asks again that often


def post_event(stack: Stack, token: str) -> int:
    """The status that a small event of the demo's kind is answered with."""
    event = {"event_name": EVENT, "idempotency_key": uuid.uuid4().hex, "properties": {"output_tokens": 1, "project": "eval-nightly"}}
    sent = {"Authorization": f"Bearer {token}"}
    return requests.post(f"{stack.url}/api/v1/billing/usage", json=event, headers=sent, timeout=10).status_code
