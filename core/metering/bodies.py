"""The body of a usage request: inflated under a cap, and cut into its events."""

from __future__ import annotations

import re
import zlib
from enum import StrEnum

import msgspec
import numpy as np
import zstandard

from core.errors import BillingError

EVENTS_MAX = 10_000
"""In one request, whatever the settings allow."""
LINE = re.compile(rb"[^\r\n]+")
COUNTED_AT_ONCE = 4096
PREFIXES = (64 * 1024, 512 * 1024)
TEXT = bytes(set(range(256)) - set(b'",[]{}'))
STEPS = np.zeros(256, np.int8)
STEPS[[*b"[{"]], STEPS[[*b"]}"]] = 1, -1


class Form(StrEnum):
    """How a body holds its events."""

    JSON = "json"
    NDJSON = "ndjson"


class Malformed(BillingError):
    """The whole body cannot be read."""

    status, code, title = 400, "malformed", "The request could not be understood"


class TooLarge(BillingError):
    """The body, inflated or not, or its number of events is over the limit."""

    status, code, title = 413, "too_large", "The request is too large"


class UnsupportedEncoding(BillingError):
    """A Content-Encoding or Content-Type this address does not take."""

    status, code, title = 415, "unsupported_media_type", "Unsupported media type"


def inflate(body: bytes, encoding: str, *, limit: int) -> bytes:
    """The body without its Content-Encoding (gzip, zstd or identity). Raises TooLarge before more than `limit` bytes exist."""
    try:
        if encoding in ("", "identity"):
            inflated = body
        elif encoding in ("gzip", "x-gzip"):
            inflater = zlib.decompressobj(wbits=31)
            inflated = inflater.decompress(body, limit + 1)
            if len(inflated) <= limit and (not inflater.eof or inflater.unused_data):
                raise Malformed("The gzip body is cut short or has something behind it.")
        elif encoding == "zstd":
            with zstandard.ZstdDecompressor(max_window_size=2**23).stream_reader(body) as reader:
                inflated = reader.read(limit + 1)
        else:
            raise UnsupportedEncoding(f"Content-Encoding {encoding[:40]!r} is not taken; use gzip, zstd or none.")
    except (zlib.error, zstandard.ZstdError) as error:
        raise Malformed(f"The body is not {encoding}: {error}") from error
    if len(inflated) > limit:
        raise TooLarge(f"The body is larger than {limit} bytes; send fewer events at once.")
    return inflated


def cut(body: bytes, form: Form, *, events_max: int = EVENTS_MAX) -> list[bytes]:
    """The events of a body, each as it was sent: one object, an array of them, or one a line. Raises Malformed.

    TooLarge when there are more than `events_max`, before they are cut.
    """
    try:
        if form == Form.NDJSON:
            return _lines(body, events_max)
        if body.lstrip()[:1] == b"[":
            if body.count(b",") >= events_max and any(elements(body[:size]) > events_max for size in (*PREFIXES, len(body))):
                raise too_many(events_max)
            return [bytes(raw) for raw in msgspec.json.decode(body, type=list[msgspec.Raw])]
        return [bytes(msgspec.json.decode(body, type=msgspec.Raw)).strip()]
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Malformed(f"The body is not JSON: {error}") from error


def objects(body: bytes) -> int:
    """How many JSON objects there can be in the body at most: what it has of their brackets."""
    if len(body) < COUNTED_AT_ONCE:
        return body.count(b"{")
    return int(np.count_nonzero(np.frombuffer(body, np.uint8) == ord("{")))


def elements(body: bytes) -> int:
    """How many elements the JSON array that begins in `body` has in it, by its brackets and commas: nothing is decoded."""
    marks = np.frombuffer(body.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, TEXT), np.uint8)
    marks = marks[np.cumsum(marks == ord('"'), dtype=np.uint8) & 1 == 0]
    depth = np.cumsum(STEPS[marks], dtype=np.int32)
    return int(np.count_nonzero((marks == ord(",")) & (depth == 1))) + 1


def too_many(events_max: int) -> TooLarge:
    """The refusal of a request with more events than that."""
    return TooLarge(f"There are more than {events_max} events in the request; send at most {events_max} at once.")


def _lines(body: bytes, events_max: int) -> list[bytes]:
    found = []
    for line in LINE.finditer(body):
        if event := line[0].strip():
            found.append(event)
        if len(found) > events_max:
            raise too_many(events_max)
    return found
