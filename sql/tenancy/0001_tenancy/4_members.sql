-- Who belongs to a tenant, where its database keeps the list. Without one the token's word is taken: the service that
-- issues it knows the members. With one, a user who is taken off it is refused from the next transaction on, whatever
-- tokens are still valid. Called by the control plane.

CREATE FUNCTION put_membership(tenant uuid, membership text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE tenancy.tenants AS t SET membership = put_membership.membership WHERE t.id = tenant;
    IF NOT found THEN
        RAISE EXCEPTION 'no such tenant here' USING ERRCODE = 'TN404';
    END IF;
END
$$;

CREATE FUNCTION put_member(tenant uuid, user_id uuid, roles text[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM tenancy.tenants t WHERE t.id = tenant) THEN
        RAISE EXCEPTION 'no such tenant here' USING ERRCODE = 'TN404';
    END IF;
    INSERT INTO tenancy.members (tenant_id, user_id, roles)
    VALUES (tenant, put_member.user_id, put_member.roles)
    ON CONFLICT ON CONSTRAINT members_pkey DO UPDATE SET roles = excluded.roles;
END
$$;

-- Whether there was such a member.
CREATE FUNCTION remove_member(tenant uuid, user_id uuid) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM tenancy.members m WHERE m.tenant_id = tenant AND m.user_id = remove_member.user_id;
    RETURN found;
END
$$;
