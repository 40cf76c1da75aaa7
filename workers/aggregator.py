"""The usage aggregator: `python -m workers.aggregator`, a process of its own beside the actors. Start as many as you like, one counts."""

from __future__ import annotations

import signal
import sys
import threading

from core import clock, config, logs
from core.metering import additions, dedup, entries, memory
from core.metering.aggregate import Aggregator, keep_counting

SWITCH_SECONDS = 0.0005
"""Between the thread that prepares and the one that writes: at Python's 5 ms each would wait for the other too long."""


def load_compiled() -> None:
    """Load the code that big flushes are counted by, before the first of them comes; it counts without until then."""
    for code in (entries.HASHES, entries.PROBING, additions.PGROWS):
        code.load()


def main() -> int:
    """Count until SIGTERM or SIGINT."""
    settings = config.current()
    logs.configure()
    sys.setswitchinterval(SWITCH_SECONDS)
    memory.settle()
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())

    def make() -> Aggregator:
        return Aggregator(
            settings.database_url,
            dedup.store(settings.usage_dedup_store, settings.usage_dedup_memory_mib),
            flush_seconds=float(settings.usage_flush_seconds),
            window_days=settings.usage_window_past_days,
            now=clock.now,
        )

    threading.Thread(target=load_compiled, name="loads compiled code", daemon=True).start()
    keep_counting(make, stopped)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
