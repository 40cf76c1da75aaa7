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

ROWS_MAX = 20
"""Offending rows reported per rule; more than that is one cause, not twenty."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One invariant: `code` names it, `meaning` says what holds, `sql` returns a column `what` for each violation."""

    code: str
    meaning: str
    sql: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One violation of one rule."""

    code: str
    meaning: str
    what: str


LIVE_STATUSES = "('pending', 'processing', 'requires_action', 'unknown')"
ISSUED = "('open', 'paid', 'uncollectible')"

RULES = (
    Rule(
        "V1-ledger-balanced",
        "the postings of every ledger transaction sum to zero in each currency",
        """SELECT format('ledger transaction %s: %s %s', ledger_transaction_id, sum(amount_minor), currency) AS what
             FROM postings GROUP BY ledger_transaction_id, currency HAVING sum(amount_minor) <> 0""",
    ),
    Rule(
        "V1-ledger-complete",
        "every ledger transaction has at least two postings",
        """SELECT format('ledger transaction %s has %s postings', t.id, count(p.id)) AS what
             FROM ledger_transactions t LEFT JOIN postings p ON p.ledger_transaction_id = t.id GROUP BY t.id HAVING count(p.id) < 2""",
    ),
    Rule(
        "V3-receivable",
        "accounts receivable of each customer equals what its open and paid invoices are due (refunded amounts included)",
        """WITH booked AS (
               SELECT a.organization_id, a.currency, sum(p.amount_minor) AS minor
                 FROM ledger_accounts a JOIN postings p ON p.ledger_account_id = a.id
                WHERE a.code = 'accounts_receivable' GROUP BY 1, 2),
             owed AS (
               SELECT organization_id, currency, sum(amount_due_minor) AS minor
                 FROM invoices WHERE status IN ('open', 'paid') GROUP BY 1, 2)
           SELECT format('organization %s: the books say %s %s, the invoices %s',
                         organization_id, coalesce(booked.minor, 0), currency, coalesce(owed.minor, 0)) AS what
             FROM booked FULL JOIN owed USING (organization_id, currency)
            WHERE coalesce(booked.minor, 0) <> coalesce(owed.minor, 0)""",
    ),
    Rule(
        "V3-written-off",
        "the bad debt of each customer equals what its uncollectible invoices are due",
        """WITH booked AS (
               SELECT a.organization_id, a.currency, sum(p.amount_minor) AS minor
                 FROM ledger_accounts a JOIN postings p ON p.ledger_account_id = a.id WHERE a.code = 'bad_debt' GROUP BY 1, 2),
             lost AS (
               SELECT organization_id, currency, sum(amount_due_minor) AS minor
                 FROM invoices WHERE status = 'uncollectible' GROUP BY 1, 2)
           SELECT format('organization %s: the books say %s %s, the invoices %s',
                         organization_id, coalesce(booked.minor, 0), currency, coalesce(lost.minor, 0)) AS what
             FROM booked FULL JOIN lost USING (organization_id, currency)
            WHERE coalesce(booked.minor, 0) <> coalesce(lost.minor, 0)""",
    ),
    Rule(
        "V3-customer-credit",
        "the customer-credit account of each customer equals its unused credits",
        """WITH booked AS (
               SELECT a.organization_id, a.currency, -sum(p.amount_minor) AS minor
                 FROM ledger_accounts a JOIN postings p ON p.ledger_account_id = a.id
                WHERE a.code = 'customer_credit' GROUP BY 1, 2),
             unused AS (SELECT organization_id, currency, sum(remaining_minor) AS minor FROM account_credits GROUP BY 1, 2)
           SELECT format('organization %s: the books say %s %s, the credits %s',
                         organization_id, coalesce(booked.minor, 0), currency, coalesce(unused.minor, 0)) AS what
             FROM booked FULL JOIN unused USING (organization_id, currency)
            WHERE coalesce(booked.minor, 0) <> coalesce(unused.minor, 0)""",
    ),
    Rule(
        "V4-credit-used",
        "what is left of a credit is its amount less what invoices used",
        """SELECT format('credit %s: %s left of %s, %s used',
                         c.id, c.remaining_minor, c.amount_minor, coalesce(sum(a.amount_minor), 0)) AS what
             FROM account_credits c
             LEFT JOIN (SELECT a.account_credit_id, a.amount_minor FROM credit_applications a
                          JOIN invoices i ON i.id = a.invoice_id AND i.status <> 'void') a ON a.account_credit_id = c.id
            GROUP BY c.id HAVING c.remaining_minor <> c.amount_minor - coalesce(sum(a.amount_minor), 0)""",
    ),
    Rule(
        "V5-charged-once",
        "a price is charged at most once per subscription and cycle; later differences are adjustments",
        """SELECT format('subscription %s, price %s, cycle from %s is charged on %s invoices',
                         l.subscription_id, l.code, l.cycle_start, count(*)) AS what
             FROM invoice_lines l JOIN invoices i ON i.id = l.invoice_id
            WHERE l.kind = 'charge' AND l.pricing_rule_id IS NOT NULL AND i.status <> 'void'
            GROUP BY l.subscription_id, l.pricing_rule_id, l.code, l.cycle_start HAVING count(*) > 1""",
    ),
    Rule(
        "V6-terms-tile",
        "the terms of a subscription never overlap",
        """SELECT format('terms %s and %s of subscription %s overlap', a.id, b.id, a.subscription_id) AS what
             FROM subscription_terms a JOIN subscription_terms b
               ON b.subscription_id = a.subscription_id AND b.id > a.id
              AND tstzrange(a.start_at, a.end_at) && tstzrange(b.start_at, b.end_at)""",
    ),
    Rule(
        "V6-plan-snapshot",
        "the plan a subscription shows is the plan of one of its terms",
        """SELECT format('subscription %s shows a plan that none of its terms has', s.id) AS what FROM subscriptions s
            WHERE EXISTS (SELECT FROM subscription_terms t WHERE t.subscription_id = s.id)
              AND NOT EXISTS (SELECT FROM subscription_terms t JOIN plan_versions v ON v.id = t.plan_version_id
                               WHERE t.subscription_id = s.id AND v.plan_id = s.plan_id)""",
    ),
    Rule(
        "V6-billing-moves",
        "no subscription in real time has waited a day to be billed",
        """SELECT format('subscription %s has been due since %s', s.id, s.next_bill_at) AS what
             FROM subscriptions s JOIN organizations o ON o.id = s.organization_id
            WHERE o.test_clock_id IS NULL AND s.next_bill_at < now() - interval '1 day'""",
    ),
    Rule(
        "V7-lines-sum",
        "the subtotal of an invoice is the sum of its lines",
        """SELECT format('invoice %s: subtotal %s, lines %s', coalesce(i.invoice_number, i.id::text),
                         i.subtotal_minor, coalesce(sum(l.amount_minor), 0)) AS what
             FROM invoices i LEFT JOIN invoice_lines l ON l.invoice_id = i.id
            GROUP BY i.id HAVING i.subtotal_minor <> coalesce(sum(l.amount_minor), 0)""",
    ),
    Rule(
        "V7-tax-sum",
        "the tax of an issued invoice is the sum of its rate groups, which cover the subtotal",
        f"""SELECT format('invoice %s: tax %s on %s, rate groups %s on %s', i.invoice_number, i.tax_minor, i.subtotal_minor,
                         coalesce(sum(t.tax_minor), 0), coalesce(sum(t.taxable_minor), 0)) AS what
             FROM invoices i LEFT JOIN invoice_taxes t ON t.invoice_id = i.id WHERE i.status IN {ISSUED}
            GROUP BY i.id HAVING i.tax_minor <> coalesce(sum(t.tax_minor), 0) OR i.subtotal_minor <> coalesce(sum(t.taxable_minor), 0)""",
    ),
    Rule(
        "V7-tax-rate",
        "the tax of a rate group is its rate of the group's net, rounded half away from zero once",
        """SELECT format('invoice %s: %s %% of %s is not %s', invoice_id, rate_percent, taxable_minor, tax_minor) AS what
             FROM invoice_taxes WHERE tax_minor <> round(taxable_minor * rate_percent / 100)""",
    ),
    Rule(
        "V8-numbers-gapless",
        "invoice numbers of a series are 1, 2, 3 … without a gap, and the counter stands at the last",
        """SELECT format('series %s-%s of %s: %s numbers, highest %s, counter %s', s.series, s.year, s.entity,
                         count(i.id), coalesce(max(i.sequence), 0), s.last_number) AS what
             FROM number_series s LEFT JOIN invoices i ON i.entity = s.entity AND i.series = s.series AND i.year = s.year
            GROUP BY s.entity, s.series, s.year
           HAVING count(i.id) <> s.last_number OR coalesce(max(i.sequence), 0) <> s.last_number""",
    ),
    Rule(
        "V8-dates-follow-numbers",
        "in real time, dates do not decrease with the number (a day may lie between time zones)",
        """SELECT format('invoice %s of %s follows one of %s', later.invoice_number, later.issue_date, later.before) AS what
             FROM (SELECT i.invoice_number, i.issue_date,
                          max(i.issue_date) OVER (PARTITION BY i.entity, i.series, i.year ORDER BY i.sequence
                                                  ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
                     FROM invoices i JOIN organizations o ON o.id = i.organization_id
                    WHERE i.sequence IS NOT NULL AND o.test_clock_id IS NULL) AS later
            WHERE later.issue_date < later.before - 1""",
    ),
    Rule(
        "V9-document-hash",
        "a stored PDF has the SHA-256 it was stored with",
        "SELECT format('document of invoice %s', invoice_id) AS what FROM invoice_documents WHERE sha256(content) <> sha256",
    ),
    Rule(
        "V10-billed-usage",
        "no more usage is billed than was counted",
        """SELECT format('subscription %s, %s, cycle from %s: billed %s, counted %s', b.subscription_id, b.code, b.cycle_start, b.quantity,
                         coalesce(sum(r.quantity), 0)) AS what
             FROM (SELECT l.subscription_id, l.organization_id, l.metric_id, l.code, l.cycle_start, sum(l.quantity) AS quantity,
                          min(l.window_start) AS window_start, max(l.window_end) AS window_end
                     FROM invoice_lines l JOIN invoices i ON i.id = l.invoice_id
                    WHERE l.metric_id IS NOT NULL AND i.status NOT IN ('draft', 'void')
                    GROUP BY l.subscription_id, l.organization_id, l.metric_id, l.pricing_rule_id, l.code, l.cycle_start) b
             JOIN organizations o ON o.id = b.organization_id
             JOIN metrics m ON m.id = b.metric_id AND m.aggregation IN ('sum', 'count')
             LEFT JOIN usage_rollups r ON r.organization_number = o.number AND r.metric_number = m.number
              AND r.hour >= date_trunc('hour', b.window_start) AND r.hour < b.window_end
            GROUP BY b.subscription_id, b.code, b.cycle_start, b.quantity HAVING b.quantity > coalesce(sum(r.quantity), 0)""",
    ),
    Rule(
        "V13-paid-sum",
        "what an invoice counts as paid is its succeeded charges less its succeeded refunds, save what became or came from credit",
        """WITH settled AS (
               SELECT invoice_id, sum((amount_minor - coalesce((metadata->>'excess_minor')::bigint, 0))
                                      * CASE type WHEN 'charge' THEN 1 WHEN 'refund' THEN -1 ELSE 0 END) AS minor
                 FROM billing_transactions WHERE status = 'succeeded' GROUP BY invoice_id)
           SELECT format('invoice %s: paid %s, transactions %s', i.invoice_number, i.amount_paid_minor, coalesce(s.minor, 0)) AS what
             FROM invoices i LEFT JOIN settled s ON s.invoice_id = i.id WHERE i.amount_paid_minor <> coalesce(s.minor, 0)""",
    ),
    Rule(
        "V13-paid-status",
        "an invoice is paid exactly when nothing is due on it, save what was refunded later",
        """SELECT format('invoice %s is %s with %s due', i.invoice_number, i.status, i.amount_due_minor) AS what
             FROM invoices i
            WHERE (i.status = 'open' AND i.amount_due_minor = 0)
               OR (i.status = 'paid' AND i.amount_due_minor <> 0 AND i.amount_due_minor > (
                   SELECT coalesce(sum(t.amount_minor), 0) FROM billing_transactions t
                    WHERE t.invoice_id = i.id AND t.type = 'refund' AND t.status = 'succeeded'))""",
    ),
    Rule(
        "V14-one-live-charge",
        "at most one charge attempt of an invoice is undecided at a time",
        f"""SELECT format('invoice %s has %s live attempts', invoice_id, count(*)) AS what FROM billing_transactions
            WHERE type = 'charge' AND status IN {LIVE_STATUSES} GROUP BY invoice_id HAVING count(*) > 1""",
    ),
    Rule(
        "V16-refund-limit",
        "refunds of a charge never exceed it",
        f"""SELECT format('charge %s of %s was refunded %s', c.id, c.amount_minor, sum(r.amount_minor)) AS what
             FROM billing_transactions c JOIN billing_transactions r ON r.refunded_transaction_id = c.id AND r.type = 'refund'
              AND r.status IN ('succeeded', {LIVE_STATUSES[1:-1]})
            GROUP BY c.id HAVING sum(r.amount_minor) > c.amount_minor""",
    ),
    Rule(
        "V19-money-posted",
        "every issued invoice and every succeeded payment stands in the ledger",
        f"""SELECT format('invoice %s is not in the ledger', i.invoice_number) AS what FROM invoices i
            WHERE i.status IN {ISSUED} AND i.total_minor <> 0 AND NOT EXISTS (SELECT FROM ledger_transactions t WHERE t.subject_id = i.id)
           UNION ALL
           SELECT format('%s %s is not in the ledger', b.type, b.id) FROM billing_transactions b
            WHERE b.status = 'succeeded' AND b.type IN ('charge', 'refund')
              AND NOT EXISTS (SELECT FROM ledger_transactions t WHERE t.subject_id = b.id)""",
    ),
    Rule(
        "V19-finalized-recorded",
        "every finalized invoice has the audit event that says so",
        """SELECT format('invoice %s was finalized and nobody says by whom', i.invoice_number) AS what FROM invoices i
            WHERE i.finalized_at IS NOT NULL
              AND NOT EXISTS (SELECT FROM audit_events e
                               WHERE e.subject_type = 'invoices' AND e.subject_id = i.id::text AND e.kind = 'invoice.finalized')""",
    ),
    Rule(
        "V20-outbox-moving",
        "no fact waits longer than 15 minutes for its consequences",
        """SELECT format('audit event %s waits since %s', audit_event_id, created_at) AS what
             FROM outbox WHERE created_at < clock_timestamp() - interval '15 minutes'""",
    ),
    Rule(
        "V21-tenant",
        "an invoice line belongs to the tenant of its subscription",
        """SELECT format('line %s of organization %s names a subscription of %s', l.id, l.organization_id, s.organization_id) AS what
             FROM invoice_lines l JOIN subscriptions s ON s.id = l.subscription_id WHERE s.organization_id <> l.organization_id""",
    ),
    Rule(
        "V23-numbers-finite",
        "no quantity or price is NaN or infinite, and no instant lies outside the years 2000 to 2200",
        """SELECT format('invoice line %s: quantity %s, window %s to %s', id, quantity, window_start, window_end) AS what FROM invoice_lines
            WHERE quantity IN ('NaN', 'Infinity', '-Infinity') OR window_start NOT BETWEEN '2000-01-01Z' AND '2200-01-01Z'
               OR window_end NOT BETWEEN '2000-01-01Z' AND '2200-01-01Z'
           UNION ALL
           SELECT format('term %s: quantity %s', id, quantity) FROM subscription_terms WHERE quantity IN ('NaN', 'Infinity', '-Infinity')
           UNION ALL
           SELECT format('plan version %s: base price %s', id, base_price) FROM plan_versions WHERE base_price IN ('NaN', 'Infinity')""",
    ),
)


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
