"""One customer's facts and the counters of its limits on one metric, in one statement.

Which windows to count over follows from the facts. They are guessed to be those of the last time, and they are, until a window turns or
somebody changes a limit; what a wrong guess counted is not looked at, the counters are then asked for once more.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

from sqlalchemy import TextClause

from core.entitlements import counters
from core.entitlements.bounds import Bound, bounds
from core.entitlements.counters import Counter, Kinds, Question
from core.entitlements.facts import Facts, about_one, read_one
from core.reader import Reads

GUESSES_MAX = 20_000
UNKNOWN = Question((), {})
_guesses: dict[tuple[uuid.UUID, str], Question] = {}


class Together(NamedTuple):
    """The facts, the limits on the metric, and what of each is used and reserved, by subject."""

    facts: Facts
    holding: Sequence[Bound]
    counted: Mapping[str, Counter]


def read(reads: Reads, organization_id: uuid.UUID, metric: str, *, at: datetime) -> Together:
    """For the metric with that code, in real time `at`; NotFound."""
    guess = _guesses.get((organization_id, metric), UNKNOWN)
    values = {**guess.values, "organization_id": organization_id, "at": at}
    found, columns = read_one(reads, _statement(guess.kinds), values)
    holding = bounds(found, metric=metric)
    if not holding:
        _guesses.pop((organization_id, metric), None)
        return Together(found, holding, {})
    right = counters.question(found, holding)
    if right == guess:
        return Together(found, holding, counters.answered(reads, found, holding, columns))
    if len(_guesses) >= GUESSES_MAX:
        _guesses.clear()
    _guesses[organization_id, metric] = right
    return Together(found, holding, counters.read(reads, found, holding, at=at))


@lru_cache(256)
def _statement(kinds: Kinds) -> TextClause:
    return about_one(Question(kinds, {}).columns)
