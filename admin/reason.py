"""The reason an operator gives for what changes money or access; it is kept in the audit trail."""

from __future__ import annotations

from flask import request

from core.errors import FieldError, Invalid

REASON_LENGTH_MIN = 10
REASON_LENGTH_MAX = 500


def why() -> str:
    """The form's reason; Invalid when it is too short to mean anything later, or too long."""
    reason = request.form.get("reason", "").strip()
    if not REASON_LENGTH_MIN <= len(reason) <= REASON_LENGTH_MAX:
        detail = f"Give a reason of {REASON_LENGTH_MIN} to {REASON_LENGTH_MAX} characters; it is kept in the audit trail."
        raise Invalid("A reason is needed.", errors=(FieldError("/reason", detail),))
    return reason
