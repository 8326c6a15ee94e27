"""Every version's smoke.sql calls what the version brought, in every mode, and leaves nothing behind."""

from __future__ import annotations

import asyncpg

from tests.conformance.conftest import Ground
from tests.conformance.world import World, bind


async def smoke(world: World, connection: asyncpg.Connection, version: int) -> None:
    template = world.template
    api = template.default_api(version)
    path = f'"{world.a.schema}__api_v{api}", "{world.a.schema}", extensions, pg_temp'
    sql = template.version(version).smoke
    assert sql, f"version {version} has no smoke.sql"
    await connection.execute(f"SET LOCAL search_path = {path}")
    await connection.execute(sql)


async def test_each_version_passes_its_smoke_test_one_after_the_other(ground: Ground, mode: str) -> None:
    world = await ground.world(mode, version=1)
    template = world.template
    for version in range(1, template.latest + 1):
        if version > 1:
            async with world.admin(world.a) as connection:
                message = template.script(version - 1, version).message(world.a.home.id, world.a.schema, 2)
                await connection.execute(message)
        async with world.request(world.a) as connection:
            transaction = connection.transaction()
            await transaction.start()
            await bind(connection, world.a)
            await smoke(world, connection, version)
            await transaction.rollback()
        async with world.within(world.a) as connection:
            assert await connection.fetchval("SELECT count(*) FROM tb_project") == 3
