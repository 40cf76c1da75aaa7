"""How far each partition of the log was taken into the database."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Integer, Text
from sqlalchemy.orm import Mapped, mapped_column

from core.db import Base


class UsageLogOffset(Base):
    """One partition. The offset moves in the transaction that takes its messages: each is taken once, whoever is killed when."""

    __tablename__ = "usage_log_offsets"

    topic: Mapped[str] = mapped_column(Text, primary_key=True)
    partition: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    next_offset: Mapped[int | None] = mapped_column(BigInteger)
    caught_up_at: Mapped[datetime]
    """Everything acknowledged before this instant was taken."""
    retired_at: Mapped[datetime | None]
    """When the log went back to the database, everything taken."""
