"""Each form of a read is behind the gate, takes its rows from a range of an index, and is one round trip."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from control_plane.api.query import parse_query
from control_plane.pools import gate, lists
from control_plane.pools.listing import WAYS, Form, Known, Listing, Way
from control_plane.pools.requests import RequestPools
from control_plane.registry.models import Cluster
from tests.integration.tenant_api.rows import execute, put_projects
from tests.support.members import Member, Members
from tests.support.proxy import open_proxy
from tests.support.servers import Server

ROWS = 3000

# resource, query, further changes of the shape
FORMS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "first": ("projects", "", {}),
    "filtered": ("projects", "name=eq.group%201&order=name.desc", {}),
    "next": ("projects", "cursor=nAAAA", {}),
    "prev": ("projects", "order=name.desc&cursor=pAAAA", {"counted": True}),
    "page": ("projects", "order=name&cursor=NAAAA&select=id", {"form": Form.PAGE}),
    "page back": ("projects", "created_at=gt.2026-01-01&cursor=PAAAA", {"form": Form.PAGE, "counted": True}),
    "lines": ("projects", "", {"form": Form.LINES, "cursors": False}),
    "more lines": ("projects", "order=name.desc", {"form": Form.LINES, "cursors": False, "way": Way()}),
    "tagged": ("post_stats", "", {}),
    "tagged next": ("post_stats", "cursor=nAAAA&select=id", {"counted": True}),
    "tagged page": ("post_stats", "order=id.desc&cursor=pAAAA", {"form": Form.PAGE}),
}


def listing_of(members: Members, form: str) -> tuple[str, Listing]:
    resource, query, changes = FORMS[form]
    found = members.template.resource(resource, api_version=2, pattern_version=members.template.latest)
    listing = parse_query(query.encode(), found)
    listing = listing._replace(shape=listing.shape._replace(**changes))
    return resource, listing._replace(place='["m", null]') if form == "more lines" else listing


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


async def test_every_form_is_an_init_plan_behind_the_gate_and_a_range_of_an_index(
    members: Members, pools: RequestPools
) -> None:
    # attack 21: places that are opened, rows behind, counts and documents all hang on the gate
    member = await members.add("acme")
    for form in FORMS:
        resource, listing = listing_of(members, form)
        statement = lists.list_statement(member.home.schema_name, 2, resource, listing.shape)
        async with pools.connection(member.placement) as connection:
            for mode in ("force_custom_plan", "force_generic_plan"):
                async with connection.transaction():
                    await connection.execute(
                        f"SET LOCAL plan_cache_mode = {mode}; SET LOCAL enable_seqscan = off;"
                        " SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off"
                    )
                    explained = await connection.fetchval(
                        f"EXPLAIN (FORMAT JSON, VERBOSE) {statement}", *member.caller, *lists.list_arguments(listing)
                    )
                plan = json.loads(explained)[0]["Plan"]
                assert plan["Node Type"] == "Result", form
                assert {child["Parent Relationship"] for child in plan["Plans"]} == {"InitPlan"}, form
                (output,) = plan["Output"]
                assert output.startswith("CASE WHEN tenancy.set_tenant_context("), form
                assert output.count("CASE") == 1
                assert output.endswith(" END")
                found = [node["Index Cond"] for node in nodes(plan) if "Index Cond" in node]
                assert any("tenant_id" in each for each in found), form
                if listing.shape.way is not None:
                    compared = re.compile(r"ROW\(" if len(listing.shape.order) > 1 else r"\bid [<>]")
                    scans = [each for each in found if "tenant_id" in each and compared.search(each)]
                    # the page, what is behind it, and with a tag the documents
                    behind = listing.shape.form is not Form.LINES
                    assert len(scans) >= 1 + behind + (listing.shape.version is not None), explained
                    # all that is sorted is a page that was read backwards
                    sorts = [node for node in nodes(plan) if node["Node Type"] in ("Sort", "Incremental Sort")]
                    assert len(sorts) <= (not listing.shape.way.forward) * (1 + (listing.shape.version is not None))


async def test_a_tagged_document_is_an_init_plan_behind_the_gate(members: Members, pools: RequestPools) -> None:
    # attack 21
    member = await members.add("acme")
    statement = gate.one_statement(member.home.schema_name, 2, "post_stats", "version")
    async with pools.connection(member.placement) as connection:
        explained = await connection.fetchval(
            f"EXPLAIN (FORMAT JSON, VERBOSE) {statement}", *member.caller, uuid4(), *Known()
        )
    plan = json.loads(explained)[0]["Plan"]
    assert plan["Node Type"] == "Result"
    assert {child["Parent Relationship"] for child in plan["Plans"]} == {"InitPlan"}
    (output,) = plan["Output"]
    assert output.startswith("CASE WHEN tenancy.set_tenant_context(")
    assert output.endswith(" END")


async def read(pools: RequestPools, member: Member, resource: str, listing: Listing) -> Any:
    async with pools.connection(member.placement) as connection:
        return await lists.read_list(
            connection, member.caller, member.home.schema_name, 2, resource, listing, Known("q")
        )


async def test_a_deep_page_reads_its_own_rows_only(members: Members, pools: RequestPools) -> None:
    member = await members.add("acme")
    await put_projects(members, member, ROWS)
    await execute(members, member, f'ANALYZE "{member.home.schema_name}".tb_project')
    for order in ("", "order=name.desc"):
        resource = members.template.resource("projects", api_version=2, pattern_version=members.template.latest)
        first = parse_query(order.encode(), resource)._replace(limit=1000)
        page = await read(pools, member, "projects", first)
        page = await read(pools, member, "projects", gone_on(first, page.ahead))
        for cursor in (page.ahead, page.behind):
            listing = gone_on(first, cursor)._replace(limit=10)
            statement = lists.list_statement(member.home.schema_name, 2, "projects", listing.shape)
            async with pools.connection(member.placement) as connection:
                explained = await connection.fetchval(
                    f"EXPLAIN (ANALYZE, FORMAT JSON, TIMING off) {statement}",
                    *member.caller,
                    *lists.list_arguments(listing),
                )
            scans = [
                each for each in nodes(json.loads(explained)[0]["Plan"]) if each.get("Relation Name") == "tb_project"
            ]
            assert len(scans) == 2, explained
            for scan in scans:
                assert "Index" in scan["Node Type"], explained
                assert scan["Actual Rows"] <= 11, explained
                assert scan.get("Rows Removed by Filter", 0) == 0, explained


def gone_on(listing: Listing, cursor: str) -> Listing:
    return listing._replace(shape=listing.shape._replace(way=WAYS[cursor[0]]), place=cursor[1:])


async def test_every_form_is_one_round_trip(server: Server, members: Members, pools: RequestPools) -> None:
    member = await members.add("acme")
    await put_projects(members, member, 9)
    async with open_proxy(server) as proxy:
        async with members.databases.registry.begin() as session:
            cluster = await session.get_one(Cluster, members.cluster.id)
            cluster.dsn = members.databases.box.seal(proxy.dsn)
        for resource, first in (listing_of(members, "first"), listing_of(members, "tagged")):
            page = await read(pools, member, resource, first._replace(limit=2))
            wanted = [first._replace(limit=2)]
            if page.ahead is not None:
                following = gone_on(first, page.ahead)._replace(limit=2)
                wanted += [following, following._replace(shape=following.shape._replace(form=Form.PAGE))]
            for listing in wanted:
                await read(pools, member, resource, listing)  # prepares
                proxy.clear()
                await read(pools, member, resource, listing)
                assert proxy.sent == ["B", "E", "S"], listing
        _, lines = listing_of(members, "lines")
        place, batches = None, 0
        while batches < 5:
            listing = lines._replace(limit=4) if place is None else lines._replace(limit=4).gone_on(place)
            await read(pools, member, "projects", listing)
            proxy.clear()
            page = await read(pools, member, "projects", listing)
            assert proxy.round_trips == 1
            place, batches = page.place, batches + 1
            if page.rows < 4:
                break
        assert batches == 3
        await pools.aclose()
