"""The accounts of the chart, opened when they are first posted to."""

from __future__ import annotations

import uuid
from collections.abc import Collection

from sqlalchemy import select, text, tuple_
from sqlalchemy.orm import Session

from core.db import among
from core.ledger.models import AccountCode, LedgerAccount

AccountKey = tuple[uuid.UUID, AccountCode, str]
"""(organization id, code, currency): names one account."""


def ids(session: Session, keys: Collection[AccountKey]) -> dict[AccountKey, uuid.UUID]:
    """The account ids for `keys`, opening the missing ones; three statements at most, whatever the number of keys."""
    wanted = set(keys)
    found = _known(session, wanted)
    missing = sorted(wanted - found.keys())
    if missing:
        rows = [
            {"organization_id": organization_id, "code": code.value, "currency": currency} for organization_id, code, currency in missing
        ]
        session.execute(_OPEN, {name: [row[name] for row in rows] for name in rows[0]})
        found |= _known(session, set(missing))
    return found


def _known(session: Session, keys: set[AccountKey]) -> dict[AccountKey, uuid.UUID]:
    if not keys:
        return {}
    account = LedgerAccount
    rows = session.execute(
        select(account.organization_id, account.code, account.currency, account.id).where(
            among(account.organization_id, {key[0] for key in keys}),
            tuple_(account.code, account.currency).in_({(str(code), currency) for _, code, currency in keys}),
        )
    )
    return {key: row.id for row in rows if (key := (row.organization_id, AccountCode(row.code), row.currency)) in keys}


_OPEN = text(
    "INSERT INTO ledger_accounts (organization_id, code, currency)"
    " SELECT * FROM unnest(:organization_id ::uuid[], :code ::text[], :currency ::text[]) ON CONFLICT DO NOTHING"
)
