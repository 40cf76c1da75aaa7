"""`/metrics` for Prometheus: requests as each process of the web counts them, and the product's state from the database.

Served only with METRICS_TOKEN set, to who sends it as a bearer token; to anybody else there is no such address. Without the setting
nothing is counted either. Processes share their counts through files, so any one of them answers for all.
"""

from __future__ import annotations

import hmac
import os
import time
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from flask import Flask, Response, current_app, request

from core import clock
from core.analytics import monitor
from core.config import Settings
from core.db import db
from core.errors import NotFound

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.4, 0.75, 1.5, 3.0, 10.0)
ROUTE = "valueverse.route"
USAGE = "/api/v1/billing/usage"
Environ = dict[str, Any]


class Counting:
    """A WSGI application around the whole product that counts its answers by route, method and status, and how long they took."""

    def __init__(self, inner: Any, folder: Path) -> None:
        share(folder)
        from prometheus_client import CollectorRegistry, Counter, Histogram

        self._inner = inner
        registry = CollectorRegistry(auto_describe=False)
        self._requests = Counter("http_requests", "Answers", ["site", "route", "method", "code"], registry=registry)
        self._seconds = Histogram("http_request_duration_seconds", "Time to the answer", ["site"], buckets=BUCKETS, registry=registry)
        self._labelled = lru_cache(4096)(self._requests.labels)
        self._timed = lru_cache(64)(self._seconds.labels)

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        began, code = time.perf_counter(), ["500"]

        def note(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            code[0] = status[:3]
            return start_response(status, headers, *rest)

        try:
            return self._inner(environ, note)
        finally:
            route = environ.get(ROUTE) or (USAGE if environ.get("PATH_INFO") == USAGE else "other")
            self.count(route, environ.get("REQUEST_METHOD", ""), code[0], time.perf_counter() - began)

    def count(self, route: str, method: str, code: str, seconds: float) -> None:
        """One more answer, which took so long."""
        site = (route.split("/", 2)[1] if route.startswith("/") else "") or "other"
        self._labelled(site, route, method, code).inc()
        self._timed(site).observe(seconds)


class State:
    """The collector of what the database knows."""

    def collect(self) -> Iterator[Any]:
        """Read when asked."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for one in monitor.measures(db.session(), at=clock.now()):
            family = (CounterMetricFamily if one.kind == "counter" else GaugeMetricFamily)(
                one.name, one.meaning, labels=[one.label] if one.label else []
            )
            for label, value in one.samples.items():
                family.add_metric([label] if one.label else [], value)
            yield family


def init_app(app: Flask, settings: Settings) -> None:
    """Serve `/metrics`, and with METRICS_TOKEN count requests; call it last, so that it stands around everything."""
    app.add_url_rule("/metrics", "metrics", _metrics)
    if settings.metrics_token:
        app.after_request(_remember_route)
        app.wsgi_app = counting = Counting(app.wsgi_app, settings.home / "metrics")  # type: ignore[method-assign]
        app.extensions["count_answer"] = counting.count


def share(folder: Path) -> None:
    """Let the processes of this home count together; files of an earlier start, whose processes are all gone, are removed.

    The library reads the variable when it is imported, so nothing may import it before.
    """
    folder = Path(os.environ.setdefault(FOLDER, str(folder)))
    folder.mkdir(parents=True, exist_ok=True)
    files = list(folder.glob("*.db"))
    if not any(Path("/proc", path.stem.rpartition("_")[2]).exists() for path in files):
        for path in files:
            path.unlink(missing_ok=True)


def _remember_route(response: Response) -> Response:
    request.environ[ROUTE] = request.url_rule.rule if request.url_rule else "other"
    return response


def _metrics() -> Response:
    token = current_app.config["SETTINGS"].metrics_token
    given = request.headers.get("Authorization", "")
    if not token or not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
        raise NotFound("There is no such page.")
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.exposition import CONTENT_TYPE_LATEST
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    registry.register(State())
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
