"""For each rule about locks and removals what a version may not do to tables with rows, what it is told, what it may.

Each case is the second version of a template; the first one makes tb_a and tb_b.
"""

from __future__ import annotations

from typing import NamedTuple

from tests.unit.templates.lint_cases import TABLE, VIEW

BASE = TABLE + TABLE.replace("tb_a", "tb_b") + VIEW
NEW_TABLE = TABLE.replace("tb_a", "tb_new")
_EXCLUSIVE = "nobody reads or writes it (ACCESS EXCLUSIVE)"
_REWRITTEN = f"{_EXCLUSIVE} while all rows and indexes are written anew"
_VALIDATED = "add it in a statement of its own, NOT VALID, and VALIDATE CONSTRAINT in concurrent.sql"


class Step(NamedTuple):
    """`file` is where the refused statement stands; `accepted` are the files of a version that passes."""

    rule: str
    refused: str
    message: str
    instead: str
    accepted: dict[str, str]
    file: str = "expand.sql"


def expand(sql: str) -> dict[str, str]:
    return {"expand.sql": sql}


def concurrent(sql: str) -> dict[str, str]:
    return {"concurrent.sql": sql}


STEPS = [
    Step(
        "column-not-null",
        "ALTER TABLE tb_a ADD COLUMN b text NOT NULL",
        "tb_a.b is NOT NULL without a default: every home with rows refuses it, and what writes rows without it fails",
        "give it a constant default, or leave it nullable, fill it in backfill.sql and require it later",
        expand("ALTER TABLE tb_a ADD COLUMN b text NOT NULL DEFAULT '', ADD COLUMN c integer"),
    ),
    Step(
        "column-not-null",
        "ALTER TABLE tb_a ADD COLUMN b text NOT NULL DEFAULT NULL",
        "tb_a.b is NOT NULL without a default: every home with rows refuses it, and what writes rows without it fails",
        "give it a constant default, or leave it nullable, fill it in backfill.sql and require it later",
        expand(NEW_TABLE + "ALTER TABLE tb_new ADD COLUMN b text NOT NULL"),
    ),
    Step(
        "column-rewrite",
        "ALTER TABLE tb_a ADD COLUMN b uuid DEFAULT gen_random_uuid()",
        f"tb_a.b has the default gen_random_uuid(), which may differ from row to row: {_REWRITTEN}",
        "add it nullable, set its default in a second ALTER COLUMN, and fill the old rows in backfill.sql",
        expand("ALTER TABLE tb_a ADD COLUMN b uuid, ALTER COLUMN b SET DEFAULT gen_random_uuid()"),
    ),
    Step(
        "column-rewrite",
        "ALTER TABLE tb_a ADD COLUMN b bigint GENERATED ALWAYS AS IDENTITY",
        f"tb_a.b counts, so that each row gets a number of its own: {_REWRITTEN}",
        "add it nullable, set its default in a second ALTER COLUMN, and fill the old rows in backfill.sql",
        expand("ALTER TABLE tb_a ADD COLUMN b timestamptz NOT NULL DEFAULT now()"),
    ),
    Step(
        "column-rewrite",
        "ALTER TABLE tb_a ADD COLUMN b text GENERATED ALWAYS AS (lower(name)) STORED",
        f"tb_a.b is computed and stored for each row: {_REWRITTEN}",
        "add it nullable, set its default in a second ALTER COLUMN, and fill the old rows in backfill.sql",
        expand(NEW_TABLE + "ALTER TABLE tb_new ADD COLUMN b text GENERATED ALWAYS AS (lower(name)) STORED"),
    ),
    Step(
        "column-type",
        "ALTER TABLE tb_a ALTER COLUMN name TYPE bigint USING name::bigint",
        f"the type of tb_a.name changes: {_REWRITTEN}, and no view may show the column (0A000)",
        "add a column of the new type, fill it in backfill.sql, and let the views show that one",
        expand(NEW_TABLE + "ALTER TABLE tb_new ALTER COLUMN name TYPE uuid USING name::uuid"),
    ),
    Step(
        "set-not-null",
        "ALTER TABLE tb_a ALTER COLUMN name SET NOT NULL",
        f"tb_a.name becomes NOT NULL: {_EXCLUSIVE} while all rows are read",
        "add CHECK (name IS NOT NULL) NOT VALID, validate it in concurrent.sql, and set this in the version after "
        "that: a valid check saves the scan",
        expand(NEW_TABLE + "ALTER TABLE tb_new ALTER COLUMN name SET NOT NULL"),
    ),
    Step(
        "set-not-null",
        "ALTER TABLE tb_a ADD CONSTRAINT c NOT NULL name NOT VALID",
        "NOT NULL as a constraint of tb_a needs PostgreSQL 18",
        "add CHECK (name IS NOT NULL) NOT VALID, which all versions know",
        expand("ALTER TABLE tb_a ADD CONSTRAINT c CHECK (name IS NOT NULL) NOT VALID"),
    ),
    Step(
        "foreign-key-scan",
        "ALTER TABLE tb_a ADD FOREIGN KEY (tenant_id, id) REFERENCES tb_b",
        "the foreign key from tb_a is checked at once: nobody writes to tb_a and tb_b (SHARE ROW EXCLUSIVE) while all "
        "rows of tb_a are looked up",
        _VALIDATED,
        expand("ALTER TABLE tb_a ADD CONSTRAINT f FOREIGN KEY (tenant_id, id) REFERENCES tb_b NOT VALID")
        | concurrent("ALTER TABLE tb_a VALIDATE CONSTRAINT f"),
    ),
    Step(
        "check-scan",
        "ALTER TABLE tb_a ADD COLUMN b text CHECK (b <> '')",
        f"the CHECK on tb_a is proved at once: {_EXCLUSIVE} while all its rows are read",
        _VALIDATED,
        expand("ALTER TABLE tb_a ADD COLUMN b text, ADD CONSTRAINT c CHECK (b <> '') NOT VALID")
        | concurrent("ALTER TABLE tb_a VALIDATE CONSTRAINT c"),
    ),
    Step(
        "check-scan",
        "ALTER TABLE tb_a ADD CHECK (name <> '')",
        f"the CHECK on tb_a is proved at once: {_EXCLUSIVE} while all its rows are read",
        _VALIDATED,
        expand(NEW_TABLE + "ALTER TABLE tb_new ADD CHECK (name <> '')"),
    ),
    Step(
        "check-scan",
        "ALTER TABLE tb_a ATTACH PARTITION tb_b FOR VALUES IN ('a')",
        f"tb_b becomes a partition of tb_a: {_EXCLUSIVE} while all its rows are read",
        "validate a CHECK with the bounds of the partition first, and waive this naming it",
        expand(NEW_TABLE + "ALTER TABLE tb_a ATTACH PARTITION tb_new FOR VALUES IN ('a')"),
    ),
    Step(
        "unique-build",
        "ALTER TABLE tb_a ADD UNIQUE (tenant_id, name)",
        f"the key of tb_a is built at once: {_EXCLUSIVE} until its index stands",
        "write CREATE UNIQUE INDEX CONCURRENTLY in concurrent.sql, and ADD … USING INDEX in the next version",
        expand("ALTER TABLE tb_a ADD CONSTRAINT u UNIQUE USING INDEX tb_a_name"),
    ),
    Step(
        "exclusion-build",
        "ALTER TABLE tb_a ADD EXCLUDE USING gist (tenant_id WITH =, name WITH &&)",
        f"the exclusion constraint on tb_a is built at once: {_EXCLUSIVE} until its index stands, and there is no "
        "other way",
        "make a new table with it and fill that in backfill.sql, or waive this when the table is small for good",
        expand(NEW_TABLE + "ALTER TABLE tb_new ADD EXCLUDE USING gist (tenant_id WITH =, name WITH &&)"),
    ),
    Step(
        "validate-apart",
        "ALTER TABLE tb_a VALIDATE CONSTRAINT c",
        "c of tb_a is validated in the transaction of the version, whose locks are held while all its rows are read",
        "write it into concurrent.sql, where each statement is a transaction of its own",
        concurrent("ALTER TABLE tb_a VALIDATE CONSTRAINT c"),
    ),
    Step(
        "alter-merge",
        "ALTER TABLE tb_a ADD COLUMN b text; ALTER TABLE tb_a ADD COLUMN c text",
        "tb_a is altered again: what each ALTER TABLE reads or writes, it reads or writes for itself",
        "merge it into the first ALTER TABLE tb_a, with a comma",
        expand("ALTER TABLE tb_a ADD COLUMN b text, ADD COLUMN c text; ALTER TABLE tb_b ADD COLUMN b text"),
    ),
    Step(
        "lock-order",
        "ALTER TABLE tb_b ADD COLUMN b text; ALTER TABLE tb_a ADD COLUMN b text",
        "tb_a is locked after tb_b: two transactions that lock in different orders wait for each other until one of "
        "them is killed (40P01)",
        "lock by name: put what needs tb_a first, or begin with LOCK TABLE tb_a, tb_b IN ACCESS EXCLUSIVE MODE",
        expand(
            "LOCK TABLE tb_a, tb_b IN ACCESS EXCLUSIVE MODE; "
            "ALTER TABLE tb_b ADD COLUMN b text; ALTER TABLE tb_a ADD COLUMN b text"
        ),
    ),
    Step(
        "lock-order",
        "LOCK TABLE tb_b, tb_a IN ACCESS EXCLUSIVE MODE",
        "tb_a is locked after tb_b: two transactions that lock in different orders wait for each other until one of "
        "them is killed (40P01)",
        "lock by name: put what needs tb_a first, or begin with LOCK TABLE tb_a, tb_b IN ACCESS EXCLUSIVE MODE",
        expand(
            NEW_TABLE + "CREATE TRIGGER t AFTER INSERT ON tb_b FOR EACH ROW EXECUTE FUNCTION f();"
            "ALTER TABLE tb_new ADD COLUMN b text; ALTER TABLE tb_a ALTER COLUMN name SET STATISTICS 500"
        ),
    ),
    Step(
        "lock-order",
        NEW_TABLE.replace(
            "\n);",
            ",\n FOREIGN KEY (tenant_id, id) REFERENCES tb_b, FOREIGN KEY (tenant_id, id) REFERENCES tb_a\n);",
        ),
        "tb_a is locked after tb_b: two transactions that lock in different orders wait for each other until one of "
        "them is killed (40P01)",
        "lock by name: put what needs tb_a first, or begin with LOCK TABLE tb_a, tb_b IN ACCESS EXCLUSIVE MODE",
        expand(NEW_TABLE.replace("\n);", ",\n FOREIGN KEY (tenant_id, id) REFERENCES tb_b\n);")),
    ),
    Step(
        "index-blocks-writes",
        "CREATE INDEX i ON tb_a (tenant_id, name)",
        "the index on tb_a is built at once: nobody writes to it (SHARE) while all its rows are sorted",
        "write CREATE INDEX CONCURRENTLY into concurrent.sql",
        concurrent("CREATE INDEX CONCURRENTLY i ON tb_a (tenant_id, name)"),
    ),
    Step(
        "index-blocks-writes",
        "CREATE INDEX i ON tb_a (tenant_id, name)",
        "the index on tb_a is built at once: nobody writes to it (SHARE) while all its rows are sorted",
        "write CREATE INDEX CONCURRENTLY into concurrent.sql",
        expand(NEW_TABLE + "CREATE INDEX i ON tb_new (tenant_id, name)"),
        file="concurrent.sql",
    ),
    Step(
        "concurrent-file",
        "CREATE INDEX CONCURRENTLY i ON tb_a (tenant_id, name)",
        "CONCURRENTLY cannot run inside a transaction (25001), and all files of a version but one are one",
        "write it into concurrent.sql",
        concurrent("CREATE INDEX CONCURRENTLY i ON tb_a (tenant_id, name)"),
    ),
    Step(
        "concurrent-file",
        "CREATE INDEX CONCURRENTLY ON tb_a (tenant_id, name)",
        "an index without a name: when building it fails, an invalid one is left that nobody finds",
        "give the index a name",
        concurrent("CREATE UNIQUE INDEX CONCURRENTLY i ON tb_a (tenant_id, name)"),
        file="concurrent.sql",
    ),
    Step(
        "concurrent-file",
        "COMMENT ON TABLE tb_a IS 'A'",
        "what can run in a transaction stands in concurrent.sql, where nothing undoes it when the next one fails",
        "write it into expand.sql",
        expand("COMMENT ON TABLE tb_a IS 'A'"),
        file="concurrent.sql",
    ),
    Step(
        "concurrent-form",
        "DROP INDEX i",
        "DROP INDEX takes ACCESS EXCLUSIVE on the table of the index",
        "write it with CONCURRENTLY, in concurrent.sql",
        concurrent("DROP INDEX CONCURRENTLY i"),
    ),
    Step(
        "concurrent-form",
        "DROP INDEX i",
        "DROP INDEX without CONCURRENTLY keeps requests waiting",
        "write CONCURRENTLY",
        concurrent("DROP INDEX CONCURRENTLY i"),
        file="concurrent.sql",
    ),
    Step(
        "concurrent-form",
        "REINDEX TABLE tb_a",
        "REINDEX lets nobody write to its table until it is done",
        "write it with CONCURRENTLY, in concurrent.sql",
        concurrent("REINDEX TABLE CONCURRENTLY tb_a"),
    ),
    Step(
        "concurrent-form",
        "ALTER TABLE tb_a DETACH PARTITION tb_b",
        "DETACH PARTITION takes ACCESS EXCLUSIVE on the whole table",
        "write it with CONCURRENTLY, in concurrent.sql",
        concurrent("ALTER TABLE tb_a DETACH PARTITION tb_b CONCURRENTLY"),
    ),
    Step(
        "if-not-exists",
        "ALTER TABLE tb_a ADD COLUMN IF NOT EXISTS b text",
        "IF (NOT) EXISTS passes over a home that is not as the template thinks, or over an invalid index",
        "leave it out: the stamp knows what has run",
        expand("ALTER TABLE tb_a ADD COLUMN b text"),
    ),
    Step(
        "if-not-exists",
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON tb_a (tenant_id, name)",
        "IF (NOT) EXISTS passes over a home that is not as the template thinks, or over an invalid index",
        "leave it out: the stamp knows what has run",
        concurrent("CREATE INDEX CONCURRENTLY i ON tb_a (tenant_id, name)"),
        file="concurrent.sql",
    ),
    Step(
        "data-change",
        "UPDATE tb_a SET name = 'a'",
        "rows of tb_a are changed while the version holds its locks",
        "write it into backfill.sql, in batches",
        {"backfill.sql": "UPDATE tb_a SET name = 'a' WHERE id IN (SELECT id FROM tb_a WHERE name = '' LIMIT 1000)"},
    ),
    Step(
        "data-change",
        "DELETE FROM tb_a",
        "rows are deleted while the version holds its locks",
        "write it into backfill.sql, in batches",
        {"backfill.sql": "DELETE FROM tb_a WHERE id IN (SELECT id FROM tb_a WHERE name = '' LIMIT 1000)"},
    ),
    Step(
        "data-change",
        NEW_TABLE + "INSERT INTO tb_new (tenant_id, id) SELECT tenant_id, id FROM tb_a",
        "rows are copied from tb_a while the version holds its locks",
        "write it into backfill.sql, in batches",
        expand(NEW_TABLE + "INSERT INTO tb_new (tenant_id, name) VALUES (NULL, 'seed'); UPDATE tb_new SET name = 'a'"),
    ),
    Step(
        "data-change",
        "SELECT fn_fill()",
        "fn_fill() may change any number of rows while the version holds its locks",
        "write it into backfill.sql, in batches",
        expand("SELECT tenancy.publish_changes('tb_a'), tenancy.create_cache()") | {"backfill.sql": "SELECT fn_fill()"},
    ),
    Step(
        "backfill-batch",
        "UPDATE tb_a SET name = 'a' WHERE name = ''",
        "all rows are changed in one transaction: their locks and dead versions stay until its end",
        "bound the batch: WHERE (tenant_id, id) IN (SELECT tenant_id, id FROM … WHERE … LIMIT 1000)",
        {"backfill.sql": "INSERT INTO tb_b (tenant_id, id) SELECT tenant_id, id FROM tb_a WHERE id > $1 LIMIT $2"},
        file="backfill.sql",
    ),
    Step(
        "enum-value",
        "ALTER TYPE kind ADD VALUE 'b'",
        "a value that is added to an enum cannot be used before its transaction ends (55P04), and all versions on the "
        "way are one transaction",
        "add it in concurrent.sql, or use text with a CHECK",
        concurrent("ALTER TYPE kind ADD VALUE 'b'"),
    ),
    *(
        Step(
            "column-kind",
            NEW_TABLE.replace("name text", f"name {kind}"),
            f"name is {said}",
            f"write {instead}",
            expand(NEW_TABLE),
        )
        for kind, said, instead in (
            ("json", "json, which keeps its text and has no equality", "jsonb"),
            (
                "varchar(10)",
                "varchar(n), which has a length that is hard to change",
                "text with CHECK (length(…) <= …)",
            ),
            ("char(3)", "char, which pads with blanks", "text with CHECK (length(…) = …)"),
            (
                "timestamp",
                "timestamp, which says no time zone, so nobody knows which moment is meant",
                "timestamptz",
            ),
            ("timetz", "timetz, which has a time zone without a date", "time, or timestamptz"),
            (
                "money",
                "money, which depends on the server's locale",
                "numeric, with the currency in a column beside it",
            ),
            ("serial", "serial, which counts for all tenants of a home, and tells each of the others", "uuid"),
            ("integer GENERATED ALWAYS AS IDENTITY", "a key of 4 bytes, which runs out", "uuid or bigint"),
        )
    ),
    # What goes.
    Step(
        "removal",
        "ALTER TABLE tb_a DROP COLUMN name",
        "a column is dropped while others may still use it",
        "announce it first, and take it away in contract.sql of a later version",
        {"contract.sql": "ALTER TABLE tb_a DROP COLUMN name"},
    ),
    Step(
        "removal",
        "DROP VIEW v_a",
        "something is dropped while others may still use it",
        "announce it first, and take it away in contract.sql of a later version",
        {"contract.sql": "DROP VIEW v_a; DROP FUNCTION fn_a(jsonb); DROP TRIGGER t ON tb_a"},
    ),
    Step(
        "removal",
        "TRUNCATE tb_a",
        "TRUNCATE takes all rows, also past row-level security",
        "write DELETE in a function",
        {"contract.sql": "DROP TABLE tb_b"},
        file="contract.sql",
    ),
    Step(
        "cascade",
        "DROP VIEW v_a CASCADE",
        "CASCADE takes away whatever depends on it, also views of API versions that are still read",
        "leave it out, and name what else shall go: the server refuses what somebody still reads (2BP01)",
        {"contract.sql": "DROP VIEW v_a"},
        file="contract.sql",
    ),
    Step(
        "cascade",
        "ALTER TABLE tb_a DROP COLUMN name CASCADE",
        "CASCADE takes away whatever depends on it, also views of API versions that are still read",
        "leave it out, and name what else shall go: the server refuses what somebody still reads (2BP01)",
        {"contract.sql": "ALTER TABLE tb_a DROP COLUMN name"},
        file="contract.sql",
    ),
    *(
        Step(
            "rename",
            sql,
            message,
            "add the new name beside the old one, and take the old one away when nobody uses it any more",
            expand("ALTER TABLE tb_a ADD COLUMN b text"),
            file,
        )
        for sql, message, file in (
            (
                "ALTER TABLE tb_a RENAME COLUMN name TO b",
                "something is renamed, and who knows it by its name fails at once",
                "expand.sql",
            ),
            (
                "ALTER TYPE kind RENAME VALUE 'a' TO 'b'",
                "something is renamed, and who knows it by its name fails at once",
                "concurrent.sql",
            ),
            ("ALTER TABLE tb_a SET SCHEMA extensions", "something moves to another schema", "contract.sql"),
        )
    ),
]
