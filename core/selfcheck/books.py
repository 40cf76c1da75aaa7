"""Rules of the money: ledger, receivable, credit, payments."""

from __future__ import annotations

from core.selfcheck.rule import ISSUED, Rule

LIVE_STATUSES = "('pending', 'processing', 'requires_action', 'unknown')"

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
)
