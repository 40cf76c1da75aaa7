"""OpenAPI descriptions of the addresses that are not declared by `endpoint`: recording usage, files of past usage."""

from __future__ import annotations

from typing import Any

JSON = "application/json"
IDEMPOTENCY_KEY: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "1 to 255 visible ASCII characters; repeating it repeats the answer, not the work.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]{1,255}$"},
}
NAME = {"type": "string", "minLength": 1, "maxLength": 100}

EVENT: dict[str, Any] = {
    "title": "UsageEvent",
    "description": "One usage event. Metrics read events by name; several may read the same one.",
    "type": "object",
    "required": ["idempotency_key"],
    "additionalProperties": False,
    "properties": {
        "idempotency_key": {
            "type": "string",
            "minLength": 1,
            "maxLength": 255,
            "pattern": "^[!-~]{1,255}$",
            "description": "Unique per organization; the same key again is a duplicate and counts once, also with another timestamp.",
        },
        "event_name": {**NAME, "description": "Name of the event; `metric_name` and `metric` are other spellings of this field."},
        "metric_name": NAME,
        "metric": NAME,
        "organization_id": {
            "type": "string",
            "maxLength": 255,
            "description": "Platform keys only: the organization's id or external id; `organization` is another spelling.",
        },
        "organization": {"type": "string", "maxLength": 255},
        "quantity": {
            "description": "A decimal, best sent as a string; left out: 1.",
            "anyOf": [{"type": "string", "pattern": r"^[0-9]{1,14}(\.[0-9]{1,12})?$"}, {"type": "number", "minimum": 0}],
        },
        "timestamp": {"type": "string", "format": "date-time", "description": "When it happened; left out: now."},
        "properties": {
            "type": "object",
            "description": "Flat values that metrics aggregate, filter and group by.",
            "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
        },
        "subscription_id": {"type": "string", "format": "uuid"},
        "unit": {"type": "string", "maxLength": 50},
    },
}
VERDICTS: dict[str, Any] = {
    "title": "UsageVerdict",
    "description": "The verdict on each event in the order they were sent.",
    "type": "object",
    "required": ["batch_id", "accepted", "rejected", "events"],
    "properties": {
        "batch_id": {
            "type": ["string", "null"],
            "description": "The result is read under it; null where nothing was accepted. `12-3` is one event, in batch 12 at place 3.",
        },
        "accepted": {"type": "integer"},
        "rejected": {"type": "integer"},
        "duplicates": {"type": "integer", "description": "With `Prefer: wait=N` only."},
        "unclaimed": {"type": "integer", "description": "Kept though no metric reads them yet; lenient mode only."},
        "conflicts": {"type": "integer", "description": "Known keys with another content; with `Prefer: wait=N` only."},
        "events": {"type": "array", "items": {"type": "object", "required": ["index", "status"]}},
    },
}
CLOUD_EVENT: dict[str, Any] = {
    "title": "CloudEvent",
    "description": "A usage event as a CloudEvent 1.0. `source` and `id` together are its key; extension attributes are not kept.",
    "type": "object",
    "required": ["specversion", "id", "source", "type"],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "minLength": 1, "maxLength": 255},
        "source": {"type": "string", "minLength": 1, "maxLength": 255},
        "type": {**NAME, "description": "Name of the event."},
        "subject": {"type": "string", "maxLength": 255, "description": "Platform keys only: the organization's id or external id."},
        "time": {"type": "string", "format": "date-time"},
        "datacontenttype": {"const": "application/json"},
        "data": {"type": "object", "description": "Properties; `quantity` is the quantity. Nested objects get names with dots."},
    },
}
SCHEMAS: dict[str, Any] = {"UsageEvent": EVENT, "UsageVerdict": VERDICTS, "CloudEvent": CLOUD_EVENT}

_EVENT = {"$ref": "#/components/schemas/UsageEvent"}
_EVENTS = {
    "type": "array",
    "minItems": 1,
    "maxItems": 10_000,
    "items": {},
    "description": "UsageEvents. Each item is judged on its own: what is none is rejected in the answer, and the others count.",
}
_CLOUD_EVENT = {"$ref": "#/components/schemas/CloudEvent"}
_BODIES = {
    JSON: {"schema": {"anyOf": [_EVENT, _EVENTS]}},
    "application/cloudevents+json": {"schema": _CLOUD_EVENT},
    "application/cloudevents-batch+json": {"schema": {**_EVENTS, "description": "CloudEvents. Each item is judged on its own."}},
}
RECORD_USAGE: dict[str, Any] = {
    "operationId": "record_usage",
    "tags": ["Usage"],
    "summary": "Record usage events",
    "description": (
        "One event, an array of them, or one a line (application/x-ndjson), or CloudEvents, structured, batched or binary; up to 10,000 "
        "events or 4 MiB, `Content-Encoding: gzip` or `zstd` accepted. What is accepted is durable when the answer arrives. 202 when at "
        "least one event was accepted, 422 when none was. With `Prefer: wait=N` (at most 10 s) the answer also counts duplicates and "
        "conflicts. Scope: `usage:write`."
    ),
    "parameters": [
        IDEMPOTENCY_KEY,
        {"name": "Prefer", "in": "header", "required": False, "schema": {"type": "string", "pattern": "^wait=[0-9]{1,2}$"}},
    ],
    "requestBody": {"required": True, "content": _BODIES},
    "responses": {
        "202": {"description": "Accepted.", "content": {JSON: {"schema": {"$ref": "#/components/schemas/UsageVerdict"}}}},
    },
}
_FILE = {"schema": {"type": "string", "description": "One event a line, or a table whose first line names its columns; up to 32 MiB."}}
STAGE_BACKFILL: dict[str, Any] = {
    "operationId": "stage_usage_backfill",
    "tags": ["Usage"],
    "summary": "Stage a file of past usage",
    "description": (
        "Every line is judged like an event that is sent, but for its age; nothing counts until the backfill is applied. The columns of a "
        "CSV file are called like the fields of an event, those of properties `properties.NAME`. The same file sent again is the same "
        "backfill. Needs a platform key. Scope: `billing:write`."
    ),
    "parameters": [
        {"name": "reason", "in": "query", "required": True, "schema": {"type": "string", "minLength": 10, "maxLength": 500}},
        {"name": "organization_id", "in": "query", "required": False, "schema": {"type": "string", "minLength": 1, "maxLength": 255}},
        {"name": "file_name", "in": "query", "required": False, "schema": {"type": "string", "minLength": 1, "maxLength": 255}},
    ],
    "requestBody": {"required": True, "content": {"application/x-ndjson": _FILE, "text/csv": _FILE}},
    "responses": {"201": {"description": "Staged.", "content": {JSON: {"schema": {"$ref": "#/components/schemas/BackfillOut"}}}}},
}
PATHS: dict[str, dict[str, dict[str, Any]]] = {
    "/billing/usage": {"post": RECORD_USAGE},
    "/billing/usage/backfills": {"post": STAGE_BACKFILL},
}
