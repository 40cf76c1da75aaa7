"""Mails: what was sent to whom, as it was rendered, and what became of it."""

from __future__ import annotations

from flask import request
from werkzeug.wrappers import Response

from admin import blueprint
from core.db import db
from core.notifications import queries
from core.notifications.models import NotificationStatus
from web import pagination
from web.auth import requires
from web.htmx import page

STATUSES = (("", "All"), *((status.value, status.value.capitalize()) for status in NotificationStatus))


@blueprint.get("/mails")
@requires("accounts.view")
def mails() -> Response:
    """Newest first, of every account."""
    chosen = request.args.get("status", "")
    after = pagination.after() or ""
    rows = queries.all_notifications(
        db.session(),
        status=NotificationStatus(chosen) if chosen in dict(STATUSES[1:]) else None,
        before_id=int(after) if after.isascii() and after.isdigit() and len(after) < 19 else None,
        limit=pagination.PAGE_ROWS + 1,
    )
    return page(
        "admin/mails/index.html",
        partial="admin/mails/_rows.html" if after else "admin/mails/_list.html",
        current="mails",
        rows=pagination.paginate(rows, key=lambda row: row.id),
        statuses=STATUSES,
        chosen=chosen,
    )


@blueprint.get("/mails/<int:notification_id>")
@requires("accounts.view")
def mail(notification_id: int) -> Response:
    """One mail with its rendered text."""
    return page("admin/mails/show.html", current="mails", mail=queries.one(db.session(), notification_id))
