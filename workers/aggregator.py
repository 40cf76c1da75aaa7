"""The usage aggregator: `python -m workers.aggregator`, a process of its own beside the actors. Start as many as you like, one counts."""

from __future__ import annotations

import signal
import sys
import threading

import structlog

from core import clock, config, logs
from core.metering import aggregate
from core.metering.dedup import SegmentStore

SWITCH_SECONDS = 0.0005
"""Between the thread that prepares and the one that writes: at Python's 5 ms each would wait for the other too long."""
RETRY_SECONDS = 0.5


def main() -> int:
    """Count until SIGTERM or SIGINT; when the database goes away, wait for it and start over."""
    settings = config.current()
    logs.configure()
    sys.setswitchinterval(SWITCH_SECONDS)
    stopped = threading.Event()
    running: list[aggregate.Aggregator] = []

    def stop(*_: object) -> None:
        stopped.set()
        for aggregator in running:
            aggregator.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    while not stopped.is_set():
        aggregator = aggregate.Aggregator(
            settings.database_url,
            SegmentStore(),
            flush_seconds=float(settings.usage_flush_seconds),
            window_days=settings.usage_window_past_days,
            now=clock.now,
        )
        running[:] = [aggregator]
        try:
            aggregator.run()
        except aggregate.RECOVERABLE as error:
            structlog.get_logger("valueverse.aggregator").warning("counting is interrupted", error=str(error).strip())
            stopped.wait(RETRY_SECONDS)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
