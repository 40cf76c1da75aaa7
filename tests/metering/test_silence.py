"""A database that takes packets and says nothing: whoever waits for it is told so, and goes on when it speaks again."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from api.usage import UsageEndpoint
from core.config import Settings
from core.metering import directory, lines
from ops.proxy import Proxy
from tests.metering.conftest import Metering


@pytest.fixture
def behind(metering: Metering, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Metering, Proxy]]:
    """The stack's web side, less patient than it is, with a proxy before its database."""
    for module, name, seconds in ((lines, "SILENT_SECONDS_MAX", 0.5), (lines, "CONNECT_SECONDS_MAX", 2), (directory, "WAIT_SECONDS", 0.5)):
        monkeypatch.setattr(module, name, seconds)
    port = psycopg.conninfo.conninfo_to_dict(metering.url)["port"]
    proxy = Proxy(int(str(port)))
    settings = Settings(environment="test", database_url=metering.url.replace(f":{port}/", f":{proxy.port}/"))
    endpoint = UsageEndpoint(metering.app.wsgi_app, settings)
    yield Metering(metering.app, metering.url, endpoint), proxy
    proxy.restore()
    endpoint.close()
    proxy.close()


def test_a_silent_database_is_a_503_and_no_wait_without_end(behind: tuple[Metering, Proxy]) -> None:
    metering, proxy = behind
    metering.metric("silent")
    token = metering.organization()[1]
    sent = {"metric_name": "silent", "idempotency_key": "before"}
    metering.send(token, sent)
    proxy.freeze()
    known = metering.post(token, {**sent, "idempotency_key": "into the silence"})
    unknown = metering.post(metering.organization()[1], sent)
    assert [answer[0] for answer in (known, unknown)] == [503, 503]
    proxy.restore()
    metering.send(token, {**sent, "idempotency_key": "after"})
    metering.count()
    # What was on its way when the silence began may have arrived: its sender repeats it, and its key makes that safe.
    assert metering.value("SELECT count(*) FROM usage_events WHERE idempotency_key IN ('before', 'after')") == 2
