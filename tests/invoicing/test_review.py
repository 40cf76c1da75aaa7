"""Reviewing a run: what looks unusual comes first, with reasons and causes."""

from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy.orm import Session

from core.audit import SYSTEM
from core.invoicing import draft, review, run
from core.invoicing.review import Causes, Reason
from core.subscriptions.models import Subscription
from tests.factories import START, add_term, make_metric, make_organization, make_plan, make_subscription, use
from tests.invoicing.books import issued

JULY, AUGUST = datetime(2026, 7, 1, tzinfo=UTC), datetime(2026, 8, 1, tzinfo=UTC)
PER_CALL = {"model": "per_unit", "unit_price": "0.10"}


def metered(session: Session, june: int, july: int) -> Subscription:
    """A subscription with a paid June and a July that is due, of so many calls."""
    organization, metric = make_organization(session), make_metric(session)
    subscription = make_subscription(session, organization, make_plan(session, prices=[(metric, PER_CALL)]))
    issued(session, subscription, START)
    if june:
        use(session, organization, metric, datetime(2026, 6, 9, tzinfo=UTC), june)
    issued(session, subscription, JULY)
    if july:
        use(session, organization, metric, datetime(2026, 7, 9, tzinfo=UTC), july)
    return subscription


def reviewed(session: Session) -> tuple[UUID, dict[UUID | None, review.ReviewRow]]:
    started = run.start(session, as_of=AUGUST, actor=SYSTEM, at=AUGUST)
    after: UUID | None = None
    while (after := run.rate_set(session, started.id, after_id=after, at=AUGUST, actor=SYSTEM)) is not None:
        pass
    return started.id, {row.subscription_id: row for row in review.rows(session, started.id)}


def test_each_oddity_has_its_reason(session: Session) -> None:
    usual, silent, grown = metered(session, 1000, 1010), metered(session, 100, 0), metered(session, 1000, 9000)
    new = make_subscription(session, make_organization(session), make_plan(session), start_at=AUGUST)
    run_id, rows = reviewed(session)
    assert rows[usual.id].reasons == ()
    assert rows[silent.id].reasons == (Reason.ZERO_USAGE,)
    assert rows[grown.id].reasons == (Reason.CHANGE,)
    assert rows[new.id].reasons == (Reason.FIRST_INVOICE,)
    assert (rows[grown.id].history, rows[grown.id].median_minor, rows[grown.id].change_minor) == ((20000,), 20000, 80000)
    assert review.counts(list(rows.values())) == {Reason.ZERO_USAGE: 1, Reason.CHANGE: 1, Reason.FIRST_INVOICE: 1}
    assert next(iter(rows)) == grown.id
    causes = review.causes(session, [rows[grown.id].invoice_id])
    assert causes[rows[grown.id].invoice_id] == Causes(quantity_minor=80000)
    assert run_id is not None


def test_causes_tell_price_from_quantity_and_plan(session: Session) -> None:
    organization, metric = make_organization(session), make_metric(session)
    old = make_plan(session, prices=[(metric, PER_CALL)])
    new = make_plan(session, base_price="150.00", prices=[(metric, {"model": "per_unit", "unit_price": "0.30"})])
    subscription = make_subscription(session, organization, old)
    issued(session, subscription, START)
    use(session, organization, metric, datetime(2026, 6, 9, tzinfo=UTC), 1000)
    issued(session, subscription, JULY)
    subscription.terms[0].end_at = JULY
    session.flush()
    add_term(session, subscription, new, start_at=JULY, anchor_day=START.date())
    session.expire_all()
    use(session, organization, metric, datetime(2026, 7, 9, tzinfo=UTC), 1500)
    draft.bill(session, subscription.id, as_of=JULY, actor=SYSTEM)
    _, rows = reviewed(session)
    row = rows[subscription.id]
    causes = review.causes(session, [row.invoice_id])[row.invoice_id]
    assert (causes.quantity_minor, causes.price_minor) == (5000, 30000)


def test_a_reviewer_holds_releases_approves_and_discards(session: Session) -> None:
    subscription = metered(session, 1, 1)
    _, rows = reviewed(session)
    invoice_id = rows[subscription.id].invoice_id
    assert review.hold(session, invoice_id, reason="ask first", at=AUGUST, actor=SYSTEM).held_reason == "ask first"
    assert review.release(session, invoice_id, at=AUGUST, actor=SYSTEM).held_reason is None
    assert review.approve(session, [invoice_id], at=AUGUST, actor=SYSTEM) == 1
    assert review.approve(session, [invoice_id], at=AUGUST, actor=SYSTEM) == 0
    review.discard(session, invoice_id, reason="made by mistake", at=AUGUST, actor=SYSTEM)
    again = draft.bill(session, subscription.id, as_of=AUGUST, actor=SYSTEM)
    assert again is not None
    assert again.subtotal_minor == rows[subscription.id].now_minor
