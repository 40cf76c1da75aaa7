"""The usage explorer's question, read from the address, and its answer: rows, chart, movers, reconciliation. No HTML here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from core import rendering
from core.invoicing.usage_cost import Cost, UsageCost
from core.metering.models import Metric
from core.metering.summary import GRANULARITIES
from core.money import to_decimal
from core.periods import Period
from web.charts import Bar, Chart, bar_chart, plotly_json
from web.dates import begins, ends, read_day

OTHER, NONE = "Other", "(none)"
NAMED_GROUPS = 7
MEASURES = ("cost", "quantity")
PERIODS = (
    ("this", "This period"),
    ("previous", "Previous period"),
    ("7", "Last 7 days"),
    ("30", "Last 30 days"),
    ("90", "Last 90 days"),
    ("custom", "Custom"),
)
COMPARES = (("", "Nothing"), ("previous", "Previous period"), ("year", "A year earlier"))
RANGE_DAYS_MAX = {"hour": 31, "day": 366, "week": 366, "month": 400}


AN_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: one metric over one range. `errors` name the fields that could not be used, by form field."""

    metric: Metric
    measure: str
    period: str
    granularity: str
    group_by: str
    compare: str
    zone: str
    start: datetime
    end: datetime
    first: str
    last: str
    errors: Mapping[str, str]
    now: datetime

    def earlier(self, previous: Period | None) -> tuple[datetime, datetime] | None:
        """The range to compare with, of the same length: the period before, or the same days a year earlier."""
        if not self.compare:
            return None
        length = self.end - self.start
        if self.compare == "year":
            local = self.start.astimezone(ZoneInfo(self.zone)).date()
            start = begins(_year_before(local), self.zone)
        else:
            start = previous.start if previous and self.period in ("this", "previous") else self.start - length
        return start, min(start + length, self.start)


def read(
    args: Mapping[str, str], *, metrics: Sequence[Metric], running: Period, previous: Period | None, now: datetime, zone: str
) -> Question:
    """The question in the address; what cannot be used falls back to the nearest thing and is named in `errors`."""
    metric = next((m for m in metrics if m.code == args.get("metric")), metrics[0])
    zone = "UTC" if args.get("zone") == "UTC" else zone
    period = _one_of(args.get("period"), dict(PERIODS), "this")
    granularity = _one_of(args.get("per"), GRANULARITIES, "day")
    errors: dict[str, str] = {}
    start, end = running.start, min(running.end, max(now, running.start + AN_HOUR))  # a period that begins now is not empty
    if period == "previous" and previous:
        start, end = previous.start, previous.end
    elif period.isdigit():
        today = now.astimezone(ZoneInfo(zone)).date()
        start, end = begins(today - timedelta(days=int(period) - 1), zone), now
    elif period == "custom":
        start, end = _custom(args, errors, (start, end), now, zone)
    if end - start > timedelta(days=RANGE_DAYS_MAX[granularity]):
        errors["per"] = f"Per {granularity} at most {RANGE_DAYS_MAX[granularity]} days can be shown. Days are shown instead."
        granularity = "day"
    group_by = args.get("group", "") if args.get("group", "") in metric.group_by else ""
    local = ZoneInfo(zone)
    return Question(
        metric,
        _one_of(args.get("measure"), MEASURES, "cost"),
        period,
        granularity,
        group_by,
        _one_of(args.get("compare"), dict(COMPARES), "previous"),
        zone,
        start,
        end,
        start.astimezone(local).date().isoformat(),
        (end - timedelta(microseconds=1)).astimezone(local).date().isoformat(),
        errors,
        now,
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """What the page shows. Amounts are minor units, quantities Decimals; `names` are the groups shown, largest first."""

    question: Question
    cost: UsageCost
    before: UsageCost | None
    names: tuple[str, ...]

    @property
    def by_cost(self) -> bool:
        """Whether amounts, not quantities, are drawn and split."""
        return self.question.measure == "cost"

    @property
    def total(self) -> Decimal:
        """The measure over the whole range: minor units or a quantity."""
        return Decimal(self.cost.minor) if self.by_cost else self.cost.quantity

    @property
    def total_before(self) -> Decimal | None:
        """The same over the range compared with."""
        if self.before is None:
            return None
        return Decimal(self.before.minor) if self.by_cost else self.before.quantity

    def value(self, row: Cost, name: str | None = None) -> Decimal:
        """The measure of a row, or of one group in it ("Other": all that are not named)."""
        if name is None:
            return Decimal(row.minor) if self.by_cost else row.quantity
        kept = [
            pair for group, pair in row.groups.items() if (group or NONE) == name or (name == OTHER and (group or NONE) not in self.names)
        ]
        return sum((Decimal(minor) if self.by_cost else quantity for quantity, minor in kept), Decimal(0))

    def group_total(self, name: str, of: UsageCost | None = None) -> Decimal:
        """The measure of one group over the range."""
        return sum((self.value(row, name) for row in (of or self.cost).buckets), Decimal(0))

    @property
    def movers(self) -> list[tuple[str, Decimal, Decimal]]:
        """The groups that changed most against the range compared with: (name, now, before)."""
        if self.before is None or not self.names:
            return []
        found = [(name, self.group_total(name), self.group_total(name, self.before)) for name in self.names]
        return sorted(found, key=lambda item: -abs(item[1] - item[2]))[:5]

    @property
    def days(self) -> str:
        """The days shown."""
        return days(self.question.start, self.question.end, self.question.zone)

    @property
    def days_before(self) -> str:
        """The days compared with."""
        rows = self.before.buckets if self.before else ()
        return days(rows[0].start, rows[-1].end, self.question.zone) if rows else ""

    def label(self, at: datetime) -> str:
        """A row's name: "Sun 22 Nov", "22 Nov, 14:00", "Week of 16 Nov", "November 2026"."""
        local = at.astimezone(ZoneInfo(self.question.zone))
        day = rendering.day_month(at, self.question.zone)
        match self.question.granularity:
            case "hour":
                return f"{day}, {local:%H:%M}"
            case "week":
                return f"Week of {day}"
            case "month":
                return f"{local:%B %Y}"
        return f"{local:%a} {day}"

    def is_partial(self, row: Cost) -> bool:
        """Whether the row is still running."""
        return row.end >= self.question.now

    def chart(self) -> Chart:
        """Bars per bucket, stacked by group; without groups the range compared with stands behind as outlines."""
        earlier = self.before.buckets if self.before and not self.names else ()
        bars = tuple(self._bar(row, i, earlier) for i, row in enumerate(self.cost.buckets))
        currency = self.cost.currency
        span = days(self.question.start, self.question.end, self.question.zone)
        what = f"{self.cost.metric.name}, {self.question.measure} per {self.question.granularity}, {span}"
        sentence = f"{what}, total {self.text(self.total)}. The table below has every number."
        money = self.by_cost
        return Chart(
            "usage-chart",
            sentence,
            bars,
            self.names or ("",),
            280,
            axis=lambda value: f"{value:,f}" if money else short(value),
            axis_end=(lambda value: f"{currency_symbol(currency)}{value:,f}") if money else None,
        )

    def text(self, value: Decimal) -> str:
        """A value in words: an amount, or a quantity with its unit."""
        return rendering.money(int(value), self.cost.currency) if self.by_cost else rendering.quantity(value, self.cost.metric.unit)

    def svg(self) -> str:
        """The chart as inline SVG."""
        return bar_chart(self.chart())

    def figure(self) -> str:
        """The chart as a Plotly figure."""
        texts = [[self.text(self.value(row, name or None)) for row in self.cost.buckets] for name in (self.names or ("",))]
        return plotly_json(self.chart(), texts)

    def _bar(self, row: Cost, index: int, earlier: Sequence[Cost]) -> Bar:
        values = tuple(self._drawn(self.value(row, name)) for name in self.names) if self.names else (self._drawn(self.value(row)),)
        step = max(1, len(self.cost.buckets) // 24)
        kind = "partial" if self.is_partial(row) else "actual"
        shown = index % step == 0 or kind == "partial"
        before = self._drawn(self.value(earlier[index])) if index < len(earlier) else None
        return Bar(values, self.label(row.start), self._tick(row.start) if shown else "", kind, previous=before)

    def _drawn(self, value: Decimal) -> Decimal:
        return max(Decimal(0), to_decimal(int(value), self.cost.currency) if self.by_cost else value)

    def _tick(self, at: datetime) -> str:
        local = at.astimezone(ZoneInfo(self.question.zone))
        match self.question.granularity:
            case "hour":
                return f"{local:%H}"
            case "month":
                return f"{local:%b}"
            case "week":
                return f"{local.day}"
        return str(local.day)


def largest(cost: UsageCost, measure: str) -> tuple[str, ...]:
    """The groups by size, the smallest of many folded into "Other"."""
    sums: dict[str, Decimal] = {}
    for row in cost.buckets:
        for name, (quantity, minor) in row.groups.items():
            sums[name or NONE] = sums.get(name or NONE, Decimal(0)) + (Decimal(minor) if measure == "cost" else quantity)
    names = sorted(sums, key=lambda name: (-sums[name], name))
    return tuple(names) if len(names) <= NAMED_GROUPS else (*names[:NAMED_GROUPS], OTHER)


def days(start: datetime, end: datetime, zone: str) -> str:
    """The local days a range touches, the running one included: "1–22 Nov 2026"."""
    last = (end - timedelta(microseconds=1)).astimezone(ZoneInfo(zone)).date()
    return rendering.period(begins(start.astimezone(ZoneInfo(zone)).date(), zone), ends(last, zone), zone)


def short(value: Decimal) -> str:
    """A number for a scale: 1.8 M instead of 1,800,000."""
    for size, letter in ((10**9, " G"), (10**6, " M"), (10**3, " k")):
        if abs(value) >= size:
            return f"{(value / size).normalize():,f}{letter}"
    return f"{value.normalize():,f}"


def currency_symbol(currency: str) -> str:
    """The sign written before an amount, such as €; the code where there is none."""
    text = rendering.money(0, currency)
    return text[: len(text) - len(text.lstrip("".join(c for c in text if not c.isdigit() and c not in ".,")))]


def _custom(
    args: Mapping[str, str], errors: dict[str, str], otherwise: tuple[datetime, datetime], now: datetime, zone: str
) -> tuple[datetime, datetime]:
    if "from" not in args and "to" not in args:
        return otherwise
    first, last = read_day(args.get("from", "")), read_day(args.get("to", ""))
    if first is None:
        errors["from"] = "Enter the first day."
    if last is None:
        errors["to"] = "Enter the last day."
    if first is None or last is None:
        return otherwise
    start, end = begins(first, zone), min(ends(last, zone), now)
    if start >= end:
        errors["to"] = "The last day must not be before the first, nor the first in the future."
        return otherwise
    if end - start > timedelta(days=400):
        errors["from"] = "At most 400 days can be shown at once."
        return end - timedelta(days=400), end
    return start, end


def _one_of(value: str | None, known: Sequence[str] | Mapping[str, str], otherwise: str) -> str:
    return value if value is not None and value in known else otherwise


def _year_before(day: date) -> date:
    return day.replace(year=day.year - 1, day=28) if (day.month, day.day) == (2, 29) else day.replace(year=day.year - 1)
