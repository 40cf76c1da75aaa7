"""Lint, types, import rules and tests, as CI runs them; and the pins of the requirements."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ops.home import ROOT
from ops.supervisor import python

BIN = Path(sys.executable).parent
HUNG_SECONDS = 600  # of one test; the longest starts the whole product twice
PIN = ("pip", "compile", "-q", "--universal", "--generate-hashes", "--no-header", "--no-annotate")


def step(name: str, command: Sequence[str | Path]) -> bool:
    """Run one check with its output on the console; whether it passed."""
    print(f"== {name}", flush=True)
    began = time.monotonic()
    passed = subprocess.run([str(word) for word in command], cwd=ROOT, stdin=subprocess.DEVNULL, check=False).returncode == 0
    print(f"== {name}: {'passed' if passed else 'FAILED'} in {time.monotonic() - began:.0f} s", flush=True)
    return passed


def lint() -> int:
    """Style, types and import rules; all of them are run, exit status 1 when one failed."""
    passed = [
        step("ruff check", [BIN / "ruff", "check", "."]),
        step("ruff format", [BIN / "ruff", "format", "--check", "."]),
        step("mypy", [BIN / "mypy"]),
        step("import rules", [BIN / "lint-imports", "--no-cache"]),
    ]
    return 0 if all(passed) else 1


def test(arguments: list[str]) -> int:
    """Lint, then one pytest run over everything, whose summary is the end of the output; exit status 1 when either failed."""
    os.environ.setdefault("CI", "true")
    clean = lint() == 0
    workers = ["-n", str(min(2, os.cpu_count() or 1)), "--dist", "worksteal"]
    hung = ["-o", f"faulthandler_timeout={HUNG_SECONDS}", "-o", "faulthandler_exit_on_timeout=true"]
    print("== tests", flush=True)
    status = subprocess.run(
        python("-m", "pytest", *(arguments or workers), *hung), cwd=ROOT, stdin=subprocess.DEVNULL, check=False
    ).returncode
    if not clean:
        print("lint, types or import rules failed, see above", file=sys.stderr)
    return status or (0 if clean else 1)


def requirements() -> int:
    """Write the hash-pinned requirements anew from pyproject.toml; what is pinned stays as it is where it still fits."""
    pins: list[list[str | Path]] = [
        [BIN / "uv", *PIN, "pyproject.toml", "--extra", "local", "--extra", "fast", "-o", "requirements.txt"],
        [
            BIN / "uv",
            *PIN,
            "pyproject.toml",
            "--extra",
            "local",
            "--extra",
            "fast",
            "--extra",
            "dev",
            "-c",
            "requirements.txt",
            "-o",
            "requirements-dev.txt",
        ],
    ]
    return 0 if all(step(str(command[-1]), command) for command in pins) else 1
