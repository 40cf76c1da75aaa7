"""Rules of what is billed: prices, terms, invoices, numbers, usage, and the trail of it."""

from __future__ import annotations

from core.selfcheck.rule import ISSUED, Rule

RULES = (
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
        "no more usage is billed than was counted, where nothing was taken back since",
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
            WHERE NOT EXISTS (SELECT FROM usage_corrections c WHERE c.organization_number = o.number
                                 AND c.old_timestamp >= b.window_start AND c.old_timestamp < b.window_end)
            GROUP BY b.subscription_id, b.code, b.cycle_start, b.quantity HAVING b.quantity > coalesce(sum(r.quantity), 0)""",
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
