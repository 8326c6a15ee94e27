"""The tenant API in the OpenAPI document: its routes are plain Starlette, so FastAPI does not describe them."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from control_plane.api.documented import RETRY_AFTER
from control_plane.templates import Function, Resource, Template

_SECURITY: list[dict[str, list[str]]] = [{"tenantToken": []}]
_SCHEME = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "JWT",
    "description": "A tenant token (audience `tenant-api`): `cp token --tenant SLUG`. The tenant is the token's.",
}
_DOCUMENT = {"type": "object", "description": "The document, as the template's view builds it."}
_ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": r"^[\x21-\x7e]+$"},
    "description": "The same call of the same user with the same key, within a day, is made once and answered alike.",
}
_RESULT = {
    "type": "object",
    "required": ["success", "code", "message", "data", "errors"],
    "properties": {
        "success": {"type": "boolean"},
        "code": {"type": ["string", "null"]},
        "message": {"type": ["string", "null"]},
        "data": {},
        "errors": {"type": ["array", "null"], "items": {}},
    },
}


def add_tenant_paths(document: dict[str, Any], template: Template) -> None:
    """Add the paths of `template`'s latest version. Homes on an older one answer 404 to what they do not have yet."""
    for path, method, operation in _operations(template):
        document["paths"].setdefault(path, {})[method] = operation
    components = document["components"]
    components["securitySchemes"]["tenantToken"] = _SCHEME
    components["schemas"]["MutationResult"] = _RESULT


def _operations(template: Template) -> Iterator[tuple[str, str, dict[str, Any]]]:
    latest = template.latest
    for api in template.api_versions(latest):
        for name, declared in template.manifest.resources.items():
            present = declared.since <= latest and not template.removed(api, name, latest)
            if present and (declared.api is None or api in declared.api):
                resource = template.resource(name, api_version=api, pattern_version=latest)
                yield f"/api/v{api}/{name}", "get", _list(resource)
                yield f"/api/v{api}/{name}/{{id}}", "get", _one(resource)
        for name, function in template.manifest.functions.items():
            if function.since <= latest and (function.api is None or api in function.api):
                call = _call(template.function(name, api_version=api, pattern_version=latest))
                yield f"/api/v{api}/rpc/{name}", "post", call


def _list(resource: Resource) -> dict[str, Any]:
    limit = {"type": "integer", "minimum": 1, "maximum": resource.max_limit, "default": resource.default_limit}
    offset = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1, "default": 0}
    return {
        "operationId": f"list_{resource.name}_v{resource.api_version}",
        "summary": f"List {resource.name}",
        "parameters": [
            {"name": "limit", "in": "query", "schema": limit},
            {"name": "offset", "in": "query", "schema": offset},
        ],
        **_common(resource),
        "responses": {"200": _json("A page.", {"type": "array", "items": _DOCUMENT}), **_refusals(400, 401, 403, 404)},
    }


def _one(resource: Resource) -> dict[str, Any]:
    return {
        "operationId": f"get_{resource.name}_v{resource.api_version}",
        "summary": f"Show one of {resource.name}",
        "parameters": [_ID],
        **_common(resource),
        "responses": {"200": _json("The document.", _DOCUMENT), **_refusals(400, 401, 403, 404)},
    }


def _call(function: Function) -> dict[str, Any]:
    result = {"$ref": "#/components/schemas/MutationResult"}
    refused = "Refused by the function: `success` is false. Or a problem."
    answers = {
        str(status): {
            "description": refused,
            "content": {"application/json": {"schema": result}, **_problem_content()},
        }
        for status in (403, 404, 409, 422)
    }
    return {
        "operationId": f"call_{function.name}_v{function.api_version}",
        "summary": f"Call {function.name}",
        "parameters": [] if function.read_only else [_KEY],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"type": "object"}, "example": {"name": "Apollo"}}},
        },
        "tags": [f"tenant API v{function.api_version}"],
        "security": _SECURITY,
        "responses": {"200": _json("Done.", result), **_refusals(400, 401, 413, 415), **answers},
    }


def _common(resource: Resource) -> dict[str, Any]:
    return {
        "tags": [f"tenant API v{resource.api_version}"],
        "security": _SECURITY,
        "deprecated": resource.deprecation is not None,
    }


def _json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _problem_content() -> dict[str, Any]:
    return {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


def _refusals(*statuses: int) -> dict[str, Any]:
    answers = {str(s): {"description": HTTPStatus(s).phrase, "content": _problem_content()} for s in statuses}
    unavailable = {"description": "Service Unavailable", "content": _problem_content(), "headers": RETRY_AFTER}
    return {**answers, "503": unavailable}
