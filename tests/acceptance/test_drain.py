"""A service that is told to end, under load: what began is answered, and the next process takes over."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.installed import install
from tests.support.program import PATIENCE, Program, free_port
from tests.support.servers import temporary_home

CONNECTIONS = 8
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Installation:
    home: Path
    tokens: list[str]  # one per mode

    def program(self, **variables: str) -> Program:
        return Program(self.home, free_port(), **variables)


@pytest.fixture(scope="module")
def installation() -> Iterator[Installation]:
    """A tenant per mode; nothing runs."""
    with temporary_home() as home:
        residents = install(home, {"acme": "shared", "globex": "schema", "initech": "database"})
        yield Installation(home, [each.token for each in residents])


@contextmanager
def serving(program: Program) -> Iterator[subprocess.Popen[bytes]]:
    output = program.home.parent / f"serve-{urlsplit(program.url).port}.log"
    with program.started("serve", output=output) as process:
        program.wait_until_ready(process, output)
        yield process
        assert "Traceback" not in output.read_text()


async def ended(process: subprocess.Popen[bytes]) -> int:
    return await asyncio.to_thread(process.wait, PATIENCE)


async def connect(program: Program) -> Streams:
    parts = urlsplit(program.url)
    return await asyncio.open_connection(parts.hostname, parts.port)


async def probe(program: Program) -> tuple[int, str]:
    """The status of /readyz and what it says, on a connection of its own."""
    reader, writer = await connect(program)
    try:
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        status, _, body = await answer(reader)
        return status, json.loads(body)["status"]
    finally:
        writer.close()


def get(token: str) -> bytes:
    return f"GET /api/v1/projects HTTP/1.1\r\nHost: a\r\nAuthorization: {token}\r\n\r\n".encode()


def create(token: str, body: bytes) -> bytes:
    return (
        f"POST /api/v1/rpc/create_project HTTP/1.1\r\nHost: a\r\nAuthorization: {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()


async def answer(reader: asyncio.StreamReader) -> tuple[int, bool, bytes]:
    """Status, whether it is the last one of its connection, body. Raises `IncompleteReadError` when it is cut."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = re.search(rb"\r\ncontent-length: (\d+)\r\n", head)
    assert length is not None
    return int(head.split()[1]), b"\r\nconnection: close\r\n" in head, await reader.readexactly(int(length[1]))


@dataclass
class Balancer:
    """Sends new connections to the processes that say they are ready, as a load balancer does."""

    programs: list[Program]
    ready: list[Program] = field(default_factory=list)
    leaving: set[str] = field(default_factory=set)  # the URLs of those that said that they are draining
    answered: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    async def watch(self) -> None:
        while True:
            for program in self.programs:
                await self._probe(program)
            await asyncio.sleep(0.02)

    async def _probe(self, program: Program) -> None:
        try:
            status, said = await probe(program)
        except OSError:
            status, said = 0, ""
        if status == 200 and program not in self.ready:
            self.ready.append(program)
            self.leaving.discard(program.url)
        elif status != 200 and program in self.ready:
            self.ready.remove(program)
        if said == "draining":
            self.leaving.add(program.url)

    async def ask(self, number: int, token: str) -> None:
        """One connection after the other, and on each one request after the other, without a pause."""
        while True:
            while not self.ready:
                await asyncio.sleep(0.01)
            program = self.ready[number % len(self.ready)]
            try:
                reader, writer = await connect(program)
            except ConnectionRefusedError:
                if program.url not in self.leaving:
                    self.failures.append(f"{program.url} refuses a connection and never said that it ends")
                continue
            try:
                last = False
                while not last:
                    writer.write(get(token))
                    status, last, body = await answer(reader)
                    if status != 200:
                        self.failures.append(f"{status}: {body.decode()}")
                    self.answered[program.url] = self.answered.get(program.url, 0) + 1
            except (OSError, asyncio.IncompleteReadError) as error:
                self.failures.append(f"{program.url}: {error!r}")
            finally:
                writer.close()

    async def served(self, program: Program) -> None:
        """Wait until `program` has answered more than it had."""
        before = self.answered.get(program.url, 0)
        while self.answered.get(program.url, 0) < before + CONNECTIONS:
            await asyncio.sleep(0.01)


@asynccontextmanager
async def load(installation: Installation, *programs: Program) -> AsyncIterator[Balancer]:
    balancer = Balancer(list(programs))
    tasks = [asyncio.create_task(balancer.watch())]
    for number in range(CONNECTIONS):
        token = installation.tokens[number % len(installation.tokens)]
        tasks.append(asyncio.create_task(balancer.ask(number // 2, token)))
    try:
        yield balancer
        assert [task for task in tasks if task.done()] == []
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.long
async def test_a_rolling_restart_under_load_fails_no_request(installation: Installation) -> None:
    old, new = (installation.program(CP_DRAIN_SECONDS="1") for _ in range(2))
    with ExitStack() as processes:
        first = processes.enter_context(serving(old))
        second = processes.enter_context(serving(new))
        async with load(installation, old, new) as balancer:
            await balancer.served(old)
            for program, process, other in ((old, first, new), (new, second, old)):
                process.send_signal(signal.SIGTERM)
                while program.url not in balancer.leaving:
                    assert process.poll() is None, "it ended without saying so"
                    await asyncio.sleep(0.01)
                assert await ended(process) == 0
                await balancer.served(other)
                if program is old:
                    await asyncio.to_thread(processes.enter_context, serving(old))  # its next release
                    while old not in balancer.ready:
                        await asyncio.sleep(0.01)
        assert balancer.failures == []


async def test_readiness_goes_first_and_requests_are_served_as_before(installation: Installation) -> None:
    program = installation.program(CP_DRAIN_SECONDS="3600")
    with serving(program) as process:
        kept = await connect(program)
        process.send_signal(signal.SIGTERM)
        assert await until_not_ready(program) == "draining"
        for reader, writer in (kept, await connect(program)):
            for _ in range(2):
                writer.write(get(installation.tokens[0]))
                status, last, _ = await answer(reader)
                assert (status, last) == (200, False)
            writer.close()
        process.send_signal(signal.SIGTERM)
        assert await ended(process) == 130


async def test_a_request_in_flight_is_answered_after_the_listener_is_closed(installation: Installation) -> None:
    program = installation.program()
    with serving(program) as process:
        started = [await started_call(program, token) for token in installation.tokens]
        process.send_signal(signal.SIGTERM)
        await until_refused(program)
        for (reader, writer), rest in started:
            writer.write(rest)
            status, last, body = await answer(reader)
            assert (status, last, json.loads(body)["success"]) == (200, True, True)
            assert await reader.read() == b""
            writer.close()
        assert await ended(process) == 0
    assert not program.postgres_running


@pytest.mark.parametrize("command", ["serve", "dev"])
async def test_a_second_signal_ends_at_once(installation: Installation, command: str) -> None:
    program = installation.program(CP_DRAIN_SECONDS="3600")
    output = program.home.parent / f"{command}.log"
    with program.started(command, output=output) as process:
        program.wait_until_ready(process, output)
        (reader, writer), _ = await started_call(program, installation.tokens[0])
        process.send_signal(signal.SIGTERM)
        if command == "serve":
            await until_not_ready(program)
        else:  # without the delay
            await until_refused(program)
        process.send_signal(signal.SIGINT)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await answer(reader)
        writer.close()
        assert await ended(process) == 130
    assert not program.postgres_running
    assert "Traceback" not in output.read_text()


async def started_call(program: Program, token: str) -> tuple[Streams, bytes]:
    """A call that the service is reading, and the rest of its body."""
    body = b'{"name": "Last"}'
    reader, writer = await connect(program)
    writer.write(get(token))  # answered, so the connection is known to be accepted
    assert (await answer(reader))[0] == 200
    writer.write(create(token, body) + body[:4])
    await writer.drain()
    return (reader, writer), body[4:]


async def until_not_ready(program: Program) -> str:
    """What /readyz says once the signal has arrived."""
    while (probed := await probe(program))[0] == 200:
        pass
    assert probed[0] == 503
    return probed[1]


async def until_refused(program: Program) -> None:
    while True:
        try:
            _, writer = await connect(program)
        except ConnectionRefusedError:
            return
        writer.close()
        await asyncio.sleep(0.01)
