"""Files of past usage as events of the wire: JSON lines as they are, lines of a table (CSV) as JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from enum import StrEnum

import msgspec

from core.errors import FieldError, Invalid
from core.metering.wire import FIELDS

BYTES_MAX = 32 * 1024 * 1024
EVENTS_MAX = 50_000
PROPERTY = "properties."


class FileForm(StrEnum):
    """How a file is written."""

    NDJSON = "ndjson"
    CSV = "csv"


def lines(content: bytes, form: FileForm) -> Iterator[tuple[int, bytes]]:
    """(line number, event as JSON) of each line that is not empty. Raises Invalid when the file as a whole cannot be read.

    A CSV file begins with the names of its columns: fields of an event, or `properties.` and the name of a property. An empty cell is a
    field that is left out.
    """
    if len(content) > BYTES_MAX:
        raise _unusable(f"A file has at most {BYTES_MAX // 2**20} MiB.")
    rows = _table(content) if form is FileForm.CSV else _json(content)
    n = 0
    for n, (line, raw) in enumerate(rows, 1):
        if n > EVENTS_MAX:
            raise _unusable(f"A file has at most {EVENTS_MAX} events; cut it into several.")
        yield line, raw
    if not n:
        raise _unusable("There is no event in the file.")


def _json(content: bytes) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            yield number, line.strip()


def _table(content: bytes) -> Iterator[tuple[int, bytes]]:
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        names = _names(next(reader, []))
        for row in reader:
            if any(row):
                yield reader.line_num, _event(names, row)
    except (UnicodeDecodeError, csv.Error) as error:
        raise _unusable(f"The file is not CSV in UTF-8: {error}.") from error


def _names(header: list[str]) -> list[str]:
    names = [name.strip() for name in header]
    wrong = next((name for name in names if name not in FIELDS - {"properties"} and not name.startswith(PROPERTY)), None)
    if wrong is not None:
        raise _unusable(f"There is no field {wrong!r}. A property's column is called properties.NAME.")
    if len(set(names)) != len(names):
        raise _unusable("Two columns have the same name.")
    return names


def _event(names: list[str], row: list[str]) -> bytes:
    given = {name: cell for name, cell in zip(names, row, strict=False) if cell != ""}
    event: dict[str, object] = {name: cell for name, cell in given.items() if not name.startswith(PROPERTY)}
    event["properties"] = {name[len(PROPERTY) :]: cell for name, cell in given.items() if name.startswith(PROPERTY)}
    return msgspec.json.encode(event)


def _unusable(detail: str) -> Invalid:
    return Invalid("The file cannot be taken.", errors=(FieldError("", detail),))
