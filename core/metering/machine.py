"""Functions over bytes and numbers that are compiled to machine code by Numba (the extra `fast`), and run without Python's lock.

Only modules that nobody needs without Numba may import this one: see `compiled`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, ParamSpec, TypeVar, cast

import numba
import numpy as np
import xxhash
from numba.extending import intrinsic
from numpy.typing import NDArray

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")
_compile: Any = numba.njit
Bytes = NDArray[np.uint8]
Words = NDArray[np.uint64]
"""The eight bytes from each place on, as little-endian integers that overlap: see `words`."""
Int64 = NDArray[np.int64]
Int32 = NDArray[np.int32]
EIGHT = 8
STOP = -1
"""Instead of a place in the data: this is not plain enough."""


def padded(data: bytes) -> Bytes:
    """The data with zeros behind it, so that its last bytes are whole words too."""
    return np.frombuffer(data + bytes(EIGHT), np.uint8)


def words(data: bytes | bytearray | Bytes) -> Words:
    """The words of `data`, up to its last whole one."""
    return np.ndarray((len(data) - EIGHT + 1,), "<u8", buffer=data, strides=(1,))


def machine_code(function: Callable[P, R]) -> Callable[P, R]:
    """The function as a part of others that are compiled, in whose midst it is put."""
    return cast(Callable[P, R], _compile(nogil=True, forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)(function))


@cast(Callable[[Callable[..., Any]], Callable[[A], A]], intrinsic)
def lent(_context: Any, arrays: Any) -> Any:
    """The arrays of a tuple for compiled code that does not count who holds them: the counting would cost more than all it reads.

    They must come from Python, which holds them until the call is over.
    """

    def build(context: Any, builder: Any, _signature: Any, given: Any) -> Any:
        views = []
        for place, kind in enumerate(arrays):
            view = context.make_array(kind)(context, builder, value=builder.extract_value(given[0], place))
            view.meminfo, view.parent = (field.type(None) for field in (view.meminfo, view.parent))
            views.append(view._getvalue())
        return context.make_tuple(builder, arrays, views)

    return arrays(arrays), build


@cast(Callable[[Callable[..., Any]], Callable[[np.uint64], np.uint64]], intrinsic)
def swapped(_context: Any, _word: Any) -> Any:
    """The word with its bytes in the other order."""
    return numba.uint64(numba.uint64), lambda _context, builder, _signature, given: builder.bswap(given[0])


@machine_code
def copied(words: Words, start: int, size: int, out: Words, at: int) -> int:
    """Copy `size` bytes, eight at once (what is too much is for the next copy to overwrite); the place behind them."""
    for i in range(0, size, EIGHT):
        out[at + i] = words[start + i]
    return at + size


def entered(*parts: ModuleType) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """The function, whose other code is in `parts`, compiled when Python first calls it and kept on disk for the next process.

    Numba looks only at the file of the function itself to see whether what it kept is still true, so the name carries the others.
    """
    sources = [Path(part.__file__ or "").read_bytes() for part in parts]

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        function.__qualname__ = f"{function.__name__}_{xxhash.xxh3_64_hexdigest(b''.join(sources))}"
        return cast(Callable[P, R], _compile(nogil=True, cache=True, no_cfunc_wrapper=True)(function))

    return decorate
