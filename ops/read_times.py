"""How long the usage reads of one organization take in the server: used by the ingest bench, quiet or under load."""

from __future__ import annotations

import random
import time
from datetime import datetime, timedelta

import psycopg
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from core.identity.models import Organization
from core.metering import queries
from core.metering.models import Metric
from core.metering.summary import summary

SAMPLES = 100
MONTH = timedelta(days=31)
EVENTS_A_DAY = 42
"""Of one organization and metric: with ten thousand organizations and eight metrics a hundred million events a month."""
DAYS = """INSERT INTO usage_daily
    (organization_number, metric_number, day, group_key, events, quantity, first_at, last_at, last_batch, last_position)
  SELECT o.number, m.number, d, '', %(events)s, o.number + 0.5, d, d + interval '23 hours', 0, 0
  FROM organizations o, metrics m, generate_series(%(first)s, %(last)s, interval '1 day') AS d"""
THROUGH = "UPDATE usage_state SET daily_through = %s"


def month_behind(url: str, *, before: datetime) -> None:
    """Daily sums of a month of usage that ends the midnight before `before`, for every organization and metric."""
    midnight = before.replace(hour=0, minute=0, second=0, microsecond=0)
    with psycopg.connect(url, autocommit=True) as connection:
        first, last = midnight - timedelta(days=33), midnight - timedelta(days=1)
        connection.execute(DAYS, {"events": EVENTS_A_DAY, "first": first, "last": last})
        connection.execute(THROUGH, (midnight,))
        connection.execute("ANALYZE usage_daily")


def timings(url: str, metric_code: str, *, at: datetime) -> tuple[float, float]:
    """p95 in seconds of a month's summary, and of a page of 50 events behind one metric, over random organizations."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))
    months, pages = [], []
    with Session(engine) as session:
        ids = list(session.scalars(select(Organization.id).order_by(Organization.number)))
        metric_id = session.scalars(select(Metric.id).where(Metric.code == metric_code)).one()
        chosen = random.Random(4).choices(ids, k=SAMPLES)
        summary(session, ids[0], start=at - MONTH, end=at)
        for organization_id in chosen:
            began = time.perf_counter()
            summary(session, organization_id, start=at - MONTH, end=at)
            months.append(time.perf_counter() - began)
            began = time.perf_counter()
            queries.events_page(session, organization_id, start=at - MONTH, end=at, metric_id=metric_id, limit=50)
            pages.append(time.perf_counter() - began)
    engine.dispose()
    return sorted(months)[int(SAMPLES * 0.95)], sorted(pages)[int(SAMPLES * 0.95)]
