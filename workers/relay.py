"""The relay of usage from Kafka: `python -m workers.relay [--partition N …]`, needed only when USAGE_LOG_URL names a Kafka topic."""

from __future__ import annotations

import argparse
import signal
import threading

from core import clock, config, logs
from core.metering.kafka.relay import Relay, keep_relaying


def main() -> int:
    """Take the log until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m workers.relay", description=__doc__)
    parser.add_argument("--partition", type=int, action="append", default=[], help="only this one; may be repeated")
    parser.add_argument("--retire", metavar="URL", help="the log is in the database again, and everything of this topic was taken")
    given = parser.parse_args()
    settings = config.current()
    logs.configure()
    if given.retire:
        Relay(settings.database_url, given.retire, now=clock.now).retire()
        return 0
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    keep_relaying(lambda: Relay(settings.database_url, settings.usage_log_url, now=clock.now, partitions=given.partition), stopped)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
