"""Publishing plan versions: what is stored, what is refused and where the pointer points."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.audit import SYSTEM, AuditEvent
from core.catalog import publish, queries
from core.catalog.models import PlanVersion
from core.errors import Invalid, NotFound
from core.metering.models import Metric

AT = datetime(2026, 6, 1, tzinfo=UTC)


def plan(**given: Any) -> dict[str, Any]:
    values = {"code": "team", "name": "Team", "currency": "EUR", "billing_period": "month", "base_price": "99.00"}
    return {**values, **given, "actor": SYSTEM, "at": AT}


def metric(session: Session, code: str) -> None:
    session.add(Metric(code=code, name=code.capitalize(), aggregation="sum", event_name=code))
    session.flush()


def faults(session: Session, **given: Any) -> dict[str, str]:
    with pytest.raises(Invalid) as caught:
        publish.create_version(session, **plan(**given))
    return {error.pointer: error.detail for error in caught.value.errors}


def test_a_plan_is_published_with_its_prices(session: Session) -> None:
    metric(session, "input_tokens")
    tiers = [{"up_to": "10000000", "unit_price": "0.000002"}, {"up_to": None, "unit_price": "0.0000015"}]
    version = publish.create_version(
        session,
        **plan(
            billing_mode="in_arrears",
            trial_period_days=14,
            prices=[
                {"metric": "input_tokens", "model": "graduated", "tiers": tiers},
                {"code": "seat", "name": "Seats", "model": "per_unit", "unit_price": Decimal("12.50")},
            ],
        ),
    )
    session.expire_all()
    stored = queries.newest_version(session, "team")
    assert stored.id == version.id
    assert (stored.version, stored.billing_period, stored.proration, stored.credit_policy) == (1, "month", "seconds", "credit")
    base, tokens, seats = stored.rules
    assert (base.code, base.kind, base.billing_mode, base.rules) == (
        "base",
        "recurring",
        "in_arrears",
        {"model": "flat", "flat_price": "99.00"},
    )
    assert (tokens.code, tokens.kind, tokens.billing_mode, tokens.metric.code) == ("input_tokens", "usage", "in_arrears", "input_tokens")
    assert tokens.rules["tiers"][1] == {"up_to": None, "unit_price": "0.0000015", "flat_fee": "0"}
    assert (seats.code, seats.name, seats.kind, seats.billing_mode) == ("seat", "Seats", "recurring", "in_arrears")
    kinds = session.scalars(select(AuditEvent.kind).where(AuditEvent.subject_id == str(version.id))).all()
    assert kinds == ["plan.version_published"]


def test_the_same_code_again_is_the_next_version(session: Session) -> None:
    first = publish.create_version(session, **plan())
    second = publish.create_version(session, **plan(base_price="120.00", name="Team plus"))
    assert (first.version, first.status, first.base_price) == (1, "retired", Decimal("99.00"))
    assert (second.version, second.status) == (2, "live")
    assert queries.newest_version(session, "team").id == second.id
    assert [found.version for found in queries.plan(session, "team").versions] == [1, 2]
    assert queries.plan(session, "team").name == "Team plus"


def test_a_base_price_of_nothing_has_no_line(session: Session) -> None:
    assert publish.create_version(session, **plan(base_price="0.00")).rules == []


@pytest.mark.parametrize(
    ("written", "stored"),
    [("monthly", "month"), ("annual", "year"), ("yearly", "year"), ("quarterly", "quarter"), ("half_year", "half_year"), ("week", "week")],
)
def test_words_for_periods(session: Session, written: str, stored: str) -> None:
    assert publish.create_version(session, **plan(billing_period=written)).billing_period == stored


BROKEN_TIERS = [{"up_to": "10", "unit_price": "1"}, {"up_to": "5", "unit_price": "1"}]


@pytest.mark.parametrize(
    ("given", "pointer", "detail"),
    [
        ({"code": "has space"}, "/code", "letters, digits"),
        ({"code": ""}, "/code", "letters, digits"),
        ({"code": 7}, "/code", "letters, digits"),
        ({"name": "  "}, "/name", "not empty"),
        ({"name": "a\x00b"}, "/name", "control"),
        ({"name": "x" * 256}, "/name", "255"),
        ({"currency": "eur"}, "/currency", "did you mean EUR"),
        ({"currency": None}, "/currency", "ISO 4217"),
        ({"billing_period": "fortnight"}, "/billing_period", "must be one of day"),
        ({"billing_period": None}, "/billing_period", "must be one of day"),
        ({"interval_count": 0}, "/interval_count", "from 1 to 120"),
        ({"interval_count": True}, "/interval_count", "from 1 to 120"),
        ({"base_price": "-1"}, "/base_price", "decimal number"),
        ({"base_price": "1e3"}, "/base_price", "decimal number"),
        ({"base_price": "NaN"}, "/base_price", "decimal number"),
        ({"base_price": Decimal("1e999999")}, "/base_price", "decimal number"),
        ({"base_price": [1]}, "/base_price", "decimal string"),
        ({"base_price": "9.999"}, "/base_price", "more decimals than EUR (2)"),
        ({"base_price": "9.5", "currency": "JPY"}, "/base_price", "more decimals than JPY (0)"),
        ({"trial_period_days": -1}, "/trial_period_days", "from 0"),
        ({"trial_period_days": "14"}, "/trial_period_days", "whole number"),
        ({"billing_mode": "in_advanced"}, "/billing_mode", "did you mean in_advance"),
        ({"proration": "hours"}, "/proration", "seconds, days, fixed_30, none"),
        ({"credit_policy": "refund"}, "/credit_policy", "credit, next_invoice, none"),
        ({"features": ["sso"]}, "/features", "object"),
        ({"metadata": {"a": "x" * 20_000}}, "/metadata", "16384 bytes"),
        ({"limits": {"a": "\x00"}}, "/limits", "control"),
        ({"is_public": "yes"}, "/is_public", "true or false"),
        ({"prices": {}}, "/prices", "list"),
        ({"prices": ["flat"]}, "/prices/0", "object"),
        ({"prices": [{}] * 101}, "/prices", "at most 100"),
        ({"prices": [{"model": "per_unit"}]}, "/prices/0/unit_price", "missing"),
        ({"prices": [{"model": "per_unit", "unit_price": 0.1}]}, "/prices/0/unit_price", "decimal string"),
        ({"prices": [{"model": "tiered", "tiers": []}]}, "/prices/0/model", "must be one of flat"),
        ({"prices": [{"model": "per_unit", "unit_price": "1", "unit_prize": "1"}]}, "/prices/0/unit_prize", "not a key"),
        ({"prices": [{"metric": "calls", "model": "graduated", "tiers": BROKEN_TIERS}]}, "/prices/0/tiers/1/up_to", "more than"),
        ({"prices": [{"metric": "cals", "model": "per_unit", "unit_price": "1"}]}, "/prices/0/metric", "did you mean calls"),
        ({"prices": [{"metric": 7, "model": "per_unit", "unit_price": "1"}]}, "/prices/0/metric", "no metric"),
        (
            {"prices": [{"metric": "calls", "model": "per_unit", "unit_price": "1", "billing_mode": "in_advance"}]},
            "/prices/0/billing_mode",
            "in_arrears",
        ),
        ({"prices": [{"metric": "calls", "model": "per_unit", "unit_price": "1"}] * 2}, "/prices/1/code", "taken by /prices/0"),
        ({"prices": [{"code": "base", "model": "per_unit", "unit_price": "1"}]}, "/prices/0/code", "the base price"),
    ],
)
def test_a_fault_is_named_with_its_pointer_and_nothing_is_written(session: Session, given: Any, pointer: str, detail: str) -> None:
    metric(session, "calls")
    found = faults(session, **given)
    assert list(found) == [pointer]
    assert detail in found[pointer]
    assert session.scalar(select(func.count()).select_from(PlanVersion)) == 0


def test_every_fault_is_named_at_once(session: Session) -> None:
    found = faults(session, code="", currency="XXQ", prices=[{"model": "flat"}, {"model": "per_unit", "unit_price": "-1"}])
    assert set(found) == {"/code", "/currency", "/prices/0/flat_price", "/prices/1/unit_price"}


def test_a_plan_keeps_its_currency(session: Session) -> None:
    publish.create_version(session, **plan())
    assert "EUR" in faults(session, currency="USD")["/currency"]


def test_an_unknown_plan_is_named_with_what_looks_like_it(session: Session) -> None:
    publish.create_version(session, **plan())
    with pytest.raises(NotFound, match="did you mean team"):
        queries.newest_version(session, "teem")


def test_a_withdrawn_plan_is_not_offered(session: Session) -> None:
    version = publish.create_version(session, **plan())
    assert [found.id for found in queries.live_versions(session, currency="EUR")] == [version.id]
    publish.set_active(session, version.plan_id, active=False, actor=SYSTEM, at=AT)
    with pytest.raises(NotFound):
        queries.offered_version(session, version.id)
    assert queries.live_versions(session, currency="EUR") == []
    assert [found.code for found in queries.plans(session, active=None)] == ["team"]
