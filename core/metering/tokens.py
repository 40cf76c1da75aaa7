"""The values of an event where they lie in the body: texts, numbers, timestamps, identifiers, read by machine code. Pure.

Each function takes the plain form only and answers STOP (NEVER, False) for every other: what other roads accept or refuse, with a
reason. `data` ends with a zero byte, which no value contains, so that no loop needs to look for the end.
"""

from __future__ import annotations

import numpy as np

from core.metering.machine import EIGHT, STOP, Bytes, Int64, Words, machine_code

QUOTE, DOT, MINUS, COLON, ZERO, ONE, NINE, BACKSLASH = b'".-:019\\'
SPACE, TAB, LINE, RETURN = b" \t\n\r"
LETTER_Z, PLUS = b"Z+"
NEVER = -(2**62)
"""Instead of a timestamp."""
WHOLE_DIGITS_MAX, PLACES = 14, 12
POWERS = 10 ** np.arange(PLACES + 1)
MINUTE_FORM, SECOND_FORM = (np.frombuffer(form, np.uint8) for form in (b"0000-00-00T00:00", b":00"))
FRACTION_MAX, MICRO_DIGITS = 9, 6
DAYS_BEFORE_1970 = 719_468
DAYS = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
TRUE, FALSE, NULL = (np.frombuffer(word, np.uint8) for word in (b"true", b"false", b"null"))
PROPERTY_DIGITS_MAX, PROPERTY_PLACES_MAX = 16, 6
LEAST, LOWEST, A_QUOTE, ONES, HIGHEST = (np.uint64(word) for word in (1, 0xFF, QUOTE, 0x0101010101010101, 0x8080808080808080))
QUOTES, BACKSLASHES, SPACES = (np.uint64(0x0101010101010101 * character) for character in (QUOTE, BACKSLASH, SPACE))
"""Eight bytes at once are one integer: the usual SWAR searches (Mycroft 1987), whose lowest hit is exact."""
MIXER = np.uint64(0x9E3779B97F4A7C15)
PROBES_MAX = 64
"""In a table: whose hashes are suspiciously common is looked for otherwise."""
UUID_FORM = np.frombuffer(b"00000000-0000-0000-0000-000000000000", np.uint8)


@machine_code
def blank(data: Bytes, at: int, lines: bool) -> int:
    """The first place from `at` on that is no white space; line ends are white space only if `lines`."""
    while data[at] == SPACE or data[at] == TAB or (lines and (data[at] == LINE or data[at] == RETURN)):
        at += 1
    return at


@machine_code
def text_end(words: Words, at: int) -> int:
    """Where the text that starts behind its quote at `at` is closed; STOP when it has an escape or a control character."""
    found = _ends(words[at])
    while not found:
        at += EIGHT
        found = _ends(words[at])
    end = at + _first(found)
    return end if words[end] & LOWEST == A_QUOTE else STOP


@machine_code
def _ends(eight: np.uint64) -> np.uint64:
    """The highest bit of each byte that no text has inside: quotes, backslashes and control characters."""
    quotes, slashes = eight ^ QUOTES, eight ^ BACKSLASHES
    return ((quotes - ONES) & ~quotes | (slashes - ONES) & ~slashes | (eight - SPACES) & ~eight) & HIGHEST


@machine_code
def _first(found: np.uint64) -> int:
    """Which is the first of eight bytes whose highest bit is set."""
    below = (found & (~found + LEAST)) - LEAST
    return int(((below & ONES) * ONES) >> np.uint64(56)) - 1


@machine_code
def part(words: Words, at: int, size: int) -> np.uint64:
    """The first `size` bytes at `at`, of which no more than eight are taken, as an integer."""
    eight: np.uint64 = words[at]
    return eight if size >= EIGHT else eight & ((LEAST << np.uint64(8 * size)) - LEAST)


@machine_code
def is_same(words: Words, start: int, other: int, size: int) -> bool:
    """Whether the same `size` bytes stand at both places."""
    for i in range(0, size, EIGHT):  # noqa: SIM110 - a generator cannot be compiled
        if part(words, start + i, size - i) != part(words, other + i, size - i):
            return False
    return True


@machine_code
def are_same(words: Words, start: int, others: Words, other: int, size: int) -> bool:
    """As is_same, when the second place is in other data."""
    for i in range(0, size, EIGHT):  # noqa: SIM110
        if part(words, start + i, size - i) != part(others, other + i, size - i):
            return False
    return True


@machine_code
def home(words: Words, start: int, size: int) -> np.uint64:
    """A hash of the `size` bytes at `start`, to look for them first in a table."""
    mixed = np.uint64(size)
    for i in range(0, size, EIGHT):
        mixed = (mixed ^ part(words, start + i, size - i)) * MIXER
        mixed ^= mixed >> np.uint64(32)
    return (mixed * MIXER) >> np.uint64(32)


@machine_code
def is_visible(words: Words, start: int, end: int) -> bool:
    """Whether all characters of a text that text_end passed are ASCII, and none a space or DEL."""
    for at in range(start, end, EIGHT):
        eight = part(words, at, end - at)
        blanks = eight ^ SPACES
        if (eight + ONES | eight | (blanks - ONES) & ~blanks) & HIGHEST:
            return False
    return True


@machine_code
def is_printable(words: Words, start: int, end: int) -> bool:
    """Whether all characters of a text that text_end passed are ASCII, and none DEL."""
    for at in range(start, end, EIGHT):
        eight = part(words, at, end - at)
        if (eight + ONES | eight) & HIGHEST:
            return False
    return True


@machine_code
def digits(data: Bytes, at: int) -> int:
    """Where the digits that start at `at` end."""
    while ZERO <= data[at] <= NINE:
        at += 1
    return at


@machine_code
def scalar_end(data: Bytes, at: int) -> int:
    """Where true, false, null or a number ends that canonical JSON writes the same: at most 16 digits and 6 places, not -0."""
    for word in (TRUE, FALSE, NULL):
        if _has_form(data, at, word):
            return at + len(word)
    negative = data[at] == MINUS
    start = at + negative
    end = digits(data, start)
    if end == start or end - start > PROPERTY_DIGITS_MAX or (data[start] == ZERO and end - start > 1):
        return STOP
    if data[end] != DOT:
        return STOP if negative and data[start] == ZERO else end
    point, end = end, digits(data, end + 1)
    return end if 1 <= end - point - 1 <= PROPERTY_PLACES_MAX else STOP


@machine_code
def decimal_end(data: Bytes, at: int) -> int:
    """Where the digits, point and digits that start at `at` end, however few they are."""
    at = digits(data, at)
    return digits(data, at + 1) if data[at] == DOT else at


@machine_code
def number(data: Bytes, start: int, end: int) -> int:
    """The number that the digits from `start` to `end` make."""
    value = 0
    for at in range(start, end):
        value = value * 10 + (data[at] - ZERO)
    return value


@machine_code
def quantity(data: Bytes, start: int, end: int) -> tuple[int, int]:
    """Whole units and 10^-12ths of the plain decimal that stands there; STOP twice when there is none."""
    point = digits(data, start)
    lead = point - start
    if not 1 <= lead <= WHOLE_DIGITS_MAX or (lead > 1 and data[start] == ZERO):
        return STOP, STOP
    whole = number(data, start, point)
    if point == end:
        return whole, 0
    places = end - point - 1
    if data[point] != DOT or not 1 <= places <= PLACES or digits(data, point + 1) != end:
        return STOP, STOP
    return whole, number(data, point + 1, end) * POWERS[PLACES - places]


@machine_code
def timestamp(data: Bytes, words: Words, start: int, end: int, minute: Int64) -> int:
    """Microseconds since 1970 of an RFC 3339 date-time with T and Z or an offset; NEVER for anything else.

    Digits behind the sixth are cut. `minute` holds where the last timestamp read stands (STOP: none yet) and the seconds up to its
    minute, so that those of the same minute need not be worked out again.
    """
    at = start + len(MINUTE_FORM) + len(SECOND_FORM)
    if at >= end:
        return NEVER
    last = minute[0]
    if last == STOP or words[start] != words[last] or words[start + EIGHT] != words[last + EIGHT]:
        minute[1] = _minute(data, start)
        minute[0] = start if minute[1] != NEVER else STOP
        if minute[1] == NEVER:
            return NEVER
    second = number(data, start + len(MINUTE_FORM) + 1, at)
    if not _has_form(data, start + len(MINUTE_FORM), SECOND_FORM) or second > 59:
        return NEVER
    micros = 0
    if data[at] == DOT:
        behind = digits(data, at + 1)
        shown = behind - at - 1
        if not 1 <= shown <= FRACTION_MAX:
            return NEVER
        kept = min(shown, MICRO_DIGITS)
        micros = number(data, at + 1, at + 1 + kept) * POWERS[MICRO_DIGITS - kept]
        at = behind
    offset = _offset(data, at, end)
    return NEVER if offset == NEVER else (minute[1] + second - offset) * 1_000_000 + micros


@machine_code
def _minute(data: Bytes, start: int) -> int:
    """Seconds since 1970 of a date-time up to its minute; NEVER when it is none."""
    if not _has_form(data, start, MINUTE_FORM):
        return NEVER
    day = _days(number(data, start, start + 4), number(data, start + 5, start + 7), number(data, start + 8, start + 10))
    seconds = _seconds(number(data, start + 11, start + 13), number(data, start + 14, start + 16))
    return NEVER if NEVER in (day, seconds) else day * 86_400 + seconds


@machine_code
def _has_form(data: Bytes, start: int, form: Bytes) -> bool:
    """Whether digits stand where the form has zeros, and the form's own characters elsewhere."""
    for i in range(len(form)):
        here = data[start + i]
        if here != form[i] and not (form[i] == ZERO and ZERO <= here <= NINE):
            return False
    return True


@machine_code
def _days(year: int, month: int, day: int) -> int:
    """Days since 1970 of a date of the proleptic Gregorian calendar (Hinnant, days_from_civil); NEVER when there is none."""
    if year < 1 or not 1 <= month <= 12:
        return NEVER
    leap = month == 2 and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if not 1 <= day <= DAYS[month] + leap:
        return NEVER
    year -= month <= 2
    era, of_era = year // 400, year % 400
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - DAYS_BEFORE_1970


@machine_code
def _seconds(hour: int, minute: int) -> int:
    return hour * 3600 + minute * 60 if hour <= 23 and minute <= 59 else NEVER


@machine_code
def _offset(data: Bytes, at: int, end: int) -> int:
    """Seconds by which a zone is ahead of UTC; NEVER when none stands there up to `end`."""
    if data[at] == LETTER_Z and at + 1 == end:
        return 0
    if at + 6 != end or data[at + 3] != COLON or digits(data, at + 1) != at + 3 or digits(data, at + 4) != end:
        return NEVER
    ahead = _seconds(number(data, at + 1, at + 3), number(data, at + 4, end))
    if ahead == NEVER or data[at] not in (PLUS, MINUS):
        return NEVER
    return ahead if data[at] == PLUS else -ahead


@machine_code
def uuid(data: Bytes, start: int, end: int, out: Words, at: int) -> int:
    """Write the 16 bytes of a UUID in its usual form to `out` from `at` on; the place behind them."""
    if end - start != len(UUID_FORM):
        return STOP
    high = STOP
    for i in range(len(UUID_FORM)):
        digit = _hex(data[start + i])
        if UUID_FORM[i] == MINUS or digit == STOP:
            if UUID_FORM[i] != data[start + i]:
                return STOP
        elif high == STOP:
            high = digit
        else:
            out[at] = 16 * high + digit
            at, high = at + 1, STOP
    return at


@machine_code
def _hex(character: int) -> int:
    if ZERO <= character <= NINE:
        return character - ZERO
    lower = character | 32
    return lower - 87 if 97 <= lower <= 102 else STOP
