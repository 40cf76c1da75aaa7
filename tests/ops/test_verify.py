"""`valueverse verify`: silent when the books and the counted usage are right, loud and with status 1 when a sum was changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from sqlalchemy.orm import Session

from core import clock
from ops import verify
from tests.factories import make_metric, make_organization, use


@pytest.fixture
def books(session: Session, monkeypatch: pytest.MonkeyPatch) -> Session:
    """The command looks at the test's own transaction."""

    @contextmanager
    def same() -> Iterator[Session]:
        yield session

    monkeypatch.setattr(verify, "unit_of_work", same)
    return session


def test_right_books_are_confirmed(books: Session, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([]) == 0
    assert "all hold" in capsys.readouterr().out


def test_a_sum_without_its_events_is_named(books: Session, capsys: pytest.CaptureFixture[str]) -> None:
    now = clock.now()
    metric = make_metric(books, "calls", counted_at=now)
    use(books, make_organization(books), metric, now - timedelta(hours=3), 7)
    assert verify.main([]) == 1
    told = capsys.readouterr().out
    assert verify.RECOUNT in told
    assert f"metric number {metric.number}" in told
    use(books, make_organization(books), make_metric(books, "calls", counted_at=now), now - timedelta(days=9), 7)
    assert verify.main(["--days", "10"]) == 1
