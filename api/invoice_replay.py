"""Replaying an issued invoice: is it still what the stored inputs say?"""

from __future__ import annotations

import uuid

from api.call import Call
from api.contract import Output, endpoint
from api.invoices import TAG
from core.identity.permissions import Scope
from core.invoicing import replay


class DifferenceOut(Output):
    """A figure that came out otherwise than it was issued; `where` names it, such as `line 3, amount`."""

    where: str
    issued: str
    replayed: str


class UnpricedOut(Output):
    """A line whose inputs were not kept with it, and why: only its place in the sums was checked."""

    position: int
    reason: str


class ReplayOut(Output):
    """An issued invoice worked out again from the inputs stored with it."""

    invoice_number: str
    identical: bool
    lines: int
    differences: list[DifferenceOut]
    unpriced: list[UnpricedOut]


@endpoint("GET", "/billing/invoices/<uuid:invoice_id>/replay", scope=Scope.BILLING_READ, tag=TAG)
def replay_invoice(call: Call, invoice_id: uuid.UUID) -> ReplayOut:
    """Work an issued invoice out again from the usage, prices and windows stored with it, and compare every figure. Changes nothing."""
    found = replay.replay(call.session, call.owner("invoices", invoice_id), invoice_id)
    return ReplayOut(
        invoice_number=found.number,
        identical=found.is_identical,
        lines=found.lines,
        differences=[DifferenceOut(where=entry.where, issued=entry.issued, replayed=entry.replayed) for entry in found.differences],
        unpriced=[UnpricedOut(position=position, reason=reason) for position, reason in found.unpriced],
    )
