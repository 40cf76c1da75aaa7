"""Charts as SVG drawn on the server, and the same numbers as a Plotly figure for browsers that can be interactive.

The SVG uses percentages across and pixels down, so a chart gets narrower without its text getting smaller. Colours come
from the stylesheet. Every chart stands in a <figure> with a sentence for its role=img, and a table of the same numbers under it.
Geometry is computed from Decimals; amounts shown are the strings given.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal

from markupsafe import Markup

OTHER_SERIES = 8
SERIES_MAX = 8
TOP_PX, BOTTOM_PX = 10, 22
BAR_SHARE = Decimal("0.62")
LABELS_MAX_NARROW = 12
LABEL_SHORT, LABEL_REACH = 4, 3


@dataclass(frozen=True, slots=True)
class Bar:
    """One bucket. `values` has one number per series, lowest first. `estimate` is the whole day's expected total, for today.

    kind: "actual", "partial" (today, hatched) or "forecast" (dashed, with low..high as its range). `label` is printed under the bar.
    """

    values: tuple[Decimal, ...]
    name: str
    label: str = ""
    kind: str = "actual"
    estimate: Decimal | None = None
    low: Decimal | None = None
    high: Decimal | None = None
    previous: Decimal | None = None

    @property
    def top(self) -> Decimal:
        """The highest number drawn for this bucket."""
        return max(sum(self.values, Decimal(0)), *(value or Decimal(0) for value in (self.estimate, self.high, self.previous)))


@dataclass(frozen=True, slots=True)
class Chart:
    """A bar chart: `series` names the parts of each bar, `axis` writes a number on the scale (first and last get the symbol)."""

    id: str
    sentence: str
    bars: tuple[Bar, ...]
    series: tuple[str, ...] = ("",)
    height_px: int = 176
    axis: Callable[[Decimal], str] = field(default=lambda value: f"{value:,f}")
    axis_end: Callable[[Decimal], str] | None = None


def bar_chart(chart: Chart) -> Markup:
    """The chart as one inline SVG with role=img; no style attribute, no script."""
    top = scale_top(max((bar.top for bar in chart.bars), default=Decimal(0)))
    plot_px = chart.height_px - TOP_PX - BOTTOM_PX
    slot = Decimal(100) / max(1, len(chart.bars))
    parts = [_hatches(chart), _grid(chart, top, plot_px)]
    bars = [_bar(chart, bar, index, slot, top, plot_px) for index, bar in enumerate(chart.bars)]
    parts.append(Markup('<svg y="{}" height="{}" width="100%">{}</svg>').format(TOP_PX, plot_px, Markup("").join(bars)))
    baseline = TOP_PX + plot_px
    parts.append(Markup('<line class="base" x2="100%" y1="{0}" y2="{0}"/>').format(Decimal(baseline) + Decimal("0.5")))
    parts.append(_labels(chart, slot))
    return Markup('<svg class="plot" height="{}" role="img" aria-label="{}">{}</svg>').format(
        chart.height_px, chart.sentence, Markup("").join(parts)
    )


def sparkline(values: Sequence[Decimal | int], width_px: int = 84, height_px: int = 30) -> Markup:
    """A small line without scale, for a KPI whose number stands beside it."""
    if len(values) < 2:
        return Markup("")
    low, high = Decimal(min(values)), Decimal(max(values))
    spread = (high - low) or Decimal(1)
    step = Decimal(width_px) / (len(values) - 1)
    points = (f"{_px(step * i)} {_px(height_px - 4 - (Decimal(v) - low) / spread * (height_px - 10))}" for i, v in enumerate(values))
    return Markup(
        '<svg class="spark" width="{0}" height="{1}" aria-hidden="true"><line x2="{0}" y1="{2}" y2="{2}"/><path d="M{3}"/></svg>'
    ).format(width_px, height_px, height_px - 1, " L".join(points))


def small_bars(past: Sequence[Decimal | int], now: Decimal | int) -> Markup:
    """Three grey bars and a blue one (20 px high): the last periods beside this one."""
    values = [max(Decimal(0), Decimal(value)) for value in (*past, now)]
    top = max(values) or Decimal(1)
    rects = Markup("").join(
        Markup('<rect class="{}" x="{}" y="{}" width="10" height="{}" rx="1"/>').format(
            "this" if i == len(values) - 1 else "past",
            i * 14,
            _px(20 - max(Decimal(1), value / top * 20)),
            _px(max(Decimal(1), value / top * 20)),
        )
        for i, value in enumerate(values)
    )
    return Markup('<svg class="bars" width="{}" height="20" aria-hidden="true">{}</svg>').format(len(values) * 14 - 4, rects)


def stacked_bar(parts: Sequence[tuple[str, Decimal]], css_class: str = "stackbar", height_px: int = 12) -> Markup:
    """One horizontal bar cut into shares; each part is (fill class, size): f-mut f-c1 f-c3 f-c4 f-c8 f-bad, with f-soft."""
    total = sum((abs(size) for _, size in parts), Decimal(0))
    out, at = [], Decimal(0)
    for index, (fill, size) in enumerate(parts if total else ()):
        width = abs(size) / total * 100
        out.append(Markup('<rect class="{}" x="{}%" width="{}%" height="{}"/>').format(fill, _px(at), _px(width), height_px))
        at += width
        if index < len(parts) - 1:
            out.append(Markup('<line x1="{0}%" x2="{0}%" y2="{1}"/>').format(_px(at), height_px))
    return Markup('<svg class="{}" aria-hidden="true">{}</svg>').format(css_class, Markup("").join(out))


def plotly_json(chart: Chart, texts: Sequence[Sequence[str]]) -> Markup:
    """The same chart as a Plotly figure in JSON, safe inside <script type="application/json">.

    `texts[series][bucket]` is what the pointer shows there (an amount already formatted). The figure is built with plotly's
    own classes, which refuse unknown properties; colours and fonts are set in the browser from the page's tokens.
    """
    import plotly.graph_objects as go

    x = [bar.name for bar in chart.bars]
    top = scale_top(max((bar.top for bar in chart.bars), default=Decimal(0)))
    ticks = _ticks(chart, top)
    figure = go.Figure(layout={"template": "none"})
    for index, name in enumerate(chart.series):
        hatch = ["/" if bar.kind == "partial" else "" for bar in chart.bars]
        figure.add_trace(
            go.Bar(
                x=x,
                y=[str(bar.values[index]) if index < len(bar.values) else "0" for bar in chart.bars],
                name=name,
                customdata=list(texts[index]),
                hovertemplate=f"%{{x}}<br>{name + ' ' if name else ''}%{{customdata}}<extra></extra>",
                marker={"pattern": {"shape": hatch, "fillmode": "replace", "size": 5}},
                meta={"token": f"c{_series_class(chart, index)}"},
            )
        )
    figure.update_layout(
        barmode="stack",
        bargap=1 - float(BAR_SHARE),
        showlegend=False,
        height=chart.height_px,
        margin={"l": 42, "r": 0, "t": TOP_PX, "b": BOTTOM_PX},
        xaxis={
            "type": "category",
            "tickvals": [b.name for b in chart.bars if b.label],
            "ticktext": [b.label for b in chart.bars if b.label],
            "fixedrange": True,
            "showgrid": False,
            "tickangle": 0,
        },
        yaxis={
            "range": ["0", str(top)],
            "tickvals": [str(value) for value, _ in ticks],
            "ticktext": [label for _, label in ticks],
            "fixedrange": True,
        },
        shapes=[_outline(index, bar.previous) for index, bar in enumerate(chart.bars) if bar.previous],
    )
    text = json.dumps(figure.to_plotly_json(), separators=(",", ":"), default=str)
    return Markup(text.replace("<", "\\u003c").replace("&", "\\u0026"))  # noqa: S704 - JSON without a "<" cannot end its element


def _outline(index: int, value: Decimal) -> dict[str, object]:
    """What stands behind the bar at `index` to compare it with, as a shape of Plotly; the browser gives it the page's colour."""
    half = float(BAR_SHARE) / 2
    corners = {"x0": index - half, "x1": index + half, "y0": "0", "y1": str(value)}
    return {"type": "rect", "layer": "below", "line": {"width": 1}, **corners}


def scale_top(highest: Decimal) -> Decimal:
    """The end of the scale: the smallest of 1, 1.2, 1.5, 2, 2.4, 3, 4, 5, 6, 8 times a power of ten that holds `highest`."""
    if highest <= 0:
        return Decimal(1)
    power = Decimal(10) ** highest.adjusted()
    steps = ("1", "1.2", "1.5", "2", "2.4", "3", "4", "5", "6", "8", "10")
    return next(Decimal(step) * power for step in steps if Decimal(step) * power >= highest)


def _ticks(chart: Chart, top: Decimal) -> list[tuple[Decimal, str]]:
    """The values marked on the scale, lowest first, and how they are written."""
    steps = 3 if (top.scaleb(-top.adjusted()) * 10) % 3 == 0 else 4
    values = [_trimmed(top * index / steps) for index in range(steps + 1)]
    return [
        (value, (chart.axis_end if chart.axis_end and index in (0, steps) else chart.axis)(value)) for index, value in enumerate(values)
    ]


def _grid(chart: Chart, top: Decimal, plot_px: int) -> Markup:
    out = []
    for value, label in _ticks(chart, top):
        y = Decimal(TOP_PX + plot_px) - Decimal(plot_px) * value / top
        if value:
            out.append(Markup('<line class="grid" x2="100%" y1="{0}" y2="{0}"/>').format(_px(y.to_integral_value() + Decimal("0.5"))))
        out.append(Markup('<text x="-8" y="{}" text-anchor="end">{}</text>').format(_px(y + Decimal("4.5")), label))
    return Markup("").join(out)


def _bar(chart: Chart, bar: Bar, index: int, slot: Decimal, top: Decimal, plot_px: int) -> Markup:
    width = slot * BAR_SHARE
    left = slot * index + (slot - width) / 2

    def rect(css: str, low: Decimal, high: Decimal, extra: int = 0, fill: str = "") -> Markup:
        height = (high - low) / top * plot_px
        y = plot_px - high / top * plot_px
        paint = Markup(' fill="url(#{})"').format(fill) if fill else Markup("")
        return Markup('<rect class="{}" x="{}%" width="{}%" y="{}" height="{}"{}{}/>').format(
            css, _px(left), _px(width), _px(y), _px(max(height, Decimal(0)) + extra), Markup(' rx="2"') if extra else Markup(""), paint
        )

    out = []
    if bar.previous is not None:
        out.append(rect("previous", Decimal(0), bar.previous, 3))
    total = sum(bar.values, Decimal(0))
    if bar.kind == "forecast":
        out.append(rect("forecast", Decimal(0), total, 3))
        if bar.low is not None and bar.high is not None:
            out.append(rect("range", bar.low, bar.high))
        return Markup("").join(out)
    if bar.estimate is not None and bar.estimate > total:
        out.append(rect("estimate", Decimal(0), bar.estimate, 3))
    at = Decimal(0)
    for series, value in enumerate(bar.values):
        number = _series_class(chart, series)
        hatched = f"{chart.id}-h{number}" if bar.kind == "partial" else ""
        gap = Decimal(1) * top / plot_px if series and value else Decimal(0)
        if value:
            out.append(
                rect("" if hatched else f"s{number}", min(at + gap, at + value), at + value, 0 if len(bar.values) > 1 else 3, hatched)
            )
        at += value
    title = f"{bar.name}: {chart.axis(total)}"
    return Markup("<g><title>{}</title>{}</g>").format(title, Markup("").join(out))


def _series_class(chart: Chart, index: int) -> int:
    return OTHER_SERIES if chart.series[index] == "Other" else min(index + 1, SERIES_MAX - 1)


def _hatches(chart: Chart) -> Markup:
    if not any(bar.kind == "partial" for bar in chart.bars):
        return Markup("")
    patterns = Markup("").join(
        Markup(
            '<pattern id="{}-h{}" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
            '<rect class="s{}" width="2.2" height="5"/></pattern>'
        ).format(chart.id, _series_class(chart, index), _series_class(chart, index))
        for index in range(len(chart.series))
    )
    return Markup("<defs>{}</defs>").format(patterns)


def _labels(chart: Chart, slot: Decimal) -> Markup:
    crowded = sum(1 for bar in chart.bars if bar.label) > LABELS_MAX_NARROW
    today = next((index for index, bar in enumerate(chart.bars) if bar.kind == "partial" and len(bar.label) > LABEL_SHORT), None)

    def spare(index: int) -> bool:
        beside_today = today is not None and 0 < abs(index - today) <= LABEL_REACH and index != len(chart.bars) - 1
        return bool(beside_today or (crowded and index % 5))

    def css(bar: Bar, index: int) -> Markup:
        names = [name for name, holds in (("now", bar.kind == "partial"), ("spare", spare(index))) if holds]
        return Markup(' class="{}"').format(" ".join(names)) if names else Markup("")

    return Markup("").join(
        Markup('<text x="{}%" y="{}" text-anchor="{}"{}>{}</text>').format(
            _px(slot * index + slot / 2),
            chart.height_px - 4,
            "end" if len(bar.label) > LABEL_SHORT and index >= len(chart.bars) - 2 else "middle",
            css(bar, index),
            bar.label,
        )
        for index, bar in enumerate(chart.bars)
        if bar.label
    )


def _trimmed(value: Decimal) -> Decimal:
    value = value.quantize(Decimal("0.000001"), ROUND_CEILING)
    return value.quantize(Decimal(1)) if value == value.to_integral_value() else value.normalize()


def _px(value: Decimal | int) -> str:
    text = f"{Decimal(value):.2f}"
    return text.rstrip("0").rstrip(".") or "0"
