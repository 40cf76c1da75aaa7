"""Rejected events are replayed, and files of past usage sent, tried and applied on the finance site; large ones by a second person."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from uuid import UUID

import pytest
from flask.testing import FlaskClient
from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from admin import backfills
from core import clock, config
from core.audit import SYSTEM, AuditEvent
from core.identity.models import OperatorRole, Organization
from core.metering.corrections import progress
from core.metering.corrections.progress import Progress, Step
from core.metering.models import usage_pending
from core.metering.rejections.tables import usage_rejections
from core.subscriptions import lifecycle
from tests.admin.conftest import Enter
from tests.factories import make_organization, make_plan
from tests.metering.stored import Store

HX = {"HX-Request": "true"}
WHY = "The collector was down that night."


@pytest.fixture
def account(session: Session, enter: Enter) -> Organization:
    """Pays 0.50 a call since the first of the month."""
    metric = Store(session, event_name="calls").metric("sum")
    organization = make_organization(session, timezone="UTC", name="Quillmark GmbH", slug="quillmark")
    plan = make_plan(session, base_price="10.00", prices=[(metric, {"model": "per_unit", "unit_price": "0.50"})])
    lifecycle.start(session, organization.id, plan=plan.plan.code, at=clock.now().replace(day=1), actor=SYSTEM, trial_period_days=0)
    return organization


def test_chosen_rejections_are_replayed_and_say_what_became_of_them(
    client: FlaskClient, session: Session, enter: Enter, account: Organization
) -> None:
    for key, name in (("k1", "calls"), ("k2", "calls"), ("k3", "typo")):
        event = b'{"metric_name": "%s", "idempotency_key": "%s"}' % (name.encode(), key.encode())
        row = {"received_at": clock.now() - timedelta(hours=3), "organization_id": account.id, "position": 0, "pointer": "/metric_name"}
        row |= {"code": "unknown_metric", "detail": "No metric read it.", "event": event, "event_name": name, "idempotency_key": key}
        session.execute(insert(usage_rejections).values(**row))
    token = enter(OperatorRole.BILLING_OPS)
    address = "/admin/events/rejected/list"
    assert "There is no such account." in client.get(f"{address}?account=nobody").text
    shown = client.get(f"{address}?account=quillmark&event=calls").text
    ids = re.findall(r'name="id" value="(\d+)" aria-label="Replay (k\d)"', shown)
    assert [key for _, key in ids] == ["k2", "k1"]
    form = {"csrf_token": token, "account": "quillmark", "hours": "168", "state": "open"}
    assert "Tick the events" in client.post("/admin/events/rejected/replay", data={**form, "idempotency_key": "replay-none"}).text
    done = client.post("/admin/events/rejected/replay", data={**form, "idempotency_key": "replay-one", "which": "ticked", "id": ids[1][0]})
    assert "1 accepted" in client.get(done.location).text
    done = client.post("/admin/events/rejected/replay", data={**form, "idempotency_key": "replay-all", "which": "all"})
    after = client.get(done.location).text
    for words in ("1 accepted", "1 refused again", "Waiting", "No metric reads events named typo"):
        assert words in after
    assert session.scalars(select(usage_pending.c.events)).all() == [1, 1]
    assert len(session.scalars(select(AuditEvent).where(AuditEvent.kind == "usage.replayed")).all()) == 2
    enter(OperatorRole.SUPPORT)
    assert "Replay the ticked" not in client.get(address).text


def test_a_file_is_tried_then_applied_by_a_second_person_and_taken_back(
    client: FlaskClient, session: Session, enter: Enter, account: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, yesterday = enter(OperatorRole.FINANCE), (clock.now() - timedelta(days=1)).isoformat()

    def send(step: str, lines: str, name: str = "night.csv", **given: str) -> str:
        form = {"csrf_token": token, "idempotency_key": f"file-{step}", "account": "quillmark", "reason": WHY, **given}
        content = ("event_name,idempotency_key,timestamp,quantity\n" + lines).encode()
        answer = client.post("/admin/events/backfills", data={**form, "file": (BytesIO(content), name)})
        return answer.location if answer.status_code == 303 else answer.text

    assert "Its name ends in" in send("name", "", name="night.xlsx")
    assert "There is no such account" in send("nobody", "", account="nobody")
    faulty = client.get(send("faulty", f"calls,f1,{yesterday},-5\n")).text
    assert "Has faulty lines" in faulty
    assert "A file that has one is not applied" in faulty
    where = send("right", f"calls,f1,{yesterday},40\ncalls,f2,{yesterday},60\n")
    shown = client.get(where).text
    for words in ("Waits to be applied", "€50.00", "the invoice of the running period", "2 events"):
        assert words in shown
    monkeypatch.setattr(config, "_current", replace(config.current(), usage_backfill_alone_amount=49))
    assert "is applied by a person other than" in client.get(where).text
    alone = client.post(f"{where}/apply", data={"csrf_token": token, "idempotency_key": "apply-alone"})
    assert (alone.status_code, "is applied by a person other than" in alone.text) == (409, True)
    token = enter(OperatorRole.BILLING_OPS)
    assert "is applied by a person other than" not in client.get(where).text
    done = client.post(f"{where}/apply", data={"csrf_token": token, "idempotency_key": "apply-second"})
    assert done.status_code == 303
    after = client.get(where).text
    for words in ("Applied", "Take it back", "−€50.00"):
        assert words in after
    client.post(f"{where}/revert", data={"csrf_token": token, "idempotency_key": "revert-it", "reason": WHY})
    assert "Taken back" in client.get(where).text


def test_a_large_file_is_tried_behind_its_page(
    client: FlaskClient, session: Session, enter: Enter, account: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, yesterday = enter(OperatorRole.FINANCE), (clock.now() - timedelta(days=1)).isoformat()
    monkeypatch.setattr(backfills, "TRIED_AT_ONCE", 1)
    content = f"event_name,idempotency_key,timestamp,quantity\ncalls,f1,{yesterday},40\ncalls,f2,{yesterday},60\n".encode()
    form = {"csrf_token": token, "idempotency_key": "file-large", "account": "quillmark", "reason": WHY}
    where = client.post("/admin/events/backfills", data={**form, "file": (BytesIO(content), "large.csv")}).location
    shown = client.get(where).text
    assert f'hx-get="{where}?tried=1"' in shown
    assert ">Apply<" not in shown
    for found in (client.get(f"{where}?tried=1", headers=HX).text, client.get(f"{where}?tried=1").text):
        assert "€50.00" in found
        assert ">Apply<" in found
    mine = UUID(where.rpartition("/")[2])
    monkeypatch.setattr(progress, "running", lambda _: {mine: Progress(Step.COUNTING, 1, 2)})
    shown = client.get(where).text
    assert "1 of 2 events counted" in shown
    assert "hx-get" in shown
    assert "€50.00" not in shown  # nobody waits for what is being done
    assert "1 of 2 events counted" in client.get(f"{where}/work?was=1", headers=HX).text
    assert client.get(f"{where}/work", headers={}).status_code == 303
    monkeypatch.setattr(progress, "running", lambda _: {})
    assert client.get(f"{where}/work?was=1", headers=HX).headers["HX-Redirect"] == where
    assert "events counted" not in client.get(f"{where}/work", headers=HX).text
