"""Arithmetic over an event's properties: a small grammar, parsed here, never handed to Python. Pure and exact.

    sum     = product (("+" | "-") product)*
    product = factor (("*" | "/") factor)*
    factor  = "-" factor | NUMBER | NAME | FUNCTION "(" sum ("," sum)* ")" | "(" sum ")"
    NAME    = letters, digits and _ . : - begin with a letter or _ ; "any other name" stands in double quotes

`quantity` is the event's quantity; in double quotes it is a property of that name. A name with a minus sign needs the quotes too.
Functions: min, max, abs, ceil, floor, and round(x) or round(x, places).
A property that is missing or null means that the event does not feed the metric; text that is no number, and a division by zero, that the
event is refused. The result keeps 12 places, rounded half away from zero once, at the end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from math import ceil, floor

from core.pricing.modifiers import Rounding, round_quantity

LENGTH_MAX = 500
DEPTH_MAX = 30
PLACES = 12
TOKEN = re.compile(
    r'\s*(?:(?P<number>[0-9]{1,14}(?:\.[0-9]{1,12})?)|(?P<name>[A-Za-z_][A-Za-z0-9_.:]*)|"(?P<quoted>[^"]{1,100})"|(?P<sign>[-+*/(),]))'
)
QUANTITY = "quantity"
Values = Mapping[str, Fraction]
Run = Callable[[Fraction, Values], Fraction]


class BadExpression(ValueError):
    """The text is no expression; `place` is where it stops making sense, from 1."""

    def __init__(self, detail: str, place: int) -> None:
        super().__init__(f"{detail} (at character {place})")
        self.place = place


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression: the properties it needs, and how it is worked out from the event's quantity and theirs."""

    text: str
    names: tuple[str, ...]
    run: Run

    def value(self, quantity: Decimal, given: Values) -> Decimal:
        """The result to 12 places. Raises ZeroDivisionError."""
        return round_quantity(self.run(Fraction(quantity), given), Rounding.HALF_UP, PLACES)


@lru_cache(maxsize=1024)
def parse(text: str) -> Expression:
    """The expression the text says. Raises BadExpression."""
    if len(text) > LENGTH_MAX:
        raise BadExpression(f"an expression has at most {LENGTH_MAX} characters", LENGTH_MAX + 1)
    parser = _Parser(text)
    run = parser.sum(0)
    if parser.kind:
        raise BadExpression(f"{parser.word!r} is not expected here", parser.place)
    return Expression(text, tuple(dict.fromkeys(parser.names)), run)


class _Parser:
    """Recursive descent with one token of look-ahead: `kind` ("" at the end) and `word`."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self.names: list[str] = []
        self.kind = self.word = ""
        self.place = 1
        self._next()

    def sum(self, depth: int) -> Run:
        if depth > DEPTH_MAX:
            raise BadExpression("parentheses are nested too deeply", self.place)
        run = self._product(depth)
        while self.word in ("+", "-") and self.kind == "sign":
            sign = 1 if self._taken() == "+" else -1
            run = _added(run, self._product(depth), sign)
        return run

    def _product(self, depth: int) -> Run:
        run = self._factor(depth)
        while self.word in ("*", "/") and self.kind == "sign":
            run = (_multiplied if self._taken() == "*" else _divided)(run, self._factor(depth))
        return run

    def _factor(self, depth: int) -> Run:
        kind, place = self.kind, self.place
        word = self._taken()
        if kind == "number":
            return _constant(Fraction(word))
        if kind == "quoted" or (kind == "name" and self.word != "("):
            return _quantity if kind == "name" and word == QUANTITY else self._property(word)
        if kind == "name":
            return self._function(word, place, depth)
        if word == "-":
            return _negated(self._deeper(depth, self._factor))
        if word == "(":
            run = self._deeper(depth, self.sum)
            self._expect(")")
            return run
        raise BadExpression("a number, a name or a parenthesis is expected" + (f", not {word!r}" if word else ""), place)

    def _deeper(self, depth: int, read: Callable[[int], Run]) -> Run:
        if depth >= DEPTH_MAX:
            raise BadExpression("it is nested too deeply", self.place)
        return read(depth + 1)

    def _property(self, name: str) -> Run:
        self.names.append(name)
        return lambda _, given: given[name]

    def _function(self, name: str, place: int, depth: int) -> Run:
        self._expect("(")
        arguments = [self._deeper(depth, self.sum)]
        while self.word == "," and self.kind == "sign":
            self._taken()
            arguments.append(self._deeper(depth, self.sum))
        self._expect(")")
        if name not in FUNCTIONS:
            raise BadExpression(f"there is no function {name}; there are {', '.join(FUNCTIONS)}", place)
        least, most, function = FUNCTIONS[name]
        if not least <= len(arguments) <= most:
            raise BadExpression(f"{name} takes {least if least == most else f'{least} to {most}'} values, not {len(arguments)}", place)
        return lambda quantity, given: function(*(run(quantity, given) for run in arguments))

    def _expect(self, sign: str) -> None:
        if self.word != sign or self.kind != "sign":
            raise BadExpression(f"{sign!r} is missing", self.place)
        self._taken()

    def _taken(self) -> str:
        word = self.word
        self._next()
        return word

    def _next(self) -> None:
        rest = self._text[self._at :]
        self.place = self._at + len(rest) - len(rest.lstrip()) + 1
        if not rest.strip():
            self.kind = self.word = ""
            return
        match = TOKEN.match(self._text, self._at)
        if match is None:
            raise BadExpression(f"{rest.lstrip()[0]!r} is not expected here", self.place)
        self._at = match.end()
        self.kind = match.lastgroup or ""
        self.word = match[self.kind]


def _constant(value: Fraction) -> Run:
    return lambda _quantity, _given: value


def _quantity(quantity: Fraction, _given: Values) -> Fraction:
    return quantity


def _negated(run: Run) -> Run:
    return lambda quantity, given: -run(quantity, given)


def _added(one: Run, other: Run, sign: int) -> Run:
    return lambda quantity, given: one(quantity, given) + sign * other(quantity, given)


def _multiplied(one: Run, other: Run) -> Run:
    return lambda quantity, given: one(quantity, given) * other(quantity, given)


def _divided(one: Run, other: Run) -> Run:
    return lambda quantity, given: one(quantity, given) / other(quantity, given)


def _rounded(value: Fraction, places: Fraction = Fraction(0)) -> Fraction:
    return Fraction(round_quantity(value, Rounding.HALF_UP, max(-PLACES, min(PLACES, int(places)))))


FUNCTIONS: Mapping[str, tuple[int, int, Callable[..., Fraction]]] = {
    "min": (1, 10, min),
    "max": (1, 10, max),
    "abs": (1, 1, abs),
    "ceil": (1, 1, lambda value: Fraction(ceil(value))),
    "floor": (1, 1, lambda value: Fraction(floor(value))),
    "round": (1, 2, _rounded),
}
"""Fewest and most values a function takes, and the function."""
