"""Standard VAT rates by country with their validity, since a bill needs the rate at its tax point."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

from sqlalchemy import String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from core.db import Base, Id, finite


class TaxRate(Base):
    """The standard rate of `country` (ISO 3166-1 alpha-2) in percent, from `valid_from` up to and excluding `valid_to`."""

    __tablename__ = "tax_rates"
    __table_args__ = (UniqueConstraint("country", "valid_from"), finite("rate_percent", minimum=0))

    id: Mapped[Id]
    country: Mapped[str] = mapped_column(String(2))
    name: Mapped[str] = mapped_column(String(32))
    rate_percent: Mapped[Decimal]
    valid_from: Mapped[date]
    valid_to: Mapped[date | None]
