"""Pattern 15: the same tree by path, each tenant's its own, searched by one range of an index."""

from __future__ import annotations

import itertools
import re
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio

from control_plane.pools.databases import Databases
from control_plane.registry.models import Cluster
from tests.conformance.conftest import MODES, Ground
from tests.conformance.patterns.categories import Categories, add_many, categories
from tests.conformance.patterns.plans import assert_indexed, explain
from tests.conformance.world import World
from tests.support.members import Members
from tests.support.tenant_calls import TenantCalls, principal, tenant_calls

LABEL = re.compile("[a-z0-9_]{1,100}")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def large(ground: Ground, mode: str) -> World:
    """A tenant with 18 020 categories, in shared tables beside another with as many."""
    world = await ground.world(mode)
    for member in (world.a, world.b) if mode == "shared" else (world.a,):
        await add_many(world, member)
    return world


async def test_two_tenants_have_the_same_paths(world: World) -> None:
    """Requirement 1, check 15.1."""
    async with categories(world) as ours, categories(world, world.b) as theirs:
        for tree, name in ((ours, "ours"), (theirs, "theirs")):
            await tree.add(name, await tree.add("Electronics"))
        for tree, name in ((ours, "ours"), (theirs, "theirs")):
            found = await tree.succeed("category_subtree", path="electronics")
            assert [each["path"] for each in found["categories"]] == ["electronics", f"electronics.{name}"]


async def insert(tree: Categories, path: str, slug: str, parent: UUID | None = None) -> None:
    """Past the functions, as only the table's constraints allow."""
    await tree.connection.execute(
        "INSERT INTO tb_category (parent_id, slug, name, path) VALUES ($1, $2, $2, $3::text::ltree)", parent, slug, path
    )


async def assert_uncommittable(tree: Categories, sqlstate: str = "23503") -> None:
    with pytest.raises(asyncpg.PostgresError) as raised:
        async with tree.connection.transaction():
            await tree.connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
    assert raised.value.sqlstate == sqlstate


async def test_a_path_is_there_once(world: World) -> None:
    """Requirement 1: unique on (tenant_id, path), beside the id that never changes."""
    async with categories(world) as tree:
        parent = await tree.add("a")
        await tree.add("b", parent)
        for path, slug, above in (("a", "a", None), ("a.b", "b", parent)):
            with pytest.raises(asyncpg.UniqueViolationError):
                async with tree.connection.transaction():
                    await insert(tree, path, slug, above)


async def test_each_path_has_its_parent_at_commit(world: World) -> None:
    """Requirement 1, check 15.3: a gap in a path can be written, but not committed."""
    async with categories(world) as tree:
        x = await tree.add("x")
        for parent, sqlstate in ((None, "23514"), (x, None), (uuid4(), None)):
            transaction = tree.connection.transaction()
            await transaction.start()
            if sqlstate:
                with pytest.raises(asyncpg.CheckViolationError):
                    await insert(tree, "x.y.z", "z", parent)
            else:
                await insert(tree, "x.y.z", "z", parent)
                await assert_uncommittable(tree)
            await transaction.rollback()
        assert await tree.refusal("create_category", name="z", parent_id=uuid4()) == "not_found"

        y = await tree.add("y", x)
        await tree.add("z", y)
        await tree.assert_sound()
        for statement in (
            "DELETE FROM tb_category WHERE path_text = 'x.y'",  # the middle of a path
            "UPDATE tb_category SET path = 'x.w', slug = 'w' WHERE path_text = 'x.y'",  # renamed without what is below
            "UPDATE tb_category SET path = 'x.y.v.z' WHERE path_text = 'x.y.z'",  # one label too many
        ):
            transaction = tree.connection.transaction()
            await transaction.start()
            await tree.connection.execute(statement)
            await assert_uncommittable(tree)
            await transaction.rollback()


async def test_a_child_may_be_written_before_its_parent(world: World) -> None:
    """Requirement 1: the check is made at commit, so a restore may come in any order."""
    async with categories(world) as tree:
        parent = uuid4()
        await insert(tree, "late.early", "early", parent)
        await assert_uncommittable(tree)
        await tree.connection.execute(
            "INSERT INTO tb_category (id, slug, name, path) VALUES ($1, 'late', 'late', 'late')", parent
        )
        await tree.assert_sound()


@pytest.mark.parametrize(
    ("path", "slug"),
    [
        ("", "a"),  # an empty path is no category
        ("b", "a"),  # a label that is not the slug's
        ("A", "a"),
        ("a_b", "a-c"),
        ("a.b", "b"),  # a root has one label
        ("a__b", "a--b"),  # no slug
        ("a_b", "a_b"),
        ("é", "é"),
    ],
)
async def test_a_path_that_no_function_would_write_is_refused(world: World, path: str, slug: str) -> None:
    """Requirements 1 and 2."""
    async with categories(world) as tree:
        with pytest.raises(asyncpg.PostgresError) as raised:
            await insert(tree, path, slug)
        assert raised.value.sqlstate in ("23514", "42601")  # before 16 some are no ltree at all


async def test_labels_follow_from_slugs_and_names_stay_as_they_are(world: World) -> None:
    """Requirement 2, check 15.3: only [a-z0-9_], and no two slugs have one label."""
    async with categories(world) as tree:
        names = {
            "Home & Garden": "home_garden",
            "  Home  Office!": "home_office",
            "Élan 2000": "lan_2000",
            "ELECTRONICS": "electronics",
            "--- % ---x": "x",
            "n" * 150: "n" * 100,
        }
        for name, label in names.items():
            id_ = await tree.add(name)
            stored = await tree.connection.fetchrow("SELECT name, path_text FROM v_category WHERE id = $1", id_)
            assert stored is not None
            assert tuple(stored) == (name, label)
        named = await tree.call("create_category", name="日本")
        assert (named["code"], named["errors"][0]["path"]) == ("invalid", "slug")
        japan = await tree.add("日本", slug="nihon")
        assert (await tree.paths())["日本"] == "nihon"
        await tree.add("x" * 200, japan, slug="y" * 100)
        for slug in ("Electronics", "home garden", "home_garden", "-a", "a-", "a--b", "é", "", "z" * 101):
            assert await tree.refusal("create_category", name="Any", slug=slug) == "invalid"

        # Every slug of up to four characters that can be made of these: all their labels differ.
        slugs = ["".join(each) for size in range(1, 5) for each in itertools.product("a0-", repeat=size)]
        valid = [slug for slug in slugs if re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", slug)]
        top = await tree.add("top")
        for slug in valid:
            await tree.add(slug, top, slug=slug)
        labels = {path.removeprefix("top.") for path in (await tree.paths()).values() if path.startswith("top.")}
        assert len(labels) == len(valid)
        assert all(LABEL.fullmatch(label) for label in labels)
        await tree.assert_sound()


async def test_a_path_has_a_length_that_an_index_can_hold(world: World) -> None:
    """Requirement 2: the total length is bounded, with a clear error for each way to exceed it."""
    async with categories(world) as tree:
        top = await tree.add("top", slug="t" * 100)
        ids = [top]
        for _ in range(8):
            ids.append(await tree.add("n", ids[-1], slug="n" * 100))
        last = await tree.add("last", ids[-1], slug="m" * 91)  # 9 labels of 100, 9 dots, 91: 1000 characters
        assert len((await tree.paths())["last"]) == 1000
        refused = await tree.call("create_category", name="more", slug="o" * 92, parent_id=ids[-1])
        assert (refused["code"], refused["message"]) == ("invalid", "The path would be longer than 1000 characters.")
        assert await tree.refusal("rename_category", id=last, name="last", slug="m" * 92) == "invalid"
        await tree.succeed("rename_category", id=top, name="top", slug="t" * 99)
        await tree.succeed("rename_category", id=top, name="top", slug="t" * 100)
        other = await tree.add("x")
        assert await tree.refusal("move_category", id=top, parent_id=other) == "invalid"
        assert len((await tree.paths())["last"]) == 1000
        await tree.assert_sound()


async def test_a_branch_moves_as_a_whole(world: World) -> None:
    """Requirement 3, check 15.2."""
    async with categories(world) as tree:
        electronics = await tree.add("electronics")
        computers = await tree.add("computers", electronics)
        laptops = await tree.add("laptops", computers)
        office = await tree.add("office")
        ids = {electronics, computers, laptops, office}

        await tree.succeed("move_category", id=computers, parent_id=office)
        moved = {"computers": "office.computers", "laptops": "office.computers.laptops"}
        still = {"electronics": "electronics", "office": "office"}
        assert await tree.paths() == {**moved, **still}
        await tree.succeed("move_category", id=computers)
        assert await tree.paths() == {"computers": "computers", "laptops": "computers.laptops", **still}
        await tree.succeed("move_category", id=computers, parent_id=office)
        assert await tree.refusal("move_category", id=office, parent_id=computers) == "conflict"
        assert await tree.refusal("move_category", id=office, parent_id=laptops) == "conflict"
        assert await tree.refusal("move_category", id=office, parent_id=uuid4()) == "not_found"
        assert await tree.paths() == {**moved, **still}
        assert {row["id"] for row in await tree.connection.fetch("SELECT id FROM v_category")} == ids
        await tree.assert_sound()


async def test_a_move_rewrites_the_branch_in_one_statement(world: World) -> None:
    """Requirement 3: each row of the branch is written once, and no other row at all."""
    async with categories(world) as tree:
        top = await tree.add("top")
        for number in range(5):
            await tree.add(f"n{number}", top)
        target = await tree.add("target")
        # Of these neither is below `top`, though the text of the path begins alike.
        await tree.add("top-2")
        await tree.add("x", await tree.add("topper"))
        written = "SELECT n_tup_upd FROM pg_stat_xact_user_tables WHERE relid = 'tb_category'::regclass"
        before = await tree.connection.fetchval(written)
        await tree.succeed("move_category", id=top, parent_id=target)
        # Six paths, and once more the sort_order of what was moved.
        assert await tree.connection.fetchval(written) - before == 7
        assert {path for path in (await tree.paths()).values() if not path.startswith("target")} == {
            "top_2", "topper", "topper.x",
        }  # fmt: skip


async def test_a_branch_is_read_as_deep_as_asked_and_in_order(world: World) -> None:
    """Requirement 5: descendants on request; depth 0 is the root, as by parent."""
    async with categories(world) as tree:
        a = await tree.add("a")
        b = await tree.add("b", a)
        await tree.add("c", b)
        await tree.add("a-b")
        await tree.add("a0")
        await tree.add("z", a)

        async def branch(path: str, levels: int | None = None) -> list[tuple[str, int]]:
            found = await tree.succeed("category_subtree", path=path, levels=levels)
            return [(each["path"], each["depth"]) for each in found["categories"]]

        assert await branch("a") == [("a", 0), ("a.b", 1), ("a.b.c", 2), ("a.z", 1)]
        assert await branch("a", 1) == [("a", 0), ("a.b", 1), ("a.z", 1)]
        assert await branch("a.b", 0) == [("a.b", 1)]
        assert await branch("a.b", 1) == [("a.b", 1), ("a.b.c", 2)]
        for path in ("", ".", "a..b", "a.B", "a-b", "a'b"):
            assert await tree.refusal("category_subtree", path=path) == "invalid"
            assert await tree.refusal("category_breadcrumb", path=path) == "invalid"
        for path in ("b", "a.b.c.d"):
            assert await tree.refusal("category_subtree", path=path) == "not_found"
            assert await tree.refusal("category_breadcrumb", path=path) == "not_found"
        way = (await tree.succeed("category_breadcrumb", path="a.b.c"))["categories"]
        assert [each["name"] for each in way] == ["a", "b", "c"]
        level = (await tree.succeed("category_level", depth=1))["categories"]
        assert [each["path"] for each in level] == ["a.b", "a.z"]
        assert (await tree.succeed("category_level", depth=31)) == {"categories": []}
        # A row tells of itself alone.
        document = await tree.connection.fetchval("SELECT data FROM v_category WHERE path_text = 'a'")
        assert "a.b" not in document


async def test_a_path_that_is_not_its_parents_is_reported(world: World) -> None:
    """Requirement 1: what a restore of single tables may bring in."""
    async with categories(world) as tree:
        below = await tree.add("below", await tree.add("top"))
        await tree.connection.execute("UPDATE tb_category SET path = 'tip', slug = 'tip' WHERE slug = 'top'")
        report = await tree.succeed("check_categories")
        assert (report["consistent"], report["categories"]) == (False, 2)
        assert report["problems"] == [{"id": str(below), "code": "path"}]


CALLS = {
    "a branch": ("SELECT data FROM fn_categories_under($1, NULL)", "r7.a9", "path_text >=", 30),
    "two levels of a branch": ("SELECT data FROM fn_categories_under($1, 1)", "r7.a9", "path_text >=", 30),
    "the way to a category": ("SELECT data FROM fn_categories_along($1)", "r7.a9.b3", "path_text = ANY", 3),
    "the children": (
        "SELECT data FROM v_category WHERE tenant_id = tenancy.current_tenant_id() AND parent_id = $1::text::uuid",
        "(parent)",
        "parent_id =",
        29,
    ),
    "a level": (
        "SELECT data FROM v_category WHERE tenant_id = tenancy.current_tenant_id() AND depth = $1::text::integer",
        "0",
        "depth =",
        20,
    ),
}


@pytest.mark.parametrize("call", CALLS)
async def test_reads_use_an_index_in_every_mode(large: World, call: str) -> None:
    """Requirement 4, check 15.4: among 18 020 categories, by tenant and path, with any value that may come."""
    query, argument, condition, rows = CALLS[call]
    async with large.within(large.a) as connection:
        if argument == "(parent)":
            argument = str(await connection.fetchval("SELECT id FROM v_category WHERE path_text = 'r7.a9'"))
        plan = await explain(connection, query, [argument])
        assert_indexed(plan, "tb_category", "tenant_id", condition)
        assert (plan.root["Actual Rows"], plan.rows_read("tb_category")) == (rows, rows)

        # As the functions run it after some calls: one plan for whatever is asked.
        await connection.execute(f"SET LOCAL plan_cache_mode = force_generic_plan; PREPARE kept (text) AS {query}")
        plan = await explain(connection, f"EXECUTE kept ('{argument}')")
        assert_indexed(plan, "tb_category", "tenant_id", condition)
        assert plan.rows_read("tb_category") == rows
        await connection.execute("DEALLOCATE kept")


async def test_a_move_reads_no_more_than_its_branch(large: World) -> None:
    """Requirements 3 and 4: the statement of a move finds the branch by index."""
    async with categories(large) as tree:
        # The path as a parameter, as the function has it.
        update = "UPDATE tb_category SET sort_order = sort_order + 1 WHERE tenant_id = tenancy.current_tenant_id() "
        plan = await explain(tree.connection, update + "AND path_text >= $1 AND path_text < $1 || '/'", ["r7.a9"])
        scans = [node for node in plan.on("tb_category") if node["Node Type"] != "ModifyTable"]
        assert {node["Node Type"] for node in scans} <= {"Index Scan", "Bitmap Heap Scan"}
        assert any("path_text >=" in condition for condition in plan.index_conditions())


@pytest.mark.parametrize("isolation", MODES)
async def test_everything_is_reached_over_http(
    databases: Databases, cluster: Cluster, installation_id: UUID, isolation: str
) -> None:
    """Requirements 3 and 5: the resource and every function, with the statuses of refusals, alike in each mode."""
    members = Members(databases, cluster, installation_id)
    member = await members.add("shop", isolation)
    caller = principal(member, uuid4())
    async with tenant_calls(members) as calls:

        async def post(function: str, status: int = 200, **given: Any) -> Any:
            answer = await calls.post(caller, f"/api/v2/rpc/{function}", given)
            assert answer.status_code == status, answer.text
            return answer.json()["data"] if status == 200 else answer.json()["code"]

        shop = (await post("create_category", name="Home & Garden"))["category"]
        assert shop | {"id": 0, "created_at": 0} == {
            "__typename": "Category", "id": 0, "parent_id": None, "slug": "home-garden", "name": "Home & Garden",
            "sort_order": 1, "depth": 0, "path": "home_garden", "created_at": 0,
        }  # fmt: skip
        tools = (await post("create_category", name="Tools", parent_id=shop["id"]))["category"]
        saws = (await post("create_category", name="Saws", parent_id=tools["id"]))["category"]
        assert await post("create_category", 409, name="Saws", parent_id=tools["id"]) == "conflict"
        assert await post("create_category", 404, name="Saws", parent_id=str(uuid4())) == "not_found"
        assert await post("create_category", 422, name="") == "invalid"
        assert await post("move_category", 409, id=shop["id"], parent_id=saws["id"]) == "conflict"
        assert await post("move_category", 404, id=shop["id"], parent_id=str(uuid4())) == "not_found"
        assert await post("delete_category", 409, id=shop["id"]) == "conflict"

        await list_and_read(calls, caller, post, [shop, tools, saws])
        renamed = (await post("rename_category", id=tools["id"], name="Power tools", slug="power-tools"))["category"]
        assert renamed["path"] == "home_garden.power_tools"
        moved = (await post("move_category", id=tools["id"]))["category"]
        assert (moved["path"], moved["sort_order"]) == ("power_tools", 2)
        assert (await post("reorder_category", id=tools["id"], before=shop["id"]))["category"]["sort_order"] == 1
        assert await post("delete_category", id=tools["id"], policy="cascade") == {"id": tools["id"], "deleted": 2}
        assert (await calls.get(caller, "/api/v1/categories")).status_code == 404


async def list_and_read(calls: TenantCalls, caller: Any, post: Any, line: list[dict[str, Any]]) -> None:
    """Reads a chain of three categories in every way."""
    listed = await calls.get(caller, "/api/v2/categories")
    assert listed.json() == line
    assert (await calls.get(caller, f"/api/v2/categories/{line[1]['id']}")).json() == line[1]
    tree = await post("category_tree")
    assert [(node["name"], len(node["children"])) for node in tree["categories"]] == [
        ("Home & Garden", 1), ("Tools", 1), ("Saws", 0)
    ]  # fmt: skip
    assert (await post("category_ancestors", id=line[2]["id"]))["categories"] == line
    assert (await post("category_children", id=line[0]["id"]))["categories"] == [line[1]]
    assert (await post("category_subtree", path="home_garden", levels=1))["categories"] == line[:2]
    assert (await post("category_breadcrumb", path="home_garden.tools.saws"))["categories"] == line
    assert (await post("category_level", depth=2))["categories"] == [line[2]]
    assert await post("check_categories") == {"consistent": True, "problems": [], "categories": 3}
    assert await post("category_tree", 404, id=str(uuid4())) == "not_found"
    assert await post("category_subtree", 422, path="No Path") == "invalid"
