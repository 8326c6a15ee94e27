"""The template `starter`, and copies of it: onboarded in each mode, served, released beside `reference`."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from control_plane.api.app import create_app
from control_plane.errors import InvalidInput, TemplateExists, TemplateRefused
from control_plane.migrator import Options, migrate_all
from control_plane.registry import template_versions
from control_plane.registry.models import Cluster
from control_plane.service import ControlPlane
from control_plane.settings import Settings, shipped
from control_plane.templates import Templates
from control_plane.templates.lint import lint_template
from control_plane.templates.scaffold import new_template
from tests.support.callers import client, open_plane, platform_headers, tenant_headers
from tests.support.templates import with_first_versions

MODES = ("shared", "schema", "database")


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    """The template `reference`, `starter`, and a new one, `shop`."""
    given = with_first_versions(settings, tmp_path / "templates")
    shutil.copytree(shipped("tenant_templates") / "starter", given.templates / "starter")
    new_template("shop", given.templates)
    return given


@pytest_asyncio.fixture
async def plane(settings: Settings, cluster: Cluster) -> AsyncIterator[ControlPlane]:
    async with open_plane(settings) as opened:
        yield opened


@pytest_asyncio.fixture
async def api(plane: ControlPlane) -> AsyncIterator[httpx.AsyncClient]:
    async with client(create_app(plane), platform_headers(plane)) as opened:
        yield opened


async def onboard(api: httpx.AsyncClient, slug: str, isolation: str, template: str) -> httpx.Response:
    body = {"slug": slug, "name": slug, "isolation": isolation, "template": template}
    return await api.post("/tenants", json=body)


@pytest.mark.parametrize("template", ["starter", "shop"])
@pytest.mark.parametrize("isolation", MODES)
async def test_a_tenant_of_the_smallest_template_is_served(
    api: httpx.AsyncClient, plane: ControlPlane, isolation: str, template: str
) -> None:
    onboarded = await onboard(api, "acme", isolation, template)
    assert onboarded.status_code == 201, onboarded.text
    assert (onboarded.json()["template"], onboarded.json()["pattern_version"]) == (template, 1)
    caller = tenant_headers(plane, onboarded.json()["id"])

    created = (await api.post("/api/v1/rpc/create_note", json={"title": "First"}, headers=caller)).json()
    assert created["success"], created
    note = created["data"]["note"]
    assert (note["__typename"], note["title"]) == ("Note", "First")
    assert (await api.get("/api/v1/notes", headers=caller)).json() == [note]
    assert (await api.get(f"/api/default/notes/{note['id']}", headers=caller)).json() == note

    refused = await api.post("/api/v1/rpc/create_note", json={"title": ""}, headers=caller)
    assert (refused.status_code, refused.json()["errors"][0]["path"]) == (422, "title")
    assert (await api.get("/api/v1/projects", headers=caller)).status_code == 404


async def test_shared_tenants_of_the_smallest_template_do_not_see_each_other(
    api: httpx.AsyncClient, plane: ControlPlane
) -> None:
    callers = [
        tenant_headers(plane, (await onboard(api, slug, "shared", "starter")).json()["id"]) for slug in ("acme", "beta")
    ]
    await api.post("/api/v1/rpc/create_note", json={"title": "Mine"}, headers=callers[0])
    assert [len((await api.get("/api/v1/notes", headers=caller)).json()) for caller in callers] == [1, 0]


async def test_each_template_is_released_by_itself(api: httpx.AsyncClient, plane: ControlPlane) -> None:
    for isolation in MODES:
        for template in ("reference", "starter"):
            answer = await onboard(api, f"{template}-{isolation}", isolation, template)
            assert answer.status_code == 201, answer.text
    second = plane.settings.templates / "starter" / "versions" / "0002_more"
    second.mkdir()
    (second / "expand.sql").write_text("ALTER TABLE tb_note ADD COLUMN done boolean NOT NULL DEFAULT false;")
    grown = Templates.load(plane.settings.templates)

    results = {name: await migrate_all(plane.databases, grown[name], Options()) for name in ("reference", "starter")}
    assert {name: (result.status, result.done, result.current) for name, result in results.items()} == {
        "reference": ("done", 0, 3),
        "starter": ("done", 3, 0),
    }
    listed = {tenant["slug"]: tenant["pattern_version"] for tenant in (await api.get("/tenants")).json()["items"]}
    assert listed == {f"reference-{mode}": 3 for mode in MODES} | {f"starter-{mode}": 2 for mode in MODES}


WRONG = "CREATE TABLE tb_leak (id uuid PRIMARY KEY);\nGRANT SELECT ON tb_leak TO PUBLIC;"


def spoil(plane: ControlPlane) -> Templates:
    """A second version of `starter` that breaks rules."""
    version = plane.settings.templates / "starter" / "versions" / "0002_leak"
    version.mkdir()
    (version / "expand.sql").write_text(WRONG)
    return Templates.load(plane.settings.templates)


@pytest.mark.parametrize("only", [[], ["acme"]], ids=["released", "tried on one tenant"])
async def test_migrate_all_refuses_a_version_that_breaks_a_rule_before_anything_runs(
    api: httpx.AsyncClient, plane: ControlPlane, only: list[str]
) -> None:
    await onboard(api, "acme", "schema", "starter")
    with pytest.raises(TemplateRefused) as refused:
        await migrate_all(plane.databases, spoil(plane)["starter"], Options(only=only))
    assert refused.value.message == "The template 'starter' breaks rules and was not released: 0002_leak."
    assert [(each["place"], each["rule"]) for each in refused.value.errors][-1] == (
        "0002_leak/expand.sql:2",
        "grant-by-hand",
    )
    assert refused.value.hint is not None
    assert "cp template lint starter" in refused.value.hint
    async with plane.databases.registry() as session:
        assert await template_versions.current(session, plane.templates["starter"]) == 1
    assert (await api.get("/tenants/acme")).json()["pattern_version"] == 1


async def test_the_first_tenant_of_a_template_that_breaks_a_rule_is_refused(
    settings: Settings, cluster: Cluster
) -> None:
    (settings.templates / "starter/versions/0001_notes/expand.sql").write_text(WRONG)
    async with open_plane(settings) as plane, client(create_app(plane), platform_headers(plane)) as api:
        answer = await onboard(api, "acme", "schema", "starter")
        assert (answer.status_code, answer.json()["code"]) == (422, "template_refused")
        assert (await api.get("/tenants/acme")).status_code == 404


def test_a_new_template_breaks_no_rule_and_differs_from_its_source_in_its_name_alone(tmp_path: Path) -> None:
    made = new_template("shop", tmp_path)
    assert made == tmp_path / "shop"
    assert lint_template(Templates.load(tmp_path)["shop"]) == []
    source = Templates.load(shipped("tenant_templates"))["starter"]
    copy = Templates.load(tmp_path)["shop"]
    assert copy.manifest == source.manifest.model_copy(update={"name": "shop"})
    assert [version.checksum for version in copy.versions] == [version.checksum for version in source.versions]
    assert "starter" not in (made / "template.toml").read_text()


@pytest.mark.parametrize("name", ["", "Shop", "1shop", "my-shop", "../shop", "shop/x", "x" * 41, "shöp"])
def test_a_new_template_needs_a_name_that_can_be_one(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput):
        new_template(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_new_template_takes_nobody_s_place(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    with pytest.raises(TemplateExists):
        new_template("shop", tmp_path)
    assert list((tmp_path / "shop").iterdir()) == []
