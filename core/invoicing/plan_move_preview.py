"""The preview of a move of many subscriptions: who runs on the version, what moving each makes due, what a period costs then."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from core import config
from core.errors import BillingError
from core.identity.models import Organization
from core.invoicing import rating, simulation
from core.invoicing.plan_move_models import ItemState, MoveStatus, PlanMove, PlanMoveItem
from core.invoicing.preview import ISSUED_OR_DRAFTED
from core.invoicing.rating import Subject
from core.pricing.terms import Term
from core.subscriptions import plan_change, timeline
from core.subscriptions.models import Subscription, SubscriptionTerm
from core.subscriptions.status import ACTS, Act

PREVIEW_SET_SIZE = 500


class Flag(StrEnum):
    """Why a person should look: the next period costs more by over the move's percentage, the subscription ends, it has a change planned,
    it is inside an agreed contract. The last three are held back until somebody releases them.
    """

    INCREASE = "increase"
    UNDER_NOTICE = "under_notice"
    CHANGE_PLANNED = "change_planned"
    UNDER_CONTRACT = "under_contract"


def members(version_id: uuid.UUID, at: datetime) -> Any:
    """Subscriptions in real time that run on the version at the instant and whose plan may change."""
    term = SubscriptionTerm
    runs = (term.start_at <= at) & (term.end_at.is_(None) | (term.end_at > at))
    return (
        select(Subscription)
        .join(term, term.subscription_id == Subscription.id)
        .join(Organization, Organization.id == Subscription.organization_id)
        .where(
            term.plan_version_id == version_id, runs, Subscription.status.in_(ACTS[Act.CHANGE_PLAN]), Organization.test_clock_id.is_(None)
        )
    )


def preview_set(session: Session, move: PlanMove) -> bool:
    """Preview the next set of a locked move; False when all have been and it waits for review."""
    wanted = members(move.from_version_id, move.as_of).order_by(Subscription.id).limit(PREVIEW_SET_SIZE)
    if move.reached_id is not None:
        wanted = wanted.where(Subscription.id > move.reached_id)
    found: list[Subscription] = list(session.scalars(wanted))
    if not found:
        move.status = MoveStatus.REVIEW.value
        return False
    items = [_item(move, subscription) for subscription in found]
    _price(session, move, [(item, one) for item, one in zip(items, found, strict=True) if item.state != ItemState.FAILED])
    session.add_all(items)
    move.reached_id = found[-1].id
    return True


def _item(move: PlanMove, subscription: Subscription) -> PlanMoveItem:
    when = move.effective_on or move.timing
    item = PlanMoveItem(
        move_id=move.id,
        subscription_id=subscription.id,
        organization_id=subscription.organization_id,
        currency=subscription.currency,
        state=ItemState.READY.value,
        flags=[],
    )
    try:
        item.effective_at = plan_change.effective_at(subscription, when, at=move.as_of)
        plan_change.proposed_terms(subscription, move.to_version, None, item.effective_at, at=move.as_of)
    except BillingError as error:
        item.state, item.detail = ItemState.FAILED.value, in_words(error)
        return item
    contract = subscription.contract_ends_at
    reasons = {
        Flag.UNDER_NOTICE: subscription.ends_at is not None,
        Flag.CHANGE_PLANNED: plan_change.scheduled_change(subscription, at=move.as_of) is not None,
        Flag.UNDER_CONTRACT: contract is not None and contract > item.effective_at,
    }
    item.flags = [flag.value for flag, holds in reasons.items() if holds]
    if item.flags:
        item.state = ItemState.HELD.value
    return item


def _price(session: Session, move: PlanMove, pairs: Sequence[tuple[PlanMoveItem, Subscription]]) -> None:
    """What the change makes due at once, and what a period costs before and after, each read for the whole set at once."""
    to = move.to_version
    subjects = [_subject(one, timeline.terms(timeline.spans(one)), move) for _, one in pairs]
    at_once = [one for item, one in pairs if item.effective_at == move.as_of]
    due = _due(session, [_subject(one, plan_change.proposed_terms(one, to, None, move.as_of, at=move.as_of), move) for one in at_once])
    due_anyway = _due(session, [subject for subject in subjects if subject.subscription_id in due])
    rules = {currency: timeline.rules(to, currency) for currency in {subject.currency for subject in subjects}}
    compared = simulation.compare_many(session, subjects, to, periods=1, rules=rules) if subjects else []
    for (item, _), found in zip(pairs, compared, strict=True):
        item.due_minor = due.get(item.subscription_id, 0) - due_anyway.get(item.subscription_id, 0)
        if found.periods:
            item.present_minor, item.next_minor = found.own_minor, found.minor
            if (found.minor - found.own_minor) * 100 > move.increase_percent * abs(found.own_minor):
                item.flags = [Flag.INCREASE.value, *item.flags]


def _due(session: Session, subjects: Sequence[Subject]) -> dict[uuid.UUID, int]:
    rated = rating.rate(session, subjects, adjustment_days=config.current().adjustment_days, uncounted=ISSUED_OR_DRAFTED)
    return {entry.subject.subscription_id: sum(line.minor for line in entry.items) for entry in rated}


def _subject(subscription: Subscription, terms: tuple[Term, ...], move: PlanMove) -> Subject:
    return Subject(subscription.id, subscription.organization_id, subscription.currency, terms, move.as_of)


def in_words(error: BaseException) -> str:
    """Why it could not be done, for a person."""
    if not isinstance(error, BillingError):
        return f"{type(error).__name__}: {error}"
    return " ".join([error.message, *(item.detail for item in error.errors)])
