"""Prepare this clone: virtualenv, hash-pinned requirements, system packages. `python3 -m ops.setup [run | test]`.

Runs on the standard library alone, before anything is installed. A second run finds its stamp and does nothing.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
OLDEST = (3, 11)
REQUIREMENTS = {"run": "requirements.txt", "test": "requirements-dev.txt"}


def has_library(name: str) -> Callable[[], bool]:
    """A check that the shared library can be loaded."""

    def check() -> bool:
        try:
            ctypes.CDLL(name)
        except OSError:
            return False
        return True

    return check


def has_program(name: str) -> Callable[[], bool]:
    """A check that the program is on the path."""
    return lambda: shutil.which(name) is not None


SYSTEM_PACKAGES: dict[str, dict[str, Callable[[], bool]]] = {
    "run": {
        "libpango-1.0-0": has_library("libpango-1.0.so.0"),
        "libpangoft2-1.0-0": has_library("libpangoft2-1.0.so.0"),
        "libharfbuzz-subset0": has_library("libharfbuzz-subset.so.0"),
    },
    "test": {"chromium": has_program("chromium"), "poppler-utils": has_program("pdftoppm")},
}


class SetupError(Exception):
    """The clone cannot be prepared; the text says what to do."""


def say(text: str) -> None:
    """One line of progress."""
    print(f"setup: {text}", flush=True)


def run(command: Iterable[str | Path], what: str) -> None:
    """Run one step with its output on the console; SetupError when it fails."""
    words = [str(word) for word in command]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    if subprocess.run(words, stdin=subprocess.DEVNULL, cwd=ROOT, env=environment, check=False).returncode != 0:
        raise SetupError(f"{what} failed: {' '.join(words)}")


def apt_install(packages: list[str]) -> None:
    """Install Debian packages when we are root, else say the exact command and stop."""
    command = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        advice = f"sudo apt-get update && sudo {' '.join(command)}"
        raise SetupError(f"system packages are missing; install them and start again:\n\n    {advice}\n")
    say(f"installing system packages: {' '.join(packages)}")
    run(["apt-get", "update", "-q"], "reading the package lists")
    run([command[0], "-q", *command[1:]], "installing system packages")


def make_virtualenv() -> None:
    """Make .venv unless a working one is there."""
    if PYTHON.exists() and subprocess.run([PYTHON, "-c", ""], capture_output=True, check=False).returncode == 0:
        return
    say(f"making {VENV.name} with Python {sys.version.split()[0]}")
    command = [sys.executable, "-m", "venv", "--clear", str(VENV)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:  # Debian ships venv in a package of its own
        apt_install([f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"])
        run(command, "making the virtualenv")


def install_requirements(purpose: str) -> None:
    """Install what `purpose` needs, every file checked against its hash; skipped when the stamp says it is there."""
    wanted = ROOT / REQUIREMENTS[purpose]
    mark = hashlib.sha256(wanted.read_bytes()).hexdigest()
    stamp = VENV / f"installed-{purpose}"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == mark:
        return
    began = time.monotonic()
    uv = VENV / "bin" / "uv"
    if not uv.exists():
        say("installing uv")
        run([PYTHON, "-m", "pip", "install", "-q", "--require-hashes", "-r", ROOT / "requirements-uv.txt"], "installing uv")
    say(f"installing {wanted.name}")
    run([uv, "pip", "install", "--python", PYTHON, "--require-hashes", "-r", wanted], f"installing {wanted.name}")
    stamp.write_text(mark, encoding="utf-8")
    say(f"{wanted.name} installed in {time.monotonic() - began:.0f} s")


def install_system_packages(purpose: str) -> None:
    """Install the Debian packages whose libraries or programs are missing."""
    checks = SYSTEM_PACKAGES["run"] | (SYSTEM_PACKAGES["test"] if purpose == "test" else {})
    missing = [package for package, present in checks.items() if not present()]
    if missing:
        apt_install(missing)


def prepare(purpose: str) -> None:
    """Everything `purpose` ("run" or "test") needs; two of us at once wait for each other."""
    if sys.version_info < OLDEST:
        needed, found = ".".join(map(str, OLDEST)), sys.version.split()[0]
        raise SetupError(f"Python {needed} or newer is needed, this is {found}; name another one with PYTHON=…")
    lock = os.open(ROOT, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    make_virtualenv()
    install_requirements(purpose)
    install_system_packages(purpose)
    os.close(lock)


def main(argv: list[str]) -> int:
    """The command line; exit status 1 with a sentence when the clone cannot be prepared."""
    try:
        prepare(argv[0] if argv else "run")
    except SetupError as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
