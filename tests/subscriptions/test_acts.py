"""Every act in every status: what it leads to, or a refusal that says what is possible instead."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from core.audit import SYSTEM
from core.errors import InvalidTransition
from core.subscriptions import lifecycle, plan_change, queries, status
from core.subscriptions.models import TRANSITIONS, Subscription, SubscriptionStatus
from core.subscriptions.status import ACTS, Act
from tests.factories import make_organization, make_plan

Status = SubscriptionStatus
BEGUN = datetime(2026, 6, 15, 12, tzinfo=UTC)
NOW = BEGUN + timedelta(hours=1)
LATER = NOW + timedelta(hours=1)

LEADS_TO: dict[Status, dict[Act, Status]] = {
    Status.TRIALING: {
        Act.CHANGE_PLAN: Status.TRIALING, Act.SUSPEND: Status.SUSPENDED, Act.CANCEL: Status.CANCELED, Act.UNDO_CANCEL: Status.TRIALING,
    },
    Status.ACTIVE: {
        Act.CHANGE_PLAN: Status.ACTIVE, Act.PAUSE: Status.PAUSED, Act.SUSPEND: Status.SUSPENDED, Act.CANCEL: Status.CANCELED,
        Act.UNDO_CANCEL: Status.ACTIVE,
    },
    Status.PAST_DUE: {
        Act.CHANGE_PLAN: Status.PAST_DUE, Act.SUSPEND: Status.SUSPENDED, Act.CANCEL: Status.CANCELED, Act.UNDO_CANCEL: Status.PAST_DUE,
    },
    Status.PAUSED: {Act.RESUME: Status.ACTIVE, Act.CANCEL: Status.CANCELED},
    Status.SUSPENDED: {Act.REINSTATE: Status.ACTIVE, Act.CANCEL: Status.CANCELED, Act.UNDO_CANCEL: Status.SUSPENDED},
    Status.CANCELED: {Act.REACTIVATE: Status.ACTIVE},
}  # fmt: skip


def in_status(session: Session, wanted: Status) -> Subscription:
    """A subscription that came to the status by the acts that lead there."""
    plan, organization = make_plan(session), make_organization(session)
    days = 10 if wanted is Status.TRIALING else 0
    row = lifecycle.start(session, organization.id, plan=plan.plan.code, at=BEGUN, actor=SYSTEM, trial_period_days=days)
    match wanted:
        case Status.PAST_DUE:
            status.move(session, row, Status.PAST_DUE, at=NOW, actor=SYSTEM)
        case Status.PAUSED:
            lifecycle.pause(session, row, at=NOW, actor=SYSTEM)
        case Status.SUSPENDED:
            lifecycle.suspend(session, row, at=NOW, actor=SYSTEM, reason="not the customer it said it was")
        case Status.CANCELED:
            lifecycle.cancel(session, row, at=NOW, actor=SYSTEM, when="now")
    session.flush()
    assert row.status == wanted
    return row


def do(session: Session, row: Subscription, act: Act) -> None:
    """The act, at LATER."""
    match act:
        case Act.CHANGE_PLAN:
            plan_change.apply(session, row, to=make_plan(session), at=LATER, actor=SYSTEM)
        case Act.CANCEL:
            lifecycle.cancel(session, row, at=LATER, actor=SYSTEM, when="now")
        case _:
            getattr(lifecycle, act)(session, row, at=LATER, actor=SYSTEM)


@pytest.mark.parametrize("given", list(Status))
def test_every_act(session: Session, given: Status) -> None:
    row = in_status(session, given)
    if given not in (Status.CANCELED, Status.PAUSED):
        lifecycle.cancel(session, row, at=NOW, actor=SYSTEM)  # with its period, so that there is something to undo
    expected = LEADS_TO[given]
    assert set(status.possible(row, LATER)) == set(expected)
    for act in Act:
        savepoint = session.begin_nested()
        if act not in expected:
            with pytest.raises(InvalidTransition) as refused:
                do(session, row, act)
            assert refused.value.status == 409
            assert all(str(possible) in refused.value.message for possible in expected)
        elif act is Act.PAUSE:
            lifecycle.undo_cancel(session, row, at=NOW, actor=SYSTEM)  # a planned end has to be taken back before
            do(session, row, act)
            assert row.status == expected[act]
        else:
            do(session, row, act)
            assert row.status == expected[act]
        savepoint.rollback()
        row = queries.locked(session, row)
        assert row.status == given


def test_the_table_of_acts_goes_no_way_the_table_of_moves_lacks() -> None:
    for before, acts in LEADS_TO.items():
        assert {act for act, allowed in ACTS.items() if before in allowed} == set(acts)
        assert all(after is before or after in TRANSITIONS[before] for after in acts.values())


def test_a_suspension_says_why_and_ends_with_the_status(session: Session) -> None:
    row = in_status(session, Status.SUSPENDED)
    assert (row.suspended_at, row.suspension_cause) == (NOW, "operator")
    lifecycle.reinstate(session, row, at=LATER, actor=SYSTEM)
    session.flush()
    assert (row.suspended_at, row.suspension_cause) == (None, None)
    trial = in_status(session, Status.TRIALING)
    lifecycle.suspend(session, trial, at=NOW, actor=SYSTEM)
    lifecycle.reinstate(session, trial, at=LATER, actor=SYSTEM)
    assert trial.status == Status.TRIALING
    lifecycle.suspend(session, row, at=LATER, actor=SYSTEM)
    lifecycle.cancel(session, row, at=LATER, actor=SYSTEM, when="now")
    session.flush()
    assert (row.status, row.suspended_at) == (Status.CANCELED, None)


def test_an_end_nobody_has_written_down_yet_is_an_end(session: Session) -> None:
    row = in_status(session, Status.ACTIVE)
    lifecycle.cancel(session, row, at=NOW, actor=SYSTEM, when=NOW + timedelta(days=1))
    after = NOW + timedelta(days=2)
    assert status.possible(row, after) == (Act.REACTIVATE,)
    with pytest.raises(InvalidTransition, match="Possible now: reactivate"):
        lifecycle.suspend(session, row, at=after, actor=SYSTEM)
    lifecycle.reactivate(session, row, at=after, actor=SYSTEM)
    assert (row.status, row.ends_at, [term.quantity for term in row.terms]) == ("active", None, [Decimal(1), Decimal(1)])


def test_the_documentation_has_both_tables_as_they_are() -> None:
    text = (Path(__file__).parents[2] / "docs" / "subscriptions.md").read_text()
    for before, after in TRANSITIONS.items():
        [row] = [line for line in text.splitlines() if line.startswith(f"| `{before}` |")]
        assert row.endswith("| " + " ".join(f"`{name}`" for name in sorted(after)) + " |")
    for act, statuses in ACTS.items():
        [row] = [line for line in text.splitlines() if line.startswith(f"| `{act}` |") and "…/" in line]
        assert row.split(" | ")[1] == " ".join(f"`{name}`" for name in sorted(statuses))
