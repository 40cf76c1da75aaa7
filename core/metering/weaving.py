"""Parts of two buffers put one after another in turns, by machine code. Pure."""

from __future__ import annotations

from core.metering import machine
from core.metering.machine import Int64, Words, copied, entered, lent, machine_code


@entered(machine)
def weave(firsts: Words, first_ends: Int64, seconds: Words, second_ends: Int64, which: Int64, out: Words) -> int:
    """The first of the firsts, then that of the seconds which `which` says, the second of the firsts, and so on; how many bytes that is.

    Both lie one behind another in their buffers, and end there.
    """
    return _weave(lent((firsts, first_ends, seconds, second_ends, which, out)))


@machine_code
def _weave(arrays: tuple[Words, Int64, Words, Int64, Int64, Words]) -> int:
    firsts, first_ends, seconds, second_ends, which, out = arrays
    at = start = 0
    for i in range(len(which)):
        at = copied(firsts, start, first_ends[i] - start, out, at)
        start = first_ends[i]
        second = which[i]
        begin = second_ends[second - 1] if second > 0 else 0
        at = copied(seconds, begin, second_ends[second] - begin, out, at)
    return at
