"""An invoice run in the browser: start, exceptions first, decide, confirm, finalize with progress."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from core import clock
from core.identity.models import OperatorRole
from core.invoicing import run
from core.invoicing.models import InvoiceRun
from tests.conftest import Clock
from tests.factories import make_metric, make_organization, make_plan, make_subscription, use
from tests.people import SETUP, make_user, sign_in

NOVEMBER, DECEMBER = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, 0, 5, tzinfo=UTC)


@pytest.fixture
def finance(client: FlaskClient, session: Session, clock: Clock) -> tuple[FlaskClient, str]:
    """A finance admin's browser on 1 December, and the token of its forms; two customers are due."""
    metric = make_metric(session, "calls")
    version = make_plan(
        session, base_price="100.00", billing_mode="in_arrears", prices=[(metric, {"model": "per_unit", "unit_price": "0.01"})]
    )
    for name in ("Halden Robotics AG", "Papermoon Studio SL"):
        organization = make_organization(session, name=name)
        make_subscription(session, organization, version, start_at=NOVEMBER)
        use(session, organization, metric, NOVEMBER.replace(day=9), 1_000)
    clock.at(DECEMBER)
    token = sign_in(client, session, make_user(session, operator_role=OperatorRole.FINANCE), site="admin")
    return client, token


def _rated(session: Session) -> InvoiceRun:
    begun = run.start(session, as_of=clock.now(), actor=SETUP, at=clock.now())
    after = None
    while (after := run.rate_set(session, begun.id, after_id=after, at=clock.now(), actor=SETUP)) is not None:
        pass
    return begun


def test_a_run_is_started_once_per_form(finance: tuple[FlaskClient, str], session: Session) -> None:
    client, token = finance
    form = {"csrf_token": token, "idempotency_key": "start-of-the-run"}
    first, second = client.post("/admin/runs", data=form), client.post("/admin/runs", data=form)
    assert first.status_code == 303
    assert first.location == second.location
    assert len(run.runs(session)) == 1
    assert "0 of 2 subscriptions rated" in client.get(first.location).text


def test_exceptions_come_first_with_their_reason(finance: tuple[FlaskClient, str], session: Session) -> None:
    client, _ = finance
    shown = client.get(f"/admin/runs/{_rated(session).id}").text
    assert "Halden Robotics AG" in shown
    assert "First invoice" in shown
    assert "€110.00" in shown
    assert "Finalize 2 drafts" in shown


def test_a_reason_narrows_and_htmx_gets_the_part_alone(finance: tuple[FlaskClient, str], session: Session) -> None:
    client, _ = finance
    address = f"/admin/runs/{_rated(session).id}"
    assert "Halden" not in client.get(f"{address}?reason=zero_usage").text
    fragment = client.get(f"{address}?reason=first_invoice", headers={"HX-Request": "true"}).text
    assert fragment.lstrip().startswith('<section id="review"')
    assert "Halden" in fragment


def test_holding_needs_a_reason_and_keeps_the_draft_back(finance: tuple[FlaskClient, str], session: Session) -> None:
    client, token = finance
    begun = _rated(session)
    address, picked = f"/admin/runs/{begun.id}", _drafts(session, begun)[0]
    refused = client.post(f"{address}/decisions", data={"csrf_token": token, "do": "hold", "pick": str(picked), "why": "no"})
    assert refused.status_code == 422
    assert 'aria-invalid="true"' in refused.text
    assert f'value="{picked}" aria-label' in refused.text
    client.post(f"{address}/decisions", data={"csrf_token": token, "do": "hold", "pick": str(picked), "why": "Waiting for the PO number"})
    assert "Waiting for the PO number" in client.get(address).text
    assert "Finalize 1 draft" in client.get(address).text


def test_finalizing_is_confirmed_and_repeating_it_changes_nothing(finance: tuple[FlaskClient, str], session: Session) -> None:
    client, token = finance
    begun = _rated(session)
    address = f"/admin/runs/{begun.id}"
    confirm = client.get(f"{address}/finalization").text
    assert "INV-2026-0001 to INV-2026-0002" in confirm
    assert "€220.00" in confirm
    form = {"csrf_token": token, "idempotency_key": "finalize-the-run"}
    assert client.post(f"{address}/finalization", data=form).status_code == 303
    assert client.post(f"{address}/finalization", data=form).status_code == 303
    while run.finalize_set(session, begun.id, at=clock.now(), actor=SETUP):
        pass
    assert "Finished" in client.get(address).text
    assert [total.issued for total in run.totals(session, begun.id)] == [2]


def test_support_may_look_but_not_decide(client: FlaskClient, session: Session, clock: Clock) -> None:
    clock.at(DECEMBER)
    begun = _rated(session)
    token = sign_in(client, session, make_user(session, operator_role=OperatorRole.SUPPORT), site="admin")
    assert client.get(f"/admin/runs/{begun.id}").status_code == 200
    assert client.post(f"/admin/runs/{begun.id}/decisions", data={"csrf_token": token, "do": "approve_calm"}).status_code == 403
    assert client.get(f"/admin/runs/{begun.id}/finalization").status_code == 403


def _drafts(session: Session, begun: InvoiceRun) -> list[object]:
    from core.invoicing import review

    return [row.invoice_id for row in review.rows(session, begun.id)]
