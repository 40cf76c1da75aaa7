"""`make simulate [SEEDS=300] [FROM=0]`: random customers' lives against a naive model, in the pure kernel and in the whole product.

Prints the seeds at which the two disagree; exit status 1 when there is one. One seed lives the same life again: `--from SEED --seeds 1`.
"""

from __future__ import annotations

import argparse
import importlib
import logging

import structlog


def main(words: list[str]) -> int:
    """Run a range of seeds."""
    parser = argparse.ArgumentParser(prog="valueverse simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=300, help="how many lives (default %(default)s)")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first seed (default %(default)s)")
    parser.add_argument("--world", choices=("kernel", "product", "both"), default="both", help="where they live (default %(default)s)")
    given = parser.parse_args(words)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    runner = importlib.import_module("tests.simulator.runner")
    failed = runner.run(range(given.first, given.first + given.seeds), given.world, lambda text: print(text, flush=True))
    for seed in failed:
        print(f"to see it again: valueverse simulate --world {given.world} --seeds 1 --from {seed}")
    print(f"{given.seeds} seeds from {given.first}: {len(failed)} diverged")
    return 1 if failed else 0
