"""An installation in a CP_HOME, made in this process: starting the program for each step would take much longer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from control_plane.identity.issuers import development_issuer
from control_plane.identity.tokens import mint_tenant_token
from control_plane.operations.engine import NewTenant
from control_plane.registry.models import Home, Tenant
from control_plane.service import complete, initialise, open_control_plane
from control_plane.settings import Settings
from tests.support.program import PATIENCE


@dataclass(frozen=True)
class Resident:
    """A tenant, where it lives, and a token of one of its users as an Authorization header has it."""

    slug: str
    id: str
    database: str
    role: str  # login role of its home
    token: str


def install(home: Path, tenants: Mapping[str, str]) -> list[Resident]:
    """Initialise `home` and create the tenants (slug → isolation) in it; nothing of it runs afterwards."""
    return asyncio.run(_install(home, tenants))


async def _install(home: Path, tenants: Mapping[str, str]) -> list[Resident]:
    settings = complete(Settings.model_validate({"home": home}))
    residents = []
    async with open_control_plane(settings, upgrade=True) as plane:
        await initialise(plane, actor="tests")
        for slug, isolation in tenants.items():
            new = NewTenant(slug=slug, name=slug, isolation=isolation)
            record, _ = await plane.operations.create_tenant(new, actor="tests", wait=PATIENCE)
            async with plane.databases.registry() as session:
                tenant = await session.get_one(Tenant, record.id)
                lives = await session.get_one(Home, tenant.home_id)
            token = mint_tenant_token(development_issuer(settings), tenant.id)
            residents.append(
                Resident(slug, str(tenant.id), lives.database, lives.role_name, f"Bearer {token}")
            )  # fmt: skip
    return residents
