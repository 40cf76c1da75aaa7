"""Another definition of a metric: proposed, counted beside it, compared in usage and money, then applied or discarded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from flask import g, request, url_for
from werkzeug.wrappers import Response

from admin import blueprint, metric_form
from admin.reason import why
from core import clock
from core.db import db, transaction
from core.errors import BillingError, FieldError, Invalid
from core.invoicing import revision_effect
from core.invoicing.revision_effect import RevisionEffect
from core.metering import instants, metrics
from core.metering.models import Metric
from core.metering.revisions import proposing, settling
from core.metering.revisions.models import MetricRevision, RevisionStatus
from web.auth import requires
from web.forms import once
from web.htmx import page


@blueprint.get("/catalog/metrics/<code>/revise")
@requires("catalog.change")
def revise_metric(code: str) -> Response:
    """The form, filled with what the metric says."""
    found = metrics.find(db.session(), code)
    return _form(found, {**metric_form.shown(found), "since": "", "reason": ""})


@blueprint.post("/catalog/metrics/<code>/revise")
@requires("catalog.change")
def do_revise_metric(code: str) -> Response:
    """Begin to count the other definition; nothing changes yet."""
    found = metrics.find(db.session(), code)
    form = {**metric_form.posted(), **{name: request.form.get(name, "").strip() for name in ("since", "reason")}}

    def work() -> str:
        given = {"since": _since(form["since"]), "reason": why(), "actor": g.actor, "at": clock.now()}
        made = proposing.propose(db.session(), found, **given, **metric_form.counted(form))
        return url_for("admin.metric_revision", code=code, revision_id=made.id)

    try:
        return once(work)
    except BillingError as error:
        return _form(found, form, metric_form.errors_of(error), status=error.status)


@blueprint.get("/catalog/metrics/<code>/revisions/<uuid:revision_id>")
@requires("catalog.view")
def metric_revision(code: str, revision_id: UUID) -> Response:
    """What it says beside what the metric says, how far it is counted, and what it would change."""
    found = metrics.find(db.session(), code)
    return _show(found, proposing.get(db.session(), found, revision_id))


@blueprint.post("/catalog/metrics/<code>/revisions/<uuid:revision_id>/apply")
@requires("catalog.change")
def apply_metric_revision(code: str, revision_id: UUID) -> Response:
    """Let it hold; a refusal is shown on the same page."""
    return _settle(code, revision_id, revision_effect.apply)


@blueprint.post("/catalog/metrics/<code>/revisions/<uuid:revision_id>/discard")
@requires("catalog.change")
def discard_metric_revision(code: str, revision_id: UUID) -> Response:
    """Give it up."""
    return _settle(code, revision_id, settling.discard)


def _settle(code: str, revision_id: UUID, act: Callable[..., object]) -> Response:
    found = metrics.find(db.session(), code)
    revision = proposing.get(db.session(), found, revision_id)

    def work() -> str:
        act(db.session(), revision, actor=g.actor, at=clock.now())
        return url_for("admin.metric", code=code)

    try:
        return once(work)
    except BillingError as error:
        return _show(found, proposing.get(db.session(), found, revision_id), error)


def _show(found: Metric, revision: MetricRevision, error: BillingError | None = None) -> Response:
    is_open = revision.status == RevisionStatus.OPEN
    effect: RevisionEffect | None = None
    if is_open and revision.counted_at is not None and error is None:
        with transaction():
            effect = revision_effect.apply(db.session(), revision, actor=g.actor, at=clock.now(), dry_run=True)
    return page(
        "admin/catalog/revision.html",
        status=error.status if error else 200,
        current="metrics",
        metric=found,
        revision=revision,
        pairs=_pairs(found, revision),
        effect=effect,
        rated_max=revision_effect.RATED_MAX,
        errors=metric_form.errors_of(error) if error else {},
    )


def _pairs(found: Metric, revision: MetricRevision) -> list[tuple[str, str, str]]:
    """What differs: name of the field, what the metric says, what the revision says."""
    one, other = metric_form.shown(found), metric_form.shown(revision)
    names = [*metric_form.COUNTED, *metric_form.RESTS]
    return [(name.replace("_", " "), one[name], other[name]) for name in names if one[name] != other[name]]


def _since(text: str) -> datetime | None:
    try:
        return instants.instant(instants.parse(text)) if text else None
    except instants.BadTimestamp as error:
        raise Invalid("The form cannot be read.", errors=(FieldError("/since", f"The time {error}."),)) from error


def _form(found: Metric, form: Mapping[str, Any], errors: Mapping[str, str] | None = None, status: int = 200) -> Response:
    given: dict[str, Any] = {"metric": found, "form": form, "errors": errors or {}, "choices": metric_form.CHOICES}
    return page("admin/catalog/revise_metric.html", current="metrics", status=status, **given)
