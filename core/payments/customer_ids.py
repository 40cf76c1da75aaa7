"""Which organization a payment provider's customer is, as of at most a second ago: for usage sent in under the provider's ids."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from core.metering.directory import Directory, Recent

CUSTOMERS = """SELECT provider_customer_id, organization_id::text AS organization_id FROM payment_customers
  WHERE provider_customer_id = ANY(%s)"""


class CustomerIds:
    """Customers of the providers, for the threads of one process."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._recent: Recent[str, str] = Recent(self._load)

    def organization_ids(self, customer_ids: Collection[str]) -> Mapping[str, str]:
        """The organizations' ids by the provider's customer id; a customer we do not know is missing."""
        return self._recent.get(customer_ids)

    def _load(self, customer_ids: Collection[str]) -> dict[str, str]:
        with self._directory.connection() as connection:
            rows = connection.execute(CUSTOMERS, (list(customer_ids),), prepare=True).fetchall()
        return {row.provider_customer_id: row.organization_id for row in rows}
