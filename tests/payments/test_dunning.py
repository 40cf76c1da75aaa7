"""The schedule of tries: a table, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from core.payments import dunning
from core.payments.declines import DECLINES

AT = datetime(2024, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(("failures", "days"), [(0, None), (1, 2), (2, 5), (3, 7), (4, 7), (5, None), (50, None)])
def test_the_schedule(failures: int, days: int | None) -> None:
    expected = None if days is None else AT + timedelta(days=days)
    assert dunning.next_attempt(failures, at=AT, hard=False) == expected
    assert dunning.next_attempt(failures, at=AT, hard=True) is None


def test_days_add_up() -> None:
    assert dunning.attempt_days() == [2, 7, 14, 21]
    assert dunning.attempt_days((8, 8, 8)) == [8, 16, 24]


@pytest.mark.parametrize("code", sorted(DECLINES))
def test_every_code_over_thirty_days(code: str) -> None:
    at, tries = AT, [AT]
    while (following := dunning.next_attempt(len(tries), at=at, hard=DECLINES[code].hard)) is not None:
        tries.append(following)
        at = following
    assert [(moment - AT).days for moment in tries] == ([0] if DECLINES[code].hard else [0, 2, 7, 14, 21])


def test_the_networks_have_a_last_word() -> None:
    assert not dunning.exhausted(14)
    assert dunning.exhausted(15)
