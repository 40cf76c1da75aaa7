"""A rule of the self-check: SQL that finds what breaks it."""

from __future__ import annotations

from dataclasses import dataclass

ISSUED = "('open', 'paid', 'uncollectible')"


@dataclass(frozen=True, slots=True)
class Rule:
    """One invariant: `code` names it, `meaning` says what holds, `sql` returns a column `what` for each violation."""

    code: str
    meaning: str
    sql: str
