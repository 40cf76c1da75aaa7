"""OpenAPI descriptions of the addresses that are not declared by `endpoint`: recording usage and the provider's webhook."""

from __future__ import annotations

from typing import Any

IDEMPOTENCY_KEY: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "1 to 255 visible ASCII characters; repeating it repeats the answer, not the work.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]{1,255}$"},
}

PATHS: dict[str, dict[str, dict[str, Any]]] = {}
SCHEMAS: dict[str, Any] = {}
