"""Whether an answer equals an expected value: numbers as decimals, times as instants, lists and objects part by part."""

import re
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction


class Unsupported(Exception):
    """The product does not answer this question; the reason is counted and printed."""


class Prefix(list[object]):
    """A list that goes on: only as many items as expected are compared."""


class Either(list[object]):
    """Ways to write one and the same value."""


class Unordered(list[object]):
    """A list whose order says nothing."""


SUM_OF_FRACTIONS = re.compile(r"[0-9]+(/[0-9]+)?( \+ [0-9]+(/[0-9]+)?)+|[0-9]+/[0-9]+")
NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")


def same(expected: object, got: object) -> bool:
    """Whether `got`, as the product computed it, is the `expected` value of a case."""
    match got:
        case bool() | None:
            return expected is got
        case int() | Decimal() | Fraction():
            return _same_number(expected, got)
        case datetime() | date():
            return isinstance(expected, str) and instant(expected) == instant(got)
        case Prefix():
            return isinstance(expected, list) and len(got) >= len(expected) and same(expected, list(got)[: len(expected)])
        case Either():
            return any(same(expected, item) for item in got)
        case Unordered():
            return isinstance(expected, list) and len(expected) == len(got) and all(any(same(e, g) for g in got) for e in expected)
        case list() | tuple():
            return isinstance(expected, list) and len(expected) == len(got) and all(map(same, expected, got))
        case dict():
            return isinstance(expected, dict) and all(key in got and same(value, got[key]) for key, value in expected.items())
        case _:
            return expected == got


def _same_number(expected: object, got: int | Decimal | Fraction) -> bool:
    """Exactly equal; a fraction that no decimal can write is compared at the places the source gives."""
    text = str(expected)
    if isinstance(expected, bool):
        return False
    if SUM_OF_FRACTIONS.fullmatch(text):
        return sum((Fraction(part) for part in text.split(" + ")), Fraction(0)) == got
    if not NUMBER.fullmatch(text):
        return False
    wanted = Decimal(text)
    if Fraction(got) == Fraction(wanted):
        return True
    if not isinstance(got, Fraction):
        return False
    places = -int(wanted.as_tuple().exponent)
    scaled = got * 10**places
    return Decimal(scaled.numerator * 1000 // scaled.denominator).scaleb(-3).quantize(Decimal(1), ROUND_HALF_UP).scaleb(-places) == wanted


def instant(value: object) -> datetime:
    """An instant from ISO text or a date; a bare day is its midnight in UTC."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    assert isinstance(value, date)
    return datetime(value.year, value.month, value.day, tzinfo=UTC)
