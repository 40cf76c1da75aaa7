"""A database that takes packets and says nothing: whoever waits for it is told so, and goes on when it speaks again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from api.usage import UsageEndpoint
from core.config import Settings
from core.metering import lines
from ops.proxy import Proxy
from tests.metering.conftest import Metering


@pytest.fixture
def behind(metering: Metering) -> Iterator[tuple[Metering, Proxy]]:
    """The stack's web side, with a proxy before its database."""
    port = int(metering.url.rsplit(":", 1)[1].split("/")[0])
    proxy = Proxy(port)
    settings = Settings(environment="test", database_url=metering.url.replace(f":{port}/", f":{proxy.port}/"), usage_rate_per_second=10_000)
    endpoint = UsageEndpoint(metering.app.wsgi_app, settings)
    yield Metering(metering.app, metering.url, endpoint), proxy
    proxy.restore()
    endpoint.close()
    proxy.close()


def test_a_silent_database_is_a_503_and_no_wait_without_end(behind: tuple[Metering, Proxy], monkeypatch: pytest.MonkeyPatch) -> None:
    metering, proxy = behind
    code = "silent"
    metering.metric(code)
    token = metering.organization()[1]
    sent = {"metric_name": code, "idempotency_key": "before"}
    metering.send(token, sent)
    monkeypatch.setattr(lines, "SILENT_SECONDS_MAX", 0.2)
    proxy.freeze()
    known = metering.post(token, {**sent, "idempotency_key": "into the silence"})
    unknown = metering.post(metering.organization()[1], sent)
    assert [answer[0] for answer in (known, unknown)] == [503, 503]
    monkeypatch.undo()
    proxy.restore()
    metering.send(token, {**sent, "idempotency_key": "after"})
    metering.count()
    # What was under way when the silence began may have arrived: its sender repeats it, and its key makes that safe.
    assert metering.value("SELECT count(*) FROM usage_events WHERE idempotency_key IN ('before', 'after')") == 2
