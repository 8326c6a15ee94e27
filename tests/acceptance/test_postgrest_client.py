"""PostgREST's client for Python, unchanged, against the running program: a tenant of each isolation mode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from postgrest import APIError, AsyncPostgrestClient, CountMethod, SyncPostgrestClient

from tests.support.program import Program, free_port
from tests.support.servers import temporary_home

NAMES = ["ann", "Bob", "cy, d", 'e"f', "g(h)"]


@pytest.fixture(scope="module")
def program() -> Iterator[Program]:
    with temporary_home() as home:
        program, output = Program(home, free_port()), home.parent / "serve.log"
        program.run("init")
        with program.started("serve", output=output) as process:
            program.wait_until_ready(process, output)
            yield program


@pytest.fixture(scope="module", params=["shared", "schema", "database"])
def client(program: Program, request: pytest.FixtureRequest) -> Iterator[SyncPostgrestClient]:
    """A client of a tenant with five users, the last of whom has a project beside four that nobody has."""
    mode = request.param
    program.run("tenant", "create", f"acme-{mode}", "--isolation", mode)
    headers = program.token("--tenant", f"acme-{mode}")
    with SyncPostgrestClient(f"{program.url}/api/v1", headers=headers) as opened:
        for number, name in enumerate(NAMES):
            user = call(opened, "create_user", {"email": f"{name.split()[0]}@example.com", "name": name})
            owner = {"owner_id": user["user"]["id"]} if number == 4 else {}
            call(opened, "create_project", {"name": name, **owner})
        yield opened


@pytest.fixture(scope="module")
def latest(client: SyncPostgrestClient) -> Iterator[SyncPostgrestClient]:
    """The same caller, of the latest API version."""
    with SyncPostgrestClient(str(client.base_url).replace("v1", "v2"), headers=dict(client.headers)) as opened:
        yield opened


def call(client: SyncPostgrestClient, function: str, document: dict[str, Any]) -> Any:
    result: Any = client.rpc(function, document).execute().data
    assert result["success"]
    return result["data"]


def names(query: Any) -> list[str]:
    return [row["name"] for row in query.execute().data]


def projects(client: SyncPostgrestClient, *columns: str, **options: Any) -> Any:
    return client.from_("projects").select(*columns or ("*",), **options)


def users(client: SyncPostgrestClient) -> Any:
    return client.from_("users").select("email")


def test_list(client: SyncPostgrestClient) -> None:
    assert names(projects(client)) == NAMES
    assert projects(client, "name", "__typename").limit(1).execute().data == [{"name": "ann", "__typename": "Project"}]


def test_filters(client: SyncPostgrestClient) -> None:
    all_ = projects(client).execute().data
    assert names(projects(client).eq("name", 'e"f')) == ['e"f']
    assert names(projects(client).eq("id", all_[1]["id"])) == ["Bob"]
    assert names(projects(client).in_("name", ["cy, d", 'e"f', "g(h)", "nobody"])) == NAMES[2:]
    assert names(projects(client).not_.in_("name", NAMES[:4])) == NAMES[4:]
    assert names(projects(client).is_("owner_id", None)) == NAMES[:4]
    assert names(projects(client).not_.is_("owner_id", None)) == NAMES[4:]
    assert names(projects(client).match({"name": "g(h)", "owner_id": all_[4]["owner"]["id"]})) == NAMES[4:]
    assert names(projects(client).in_("name", [])) == []
    assert users(client).like("email", "*nn@%").execute().data == [{"email": "ann@example.com"}]
    assert users(client).ilike("email", "b*").execute().data == [{"email": "Bob@example.com"}]
    assert users(client).not_.ilike("email", "*@example.com").execute().data == []
    assert len(users(client).neq("email", "ann@example.com").execute().data) == 4
    assert len(users(client).not_.neq("email", "ann@example.com").execute().data) == 1


def test_comparisons(client: SyncPostgrestClient) -> None:
    times = [row["created_at"] for row in projects(client).execute().data]
    assert names(projects(client).gt("created_at", times[1])) == NAMES[2:]
    assert names(projects(client).gte("created_at", times[1])) == NAMES[1:]
    assert names(projects(client).lt("created_at", times[1])) == NAMES[:1]
    assert names(projects(client).lte("created_at", times[1])) == NAMES[:2]
    assert names(projects(client).gt("created_at", times[0]).not_.gte("created_at", times[3])) == NAMES[1:3]
    assert names(projects(client).lt("created_at", "2001-02-03T04:05:06+00:00")) == []


def test_order_and_range(client: SyncPostgrestClient) -> None:
    assert names(projects(client).order("created_at", desc=True).limit(2)) == ["g(h)", 'e"f']
    assert names(projects(client).order("created_at", nullsfirst=True).range(1, 2)) == NAMES[1:3]
    first, second = [projects(client).order("name", desc=True).order("id").offset(n).limit(2) for n in (0, 2)]
    assert set(names(first)).isdisjoint(names(second))
    counted = projects(client, count=CountMethod.exact).range(3, 9).execute()
    assert ([row["name"] for row in counted.data], counted.count) == (NAMES[3:], 5)
    with pytest.raises(APIError) as raised:
        projects(client, count=CountMethod.exact).range(9, 19).execute()
    assert raised.value.code == "PGRST103"


def test_single(client: SyncPostgrestClient) -> None:
    assert projects(client).eq("name", "Bob").single().execute().data["name"] == "Bob"
    for query in (projects(client), projects(client).eq("name", "nobody")):
        with pytest.raises(APIError) as raised:
            query.single().execute()
        assert raised.value.code == "PGRST116"
    assert projects(client).eq("name", "nobody").maybe_single().execute() is None
    assert projects(client).eq("name", "Bob").maybe_single().execute().data["name"] == "Bob"


def test_count(client: SyncPostgrestClient) -> None:
    page = projects(client, count=CountMethod.exact).limit(2).execute()
    assert (len(page.data), page.count) == (2, 5)
    for count in CountMethod:
        assert projects(client, count=count).is_("owner_id", None).execute().count == 4
    head = projects(client, count=CountMethod.exact, head=True).execute()
    assert (head.data, head.count) == ([], 5)


def test_rpc(client: SyncPostgrestClient) -> None:
    refused = client.rpc("create_project", {"name": ""})
    with pytest.raises(APIError) as raised:
        refused.execute()
    assert raised.value.code == "invalid"


def test_rpc_that_only_reads(client: SyncPostgrestClient, latest: SyncPostgrestClient) -> None:
    category = call(latest, "create_category", {"name": "Electronics"})["category"]
    arguments: Any = {"path": category["path"], "levels": 0}
    asked: list[Any] = [latest.rpc("category_subtree", arguments, get=get).execute().data for get in (False, True)]
    assert asked[0] == asked[1]
    assert [each["id"] for each in asked[1]["data"]["categories"]] == [category["id"]]
    page: Any = {"resource": "projects", "filters": {"name": {"in": ["ann", "Bob"]}}}
    assert latest.rpc("read_page", page, get=True).execute().data == latest.rpc("read_page", page).execute().data
    assert latest.rpc("category_tree", {}, head=True).execute().data == []
    with pytest.raises(APIError) as raised:
        latest.rpc("category_subtree", arguments, get=True).eq("depth", 1).execute()
    assert raised.value.code == "invalid_input"
    with pytest.raises(APIError) as raised:
        client.rpc("create_project", {"name": "no"}, get=True).execute()
    assert raised.value.code == "method_not_allowed"


def test_the_register_of_deprecations(client: SyncPostgrestClient, latest: SyncPostgrestClient) -> None:
    assert client.from_("deprecations").select("*").execute().data == []
    entry: Any
    (entry,) = latest.from_("deprecations").select("*").execute().data
    assert (entry["resource"], entry["field"], entry["replacement"]) == ("users", "username", "name")


async def test_the_asynchronous_client(client: SyncPostgrestClient) -> None:
    async with AsyncPostgrestClient(str(client.base_url), headers=dict(client.headers)) as opened:
        listed = await opened.from_("projects").select("name", count=CountMethod.exact).order("name").limit(2).execute()
        assert (len(listed.data), listed.count) == (2, 5)
        one = await opened.from_("projects").select("name").eq("name", "Bob").single().execute()
        assert one.data == {"name": "Bob"}
        refused = opened.rpc("create_project", {"name": ""})
        with pytest.raises(APIError) as raised:
            await refused.execute()
        assert raised.value.code == "invalid"


def test_refusals_reach_the_caller(client: SyncPostgrestClient) -> None:
    for query, said in (
        (projects(client).eq("secret", 1), "The parameter secret is unknown here."),
        (projects(client).eq("id", "1"), "The parameter id needs a uuid."),
        (projects(client).or_("name.eq.ann,name.eq.Bob"), "The parameter or is a part of PostgREST's language"),
        (projects(client, "id,owner(name)"), "The parameter select takes"),
    ):
        with pytest.raises(APIError) as raised:
            query.execute()
        assert raised.value.code == "invalid_input"
        assert str(raised.value.message).startswith(said)
    for written in (
        client.from_("projects").insert([{"name": "no"}]),
        client.from_("projects").upsert({"name": "no"}, on_conflict="name"),
        client.from_("projects").update({"name": "no"}).eq("name", "ann"),
        client.from_("projects").delete().eq("name", "ann"),
    ):
        with pytest.raises(APIError) as raised:
            written.execute()
        assert raised.value.code == "method_not_allowed"
    assert names(projects(client)) == NAMES
