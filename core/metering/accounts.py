"""The organizations that usage is sent for, as of at most a second ago, however many there are.

Once a second it is asked which of them changed; only those are read again. So what that costs does not grow with their number.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeVar, cast

MAX_AGE_SECONDS = 1.0
KEPT_SECONDS = 60.0
"""How far back changes are looked for, and how long anything is kept: nobody's transaction takes that long to change an organization."""
UUID_LENGTH = 36
CLOSED = "closed"
COLUMNS = "o.id, o.number, o.external_id, o.slug, o.status, c.frozen_time"
CLOCK = "LEFT JOIN test_clocks c ON c.id = o.test_clock_id"
ACCOUNTS = f"""SELECT o.external_id AS reference, {COLUMNS} FROM organizations o {CLOCK} WHERE o.external_id = ANY(%s::text[])
  UNION ALL SELECT o.id::text, {COLUMNS} FROM organizations o {CLOCK} WHERE o.id = ANY(%s::uuid[])"""  # noqa: S608 - constants only
CHANGED = "SELECT id, updated_at FROM organizations WHERE updated_at > now() - make_interval(secs => %s)"
Rows = Callable[..., list[Any]]
TABLE_GROWTH, TABLE_FIRST = 1.05, 4
"""A table is made anew when so many more are known: that costs each organization the same, however many there are."""


@dataclass(frozen=True, slots=True)
class Account:
    """An organization. `frozen_time` is its test clock's."""

    id: uuid.UUID
    number: int
    external_id: str | None
    slug: str
    status: str
    frozen_time: datetime | None

    def is_called(self, reference: str) -> bool:
        """Whether `reference` is its id or external id."""
        return reference in (self.external_id, str(self.id)) or reference.lower() == str(self.id)


class Forgetting(Protocol):
    """Something made of references and numbers, of which some can be taken back."""

    def __len__(self) -> int: ...

    def forget(self, names: Collection[str]) -> None:
        """Know no more of these references."""


Table = TypeVar("Table", bound=Forgetting)


class Accounts:
    """Organizations by id or external id. Those on a test clock are read every time: their time moves by hand."""

    def __init__(self, rows: Rows) -> None:
        """`rows` answers a statement with its values."""
        self._rows = rows
        self._values: dict[str, Account] = {}
        self._usual: dict[str, int] = {}
        self._held: frozenset[uuid.UUID] = frozenset()
        self._table: Forgetting | None = None
        self._changes: dict[uuid.UUID, datetime] = {}
        self._read_at = self._emptied_at = 0.0
        self._lock = threading.Lock()

    def get(self, references: Collection[str]) -> Mapping[str, Account]:
        """The organizations called so, and perhaps others; those that do not exist are missing."""
        self._look()
        values = self._values
        if set(references) <= values.keys():
            return values
        known = {reference: values[reference] for reference in references if reference in values}
        found = self._load([reference for reference in references if reference not in known])
        with self._lock:
            if values is self._values:
                kept = {name: account for name, account in found.items() if account.frozen_time is None}
                values.update(kept)
                self._usual.update({name: account.number for name, account in kept.items() if self._is_usual(account)})
        return {**known, **found}

    def numbers(self, references: Collection[str]) -> list[int] | None:
        """The numbers of organizations, when all of them are known and usual; they lie closer together in memory."""
        self._look()
        try:
            return list(map(self._usual.__getitem__, references))
        except KeyError:
            return None

    def hold(self, ids: frozenset[uuid.UUID]) -> None:
        """These need a closer look; all others that are open and live in real time are usual."""
        if ids != self._held:
            with self._lock:
                self._held = ids
                self._leave_out({name for name, account in self._values.items() if account.id in ids})
                self._usual.update({name: one.number for name, one in self._values.items() if self._is_usual(one)})

    def table(self, make: Callable[[Mapping[str, int]], Table]) -> Table:
        """All of whom numbers() knows, but perhaps a few of the newest, in a form made by `make` (always the same)."""
        self._look()
        table = cast(Table | None, self._table)
        if table is None or len(self._usual) > TABLE_GROWTH * len(table) + TABLE_FIRST:
            with self._lock:
                self._table = table = make(self._usual)
        return table

    def _look(self) -> None:
        if time.monotonic() - self._read_at >= MAX_AGE_SECONDS:
            with self._lock:
                if time.monotonic() - self._read_at >= MAX_AGE_SECONDS:
                    self._forget_changed()

    def _forget_changed(self) -> None:
        """Forget who changed since the last look. What is being read meanwhile belongs to the values of before, and is not kept."""
        began = time.monotonic()
        changes = dict(self._rows(CHANGED, KEPT_SECONDS))
        if began - self._emptied_at >= KEPT_SECONDS:
            self._values, self._usual, self._table, self._emptied_at = {}, {}, None, began
        elif changed := {one for one, at in changes.items() if self._changes.get(one) != at}:
            gone = {name for name, account in self._values.items() if account.id in changed}
            self._values = {name: account for name, account in self._values.items() if name not in gone}
            self._leave_out(gone)
        self._changes, self._read_at = changes, began

    def _leave_out(self, names: Collection[str]) -> None:
        self._usual = {name: number for name, number in self._usual.items() if name not in names}
        if self._table is not None and names:
            self._table.forget(names)

    def _is_usual(self, account: Account) -> bool:
        return account.frozen_time is None and account.status != CLOSED and account.id not in self._held

    def _load(self, references: Collection[str]) -> dict[str, Account]:
        ids = {text: reference for reference in references if (text := uuid_text(reference)) is not None}
        rows = self._rows(ACCOUNTS, list(references), list(ids))
        found = {r.reference: Account(r.id, r.number, r.external_id, r.slug, r.status, r.frozen_time) for r in rows}
        return {**found, **{reference: found[text] for text, reference in ids.items() if text in found}}


def uuid_text(reference: str) -> str | None:
    """The reference as PostgreSQL writes a UUID, or None when it is none."""
    try:
        return str(uuid.UUID(reference)) if len(reference) == UUID_LENGTH else None
    except ValueError:
        return None
