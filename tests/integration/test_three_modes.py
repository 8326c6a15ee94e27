"""The same list of HTTP calls gets the same answers from a tenant of each isolation mode, apart from ids and times."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from control_plane.settings import shipped
from control_plane.templates import Template, Templates
from tests.support.members import Members
from tests.support.reference_calls import CALLS, NOBODY, Life
from tests.support.tenant_calls import TenantCalls, tenant_calls

MODES = ("shared", "schema", "database")

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?([+-]\d{2}:\d{2}|Z)")


def template() -> Template:
    return Templates.load(shipped("tenant_templates"))["reference"]


class Transcript:
    """Answers with each id replaced by the number of its first appearance, and each time by a word."""

    def __init__(self) -> None:
        self.answers: list[tuple[str, object]] = []
        self._ids: dict[str, str] = {}

    def note(self, what: str, answer: httpx.Response) -> None:
        text = _TIME.sub("(time)", _UUID.sub(self._number, answer.text))
        kept = {name: answer.headers.get(name) for name in ("content-type", "cache-control", "deprecation", "sunset")}
        self.answers.append((what, [answer.status_code, kept, _settle(json.loads(text))]))

    def _number(self, match: re.Match[str]) -> str:
        return self._ids.setdefault(match[0], f"(id {len(self._ids) + 1})")


def _settle(value: Any) -> Any:
    """Cursors and positions in a feed are made of ids and transaction numbers, and an age is a time."""
    if isinstance(value, dict):
        return {
            key: f"({key})" if key in SETTLED and each is not None else _settle(each) for key, each in value.items()
        }
    if isinstance(value, list):
        return [_settle(each) for each in value]
    return value


SETTLED = {"next", "prev", "after", "position", "age"}


async def live(calls: TenantCalls, life: Life, found: Template) -> Transcript:
    """Every call of the list, then every resource as a list and alone, and what is refused before it is looked up."""
    said = Transcript()
    for since, listed in CALLS.items():
        for number, call in enumerate(listed):
            said.note(f"{since}.{number} {call.function} → {call.status}", await life.make(call, since))
    for api in found.api_versions(found.latest):
        for version in [f"v{api}", *(["default"] if api == found.default_api(found.latest) else [])]:
            for name, declared in found.manifest.resources.items():
                if declared.api is None or api in declared.api:
                    await read(life, said, f"/api/{version}/{name}")
                else:
                    said.note(f"{version}/{name}", await life.get(f"/api/{version}/{name}"))
            for name, function in found.manifest.functions.items():
                if function.api is None or api in function.api:
                    await refuse(life, said, f"/api/{version}/rpc/{name}")
    said.note("no such resource", await life.get("/api/v2/nothing"))
    said.note("no such version", await life.get("/api/v9/users"))
    return said


async def read(life: Life, said: Transcript, base: str) -> None:
    """A page, parts of it, one of its documents, and what is not there or makes no sense."""
    said.note(f"{base} to the caller", await life.get(base))
    page = await life.rows(base)
    assert page.json(), f"{base} has no rows: let a call make one"
    said.note(base, page)
    own = page.json()[0].get("id", NOBODY)
    for id_ in (own, NOBODY, "nonsense"):
        said.note(f"{base}/{'(own)' if id_ == own else id_}", await life.get(f"{base}/{id_}"))
    for query in ("limit=1", "limit=1&offset=1", "limit=0", "name=eq.x", "select=id", "created_at=gt.2001-02-03"):
        said.note(f"{base}?{query}", await life.get(f"{base}?{query}"))


async def refuse(life: Life, said: Transcript, path: str) -> None:
    """What no function takes: a field that nobody declared, and no object at all."""
    for body in ({"no such field": 1}, ["no object"]):
        answer = await life.post(path, body)
        assert answer.status_code in (400, 422), f"{path}: {answer.text}"
        said.note(f"{path} {body}", answer)


@pytest_asyncio.fixture
async def calls(members: Members) -> AsyncIterator[TenantCalls]:
    async with tenant_calls(members) as opened:
        yield opened


def test_the_list_calls_every_function_with_success_and_with_each_kind_of_refusal() -> None:
    """A function that is new in template.toml and not in the list fails here."""
    made = [call for listed in CALLS.values() for call in listed]
    declared = template().manifest.functions
    assert {call.function for call in made if call.status == 200} == set(declared)
    assert {call.status for call in made} >= {200, 403, 404, 409, 422}
    for version, listed in CALLS.items():
        for call in listed:
            assert declared[call.function].since <= version, call
    assert set(CALLS) == set(range(1, template().latest + 1))


@pytest.mark.timeout(240)
async def test_answers_are_equal_in_the_three_modes(members: Members, calls: TenantCalls) -> None:
    # A neighbour with rows of his own stands in the shared tables.
    neighbour = Life(calls, await members.add("neighbour", "shared"))
    for version, listed in CALLS.items():
        for call in listed:
            await neighbour.make(call, version)
    said: dict[str, list[tuple[str, object]]] = {}
    for mode in MODES:
        life = Life(calls, await members.add(f"acme-{mode}", mode))
        said[mode] = (await live(calls, life, members.template)).answers
    for mode in MODES[1:]:
        assert len(said[mode]) == len(said["shared"])
        for own, shared in zip(said[mode], said["shared"], strict=True):
            assert own == shared, mode
