"""A customer who is moved to another version of the same prices within a month pays what the others do, whatever is measured."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy.orm import Session

from core.audit import SYSTEM
from core.invoicing import draft, usage_cost
from core.invoicing.models import Invoice, InvoiceLine
from core.subscriptions.models import Subscription
from tests.factories import START, add_term, make_organization, make_plan, make_subscription
from tests.invoicing.books import amounts, issued
from tests.metering.stored import Store

CHANGE, JULY = datetime(2026, 6, 16, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC)
PER_UNIT = {"model": "per_unit", "unit_price": "1.00"}
MEASURED: dict[str, tuple[dict[str, Any], int]] = {
    "count": ({}, 4),
    "sum": ({"property": "size"}, 40),
    "max": ({"property": "size"}, 10),
    "min": ({"property": "size"}, 10),
    "avg": ({"property": "size"}, 10),
    "latest": ({"property": "size"}, 10),
    "percentile": ({"property": "size", "percentile": Decimal(95)}, 10),
    "unique_count": ({"property": "user"}, 3),
    "weighted_sum": ({"property": "change"}, 8),
}
EVENTS = [(3, "ada", 10), (9, "bob", 0), (18, "bob", 0), (24, "cem", 0)]
"""(day of June, who, what is changed); "seats" stand at 10 since May."""


def moved(session: Session, first: Subscription, version: Any) -> None:
    first.terms[0].end_at = CHANGE
    session.flush()
    add_term(session, first, version, start_at=CHANGE, anchor_day=START.date())
    session.expire_all()


@pytest.fixture
def bills(session: Session) -> list[list[Invoice]]:
    """The invoices of June of a customer who stayed, and of one who was moved in the middle of it."""
    store = Store(session)
    metrics = [store.metric(name, **given) for name, (given, _) in MEASURED.items()]
    metrics.append(store.metric("sum", property="seats", recurring=True))
    found = []
    for is_moved in (False, True):
        organization = make_organization(session)
        events = [
            (START.replace(day=day), {"user": user, "size": "10", "change": str(change), "seats": "0"}) for day, user, change in EVENTS
        ]
        store.count(organization, [(datetime(2026, 5, 20, tzinfo=UTC), {"seats": "10"}), *events])
        one, other = (make_plan(session, base_price="0", prices=[(metric, PER_UNIT) for metric in metrics]) for _ in range(2))
        subscription = make_subscription(session, organization, one)
        draft.bill(session, subscription.id, as_of=START, actor=SYSTEM)
        if is_moved:
            moved(session, subscription, other)
        found.append([issued(session, subscription, at) for at in ([CHANGE, JULY] if is_moved else [JULY])])
    return found


def test_each_aggregation_costs_the_same(session: Session, bills: list[list[Invoice]]) -> None:
    [stayed], parts = bills
    whole = amounts(session, stayed)
    added: dict[str, int] = {}
    for invoice in parts:
        for code, minor in amounts(session, invoice).items():
            added[code] = added.get(code, 0) + minor
    # 10 from the third of the month on, that is 28 of 30 days
    expected = {name: amount * 100 for name, (_, amount) in MEASURED.items()} | {"weighted_sum": 933, "base": 0}
    expected["sum"] += 1000  # the seats
    assert whole == expected
    assert added == expected | {"weighted_sum": added["weighted_sum"]}
    assert abs(added["weighted_sum"] - 933) <= 1  # each line is rounded


def test_the_days_behind_each_line_add_up_to_it(session: Session, bills: list[list[Invoice]]) -> None:
    for invoice in bills[1]:
        for line in session.query(InvoiceLine).filter(InvoiceLine.invoice_id == invoice.id, InvoiceLine.metric_id.is_not(None)):
            days = usage_cost.line_days(session, line, timezone="UTC", currency="EUR")
            assert days is not None
            assert days.minor == line.amount_minor, line.code
