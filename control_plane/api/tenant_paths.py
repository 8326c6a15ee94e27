"""The tenant API in the OpenAPI document: its routes are plain Starlette, so FastAPI does not describe them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from control_plane.api.documented import RETRY_AFTER
from control_plane.api.query import MAX_OFFSET
from control_plane.api.wanted import Media
from control_plane.templates import FieldRule, Function, Resource, Template

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
_RANGE = {
    "name": "Range",
    "in": "header",
    "schema": {"type": "string", "pattern": r"^[0-9]{1,9}-[0-9]{0,9}$"},
    "description": "The first and the last row, from 0 on, instead of `limit` and `offset`; `Range-Unit: items`.",
}
_PREFER = {
    "name": "Prefer",
    "in": "header",
    "schema": {"type": "string", "enum": ["count=exact"]},
    "description": "Also count all rows, for `Content-Range`.",
}
_KNOWN = {
    "name": "If-None-Match",
    "in": "header",
    "schema": {"type": "string"},
    "description": 'Tags of answers that the caller has, as in `"a", "b"`, or `*`.',
}
_OPERATORS = {
    "eq": "equal", "neq": "not equal", "gt": "greater", "gte": "greater or equal", "lt": "less", "lte": "less or equal",
    "in": "one of `(a,b,\"c,d\")`", "is": "`null` or `not_null`, of a boolean also `true` or `false`",
    "like": "matches, with `*` for any text", "ilike": "matches whatever the case",
}  # fmt: skip
_CONTENT_RANGE = {
    "description": "Which rows these are, of how many: `0-9/57`, or `0-9/*` when they are not counted.",
    "schema": {"type": "string"},
}
_LINK = {
    "description": 'The pages beside this one, `<?…>; rel="next"` and `rel="prev"`, relative to its address.',
    "schema": {"type": "string"},
}
_ETAG = {"description": "What the answer says, in a word: see If-None-Match.", "schema": {"type": "string"}}
_CURSOR = {"type": ["string", "null"]}
_PAGE = {
    "type": "object",
    "required": ["items", "page"],
    "properties": {
        "items": {"type": "array", "items": _DOCUMENT},
        "page": {
            "type": "object",
            "required": ["next", "prev", "has_next", "has_prev"],
            "properties": {
                "next": _CURSOR, "prev": _CURSOR, "has_next": {"type": "boolean"}, "has_prev": {"type": "boolean"}
            },
        },
    },
}  # fmt: skip
_LINES = {"type": "string", "description": "A document per line, of all rows and not of a page."}
_DEPRECATION = {
    "type": "object",
    "required": ["api", "resource", "field", "replacement", "announced", "sunset", "removed"],
    "properties": {
        "api": {"type": "integer"},
        "resource": {"type": ["string", "null"], "description": "Null when the whole API version goes away."},
        "field": {"type": ["string", "null"], "description": "Null when the whole resource goes away."},
        "replacement": {"type": ["string", "null"]},
        "announced": {"type": "string", "format": "date"},
        "sunset": {"type": "string", "format": "date", "description": "The first day without a promise."},
        "removed": {"type": "boolean", "description": "Whether it has gone."},
    },
}
# The types of a function's arguments in a query string; what is not here is a string.
_ARGUMENTS: dict[str, dict[str, str]] = {
    "integer": {"type": "integer"},
    "decimal": {"type": "number"},
    "boolean": {"type": "boolean"},
    "uuid": {"type": "string", "format": "uuid"},
    "date": {"type": "string", "format": "date"},
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
    components["schemas"]["Deprecation"] = _DEPRECATION


def _operations(template: Template) -> Iterator[tuple[str, str, dict[str, Any]]]:
    latest = template.latest
    for api in template.api_versions(latest):
        yield f"/api/v{api}/deprecations", "get", _register(api, template)
        for name, declared in template.manifest.resources.items():
            present = declared.since <= latest and not template.removed(api, name, latest)
            if present and (declared.api is None or api in declared.api):
                resource = template.resource(name, api_version=api, pattern_version=latest)
                yield f"/api/v{api}/{name}", "get", _list(resource)
                yield f"/api/v{api}/{name}/{{id}}", "get", _one(resource)
        for name, function in template.manifest.functions.items():
            if function.since <= latest and (function.api is None or api in function.api):
                found = template.function(name, api_version=api, pattern_version=latest)
                if found.read_only:
                    yield f"/api/v{api}/rpc/{name}", "get", _read(found)
                yield f"/api/v{api}/rpc/{name}", "post", _call(found)


def _list(resource: Resource) -> dict[str, Any]:
    page = {"type": "array", "items": _DOCUMENT}
    answers = {"200": _json("A page.", page), "206": _json("A part of what was counted to be more.", page)}
    for answer in answers.values():
        for media, schema in ((Media.OBJECT, _DOCUMENT), (Media.PAGE, _PAGE)):
            answer["content"][media.value.decode()] = {"schema": schema}
        answer["headers"] = {"Content-Range": _CONTENT_RANGE, "Link": _LINK, **_tag(resource)}
    answers["200"]["content"][Media.LINES.value.decode()] = {"schema": _LINES}
    return {
        "operationId": f"list_{resource.name}_v{resource.api_version}",
        "summary": f"List {resource.name}",
        "parameters": list(_parameters(resource)),
        **_common(resource),
        "responses": {**answers, **_unchanged(resource), **_refusals(400, 401, 403, 404, 406, 416)},
    }


def _parameters(resource: Resource) -> Iterator[dict[str, Any]]:
    text = {"type": "string"}
    sorts = ", ".join(dict.fromkeys((*resource.sorts, *resource.key)))
    limit = {"type": "integer", "minimum": 0, "default": resource.default_limit}
    offset = {"type": "integer", "minimum": 0, "maximum": MAX_OFFSET, "default": 0}
    for name, schema, description in (
        ("select", text, "Fields of the document, as in `id,name`, or `*` for all."),
        ("order", text, f"Columns of {sorts}, as in `{resource.key[0]}.desc`; also `.nullsfirst`, `.nullslast`."),
        ("limit", limit, f"The rows of the answer; more than {resource.max_limit} are given as lines only."),
        ("offset", offset, "The rows that are left out before."),
        ("cursor", text, "Where the page begins: `next` or `prev` of another page of the same order and filters."),
    ):
        yield {"name": name, "in": "query", "schema": schema, "description": description}
    for column, operators in resource.filters.items():
        known = "; ".join(f"`{operator}.` {_OPERATORS[operator]}" for operator in operators)
        description = f"Of type {resource.columns[column]}. {known}. `not.` before it turns it round."
        yield {"name": column, "in": "query", "schema": text, "description": description}
    yield from (_RANGE, _PREFER)
    if resource.version is not None:
        yield _KNOWN


def _one(resource: Resource) -> dict[str, Any]:
    found = _json("The document.", _DOCUMENT)
    if resource.version is not None:
        found["headers"] = _tag(resource)
    return {
        "operationId": f"get_{resource.name}_v{resource.api_version}",
        "summary": f"Show one of {resource.name}",
        "parameters": [_ID, _KNOWN] if resource.version is not None else [_ID],
        **_common(resource),
        "responses": {"200": found, **_unchanged(resource), **_refusals(400, 401, 403, 404)},
    }


def _tag(resource: Resource) -> dict[str, Any]:
    return {} if resource.version is None else {"ETag": _ETAG}


def _unchanged(resource: Resource) -> dict[str, Any]:
    if resource.version is None:
        return {}
    return {"304": {"description": "The caller has the answer already.", "headers": {"ETag": _ETAG}}}


def _register(api: int, template: Template) -> dict[str, Any]:
    entries = {"type": "array", "items": {"$ref": "#/components/schemas/Deprecation"}}
    return {
        "operationId": f"list_deprecations_v{api}",
        "summary": "List what is deprecated",
        "tags": [f"tenant API v{api}"],
        "security": _SECURITY,
        "deprecated": template.ending(api, template.latest) is not None,
        "responses": {"200": _json("The register.", entries), **_refusals(400, 401, 403, 404, 406, 410)},
    }


def _read(function: Function) -> dict[str, Any]:
    call = _call(function)
    del call["requestBody"], call["responses"]["413"], call["responses"]["415"]
    return call | {
        "operationId": f"read_{function.name}_v{function.api_version}",
        "summary": f"Call {function.name}, which only reads",
        "parameters": list(_arguments(function.input)),
    }


def _arguments(declared: Mapping[str, FieldRule]) -> Iterator[dict[str, Any]]:
    for name, rule in declared.items():
        described = {"description": "As JSON."} if rule.type in ("object", "array") else {}
        schema = _ARGUMENTS.get(rule.type, {"type": "string"})
        yield {"name": name, "in": "query", "required": bool(rule.required), "schema": schema, **described}


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
        "responses": {"200": _json("Done.", result), **_refusals(400, 401, 406, 413, 415), **answers},
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
