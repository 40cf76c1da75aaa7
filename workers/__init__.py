"""The worker processes: `dramatiq workers` runs the actors, `workers.clock` the sweeps, `workers.aggregator` counts usage.

Importing this package connects the queue, so that the actors declared in it belong to it. Each message is handled inside an
application context of a bare Flask application, which carries the database session and nothing of the web.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import dramatiq
import dramatiq.broker
from dramatiq.middleware import Middleware
from flask import Flask, has_app_context
from flask.ctx import AppContext

from core import config, jobs, logs
from core.db import db, engine_options, is_transient
from core.errors import ProviderUnavailable, Unavailable

THREADS = 8
STATEMENT_SECONDS_MAX = 300
ATTEMPTS_MAX = 8


@lru_cache(maxsize=1)
def app() -> Flask:
    """The bare application of this process: settings and database, no routes."""
    settings = config.current()
    logs.configure()
    bare = Flask("workers", static_folder=None)
    bare.config.update(
        SETTINGS=settings,
        SQLALCHEMY_DATABASE_URI=settings.database_url,
        SQLALCHEMY_ENGINE_OPTIONS=engine_options(THREADS, statement_seconds_max=STATEMENT_SECONDS_MAX),
    )
    db.init_app(bare)
    return bare


class ContextPerMessage(Middleware):
    """Opens an application context around each message, unless the caller (a test) already stands in one."""

    def __init__(self) -> None:
        self._opened: dict[str, AppContext] = {}

    def before_process_message(self, broker: dramatiq.Broker, message: Any) -> None:  # noqa: ARG002
        """Push the context in the worker's own thread."""
        if not has_app_context():
            context = app().app_context()
            context.push()
            self._opened[message.message_id] = context

    def after_process_message(self, broker: dramatiq.Broker, message: Any, **outcome: Any) -> None:  # noqa: ARG002
        """Pop it; the session goes back with it."""
        context = self._opened.pop(message.message_id, None)
        if context is not None:
            context.pop()

    def after_skip_message(self, broker: dramatiq.Broker, message: Any) -> None:
        """As after processing."""
        self.after_process_message(broker, message)


def worth_retrying(retries: int, error: BaseException) -> bool:
    """Retry what may pass by itself (the provider away, a deadlock); anything else is a fault that a repetition would only repeat."""
    return retries < ATTEMPTS_MAX and (isinstance(error, (ProviderUnavailable, Unavailable)) or is_transient(error))


def prepare(broker: dramatiq.Broker) -> dramatiq.Broker:
    """Add the context and the retry rule to `broker` and make it the process's own."""
    for middleware in broker.middleware:
        if isinstance(middleware, dramatiq.middleware.Retries):
            middleware.retry_when = worth_retrying
    if not any(isinstance(middleware, ContextPerMessage) for middleware in broker.middleware):
        broker.add_middleware(ContextPerMessage())
    dramatiq.set_broker(broker)
    return broker


prepare(dramatiq.broker.global_broker or jobs.connect(config.current().redis_url))

from workers import billing, delivery, keeping, limits, payments, test_clocks  # noqa: E402, F401 - importing them declares the actors, which need the broker
