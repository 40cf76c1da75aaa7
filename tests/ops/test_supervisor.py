"""Processes are kept running, stopped in order, and none is left behind, however the supervisor ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
SLEEPER = "import time; time.sleep(300)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(300)"
PARENT = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {SLEEPER!r}]); time.sleep(300)"
PROGRAM = """
import json, signal, sys
from pathlib import Path
from ops.supervisor import Service, Stopped, Supervisor, python
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where the tests run under nohup
folder, services = Path(sys.argv[1]), json.loads(sys.argv[2])
supervisor = Supervisor(lambda name: folder / f"{name}.log", {}, folder)
def note():
    path = folder / "pids.json"
    path.with_suffix(".new").write_text(json.dumps({s.name: s.process.pid for s in supervisor.services if s.process}))
    path.with_suffix(".new").replace(path)
supervisor.changed = note
supervisor.watch()
for stage, (name, code) in enumerate(services.items()):
    supervisor.start(Service(name, python("-c", code), stage, grace=1.0))
try:
    while True:
        supervisor.pump(0.2)
except Stopped:
    supervisor.stop()
    supervisor.say("stopped")
"""


class Running:
    """A supervisor in a process of its own, with the given services."""

    def __init__(self, folder: Path, **services: str) -> None:
        self.folder = folder
        self.log = (folder / "console.log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder), json.dumps(services)], cwd=ROOT, stdout=self.log, stderr=self.log
        )
        eventually(lambda: set(self.pids()) == set(services) and all(self.became(pid) for pid in self.pids().values()))

    def pids(self) -> dict[str, int]:
        path = self.folder / "pids.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def became(self, pid: int) -> bool:
        """Whether the leash has turned into the command."""
        return "-c" in psutil.Process(pid).cmdline()[:2]

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def console(self) -> str:
        return (self.folder / "console.log").read_text()


def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def gone(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=0)[1]


@pytest.fixture
def start(tmp_path: Path):
    running: list[Running] = []

    def begin(**services: str) -> Running:
        running.append(Running(tmp_path, **services))
        return running[-1]

    yield begin
    for each in running:
        each.log.close()
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait(10)


def test_a_crashed_process_is_started_again_and_it_is_said(start) -> None:
    running = start(web=SLEEPER, workers=SLEEPER)
    before = running.pids()
    os.kill(before["workers"], signal.SIGKILL)
    eventually(lambda: running.pids().get("workers", before["workers"]) != before["workers"])
    assert running.pids()["web"] == before["web"]
    assert "workers: was killed by SIGKILL; starting again in 0.5 s" in running.console()


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything_down_to_grandchildren_and_deaf_processes(start, sign: signal.Signals) -> None:
    running = start(web=PARENT, deaf=STUBBORN)
    eventually(lambda: len(running.family()) == 3 and "deaf" in (running.folder / "deaf.log").read_text())
    family = running.family()
    running.process.send_signal(sign)
    assert running.process.wait(20) == 0
    assert gone(family)
    assert "deaf: did not stop in time; killing it" in running.console()


def test_killing_the_supervisor_ends_its_processes(start) -> None:
    running = start(web=SLEEPER, workers=SLEEPER)
    family = running.family()
    running.process.kill()
    running.process.wait(10)
    eventually(lambda: gone(family))


def test_the_orphans_of_a_killed_process_do_not_outlive_the_stop(start) -> None:
    running = start(web=PARENT)
    eventually(lambda: len(running.family()) == 2)
    orphan = next(process for process in running.family() if process.pid != running.pids()["web"])
    os.kill(running.pids()["web"], signal.SIGKILL)
    eventually(lambda: gone([orphan]))
    running.process.terminate()
    assert running.process.wait(20) == 0
