"""The connection pooler before a cluster: its address, who may log in through it, and what it does to sessions."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

import asyncpg
from sqlalchemy import select

from control_plane.errors import ClusterUnavailable, InvalidInput
from control_plane.isolation.finding import Finding
from control_plane.isolation.login import scram_verifier, verifier_call
from control_plane.pools.connect import BROKEN, connect
from control_plane.pools.databases import Databases
from control_plane.registry.models import Cluster, Home

_OPTIONS = frozenset({"host", "port", "sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl"})
_MANUAL = "see docs/pgbouncer.md"
_SECONDS = 5.0


def pooler_address(text: str) -> str:
    """`text`, if it is the address of a pooler and nothing else; raises `InvalidInput`."""
    hint = (
        "postgresql://host:6432, with sslmode and the like as parameters; roles and databases are those of the homes."
    )
    try:
        parts = urlsplit(text)
        options = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        port_is_one = parts.port != 0
    except ValueError as error:
        raise InvalidInput("The pooler's address is not valid.", hint=hint) from error
    there = parts.hostname or any(name == "host" for name, _ in options)
    if parts.scheme not in ("postgresql", "postgres") or not there or not port_is_one or not text.isprintable():
        raise InvalidInput("The pooler's address is not valid.", hint=hint)
    names = {name for name, _ in options}
    if parts.username is not None or parts.path not in ("", "/") or not names <= _OPTIONS or parts.fragment:
        raise InvalidInput("The pooler's address may name no role, password or database.", hint=hint)
    return text


async def admit_logins(databases: Databases, cluster: Cluster) -> None:
    """Let the pooler check the passwords of all login roles; needed for homes that an older release has built."""
    homes: dict[str, list[Home]] = {}
    async with databases.registry() as session:
        for home in await session.scalars(select(Home).where(Home.cluster_id == cluster.id, Home.ready)):
            homes.setdefault(home.database, []).append(home)
    for database, each in homes.items():
        with suppress(asyncpg.InvalidCatalogNameError):  # cp doctor tells
            async with databases.admin(cluster, database, purpose="pooler") as connection:
                await connection.execute(f'GRANT CONNECT ON DATABASE "{database}" TO cp_pooler')
                for home in each:
                    # A tenant may be going at this moment.
                    with suppress(asyncpg.UndefinedObjectError, asyncpg.ForeignKeyViolationError):
                        await connection.execute(_admission(databases, home))


def _admission(databases: Databases, home: Home) -> str:
    verifier = scram_verifier(databases.box.open(home.password))
    return (
        f'ALTER ROLE "{home.role_name}" PASSWORD \'{verifier}\'; ALTER ROLE "{home.role_name}" SET jit = off;'
        + verifier_call(home, databases.box)
    )


async def pooler_findings(databases: Databases, cluster: Cluster) -> list[Finding]:
    """What is wrong with the cluster's pooler, as far as a client can see; nothing without one.

    It is asked as the login role of some home. Without any, all that can be told is whether somebody answers.
    """
    if cluster.pooler is None:
        return []
    async with databases.registry() as session:
        home = await session.scalar(select(Home).where(Home.cluster_id == cluster.id, Home.ready).limit(1))
    try:
        connection = await connect(
            cluster.pooler,
            application_name="control-plane check",
            database=home.database if home else cluster.database,
            user=home.role_name if home else cluster.database,
            password=databases.box.open(home.password) if home else uuid4().hex,
            timeout=_SECONDS,
            command_timeout=_SECONDS,
            statement_cache_size=0,
            server_settings={"client_encoding": "UTF8"},
        )
    except ClusterUnavailable as error:
        problem = f"cannot be reached, or cannot reach the server ({error.details})"
        fix = f"start it, or go without: cp cluster set-pooler {cluster.name} --none"
        return [Finding("pooler_unreachable", cluster.pooler, problem, fix, fatal=False)]
    except asyncpg.PostgresError as error:
        if home is None:
            return []
        problem = f"does not let the login roles of tenants in: {error}"
        return [Finding("pooler_login", cluster.pooler, problem, f"auth_user and auth_query: {_MANUAL}", fatal=False)]
    try:
        return [*await _mode_findings(connection, cluster.pooler), *await _state_findings(connection, cluster.pooler)]
    except BROKEN as error:
        problem = f"does not carry out statements: {error}"
        return [Finding("pooler_unreachable", cluster.pooler, problem, "see its log", fatal=False)]
    finally:
        connection.terminate()


async def _mode_findings(connection: asyncpg.Connection, address: str) -> list[Finding]:
    try:
        async with connection.transaction():
            return []
    except BROKEN as error:  # PgBouncer says so and hangs up
        if "statement pooling" not in str(error):
            raise
    problem = "pools single statements, which serves the API and refuses the transactions of the library"
    return [Finding("pooler_mode", address, problem, "pool_mode = transaction", fatal=False)]


async def _state_findings(connection: asyncpg.Connection, address: str) -> list[Finding]:
    """Whether a later statement finds what an earlier one left in the session, outside of a transaction."""
    if connection.is_closed():
        return []
    mark = uuid4().hex
    for _ in range(3):  # the session may be another by chance
        await connection.execute(f"SET app.pooler_check = '{mark}'")
        kept = await connection.fetchval("SELECT current_setting('app.pooler_check', true)")
        if kept == mark:
            await connection.execute("RESET app.pooler_check")
            problem = "lends a session with what the client before has left in it"
            fix = f"pool_mode = transaction and server_reset_query_always = 1: {_MANUAL}"
            return [Finding("pooler_state", address, problem, fix)]
    return []
