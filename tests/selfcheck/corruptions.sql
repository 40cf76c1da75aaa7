-- Corruptions of sound books: a section for each rule of core/selfcheck, which alone must find it.

-- V1-ledger-balanced
UPDATE postings SET amount_minor = amount_minor - 1 WHERE id = (SELECT p.id FROM postings p JOIN ledger_accounts a ON
    a.id = p.ledger_account_id WHERE a.code = 'revenue' LIMIT 1);

-- V1-ledger-complete
INSERT INTO ledger_transactions (organization_id, kind, subject_type, subject_id, description, posted_at) SELECT id,
    'x', 'x', id, 'empty', now() FROM organizations LIMIT 1;

-- V3-receivable
UPDATE postings p SET ledger_account_id = r.id FROM ledger_accounts a, ledger_accounts r WHERE a.id =
    p.ledger_account_id AND a.code = 'accounts_receivable' AND r.code = 'revenue' AND r.organization_id =
    a.organization_id AND p.amount_minor > 0 AND a.organization_id = (SELECT organization_id FROM invoices WHERE id =
    (SELECT id FROM invoices WHERE status = 'open' AND amount_due_minor = 5000 LIMIT 1));

-- V3-written-off
INSERT INTO ledger_accounts (organization_id, code, currency) SELECT DISTINCT organization_id, 'bad_debt', currency FROM invoices;
UPDATE postings p SET ledger_account_id = r.id FROM ledger_accounts a, ledger_accounts r WHERE a.id = p.ledger_account_id
    AND a.code = 'revenue' AND r.code = 'bad_debt' AND r.organization_id = a.organization_id;

-- V3-customer-credit
UPDATE account_credits SET amount_minor = amount_minor + 1, remaining_minor = remaining_minor + 1;

-- V4-credit-used
INSERT INTO credit_applications (organization_id, account_credit_id, invoice_id, amount_minor) SELECT
    c.organization_id, c.id, c.source_invoice_id, 1 FROM account_credits c;

-- V5-charged-once
UPDATE invoice_lines SET kind = 'charge' WHERE kind = 'credit' AND metric_id IS NULL;
UPDATE invoices SET content_hash = NULL;

-- V6-plan-snapshot
UPDATE subscriptions SET plan_id = (SELECT p.id FROM subscription_plans p WHERE NOT EXISTS (SELECT 1 FROM
    plan_versions v JOIN subscription_terms t ON t.plan_version_id = v.id WHERE v.plan_id = p.id AND t.subscription_id
    = subscriptions.id) LIMIT 1) WHERE id = (SELECT subscription_id FROM invoices WHERE id = (SELECT id FROM invoices
    WHERE status = 'open' AND amount_due_minor = 5000 LIMIT 1));

-- V6-billing-moves
UPDATE subscriptions SET next_bill_at = now() - interval '2 days';

-- V7-lines-sum
UPDATE invoice_lines SET amount_minor = amount_minor + 1 WHERE invoice_id = (SELECT id FROM invoices WHERE status =
    'open' AND amount_due_minor = 5000 LIMIT 1);
UPDATE invoices SET content_hash = NULL;

-- V7-tax-sum
DELETE FROM invoice_taxes WHERE invoice_id = (SELECT id FROM invoices WHERE status = 'open' AND amount_due_minor =
    5000 LIMIT 1);
UPDATE invoices SET content_hash = NULL;

-- V7-tax-rate
UPDATE invoice_taxes SET rate_percent = 20 WHERE tax_minor <> 0;
UPDATE invoices SET content_hash = NULL;

-- V8-numbers-gapless
UPDATE number_series SET last_number = last_number + 1;

-- V8-dates-follow-numbers
UPDATE invoices SET issue_date = issue_date + 9, content_hash = NULL WHERE id = (SELECT id FROM invoices WHERE
    amount_paid_minor > 0 LIMIT 1);

-- V9-document-hash
UPDATE invoice_documents SET content = content || '\x00';

-- V9-content-hash
UPDATE invoices SET memo = 'changed afterwards' WHERE id = (SELECT id FROM invoices WHERE status = 'open' AND
    amount_due_minor = 5000 LIMIT 1);

-- V10-billed-usage
UPDATE usage_rollups SET quantity = quantity - 1 WHERE quantity = 30;

-- V13-paid-sum
UPDATE billing_transactions SET amount_minor = amount_minor + 1;

-- V13-paid-status
UPDATE invoices SET status = 'open', paid_at = NULL WHERE id = (SELECT id FROM invoices WHERE amount_paid_minor > 0
    LIMIT 1);

-- V14-one-live-charge
DROP INDEX uq_billing_transactions_one_live_charge;
INSERT INTO billing_transactions (organization_id, invoice_id, type, status, amount_minor, currency, provider,
    created_at) SELECT organization_id, id, 'charge', 'pending', 1, currency, 'stripe', now() FROM invoices WHERE id =
    (SELECT id FROM invoices WHERE status = 'open' AND amount_due_minor = 5000 LIMIT 1);
INSERT INTO billing_transactions (organization_id, invoice_id, type, status, amount_minor, currency, provider,
    created_at) SELECT organization_id, id, 'charge', 'pending', 1, currency, 'stripe', now() FROM invoices WHERE id =
    (SELECT id FROM invoices WHERE status = 'open' AND amount_due_minor = 5000 LIMIT 1);

-- V16-refund-limit
INSERT INTO billing_transactions (organization_id, refunded_transaction_id, type, status, amount_minor, currency,
    provider, created_at) SELECT organization_id, id, 'refund', 'pending', amount_minor + 1, currency, provider, now()
    FROM billing_transactions;

-- V19-money-posted
UPDATE ledger_transactions SET subject_id = uuidv7() WHERE subject_id = (SELECT id FROM billing_transactions LIMIT 1);

-- V19-finalized-recorded
DELETE FROM audit_seals;
DELETE FROM outbox;
DELETE FROM audit_events WHERE kind = 'invoice.finalized';

-- V18-audit-chain
UPDATE audit_events SET actor_label = 'somebody else' WHERE id = (SELECT audit_event_id FROM audit_seals LIMIT 1);

-- V20-outbox-moving
UPDATE outbox SET created_at = now() - interval '20 minutes';

-- V21-tenant
ALTER TABLE invoice_lines DROP CONSTRAINT fk_invoice_lines_organization_id_invoice_id;
UPDATE invoice_lines SET organization_id = (SELECT id FROM organizations WHERE id <> invoice_lines.organization_id
    LIMIT 1) WHERE invoice_id = (SELECT id FROM invoices WHERE status = 'open' AND amount_due_minor = 5000 LIMIT 1);

-- V6-terms-tile
ALTER TABLE subscription_terms DROP CONSTRAINT ex_subscription_terms_overlap;
UPDATE subscription_terms SET end_at = NULL;

-- V23-numbers-finite
UPDATE invoice_lines SET window_end = '2400-01-01Z' WHERE invoice_id = (SELECT id FROM invoices WHERE status = 'open'
    AND amount_due_minor = 5000 LIMIT 1);
UPDATE invoices SET content_hash = NULL;
