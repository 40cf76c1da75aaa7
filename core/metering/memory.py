"""How a process that works on columns keeps its memory: what was freed is used again instead of given back and faulted in anew."""

from __future__ import annotations

import ctypes
import gc
import sys

MMAP_THRESHOLD, TRIM_THRESHOLD, ARENA_MAX = -3, -1, -8
"""Numbers of glibc's mallopt(3)."""
LARGEST_KEPT = 64 * 1024 * 1024
ARENAS = 2
COLLECT_AFTER = (50_000, 20, 50)
"""Requests make thousands of short-lived objects without cycles: Python's 700 would look at them hundreds of times a second."""


def settle() -> None:
    """Call once when the process has loaded its code. Where the C library is not glibc only the collector is told."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            for option, value in ((MMAP_THRESHOLD, LARGEST_KEPT // 2), (TRIM_THRESHOLD, LARGEST_KEPT), (ARENA_MAX, ARENAS)):
                libc.mallopt(option, value)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
