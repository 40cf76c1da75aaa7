"""Template filters: core.rendering's formats, and the same wrapped so that pages carry the raw value in the markup."""

from __future__ import annotations

import uuid
from datetime import date as calendar_date
from datetime import datetime
from decimal import Decimal

from flask import Flask
from markupsafe import Markup

from core import rendering
from core.money import exponent, format_decimal, to_decimal

_DATA = Markup('<data value="{}">{}</data>')
_BIG = Markup('<data value="{}">{}<span class="cents">{}</span></data>')
ABOUT_DIGITS = 3
_TIME = Markup('<time datetime="{}">{}</time>')


def init_app(app: Flask) -> None:
    """Register every filter, and the globals `idempotency_key()` and `LOCALE`."""
    app.jinja_env.filters.update(rendering.FILTERS)
    app.jinja_env.filters.update(
        amount=amount, about=about, plain_amount=plain_amount, big_amount=big_amount, number=number, day=day, moment=moment, clock=clock
    )
    app.jinja_env.globals["idempotency_key"] = idempotency_key
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True


def amount(minor: int, currency: str, locale: str = rendering.LOCALE) -> Markup:
    """`<data value="1381.27">€1,381.27</data>`: people read the text, tests and copy-paste the value."""
    return _DATA.format(format_decimal(minor, currency), rendering.money(minor, currency, locale))


def plain_amount(minor: int, currency: str, locale: str = rendering.LOCALE) -> Markup:
    """The amount without a symbol, for a column whose head names the currency."""
    return _DATA.format(format_decimal(minor, currency), rendering.plain_money(minor, currency, locale))


def about(minor: int, currency: str) -> Markup:
    """An estimate in whole units, three digits exact: 239460 EUR -> €2,390; the raw value stays in the markup."""
    major = to_decimal(minor, currency)
    step = Decimal(10) ** max(0, major.adjusted() + 1 - ABOUT_DIGITS)
    whole = int((major / step).to_integral_value() * step)
    text = rendering.money_parts(whole * 10 ** exponent(currency), currency)[0]
    return _DATA.format(format_decimal(minor, currency), text)


def big_amount(minor: int, currency: str, locale: str = rendering.LOCALE) -> Markup:
    """A headline amount whose cents are set in grey (class `cents`)."""
    return _BIG.format(format_decimal(minor, currency), *rendering.money_parts(minor, currency, locale))


def number(value: Decimal | int, unit: str = "", locale: str = rendering.LOCALE) -> Markup:
    """A quantity in full digits with its raw value: `<data value="645752663">645,752,663</data>`."""
    return _DATA.format(format(Decimal(value), "f"), rendering.quantity(value, unit, locale))


def day(value: calendar_date | datetime, timezone: str = "UTC", locale: str = rendering.LOCALE) -> Markup:
    """`<time datetime="2026-11-22">22 Nov 2026</time>`, an instant read in `timezone`."""
    return _TIME.format(rendering.local_day(value, timezone).isoformat(), rendering.date(value, timezone, locale))


def moment(value: datetime, timezone: str = "UTC", locale: str = rendering.LOCALE) -> Markup:
    """`<time datetime="2026-11-24T05:00:00+00:00">24 Nov 2026, 06:00 CET</time>`."""
    return _TIME.format(value.isoformat(), rendering.datetime_tz(value, timezone, locale))


def clock(value: datetime, timezone: str = "UTC", locale: str = rendering.LOCALE) -> Markup:
    """`<time datetime="…">10:41:07 CET</time>`."""
    return _TIME.format(value.isoformat(), rendering.time_tz(value, timezone, locale))


def idempotency_key() -> str:
    """A fresh key for a form that moves money: the same rendered form submitted twice acts once."""
    return str(uuid.uuid4())
