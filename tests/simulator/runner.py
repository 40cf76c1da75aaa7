"""Runs seeds, one life each, and says which of them diverged: the seed alone brings the same life back."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from core.db import db
from tests import database
from tests.fakes.fixtures import provider_fake
from tests.simulator.house import House, house
from tests.simulator.kernel import Kernel
from tests.simulator.product import STEPS, World

LIVES_PER_HOUSE = 100
"""Then a new database: `verify` looks at all of it after each life."""
SAID_EVERY_SECONDS = 10.0


def run(seeds: range, world: str, say: Callable[[str], None]) -> list[int]:
    """Live the seeds' lives in the pure kernel, in the whole product, or in `both`; returns those that diverged."""
    failed: list[int] = []
    if world in ("kernel", "both"):
        failed += _all(seeds, "kernel", lambda seed: Kernel(seed).live(), say)
    if world in ("product", "both"):
        for first in range(seeds.start, seeds.stop, LIVES_PER_HOUSE):
            with new_house() as made:
                some = range(first, min(first + LIVES_PER_HOUSE, seeds.stop))
                failed += _all(some, "product", lambda seed, made=made: live_in(made, seed), say)  # type: ignore[misc]
    return sorted(set(failed))


def live_in(made: House, seed: int, steps: int = STEPS) -> None:
    """One life on PostgreSQL; its books must be right at the end."""
    World(made, seed).live(steps)
    findings = made.findings()
    assert not findings, "verify finds: " + "; ".join(f"{finding.code}: {finding.what}" for finding in findings)


@contextmanager
def new_house() -> Iterator[House]:
    """A throw-away server with the migrated schema, and a provider."""
    with (
        database.running_cluster() as cluster,
        provider_fake() as fake,
        tempfile.TemporaryDirectory() as home,
        house(database.create_database(cluster, "simulated"), Path(home), fake) as made,
    ):
        yield made


def _all(seeds: range, world: str, live: Callable[[int], None], say: Callable[[str], None]) -> list[int]:
    failed: list[int] = []
    began = said = time.monotonic()
    for done, seed in enumerate(seeds, start=1):
        try:
            live(seed)
        except Exception as error:  # whatever a life ends with is a finding; the next seed may show another
            failed.append(seed)
            say(f"seed {seed} ({world}): {type(error).__name__}: {error}")
            if world == "product":
                db.session.rollback()
        if time.monotonic() - said > SAID_EVERY_SECONDS or done == len(seeds):
            said = time.monotonic()
            say(f"{world}: {done} of {len(seeds)} lives, {len(failed)} diverged, {said - began:.0f} s")
            sys.stdout.flush()
    return failed
