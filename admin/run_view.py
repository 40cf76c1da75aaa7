"""A run as the page shows it: its five stages, and each draft with its change and causes in words. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from markupsafe import Markup

from core import rendering
from core.errors import Invalid
from core.invoicing.models import InvoiceRun, RunStatus
from core.invoicing.review import Causes, Reason, ReviewRow
from core.invoicing.run import Totals
from web.charts import small_bars, stacked_bar

WHATS = ("approve", "hold", "release", "approve_calm")
REASONS = {
    Reason.CHANGE: "Change over ±30 %",
    Reason.FIRST_INVOICE: "First invoice",
    Reason.ZERO_USAGE: "Zero usage after use",
    Reason.NEGATIVE_TOTAL: "Negative total",
    Reason.PLAN_CHANGE: "Plan change",
    Reason.LATE_USAGE: "Late usage",
    Reason.MANUAL_LINE: "Line by hand",
}
CAUSES = (
    ("Quantity", "quantity_minor", "f-c1"),
    ("Price", "price_minor", "f-c3"),
    ("Plan", "plan_minor", "f-c4"),
    ("Credits", "credits_minor", "f-c8"),
)


@dataclass(frozen=True, slots=True)
class Decision:
    """What a pressed button asks for: one of WHATS, for the draft `only` ("" means for the picked ones)."""

    what: str
    only: str

    @classmethod
    def parse(cls, text: str) -> Decision:
        """ "approve", or "approve:ID" for one row; Invalid for anything else."""
        what, _, only = text.partition(":")
        if what not in WHATS:
            raise Invalid("Choose what to do: approve, hold or release.")
        return cls(what, only)


@dataclass(frozen=True, slots=True)
class RowView:
    """One line of the table of exceptions."""

    id: uuid.UUID
    name: str
    reasons: str
    currency: str
    median_minor: int | None
    now_minor: int
    change_minor: int | None
    ratio: str
    trend: Markup
    cause_bar: Markup
    cause: str
    state: str
    held_reason: str | None


def stages_of(run: InvoiceRun, rows: Sequence[ReviewRow], totals: Sequence[Totals]) -> list[dict[str, str]]:
    """Rating, drafts, review, finalize, send and collect; exactly one is under way."""
    drafts, issued, held = sum(t.drafts for t in totals), sum(t.issued for t in totals), sum(t.held for t in totals)
    exceptions = [row for row in rows if row.reasons]
    looked_at = sum(row.reviewed_by is not None or row.held_reason is not None for row in exceptions)
    at = {RunStatus.RATING: 0, RunStatus.REVIEW: 2, RunStatus.FINALIZING: 3, RunStatus.DONE: 5}[RunStatus(run.status)]
    words = (
        ("Rating", f"{run.subscriptions_done:,}", f"of {run.subscriptions_due:,} subscriptions"),
        ("Drafts", f"{drafts + issued:,}", f"{held:,} held back"),
        ("Review", f"{looked_at:,}", f"of {len(exceptions):,} exceptions"),
        ("Finalize", f"{run.finalize_done:,}", f"of {run.finalize_total:,} asked for" if run.finalize_total else "not asked for yet"),
        ("Send and collect", f"{issued:,}", "invoices issued"),
    )
    return [
        {"label": label, "value": value, "detail": detail, "state": "done" if i < at else "now" if i == at else ""}
        for i, (label, value, detail) in enumerate(words)
    ]


def view_of(row: ReviewRow, causes: Causes) -> RowView:
    """The draft against the median of its last periods; signs are written, colour means nothing here."""
    parts = [(name, getattr(causes, field), fill) for name, field, fill in CAUSES if getattr(causes, field)]
    largest = max(parts, key=lambda part: abs(part[1]), default=None)
    others = f" +{len(parts) - 1} more" if len(parts) > 1 else ""
    return RowView(
        id=row.invoice_id,
        name=row.organization_name,
        reasons=", ".join(REASONS[reason] for reason in row.reasons) or "No exception",
        currency=row.currency,
        median_minor=row.median_minor,
        now_minor=row.now_minor,
        change_minor=row.change_minor,
        ratio=_signed_percent(row.change_ratio),
        trend=small_bars(row.history[-3:], row.now_minor),
        cause_bar=stacked_bar([(fill, Decimal(minor)) for _, minor, fill in parts], height_px=6),
        cause=f"{largest[0]} {signed(largest[1], row.currency)}{others}" if largest else "",
        state="held" if row.held_reason else "approved" if row.reviewed_by else "",
        held_reason=row.held_reason,
    )


def signed(minor: int, currency: str) -> str:
    """The amount with its sign, both ways: +1,136.12 or −70.00."""
    return ("+" if minor > 0 else "") + rendering.plain_money(minor, currency)


def _signed_percent(ratio: Decimal | None) -> str:
    return "–" if ratio is None else ("+" if ratio > 0 else "") + rendering.percent(ratio)
