"""What may be left in a session of the server: how it is looked for, and how it is removed."""

from __future__ import annotations

import itertools
from uuid import uuid4

import asyncpg

LIBRARY = "control-plane library"  # how its sessions are called in pg_stat_activity
PROCESS = uuid4().hex[:12]
# What a pooler passes on to its sessions; asyncpg's own spelling of the encoding would be passed on every time.
POOLER_SETTINGS = {"client_encoding": "UTF8"}

# A session that a request has changed: another role, tenant or path, a cursor, a lock.
CLEAN_SESSION = """
SELECT session_user = current_user
   AND coalesce(current_setting('app.current_tenant_id', true), '') = ''
   AND (SELECT setting = reset_val FROM pg_catalog.pg_settings WHERE name = 'search_path')
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable)
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory')
"""
# The session ends itself: behind a pooler, closing the connection would leave it to the next one.
INSPECT = f"SELECT CASE WHEN ({CLEAN_SESSION}) THEN true ELSE pg_terminate_backend(pg_backend_pid()) END"


class ResetConnection(asyncpg.Connection):
    """A connection whose `reset` leaves nothing that a statement can have made, prepared statements included."""

    def get_reset_query(self) -> str:
        return "DISCARD ALL"


class PooledConnection(asyncpg.Connection):
    """A connection to a pooler, which has another session of the server for each transaction, and resets it itself.

    A session's prepared statements are thus those of many processes: each has names that no other one has. What is left
    to reset are the parameters that a pooler takes along from session to session (TimeZone, DateStyle and the like).
    """

    _numbers = itertools.count()

    def get_reset_query(self) -> str:
        return f"RESET ALL; SET application_name = '{LIBRARY}'"

    def _get_unique_id(self, prefix: str) -> str:
        return f"__cp_{prefix}_{PROCESS}_{next(self._numbers):x}__"
