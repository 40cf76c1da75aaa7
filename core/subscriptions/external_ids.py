"""Whose subscription an id of the customer's own system names, as of at most a second ago: for usage sent in by subscription."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from core.metering.accounts import uuid_text
from core.metering.directory import Directory, Recent

NAMED = """SELECT {reference} AS reference, s.id, s.organization_id FROM subscriptions s WHERE {column} = ANY(%s)
  ORDER BY s.status = 'canceled', s.started_at DESC, s.id DESC"""
QUERY = f"""({NAMED.format(reference="s.external_id", column="s.external_id")})
  UNION ALL ({NAMED.format(reference="s.id::text", column="s.id")})"""


@dataclass(frozen=True, slots=True)
class Named:
    """A subscription that goes by the id; of several in one organization the one that runs, or ran last."""

    id: uuid.UUID
    organization_id: uuid.UUID


class ExternalIds:
    """External ids, and ids, of subscriptions, for the threads of one process."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._recent: Recent[str, tuple[Named, ...]] = Recent(self._load)

    def subscriptions(self, references: Collection[str]) -> Mapping[str, tuple[Named, ...]]:
        """The subscriptions called so, at most one an organization; a name that nobody bears is missing."""
        return self._recent.get(references)

    def _load(self, references: Collection[str]) -> dict[str, tuple[Named, ...]]:
        ids = {text: reference for reference in references if (text := uuid_text(reference)) is not None}
        with self._directory.connection() as connection:
            rows = connection.execute(QUERY, (list(references), [uuid.UUID(text) for text in ids]), prepare=True).fetchall()
        found: dict[str, dict[uuid.UUID, Named]] = {}
        for row in rows:
            found.setdefault(row.reference, {}).setdefault(row.organization_id, Named(row.id, row.organization_id))
        by_name = {reference: tuple(named.values()) for reference, named in found.items()}
        return by_name | {reference: by_name[text] for text, reference in ids.items() if text in by_name}
