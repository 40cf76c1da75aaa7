"""A metric's other definition, from its proposal to the day it took the metric's place."""

from __future__ import annotations

import uuid
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ForeignKey, Index, Integer, String, Text, false, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column, relationship

from core.db import Base, one_of
from core.metering.models import Metric


class RevisionStatus(StrEnum):
    """OPEN: being counted, or counted and waiting for a decision."""

    OPEN = "open"
    APPLIED = "applied"
    DISCARDED = "discarded"


class MetricRevision(Base):
    """A definition that is counted under a `number` of its own. Once applied, it holds what the metric said before, and its number."""

    __tablename__ = "metric_revisions"
    __table_args__ = (
        one_of("status", RevisionStatus),
        Index("uq_metric_revisions_open", "metric_id", unique=True, postgresql_where=text("status = 'open'")),
        {"comment": "Other definitions of metrics: counted beside them under a number of their own until they take their place"},
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    metric_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("metrics.id"), index=True)
    status: Mapped[str] = mapped_column(String(10))
    number: Mapped[int] = mapped_column(Integer, unique=True)
    event_name: Mapped[str] = mapped_column(String(100))
    aggregation: Mapped[str] = mapped_column(String(16))
    property: Mapped[str | None] = mapped_column(String(100))
    filters: Mapped[list[Any]] = mapped_column(server_default=text("'[]'"))
    group_by: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'"))
    expression: Mapped[str | None] = mapped_column(Text)
    operation_property: Mapped[str | None] = mapped_column(String(100))
    recurring: Mapped[bool] = mapped_column(server_default=false())
    rest: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    """What needs no counting: percentile, bucket_size, bucket_total, rounding, rounding_precision; and how far its sums were swept."""
    earlier: Mapped[list[Any]] = mapped_column(server_default=text("'[]'"))
    since: Mapped[datetime | None]
    """Events before this instant are read as the metric read them; None: it holds for all that is stored."""
    reason: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]
    created_by: Mapped[str] = mapped_column(Text)
    created_by_label: Mapped[str] = mapped_column(Text)
    counted_at: Mapped[datetime | None]
    counted_through: Mapped[datetime | None]
    settled_at: Mapped[datetime | None]
    settled_by_label: Mapped[str | None] = mapped_column(Text)

    metric: Mapped[Metric] = relationship(lazy="joined")


COUNTED = ("aggregation", "property", "filters", "group_by", "expression", "operation_property", "recurring")
"""What decides how events are counted, in both a metric and its revision."""
REST = ("percentile", "bucket_size", "bucket_total", "rounding", "rounding_precision")
"""What is made of the counted sums."""
