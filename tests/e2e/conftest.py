"""The whole product with its demo, started once for all journeys, and a browser to walk them in.

Set VALUEVERSE_E2E_HOME to the home of a copy that already runs to work on that one instead; it is left running.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from core.invoicing import due
from ops import home as homes
from tests.e2e.product import Stack, Visitor, running, until
from tests.web.test_look import FLAGS

HERE = Path(__file__).parent
Visit = Callable[..., Visitor]
PRINTING_SECONDS_MAX = 300.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Journeys first: what heads the list stays on one worker, so that the product is started once."""
    items.sort(key=lambda item: HERE not in item.path.parents)


def printed(stack: Stack) -> bool:
    """Whether every issued invoice has its PDF."""
    with stack.unit_of_work() as session:
        return not due.to_print(session)


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The product with its demo on a home of its own."""
    if named := os.environ.get("VALUEVERSE_E2E_HOME"):
        state = homes.running(Path(named))
        assert state is not None, f"nothing runs on {named}"
        yield Stack(Path(named), state)
        return
    folder = Path(tempfile.mkdtemp(prefix="vve-", dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        with running(folder / "home") as started:
            until(lambda: printed(started), "the demo's invoices are printed", seconds=PRINTING_SECONDS_MAX)
            yield started
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Headless Chromium; of a module, since a thread holds one Playwright at a time."""
    with sync_playwright() as playwright:
        running_browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS.split())
        yield running_browser
        running_browser.close()


@pytest.fixture
def visit(chromium: Browser, stack: Stack) -> Iterator[Visit]:
    """Open windows on the product; all are closed after the test."""
    opened: list[Visitor] = []

    def window(**options: object) -> Visitor:
        opened.append(Visitor(chromium, stack, **options))  # type: ignore[arg-type]
        return opened[-1]

    yield window
    for visitor in opened:
        visitor.close()
