"""Questions about usage that are read together: each names the windows it needs, and works out its answer once they are read.

What a price asks of a window that was read: `quantity` of all of it; `by_group` for matrix prices; `parts` of a window with `by`: its
local hours for time of use, its buckets for peaks, its events for prices by the event; `parts_by_group` for both at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Generic, TypeVar

import msgspec
from sqlalchemy.orm import Session

from core.metering.meters import NO_GROUP
from core.metering.sums import measure
from core.metering.windows import Answer, Fold, Part, Window

T = TypeVar("T")
Measured = Mapping[Window, Mapping[str, Answer]]
Group = tuple[str | None, ...]
"""Values of the metric's group_by, in its order; None where an event had none. Without group_by: ()."""


@dataclass(frozen=True, slots=True)
class Question(Generic[T]):
    """Something to be worked out from usage: the `windows` to read, and how the `answer` follows from them."""

    windows: frozenset[Window]
    answer: Callable[[Measured], T]


def read(session: Session, *questions: Question[Any]) -> Measured:
    """The windows of all the questions, each once: a handful of statements whatever their number."""
    windows = list(frozenset[Window]().union(*(question.windows for question in questions)))
    return dict(zip(windows, measure(session, windows), strict=True)) if windows else {}


def ask(session: Session, question: Question[T]) -> T:
    """The answer to one question on its own."""
    return question.answer(read(session, question))


def quantity(measured: Measured, window: Window) -> Decimal:
    """The quantity of a window read without groups; 0 where nothing was counted.

    Rounded as the metric says, else to 12 places. Of a running total that more was taken from than added, it is negative.
    """
    answer = measured[window].get(NO_GROUP)
    return answer.quantity if answer else Decimal(0)


def events(measured: Measured, window: Window) -> int:
    """How many events a window read without groups counts."""
    answer = measured[window].get(NO_GROUP)
    return answer.events if answer else 0


def fold(measured: Measured, window: Window) -> Fold | None:
    """What the events of a window with `fold` were added to; None where there were none."""
    answer = measured[window].get(NO_GROUP)
    return answer.folded if answer else None


def by_group(measured: Measured, window: Window) -> dict[Group, Decimal]:
    """The quantity of each group of a window read with `by_group`; groups without usage are missing."""
    return {group(key): answer.quantity for key, answer in measured[window].items()}


def parts(measured: Measured, window: Window) -> tuple[Part, ...]:
    """The parts of a window read with `by` and without groups, in order of time; parts without usage are missing.

    Hours, days and buckets are local to the organization's billing timezone, and half-hour zones are right. An event that comes in the
    same instant as another keeps its order of arrival. The parts of a metric that only counts and sums add up to its quantity.
    """
    answer = measured[window].get(NO_GROUP)
    return answer.parts if answer else ()


def parts_by_group(measured: Measured, window: Window) -> dict[Group, tuple[Part, ...]]:
    """`parts` of each group of a window read with `by` and `by_group`."""
    return {group(key): answer.parts for key, answer in measured[window].items()}


def group(key: str) -> Group:
    """The values a group key stands for."""
    return tuple(msgspec.json.decode(key)) if key else ()
