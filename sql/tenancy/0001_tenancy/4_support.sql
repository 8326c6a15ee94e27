-- Reading across the tenants of a shared home, for people who help. Their login roles are members of cp_support, which
-- may only SELECT, and sees no row until a session with a reason has been opened and committed: a transaction that is
-- rolled back leaves no trace, so one that has just opened a session does not see anything yet.
--
--     SELECT tenancy.open_support_session('ticket 4711: totals differ');
--     SELECT tenant_id, count(*) FROM tb_project GROUP BY 1;

CREATE FUNCTION open_support_session(reason text, lifetime interval DEFAULT '15 minutes') RETURNS timestamptz
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    opened tenancy.support_sessions;
BEGIN
    IF lifetime IS NULL OR lifetime NOT BETWEEN interval '1 second' AND interval '1 hour' THEN
        RAISE EXCEPTION 'a support session lasts at most an hour' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    INSERT INTO tenancy.support_sessions (reason, expires_at)
    VALUES (reason, clock_timestamp() + lifetime)
    RETURNING * INTO opened;
    PERFORM set_config('app.support_session', opened.id::text, false);
    RETURN opened.expires_at;
EXCEPTION WHEN check_violation OR not_null_violation THEN
    RAISE EXCEPTION 'a support session needs a reason of 8 to 1000 characters'
        USING ERRCODE = 'invalid_parameter_value';
END
$$;

-- Asked by the policy for cp_support. The setting only names the session; that it exists, belongs to this login, was
-- committed before and has not ended is the table's word.
CREATE FUNCTION in_support_session() RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN EXISTS (
        SELECT FROM tenancy.support_sessions s
        WHERE s.id::text = current_setting('app.support_session', true)
          AND s.role_name = session_user
          AND s.expires_at > clock_timestamp()
          AND s.opened_in IS DISTINCT FROM pg_current_xact_id_if_assigned()
    );
END
$$;
