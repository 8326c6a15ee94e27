"""Tenancy is opened and closed with the application's own lifespan."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI

from control_plane.errors import ConfigurationError
from control_plane.settings import Settings
from control_plane.tenancy import install_tenancy
from tests.integration.sessions.application import World, code
from tests.support.members import Members


async def test_the_application_s_own_lifespan_still_runs(members: Members, settings: Settings) -> None:
    seen: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        seen.append("opened" if app.state.tenancy else "")
        yield {"own": "state"}
        seen.append("closed")

    app = FastAPI(lifespan=lifespan)
    install_tenancy(app, settings)
    async with app.router.lifespan_context(app) as state:
        assert state == {"own": "state"}
    assert seen == ["opened", "closed"]


def test_an_installation_must_be_named() -> None:
    with pytest.raises(ConfigurationError, match="which"):
        install_tenancy(FastAPI(), Settings.model_validate({"signing_key": "x" * 32}))


async def test_an_application_whose_lifespan_did_not_run_says_so(world: World) -> None:
    headers = world.token(await world.members.add("acme"))
    transport = httpx.ASGITransport(world.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as opened:
        assert code(await opened.get("/names", headers=headers)) == (500, "configuration")
