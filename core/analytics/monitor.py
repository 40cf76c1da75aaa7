"""What monitoring reads: the state of the product as numbers, from the database's own rows, without a series for each customer.

Each measure is one statement that stays cheap however large the tables grow: partial indexes, the newest rows, or single-row totals.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import text
from sqlalchemy.orm import Session

from core import jobs
from core.metering import watch

Kind = Literal["gauge", "counter"]


@dataclass(frozen=True, slots=True)
class Measure:
    """A metric of monitoring. `samples` maps the value of its label ("" without one) to a number."""

    name: str
    kind: Kind
    meaning: str
    samples: dict[str, float]
    label: str = ""


# name, kind, meaning, label, statement that answers (label value, number); :at is real time
QUERIES: tuple[tuple[str, Kind, str, str, str], ...] = (
    ("billing_usage_events", "counter", "Usage events that left the log", "result",
     """SELECT * FROM usage_totals t CROSS JOIN LATERAL
        (VALUES ('counted', t.counted), ('duplicate', t.duplicates), ('conflict', t.conflicts)) AS v(result, number)"""),
    ("billing_usage_flushes", "counter", "Counting transactions", "", "SELECT '', flushes FROM usage_totals"),
    ("billing_usage_quarantined_batches", "counter", "Batches that could not be counted", "",
     "SELECT '', quarantined_batches FROM usage_totals"),
    ("billing_usage_backlog_events", "gauge", "Events accepted and not counted yet", "",
     "SELECT '', coalesce(sum(events), 0) FROM usage_pending"),
    ("billing_usage_rollup_lag_seconds", "gauge", "Age of the oldest event that is not counted yet", "",
     "SELECT '', coalesce(extract(epoch FROM :at - min(received_at)), 0) FROM usage_pending"),
    ("billing_usage_rejections_last_hour", "gauge", "Events refused in the last hour", "code",
     "SELECT code, count(*) FROM usage_rejections WHERE received_at > :at - interval '1 hour' GROUP BY 1"),
    ("billing_usage_default_rows", "gauge", "Rows without a partition of their own (of events: late ones too), at most 10,000", "table",
     """SELECT 'usage_batches', count(*) FROM (SELECT FROM usage_batches_default LIMIT 10000) b
        UNION ALL SELECT 'usage_events', count(*) FROM (SELECT FROM usage_events_default LIMIT 10000) e"""),
    ("billing_usage_blocks", "gauge", "Limits and spend caps that refuse usage now", "reason",
     "SELECT reason, count(*) FROM usage_blocks WHERE window_end IS NULL OR window_end > :at GROUP BY 1"),
    ("billing_limits_oldest_touched_seconds", "gauge", "Age of the oldest counted usage whose limits nobody has looked at", "",
     "SELECT '', coalesce(extract(epoch FROM :at - min(touched_from)), 0) FROM limit_watch WHERE touched_from IS NOT NULL"),
    ("billing_limit_delay_seconds_max", "gauge", "Longest time a limit took to take hold, last 24 hours", "",
     """SELECT '', coalesce(max(delay_seconds), 0) FROM limit_states WHERE reached_at > :at - interval '24 hours'"""),
    ("billing_payment_open", "gauge", "Payment attempts without an outcome", "status",
     """SELECT status, count(*) FROM billing_transactions
        WHERE status IN ('pending', 'processing', 'requires_action', 'unknown') GROUP BY 1"""),
    ("billing_payment_unknown_age_seconds", "gauge", "Age of the oldest attempt the provider did not answer", "",
     "SELECT '', coalesce(extract(epoch FROM :at - min(created_at)), 0) FROM billing_transactions WHERE status = 'unknown'"),
    ("billing_payment_attempts_last_day", "gauge", "Charges and refunds begun in the last 24 hours", "status",
     "SELECT status, count(*) FROM billing_transactions WHERE created_at > :at - interval '24 hours' GROUP BY 1"),
    ("billing_webhook_in_pending", "gauge", "Events of the provider that are not handled yet", "",
     "SELECT '', count(*) FROM inbound_events WHERE processed_at IS NULL"),
    ("billing_webhook_in_lag_seconds", "gauge", "Age of the oldest event of the provider that is not handled yet", "",
     "SELECT '', coalesce(extract(epoch FROM :at - min(received_at)), 0) FROM inbound_events WHERE processed_at IS NULL"),
    ("billing_invoice_overdue_to_bill", "gauge", "Subscriptions whose billing is an hour late", "",
     """SELECT '', count(*) FROM subscriptions s JOIN organizations o ON o.id = s.organization_id
        WHERE s.next_bill_at < :at - interval '1 hour' AND o.test_clock_id IS NULL"""),
    ("billing_invoice_run_errors_open", "gauge", "Subscriptions that could not be rated", "",
     "SELECT '', count(*) FROM invoice_run_errors WHERE resolved_at IS NULL"),
    ("billing_invoices_finalized_last_hour", "gauge", "Invoices issued in the last hour", "",
     "SELECT '', count(*) FROM invoices WHERE finalized_at > :at - interval '1 hour'"),
    ("billing_outbox_waiting", "gauge", "Facts nobody has been told yet", "", "SELECT '', count(*) FROM outbox"),
    ("billing_outbox_oldest_seconds", "gauge", "Age of the oldest of them", "",
     "SELECT '', coalesce(extract(epoch FROM :at - min(created_at)), 0) FROM outbox"),
    ("billing_mails_open", "gauge", "Mails that are not sent: due, refused, or of unknown fate", "status",
     "SELECT status, count(*) FROM notifications WHERE status <> 'sent' GROUP BY 1"),
    ("billing_audit_seal_age_seconds", "gauge", "Age of the oldest fact without its place in the hash chain", "",
     """SELECT '', coalesce(extract(epoch FROM :at - min(e.recorded_at)), 0) FROM (SELECT * FROM audit_events ORDER BY id DESC LIMIT 5000) e
        WHERE NOT EXISTS (SELECT FROM audit_seals s WHERE s.audit_event_id = e.id)"""),
    ("billing_database_size_bytes", "gauge", "Size of the database on disk", "", "SELECT '', pg_database_size(current_database())"),
    ("billing_database_connections", "gauge", "Connections to this database", "state",
     "SELECT coalesce(state, 'other'), count(*) FROM pg_stat_activity WHERE datname = current_database() GROUP BY 1"),
    ("billing_database_locks_waiting", "gauge", "Statements that wait for a lock", "",
     "SELECT '', count(*) FROM pg_locks WHERE NOT granted"),
    ("billing_database_oldest_transaction_seconds", "gauge", "Age of the oldest open transaction", "",
     """SELECT '', coalesce(extract(epoch FROM :at - min(xact_start)), 0) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()"""),
)  # fmt: skip


def measures(session: Session, *, at: datetime) -> Iterator[Measure]:
    """Everything, in real time `at`."""
    for name, kind, meaning, label, statement in QUERIES:
        rows: list[Any] = list(session.execute(text(statement), {"at": at} if ":at" in statement else {}))
        yield Measure(name, kind, meaning, {str(row[-2]): max(0.0, float(row[-1])) for row in rows}, label)
    accepted = watch.ingestion(session, at=at, minutes=1)
    yield Measure("billing_usage_accepted_per_second", "gauge", "Events accepted, last minute", {"": float(accepted.per_second)})
    waiting = jobs.waiting()
    yield Measure("billing_queue_up", "gauge", "Whether the queue answers", {"": float(waiting is not None)})
    if waiting is not None:
        yield Measure("billing_jobs_waiting", "gauge", "Jobs in the queue", {"": float(waiting)})
