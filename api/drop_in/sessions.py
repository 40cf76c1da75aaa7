"""Short-lived tokens for Stripe's meter event stream: the key's hash and an end, sealed with the installation's secret.

Nothing is stored. A token dies with its key: who presents it is looked up by the key's hash each time.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from datetime import UTC, datetime

from api.drop_in.translation import Environ
from core import config
from core.errors import Unauthenticated
from core.identity.keys import hash_token

PREFIX = "vv_session_"
MAC_BYTES = 32


def token(environ: Environ, *, until: datetime) -> str:
    """A token for the API key of this request, good `until` then."""
    content = hash_token(_bearer(environ)) + int(until.timestamp()).to_bytes(8, "big")
    return PREFIX + base64.urlsafe_b64encode(_mac(content) + content).decode()


def opened(environ: Environ, *, at: datetime) -> bytes | None:
    """The hash of the key whose session the request carries, None when it carries something else. Raises Unauthenticated."""
    given = _bearer(environ)
    if not given.startswith(PREFIX):
        return None
    try:
        sealed = base64.urlsafe_b64decode(given.removeprefix(PREFIX))
    except (ValueError, binascii.Error):
        raise Unauthenticated("This is no session.", code="unknown_key") from None
    mac, content = sealed[:MAC_BYTES], sealed[MAC_BYTES:]
    if not hmac.compare_digest(mac, _mac(content)):
        raise Unauthenticated("This is no session.", code="unknown_key")
    if datetime.fromtimestamp(int.from_bytes(content[-8:], "big"), UTC) <= at:
        raise Unauthenticated("The session is over; open another.", code="expired_key")
    return content[:-8]


def _bearer(environ: Environ) -> str:
    return environ.get("HTTP_AUTHORIZATION", "").partition(" ")[2].strip()


def _mac(content: bytes) -> bytes:
    return hmac.digest(config.current().secret_key.encode(), b"meter event session" + content, hashlib.sha256)
