"""The provider's memory: every version of every object is a row that is never changed; the current ones are also held in memory."""

import json
import secrets
import sqlite3
import string
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.fakes.provider.errors import invalid, missing

Object = dict[str, Any]
ALPHABET = string.ascii_letters + string.digits
TABLES = {
    "versions": "id TEXT NOT NULL, object TEXT NOT NULL, at INTEGER NOT NULL, body TEXT NOT NULL",
    # The record that tests believe: one row for each time money moved.
    "charged": "charge TEXT NOT NULL UNIQUE, payment_intent TEXT NOT NULL UNIQUE, attempt TEXT, customer TEXT, payment_method TEXT,"
    " amount INTEGER NOT NULL, currency TEXT NOT NULL, at INTEGER NOT NULL, idempotency_key TEXT",
    "refunded": "refund TEXT NOT NULL UNIQUE, charge TEXT NOT NULL, amount INTEGER NOT NULL, currency TEXT NOT NULL, at INTEGER NOT NULL,"
    " idempotency_key TEXT",
    "answers": "idempotency_key TEXT NOT NULL, fingerprint TEXT NOT NULL, status INTEGER NOT NULL, body TEXT NOT NULL, at INTEGER NOT NULL",
    "deliveries": "event TEXT NOT NULL, url TEXT NOT NULL, status INTEGER, at INTEGER NOT NULL",
}


class Store:
    """Objects by id, in order of creation; `now()` is the provider's time in Unix seconds and can be moved forward."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.lock = threading.RLock()
        self.clock_ahead = 0
        self._current: dict[str, Object] = {}
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")  # survives kill -9 of the process
        for name, columns in TABLES.items():
            self._connection.execute(f"CREATE TABLE IF NOT EXISTS {name} (seq INTEGER PRIMARY KEY AUTOINCREMENT, {columns})")
            for verb in ("UPDATE", "DELETE"):
                refuse = "BEGIN SELECT RAISE(ABORT, 'append-only'); END"
                self._connection.execute(f"CREATE TRIGGER IF NOT EXISTS {name}_{verb} BEFORE {verb} ON {name} {refuse}")
        for row in self._connection.execute("SELECT id, body FROM versions ORDER BY seq"):
            self._current[row["id"]] = json.loads(row["body"])

    def now(self) -> int:
        """The provider's time."""
        return int(time.time()) + self.clock_ahead

    @staticmethod
    def new_id(prefix: str) -> str:
        """A fresh id such as `cus_…`."""
        return f"{prefix}_" + "".join(secrets.choice(ALPHABET) for _ in range(24))

    @contextmanager
    def change(self) -> Iterator[None]:
        """One change at a time, on disk when the block is left; a refused card is a change too."""
        with self.lock:
            if self._connection.in_transaction:
                yield
                return
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            finally:
                self._connection.execute("COMMIT")

    def put(self, thing: Object) -> Object:
        """Keep a new version of an object."""
        self.append("versions", id=thing["id"], object=thing["object"], at=self.now(), body=json.dumps(thing))
        self._current[thing["id"]] = thing
        return thing

    def append(self, table: str, **values: Any) -> None:
        """Add one row to a table."""
        names = ", ".join(values)
        self._connection.execute(f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(values))})", tuple(values.values()))

    def rows(self, table: str) -> list[dict[str, Any]]:
        """All rows of a table, oldest first."""
        with self.lock:
            return [dict(row) for row in self._connection.execute(f"SELECT * FROM {table} ORDER BY seq")]

    def get(self, kind: str, identity: str, param: str = "id") -> Object:
        """The current version of an object of a kind."""
        found = self._current.get(identity)
        if found is None or found["object"] != kind:
            raise missing(kind, identity, param)
        return found

    def find(self, identity: str) -> Object | None:
        """The current version of any object."""
        return self._current.get(identity)

    def all(self, kind: str) -> list[Object]:
        """All objects of a kind, oldest first."""
        with self.lock:
            return [thing for thing in self._current.values() if thing["object"] == kind]

    def page(self, kind: str, url: str, values: dict[str, Any], **matching: Any) -> Object:
        """One page of a list, newest first, with the provider's cursor parameters."""
        limit = values.get("limit", 10)
        if not 1 <= limit <= 100:
            raise invalid("Invalid limit: must be between 1 and 100", param="limit")
        bounds = values.get("created", {})
        wanted = {name: value for name, value in matching.items() if value is not None}
        things = [
            thing
            for thing in reversed(self.all(kind))
            if all(thing.get(name) == value for name, value in wanted.items()) and _within(thing["created"], bounds)
        ]
        ids = [thing["id"] for thing in things]
        for cursor in ("starting_after", "ending_before"):
            if cursor in values and values[cursor] not in ids:
                raise missing(kind, values[cursor], cursor)
        if "starting_after" in values:
            things = things[ids.index(values["starting_after"]) + 1 :]
        elif "ending_before" in values:
            things = things[: ids.index(values["ending_before"])][-limit:]
        return {"object": "list", "url": url, "has_more": len(things) > limit, "data": things[:limit]}

    def answer(self, key: str) -> dict[str, Any] | None:
        """The answer saved under an idempotency key in the last 24 hours."""
        with self.lock:
            row = self._connection.execute("SELECT * FROM answers WHERE idempotency_key = ? ORDER BY seq DESC LIMIT 1", (key,)).fetchone()
        return dict(row) if row is not None and row["at"] > self.now() - 86_400 else None

    def close(self) -> None:
        """Close the file."""
        with self.lock:
            self._connection.close()


def public(value: Any) -> Any:
    """What leaves the provider: everything but its own keys, which begin with `_`."""
    if isinstance(value, dict):
        return {key: public(entry) for key, entry in value.items() if not key.startswith("_")}
    return [public(entry) for entry in value] if isinstance(value, list) else value


def _within(moment: int, bounds: dict[str, int]) -> bool:
    return (
        moment > bounds.get("gt", -1)
        and moment >= bounds.get("gte", 0)
        and moment < bounds.get("lt", 1 << 62)
        and moment <= bounds.get("lte", 1 << 62)
    )
