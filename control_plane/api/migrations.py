"""`/migrations`: runs of `migrate-all`, which workers carry out."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import JSONResponse

from control_plane.api.access import MigrationsRead, MigrationsWrite, Plane
from control_plane.api.documented import LOCATION, problems
from control_plane.api.events import EventStream, Streams
from control_plane.api.migration_events import Teller, follow
from control_plane.api.migration_schemas import (
    Migration,
    MigrationCreate,
    MigrationDetails,
    MigrationPage,
    MigrationPlan,
    RunStatus,
)
from control_plane.api.tenants import NO_NUL, IdempotencyKey
from control_plane.errors import ControlPlaneError
from control_plane.identity.middleware import identify
from control_plane.migrator import Options, Policy, operators
from control_plane.migrator.documents import preview_document
from control_plane.migrator.operators import RunPage, RunRecord

router = APIRouter(prefix="/migrations", tags=["migrations"])

LastEventId = Annotated[
    str | None,
    Header(alias="Last-Event-ID", max_length=200, description="The id of the last event that was received."),
]


def _streams(request: Request) -> Streams:
    streams: Streams = request.app.state.streams
    return streams


@router.post(
    "",
    status_code=202,
    response_model=Migration,
    summary="Start a migration run, or plan one",
    responses={
        202: {"description": "A worker takes it; `Location` is where to look.", "headers": LOCATION},
        200: {"description": "With `dry_run`: what would be done.", "model": MigrationPlan},
        **problems(400, 401, 403, 404, 409, 413, 422, 503),
    },
)
async def start_migration(
    body: MigrationCreate,
    principal: MigrationsWrite,
    plane: Plane,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> RunRecord | Response:
    """Bring the homes of a template to one version. A template has one run at a time.

    What can be refused is refused here, before anything is recorded, but for what changes until a worker takes the run.
    """
    template = body.template or plane.settings.template
    options = _options(body, principal.subject)
    migrations = plane.operations.migrations
    if body.dry_run:
        preview = await migrations.preview(template, options)
        return JSONResponse(preview_document(preview.plan, preview.waves, preview.locks))
    run = await migrations.start(template, options, idempotency_key=idempotency_key)
    response.headers["Location"] = f"/migrations/{run.id}"
    return run


@router.get(
    "",
    response_model=MigrationPage,
    summary="List migration runs, the newest first",
    responses=problems(400, 401, 403, 503),
)
async def list_migrations(
    _: MigrationsRead,
    plane: Plane,
    request: Request,
    response: Response,
    template: Annotated[str | None, Query(max_length=200, pattern=NO_NUL)] = None,
    status: RunStatus | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(max_length=500, description="`next_cursor` of the page before.")] = None,
) -> RunPage:
    page = await operators.list_runs(plane.databases, template=template, status=status, limit=limit, cursor=cursor)
    if page.next_cursor is not None:
        query = urlencode({**request.query_params, "cursor": page.next_cursor})
        response.headers["Link"] = f'</migrations?{query}>; rel="next"'
    return page


@router.get(
    "/{id}",
    response_model=MigrationDetails,
    summary="Show a migration run, with its failures by cause",
    responses=problems(400, 401, 403, 404, 503),
)
async def show_migration(id: UUID, _: MigrationsRead, plane: Plane) -> MigrationDetails:
    found = await operators.explain(plane.databases, str(id))
    run = Migration.model_validate(found.run)
    return MigrationDetails.model_validate(
        {**run.model_dump(), "failures": [each._asdict() for each in found.failures]}
    )


@router.post(
    "/{id}/pause",
    response_model=Migration,
    summary="Let a run finish the homes in flight and take no further ones",
    responses=problems(400, 401, 403, 404, 409, 503),
)
async def pause_migration(id: UUID, principal: MigrationsWrite, plane: Plane) -> RunRecord:
    return await operators.pause(plane.databases, str(id), actor=principal.subject)


@router.post(
    "/{id}/resume",
    response_model=Migration,
    summary="Let a paused run go on, or one that stopped with homes left",
    responses=problems(400, 401, 403, 404, 409, 503),
)
async def resume_migration(id: UUID, principal: MigrationsWrite, plane: Plane) -> RunRecord:
    """One that nobody works on is taken by the next worker."""
    return await plane.operations.migrations.resume(str(id), actor=principal.subject)


@router.post(
    "/{id}/abort",
    response_model=Migration,
    summary="End a run; homes that it has brought to the target stay there",
    responses=problems(400, 401, 403, 404, 409, 503),
)
async def abort_migration(id: UUID, principal: MigrationsWrite, plane: Plane) -> RunRecord:
    return await operators.abort(plane.databases, str(id), actor=principal.subject)


@router.get(
    "/{id}/events",
    response_class=Response,
    summary="Follow a migration run as server-sent events",
    responses={
        200: {
            "description": "Events `progress`, `wave`, `home-failed` and, as the last one, `end`.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        204: {"description": "The run is over, and all of it has been told: do not connect again."},
        **problems(400, 401, 403, 404, 503),
    },
)
async def follow_migration(
    id: UUID,
    _: MigrationsRead,
    plane: Plane,
    request: Request,
    streams: Annotated[Streams, Depends(_streams)],
    last_event_id: LastEventId = None,
) -> Response:
    """Goes on after the event that `Last-Event-ID` names. The stream ends with the run, with the token, or when this
    process drains: then connect again.
    """
    teller = Teller.after(id, last_event_id)
    seen = await operators.progress(plane.databases, id, teller.number)
    if teller.has_told_all(seen):
        return Response(status_code=204)

    async def still_allowed() -> bool:
        try:
            await identify(request.scope["headers"], plane.verifier)
        except ControlPlaneError:
            return False
        return True

    return EventStream(streams, follow(plane.databases, teller, seen, streams.ending, still_allowed))


def _options(body: MigrationCreate, actor: str) -> Options:
    policy = Policy(waves=body.waves, **({} if body.internal is None else {"internal": body.internal}))
    return Options(
        target=body.target,
        only=body.only,
        concurrency=body.concurrency,
        policy=policy,
        halt_failures=body.halt_failures,
        halt_rate=body.halt_rate,
        approve=body.approve,
        max_seconds=body.max_duration,
        override_sunset=body.override_sunset,
        actor=actor,
    )
