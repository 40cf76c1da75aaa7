"""Tables of price simulations: what was asked, and what each subscription would have paid. They are no books: nothing is owed by them."""

from __future__ import annotations

import uuid
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, Integer, SmallInteger, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from core.catalog.models import PlanVersion
from core.db import Base, Currency, Id, MinorUnits, one_of


class SimulationStatus(StrEnum):
    RUNNING = "running"
    DONE = "done"


class PriceSimulation(Base):
    """A price list held against the usage of the last closed periods: a published version, or a plan document nobody has published.

    `segment` has the keys of simulation.Segment. `reached_id` is the last subscription that is done, in order of ids.
    """

    __tablename__ = "price_simulations"
    __table_args__ = (
        one_of("status", SimulationStatus),
        CheckConstraint("(plan_version_id IS NULL) <> (document IS NULL)", name="one_price_list"),
        CheckConstraint("periods BETWEEN 1 AND 12", name="periods_sane"),
        Index("ix_price_simulations_running", "created_at", postgresql_where=text("status = 'running'")),
    )

    id: Mapped[Id]
    status: Mapped[str] = mapped_column(String(16))
    plan_version_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("plan_versions.id"))
    document: Mapped[dict[str, Any] | None]
    segment: Mapped[dict[str, Any]]
    periods: Mapped[int] = mapped_column(SmallInteger)
    as_of: Mapped[datetime]
    started_by: Mapped[str] = mapped_column(Text)
    subscriptions_total: Mapped[int] = mapped_column(Integer, server_default="0", default=0)
    subscriptions_done: Mapped[int] = mapped_column(Integer, server_default="0", default=0)
    reached_id: Mapped[uuid.UUID | None]
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]

    plan_version: Mapped[PlanVersion | None] = relationship(lazy="joined")


class SimulatedCost(Base):
    """One subscription: net minor units of its closed periods under its own terms and under the simulated prices.

    `periods` is how many there were; with 0 there is nothing to compare. `error` says why it could not be priced.
    """

    __tablename__ = "price_simulation_rows"

    simulation_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("price_simulations.id", ondelete="CASCADE"), primary_key=True)
    subscription_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    organization_id: Mapped[uuid.UUID]
    currency: Mapped[Currency]
    periods: Mapped[int] = mapped_column(SmallInteger)
    billed_minor: Mapped[MinorUnits]
    simulated_minor: Mapped[MinorUnits]
    error: Mapped[str | None] = mapped_column(Text)
