-- Who may call what. Everything else of this schema is for cp_tenancy and its members: the administrative role.

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA tenancy FROM PUBLIC;
GRANT USAGE ON SCHEMA tenancy TO cp_owner, cp_definer, cp_request, cp_support;
GRANT EXECUTE ON FUNCTION current_tenant_id(), current_user_id(), current_roles() TO cp_owner, cp_definer, cp_request;
GRANT EXECUTE ON FUNCTION
    mutation_result(boolean, text, text, jsonb, jsonb), with_document(jsonb, text, regclass),
    input_problems(jsonb, jsonb, text), value_problems(jsonb, jsonb, text), is_valid(text, regtype), declared(text, text)
    TO cp_owner, cp_definer, cp_request;
GRANT EXECUTE ON FUNCTION
    set_tenant_context(uuid, uuid, bigint, boolean, text[]), route_to_tenant(text, text, jsonb),
    find_route(text, text), ready(), installed_version(), deprecations()
    TO cp_request;
GRANT EXECUTE ON FUNCTION protect_table(regclass, text) TO cp_owner;
GRANT EXECUTE ON FUNCTION open_support_session(text, interval), in_support_session() TO cp_support;
