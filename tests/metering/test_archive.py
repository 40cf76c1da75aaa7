"""A closed day goes to a file, is proved, purged, and comes back as it was; what is held stays; nothing goes unproved."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session

from core.audit import SYSTEM
from core.config import Settings
from core.db import transaction
from core.metering import holds, keeping, partitions, queries, retention, sampling
from core.metering.archive import days, rows
from core.metering.archive.models import UsageArchive
from core.metering.corrections import events as corrections
from tests.metering.conftest import Metering

pytest.importorskip("pyarrow", reason="the extra `archive` is not installed: no Parquet")
pytest.importorskip("obstore", reason="the extra `archive` is not installed: no object store")
from core.metering.archive.place import Place

NOW = datetime.now(UTC)
ALL = f'SELECT {rows.LISTED} FROM usage_events WHERE "timestamp" >= %s AND "timestamp" < %s ORDER BY organization_number, idempotency_key'


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A folder."""
    return Place((tmp_path / "archive").as_uri())


@contextmanager
def unit(metering: Metering) -> Iterator[Session]:
    with metering.app.app_context(), transaction() as session:
        yield session


def archived(metering: Metering, day: date, place: Place) -> UsageArchive | None:
    """Archive and prove a day."""
    with unit(metering) as session:
        sampling.steady(session)
        made = days.archive(session, day, place, actor=SYSTEM, at=datetime.now(UTC))
        archive_id = made.id if made else None
    if archive_id is None:
        return None
    with unit(metering) as session:
        days.verify(session, archive_id, place, at=datetime.now(UTC))
        session.flush()
        found = session.get(UsageArchive, archive_id)
        session.expunge(found)
    return found


def purged(metering: Metering, day: date, place: Place) -> retention.Purged | None:
    with unit(metering) as session:
        return retention.purge_events(session, day, place, actor=SYSTEM, at=datetime.now(UTC))


def restored(metering: Metering, day: date, place: Place) -> days.Restored:
    with unit(metering) as session:
        return days.restore(session, day, place, actor=SYSTEM, at=datetime.now(UTC))


def stored(metering: Metering, day: date) -> list[Any]:
    return metering.rows(ALL, *rows.span(day).values())


def filled(metering: Metering, back: int, events: int = 40) -> tuple[date, list[uuid.UUID]]:
    """A day with events of two organizations, odd texts and exact quantities among them."""
    day = (NOW - timedelta(days=back)).date()
    code = f"m{uuid.uuid4().hex[:8]}"
    metering.metric(code)
    ids = []
    for _ in range(2):
        organization_id, token = metering.organization()
        ids.append(organization_id)
        sent = [
            {
                "metric_name": code,
                "idempotency_key": f'k"{i},;',
                "timestamp": f"{day}T{i % 24:02}:59:59.123456Z",
                "quantity": ("0.000000000001", "99999999999999", "1.50", "0")[i % 4],
                "properties": {"text": ('a "quoted", text', "línea\nnew", "", "🜚\\N")[i % 4], "n": i},
                **({"unit": "call"} if i % 3 else {}),
            }
            for i in range(events)
        ]
        metering.send(token, sent)
    metering.count()
    return day, ids


def test_a_day_goes_away_and_comes_back_as_it_was(metering: Metering, place: Place) -> None:
    day, ids = filled(metering, 9)
    before, rollups = stored(metering, day), metering.rows("SELECT * FROM usage_rollups ORDER BY 1, 2, 3, 4")
    made = archived(metering, day, place)
    assert made is not None
    assert archived(metering, day, place) is None, "nothing new: no second file"
    manifest = json.loads(place.open(made.path.replace(".parquet", ".json")).read())
    assert (manifest["rows"], manifest["sha256"]) == (80, made.sha256.hex())
    assert sum(float(found["quantity"]) for found in manifest["metrics"].values()) == pytest.approx(2 * 10 * (1.5 + 99999999999999))
    done = purged(metering, day, place)
    assert done is not None
    assert (done.rows, stored(metering, day)) == (80, [])
    assert metering.rows("SELECT * FROM usage_rollups ORDER BY 1, 2, 3, 4") == rollups
    facts = metering.value("SELECT data FROM audit_events WHERE kind = 'usage.day_purged' ORDER BY id DESC LIMIT 1")
    assert (facts["rows"], facts["sha256"]) == (80, made.sha256.hex())
    assert restored(metering, day, place) == days.Restored(80, 0, 1)
    assert restored(metering, day, place) == days.Restored(0, 0, 0)
    assert stored(metering, day) == before
    with unit(metering) as session:
        span = rows.span(day)
        page = queries.events_page(session, ids[0], start=span["since"], end=span["until"])
    assert len(page.rows) == 40
    assert purged(metering, day, place) is not None, "a restored day goes again"


def test_only_what_a_proved_archive_has_goes(metering: Metering, place: Place) -> None:
    day, ids = filled(metering, 8)
    with pytest.raises(retention.NotArchived):
        purged(metering, day, place)
    made = archived(metering, day, place)
    assert made is not None
    with unit(metering) as session:
        corrections.void(session, ids[0], 'k"1,;', reason="sent by mistake", actor=SYSTEM, at=datetime.now(UTC))
    with pytest.raises(retention.NotArchived):
        purged(metering, day, place)
    again = archived(metering, day, place)
    assert again is not None
    file = Path(place.url.removeprefix("file://")) / again.path
    whole = file.read_bytes()
    file.write_bytes(whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:])
    with pytest.raises(days.Damaged):
        purged(metering, day, place)
    assert len(stored(metering, day)) == 79
    file.write_bytes(whole)
    assert purged(metering, day, place) is not None
    assert restored(metering, day, place).rows == 79, "the newest archive, and the void event stays void"


def test_a_legal_hold_keeps_an_organizations_events(metering: Metering, place: Place) -> None:
    day, (held, _) = filled(metering, 7)
    assert archived(metering, day, place) is not None
    with unit(metering) as session:
        holds.place(session, held, reason="case 4711", actor=SYSTEM, at=NOW)
    done = purged(metering, day, place)
    assert done is not None
    assert (done.rows, done.kept, len(stored(metering, day))) == (40, 40, 40)
    assert purged(metering, day, place) is None, "only held events are left"
    assert archived(metering, day, place) is None, "they are in the archive"
    with unit(metering) as session:
        corrections.void(session, held, 'k"2,;', reason="wrong", actor=SYSTEM, at=datetime.now(UTC))
    assert restored(metering, day, place) == days.Restored(40, 40, 1)
    assert len(stored(metering, day)) == 79
    with unit(metering) as session:
        kept = metering.value("SELECT count(*) FROM usage_batches")
        metering.rows("UPDATE usage_batches SET received_at = received_at - interval '90 days' RETURNING 1")
        first = retention.log_days(session, before=(NOW - timedelta(days=80)).date())
    with unit(metering) as session:
        assert [retention.purge_log(session, one, actor=SYSTEM, at=NOW) for one in first] == [None] * len(first)
        assert retention.purge_rejections(session, before=NOW, actor=SYSTEM, at=NOW).rows == 0
        holds.release(session, held, reason="closed", actor=SYSTEM, at=NOW)
    with unit(metering) as session:
        done = [retention.purge_log(session, one, actor=SYSTEM, at=NOW) for one in first]
    assert sum(one.rows for one in done if one) == kept
    assert metering.value("SELECT count(*) FROM usage_batches") == 0


def test_the_daily_run_archives_purges_and_goes_on_after_a_kill(
    metering: Metering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    day, _ = filled(metering, 5)
    soon = NOW.replace(hour=3, minute=0, second=0, microsecond=0)
    soon += timedelta(days=soon <= NOW)  # the first run is at the first such hour after the tables were made
    settings = Settings(
        usage_archive_url=(tmp_path / "archive").as_uri(), usage_archive_after_days=2, usage_events_days=3, usage_log_days=1
    )
    with unit(metering) as session:
        assert [keeping.is_due(session, hour=3, at=time) for time in (soon - timedelta(days=1), soon)] == [False, True]
    with metering.app.app_context(), monkeypatch.context() as patch:
        patch.setattr(days, "verify", killed)
        with pytest.raises(KeyboardInterrupt):
            keeping.keep(settings, at=soon)
    with unit(metering) as session:
        assert keeping.is_due(session, hour=23, at=soon), "an open run is due at any hour"
    with metering.app.app_context():
        keeping.keep(settings, at=soon)
    with unit(metering) as session:
        run = keeping.runs(session)[0]
        assert keeping.is_due(session, hour=3, at=soon + timedelta(hours=20)) is False
        assert keeping.is_due(session, hour=3, at=soon + timedelta(days=1))
        assert run.finished_at is not None
        assert run.finished_at > soon
        assert (run.archived_days >= 1, run.purged_events >= 80, run.archived_bytes > 0) == (True, True, True)
    assert stored(metering, day) == []
    assert metering.value("SELECT count(*) FROM usage_keepings WHERE started_at = %s", soon) == 1, "it went on"


def killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_events_of_days_without_a_partition_are_moved_into_one(metering: Metering) -> None:
    day, _ = filled(metering, 6)
    with unit(metering) as session:
        connection = rows.driver(session)
        assert day in partitions.stray(connection, "usage_events")
        made = partitions.repair(connection, before=NOW.date())
        assert partitions.partition("usage_events", day) in made
        assert partitions.stray(connection, "usage_events", before=NOW.date()) == []
        assert day in partitions.days(connection, "usage_events", before=NOW.date())
    assert len(stored(metering, day)) == 80
