"""What a tenant reads over HTTP, and addresses that lead nowhere."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import httpx
import pytest

from tests.integration.tenant_api.calls import MODES, Services, as_, create, problem
from tests.support.members import Members


@pytest.mark.parametrize("mode", MODES)
async def test_each_tenant_sees_exactly_its_own(members: Members, client: httpx.AsyncClient, mode: str) -> None:
    # attack 11
    acme, other = await members.add("acme", mode), await members.add("other", mode)
    ours = [await create(client, acme, f"acme {number}", f"v{number}") for number in (1, 2)]
    theirs = await create(client, other, "theirs")

    for version in ("v1", "v2", "default"):
        listed = await client.get(f"/api/{version}/projects", headers=as_(acme))
        assert listed.status_code == 200
        assert [document["name"] for document in listed.json()] == ["acme 1", "acme 2"]
        one = await client.get(f"/api/{version}/projects/{ours[0]['id']}", headers=as_(acme))
        assert one.json()["name"] == "acme 1"

    foreign = await client.get(f"/api/v1/projects/{theirs['id']}", headers=as_(acme))
    missing = await client.get(f"/api/v1/projects/{uuid4()}", headers=as_(acme))
    bodies = [problem(answer, 404, "not_found") for answer in (foreign, missing)]
    for body in bodies:
        del body["instance"]
    assert bodies[0] == bodies[1]  # attack 40

    renamed = await client.post(
        "/api/v1/rpc/rename_project", json={"id": theirs["id"], "name": "stolen"}, headers=as_(acme)
    )
    assert (renamed.status_code, renamed.json()["code"]) == (404, "not_found")
    assert (await client.get("/api/v1/projects", headers=as_(other))).json()[0]["name"] == "theirs"


async def test_answers_are_private_and_bytes_of_the_database(members: Members, client: httpx.AsyncClient) -> None:
    # attack 39
    member = await members.add("acme")
    await create(client, member, 'Zürich "quoted" \u2028 😀')
    answer = await client.get("/api/v1/projects", headers=as_(member))
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "private, no-store"
    assert answer.headers["vary"] == "Authorization"
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert answer.json()[0]["name"] == 'Zürich "quoted" \u2028 😀'
    head = await client.head("/api/v1/projects", headers=as_(member))
    assert (head.status_code, head.content, head.headers["content-length"]) == (
        200,
        b"",
        answer.headers["content-length"],
    )


async def test_answers_that_others_may_keep_are_noticed(
    members: Members, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attack 39: `answers may be kept by others`."""
    monkeypatch.setattr("control_plane.api.reads.HEADERS", [(b"content-type", b"application/json")])
    with pytest.raises((AssertionError, KeyError)):
        await test_answers_are_private_and_bytes_of_the_database(members, client)


async def test_a_page_is_what_limit_and_offset_say(members: Members, client: httpx.AsyncClient) -> None:
    member = await members.add("acme")
    for number in range(5):
        await create(client, member, str(number))
    answer = await client.get("/api/v1/projects?limit=2&offset=3", headers=as_(member))
    assert [document["name"] for document in answer.json()] == ["3", "4"]


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("limit=-1", "limit"),
        ("limit=abc", "limit"),
        ("limit=", "limit"),
        ("limit=1&limit=2", "limit"),
        ("limit=%D9%A1", "limit"),
        ("offset=99999999999999999999", "offset"),
        ("offset=-1", "offset"),
        ("order=id;select 1", "order"),
        ("tenant_id=eq.1", "tenant_id"),
        ("%00", "\0"),
        ("=", ""),
    ],
)
async def test_a_parameter_that_makes_no_sense_is_refused_by_name(
    members: Members, client: httpx.AsyncClient, query: str, parameter: str
) -> None:
    # attack 31
    member = await members.add("acme")
    body = problem(await client.get(f"/api/v1/projects?{query}", headers=as_(member)), 400, "invalid_input")
    assert body["errors"][0]["parameter"] == parameter
    assert (await client.get(f"/api/v1/projects/{uuid4()}?{query}", headers=as_(member))).status_code == 400


@pytest.mark.parametrize("id_", ["1", "x' OR 1=1--", "{6ba7b810-9dad-11d1-80b4-00c04fd430c8}", "%00"])
async def test_an_id_that_is_no_uuid_is_a_400(members: Members, client: httpx.AsyncClient, id_: str) -> None:
    member = await members.add("acme")
    problem(await client.get(f"/api/v1/projects/{id_}", headers=as_(member)), 400, "invalid_input")


@pytest.mark.parametrize(
    "path",
    ["/api/v1/secrets", "/api/v9/projects", "/api/v0/projects", "/api/v01/projects", "/api/x/projects", "/api/v1/rpc"],
)
async def test_what_the_template_does_not_expose_is_a_404(
    members: Members, client: httpx.AsyncClient, path: str
) -> None:
    member = await members.add("acme")
    problem(await client.get(path, headers=as_(member)), 404, "not_found")


async def test_a_version_exists_from_its_pattern_version_on(members: Members, client: httpx.AsyncClient) -> None:
    member = await members.add("acme", version=1)
    problem(await client.get("/api/v2/projects", headers=as_(member)), 404, "not_found")
    assert (await client.get("/api/v1/projects", headers=as_(member))).status_code == 200


async def test_an_api_version_that_arrives_is_served_although_the_placement_is_cached(
    members: Members, services: Services, client: httpx.AsyncClient
) -> None:
    member = await members.add("acme", "schema", version=1)
    assert (await client.get("/api/v1/projects", headers=as_(member))).status_code == 200
    script = members.template.script(1, members.template.latest)
    async with members.databases.admin(members.cluster, member.home.database) as admin:
        await admin.execute(script.message(member.home.id, member.home.schema_name, 2.0))
    async with members.databases.registry.begin() as session:
        home = await session.merge(member.home)
        home.pattern_version = members.template.latest
    await asyncio.sleep(1.05)  # a placement younger than a second is not read again
    assert (await client.get("/api/v2/projects", headers=as_(member))).status_code == 200


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "POST", "OPTIONS"])
async def test_tables_are_not_written_through_their_address(
    members: Members, client: httpx.AsyncClient, method: str
) -> None:
    member = await members.add("acme")
    for path in ("/api/v1/projects", f"/api/v1/projects/{uuid4()}"):
        answer = await client.request(method, path, headers=as_(member))
        problem(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == "GET, HEAD"
    answer = await client.get("/api/v1/rpc/create_project", headers=as_(member))
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"
