"""A help desk for many companies, each with its own tickets, in whichever kind of home it lives.

uvicorn examples.helpdesk.app:create_app --factory --port 8002
"""

from fastapi import FastAPI

from control_plane.tenancy import Settings, install_tenancy
from examples.helpdesk import jobs, reports, tickets


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application on the installation that `settings` name; those of the environment when absent."""
    app = FastAPI(title="Help desk")
    install_tenancy(app, settings or Settings())

    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> None: ...

    for part in (tickets, reports, jobs):
        app.include_router(part.router)
    return app
