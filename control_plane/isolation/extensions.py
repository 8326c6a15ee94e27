"""Extensions that a template lists; they exist once per database, in the schema `extensions`."""

from __future__ import annotations

import asyncpg

from control_plane.templates import Template


async def install_extensions(connection: asyncpg.Connection, template: Template) -> None:
    """Trusted extensions need no superuser, only CREATE on the database."""
    for name in template.manifest.extensions:
        await connection.execute(f'CREATE EXTENSION IF NOT EXISTS "{name}" SCHEMA extensions')
