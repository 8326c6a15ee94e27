"""An application on `control_plane.tenancy`: whose rows its sessions see, and what they leave behind."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import BackgroundTasks, FastAPI, HTTPException
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, InvalidRequestError, ResourceClosedError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from control_plane.errors import ConfigurationError, ControlPlaneError
from control_plane.identity.issuers import development_issuer
from control_plane.identity.tokens import mint_platform_token, mint_tenant_token
from control_plane.pools.placement import Placements
from control_plane.pools.requests import RequestPools
from control_plane.pools.sessions import TenantSessions
from control_plane.settings import Settings
from control_plane.tenancy import CurrentPrincipal, TenantSession, install_tenancy
from tests.support.members import Member, Members

MODES = ("shared", "schema", "database")
NAMES = text("SELECT name FROM tb_project ORDER BY name")
ADD = text("INSERT INTO tb_project (name) VALUES (:name)")


def application() -> FastAPI:
    app = FastAPI()

    @app.get("/public")
    async def public() -> str:
        return "open"

    @app.get("/whoami")
    async def whoami(principal: CurrentPrincipal) -> str:
        return str(principal.tenant_id)

    @app.get("/names")
    async def names(session: TenantSession) -> list[str]:
        return list(await session.scalars(NAMES))

    @app.get("/projects")
    async def projects(session: TenantSession) -> list[dict[str, Any]]:
        rows = await session.execute(text("SELECT * FROM tb_project"))
        return [dict(row) for row in rows.mappings()]

    @app.post("/names")
    async def add(name: str, session: TenantSession) -> str:
        await session.execute(ADD, {"name": name})
        return name

    @app.post("/commit-between")
    async def commit_between(name: str, session: TenantSession) -> list[str]:
        await session.execute(ADD, {"name": name})
        await session.commit()
        await session.execute(ADD, {"name": f"{name} again"})
        await session.rollback()
        return list(await session.scalars(NAMES))

    @app.post("/refuse")
    async def refuse(name: str, session: TenantSession) -> str:
        await session.execute(ADD, {"name": name})
        raise HTTPException(409, "no")

    return app


class World:
    """An application with tenants."""

    def __init__(self, members: Members, settings: Settings) -> None:
        self.members = members
        self.settings = settings
        self.app = application()
        install_tenancy(self.app, settings)

    @property
    def sessions(self) -> TenantSessions:
        sessions: TenantSessions = self.app.state.tenant_sessions
        return sessions

    def token(self, member: Member) -> dict[str, str]:
        token = mint_tenant_token(development_issuer(self.settings), member.id, member.user_id)
        return {"Authorization": f"Bearer {token}"}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[httpx.AsyncClient]:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.app.router.lifespan_context(self.app))
            yield await stack.enter_async_context(
                httpx.AsyncClient(transport=transport, base_url="http://app", timeout=60)
            )


@pytest.fixture
def world(members: Members, settings: Settings) -> World:
    small = {"shared_pool_size": 2, "dedicated_pool_size": 2, "acquire_timeout": 30.0}
    return World(members, settings.model_copy(update=small))


@pytest_asyncio.fixture
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with world.running() as opened:
        yield opened


def code(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


@pytest.mark.parametrize("mode", MODES)
async def test_each_tenant_reads_and_writes_its_own_tables(world: World, client: httpx.AsyncClient, mode: str) -> None:
    acme, other = await world.members.add("acme", mode), await world.members.add("other", mode)
    for member in (acme, other):
        added = await client.post("/names", params={"name": member.slug}, headers=world.token(member))
        assert added.status_code == 200, added.text
    for member in (acme, other):
        assert (await client.get("/names", headers=world.token(member))).json() == [member.slug]
        assert (await client.get("/whoami", headers=world.token(member))).json() == str(member.id)
        rows = (await client.get("/projects", headers=world.token(member))).json()
        assert [row["tenant_id"] for row in rows] == [str(member.id)]


@pytest.mark.parametrize("mode", MODES)
async def test_interleaved_requests_of_two_tenants_never_mix(
    world: World, client: httpx.AsyncClient, mode: str
) -> None:
    tenants = [await world.members.add("acme", mode), await world.members.add("other", mode)]
    for member in tenants:
        await client.post("/names", params={"name": member.slug}, headers=world.token(member))

    async def ask(member: Member) -> None:
        answer = await client.get("/names", headers=world.token(member))
        assert (answer.status_code, answer.json()) == (200, [member.slug])

    await asyncio.gather(*(ask(member) for _ in range(100) for member in tenants))


@pytest.mark.parametrize("mode", MODES)
async def test_the_tenant_outlives_commits_and_rollbacks_of_the_endpoint(
    world: World, client: httpx.AsyncClient, mode: str
) -> None:
    acme, other = await world.members.add("acme", mode), await world.members.add("other", mode)
    await client.post("/names", params={"name": "theirs"}, headers=world.token(other))
    answer = await client.post("/commit-between", params={"name": "mine"}, headers=world.token(acme))
    assert answer.json() == ["mine"]


async def test_an_exception_rolls_back(world: World, client: httpx.AsyncClient) -> None:
    headers = world.token(await world.members.add("acme"))
    assert code(await client.post("/refuse", params={"name": "no"}, headers=headers)) == (409, "conflict")
    assert (await client.get("/names", headers=headers)).json() == []


async def test_a_commit_that_fails_is_no_success(world: World, client: httpx.AsyncClient) -> None:
    headers = world.token(await world.members.add("acme", "schema"))

    @world.app.post("/lost")
    async def lost(session: TenantSession) -> str:
        await session.execute(ADD, {"name": "lost"})
        await terminate(world.members, "control-plane library")
        return "fine"

    answer = await client.post("/lost", headers=headers)
    assert code(answer) == (503, "unavailable")
    assert answer.headers["retry-after"]
    assert (await client.get("/names", headers=headers)).json() == []


async def terminate(members: Members, application_name: str) -> None:
    async with members.databases.admin(members.cluster) as admin:
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1", application_name
        )


async def test_the_database_s_refusals_are_problems(world: World, client: httpx.AsyncClient) -> None:
    headers = world.token(await world.members.add("acme"))
    assert code(await client.post("/names", params={"name": ""}, headers=headers)) == (422, "unprocessable")


async def test_who_may_call(world: World, client: httpx.AsyncClient) -> None:
    assert (await client.get("/public")).json() == "open"
    assert code(await client.get("/names")) == (401, "unauthenticated")
    assert code(await client.get("/names", headers={"Authorization": "Bearer no"})) == (401, "invalid_token")
    platform = mint_platform_token(development_issuer(world.settings), "tests", ["*"])
    assert code(await client.get("/names", headers={"Authorization": f"Bearer {platform}"})) == (
        403,
        "wrong_token_kind",
    )


@pytest.mark.parametrize("mode", MODES)
async def test_a_suspended_tenant_is_refused_at_once(world: World, client: httpx.AsyncClient, mode: str) -> None:
    acme = await world.members.add("acme", mode)
    headers = world.token(acme)
    assert (await client.get("/names", headers=headers)).status_code == 200
    await world.members.set_state(acme, "suspended")
    assert code(await client.get("/names", headers=headers)) == (403, "tenant_suspended")
    assert code(await client.post("/names", params={"name": "no"}, headers=headers)) == (403, "tenant_suspended")
    await world.members.set_state(acme, "active")
    assert (await client.get("/names", headers=headers)).json() == []


@pytest.mark.parametrize("mode", MODES)
async def test_an_outdated_placement_is_read_again(world: World, client: httpx.AsyncClient, mode: str) -> None:
    acme = await world.members.add("acme", mode)
    headers = world.token(acme)
    await client.post("/names", params={"name": "mine"}, headers=headers)
    await world.members.set_state(acme, "active", epoch=2)
    moving = await client.get("/names", headers=headers)  # until the registry says so too
    assert code(moving) == (503, "tenant_moving")
    assert moving.headers["retry-after"] == "1"
    await world.members.record(acme, epoch=2)
    assert (await client.get("/names", headers=headers)).json() == ["mine"]


async def test_the_isolation_level_survives_the_change_of_place(world: World, client: httpx.AsyncClient) -> None:
    acme = await world.members.add("acme", "schema")
    headers = world.token(acme)
    options = {"isolation_level": "SERIALIZABLE", "postgresql_readonly": True}

    @world.app.get("/level")
    async def level(session: TenantSession) -> list[str]:
        await session.connection(execution_options=options)
        settings = ("transaction_isolation", "transaction_read_only", "app.current_tenant_id")
        return [await session.scalar(text(f"SHOW {name}")) for name in settings]

    for epoch in (1, 2):
        await world.members.set_state(acme, "active", epoch=epoch)
        await world.members.record(acme, epoch=epoch)
        answer = await client.get("/level", headers=headers)
        assert answer.json() == ["serializable", "on", str(acme.id)]


async def test_a_deleted_tenant_is_not_found(world: World, client: httpx.AsyncClient) -> None:
    acme = await world.members.add("acme", "shared")
    headers = world.token(acme)
    await client.get("/names", headers=headers)
    await world.members.record(acme, status="deleting")
    await world.members.drop(acme)
    for _ in range(2):
        assert code(await client.get("/names", headers=headers)) == (404, "tenant_not_found")


LEFT_BEHIND = {
    "SET search_path = pg_catalog": "SHOW search_path",
    "SET TimeZone = 'Asia/Tokyo'": "SHOW TimeZone",
    "SELECT set_config('app.anything', 'left', false)": "SELECT coalesce(current_setting('app.anything', true), '')",
    "PREPARE left_behind AS SELECT 1": "SELECT count(*) FROM pg_prepared_statements WHERE name = 'left_behind'",
    "SELECT pg_advisory_lock(42)": "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 42",
    "DECLARE left_behind CURSOR WITH HOLD FOR SELECT 1": "SELECT count(*) FROM pg_cursors WHERE name = 'left_behind'",
    "LISTEN left_behind": "SELECT count(*) FROM pg_listening_channels()",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY": "SHOW default_transaction_read_only",
}


@pytest.mark.parametrize("left", LEFT_BEHIND)
async def test_nothing_of_a_session_reaches_the_next_request(members: Members, settings: Settings, left: str) -> None:
    world = World(members, settings.model_copy(update={"shared_pool_size": 1}))
    acme, other = await members.add("acme"), await members.add("other")
    look = LEFT_BEHIND[left]

    @world.app.post("/leave")
    async def leave(session: TenantSession) -> int:
        await session.execute(text(left))
        return await backend(session)

    @world.app.get("/look")
    async def looked(session: TenantSession) -> tuple[int, str]:
        return await backend(session), str(await session.scalar(text(look)))

    async with world.running() as client:
        before = (await client.get("/look", headers=world.token(other))).json()
        pid = (await client.post("/leave", headers=world.token(acme))).json()
        after = (await client.get("/look", headers=world.token(other))).json()
    assert pid == before[0] == after[0]  # it was the same connection
    assert after[1] == before[1]


async def backend(session: AsyncSession) -> int:
    pid: int = await session.scalar(text("SELECT pg_backend_pid()"))
    return pid


async def test_a_request_goes_on_after_a_migration(world: World, client: httpx.AsyncClient) -> None:
    acme = await world.members.add("acme", "schema", version=1)
    headers = world.token(acme)
    await client.post("/names", params={"name": "old"}, headers=headers)
    before = (await client.get("/projects", headers=headers)).json()
    script = world.members.template.script(1, 3)
    async with world.members.databases.admin(world.members.cluster) as admin:
        await admin.execute(script.message(acme.home.id, acme.home.schema_name, lock_timeout=2.0))
    after = await client.get("/projects", headers=headers)
    assert after.status_code == 200, after.text
    assert after.json() == [{**before[0], "description": ""}]


async def test_past_the_budget_the_answer_is_503_with_retry_after(members: Members, settings: Settings) -> None:
    tight = {"cluster_connections": 2, "dedicated_pool_size": 2, "acquire_timeout": 0.05}
    world = World(members, settings.model_copy(update=tight))
    acme = await members.add("acme", "schema")
    held, release = asyncio.Semaphore(0), asyncio.Event()

    @world.app.get("/hold")
    async def hold(session: TenantSession) -> None:
        await session.execute(text("SELECT 1"))
        held.release()
        await release.wait()

    async with world.running() as client:
        holding = [asyncio.create_task(client.get("/hold", headers=world.token(acme))) for _ in range(2)]
        for _ in holding:
            await held.acquire()
        answer = await client.get("/names", headers=world.token(acme))
        assert code(answer) == (503, "pool_exhausted")
        assert answer.headers["retry-after"] == "1"
        release.set()
        assert [(await each).status_code for each in holding] == [200, 200]
        assert (await client.get("/names", headers=world.token(acme))).status_code == 200


async def test_a_session_between_transactions_holds_no_connection(members: Members, settings: Settings) -> None:
    world = World(members, settings.model_copy(update={"shared_pool_size": 1, "acquire_timeout": 5.0}))
    acme = await members.add("acme")
    async with world.running(), world.sessions.open(acme.caller) as first, world.sessions.open(acme.caller) as second:
        for session in (first, second, first):
            await session.execute(NAMES)
            await session.commit()


async def test_a_session_is_of_no_use_after_its_endpoint(world: World, client: httpx.AsyncClient) -> None:
    raised: list[BaseException] = []

    async def afterwards(session: AsyncSession) -> None:
        try:
            await session.execute(NAMES)
        except InvalidRequestError as error:
            raised.append(error)

    @world.app.post("/later")
    async def later(session: TenantSession, background: BackgroundTasks) -> None:
        await session.execute(NAMES)
        background.add_task(afterwards, session)

    await client.post("/later", headers=world.token(await world.members.add("acme")))
    assert len(raised) == 1


def engine_of(sessions: TenantSessions) -> AsyncEngine:
    return sessions._engine


@pytest.mark.parametrize("mode", MODES)
async def test_without_a_tenant_no_statement_runs(world: World, client: httpx.AsyncClient, mode: str) -> None:
    acme = await world.members.add("acme", mode)
    await client.post("/names", params={"name": "secret"}, headers=world.token(acme))
    async with AsyncSession(engine_of(world.sessions)) as session:
        with pytest.raises(ControlPlaneError, match="not for a tenant"):
            await session.execute(NAMES)
    async with world.sessions.open(acme.caller._replace(tenant_id=None)) as session:  # type: ignore[arg-type]
        with pytest.raises(ControlPlaneError):
            await session.execute(NAMES)
    async with world.sessions.open(acme.caller._replace(user_id=None)) as session:
        with pytest.raises(DBAPIError, match="needs a tenant and a user"):
            await session.execute(NAMES)


@pytest.mark.parametrize("mode", MODES)
async def test_a_connection_taken_from_the_session_s_engine_is_bound_too(
    world: World, client: httpx.AsyncClient, mode: str
) -> None:
    acme = await world.members.add("acme", mode)
    await client.post("/names", params={"name": "mine"}, headers=world.token(acme))
    async with world.sessions.open(acme.caller) as session:

        def take(_: Any) -> list[str]:
            with session.get_bind().connect() as connection:  # type: ignore[union-attr]
                assert connection.scalar(text("SELECT tenancy.current_tenant_id()")) == acme.id
                return list(connection.scalars(NAMES))

        assert await session.run_sync(take) == ["mine"]


@pytest.mark.parametrize("mode", MODES)
async def test_autocommit_is_refused_since_nothing_could_bind_it(
    world: World, client: httpx.AsyncClient, mode: str
) -> None:
    acme = await world.members.add("acme", mode)
    async with world.sessions.open(acme.caller) as session:
        for _ in range(2):
            with pytest.raises(ControlPlaneError, match="AUTOCOMMIT"):
                await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        assert list(await session.scalars(NAMES)) == []


@pytest.mark.parametrize("mode", MODES)
async def test_a_connection_that_could_not_be_bound_runs_nothing(
    world: World, client: httpx.AsyncClient, mode: str
) -> None:
    acme = await world.members.add("acme", mode)
    await client.post("/names", params={"name": "secret"}, headers=world.token(acme))
    await world.members.set_state(acme, "suspended")
    async with world.sessions.open(acme.caller) as session:

        def insist(_: Any) -> None:
            for options in ({}, {"isolation_level": "AUTOCOMMIT"}):
                connection = session.get_bind().connect().execution_options(**options)  # type: ignore[union-attr]
                with pytest.raises((DBAPIError, ControlPlaneError)):
                    connection.scalars(NAMES)
                with pytest.raises(ResourceClosedError):
                    connection.scalars(NAMES)

        await session.run_sync(insist)


async def test_a_session_of_a_suspended_tenant_stays_refused(world: World, client: httpx.AsyncClient) -> None:
    acme = await world.members.add("acme", "schema")
    await world.members.set_state(acme, "suspended")
    async with world.sessions.open(acme.caller) as session:
        for _ in range(2):
            with pytest.raises(DBAPIError, match="suspended"):
                await session.execute(NAMES)
        await session.rollback()
        with pytest.raises(DBAPIError, match="suspended"):
            await session.execute(NAMES)


async def test_cancelled_sessions_give_their_connections_back(members: Members, settings: Settings) -> None:
    acme = await members.add("acme")
    small = settings.model_copy(update={"shared_pool_size": 2, "acquire_timeout": 30.0})
    pools = RequestPools(members.databases, small, full_reset=True)
    sessions = TenantSessions(pools, Placements(members.databases))

    async def work() -> None:
        async with sessions.open(acme.caller) as session:
            await session.execute(text("SELECT pg_sleep(0.02)"))

    tasks = [asyncio.create_task(work()) for _ in range(60)]
    for number, task in enumerate(tasks):
        await asyncio.sleep(0.003)
        if number % 2:
            task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(outcome is None or isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    await asyncio.gather(*(work() for _ in range(4)))
    await sessions.aclose()
    await pools.aclose()
    assert pools.open_connections(members.cluster.id) == 0


async def test_a_loan_that_nobody_returns_is_not_lost_to_the_pool(members: Members, settings: Settings) -> None:
    acme = await members.add("acme")
    pools = RequestPools(members.databases, settings.model_copy(update={"shared_pool_size": 1}), full_reset=True)
    sessions = TenantSessions(pools, Placements(members.databases))
    attempts = iter([TimeoutError])

    @event.listens_for(engine_of(sessions).sync_engine, "connect")
    def fail_once(*_: object) -> None:
        for error in attempts:
            raise error

    with pytest.raises(TimeoutError):
        async with sessions.open(acme.caller) as session:
            await session.execute(NAMES)
    await sessions._lend(acme.caller)
    gc.collect()
    async with sessions.open(acme.caller) as session:
        assert list(await session.scalars(NAMES)) == []
    await pools.aclose()


async def test_the_application_s_own_lifespan_still_runs(members: Members, settings: Settings) -> None:
    seen: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        seen.append("opened" if app.state.tenant_sessions else "")
        yield {"own": "state"}
        seen.append("closed")

    app = FastAPI(lifespan=lifespan)
    install_tenancy(app, settings)
    async with app.router.lifespan_context(app) as state:
        assert state == {"own": "state"}
    assert seen == ["opened", "closed"]


def test_an_installation_must_be_named() -> None:
    with pytest.raises(ConfigurationError, match="which"):
        install_tenancy(FastAPI(), Settings.model_validate({"signing_key": "x" * 32}))


async def test_an_application_whose_lifespan_did_not_run_says_so(world: World) -> None:
    headers = world.token(await world.members.add("acme"))
    transport = httpx.ASGITransport(world.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as opened:
        assert code(await opened.get("/names", headers=headers)) == (500, "configuration")
