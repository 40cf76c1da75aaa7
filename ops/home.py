"""A home: the folder with everything one copy of the product keeps (data, secrets, ports, logs), and how to find the copy that runs on it.

`stack.json` tells other commands where it listens and with which settings; `secrets.json` is made once. Both are for our eyes only.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ops import ports

ROOT = Path(__file__).resolve().parents[1]
DEFAULT_PORT = 8000
OFFSETS = {
    "mail": 25,
    "smtp": 26,
    "provider": 42,
    "valkey": 379,
    "postgres": 432,
}  # from the web port: 8025 shows mails, 8432 is PostgreSQL


class HomeError(Exception):
    """This home cannot be used now; the text says why."""


def path_from_environment() -> Path:
    """$VALUEVERSE_HOME, or var/ in this clone."""
    return Path(os.environ.get("VALUEVERSE_HOME") or ROOT / "var").absolute()


@dataclass
class Home:
    """One copy's folder."""

    path: Path
    state: dict[str, Any] = field(default_factory=dict)
    _lock: int | None = None

    def open(self) -> None:
        """Make the folder and take its lock, which the kernel frees when we die; HomeError when another copy runs on it."""
        (self.path / "log").mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = read_state(self.path).get("pid", "?")
            raise HomeError(f"the product already runs on {self.path} (process {pid}); stop it or choose another VALUEVERSE_HOME") from None
        self.state = read_state(self.path)
        self.save(ready=None, pid=os.getpid())

    def log(self, name: str) -> Path:
        """The log file of process `name`."""
        return self.path / "log" / f"{name}.log"

    def save(self, **changes: Any) -> None:
        """Change the remembered state; None forgets a key. The file is replaced whole, so a reader never sees half of it."""
        self.state = {key: value for key, value in {**self.state, **changes}.items() if value is not None}
        write_private(self.path / "stack.json", self.state)

    def choose_ports(self, wanted: int | None) -> dict[str, int]:
        """The ports of this copy: the wanted or remembered web port, and near it one for each of the others that is still free.

        HomeError when the wanted web port is taken.
        """
        before: dict[str, int] = self.state.get("ports", {})
        web = wanted or before.get("web", DEFAULT_PORT)
        if not ports.is_free(web):
            if wanted:
                raise HomeError(f"port {wanted} is taken by another program; choose another with PORT=…")
            web = ports.free()
        chosen = {"web": web}
        for name, offset in OFFSETS.items():
            candidates = [before.get(name) if before.get("web") == web else None, web + offset]
            fitting = (port for port in candidates if port and port < 65536 and port not in chosen.values() and ports.is_free(port))
            chosen[name] = next(fitting, None) or ports.free()
        self.save(ports=chosen)
        return chosen

    def secrets(self) -> dict[str, str]:
        """This home's own secrets, made at the first call."""
        path = self.path / "secrets.json"
        known: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        made = {
            "SECRET_KEY": secrets.token_urlsafe(48),
            "API_KEY_PEPPER": secrets.token_urlsafe(48),
            "ENCRYPTION_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "POSTGRES_PASSWORD": secrets.token_urlsafe(24),
            "STRIPE_API_KEY": f"sk_test_{secrets.token_hex(12)}",
            "STRIPE_PUBLISHABLE_KEY": f"pk_test_{secrets.token_hex(12)}",
            "STRIPE_WEBHOOK_SECRETS": f"whsec_{secrets.token_hex(16)}",
        }
        if set(made) - set(known):
            known = {**made, **known}
            write_private(path, known)
        return known


def read_state(path: Path) -> dict[str, Any]:
    """What `stack.json` in that home says, {} when there is none."""
    try:
        state: dict[str, Any] = json.loads((path / "stack.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return state


def read_logins(path: Path) -> list[dict[str, str]]:
    """Who may sign in to the demo on that home; [] without a demo. See `save_logins`."""
    file = path / "logins.json"
    logins: list[dict[str, str]] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    return logins


def save_logins(path: Path, logins: Sequence[Mapping[str, str]]) -> None:
    """Leave the demo's logins where `make run` prints them.

    Each has `who`, `path` (of the sign-in page), `email`, `password` and, with a second factor, `totp_secret`.
    """
    write_private(path / "logins.json", logins)


def running(path: Path) -> dict[str, Any] | None:
    """The state of the copy that runs on that home and is ready (`urls`, `environment`, `ports`, `pid`), or None."""
    try:
        lock = os.open(path / "lock", os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        state = read_state(path)
        alive = Path(f"/proc/{state.get('pid')}").exists()  # a killed copy leaves its state behind until the next one has read it
        return state if state.get("ready") and alive else None
    finally:
        os.close(lock)
    return None


def write_private(path: Path, content: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write JSON that only we may read, in one step."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.write("\n")
    partial.replace(path)
