"""The form of an archived day: one Parquet file, rows by organization, event name and time, zstd, readable without this product.

Quantities are decimal128(38, 12), exact; properties the JSON as it was sent; `organization_id` and `event_name` spell the numbers out.
"""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

COLUMNS = (
    *("timestamp", "received_at", "batch_id", "organization_number", "event_number", "position"),
    *("quantity", "idempotency_key", "properties", "subscription_id", "unit"),
)
ROW_GROUP = 50_000
"""Rows that are in memory at a time."""
LEVEL = 6
REPEATED = ["organization_number", "event_number", "quantity", "properties", "subscription_id", "unit", "organization_id", "event_name"]
ENCODED = {
    **dict.fromkeys(("timestamp", "received_at", "batch_id", "position"), "DELTA_BINARY_PACKED"),
    "idempotency_key": "DELTA_BYTE_ARRAY",
}


def _schema() -> Any:
    import pyarrow as pa

    instant, number = pa.timestamp("us", "UTC"), pa.int32()
    types = (
        *(instant, instant, pa.int64(), number, number, pa.int16()),
        *(pa.decimal128(38, 12), pa.string(), pa.string(), pa.string(), pa.string()),
    )
    needed = [pa.field(name, kind, nullable=name in ("subscription_id", "unit")) for name, kind in zip(COLUMNS, types, strict=True)]
    return pa.schema([*needed, pa.field("organization_id", pa.string()), pa.field("event_name", pa.string())])


def write(file: Any, chunks: Iterable[Sequence[Sequence[Any]]], organizations: Mapping[int, uuid.UUID], names: Mapping[int, str]) -> int:
    """Write chunks of rows in the order of COLUMNS, each a row group; returns how many rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema, total = _schema(), 0
    options = {"compression": "zstd", "compression_level": LEVEL, "use_dictionary": REPEATED, "column_encoding": ENCODED}
    with pq.ParquetWriter(file, schema, **options) as writer:
        for chunk in chunks:
            columns = dict(zip(COLUMNS, zip(*chunk, strict=True), strict=True))
            columns["subscription_id"] = tuple(None if found is None else str(found) for found in columns["subscription_id"])
            columns["organization_id"] = tuple(str(organizations[number]) for number in columns["organization_number"])
            columns["event_name"] = tuple(names[number] for number in columns["event_number"])
            arrays = [_array(field, columns[field.name]) for field in schema]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            total += len(chunk)
    return total


def _array(field: Any, values: Sequence[Any]) -> Any:
    import pyarrow as pa

    if field.name == "properties":
        return pa.array(values, type=pa.binary()).cast(field.type)  # refuses what is no UTF-8
    return pa.array(values, type=field.type)


def read(file: Any) -> Iterator[bytes]:
    """The rows of an archive as CSV with the columns COLUMNS, a part at a time: an empty field is NULL, an empty text is quoted."""
    import pyarrow.parquet as pq
    from pyarrow import csv

    found = pq.ParquetFile(file)
    for part in found.iter_batches(batch_size=ROW_GROUP, columns=list(COLUMNS)):
        text = io.BytesIO()
        csv.write_csv(part, text, csv.WriteOptions(include_header=False))
        yield text.getvalue()
