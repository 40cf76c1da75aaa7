"""Passwords: argon2id (OWASP Password Storage: at least 19 MiB, 2 passes, 1 lane), taken verbatim.

Checking takes the same time when there is no such user.
"""

from __future__ import annotations

import secrets
import unicodedata
from collections.abc import Collection
from functools import lru_cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from core.errors import FieldError, Invalid

LENGTH_MIN = 12
LENGTH_MAX = 256
DISTINCT_MIN = 5
CONTEXT_LENGTH_MIN = 4
COMMON = (
    "password",
    "passwort",
    "qwerty",
    "letmein",
    "welcome",
    "iloveyou",
    "administrator",
    "changeme",
    "123456789",
    "abcdefgh",
    "valueverse",
)

_hasher = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)


def hashed(password: str) -> str:
    """The argon2id hash to store, parameters and salt included."""
    return _hasher.hash(_verbatim(password))


def matches(stored: str | None, password: str) -> bool:
    """Whether `password` is the one behind `stored`. With None (no such user) the same work is done and the answer is False."""
    try:
        return _hasher.verify(stored or _nobody(), _verbatim(password)) and stored is not None
    except (VerificationError, InvalidHashError):
        return False


def is_outdated(stored: str) -> bool:
    """Whether the hash was made with weaker parameters than today's and should be made again at this sign-in."""
    return _hasher.check_needs_rehash(stored)


def require_acceptable(password: str, *, context: Collection[str] = ()) -> None:
    """Raise Invalid for a password that is too short or easily guessed; `context` are words an attacker knows (name, e-mail)."""
    problem = ""
    lowered = password.lower()
    words = {part for word in context for part in word.lower().replace("@", " ").replace(".", " ").split()}
    if not LENGTH_MIN <= len(password) <= LENGTH_MAX:
        problem = f"Use {LENGTH_MIN} to {LENGTH_MAX} characters; any characters, spaces too."
    elif len(set(password)) < DISTINCT_MIN:
        problem = f"Use at least {DISTINCT_MIN} different characters."
    elif _leftover(lowered, COMMON) < CONTEXT_LENGTH_MIN:
        problem = "This is one of the most guessed passwords."
    elif _leftover(lowered, words) < CONTEXT_LENGTH_MIN:
        problem = "This is made of your name or e-mail address."
    if problem:
        raise Invalid("The password was not accepted.", errors=(FieldError("/password", problem),))


def _leftover(password: str, words: Collection[str]) -> int:
    """How many letters remain when every guessable word, digit and sign is taken away; large when no such word is in it."""
    found = [word for word in words if len(word) >= CONTEXT_LENGTH_MIN and word in password]
    if not found:
        return len(password)
    for word in found:
        password = password.replace(word, "")
    return sum(character.isalpha() for character in password)


def _verbatim(password: str) -> str:
    # Composed and decomposed spellings of one character are one password (NIST SP 800-63B section 3.1.1.2).
    return unicodedata.normalize("NFC", password)


@lru_cache(maxsize=1)
def _nobody() -> str:
    return _hasher.hash(secrets.token_urlsafe())
