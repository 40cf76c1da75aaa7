"""The `valueverse` command: `valueverse COMMAND [OPTIONS]`, `valueverse help` lists the commands."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from core.config import ConfigurationError, Settings
from ops import borrow, checks
from ops.home import ROOT, HomeError, path_from_environment
from ops.supervisor import python


@dataclass(frozen=True, slots=True)
class Command:
    """What a command says of itself, what it works on ("", "database" or "product"), and `module:function` taking the rest of the line."""

    summary: str
    target: str
    needs: str = ""


COMMANDS = {
    "verify": Command("check every invariant of the books; exit 1 when one is broken", "ops.verify:main", "database"),
    "usage": Command("usage: recount, archive, restore-archive, purge, hold, release …", "ops.usage:main", "database"),
    "migrate": Command("bring the database to the newest schema", "ops.migrate:main", "database"),
    "check-settings": Command("read the settings and say what is wrong with them", "ops.cli:check_settings"),
    "create-operator": Command("make a user of the finance side", "ops.accounts:create_operator", "database"),
    "create-key": Command("make a platform API key", "ops.accounts:create_key", "database"),
    "demo": Command("fill the database with the demo", "ops.cli:demo", "database"),
    "demo-code": Command("print the second factor's codes of the demo logins", "ops.accounts:demo_code"),
    "trace": Command("bill a usage trace from first event to paid invoice", "ops.trace:main", "product"),
    "golden": Command("run case files through the pure kernel", "tests.golden.__main__:main"),
    "invoice": Command("replay an issued invoice: invoice replay NUMBER", "ops.invoice:main", "database"),
    "simulate": Command("live random customers' lives against a naive model", "ops.simulate:main"),
    "bench": Command("measure; JSON lines", "ops.cli:bench"),
    "lint": Command("style, types and import rules", "ops.cli:lint"),
    "test": Command("lint, then every test", "ops.checks:test"),
    "requirements": Command("pin the requirements anew", "ops.cli:requirements"),
}


def main(argv: list[str] | None = None) -> int:
    """Dispatch; exit status 2 for a command that does not exist."""
    words = sys.argv[1:] if argv is None else argv
    name = words[0] if words else "help"
    command = COMMANDS.get(name)
    if command is None:
        known = name in {"help", "-h", "--help"}
        print(usage() if known else f"There is no command {name!r}.\n\n{usage()}", file=sys.stdout if known else sys.stderr)
        return 0 if known else 2
    try:
        return run(command, words[1:])
    except HomeError as error:
        print(error, file=sys.stderr)
    except ConfigurationError as error:
        print("These settings are wrong:", *error.problems, sep="\n  - ", file=sys.stderr)
    return 1


def run(command: Command, words: list[str]) -> int:
    """Call the command on what it needs; a request for help needs nothing."""
    if command.needs == "database" and not {"-h", "--help"} & set(words):
        with borrow.database(path_from_environment()):
            return load(command.target)(words)
    if command.needs == "product" and not {"-h", "--help"} & set(words):
        result = io.StringIO()  # shown last, when nothing else speaks any more
        try:
            with contextlib.redirect_stdout(result), borrow.product(path_from_environment()):
                return load(command.target)(words)
        finally:
            print(result.getvalue(), end="", flush=True)
    return load(command.target)(words)


def load(target: str) -> Callable[..., int]:
    """The function behind `module:function`; loaded only now, since some modules take seconds."""
    module, _, function = target.partition(":")
    found: Callable[..., int] = getattr(importlib.import_module(module), function)
    return found


def usage() -> str:
    """The commands and what they do."""
    lines = [f"  {name:<16} {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(["usage: valueverse COMMAND [OPTIONS]", "", *lines])


def check_settings(words: list[str]) -> int:  # noqa: ARG001 - commands share one signature
    """Read the settings from the environment; ConfigurationError names each that is wrong."""
    settings = Settings.from_env()
    print(f"The settings are fit for {settings.environment}.")
    return 0


def demo(words: list[str]) -> int:  # noqa: ARG001 - commands share one signature
    """Fill the database with the demo, saying how far it is."""
    load("ops.demo:load")(Settings.from_env(), lambda text: print(f"          {text}", flush=True))
    return 0


def lint(words: list[str]) -> int:  # noqa: ARG001 - commands share one signature
    """Style, types and import rules."""
    return checks.lint()


def requirements(words: list[str]) -> int:  # noqa: ARG001 - commands share one signature
    """Pin the requirements anew."""
    return checks.requirements()


def benches() -> dict[str, Path]:
    """Measurements by name: the modules ops/bench_NAME.py."""
    return {path.stem.removeprefix("bench_"): path for path in sorted((ROOT / "ops").glob("bench_*.py"))}


def bench(words: list[str]) -> int:
    """Run one measurement, or all one after the other, each in a process of its own; exit 1 when one could not be run."""
    known = benches()
    if words and words[0] not in known:
        print(f"There is no measurement {words[0]!r}; there are {', '.join(known)}.", file=sys.stderr)
        return 2
    chosen = words[:1] or list(known)
    statuses = []
    for name in chosen:
        print(f"measuring {name}", file=sys.stderr, flush=True)
        command = python("-m", f"ops.bench_{name}", *words[1:])
        statuses.append(subprocess.run(command, cwd=ROOT, env=os.environ, stdin=subprocess.DEVNULL, check=False).returncode)
    return 1 if any(statuses) else 0


if __name__ == "__main__":
    raise SystemExit(main())
