"""Money: integer minor units with their currency, decimals in and out, and the one rounding of the product. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow
from fractions import Fraction

EXACT = Context(prec=96, rounding=ROUND_HALF_UP, traps=[InvalidOperation, DivisionByZero, Overflow, Inexact])
"""Sums and products of accepted amounts (at most 14 digits and 12 places each) fit; anything that would not raises `Inexact`."""

_ROUNDING = Context(prec=96, rounding=ROUND_HALF_UP, traps=[InvalidOperation])

_ONE = Decimal(1)

# ISO 4217 active codes by number of minor digits (list one of the ISO 4217 maintenance agency).
_CODES_BY_DIGITS = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    2: (
        "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF CHW CNY "
        "COP COU CRC CUC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HRK HTG HUF IDR ILS "
        "INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD "
        "NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL "
        "THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG"
    ),
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
_EXPONENT = {code: digits for digits, codes in _CODES_BY_DIGITS.items() for code in codes.split()}
_SCALE = {code: Decimal(10) ** digits for code, digits in _EXPONENT.items()}

CURRENCIES = frozenset(_EXPONENT)


class UnknownCurrency(ValueError):
    """The code is not an active ISO 4217 currency."""

    def __init__(self, currency: str) -> None:
        super().__init__(f"{currency!r} is not a currency code of ISO 4217")


class CurrencyMismatch(ValueError):
    """Two amounts of different currencies were added or compared."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"cannot mix {one} and {other}")


@dataclass(frozen=True, slots=True)
class Money:
    """An amount of money: `minor` whole minor units (cents, yen, fils) of `currency`."""

    minor: int
    currency: str

    @property
    def decimal(self) -> Decimal:
        """The amount in major units."""
        return to_decimal(self.minor, self.currency)

    def __add__(self, other: "Money") -> "Money":
        return Money(self.minor + self._same(other), self.currency)

    def __sub__(self, other: "Money") -> "Money":
        return Money(self.minor - self._same(other), self.currency)

    def __neg__(self) -> "Money":
        return Money(-self.minor, self.currency)

    def __lt__(self, other: "Money") -> bool:
        return self.minor < self._same(other)

    def __le__(self, other: "Money") -> bool:
        return self.minor <= self._same(other)

    def __gt__(self, other: "Money") -> bool:
        return self.minor > self._same(other)

    def __ge__(self, other: "Money") -> bool:
        return self.minor >= self._same(other)

    def __str__(self) -> str:
        return f"{format_decimal(self.minor, self.currency)} {self.currency}"

    def _same(self, other: "Money") -> int:
        if other.currency != self.currency:
            raise CurrencyMismatch(self.currency, other.currency)
        return other.minor


def exponent(currency: str) -> int:
    """Number of decimal digits of the currency's minor unit (EUR 2, JPY 0, KWD 3); `UnknownCurrency` for other codes."""
    try:
        return _EXPONENT[currency]
    except KeyError:
        raise UnknownCurrency(currency) from None


def round_half_up(amount: Decimal | Fraction, currency: str) -> int:
    """Major units to whole minor units, half away from zero. The only place where money is rounded."""
    try:
        scale = _SCALE[currency]
    except KeyError:
        raise UnknownCurrency(currency) from None
    if isinstance(amount, Decimal):
        return int((amount * scale).quantize(_ONE, ROUND_HALF_UP, _ROUNDING))
    return round_ratio(amount.numerator * int(scale), amount.denominator)


def round_ratio(numerator: int, denominator: int) -> int:
    """`numerator / denominator` to a whole number, half away from zero; `denominator` is positive."""
    whole = (2 * abs(numerator) + denominator) // (2 * denominator)
    return whole if numerator >= 0 else -whole


def to_decimal(minor: int, currency: str) -> Decimal:
    """Minor units to major units: 12345, "EUR" is Decimal("123.45")."""
    return Decimal(minor).scaleb(-exponent(currency))


def format_decimal(minor: int, currency: str) -> str:
    """Minor units as the API writes them: "123.45", "-0.05", and "123" for a currency without minor units."""
    return plain(to_decimal(minor, currency))


def plain(amount: Decimal) -> str:
    """A decimal without an exponent, as JSON and pages want it."""
    text = str(amount)
    return f"{amount:f}" if "E" in text else text  # str() is three times as fast, and nearly always plain


def parse_decimal(token: str, *, digits: int = 14, places: int = 12, signed: bool = False) -> Decimal:
    """A decimal from untrusted text: ASCII digits, at most `digits` before and `places` after the point.

    Anything else is a `ValueError`: exponents, NaN, infinity, blanks, underscores, full-width digits; a minus sign unless `signed`.
    `Decimal()` alone takes all of these, and turning its 1e999999 into an integer would keep a core busy for half a minute.
    """
    if not isinstance(token, str) or not re.fullmatch(rf"{'-?' if signed else ''}[0-9]{{1,{digits}}}(\.[0-9]{{1,{places}}})?", token):
        raise ValueError(f"must be a decimal number with at most {digits} digits before and {places} after the point")
    return Decimal(token)


def allocate(total: int, weights: Sequence[int | Decimal | Fraction]) -> list[int]:
    """Split `total` minor units in proportion to `weights` by largest remainder, the first of equals first; the parts sum to `total`.

    Weights are not negative and not all zero (`ValueError`). A negative total splits as the positive one, with the sign put back.
    """
    shares = [Fraction(weight) for weight in weights]
    whole = sum(shares)
    if whole <= 0 or min(shares) < 0:
        raise ValueError("weights must not be negative, and one of them must be positive")
    exact = [abs(total) * share / whole for share in shares]
    parts = [int(part) for part in exact]
    by_remainder = sorted(range(len(parts)), key=lambda i: (parts[i] - exact[i], i))
    for i in by_remainder[: abs(total) - sum(parts)]:
        parts[i] += 1
    return parts if total >= 0 else [-part for part in parts]
