"""What the dialects share: reading foreign JSON exactly, writing our event, and the road through the pipeline."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Protocol

import msgspec
import structlog

from core.errors import BillingError
from core.metering.accept import Verdict
from core.metering.bodies import Malformed
from core.metering.directory import Directory, Principal
from core.metering.foreign import Untranslatable
from core.metering.wire import KEY, Fault, escape

Environ = dict[str, Any]
Answer = tuple[int, list[tuple[str, str]], bytes]
Translated = Sequence[bytes | Untranslatable]
DEPTH_MAX = 8
UNIX_SECONDS_MAX = 253_402_300_799
"""The last second of the year 9999."""
JSON_HEADERS = [("Content-Type", "application/json")]
log = structlog.get_logger("valueverse.usage")
encode = msgspec.json.Encoder(decimal_format="number").encode
_decode = msgspec.json.Decoder(float_hook=Decimal).decode


class Pipeline(Protocol):
    """What the usage endpoint offers to a dialect."""

    @property
    def directory(self) -> Directory:
        """Keys, organizations and metrics."""

    def admitted(self, environ: Environ, key_hash: bytes | None = None) -> Principal:
        """The key of the request, or the one of this hash, live and within its rate. Raises Unauthenticated or RateLimited."""

    def body(self, environ: Environ) -> bytes:
        """The body, inflated. Raises Malformed, TooLarge or UnsupportedEncoding."""

    def judge(self, principal: Principal, events: Translated, *, single: bool) -> Verdict:
        """The verdict on translated events."""

    def keep(self, principal: Principal, verdict: Verdict) -> int | None:
        """Make the verdict durable; the batch's id, None when nothing was accepted. Raises Unavailable."""


class Failed(BillingError):
    """A fault of ours."""

    status, code, title = 500, "internal_error", "Internal error"


def carried_out(take: Callable[[], Answer], refuse: Callable[[BillingError], Answer]) -> Answer:
    """The answer of `take`; whatever it raises is told in the dialect's own words by `refuse`."""
    try:
        return take()
    except BillingError as error:
        return refuse(error)
    except Exception:
        log.exception("usage request failed")
        return refuse(Failed("Something failed on our side; nothing was kept."))


def document(raw: bytes) -> Any:
    """JSON with exact numbers. Raises Malformed."""
    try:
        return _decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, ArithmeticError) as error:
        raise Malformed(f"The body is not JSON: {error}") from error


def our_event(name: str, key: str, **given: Any) -> bytes:
    """Our JSON of one event; what is None is left out."""
    fields = {"metric_name": name, "idempotency_key": key, **given}
    return encode({name: value for name, value in fields.items() if value is not None})


def key_of(text: str) -> str:
    """An idempotency key for any text: the text itself where it may be one, else its SHA-256."""
    return text if KEY.fullmatch(text) else f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def text_at(given: Mapping[str, Any], name: str, *, needed: str = "") -> str | None:
    """The text in this field, None when it is missing or null; `needed` is the sentence to refuse that with. Raises Fault."""
    value = given.get(name)
    if value is None or value == "":
        if needed:
            raise Fault("missing_field", f"/{name}", needed)
        return None
    if not isinstance(value, str):
        raise Fault("invalid_field", f"/{name}", "Must be text.")
    return value


def required(given: Mapping[str, Any], name: str, sentence: str) -> str:
    """As text_at, for a field that has to be there."""
    return text_at(given, name, needed=sentence) or ""


def unix_time(value: Any, pointer: str) -> str | None:
    """Seconds since 1970, an integer or a decimal, as an RFC 3339 text; None stays None. Raises Fault."""
    if value is None:
        return None
    try:
        if isinstance(value, bool) or not isinstance(value, (int, str, Decimal)) or len(str(value)) > 30:
            raise TypeError("no number")
        seconds = Decimal(value)
        if not 0 <= seconds <= UNIX_SECONDS_MAX:
            raise ValueError("out of range")
    except (ArithmeticError, ValueError, TypeError):
        raise Fault("invalid_timestamp", pointer, "Must be seconds since 1970-01-01T00:00:00Z.") from None
    whole, fraction = divmod(seconds, 1)
    micros = int(fraction * 1_000_000)
    return datetime.fromtimestamp(int(whole), UTC).replace(microsecond=micros).isoformat()


def flat(given: Mapping[str, Any], pointer: str) -> dict[str, Any]:
    """Nested objects as properties with dots in their names: {"a": {"b": 1}} is {"a.b": 1}. Raises Fault."""
    found: dict[str, Any] = {}
    _flatten(given, "", pointer, found, 1)
    return found


def _flatten(given: Mapping[str, Any], prefix: str, pointer: str, found: dict[str, Any], depth: int) -> None:
    for name, value in given.items():
        here = f"{pointer}/{escape(name)}"
        if isinstance(value, dict):
            if depth == DEPTH_MAX:
                raise Fault("invalid_properties", here, f"Objects are nested at most {DEPTH_MAX} deep.")
            _flatten(value, f"{prefix}{name}.", here, found, depth + 1)
        elif f"{prefix}{name}" in found:
            raise Fault("duplicate_name", here, f"Two properties would be called {prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value


def shown_pointer(pointer: str, names: Mapping[str, str]) -> str:
    """A pointer into our event as one into the dialect's; `names` are the fields' pointers in both."""
    first, slash, rest = pointer[1:].partition("/")
    ours = f"/{first}"
    return f"{names[ours]}{slash}{rest}" if pointer and ours in names else pointer
