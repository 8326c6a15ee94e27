"""The services that the request path is compared with. Each reads `RIVAL` (JSON, `Rival`) from the environment."""

from __future__ import annotations

import os

from pydantic import BaseModel


class Rival(BaseModel):
    """What a rival needs to serve the same rows: the home's own login, its schema, and how tokens are signed."""

    dsn: str  # of the home's login role
    schema_name: str
    pool_size: int
    signing_key: str
    issuer: str
    audience: str
    user_id: str  # for the rival that verifies no token


def rival() -> Rival:
    return Rival.model_validate_json(os.environ["RIVAL"])
