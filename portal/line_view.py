"""The days of an invoice line as a chart."""

from __future__ import annotations

from decimal import Decimal
from zoneinfo import ZoneInfo

from core import rendering
from core.invoicing.usage_cost import UsageCost
from core.money import to_decimal
from web.charts import Bar, Chart, bar_chart

DAYS_DRAWN_MAX = 62


def day_chart(days: UsageCost, zone: str) -> str:
    """Cost per day of the billed window; of a window longer than two months the last 62 days (the table has all)."""
    drawn = days.buckets[-DAYS_DRAWN_MAX:]
    step = max(1, len(drawn) // 8)
    bars = tuple(
        Bar(
            (max(Decimal(0), to_decimal(day.minor, days.currency)),),
            rendering.day_month(day.start, zone),
            str(day.start.astimezone(ZoneInfo(zone)).day) if index % step == 0 else "",
        )
        for index, day in enumerate(drawn)
    )
    top = max(drawn, key=lambda day: day.minor)
    sentence = (
        f"{days.metric.name}, cost per day, {rendering.period(drawn[0].start, drawn[-1].end, zone)}, "
        f"highest {rendering.day_month(top.start, zone)} with {rendering.money(top.minor, days.currency)}. The table below has every day."
    )
    return bar_chart(Chart("line-days", sentence, bars, axis=lambda value: f"{value:,f}", axis_end=lambda value: f"{value:,f}"))
