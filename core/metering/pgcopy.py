"""Rows for PostgreSQL's binary COPY, built from whole columns. Pure.

Every fixed-width field of all rows is one numpy record array; texts are joined in between. Form: PostgreSQL manual, COPY, "Binary Format".
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.metering.columns import PLACES, SCALE
from core.metering.texts import Texts, words

HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
TRAILER = b"\xff\xff"
POSTGRES_EPOCH_MICROS = 946_684_800_000_000
DIGIT = 10_000
FRACTION_DIGITS = PLACES // 4


def records(fields: int, columns: Sequence[tuple[str, NDArray[Any]]]) -> NDArray[Any]:
    """A record for each row: its field count (`fields`, with those that follow) and its fixed-width fields.

    `columns` are (kind, values): kind `i2` `i4` `i8` for integers, `ts` for microseconds since 1970, `numeric` for numeric().
    """
    widths = {"i2": ">i2", "i4": ">i4", "i8": ">i8", "ts": ">i8"}
    form: list[tuple[str, Any]] = [("fields", ">i2")]
    for i, (kind, values) in enumerate(columns):
        form += [(f"length{i}", ">i4"), (f"value{i}", widths.get(kind, values.dtype))]
    rows = np.empty(len(columns[0][1]), np.dtype(form))
    rows["fields"] = fields
    for i, (kind, values) in enumerate(columns):
        rows[f"length{i}"] = rows.dtype[f"value{i}"].itemsize
        rows[f"value{i}"] = values - POSTGRES_EPOCH_MICROS if kind == "ts" else values
    return rows


def stream(rows: NDArray[Any], texts: Texts | None = None) -> bytes:
    """The COPY stream of records, each with its piece of the texts behind it if there are some."""
    if texts is None:
        return b"".join([HEADER, rows.tobytes(), TRAILER])
    return b"".join([HEADER, *chain.from_iterable(zip(words(rows), texts.pieces(), strict=True)), TRAILER])


def numeric(wholes: NDArray[np.int64], fractions: NDArray[np.int64]) -> NDArray[Any]:
    """Binary numerics of whole units and 10^-12ths: base-10000 digits of one width, PostgreSQL drops the zeros itself."""
    whole_digits = 4 if not len(wholes) or int(wholes.max()) < DIGIT**4 else 5
    count = whole_digits + FRACTION_DIGITS
    rows = np.empty(len(wholes), np.dtype([("head", ">i2", 4), ("digits", ">i2", count)]))
    rows["head"] = (count, whole_digits - 1, 0, 0)
    rows["head"][:, 3] = _scale(fractions)
    rest = wholes
    for place in range(whole_digits - 1, -1, -1):
        rest, rows["digits"][:, place] = np.divmod(rest, DIGIT)
    rest = fractions
    for place in range(count - 1, whole_digits - 1, -1):
        if not fractions.any():
            rows["digits"][:, place] = 0
            continue
        rest, rows["digits"][:, place] = np.divmod(rest, DIGIT)
    return rows.view(f"V{rows.dtype.itemsize}")


def _scale(fractions: NDArray[np.int64]) -> Any:
    """Decimals to keep: 0, 4, 8 or 12 (numeric_recv cuts what is beyond)."""
    if not fractions.any():
        return 0
    return np.where(fractions == 0, 0, np.where(fractions % 10**8 == 0, 4, np.where(fractions % 10**4 == 0, 8, PLACES)))


def carried(wholes: NDArray[np.int64], fractions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sums whose 10^-12ths may exceed a unit, in normal form."""
    return wholes + fractions // SCALE, fractions % SCALE
