"""Replaying an invoice through the API."""

from __future__ import annotations

from tests.api.conftest import Api, organization_body


def test_an_issued_invoice_is_replayed_and_a_draft_is_not(api: Api) -> None:
    customer = api.made("/billing/organizations", organization_body(tax_rate_percent="19"))
    lines = [{"description": "Workshop", "unit_price": "33.335", "quantity": "3"}]
    drafted = api.made("/billing/invoices", {"organization_id": customer["id"], "line_items": lines})
    refused = api.get(f"/billing/invoices/{drafted['id']}/replay")
    assert (refused.status_code, refused.get_json()["code"]) == (409, "not_finalized")
    issued = api.made(f"/billing/invoices/{drafted['id']}/finalization", None)
    found = api.get(f"/billing/invoices/{issued['id']}/replay").get_json()
    assert found == {"invoice_number": issued["invoice_number"], "identical": True, "lines": 1, "differences": [], "unpriced": []}
