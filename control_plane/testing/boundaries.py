"""What ends a transaction or a request, and what may be left in a connection: the next one must not notice."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any, NamedTuple

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.testing import findings as why
from control_plane.testing.application import Tenant
from control_plane.testing.canary import leaks, unanswered
from control_plane.testing.findings import Finding, finding
from control_plane.testing.probe import Probe, Seen, seen
from control_plane.testing.questions import Question

ROUNDS = 3  # in which two tenants ask everything at the same time
PAUSES = 100  # at most, of a request, at which it is cancelled
ENDED = 3  # requests in a row that end before: how often a request waits is not always the same

Asked = Mapping[Tenant, Sequence[Question]]


class Poison(NamedTuple):
    """What a request may leave in its database session, and a question whose answer would differ then."""

    name: str
    leave: str
    look: str


# {tenant} is the id of the one that leaves it behind.
POISONS = (
    Poison(
        "the context",
        "SET app.current_tenant_id = '{tenant}'",
        "SELECT tenancy.current_tenant_id() = '{tenant}'",
    ),
    Poison("a setting", "SET app.left_behind = 'x'", "SELECT coalesce(current_setting('app.left_behind', true), '')"),
    Poison("the search_path", "SET search_path = pg_catalog", "SHOW search_path"),
    Poison("the role", "SET ROLE cp_owner", "SELECT current_user::text"),
    Poison(
        "the mode of transactions",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "SHOW default_transaction_read_only",
    ),
    Poison(
        "an open cursor",
        "DECLARE left_behind CURSOR WITH HOLD FOR SELECT tenancy.current_tenant_id()",
        "SELECT count(*) FROM pg_cursors WHERE name = 'left_behind'",
    ),
    Poison(
        "a temporary table",
        "CREATE TEMPORARY TABLE left_behind AS SELECT tenancy.current_tenant_id()",
        "SELECT to_regclass('pg_temp.left_behind') IS NOT NULL",
    ),
    Poison(
        "a prepared statement",
        "PREPARE left_behind AS SELECT tenancy.current_tenant_id()",
        "SELECT count(*) FROM pg_prepared_statements WHERE name = 'left_behind'",
    ),
    Poison(
        "a lock",
        "SELECT pg_advisory_lock(7461001)",
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7461001 AND pid = pg_backend_pid()",
    ),
)


async def _commit(session: AsyncSession) -> None:
    await session.commit()


async def _rollback(session: AsyncSession) -> None:
    await session.rollback()


async def _savepoint(session: AsyncSession) -> None:
    async with session.begin_nested() as savepoint:
        await savepoint.rollback()


async def _failing_statement(session: AsyncSession) -> None:
    try:
        await session.execute(text("SELECT 1 / 0"))
    except DBAPIError:
        await session.rollback()


async def _exception(session: AsyncSession) -> None:
    raise ArithmeticError("of the contract's own, to see what comes after")


async def _cancellation(session: AsyncSession) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await session.execute(text("SELECT pg_sleep(60)"))


# Each with whether the endpoint goes on afterwards.
ENDINGS: Mapping[str, tuple[Callable[[AsyncSession], Awaitable[None]], bool]] = {
    "a commit": (_commit, True),
    "a rollback": (_rollback, True),
    "a savepoint": (_savepoint, True),
    "a statement that failed": (_failing_statement, True),
    "an exception": (_exception, False),
    "a cancelled request": (_cancellation, False),
}


def poisoned(poison: Poison, leaver: Tenant, next_one: Tenant, probe: Probe) -> list[Finding]:
    """`leaver` leaves the poison behind; a finding when `next_one` notices. Raises AssertionError when another
    connection served it, since that would prove nothing."""

    async def look(session: AsyncSession) -> tuple[object, int]:
        return await session.scalar(text(poison.look.format(tenant=leaver.id))), (await seen(session)).backend

    async def leave(session: AsyncSession) -> None:
        await session.execute(text(poison.leave.format(tenant=leaver.id)))

    before, backend = probe.ask(next_one, look)
    probe.post(leaver, leave)  # which may be refused
    after, same = probe.ask(next_one, look)
    assert same == backend, f"after {poison.name} another connection was opened, so that nothing is proven"
    if after == before:
        return []
    what = f"{next_one} finds {poison.name} that {leaver} left in the database session ({leaver.isolation})."
    return [Finding(what, why.LEFT, f"as {leaver}: {poison.leave}", f"as {next_one}: {poison.look} → {after}")]


def ended(name: str, first: Tenant, second: Tenant, probe: Probe) -> list[Finding]:
    """Findings when a session of `first` does not go on after an ending, or a next one works for somebody else."""
    ending, goes_on = ENDINGS[name]
    during: list[Seen] = []

    async def work(session: AsyncSession) -> None:
        during.append(await seen(session))
        await ending(session)
        during.append(await seen(session))

    probe.post(first, work)
    after = [(tenant, probe.ask(tenant, seen)) for tenant in (second, first)]
    found = []
    if len(during) < 1 + goes_on:
        found.append(Finding(f"After {name} the session of {first} does not go on ({first.isolation}).", why.LOST))
    for tenant, met in [*((first, each) for each in during), *after]:
        if met.tenant != str(tenant.id):
            what = f"After {name} a session of {tenant} works for {met.tenant} ({tenant.isolation})."
            found.append(Finding(what, why.NOT_BOUND))
    return found


def reads_go_on(asked: Sequence[Question], tenant: Tenant, other: Tenant, secrets: Mapping[str, str]) -> list[Finding]:
    """Findings when `tenant` is not answered any more, or reads what belongs to `other`."""
    found: list[Finding] = []
    for question in asked:
        answer = question.ask(tenant.client)
        found += leaks(other, tenant, question, answer, secrets)
        found += unanswered(question.route, tenant, [question], [answer])
    return found


async def interleaved(asked: Asked, secrets: Mapping[Tenant, Mapping[str, str]]) -> list[Finding]:
    """All questions of two tenants at once, again and again. `secrets` are those that a tenant may not read."""
    first, second = asked

    async def ask(tenant: Tenant, other: Tenant, question: Question) -> list[Finding]:
        answer = await tenant.async_client.request(question.route.method, question.url)
        if answer.status_code >= 400:
            what = f"{question.route} fails when two tenants ask at the same time ({tenant.isolation})."
            return [finding(what, why.LOST, tenant, question, answer)]
        return leaks(other, tenant, question, answer, secrets[tenant])

    pairs = ((first, second), (second, first))
    found = await asyncio.gather(
        *(ask(*pair, question) for _ in range(ROUNDS) for pair in pairs for question in asked[pair[0]])
    )
    return [each for findings in found for each in findings]


async def cancelled(question: Question, tenant: Tenant, pause: int) -> bool:
    """Cancel a request when it waits for the `pause`-th time; whether it was under way until then."""
    asking = tenant.async_client.request(question.route.method, question.url)
    task = asyncio.ensure_future(_cancelled_at(asking, pause))
    await asyncio.gather(task, return_exceptions=True)
    return task.cancelled()


@types.coroutine
def _cancelled_at(work: Coroutine[Any, Any, Any], pause: int) -> Generator[Any, Any, Any]:
    """`await work`, in a task that is cancelled at a certain await, and never somewhere near it."""
    step: Callable[[], Any] = partial(work.send, None)
    for number in count(1):
        try:
            awaited = step()
        except StopIteration as end:
            return end.value
        task = asyncio.current_task()
        if number == pause and task is not None:
            task.cancel()
        try:
            step = partial(work.send, (yield awaited))
        except BaseException as error:
            step = partial(work.throw, error)
    return None
