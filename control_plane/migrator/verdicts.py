"""What a failure means for a home: try again, look again, or give it up."""

from __future__ import annotations

import random
from enum import Enum

from control_plane.errors import ClusterUnavailable
from control_plane.pools.connect import UNREACHABLE


class Verdict(Enum):
    RETRY = "the home is busy or the server is short of something"
    HELD = "another session migrates the home"
    WAIT = "as many indexes are being built in the database as may be"
    UNWANTED = "the tenant is being deleted"
    REPLAN = "the home is not at the version it was planned from"
    LOST = "the connection broke; whether the home was migrated is not known"
    FAIL = "the home cannot take the script"


# Each attempt waits longer for its locks than the one before. Everybody else queues behind a waiting ALTER TABLE,
# so the first attempts are short; only the last one, the setting's, may outlast deadlock_timeout (1 s), because a
# shorter one never makes autovacuum yield.
_LOCK_SECONDS = (0.1, 0.3, 1.0)
ATTEMPTS = len(_LOCK_SECONDS) + 1

_OURS = {
    "CP001": Verdict.REPLAN,
    "CP002": Verdict.HELD,
    "CP005": Verdict.WAIT,
    "CP006": Verdict.UNWANTED,
}
_BUSY = {
    "55P03",  # lock_not_available
    "40P01",  # deadlock_detected
    "40001",  # serialization_failure
    "57014",  # query_canceled: by an operator or by statement_timeout
    "53200",  # out_of_memory: the lock table is full
    "53300",  # too_many_connections
}


def judge(error: BaseException) -> Verdict:
    """The verdict on what `execute` or `connect` raised."""
    code = sqlstate_of(error)
    if code in _OURS:
        return _OURS[code]
    if isinstance(error, (ClusterUnavailable, *UNREACHABLE)) or (code or "").startswith(("08", "57P")):
        return Verdict.LOST
    return Verdict.RETRY if code in _BUSY else Verdict.FAIL


def sqlstate_of(error: BaseException) -> str | None:
    code = getattr(error, "sqlstate", None)
    return code if isinstance(code, str) else None


def lock_timeout(attempt: int, limit: float) -> float:
    """Seconds that attempt number `attempt` (from 0) waits for a lock."""
    return min(_LOCK_SECONDS[attempt], limit) if attempt < len(_LOCK_SECONDS) else limit


def patience(attempt: int) -> float:
    """Seconds until the next attempt, with full jitter so that retries of many homes do not meet again."""
    return random.uniform(0.05, 0.2 * 3**attempt)  # noqa: S311
