"""Drafts of plan versions: saved with gaps, by several people, compared, published once; what is discarded stays in the audit trail.

Two people who edit the same draft do not overwrite each other: each saving names the revision it was made from. With the setting
`catalog_second_person` a version is published by somebody who has not changed its draft.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from core import audit, config
from core.audit import Actor
from core.catalog import publish, queries
from core.catalog.draft_document import changes, code_of, name_of, note_of, storable
from core.catalog.draft_models import DraftStatus, PlanDraft
from core.catalog.models import PlanVersion
from core.catalog.plan_document import read_plan
from core.db import new_id
from core.errors import Conflict, FieldError, Forbidden, Invalid, InvalidTransition, NotFound

PAGE_SIZE_MAX = 200
BEING_WRITTEN = (DraftStatus.OPEN, DraftStatus.PROPOSED)


def create(
    session: Session,
    *,
    name: str,
    document: Mapping[str, object],
    actor: Actor,
    at: datetime,
    based_on: PlanVersion | None = None,
    usage: Mapping[str, object] | None = None,
) -> PlanDraft:
    """A new draft; the document may be incomplete. Invalid for a name or a document that cannot be stored."""
    kept = storable(document)
    draft = PlanDraft(
        id=new_id(),
        status=DraftStatus.OPEN.value,
        name=name_of(name, kept),
        plan_code=code_of(kept),
        based_on_id=based_on.id if based_on else None,
        document=kept,
        usage=dict(usage or {}),
        revision=1,
        editors=[_editor(actor)],
        created_by=actor.label,
        created_at=at,
        updated_by=actor.label,
        updated_at=at,
    )
    session.add(draft)
    session.flush()
    audit.record(session, actor, "plan_draft.created", draft, at=at, name=draft.name, code=draft.plan_code)
    return draft


def save(
    session: Session,
    draft_id: uuid.UUID,
    *,
    revision: int,
    name: str,
    document: Mapping[str, object],
    actor: Actor,
    at: datetime,
    usage: Mapping[str, object] | None = None,
) -> PlanDraft:
    """Store what was written from `revision` on. Conflict `changed_meanwhile` when somebody saved since; a proposed draft is open again."""
    draft = _locked(session, draft_id, revision)
    kept = storable(document)
    before, after = changes(draft.document, kept)
    named = name_of(name, kept)
    if usage is not None:
        draft.usage = dict(usage)
    if not after and not before and named == draft.name:
        return draft
    draft.name, draft.document, draft.plan_code = named, kept, code_of(kept)
    draft.status = DraftStatus.OPEN.value
    draft.editors = [*(known for known in draft.editors if known["id"] != actor.id), _editor(actor)]
    _touch(draft, actor, at)
    audit.record(session, actor, "plan_draft.saved", draft, at=at, name=draft.name, revision=draft.revision, before=before, after=after)
    return draft


def propose(session: Session, draft_id: uuid.UUID, *, revision: int, actor: Actor, at: datetime) -> PlanDraft:
    """Ask somebody else to publish it. Invalid with every fault of the document."""
    draft = _locked(session, draft_id, revision)
    if draft.status != DraftStatus.OPEN:
        raise InvalidTransition("The draft already waits to be published.")
    publish.unpublished(session, arguments(draft.document))
    draft.status, draft.note = DraftStatus.PROPOSED.value, ""
    _touch(draft, actor, at)
    audit.record(session, actor, "plan_draft.proposed", draft, at=at, name=draft.name, code=draft.plan_code)
    return draft


def send_back(session: Session, draft_id: uuid.UUID, *, revision: int, note: str, actor: Actor, at: datetime) -> PlanDraft:
    """Let a proposed draft be written on, saying why."""
    draft = _locked(session, draft_id, revision)
    if draft.status != DraftStatus.PROPOSED:
        raise InvalidTransition("Only a draft that waits to be published is sent back.")
    draft.status, draft.note = DraftStatus.OPEN.value, note_of(note)
    _touch(draft, actor, at)
    audit.record(session, actor, "plan_draft.sent_back", draft, at=at, name=draft.name, reason=draft.note or None)
    return draft


def discard(session: Session, draft_id: uuid.UUID, *, revision: int, note: str, actor: Actor, at: datetime) -> PlanDraft:
    """Give the draft up; its document stays in the audit event."""
    draft = _locked(session, draft_id, revision)
    draft.note = note_of(note)
    _close(draft, DraftStatus.DISCARDED, actor, at)
    audit.record(session, actor, "plan_draft.discarded", draft, at=at, name=draft.name, reason=draft.note or None, document=draft.document)
    return draft


def publish_draft(session: Session, draft_id: uuid.UUID, *, revision: int, actor: Actor, at: datetime) -> PlanVersion:
    """The draft as the next version of its plan. Invalid with every fault; Forbidden `second_person_needed` for one of its editors."""
    draft = _locked(session, draft_id, revision)
    if needs_second_person() and any(known["id"] == actor.id for known in draft.editors):
        raise Forbidden("You have changed this draft; somebody else has to publish it.", code="second_person_needed")
    newest = newer_version(session, draft)
    if newest is not None:
        detail = f"version {newest.version} was published after this draft was begun; compare, and save the draft to go on from it"
        raise Conflict(f"Meanwhile {detail}.", code="changed_meanwhile")
    version = publish.create_version(session, **arguments(draft.document), actor=actor, at=at)
    draft.plan_version_id = version.id
    _close(draft, DraftStatus.PUBLISHED, actor, at)
    audit.record(
        session, actor, "plan_draft.published", draft, at=at, name=draft.name, version=version.version,
        changed_by=[known["label"] for known in draft.editors],
    )  # fmt: skip
    return version


def rebase(session: Session, draft_id: uuid.UUID, *, revision: int, actor: Actor, at: datetime) -> PlanDraft:
    """Take note of the version published since: the draft is compared with it and may follow it."""
    draft = _locked(session, draft_id, revision)
    newest = newer_version(session, draft)
    if newest is not None:
        draft.based_on_id = newest.id
        _touch(draft, actor, at)
        audit.record(session, actor, "plan_draft.rebased", draft, at=at, name=draft.name, version=newest.version)
    return draft


def needs_second_person() -> bool:
    """Whether prices are published by somebody who has not written them."""
    return config.current().catalog_second_person


def arguments(document: Mapping[str, object]) -> dict[str, Any]:
    """The document as arguments of publish.create_version. Invalid for a key that a plan does not have."""
    if unknown := sorted(document.keys() - publish.PLAN_KEYS):
        raise Invalid("A plan has no such key.", errors=tuple(FieldError(f"/{key}", "is not a key of a plan") for key in unknown))
    needed = {"code": "", "name": "", "currency": "", "billing_period": "month", "base_price": "0"}
    return {**needed, **document}


def faults(session: Session, document: Mapping[str, object]) -> tuple[FieldError, ...]:
    """What keeps the document from being published; () when nothing does."""
    try:
        read_plan(arguments(document), publish.metrics_by_code(session))
    except Invalid as error:
        return error.errors or (FieldError("", error.message),)
    return ()


def get(session: Session, draft_id: uuid.UUID) -> PlanDraft:
    """One draft as committed last; NotFound."""
    return _get(session, draft_id, lock=False)


def page(session: Session, *, plan_code: str = "", every: bool = False, limit: int = 50) -> Sequence[PlanDraft]:
    """Drafts that are written on, or `every` one, of a plan or of all; changed last first."""
    wanted = _wanted(plan_code, every=every).order_by(PlanDraft.updated_at.desc(), PlanDraft.id.desc())
    return session.scalars(wanted.limit(min(limit, PAGE_SIZE_MAX))).all()


def listing(
    session: Session, *, plan_code: str = "", every: bool = False, after: uuid.UUID | None = None, limit: int
) -> Sequence[PlanDraft]:
    """The same, newest first, those begun before `after`."""
    wanted = _wanted(plan_code, every=every)
    if after is not None:
        wanted = wanted.where(PlanDraft.id < after)
    return session.scalars(wanted.order_by(PlanDraft.id.desc()).limit(min(limit, PAGE_SIZE_MAX))).all()


def _wanted(plan_code: str, *, every: bool) -> Select[PlanDraft]:
    wanted = select(PlanDraft)
    if plan_code:
        wanted = wanted.where(PlanDraft.plan_code == plan_code)
    return wanted if every else wanted.where(PlanDraft.status.in_(BEING_WRITTEN))


def newer_version(session: Session, draft: PlanDraft) -> PlanVersion | None:
    """The version on offer of the draft's plan, when it is another one than the draft was begun from."""
    live = live_version(session, draft.plan_code)
    return live if live is not None and live.id != draft.based_on_id else None


def live_version(session: Session, code: str) -> PlanVersion | None:
    """The newest version of the plan, or None for a plan nobody has published."""
    try:
        versions = queries.plan(session, code).versions
    except NotFound:
        return None
    return max(versions, key=lambda version: version.version, default=None)


def _get(session: Session, draft_id: uuid.UUID, *, lock: bool) -> PlanDraft:
    wanted = select(PlanDraft).where(PlanDraft.id == draft_id).execution_options(populate_existing=True)
    found = session.scalars(wanted.with_for_update(of=PlanDraft) if lock else wanted).one_or_none()
    if found is None:
        raise NotFound("There is no such draft.")
    return found


def _locked(session: Session, draft_id: uuid.UUID, revision: int) -> PlanDraft:
    draft = _get(session, draft_id, lock=True)
    if draft.status not in BEING_WRITTEN:
        raise InvalidTransition(f"The draft was {draft.status} by {draft.closed_by}.")
    if draft.revision != revision:
        raise Conflict(f"{draft.updated_by} has changed this draft meanwhile.", code="changed_meanwhile")
    return draft


def _touch(draft: PlanDraft, actor: Actor, at: datetime) -> None:
    draft.revision += 1
    draft.updated_by, draft.updated_at = actor.label, at


def _close(draft: PlanDraft, status: DraftStatus, actor: Actor, at: datetime) -> None:
    draft.status = status.value
    draft.closed_by, draft.closed_at = actor.label, at
    _touch(draft, actor, at)


def _editor(actor: Actor) -> dict[str, str]:
    return {"id": actor.id, "label": actor.label}
