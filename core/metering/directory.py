"""What accepting needs to know about keys, organizations and metrics, read from the database at most a second ago.

The first request after a second reads again, in one statement, everything that was asked for in that second. So a revoked key stops,
and a changed metric shows, within a second, at a cost that does not grow with the rate of requests.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import Any, Generic, TypeVar

import msgspec
from psycopg import OperationalError
from psycopg.rows import namedtuple_row
from psycopg_pool import ConnectionPool, PoolTimeout

from core.db import NETWORK, NETWORK_OPTIONS
from core.errors import Unavailable
from core.metering.accounts import MAX_AGE_SECONDS, Account, Accounts, Table
from core.metering.blocks import BLOCKS, Blocks, blocks
from core.metering.counted import METER_COLUMNS
from core.metering.lines import STATEMENT_SECONDS_MAX, Prompt
from core.metering.meters import Meter, meter
from core.metering.unclaimed import Name, Unclaimed

UNKNOWN_AGE_SECONDS = 0.05
WAIT_SECONDS = 2.0
PAUSE_SECONDS = 0.5
AWAY = "The database does not answer; nothing was kept. Send it again."
K = TypeVar("K")
V = TypeVar("V")

KEYS = "SELECT key_hash, id, organization_id, scopes, expires_at, revoked_at FROM api_keys WHERE key_hash = ANY(%s)"
METRICS = f"""SELECT {METER_COLUMNS}, n.number AS event_number
  FROM metrics m LEFT JOIN usage_event_names n ON n.name = m.event_name WHERE m.archived_at IS NULL ORDER BY m.code"""  # noqa: S608
NAME_EVENTS = """INSERT INTO usage_event_names (name) SELECT DISTINCT event_name FROM metrics
  WHERE archived_at IS NULL ON CONFLICT (name) DO NOTHING"""


@dataclass(frozen=True, slots=True)
class Principal:
    """An API key. `organization_id` None: a platform key, whose events name their organization."""

    key_id: uuid.UUID
    organization_id: uuid.UUID | None
    scopes: frozenset[str]
    expires_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class EventType:
    """An event name that metrics read. `codes` is the JSON list of the metrics a plain event feeds."""

    number: int
    name: str
    meters: tuple[Meter, ...]
    plain: bool
    codes: str
    timed: bool = False
    """Whether a metric looks at the time of each event."""


class Recent(Generic[K, V]):
    """Values that are at most MAX_AGE_SECONDS old. `load` reads many at once; a key it does not answer for is not remembered."""

    def __init__(self, load: Callable[[Collection[K]], Mapping[K, V]]) -> None:
        self._load = load
        self._values: dict[K, V] = {}
        self._asked: set[K] = set()
        self._read_at = 0.0
        self._lock = threading.Lock()

    def __contains__(self, key: K) -> bool:
        """Whether its value was known a moment ago, so that asking for it rarely asks the database."""
        return key in self._values

    def get(self, keys: Collection[K]) -> Mapping[K, V]:
        """The values of `keys`; those that do not exist are missing."""
        values = self._values
        if time.monotonic() - self._read_at < MAX_AGE_SECONDS:
            missing = [key for key in keys if key not in values]
            if not missing:
                self._asked.update(keys)
                return values
            found = self._load(missing)
            with self._lock:
                self._values.update(found)
            return {**{key: values[key] for key in keys if key in values}, **found}
        with self._lock:
            if time.monotonic() - self._read_at >= MAX_AGE_SECONDS:
                began = time.monotonic()
                found = self._load({*self._asked, *keys})
                self._values = dict(found)
                self._asked, self._read_at = set(keys), began
                return found
        return self.get(keys)


class Directory:
    """Keys, organizations and event types, for the threads of one process."""

    def __init__(self, database_url: str, *, connections: int = 4, lenient: bool = False) -> None:
        options = f"{NETWORK_OPTIONS} -c statement_timeout={STATEMENT_SECONDS_MAX}s"
        given = {"autocommit": True, "row_factory": namedtuple_row, "connect_timeout": 2, "options": options, **NETWORK}
        self._pool = ConnectionPool(
            database_url,
            connection_class=Prompt,
            min_size=0,
            max_size=connections,
            kwargs=given,
            open=False,
            timeout=WAIT_SECONDS,
            check=ConnectionPool.check_connection,
        )
        self._keys: Recent[bytes, Principal] = Recent(self._load_keys)
        self._accounts = Accounts(self._rows)
        self._unclaimed = Unclaimed(self.connection) if lenient else None
        self._types: dict[str, EventType] = {}
        self._metrics: dict[str, str] = {}
        self._types_read_at = 0.0
        self._blocks: Blocks = {}
        self._blocks_read_at = 0.0
        self._lock = threading.Lock()
        self._down_until = 0.0

    def principal(self, key_hash: bytes) -> Principal | None:
        """The key with this hash, revoked or not; None when there is none."""
        return self._keys.get((key_hash,)).get(key_hash)

    def knows(self, key_hash: bytes) -> bool:
        """Whether the key with this hash was used a moment ago."""
        return key_hash in self._keys

    def accounts(self, references: Collection[str]) -> Mapping[str, Account]:
        """The organizations called so, by id or external id. Those on a test clock are read every time: their time moves by hand."""
        return self._accounts.get(references)

    def usual_numbers(self, references: Collection[str]) -> list[int] | None:
        """The numbers of organizations that need no closer look: open, in real time, and not stopped. None when one needs it."""
        self.blocks()
        return self._accounts.numbers(references)

    def usual_accounts(self, make: Callable[[Mapping[str, int]], Table]) -> Table:
        """Organizations that need no closer look with their numbers, nearly all of them, in a form made by `make`."""
        self.blocks()
        return self._accounts.table(make)

    def event_types(self, names: Iterable[str]) -> Mapping[str, EventType]:
        """The event types of these names; a name unknown a moment ago is looked up again."""
        age = time.monotonic() - self._types_read_at
        if age >= MAX_AGE_SECONDS or (age >= UNKNOWN_AGE_SECONDS and any(name not in self._types for name in names)):
            with self._lock:
                self._load_types()
        return self._types

    def blocks(self) -> Blocks:
        """Who is stopped, as of at most a second ago; mostly nobody."""
        if time.monotonic() - self._blocks_read_at >= MAX_AGE_SECONDS:
            with self._lock:
                if time.monotonic() - self._blocks_read_at >= MAX_AGE_SECONDS:
                    began = time.monotonic()
                    self._blocks = blocks(self._rows(BLOCKS))
                    self._accounts.hold(frozenset(self._blocks))
                    self._blocks_read_at = began
        return self._blocks

    def unclaimed(self, wanted: Collection[Name]) -> Mapping[Name, EventType]:
        """Event types, feeding nothing, under which events without a metric are kept; in strict mode there are none."""
        if self._unclaimed is None or not wanted:
            return {}
        return {name: event_type(name[1], number, ()) for name, number in self._unclaimed.numbers(wanted).items()}

    def suggestion(self, name: str) -> str:
        """A sentence that helps someone who sent an unknown event name."""
        if name in self._metrics:
            return f"The metric {name} reads events named {self._metrics[name]}; send those."
        near = get_close_matches(name, self._types, n=1)
        return f"Did you mean {near[0]}?" if near else "Create a metric that reads it first."

    @contextmanager
    def connection(self) -> Any:
        """A connection in autocommit mode with named rows; raises Unavailable when the database does not answer.

        One finds that out for all who wait behind it, and nobody asks again for a moment.
        """
        if time.monotonic() < self._down_until:
            raise Unavailable(AWAY, retry_after_seconds=1)
        try:
            self._pool.open()
            with self._pool.connection() as connection:
                yield connection
        except (OperationalError, PoolTimeout) as error:
            self._down_until = time.monotonic() + PAUSE_SECONDS
            raise Unavailable(AWAY, retry_after_seconds=1) from error

    def close(self) -> None:
        """Give the connections back."""
        self._pool.close()

    def _rows(self, statement: str, *values: Any) -> list[Any]:
        with self.connection() as connection:
            return list(connection.execute(statement, values, prepare=True))

    def _load_keys(self, hashes: Collection[bytes]) -> dict[bytes, Principal]:
        rows = self._rows(KEYS, list(hashes))
        return {bytes(r.key_hash): Principal(r.id, r.organization_id, frozenset(r.scopes), r.expires_at, r.revoked_at) for r in rows}

    def _load_types(self) -> None:
        began = time.monotonic()
        rows = self._rows(METRICS)
        if any(row.event_number is None for row in rows):
            with self.connection() as connection:
                connection.execute(NAME_EVENTS)
            rows = self._rows(METRICS)
        self._types = event_types(rows)
        self._metrics = {row.code: row.event_name for row in rows}
        self._types_read_at = began


def event_types(rows: Iterable[Any]) -> dict[str, EventType]:
    """Event types by name from rows of METRICS."""
    meters: dict[tuple[str, int], list[Meter]] = {}
    for row in rows:
        meters.setdefault((row.event_name, row.event_number), []).append(meter(row))
    return {name: event_type(name, number, tuple(group)) for (name, number), group in meters.items()}


def event_type(name: str, number: int, meters: tuple[Meter, ...]) -> EventType:
    """The event type that these metrics read."""
    plain = all(item.plain for item in meters)
    codes = msgspec.json.encode([item.code for item in meters]).decode()
    return EventType(number, name, meters, plain, codes, any(item.timed for item in meters))
