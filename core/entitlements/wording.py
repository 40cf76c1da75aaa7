"""Limits in words: for mails, pages and the audit trail."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from core import rendering
from core.entitlements.bounds import PLAN, Bound
from core.entitlements.facts import Facts
from core.entitlements.standing import Standing
from core.metering.models import LimitAction, LimitPeriod

PERIODS = {
    LimitPeriod.DAILY.value: "a day",
    LimitPeriod.MONTHLY.value: "a month",
    LimitPeriod.TOTAL.value: "in total",
    "billing_period": "a billing period",
}


def name(bound: Bound) -> str:
    """What the limit is called: "Input tokens a month", "Spend cap", "Spend alert"."""
    if bound.metric is None:
        return "Spend cap" if bound.blocks else "Spend alert"
    return f"{bound.metric.name} {PERIODS[bound.period]}"


def amount(bound: Bound, value: Decimal, locale: str) -> str:
    """A quantity of the limit's metric, or money."""
    if bound.metric is None:
        return rendering.money(int(value), bound.currency or "", locale)
    return rendering.quantity(value, bound.metric.unit, locale)


def consequence(facts: Facts, bound: Bound) -> str:
    """What happens at 100 %, in a sentence."""
    end = bound.window.end
    until = f"until {rendering.datetime_tz(end, facts.timezone, facts.locale)} or until it is raised" if end else "until it is raised"
    if bound.action is LimitAction.BLOCK:
        return f"Past it new usage is refused {until}."
    if bound.action is LimitAction.ALLOW_OVERAGE:
        return "Past it usage goes on and is charged at your plan's prices."
    return "We tell you. Nothing is stopped."


def set_by(bound: Bound, brand: str) -> str:
    """Who set it."""
    return {PLAN: "your plan", "operator": brand}.get(bound.source, "your team")


def told(facts: Facts, one: Standing) -> dict[str, Any]:
    """What a mail says about a limit, JSON-able."""
    bound = one.bound
    return {
        "limit": name(bound),
        "value": amount(bound, bound.value, facts.locale),
        "used": amount(bound, one.used, facts.locale),
        "percent": int(one.fraction * 100),
        "action": bound.action.value,
        "consequence": consequence(facts, bound),
        "stopped": one.reached and bound.blocks,
        "window_start": bound.window.start,
        "window_end": bound.window.end,
    }
