"""Rows of which one part lies in an array and the other in a buffer of texts, put one after another by machine code. Pure."""

from __future__ import annotations

from core.metering import machine
from core.metering.machine import Int32, Int64, Words, copied, entered


@entered(machine)
def splice(heads: Words, width: int, data: Words, starts: Int64, sizes: Int32, out: Words) -> int:
    """Each of the heads, `width` bytes long and side by side, and behind it its part of `data`; how many bytes that is."""
    at = 0
    for row in range(len(sizes)):
        at = copied(heads, row * width, width, out, at)
        at = copied(data, starts[row], sizes[row], out, at)
    return at
