"""The OpenAPI document: what the routes share in it, and the corrections that FastAPI cannot express."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI

from control_plane.api.schemas import Problem

LOCATION = {"Location": {"schema": {"type": "string"}, "description": "Where to look next."}}
RETRY_AFTER = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}
_PROBLEM = {"$ref": "#/components/schemas/Problem"}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses=` entries of these statuses."""
    return {
        status: {
            "model": Problem,
            "description": HTTPStatus(status).phrase,
            **({"headers": RETRY_AFTER} if status == 503 else {}),
        }
        for status in statuses
    }


def document(app: FastAPI, extend: Callable[[dict[str, Any]], None]) -> None:
    """Let `app` publish its document with problems as application/problem+json; `extend` adds what is not FastAPI's."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            published = generate()
            extend(published)
            for path in published["paths"].values():
                for operation in path.values():
                    _correct(operation["responses"])
            for unused in ("HTTPValidationError", "ValidationError"):
                published["components"]["schemas"].pop(unused, None)
        return app.openapi_schema or published

    app.openapi = openapi  # type: ignore[method-assign]


def _correct(responses: dict[str, Any]) -> None:
    for status, answer in list(responses.items()):
        schema = answer.get("content", {}).get("application/json", {}).get("schema")
        if schema == {"$ref": "#/components/schemas/HTTPValidationError"}:
            del responses[status]  # invalid input is answered as the documented 400 problem
        elif schema == _PROBLEM:
            answer["content"] = {"application/problem+json": {"schema": _PROBLEM}}
