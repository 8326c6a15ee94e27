"""What a version keeps waiting: the strongest lock on each relation that was there before, and what is written anew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import asyncpg

from control_plane.settings import shipped
from control_plane.templates.lint.locks import MODES

_RELATIONS = (shipped("sql") / "migrator" / "relations.sql").read_text("utf-8")
_LOCKS = (shipped("sql") / "migrator" / "locks.sql").read_text("utf-8")
_ACCESS_EXCLUSIVE = max(MODES)


@dataclass(frozen=True, slots=True)
class RelationLock:
    """A lock of a schema change on a relation (`tb_user`, `api_v1.users`) that stood before the version.

    `mode` is the strongest one, `file` the template's file that took it, None for the stamp. `scans` is how often all
    of its rows were read.
    """

    relation: str
    mode: str
    file: str | None
    rewritten: bool
    scans: int


@dataclass(frozen=True, slots=True)
class VersionLocks:
    """The lock report of one version; empty where it makes what is new and touches nothing else."""

    version: int
    name: str
    locks: tuple[RelationLock, ...]

    def __str__(self) -> str:
        lines = [f"{self.name} locks nothing that was there before"]
        if self.locks:
            lines = [f"{self.name} locks, until it is done:", *(f"  {_described(lock)}" for lock in self.locks)]
        return "\n".join(lines)


def _described(lock: RelationLock) -> str:
    notes = [f"{lock.relation}: {lock.mode}"]
    if lock.rewritten:
        notes.append("all rows are written anew")
    elif lock.scans:
        notes.append("all rows are read" + (f" {lock.scans} times" if lock.scans > 1 else ""))
    return ", ".join(notes)


@dataclass(slots=True)
class _Relation:
    name: str
    root: str  # the table whose partition it is, or itself
    own: bool
    file_number: int
    scans_before: int
    mode: int = 0
    file: str | None = None
    rewritten: bool = False
    scans: int = 0


class LockRecorder:
    """Watches a transaction that changes a home; made before it does."""

    def __init__(self, connection: asyncpg.Connection, relations: dict[int, _Relation]) -> None:
        self._connection = connection
        self._relations = relations

    @classmethod
    async def watch(cls, connection: asyncpg.Connection, schema: str) -> LockRecorder:
        rows = await connection.fetch(_RELATIONS, schema)
        return cls(
            connection,
            {
                row["oid"]: _Relation(row["name"], row["root"] or row["name"], row["own"], row["file"], row["scans"])
                for row in rows
            },
        )

    async def note(self, file: str | None) -> None:
        """Put down to `file` what has been done since the last note."""
        for row in await self._connection.fetch(_LOCKS, list(self._relations)):
            relation = self._relations[row["oid"]]
            if (row["mode"] or 0) > relation.mode:
                relation.mode, relation.file = row["mode"], file
            if row["file"] is not None and row["file"] != relation.file_number:
                relation.rewritten = True
            relation.scans = (row["scans"] or 0) - relation.scans_before

    def report(self) -> tuple[RelationLock, ...]:
        """By name; what the stamp does to the views that it alone makes is left out."""
        return tuple(
            RelationLock(each.name, MODES[each.mode], each.file, each.rewritten, max(each.scans, 0))
            for each in sorted(self._relations.values(), key=lambda each: each.name)
            if each.mode and each.own
        )

    def surprises(self, locked: frozenset[str], rewritten: frozenset[str]) -> Iterator[tuple[str, str, str]]:
        """Rule, file and message of what the text of the version, which names these relations, does not tell."""
        for each in self._relations.values():
            if not each.own or each.file is None:
                continue
            if each.rewritten and each.root not in rewritten:
                yield "rewrite", each.file, f"all rows of {each.name} are written anew"
            if each.mode == _ACCESS_EXCLUSIVE and each.root not in locked:
                yield (
                    "unforeseen-lock",
                    each.file,
                    f"{each.name} is locked {MODES[each.mode]}, and no statement names it",
                )
