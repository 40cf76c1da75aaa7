"""Random lives in the kernel and in the whole product agree with a naive model; a broken kernel would be noticed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask

from core import config
from tests.fakes.fixtures import provider_fake
from tests.simulator import kernel
from tests.simulator.house import House, house
from tests.simulator.kernel import Divergence
from tests.simulator.runner import live_in

KERNEL_SEEDS, CHUNK, KERNEL_STEPS = 300, 75, 15
PRODUCT_SEEDS, PRODUCT_STEPS = 3, 12


@pytest.fixture(scope="module")
def made(app: Flask, committed_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """The product, on a database of this module's own."""
    before = app.config["SETTINGS"]
    with provider_fake() as fake, house(committed_database_url, tmp_path_factory.mktemp("home"), fake) as built:
        yield built
    config.use(before)


def lives(seeds: range) -> None:
    """Live them; what goes wrong names its seed."""
    for seed in seeds:
        try:
            kernel.Kernel(seed).live(KERNEL_STEPS)
        except AssertionError as error:
            raise Divergence(f"seed {seed}: {error}") from error


@pytest.mark.parametrize("first", range(0, KERNEL_SEEDS, CHUNK))
def test_the_kernel_bills_every_life_as_the_model_does(first: int) -> None:
    lives(range(first, first + CHUNK))


@pytest.mark.parametrize("seed", range(PRODUCT_SEEDS))
def test_the_product_bills_every_life_as_the_model_does(made: House, seed: int) -> None:
    live_in(made, seed, PRODUCT_STEPS)


def test_a_kernel_that_forgets_a_credit_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = kernel.due
    monkeypatch.setattr(kernel, "due", lambda *given: [item for item in right(*given) if item.minor > -100])
    with pytest.raises(Divergence):
        lives(range(20))
