"""The table of drafts: plan versions that people still write on."""

from __future__ import annotations

import uuid
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, Integer, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from core.catalog.models import PlanVersion
from core.db import Base, Id, one_of


class DraftStatus(StrEnum):
    """OPEN is written on; PROPOSED waits for somebody to publish it or send it back. The others are the end of it."""

    OPEN = "open"
    PROPOSED = "proposed"
    PUBLISHED = "published"
    DISCARDED = "discarded"


class PlanDraft(Base):
    """A plan document on its way: it may have gaps and faults until it is published.

    `document` is in the vocabulary of plan_document.read_plan; `usage` is what was typed into the calculator, by price. `revision` counts
    the savings, so that nobody overwrites what they have not seen. `editors` (id, label) are all who changed the document.
    """

    __tablename__ = "plan_drafts"
    __table_args__ = (
        one_of("status", DraftStatus),
        CheckConstraint("(status = 'published') = (plan_version_id IS NOT NULL)", name="published_as"),
        CheckConstraint("(status IN ('published', 'discarded')) = (closed_at IS NOT NULL)", name="closed_when"),
        CheckConstraint("revision > 0", name="revision_counts"),
        Index("ix_plan_drafts_open", "plan_code", postgresql_where=text("status IN ('open', 'proposed')")),
    )

    id: Mapped[Id]
    status: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(255))
    plan_code: Mapped[str] = mapped_column(String(100), server_default="", default="")
    based_on_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("plan_versions.id"))
    document: Mapped[dict[str, Any]]
    usage: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"), default=dict)
    revision: Mapped[int] = mapped_column(Integer, server_default="1", default=1)
    editors: Mapped[list[Any]] = mapped_column(server_default=text("'[]'"), default=list)
    note: Mapped[str] = mapped_column(Text, server_default="", default="")
    """Why it was sent back or discarded."""
    created_by: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]
    updated_by: Mapped[str] = mapped_column(Text)
    updated_at: Mapped[datetime]
    closed_by: Mapped[str | None] = mapped_column(Text)
    closed_at: Mapped[datetime | None]
    plan_version_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("plan_versions.id"))

    based_on: Mapped[PlanVersion | None] = relationship(foreign_keys=based_on_id, lazy="joined")
    plan_version: Mapped[PlanVersion | None] = relationship(foreign_keys=plan_version_id, lazy="raise_on_sql")
