"""Drift over a fleet: found, listed, repaired and logged; and what is too old goes."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from uuid import UUID, uuid4

import pytest

from control_plane.errors import TenantNotFound
from control_plane.operations.upkeep import Upkeep
from control_plane.tenants.drift import Drift, check_drift
from control_plane.tenants.purge import purge
from tests.support.members import Member, Members

MODES = ("shared", "schema", "database")


async def write(members: Members, member: Member, statement: str, *arguments: object) -> None:
    """As the owner of the home's tables, behind the functions' backs."""
    async with members.databases.admin(members.cluster, member.home.database) as admin:
        await admin.execute(f'SET ROLE cp_owner; SET search_path = "{member.home.schema_name}", extensions, pg_temp')
        await admin.execute(statement, *arguments)


async def add_posts(members: Members, member: Member, number: int) -> None:
    await write(
        members,
        member,
        "INSERT INTO tb_post (tenant_id, title, content) SELECT $1, 'Post', 'x' FROM generate_series(1, $2::integer)",
        member.id,
        number,
    )


async def check(members: Members, *refs: str, resync: bool = False) -> list[Drift]:
    found = check_drift(members.databases, members.templates, refs, resync=resync)
    return [drift async for drift in found if drift.projection == "tv_post_stats"]


async def test_drift_is_found_and_repaired_in_every_mode(members: Members) -> None:
    """Requirement 6 of pattern 18: missing here, in chunks of 500; nothing is left and a second look finds nothing."""
    for mode in MODES:
        await add_posts(members, await members.add(f"in-{mode}", mode), 3)
    large = await members.add("large", "schema")
    await add_posts(members, large, 1100)
    await members.add("clean")
    await members.add("early", "schema", version=3)

    numbers = {"clean": 0, "in-database": 3, "in-schema": 3, "in-shared": 3, "large": 1100}
    found = await check(members)
    assert found == [Drift(slug, "tv_post_stats", number, number) for slug, number in numbers.items()]
    assert [drift.tenant for drift in found if drift.left] == ["in-database", "in-schema", "in-shared", "large"]

    repaired = await check(members, resync=True)
    assert repaired == [Drift(slug, "tv_post_stats", n, n, n) for slug, n in numbers.items()]
    assert not any(drift.left for drift in repaired)
    async with members.databases.admin(members.cluster, large.home.database) as admin:
        await admin.execute("SET ROLE cp_owner")
        # Requirement 2 of pattern 20: each chunk was committed by itself.
        chunks = f'SELECT count(*) FROM "{large.home.schema_name}".tb_change GROUP BY transaction_id ORDER BY 1'
        assert [size for (size,) in await admin.fetch(chunks)] == [100, 500, 500]
    assert await check(members) == [Drift(slug, "tv_post_stats", n) for slug, n in numbers.items()]


async def test_one_tenant_at_a_time(members: Members) -> None:
    one, other = await members.add("one"), await members.add("other")
    await add_posts(members, one, 1)
    await add_posts(members, other, 2)
    assert await check(members, "other", resync=True) == [Drift("other", "tv_post_stats", 2, 2, 2)]
    assert await check(members, str(one.id)) == [Drift("one", "tv_post_stats", 1, 1)]
    with pytest.raises(TenantNotFound):
        await check(members, "nobody")


async def test_progress_is_told_chunk_by_chunk(members: Members) -> None:
    member = await members.add("acme")
    await add_posts(members, member, 700)
    told: list[int] = []
    found = check_drift(
        members.databases,
        members.templates,
        ["acme"],
        progress=lambda _, name, compared: told.append(compared) if name == "tv_post_stats" else None,
    )
    assert [drift.left async for drift in found if drift.projection == "tv_post_stats"] == [True]
    assert told == [500, 700, 700]


async def test_a_tenant_that_has_just_left_is_left_out(members: Members) -> None:
    gone, here = await members.add("gone"), await members.add("here")
    await add_posts(members, gone, 1)
    await members.set_state(gone, "deleting")  # the registry does not know yet
    assert [drift.tenant for drift in await check(members)] == ["here"]
    assert here.slug == "here"


async def test_what_cannot_be_compared_is_left(members: Members) -> None:
    member = await members.add("acme", "schema")
    await write(members, member, "DROP VIEW v_post_stats CASCADE")
    (drift,) = await check(members)
    assert drift.left
    assert drift.problem


async def test_the_worker_warns_of_each_projection(members: Members, caplog: pytest.LogCaptureFixture) -> None:
    acme = await members.add("acme")
    await members.add("clean")
    await add_posts(members, acme, 2)
    upkeep = Upkeep(members.databases, members.templates, 0.01)
    with caplog.at_level(logging.WARNING, "control_plane"):
        assert await upkeep.report_drift() == 1
    (record,) = caplog.records
    assert (record.__dict__["tenant"], record.__dict__["projection"], record.__dict__["drifted"]) == (
        "acme",
        "tv_post_stats",
        2,
    )
    assert "projection drift: tenant=acme projection=tv_post_stats" in record.getMessage()


@pytest.mark.parametrize(("interval", "checks"), [(0.01, True), (0, False)])
async def test_the_check_comes_round_unless_it_is_off(
    members: Members, monkeypatch: pytest.MonkeyPatch, interval: float, checks: bool
) -> None:
    stop, looked = asyncio.Event(), 0
    upkeep = Upkeep(members.databases, members.templates, interval)

    async def look() -> int:
        nonlocal looked
        looked += 1
        if looked == 1:
            raise ConnectionResetError  # is logged, and does not end the loop
        stop.set()
        return 0

    monkeypatch.setattr(upkeep, "report_drift", look)
    if not checks:
        stop.set()
    async with asyncio.timeout(20):
        await upkeep.run(stop)
    assert looked == (2 if checks else 0)


async def test_what_is_too_old_goes(members: Members) -> None:
    """Told changes after 7 days, answers of calls after 24 hours, cached ones soon; early homes have none."""
    await members.add("early", "schema", version=3)
    kept = {}
    for mode in MODES:
        member = kept[mode] = await members.add(f"in-{mode}", mode)
        for age in ("8 days", "6 days"):
            await write(
                members,
                member,
                "INSERT INTO tb_change (tenant_id, entity, key, version, changed_at)"
                " VALUES ($1, 'x', $2, 1, now() - $3::text::interval)",
                member.id,
                uuid4(),
                age,
            )
        for key, age in (("old", "25 hours"), ("new", "23 hours")):
            await write(
                members,
                member,
                "INSERT INTO tb_idempotency_key (tenant_id, user_id, key, function, input_hash, created_at)"
                " VALUES ($1, $2, $3, 'x', '', now() - $4::text::interval)",
                member.id,
                UUID(int=1),
                key,
                age,
            )
        for expired in ("11 minutes", "9 minutes"):
            await write(
                members,
                member,
                "INSERT INTO tb_cached_result (tenant_id, id, request, data, bytes, snapshot, transaction_id,"
                " computed_at, expires_at)"
                " VALUES ($1, $2, '{}', '1', 1, '3:3:', '3', now() - interval '1 hour', now() - $3::text::interval)",
                member.id,
                uuid4(),
                expired,
            )
    assert await purge(members.databases) == {
        "revocations": 0,
        "tb_change": 3,
        "tb_idempotency_key": 3,
        "tb_cached_result": 3,
    }
    assert set((await purge(members.databases)).values()) == {0}
    for member in kept.values():
        async with members.databases.admin(members.cluster, member.home.database) as admin:
            await admin.execute("SET ROLE cp_owner")
            for table in ("tb_change", "tb_idempotency_key", "tb_cached_result"):
                left = f'SELECT count(*) FROM "{member.home.schema_name}".{table} WHERE tenant_id = $1'
                assert await admin.fetchval(left, member.id) == 1


async def command(members: Members, *arguments: str) -> tuple[int | None, str]:
    settings = members.databases.settings
    assert settings.database_url is not None
    assert settings.secret_key is not None
    own = {
        "CP_HOME": str(settings.home),
        "CP_DATABASE_URL": settings.database_url.get_secret_value(),
        "CP_SECRET_KEY": settings.secret_key.get_secret_value(),
    }
    others = {name: value for name, value in os.environ.items() if not name.startswith("CP_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "control_plane", *arguments, env=others | own, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return process.returncode, out.decode()


async def test_the_command_exits_1_while_drift_is_left(members: Members) -> None:
    await add_posts(members, await members.add("acme"), 2)
    code, out = await command(members, "drift", "--json")
    (found,) = (each for each in json.loads(out) if each["projection"] == "tv_post_stats")
    assert (code, found["tenant"], found["drifted"], found["repaired"]) == (1, "acme", 2, 0)
    code, out = await command(members, "drift", "acme", "--resync")
    assert code == 0
    assert "tv_post_stats" in out
