-- Whom a transaction works for. set_tenant_context() is the only sanctioned setter, current_*() the only readers.

-- The key of the lock that orders a tenant's writing transactions and a change of its state.
CREATE FUNCTION tenant_lock(tenant uuid) RETURNS bigint
IMMUTABLE PARALLEL SAFE
RETURN hashtextextended('tenancy.tenant:' || tenant::text, 0);

CREATE FUNCTION current_tenant_id() RETURNS uuid
STABLE PARALLEL SAFE
RETURN nullif(current_setting('app.current_tenant_id', true), '')::uuid;

CREATE FUNCTION current_user_id() RETURNS uuid
STABLE PARALLEL SAFE
RETURN nullif(current_setting('app.current_user_id', true), '')::uuid;

CREATE FUNCTION current_roles() RETURNS text[]
STABLE PARALLEL SAFE
RETURN coalesce(nullif(current_setting('app.current_roles', true), '')::text[], '{}');

-- Binds the current transaction to a tenant, or raises. It never returns false: a gated statement
-- (CASE WHEN set_tenant_context(…) THEN …) would turn that into an empty answer.
CREATE FUNCTION set_tenant_context(
    tenant uuid,
    user_id uuid,
    epoch bigint DEFAULT NULL,
    read_only boolean DEFAULT false,
    roles text[] DEFAULT '{}'
) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_state text;
    found_epoch bigint;
    found_membership text;
    granted text[] := roles;
    -- now() is the start of the transaction: with it a setting left behind by an earlier one is told apart.
    transaction_mark text := extract(epoch FROM now())::text;
BEGIN
    IF tenant IS NULL OR user_id IS NULL OR read_only IS NULL OR roles IS NULL THEN
        RAISE EXCEPTION 'a tenant context needs a tenant and a user' USING ERRCODE = 'TN400';
    END IF;
    IF current_setting('app.context_mark', true) = transaction_mark
       AND current_setting('app.current_tenant_id', true) IS DISTINCT FROM tenant::text THEN
        RAISE EXCEPTION 'this transaction already works for another tenant' USING ERRCODE = 'TN400';
    END IF;

    -- Before the state is read: whoever changes the state commits first and then takes this lock exclusively.
    IF NOT read_only THEN
        PERFORM pg_advisory_xact_lock_shared(tenancy.tenant_lock(tenant));
    END IF;

    -- session_user, because inside this function current_user is its owner.
    SELECT t.state, t.epoch, t.membership INTO found_state, found_epoch, found_membership
    FROM tenancy.tenants AS t
    JOIN tenancy.home_roles AS r ON r.home_id = t.home_id AND r.role_name = session_user
    WHERE t.id = tenant;

    IF found_state IS NULL OR found_state = 'deleting' THEN
        RAISE EXCEPTION 'no such tenant here' USING ERRCODE = 'TN404';
    ELSIF found_state = 'suspended' THEN
        RAISE EXCEPTION 'the tenant is suspended' USING ERRCODE = 'TN403';
    ELSIF found_state IN ('moving', 'provisioning') THEN
        RAISE EXCEPTION 'the tenant is not available yet' USING ERRCODE = 'TN503', DETAIL = found_state;
    ELSIF found_epoch <> epoch THEN
        RAISE EXCEPTION 'the placement is out of date' USING ERRCODE = 'TN409';
    END IF;

    IF found_membership = 'listed' THEN
        SELECT m.roles INTO granted
        FROM tenancy.members AS m
        WHERE m.tenant_id = tenant AND m.user_id = set_tenant_context.user_id;
        IF granted IS NULL THEN
            RAISE EXCEPTION 'not a member of the tenant' USING ERRCODE = 'insufficient_privilege';
        END IF;
    END IF;

    PERFORM set_config('app.current_tenant_id', tenant::text, true),
            set_config('app.current_user_id', user_id::text, true),
            set_config('app.current_roles', granted::text, true),
            set_config('app.context_mark', transaction_mark, true);
    IF read_only THEN
        PERFORM set_config('transaction_read_only', 'on', true);
    END IF;
    RETURN true;
END
$$;

-- The counterpart for jobs of the administrative role: binds the current transaction to a tenant of this database and
-- makes it work as cp_definer, which obeys the tenant policies. No user: what a job does, nobody asked for.
CREATE FUNCTION set_job_context(tenant uuid) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_state text;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(tenancy.tenant_lock(tenant));
    SELECT t.state INTO found_state FROM tenancy.tenants AS t WHERE t.id = tenant;
    IF found_state IS NULL OR found_state = 'deleting' THEN
        RAISE EXCEPTION 'no such tenant here' USING ERRCODE = 'TN404';
    ELSIF found_state NOT IN ('active', 'suspended') THEN
        RAISE EXCEPTION 'the tenant is not available yet' USING ERRCODE = 'TN503', DETAIL = found_state;
    END IF;
    PERFORM set_config('app.current_tenant_id', tenant::text, true),
            set_config('app.current_user_id', '', true),
            set_config('app.current_roles', '', true),
            set_config('app.context_mark', extract(epoch FROM now())::text, true),
            set_config('role', 'cp_definer', true);
END
$$;

-- The sessions that hold a tenant's write lock; fencing cancels them when they do not end by themselves.
CREATE FUNCTION fence_holders(tenant uuid) RETURNS SETOF integer
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pid
    FROM pg_locks
    WHERE locktype = 'advisory'
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND objsubid = 1  -- one 64-bit key, split over two 32-bit columns
      AND (classid::bigint << 32) | objid::bigint = tenancy.tenant_lock(tenant)
      AND mode = 'ShareLock'
      AND granted
$$;
