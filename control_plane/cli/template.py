"""`cp template …`: look at templates, hold one against the rules, begin a new one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from control_plane.cli.output import print_json, print_table
from control_plane.cli.run import Json, run
from control_plane.errors import ClusterNotFound, ConfigurationError
from control_plane.registry import clusters
from control_plane.service import open_control_plane
from control_plane.settings import Settings, shipped
from control_plane.templates import Template, Templates
from control_plane.templates.scaffold import new_template

if TYPE_CHECKING:
    from control_plane.migrator.locks import VersionLocks
    from control_plane.migrator.rehearsal import Rehearsal
    from control_plane.templates.lint import Finding

app = typer.Typer(no_args_is_help=True, help="Look at templates, hold one against the rules, begin a new one.")

Name = Annotated[str | None, typer.Argument(help="The template; all of them when absent.")]


@app.command()
def lint(
    name: Name = None,
    version: Annotated[int | None, typer.Option(min=1, help="Only this version.")] = None,
    scratch: Annotated[
        bool, typer.Option("--scratch", help="Also run the versions on a home with rows, and undo it.")
    ] = False,
    json: Json = False,
) -> None:
    """Hold the SQL of templates against the rules of isolation and of API versions (docs/template-lint.md).

    With --scratch what passes is also run, in a database on the first cluster that is dropped afterwards: does each
    version apply to the rows of the one before, does it keep their columns, keys and types, and what does it lock?

    Exit 0: nothing breaks a rule. 1: something does. 2: refused, nothing was looked at.
    """
    if version is not None and name is None:
        raise typer.BadParameter("--version needs the name of a template")

    async def work(settings: Settings) -> tuple[list[Template], list[Finding], dict[str, list[VersionLocks]]]:
        # Imported here: no other command needs PostgreSQL's parser, and loading it takes a moment.
        from control_plane.templates.lint import lint_template

        templates = Templates.load(settings.templates)
        chosen = [templates[name]] if name is not None else list(templates.values())
        wanted = [chosen[0].version(version).number] if version is not None else None
        found = [finding for template in chosen for finding in lint_template(template, wanted)]
        locks: dict[str, list[VersionLocks]] = {}
        for rehearsed in await _rehearse(settings, chosen, wanted) if scratch else ():
            found += rehearsed.findings
            locks[rehearsed.template] = rehearsed.locks
        return chosen, found, locks

    chosen, findings, locks = run(work, as_json=json)
    if json:
        print_json({"findings": findings, "locks": locks} if scratch else findings)
    else:
        for line in (*map(str, findings), *(str(each) for of_template in locks.values() for each in of_template)):
            typer.echo(line)
        looked_at = ", ".join(template.name for template in chosen)
        typer.echo(f"{len(findings)} to correct." if findings else f"Nothing breaks a rule: {looked_at}.")
    if findings:
        raise typer.Exit(1)


async def _rehearse(settings: Settings, chosen: list[Template], wanted: list[int] | None) -> list[Rehearsal]:
    from control_plane.migrator.rehearsal import rehearse
    from control_plane.templates.lint import lint_template

    async with open_control_plane(settings) as plane:
        async with plane.databases.registry() as session:
            accepting = await clusters.accepting(session, "schema")
        if not accepting:
            raise ClusterNotFound("There is no cluster to run the versions on.", hint="Run: cp init")
        return [
            await rehearse(plane.databases, accepting[0], template, wanted)
            for template in chosen
            # Earlier versions are run too, and nothing is run that breaks a rule.
            if not lint_template(template, range(1, max(wanted or [template.latest]) + 1))
        ]


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits and underscores.")],
    into: Annotated[
        Path | None, typer.Option(metavar="DIRECTORY", help="Where templates are; CP_TEMPLATES when absent.")
    ] = None,
) -> None:
    """Write a new template, a copy of the smallest one: a table, a view and a function.

    It breaks no rule, and tenants can be made of it at once.
    """

    async def work(settings: Settings) -> Path:
        if (
            into is None
            and settings.templates == shipped("tenant_templates")
            and "_shipped" in settings.templates.parts
        ):
            raise ConfigurationError(
                "The shipped templates stand inside the installed package.",
                hint=f"cp template new {name} --into DIRECTORY, and set CP_TEMPLATES to that directory.",
            )
        return new_template(name, into or settings.templates)

    path = run(work)
    typer.echo(f"{path} is a template of one version.")
    typer.echo(f"next: cp template lint {name}; cp tenant create SLUG --template {name}")


@app.command("list")
def list_(json: Json = False) -> None:
    """The templates of CP_TEMPLATES."""

    async def work(settings: Settings) -> list[Template]:
        return list(Templates.load(settings.templates).values())

    rows = [
        {
            "name": template.name,
            "versions": template.latest,
            "api": list(template.api_versions(template.latest)),
            "default_api": template.default_api(template.latest),
            "resources": sorted(template.manifest.resources),
            "functions": sorted(template.manifest.functions),
        }
        for template in run(work, as_json=json)
    ]
    if json:
        print_json(rows)
    else:
        columns = ("name", "versions", "api", "default_api")
        print_table(columns, ([row[column] for column in columns] for row in rows))


@app.command()
def show(name: Annotated[str, typer.Argument(help="The template.")], json: Json = False) -> None:
    """The versions of a template: API versions, checksums, files."""

    async def work(settings: Settings) -> Template:
        return Templates.load(settings.templates)[name]

    template = run(work, as_json=json)
    rows = [
        {
            "version": version.number,
            "name": version.name,
            "api": list(template.api_versions(version.number)),
            "files": sorted(file.name for file in version.path.glob("*.sql")),
            "checksum": version.checksum,
        }
        for version in template.versions
    ]
    if json:
        print_json({"name": template.name, "versions": rows})
    else:
        columns = ("version", "name", "api", "files", "checksum")
        print_table(columns, ([row[column] for column in columns] for row in rows))
