"""The login role of a home: one random password, known to the server only as a SCRAM verifier."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

import asyncpg

from control_plane.registry.models import Home
from control_plane.registry.secrets import SecretBox

# Iterations slow down the guessing of a password that a person chose. Ours has 256 random bits, and every connection of
# every small pool pays for them, on both sides.
_ITERATIONS = 256


def new_password() -> str:
    return secrets.token_urlsafe(32)


def scram_verifier(password: str) -> str:
    """What `CREATE ROLE … PASSWORD` takes instead of a password (RFC 5803).

    One password has one verifier: a pooler that shows another than the server's could not log in there. A salt that is
    random keeps equal passwords apart, and no two of ours are equal.
    """
    salt = hashlib.sha256(b"salt of " + password.encode()).digest()[:16]
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ITERATIONS)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    encoded = [base64.b64encode(part).decode() for part in (salt, stored_key, server_key)]
    return f"SCRAM-SHA-256${_ITERATIONS}:{encoded[0]}${encoded[1]}:{encoded[2]}"


def role_call(home: Home, box: SecretBox, statement_timeout: float, members_of: list[str]) -> str:
    """The call that creates the role; every value in it is of our own making and holds no quote."""
    path = f'"{home.schema_name}", extensions, pg_temp'
    verifier = scram_verifier(box.open(home.password))
    members = ",".join(members_of)
    # Here, and not when a session begins: poolers refuse a parameter that they do not know.
    settings = f'ALTER ROLE "{home.role_name}" SET jit = off;'
    return (
        f"SELECT tenancy.put_request_role('{home.role_name}', '{verifier}', '{path}', "
        f"interval '{int(statement_timeout * 1000)} ms', '{{{members}}}');{settings}"
    )


def verifier_call(home: Home, box: SecretBox) -> str:
    """The call that lets poolers check the role's password; in the home's own database, where the home is recorded."""
    return f"SELECT tenancy.put_verifier('{home.role_name}', '{scram_verifier(box.open(home.password))}');"


async def retire_role(connection: asyncpg.Connection, role_name: str) -> None:
    """Let nobody log in as the role any more and end its sessions."""
    exists = await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", role_name)
    if exists:
        await connection.execute(f'ALTER ROLE "{role_name}" NOLOGIN')
        await connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", role_name)
