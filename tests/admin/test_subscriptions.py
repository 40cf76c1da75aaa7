"""Subscriptions in the finance site: the list, one of them, and what may be done with it, each with its reason."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal

from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from core import audit
from core.audit import SYSTEM
from core.catalog import publish
from core.identity.models import OperatorRole
from core.invoicing import queries as invoicing
from core.subscriptions import lifecycle, plan_change, queries
from core.subscriptions.models import SubscriptionStatus
from tests.admin.conftest import NOW, Count, Enter
from tests.factories import make_organization, make_plan, make_subscription
from tests.invoicing.books import issued
from tests.portal.story import Story

REASON = "Asked for by Lena on the phone"


def test_the_list_narrows_by_status(client: FlaskClient, enter: Enter, quillmark: Story) -> None:
    enter()
    assert "Quillmark GmbH" in client.get("/admin/subscriptions?status=active").text
    assert "Quillmark GmbH" not in client.get("/admin/subscriptions?status=paused").text


def test_one_shows_its_terms_and_invoices(client: FlaskClient, enter: Enter, quillmark: Story) -> None:
    enter(OperatorRole.SUPPORT)
    shown = client.get(f"/admin/subscriptions/{quillmark.subscription.id}").text
    assert "Build, version 1" in shown
    assert "INV-2026-0003" in shown
    assert "Cancel the subscription" not in shown


def test_cancelling_needs_a_reason_and_can_be_taken_back(client: FlaskClient, session: Session, enter: Enter, quillmark: Story) -> None:
    token = enter(OperatorRole.BILLING_OPS)
    address = f"/admin/subscriptions/{quillmark.subscription.id}"
    refused = client.post(f"{address}/cancellation", data={"csrf_token": token, "idempotency_key": "cancel-it-0", "reason": "no"})
    assert refused.status_code == 422
    assert "at least" in refused.text.lower()
    form = {"csrf_token": token, "idempotency_key": "cancel-it-1", "reason": REASON, "when": "period_end"}
    assert client.post(f"{address}/cancellation", data=form).status_code == 303
    assert "Ends on" in client.get(address).text
    [fact] = audit.search(session, audit.Search(text="subscription.cancel"))
    assert fact.reason == REASON
    take_back(client, session, address, token, "undo_cancel", "subscription.cancellation_undone")
    assert "Ends on" not in client.get(address).text


def test_what_is_planned_is_taken_back_with_a_reason(client: FlaskClient, session: Session, enter: Enter, quillmark: Story) -> None:
    token, row, address = enter(), quillmark.subscription, f"/admin/subscriptions/{quillmark.subscription.id}"
    ends = plan_change.effective_at(row, "period_end", at=NOW)
    plan_change.apply(session, row, to=make_plan(session, base_price="9"), at=NOW, effective_at=ends, actor=SYSTEM)
    take_back(client, session, address, token, "undo_change", "subscription.plan_change_undone")
    lifecycle.pause(session, row, at=NOW, actor=SYSTEM, until=ends)
    take_back(client, session, address, token, "undo_resume", "subscription.resumption_undone")
    again = client.get(f"{address}/acts/undo_resume").text
    assert "Nothing is planned" in again
    assert client.get(f"{address}/acts/undo_all").status_code == 404


def take_back(client: FlaskClient, session: Session, address: str, token: str, act: str, fact: str) -> None:
    """By the page of the act, which asks for a reason."""
    assert f"{address}/acts/{act}" in client.get(address).text
    form = {"csrf_token": token, "idempotency_key": f"{act}-1", "reason": REASON}
    assert client.post(f"{address}/acts/{act}", data={**form, "idempotency_key": f"{act}-0", "reason": "so"}).status_code == 422
    assert client.post(f"{address}/acts/{act}", data=form).status_code == 303
    assert [found.reason for found in audit.search(session, audit.Search(text=fact))] == [REASON]


def test_each_act_is_shown_with_what_it_costs_and_done_with_a_reason(
    client: FlaskClient, session: Session, enter: Enter, quillmark: Story
) -> None:
    token = enter()
    address = f"/admin/subscriptions/{quillmark.subscription.id}"
    steps = [("pause", "paused"), ("resume", "active"), ("suspend", "suspended"), ("reinstate", "active")]
    for act, becomes in steps:
        shown = client.get(f"{address}/acts/{act}")
        assert shown.status_code == 200
        assert ("What it changes" in shown.text) == (act == "pause")  # usage and fee up to now; nothing more by the others
        refused = client.post(f"{address}/acts/{act}", data={"csrf_token": token, "idempotency_key": f"{act}-no-why", "reason": "so"})
        assert (refused.status_code, "at least" in refused.text.lower()) == (422, True)
        form = {"csrf_token": token, "idempotency_key": f"{act}-it-1", "reason": REASON}
        assert [client.post(f"{address}/acts/{act}", data=form).status_code for _ in range(2)] == [303, 303]
        assert queries.subscription(session, quillmark.organization.id, quillmark.subscription.id).status == becomes
    assert {fact.reason for fact in audit.search(session, audit.Search(text="subscription.suspended"))} == {REASON}
    again = client.post(f"{address}/acts/reinstate", data={"csrf_token": token, "idempotency_key": "again-it-1", "reason": REASON})
    assert again.status_code == 409
    assert "Possible now: change_plan, pause, suspend, cancel" in again.text
    client.post(f"{address}/cancellation", data={"csrf_token": token, "idempotency_key": "end-it-1", "reason": REASON, "when": "now"})
    assert "Due now" in client.get(f"{address}/acts/reactivate").text
    client.post(f"{address}/acts/reactivate", data={"csrf_token": token, "idempotency_key": "back-it-1", "reason": REASON})
    assert queries.subscription(session, quillmark.organization.id, quillmark.subscription.id).status == SubscriptionStatus.ACTIVE
    assert client.get(f"{address}/acts/change_plan").status_code == 404


def test_a_plan_is_changed_by_the_customers_own_quote(client: FlaskClient, session: Session, enter: Enter, quillmark: Story) -> None:
    token = enter()
    address = f"/admin/subscriptions/{quillmark.subscription.id}/change"
    quoted = client.post(address, data={"csrf_token": token, "plan": "scale", "when": "now", "quantity": "1"})
    assert quoted.status_code == 303
    assert "Due now" in client.get(quoted.location).text
    refused = client.post(quoted.location, data={"csrf_token": token, "idempotency_key": "confirm-0", "reason": "x"})
    assert refused.status_code == 422
    form = {"csrf_token": token, "idempotency_key": "confirm-1", "reason": REASON}
    assert client.post(quoted.location, data=form).status_code == 303
    assert client.post(quoted.location, data=form).status_code == 303
    found = queries.subscription(session, quillmark.organization.id, quillmark.subscription.id)
    assert found.plan.code == "scale"
    changes = [row for row in invoicing.invoices(session, quillmark.organization.id) if row.reason == "change"]
    assert len(changes) == 1
    assert REASON in {row.reason for row in audit.search(session, audit.Search(text="plan_change."))}


def test_seats_changed_for_a_day_that_has_passed_are_shown_with_what_they_cost(client: FlaskClient, session: Session, enter: Enter) -> None:
    token, customer = enter(), make_organization(session, tax_rate_percent=Decimal(19))
    seats = {"licensed": "seats", "model": "per_unit", "unit_price": "12.00", "quantity_max": "9"}
    publish.create_version(
        session, code="crew", name="Crew", currency="EUR", billing_period="month", base_price="0", proration="days",
        prices=[seats], actor=audit.SYSTEM, at=NOW,
    )  # fmt: skip
    began = datetime(2026, 11, 1, tzinfo=UTC)
    made = lifecycle.start(session, customer.id, plan="crew", at=began, actor=audit.SYSTEM, quantities={"seats": 5})
    assert issued(session, made, began).total_minor == 7140
    address = f"/admin/subscriptions/{made.id}/change"
    form = {"csrf_token": token, "plan": "crew", "when": "date", "date": "2026-11-16", "quantity": "1", "quantities_seats": "10"}
    assert 'href="#f-quantities_seats"' in client.post(address, data=form).text
    quoted = client.post(address, data={**form, "quantities_seats": "8"})
    page = client.get(quoted.location).text
    assert "It holds from" in page
    assert re.findall(r'mid pay"><data value="([\d.]+)"', page) == ["21.42"]  # three seats for half of November, with tax
    confirm = {"csrf_token": token, "idempotency_key": "seats-back", "reason": REASON}
    assert client.post(quoted.location, data=confirm).status_code == 303
    [change] = [row for row in invoicing.invoices(session, customer.id) if row.reason == "change"]
    assert change.total_minor == 2142


def test_a_quote_of_another_subscription_is_not_found(client: FlaskClient, session: Session, enter: Enter, quillmark: Story) -> None:
    other = make_subscription(session, make_organization(session), make_plan(session))
    token = enter()
    quoted = client.post(
        f"/admin/subscriptions/{quillmark.subscription.id}/change", data={"csrf_token": token, "plan": "scale", "when": "period_end"}
    )
    assert client.get(quoted.location.replace(str(quillmark.subscription.id), str(other.id))).status_code == 404


def test_support_changes_nothing(client: FlaskClient, enter: Enter, quillmark: Story) -> None:
    token = enter(OperatorRole.SUPPORT)
    address = f"/admin/subscriptions/{quillmark.subscription.id}"
    for what in ("cancellation", "acts/undo_cancel", "acts/pause", "acts/suspend", "acts/undo_change", "change", "items"):
        assert client.post(f"{address}/{what}", data={"csrf_token": token, "idempotency_key": "never-happens"}).status_code == 403


def test_the_list_takes_as_many_statements_for_many_rows(session: Session, enter: Enter, statements: Count) -> None:
    version = make_plan(session, base_price=str(Decimal("10.00")))
    make_subscription(session, make_organization(session), version)
    enter()
    few = statements("/admin/subscriptions")
    for _ in range(12):
        make_subscription(session, make_organization(session), version)
    assert statements("/admin/subscriptions") == few


def test_an_agreement_is_previewed_and_then_started_as_it_was_shown(
    client: FlaskClient, session: Session, enter: Enter, quillmark: Story
) -> None:
    token, customer = enter(), make_organization(session, timezone="Europe/Berlin", tax_rate_percent=Decimal(19))
    seats = {"licensed": "seats", "name": "Seats", "model": "per_unit", "unit_price": "12.00", "quantity_min": "2"}
    values = {"currency": "EUR", "billing_period": "month", "actor": audit.SYSTEM, "at": NOW}
    publish.create_version(session, code="team", name="Team", base_price="50.00", prices=[seats], **values)
    publish.create_version(session, code="care", name="Care", base_price="30.00", kind="add_on", **values)
    address = f"/admin/accounts/{customer.id}/subscriptions"
    form = {
        "csrf_token": token, "idempotency_key": "agreed-one", "plan": "team", "start": "2026-11-01", "anchor": "calendar",
        "quantities_seats": "5", "base_price": "40.00", "prices_0_code": "team/seats", "prices_0_amount": "10.00",
        "phases_0_start_at": "2027-01-01", "phases_0_quantities": "seats 20", "items_0_plan": "care", "items_0_quantity": "2",
        "contract_interval": "year", "contract_count": "1", "contract_renews": "yes", "notice_days": "30",
    }  # fmt: skip
    for field, wrong, named in (
        ("prices_0_amount", "ten", "prices_0_amount"),
        ("prices_0_code", "solo/base", "prices_0_code"),
        ("phases_0_quantities", "seats 1", "phases_0_quantities"),
        ("phases_0_start_at", "", "phases_0_start_at"),
        ("start", "2026-01-01", "start"),
        ("items_0_quantity", "0", "items_0_quantity"),
    ):
        refused = client.post(address, data={**form, field: wrong, "act": "preview"})
        assert (refused.status_code, f'href="#f-{named}"' in refused.text) == (422, True), field
    shown = client.post(address, data={**form, "act": "preview"})
    assert shown.status_code == 200
    figures = re.findall(r'class="nowrap"><time[^>]*>([^<,]*).*?strong"><data value="([\d.]+)"', shown.text, re.S)
    assert list(queries.subscriptions(session, customer.id)) == []
    started = client.post(address, data=form)
    assert started.status_code == 303
    [made] = queries.subscriptions(session, customer.id)
    assert (made.contract_count, [term.quantities["seats"] for term in made.terms]) == (1, ["5", "20"])
    assert [str(item.quantity) for item in made.items] == ["2"]
    page = client.get(started.location).text
    assert "A cancellation now holds on" in page
    assert re.search(r"Seats</th><td class=\"num strong\">\s*€10\.00", page)
    months = (NOW, datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
    billed = [issued(session, queries.subscription(session, customer.id, made.id), month) for month in months]
    assert [total for _, total in figures][:3] == [f"{invoice.total_minor / 100:.2f}" for invoice in billed]
