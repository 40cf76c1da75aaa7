"""The workers on a database of their own and a queue in memory, whose messages are handled when the test says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dramatiq
import dramatiq.broker
import pytest
from dramatiq.brokers.stub import StubBroker
from flask import Flask

from core import jobs
from tests.bare import make_bare_app


class Queue:
    """A queue in memory with the product's own actors; `drain` handles every message, those they cause too."""

    def __init__(self, broker: StubBroker) -> None:
        self.broker = broker
        self.handled: list[str] = []

    def drain(self, *, times: int = 1) -> list[str]:
        """Handle all messages, each of them `times` times; returns the names of the actors in order."""
        self.handled = []
        queue = self.broker.queues[jobs.QUEUE]
        while not queue.empty():
            message = dramatiq.Message.decode(queue.get())
            queue.task_done()
            for _ in range(times):
                self.broker.get_actor(message.actor_name).fn(*message.args)
            self.handled.append(message.actor_name)
        return self.handled


if dramatiq.broker.global_broker is None:  # importing the workers would connect to a real queue
    dramatiq.set_broker(StubBroker())


@pytest.fixture(scope="session")
def queue() -> Queue:
    """A queue with every actor of the product."""
    from workers import billing, delivery, keeping, limits, payments, test_clocks

    broker = StubBroker()
    broker.declare_queue(jobs.QUEUE)
    for module in (billing, delivery, keeping, limits, payments, test_clocks):
        for actor in vars(module).values():
            if isinstance(actor, dramatiq.Actor):
                broker.declare_actor(actor)
    return Queue(broker)


@pytest.fixture
def worker(committed_database_url: str, queue: Queue, tmp_path: Path) -> Iterator[Flask]:
    """An application context of a worker; what it does is committed."""
    app = make_bare_app(committed_database_url, tmp_path, smtp_url="smtp://127.0.0.1:1")
    dramatiq.set_broker(queue.broker)
    queue.broker.flush_all()
    with app.app_context():
        yield app
