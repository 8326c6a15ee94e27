"""Durable operations: the request that asks for one runs it at once, a job takes over where its process died."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from dataclasses import asdict
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.errors import IdempotencyKeyReused, OperationInProgress, SlugTaken
from control_plane.operations import jobs
from control_plane.operations.attempts import AttemptLost, Attempts
from control_plane.operations.failures import revive
from control_plane.operations.jobs import Held
from control_plane.operations.migrations import Migrations
from control_plane.operations.records import OperationRecord, operation_record
from control_plane.operations.runner import PLANS, Runner, TryLater
from control_plane.operations.timing import Timing
from control_plane.operations.upkeep import Upkeep, pause
from control_plane.pools.databases import Databases
from control_plane.registry import operations, tenants
from control_plane.registry.models import Operation
from control_plane.templates import Templates
from control_plane.tenants import provision, removal
from control_plane.tenants.provision import NewTenant
from control_plane.tenants.records import TenantRecord, tenant_record

__all__ = ["NewTenant", "Operations"]

logger = logging.getLogger(__name__)


class Operations:
    """The verbs that take longer than a request should, for the API, the CLI and the worker."""

    def __init__(self, databases: Databases, templates: Templates, *, timing: Timing | None = None) -> None:
        self._databases = databases
        self._templates = templates
        self._timing = timing or Timing()
        self._attempts = Attempts(databases, self._timing)
        self._runner = Runner(databases, templates, self._attempts)
        self.migrations = Migrations(databases, templates)
        self._upkeep = Upkeep(databases, templates, databases.settings.drift_interval)
        self._tasks: dict[UUID, asyncio.Task[None]] = {}

    async def create_tenant(
        self, new: NewTenant, *, actor: str, idempotency_key: str | None = None, wait: float
    ) -> tuple[TenantRecord, OperationRecord]:
        """Onboard a tenant; after `wait` seconds answer what there is.

        The same `idempotency_key` of the same actor answers the first request's operation. Raises `InvalidSlug`,
        `InvalidInput`, `SlugTaken`, `IdempotencyKeyReused`, `NoCapacity`, `ClusterNotFound`, `TemplateNotFound`,
        `TemplateChanged`, `VersionConflict`, and what the operation failed with.
        """
        provision.check(new)
        operation_id = await self._replay(new, actor, idempotency_key)
        if operation_id is None:
            operation_id = await self._begin(new, actor, idempotency_key)
        return await self._outcome(operation_id, wait)

    async def delete_tenant(self, ref: str | UUID, *, actor: str, wait: float) -> tuple[TenantRecord, OperationRecord]:
        """Delete a tenant and its data, or join the deletion that is under way.

        Raises `TenantNotFound`, `OperationInProgress`.
        """
        started = None
        async with self._databases.registry.begin() as session:
            tenant = (await tenants.get(session, ref, lock=True)).tenant
            operation = await operations.open_on(session, tenant.id)
            if operation is None:
                operation = started = await removal.intend(session, tenant, actor)
                await self._submit(session, operation)
            elif operation.kind != "delete":
                raise OperationInProgress(hint=f"Wait for operation {operation.id}.")
        if started is not None:
            self._start(started)
        return await self._outcome(operation.id, wait)

    async def run_worker(self, stop: asyncio.Event) -> None:
        """Take over what other processes left and do the upkeep, until `stop`; outlives restarts of the registry."""
        from control_plane.operations.worker import Worker  # its package is of no use to whoever only starts operations

        worker = Worker(self._databases, self._advance, self.migrations.advance, self._timing)
        upkeep = asyncio.create_task(self._upkeep.run(stop), name="upkeep")
        try:
            while not stop.is_set():
                try:
                    await worker.run(stop)
                except Exception as error:
                    logger.warning("The worker lost the registry and starts again.", exc_info=error)
                    await pause(stop, 1.0)
        finally:
            upkeep.cancel()
            await asyncio.gather(upkeep, return_exceptions=True)

    async def aclose(self) -> None:
        """Let running attempts finish for a moment; what is left is released for others."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks.values(), timeout=self._timing.grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._attempts.aclose()

    async def _begin(self, new: NewTenant, actor: str, key: str | None) -> UUID:
        try:
            async with self._databases.registry.begin() as session:
                operation = await provision.intend(session, self._databases, self._templates, new, actor)
                await self._submit(session, operation)
                if key is not None:
                    await operations.bind_key(session, actor, key, _fingerprint(new), operation_id=operation.id)
        except (SlugTaken, IntegrityError):
            # The same request may have come twice at once; then its twin has taken the slug, or the key.
            replayed = await self._replay(new, actor, key)
            if replayed is None:
                raise
            return replayed
        self._start(operation)
        return operation.id

    async def _replay(self, new: NewTenant, actor: str, key: str | None) -> UUID | None:
        if key is None:
            return None
        async with self._databases.registry() as session:
            bound = await operations.by_key(session, actor, key)
        if bound is not None and (bound.request_hash != _fingerprint(new) or bound.operation_id is None):
            raise IdempotencyKeyReused
        return bound.operation_id if bound else None

    async def _submit(self, session: AsyncSession, operation: Operation) -> None:
        operation.message = PLANS[operation.kind].steps[0].message
        await operations.add(session, operation)
        await jobs.enqueue(session, operation.id, operation.tenant_id, delay=self._timing.silence)
        await session.refresh(operation)

    def _start(self, operation: Operation) -> None:
        """Run attempt 1 in a task of its own, so that it outlives a client who goes away."""
        task = asyncio.create_task(self._run(operation), name=f"operation {operation.id}")
        self._tasks[operation.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(operation.id, None))

    async def _run(self, operation: Operation) -> None:
        try:
            await self._runner.run(operation)
        except (TryLater, AttemptLost) as error:
            logger.info("Operation %s is left to its job (%s).", operation.id, type(error).__name__)

    async def _advance(self, operation_id: UUID) -> None:
        """One job. Raises what makes the job come back: `Held`, `AttemptLost`, `TryLater`."""
        operation = await self._attempts.claim(operation_id)
        if operation is not None:
            await self._runner.run(operation)
            return
        async with self._databases.registry() as session:
            if (await operations.get(session, operation_id)).finished_at is None:
                raise Held

    async def _outcome(self, operation_id: UUID, wait: float) -> tuple[TenantRecord, OperationRecord]:
        deadline = time.monotonic() + wait
        if task := self._tasks.get(operation_id):
            await asyncio.wait({task}, timeout=wait)
        while True:
            async with self._databases.registry() as session:
                operation = operation_record(await operations.get(session, operation_id))
                if operation.finished or time.monotonic() >= deadline:
                    if operation.error is not None:
                        raise revive(operation.error)
                    return tenant_record(await tenants.describe(session, operation.tenant_id, deleted=True)), operation
            await asyncio.sleep(self._timing.look)


def _fingerprint(new: NewTenant) -> str:
    return hashlib.sha256(json.dumps(asdict(new), sort_keys=True).encode()).hexdigest()
