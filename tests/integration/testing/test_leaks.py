"""The contract sees each way in which an application tells one tenant of another, and says which it was."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest
from anyio.from_thread import BlockingPortal
from fastapi import BackgroundTasks, HTTPException, Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.pools.gate import Caller
from control_plane.pools.session_state import ResetConnection
from control_plane.tenancy import CurrentPrincipal, TenantSession, tenant_context
from control_plane.tenancy.dependencies import tenant_session
from control_plane.testing import FailedAfterAnswer, Installation, Tenancy, TenancyContract, Tenant, application
from control_plane.testing.application import run_application
from tests.integration.testing.notes import (
    ADD,
    LIST,
    Endpoint,
    New,
    NotesContract,
    Owner,
    WholeContract,
    delete_note,
    list_notes,
    notes,
    rename_note,
    show_note,
)

Running = Callable[[Mapping[str, Endpoint]], Any]
READS = TenancyContract.test_reads_show_a_tenant_only_its_own
UNKNOWN = TenancyContract.test_rows_of_others_are_answered_like_unknown_ones
WRITES = TenancyContract.test_writes_change_nothing_of_another_tenant
CARRIED = TenancyContract.test_connections_carry_nothing_to_the_next_tenant
OUTLIVES = TenancyContract.test_the_tenant_outlives_transactions_and_failures
CANCELLED = TenancyContract.test_cancelled_requests_leave_nothing_behind
FAILED = pytest.fail.Exception


@pytest.fixture
def running(tenancy_installation: Installation, tenancy_portal: BlockingPortal) -> Running:
    @contextmanager
    def run(changed: Mapping[str, Endpoint]) -> Iterator[Tenancy]:
        app = notes(tenancy_installation.settings, dict(changed))
        with run_application(app, tenancy_installation, tenancy_portal) as tenancy:
            yield tenancy

    return run


def check(tenancy: Tenancy, test: Callable[..., None], contract: TenancyContract | None = None) -> None:
    test(contract or WholeContract(), tenancy, tenancy.pair("shared"))


def red(tenancy: Tenancy, test: Callable[..., None], *messages: str, contract: TenancyContract | None = None) -> None:
    """The test fails, and its text has all `messages`."""
    with pytest.raises(FAILED) as failure:
        check(tenancy, test, contract)
    for message in messages:
        assert message in str(failure.value)


@pytest.mark.parametrize("test", [READS, UNKNOWN, WRITES, OUTLIVES])
def test_a_sound_application_passes(running: Running, test: Callable[..., None]) -> None:
    with running({}) as tenancy:  # in the other modes, and with the other tests, the help desk passes
        check(tenancy, test)


def test_rows_may_be_made_by_a_coroutine_without_an_endpoint(running: Running) -> None:
    class ByJob(WholeContract):
        async def fill(self, tenant: Tenant, marker: str) -> dict[str, Any]:  # type: ignore[override]
            async with tenant_context(tenant.id, tenant.user_id, of=tenant.app) as session:
                note = (await session.execute(ADD, {"title": marker})).mappings().one()
            assert marker in (await tenant.async_client.get("/notes")).text
            return {"note_id": note["id"], "q": marker}

    with running({}) as tenancy:
        check(tenancy, READS, ByJob())


# Reads


def test_a_cache_without_the_tenant_in_its_key(running: Running) -> None:
    kept: dict[str, Any] = {}

    async def cached(request: Request, session: TenantSession) -> Any:
        if request.url.path not in kept:
            kept[request.url.path] = await list_notes(session)
        return kept[request.url.path]

    with running({"GET /notes": cached}) as tenancy:
        expected = "GET /notes shows bravo-shared what belongs to alpha-shared (shared): its note_id ("
        red(tenancy, READS, expected, "the marker (canary", "as bravo-shared: GET /notes", "A cache whose key lacks")


def test_a_cache_by_id(running: Running) -> None:
    kept: dict[UUID, Any] = {}

    async def cached(note_id: UUID, session: TenantSession) -> Any:
        kept[note_id] = kept.get(note_id) or await show_note(note_id, session)
        return kept[note_id]

    with running({"GET /notes/{note_id}": cached}) as tenancy:
        red(tenancy, READS, "GET /notes/{note_id} shows bravo-shared what belongs to alpha-shared")


def test_an_engine_of_the_applications_own(running: Running, tenancy_installation: Installation) -> None:
    owner = Owner(tenancy_installation)

    async def everything(principal: CurrentPrincipal) -> list[dict[str, Any]]:
        return [dict(row) for row in await owner.run("SELECT id, title FROM tb_note")]

    with running({"GET /notes": everything}) as tenancy:
        red(tenancy, READS, "GET /notes shows bravo-shared", "GET /notes shows alpha-shared")


def test_a_session_that_is_kept_between_requests(running: Running) -> None:
    kept: list[AsyncSession] = []

    async def first_come(request: Request, principal: CurrentPrincipal) -> Any:
        assert principal.tenant_id
        if not kept:
            caller = Caller(principal.tenant_id, principal.user_id, None, ())
            kept.append(request.app.state.tenancy.sessions.open(caller))
        return [dict(row) for row in (await kept[0].execute(LIST)).mappings()]

    with running({"GET /notes": first_come}) as tenancy:
        red(tenancy, READS, "GET /notes shows bravo-shared what belongs to alpha-shared")
        tenancy.run(kept[0].close)


def test_a_header_that_tells(running: Running) -> None:
    last: list[str] = ["none"]

    async def listed(response: Response, session: TenantSession) -> Any:
        response.headers["X-Last-Note"] = last[0]
        rows = await list_notes(session)
        last[0] = str(rows[0]["id"])
        return rows

    with running({"GET /notes": listed}) as tenancy:
        red(tenancy, READS, "in the headers")


def test_an_id_that_is_forbidden_instead_of_unknown(running: Running, tenancy_installation: Installation) -> None:
    owner = Owner(tenancy_installation)

    async def shown(note_id: UUID, session: TenantSession) -> Any:
        try:
            return await show_note(note_id, session)
        except HTTPException:
            exists = await owner.run("SELECT FROM tb_note WHERE id = $1", note_id)
            raise HTTPException(403 if exists else 404) from None

    with running({"GET /notes/{note_id}": shown}) as tenancy:
        red(tenancy, UNKNOWN, "GET /notes/{note_id} tells bravo-shared that a row of alpha-shared exists", "404", "403")


# Writes


def test_a_write_behind_a_refusal(running: Running, tenancy_installation: Installation) -> None:
    owner = Owner(tenancy_installation)

    async def renamed(note_id: UUID, new: New, session: TenantSession) -> Any:
        await owner.run("UPDATE tb_note SET title = $2 WHERE id = $1", note_id, new.title)
        return await rename_note(note_id, new, session)

    with running({"PUT /notes/{note_id}": renamed}) as tenancy:
        red(tenancy, WRITES, "PUT /notes/{note_id} let bravo-shared change tb_note of alpha-shared", "404")


def test_a_deletion_that_always_succeeds(running: Running) -> None:
    async def deleted(note_id: UUID, session: TenantSession) -> None:
        try:
            await delete_note(note_id, session)
        except HTTPException:
            return

    with running({"DELETE /notes/{note_id}": deleted}) as tenancy:
        red(tenancy, WRITES, "DELETE /notes/{note_id} accepts from bravo-shared a row of alpha-shared")


def test_a_row_that_is_tied_to_one_of_another(running: Running, tenancy_installation: Installation) -> None:
    owner = Owner(tenancy_installation)

    async def merged(new: New, session: TenantSession) -> list[str]:
        return [row["title"] for row in await owner.run("SELECT title FROM tb_note WHERE id = $1", UUID(new.title))]

    class Merging(WholeContract):
        bodies = {**WholeContract.bodies, "POST /merge": lambda ids: {"title": ids["note_id"]}}  # noqa: RUF012

    with running({"POST /merge": merged}) as tenancy:
        red(tenancy, WRITES, "POST /merge accepts", "POST /merge shows bravo-shared what", contract=Merging())


def test_a_row_of_ones_own_that_is_tied_to_one_of_another(running: Running, tenancy_installation: Installation) -> None:
    owner = Owner(tenancy_installation)

    async def copied(note_id: UUID, new: New, session: TenantSession) -> list[str]:
        await show_note(note_id, session)
        return [row["title"] for row in await owner.run("SELECT title FROM tb_note WHERE id = $1", UUID(new.title))]

    name = "PUT /notes/{note_id}/copy"

    class Copying(WholeContract):
        bodies = {**WholeContract.bodies, name: lambda ids: {"title": ids["note_id"]}}  # noqa: RUF012

    with running({name: copied}) as tenancy:
        red(tenancy, WRITES, f"{name} accepts from bravo-shared", f"{name} shows bravo-shared", contract=Copying())


# What proves nothing


def test_a_marker_that_is_nowhere(running: Running) -> None:
    class Blind(NotesContract):
        def fill(self, tenant: Any, marker: str) -> dict[str, Any]:
            return super().fill(tenant, "something else") | {"q": "x"}

    with running({}) as tenancy:
        red(tenancy, READS, "No read shows alpha-shared the marker", "proves nothing", contract=Blind())


def test_a_parameter_without_a_value(running: Running) -> None:
    class Forgetful(NotesContract):
        def fill(self, tenant: Any, marker: str) -> dict[str, Any]:
            return {"q": super().fill(tenant, marker)["q"]}

    with running({}) as tenancy:
        red(tenancy, READS, "GET /notes/{note_id} was not asked: fill() returns no value", contract=Forgetful())
        red(tenancy, WRITES, "DELETE /notes/{note_id} was not asked", contract=Forgetful())


def test_a_body_that_gets_nowhere(running: Running) -> None:
    with running({}) as tenancy:
        expected = "PUT /notes/{note_id} refuses the tenant whose rows it is asked for (shared)."
        red(tenancy, WRITES, expected, "say in `bodies` what it is sent", contract=NotesContract())


def test_a_name_that_fits_nothing(running: Running) -> None:
    class Misspelt(WholeContract):
        public = ("/helthz",)
        exempt = ("GET /note",)

    with running({}) as tenancy, pytest.raises(FAILED, match=r"(?s)no route /helthz.*no route GET /note\."):
        Misspelt().test_every_route_demands_a_tenant(tenancy)


# Routes


def test_a_route_without_a_tenant(running: Running) -> None:
    async def count() -> int:
        return 7

    with running({"GET /notes/count": count}) as tenancy:
        with pytest.raises(FAILED, match="/notes/count answers without a tenant"):
            WholeContract().test_every_route_demands_a_tenant(tenancy)
        WholeContract().test_without_a_token_no_route_answers(tenancy)


def test_a_route_whose_token_is_overridden(running: Running) -> None:
    async def nobody() -> AsyncIterator[None]:
        yield

    async def listed(session: TenantSession) -> None: ...

    with running({"GET /notes": listed}) as tenancy:
        WholeContract().test_without_a_token_no_route_answers(tenancy)
        tenancy.app.dependency_overrides[tenant_session] = nobody
        with pytest.raises(FAILED, match="GET /notes answers without a token"):
            WholeContract().test_without_a_token_no_route_answers(tenancy)


# Connections, transactions, tasks


def test_a_background_task_with_the_session_of_its_request(running: Running) -> None:
    async def added(new: New, session: TenantSession, background: BackgroundTasks) -> None:
        background.add_task(list_notes, session)

    with (
        running({"POST /notes": added}) as tenancy,
        pytest.raises(FailedAfterAnswer, match=r"(?s)POST /notes was answered with 200, and then.*tenant_context"),
    ):
        check(tenancy, READS)


def test_connections_that_are_not_reset(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    with running({}) as tenancy:
        check(tenancy, CARRIED)
        monkeypatch.setattr(ResetConnection, "get_reset_query", lambda _: "SELECT 1")
        found = ("a setting that alpha-shared left", "the search_path", "an open cursor", "a prepared statement")
        red(tenancy, CARRIED, *found, "bravo-shared finds")


def test_a_caller_in_a_global_variable(running: Running) -> None:
    current: list[Caller] = []

    async def mixed(request: Request, principal: CurrentPrincipal) -> Any:
        assert principal.tenant_id
        current[:] = [Caller(principal.tenant_id, principal.user_id, None, ())]
        await asyncio.sleep(0.002)  # whoever comes now changes it
        async with request.app.state.tenancy.sessions.open(current[0]) as session:
            return await list_notes(session)

    with running({"GET /notes": mixed}) as tenancy:
        check(tenancy, READS)  # one request at a time shows nothing
        red(tenancy, CARRIED, "GET /notes shows")


def test_a_session_of_whoever_came_first(running: Running) -> None:
    first: list[Caller] = []

    async def session_of_the_first(request: Request, principal: CurrentPrincipal) -> AsyncIterator[AsyncSession]:
        assert principal.tenant_id
        first.append(Caller(principal.tenant_id, principal.user_id, None, ()))
        async with request.app.state.tenancy.sessions.open(first[0]) as session:
            yield session

    with running({}) as tenancy:
        tenancy.app.dependency_overrides[tenant_session] = session_of_the_first
        red(tenancy, OUTLIVES, "a session of bravo-shared works for", "the token names")


def test_a_session_that_ends_with_its_commit(running: Running) -> None:
    async def session_for_one_commit(request: Request, principal: CurrentPrincipal) -> AsyncIterator[AsyncSession]:
        assert principal.tenant_id
        caller = Caller(principal.tenant_id, principal.user_id, None, ())
        async with request.app.state.tenancy.sessions.open(caller) as session:
            session.commit = session.close
            yield session

    with running({}) as tenancy:
        tenancy.app.dependency_overrides[tenant_session] = session_for_one_commit
        red(tenancy, OUTLIVES, "After a commit the session of alpha-shared does not go on (shared).")


def test_a_session_that_a_cancelled_request_keeps_although_others_are_over_sooner(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every second request is answered at once, as if from a cache."""
    monkeypatch.setattr(application, "TURN", 0.5)
    open_for_ever: list[AsyncSession] = []
    asked: Counter[UUID] = Counter()

    async def careless(request: Request, principal: CurrentPrincipal) -> Any:
        assert principal.tenant_id
        asked[principal.tenant_id] += 1
        if asked[principal.tenant_id] % 2:
            return []
        for _ in range(20):
            await asyncio.sleep(0)
        session = request.app.state.tenancy.sessions.open(Caller(principal.tenant_id, principal.user_id, None, ()))
        open_for_ever.append(session)
        rows = await list_notes(session)
        for _ in range(10):
            await asyncio.sleep(0.001)
        await session.close()
        open_for_ever.remove(session)
        return rows

    with running({"GET /notes": careless}) as tenancy:
        red(tenancy, CANCELLED, "pool_exhausted", "(shared)")
        for session in open_for_ever:
            tenancy.run(session.close)


def test_a_session_that_a_cancelled_request_keeps(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application, "TURN", 0.5)
    open_for_ever: list[AsyncSession] = []

    async def careless(request: Request, principal: CurrentPrincipal) -> Any:
        assert principal.tenant_id
        session = request.app.state.tenancy.sessions.open(Caller(principal.tenant_id, principal.user_id, None, ()))
        open_for_ever.append(session)
        rows = await list_notes(session)
        for _ in range(10):  # how often a request has waited until now varies with the machine, by more than one
            await asyncio.sleep(0.001)
        await session.close()
        open_for_ever.remove(session)
        return rows

    with running({"GET /notes": careless}) as tenancy:
        red(tenancy, CANCELLED, "pool_exhausted", "(shared)")
        for session in open_for_ever:
            tenancy.run(session.close)
