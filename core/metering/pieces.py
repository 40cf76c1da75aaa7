"""The texts of events that are written alike, gathered from the body byte by byte by their places: no object per event. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from msgspec import UNSET

from core.metering import quick, stencil
from core.metering.quick import Unusual
from core.metering.stencil import Alike, Places, Values
from core.metering.texts import NEITHER, WORD, Texts, cut, laid_out, texts

SCALAR = re.compile(rb"true|false|null|(?!-0$)-?(?:0|[1-9][0-9]{0,15})(?:\.[0-9]{1,6})?")
"""Property values that are written the same in canonical JSON."""
KEY_LENGTH_MAX = 255


def pieces(read: Alike, key: Values, unit: Values | None, subscription: Values | None) -> Texts:
    """The Texts of all events; raises Unusual when a key, property, unit or subscription may be wrong."""
    spans, fixed = _properties(read)
    key_sizes = _key_sizes(read, key)
    property_sizes = sum((value.ends - value.starts for value in spans), np.zeros(read.events, np.int64)) + sum(map(len, fixed))
    if property_sizes.max() > quick.PROPERTIES_BYTES_MAX:
        raise Unusual
    if unit is not None or subscription is not None:
        return _with_optional(read, key, unit, subscription, spans, fixed)
    words = np.stack([key_sizes, property_sizes], axis=1).astype(">i4").tobytes()
    source = b"".join([read.body, NEITHER, words, *fixed])
    events, here = np.arange(read.events), len(read.body)
    starts: list[Places] = [np.full(read.events, here), here + len(NEITHER) + 2 * WORD * events, key.starts]
    sizes: list[Places] = [np.full(read.events, len(NEITHER)), np.full(read.events, WORD), key_sizes]
    starts.append(starts[1] + WORD)
    sizes.append(sizes[1])
    here += len(NEITHER) + len(words)
    for place, text in enumerate(fixed):
        starts.append(np.full(read.events, here))
        sizes.append(np.full(read.events, len(text)))
        here += len(text)
        if place < len(spans):
            starts.append(spans[place].starts)
            sizes.append(spans[place].ends - spans[place].starts)
    data = stencil.gathered(source, np.stack(starts, axis=1), np.stack(sizes, axis=1))
    places = np.full(read.events, len(NEITHER) + WORD, np.int32)
    return laid_out(data, (len(NEITHER) + 2 * WORD + key_sizes + property_sizes).astype(np.int32), places, key_sizes.astype(np.int32))


def _key_sizes(read: Alike, key: Values) -> Places:
    sizes = key.ends - key.starts
    if not key.quoted or sizes.min() < 1 or sizes.max() > KEY_LENGTH_MAX:
        raise Unusual
    characters = np.frombuffer(stencil.gathered(read.body, key.starts, sizes), np.uint8)
    if characters.min() < ord("!") or characters.max() > ord("~"):
        raise Unusual
    return sizes


def _properties(read: Alike) -> tuple[Sequence[Values], Sequence[bytes]]:
    """The values of the properties in the order of their names, and the canonical JSON before, between and behind them."""
    ordered = sorted((value for value in read.values if value.of_properties), key=lambda value: value.name)
    fixed, before = [], b"{"
    for value in ordered:
        if not value.quoted and not all(map(SCALAR.fullmatch, stencil.distinct(read, value)[0])):
            raise Unusual
        mark = b'"' if value.quoted else b""
        fixed.append(before + b'"' + value.name + b'":' + mark)
        before = mark + b","
    return ordered, [*fixed, (before[:-1] if ordered else before) + b"}"]


def _with_optional(
    read: Alike, key: Values, unit: Values | None, subscription: Values | None, spans: Sequence[Values], fixed: Sequence[bytes]
) -> Texts:
    """The same for events that name a unit or subscription, by one text after the other."""
    form = b"%b".join(text.replace(b"%", b"%%") for text in fixed)
    columns = [cut(read.body, value.starts, value.ends) for value in spans]
    lines = [form % row for row in zip(*columns, strict=True)] if columns else [form] * read.events
    units, subscriptions = _strings(read, unit), _strings(read, subscription)
    return texts(cut(read.body, key.starts, key.ends), lines, quick.units(units), quick.subscriptions(subscriptions))


def _strings(read: Alike, value: Values | None) -> quick.Column:
    if value is None:
        return [UNSET] * read.events
    if not value.quoted:
        raise Unusual
    return [text.decode() for text in cut(read.body, value.starts, value.ends)]
