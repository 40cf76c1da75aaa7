"""How far the work on a file of past usage is. It is one transaction, of which others see nothing before it ends, but for its name.

The name of its connection is that of the transaction alone: when it ends, or its process is killed, nothing is left of it.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from psycopg import Connection
from sqlalchemy import text
from sqlalchemy.orm import Session

NAME = "SELECT set_config('application_name', %s, true)"
NAMES = text("SELECT application_name FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'backfill %'")
WRITTEN = re.compile(r"backfill (?P<id>[0-9a-f-]{36}) (?P<step>\w+) (?P<done>\d+)/(?P<events>\d+)")


class Step(StrEnum):
    """Lines are judged once more, then counted, for good or on trial. PostgreSQL keeps 63 characters of a name, so these are short."""

    JUDGING = "judge"
    COUNTING = "count"
    TRYING = "try"


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of the file's `events` have been through the step. Nothing of it holds before the end."""

    step: Step
    done: int
    events: int


def note(connection: Connection[Any], backfill_id: uuid.UUID, step: Step, done: int, events: int) -> None:
    """Let others see how far this transaction is."""
    connection.execute(NAME, (f"backfill {backfill_id} {step} {done}/{events}",))


def running(session: Session) -> Mapping[uuid.UUID, Progress]:
    """The files that are being worked on, dry runs included."""
    return read(session.scalars(NAMES))


def read(names: Iterable[str]) -> dict[uuid.UUID, Progress]:
    """What names of connections say."""
    found = (WRITTEN.fullmatch(name) for name in names)
    return {uuid.UUID(one["id"]): Progress(Step(one["step"]), int(one["done"]), int(one["events"])) for one in found if one}
