"""For each rule of the gate what it refuses and what it accepts in its place."""

from __future__ import annotations

from typing import NamedTuple

TABLE = """
CREATE TABLE tb_a (
    tenant_id uuid NOT NULL DEFAULT tenancy.current_tenant_id(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    name text,
    PRIMARY KEY (tenant_id, id)
);
SELECT tenancy.protect_table('tb_a');
"""
VIEW = """
CREATE VIEW v_a WITH (security_invoker = true) AS
SELECT tenant_id, id, jsonb_build_object('__typename', 'A', 'id', id) AS data FROM tb_a;
"""


WAIVED = "-- lint: allow removal because the test wants it\n"


def body(statements: str, declare: str = "", returns: str = "jsonb") -> str:
    """A PL/pgSQL function."""
    return f"""
CREATE FUNCTION fn_a(input jsonb) RETURNS {returns} LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    x integer;
    {declare}
BEGIN
    {statements}
END
$$;
"""


class Case(NamedTuple):
    rule: str
    refused: str
    accepted: str


CASES = [
    # Isolation.
    Case("table-tenant-id", TABLE.replace("uuid NOT NULL DEFAULT tenancy.current_tenant_id()", "uuid"), TABLE),
    Case("table-tenant-id", TABLE.replace("tenant_id uuid NOT NULL", "tenant_id text NOT NULL"), TABLE),
    Case("table-tenant-id", TABLE.replace("tenancy.current_tenant_id()", "gen_random_uuid()"), TABLE),
    Case("table-tenant-id", TABLE.replace("tenancy.current_tenant_id()", "NULL"), TABLE),
    Case(
        "table-tenant-id",
        "CREATE TABLE tb_a (id uuid, PRIMARY KEY (tenant_id, id)); SELECT tenancy.protect_table('tb_a');",
        TABLE,
    ),
    Case("table-tenant-id", TABLE.replace("\n);", "\n) INHERITS (tb_b);"), TABLE),
    Case(
        "table-tenant-id",
        "ALTER TABLE tb_a ALTER COLUMN tenant_id DROP NOT NULL",
        "ALTER TABLE tb_a ALTER COLUMN name DROP NOT NULL",
    ),
    Case("table-primary-key", TABLE.replace("(tenant_id, id)", "(id, tenant_id)"), TABLE),
    Case("table-primary-key", TABLE.replace(",\n    PRIMARY KEY (tenant_id, id)", ""), TABLE),
    Case(
        "table-primary-key",
        "ALTER TABLE tb_a ADD PRIMARY KEY (id)",
        "ALTER TABLE tb_a ADD PRIMARY KEY (tenant_id, id)",
    ),
    Case("table-protection", TABLE.partition("SELECT")[0], TABLE),
    Case("table-protection", TABLE.replace("'tb_a'", "'tb_b'"), TABLE.replace("'tb_a')", "'tb_a', 'functions')")),
    Case("index-tenant-id", "CREATE INDEX ON tb_a (name)", "CREATE INDEX ON tb_a (tenant_id, name)"),
    Case(
        "index-tenant-id",
        "CREATE UNIQUE INDEX ON tb_a (lower(name), tenant_id)",
        "CREATE UNIQUE INDEX ON tb_a (tenant_id, lower(name))",
    ),
    Case(
        "index-tenant-id",
        "ALTER TABLE tb_a ADD UNIQUE (name)",
        "ALTER TABLE tb_a ADD UNIQUE (tenant_id, name); CREATE INDEX ON tb_a USING gin (data)",
    ),
    Case(
        "index-tenant-id",
        "ALTER TABLE tb_a ADD COLUMN code text UNIQUE",
        "ALTER TABLE tb_a ADD COLUMN code text, ADD UNIQUE (tenant_id, code)",
    ),
    Case(
        "index-tenant-id",
        "ALTER TABLE tb_a ADD EXCLUDE USING gist (period WITH &&)",
        "ALTER TABLE tb_a ADD EXCLUDE USING gist (tenant_id WITH =, period WITH &&)",
    ),
    Case(
        "foreign-key-tenant-id",
        "ALTER TABLE tb_a ADD FOREIGN KEY (b_id) REFERENCES tb_b (id)",
        "ALTER TABLE tb_a ADD FOREIGN KEY (tenant_id, b_id) REFERENCES tb_b (tenant_id, id)",
    ),
    Case(
        "foreign-key-tenant-id",
        "ALTER TABLE tb_a ADD COLUMN b_id uuid REFERENCES tb_b",
        "ALTER TABLE tb_a ADD FOREIGN KEY (tenant_id, b_id) REFERENCES tb_b",
    ),
    Case(
        "foreign-key-tenant-id",
        "ALTER TABLE tb_a ADD FOREIGN KEY (tenant_id, b_id) REFERENCES tb_b (id, tenant_id)",
        "ALTER TABLE tb_a ADD FOREIGN KEY (b_id, tenant_id) REFERENCES tb_b (id, tenant_id)",
    ),
    Case("view-security-invoker", VIEW.replace("WITH (security_invoker = true) ", ""), VIEW),
    Case("view-security-invoker", VIEW.replace("= true", "= false"), VIEW),
    Case(
        "view-security-invoker",
        "CREATE OR REPLACE VIEW v_a AS SELECT tenant_id FROM tb_a",
        "CREATE OR REPLACE VIEW v_a WITH (security_invoker) AS SELECT tenant_id FROM tb_a",
    ),
    Case("view-tenant-id", VIEW.replace("SELECT tenant_id, id", "SELECT id, tenant_id"), VIEW),
    Case(
        "view-tenant-id",
        "CREATE VIEW v_a WITH (security_invoker = true) AS SELECT x.id FROM tb_a x UNION SELECT tenant_id FROM tb_b",
        "CREATE VIEW v_a WITH (security_invoker = true) AS SELECT x.tenant_id FROM tb_a x UNION SELECT id FROM tb_b",
    ),
    Case(
        "function-language",
        "CREATE FUNCTION f() RETURNS int LANGUAGE internal SET search_path FROM CURRENT AS 'x'",
        body("RETURN 1;"),
    ),
    Case("function-search-path", body("RETURN 1;").replace("SET search_path FROM CURRENT", ""), body("RETURN 1;")),
    Case("function-search-path", body("RETURN 1;").replace("FROM CURRENT", "= other"), body("RETURN 1;")),
    Case(
        "function-search-path",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'",
        "CREATE FUNCTION f() RETURNS int SECURITY DEFINER BEGIN ATOMIC SELECT 1; END",
    ),
    Case(
        "function-search-path",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql SET search_path FROM CURRENT AS $$ SELECT 1 $$",
    ),
    Case("rls-by-hand", "ALTER TABLE tb_a DISABLE ROW LEVEL SECURITY", TABLE),
    Case("rls-by-hand", "ALTER TABLE tb_a NO FORCE ROW LEVEL SECURITY", TABLE),
    Case("rls-by-hand", "ALTER TABLE tb_a ENABLE ROW LEVEL SECURITY", TABLE),
    Case("rls-by-hand", "CREATE POLICY p ON tb_a USING (true)", TABLE),
    Case("rls-by-hand", "ALTER POLICY tenant_only ON tb_a USING (true)", TABLE),
    Case("rls-by-hand", "DROP POLICY tenant_only ON tb_a", TABLE),
    Case("grant-by-hand", "GRANT SELECT ON tb_a TO PUBLIC", VIEW),
    Case("grant-by-hand", "REVOKE ALL ON tb_a FROM cp_owner", VIEW),
    Case("grant-by-hand", "GRANT cp_owner TO somebody", VIEW),
    Case("grant-by-hand", "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC", VIEW),
    Case("owner-by-hand", "ALTER TABLE tb_a OWNER TO somebody", VIEW),
    Case("owner-by-hand", "ALTER FUNCTION f() OWNER TO somebody", VIEW),
    # Ways out of the home.
    Case("qualified-name", VIEW.replace("FROM tb_a", "FROM other.tb_a"), VIEW),
    Case("qualified-name", VIEW.replace("VIEW v_a", "VIEW public.v_a"), VIEW),
    Case("qualified-name", VIEW.replace("SELECT tenant_id, id", "SELECT tenant_id, other.f(id) AS id"), VIEW),
    Case(
        "qualified-name",
        VIEW.replace("'id', id", "'id', id::other.kind"),
        VIEW.replace("'id', id", "'id', id::pg_catalog.text"),
    ),
    Case("qualified-name", VIEW.replace("'id', id", "'id', other.tb_a.id"), VIEW.replace("'id', id", "'id', tb_a.id")),
    Case(
        "qualified-name",
        VIEW.replace("'id', id", "'id', 'other.tb_a'::regclass"),
        VIEW.replace("'id', id", "'id', 'tb_a'::regclass"),
    ),
    Case("qualified-name", TABLE.replace("text,", "other.label,"), TABLE.replace("text,", "extensions.ltree,")),
    Case(
        "qualified-name",
        TABLE.replace("_table('tb_a')", "_table('tb_a'); SELECT tenancy.protect_table('other.tb_a')"),
        TABLE,
    ),
    Case(
        "qualified-name",
        body("SELECT count(*) INTO x FROM other.tb_a; RETURN 1;"),
        body("SELECT count(*) INTO x FROM tb_a AS a WHERE a.id = x; RETURN 1;"),
    ),
    Case(
        "qualified-name",
        body("IF other.f(1) THEN RETURN 1; END IF;"),
        body("IF tenancy.f(1) AND NEW.x THEN RETURN 1; END IF;"),
    ),
    Case("qualified-name", body("RETURN 1;", "y other.kind;"), body("RETURN 1;", "y tb_a.id%TYPE; z tb_a%ROWTYPE;")),
    Case(
        "qualified-name",
        body("RETURN 1;", "y other.tb_a.id%TYPE;"),
        body("RETURN 1;", "y CONSTANT uuid := fn_a.input.x;"),
    ),
    Case(
        "qualified-name",
        body("RETURN 1;", "y uuid := (SELECT id FROM other.tb_a);"),
        body("RETURN 1;", "y uuid DEFAULT (SELECT id FROM tb_a);"),
    ),
    Case(
        "qualified-name",
        body("FOR x IN SELECT id FROM other.tb_a LOOP NULL; END LOOP;"),
        body("FOR x IN SELECT id FROM tb_a LOOP NULL; END LOOP;"),
    ),
    Case(
        "qualified-name",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql SET search_path FROM CURRENT AS $$ SELECT a FROM other.tb_a $$",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql SET search_path FROM CURRENT AS $$ SELECT a FROM tb_a $$",
    ),
    Case(
        "qualified-name",
        "CREATE TRIGGER t AFTER INSERT ON tb_a FOR EACH ROW EXECUTE FUNCTION other.f()",
        "CREATE CONSTRAINT TRIGGER t AFTER INSERT ON tb_a DEFERRABLE FOR EACH ROW EXECUTE FUNCTION f()",
    ),
    Case("qualified-name", "COMMENT ON TABLE other.tb_a IS 'x'", "COMMENT ON COLUMN tb_a.name IS 'x'"),
    Case("qualified-name", "COMMENT ON FUNCTION other.f(int) IS 'x'", "COMMENT ON CONSTRAINT c ON tb_a IS 'x'"),
    Case("qualified-name", "CREATE STATISTICS other.s ON a, b FROM tb_a", "CREATE STATISTICS s ON a, b FROM tb_a"),
    Case(
        "qualified-name",
        f"{WAIVED}DROP VIEW other.v_a",
        f"{WAIVED}DROP VIEW v_a; {WAIVED}DROP TRIGGER t ON tb_a; {WAIVED}DROP FUNCTION f(int);",
    ),
    Case(
        "qualified-name",
        "SELECT tenancy.with_document('{}', 'thing', 'other.things')",
        "SELECT tenancy.with_document('{}', 'thing', 'things'), tenancy.declared('collections', '2.things')",
    ),
    Case(
        "qualified-name",
        "SELECT to_regprocedure('other.f(uuid, text)')",
        "SELECT to_regprocedure('f(uuid, text)'), to_regclass('tenancy.x')",
    ),
    Case("session-state", VIEW.replace("CREATE VIEW", "CREATE TEMP VIEW"), VIEW),
    Case(
        "tenancy-internals",
        body("SELECT count(*) INTO x FROM tenancy.tenants; RETURN 1;"),
        body("x := tenancy.current_tenant_id();"),
    ),
    Case(
        "tenancy-internals",
        body("PERFORM tenancy.set_tenant_context(x, x);"),
        body("PERFORM tenancy.declared('a', 'b');"),
    ),
    Case("session-state", "SET search_path = other", VIEW),
    Case("session-state", "SET LOCAL ROLE NONE", VIEW),
    Case("session-state", "RESET ALL", VIEW),
    Case("session-state", "SELECT set_config('search_path', 'other', true)", VIEW),
    Case("session-state", body("SET LOCAL row_security = off;"), body("SET CONSTRAINTS ALL IMMEDIATE;")),
    Case(
        "session-state",
        body("PERFORM pg_catalog.set_config('role', 'x', true);"),
        body("PERFORM pg_advisory_xact_lock(1);"),
    ),
    Case(
        "session-state",
        body("x := current_setting('app.current_tenant_id');"),
        body("x := current_setting('TimeZone');"),
    ),
    Case("session-state", body("PERFORM pg_advisory_lock(1);"), body("PERFORM pg_try_advisory_xact_lock(1);")),
    Case(
        "session-state",
        body("RETURN 1;").replace("SET search", "SET role = x SET search"),
        body("RETURN 1;").replace("SET search", "SET plan_cache_mode = force_custom_plan SET search"),
    ),
    Case(
        "session-state",
        TABLE.replace("CREATE TABLE", "CREATE TEMP TABLE"),
        TABLE.replace("CREATE TABLE", "CREATE UNLOGGED TABLE"),
    ),
    Case("transaction-control", "COMMIT", VIEW),
    Case(
        "transaction-control",
        body("COMMIT; RETURN 1;"),
        body("BEGIN x := 1; EXCEPTION WHEN unique_violation THEN x := 2; END;"),
    ),
    Case("dynamic-sql", body("EXECUTE format('SELECT %s', input);"), body("x := 1;")),
    Case("dynamic-sql", body("RETURN QUERY EXECUTE 'SELECT 1';"), body("RETURN QUERY SELECT 1;")),
    Case(
        "dynamic-sql",
        body("FOR x IN EXECUTE 'SELECT 1' LOOP NULL; END LOOP;"),
        body("FOR x IN 1 .. 10 BY 2 LOOP NULL; END LOOP;"),
    ),
    Case(
        "dynamic-sql",
        body("OPEN c FOR EXECUTE 'SELECT 1';", "c refcursor;"),
        body("OPEN c FOR SELECT 1;", "c refcursor;"),
    ),
    Case(
        "dynamic-sql",
        body("IF x > 1 THEN x := 1; ELSE EXECUTE input; END IF;"),
        body("IF x > 1 THEN x := 1; ELSIF x = 0 THEN x = 2; ELSE x := 3; END IF;"),
    ),
    Case("dynamic-sql", "SELECT query_to_xml('SELECT 1', true, true, '')", "SELECT fn_a('{}')"),
    Case("server-object", "CREATE EXTENSION ltree", VIEW),
    Case("server-object", "CREATE ROLE somebody", VIEW),
    Case("server-object", "CREATE DATABASE other", VIEW),
    Case("server-object", "CREATE SCHEMA other", VIEW),
    Case("server-object", "ALTER SYSTEM SET jit = off", VIEW),
    Case("server-object", "ALTER ROLE somebody SUPERUSER", VIEW),
    Case("server-object", "ALTER DATABASE other SET jit = off", VIEW),
    Case("server-object", body("x := pg_read_file('/etc/passwd');"), body("x := pg_column_size(input);")),
    Case("copy", "COPY tb_a FROM '/tmp/a'", "INSERT INTO tb_a (tenant_id) SELECT tenant_id FROM tb_b"),
    Case(
        "copy",
        body("COPY tb_a TO PROGRAM 'sh';"),
        body("INSERT INTO tb_a (name) VALUES ('a') RETURNING id INTO STRICT x;"),
    ),
    Case("notify", "NOTIFY a", VIEW),
    Case("notify", "LISTEN a", VIEW),
    Case("notify", body("PERFORM pg_notify('a', 'b');"), body("PERFORM tenancy.publish_changes('a');")),
    Case("notify", body("NOTIFY a, 'b';"), body("RAISE EXCEPTION 'a % b', x USING ERRCODE = 'P0001', HINT = fn_b(x);")),
    Case("anonymous-block", "DO $$ BEGIN NULL; END $$", VIEW),
    Case("removal", "DROP TABLE tb_a", "COMMENT ON TABLE tb_a IS 'A'"),
    Case("rename", "ALTER TABLE tb_a RENAME TO tb_b", "ALTER TABLE tb_a ADD COLUMN b text NOT NULL DEFAULT ''"),
    Case("removal", "ALTER TABLE tb_a DROP COLUMN name", "ALTER TABLE tb_a ALTER name SET DEFAULT 'a'"),
    Case("removal", "ALTER TABLE tb_a DROP CONSTRAINT tb_a_tenant", "ALTER TABLE tb_a ADD CHECK (a > 1) NOT VALID"),
    Case("statement-kind", "ALTER VIEW v_a SET (security_invoker = false)", VIEW),
    Case("statement-kind", "CREATE MATERIALIZED VIEW v_a AS SELECT 1", VIEW),
    Case("statement-kind", "CREATE TABLE tb_b AS SELECT * FROM tb_a", TABLE),
    Case("statement-kind", "SELECT 1 INTO tb_b", "SELECT tenancy.append_only('tb_a'), fn_a('{}')"),
    Case("statement-kind", "CREATE RULE r AS ON INSERT TO tb_a DO NOTHING", "UPDATE tb_a SET name = 'a'"),
    Case("removal", "TRUNCATE tb_a", "SELECT tenancy.protect_table('tb_a')"),
    Case("statement-kind", "ALTER FUNCTION f() SECURITY DEFINER", "CREATE STATISTICS s ON a, b FROM tb_a"),
    Case("removal", body("TRUNCATE tb_a;"), body("DELETE FROM tb_a WHERE id = x;")),
    Case(
        "statement-kind",
        body("CREATE TABLE tb_b (a int);"),
        body("WITH a AS (DELETE FROM tb_a RETURNING id) SELECT count(*) INTO x FROM a;"),
    ),
    Case(
        "body-unread", body("SELECT FROM WHERE;"), body("<<outer>> LOOP EXIT outer WHEN x > 1; x := x + 1; END LOOP;")
    ),
    # What API versions promise.
    Case("view-star", "CREATE VIEW v_a (tenant_id) WITH (security_invoker = true) AS SELECT * FROM tb_a", VIEW),
    Case("view-star", VIEW.replace("jsonb_build_object('__typename', 'A', 'id', id)", "to_jsonb(tb_a)"), VIEW),
    Case(
        "view-star",
        VIEW.replace("SELECT tenant_id, id", "SELECT tenant_id, tb_a.*"),
        VIEW.replace("'id', id", "'n', (SELECT count(*) FROM tb_b)"),
    ),
]
