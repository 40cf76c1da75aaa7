"""Preparing a clone: what is missing is installed, or named with the exact command; what is there is left alone."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ops import setup
from ops.setup import SetupError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def fake_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An apt-get on the path that writes down its arguments; the package manager itself is the machine's, not ours."""
    calls = tmp_path / "calls"
    program = tmp_path / "apt-get"
    program.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setitem(setup.SYSTEM_PACKAGES, "run", {"libmissing0": setup.has_library("libmissing.so.0"), "libc6": lambda: True})
    return calls


def test_missing_packages_are_installed_by_root(fake_apt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    setup.install_system_packages("run")
    assert fake_apt.read_text().splitlines() == ["update -q", "-q install -y --no-install-recommends libmissing0"]


def test_others_are_told_the_exact_command(fake_apt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SetupError, match="sudo apt-get update && sudo apt-get install -y --no-install-recommends libmissing0\n"):
        setup.install_system_packages("run")
    assert not fake_apt.exists()


def test_a_library_that_is_there_is_seen() -> None:
    assert setup.has_library("libc.so.6")()
    assert setup.has_program("sh")()
    assert not setup.has_program("no-such-program-anywhere")()


def test_a_stamp_spares_the_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "VENV", tmp_path)
    stamp = tmp_path / "installed-run"
    stamp.write_text(hashlib.sha256((ROOT / "requirements.txt").read_bytes()).hexdigest())
    before = stamp.stat().st_mtime_ns
    setup.install_requirements("run")  # without the stamp it would fail: there is no virtualenv in this folder
    assert stamp.stat().st_mtime_ns == before


def test_an_old_python_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    assert setup.main(["run"]) == 1
    assert "Python 3.11 or newer is needed" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt", "requirements-uv.txt"])
def test_every_requirement_is_pinned_by_hash(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    entries = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert entries
    assert [line for line in entries if "==" not in line or not line.endswith("\\")] == []
    assert text.count("--hash=sha256:") >= len(entries)
    assert "://" not in text


def test_the_module_runs_on_the_bare_standard_library() -> None:
    done = subprocess.run([sys.executable, "-S", "-c", "import ops.setup"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
