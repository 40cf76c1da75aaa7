"""Decimals of at most eight characters, such as `12.5`, read for a whole column at once: eight characters are one integer. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from core.metering.columns import PLACES, Int64

Words = NDArray[np.uint64]
EIGHT = 8
POWERS = 10 ** np.arange(PLACES + 1, dtype=np.int64)


class NoDecimals(ValueError):
    """One of the texts is no decimal."""


def short(words: Words, sizes: Int64) -> tuple[Int64, Int64]:
    """Whole units and 10^-12ths of texts of 1 to 8 bytes: the last `sizes` bytes of each word, of which the last byte is the highest.

    Raises NoDecimals.
    """
    bits = 8 * (EIGHT - sizes.astype(np.uint64))
    zeros = _each(0x30)
    words = (words >> bits << bits) | (zeros & ~(~np.uint64(0) >> bits << bits))
    after, dotted = _point(words)
    digits = np.where(dotted, words ^ (np.uint64(0x1E) << (8 * (EIGHT - 1 - after)).astype(np.uint64)), words)
    _check_digits(digits)
    lead = sizes - after - dotted
    if lead.min() < 1 or (dotted & (after == 0)).any():
        raise NoDecimals
    behind = _eight_digits(_last(digits, after))
    before = _eight_digits(np.where(dotted, _without_last(digits, after + 1), digits))
    return before, behind * POWERS[PLACES - after]


def _each(byte: int) -> np.uint64:
    return np.uint64(0x0101010101010101 * byte)


def _point(words: Words) -> tuple[Int64, NDArray[np.bool_]]:
    """How many characters stand behind the first point, and whether there is one (SWAR search for a zero byte; Mycroft 1987)."""
    other = words ^ _each(ord("."))
    found = (other - _each(0x01)) & ~other & _each(0x80)
    dotted = found != 0
    lowest = found & (~found + np.uint64(1))
    place = np.bitwise_count(lowest - np.uint64(1)).astype(np.int64) // EIGHT
    return np.where(dotted, EIGHT - 1 - place, 0), dotted


def _check_digits(words: Words) -> None:
    high = _each(0xF0)
    if ((words & high) != _each(0x30)).any() or (((words + _each(0x06)) & high) != _each(0x30)).any():
        raise NoDecimals


def _last(words: Words, amounts: Int64) -> Words:
    """The last characters of each word, before them nothing."""
    keep = 8 * amounts
    return np.where(amounts > 0, words & ~(~np.uint64(0) >> keep.astype(np.uint64)), np.uint64(0))


def _without_last(words: Words, amounts: Int64) -> Words:
    """The characters before the last ones, moved to the end."""
    return np.where(amounts < EIGHT, words << (8 * np.minimum(amounts, EIGHT - 1)).astype(np.uint64), np.uint64(0))


def _eight_digits(words: Words) -> Int64:
    """The number that eight digits make, by adding pairs, fours and eights (the usual SWAR reduction)."""
    words = (words & _each(0x0F)) * np.uint64(10 * 2**8 + 1) >> np.uint64(8)
    words = (words & np.uint64(0x00FF00FF00FF00FF)) * np.uint64(100 * 2**16 + 1) >> np.uint64(16)
    return ((words & np.uint64(0x0000FFFF0000FFFF)) * np.uint64(10_000 * 2**32 + 1) >> np.uint64(32)).astype(np.int64)
