"""Keeps processes running: starts them, starts crashed ones again with a growing pause, stops all of them in order.

One thread, no handlers: the signals are blocked and waited for (sigtimedwait), so nothing happens between two lines of ours.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from ops import leash

STOP_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
WATCHED = STOP_SIGNALS | {signal.SIGCHLD}
PAUSE_SECONDS_MAX = 30.0
STEADY_SECONDS = 60.0
LOG_BYTES_MAX = 20 * 1024 * 1024
TAIL_LINES = 15


class Stopped(Exception):
    """Somebody asked us to stop."""


class StartError(Exception):
    """The product cannot start; the text says what and shows the log."""


@dataclass
class Service:
    """One process. Services of a lower `stage` are stopped first, those of one stage together."""

    name: str
    argv: list[str]
    stage: int
    stop: signal.Signals = signal.SIGTERM
    grace: float = 15.0
    leashed: bool = False
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    crashes: int = 0
    again_at: float | None = None


@dataclass
class Supervisor:
    """The processes of one home, in the order they were started."""

    log: Callable[[str], Path]
    environment: Mapping[str, str]
    cwd: Path
    services: list[Service] = field(default_factory=list)
    changed: Callable[[], None] = lambda: None
    asked_to_stop: Callable[[], bool] = lambda: False
    task: subprocess.Popen[bytes] | None = None

    def watch(self) -> None:
        """Take over signals and orphans; to be called once, before the first start."""
        leash.adopt_orphans()
        signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)

    def say(self, text: str) -> None:
        """One line on the console."""
        print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)

    def start(self, service: Service) -> None:
        """Start a process in a session of its own; its output goes to its log."""
        if service not in self.services:
            self.services.append(service)
        path = self.log(service.name)
        if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
            path.replace(path.with_suffix(".log.1"))
        argv = service.argv if service.leashed else leash.command(service.argv, stop=service.stop)
        with path.open("ab") as out:
            service.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=dict(self.environment), cwd=self.cwd, start_new_session=True
            )
        service.started, service.again_at = time.monotonic(), None
        self.changed()

    def run(self, argv: list[str]) -> int:
        """Run a command to its end with its output on the console, minding signals and the other processes; its exit status."""
        self.task = task = subprocess.Popen(leash.command(argv), stdin=subprocess.DEVNULL, env=dict(self.environment), cwd=self.cwd)
        self.until(lambda: task.poll() is not None, float("inf"), argv[-1])
        self.task = None
        return task.wait()

    def until(self, done: Callable[[], bool], seconds: float, what: str, service: Service | None = None) -> None:
        """Wait for `done()`; StartError after `seconds` or when `service` crashed three times, Stopped when asked to stop."""
        end = time.monotonic() + seconds
        while not done():
            if time.monotonic() > end or (service is not None and service.crashes >= 3):
                raise StartError(
                    f"{what} does not start" + (f"; the end of {self.log(service.name)}:\n{self.tail(service)}" if service else "")
                )
            self.pump(0.1)

    def pump(self, seconds: float) -> None:
        """Wait that long, or until a signal: mind ended processes and start again those whose pause is over."""
        caught = signal.sigtimedwait(WATCHED, seconds)
        if caught is not None and self._asks_to_stop(caught.si_signo):
            raise Stopped(signal.Signals(caught.si_signo).name)
        if self.asked_to_stop():
            raise Stopped("SIGINT")
        self._reap()
        for service in self.services:
            if service.process is not None and service.process.returncode is not None:
                self._ended(service)
            if service.again_at is not None and time.monotonic() >= service.again_at:
                self.say(f"{service.name}: starting again")
                self.start(service)

    def _asks_to_stop(self, number: int) -> bool:
        """SIGHUP counts unless it was ignored when we began (nohup)."""
        return number in STOP_SIGNALS and not (number == signal.SIGHUP and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN)

    def _ended(self, service: Service) -> None:
        assert service.process is not None
        code, leader = service.process.returncode, service.process.pid
        with suppress(ProcessLookupError):
            os.killpg(leader, signal.SIGKILL)  # what it left behind would hold its port
        service.process = None
        service.crashes = 1 if time.monotonic() - service.started > STEADY_SECONDS else service.crashes + 1
        pause = min(PAUSE_SECONDS_MAX, 0.5 * 2 ** (service.crashes - 1))
        service.again_at = time.monotonic() + pause
        end = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        self.say(f"{service.name}: {end}; starting again in {pause:g} s; its log is {self.log(service.name)}")
        self.changed()

    def _reap(self) -> None:
        """Collect every ended child: ours through its Popen, adopted orphans ourselves."""
        processes = [service.process for service in self.services if service.process] + ([self.task] if self.task else [])
        ours = {process.pid: process for process in processes}
        with suppress(ChildProcessError):
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if ended.si_pid in ours:
                    ours[ended.si_pid].poll()
                else:
                    os.waitpid(ended.si_pid, 0)

    def identities(self) -> dict[str, tuple[int, float]]:
        """Process number and time of creation of each running service."""
        alive = [(service.name, service.process.pid) for service in self.services if service.process]
        found = {}
        for name, pid in alive:
            with suppress(psutil.NoSuchProcess):
                found[name] = (pid, psutil.Process(pid).create_time())
        return found

    def tail(self, service: Service) -> str:
        """The last lines of its log."""
        lines = self.log(service.name).read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-TAIL_LINES:])

    def stop(self) -> None:
        """Stop every process, stage after stage; whoever outlives its grace, or a second request to stop, is killed."""
        hurry = False
        if self.task is not None:
            self.task.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.task.wait(10)
        for stage in sorted({service.stage for service in self.services}):
            alive = [service for service in self.services if service.stage == stage and service.process is not None]
            for service in alive:
                assert service.process is not None
                service.process.send_signal(service.stop)
            end = time.monotonic() + max((service.grace for service in alive), default=0)
            while any(service.process and service.process.poll() is None for service in alive):
                caught = signal.sigtimedwait(WATCHED, 0.1)
                hurry = hurry or (caught is not None and self._asks_to_stop(caught.si_signo))
                if hurry or time.monotonic() > end:
                    self._kill([service for service in alive if service.process and service.process.poll() is None])
                    break
        self._kill_the_rest()

    def _kill(self, services: list[Service]) -> None:
        for service in services:
            assert service.process is not None
            self.say(f"{service.name}: did not stop in time; killing it")
            with suppress(ProcessLookupError):
                os.killpg(service.process.pid, signal.SIGKILL)
            service.process.wait()

    def _kill_the_rest(self) -> None:
        """Nothing stays behind: whatever our processes started and left is ours by now."""
        rest = psutil.Process().children(recursive=True)
        for process in rest:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(rest, timeout=5)


def end_leftovers(recorded: Mapping[str, tuple[int, float]], seconds: float = 60.0) -> None:
    """Wait for the processes of a killed supervisor, which were told to stop by its death, and kill those that do not.

    `recorded` holds process number and time of creation; a number that has gone to another process is left alone.
    """
    left = []
    for pid, created in recorded.values():
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if abs(process.create_time() - created) < 1:
                left += [process, *process.children(recursive=True)]
    if not left:
        return
    print(f"an earlier copy was killed; waiting for what it left ({len(left)} processes)", flush=True)
    _, alive = psutil.wait_procs(left, timeout=seconds)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=5)


def python(*words: str | Path) -> list[str]:
    """A command of this virtualenv's Python."""
    return [sys.executable, *map(str, words)]
