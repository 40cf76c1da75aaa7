"""Which batches make a flush fail is found by counting pieces of it: how many batches the next flushes take after one has failed.

Pieces are halves, or what lies before and behind a batch that is suspected. The log is taken in order, so their sizes are all there is to
remember, and a plan that is lost with its process, or meets other batches than it was made for, costs time and nothing else: a batch is
the culprit when it fails alone, whatever the plan believed. One among n costs log2 n + 1 further failures and about two flushes at most,
one that is suspected rightly a single failure; batches that fail in company alone are all counted.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Piece:
    """Some batches, the next ones in order; `suspect`: they fail if all that were counted before them in their piece did not."""

    batches: int
    suspect: bool


class Halving:
    """The pieces that are still to be counted. True as long as there are any."""

    def __init__(self) -> None:
        self._pieces: list[Piece] = []
        """The next one last."""

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def next(self, otherwise: int) -> int:
        """How many batches the next flush takes; `otherwise` when none has failed."""
        return self._pieces[-1].batches if self._pieces else otherwise

    def counted(self) -> None:
        """The next piece has been counted. So it is the other half that fails, and that is not tried as a whole."""
        if self._pieces:
            self._pieces.pop()
            if self._pieces and self._pieces[-1].suspect:
                self._split(self._pieces.pop().batches)

    def failed(self, batches: int, suspect: int | None = None) -> None:
        """A flush of so many batches, the next piece if there is one, has failed, perhaps for the one at the place `suspect`.

        Of the other half nothing is known then.
        """
        if self._pieces:
            self._pieces.pop()
        if self._pieces:
            self._pieces[-1] = Piece(self._pieces[-1].batches, suspect=False)
        if batches > 1 and suspect is not None:
            behind = batches - suspect - 1
            self._pieces += [Piece(size, suspect=False) for size in (behind, 1, suspect) if size]
        elif batches > 1:
            self._split(batches)

    def _split(self, batches: int) -> None:
        first = (batches + 1) // 2
        if batches > first:
            self._pieces.append(Piece(batches - first, suspect=True))
        self._pieces.append(Piece(first, suspect=False))
