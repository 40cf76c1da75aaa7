"""How money, quantities, prices and dates are written, and the Jinja environment for e-mails and documents.

Every function is pure and takes the locale as an argument (CLDR data through Babel); the web registers the same
functions as template filters, so a page, an e-mail and a PDF write one amount the same way.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date as calendar_date
from datetime import datetime, time, timedelta
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from babel import Locale
from babel.dates import format_date, format_datetime, format_interval, format_time
from babel.numbers import NumberPattern, format_decimal, get_decimal_symbol, parse_pattern
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from core.money import exponent, to_decimal

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"
LOCALE = "en_GB"
"""English as written in Europe: €1,381.27 and 22 Nov 2026."""

NBSP = "\u00a0"
MINUS = "\u2212"
PRICE_PLACES_MAX = 12
PRICE_SHOWN_MIN = Decimal("0.01")
PRICE_PLACES_READABLE = 2
AVERAGE_STEP = Decimal("0.0001")
QUANTITY_PLACES_MAX = 12


def money(minor: int, currency: str, locale: str = LOCALE) -> str:
    """`minor` units of `currency` in words of the locale: 138127, "EUR" -> "€1,381.27"; negative with U+2212."""
    return _typographic(_currency_pattern(locale, exponent(currency)), to_decimal(minor, currency), currency, locale)


def money_parts(minor: int, currency: str, locale: str = LOCALE) -> tuple[str, str]:
    """The amount cut before its decimal sign: ("€1,381", ".27"); the second part is "" for currencies without minor units."""
    text = money(minor, currency, locale)
    cut = text.rfind(get_decimal_symbol(locale)) if exponent(currency) else -1
    return (text, "") if cut < 0 else (text[:cut], text[cut:])


def plain_money(minor: int, currency: str, locale: str = LOCALE) -> str:
    """The amount without its symbol, for columns whose head names the currency: "1,381.27"."""
    places = exponent(currency)
    pattern = parse_pattern("#,##0" + ("." + "0" * places if places else ""))
    return _typographic(pattern, to_decimal(minor, currency), None, locale)


def quantity(value: Decimal | int, unit: str = "", locale: str = LOCALE) -> str:
    """A quantity in full digits, no trailing zeros, its unit behind it: "645,752,663", "25.6 GB"."""
    text = format_decimal(_stripped(Decimal(value)), format="#,##0." + "#" * QUANTITY_PLACES_MAX, locale=locale).replace("-", MINUS)
    return f"{text}{NBSP}{unit}" if unit else text


def price_scale(price: Decimal) -> int:
    """Per how many units a price reads best: 1 from one hundredth up, else 1,000 or 1,000,000, whichever needs fewer places."""
    if price == 0 or abs(price) >= PRICE_SHOWN_MIN:
        return 1
    readable = [scale for scale in (1_000, 1_000_000) if abs(price) * scale >= PRICE_SHOWN_MIN]
    return next((scale for scale in readable if _places(price * scale) <= PRICE_PLACES_READABLE), readable[0] if readable else 1_000_000)


def per_units(scale: int, unit: str = "", locale: str = LOCALE) -> str:
    """What a scaled price is for: "per 1,000", "per 1 M", "per GB", or "" for one unnamed unit."""
    number = {1: "", 1_000_000: f"1{NBSP}M"}.get(scale, quantity(scale, locale=locale))
    label = " ".join(part for part in (number, unit) if part)
    return f"per {label}" if label else ""


def unit_price(
    price: Decimal, currency: str, unit: str = "", locale: str = LOCALE, *, scale: int | None = None, symbol: bool = True, per: bool = True
) -> str:
    """An exact unit price: "€99.00", "€0.18 per GB", "€4.80 per 1 M" for 0.0000048. Never rounded.

    `scale` fixes per how many units; `symbol` and `per` leave out what a column's head already says.
    """
    scale = price_scale(price) if scale is None else scale
    shown = price * scale
    places = min(PRICE_PLACES_MAX, max(exponent(currency), _places(shown)))
    pattern = _currency_pattern(locale, places) if symbol else parse_pattern("#,##0" + ("." + "0" * places if places else ""))
    text = _typographic(pattern, shown, currency if symbol else None, locale)
    return f"{text} {per_units(scale, unit, locale)}".rstrip() if per else text


def average_price(amount: Decimal, quantity: Decimal, currency: str, locale: str = LOCALE, *, scale: int = 1) -> str:
    """What `scale` units cost on average, for reading only: rounded half up to four places ("€3.5970")."""
    shown = (amount * scale / quantity).quantize(AVERAGE_STEP, ROUND_HALF_UP)
    return _typographic(_currency_pattern(locale, -int(AVERAGE_STEP.as_tuple().exponent)), shown, currency, locale)


def percent(ratio: Decimal, locale: str = LOCALE, *, places: int = 1) -> str:
    """A ratio as a percentage: 0.136 -> "13.6 %", with the space most of Europe sets."""
    text = format_decimal(ratio * 100, format="#,##0." + "0" * places if places else "#,##0", locale=locale)
    return f"{text.replace('-', MINUS)}{NBSP}%"


def rate(value: Decimal, locale: str = LOCALE) -> str:
    """A tax or discount rate given in percent: 19 -> "19 %", 8.1 -> "8.1 %"."""
    return f"{quantity(value, locale=locale)}{NBSP}%"


def change(now: Decimal | int, before: Decimal | int, locale: str = LOCALE) -> str:
    """The change in words: "▲ 13.6 % higher", "▼ 4.0 % lower", "unchanged", or "n/a" against nothing."""
    if before == 0:
        return "n/a"
    if now == before:
        return "unchanged"
    text = percent(abs((Decimal(now) - Decimal(before)) / Decimal(before)), locale)
    return f"▲ {text} higher" if now > before else f"▼ {text} lower"


def date(value: calendar_date | datetime, timezone: str = "UTC", locale: str = LOCALE) -> str:
    """A calendar day: "22 Nov 2026". An instant is read in `timezone` first."""
    return str(format_date(local_day(value, timezone), "medium", locale=locale))


def day_month(value: calendar_date | datetime, timezone: str = "UTC", locale: str = LOCALE) -> str:
    """A day without its year: "22 Nov"."""
    return str(format_date(local_day(value, timezone), "d MMM", locale=locale))


def datetime_tz(value: datetime, timezone: str = "UTC", locale: str = LOCALE) -> str:
    """A moment with its zone: "24 Nov 2026, 06:00 CET"."""
    local = value.astimezone(ZoneInfo(timezone))
    return f"{format_date(local.date(), 'medium', locale=locale)}, {format_datetime(local, 'HH:mm', locale=locale)}{NBSP}{_zone(local)}"


def time_tz(value: datetime, timezone: str = "UTC", locale: str = LOCALE, *, seconds: bool = True) -> str:
    """A time of day with its zone: "10:41:07 CET"."""
    local = value.astimezone(ZoneInfo(timezone))
    return f"{format_time(local.time(), 'HH:mm:ss' if seconds else 'HH:mm', locale=locale)}{NBSP}{_zone(local)}"


def period(start: datetime, end: datetime, timezone: str = "UTC", locale: str = LOCALE, *, zone: bool = False) -> str:
    """A half-open period of instants as inclusive days of `timezone`: "1–30 Nov 2026", with `zone` also its name.

    A bound that is not a local midnight is said to the minute: "1–22 Nov 2026, until 10:41 CET".
    """
    first, last = start.astimezone(ZoneInfo(timezone)), end.astimezone(ZoneInfo(timezone))
    final = last.date() - timedelta(days=1) if last.time() == time(0) else last.date()
    text = (
        str(format_interval(first.date(), max(first.date(), final), "yMMMd", locale=locale))
        .replace("\u2009–\u2009", "–")
        .replace(" – ", "–")
    )
    if first.time() != time(0):
        text += f", from {time_tz(start, timezone, locale, seconds=False)}"
    if last.time() != time(0):
        text += f", until {time_tz(end, timezone, locale, seconds=False)}"
    return f"{text} ({timezone})" if zone else text


def relative(value: datetime, now: datetime) -> str:
    """How long ago, or how soon: "12 s ago", "in 3 days". Always beside an absolute time, never alone."""
    seconds = round((now - value).total_seconds())
    size = abs(seconds)
    for limit, length, one, many in (
        (90, 1, " s", " s"),
        (5400, 60, " min", " min"),
        (172800, 3600, " hour", " hours"),
        (None, 86400, " day", " days"),
    ):
        if limit is None or size < limit:
            count = round(size / length)
            text = f"{count}{one if count == 1 else many}"
            return f"{text} ago" if seconds >= 0 else f"in {text}"
    raise AssertionError("the last step has no limit")


def file_size(size_bytes: int, locale: str = LOCALE) -> str:
    """A file's size in kilobytes of 1,000 bytes, at least 1: "79 KB"."""
    return f"{format_decimal(max(1, round(size_bytes / 1000)), locale=locale)}{NBSP}KB"


def instant(text: str) -> datetime:
    """A moment read back from stored JSON (ISO 8601 with an offset), ready for the other formats."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text} has no offset from UTC")
    return moment


def local_day(value: calendar_date | datetime, timezone: str) -> calendar_date:
    """The calendar day of an instant in `timezone`; a plain date is itself."""
    return value.astimezone(ZoneInfo(timezone)).date() if isinstance(value, datetime) else value


FILTERS: dict[str, Callable[..., Any]] = {
    f.__name__: f
    for f in (
        money,
        money_parts,
        plain_money,
        quantity,
        unit_price,
        price_scale,
        average_price,
        per_units,
        percent,
        rate,
        change,
        date,
        day_month,
        datetime_tz,
        time_tz,
        period,
        relative,
        file_size,
        instant,
    )
}


@lru_cache(maxsize=1)
def environment() -> Environment:
    """The Jinja environment of e-mails and documents: HTML autoescaped, an unknown variable is an error."""
    env = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(["html", "xml", "svg"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters.update(FILTERS)
    return env


def render(template: str, **context: object) -> str:
    """One template under `templates/`, rendered outside the web (e-mail bodies, PDF sources)."""
    return environment().get_template(template).render(**context)


@lru_cache(maxsize=256)
def _currency_pattern(locale: str, places: int) -> NumberPattern:
    """The locale's own money pattern with exactly `places` decimals (ISO 4217 decides them, not CLDR)."""
    pattern = Locale.parse(locale).currency_formats["standard"].pattern
    return parse_pattern(re.sub(r"0(\.0+)?(?=[^0.]|$)", "0" + ("." + "0" * places if places else ""), pattern))


def _typographic(pattern: NumberPattern, value: Decimal, currency: str | None, locale: str) -> str:
    text = pattern.apply(value, locale, currency=currency, currency_digits=False, decimal_quantization=True)
    return re.sub(r"(?<=[A-Za-z])(?=\d)", NBSP, str(text).replace("-", MINUS))


def _stripped(value: Decimal) -> Decimal:
    return value.normalize() if value != value.to_integral_value() else value.quantize(Decimal(1))


def _places(value: Decimal) -> int:
    return max(0, -int(_stripped(value).as_tuple().exponent))


def _zone(local: datetime) -> str:
    name = local.tzname() or "UTC"
    return name if name.isalpha() else f"UTC{local.strftime('%z')[:3]}:{local.strftime('%z')[3:]}"
