-- What a database knows about the homes and the tenants in it. The authority: everything else is a cache.

CREATE TABLE homes (
    id uuid PRIMARY KEY,
    isolation text NOT NULL CHECK (isolation IN ('shared', 'schema', 'database')),
    template text NOT NULL,
    schema_name text NOT NULL UNIQUE CHECK (octet_length(schema_name) <= 48),  -- leaves room for '__api_v9999'
    tenant_id uuid CHECK ((tenant_id IS NULL) = (isolation = 'shared')),       -- the one tenant of a dedicated home
    version integer NOT NULL DEFAULT 0 CHECK (version >= 0),
    checksum text,                                                            -- of the last version applied
    default_api integer,
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);  -- every release updates every row: keep room for it in the page

-- The login roles that requests to a home may come from.
CREATE TABLE home_roles (
    home_id uuid NOT NULL REFERENCES homes ON UPDATE CASCADE ON DELETE CASCADE,
    role_name text NOT NULL UNIQUE,
    PRIMARY KEY (home_id, role_name)
);

-- What a pattern version of a template exposes, as its template.toml declares it. The stamp writes it.
CREATE TABLE manifests (
    template text NOT NULL,
    version integer NOT NULL,
    manifest jsonb NOT NULL,
    PRIMARY KEY (template, version)
);

-- Tables that only SECURITY DEFINER functions write; requests may read those that are not private. protect_table()
-- records them.
CREATE TABLE function_tables (
    home_id uuid NOT NULL REFERENCES homes ON UPDATE CASCADE ON DELETE CASCADE,
    table_name name NOT NULL,
    private boolean NOT NULL DEFAULT false,
    PRIMARY KEY (home_id, table_name)
);

-- Scripts that built a whole home which passed the audit: what they build from nothing next is the same.
CREATE TABLE audited_scripts (
    script text NOT NULL,  -- the checksum of all that it runs
    isolation text NOT NULL,
    PRIMARY KEY (script, isolation)
);

CREATE TABLE tenants (
    id uuid PRIMARY KEY,
    home_id uuid NOT NULL REFERENCES homes ON UPDATE CASCADE ON DELETE CASCADE,
    slug text NOT NULL UNIQUE,
    state text NOT NULL CHECK (state IN ('provisioning', 'active', 'suspended', 'moving', 'deleting')),
    epoch bigint NOT NULL DEFAULT 1,
    -- The epoch in which the tenant came here. It stays while the tenant does, whatever its states in between.
    arrival bigint NOT NULL DEFAULT 1,
    -- Who is let in: whom the verified token names, or only users who stand in `members`.
    membership text NOT NULL DEFAULT 'token' CHECK (membership IN ('token', 'listed'))
);
CREATE INDEX tenants_home_id ON tenants (home_id);

-- The users of a tenant whose membership is 'listed'. Their roles here take the place of the token's.
CREATE TABLE members (
    tenant_id uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    user_id uuid NOT NULL,
    roles text[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (tenant_id, user_id)
);

-- Reading across tenants, by people: who, when and why. Rows are never removed by the control plane.
CREATE TABLE support_sessions (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    role_name name NOT NULL DEFAULT session_user,
    reason text NOT NULL CHECK (length(btrim(reason)) BETWEEN 8 AND 1000),
    opened_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL,
    opened_in xid8 NOT NULL DEFAULT pg_current_xact_id()
);

-- protect_table() runs as cp_owner, in the middle of a template's DDL.
GRANT SELECT ON homes, home_roles TO cp_owner;
GRANT SELECT, INSERT ON function_tables TO cp_owner;
