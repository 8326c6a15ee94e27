"""Two tenants on pools of two, through the real process, while clients vanish and sessions die, hang and time out.

Whatever is answered belongs to who asked, and at the end the pools are what they were.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import uuid4

import asyncpg
import pytest

from control_plane.embedded import EmbeddedServer
from control_plane.pools.connect import connect
from tests.support.installed import Resident, install
from tests.support.program import PATIENCE, Program, free_port
from tests.support.servers import dsn_with, temporary_home

SEED = 4
SECONDS = 4.0 if os.environ.get("CP_LONG_SAMPLE") else 60.0
CLIENTS = 200
POOL = 2
STATEMENT_TIMEOUT = 0.5  # seconds
ROWS = 5  # of each tenant, before
SETTINGS = {
    "CP_SHARED_POOL_SIZE": str(POOL),
    "CP_DEDICATED_POOL_SIZE": str(POOL),
    "CP_STATEMENT_TIMEOUT": str(STATEMENT_TIMEOUT),
    "CP_POOL_IDLE_SECONDS": "3600",
}
REFUSALS = {503, 504}  # of what was interrupted, ran out of time, or found the pool exhausted

_SESSIONS = "SELECT pid, state FROM pg_stat_activity WHERE usename = $1 AND backend_type = 'client backend'"


@dataclass
class Soak:
    """`wrong` says what no client should have been answered; `seen` counts what happened."""

    port: int
    tenants: list[Resident]
    superuser_dsn: str
    ids: dict[str, list[str]]  # slug → ids of the rows that were there before
    wrong: list[str] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)

    async def request(self, tenant: Resident, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """One request on a connection of its own. Raises `IncompleteReadError` when the answer is cut."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(_request(tenant, method, path, body))
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"\r\ncontent-length: (\d+)\r\n", head.lower())
            assert length is not None
            return int(head.split()[1]), await reader.readexactly(int(length[1]))
        finally:
            writer.close()

    async def client(self, number: int, until: float) -> None:
        choose = random.Random(f"{SEED}.{number}")
        while time.monotonic() < until:
            tenant = self.tenants[choose.randrange(2)]
            kind = choose.choices(("list", "one", "create", "vanish"), (4, 3, 2, 2))[0]
            if kind == "list":
                await self._list(tenant)
            elif kind == "one":
                await self._one(tenant, choose.choice(self.ids[tenant.slug]))
            elif kind == "create":
                await self._create(tenant)
            else:
                await self._vanish(tenant, choose)

    async def _list(self, tenant: Resident) -> None:
        status, body = await self.request(tenant, "GET", "/api/v1/projects?limit=50")
        if self._answered("list", status, body):
            owners = {each["name"].partition(" ")[0] for each in json.loads(body)}
            if owners != {tenant.slug}:
                self.wrong.append(f"the list of {tenant.slug} has rows of {owners}")

    async def _one(self, tenant: Resident, id_: str) -> None:
        status, body = await self.request(tenant, "GET", f"/api/v1/projects/{id_}")
        if self._answered("one", status, body) and json.loads(body)["id"] != id_:
            self.wrong.append(f"{id_} of {tenant.slug} was answered with {body.decode()}")

    async def _create(self, tenant: Resident) -> None:
        name = f"{tenant.slug} {uuid4()}"
        status, body = await self.request(tenant, "POST", "/api/v1/rpc/create_project", _named(name))
        if self._answered("create", status, body) and json.loads(body)["data"]["project"]["name"] != name:
            self.wrong.append(f"the creation of {name} was answered with {body.decode()}")

    async def _vanish(self, tenant: Resident, choose: random.Random) -> None:
        """A client that asks and is gone: before, while or after the statement runs, politely or by a reset."""
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        name = f"{tenant.slug} {uuid4()}"
        whole = _request(tenant, "POST", "/api/v1/rpc/create_project", _named(name))
        writer.write(whole[: choose.choice((len(whole) // 2, len(whole) - 1, len(whole)))])
        await asyncio.sleep(choose.uniform(0, 0.02))
        if choose.random() < 0.5:
            writer.transport.abort()
        writer.close()
        self.seen["vanished"] += 1

    def _answered(self, kind: str, status: int, body: bytes) -> bool:
        self.seen[f"{kind} {status}"] += 1
        if status != 200 and status not in REFUSALS:
            self.wrong.append(f"{kind}: {status} {body.decode()}")
        return status == 200

    async def disturb(self, until: float) -> None:
        """Ends, cancels and stops sessions, and holds the lock that every write of a tenant waits for."""
        choose = random.Random(f"{SEED}.disturber")
        admin = await connect(self.superuser_dsn, application_name="soak")
        try:
            while time.monotonic() < until:
                await asyncio.sleep(choose.uniform(0.01, 0.1))
                tenant = self.tenants[choose.randrange(2)]
                kind = choose.choices(("terminate", "cancel", "lock", "stop"), (6, 6, 2, 1))[0]
                if kind == "lock":
                    await self._lock(tenant)
                    continue
                pids = [row["pid"] for row in await admin.fetch(_SESSIONS, tenant.role)]
                if pids and kind == "stop":
                    await self._stop(choose.choice(pids))
                elif pids:
                    await admin.execute(f"SELECT pg_{kind}_backend({choose.choice(pids)})")
                    self.seen[kind] += 1
        finally:
            await admin.close()

    async def _lock(self, tenant: Resident) -> None:
        """Longer than a statement may take: writes run out of time."""
        holder = await connect(dsn_with(self.superuser_dsn, database=tenant.database), application_name="soak")
        try:
            await holder.execute(f"SELECT pg_advisory_lock(tenancy.tenant_lock('{tenant.id}'))")
            await asyncio.sleep(STATEMENT_TIMEOUT * 1.5)
        finally:
            await holder.close()
        self.seen["lock"] += 1

    async def _stop(self, pid: int) -> None:
        """A session that answers nothing for longer than the service waits for a statement, and then goes on."""
        try:
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(STATEMENT_TIMEOUT + 1.5)
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            return
        self.seen["stop"] += 1

    async def check_the_end(self) -> None:
        """No session is busy, none is lost: under load each home has as many as it may have, and all answer."""
        admin = await connect(self.superuser_dsn, application_name="soak")
        try:
            await self._until_idle(admin)
            for _ in range(5):
                reads = [self.request(tenant, "GET", "/api/v1/projects?limit=50") for tenant in self.tenants * 4]
                statuses = Counter(status for status, _ in await asyncio.gather(*reads))
                assert statuses == {200: len(reads)}
            open_ = await self._until_idle(admin)
            assert set(open_.values()) == {POOL}, open_
        finally:
            await admin.close()

    async def _until_idle(self, admin: asyncpg.Connection) -> dict[str, int]:
        """How many sessions each home has, once all of them are idle and those that were given up are gone."""
        deadline = time.monotonic() + PATIENCE
        while True:
            sessions = {each.role: await admin.fetch(_SESSIONS, each.role) for each in self.tenants}
            states = {row["state"] for rows in sessions.values() for row in rows}
            open_ = {role: len(rows) for role, rows in sessions.items()}
            if states <= {"idle"} and max(open_.values()) <= POOL:
                return open_
            assert time.monotonic() < deadline, sessions
            await asyncio.sleep(0.05)


def _request(tenant: Resident, method: str, path: str, body: bytes) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: a\r\nAuthorization: {tenant.token}\r\nConnection: close\r\n"
    if method == "POST":
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def _named(name: str) -> bytes:
    return json.dumps({"name": name}).encode()


@dataclass
class Installation:
    program: Program
    residents: list[Resident]
    superuser_dsn: str


@pytest.fixture(scope="module", params=["shared", "schema", "database"])
def installation(request: pytest.FixtureRequest) -> Iterator[Installation]:
    """Two tenants of one mode; the database server runs, the service does not."""
    with temporary_home() as home:
        residents = install(home, {"acme": request.param, "bcme": request.param})
        with EmbeddedServer(home) as server:
            yield Installation(Program(home, free_port(), **SETTINGS), residents, server.superuser_dsn)


@contextmanager
def serving(program: Program, breakage: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """The service, with `breakage` (statements) done to it before it starts."""
    output = program.home.parent / "serve.log"
    code = f"from control_plane.__main__ import main\n{breakage}\nmain()"
    with output.open("wb") as file:
        command = [sys.executable, "-c", code, "serve", "--no-worker"]
        process = subprocess.Popen(command, env=program.environment, stdout=file, stderr=subprocess.STDOUT)
    try:
        program.wait_until_ready(process, output)
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0, output.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


async def prepared(installation: Installation) -> Soak:
    """With some rows of each tenant."""
    port = int(installation.program.url.rpartition(":")[2])
    soak = Soak(port, installation.residents, installation.superuser_dsn, {})
    for tenant in soak.tenants:
        for number in range(ROWS):
            body = _named(f"{tenant.slug} {number} {uuid4()}")
            status, answer = await soak.request(tenant, "POST", "/api/v1/rpc/create_project", body)
            assert status == 200, answer
            soak.ids.setdefault(tenant.slug, []).append(json.loads(answer)["data"]["project"]["id"])
    return soak


async def run(soak: Soak, seconds: float) -> None:
    until = time.monotonic() + seconds
    async with asyncio.TaskGroup() as group:
        group.create_task(soak.disturb(until))
        for number in range(CLIENTS):
            group.create_task(soak.client(number, until))
    print(f"seed {SEED}, {seconds:g} s: {dict(sorted(soak.seen.items()))}")


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_no_answer_is_mixed_up_and_no_connection_is_stuck(installation: Installation) -> None:
    with serving(installation.program):
        soak = await prepared(installation)
        await run(soak, SECONDS)
        assert soak.wrong == []
        for happened in ("list 200", "one 200", "create 200", "vanished", "terminate", "cancel"):
            assert soak.seen[happened], f"the soak had no {happened}"
        await soak.check_the_end()


BREAKAGES = {
    "a tenant is placed where another one is": """
import random
from control_plane.pools.placement import Placements
fresh = Placements.fresh
def mixed(self, tenant_id):
    return fresh(self, random.choice(list(self._entries)) if random.random() < 0.1 else tenant_id)
Placements.fresh = mixed
""",
    "a connection that broke keeps its slot": """
from control_plane.pools.requests import RequestPools
RequestPools.discard = lambda self, lease: lease.connection.terminate()
""",
}


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("breakage", BREAKAGES)
async def test_the_soak_sees(installation: Installation, breakage: str) -> None:
    with serving(installation.program, BREAKAGES[breakage]):
        soak = await prepared(installation)
        await run(soak, 4.0)
        if not soak.wrong:
            with pytest.raises(AssertionError):
                await soak.check_the_end()
