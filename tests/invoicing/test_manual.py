"""Invoices and lines written by hand."""

from decimal import Decimal

import pytest
from sqlalchemy.orm import Session

from core.audit import SYSTEM
from core.errors import Conflict, Invalid, NotFound
from core.invoicing import draft, finalize, manual, queries
from tests.factories import START, make_organization, make_plan, make_subscription
from tests.invoicing.books import amounts


def test_a_manual_invoice_multiplies_rounds_and_is_finalized(session: Session) -> None:
    organization = make_organization(session, tax_rate_percent=Decimal(19))
    lines = [
        {"description": "Workshop", "quantity": "1.5", "unit_price": "99.99", "unit": "day"},
        {"description": "Discount", "unit_price": "-10"},
    ]
    made = manual.create(session, organization.id, lines=lines, at=START, actor=SYSTEM, po_number="PO-7")
    assert (made.subtotal_minor, made.tax_minor, made.total_minor) == (14999 - 1000, 2660, 16659)
    invoice = finalize.finalize_invoice(session, made.id, at=START, actor=SYSTEM)
    assert (invoice.status, invoice.po_number, invoice.reason) == ("open", "PO-7", "manual")


@pytest.mark.parametrize(
    ("line", "pointer"),
    [
        ({"unit_price": "1"}, "/lines/0/description"),
        ({"description": "x"}, "/lines/0/unit_price"),
        ({"description": "x", "unit_price": "1e5"}, "/lines/0/unit_price"),
        ({"description": "x", "unit_price": "NaN"}, "/lines/0/unit_price"),
        ({"description": "x", "unit_price": "1", "quantity": "-1"}, "/lines/0/quantity"),
        ({"description": "x" * 256, "unit_price": "1"}, "/lines/0/description"),
        ({"description": 5, "unit_price": "1"}, "/lines/0/description"),
    ],
)
def test_each_fault_is_pointed_at_and_nothing_is_written(session: Session, line: dict[str, object], pointer: str) -> None:
    organization = make_organization(session)
    with pytest.raises(Invalid) as caught:
        manual.create(session, organization.id, lines=[line], at=START, actor=SYSTEM)
    assert [error.pointer for error in caught.value.errors] == [pointer]
    assert queries.invoices(session, organization.id) == []


def test_a_line_by_hand_survives_rating_again_and_can_be_taken_back(session: Session) -> None:
    organization = make_organization(session)
    subscription = make_subscription(session, organization, make_plan(session))
    made = draft.bill(session, subscription.id, as_of=START, actor=SYSTEM)
    assert made is not None
    manual.add_line(session, organization.id, made.id, {"description": "Set-up", "unit_price": "50"}, at=START, actor=SYSTEM)
    again = draft.refresh(session, made.id, as_of=START, actor=SYSTEM)
    assert again is not None
    assert (amounts(session, again), again.total_minor) == ({"base": 10000, "manual": 5000}, 15000)
    line = next(row for row in queries.invoice(session, organization.id, made.id).lines if row.kind == "manual")
    assert manual.remove_line(session, organization.id, made.id, line.id, at=START, actor=SYSTEM).total_minor == 10000


def test_another_organization_cannot_touch_it(session: Session) -> None:
    organization, stranger = make_organization(session), make_organization(session)
    made = manual.create(session, organization.id, lines=[{"description": "x", "unit_price": "1"}], at=START, actor=SYSTEM)
    with pytest.raises(NotFound):
        manual.add_line(session, stranger.id, made.id, {"description": "x", "unit_price": "1"}, at=START, actor=SYSTEM)
    with pytest.raises(NotFound):
        queries.invoice(session, stranger.id, made.id)
    finalize.finalize_invoice(session, made.id, at=START, actor=SYSTEM)
    with pytest.raises(Conflict):
        manual.add_line(session, organization.id, made.id, {"description": "x", "unit_price": "1"}, at=START, actor=SYSTEM)
