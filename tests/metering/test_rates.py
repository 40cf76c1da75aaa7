"""One bucket a key for all web processes, and one for each when nothing keeps it for them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest

from core.errors import RateLimited
from core.metering.rates import BURST_SECONDS, Rates
from ops.proxy import Proxy

RATE = 1_000


@pytest.fixture
def valkey(valkey_server_url: str) -> Iterator[tuple[str, Proxy]]:
    """The address of a Valkey behind a proxy."""
    proxy = Proxy(urlsplit(valkey_server_url).port or 0)
    yield f"redis://127.0.0.1:{proxy.port}/0", proxy
    proxy.close()


@pytest.fixture
def processes(valkey: tuple[str, Proxy]) -> Iterator[list[Rates]]:
    """What two web processes of two keep."""
    made = [Rates(RATE, workers=2, redis_url=valkey[0]) for _ in range(2)]
    yield made
    for rates in made:
        rates.close()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "this did not happen in time"
        time.sleep(0.01)


def is_limited(rates: Rates, key: uuid.UUID, *, taking: int = 0) -> bool:
    """Whether the key is refused; `taking` is let in otherwise."""
    try:
        rates.check(key)
    except RateLimited:
        return True
    rates.take(key, taking)
    return False


def test_what_one_process_let_in_another_counts(processes: list[Rates]) -> None:
    first, second = processes
    noisy, quiet = uuid.uuid4(), uuid.uuid4()
    first.take(noisy, RATE * BURST_SECONDS * 50)
    until(lambda: is_limited(second, noisy, taking=1))
    until(lambda: is_limited(first, noisy))
    assert not any(is_limited(rates, quiet, taking=1) for rates in processes)


def test_without_valkey_each_process_keeps_its_share(processes: list[Rates], valkey: tuple[str, Proxy]) -> None:
    first, second = processes
    key, other = uuid.uuid4(), uuid.uuid4()
    first.take(key, 1)
    until(lambda: first.shared)
    valkey[1].cut()
    first.take(key, RATE * BURST_SECONDS * 50)
    until(lambda: not first.shared)
    assert is_limited(first, key), "its own bucket is overdrawn"
    assert not is_limited(second, key, taking=1), "and nobody else's"
    valkey[1].restore()
    until(lambda: not is_limited(first, other, taking=1) and first.shared)
