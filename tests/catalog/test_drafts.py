"""Drafts of plan versions: several people, gaps, a second person, a version published meanwhile; discarded ones stay in the trail."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core import config
from core.audit import Actor, AuditEvent
from core.catalog import drafts, publish
from core.catalog.draft_models import PlanDraft
from core.catalog.models import PlanVersion
from core.errors import BillingError, Conflict, Forbidden, Invalid, InvalidTransition
from tests.conftest import DEFAULT_NOW as AT

MARA, JON = (Actor("operator", str(n), name) for n, name in ((1, "Mara"), (2, "Jon")))
WHOLE: dict[str, Any] = {"code": "pro", "name": "Pro", "currency": "EUR", "base_price": "90.00", "prices": []}
HALF: dict[str, Any] = {"code": "pro", "prices": [{"model": "graduated", "tiers": [{"up_to": "many"}]}]}


def begin(session: Session, document: dict[str, Any] = WHOLE, actor: Actor = MARA) -> PlanDraft:
    live = drafts.live_version(session, document.get("code", ""))
    return drafts.create(session, name="Autumn", document=document, based_on=live, actor=actor, at=AT)


def facts(session: Session, draft: PlanDraft, kind: str) -> list[AuditEvent]:
    return list(session.scalars(select(AuditEvent).where(AuditEvent.subject_id == str(draft.id), AuditEvent.kind == f"plan_draft.{kind}")))


def test_a_draft_has_gaps_and_every_fault_is_told(session: Session) -> None:
    draft = begin(session, HALF)
    assert {fault.pointer for fault in drafts.faults(session, draft.document)} == {"/name", "/currency", "/prices/0/tiers/0/up_to"}
    with pytest.raises(Invalid):
        drafts.publish_draft(session, draft.id, revision=1, actor=MARA, at=AT)
    assert session.scalar(select(func.count()).select_from(PlanVersion)) == 0
    drafts.save(session, draft.id, revision=1, name="Autumn", document=WHOLE, actor=JON, at=AT)
    [fact] = facts(session, draft, "saved")
    assert (fact.data["before"]["/name"], fact.data["after"]["/name"]) == (None, "Pro")
    version = drafts.publish_draft(session, draft.id, revision=2, actor=MARA, at=AT)
    assert (version.plan.code, version.version, draft.status, draft.plan_version_id) == ("pro", 1, "published", version.id)
    assert facts(session, draft, "published")[0].data["changed_by"] == ["Mara", "Jon"]
    with pytest.raises(InvalidTransition):
        drafts.save(session, draft.id, revision=3, name="", document=HALF, actor=JON, at=AT)


def test_nobody_overwrites_what_they_have_not_seen(session: Session) -> None:
    draft = begin(session)
    drafts.save(session, draft.id, revision=1, name="Autumn", document={**WHOLE, "base_price": "95"}, actor=JON, at=AT)
    for late in (
        lambda: drafts.save(session, draft.id, revision=1, name="Autumn", document=WHOLE, actor=MARA, at=AT),
        lambda: drafts.publish_draft(session, draft.id, revision=1, actor=MARA, at=AT),
        lambda: drafts.discard(session, draft.id, revision=1, note="", actor=MARA, at=AT),
    ):
        with pytest.raises(Conflict, match="Jon has changed this draft") as refused:
            late()
        assert refused.value.code == "changed_meanwhile"
    assert drafts.get(session, draft.id).document["base_price"] == "95"


def test_a_second_person_publishes_where_the_setting_says_so(session: Session) -> None:
    before = config.current()
    config.use(replace(before, catalog_second_person=True))
    try:
        draft = begin(session)
        drafts.save(session, draft.id, revision=1, name="Autumn", document={**WHOLE, "base_price": "95"}, actor=JON, at=AT)
        drafts.propose(session, draft.id, revision=2, actor=JON, at=AT)
        for editor in (MARA, JON):
            with pytest.raises(Forbidden) as refused:
                drafts.publish_draft(session, draft.id, revision=3, actor=editor, at=AT)
            assert refused.value.code == "second_person_needed"
        checker = Actor("operator", "3", "Ada")
        drafts.send_back(session, draft.id, revision=3, note="Round it", actor=checker, at=AT)
        drafts.propose(session, draft.id, revision=4, actor=JON, at=AT)
        assert drafts.publish_draft(session, draft.id, revision=5, actor=checker, at=AT).base_price == 95
    finally:
        config.use(before)


def test_a_version_published_meanwhile_is_not_undone_unseen(session: Session) -> None:
    publish.create_version(session, **drafts.arguments(WHOLE), actor=JON, at=AT)
    draft = begin(session, {**WHOLE, "base_price": "95"})
    newer = publish.create_version(session, **drafts.arguments({**WHOLE, "base_price": "80"}), actor=JON, at=AT)
    with pytest.raises(Conflict, match="version 2"):
        drafts.publish_draft(session, draft.id, revision=1, actor=MARA, at=AT)
    drafts.rebase(session, draft.id, revision=1, actor=MARA, at=AT)
    assert draft.based_on_id == newer.id
    assert drafts.publish_draft(session, draft.id, revision=2, actor=MARA, at=AT).version == 3


def test_what_is_discarded_stays_in_the_trail(session: Session) -> None:
    draft = begin(session)
    drafts.discard(session, draft.id, revision=1, note="Too early", actor=JON, at=AT)
    [fact] = facts(session, draft, "discarded")
    assert (fact.data["document"], fact.reason, fact.actor_label) == (WHOLE, "Too early", "Jon")
    assert drafts.page(session) == []
    assert [row.id for row in drafts.page(session, every=True)] == [draft.id]


@pytest.mark.parametrize(
    "document", [{"code": "x", "metadata": {"a": "\x00"}}, {"name": "x" * 300_000}, {"a": [[[[[[[[[[[[[1]]]]]]]]]]]]]}]
)
def test_what_cannot_be_stored_is_refused(session: Session, document: dict[str, Any]) -> None:
    with pytest.raises(BillingError):
        begin(session, document)
