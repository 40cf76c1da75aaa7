"""What the next invoice would be if nothing more were used: spend so far. The same rating as an invoice's, at the next instant due."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from core import config, rendering
from core.errors import NotFound
from core.identity.models import Organization
from core.invoicing import lines, rating, statements, taxes
from core.invoicing.lines import RuleName
from core.invoicing.models import InvoiceStatus
from core.invoicing.rating import Rated, Subject
from core.invoicing.statement import Statement
from core.invoicing.statements import Labels, Line, Reader
from core.metering.reading import Measured, Question, ask
from core.periods import Period
from core.pricing.tax import totals
from core.pricing.terms import Term
from core.pricing.timeline import current_cycle, next_due, open_segments
from core.subscriptions import queries as subscriptions
from core.subscriptions import timeline
from core.tax.assess import TaxAssessment

ISSUED_OR_DRAFTED = (InvoiceStatus.VOID,)
"""For a preview a draft counts as billed: its charges are shown there."""


@dataclass(frozen=True, slots=True)
class SoFar:
    """Spend of the running `period` as of an instant: the lines of the invoice of `due_at` as they stand, sums in minor units."""

    period: Period | None
    due_at: datetime | None
    lines: tuple[Line, ...]
    net_minor: int
    tax_minor: int
    total_minor: int
    statement: Statement


def usage_so_far(session: Session, organization_id: uuid.UUID, subscription_id: uuid.UUID, as_of: datetime) -> Statement:
    """The statement of `so_far`."""
    return so_far(session, organization_id, subscription_id, as_of=as_of).statement


def so_far(
    session: Session,
    organization_id: uuid.UUID,
    subscription_id: uuid.UUID,
    *,
    as_of: datetime,
    href: Callable[[Line], str | None] | None = None,
) -> SoFar:
    """What the subscription's next invoice holds by now, with the same days of the period before beside it. NotFound for a stranger."""
    return ask(session, question(session, organization_id, subscription_id, as_of=as_of, href=href))


def question(
    session: Session,
    organization_id: uuid.UUID,
    subscription_id: uuid.UUID,
    *,
    as_of: datetime,
    href: Callable[[Line], str | None] | None = None,
) -> Question[SoFar]:
    """`so_far`, to be read together with other questions."""
    subscription = subscriptions.subscription(session, organization_id, subscription_id)
    terms = timeline.terms(timeline.spans(subscription))
    organization = session.get(Organization, organization_id)
    if organization is None:
        raise NotFound("There is no such organization.")
    subject = Subject(subscription_id, organization_id, organization.currency, terms, next_due(terms, after=as_of) or as_of)
    rates = rating.rates(session, [subject], adjustment_days=config.current().adjustment_days, uncounted=ISSUED_OR_DRAFTED)
    past = _same_days_before(subject, as_of)
    names = lines.loaded_names(rule for term in subscription.terms for rule in term.plan_version.rules)

    def answer(measured: Measured) -> SoFar:
        [rated] = rates.answer(measured)
        gone = {item.key.rule_id for item in rated.items} - names.keys()  # billed under a term that was taken back
        known = names | (lines.rule_names(session, gone) if gone else {})
        return _so_far(session, organization, rated, known, past.answer(measured), as_of, href)

    return Question(rates.windows | past.windows, answer)


def _so_far(
    session: Session,
    organization: Organization,
    rated: Rated,
    names: dict[str, RuleName],
    before: dict[str, int] | None,
    as_of: datetime,
    href: Callable[[Line], str | None] | None,
) -> SoFar:
    terms = rated.subject.terms
    shown = _until(statements.rated_lines(lines.rows(rated, names)), as_of)
    assessment = taxes.assessment(session, organization, taxes.local_day(as_of, organization.timezone))
    sums = totals([(sum(line.amount_minor for line in shown), assessment.rate_percent)], organization.currency)
    reader = _reader(organization, before, assessment, href)
    due_at = next_due(terms, after=as_of)
    labels = Labels(
        caption="Statement so far",
        net="Spend so far",
        total="Invoice total so far",
        note=f"For the invoice of {rendering.date(due_at, organization.timezone, organization.locale)}" if due_at else "",
        compare="Same days last period" if reader.compared is not None else "",
    )
    statement = statements.build(shown, statements.assessed_taxes(assessment, sums.groups), reader, labels)
    return SoFar(current_cycle(terms, as_of=as_of), due_at, tuple(shown), sums.net, sums.tax, sums.total, statement)


def _until(found: list[Line], as_of: datetime) -> list[Line]:
    """Usage lines of the running period are of what was used until now."""
    return [
        statements.until(line, as_of) if line.metric_id is not None and line.window_end is not None and line.window_end > as_of else line
        for line in found
    ]


def _reader(
    organization: Organization,
    before: dict[str, int] | None,
    assessment: TaxAssessment,
    href: Callable[[Line], str | None] | None,
) -> Reader:
    net = sum(before.values()) if before is not None else 0
    sums = totals([(net, assessment.rate_percent)], organization.currency)
    return Reader(
        organization.currency,
        organization.timezone,
        organization.locale,
        href=href or (lambda _: None),
        compared=before,
        compared_totals=None if before is None else (net, sums.total),
    )


def _same_days_before(subject: Subject, as_of: datetime) -> Question[dict[str, int] | None]:
    """What the period before owed after the same time, by code; None when there was none."""
    then = _same_instant_before(subject.terms, as_of)
    past = [] if then is None else [replace(subject, as_of=then)]
    owes = rating.owing(past, lambda one: open_segments(one.terms, as_of=one.as_of))

    def answer(measured: Measured) -> dict[str, int] | None:
        found: dict[str, int] = {}
        for entries in owes.answer(measured):
            for entry in entries.values():
                found[entry.rule.code] = found.get(entry.rule.code, 0) + entry.minor
        return found or None

    return Question(owes.windows, answer)


def _same_instant_before(terms: tuple[Term, ...], as_of: datetime) -> datetime | None:
    running = next((term for term in terms if term.start <= as_of and (term.end is None or as_of < term.end)), None)
    if running is None or not running.rules:
        return None
    number = running.anchor.index(as_of)
    cycle, before = running.anchor.cycle(number), running.anchor.cycle(number - 1)
    then = min(before.start + (as_of - cycle.start), before.end - timedelta(microseconds=1))
    return then if any(term.rules and term.start <= then for term in terms) else None
