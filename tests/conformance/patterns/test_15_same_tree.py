"""Patterns 14 and 15: the tree by parent and the tree by path are one tree."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from uuid import UUID

from tests.conformance.patterns.categories import Categories, categories
from tests.conformance.world import World


@dataclass
class Model:
    """The tree as a list of children per parent: what both forms have to agree with."""

    slugs: dict[UUID, str] = field(default_factory=dict)
    parents: dict[UUID, UUID | None] = field(default_factory=dict)
    children: dict[UUID | None, list[UUID]] = field(default_factory=lambda: {None: []})

    def add(self, id_: UUID, slug: str, parent: UUID | None) -> None:
        self.slugs[id_], self.parents[id_], self.children[id_] = slug, parent, []
        self.children[parent].append(id_)

    def line(self, id_: UUID | None) -> list[UUID]:
        return [] if id_ is None else [*self.line(self.parents[id_]), id_]

    def taken(self, parent: UUID | None, slug: str, besides: UUID | None = None) -> bool:
        return any(self.slugs[each] == slug and each != besides for each in self.children[parent])

    def branch(self, id_: UUID | None) -> list[UUID]:
        below = [each for child in self.children[id_] for each in self.branch(child)]
        return below if id_ is None else [id_, *below]

    def move(self, id_: UUID, parent: UUID | None) -> str | None:
        if parent == self.parents[id_]:
            return None
        if id_ in self.line(parent) or self.taken(parent, self.slugs[id_]):
            return "conflict"
        self.children[self.parents[id_]].remove(id_)
        self.parents[id_] = parent
        self.children[parent].append(id_)
        return None

    def reorder(self, id_: UUID, before: UUID | None) -> str | None:
        siblings = self.children[self.parents[id_]]
        if before is not None and before not in siblings:
            return "not_found"
        if before != id_:
            siblings.remove(id_)
            siblings.insert(len(siblings) if before is None else siblings.index(before), id_)
        return None

    def rename(self, id_: UUID, slug: str) -> str | None:
        if self.taken(self.parents[id_], slug, besides=id_):
            return "conflict"
        self.slugs[id_] = slug
        return None

    def delete(self, id_: UUID, policy: str) -> str | None:
        parent, orphans = self.parents[id_], self.children[id_]
        if orphans and policy == "restrict":
            return "conflict"
        if policy == "reparent" and any(self.taken(parent, self.slugs[each], besides=id_) for each in orphans):
            return "conflict"
        place = self.children[parent].index(id_)
        self.children[parent][place : place + 1] = orphans if policy == "reparent" else []
        for each in orphans:
            self.parents[each] = parent
        for each in [id_] if policy == "reparent" else self.branch(id_):
            del self.slugs[each], self.parents[each]
        return None


async def step(tree: Categories, model: Model, dice: random.Random) -> None:
    """One random change, to the database and to the model; both take it or refuse it alike."""
    ids = list(model.slugs)
    slug = f"s{dice.randrange(12)}"
    id_ = dice.choice(ids) if ids else None
    other = dice.choice([None, *ids])
    action = dice.choice(["create"] * 4 + ["move"] * 3 + ["rename", "reorder", "delete"])
    if action == "create" or id_ is None:
        made = await tree.call("create_category", name=slug, parent_id=other)
        refusal = "conflict" if model.taken(other, slug) else None
        if not refusal:
            model.add(UUID(made["data"]["id"]), slug, other)
    elif action == "move":
        made, refusal = await tree.call("move_category", id=id_, parent_id=other), model.move(id_, other)
    elif action == "rename":
        made, refusal = await tree.call("rename_category", id=id_, name=slug, slug=slug), model.rename(id_, slug)
    elif action == "reorder":
        before = dice.choice([None, other, *model.children[model.parents[id_]]])
        made, refusal = await tree.call("reorder_category", id=id_, before=before), model.reorder(id_, before)
    else:
        policy = dice.choice(["restrict", "restrict", "reparent", "cascade"])
        made, refusal = await tree.call("delete_category", id=id_, policy=policy), model.delete(id_, policy)
    assert (None if made["success"] else made["code"]) == refusal, (action, made)


async def test_both_forms_are_the_same_tree_after_any_changes(world: World) -> None:
    """Requirement 5: 14 and 15 give the same tree for the same input, and the one that was meant."""
    dice, model = random.Random(15), Model()
    async with categories(world) as tree:
        for number in range(240):
            await step(tree, model, dice)
            if number % 8:
                continue
            nodes = (await tree.succeed("category_tree"))["categories"]
            assert [UUID(node["id"]) for node in nodes] == model.branch(None)
            await tree.assert_sound()
            rows = await tree.connection.fetch("SELECT id, parent_id, path_text, depth FROM v_category")
            by_path = {str(row["id"]): (row["path_text"], row["depth"], row["parent_id"]) for row in rows}
            for node in nodes:
                line = model.line(UUID(node["id"]))
                assert node["path"] == [str(each) for each in line]
                path = ".".join(model.slugs[each] for each in line)
                assert by_path[node["id"]] == (path, node["depth"], model.parents[line[-1]])
            assert len(rows) == len(nodes)
        assert len(model.slugs) > 20, "the changes left too little to compare"
