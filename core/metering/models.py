"""Tables of metering. A metric says how usage events become a quantity; several metrics may read the same event."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Identity, Integer, String, Text, func, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from core.db import Base, Id, one_of


class Aggregation(StrEnum):
    COUNT = "count"
    SUM = "sum"
    MAX = "max"
    LATEST = "latest"
    UNIQUE_COUNT = "unique_count"


class Metric(Base):
    """What is measured. `event_name` selects the events, `property` the value (None: the event's quantity), `filters` narrow them."""

    __tablename__ = "metrics"
    __table_args__ = (one_of("aggregation", Aggregation),)

    id: Mapped[Id]
    number: Mapped[int] = mapped_column(Integer, Identity(always=True), unique=True)
    """Short key in the usage tables."""
    code: Mapped[str] = mapped_column(String(100), unique=True)
    name: Mapped[str] = mapped_column(String(255))
    unit: Mapped[str] = mapped_column(String(50), server_default="")
    aggregation: Mapped[str] = mapped_column(String(16))
    property: Mapped[str | None] = mapped_column(String(100))
    event_name: Mapped[str] = mapped_column(String(100), index=True)
    filters: Mapped[list[Any]] = mapped_column(server_default=text("'[]'"))
    """Conditions that must all hold: [{"property": "region", "in": ["eu", "us"]}]."""
    group_by: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'"))
    """Event properties the usage can be broken down by."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    archived_at: Mapped[datetime | None]
