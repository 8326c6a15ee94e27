"""Runs the steps of one attempt. Whatever interrupts it, the next attempt goes on where the registry says."""

from __future__ import annotations

import asyncio
import logging
import random
from itertools import zip_longest

from sqlalchemy import func

from control_plane.operations.attempts import AttemptLost, Attempts
from control_plane.operations.failures import CONTENTION, OVERLAP, PASSING, safe_body
from control_plane.pools.databases import Databases
from control_plane.registry import operations, tenants
from control_plane.registry.models import Operation
from control_plane.templates import Templates
from control_plane.tenants.provision import PROVISION
from control_plane.tenants.removal import DELETE
from control_plane.tenants.steps import Plan, Record, Step, Work

logger = logging.getLogger(__name__)

PLANS: dict[str, Plan] = {plan.kind: plan for plan in (PROVISION, DELETE)}

MAX_ATTEMPTS = 8  # after that a failure that would pass counts as one that does not
TRIES_AT_ONCE = 4  # of a step that met contention


class TryLater(Exception):
    """The operation is still open and nobody holds it; another attempt should be made."""

    def __init__(self, attempt: int) -> None:
        super().__init__(f"attempt {attempt} could not finish")
        self.attempt = attempt


class Runner:
    """Runs attempts that this process holds, a bounded number at a time."""

    def __init__(self, databases: Databases, templates: Templates, attempts: Attempts, *, at_once: int = 8) -> None:
        self._databases = databases
        self._templates = templates
        self._attempts = attempts
        self._slots = asyncio.Semaphore(at_once)

    async def run(self, operation: Operation) -> None:
        """Advance the held operation to its end; raises `TryLater`, or `AttemptLost` when another took it over."""
        with self._attempts.holding(operation.id, operation.attempt):
            try:
                async with self._slots:
                    await self._advance(operation)
            except AttemptLost:
                raise
            except Exception as error:
                logger.warning("Operation %s: attempt %d failed.", operation.id, operation.attempt, exc_info=error)
                await self._let_go(operation, f"Will be tried again: {safe_body(error)['message']}")
                raise TryLater(operation.attempt) from error
            except asyncio.CancelledError:
                await self._let_go(operation, None)
                raise

    async def _advance(self, operation: Operation) -> None:
        plan = PLANS[operation.kind]
        work = await self._work(operation)
        try:
            if operation.error is None:
                await self._forward(work, plan)
            else:
                await self._back(work, plan)
        except AttemptLost:
            await self._sweep(work)
            raise

    async def _work(self, operation: Operation) -> Work:
        async with self._databases.registry() as session:
            tenant, home, cluster = await tenants.get(session, operation.tenant_id)
        return Work(self._databases, operation, tenant, home, cluster, self._templates[home.template])

    async def _forward(self, work: Work, plan: Plan) -> None:
        left = [step for step in plan.steps if step.name not in work.operation.steps]
        for step, following in zip_longest(left, left[1:]):
            try:
                await self._take(work, step, following)
            except AttemptLost:
                raise
            except Exception as error:
                passing = isinstance(error, PASSING) and work.operation.attempt < MAX_ATTEMPTS
                if plan.undo is None or passing:
                    raise
                logger.warning("Operation %s cannot succeed; undoing it.", work.operation.id, exc_info=error)
                await self._give_up(work, plan.undo, error)
                await self._back(work, plan)
                return

    async def _back(self, work: Work, plan: Plan) -> None:
        assert plan.undo is not None, "only operations with an undo step are given up"
        await self._take(work, plan.undo, None)

    async def _take(self, work: Work, step: Step, following: Step | None) -> None:
        """Do the step, then record it in the transaction that proves that the operation is still ours."""
        record = await self._effect(work, step)
        async with self._attempts.fence(work.operation.id, work.operation.attempt) as (session, operation):
            await record(session)
            operation.steps = [*operation.steps, step.name]
            operation.percent = step.percent
            operation.message = following.message if following else None
            if following is None:
                operation.status = "succeeded" if operation.error is None else "failed"
                operation.finished_at = func.now()

    async def _effect(self, work: Work, step: Step) -> Record:
        for attempt in range(1, TRIES_AT_ONCE):
            try:
                return await step.run(work)
            except (*CONTENTION, *OVERLAP):
                await asyncio.sleep(random.uniform(0.05, 0.1) * 2**attempt)  # noqa: S311 - spread, not secrecy
        return await step.run(work)

    async def _give_up(self, work: Work, undo: Step, error: Exception) -> None:
        """From here on every attempt undoes."""
        async with self._attempts.fence(work.operation.id, work.operation.attempt) as (_, operation):
            operation.error = safe_body(error)
            operation.message = undo.message

    async def _sweep(self, work: Work) -> None:
        """A step of ours may have taken effect after the new holder had undone it; then that must be undone again."""
        while True:
            async with self._databases.registry() as session:
                operation = await operations.get(session, work.operation.id)
                undone = operation.kind == "provision" and operation.status == "failed"
            if operation.finished_at is not None:
                break
            await asyncio.sleep(1.0)
        if undone:
            await work.isolation.drop(work.databases, work.cluster, work.home, work.tenant)

    async def _let_go(self, operation: Operation, message: str | None) -> None:
        try:
            await self._attempts.release(operation.id, operation.attempt, message)
        except PASSING as error:
            # The attempt's silence will tell the same, a few seconds later.
            logger.warning("Operation %s was not released (%s).", operation.id, type(error).__name__)
