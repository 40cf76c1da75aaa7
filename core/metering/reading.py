"""Questions about usage that are read together: each names the windows it needs, and works out its answer once they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Generic, TypeVar

from sqlalchemy.orm import Session

from core.metering.meters import NO_GROUP, Usage
from core.metering.sums import Window, measure

T = TypeVar("T")
Measured = Mapping[Window, Mapping[str, Usage]]


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
    """The quantity of a window read without groups; 0 where nothing was counted."""
    usage = measured[window].get(NO_GROUP)
    return usage.quantity if usage else Decimal(0)
