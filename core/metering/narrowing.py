"""What `narrow` does, by machine code. Pure."""

from __future__ import annotations

from core.metering import machine
from core.metering.machine import Int64, Words, entered, lent, machine_code

THOUSAND, MILLION, MILLIARD = 10**3, 10**6, 10**9
WORTH_A_UNIT = 2**8


@entered(machine)
def narrow(values: Int64, out: Words) -> tuple[int, int, int]:
    """Write the distances, side by side; the least value, the unit, and how many bytes each distance has."""
    return _narrow(*lent((values, out)))


@machine_code
def _narrow(values: Int64, out: Words) -> tuple[int, int, int]:
    least = most = values[0]
    for value in values:
        least, most = min(least, value), max(most, value)
    if least == most:
        return least, 1, 0
    unit = 1
    if most - least >= WORTH_A_UNIT:
        unit = _unit(values, least)
    width, farthest = 1, (most - least) // unit
    while width < 8 and farthest >> (8 * width):
        width *= 2
    for i in range(len(values)):
        out[i * width] = (values[i] - least) // unit
    return least, unit, width


@machine_code
def _unit(values: Int64, least: int) -> int:
    """The largest unit that all distances have."""
    unit = MILLIARD
    for value in values:
        if unit == MILLIARD and (value - least) % MILLIARD:
            unit = MILLION
        if unit == MILLION and (value - least) % MILLION:
            unit = THOUSAND
        if unit == THOUSAND and (value - least) % THOUSAND:
            return 1
    return unit
