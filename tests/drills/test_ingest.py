"""The short form of `make drill-ingest`: the product's own processes, killed and cut off; what it acknowledged is there, once.

The drills whose faults need no process of their own are proven in tests/metering: shifted keys, missing partitions, poison, bombs.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from core import config
from ops import drill_ingest, postgres
from ops.drill_report import Size
from ops.drill_site import Site, site

SETTINGS = {**postgres.THROWAWAY, "synchronous_commit": "on", "full_page_writes": "on", "max_connections": "100"}
"""A killed process loses nothing of what the kernel has been given, so fsync may be off; only a power cut would tell."""
SHORT = Size(0.01)


@pytest.fixture(scope="module")
def running() -> Iterator[Site]:
    """One site for all drills; they leave it as they found it, but for the last."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "_current", None)
        with site(drill_ingest.ORGANIZATIONS, SETTINGS) as made:
            yield made


@pytest.mark.parametrize("name", ["cut_answers", "kills", "database_away"])
def test_nothing_acknowledged_is_lost_or_doubled(running: Site, name: str) -> None:
    report = drill_ingest.DRILLS[name](running, SHORT)
    assert report.faults == [], report.figures
    assert report.figures["acknowledged"] == report.figures["events"]
    assert (report.figures["lost"], report.figures["doubled"]) == (0, 0)


def test_a_server_that_acknowledges_too_early_is_found_out(running: Site) -> None:
    report = drill_ingest.control(running, SHORT)
    assert report.faults == [], report.figures
