"""Which servers are told to be upgraded, for what PostgreSQL has mended in row-level security."""

from __future__ import annotations

from typing import Any

import pytest

from control_plane.errors import UnsafePosture
from control_plane.isolation import cluster
from tests.support.mutation import mutated


class _Server:
    """Answers for a server of one version, whose role may do everything."""

    def __init__(self, number: int) -> None:
        self.number = number

    async def fetchval(self, query: str) -> Any:
        return str(self.number) if query == "SHOW server_version_num" else True


def server(number: int) -> Any:
    return _Server(number)


@pytest.mark.parametrize(
    ("number", "fix"),
    [
        (150015, "15.16"),
        (150016, None),
        (160011, "16.12"),
        (160012, None),
        (170007, "17.8"),
        (170008, None),
        (180001, "18.2"),
        (180002, None),
        (190000, None),
    ],
)
async def test_a_minor_release_with_known_ways_past_row_level_security_is_named(number: int, fix: str | None) -> None:
    """Attack 8."""
    found = await cluster._server_findings(server(number))
    assert [finding.fix for finding in found] == ([] if fix is None else [f"upgrade to {fix} or later"])


async def test_a_server_without_invoker_views_is_refused() -> None:
    """Attack 8."""
    await cluster._require_administrator(server(150016))
    with pytest.raises(UnsafePosture, match=r"PostgreSQL 14\.20"):
        await cluster._require_administrator(server(140020))


async def test_a_minor_that_nobody_looks_at_is_noticed() -> None:
    """Attack 8: `every minor release is safe`."""
    with mutated(cluster._server_findings, "version.minor >= safe", "True"), pytest.raises(AssertionError):
        await test_a_minor_release_with_known_ways_past_row_level_security_is_named(150015, "15.16")
