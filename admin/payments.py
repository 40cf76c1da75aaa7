"""Payments: every attempt of every account with the provider's codes, and what failed for which reason."""

from __future__ import annotations

from datetime import timedelta

from flask import request
from werkzeug.wrappers import Response

from admin import blueprint
from admin.account_view import method_name
from core import clock
from core.db import db
from core.identity.queries import as_uuid
from core.payments import queries
from core.payments.declines import decline
from core.payments.models import LIVE, TransactionStatus
from web import pagination
from web.auth import requires
from web.htmx import page

STATUSES = (
    ("", "All", None),
    ("failed", "Declined", (TransactionStatus.FAILED,)),
    ("succeeded", "Paid", (TransactionStatus.SUCCEEDED,)),
    ("undecided", "Undecided", LIVE),
)
REASONS_SINCE = timedelta(days=30)


@blueprint.get("/payments")
@requires("payments.view")
def payments() -> Response:
    """Newest first; by status, by account; above them what failed in the last 30 days and why."""
    chosen, account = request.args.get("status", ""), as_uuid(request.args.get("account", ""))
    rows = queries.all_transactions(
        db.session(),
        status=next((statuses for key, _, statuses in STATUSES if key == chosen), None),
        organization_id=account,
        before_id=as_uuid(pagination.after() or ""),
        limit=pagination.PAGE_ROWS + 1,
    )
    found = pagination.paginate(rows, key=lambda row: row[0].id)
    return page(
        "admin/payments/index.html",
        partial="admin/payments/_rows.html" if pagination.after() else "admin/payments/_list.html",
        current="payments",
        rows=found,
        methods=queries.methods_by_id(db.session(), {row[0].payment_method_id for row in found.rows if row[0].payment_method_id}),
        statuses=[(key, label) for key, label, _ in STATUSES],
        chosen=chosen,
        account=account,
        failures=queries.failures_by_reason(db.session(), since=clock.now() - REASONS_SINCE),
        method_name=method_name,
        decline=decline,
        announce=f"{len(found.rows)} payments",
    )
