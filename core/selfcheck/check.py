"""Is the money right? Invariants as SQL: each query must return no row; what it returns names what is wrong.

`run` is behind `make verify`, the admin's health page and the end of every scenario. A rule's code stays the same for good: alerts and
runbooks refer to it. Rules that need Python (hashes, the audit chain) stand beside the queries and answer in the same form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from sqlalchemy import text
from sqlalchemy.orm import Session

from core import audit
from core.invoicing import frozen
from core.selfcheck import billing, books
from core.selfcheck.rule import Rule

ROWS_MAX = 20
"""Offending rows reported per rule; more than that is one cause, not twenty."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One violation of one rule."""

    code: str
    meaning: str
    what: str


RULES = (*books.RULES, *billing.RULES)


def run(session: Session) -> list[Finding]:
    """Check every rule; an empty list means the books are right."""
    findings = [Finding(rule.code, rule.meaning, what) for rule in RULES for what in _violations(session, rule)]
    findings += [Finding(code, meaning, what) for code, meaning, check in PROOFS for what in check(session)]
    return findings


def codes() -> list[str]:
    """Every rule's code, in the order they are checked."""
    return [rule.code for rule in RULES] + [code for code, _, _ in PROOFS]


def _violations(session: Session, rule: Rule) -> Iterator[str]:
    limited = f"SELECT what FROM ({rule.sql}) violations LIMIT {ROWS_MAX}"
    yield from session.scalars(text(limited))


def _broken_audit_chain(session: Session) -> Iterator[str]:
    for seq in audit.broken_links(session)[:ROWS_MAX]:
        yield f"audit seal {seq} does not follow from its predecessor"


def _changed_content(session: Session) -> Iterator[str]:
    for number in islice(frozen.changed(session), ROWS_MAX):
        yield f"invoice {number} is not what was finalized"


PROOFS: tuple[tuple[str, str, Callable[[Session], Iterator[str]]], ...] = (
    ("V9-content-hash", "a finalized invoice's content has the hash it was finalized with", _changed_content),
    ("V18-audit-chain", "the audit events form the hash chain that was sealed", _broken_audit_chain),
)
