"""The OpenAPI 3.1 document, made of the declared endpoints, and the page that shows it to people."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import msgspec
from flask import Blueprint, Response, current_app, render_template

from api import documented
from api.contract import ENDPOINTS, JSON, Answered, Endpoint, Output
from api.problems import CODES
from api.values import exact_schema
from web.errors import PROBLEM

VERSION = "1.0.0"
TAGS = (
    "Organizations", "Metrics", "Plans", "Subscriptions", "Usage", "Limits", "Entitlements", "Invoices", "Credits", "Payments", "API keys",
    "Test clocks",
)  # fmt: skip
REFERENCE = "#/components/schemas/{name}"
PARAMETER = re.compile(r"<(?:(?P<kind>[a-z]+):)?(?P<name>[a-z_]+)>")
PARAMETER_SCHEMAS = {
    "uuid": {"type": "string", "format": "uuid"},
    "int": {"type": "integer", "minimum": 1, "maximum": 2**63 - 1},
    None: {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[A-Za-z0-9_.:-]+$"},
}
DESCRIPTION = """Usage in, invoices and money out. Amounts are decimal strings in major units of the currency; times are RFC 3339 in UTC.

Send your key as `Authorization: Bearer vv_…`. A key belongs to one organization, or to the platform: then `organization_id` names
the organization, by id, external id or slug. Every POST takes an `Idempotency-Key`: the same key with the same body gives the first
answer again (`Idempotent-Replayed: true`), with another body 422, while the first is in flight 409. Lists are pages of `limit` rows;
`next_cursor` of one page is the `cursor` of the next. Errors are `application/problem+json` (RFC 9457)."""
PROBLEMS = {
    400: "The request could not be read.",
    401: "The key is missing, unknown, expired or revoked.",
    402: "The payment was declined; nothing was charged.",
    403: "The key has not the scope, or is bound to one organization.",
    404: "There is nothing with this id, or it belongs to another organization.",
    405: "The address does not take this method.",
    409: "The request conflicts with the present state.",
    413: "The body is too large.",
    415: "The body is not application/json.",
    422: "A field is wrong; `errors` points at it.",
    429: "Too many requests; `Retry-After` says when to come back.",
    503: "Not available now; nothing was changed.",
}


class ProblemError(Output):
    """What is wrong with one field: a JSON pointer (RFC 6901) into the body, or the name of a parameter."""

    pointer: str
    detail: str


class Problem(Output):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    instance: str | None = None
    errors: list[ProblemError] = msgspec.field(default_factory=list)


def mount(blueprint: Blueprint) -> None:
    """Serve the document and its page; neither needs a key."""
    blueprint.add_url_rule("/openapi.json", "openapi", _serve)
    blueprint.add_url_rule("/docs", "docs", _show)


@lru_cache(maxsize=4)
def document(public_url: str) -> dict[str, Any]:
    """The whole document."""
    (*_, problem), schemas = _components()
    paths: dict[str, Any] = {}
    for declared in ENDPOINTS:
        operations = paths.setdefault(PARAMETER.sub(r"{\g<name>}", declared.path), {})
        operations[declared.method.lower()] = _operation(declared, problem)
    for path, operations in documented.PATHS.items():
        described = {method: _with_problems(operation, problem) for method, operation in operations.items()}
        paths.setdefault(path, {}).update(described)
    return {
        "openapi": "3.1.0",
        "info": {"title": "ValueVerse Billing API", "version": VERSION, "description": DESCRIPTION, "license": {"name": "Apache-2.0"}},
        "servers": [{"url": f"{public_url}/api/v1"}],
        "security": [{"key": []}],
        "tags": [{"name": name} for name in TAGS],
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "An API key: `vv_live_…` or `vv_test_…`."}},
            "schemas": {**schemas, **documented.SCHEMAS},
        },
    }


def _components() -> tuple[tuple[dict[str, Any], ...], dict[str, Any]]:
    types = [kind for declared in ENDPOINTS for kind in (declared.body, _body_of(declared.answer)) if kind is not None]
    return msgspec.json.schema_components([*types, Problem], schema_hook=exact_schema, ref_template=REFERENCE)


def _schema(kind: Any) -> dict[str, Any]:
    (found,), _ = msgspec.json.schema_components([kind], schema_hook=exact_schema, ref_template=REFERENCE)
    return found


def _operation(declared: Endpoint, problem: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": declared.view.__name__,
        "tags": [declared.tag],
        "summary": declared.summary,
        "description": " ".join(part for part in (declared.description, f"Scope: `{declared.scope}`.") if part),
        "parameters": [*_path_parameters(declared), *_query_parameters(declared)],
        "responses": _answers(declared),
    }
    if declared.method == "POST":
        operation["parameters"].append(documented.IDEMPOTENCY_KEY)
    if declared.body is not None:
        needed = any(item.required for item in msgspec.structs.fields(declared.body))
        operation["requestBody"] = {"required": needed, "content": {JSON: {"schema": _schema(declared.body)}}}
    return _with_problems(operation, problem)


def _answers(declared: Endpoint) -> dict[str, Any]:
    body = _body_of(declared.answer)
    if declared.produces != JSON:
        return {str(declared.status): {"description": "The file.", "content": {declared.produces: {"schema": {}}}}}
    if body is None:
        return {str(declared.status): {"description": "Done."}}
    content = {JSON: {"schema": _schema(body)}}
    return {
        str(status): {"description": "Done." if status != 202 else "On its way.", "content": content}
        for status in (declared.status, *declared.statuses)
    }


def _with_problems(operation: dict[str, Any], problem: dict[str, Any]) -> dict[str, Any]:
    content = {PROBLEM: {"schema": problem}}
    refused = {str(status): {"description": text, "content": content} for status, text in PROBLEMS.items()}
    return {**operation, "responses": {**operation["responses"], **refused}}


def _path_parameters(declared: Endpoint) -> list[dict[str, Any]]:
    return [
        {"name": found["name"], "in": "path", "required": True, "schema": PARAMETER_SCHEMAS[found["kind"]]}
        for found in PARAMETER.finditer(declared.path)
    ]


def _query_parameters(declared: Endpoint) -> list[dict[str, Any]]:
    if declared.query is None:
        return []
    (reference,), schemas = msgspec.json.schema_components([declared.query], schema_hook=exact_schema, ref_template="{name}")
    described = schemas[reference["$ref"]]
    return [
        {"name": name, "in": "query", "required": name in described.get("required", ()), "schema": _single(schema)}
        for name, schema in described["properties"].items()
    ]


def _single(schema: dict[str, Any]) -> dict[str, Any]:
    """A query parameter is left out rather than null."""
    options = [option for option in schema.get("anyOf", ()) if option != {"type": "null"}]
    schema = {key: value for key, value in schema.items() if key != "default" or value is not None}
    if len(options) == 1:
        return {**{key: value for key, value in schema.items() if key != "anyOf"}, **options[0]}
    if None in schema.get("enum", ()):
        return {**schema, "enum": [value for value in schema["enum"] if value is not None]}
    return schema


def _body_of(answer: Any) -> Any:
    origin = getattr(answer, "__origin__", None)
    if origin is Answered:
        return answer.__args__[0]
    return None if answer in (None, type(None), Response) else answer


def _serve() -> Response:
    return Response(msgspec.json.encode(document(current_app.config["SETTINGS"].public_url)), content_type=JSON)


def _show() -> str:
    found = document(current_app.config["SETTINGS"].public_url)
    groups: dict[str, list[dict[str, Any]]] = {name: [] for name in TAGS}
    for path, operations in found["paths"].items():
        for method, operation in operations.items():
            groups[operation["tags"][0]].append({"method": method.upper(), "path": f"/api/v1{path}", **operation})
    return render_template(
        "api/docs.html", info=found["info"], groups=groups, schemas=found["components"]["schemas"], problems=PROBLEMS, codes=CODES
    )
