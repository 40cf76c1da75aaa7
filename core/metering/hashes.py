"""Keys and contents of events hashed by machine code, through the functions of the xxHash library itself. Pure.

Importing it raises ImportError where the library does not let its functions be called from outside Python.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import llvmlite.binding
import numpy as np
import xxhash
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from core.metering import machine
from core.metering.machine import Int64, Words, entered, lent, machine_code, swapped

SHORT, LONG = "XXH3_64bits", "XXH3_128bits_withSeed"
FIRST, SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
Prints = np.ndarray[Any, np.dtype[np.uint32]]
Hashed = tuple[Words, Words, Prints]
"""For each event both words of its key's hash with its organization in it, and the fingerprint of its content."""
Spans = tuple[Int64, Int64]

if sys.platform == "win32":
    raise ImportError("there the library's functions are called in another way")
llvmlite.binding.load_library_permanently(sys.modules[xxhash.xxh3_64_intdigest.__module__].__file__)
if any(llvmlite.binding.address_of_symbol(name) is None for name in (SHORT, LONG)):
    raise ImportError("the xxHash library keeps its functions to itself")


def _intrinsic(function: Callable[..., Any]) -> Any:
    """An instruction for compiled code: the function answers its types, and what builds it from the values."""
    return intrinsic(function)


def _address(context: Any, builder: Any, kind: Any, array: Any, start: Any) -> Any:
    data = context.make_array(kind)(context, builder, value=array).data
    return builder.inttoptr(builder.add(builder.ptrtoint(data, ir.IntType(64)), start), ir.IntType(8).as_pointer())


@_intrinsic
def short(_context: Any, words: Any, _start: Any, _size: Any) -> Any:
    """The 64-bit hash of the bytes there."""

    def build(context: Any, builder: Any, _signature: Any, given: Any) -> Any:
        word = ir.IntType(64)
        kind = ir.FunctionType(word, [ir.IntType(8).as_pointer(), word])
        function = _declared(builder.module, kind, SHORT)
        return builder.call(function, [_address(context, builder, words, given[0], given[1]), given[2]])

    return types.uint64(words, types.int64, types.int64), build


@_intrinsic
def long(_context: Any, words: Any, _start: Any, _size: Any, _seed: Any) -> Any:
    """The 128-bit hash of the bytes there, as two words: the higher, the lower. A struct of two words comes back in two registers."""

    def build(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.LiteralStructType([word, word]), [ir.IntType(8).as_pointer(), word, word])
        function = _declared(builder.module, kind, LONG)
        found = builder.call(function, [_address(context, builder, words, given[0], given[1]), given[2], given[3]])
        parts = [builder.extract_value(found, 1), builder.extract_value(found, 0)]
        return context.make_tuple(builder, signature.return_type, parts)

    words_of_hash: Any = types.UniTuple(types.uint64, 2)  # type: ignore[no-untyped-call]
    return words_of_hash(words, types.int64, types.int64, types.uint64), build


def _declared(module: Any, kind: Any, name: str) -> Any:
    return module.globals.get(name) or ir.Function(module, kind, name)


@machine_code
def mixed(word: np.uint64) -> np.uint64:
    """splitmix64's finalizer (Steele, Lea, Flood 2014): a bijection that spreads every bit."""
    word = (word ^ (word >> np.uint64(30))) * FIRST
    word = (word ^ (word >> np.uint64(27))) * SECOND
    return word ^ (word >> np.uint64(31))


@entered(machine)
def hashed(
    texts: Words, keys: Spans, contents: Spans, tenants: tuple[Any, np.uint64], numbers: tuple[Any, Int64, Int64, Int64], out: Hashed
) -> None:
    """Hash the keys, with `tenants`: the organizations and the seed; and the contents, with `numbers`: what else belongs to them."""
    organizations, seed = tenants
    _hashed(lent((texts, *keys, *contents, organizations, *numbers)), seed, lent(out))


@machine_code
def _hashed(columns: Any, seed: np.uint64, out: Hashed) -> None:
    texts, key_starts, key_ends, starts, ends, organizations, events, moments, wholes, fractions = columns
    high, low, fingerprints = out
    for i in range(len(high)):
        tenant = mixed(np.uint64(organizations[i]) + seed)
        first, second = long(texts, key_starts[i], key_ends[i] - key_starts[i], seed)
        high[i] = max(swapped(first) ^ tenant, np.uint64(1))
        low[i] = swapped(second) ^ mixed(tenant)
        content = mixed(short(texts, starts[i], ends[i] - starts[i]) ^ np.uint64(events[i]))
        content = mixed(content ^ np.uint64(moments[i]))
        content = mixed(content ^ np.uint64(wholes[i]))
        fingerprints[i] = mixed(content ^ np.uint64(fractions[i])) >> np.uint64(32)
