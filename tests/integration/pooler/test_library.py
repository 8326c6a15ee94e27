"""What holds for an application's own SQL holds behind a pooler: the same tests (attack 35)."""

from __future__ import annotations

from tests.integration.sessions.conftest import (
    client,
    world,
)
from tests.integration.sessions.test_changes import (
    test_an_outdated_placement_is_read_again,
    test_the_isolation_level_survives_the_change_of_place,
)
from tests.integration.sessions.test_connections import (
    test_a_session_between_transactions_holds_no_connection,
    test_cancelled_sessions_give_their_connections_back,
    test_nothing_of_a_session_reaches_the_next_request,
    test_the_statements_of_a_session_may_alternate,
)
from tests.integration.sessions.test_endpoints import (
    test_a_commit_that_fails_is_no_success,
    test_an_exception_rolls_back,
    test_each_tenant_reads_and_writes_its_own_tables,
    test_interleaved_requests_of_two_tenants_never_mix,
)
from tests.integration.sessions.test_outside_requests import (
    test_a_connection_ends_with_its_transaction,
    test_a_route_may_ask_for_a_connection,
)

__all__ = [
    "client",
    "test_a_commit_that_fails_is_no_success",
    "test_a_connection_ends_with_its_transaction",
    "test_a_route_may_ask_for_a_connection",
    "test_a_session_between_transactions_holds_no_connection",
    "test_an_exception_rolls_back",
    "test_an_outdated_placement_is_read_again",
    "test_cancelled_sessions_give_their_connections_back",
    "test_each_tenant_reads_and_writes_its_own_tables",
    "test_interleaved_requests_of_two_tenants_never_mix",
    "test_nothing_of_a_session_reaches_the_next_request",
    "test_the_isolation_level_survives_the_change_of_place",
    "test_the_statements_of_a_session_may_alternate",
    "world",
]
