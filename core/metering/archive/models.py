"""What was archived of which day, and what became of its rows."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Date, Identity, Index, LargeBinary, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from core.db import Base, Id


class UsageArchive(Base):
    """One file with every event of one UTC day that the table held when it was written."""

    __tablename__ = "usage_archives"
    __table_args__ = (
        CheckConstraint("purged_at IS NULL OR verified_at IS NOT NULL", name="verified_before_purged"),
        CheckConstraint("octet_length(sha256) = 32", name="sha256_whole"),
    )

    id: Mapped[Id]
    day: Mapped[date] = mapped_column(Date, index=True)
    path: Mapped[str] = mapped_column(Text)
    """Below the archive's address; the manifest beside it ends in .json."""
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[bytes] = mapped_column(LargeBinary)
    rows: Mapped[int] = mapped_column(BigInteger)
    digest: Mapped[Decimal]
    """Sum of the rows' 64-bit hashes: that of the table's rows is the same as long as no row changed."""
    contents: Mapped[dict[str, Any]]
    """Rows, quantity, first and last instant by event name; sums of the metrics that add up."""
    archived_at: Mapped[datetime]
    verified_at: Mapped[datetime | None]
    """When the file was read back and every row of it found to be right."""
    purged_at: Mapped[datetime | None]
    kept_rows: Mapped[int] = mapped_column(BigInteger, server_default="0")
    """Rows of organizations under a legal hold that stayed in the table."""
    kept_digest: Mapped[Decimal] = mapped_column(server_default="0")
    restored_at: Mapped[datetime | None]

    @property
    def is_away(self) -> bool:
        """Whether the rows were purged and not restored since."""
        return self.purged_at is not None and (self.restored_at is None or self.restored_at < self.purged_at)


class UsageKeeping(Base):
    """One daily run of archiving and purging; at most one is open at a time. The first row, empty, is of the day the table was made."""

    __tablename__ = "usage_keepings"
    __table_args__ = (
        Index("uq_usage_keepings_open", text("(finished_at IS NULL)"), unique=True, postgresql_where=text("finished_at IS NULL")),
        {"comment": "Each daily run of archiving and purging usage: what went, and what was left and why"},
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    archived_days: Mapped[int] = mapped_column(BigInteger, server_default="0")
    archived_events: Mapped[int] = mapped_column(BigInteger, server_default="0")
    archived_bytes: Mapped[int] = mapped_column(BigInteger, server_default="0")
    purged_days: Mapped[int] = mapped_column(BigInteger, server_default="0")
    purged_events: Mapped[int] = mapped_column(BigInteger, server_default="0")
    kept_events: Mapped[int] = mapped_column(BigInteger, server_default="0")
    """Events of purged days that stayed for a legal hold."""
    purged_log_days: Mapped[int] = mapped_column(BigInteger, server_default="0")
    purged_requests: Mapped[int] = mapped_column(BigInteger, server_default="0")
    purged_rejections: Mapped[int] = mapped_column(BigInteger, server_default="0")
    left: Mapped[list[Any]] = mapped_column(JSONB, server_default=text("'[]'"))
    """What could not be done and is tried again the next day: `{"what": …, "why": …}`, at most keeping.LEFT_MAX."""

    @property
    def is_empty(self) -> bool:
        """Whether there was nothing to do."""
        return not (self.archived_days or self.purged_days or self.purged_log_days or self.purged_rejections or self.left)
