"""Columns of integers in as few bytes as their values need: each as its distance from the least, in the largest unit that all have.

Known as frame-of-reference coding (Goldstein, Ramakrishnan, Shaft 1998). Pure.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.metering.loading import Lazy

UNITS = (10**9, 10**6, 10**3)
WIDTHS = (1, 2, 4, 8)
WORTH_A_UNIT = 2**8
SAMPLE = 16
LOAD_AT = 100
Narrow = tuple[int, int, int, bytes]
"""The least value, the unit, how many bytes each distance has (0: all are the same), and the distances, little-endian."""


def narrow(values: NDArray[Any]) -> Narrow:
    """The column as it is stored; its length is not."""
    if not len(values):
        return 0, 1, 0, b""
    code = NARROWING.get(wanted=len(values) >= LOAD_AT)
    return _narrow(values) if code is None else _compiled(code, values)


def _compiled(code: ModuleType, values: NDArray[Any]) -> Narrow:
    out = np.empty(8 * len(values) + 8, np.uint8)
    least, unit, width = code.narrow(values.astype(np.int64, copy=False), code.machine.words(out))
    return least, unit, width, out[: width * len(values)].tobytes()


NARROWING = Lazy("core.metering.narrowing", lambda code: _compiled(code, np.zeros(1, np.int64)))


def _narrow(values: NDArray[Any]) -> Narrow:
    least, most = int(values.min()), int(values.max())
    if least == most:
        return least, 1, 0, b""
    distances, unit = values - least, 1
    if most - least < 1 << 32:
        distances = distances.astype(np.uint32)  # which is divided twice as fast
    if most - least >= WORTH_A_UNIT:
        unit = next((unit for unit in UNITS if _divides(unit, distances)), 1)
    if unit > 1:
        distances //= unit
    width = next(width for width in WIDTHS if (most - least) // unit < 1 << 8 * width)
    return least, unit, width, distances.astype(f"<u{width}").tobytes()


def _divides(unit: int, values: NDArray[Any]) -> bool:
    return not (values[:SAMPLE] % unit).any() and not (values % unit).any()


def widened(stored: Narrow, length: int, kind: type[np.generic]) -> NDArray[Any]:
    """The column of that length and type again; raises ValueError when it has another."""
    least, unit, width, data = stored
    if width == 0:
        return np.full(length, least, kind)
    if width not in WIDTHS or len(data) != width * length:
        raise ValueError(f"a column of {len(data)} bytes is not {length} numbers of {width}")
    return (np.frombuffer(data, f"<u{width}").astype(np.int64) * unit + least).astype(kind)
