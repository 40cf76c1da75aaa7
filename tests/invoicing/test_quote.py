"""A quote locks what a plan change costs; spend so far and what-if ask the same rating."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy.orm import Session

from core.audit import SYSTEM
from core.errors import Conflict, Invalid, NotFound
from core.identity.models import Organization
from core.invoicing import draft, preview, quote, whatif
from core.invoicing.models import Invoice
from core.subscriptions.models import PlanChangeQuote, Subscription
from tests.factories import START, make_metric, make_organization, make_plan, make_subscription, use
from tests.invoicing.books import amounts, issued

MIDDLE = datetime(2026, 6, 16, tzinfo=UTC)
JULY = datetime(2026, 7, 1, tzinfo=UTC)
PER_CALL = {"model": "per_unit", "unit_price": "0.01"}


def change(
    session: Session, subscription: Subscription, base_price: str = "200.00", when: str = "now", at: datetime = MIDDLE
) -> PlanChangeQuote:
    version = make_plan(session, base_price=base_price)
    session.expire_all()
    return quote.create(session, subscription.organization_id, subscription.id, to=version, when=when, at=at, actor=SYSTEM)


def subscriber(session: Session, base_price: str = "100.00") -> Subscription:
    subscription = make_subscription(
        session, make_organization(session, tax_rate_percent=Decimal(19)), make_plan(session, base_price=base_price)
    )
    issued(session, subscription, START)
    return subscription


def test_confirming_charges_exactly_what_was_quoted(session: Session) -> None:
    subscription = subscriber(session)
    made = change(session, subscription)
    assert (made.subtotal_minor, made.tax_minor, made.total_minor) == (5000, 950, 5950)
    assert made.expires_at == MIDDLE + timedelta(minutes=15)
    later = MIDDLE + timedelta(minutes=10)
    invoice = quote.confirm(session, subscription.organization_id, made.id, at=later, actor=SYSTEM)
    assert invoice is not None
    assert (invoice.total_minor, invoice.status, invoice.reason) == (5950, "open", "change")
    assert quote.confirm(session, subscription.organization_id, made.id, at=later, actor=SYSTEM) is invoice
    shown = quote.statement(made, session.get_one(Organization, made.organization_id))
    assert (shown.total.label, shown.total.amount_minor) == ("Due now", 5950)
    assert [row.amount_minor for group in shown.groups for row in group.rows] == [-5000, 10000]


def test_an_expired_quote_is_refused_and_nothing_changes(session: Session) -> None:
    subscription = subscriber(session)
    made = change(session, subscription)
    with pytest.raises(quote.QuoteChanged) as caught:
        quote.confirm(session, subscription.organization_id, made.id, at=MIDDLE + timedelta(minutes=16), actor=SYSTEM)
    assert caught.value.code == "quote_expired"
    assert len(subscription.terms) == 1


def test_a_changed_amount_is_refused_and_told(session: Session) -> None:
    organization, metric = make_organization(session), make_metric(session)
    old, new = make_plan(session, prices=[(metric, PER_CALL)]), make_plan(session, base_price="200.00")
    subscription = make_subscription(session, organization, old)
    issued(session, subscription, START)
    made = quote.create(session, organization.id, subscription.id, to=new, when="now", at=MIDDLE, actor=SYSTEM)
    assert made.total_minor == 5000
    use(session, organization, metric, START + timedelta(days=2), 24)
    with pytest.raises(quote.QuoteChanged) as caught:
        quote.confirm(session, organization.id, made.id, at=MIDDLE, actor=SYSTEM)
    assert caught.value.total_minor == 5024


def test_last_months_draft_is_issued_first_and_is_not_part_of_the_quote(session: Session) -> None:
    subscription = subscriber(session)
    waiting = draft.bill(session, subscription.id, as_of=JULY, actor=SYSTEM)
    assert waiting is not None
    at = JULY + timedelta(minutes=20)
    made = change(session, subscription, at=at)
    assert made.subtotal_minor < 10000
    invoice = quote.confirm(session, subscription.organization_id, made.id, at=at, actor=SYSTEM)
    assert invoice is not None
    assert session.get_one(Invoice, waiting.id).status == "open"
    assert invoice.total_minor == made.total_minor
    held = subscriber(session)
    blocked = draft.bill(session, held.id, as_of=JULY, actor=SYSTEM)
    assert blocked is not None
    blocked.held_reason = "under review"
    session.flush()
    with pytest.raises(Conflict, match="reviewed"):
        quote.confirm(session, held.organization_id, change(session, held, at=at).id, at=at, actor=SYSTEM)


def test_a_change_at_the_period_end_costs_nothing_today(session: Session) -> None:
    subscription = subscriber(session)
    made = change(session, subscription, when="period_end")
    assert (made.total_minor, made.effective_at) == (0, JULY)
    assert quote.confirm(session, subscription.organization_id, made.id, at=MIDDLE, actor=SYSTEM) is None
    assert amounts(session, issued(session, subscription, JULY)) == {"base": 20000}


def test_a_stranger_finds_no_quote(session: Session) -> None:
    made = change(session, subscriber(session))
    with pytest.raises(NotFound):
        quote.confirm(session, make_organization(session).id, made.id, at=MIDDLE, actor=SYSTEM)


def test_spend_so_far_is_the_next_invoice_as_it_stands(session: Session) -> None:
    organization, metric = make_organization(session, tax_rate_percent=Decimal(19)), make_metric(session)
    subscription = make_subscription(session, organization, make_plan(session, prices=[(metric, PER_CALL)]))
    issued(session, subscription, START)
    use(session, organization, metric, START + timedelta(days=3), 500)
    issued(session, subscription, JULY)
    use(session, organization, metric, JULY + timedelta(days=3), 700)
    use(session, organization, metric, JULY + timedelta(days=20), 900)
    now = JULY + timedelta(days=10)
    so_far = preview.so_far(session, organization.id, subscription.id, as_of=now)
    assert (so_far.net_minor, so_far.due_at) == (10000 + 1600, datetime(2026, 8, 1, tzinfo=UTC))
    assert so_far.statement.foot[0].label == "Spend so far"
    assert so_far.statement.total.amount_minor == so_far.total_minor == 13804
    compared = {row.code.split("-")[0]: row.compare_minor for group in so_far.statement.groups for row in group.rows}
    assert compared == {"base": 10000, "calls": 500}
    assert [group.title for group in so_far.statement.groups] == ["Plan, in advance", "Usage, 1–10 Jul 2026 (UTC)"]
    with pytest.raises(NotFound):
        preview.so_far(session, make_organization(session).id, subscription.id, as_of=now)


def test_what_other_plans_would_have_cost(session: Session) -> None:
    organization, metric = make_organization(session, tax_rate_percent=Decimal(19)), make_metric(session)
    subscription = make_subscription(session, organization, make_plan(session, prices=[(metric, PER_CALL)]))
    for month in (6, 7, 8):
        use(session, organization, metric, datetime(2026, month, 9, tzinfo=UTC), month * 1000)
    dear = make_plan(session, base_price="10.00", prices=[(metric, {"model": "per_unit", "unit_price": "0.02"})])
    yearly = make_plan(session, base_price="730.00", billing_period="year", prices=[(metric, PER_CALL)])
    session.expire_all()
    found = whatif.compare(session, organization.id, subscription.id, versions=[dear, yearly], as_of=datetime(2026, 9, 5, tzinfo=UTC))
    assert [period.start.month for period in found.periods] == [6, 7, 8]
    assert found.own.minor == (16000, 17000, 18000)
    assert found.plans[0].minor == (13000, 15000, 17000)
    assert found.plans[1].minor == (6000 + 6000, 6200 + 7000, 6200 + 8000)
    assert (found.plans[0].average_minor, found.plans[0].difference_minor) == (15000, -2000)
    assert found.cheapest is found.plans[1]
    assert (found.plans[0].with_tax, found.plans[0].average_with_tax_minor) == ((15470, 17850, 20230), 17850)


def test_a_changed_amount_names_its_lines(session: Session) -> None:
    organization, metric = make_organization(session), make_metric(session)
    old, new = make_plan(session, prices=[(metric, PER_CALL)]), make_plan(session, base_price="200.00")
    subscription = make_subscription(session, organization, old)
    issued(session, subscription, START)
    made = quote.create(session, organization.id, subscription.id, to=new, when="now", at=MIDDLE, actor=SYSTEM)
    use(session, organization, metric, START + timedelta(days=2), 24)
    with pytest.raises(quote.QuoteChanged) as caught:
        quote.confirm(session, organization.id, made.id, at=MIDDLE, actor=SYSTEM)
    assert [error.detail for error in caught.value.errors] == [f"{metric.code}: was 0.00, is now 0.24 EUR"]


def test_a_backdated_quote_sets_right_what_was_billed_since(session: Session) -> None:
    subscription = subscriber(session)
    issued(session, subscription, JULY)
    version = make_plan(session, base_price="200.00")
    at, since = JULY + timedelta(days=9), MIDDLE
    with pytest.raises(Invalid):
        quote.create(session, subscription.organization_id, subscription.id, to=version, when=since, at=at, actor=SYSTEM)
    made = quote.create(session, subscription.organization_id, subscription.id, to=version, when=since, at=at, actor=SYSTEM, backdate=True)
    # June: half of 100 back, half of 200; July, billed in advance: 100 back, 200.
    assert (made.subtotal_minor, made.content["billed"]) == (-5000 + 10000 - 10000 + 20000, "now")
    invoice = quote.confirm(session, subscription.organization_id, made.id, at=at + timedelta(minutes=5), actor=SYSTEM)
    assert invoice is not None
    assert (invoice.subtotal_minor, invoice.reason) == (15000, "change")
    assert draft.bill(session, subscription.id, as_of=at + timedelta(minutes=6), actor=SYSTEM) is None


def test_where_the_plan_waits_the_quote_is_charged_with_the_next_invoice(session: Session) -> None:
    subscription = make_subscription(session, make_organization(session), make_plan(session, credit_policy="next_invoice"))
    issued(session, subscription, START)
    made = change(session, subscription)
    assert (made.total_minor, made.content["billed"], quote.total_label(made)) == (5000, "next_invoice", "On your next invoice")
    assert quote.confirm(session, subscription.organization_id, made.id, at=MIDDLE, actor=SYSTEM) is None
    assert subscription.next_bill_at == JULY
    assert issued(session, subscription, JULY).subtotal_minor == made.subtotal_minor + 20000
