"""Run a command that dies with the process that started it, even when that one is killed with SIGKILL.

`command(argv, stop=…)` gives the argument list for subprocess. This file is also the small program in between: it takes on
the wanted user, asks the kernel for a signal at the parent's death (prctl(2), PR_SET_PDEATHSIG) and becomes the command.
It needs the standard library alone, and Linux.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def command(argv: Sequence[str | Path], *, stop: signal.Signals = signal.SIGTERM, user: str | None = None) -> list[str]:
    """The argument list that runs `argv` as `user` (None: ours) and sends it `stop` once this process is gone."""
    words = [str(word) for word in argv]
    return [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(os.getpid()), str(int(stop)), user or "", *words]


def adopt_orphans() -> None:
    """Make this process the parent of every orphan below it, so that it can end and reap them all."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def follow_parent(stop: signal.Signals) -> None:
    """Send ourselves `stop` when the process that started us ends."""
    _prctl(PR_SET_PDEATHSIG, int(stop))


def parent_interrupted() -> bool:
    """Whether our parent, GNU make, sits in its handler of SIGINT: sent to make alone, it is not passed on, and make waits for us."""
    status = Path(f"/proc/{os.getppid()}/status").read_text(encoding="ascii", errors="replace")
    blocked = next((line.split()[1] for line in status.splitlines() if line.startswith("SigBlk:")), "0")
    return bool(int(blocked, 16) & 1 << (signal.SIGINT - 1))


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def main(argv: list[str]) -> None:
    """Become the command; exit at once when the parent died before the leash was on."""
    parent, stop, user, *words = argv
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # the supervisor waits for signals with all of them blocked
    if user:
        entry = pwd.getpwnam(user)
        os.initgroups(user, entry.pw_gid)
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
    _prctl(PR_SET_PDEATHSIG, int(stop))  # after setuid, which would clear it
    if os.getppid() != int(parent):
        sys.exit("the process that started this command is gone")
    os.execv(words[0], words)


if __name__ == "__main__":
    main(sys.argv[1:])
