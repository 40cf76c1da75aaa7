"""What goes on a draft: what is owed less what was billed, for one subscription or for many at once."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from core.audit import SYSTEM
from core.catalog.models import PricingRule
from core.errors import NotFound
from core.invoicing import draft
from core.invoicing.models import Invoice, InvoiceLine, InvoiceReason, InvoiceTax, RunError
from core.subscriptions.models import Subscription
from tests.factories import START, add_term, make_metric, make_organization, make_plan, make_subscription, use
from tests.invoicing.books import Statements, amounts

JULY = datetime(2026, 7, 1, tzinfo=UTC)
PER_CALL = {"model": "per_unit", "unit_price": "0.01"}


def issue(session: Session, invoice: Invoice) -> None:
    """Pretend the draft was issued, so that its lines count as billed."""
    number = f"T-{invoice.id}"[:50]
    session.execute(update(Invoice).where(Invoice.id == invoice.id).values(status="open", finalized_at=START, invoice_number=number))
    session.expire_all()


def test_a_new_subscription_gets_its_base_price_in_advance(session: Session) -> None:
    subscription = make_subscription(session, make_organization(session, tax_rate_percent=Decimal(19)), make_plan(session))
    [invoice_id] = draft.bill_many(session, [subscription.id], as_of=START, actor=SYSTEM)
    invoice = session.get_one(Invoice, invoice_id)
    assert amounts(session, invoice) == {"base": 10000}
    assert (invoice.reason, invoice.status) == (InvoiceReason.START, "draft")
    assert (invoice.subtotal_minor, invoice.tax_minor, invoice.total_minor, invoice.amount_due_minor) == (10000, 1900, 11900, 11900)
    assert (invoice.billing_period_start, invoice.billing_period_end) == (START, JULY)
    assert invoice.auto_finalize_at == START
    assert session.scalars(select(InvoiceTax.tax_minor).where(InvoiceTax.invoice_id == invoice_id)).one() == 1900
    session.refresh(subscription)
    assert (subscription.billed_through, subscription.next_bill_at) == (START, JULY)
    assert (subscription.current_period_start, subscription.current_period_end) == (START, JULY)


def test_billing_again_changes_nothing(session: Session) -> None:
    subscription = make_subscription(session, make_organization(session), make_plan(session))
    invoice = draft.bill(session, subscription.id, as_of=START, actor=SYSTEM)
    again = draft.bill(session, subscription.id, as_of=START, actor=SYSTEM)
    assert invoice is not None
    assert again is not None
    assert again.id == invoice.id
    assert amounts(session, invoice) == {"base": 10000}
    assert draft.bill_many(session, [subscription.id], as_of=START, actor=SYSTEM) == []
    issue(session, invoice)
    assert draft.bill(session, subscription.id, as_of=START, actor=SYSTEM) is None


def test_usage_of_the_month_is_billed_when_it_has_ended_and_late_usage_with_the_next(session: Session) -> None:
    organization, metric = make_organization(session), make_metric(session)
    subscription = make_subscription(session, organization, make_plan(session, prices=[(metric, PER_CALL)]))
    first = draft.bill(session, subscription.id, as_of=START, actor=SYSTEM)
    assert first is not None
    issue(session, first)
    use(session, organization, metric, START + timedelta(days=3), 1000)
    second = draft.bill(session, subscription.id, as_of=JULY, actor=SYSTEM)
    assert second is not None
    assert amounts(session, second) == {"base": 10000, "calls": 1000}
    assert second.reason == InvoiceReason.PERIOD
    assert second.auto_finalize_at == JULY + timedelta(hours=1)
    issue(session, second)
    use(session, organization, metric, START + timedelta(days=20), 50)
    third = draft.bill(session, subscription.id, as_of=JULY + timedelta(days=31), actor=SYSTEM)
    assert third is not None
    rows = session.scalars(select(InvoiceLine).where(InvoiceLine.invoice_id == third.id).order_by(InvoiceLine.position)).all()
    assert [(row.code.split("-")[0], row.kind, row.amount_minor, row.quantity) for row in rows] == [
        ("base", "charge", 10000, 1),
        ("calls", "adjustment", 50, 50),
        ("calls", "charge", 0, 0),
    ]
    assert rows[1].cycle_start == START
    assert (rows[1].detail["owed"], rows[1].detail["billed_before"], rows[1].detail["amount"]) == ("10.50", "10.00", "0.50")


def test_a_metric_that_ignores_late_usage_leaves_a_billed_cycle_as_it_is(session: Session) -> None:
    organization, metric = make_organization(session), make_metric(session)
    metric.late_policy = "ignore"
    subscription = make_subscription(session, organization, make_plan(session, prices=[(metric, PER_CALL)]))
    use(session, organization, metric, START + timedelta(days=3), 1000)
    second = draft.bill(session, subscription.id, as_of=JULY, actor=SYSTEM)
    assert second is not None
    assert amounts(session, second)["calls"] == 1000
    issue(session, second)
    use(session, organization, metric, START + timedelta(days=20), 50)
    use(session, organization, metric, JULY + timedelta(days=2), 70)
    third = draft.bill(session, subscription.id, as_of=JULY + timedelta(days=31), actor=SYSTEM)
    assert third is not None
    assert amounts(session, third) == {"base": 10000, "calls": 70}


def test_late_usage_of_a_quarter_does_not_wait_for_the_next_one(session: Session) -> None:
    organization, metric = make_organization(session), make_metric(session)
    plan = make_plan(session, base_price="0", billing_period="quarter", prices=[(metric, PER_CALL)])
    subscription = make_subscription(session, organization, plan)
    autumn, looks = datetime(2026, 9, 1, tzinfo=UTC), []

    def bill_next() -> dict[str, int]:
        session.refresh(subscription)
        assert subscription.next_bill_at is not None
        looks.append(subscription.next_bill_at)
        made = draft.bill_many(session, [subscription.id], as_of=subscription.next_bill_at, actor=SYSTEM)
        for invoice_id in made:
            issue(session, session.get_one(Invoice, invoice_id))
        return amounts(session, session.get_one(Invoice, made[0])) if made else {}

    bill_next()
    use(session, organization, metric, START, 1000)
    assert bill_next()["calls"] == 1000
    use(session, organization, metric, START + timedelta(days=90), 50)
    assert bill_next() == {"calls": 50}
    assert bill_next() == {}
    assert bill_next()["base"] == 0
    waits = [timedelta(), timedelta(days=35), timedelta(days=45)]
    assert looks == [START, *(autumn + wait for wait in waits), datetime(2026, 12, 1, tzinfo=UTC)]


def test_a_refreshed_draft_counts_what_arrived_meanwhile(session: Session) -> None:
    organization, metric = make_organization(session), make_metric(session)
    plan = make_plan(session, base_price="0", billing_mode="in_arrears", prices=[(metric, PER_CALL)])
    subscription = make_subscription(session, organization, plan)
    use(session, organization, metric, START + timedelta(days=1), 100)
    [invoice_id] = draft.bill_many(session, [subscription.id], as_of=JULY, actor=SYSTEM)
    use(session, organization, metric, START + timedelta(days=2), 11)
    use(session, organization, metric, JULY + timedelta(minutes=5), 7)
    invoice = draft.refresh(session, invoice_id, as_of=JULY + timedelta(minutes=30), actor=SYSTEM)
    assert invoice is not None
    assert amounts(session, invoice) == {"base": 0, "calls": 111}
    assert invoice.total_minor == 111
    assert invoice.auto_finalize_at == JULY + timedelta(hours=1)


def test_an_upgrade_inside_the_month_credits_the_rest_of_the_old_plan(session: Session) -> None:
    organization = make_organization(session)
    subscription = make_subscription(session, organization, make_plan(session, base_price="100.00"))
    first = draft.bill(session, subscription.id, as_of=START, actor=SYSTEM)
    assert first is not None
    issue(session, first)
    change = datetime(2026, 6, 16, tzinfo=UTC)
    [term] = subscription.terms
    term.end_at = change
    session.flush()
    add_term(session, subscription, make_plan(session, base_price="200.00"), start_at=change, anchor_day=START.date())
    session.expire_all()
    changed = draft.bill(session, subscription.id, as_of=change, actor=SYSTEM)
    assert changed is not None
    kinds = session.execute(
        select(InvoiceLine.kind, InvoiceLine.amount_minor).where(InvoiceLine.invoice_id == changed.id).order_by(InvoiceLine.position)
    )
    assert [tuple(row) for row in kinds] == [("credit", -5000), ("charge", 10000)]
    assert changed.reason == InvoiceReason.CHANGE
    session.refresh(subscription)
    assert subscription.plan_id == subscription.terms[-1].plan_version.plan_id


def test_missed_months_are_billed_one_by_one(session: Session) -> None:
    subscription = make_subscription(session, make_organization(session), make_plan(session))
    late = START + timedelta(days=75)
    seen = []
    for _ in range(5):
        for invoice_id in draft.bill_many(session, [subscription.id], as_of=late, actor=SYSTEM):
            invoice = session.get_one(Invoice, invoice_id)
            seen.append((invoice.billing_period_start, amounts(session, invoice)))
            issue(session, invoice)
    assert seen == [(START, {"base": 10000}), (JULY, {"base": 10000}), (datetime(2026, 8, 1, tzinfo=UTC), {"base": 10000})]


def test_one_corrupt_subscription_does_not_stop_the_others(session: Session) -> None:
    good = [make_subscription(session, make_organization(session), make_plan(session)) for _ in range(6)]
    bad = make_subscription(session, make_organization(session), make_plan(session))
    rule_id = bad.terms[0].plan_version.rules[0].id
    session.execute(update(PricingRule).where(PricingRule.id == rule_id).values(rules={"model": "flat", "flat_price": "cheap"}))
    session.expire_all()
    ids = [subscription.id for subscription in [*good[:3], bad, *good[3:]]]
    assert len(draft.bill_many(session, ids, as_of=START, actor=SYSTEM)) == 6
    failures = session.scalars(select(RunError).where(RunError.subscription_id == bad.id)).all()
    assert len(failures) == 1
    assert "flat_price" in failures[0].detail
    assert draft.bill_many(session, ids, as_of=START, actor=SYSTEM) == []
    assert session.scalar(select(func.count()).select_from(RunError).where(RunError.subscription_id == bad.id)) == 1
    session.execute(update(PricingRule).where(PricingRule.id == rule_id).values(rules={"model": "flat", "flat_price": "5"}))
    session.expire_all()
    assert len(draft.bill_many(session, ids, as_of=START, actor=SYSTEM)) == 1
    session.expire_all()
    assert failures[0].resolved_at == START


def test_a_part_of_a_long_cycle_is_not_given_back_when_it_grows_old(session: Session) -> None:
    organization = make_organization(session)
    seats = make_plan(session, base_price="1200.00", billing_period="year")
    subscription = make_subscription(session, organization, seats)
    first = draft.bill(session, subscription.id, as_of=START, actor=SYSTEM)
    assert first is not None
    issue(session, first)
    change = datetime(2026, 7, 1, tzinfo=UTC)
    subscription.terms[0].end_at = change
    session.flush()
    add_term(session, subscription, seats, start_at=change, anchor_day=START.date(), quantity=2)
    session.expire_all()
    for days in (31, 75, 200):
        assert draft.bill(session, subscription.id, as_of=START + timedelta(days=days), actor=SYSTEM) is None


def test_a_set_needs_no_more_statements_than_one(session: Session) -> None:
    metric = make_metric(session)
    plan = make_plan(session, prices=[(metric, PER_CALL)])
    counted: list[int] = []
    for size in (1, 2, 12):  # the first call also seeds the tax rates
        ids = [make_subscription(session, make_organization(session), plan).id for _ in range(size)]
        session.flush()
        with Statements(session) as statements:
            draft.bill_many(session, ids, as_of=START, actor=SYSTEM)
        counted.append(statements.count)
    assert counted[1] == counted[2]


def test_an_unknown_subscription_is_not_found(session: Session) -> None:
    with pytest.raises(NotFound):
        draft.bill(session, make_organization(session).id, as_of=START, actor=SYSTEM)


def test_every_line_belongs_to_a_subscription_of_its_organization(session: Session) -> None:
    subscription = make_subscription(session, make_organization(session), make_plan(session))
    draft.bill(session, subscription.id, as_of=START, actor=SYSTEM)
    strays = select(func.count()).select_from(InvoiceLine).join(Subscription, Subscription.id == InvoiceLine.subscription_id)
    assert session.scalar(strays.where(Subscription.organization_id != InvoiceLine.organization_id)) == 0
