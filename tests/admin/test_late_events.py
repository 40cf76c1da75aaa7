"""A late event says so wherever it is shown: on its page, in the tail, and to the customer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from flask.testing import FlaskClient
from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from core import clock
from core.identity.models import OperatorRole
from core.invoicing.models import Invoice
from core.metering import columns
from core.metering.instants import micros
from core.metering.models import usage_batch_results, usage_batches, usage_event_names, usage_events
from core.metering.texts import texts
from tests.admin.conftest import Count, Enter
from tests.factories import make_metric, make_plan
from tests.people import make_member, sign_in
from tests.scenarios.story import Story

PER_CALL = {"model": "per_unit", "unit_price": "0.01"}


def _billed(session: Session) -> Story:
    story, metric = Story(session, timezone="UTC"), make_metric(session, event_name="late-call")
    session.execute(insert(usage_event_names).values(name="late-call"))
    story.until(story.local(3, 1))
    story.subscribe(make_plan(session, prices=[(metric, PER_CALL)]))
    story.until(story.local(4, 20))
    assert story.organization.test_clock is not None
    story.organization.test_clock.frozen_time = story.now
    session.flush()
    return story


def _came(session: Session, story: Story, keys: Sequence[str]) -> None:
    """Events of March that come now: in the log, and counted."""
    number = session.scalars(select(usage_event_names.c.number).where(usage_event_names.c.name == "late-call")).one()
    n, at, owner = len(keys), story.local(3, 31, 12), story.organization
    packed = columns.pack(
        columns.Columns(
            organizations=np.full(n, owner.number, np.int32),
            events=np.full(n, number, np.int32),
            timestamps=np.full(n, micros(at), np.int64),
            defaulted=np.zeros(n, np.bool_),
            wholes=np.full(n, 7, np.int64),
            fractions=np.zeros(n, np.int64),
            positions=np.arange(n, dtype=np.int16),
            texts=texts([key.encode() for key in keys], [b"{}"] * n),
        )
    )
    row = {"received_at": clock.now(), "organization_id": owner.id, "accepted": n, "rejected": 0, "payload": packed}
    batch = session.execute(insert(usage_batches).values(**row).returning(usage_batches.c.id)).scalar_one()
    done = {"batch_id": batch, "counted_at": clock.now(), "counted": n, "duplicates": [], "conflicts": []}
    session.execute(insert(usage_batch_results).values(**done))
    what = {"timestamp": at, "received_at": clock.now(), "batch_id": batch, "organization_number": owner.number, "event_number": number}
    rows = [{**what, "position": place, "quantity": 7, "idempotency_key": key, "properties": b"{}"} for place, key in enumerate(keys)]
    session.execute(insert(usage_events), rows)


def test_a_late_event_says_what_becomes_of_it(client: FlaskClient, session: Session, enter: Enter) -> None:
    story = _billed(session)
    _came(session, story, ["tardy"])
    newest = select(Invoice.invoice_number).where(Invoice.organization_id == story.organization.id).order_by(Invoice.finalized_at.desc())
    number = session.scalars(newest.limit(1)).one()
    enter(OperatorRole.SUPPORT)
    shown = client.get(f"/admin/accounts/{story.organization.id}/event?key=tardy").text
    sign_in(client, session, make_member(session, story.organization), story.organization)
    for page in (shown, client.get("/portal/usage/events?day=2026-03-31").text):
        for words in ("Late", f">{number}</a> had billed its period", "a later invoice adjusts it"):
            assert words in page


def test_the_tail_says_it_too_and_takes_no_more_statements_for_more(
    session: Session, client: FlaskClient, enter: Enter, statements: Count
) -> None:
    story = _billed(session)
    _came(session, story, ["tardy"])
    enter()
    few = statements("/admin/events")
    _came(session, story, [f"tardy-{n}" for n in range(20)])
    assert statements("/admin/events") == few
    assert client.get("/admin/events").text.count("had billed its period") == 21
