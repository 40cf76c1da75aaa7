"""Fields kept encrypted: AES-256-GCM, a fresh 96-bit nonce each, bound to the place they stand in.

Stored form: `v1.<key id>.<base64url(nonce + ciphertext + tag)>`. ENCRYPTION_KEY may list several keys, newest first: the first one
encrypts, all of them decrypt, so a key is replaced by putting the new one in front.
"""

from __future__ import annotations

import base64
import hashlib
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from core import config

VERSION = "v1"
NONCE_BYTES = 12


class NotDecryptable(Exception):
    """The text was changed, belongs to another place, or its key is not configured any more."""


def encrypt(plain: str, *, place: str) -> str:
    """`plain` encrypted for `place` ("table:column:row id"); it cannot be read back under another place."""
    key_id, key = _ring()[0]
    nonce = os.urandom(NONCE_BYTES)
    sealed = nonce + AESGCM(key).encrypt(nonce, plain.encode(), place.encode())
    return f"{VERSION}.{key_id}.{base64.urlsafe_b64encode(sealed).decode()}"


def decrypt(stored: str, *, place: str) -> str:
    """What `encrypt` was given; raises NotDecryptable."""
    version, _, rest = stored.partition(".")
    key_id, _, encoded = rest.partition(".")
    key = dict(_ring()).get(key_id)
    if version != VERSION or key is None:
        raise NotDecryptable(f"no key {key_id!r}")
    try:
        sealed = base64.urlsafe_b64decode(encoded)
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], place.encode()).decode()
    except (InvalidTag, ValueError) as error:
        raise NotDecryptable("the text was changed or moved") from error


def _ring() -> list[tuple[str, bytes]]:
    keys = [hashlib.sha256(part.strip().encode()).digest() for part in config.current().encryption_key.split(",")]
    return [(hashlib.sha256(key).hexdigest()[:8], key) for key in keys]
