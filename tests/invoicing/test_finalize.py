"""A draft becomes a document: numbered, frozen, in the books; and what can and cannot happen to it then."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from core import jobs
from core.audit import SYSTEM, AuditEvent
from core.errors import Conflict, Invalid, InvalidTransition, NotFound
from core.invoicing import account_credits, draft, finalize, settle, void
from core.invoicing.credit_models import AccountCredit
from core.invoicing.models import Invoice, InvoiceTax
from core.ledger import queries as ledger
from core.ledger.models import AccountCode
from tests.factories import START, add_term, make_metric, make_organization, make_plan, make_subscription, use
from tests.invoicing.books import Statements, amounts, invoice_now, issued

JULY = datetime(2026, 7, 1, tzinfo=UTC)
NINETEEN = Decimal(19)
ADDED_TAX = (
    "INSERT INTO invoice_taxes (organization_id, invoice_id, position, name, treatment, rate_percent, taxable_minor, tax_minor)"
    " SELECT organization_id, id, 9, 'VAT', 'standard', 0, 0, 0 FROM invoices WHERE id = :id"
)


def balances(session: Session, invoice: Invoice) -> dict[str, int]:
    return {code.value: amount for (code, _), amount in ledger.balances(session, invoice.organization_id).items() if amount}


def refused(session: Session, statement: str, **values: object) -> str:
    with pytest.raises(DBAPIError) as caught, session.begin_nested():
        session.execute(text(statement), values)
    return str(getattr(caught.value.orig, "sqlstate", None))


def test_a_finalized_invoice_has_number_dates_parties_and_books(session: Session) -> None:
    organization = make_organization(session, tax_rate_percent=NINETEEN, timezone="Pacific/Auckland", tax_id="DE811907980")
    start = datetime(2026, 5, 31, 12, tzinfo=UTC)  # 1 June in Auckland
    invoice = issued(session, make_subscription(session, organization, make_plan(session), start_at=start), start)
    assert invoice.invoice_number == f"INV-2026-{invoice.sequence:04d}"
    assert (invoice.issue_date, invoice.due_date) == (date(2026, 6, 1), date(2026, 6, 15))
    assert (invoice.status, invoice.total_minor, invoice.amount_due_minor) == ("open", 11900, 11900)
    assert invoice.seller is not None
    assert invoice.seller["vat_id"] == "DE811907980"
    assert invoice.buyer is not None
    assert invoice.buyer["name"] == organization.name
    assert invoice.next_collect_at == start
    assert balances(session, invoice) == {"accounts_receivable": 11900, "revenue": -10000, "tax_payable": -1900}
    kinds = session.scalars(select(AuditEvent.kind).where(AuditEvent.subject_id == str(invoice.id)).order_by(AuditEvent.id)).all()
    assert kinds == ["invoice.drafted", "invoice.finalized"]
    assert ("collect_invoice", (str(invoice.id),)) in session.info[jobs.PENDING]


def test_finalizing_twice_is_finalizing_once(session: Session) -> None:
    invoice = issued(session, make_subscription(session, make_organization(session), make_plan(session)), START)
    number, before = invoice.invoice_number, balances(session, invoice)
    again = finalize.finalize_invoice(session, invoice.id, at=START + timedelta(days=1), actor=SYSTEM)
    assert (again.invoice_number, again.finalized_at, balances(session, again)) == (number, START, before)
    assert finalize.finalize_many(session, [invoice.id], at=JULY, actor=SYSTEM) == []


def test_numbers_are_gapless_and_a_rollback_gives_its_number_back(session: Session) -> None:
    plan = make_plan(session)
    drafts = []
    for _ in range(4):
        made = draft.bill(session, make_subscription(session, make_organization(session), plan).id, as_of=START, actor=SYSTEM)
        assert made is not None
        drafts.append(made.id)
    first = finalize.finalize_invoice(session, drafts[0], at=START, actor=SYSTEM).sequence or 0
    dying = session.begin_nested()
    finalize.finalize_invoice(session, drafts[1], at=START, actor=SYSTEM)
    dying.rollback()
    finalize.finalize_many(session, drafts, at=START, actor=SYSTEM)
    assert sorted(session.scalars(select(Invoice.sequence).where(Invoice.id.in_(drafts)))) == [first, first + 1, first + 2, first + 3]


def test_late_usage_is_on_the_invoice_if_it_comes_before_finalizing(session: Session) -> None:
    organization, metric = make_organization(session), make_metric(session)
    prices = [(metric, {"model": "per_unit", "unit_price": "0.01"})]
    subscription = make_subscription(session, organization, make_plan(session, base_price="5", billing_mode="in_arrears", prices=prices))
    made = draft.bill(session, subscription.id, as_of=JULY, actor=SYSTEM)
    assert made is not None
    use(session, organization, metric, START, 100)
    invoice = finalize.finalize_invoice(session, made.id, at=JULY + timedelta(hours=1), actor=SYSTEM)
    assert amounts(session, invoice) == {"base": 500, "calls": 100}
    assert (invoice.subtotal_minor, invoice.issue_date) == (600, date(2026, 7, 1))


def test_the_rate_is_that_of_the_day_of_issue(session: Session) -> None:
    organization = make_organization(session, tax_rate_percent=None)
    invoice = issued(session, make_subscription(session, organization, make_plan(session)), START)
    tax = session.scalars(select(InvoiceTax).where(InvoiceTax.invoice_id == invoice.id)).one()
    assert (tax.rate_percent, tax.tax_minor, tax.treatment) == (NINETEEN, 1900, "standard")


def test_a_business_elsewhere_in_the_union_is_reverse_charged(session: Session) -> None:
    address = {"line1": "1 rue de la Paix", "city": "Paris", "country": "FR"}
    organization = make_organization(session, tax_rate_percent=None, billing_address=address, tax_id="FR40303265045")
    invoice = issued(session, make_subscription(session, organization, make_plan(session)), START)
    tax = session.scalars(select(InvoiceTax).where(InvoiceTax.invoice_id == invoice.id)).one()
    assert (invoice.tax_minor, tax.treatment) == (0, "reverse_charge")
    assert "Article 196" in tax.note


def test_a_downgrade_becomes_credit_and_the_next_invoice_uses_it(session: Session) -> None:
    organization = make_organization(session, tax_rate_percent=NINETEEN)
    subscription = make_subscription(session, organization, make_plan(session, base_price="200.00"))
    issued(session, subscription, START)
    change = datetime(2026, 6, 16, tzinfo=UTC)
    subscription.terms[0].end_at = change
    session.flush()
    add_term(session, subscription, make_plan(session, base_price="100.00"), start_at=change, anchor_day=START.date())
    session.expire_all()
    lowered = issued(session, subscription, change)
    assert (lowered.total_minor, lowered.amount_due_minor, lowered.status) == (-5950, 0, "paid")
    assert account_credits.balance(session, organization.id) == {"EUR": 5950}
    renewal = issued(session, subscription, JULY)
    assert (renewal.total_minor, renewal.credit_applied_minor, renewal.amount_due_minor, renewal.status) == (11900, 5950, 5950, "open")
    assert account_credits.balance(session, organization.id) == {}
    assert balances(session, renewal) == {"accounts_receivable": 23800 + 5950, "revenue": -25000, "tax_payable": -4750}
    voided = void.void_invoice(session, renewal.id, at=JULY, actor=SYSTEM)
    assert voided.status == "void"
    assert account_credits.balance(session, organization.id) == {"EUR": 5950}
    assert balances(session, renewal) == {"accounts_receivable": 23800, "revenue": -15000, "tax_payable": -2850, "customer_credit": -5950}


def test_a_total_of_nothing_is_paid_at_once(session: Session) -> None:
    invoice = issued(session, make_subscription(session, make_organization(session), make_plan(session, base_price="0")), START)
    assert (invoice.status, invoice.paid_at, invoice.next_collect_at) == ("paid", START, None)
    assert balances(session, invoice) == {}


def test_payments_settle_an_invoice_and_never_more(session: Session) -> None:
    invoice = issued(session, make_subscription(session, make_organization(session), make_plan(session)), START)
    with pytest.raises(Invalid):
        settle.apply_payment(session, invoice, amount_minor=10001, at=START, actor=SYSTEM)
    settle.apply_payment(session, invoice, amount_minor=4000, at=START, actor=SYSTEM)
    assert (invoice.status, invoice.amount_due_minor) == ("open", 6000)
    settle.apply_payment(session, invoice.id, amount_minor=6000, at=JULY, actor=SYSTEM)
    assert (invoice.status, invoice.amount_due_minor, invoice.paid_at, invoice.next_collect_at) == ("paid", 0, JULY, None)
    with pytest.raises(Conflict):
        settle.apply_payment(session, invoice, amount_minor=1, at=JULY, actor=SYSTEM)
    settle.reverse(session, invoice, amount_minor=1000, at=JULY, actor=SYSTEM)
    assert (invoice.status, invoice.amount_due_minor) == ("paid", 1000)
    settle.reverse(session, invoice, amount_minor=9000, at=JULY, actor=SYSTEM, reopen=True)
    assert (invoice.status, invoice.amount_due_minor, invoice.amount_paid_minor) == ("open", 10000, 0)


def test_what_a_void_invoice_billed_is_billed_again(session: Session) -> None:
    subscription = make_subscription(session, make_organization(session), make_plan(session))
    first = issued(session, subscription, START)
    void.void_invoice(session, first.id, at=START, actor=SYSTEM, reason="wrong address")
    assert void.void_invoice(session, first.id, at=START, actor=SYSTEM).voided_at == START
    second = issued(session, subscription, START + timedelta(days=1))
    assert amounts(session, second) == {"base": 10000}
    assert second.sequence == (first.sequence or 0) + 1
    assert balances(session, second) == {"accounts_receivable": 10000, "revenue": -10000}


def test_what_a_void_invoice_billed_is_owed_however_old_it_is_and_once(session: Session) -> None:
    organization, metric = make_organization(session), make_metric(session)
    per_call = {"model": "per_unit", "unit_price": "0.01"}
    subscription = make_subscription(session, organization, make_plan(session, prices=[(metric, per_call)]))
    use(session, organization, metric, START + timedelta(days=3), 1000)
    issued(session, subscription, START)
    renewal = issued(session, subscription, JULY)
    for month in (8, 9, 10):
        issued(session, subscription, JULY.replace(month=month))
    use(session, organization, metric, JULY + timedelta(days=3), 7)  # of a closed cycle that nobody took back
    void.void_invoice(session, renewal.id, at=JULY.replace(month=10, day=20), actor=SYSTEM)
    winter = issued(session, subscription, JULY.replace(month=11))
    assert amounts(session, winter) == {"base": 10000 + 10000, "calls": 1000}
    use(session, organization, metric, START + timedelta(days=4), 7)  # billed again, so closed again
    spring = issued(session, subscription, JULY.replace(month=12))
    assert amounts(session, spring) == {"base": 10000, "calls": 0}
    void.void_invoice(session, winter.id, at=JULY.replace(month=12, day=2), actor=SYSTEM)
    assert amounts(session, issued(session, subscription, datetime(2027, 1, 1, tzinfo=UTC))) == {"base": 30000, "calls": 1007}


def test_a_subscription_that_has_ended_is_billed_once_more(session: Session) -> None:
    subscription = make_subscription(session, make_organization(session), make_plan(session, billing_mode="in_arrears"))
    subscription.terms[0].end_at = subscription.ends_at = JULY
    last = issued(session, subscription, JULY)
    session.refresh(subscription)
    assert subscription.next_bill_at is None
    at = JULY + timedelta(days=100)
    void.void_invoice(session, last.id, at=at, actor=SYSTEM)
    [again] = draft.bill_many(session, [subscription.id], as_of=at, actor=SYSTEM)
    assert amounts(session, session.get_one(Invoice, again)) == {"base": 10000}
    session.refresh(subscription)
    assert subscription.next_bill_at is None


def test_only_an_open_unpaid_invoice_can_be_voided(session: Session) -> None:
    subscription = make_subscription(session, make_organization(session), make_plan(session))
    made = draft.bill(session, subscription.id, as_of=START, actor=SYSTEM)
    assert made is not None
    with pytest.raises(InvalidTransition):
        void.void_invoice(session, made.id, at=START, actor=SYSTEM)
    invoice = finalize.finalize_invoice(session, made.id, at=START, actor=SYSTEM)
    settle.apply_payment(session, invoice, amount_minor=1, at=START, actor=SYSTEM)
    with pytest.raises(Conflict):
        void.void_invoice(session, invoice.id, at=START, actor=SYSTEM)


def test_a_held_draft_waits_for_its_reviewer(session: Session) -> None:
    made = draft.bill(session, make_subscription(session, make_organization(session), make_plan(session)).id, as_of=START, actor=SYSTEM)
    assert made is not None
    made.held_reason = "PO number is missing"
    session.flush()
    assert finalize.finalize_many(session, [made.id], at=START, actor=SYSTEM) == []
    with pytest.raises(Conflict, match="PO number"):
        finalize.finalize_invoice(session, made.id, at=START, actor=SYSTEM)


def test_an_unknown_invoice_is_not_found(session: Session) -> None:
    with pytest.raises(NotFound):
        finalize.finalize_invoice(session, make_organization(session).id, at=START, actor=SYSTEM)


@pytest.mark.parametrize(
    "change",
    [
        f"UPDATE invoices SET {column} WHERE id = :id"
        for column in (
            "total_minor = total_minor + 1, subtotal_minor = subtotal_minor + 1",
            "invoice_number = 'INV-2026-9999'",
            "issue_date = issue_date + 1",
            "due_date = due_date + 1",
            "buyer = '{}'",
            "seller = '{}'",
            "memo = 'x'",
            "content_hash = NULL",
            "currency = 'USD'",
            "reason = 'manual'",
            "finalized_at = now()",
        )
    ]
    + [
        "UPDATE invoice_lines SET amount_minor = 1 WHERE invoice_id = :id",
        "DELETE FROM invoice_lines WHERE invoice_id = :id",
        "UPDATE invoice_lines SET invoice_id = gen_random_uuid() WHERE invoice_id = :id",
        "UPDATE invoice_taxes SET tax_minor = 1 WHERE invoice_id = :id",
        "DELETE FROM invoice_taxes WHERE invoice_id = :id",
        ADDED_TAX,
    ],
)
def test_the_database_refuses_to_change_a_finalized_invoice(session: Session, change: str) -> None:
    invoice = issued(session, make_subscription(session, make_organization(session), make_plan(session)), START)
    assert refused(session, change, id=invoice.id) in {"VV003", "23503"}


def test_the_database_refuses_to_delete_it_or_to_make_it_a_draft(session: Session) -> None:
    invoice = issued(session, make_subscription(session, make_organization(session), make_plan(session)), START)
    assert refused(session, "DELETE FROM invoices WHERE id = :id", id=invoice.id) == "VV004"
    assert refused(session, "UPDATE invoices SET status = 'draft' WHERE id = :id", id=invoice.id) == "VV006"
    assert refused(session, "TRUNCATE invoices CASCADE") == "VV002"


def test_many_are_finalized_with_the_statements_of_one(session: Session) -> None:
    plan, counted = make_plan(session), []
    for size in (1, 2, 12):
        ids = [make_subscription(session, make_organization(session), plan).id for _ in range(size)]
        made = draft.bill_many(session, ids, as_of=START, actor=SYSTEM)
        with Statements(session) as statements:
            assert len(finalize.finalize_many(session, made, at=START, actor=SYSTEM)) == size
        counted.append(statements.count)
    assert counted[1] == counted[2]


def test_a_run_after_the_run_bills_nothing(session: Session) -> None:
    subscription = make_subscription(session, make_organization(session), make_plan(session))
    issued(session, subscription, START)
    assert invoice_now(session, subscription, START + timedelta(days=3)) is None
    assert session.scalars(select(AccountCredit)).first() is None
    assert AccountCode.RECEIVABLE.value == "accounts_receivable"
