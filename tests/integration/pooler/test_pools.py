"""What holds for a pool's connections holds for those to a pooler: the same tests (attack 35)."""

from __future__ import annotations

from tests.integration.test_gate import (
    test_a_home_serves_no_tenant_of_another_home,
    test_a_read_only_call_cannot_write,
    test_no_context_survives_a_statement_even_a_failed_one,
    test_one_document_is_read_by_its_owner_and_absent_for_others,
)
from tests.integration.test_request_pools import (
    opened,
    test_a_cancelled_request_leaves_no_statement_behind,
    test_a_request_connects_as_the_login_role_of_its_home,
    test_a_terminated_idle_connection_is_replaced_unseen,
    test_a_transaction_left_open_costs_the_connection,
    test_cancels_timeouts_and_terminated_backends_never_mix_or_stick,
    test_exhaustion_is_a_503_and_passes,
    test_interleaved_requests_of_two_tenants_never_mix,
)

__all__ = [
    "opened",
    "test_a_cancelled_request_leaves_no_statement_behind",
    "test_a_home_serves_no_tenant_of_another_home",
    "test_a_read_only_call_cannot_write",
    "test_a_request_connects_as_the_login_role_of_its_home",
    "test_a_terminated_idle_connection_is_replaced_unseen",
    "test_a_transaction_left_open_costs_the_connection",
    "test_cancels_timeouts_and_terminated_backends_never_mix_or_stick",
    "test_exhaustion_is_a_503_and_passes",
    "test_interleaved_requests_of_two_tenants_never_mix",
    "test_no_context_survives_a_statement_even_a_failed_one",
    "test_one_document_is_read_by_its_owner_and_absent_for_others",
]
