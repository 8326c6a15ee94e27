"""The error contract: what a failure looks like to a caller."""

from __future__ import annotations

import json
import logging
from typing import Annotated

import asyncpg
import httpx
import pytest
from fastapi import FastAPI, Query
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from control_plane.errors import ControlPlaneError, InvalidToken, PoolExhausted, SlugTaken, Unauthenticated
from control_plane.problems import database_error, install_problems, problem_response
from tests.support.mutation import mutated


def failure(sqlstate: str) -> asyncpg.PostgresError:
    return asyncpg.PostgresError.new(
        {
            "S": "ERROR",
            "V": "ERROR",
            "C": sqlstate,
            "M": "secret of tb_project",
            "D": "Failing row contains (secret).",
            "n": "secret_constraint",
        }
    )


@pytest.mark.parametrize(
    ("sqlstate", "status", "code"),
    [
        ("TN400", 400, "bad_request"),
        ("TN403", 403, "tenant_suspended"),
        ("TN404", 404, "tenant_not_found"),
        ("TN409", 409, "stale_placement"),
        ("TN503", 503, "tenant_moving"),
        ("22P02", 400, "invalid_input"),
        ("22023", 400, "invalid_input"),
        ("22004", 400, "invalid_input"),
        ("22000", 400, "invalid_input"),
        ("22008", 400, "invalid_input"),
        ("42501", 403, "forbidden"),
        ("P0002", 404, "not_found"),
        ("23505", 409, "conflict"),
        ("23P01", 409, "conflict"),
        ("23502", 422, "unprocessable"),
        ("23503", 422, "unprocessable"),
        ("23514", 422, "unprocessable"),
        ("40001", 503, "unavailable"),
        ("40P01", 503, "unavailable"),
        ("55P03", 503, "timed_out"),
        ("57014", 503, "timed_out"),
        ("57P01", 503, "unavailable"),
        ("08006", 503, "unavailable"),
        ("42P01", 500, "internal"),
        ("22012", 500, "internal"),
        ("XX000", 500, "internal"),
    ],
)
def test_each_sqlstate_has_an_answer_that_quotes_nothing(sqlstate: str, status: int, code: str) -> None:
    error = database_error(failure(sqlstate))
    response = problem_response(error, "/x")
    assert (response.status_code, error.code) == (status, code)
    assert b"secret" not in response.body
    assert ("retry-after" in response.headers) == (status == 503)


def test_a_problem_that_quotes_the_database_is_noticed() -> None:
    """Attack 40: `a problem quotes the database`."""
    with mutated(database_error, "return kind(message)", "return kind(str(error))"), pytest.raises(AssertionError):
        test_each_sqlstate_has_an_answer_that_quotes_nothing("23505", 409, "conflict")


def test_an_unknown_failure_is_logged_under_the_id_that_the_caller_gets(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        error = database_error(ZeroDivisionError("secret"))
    assert error.status == 500
    assert error.details is not None
    assert error.details.removeprefix("urn:uuid:") in caplog.text
    assert "secret" not in bytes(problem_response(error).body).decode()


@pytest.mark.parametrize(
    ("error", "header", "value"),
    [
        (Unauthenticated(), "www-authenticate", "Bearer"),
        (InvalidToken(), "www-authenticate", 'Bearer error="invalid_token"'),
        (PoolExhausted(retry_after=7), "retry-after", "7"),
    ],
)
def test_headers_say_what_to_do_next(error: ControlPlaneError, header: str, value: str) -> None:
    response = problem_response(error)
    assert response.headers[header] == value
    assert response.headers["cache-control"] == "no-store"


def test_a_problem_survives_a_path_that_is_no_unicode() -> None:
    assert json.loads(bytes(problem_response(SlugTaken(), "/\udcff").body))["code"] == "slug_taken"


class Body(BaseModel):
    name: str
    tags: dict[str, int] = {}


@pytest.fixture
def client() -> httpx.AsyncClient:
    app = FastAPI()
    install_problems(app)

    @app.post("/things")
    async def make(body: Body, limit: Annotated[int, Query(ge=1)] = 1) -> None:
        raise SlugTaken(hint="Take another.")

    @app.get("/broken")
    async def broken() -> None:
        raise ZeroDivisionError("secret")

    @app.get("/teapot")
    async def teapot() -> None:
        raise HTTPException(418, detail="secret")

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://api")


async def test_our_own_errors_keep_their_code_and_hint(client: httpx.AsyncClient) -> None:
    answer = await client.post("/things", json={"name": "x"})
    assert answer.status_code == 409
    assert answer.json() == {
        "type": "about:blank",
        "title": "Conflict",
        "status": 409,
        "detail": "The slug is taken.",
        "instance": "/things",
        "code": "slug_taken",
        "message": "The slug is taken.",
        "details": None,
        "hint": "Take another.",
        "errors": [],
    }


async def test_invalid_requests_point_at_the_place_without_echoing_the_value(client: httpx.AsyncClient) -> None:
    answer = await client.post("/things?limit=0", json={"name": 5, "tags": {"a/b~c": "secret"}})
    assert answer.status_code == 400
    assert "secret" not in answer.text
    places = {entry.get("pointer") or entry.get("parameter") for entry in answer.json()["errors"]}
    assert places == {"limit", "#/name", "#/tags/a~1b~0c"}


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("DELETE", "/things", 405, "method_not_allowed"),
        ("GET", "/teapot", 418, "bad_request"),
        ("GET", "/broken", 500, "internal"),
    ],
)
async def test_every_failure_is_a_problem(
    client: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    answer = await client.request(method, path)
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, answer.json()["status"], answer.json()["code"]) == (status, status, code)
    assert "secret" not in answer.text
    assert (answer.headers.get("allow") == "POST") == (status == 405)
