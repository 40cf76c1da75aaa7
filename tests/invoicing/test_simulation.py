"""Price simulation: other prices on the usage of the last closed periods; the same prices make no difference, and nothing else changes."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import func, literal, select, union_all, update
from sqlalchemy.orm import Session

from core.audit import SYSTEM
from core.catalog import publish
from core.catalog.models import PlanVersion
from core.db import Base
from core.errors import Invalid
from core.invoicing import simulation, simulation_results
from core.invoicing.simulation import Segment
from core.invoicing.simulation_models import PriceSimulation, SimulatedCost
from core.subscriptions.models import SubscriptionTerm
from tests.factories import START, add_term, make_metric, make_organization, make_plan, make_subscription, use
from tests.invoicing.books import Statements
from tests.simulator import chance

LATER = datetime(2026, 9, 10, tzinfo=UTC)
ALL = Segment()
PER_CALL = {"model": "per_unit", "unit_price": "0.01"}


def run(session: Session, plan: object, segment: Segment = ALL, periods: int = 3) -> PriceSimulation:
    started = simulation.start(session, plan=plan, segment=segment, periods=periods, at=LATER, actor=SYSTEM)  # type: ignore[arg-type]
    while simulation.run_set(session, started.id, at=LATER):
        pass
    return started


def costs(session: Session, started: PriceSimulation) -> dict[UUID, tuple[int, int]]:
    found = session.execute(select(SimulatedCost).where(SimulatedCost.simulation_id == started.id)).scalars()
    return {row.subscription_id: (row.billed_minor, row.simulated_minor) for row in found}


def rows_of_all_tables(session: Session) -> dict[str, int]:
    """How many rows each table has."""
    session.flush()
    counts = [select(literal(name), func.count()).select_from(table) for name, table in Base.metadata.tables.items()]
    return {str(name): int(count) for name, count in session.execute(union_all(*counts))}


@pytest.fixture
def shop(session: Session) -> tuple[PlanVersion, list[UUID]]:
    """Three customers of a plan of 100.00 and 0.01 a call; 1,000, 20,000 and no calls in July."""
    metric = make_metric(session, "calls")
    version = make_plan(session, prices=[(metric, PER_CALL)])
    ids = []
    for calls in (1_000, 20_000, 0):
        organization = make_organization(session)
        ids.append(make_subscription(session, organization, version).id)
        use(session, organization, metric, datetime(2026, 7, 9, tzinfo=UTC), calls)
    return version, ids


@pytest.mark.parametrize("seed", [0, 3, 5, 8])
def test_the_same_prices_make_no_difference_for_anybody(session: Session, seed: int) -> None:
    rng = random.Random(seed)
    metrics = [make_metric(session, code) for code in chance.METRICS]
    named = dict(zip(chance.METRICS, metrics, strict=True))
    document = chance.document(rng, f"random-{seed}", "EUR") | {"base_price": "12.34"}
    document["prices"] = [{**price, "metric": named[price["metric"]].code} for price in document["prices"]]
    thrice = {"billing_period": document["billing_period"], "interval_count": 3 * document["interval_count"]}
    document["prices"].append({"code": "thrice", "model": "flat", "flat_price": "9.99", **thrice})
    document["prices"].append({"model": "discount", "percent_off": "7"})
    version = publish.create_version(session, **document, actor=SYSTEM, at=START)
    for _ in range(4):
        organization = make_organization(session, timezone=rng.choice(chance.ZONES))
        begin = START - timedelta(days=rng.randrange(900, 1300))
        subscription = make_subscription(session, organization, version, start_at=begin, quantity=rng.randrange(1, 4))
        changed = LATER - timedelta(days=rng.randrange(20, 300), seconds=rng.randrange(80_000))
        subscription.terms[0].end_at = changed
        session.flush()
        day = subscription.terms[0].anchor_day
        add_term(session, subscription, version, start_at=changed, timezone=organization.timezone, quantity=7, anchor_day=day)
        session.expire(subscription)
        for metric in metrics:
            for _ in range(5):
                use(session, organization, metric, LATER - timedelta(days=rng.randrange(10, 200)), rng.randrange(0, 9_000))
    for plan in (version, document):
        found = costs(session, run(session, plan))
        assert len(found) == 4
        assert all(billed == simulated != 0 for billed, simulated in found.values()), found


def test_other_prices_are_held_against_what_was_paid(session: Session, shop: tuple[PlanVersion, list[UUID]]) -> None:
    version, [small, large, idle] = shop
    dearer = make_plan(session, base_price="50.00", prices=[(version.rules[1].metric, {"model": "per_unit", "unit_price": "0.02"})])
    before = rows_of_all_tables(session)
    started = run(session, dearer)
    grown = {name: count - before[name] for name, count in rows_of_all_tables(session).items() if count != before[name]}
    assert grown == {"price_simulations": 1, "price_simulation_rows": 3, "audit_events": 1, "outbox": 1}
    assert costs(session, started) == {small: (31_000, 17_000), large: (50_000, 55_000), idle: (30_000, 15_000)}
    [totals] = simulation_results.totals(session, started.id)
    assert (totals.billed_minor, totals.simulated_minor, totals.difference_minor) == (111_000, 87_000, -24_000)
    assert totals.bands == (0, 2, 0, 0, 0, 0, 1, 0, 0)
    assert (totals.cheaper, totals.dearer) == (2, 1)
    rows = simulation_results.rows(session, started.id, limit=2)
    assert [row.subscription_id for row in rows] == [large, small]
    last = rows[-1].difference_minor, rows[-1].subscription_id
    assert [row.subscription_id for row in simulation_results.rows(session, started.id, after=last)] == [idle]


def test_another_interval_is_charged_for_its_share(session: Session, shop: tuple[PlanVersion, list[UUID]]) -> None:
    _, ids = shop
    yearly = make_plan(session, base_price="365.00", billing_period="year")
    assert set(costs(session, run(session, yearly)).values()) == {(31_000, 9_200), (50_000, 9_200), (30_000, 9_200)}
    assert len(ids) == 3


def test_a_segment_narrows_and_the_young_are_counted_apart(session: Session, shop: tuple[PlanVersion, list[UUID]]) -> None:
    version, ids = shop
    other = make_plan(session)
    young = make_subscription(session, make_organization(session), other, start_at=LATER - timedelta(days=3))
    make_subscription(session, make_organization(session, currency="USD"), other)
    started = run(session, version, Segment(plan=other.plan.code))
    assert costs(session, started) == {young.id: (0, 0)}
    assert simulation_results.totals(session, started.id) == []
    assert simulation_results.left_out(session, started.id) == (1, 0)
    one = session.scalar(select(SubscriptionTerm.organization_id).where(SubscriptionTerm.subscription_id == ids[0]))
    assert set(costs(session, run(session, version, Segment(organizations=(str(one),))))) == {ids[0]}
    with pytest.raises(Invalid) as refused:
        run(session, version, Segment(currency="JPY"))
    assert refused.value.errors[0].pointer == "/segment"
    with pytest.raises(Invalid) as refused:
        run(session, {"code": "x", "name": "X", "currency": "EUR", "billing_period": "month", "prices": [{"metric": "nothing"}]})
    assert "/prices/0/metric" in {error.pointer for error in refused.value.errors}


def test_killed_between_sets_it_goes_on_and_who_cannot_be_priced_stops_nobody(
    session: Session, shop: tuple[PlanVersion, list[UUID]], monkeypatch: pytest.MonkeyPatch
) -> None:
    version, ids = shop
    session.execute(update(SubscriptionTerm).where(SubscriptionTerm.subscription_id == ids[1]).values(timezone="Mars/Olympus"))
    monkeypatch.setattr(simulation, "SET_SIZE", 1)
    started = simulation.start(session, plan=version, segment=ALL, periods=3, at=LATER, actor=SYSTEM)
    assert simulation.run_set(session, started.id, at=LATER)
    killed = session.begin_nested()
    simulation.run_set(session, started.id, at=LATER)
    killed.rollback()
    while simulation.run_set(session, started.id, at=LATER):
        pass
    done = simulation.get(session, started.id)
    assert (done.status, done.subscriptions_done, done.subscriptions_total) == ("done", 3, 3)
    assert set(costs(session, started)) == set(ids)
    assert simulation_results.left_out(session, started.id) == (0, 1)
    broken = session.scalars(select(SimulatedCost.error).where(SimulatedCost.subscription_id == ids[1])).one()
    assert "Mars/Olympus" in (broken or "")


def test_a_set_takes_the_same_statements_whatever_its_size(session: Session, shop: tuple[PlanVersion, list[UUID]]) -> None:
    version, _ = shop

    def statements(count: int) -> int:
        for _ in range(count):
            make_subscription(session, make_organization(session), version)
        started = simulation.start(session, plan=version, segment=ALL, periods=3, at=LATER, actor=SYSTEM)
        session.expire_all()
        with Statements(session) as seen:
            assert simulation.run_set(session, started.id, at=LATER)
        return seen.count

    assert statements(1) == statements(20)
