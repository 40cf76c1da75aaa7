"""The next invoices of a timeline, stored or only proposed, as far as they are known today: what is due when if nothing more is used.

The same rating as the invoices', at each instant something falls due; what a later invoice holds is what is due by then less what was
due by the one before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from core import config
from core.identity.models import Organization
from core.invoicing import lines, rating, statements, taxes
from core.invoicing.preview import ISSUED_OR_DRAFTED
from core.invoicing.rating import Rated, Subject
from core.invoicing.statement import Statement
from core.invoicing.statements import Labels, Reader
from core.pricing.tax import totals
from core.pricing.terms import Term
from core.pricing.timeline import next_due
from core.subscriptions.models import Subscription

LOOKED_AT_MAX = 14
"""Instants that are looked at, so that a yearly fee beside monthly usage is found; each is rated for itself, until enough are found."""


@dataclass(frozen=True, slots=True)
class Upcoming:
    """One invoice to come: when, its sums in minor units, what it is for, and the whole of it."""

    due_at: datetime
    net_minor: int
    tax_minor: int
    total_minor: int
    names: tuple[str, ...]
    statement: Statement


def upcoming(
    session: Session,
    organization: Organization,
    subscription: Subscription,
    terms: tuple[Term, ...],
    *,
    as_of: datetime,
    count: int = 3,
    now: bool = False,
    on_next: bool = False,
) -> tuple[Upcoming, ...]:
    """The next invoices with an amount after `as_of`, at most `count`; with `now` also that of what is due by `as_of`.

    Without it, what is due by `as_of` is left out, or, with `on_next`, is on the first of them. Usage counts as
    far as it is known; nothing is stored.
    """
    found: list[Upcoming] = []
    before: dict[Any, int] = {}
    instant: datetime | None = as_of
    for number in range(LOOKED_AT_MAX):
        one, names = _rated(session, Subject(subscription.id, organization.id, subscription.currency, terms, instant or as_of))
        rows = _more(one, names, before)
        if number or not on_next:
            before = {_key(row): row["amount_minor"] for row in lines.rows(one, names)}
        if rows and (number or now):
            found.append(_invoice(session, organization, one, rows))
        instant = next_due(terms, after=one.subject.as_of)
        if instant is None or len(found) == count:
            break
    return tuple(found)


def _rated(session: Session, subject: Subject) -> tuple[Rated, dict[str, lines.RuleName]]:
    [one] = rating.rate(session, [subject], adjustment_days=config.current().adjustment_days, uncounted=ISSUED_OR_DRAFTED)
    return one, lines.rule_names(session, {item.key.rule_id for item in one.items})


def _more(one: Rated, names: dict[str, lines.RuleName], before: dict[Any, int]) -> list[dict[str, Any]]:
    """The rows that are due by this instant and were not by the one before, or for the difference."""
    rows = [{**row, "amount_minor": row["amount_minor"] - before.get(_key(row), 0)} for row in lines.rows(one, names)]
    return [row for row in rows if row["amount_minor"]]


def _key(row: dict[str, Any]) -> Any:
    return row["pricing_rule_id"], row["code"], row["cycle_start"], row["kind"]


def _invoice(session: Session, organization: Organization, one: Rated, rows: list[dict[str, Any]]) -> Upcoming:
    assessment = taxes.assessment(session, organization, taxes.local_day(one.subject.as_of, organization.timezone))
    currency = one.subject.currency
    sums = totals([(sum(row["amount_minor"] for row in rows), assessment.rate_percent)], currency)
    shown = statements.rated_lines(rows)
    reader = Reader(currency, organization.timezone, organization.locale)
    said = Labels("The invoice", total="Total")
    statement = statements.build(shown, statements.assessed_taxes(assessment, sums.groups), reader, said)
    named = tuple(dict.fromkeys(line.name for line in shown))
    return Upcoming(one.subject.as_of, sums.net, sums.tax, sums.total, named, statement)
