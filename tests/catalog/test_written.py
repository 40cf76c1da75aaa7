"""A published version written down as a document: publishing that again makes the same prices, and the editor loses nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session

from admin import plan_form
from core.audit import SYSTEM
from core.catalog import publish, written
from core.catalog.models import PlanVersion
from tests.factories import make_metric
from tests.pricing.test_charge import HOURS, MATRIX, UNIT

AT = datetime(2026, 6, 1, tzinfo=UTC)
STAIRS = {"model": "stairstep", "tiers": [{"up_to": "10", "flat_fee": "50"}, {"up_to": None, "flat_fee": "200"}]}
RATES = [{"up_to": "1000", "percent_off": "5"}, {"up_to": None, "percent_off": "7.5"}]


def published(session: Session) -> PlanVersion:
    """A plan with prices of many kinds."""
    calls = make_metric(session, group_by=["model", "region"]).code
    other = make_metric(session).code
    unbounded = {"price": "20", "limits": {calls: None, other: None}}
    prices: list[dict[str, Any]] = [
        {"metric": calls, "code": "matrix", **MATRIX},
        {"metric": calls, "code": "free", **MATRIX, "default": None},
        {"metric": calls, "code": "hours", **HOURS, "minimum_amount": "5"},
        {
            "metric": calls,
            "code": "size",
            "model": "capacity",
            "capacity_tiers": [{"price": "10", "limits": {calls: "1", other: "2"}}, unbounded],
        },
        {"metric": calls, "code": "sum", "model": "sum", "parts": [UNIT, {**STAIRS, "metric": other}]},
        {"metric": calls, "code": "rest", **UNIT, "bucket": "day", "unit_conversion": {"operation": "divide", "factor": "1000"}},
        {"metric": other, "code": "used", **STAIRS, "included": "7", "billing_period": "month"},
        {"code": "seats", "model": "per_unit", "unit_price": "9", "licensed": "seats", "billing_mode": "in_arrears"},
        {"code": "least", "model": "commitment", "amount": "500.00", "overage_factor": "1.5"},
        {"code": "off", "model": "discount", "percent_off": "10", "covers": ["seats"]},
        {"code": "less", "model": "discount", "amount_off": "3.00"},
        {"code": "more", "model": "discount", "tiers": RATES},
    ]
    given = {"code": "written", "name": "Written", "currency": "EUR", "billing_period": "year", "base_price": "99.00", "prices": prices}
    further = {"USD": {"base_price": "109.00", "prices": [{"metric": calls, **UNIT}]}}
    return publish.create_version(session, **given, currencies=further, features={"sso": True}, actor=SYSTEM, at=AT)


def stored(version: PlanVersion) -> list[Any]:
    names = ("code", "name", "kind", "metric_id", "model", "rules", "billing_mode", "licensed", "interval", "interval_count", "included")
    return [tuple(getattr(rule, name) for name in (*names, "covers", "overage_factor", "proration", "currency")) for rule in version.rules]


def test_publishing_it_again_makes_the_same_prices(session: Session) -> None:
    version = published(session)
    again = publish.create_version(session, **written.document(version), actor=SYSTEM, at=AT)
    assert again.version == 2
    assert stored(again) == stored(version)
    assert written.document(again) == written.document(version)
    assert again.features == {"sso": True}


def test_the_editor_keeps_every_key(session: Session) -> None:
    version = published(session)
    given = plan_form.document(plan_form.of_version(version))
    again = publish.create_version(session, **given, actor=SYSTEM, at=AT)
    assert stored(again) == stored(version)
    assert again.features == version.features
