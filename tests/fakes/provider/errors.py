"""Errors as the provider answers them: an HTTP status and a JSON body `{"error": {...}}`."""

from typing import Any


class ApiError(Exception):
    """An answer that is not 2xx. `saved` tells whether an idempotency key keeps it: execution had begun."""

    def __init__(self, status: int, kind: str, message: str, *, saved: bool = False, **fields: Any) -> None:
        super().__init__(message)
        self.status = status
        self.saved = saved
        self.body = {"error": {"type": kind, "message": message} | {name: value for name, value in fields.items() if value is not None}}


def invalid(message: str, *, param: str | None = None, code: str | None = None, status: int = 400, **fields: Any) -> ApiError:
    """A request that breaks a rule; nothing was done."""
    return ApiError(status, "invalid_request_error", message, param=param, code=code, **fields)


def missing(kind: str, identity: str, param: str = "id") -> ApiError:
    """An id that names nothing."""
    message = f"No such {kind.replace('.', ' ')}: '{identity}'"
    return invalid(message, param=param, code="resource_missing", status=404 if param == "id" else 400)


def declined(code: str, message: str, *, decline_code: str | None = None, **fields: Any) -> ApiError:
    """A card that was refused."""
    return ApiError(402, "card_error", message, saved=True, code=code, decline_code=decline_code, **fields)
