"""`cp template lint --scratch`: what only running a version on rows tells, and that nothing of it stays."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

from control_plane.migrator.rehearsal import rehearse
from control_plane.pools.databases import Databases
from control_plane.registry.models import Cluster
from control_plane.settings import shipped
from control_plane.templates import Templates
from control_plane.templates.lint import Finding, lint_template
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
WAIVED = "-- lint: allow statement-kind because the test wants it\n"
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


@pytest.fixture
async def rows(databases: Databases, cluster: Cluster) -> asyncpg.Record:
    return await counted(databases, cluster)


async def counted(databases: Databases, cluster: Cluster) -> asyncpg.Record:
    async with databases.admin(cluster) as connection:
        row = await connection.fetchrow("""
            SELECT (SELECT count(*) FROM tenancy.homes), (SELECT count(*) FROM tenancy.tenants),
                   (SELECT count(*) FROM tenancy.home_roles), (SELECT count(*) FROM tenancy.manifests),
                   (SELECT count(*) FROM tenancy.audited_scripts), (SELECT count(*) FROM pg_namespace),
                   (SELECT count(*) FROM pg_extension)
        """)
    assert row is not None
    return row


async def second(
    databases: Databases, cluster: Cluster, tmp_path: Path, files: dict[str, str], register: str = ""
) -> list[Finding]:
    """What rehearsing a second version finds; its text breaks no rule."""
    template = write_sample(tmp_path / "templates", FIRST, files, manifest=register)
    assert lint_template(template) == []
    return await rehearse(databases, cluster, template)


@pytest.mark.parametrize("name", list(Templates.load(shipped("tenant_templates"))))
async def test_the_templates_that_are_shipped_pass(databases: Databases, cluster: Cluster, name: str) -> None:
    found = await rehearse(databases, cluster, Templates.load(shipped("tenant_templates"))[name])
    assert [str(each) for each in found] == []


async def test_a_version_may_add(databases: Databases, cluster: Cluster, tmp_path: Path, rows: asyncpg.Record) -> None:
    files = {
        "expand.sql": "ALTER TABLE tb_thing ADD COLUMN more text; "
        + REPLACED.replace("'name'", "'more', more, 'name'"),
        "smoke.sql": "SELECT data -> 'more' FROM things",
    }
    assert await second(databases, cluster, tmp_path, files) == []
    assert await counted(databases, cluster) == rows


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
        ("catalogue-lost", "tb_thing has no longer fax text", {"expand.sql": WAIVED + "ALTER TABLE tb_thing DROP fax"}),
        (
            "catalogue-lost",
            "the function count_things(input jsonb) is gone",
            {"api_v1.sql": WAIVED + "DROP FUNCTION count_things"},
        ),
        (
            "rehearsal",
            'does not apply to rows: column "more" of relation "tb_thing" contains null values',
            {"expand.sql": "COMMENT ON TABLE tb_thing IS 'x';\nALTER TABLE tb_thing ADD COLUMN more text NOT NULL"},
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
    databases: Databases,
    cluster: Cluster,
    tmp_path: Path,
    rows: asyncpg.Record,
    rule: str,
    message: str,
    files: dict[str, str],
) -> None:
    found = await second(databases, cluster, tmp_path, files)
    assert (rule, message) in [(each.rule, each.message) for each in found], found
    assert {each.rule for each in found} == {rule}
    assert all(each.file.startswith("0002_step/") for each in found)
    assert await counted(databases, cluster) == rows


@pytest.mark.parametrize("field", ["name", "parts"])
async def test_what_was_announced_may_go(databases: Databases, cluster: Cluster, tmp_path: Path, field: str) -> None:
    gone = {"name": "'name', name, ", "parts": "'parts', jsonb_build_array(jsonb_build_object('n', 1)), "}[field]
    files = {"expand.sql": REPLACED.replace(gone, "")}
    assert await second(databases, cluster, tmp_path, files, REGISTER.format(field=field)) == []


async def test_what_was_announced_to_go_is_looked_for(databases: Databases, cluster: Cluster, tmp_path: Path) -> None:
    found = await second(databases, cluster, tmp_path, {"expand.sql": ""}, REGISTER.format(field="name"))
    assert [(each.rule, each.message) for each in found] == [
        ("deprecation", "field name of things of API 1 is still there after version 2")
    ]


async def test_a_waiver_in_the_version_lets_it_take(databases: Databases, cluster: Cluster, tmp_path: Path) -> None:
    waiver = "-- lint: allow catalogue-lost because nobody has a fax any more\n"
    files = {"expand.sql": WAIVED + waiver + "ALTER TABLE tb_thing DROP COLUMN fax"}
    assert await second(databases, cluster, tmp_path, files) == []


async def test_a_table_with_deferred_triggers_can_be_altered_after_its_rows_were_made(
    databases: Databases, cluster: Cluster, tmp_path: Path
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
    assert await rehearse(databases, cluster, template) == []


async def test_only_the_wanted_version_is_judged(databases: Databases, cluster: Cluster, tmp_path: Path) -> None:
    lossy = {"expand.sql": REPLACED.replace("'name', name,", "")}
    template = write_sample(tmp_path, FIRST, lossy, {"expand.sql": ""})
    assert await rehearse(databases, cluster, template, [3]) == []
    assert [each.rule for each in await rehearse(databases, cluster, template, [2])] == ["api-key"]
