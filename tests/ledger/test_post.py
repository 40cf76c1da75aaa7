"""The books balance, and nothing in them is ever changed."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from core import audit
from core.identity.models import Organization
from core.ledger import post, queries
from core.ledger.models import AccountCode
from tests.factories import make_organization

AT = datetime(2026, 6, 15, tzinfo=UTC)
INVOICE = ((AccountCode.RECEIVABLE, 11900), (AccountCode.REVENUE, -10000), (AccountCode.TAX_PAYABLE, -1900))

COPY_OF_POSTINGS = (
    "INSERT INTO postings (organization_id, ledger_transaction_id, ledger_account_id, amount_minor, currency) "
    "SELECT organization_id, ledger_transaction_id, ledger_account_id,"
)


def fact(organization: Organization, entries: post.Entries = INVOICE, currency: str = "EUR") -> post.Fact:
    return post.Fact(organization.id, "invoice", "invoices", uuid4(), entries, currency, AT, "a test")


def refused(session: Session, statement: str) -> str:
    """The SQLSTATE with which the database refuses `statement`."""
    with pytest.raises(DBAPIError) as caught, session.begin_nested():
        session.execute(text(statement))
    return str(getattr(caught.value.orig, "sqlstate", None))


def test_a_posting_moves_the_balances(session: Session) -> None:
    organization = make_organization(session)
    post.post(
        session,
        organization_id=organization.id,
        kind="invoice",
        subject=organization,
        entries=INVOICE,
        currency="EUR",
        at=AT,
        description="INV-1",
    )
    assert queries.balances(session, organization.id) == {
        (AccountCode.RECEIVABLE, "EUR"): 11900,
        (AccountCode.REVENUE, "EUR"): -10000,
        (AccountCode.TAX_PAYABLE, "EUR"): -1900,
    }
    assert [entry.amount_minor for entry in queries.entries(session, organization.id, subject_ids=[organization.id])] == [
        11900,
        -1900,
        -10000,
    ]


def test_another_organization_sees_nothing_of_it(session: Session) -> None:
    organization, stranger = make_organization(session), make_organization(session)
    fact_posted = fact(organization)
    post.post_all(session, [fact_posted])
    assert queries.balances(session, stranger.id) == {}
    assert queries.entries(session, stranger.id, subject_ids=[fact_posted.subject_id]) == []


def test_unbalanced_entries_are_refused_before_the_database_sees_them(session: Session) -> None:
    with pytest.raises(post.Unbalanced):
        post.post_all(session, [fact(make_organization(session), ((AccountCode.RECEIVABLE, 100), (AccountCode.REVENUE, -99)))])


def test_a_fact_that_moves_nothing_posts_nothing(session: Session) -> None:
    organization = make_organization(session)
    assert post.post_all(session, [fact(organization, ((AccountCode.RECEIVABLE, 0), (AccountCode.REVENUE, 0)))]) == [None]
    assert session.scalar(text("SELECT count(*) FROM ledger_transactions WHERE organization_id = :id").bindparams(id=organization.id)) == 0


def test_the_same_fact_cannot_be_posted_twice(session: Session) -> None:
    once = fact(make_organization(session))
    post.post_all(session, [once])
    with pytest.raises(IntegrityError, match="uq_ledger_transactions_kind_subject_id"), session.begin_nested():
        post.post_all(session, [once])


def test_the_database_refuses_an_unbalanced_posting(session: Session) -> None:
    post.post_all(session, [fact(make_organization(session))])
    assert refused(session, f"{COPY_OF_POSTINGS} 5, currency FROM postings LIMIT 1") == "VV001"


def test_the_database_refuses_a_posting_in_another_currency_than_its_account(session: Session) -> None:
    post.post_all(session, [fact(make_organization(session))])
    assert refused(session, f"{COPY_OF_POSTINGS} amount_minor, 'USD' FROM postings") == "VV005"


@pytest.mark.parametrize("table", ["postings", "ledger_transactions", "audit_events"])
@pytest.mark.parametrize("change", ["UPDATE {} SET id = id", "DELETE FROM {}", "TRUNCATE {} CASCADE"])
def test_history_cannot_be_rewritten(session: Session, table: str, change: str) -> None:
    organization = make_organization(session)
    post.post_all(session, [fact(organization)])
    audit.record(session, audit.SYSTEM, "test.happened", organization, at=AT)
    assert refused(session, change.format(table)) == "VV002"
