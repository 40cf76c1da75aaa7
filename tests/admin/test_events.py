"""Events in the finance site: the live tail with its cursor, refused events by reason, one event with its metrics and its invoice line."""

from __future__ import annotations

import html
import re
from datetime import timedelta
from decimal import Decimal

import numpy as np
import pytest
from flask.testing import FlaskClient
from sqlalchemy import insert, select, text
from sqlalchemy.orm import Session

from core import clock
from core.errors import Invalid
from core.identity.models import OperatorRole, Organization
from core.invoicing.models import Invoice, InvoiceLine
from core.metering import columns, lookup, queries, watch
from core.metering.instants import micros
from core.metering.models import Metric, usage_batch_results, usage_batches, usage_event_names, usage_events
from core.metering.rejections.tables import usage_rejections
from core.metering.tail import Place
from core.metering.texts import texts
from tests.admin.conftest import Count, Enter
from tests.factories import make_metric, make_organization
from tests.people import make_member, sign_in

HX = {"HX-Request": "true"}


@pytest.fixture
def metric(session: Session) -> Metric:
    """A metric whose event name is known to the log."""
    made = make_metric(session, "calls", event_name="calls-seen", group_by=["region"])
    session.execute(insert(usage_event_names).values(name=made.event_name))
    return made


def _number(session: Session, metric: Metric) -> int:
    return session.scalars(select(usage_event_names.c.number).where(usage_event_names.c.name == metric.event_name)).one()


def _send(session: Session, organization: Organization, metric: Metric, keys: list[str], *, duplicates: list[int] | None = None) -> int:
    """A request of the log with one event for each key; counted when `duplicates` is given."""
    n, at = len(keys), clock.now()
    packed = columns.pack(
        columns.Columns(
            organizations=np.full(n, organization.number, np.int32),
            events=np.full(n, _number(session, metric), np.int32),
            timestamps=np.full(n, micros(at), np.int64),
            defaulted=np.zeros(n, np.bool_),
            wholes=np.full(n, 7, np.int64),
            fractions=np.zeros(n, np.int64),
            positions=np.arange(n, dtype=np.int16),
            texts=texts([key.encode() for key in keys], [b"{}"] * n),
        )
    )
    row = {"received_at": at, "organization_id": organization.id, "accepted": n, "rejected": 0, "payload": packed}
    batch = session.execute(insert(usage_batches).values(**row).returning(usage_batches.c.id)).scalar_one()
    if duplicates is not None:
        done = {"batch_id": batch, "counted_at": at, "counted": n - len(duplicates), "duplicates": duplicates, "conflicts": []}
        session.execute(insert(usage_batch_results).values(**done))
    return int(batch)


def _refuse(session: Session, organization: Organization, key: str, *, code: str = "unknown_metric", ago: timedelta = timedelta(0)) -> None:
    event = b'{"metric_name": "typo", "idempotency_key": "' + key.encode() + b'"}'
    row = {"received_at": clock.now() - ago, "organization_id": organization.id, "position": 0, "pointer": "/metric_name", "event": event}
    row |= {"event_name": "typo", "idempotency_key": key}
    session.execute(insert(usage_rejections).values(**row, code=code, detail="No metric reads events named typo."))


def test_the_tail_shows_every_fate(client: FlaskClient, session: Session, enter: Enter, metric: Metric) -> None:
    organization = make_organization(session, name="Quillmark GmbH")
    _send(session, organization, metric, ["first", "again"], duplicates=[1])
    _send(session, organization, metric, ["fresh"])
    _refuse(session, organization, "wrong")
    enter(OperatorRole.OPERATOR)
    shown = client.get("/admin/events").text
    for words in ("Counted", "Duplicate", "Waiting", "Rejected", "first", "fresh", "wrong", "typo", "data-pause"):
        assert words in shown


def test_the_tail_asks_for_what_is_new_alone(client: FlaskClient, session: Session, enter: Enter, metric: Metric) -> None:
    organization = make_organization(session)
    _send(session, organization, metric, ["seen-before"])
    enter()
    found = re.search(r'hx-get="(/admin/events/tail\?after=[^"]*)"', client.get("/admin/events").text)
    assert found is not None
    assert client.get(found[1], headers=HX).status_code == 204
    _send(session, organization, metric, ["came-later"])
    _refuse(session, organization, "refused-later")
    fresh = client.get(found[1], headers=HX).text
    assert "came-later" in fresh
    assert "refused-later" in fresh
    assert "seen-before" not in fresh
    assert fresh.lstrip().startswith('<tbody id="tail-head"')
    again = re.search(r'hx-get="([^"]*)"', fresh)
    assert again is not None
    assert client.get(again[1], headers=HX).status_code == 204


def test_the_tail_narrows_to_an_account(client: FlaskClient, session: Session, enter: Enter, metric: Metric) -> None:
    mine, other = make_organization(session, external_id="acc_1"), make_organization(session)
    _send(session, mine, metric, ["mine-1"])
    _send(session, other, metric, ["other-1"])
    enter()
    shown = client.get("/admin/events?account=acc_1").text
    assert "mine-1" in shown
    assert "other-1" not in shown
    assert "There is no such account" in client.get("/admin/events?account=nobody").text


@pytest.mark.parametrize("cursor", ["", "x.y", "-1.2", "1", "99999999999999999999.1", "'; --"])
def test_a_cursor_that_is_none_begins_anew(client: FlaskClient, enter: Enter, cursor: str) -> None:
    enter()
    assert client.get("/admin/events/tail", query_string={"after": cursor}).status_code in {200, 204}


def test_rejections_are_grouped_with_sample_and_fix(client: FlaskClient, session: Session, enter: Enter) -> None:
    organization = make_organization(session, name="Sends Typos")
    for number in range(3):
        _refuse(session, organization, f"r-{number}")
    _refuse(session, organization, "old", code="timestamp_too_old")
    _refuse(session, organization, "last-week", ago=timedelta(days=3))
    enter()
    groups = watch.groups(session, since=clock.now() - timedelta(days=1))
    assert [(group.code, group.count) for group in groups] == [("unknown_metric", 3), ("timestamp_too_old", 1)]
    shown = client.get("/admin/events/rejected").text
    assert "Sends Typos" in shown
    assert "r-2" in shown
    assert "Create a metric that reads this event name" in shown
    week = client.get("/admin/events/rejected?hours=168", headers=HX).text
    assert '<data value="4">' in week
    assert '<data value="4">' not in shown
    assert client.get("/admin/events/rejected?hours=nonsense").status_code == 200


def test_an_event_leads_to_its_metric_and_its_line(client: FlaskClient, session: Session, enter: Enter, metric: Metric) -> None:
    organization = make_organization(session)
    make_metric(session, "filtered", event_name=metric.event_name, filters=[{"property": "region", "in": ["us"]}])
    at = clock.now() - timedelta(hours=2)
    row = {
        "timestamp": at,
        "received_at": at,
        "batch_id": 1,
        "organization_number": organization.number,
        "event_number": _number(session, metric),
        "position": 0,
        "quantity": Decimal("12.5"),
        "idempotency_key": "call/1?x=y",
        "properties": b'{"region": "eu"}',
    }
    session.execute(insert(usage_events).values(**row))
    invoice = Invoice(
        organization_id=organization.id,
        status="draft",
        reason="manual",
        currency="EUR",
        subtotal_minor=125,
        tax_minor=0,
        total_minor=125,
        amount_due_minor=125,
        timezone="UTC",
    )
    session.add(invoice)
    session.flush()
    window = {"window_start": at - timedelta(days=1), "window_end": at + timedelta(days=1)}
    line = {
        "kind": "charge",
        "metric_id": metric.id,
        "code": "calls",
        "name": "Calls billed",
        "quantity": Decimal("12.5"),
        "amount_minor": 125,
    }
    session.add(InvoiceLine(organization_id=organization.id, invoice_id=invoice.id, position=0, **window, **line))
    enter(OperatorRole.SUPPORT)
    address = f"/admin/accounts/{organization.id}/event"
    shown = client.get(address, query_string={"key": "call/1?x=y"}).text
    for words in ("Counted", "12.5", "Calls billed", "€1.25", "its filter on region leaves the event out", "&#34;eu&#34;"):
        assert words in shown
    assert "No event with this key" in client.get(address, query_string={"key": "call/2"}).text
    found = client.get("/admin/search", query_string={"q": "call/1?x=y"})
    assert found.location.startswith(address)
    session.execute(usage_events.update().values(timestamp=at - timedelta(days=50)))  # longer ago than one look goes
    missing = client.get(address, query_string={"key": "call/1?x=y"}).text
    before = re.search(r'href="([^"]*until=[^"]*)"', missing)
    assert before is not None
    assert "No event with this key" in missing
    assert "12.5" in client.get(html.unescape(before[1])).text


def test_a_search_that_would_take_long_ends_politely(
    client: FlaskClient, session: Session, enter: Enter, metric: Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    organization = make_organization(session)
    with pytest.raises(Invalid, match="too many to look through"), lookup.among_stored(session, seconds=0.05):
        session.execute(text("SELECT pg_sleep(5)"))
    assert session.scalar(text("SHOW statement_timeout")) != "50ms"

    def too_many(*_: object, **__: object) -> None:
        raise Invalid("too many")

    monkeypatch.setattr(queries, "events_page", too_many)
    enter()
    assert "too many to look through" in client.get(f"/admin/accounts/{organization.id}/event?key=old").text


def test_a_refused_event_is_found_by_its_key(client: FlaskClient, session: Session, enter: Enter) -> None:
    organization = make_organization(session)
    _refuse(session, organization, "refused-1")
    _refuse(session, organization, "refused-11")
    enter()
    shown = client.get(f"/admin/accounts/{organization.id}/event?key=refused-1").text
    assert "Rejected with this key" in shown
    assert "refused-11" not in shown


def test_the_numbers_of_the_last_minute(session: Session, metric: Metric) -> None:
    organization = make_organization(session)
    _send(session, organization, metric, ["a", "b", "c"], duplicates=[2])
    found = watch.ingestion(session, at=clock.now() + timedelta(seconds=30))
    assert (found.accepted, found.duplicates, found.rejected) == (3, 1, 0)
    assert found.per_second == Decimal(3) / 60
    assert found.minutes[-1] == 3


def test_who_may_not_watch(client: FlaskClient, session: Session, enter: Enter) -> None:
    organization = make_organization(session)
    for path in ("/admin/events", "/admin/events/tail", "/admin/events/numbers", "/admin/events/rejected"):
        sign_in(client, session, make_member(session, organization), organization)
        assert client.get(path).status_code == 404
    enter(OperatorRole.USER_ADMIN)
    assert client.get("/admin/events").status_code == 403


def test_the_tail_takes_as_many_statements_for_many_rows(session: Session, enter: Enter, metric: Metric, statements: Count) -> None:
    _send(session, make_organization(session), metric, ["one"])
    enter()
    few = statements("/admin/events")
    for number in range(12):
        _send(session, make_organization(session), metric, [f"more-{number}"])
    session.flush()
    assert statements("/admin/events") == few


def test_a_batch_that_becomes_visible_late_is_not_missed() -> None:
    """Number 7 commits after 8 was shown: it is behind the cursor's base, so the next look finds it."""
    place = Place().moved({5, 6}).moved({8})
    assert place.base < 7 not in place.shown
    assert Place.parse(str(place)) == place
    many = place.moved(set(range(9, 100)))
    assert len(many.shown) <= 50
    assert many.base >= 8
