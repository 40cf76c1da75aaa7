"""For each event one of a few texts, such as the metrics it feeds: what says the same of thousands of events is written once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from core.metering.columns import Int64
from core.metering.loading import Lazy

LOAD_AT_EVENTS = 100


PADDING = bytes(8)
"""Behind texts, so that the last are whole words of machine code too."""


class Row:
    """Texts one behind another, encoded; where each ends."""

    def __init__(self, texts: Sequence[str]) -> None:
        encoded = [text.encode() for text in texts]
        self.longest = max(map(len, encoded), default=0)
        self.data = b"".join([*encoded, PADDING])
        self.ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)


class Chosen(Sequence[str]):
    """`texts[which[i]]` is the text of the i-th event."""

    def __init__(self, texts: Sequence[str], which: Int64) -> None:
        self.texts, self.which = texts, which

    def __len__(self) -> int:
        return len(self.which)

    def __getitem__(self, place: Any) -> Any:
        return self.texts[self.which[place]] if isinstance(place, int) else [self.texts[one] for one in self.which[place].tolist()]

    def __iter__(self) -> Iterator[str]:
        return map(self.texts.__getitem__, self.which.tolist())

    def behind(self, firsts: Row, end: str) -> bytes:
        """The first of `firsts`, the first event's text and `end`; the second, and so on: all encoded and joined."""
        code = WEAVE.get(wanted=len(self) >= LOAD_AT_EVENTS)
        if code is not None and len(self):
            return _woven(code, firsts, Row([text + end for text in self.texts]), self.which)
        starts = [0, *firsts.ends.tolist()]
        parts = zip(starts, starts[1:], self, strict=False)
        return b"".join([firsts.data[start:stop] + (text + end).encode() for start, stop, text in parts])


def _woven(code: ModuleType, firsts: Row, seconds: Row, which: Int64) -> bytes:
    machine = code.machine
    most = int(firsts.ends[len(which) - 1]) + len(which) * seconds.longest + machine.EIGHT
    out = np.empty(most, np.uint8)
    first, second = (machine.words(np.frombuffer(row.data, np.uint8)) for row in (firsts, seconds))
    return out[: code.weave(first, firsts.ends, second, seconds.ends, which, machine.words(out))].tobytes()


WEAVE = Lazy("core.metering.weaving", lambda code: _woven(code, Row(["a"]), Row(["b"]), np.zeros(1, np.int64)))
