"""What the page of a subscription shows beside its rows: its timeline drawn, its next invoices, what was agreed and until when it binds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from core.catalog import queries as catalog
from core.catalog.models import PlanVersion
from core.identity.models import Organization
from core.invoicing import outlook
from core.subscriptions import agreement, timeline
from core.subscriptions.models import Subscription, SubscriptionStatus, SubscriptionTerm
from core.subscriptions.status import present, resumes_at
from web import lifeline, standing
from web.plan_words import rule_words
from web.price_words import Words


@dataclass(frozen=True, slots=True)
class Agreed:
    """A price of this customer beside the plan's: its name, what was agreed, what the list says (() where it has none)."""

    name: str
    agreed: Words
    listed: Words


def shown(session: Any, row: Subscription, owner: Organization, at: datetime) -> dict[str, Any]:
    """The context of the page."""
    bound = bound_until(row, at)
    lanes = lifeline.lanes(row, at=at, bound_until=bound)
    said = standing.sentence(row, at=at, zone=owner.timezone)
    over = present(row, at) is SubscriptionStatus.CANCELED
    terms = timeline.terms(timeline.spans(row))
    special = next((held for held in row.terms if _special(held) and (held.end_at is None or held.end_at > at)), None)
    return {
        "standing": said,
        "drawing": lifeline.drawing(lanes, at=at, zone=owner.timezone, sentence=f"{row.plan.name} of {owner.name}. {said}")
        if lanes
        else "",
        "upcoming": () if over or not terms else outlook.upcoming(session, owner, row, terms, as_of=at),
        "agreed": agreed_prices(session, special.plan_version, row.currency) if special else [],
        "agreed_from": special.start_at if special and special.start_at > at else None,
        "bound_until": bound,
        "notice_by": bound - timedelta(days=row.notice_days) if bound and row.contract_renews else None,
        "resumes": resumes_at(row, at),
    }


def _special(term: SubscriptionTerm) -> bool:
    return term.plan_version.organization_id is not None


def bound_until(row: Subscription, at: datetime) -> datetime | None:
    """The end of the contract term in which a cancellation now would hold; None when nothing binds."""
    spans = timeline.spans(row)
    return agreement.bound_until(row, spans, at) if spans else None


def agreed_prices(session: Any, version: PlanVersion, currency: str) -> list[Agreed]:
    """The prices of a negotiated version that are not those of the list it was made from; [] for a version of the list."""
    if version.organization_id is None:
        return []
    older = [other for other in catalog.plan(session, version.plan.code).versions if other.version < version.version]
    listed = {rule.code: rule for rule in older[-1].rules_in(currency)} if older else {}
    found = []
    for rule in version.rules_in(currency):
        unit, was = rule.metric.unit if rule.metric else "", listed.get(rule.code)
        now, before = rule_words(rule, currency, unit), rule_words(was, currency, unit) if was else ()
        if now != before:
            found.append(Agreed(rule.name, now, before))
    return found
