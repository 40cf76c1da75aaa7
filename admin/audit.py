"""The audit trail of the whole house: search, difference, the state of the hash chain, its proof on demand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from flask import request
from werkzeug.wrappers import Response

from admin import blueprint
from core import audit as trail
from core.db import db
from core.identity.queries import as_uuid
from web import pagination
from web.audit_view import changes
from web.auth import requires
from web.downloads import csv_file
from web.htmx import page

EXPORT_ROWS_MAX = 10_000


@blueprint.get("/audit")
@requires("audit.view")
def audit() -> Response:
    """What was done, by whom, to what; newest first."""
    wanted, shown = _wanted()
    rows = trail.search(db.session(), wanted, after=as_uuid(pagination.after() or ""), limit=pagination.PAGE_ROWS + 1)
    found = pagination.paginate(rows, key=lambda row: row.id)
    return page(
        "admin/audit/index.html",
        partial="admin/audit/_rows.html" if pagination.after() else "admin/audit/_list.html",
        current="audit",
        rows=found,
        changes={row.id: changes(row.data, "EUR") for row in found.rows},
        shown=shown,
        chain=trail.chain_state(db.session()),
        announce=f"{len(found.rows)} entries",
    )


@blueprint.get("/audit/proof")
@requires("audit.view")
def audit_proof() -> Response:
    """Walk the whole chain and say whether it holds; reads only."""
    broken = trail.broken_links(db.session())
    return page("admin/audit/proof.html", current="audit", broken=broken, chain=trail.chain_state(db.session()))


@blueprint.get("/audit.csv")
@requires("audit.view")
def audit_csv() -> Response:
    """The same search as a file, at most 10,000 entries."""
    head = (
        "at",
        "recorded_at",
        "organization",
        "actor_kind",
        "actor",
        "what",
        "subject",
        "subject_id",
        "data",
        "reason",
        "ip",
        "request_id",
    )
    rows = trail.search(db.session(), _wanted()[0], limit=EXPORT_ROWS_MAX)
    return csv_file("audit", head, (_line(row) for row in rows))


def _line(row: trail.AuditEvent) -> tuple[Any, ...]:
    who = (row.organization_id, row.actor_kind, row.actor_label)
    what = (row.kind, row.subject_type, row.subject_id, row.data, row.reason, row.ip, row.request_id)
    return (row.at, row.recorded_at, *who, *what)


def _wanted() -> tuple[trail.Search, dict[str, str]]:
    """The search, and the form's words as they were given; a day that cannot be read does not narrow."""
    shown = {name: request.args.get(name, "").strip() for name in ("q", "account", "since", "until")}
    until = _day(shown["until"])
    return trail.Search(
        text=shown["q"],
        organization_id=as_uuid(shown["account"]),
        since=_day(shown["since"]),
        until=until + timedelta(days=1) if until else None,
    ), shown


def _day(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:
        return None
