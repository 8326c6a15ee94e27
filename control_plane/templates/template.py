"""A template and its numbered versions, as they stand on disk."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from control_plane.errors import Gone, NotFound, TemplateInvalid, TemplateNotFound
from control_plane.templates.manifest import Deprecation, FieldRule, Manifest, Since, read_manifest
from control_plane.templates.script import STEPS, Part, Script

_VERSION_DIRECTORY = re.compile(r"(\d{4})_([a-z0-9_]+)")
_API_FILE = re.compile(r"api_v(\d+)\.sql")


@dataclass(frozen=True, slots=True)
class Resource:
    """A view of one API version: `columns` beside `data` with types, `-` in `order` is descending, limits in rows."""

    name: str
    api_version: int
    columns: Mapping[str, str]
    order: tuple[str, ...]
    sorts: tuple[str, ...]
    key: tuple[str, ...]
    filters: Mapping[str, tuple[str, ...]]
    version: str | None
    default_limit: int
    max_limit: int
    deprecation: Deprecation | None  # of the whole resource, or of its API version
    counted: bool  # it or some of it is deprecated, and whoever still calls it is to be known


@dataclass(frozen=True, slots=True)
class Function:
    """A function of one API version that takes one jsonb argument and answers a mutation result."""

    name: str
    api_version: int
    read_only: bool
    input: Mapping[str, FieldRule]
    deprecation: Deprecation | None  # of its API version


@dataclass(frozen=True, slots=True)
class Version:
    """One directory of `versions/`. The checksum covers every file's name and bytes."""

    number: int
    name: str
    path: Path
    checksum: str

    def parts(self) -> Iterator[Part]:
        """The transactional files in the order in which they run."""
        for file in (self.path / "expand.sql", *sorted(self.path.glob("expand_*.sql"))):
            if file.is_file():
                yield Part(f"{self.name}/{file.name}", file.read_text("utf-8"), api=None)
        found = ((int(match[1]), file) for file in self.path.iterdir() if (match := _API_FILE.fullmatch(file.name)))
        for api, file in sorted(found):
            yield Part(f"{self.name}/{file.name}", file.read_text("utf-8"), api=api)
        if (removal := self.contract) is not None:
            yield Part(f"{self.name}/contract.sql", removal, api=None)

    @property
    def contract(self) -> str | None:
        """SQL that takes away what an earlier version announced; runs last in the transaction."""
        return self._text("contract.sql")

    @property
    def concurrent(self) -> str | None:
        """Statements that run after the transaction, each by itself."""
        return self._text("concurrent.sql")

    @property
    def backfill(self) -> str | None:
        """Statements that change rows in batches, after the transaction."""
        return self._text("backfill.sql")

    @property
    def beside(self) -> dict[str, str]:
        """The steps that follow the transaction, in their order, with their SQL."""
        texts = {"concurrent": self.concurrent, "backfill": self.backfill}
        return {step: sql for step in STEPS if (sql := texts[step]) is not None}

    def parts_without_rows(self) -> Iterator[Part]:
        """All that builds a home which has no rows: there the steps stand in the transaction, in their place."""
        yield from self.parts()
        for step, sql in self.beside.items():
            label = f"{self.name}/{step}.sql"
            if step == "concurrent":
                # Imported here: few versions have the file, and loading PostgreSQL's parser takes a moment.
                from control_plane.templates.lint.apart import inside

                sql = inside(label, sql)
            yield Part(label, sql, api=None)

    @property
    def smoke(self) -> str | None:
        """SQL that calls everything new; run with a tenant's context and rolled back."""
        return self._text("smoke.sql")

    def _text(self, name: str) -> str | None:
        file = self.path / name
        return file.read_text("utf-8") if file.is_file() else None


class Template:
    """What a tenant's schema looks like, as versions 1 … `latest`."""

    def __init__(self, manifest: Manifest, versions: tuple[Version, ...]) -> None:
        self.name = manifest.name
        self.manifest = manifest
        self.versions = versions
        self._script = lru_cache(maxsize=64)(self._compile)

    @property
    def latest(self) -> int:
        return len(self.versions)

    def version(self, number: int) -> Version:
        if not 1 <= number <= self.latest:
            raise TemplateNotFound(
                f"The template '{self.name}' has no version {number}.", hint=f"It has versions 1 to {self.latest}."
            )
        return self.versions[number - 1]

    def require_api(self, api_version: int, pattern_version: int) -> None:
        """Raises `NotFound` or `Gone` when a home at `pattern_version` does not serve the API version."""
        declared, hint = self.manifest.api.get(api_version), f"Use v{self.default_api(pattern_version)}."
        if declared is None or pattern_version < declared.since:
            raise NotFound("There is no such API version.", hint=hint)
        if not declared.served(pattern_version):
            raise Gone("This API version was retired.", hint=hint)

    def api_versions(self, pattern_version: int) -> tuple[int, ...]:
        return tuple(sorted(api for api, entry in self.manifest.api.items() if entry.served(pattern_version)))

    def default_api(self, pattern_version: int) -> int:
        return max(
            (entry for entry in self.manifest.default_api if entry.since <= pattern_version), key=lambda e: e.since
        ).api

    def resource(self, name: str, *, api_version: int, pattern_version: int) -> Resource:
        """The resource as a home at `pattern_version` serves it; `NotFound` or `Gone` when it does not."""
        self.require_api(api_version, pattern_version)
        declared = self.manifest.resources.get(name)
        if declared is None or not self._serves(declared.api, declared.since, api_version, pattern_version):
            raise NotFound("There is no such resource in this API version.")
        if self.removed(api_version, name, pattern_version):
            raise Gone("The resource was removed from this API version.")
        present = [
            entry
            for entry in self.deprecations(api_version, pattern_version)
            if entry.resource in (None, name) and not entry.removed(pattern_version)
        ]
        return Resource(
            name=name,
            api_version=api_version,
            columns=declared.columns,
            order=declared.order,
            sorts=declared.sorts,
            key=declared.key,
            filters=declared.filters,
            version=declared.version,
            default_limit=declared.default_limit,
            max_limit=declared.max_limit,
            deprecation=_first_to_go(entry for entry in present if entry.field is None),
            counted=bool(present),
        )

    def function(self, name: str, *, api_version: int, pattern_version: int) -> Function:
        """The function as a home at `pattern_version` serves it; `NotFound` or `Gone` when it does not."""
        self.require_api(api_version, pattern_version)
        declared = self.manifest.functions.get(name)
        if declared is None or not self._serves(declared.api, declared.since, api_version, pattern_version):
            raise NotFound("There is no such function in this API version.")
        return Function(
            name=name,
            api_version=api_version,
            read_only=declared.read_only,
            input=declared.input,
            deprecation=self.ending(api_version, pattern_version),
        )

    def keeps_keys(self, pattern_version: int) -> bool:
        """Whether a home at `pattern_version` can run a call once per key (sql/tenancy, create_idempotency_keys())."""
        helper = self.manifest.helpers.get("fn_claim_call")
        return helper is not None and helper.since <= pattern_version

    def deprecations(self, api_version: int, pattern_version: int) -> tuple[Deprecation, ...]:
        """The register as it stands for one API version of a home at `pattern_version`."""
        return tuple(
            entry for entry in self.manifest.deprecations if entry.api == api_version and entry.since <= pattern_version
        )

    def ending(self, api_version: int, pattern_version: int) -> Deprecation | None:
        """The entry of the register about the whole API version."""
        return _first_to_go(
            entry for entry in self.deprecations(api_version, pattern_version) if entry.resource is None
        )

    def removed(self, api_version: int, resource: str, pattern_version: int) -> bool:
        """Whether a whole resource has been taken out of an API version by then."""
        return any(
            entry.field is None and entry.resource in (None, resource) and entry.removed(pattern_version)
            for entry in self.deprecations(api_version, pattern_version)
        )

    def script(self, from_version: int, to_version: int, *, empty: bool = False) -> Script:
        """The compiled way from one version to a later one, as one message; compiled once per pair.

        A home without rows (`empty`, and each one at version 0) takes any way at once. All others go in `stages`.
        """
        return self._script(from_version, to_version, empty or from_version == 0)

    def stages(self, from_version: int, to_version: int) -> tuple[Script, ...]:
        """The way of a home with rows: a script ends with each version that has steps beside its transaction."""
        ends = [version.number for version in self.versions[from_version:to_version] if version.beside]
        return tuple(
            self.script(start, end) for start, end in pairwise(dict.fromkeys((from_version, *ends, to_version)))
        )

    def _compile(self, from_version: int, to_version: int, empty: bool) -> Script:
        target = self.version(to_version)
        if not 0 <= from_version < to_version:
            raise TemplateNotFound(f"There is no way from version {from_version} to {to_version}.")
        passed = self.versions[from_version:to_version]
        assert empty or not any(version.beside for version in passed[:-1]), "steps would be passed over"
        return Script(
            template=self.name,
            from_version=from_version,
            to_version=to_version,
            checksum=target.checksum,
            parts=tuple(
                part for version in passed for part in (version.parts_without_rows() if empty else version.parts())
            ),
            beside=() if empty else tuple(target.beside),
            # One that is retired on the way is built and then taken away, as in homes that have it.
            api_versions=tuple(
                sorted(
                    api
                    for api, entry in self.manifest.api.items()
                    if entry.since <= to_version and (entry.retired is None or entry.retired > from_version)
                )
            ),
            manifest=self._stamp(to_version),
        )

    def _stamp(self, pattern_version: int) -> dict[str, object]:
        """What stamp_migration() grants and aliases, and declared() answers (sql/tenancy)."""
        manifest = self.manifest
        served = self.api_versions(pattern_version)
        functions: list[dict[str, object]] = [
            {"api": api, "name": name}
            for name, declared in sorted(manifest.functions.items())
            for api in served
            if self._serves(declared.api, declared.since, api, pattern_version)
        ]
        functions += [
            {"api": None, "name": name}
            for name, entry in sorted(manifest.helpers.items())
            if entry.since <= pattern_version
        ]
        collections = {
            f"{api}.{name}": resource.model_dump(include={"key", "order", "sorts", "filters", "max_limit"})
            for name, resource in sorted(manifest.resources.items())
            for api in served
            if self._serves(resource.api, resource.since, api, pattern_version)
            and not self.removed(api, name, pattern_version)
        }
        return {
            "functions": functions,
            "default_api": self.default_api(pattern_version),
            "collections": collections,
            "projections": _present(manifest.projections, pattern_version),
            "cached_queries": _present(manifest.cached_queries, pattern_version),
            "deprecations": [
                entry.model_dump(mode="json") for entry in manifest.deprecations if entry.since <= pattern_version
            ],
            "retired": sorted(
                api for api, entry in manifest.api.items() if entry.retired and entry.retired <= pattern_version
            ),
        }

    def _serves(self, apis: tuple[int, ...] | None, since: int, api_version: int, pattern_version: int) -> bool:
        return (
            api_version in self.api_versions(pattern_version)
            and since <= pattern_version
            and (apis is None or api_version in apis)
        )


class Templates(Mapping[str, Template]):
    """All templates of a directory, by name."""

    def __init__(self, templates: dict[str, Template]) -> None:
        self._templates = templates

    @classmethod
    def load(cls, directory: Path) -> Templates:
        """Read every sub-directory that has a `template.toml`; raises `TemplateInvalid`."""
        found = sorted(path.parent for path in directory.glob("*/template.toml"))
        if not found:
            raise TemplateInvalid(f"{directory} holds no template.")
        return cls({template.name: template for template in map(_read, found)})

    def __getitem__(self, name: str) -> Template:
        try:
            return self._templates[name]
        except KeyError:
            raise TemplateNotFound(
                f"There is no template '{name}'.", hint=f"There are: {', '.join(self._templates)}."
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._templates)

    def __len__(self) -> int:
        return len(self._templates)


def _first_to_go(entries: Iterable[Deprecation]) -> Deprecation | None:
    return min(entries, key=lambda entry: entry.sunset, default=None)


def _present(declared: Mapping[str, Since], pattern_version: int) -> dict[str, object]:
    return {
        name: entry.model_dump(exclude={"since"}, exclude_none=True)
        for name, entry in sorted(declared.items())
        if entry.since <= pattern_version
    }


def _read(directory: Path) -> Template:
    manifest = read_manifest(directory / "template.toml")
    if manifest.name != directory.name:
        raise TemplateInvalid(f"{directory.name}/template.toml: name is '{manifest.name}'.")
    versions: list[Version] = []
    for path in sorted(path for path in (directory / "versions").iterdir() if path.is_dir()):
        match = _VERSION_DIRECTORY.fullmatch(path.name)
        if match is None or int(match[1]) != len(versions) + 1:
            raise TemplateInvalid(f"{directory.name}/versions/{path.name}: expected {len(versions) + 1:04}_a_name.")
        versions.append(Version(len(versions) + 1, path.name, path, _checksum(path)))
    if not versions:
        raise TemplateInvalid(f"{directory.name} has no version.")
    if not any(entry.since == 1 for entry in manifest.default_api):
        raise TemplateInvalid(f"{directory.name}/template.toml: default_api must begin at version 1.")
    template = Template(manifest, tuple(versions))
    for version in versions:
        served = template.api_versions(version.number)
        for part in version.parts():
            # Its schema would be missing, and what the file makes would land in the base schema.
            if part.api is not None and part.api not in served:
                raise TemplateInvalid(f"{directory.name}/versions/{part.label}: the version does not serve this API.")
    return template


def _checksum(directory: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(directory.glob("*.sql")):
        content = file.read_bytes()
        digest.update(f"{file.name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()
