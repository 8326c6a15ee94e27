"""The program's command tree. `cp` and `control-plane` are the same program."""

from __future__ import annotations

import typer

from control_plane.cli import (
    adopt,
    cluster,
    cutover,
    deprecations,
    dev,
    doctor,
    drift,
    env,
    init,
    migrate,
    migrate_runs,
    repair,
    serve,
    template,
    tenant,
    token,
    worker,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A control plane for multi-tenant PostgreSQL: onboard tenants, serve them, release to all of them.",
)

app.command("dev")(dev.dev)
app.command("init")(init.init)
app.command("serve")(serve.serve)
app.command("worker")(worker.worker)
app.add_typer(cluster.app, name="cluster")
app.add_typer(tenant.app, name="tenant")
app.add_typer(adopt.app, name="adopt")
app.add_typer(cutover.app, name="cutover")
app.add_typer(template.app, name="template")
app.command("migrate-all")(migrate.migrate_all_command)
migrate_runs.app.command("repair")(repair.repair)
app.add_typer(migrate_runs.app, name="migrate")
app.command("deprecations")(deprecations.deprecations)
app.add_typer(token.app, name="token")
app.command("env")(env.env)
app.command("doctor")(doctor.doctor)
app.command("drift")(drift.drift)
