"""Jobs: names and ids that leave for the queue after the commit.

The queue is a doorbell: PostgreSQL knows what is due, and the sweeps of workers/clock.py find it by state. A job lost on the way
(Valkey flushed, restarted or away) costs latency only.
"""

from __future__ import annotations

import logging
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from redis.exceptions import RedisError

log = logging.getLogger(__name__)

QUEUE = "default"
PENDING = "valueverse.jobs"


def connect(redis_url: str) -> dramatiq.Broker:
    """Make the process-wide broker on Redis or Valkey; actors declared afterwards belong to it."""
    broker: dramatiq.Broker = RedisBroker(url=redis_url)  # type: ignore[no-untyped-call]
    dramatiq.set_broker(broker)
    return broker


def enqueue(session: Any, job: str, *ids: object) -> None:
    """Remember job `job` with `ids` (uuids or strings, never rows); it is sent once the session's transaction has committed."""
    entry = (job, tuple(str(item) for item in ids))
    waiting = session.info.setdefault(PENDING, [])
    if entry not in waiting:
        waiting.append(entry)


def drop(session: Any) -> None:
    """Forget the jobs of a transaction that rolled back."""
    session.info.pop(PENDING, None)


def send_enqueued(session: Any) -> None:
    """Send what the committed transaction enqueued. A broker that is away is logged and left to the sweeps."""
    unsent = session.info.pop(PENDING, [])
    for sent, (job, ids) in enumerate(unsent):
        try:
            send(job, *ids)
        except (RedisError, dramatiq.errors.BrokerConnectionError) as error:
            log.warning("%d jobs from %s%s on were not sent (%s); the sweeps will find the work", len(unsent) - sent, job, ids, error)
            return  # each further one would wait for the same connection


def send(job: str, *ids: str) -> None:
    """Put one message for actor `job` on the queue now."""
    broker = dramatiq.get_broker()
    broker.enqueue(dramatiq.Message(queue_name=QUEUE, actor_name=job, args=tuple(ids), kwargs={}, options={}))


def waiting() -> int | None:
    """How many messages wait in the queue; None when the queue does not answer."""
    broker = dramatiq.get_broker()
    try:
        return int(broker.client.llen(f"{broker.namespace}:{QUEUE}")) if isinstance(broker, RedisBroker) else 0
    except RedisError:
        return None
