"""How the planner answers a query under row-level security, as the role of a request."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import asyncpg

Node = dict[str, Any]  # one node of EXPLAIN (FORMAT JSON)


class Plan:
    """An executed plan. Rows are the totals over all loops; the functions that a query calls are not in its plan."""

    def __init__(self, root: Node) -> None:
        self.root = root

    @property
    def nodes(self) -> list[Node]:
        """Every node, the outermost first."""
        return list(_walk(self.root))

    @property
    def types(self) -> list[str]:
        return [str(node["Node Type"]) for node in self.nodes]

    def on(self, relation: str) -> list[Node]:
        """The nodes that read a table, without those that were never executed, such as a branch that `WHERE false` cuts
        off; a bitmap scan's condition is on its heap node too, as Recheck Cond."""
        return [node for node in self.nodes if node.get("Relation Name") == relation and node["Actual Loops"]]

    def index_conditions(self, index: str | None = None) -> list[str]:
        """The Index Cond of each scan, of one index or of all; a condition that is not here is a mere filter."""
        return [
            str(node["Index Cond"])
            for node in self.nodes
            if "Index Cond" in node and index in (None, node.get("Index Name"))
        ]

    @property
    def indexes(self) -> set[str]:
        return {str(node["Index Name"]) for node in self.nodes if "Index Name" in node}

    def rows_read(self, relation: str) -> int:
        """How many rows were taken from a table, with those that a filter then threw away. Before PostgreSQL 18 a node
        with many loops tells the rows of each loop, rounded: allow for a row per loop there."""
        discarded = ("Rows Removed by Filter", "Rows Removed by Index Recheck")
        per_loop = [(node["Actual Rows"] + sum(node.get(name, 0) for name in discarded)) for node in self.on(relation)]
        return sum(round(rows * node["Actual Loops"]) for rows, node in zip(per_loop, self.on(relation), strict=True))

    def __str__(self) -> str:
        return json.dumps(self.root, indent=1)


async def explain(connection: asyncpg.Connection, query: str, arguments: Sequence[object] = ()) -> Plan:
    """Execute `query` in the connection's context and return its plan, as custom plans see the arguments.

    A statement that writes is executed too: run it in a transaction that is undone.
    """
    found = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON, TIMING off) {query}", *arguments)
    return Plan(json.loads(found)[0]["Plan"])


def assert_indexed(plan: Plan, relation: str, *conditions: str) -> None:
    """Fail with the plan unless `relation` is read by index alone, and some Index Cond has all of `conditions`."""
    assert plan.on(relation), f"{relation} is not read at all: {plan}"
    scans = {str(node["Node Type"]) for node in plan.on(relation)}
    assert scans <= {"Index Scan", "Index Only Scan", "Bitmap Heap Scan"}, f"{relation} is read by {scans}: {plan}"
    assert any(all(part in found for part in conditions) for found in plan.index_conditions()), (
        f"no Index Cond has {conditions}: {plan}"
    )


def _walk(node: Node) -> Iterator[Node]:
    yield node
    for child in node.get("Plans", ()):
        yield from _walk(child)
