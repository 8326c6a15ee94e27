"""`cp template lint --scratch`: what only running a version on rows tells, and that nothing of it stays."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from control_plane.isolation.cluster import create_database, prepare_cluster
from control_plane.migrator.locks import RelationLock
from control_plane.migrator.rehearsal import Rehearsal, rehearse
from control_plane.migrator.scratch import scratch_database
from control_plane.pools.databases import Databases
from control_plane.registry.models import Cluster
from control_plane.registry.secrets import SecretBox
from control_plane.settings import Settings, shipped
from control_plane.templates import Template, Templates
from control_plane.templates.lint import Finding, lint_template
from tests.conftest import SECRET_KEY
from tests.support.cleaning import drop_installation
from tests.support.servers import Server
from tests.support.templates import write_sample

BASE = """
CREATE TABLE tb_thing (
    tenant_id uuid NOT NULL DEFAULT tenancy.current_tenant_id(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    name text NOT NULL DEFAULT '',
    fax text,
    PRIMARY KEY (tenant_id, id)
);
SELECT tenancy.protect_table('tb_thing');

CREATE VIEW v_thing WITH (security_invoker = true) AS
SELECT tenant_id, id, jsonb_build_object(
    'id', id, 'name', name, 'size', 1, 'parts', jsonb_build_array(jsonb_build_object('n', 1)), 'note', NULL
) AS data FROM tb_thing;
"""
API = """
CREATE VIEW things WITH (security_invoker = true) AS SELECT tenant_id, id, data FROM v_thing;
CREATE FUNCTION count_things(input jsonb) RETURNS bigint BEGIN ATOMIC SELECT count(*) FROM tb_thing; END;
"""
SMOKE = "INSERT INTO tb_thing (name) VALUES ('smoke'); SELECT data FROM things;"
FIRST = {"expand.sql": BASE, "api_v1.sql": API, "smoke.sql": SMOKE}
REPLACED = "CREATE OR REPLACE VIEW v_thing" + BASE.partition("CREATE VIEW v_thing")[2]
DROPPED = "-- lint: allow removal because the test wants it\n"
WAIVED = DROPPED + "-- lint: allow cascade because the test wants it\n"
REGISTER = """
[[deprecations]]
api = 1
resource = "things"
field = "{field}"
since = 1
announced = 2026-01-01
sunset = 2026-02-01
removed_in = 2
"""


@dataclass(frozen=True)
class Stage:
    """One scratch database for all tests; each rehearsal has a home of its own in it."""

    databases: Databases
    cluster: Cluster
    database: str

    async def rehearse(self, template: Template, versions: Sequence[int] | None = None) -> Rehearsal:
        return await rehearse(self.databases, self.cluster, template, versions, database=self.database)

    async def second(self, directory: Path, files: dict[str, str], register: str = "") -> list[Finding]:
        """What rehearsing a second version finds; its text breaks no rule."""
        template = write_sample(directory / "templates", FIRST, files, manifest=register)
        assert lint_template(template) == []
        return (await self.rehearse(template)).findings

    async def counted(self) -> asyncpg.Record:
        async with self.databases.admin(self.cluster, self.database) as connection:
            row = await connection.fetchrow("""
                SELECT (SELECT count(*) FROM tenancy.homes), (SELECT count(*) FROM tenancy.tenants),
                       (SELECT count(*) FROM tenancy.home_roles), (SELECT count(*) FROM pg_namespace)
            """)
        assert row is not None
        return row


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(server: Server, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    given = {"home": tmp_path_factory.mktemp("home"), "database_url": server.dsn, "secret_key": SECRET_KEY}
    databases = Databases(server.dsn, SecretBox(SECRET_KEY), Settings.model_validate(given))
    installation = server.new_installation()
    database = await prepare_cluster(databases, server.dsn, installation)
    cluster = Cluster(id=uuid4(), name="main", dsn=databases.box.seal(server.dsn), database=database)
    async with scratch_database(databases, cluster) as scratch:
        yield Stage(databases, cluster, scratch)
    await databases.aclose()
    await drop_installation(server, installation)


@pytest_asyncio.fixture
async def rows(stage: Stage) -> asyncpg.Record:
    return await stage.counted()


@pytest.mark.parametrize("name", list(Templates.load(shipped("tenant_templates"))))
async def test_the_templates_that_are_shipped_pass(stage: Stage, name: str) -> None:
    rehearsed = await stage.rehearse(Templates.load(shipped("tenant_templates"))[name])
    assert [str(each) for each in rehearsed.findings] == []


async def test_a_version_may_add(stage: Stage, tmp_path: Path, rows: asyncpg.Record) -> None:
    files = {
        "expand.sql": "ALTER TABLE tb_thing ADD COLUMN more text; "
        + REPLACED.replace("'name'", "'more', more, 'name'"),
        "smoke.sql": "SELECT data -> 'more' FROM things",
    }
    assert await stage.second(tmp_path, files) == []
    assert await stage.counted() == rows


@pytest.mark.parametrize(
    ("rule", "message", "files"),
    [
        ("api-key", "things loses the key 'name'", {"expand.sql": REPLACED.replace("'name', name,", "")}),
        ("api-key", "things loses the key 'parts[].n'", {"expand.sql": REPLACED.replace("'n', 1", "'m', 1")}),
        (
            "api-key",
            "things shows none of the rows that it showed",
            {"expand.sql": REPLACED.replace("tb_thing;", "tb_thing WHERE false;")},
        ),
        (
            "api-type",
            "'size' of things was number and is string",
            {"expand.sql": REPLACED.replace("'size', 1", "'size', '1'")},
        ),
        (
            "api-type",
            "'name' of things was string and is null",
            {"expand.sql": REPLACED.replace("'name', name", "'name', NULL")},
        ),
        (
            "api-column",
            "things has no longer data jsonb in its place",
            {
                "api_v1.sql": WAIVED + "DROP VIEW things CASCADE; CREATE VIEW things WITH (security_invoker = true) AS "
                "SELECT tenant_id, id, 1 AS one, data FROM v_thing;"
            },
        ),
        ("catalogue-lost", "the view things is gone", {"api_v1.sql": WAIVED + "DROP VIEW things CASCADE"}),
        (
            "catalogue-lost",
            "tb_thing has no longer fax text",
            {"expand.sql": DROPPED + "ALTER TABLE tb_thing DROP fax"},
        ),
        (
            "catalogue-lost",
            "the function count_things(input jsonb) is gone",
            {"api_v1.sql": DROPPED + "DROP FUNCTION count_things"},
        ),
        (
            "rehearsal",
            'does not apply to rows: column "more" of relation "tb_thing" contains null values',
            {
                "expand.sql": "COMMENT ON TABLE tb_thing IS 'x';\n"
                "-- lint: allow column-not-null because the test wants it\n"
                "ALTER TABLE tb_thing ADD COLUMN more text NOT NULL"
            },
        ),
        ("rehearsal", 'relation "nothing" does not exist', {"expand.sql": "\nINSERT INTO nothing VALUES (1)"}),
        (
            "rehearsal",
            'smoke.sql fails: relation "nothing" does not exist',
            {"expand.sql": "", "smoke.sql": "\nSELECT data FROM nothing"},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_version_may_not_take(
    stage: Stage,
    tmp_path: Path,
    rows: asyncpg.Record,
    rule: str,
    message: str,
    files: dict[str, str],
) -> None:
    found = await stage.second(tmp_path, files)
    assert (rule, message) in [(each.rule, each.message) for each in found], found
    assert {each.rule for each in found} == {rule}
    assert all(each.file.startswith("0002_step/") for each in found)
    assert await stage.counted() == rows


@pytest.mark.parametrize("field", ["name", "parts"])
async def test_what_was_announced_may_go(stage: Stage, tmp_path: Path, field: str) -> None:
    gone = {"name": "'name', name, ", "parts": "'parts', jsonb_build_array(jsonb_build_object('n', 1)), "}[field]
    files = {"expand.sql": REPLACED.replace(gone, "")}
    assert await stage.second(tmp_path, files, REGISTER.format(field=field)) == []


async def test_what_was_announced_to_go_is_looked_for(stage: Stage, tmp_path: Path) -> None:
    found = await stage.second(tmp_path, {"expand.sql": ""}, REGISTER.format(field="name"))
    assert [(each.rule, each.message) for each in found] == [
        ("deprecation", "field name of things of API 1 is still there after version 2")
    ]


async def test_a_waiver_in_the_version_lets_it_take(stage: Stage, tmp_path: Path) -> None:
    waiver = "-- lint: allow catalogue-lost because nobody has a fax any more\n"
    files = {"expand.sql": DROPPED + waiver + "ALTER TABLE tb_thing DROP COLUMN fax"}
    assert await stage.second(tmp_path, files) == []


async def test_a_table_with_deferred_triggers_can_be_altered_after_its_rows_were_made(
    stage: Stage, tmp_path: Path
) -> None:
    trigger = """
        CREATE FUNCTION fn_look() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
        BEGIN RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER look AFTER INSERT ON tb_thing DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION fn_look();
    """
    template = write_sample(
        tmp_path,
        {**FIRST, "expand.sql": BASE + trigger},
        {"expand.sql": "ALTER TABLE tb_thing ADD COLUMN more text"},
    )
    assert (await stage.rehearse(template)).findings == []


async def test_only_the_wanted_version_is_judged(stage: Stage, tmp_path: Path) -> None:
    lossy = {"expand.sql": REPLACED.replace("'name', name,", "")}
    template = write_sample(tmp_path, FIRST, lossy, {"expand.sql": ""})
    assert (await stage.rehearse(template, [3])).findings == []
    assert [each.rule for each in (await stage.rehearse(template, [2])).findings] == ["api-key"]


# What a version locks and writes anew.


TYPE = "-- lint: allow column-type because the test wants it\n"
KIND = "-- lint: allow statement-kind because the test wants it\n"


async def reported(stage: Stage, directory: Path, files: dict[str, str]) -> tuple[list[str], list[RelationLock]]:
    """Rules and messages of the findings, and the lock report, of a second version whose text passes."""
    template = write_sample(directory, FIRST, files)
    assert lint_template(template) == []
    rehearsed = await stage.rehearse(template)
    (locks,) = rehearsed.locks
    assert (locks.version, locks.name) == (2, "0002_step")
    return [f"{each.rule}: {each.message}" for each in rehearsed.findings], list(locks.locks)


async def test_the_strongest_lock_of_each_relation_that_was_there_is_reported(stage: Stage, tmp_path: Path) -> None:
    files = {
        "expand.sql": BASE.partition("CREATE VIEW")[0].replace("tb_thing", "tb_part")
        + "ALTER TABLE tb_thing ADD COLUMN more text; CREATE INDEX tb_part_name ON tb_part (tenant_id, name)",
        "api_v1.sql": "CREATE OR REPLACE VIEW things WITH (security_invoker = true) AS "
        "SELECT tenant_id, id, data FROM v_thing;",
    }
    found, locks = await reported(stage, tmp_path, files)
    assert found == []
    assert locks == [
        RelationLock("api_v1.things", "ACCESS EXCLUSIVE", "0002_step/api_v1.sql", False, 0),
        RelationLock("tb_thing", "ACCESS EXCLUSIVE", "0002_step/expand.sql", False, 0),
    ]


async def test_lighter_locks_and_scans_are_told_apart(stage: Stage, tmp_path: Path) -> None:
    files = {
        "expand.sql": "CREATE FUNCTION fn_look() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS "
        "$$ BEGIN RETURN NULL; END $$;"
        "CREATE TRIGGER look AFTER INSERT ON tb_thing FOR EACH ROW EXECUTE FUNCTION fn_look();"
    }
    _, locks = await reported(stage, tmp_path / "trigger", files)
    assert locks == [RelationLock("tb_thing", "SHARE ROW EXCLUSIVE", "0002_step/expand.sql", False, 0)]
    waiver = "-- lint: allow check-scan because the test wants it\n"
    files = {"expand.sql": waiver + "ALTER TABLE tb_thing ADD CHECK (name <> 'x')"}
    _, locks = await reported(stage, tmp_path / "check", files)
    assert locks == [RelationLock("tb_thing", "ACCESS EXCLUSIVE", "0002_step/expand.sql", False, 1)]


async def test_a_rewrite_that_the_text_tells_is_reported_and_no_finding(stage: Stage, tmp_path: Path) -> None:
    found, locks = await reported(
        stage, tmp_path, {"expand.sql": TYPE + "ALTER TABLE tb_thing ALTER fax TYPE jsonb USING to_jsonb(fax)"}
    )
    assert [(lock.relation, lock.rewritten) for lock in locks] == [("tb_thing", True)]
    assert found == ["catalogue-lost: tb_thing has no longer fax text"]


async def test_a_rewrite_that_the_text_does_not_tell_is_a_finding(stage: Stage, tmp_path: Path) -> None:
    sql = KIND + "ALTER TABLE tb_thing SET UNLOGGED"
    found, locks = await reported(stage, tmp_path / "plain", {"expand.sql": sql})
    assert found == ["rewrite: all rows of tb_thing are written anew"]
    assert [(lock.relation, lock.rewritten) for lock in locks] == [("tb_thing", True)]
    waiver = "-- lint: allow rewrite because the table is small\n"
    assert (await reported(stage, tmp_path / "waived", {"expand.sql": waiver + sql}))[0] == []


async def test_a_lock_that_the_text_does_not_tell_is_a_finding(stage: Stage, tmp_path: Path) -> None:
    """Whoever drops a table takes the triggers of its foreign keys from the tables that they refer to."""
    part = "ALTER TABLE tb_part ADD FOREIGN KEY (tenant_id, id) REFERENCES tb_thing;"
    first = BASE + BASE.partition("CREATE VIEW")[0].replace("tb_thing", "tb_part") + part
    announced = REGISTER.format(field="gone")
    drop = "DROP TABLE tb_part;"
    for name, sql, rules in (
        ("plain", drop, ["unforeseen-lock"]),
        ("named", "LOCK TABLE tb_part, tb_thing IN ACCESS EXCLUSIVE MODE;" + drop, []),
        ("waived", "-- lint: allow unforeseen-lock because it is let go at once\n" + drop, []),
    ):
        template = write_sample(
            tmp_path / name, {**FIRST, "expand.sql": first}, {"contract.sql": sql}, manifest=announced
        )
        found = (await stage.rehearse(template)).findings
        assert [(each.rule, each.file) for each in found] == [(rule, "0002_step/contract.sql") for rule in rules]
        assert [each.message for each in found] == [
            "tb_thing is locked ACCESS EXCLUSIVE, and no statement names it" for _ in rules
        ]


# What contract.sql takes away, and what stands beside it.


@pytest.mark.parametrize("sql", ["ALTER TABLE tb_thing DROP COLUMN fax", "DROP FUNCTION fn_old()"])
async def test_what_contract_sql_names_may_go(stage: Stage, tmp_path: Path, sql: str) -> None:
    function = "CREATE FUNCTION fn_old() RETURNS integer RETURN 1;"
    template = write_sample(
        tmp_path,
        {**FIRST, "expand.sql": BASE + function},
        {"contract.sql": sql},
        manifest=REGISTER.format(field="gone"),
    )
    assert (await stage.rehearse(template)).findings == []


async def test_what_a_view_still_reads_may_not_go(stage: Stage, tmp_path: Path) -> None:
    files = {"contract.sql": "COMMENT ON TABLE tb_thing IS 'x';\nALTER TABLE tb_thing DROP COLUMN name"}
    (found,) = await stage.second(tmp_path, files, REGISTER.format(field="gone"))
    assert (found.rule, found.file, found.message, found.instead) == (
        "contract-dependents",
        "0002_step/contract.sql",
        "cannot drop column name of table tb_thing because other objects depend on it: "
        "view v_thing depends on column name of table tb_thing; view api_v1.things depends on view v_thing; "
        "view api.things depends on view api_v1.things",
        "let what depends on it go first, or read something else; CASCADE would take it away too",
    )


async def test_concurrent_sql_runs_after_its_version_and_before_the_next_one(stage: Stage, tmp_path: Path) -> None:
    key = "ALTER TABLE tb_thing ADD CONSTRAINT named UNIQUE USING INDEX tb_thing_name"
    template = write_sample(
        tmp_path,
        FIRST,
        {
            "expand.sql": "",
            "concurrent.sql": "CREATE UNIQUE INDEX CONCURRENTLY tb_thing_name ON tb_thing (tenant_id, name)",
        },
        {"expand.sql": key},
    )
    assert lint_template(template) == []
    assert (await stage.rehearse(template)).findings == []


async def test_a_statement_of_concurrent_sql_that_fails_is_named(stage: Stage, tmp_path: Path) -> None:
    concurrent = "-- that one\nDROP INDEX CONCURRENTLY nothing;"
    found = await stage.second(tmp_path, {"expand.sql": "", "concurrent.sql": concurrent})
    assert [(each.rule, each.file, each.line, each.message) for each in found] == [
        ("rehearsal", "0002_step/concurrent.sql", 2, 'does not apply to rows: index "nothing" does not exist'),
        ("rehearsal", "0002_step/concurrent.sql", 2, 'index "nothing" does not exist'),
    ]


async def test_backfill_sql_meets_rows(stage: Stage, tmp_path: Path) -> None:
    fill = "UPDATE tb_thing SET {} WHERE id IN (SELECT id FROM tb_thing WHERE more IS NULL LIMIT 1000)"
    added = {"expand.sql": "ALTER TABLE tb_thing ADD COLUMN more text"}
    assert await stage.second(tmp_path / "fits", {**added, "backfill.sql": fill.format("more = name")}) == []
    found = await stage.second(tmp_path / "fails", {**added, "backfill.sql": fill.format("name = NULL")})
    assert [(each.rule, each.file) for each in found] == [("rehearsal", "0002_step/backfill.sql")]
    assert "violates not-null constraint" in found[0].message


async def test_a_backfill_that_would_never_end_is_refused(stage: Stage, tmp_path: Path) -> None:
    files = {
        "expand.sql": "ALTER TABLE tb_thing ADD COLUMN more text",
        "backfill.sql": "-- rows, again and again\n"
        "UPDATE tb_thing SET more = name WHERE id IN (SELECT id FROM tb_thing ORDER BY id LIMIT 1000)",
    }
    (found,) = await stage.second(tmp_path, files)
    assert (found.rule, found.file, found.line, found.message) == (
        "rehearsal",
        "0002_step/backfill.sql",
        2,
        "still changes rows after 20 rounds, and so for ever: let its WHERE leave out what it has changed",
    )


async def test_concurrent_sql_meets_rows(stage: Stage, tmp_path: Path) -> None:
    files = {
        "expand.sql": "ALTER TABLE tb_thing ADD CONSTRAINT faxed CHECK (fax IS NOT NULL) NOT VALID",
        "concurrent.sql": "ALTER TABLE tb_thing VALIDATE CONSTRAINT faxed",
    }
    (found,) = await stage.second(tmp_path, files)
    assert (found.rule, found.file) == ("rehearsal", "0002_step/concurrent.sql")
    assert 'check constraint "faxed" of relation "tb_thing" is violated by some row' in found.message


@pytest.mark.parametrize(
    ("message", "sql"),
    [
        (
            "tb_thing.fax no longer takes NULL",
            "-- lint: allow set-not-null because the test wants it\nALTER TABLE tb_thing ALTER fax SET NOT NULL",
        ),
        ("the constraint short of tb_thing is gone", DROPPED + "ALTER TABLE tb_thing DROP CONSTRAINT short"),
        ("the trigger look of tb_thing is gone", DROPPED + "DROP TRIGGER look ON tb_thing"),
    ],
)
async def test_a_table_accepts_what_it_accepted_and_keeps_its_promises(
    stage: Stage, tmp_path: Path, message: str, sql: str
) -> None:
    first = (
        BASE.replace("fax text", "fax text DEFAULT '', CONSTRAINT short CHECK (length(name) < 100)")
        + """
        CREATE FUNCTION fn_look() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
        BEGIN RETURN NULL; END $$;
        CREATE TRIGGER look AFTER INSERT ON tb_thing FOR EACH ROW EXECUTE FUNCTION fn_look();
    """
    )
    template = write_sample(tmp_path, {**FIRST, "expand.sql": first}, {"expand.sql": sql})
    found = (await stage.rehearse(template)).findings
    assert [(each.rule, each.message) for each in found] == [("catalogue-lost", message)]


async def test_not_null_after_its_proof_takes_nothing(stage: Stage, tmp_path: Path) -> None:
    template = write_sample(
        tmp_path,
        {**FIRST, "expand.sql": BASE.replace("fax text", "fax text DEFAULT ''")},
        {
            "expand.sql": "ALTER TABLE tb_thing ADD CONSTRAINT faxed CHECK (fax IS NOT NULL) NOT VALID",
            "concurrent.sql": "ALTER TABLE tb_thing VALIDATE CONSTRAINT faxed",
        },
        {"expand.sql": "ALTER TABLE tb_thing ALTER COLUMN fax SET NOT NULL, DROP CONSTRAINT faxed"},
    )
    assert lint_template(template) == []
    assert (await stage.rehearse(template)).findings == []


async def test_a_scratch_database_goes_and_so_does_one_whose_rehearsal_was_killed(
    databases: Databases, cluster: Cluster
) -> None:
    prefix = cluster.database.replace("_tenants", "_scratch_")
    async with databases.admin(cluster) as connection:

        async def there() -> list[str]:
            sql = "SELECT datname FROM pg_database WHERE starts_with(datname, $1)"
            return [row["datname"] for row in await connection.fetch(sql, prefix)]

        await create_database(connection, f"{prefix}killed")
        async with scratch_database(databases, cluster) as first:
            assert await there() == [first]
            async with scratch_database(databases, cluster) as second:
                assert sorted(await there()) == sorted([first, second])
        assert await there() == []
