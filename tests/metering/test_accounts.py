"""Organizations are remembered; one that changed, whoever changed it, is read again within a second, and only that one."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg.rows import namedtuple_row

from core.metering import accounts
from core.metering.accounts import ACCOUNTS, CHANGED, Accounts
from tests.metering.conftest import Metering


class Database:
    """Answers statements, and counts how many organizations it was asked for."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection, self.asked = connection, 0

    def rows(self, statement: str, *values: Any) -> list[Any]:
        self.asked += len(values[0]) if statement == ACCOUNTS else 0
        return self.connection.execute(statement, values).fetchall()


def test_only_what_changed_is_read_again(metering: Metering, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"remembered-{i}" for i in range(20)]
    ids = [metering.organization(external_id=name)[0] for name in names]
    clock = [1_000.0]
    monkeypatch.setattr(accounts.time, "monotonic", lambda: clock[0])
    with psycopg.connect(metering.url, autocommit=True, row_factory=namedtuple_row) as connection:
        database = Database(connection)
        known = Accounts(database.rows)
        assert {known.get(names)[name].id for name in names} == set(ids)
        assert (len(known.get(["nobody"])), database.asked) == (0, 21)
        assert known.numbers(names) == [known.get(names)[name].number for name in names]
        assert known.numbers(["nobody"]) is None
        connection.execute("UPDATE organizations SET status = 'closed', updated_at = '2020-01-01' WHERE id = %s", (ids[3],))
        assert known.get(names)[names[3]].status == "active"
        clock[0] += accounts.MAX_AGE_SECONDS
        assert known.get(names)[names[3]].status == "closed"
        assert (database.asked, known.numbers(names)) == (22, None)
        clock[0] += accounts.MAX_AGE_SECONDS
        known.get(names)
        assert database.asked == 22
        clock[0] += accounts.KEPT_SECONDS
        known.get(names)
        assert database.asked == 42


class Noted(dict[str, int]):
    """A table of the usual organizations that knows what it was told to forget."""

    def forget(self, names: Any) -> None:
        for name in names:
            self.pop(name, None)


def test_the_table_has_the_usual_organizations_and_forgets_who_changes_or_is_stopped(
    metering: Metering, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"tabled-{i}" for i in range(30)]
    ids = [metering.organization(external_id=name)[0] for name in names]
    clock = [1_000.0]
    monkeypatch.setattr(accounts.time, "monotonic", lambda: clock[0])
    with psycopg.connect(metering.url, autocommit=True, row_factory=namedtuple_row) as connection:
        known = Accounts(Database(connection).rows)
        known.hold(frozenset({ids[1]}))
        found = known.get(names)
        usual = {name: found[name].number for name in names}
        stopped = {name: number for name, number in usual.items() if name != names[1]}
        assert known.table(Noted) == stopped
        assert known.numbers(names[:2]) is None
        known.hold(frozenset({ids[2]}))
        assert known.numbers(names[:2]) == [usual[name] for name in names[:2]]
        assert (known.numbers(names[2:3]), names[2] in known.table(Noted)) == (None, False)
        connection.execute("UPDATE organizations SET status = 'closed' WHERE id = %s", (ids[5],))
        clock[0] += accounts.MAX_AGE_SECONDS
        assert names[5] not in known.table(Noted)
        known.get(names)
        assert (known.numbers(names[5:6]), known.numbers(names[6:7])) == (None, [usual[names[6]]])
        clock[0] += accounts.KEPT_SECONDS
        known.hold(frozenset())
        known.get(names)
        assert known.table(Noted) == {name: number for name, number in usual.items() if name != names[5]}


def test_what_was_read_before_a_change_is_not_kept(metering: Metering, monkeypatch: pytest.MonkeyPatch) -> None:
    """The change is seen between the reading of the old row and its keeping."""
    organization_id, _ = metering.organization(external_id="changes-meanwhile")
    clock = [1_000.0]
    monkeypatch.setattr(accounts.time, "monotonic", lambda: clock[0])
    with psycopg.connect(metering.url, autocommit=True, row_factory=namedtuple_row) as connection:
        looks: list[str] = []

        def rows(statement: str, *values: Any) -> list[Any]:
            looks.append(statement)
            found = connection.execute(statement, values).fetchall()
            if looks == [CHANGED, ACCOUNTS]:
                connection.execute("UPDATE organizations SET status = 'closed' WHERE id = %s", (organization_id,))
                clock[0] += accounts.MAX_AGE_SECONDS
                known.get(["nobody"])
            return found

        known = Accounts(rows)
        assert known.get(["changes-meanwhile"])["changes-meanwhile"].status == "active"
        assert known.get(["changes-meanwhile"])["changes-meanwhile"].status == "closed"
