"""Spend so far: the headline, the days behind it, where it will end, and how fresh it all is. Plain values and one chart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from core import rendering
from core.analytics.days_ahead import days_ahead
from core.analytics.spend import Forecast
from core.identity.models import Organization
from core.invoicing.preview import SoFar
from core.invoicing.statement import Statement
from core.invoicing.usage_cost import UsageCost
from core.metering.queries import Freshness
from core.money import to_decimal
from core.periods import Period
from portal.explorer import currency_symbol, days
from web.charts import Bar, Chart
from web.dates import begins

LATE_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Spend:
    """What the overview's head shows; amounts in minor units of `currency`."""

    currency: str
    zone: str
    now: datetime
    so_far: SoFar
    statement: Statement
    freshness: Freshness
    forecast: Forecast | None
    days: Sequence[DayRow]
    today_minor: int

    @property
    def net(self) -> int:
        """Spend so far, before tax."""
        return self.so_far.net_minor

    @property
    def before(self) -> int | None:
        """The same on the same days of the period before."""
        return self.statement.foot[0].compare_minor

    @property
    def late(self) -> bool:
        """Whether counting is far behind."""
        return self.freshness.behind_seconds > LATE_SECONDS

    @property
    def fresh_text(self) -> str:
        """Up to when events are included."""
        minutes = round(self.freshness.behind_seconds / 60)
        if self.late:
            return f"Usage data is {minutes} min behind. Amounts will rise."
        age = round(self.freshness.behind_seconds)
        return f"Includes events up to {rendering.time_tz(self.freshness.counted_up_to, self.zone)}, {age} s ago"

    @property
    def day_text(self) -> str:
        """ "Day 22 of 30"."""
        period = self.so_far.period
        if period is None:
            return ""
        zone = ZoneInfo(self.zone)
        first = period.start.astimezone(zone).date()
        whole = ((period.end - timedelta(microseconds=1)).astimezone(zone).date() - first).days + 1
        return f"Day {min(whole, (self.now.astimezone(zone).date() - first).days + 1)} of {whole}"

    @property
    def days_before(self) -> str:
        """The days compared with, such as "1–22 Oct 2026"."""
        period = self.so_far.period
        if period is None:
            return ""
        first = period.start.astimezone(ZoneInfo(self.zone)).date()
        earlier = (period.start - timedelta(microseconds=1)).astimezone(ZoneInfo(self.zone)).date()
        month = (period.end - period.start).days in range(28, 32) and first.day <= 28
        start = begins(earlier.replace(day=first.day), self.zone) if month else period.start - (period.end - period.start)
        text = days(start, min(start + (self.now - period.start), period.start), self.zone)
        return text.removesuffix(f" {self.now.astimezone(ZoneInfo(self.zone)).year}")


def spend_of(
    so_far: SoFar,
    freshness: Freshness,
    costs: Sequence[UsageCost],
    ahead: Forecast | None,
    now_minor: int,
    *,
    organization: Organization,
    now: datetime,
) -> Spend:
    """The spend of an account at `now`. `costs` are its metrics by day over the running period and the weeks before it, `now_minor` is
    what the forecast `ahead` has reached by now."""
    zone = organization.timezone
    rows, estimate = _rows(so_far.period, costs, ahead, now_minor, now=now, zone=zone) if so_far.period else ([], 0)
    return Spend(organization.currency, zone, now, so_far, so_far.statement, freshness, ahead, rows, estimate)


def _rows(
    period: Period, costs: Sequence[UsageCost], ahead: Forecast | None, now_minor: int, *, now: datetime, zone: str
) -> tuple[list[DayRow], int]:
    """The days of the period, usage of all metrics, then the expected ones; and what today is expected to come to, minor units."""
    spent: dict[date, int] = {}
    for cost in costs:
        for bucket in cost.buckets:
            day = _local(bucket.start, zone)
            spent[day] = spent.get(day, 0) + bucket.minor
    today, first = _local(now, zone), _local(period.start, zone)
    rows = [DayRow(day, minor, "partial" if day == today else "actual") for day, minor in sorted(spent.items()) if day >= first]
    if ahead is None:
        return rows, 0
    last = _local(period.end - timedelta(microseconds=1), zone)
    rest = [max(0, amount - now_minor) for amount in (ahead.expected_minor, ahead.low_minor, ahead.high_minor)]
    coming = days_ahead(spent, today=today, last=last, minor=rest[0], low_minor=rest[1], high_minor=rest[2])
    rows += [DayRow(day.day, day.minor, "forecast", day.low_minor, day.high_minor) for day in coming if day.day > today]
    return rows, spent.get(today, 0) + (coming[0].minor if coming else 0)


@dataclass(frozen=True, slots=True)
class DayRow:
    """A day of the chart and of the table under it: what was spent, or what is expected, minor units."""

    day: date
    minor: int
    kind: str
    low: int | None = None
    high: int | None = None


def day_chart(rows: Sequence[DayRow], today_minor: int, currency: str) -> Chart:
    """Usage per day: past days solid, today hatched inside its estimate, the rest dashed with its range."""
    step = max(1, round(len(rows) / 4))
    bars = []
    for index, row in enumerate(rows):
        partial = row.kind == "partial"
        name = rendering.day_month(row.day)
        shown = (index % step == 0 and index < len(rows) - 2) or index == len(rows) - 1
        label = name if partial else str(row.day.day) if shown and abs(index - _partial(rows)) > 3 else ""
        bars.append(
            Bar(
                (_major(row.minor, currency),),
                name,
                label,
                row.kind,
                estimate=_major(today_minor, currency) if partial and today_minor else None,
                low=_major(row.low, currency) if row.low is not None else None,
                high=_major(row.high, currency) if row.high is not None else None,
            )
        )
    spent = [row for row in rows if row.kind != "forecast"]
    top = max(spent, key=lambda row: row.minor, default=None)
    most = f", highest on {rendering.day_month(top.day)} with {rendering.money(top.minor, currency)}" if top else ""
    span = f"{rendering.day_month(rows[0].day)} to {rendering.day_month(rows[-1].day)}" if rows else ""
    sentence = f"Usage per day, {span}{most}. The table below has every day."
    return Chart(
        "days", sentence, tuple(bars), axis=lambda value: f"{value:,f}", axis_end=lambda value: f"{currency_symbol(currency)}{value:,f}"
    )


def _partial(rows: Sequence[DayRow]) -> int:
    return next((index for index, row in enumerate(rows) if row.kind == "partial"), -9)


def _major(minor: int, currency: str) -> Decimal:
    return max(Decimal(0), to_decimal(minor, currency))


def _local(at: datetime, zone: str) -> date:
    return at.astimezone(ZoneInfo(zone)).date()
