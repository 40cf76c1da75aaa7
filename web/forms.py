"""What a posted form needs besides its fields: the core's refusals as sentences at the fields, and acting once a rendered form."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from flask import g, request
from werkzeug.wrappers import Response

from core import clock
from core.db import transaction
from core.errors import BillingError, Invalid
from core.identity import idempotency
from web.htmx import redirect_to

ONCE_FIELD = "idempotency_key"
KEY_LENGTH_MAX = 255
ADDRESS = "text/uri-list"


def field_errors(error: BillingError) -> dict[str, str]:
    """The refusal by field of the form: /billing_address/city becomes billing_address_city; "" is the form as a whole."""
    found = {item.pointer.strip("/").replace("/", "_"): _sentence(item.detail) for item in error.errors}
    return found or {"": error.message}


def once(work: Callable[[], str]) -> Response:
    """Run `work` in one transaction (on `db.session()`), at most once for this rendering of the form, and go to the address it returns.

    The address is kept with the form's idempotency key in that transaction: the same form sent again goes there and does nothing.
    Raises Invalid without a key, Conflict while the first sending is still being worked on.
    """
    key = _key()
    principal, at = f"user:{g.user.id}", clock.now()
    with transaction() as session:
        idempotency.lock(session, principal=principal, key=key)
        record = idempotency.find(session, principal=principal, key=key, request_hash=_digest(), at=at)
        if record is not None and record.body is not None:
            return redirect_to(record.body.decode())
        idempotency.claim(session, principal=principal, key=key, request_hash=_digest(), at=at)
        location = work()
        idempotency.complete(session, principal=principal, key=key, status=303, content_type=ADDRESS, body=location.encode())
    return redirect_to(location)


def once_stepwise(work: Callable[[], str]) -> Response:
    """As `once`, for work that opens its own transactions (a provider is asked in between): the key is claimed first, completed after.

    The work must itself be safe to run again: a claim whose process died is taken over.
    """
    key = _key()
    principal, at = f"user:{g.user.id}", clock.now()
    with transaction() as session:
        idempotency.lock(session, principal=principal, key=key)
        record = idempotency.find(session, principal=principal, key=key, request_hash=_digest(), at=at)
        if record is not None and record.body is not None:
            return redirect_to(record.body.decode())
        idempotency.claim(session, principal=principal, key=key, request_hash=_digest(), at=at)
    try:
        location = work()
    except BaseException:
        with transaction() as session:
            idempotency.release(session, principal=principal, key=key)
        raise
    with transaction() as session:
        idempotency.complete(session, principal=principal, key=key, status=303, content_type=ADDRESS, body=location.encode())
    return redirect_to(location)


def _key() -> str:
    key = request.form.get(ONCE_FIELD, "")
    if not 8 <= len(key) <= KEY_LENGTH_MAX:
        raise Invalid("The form was sent without its key. Load the page again and repeat.")
    return key


def _digest() -> bytes:
    return hashlib.sha256(request.path.encode()).digest()


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "?", "!")) else f"{text}."
