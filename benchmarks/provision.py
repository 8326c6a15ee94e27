"""The step that makes a home, per mode, against the same end state in raw DDL; and POST /tenants as a whole."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from uuid import uuid4

import httpx

from benchmarks.figures import Report, Series, interleaved, ratio
from benchmarks.flat import Subject, database_home_messages, schema_home_message, structure
from benchmarks.stage import installation, server_settings, service, settings_for, temporary_home
from control_plane.embedded import EmbeddedServer
from control_plane.identity.issuers import development_issuer
from control_plane.identity.tokens import mint_platform_token
from control_plane.isolation import isolation_of
from control_plane.isolation.schema import provisioning_message
from control_plane.isolation.template_database import ensure_template_database
from control_plane.pools.databases import Databases
from control_plane.registry.models import Cluster, Tenant
from control_plane.service import ControlPlane
from control_plane.settings import Settings
from control_plane.templates import Template

MODES = ("shared", "schema", "database")
COMPARED = 3  # versions of the template
STEP, RAW = "{}: build step", "{}: raw DDL"
KEPT_STEP, KEPT_RAW = "schema, open connection: our message", "schema, open connection: raw DDL"


@dataclass(frozen=True)
class Sizes:
    rounds: int = 7
    homes: int = 8  # per contestant and round; the round's value is their mean
    databases: int = 3  # the same, of database homes
    posts: int = 15  # per mode


QUICK = Sizes(rounds=1, homes=1, databases=1, posts=1)

Step = Callable[[], Awaitable[None]]


@dataclass
class Workshop:
    """Makes homes in both ways. `models` are finished ones of each mode, which the raw DDL is read from."""

    plane: ControlPlane
    cluster: Cluster
    models: dict[str, Subject]

    @property
    def databases(self) -> Databases:
        return self.plane.databases

    @cached_property
    def template(self) -> Template:
        """The first versions: what raw DDL for the same home can still be read off and compared, object by object."""
        whole = self.plane.templates[self.plane.settings.template]
        return Template(whole.manifest, whole.versions[:COMPARED])

    def new(self, mode: str) -> Subject:
        """Names only; of a shared home the one that stands."""
        isolation, id_ = isolation_of(mode), uuid4()
        if mode == "shared" and mode in self.models:
            home = self.models[mode].home
        else:
            home = isolation.new_home(self.plane.installation_id, self.cluster, self.template.name, self.databases.box)
        slug = f"b-{id_.hex[:12]}"
        return Subject(home, Tenant(id=id_, slug=slug, name=slug, isolation=mode, status="provisioning", epoch=1))

    async def build(self, mode: str, subject: Subject) -> None:
        await isolation_of(mode).build(
            self.databases, self.cluster, subject.home, subject.tenant, self.template, self.template.latest
        )

    async def finished(self, mode: str) -> Subject:
        subject = self.new(mode)
        await self.build(mode, subject)
        return subject

    async def our_step(self, mode: str) -> tuple[Step, Subject]:
        subject = self.new(mode)
        return (lambda: self.build(mode, subject)), subject

    async def raw_step(self, mode: str) -> tuple[Step, Subject]:
        """Everything that can be computed before is computed before; then a connection from where build has its own."""
        wanted = self.new(mode)
        if mode == "database":
            return await self._raw_database(wanted), wanted
        if mode == "schema":
            message = await schema_home_message(self.databases, self.cluster, self.models[mode], wanted)
        else:
            home, tenant = wanted.home, wanted.tenant
            message = (
                "INSERT INTO tenancy.tenants (id, home_id, slug, state, epoch) "
                f"VALUES ('{tenant.id}', '{home.id}', '{tenant.slug}', 'provisioning', 1)"
            )

        async def step() -> None:
            async with self.databases.kept_admin(self.cluster, wanted.home.database) as connection:
                await connection.execute(message)

        return step, wanted

    async def _raw_database(self, wanted: Subject) -> Step:
        """CREATE DATABASE stands alone by PostgreSQL's rules, and the new database is another connection."""
        source = await ensure_template_database(self.databases, self.cluster, self.template, self.template.latest)
        outside, inside = await database_home_messages(
            self.databases, self.cluster, self.models["database"], wanted, source
        )

        async def step() -> None:
            async with self.databases.kept_admin(self.cluster, self.cluster.database) as connection:
                for message in outside:
                    await connection.execute(message)
            async with self.databases.admin(self.cluster, wanted.home.database) as connection:
                await connection.execute(inside)

        return step


def run(quick: bool) -> Report:
    """The HTTP requests first, on the fresh installation, then the steps alone."""
    sizes = QUICK if quick else Sizes()
    with temporary_home() as home, EmbeddedServer(home) as server:
        settings = settings_for(home)
        recorded = asyncio.run(_prepare(settings, server.admin_dsn))
        report = Report("provision", quick, {**asdict(sizes), "connection": "kept open, both sides", **recorded})
        posts = _time_posts(home, settings, sizes)
        asyncio.run(_time_steps(report, settings, sizes))
        report.figures += posts
    return report


async def _prepare(settings: Settings, dsn: str) -> dict[str, str]:
    async with installation(settings):
        return await server_settings(dsn)


def _time_posts(home: Path, settings: Settings, sizes: Sizes) -> list[Series]:
    """Milliseconds of each POST /tenants, one at a time; of the first of a mode, which may prepare something, none."""
    series = {mode: Series(f"POST /tenants, {mode}", "ms") for mode in MODES}
    token = mint_platform_token(development_issuer(settings))
    with service(home) as process, httpx.Client(base_url=f"http://127.0.0.1:{process.port}", timeout=60) as client:
        client.headers["Authorization"] = f"Bearer {token}"
        for number in range(sizes.posts + 1):
            for mode in MODES:
                slug = f"{mode}-{number}"
                began = time.perf_counter()
                answer = client.post("/tenants", json={"slug": slug, "name": slug, "isolation": mode})
                took = (time.perf_counter() - began) * 1000
                if answer.status_code != 201:
                    raise RuntimeError(answer.text)
                if number:
                    series[mode].values.append(took)
    return list(series.values())


async def _time_steps(report: Report, settings: Settings, sizes: Sizes) -> None:
    async with installation(settings) as (plane, cluster):
        workshop = Workshop(plane, cluster, {})
        for mode in MODES:
            workshop.models[mode] = await workshop.finished(mode)
        await _require_equal_homes(workshop)
        for mode in MODES:
            step, raw = Series(STEP.format(mode), "ms"), Series(RAW.format(mode), "ms")
            makers = {step.name: workshop.our_step, raw.name: workshop.raw_step}
            homes = sizes.databases if mode == "database" else sizes.homes
            for order in interleaved(list(makers), sizes.rounds):
                took = dict.fromkeys(makers, 0.0)
                for _ in range(homes):
                    for name in order:
                        todo, _subject = await makers[name](mode)
                        took[name] += await _timed(todo)
                for series in (step, raw):
                    series.values.append(took[series.name] / homes * 1000)
            goal = "≤ 1.5" if mode == "schema" else ""
            report.figures += [step, raw]
            report.ratios.append(ratio(f"{mode} step / raw DDL", step, raw, goal))
        await _time_messages(report, workshop, sizes)


async def _time_messages(report: Report, workshop: Workshop, sizes: Sizes) -> None:
    """The SQL alone: both messages over connections that are open already."""
    ours, raw = Series(KEPT_STEP, "ms"), Series(KEPT_RAW, "ms")
    model, databases, template = workshop.models["schema"], workshop.databases, workshop.template
    async with databases.admin(workshop.cluster) as first, databases.admin(workshop.cluster) as second:
        for order in interleaved([ours.name, raw.name], sizes.rounds):
            took = dict.fromkeys(order, 0.0)
            for _ in range(sizes.homes):
                for name in order:
                    subject = workshop.new("schema")
                    if name == ours.name:
                        message = provisioning_message(
                            databases, subject.home, subject.tenant, template, template.latest
                        )
                        took[name] += await _timed(lambda message=message: first.execute(message))  # type: ignore[misc]
                    else:
                        message = await schema_home_message(databases, workshop.cluster, model, subject)
                        took[name] += await _timed(lambda message=message: second.execute(message))  # type: ignore[misc]
            for series in (ours, raw):
                series.values.append(took[series.name] / sizes.homes * 1000)
    report.figures += [ours, raw]
    report.ratios.append(ratio("schema message / raw DDL, open connection", ours, raw))


async def _timed(step: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await step()
    return time.perf_counter() - began


async def _require_equal_homes(workshop: Workshop) -> None:
    """What the raw DDL makes is what the control plane makes: same objects, owners, grants, rows, role settings."""
    for mode in ("schema", "database"):
        step, wanted = await workshop.raw_step(mode)
        await step()
        ours = await structure(workshop.databases, workshop.cluster, workshop.models[mode].home)
        theirs = await structure(workshop.databases, workshop.cluster, wanted.home)
        if ours != theirs:
            differences = sorted(set(ours) ^ set(theirs))
            raise AssertionError(f"{mode} homes differ: " + "\n".join(differences or ["in number"]))
