"""Limits on the real road of usage: 64 requests at once, the counting transaction that settles, the endpoint that refuses."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from typing import Any

from core import clock
from core.audit import SYSTEM
from core.db import transaction
from core.entitlements import check, limits, reserve, watch
from core.entitlements.evaluate import evaluate
from core.metering import metrics
from core.metering.models import LimitAction, LimitPeriod, LimitSource
from tests.metering.conftest import Metering, metering  # noqa: F401 - the stack as a fixture
from workers.limits import evaluate_limits


def set_limit(metering: Metering, organization_id: uuid.UUID, code: str, value: int) -> None:  # noqa: F811
    with metering.app.app_context(), transaction() as session:
        limits.set_limit(
            session,
            organization_id,
            metric=metrics.find(session, code),
            value=Decimal(value),
            period=LimitPeriod.MONTHLY,
            action=LimitAction.BLOCK,
            source=LimitSource.OPERATOR,
            actor=SYSTEM,
            at=clock.now(),
            now=clock.now(),
        )


def take(metering: Metering, organization_id: uuid.UUID, code: str, key: str) -> bool:  # noqa: F811
    with metering.app.app_context(), transaction() as session:
        wanted: dict[str, Any] = {"metric": code, "quantity": Decimal(1), "key": key, "expires_in": timedelta(minutes=5)}
        return reserve.consume(session, organization_id, **wanted, at=clock.now()).decision.allowed


def standing(metering: Metering, organization_id: uuid.UUID, code: str) -> tuple[int, int, bool]:  # noqa: F811
    with metering.app.app_context(), transaction() as session:
        found = check.check_metric(session, organization_id, metric=code, quantity=Decimal(1), at=clock.now())
    return int(found.used or 0), int(found.reserved or 0), found.allowed


def test_exactly_as_many_as_the_limit_are_let_through_and_then_refused(metering: Metering) -> None:  # noqa: F811
    organization_id, token = metering.organization()
    other, other_token = metering.organization()
    metering.metric("calls")
    metering.metric("tokens")
    for each in (organization_id, other):
        set_limit(metering, each, "calls", 50)

    keys = [f"k{i}" for i in range(64)]
    with ThreadPoolExecutor(64) as threads:
        allowed = list(threads.map(lambda key: take(metering, organization_id, "calls", key), keys))
    assert sum(allowed) == 50
    assert standing(metering, organization_id, "calls") == (0, 50, False)
    assert standing(metering, other, "calls") == (0, 0, True)

    held = [key for key, mine in zip(keys, allowed, strict=True) if mine]
    metering.send(token, [{"metric": "calls", "idempotency_key": key} for key in held])
    metering.count()
    assert standing(metering, organization_id, "calls") == (50, 0, False)
    assert not take(metering, organization_id, "calls", "one more")

    with metering.app.app_context():
        evaluate_limits()  # the counting transaction left word that this customer's usage changed
    with metering.app.app_context(), transaction() as session:
        [state] = limits.states(session, organization_id)
        assert (state.used, state.overshoot) == (50, 0)
        assert state.delay_seconds is not None
        assert limits.states(session, other) == []

    refusal: list[Any] = []

    def refused() -> bool:
        refusal[:] = metering.post(token, {"metric": "calls", "idempotency_key": f"late {uuid.uuid4()}".replace(" ", "-")})
        return refusal[0] == 422

    metering.until(refused)  # accepting looks once a second
    assert refusal[1]["events"][0]["code"] == "limit_reached"
    mixed = [{"metric": name, "idempotency_key": f"{name}-{i}"} for i in range(8) for name in ("calls", "tokens")]
    answer = metering.send(token, mixed)
    assert (answer["accepted"], answer["rejected"]) == (8, 8)
    earlier = (clock.now() - timedelta(days=33)).isoformat()
    assert metering.post(token, {"metric": "calls", "idempotency_key": "earlier", "timestamp": earlier})[0] == 202
    assert metering.post(other_token, {"metric": "calls", "idempotency_key": "other"})[0] == 202

    set_limit(metering, organization_id, "calls", 1000)
    metering.until(lambda: not refused())
    metering.count()
    counted, duplicates = metering.rows("SELECT counted, duplicates FROM usage_totals")[0]
    assert (counted, duplicates) == (metering.value("SELECT count(*) FROM usage_events"), 0)


def test_looking_twice_at_once_tells_once(metering: Metering) -> None:  # noqa: F811
    organization_id, token = metering.organization()
    metering.metric("pages")
    set_limit(metering, organization_id, "pages", 10)
    metering.send(token, [{"metric": "pages", "idempotency_key": f"p{i}"} for i in range(9)])
    metering.count()

    def look(_: int) -> None:
        with metering.app.app_context(), transaction() as session:
            evaluate(session, [organization_id], at=clock.now(), actor=SYSTEM)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(look, range(8)))
    told = "SELECT count(*) FROM audit_events WHERE organization_id = %s AND kind = 'limit.warned'"
    assert metering.value(told, organization_id) == 1
    with metering.app.app_context(), transaction() as session:
        assert organization_id in watch.claim(session, at=clock.now())
