"""What an attacker may try on a request's way, each with the tests that try it and the mutations that they see.

A mutation takes one guard out; the test that is named beside it runs the test of the attack against that and must
find it red. `tests/unit/test_attack_list.py` holds this table against the tests that there are.
"""

from __future__ import annotations

from dataclasses import dataclass

ISOLATION = "tests/conformance/test_isolation.py"
CONTEXT = "tests/conformance/test_context.py"
POSTURE = "tests/conformance/test_posture.py"
BROKEN = "tests/conformance/test_mutations.py"
STAMP = "tests/conformance/test_stamp.py"
ROUTING = "tests/conformance/test_routing.py"
GATE = "tests/integration/test_gate.py"
POOLS = "tests/integration/test_request_pools.py"
POOLER = "tests/integration/pooler/test_pooler.py"
BUDGET = "tests/unit/test_budget.py"
API = "tests/integration/tenant_api"
PLATFORM = "tests/integration/test_platform_api.py"
SESSION = "tests/integration/sessions"
PATH_BROKEN = "tests/integration/test_mutations.py"
TOKENS = "tests/unit/identity/test_attacks.py"
TOKENS_BROKEN = "tests/unit/identity/test_mutations.py"
TAKEN_BACK = "tests/unit/identity/test_revocations.py"
REVOKED = "tests/integration/test_revocations.py"
FEED = "tests/integration/test_feed.py"
VERIFIER = "tests/unit/identity/test_verifier.py"
HEADERS = "tests/unit/identity/test_middleware.py"
KEYS = "tests/unit/identity/test_jwks.py"
LINT = "tests/unit/templates/test_lint.py"
LINT_CASES = "tests/unit/templates/lint_cases.py"
CURSORS = "tests/conformance/patterns/test_22_cursors.py"
CACHE = "tests/conformance/patterns/test_21_query_cache.py"

FORGED = f"{TOKENS}::test_a_forged_or_malformed_token_is_refused_by_the_guard_against_it"
HOME_FOUND = f"{POSTURE}::test_a_broken_home_is_found_in_every_mode"
SHARED_FOUND = f"{POSTURE}::test_a_broken_shared_table_is_found"
DATABASE_FOUND = f"{POSTURE}::test_a_broken_database_is_found"
DENIED = f"{ISOLATION}::test_a_request_role_may_not"


@dataclass(frozen=True)
class Attack:
    """One row. `tests` are `module::function`, `mutations` are `module::text that names it there`."""

    what: str
    tests: tuple[str, ...] = ()
    mutations: tuple[str, ...] = ()
    why: str = ""  # why there is no test, or no mutation


ATTACKS: dict[int, Attack] = {
    # The database as it stands
    1: Attack(
        "a login role that is a superuser, bypasses policies or is a member of the tables' owner",
        (DATABASE_FOUND, f"{POSTURE}::test_a_broken_cluster_is_refused_and_the_fix_is_named"),
        (f"{POSTURE}::GRANT cp_owner TO {{role}}", f"{POSTURE}::ALTER ROLE {{role}} CREATEROLE"),
    ),
    2: Attack(
        "a table without its policy, or without a tenant",
        (SHARED_FOUND, f"{ISOLATION}::test_no_relation_shows_anything_of_another_tenant"),
        (
            f"{POSTURE}::ALTER TABLE tb_project NO FORCE ROW LEVEL SECURITY",
            f"{POSTURE}::CREATE TABLE tb_new (id uuid PRIMARY KEY)",
            f"{BROKEN}::the restrictive policy is dropped",
        ),
    ),
    3: Attack(
        "a view that runs with the rights of its owner",
        (HOME_FOUND, f"{STAMP}::test_a_replaced_view_must_restate_its_option"),
        (
            f"{POSTURE}::CREATE OR REPLACE VIEW v_user_card AS {{v_user_card}}",
            f"{BROKEN}::a view runs with the rights of its owner",
        ),
    ),
    4: Attack(
        "materialised views, and rights that row-level security does not govern",
        (HOME_FOUND, DENIED),
        (
            f"{POSTURE}::CREATE MATERIALIZED VIEW m AS SELECT * FROM tb_user",
            f"{POSTURE}::GRANT TRUNCATE ON tb_project TO {{role}}",
        ),
    ),
    5: Attack(
        "a definer function of a strong owner, without a path of its own, or for everybody",
        (HOME_FOUND, f"{STAMP}::test_a_definer_function_is_handed_over_and_obeys_the_policies"),
        (
            f"{POSTURE}::GRANT EXECUTE ON FUNCTION fn_create_user(jsonb) TO PUBLIC",
            f"{POSTURE}::CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'",
        ),
    ),
    6: Attack(
        "the functions of the policy with another volatility",
        (DATABASE_FOUND, f"{ISOLATION}::test_a_prepared_statement_follows_the_context"),
        (
            f"{POSTURE}::ALTER FUNCTION tenancy.current_tenant_id() IMMUTABLE",
            f"{BROKEN}::the reader of the setting is immutable",
        ),
    ),
    7: Attack(
        "a request that creates objects, temporary ones too",
        (DENIED, DATABASE_FOUND, f"{GATE}::test_a_session_may_not_keep_state_of_its_own"),
        (
            f"{POSTURE}::GRANT TEMP ON DATABASE {{database}} TO PUBLIC",
            f"{POSTURE}::GRANT CREATE ON SCHEMA extensions TO PUBLIC",
        ),
    ),
    8: Attack(
        "a server with known ways past row-level security",
        (
            "tests/unit/test_server_versions.py::test_a_minor_release_with_known_ways_past_row_level_security_is_named",
            "tests/unit/test_server_versions.py::test_a_server_without_invoker_views_is_refused",
        ),
        ("tests/unit/test_server_versions.py::every minor release is safe",),
    ),
    # Rows
    9: Attack(
        "no context at all",
        (
            f"{ISOLATION}::test_without_a_context_nothing_is_read_and_nothing_is_written",
            f"{ISOLATION}::test_a_dedicated_home_refuses_a_write_without_a_context",
        ),
        (f"{BROKEN}::row-level security is off",),
    ),
    10: Attack(
        "an empty context, or one of an earlier transaction",
        (
            f"{ISOLATION}::test_an_empty_setting_means_no_tenant",
            f"{CONTEXT}::test_nothing_of_the_context_outlives_its_transaction",
            f"{GATE}::test_no_context_survives_a_statement_even_a_failed_one",
            f"{SESSION}/test_binding.py::test_autocommit_is_refused_since_nothing_could_bind_it",
        ),
        (
            f"{BROKEN}::an empty setting is not null",
            f"{BROKEN}::the context outlives its transaction",
            f"{PATH_BROKEN}::AUTOCOMMIT outlives the context",
        ),
    ),
    11: Attack(
        "the id of another tenant's row",
        (
            f"{ISOLATION}::test_another_tenants_row_cannot_be_touched_by_its_id",
            f"{GATE}::test_one_document_is_read_by_its_owner_and_absent_for_others",
            f"{API}/test_reads.py::test_each_tenant_sees_exactly_its_own",
        ),
        (f"{BROKEN}::the restrictive policy is dropped",),
    ),
    12: Attack(
        "a row that is planted in, or moved to, another tenant",
        (f"{ISOLATION}::test_a_row_cannot_be_planted_in_or_moved_to_another_tenant",),
        (f"{BROKEN}::the policy does not check what is written",),
    ),
    13: Attack(
        "ON CONFLICT with another tenant's row",
        (f"{ISOLATION}::test_on_conflict_neither_reads_nor_changes_another_tenants_row",),
        (f"{BROKEN}::row-level security does not stand before an upsert",),
    ),
    14: Attack(
        "a unique value that another tenant has",
        (f"{ISOLATION}::test_a_unique_value_of_another_tenant_is_free", HOME_FOUND),
        (
            f"{BROKEN}::a unique key is not led by tenant_id",
            f"{POSTURE}::CREATE UNIQUE INDEX tb_user_bio ON tb_user (id, bio)",
        ),
    ),
    15: Attack(
        "a reference to another tenant's row",
        (f"{ISOLATION}::test_a_foreign_key_does_not_tell_whether_another_tenants_row_exists", HOME_FOUND),
        (f"{BROKEN}::a reference goes by the id alone",),
    ),
    16: Attack(
        "sequences that count for all tenants",
        (f"{ISOLATION}::test_no_sequence_tells_of_another_tenants_inserts",),
        (f"{BROKEN}::ids are counted",),
    ),
    17: Attack(
        "a filter that tells of the rows it was tried on",
        (f"{ISOLATION}::test_hidden_rows_are_not_evaluated_by_a_leaky_filter",),
        (f"{BROKEN}::hidden rows are shown to filters",),
    ),
    18: Attack(
        "row_security = off, TRUNCATE, COPY",
        (
            f"{ISOLATION}::test_row_security_cannot_be_switched_off",
            DENIED,
            f"{ISOLATION}::test_a_login_role_makes_no_database_and_drops_no_policy",
        ),
        (f"{BROKEN}::no policy applies when it is switched off",),
    ),
    19: Attack(
        "statistics, plans and the statements of others",
        (
            f"{ISOLATION}::test_statistics_of_shared_tables_are_hidden",
            f"{POOLS}::test_the_text_of_a_statement_holds_no_value_of_a_request",
            f"{ROUTING}::test_there_is_no_parameter_for_sql_text",
        ),
        (f"{BROKEN}::statistics are shown where no policy hides them",),
    ),
    20: Attack(
        "a prepared statement of one tenant, executed for another",
        (
            f"{ISOLATION}::test_a_prepared_statement_follows_the_context",
            f"{GATE}::test_a_poisoned_session_setting_does_not_reach_the_next_request",
        ),
        (f"{BROKEN}::the reader of the setting is immutable",),
    ),
    21: Attack(
        "a plan that reads before the gate has agreed",
        (
            f"{GATE}::test_reads_are_a_result_over_an_init_plan_behind_the_gate",
            f"{API}/test_page_plans.py::test_every_form_is_an_init_plan_behind_the_gate_and_a_range_of_an_index",
            f"{GATE}::test_a_poisoned_session_setting_does_not_reach_the_next_request",
            f"{CONTEXT}::test_a_poisoned_session_setting_does_not_reach_the_next_request",
        ),
        (f"{GATE}::the gate as a CTE reads first",),
    ),
    22: Attack(
        "a gate without a tenant, for an unknown or suspended one, or with an old epoch",
        (
            f"{GATE}::test_the_gate_raises_and_never_answers_nothing",
            f"{CONTEXT}::test_null_arguments_are_refused",
            f"{CONTEXT}::test_an_unknown_tenant_is_not_here",
            f"{CONTEXT}::test_a_state_takes_effect_at_once",
            f"{CONTEXT}::test_an_old_epoch_is_told_from_a_current_one",
        ),
        (
            f"{BROKEN}::the gate ignores the state",
            f"{BROKEN}::the gate ignores the epoch",
            f"{BROKEN}::the gate answers false instead of raising",
        ),
    ),
    23: Attack(
        "a read that writes",
        (f"{GATE}::test_a_read_only_call_cannot_write", f"{CONTEXT}::test_a_read_only_context_writes_nothing"),
        (f"{BROKEN}::the gate lets a read write",),
    ),
    24: Attack(
        "a partition instead of its table",
        (f"{ISOLATION}::test_a_partition_has_no_grants_of_its_own",),
        (f"{BROKEN}::a partition has a grant of its own",),
    ),
    25: Attack(
        "files and large objects of the server",
        (DENIED,),
        why="PostgreSQL itself refuses: nothing of ours could be taken out.",
    ),
    26: Attack(
        "the notifications of another tenant",
        (
            f"{LINT}::test_a_rule_refuses_what_breaks_it_and_nothing_else",
            f"{ROUTING}::test_only_catalogued_operations_exist",
        ),
        (f"{LINT_CASES}::NOTIFY a", f"{LINT_CASES}::LISTEN a"),
    ),
    27: Attack(
        "advisory locks of another tenant, and locks that outlive their transaction",
        (
            f"{LINT}::test_a_rule_refuses_what_breaks_it_and_nothing_else",
            "tests/conformance/patterns/test_14_concurrent_writers.py::test_tenants_do_not_wait_for_each_other",
            "tests/conformance/patterns/test_21_concurrency.py"
            "::test_the_flights_of_tenants_and_of_parameters_are_their_own",
        ),
        (f"{LINT_CASES}::session-state",),
    ),
    28: Attack(
        "a setting that stays in the session",
        (
            f"{POOLS}::test_an_inspection_ends_a_session_that_kept_state",
            f"{SESSION}/test_connections.py::test_nothing_of_a_session_reaches_the_next_request",
        ),
        (f"{PATH_BROKEN}::an inspection finds nothing", f"{PATH_BROKEN}::a session of the library is not reset"),
    ),
    29: Attack(
        "cursors, temporary tables, prepared statements and roles that stay in the session",
        (
            DENIED,
            f"{POOLS}::test_an_inspection_ends_a_session_that_kept_state",
            f"{SESSION}/test_connections.py::test_nothing_of_a_session_reaches_the_next_request",
        ),
        (f"{PATH_BROKEN}::an inspection finds nothing", f"{PATH_BROKEN}::a session of the library is not reset"),
    ),
    30: Attack(
        "another tenant behind a savepoint",
        (f"{CONTEXT}::test_a_savepoint_cannot_change_the_tenant",),
        (f"{BROKEN}::a transaction may change its tenant",),
    ),
    31: Attack(
        "SQL in names, filters, sorts and cursors",
        (
            f"{GATE}::test_names_are_quoted",
            f"{API}/test_dialect.py::test_only_what_is_declared_may_be_named",
            f"{ROUTING}::test_parameters_are_data",
            f"{CURSORS}::test_a_cursor_that_was_changed_is_refused",
            f"{API}/test_pages.py::test_a_cursor_is_good_for_one_question_only",
            f"{API}/test_pages.py::test_a_wrong_cursor_is_refused_where_there_are_no_rows_too",
        ),
        (
            f"{PATH_BROKEN}::a quote ends the identifier",
            f"{API}/test_pages.py::a cursor is opened only where rows are compared with it",
            f"{API}/test_pages.py::a cursor is good for any question",
        ),
    ),
    32: Attack(
        "slugs that collide, escape or come back",
        (
            "tests/conformance/test_homes.py::test_a_slug_outside_the_grammar_creates_nothing",
            "tests/conformance/test_homes.py::test_names_come_from_ids_and_fit",
            "tests/unit/test_slug.py::test_a_slug_outside_the_grammar_is_refused_with_its_flaw",
        ),
        ("tests/unit/test_slug.py::a slug may end anywhere",),
    ),
    33: Attack(
        "a connection of the pool that begins elsewhere",
        (
            f"{POOLS}::test_every_connection_of_a_pool_begins_in_its_own_schema",
            f"{ISOLATION}::test_a_login_role_reaches_its_own_home_only",
        ),
        (f"{BROKEN}::a login role begins in another schema",),
    ),
    # Concurrency
    34: Attack(
        "interleaved requests, cancelled, timed out or cut off",
        (
            f"{POOLS}::test_interleaved_requests_of_two_tenants_never_mix",
            f"{POOLS}::test_cancels_timeouts_and_terminated_backends_never_mix_or_stick",
            f"{POOLS}::test_a_cancelled_request_leaves_no_statement_behind",
            f"{SESSION}/test_endpoints.py::test_interleaved_requests_of_two_tenants_never_mix",
            f"{SESSION}/test_connections.py::test_cancelled_sessions_give_their_connections_back",
        ),
        (f"{PATH_BROKEN}::an interrupted connection goes to the next request",),
    ),
    35: Attack(
        "the same through PgBouncer, in transaction mode and in statement mode",
        (
            f"{POOLS}::test_interleaved_requests_of_two_tenants_never_mix",  # run again by tests/integration/pooler
            f"{POOLS}::test_cancels_timeouts_and_terminated_backends_never_mix_or_stick",
            f"{API}/test_callers.py::test_an_old_epoch_is_resolved_again_unseen",
            f"{SESSION}/test_connections.py::test_nothing_of_a_session_reaches_the_next_request",
            f"{POOLER}::test_statement_mode_serves_the_api",
            f"{POOLER}::test_a_pooler_that_is_set_up_wrongly_is_found",
            f"{POOLER}::test_an_inspection_ends_the_session_of_the_server",
        ),
        (
            f"{POOLER}::statements stay prepared behind a pooler",
            f"{POOLER}::a session goes to the next client as it is",
            f"{POOLER}::a pooler takes TimeZone along",
            f"{POOLER}::an inspection closes the connection alone",
        ),
    ),
    36: Attack(
        "an error in the middle of a transaction",
        (
            f"{POOLS}::test_a_transaction_left_open_costs_the_connection",
            f"{GATE}::test_no_context_survives_a_statement_even_a_failed_one",
            f"{SESSION}/test_endpoints.py::test_an_exception_rolls_back",
        ),
        (f"{PATH_BROKEN}::an open transaction goes to the next request",),
    ),
    37: Attack(
        "one tenant takes every connection",
        (
            f"{POOLS}::test_exhaustion_is_a_503_and_passes",
            f"{POOLS}::test_the_budget_holds_over_more_homes_than_it_has_connections",
            f"{POOLS}::test_a_flood_of_one_tenant_leaves_the_others_served",
            f"{BUDGET}::test_a_tenant_that_floods_leaves_connections_to_the_others",
            f"{BUDGET}::test_tenants_take_turns_however_long_their_lines_are",
            f"{BUDGET}::test_lines_have_an_end",
            "tests/integration/test_cluster_budget.py::test_the_budget_holds_whatever_the_number_of_homes",
        ),
        (
            f"{PATH_BROKEN}::one home may take every connection",
            f"{BUDGET}::a tenant may hold what it can get",
            f"{BUDGET}::requests are served in order of arrival",
            f"{BUDGET}::a tenant may queue as much as it likes",
            "tests/integration/test_cluster_budget.py::a home takes a slot beyond the budget",
        ),
    ),
    38: Attack(
        "a write at the old place of a tenant that moved",
        (
            f"{API}/test_callers.py::test_an_old_epoch_is_resolved_again_unseen",
            f"{SESSION}/test_changes.py::test_an_outdated_placement_is_read_again",
            f"{FEED}::test_a_connection_that_is_cut_is_replaced_and_everything_read_again",
            "tests/conformance/test_fencing.py::test_a_fence_waits_for_a_writer_that_began_before",
            "tests/conformance/test_fencing.py::test_a_writer_that_comes_after_is_refused",
        ),
        (
            f"{BROKEN}::the gate takes no lock",
            f"{BROKEN}::the gate ignores the epoch",
            f"{FEED}::nothing is read again after a gap",
        ),
    ),
    39: Attack(
        "an answer that was kept for another tenant",
        (
            f"{API}/test_reads.py::test_answers_are_private_and_bytes_of_the_database",
            f"{API}/test_tags.py::test_a_tag_is_for_one_caller",
            f"{API}/test_tags.py::test_a_tag_covers_all_that_the_answer_says",
            f"{CACHE}::test_each_tenant_has_answers_of_its_own",
            f"{CACHE}::test_an_answer_is_for_one_class_of_viewers",
        ),
        (
            f"{API}/test_reads.py::answers may be kept by others",
            f"{API}/test_tags.py::a tag does not know who asks",
        ),
    ),
    40: Attack(
        "errors that tell of rows or of the database",
        (
            f"{API}/test_reads.py::test_each_tenant_sees_exactly_its_own",
            f"{API}/test_failures.py::test_unexpected_database_errors_tell_an_id_and_nothing_else",
            "tests/unit/test_problems.py::test_each_sqlstate_has_an_answer_that_quotes_nothing",
        ),
        ("tests/unit/test_problems.py::a problem quotes the database",),
    ),
    41: Attack(
        "a transport without authentication",
        (
            f"{PLATFORM}::test_every_route_is_public_by_name_or_demands_a_token",
            f"{PLATFORM}::test_the_service_has_no_transport_but_http",
            f"{API}/test_callers.py::test_who_has_no_tenant_gets_no_connection",
        ),
        (f"{HEADERS}::nobody is somebody",),
    ),
    # Who is asking
    42: Attack(
        "a tenant that is named elsewhere than in the token, or named badly there",
        (
            FORGED,
            f"{HEADERS}::test_attack_42_the_tenant_comes_from_the_token_alone",
            f"{API}/test_callers.py::test_a_tenant_named_elsewhere_than_in_the_token_is_not_looked_at",
            f"{API}/test_callers.py::test_who_has_no_tenant_gets_no_connection",
        ),
        (f"{TOKENS_BROKEN}::a tenant may be spelt in many ways", f"{TOKENS_BROKEN}::any header may carry the token"),
    ),
    43: Attack(
        "a header with two readings, a token elsewhere",
        (
            f"{HEADERS}::test_attack_43_a_header_with_two_readings_is_invalid",
            f"{HEADERS}::test_attack_43_a_token_elsewhere_is_no_token",
        ),
        (f"{TOKENS_BROKEN}::the first of two headers counts", f"{TOKENS_BROKEN}::any header may carry the token"),
    ),
    44: Attack(
        "a user who was removed, a tenant that was suspended, with a token that is still good",
        (
            f"{API}/test_callers.py::test_suspending_and_resuming_take_effect_on_the_next_request",
            f"{API}/test_exports.py::test_a_tenant_that_is_taken_out_of_service_cuts_an_export_off",
            "tests/integration/test_members.py::test_a_list_takes_effect_at_once",
            f"{REVOKED}::test_the_tokens_of_one_user_are_taken_back_and_new_ones_are_good",
            f"{REVOKED}::test_with_all_notices_dropped_the_database_decides_on_the_next_request",
            f"{FEED}::test_notices_that_are_lost_cost_a_revocation_no_more_than_the_interval",
        ),
        (
            f"{BROKEN}::the gate ignores the state",
            f"{TOKENS_BROKEN}::the moment of a revocation does not count",
            f"{FEED}::nobody reads the revocations",
        ),
    ),
    45: Attack(
        "a stream that outlives its token",
        (
            f"{API}/test_exports.py::test_an_export_ends_with_its_token",
            f"{API}/test_exports.py::test_an_answer_that_is_cut_off_is_a_failure_for_the_client",
            f"{PLATFORM}::test_the_service_has_no_transport_but_http",
        ),
        (f"{API}/test_exports.py::a stream has no end of its own",),
    ),
    # Tokens
    46: Attack("no algorithm, no signature", (FORGED,), (f"{TOKENS_BROKEN}::the algorithm is the token's choice",)),
    47: Attack("a public key as a secret", (FORGED,), (f"{TOKENS_BROKEN}::a public key may be a secret",)),
    48: Attack("a sister of the algorithm", (FORGED,), (f"{TOKENS_BROKEN}::a sister of the algorithm will do",)),
    49: Attack(
        "a part of the algorithm's name", (FORGED,), (f"{TOKENS_BROKEN}::a part of the algorithm's name will do",)
    ),
    50: Attack("no audience", (FORGED,), (f"{TOKENS_BROKEN}::the audience may be absent",)),
    51: Attack("no expiry", (FORGED,), (f"{TOKENS_BROKEN}::the expiry may be absent",)),
    52: Attack("another issuer", (FORGED,), (f"{TOKENS_BROKEN}::any issuer is trusted",)),
    53: Attack(
        "several audiences",
        (FORGED, f"{TOKENS}::test_attack_53_another_service_may_stand_beside_our_audience"),
        (f"{TOKENS_BROKEN}::a token may be for both audiences",),
    ),
    54: Attack(
        "times that are none",
        (
            FORGED,
            f"{TOKENS}::test_attack_54_times_are_exact_at_their_boundaries",
            f"{TOKENS}::test_attack_54_whatever_python_jose_thinks_of_the_time_ours_is_checked",
        ),
        (f"{TOKENS_BROKEN}::infinity is a time", f"{TOKENS_BROKEN}::a token never expires"),
    ),
    55: Attack("critical extensions", (FORGED,), (f"{TOKENS_BROKEN}::critical extensions are overlooked",)),
    56: Attack(
        "JSON of great depth, or of another kind",
        (FORGED, f"{TOKENS}::test_whatever_goes_wrong_inside_the_token_is_invalid"),
        (f"{TOKENS_BROKEN}::nesting has no bound", f"{TOKENS_BROKEN}::a list is a header"),
    ),
    57: Attack(
        "tokens of great length",
        (FORGED, f"{TOKENS}::test_attack_57_the_longest_token_is_accepted"),
        (f"{TOKENS_BROKEN}::a token may be of any length",),
    ),
    58: Attack(
        "other spellings of a signature",
        (FORGED, f"{TOKENS}::test_attack_58_one_token_is_one_entry_of_the_cache"),
        (f"{TOKENS_BROKEN}::one signature has several spellings",),
    ),
    59: Attack("the same key twice", (FORGED,), (f"{TOKENS_BROKEN}::the last of two keys wins",)),
    60: Attack("encrypted tokens", (FORGED,), (f"{TOKENS_BROKEN}::a token may have five parts",)),
    61: Attack(
        "key ids that are paths, SQL or unknown",
        (FORGED, f"{KEYS}::test_attack_61_unknown_key_ids_cause_one_fetch_a_minute"),
        (f"{TOKENS_BROKEN}::a key id may be anything", f"{KEYS}::every unknown key id is asked for"),
    ),
    62: Attack(
        "key material in the header, or at an address that is not public",
        (
            f"{TOKENS}::test_attack_62_key_material_in_the_header_is_ignored",
            f"{KEYS}::test_attack_62_63_an_address_that_is_not_public_is_never_connected_to",
        ),
        (f"{KEYS}::every address is public",),
    ),
    63: Attack(
        "published keys that are gone, slow, huge or elsewhere",
        (
            f"{KEYS}::test_attack_63_a_bad_answer_leaves_the_last_good_keys",
            f"{KEYS}::test_attack_63_a_slow_answer_is_given_up_and_blocks_nobody_meanwhile",
            f"{KEYS}::test_attack_63_an_issuer_that_is_down_at_the_start_holds_nobody_up_and_is_tried_again",
        ),
        (f"{KEYS}::a set without keys takes the place of the last good one",),
    ),
    64: Attack(
        "another issuer's key, and tokens that are no access tokens",
        (FORGED, f"{KEYS}::test_one_key_id_means_another_key_at_another_issuer"),
        (
            f"{TOKENS_BROKEN}::nobody looks whether the issuer has the key",
            f"{TOKENS_BROKEN}::a refresh token will do",
            f"{TOKENS_BROKEN}::an ID token will do",
        ),
    ),
    65: Attack(
        "a key that was replaced, a token that was revoked, a secret that is short",
        (
            f"{VERIFIER}::test_attack_65_a_removed_key_ends_its_cached_tokens",
            f"{VERIFIER}::test_attack_65_another_key_under_the_same_id_ends_its_cached_tokens",
            f"{VERIFIER}::test_attack_65_a_short_signing_key_stops_the_start",
            f"{TAKEN_BACK}::test_attack_65_a_revoked_token_dies_on_its_next_use",
            f"{TAKEN_BACK}::test_attack_65_a_revoked_platform_token_dies_on_its_next_use",
            f"{TAKEN_BACK}::test_a_token_is_refused_when_its_revocation_may_have_been_deleted",
            f"{FEED}::test_without_the_registry_tokens_are_good_for_as_long_as_placements_are",
        ),
        (
            f"{TOKENS_BROKEN}::cached tokens outlive their key",
            f"{TOKENS_BROKEN}::a secret may be short",
            f"{TOKENS_BROKEN}::a revoked token stays cached",
            f"{TOKENS_BROKEN}::a revoked token is good once more",
            f"{TOKENS_BROKEN}::a cached token is not looked at again",
            f"{TOKENS_BROKEN}::a token outlives its revocation",
            f"{FEED}::only notices end a token",
            f"{FEED}::old news of revocations are good for ever",
        ),
    ),
}
