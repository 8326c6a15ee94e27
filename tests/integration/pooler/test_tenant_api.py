"""What holds for the tenant API holds behind a pooler: the same tests (attack 35)."""

from __future__ import annotations

from tests.integration.tenant_api.conftest import (
    client,
    services,
)
from tests.integration.tenant_api.test_callers import (
    test_an_old_epoch_is_resolved_again_unseen,
    test_suspending_and_resuming_take_effect_on_the_next_request,
)
from tests.integration.tenant_api.test_failures import (
    test_a_lost_connection_repeats_a_read_and_not_a_call,
    test_a_statement_that_runs_too_long_is_a_503,
)
from tests.integration.tenant_api.test_idempotent_calls import (
    test_calls_at_the_same_moment_are_one,
)
from tests.integration.tenant_api.test_reads import (
    test_each_tenant_sees_exactly_its_own,
)

__all__ = [
    "client",
    "services",
    "test_a_lost_connection_repeats_a_read_and_not_a_call",
    "test_a_statement_that_runs_too_long_is_a_503",
    "test_an_old_epoch_is_resolved_again_unseen",
    "test_calls_at_the_same_moment_are_one",
    "test_each_tenant_sees_exactly_its_own",
    "test_suspending_and_resuming_take_effect_on_the_next_request",
]
