"""Pattern 14: a tree by parent, in the order that people gave it, of any depth, and without rings."""

from __future__ import annotations

from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio

from tests.conformance.conftest import Ground
from tests.conformance.patterns.categories import Categories, add_many, categories
from tests.conformance.patterns.plans import assert_indexed, explain
from tests.conformance.world import World


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def large(ground: Ground) -> World:
    """Shared tables with 18 020 categories of one tenant and 4 505 of another."""
    world = await ground.world("shared")
    for member in (world.a, world.b):
        await add_many(world, member)
    async with world.owner(world.b) as connection:
        await connection.execute(
            "DELETE FROM tb_category WHERE tenant_id = $1 AND path <@ ANY "
            "(ARRAY(SELECT ('r' || n)::ltree FROM generate_series(6, 20) AS n))",
            world.b.id,
        )
        await connection.execute("ANALYZE tb_category")
    return world


async def test_a_parent_is_a_category_of_the_same_tenant(world: World) -> None:
    """Requirement 1: the foreign key is (tenant_id, parent_id)."""
    async with categories(world, world.b) as theirs:
        foreign = await theirs.add("Theirs")
    async with categories(world) as tree:
        for stranger in (foreign, uuid4()):
            assert await tree.refusal("create_category", name="Orphan", parent_id=stranger) == "not_found"
            await tree.connection.execute(
                "INSERT INTO tb_category (parent_id, slug, name, path) VALUES ($1, 'b', 'B', 'a.b')", stranger
            )
            with pytest.raises(asyncpg.ForeignKeyViolationError):
                async with tree.connection.transaction():
                    await tree.connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
            await tree.connection.execute("DELETE FROM tb_category WHERE slug = 'b'")


async def test_siblings_differ_in_their_slugs_and_roots_are_siblings(world: World) -> None:
    """Requirement 1: siblings are unique on slug."""
    async with categories(world) as tree:
        root = await tree.add("Tools")
        other = await tree.add("Other")
        await tree.add("Tools", root)
        await tree.add("Tools", other)
        assert await tree.refusal("create_category", name="tools!") == "conflict"
        assert await tree.refusal("create_category", name="Any", slug="tools", parent_id=root) == "conflict"
        with pytest.raises(asyncpg.UniqueViolationError):
            await tree.connection.execute("INSERT INTO tb_category (slug, name, path) VALUES ('tools', 'T', 'tools')")


async def test_the_index_of_siblings_leads_with_tenant_and_parent(world: World) -> None:
    """Requirement 1: index on (tenant_id, parent_id, sort_order, name)."""
    async with world.owner(world.a) as connection:
        columns = "SELECT pg_get_indexdef('tb_category_siblings'::regclass)"
        assert "(tenant_id, parent_id, sort_order, name, id)" in await connection.fetchval(columns)
        keys = await connection.fetch(
            "SELECT pg_get_constraintdef(oid) AS key FROM pg_constraint "
            "WHERE conrelid = 'tb_category'::regclass AND contype = 'f'"
        )
        assert any(row["key"].startswith("FOREIGN KEY (tenant_id, parent_id) REFERENCES") for row in keys)


async def test_a_chain_of_fifteen_has_fifteen_rows(world: World) -> None:
    """Requirements 2 and 5, check 14.1: nothing is cut off."""
    async with categories(world) as tree:
        ids: list[UUID] = []
        for number in range(15):
            ids.append(await tree.add(f"n{number}", ids[-1] if ids else None))
        found = await tree.succeed("category_tree")
        assert [node["depth"] for node in found["categories"]] == list(range(15))
        assert found["corrupt"] is False
        ancestors = await tree.succeed("category_ancestors", id=ids[-1])
        assert [each["id"] for each in ancestors["categories"]] == [str(id_) for id_ in ids]
        assert ancestors["corrupt"] is False


async def test_the_tree_is_in_the_order_of_display(world: World) -> None:
    """Requirement 2, check 14.2: depth first, siblings by sort_order, then name, then id."""
    async with categories(world) as tree:
        second = await tree.add("Second", sort_order=2)
        first = await tree.add("First", sort_order=1)
        await tree.add("two", first, sort_order=2)
        one = await tree.add("one", first, sort_order=1)
        one_a = await tree.add("one-a", one)
        nodes = (await tree.succeed("category_tree"))["categories"]
        assert [node["name"] for node in nodes] == ["First", "one", "one-a", "two", "Second"]
        assert [node["depth"] for node in nodes] == [0, 1, 2, 1, 0]
        assert nodes[2]["path"] == [str(first), str(one), str(one_a)]
        assert nodes[2]["breadcrumb"] == ["First", "one", "one-a"]
        assert [child["name"] for child in nodes[0]["children"]] == ["one", "two"]
        assert (nodes[2]["children"], nodes[4]["children"]) == ([], [])

        # Equal places: by name, and equal names by id.
        for name, slug in (("b", "x"), ("a", "y"), ("a", "z")):
            await tree.add(name, second, slug=slug, sort_order=5)
        branch = (await tree.succeed("category_tree", id=second))["categories"]
        assert [(node["name"], node["id"]) for node in branch[1:]] == sorted(
            (node["name"], node["id"]) for node in branch[1:]
        )


async def test_a_branch_is_the_part_of_the_whole(world: World) -> None:
    """Requirements 2 and 5: depth, ids and breadcrumb count from the root of the tree, wherever one begins to read."""
    async with categories(world) as tree:
        a = await tree.add("a")
        b = await tree.add("b", a)
        for name in ("c", "d"):
            await tree.add(name, b)
        await tree.add("elsewhere")
        whole = (await tree.succeed("category_tree"))["categories"]
        assert (await tree.succeed("category_tree", id=b))["categories"] == whole[1:4]
        assert await tree.refusal("category_tree", id=uuid4()) == "not_found"
        children = (await tree.succeed("category_children", id=b))["categories"]
        assert [child["name"] for child in children] == ["c", "d"]
        roots = (await tree.succeed("category_children"))["categories"]
        assert [root["name"] for root in roots] == ["a", "elsewhere"]
        assert (await tree.succeed("category_children", id=UUID(children[0]["id"])))["categories"] == []
        for function in ("category_children", "category_ancestors"):
            assert await tree.refusal(function, id=uuid4()) == "not_found"


async def test_a_tree_without_rows_is_an_empty_list(world: World) -> None:
    """Requirement 2: empty means empty."""
    async with categories(world) as tree:
        assert await tree.succeed("category_tree") == {"categories": [], "corrupt": False}
        assert await tree.succeed("category_children") == {"categories": []}


async def test_too_deep_is_refused_when_it_is_written(world: World) -> None:
    """Requirement 2: a maximum depth is an error on write, never a truncation on read."""
    async with categories(world) as tree:
        ids = [await tree.add("n0")]
        for number in range(1, 32):
            ids.append(await tree.add(f"n{number}", ids[-1]))
        refused = await tree.call("create_category", name="n32", parent_id=ids[-1])
        assert (refused["code"], refused["errors"][0]["path"]) == ("invalid", "parent_id")
        other = await tree.add("other")
        await tree.add("below", other)
        assert await tree.refusal("move_category", id=other, parent_id=ids[30]) == "invalid"
        assert len(await tree.names(ids[0])) == 32
        await tree.assert_sound()


PLANTED = {
    "a ring of two": "UPDATE tb_category SET parent_id = $2 WHERE id = $1",
    "a parent of itself": "UPDATE tb_category SET parent_id = $1 WHERE id = $1 AND id <> $2",
}


async def assert_corruption_is_reported(tree: Categories, ring: list[UUID], *, hangs: bool = True) -> None:
    """A read that went round in circles would meet the timeout."""
    await tree.connection.execute("SET LOCAL statement_timeout = '1s'")
    whole = await tree.succeed("category_tree")
    assert whole["corrupt"] is True
    for id_ in ring:
        ancestors = await tree.succeed("category_ancestors", id=id_)
        assert ancestors["corrupt"] is True
        assert len(ancestors["categories"]) == len({each["id"] for each in ancestors["categories"]})
        branch = await tree.succeed("category_tree", id=id_)
        assert branch["corrupt"] is True
        assert len(branch["categories"]) == len({node["id"] for node in branch["categories"]})
    report = await tree.succeed("check_categories")
    assert report["consistent"] is False
    assert {problem["code"] for problem in report["problems"]} == {"unreachable"}
    assert {problem["id"] for problem in report["problems"]} >= {str(id_) for id_ in ring}


@pytest.mark.parametrize("planted", PLANTED)
async def test_a_ring_within_a_transaction_is_reported_and_cannot_be_committed(world: World, planted: str) -> None:
    """Requirement 3: reads are cycle-safe."""
    async with categories(world) as tree:
        top = await tree.add("top")
        one = await tree.add("one", top)
        two = await tree.add("two", one)
        await tree.add("sound")
        await tree.connection.execute(PLANTED[planted], one, two)
        await assert_corruption_is_reported(tree, [one, two] if planted == "a ring of two" else [one])
        # What is not in the ring but below it has a way up that does not end either.
        assert (await tree.succeed("category_tree", id=two))["corrupt"] is True
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            await tree.connection.execute("SET CONSTRAINTS ALL IMMEDIATE")


async def test_a_ring_that_the_owner_planted_is_reported(ground: Ground) -> None:
    """Requirement 3, check 14.4."""
    world = await ground.world("shared")
    async with world.within(world.a) as connection:
        tree = Categories(connection)
        one = await tree.add("one", await tree.add("top"))
        two = await tree.add("two", one)
        await tree.add("sound")
    async with world.owner(world.a) as connection:
        keys = await connection.fetch(
            "SELECT conname FROM pg_constraint WHERE conrelid = 'tb_category'::regclass AND contype = 'f'"
        )
        for key in keys:
            await connection.execute(f'ALTER TABLE tb_category DROP CONSTRAINT "{key["conname"]}"')
        await connection.execute(PLANTED["a ring of two"], one, two)
    async with world.within(world.a, read_only=True) as connection:
        tree = Categories(connection)
        await assert_corruption_is_reported(tree, [one, two])
        assert await tree.names() == ["top", "sound"]


async def test_rename_keeps_the_place_and_the_slug_unless_one_is_given(world: World) -> None:
    """Requirement 4: rename."""
    async with categories(world) as tree:
        top = await tree.add("Top")
        below = await tree.add("Below", top)
        await tree.succeed("rename_category", id=top, name="Top & more")
        assert await tree.paths() == {"Top & more": "top", "Below": "top.below"}
        await tree.succeed("rename_category", id=top, name="Summit", slug="summit-2")
        assert await tree.paths() == {"Summit": "summit_2", "Below": "summit_2.below"}
        await tree.add("Other")
        assert await tree.refusal("rename_category", id=top, name="X", slug="other") == "conflict"
        assert await tree.refusal("rename_category", id=uuid4(), name="X") == "not_found"
        assert await tree.refusal("rename_category", id=below, name="") == "invalid"
        assert await tree.refusal("rename_category", id=below, name="X", slug="Not A Slug") == "invalid"
        await tree.assert_sound()


async def test_a_move_takes_the_branch_along_and_never_below_itself(world: World) -> None:
    """Requirement 4: self and descendants are no target."""
    async with categories(world) as tree:
        a, b = await tree.add("a"), await tree.add("b")
        a1 = await tree.add("a1", a)
        a2 = await tree.add("a2", a1)
        for target in (a, a1, a2):
            assert await tree.refusal("move_category", id=a, parent_id=target) == "conflict"
        assert await tree.refusal("move_category", id=a, parent_id=uuid4()) == "not_found"
        assert await tree.refusal("move_category", id=uuid4()) == "not_found"
        await tree.add("a1", b)
        assert await tree.refusal("move_category", id=a1, parent_id=b) == "conflict"

        await tree.succeed("move_category", id=a, parent_id=b)
        assert await tree.names() == ["b", "a1", "a", "a1", "a2"]
        await tree.succeed("move_category", id=a1)
        assert await tree.names() == ["b", "a1", "a", "a1", "a2"]
        assert (await tree.succeed("category_tree", id=a1))["categories"][1]["path"] == [str(a1), str(a2)]
        await tree.succeed("move_category", id=a1)  # where it is already
        await tree.assert_sound()


async def test_siblings_are_reordered(world: World) -> None:
    """Requirement 4: reorder."""
    async with categories(world) as tree:
        top = await tree.add("top")
        one, two, three = [await tree.add(name, top, sort_order=0) for name in ("one", "two", "three")]
        assert await tree.names(top) == ["top", "one", "three", "two"]
        await tree.succeed("reorder_category", id=two, before=three)
        assert await tree.names(top) == ["top", "one", "two", "three"]
        await tree.succeed("reorder_category", id=one)
        assert await tree.names(top) == ["top", "two", "three", "one"]
        await tree.succeed("reorder_category", id=one, before=two)
        await tree.succeed("reorder_category", id=one, before=one)
        assert await tree.names(top) == ["top", "one", "two", "three"]
        assert await tree.refusal("reorder_category", id=one, before=top) == "not_found"
        assert await tree.refusal("reorder_category", id=uuid4()) == "not_found"
        other = await tree.add("other", sort_order=9)
        await tree.succeed("reorder_category", id=other, before=top)
        assert (await tree.names())[0] == "other"
        await tree.assert_sound()


async def test_deleting_follows_the_policy(world: World) -> None:
    """Requirement 4, check 14.5."""
    async with categories(world) as tree:
        before, top, after = [await tree.add(name) for name in ("before", "top", "after")]
        for name in ("z", "top", "k"):  # in this order; one bears the name of its parent
            child = await tree.add(name, top)
            await tree.add("k", child)
        assert await tree.refusal("delete_category", id=top) == "conflict"
        assert await tree.refusal("delete_category", id=top, policy="restrict") == "conflict"
        assert await tree.refusal("delete_category", id=top, policy="orphan") == "invalid"
        assert await tree.refusal("delete_category", id=uuid4()) == "not_found"

        clash = await tree.add("after", top)
        assert await tree.refusal("delete_category", id=top, policy="reparent") == "conflict"
        assert (await tree.succeed("delete_category", id=clash))["deleted"] == 1

        assert (await tree.succeed("delete_category", id=top, policy="reparent"))["deleted"] == 1
        assert await tree.names() == ["before", "z", "k", "top", "k", "k", "k", "after"]
        await tree.assert_sound()
        ids = {node["name"]: node["id"] for node in (await tree.succeed("category_children"))["categories"]}
        assert (await tree.succeed("delete_category", id=ids["z"], policy="cascade"))["deleted"] == 2
        assert (await tree.succeed("delete_category", id=before, policy="cascade"))["deleted"] == 1
        assert (await tree.succeed("delete_category", id=after, policy="reparent"))["deleted"] == 1
        assert await tree.names() == ["top", "k", "k", "k"]
        await tree.assert_sound()


async def test_one_branch_costs_what_the_branch_is_large(large: World) -> None:
    """Requirement 5: 30 of 18 020 categories are read by index, and no other."""
    async with large.within(large.a) as connection:
        top = await connection.fetchval("SELECT id FROM v_category WHERE path_text = 'r7.a9'")
        plan = await explain(connection, f"SELECT * FROM fn_category_nodes('{top}')")
        assert_indexed(plan, "tb_category", "tenant_id", "parent_id")
        assert plan.root["Actual Rows"] == 30
        assert plan.rows_read("tb_category") <= 2 * 30 + 5

        leaf = await connection.fetchval("SELECT id FROM v_category WHERE path_text = 'r7.a9.b3'")
        plan = await explain(connection, f"SELECT * FROM fn_category_line('{leaf}')")
        assert_indexed(plan, "tb_category", "tenant_id", "id")
        assert plan.rows_read("tb_category") <= 3 + 1


async def test_the_children_are_read_by_the_index_of_siblings(large: World) -> None:
    """Requirements 1 and 5: in the order of display, without sorting more than the children."""
    async with large.within(large.a) as connection:
        parent = await connection.fetchval("SELECT id FROM v_category WHERE path_text = 'r7'")
        plan = await explain(
            connection,
            "SELECT data FROM v_category WHERE tenant_id = tenancy.current_tenant_id() AND parent_id = $1 "
            "ORDER BY sort_order, name, id",
            [parent],
        )
        assert_indexed(plan, "tb_category", "tenant_id", "parent_id")
        assert plan.rows_read("tb_category") == 30


async def test_the_tree_of_four_thousand_is_read_by_the_index_of_parents(large: World) -> None:
    """Requirement 2: not one pass over the table per category."""
    async with large.within(large.b) as connection:
        plan = await explain(connection, "SELECT * FROM fn_category_nodes(NULL)")
        assert plan.root["Actual Rows"] == 4505
        assert_indexed(plan, "tb_category", "tenant_id", "parent_id")
        assert plan.rows_read("tb_category") <= 2 * 4505
