"""A day in the life of a tenant of the template `reference`: every function is called, every resource gets rows.

One list for all tests that need a tenant with everything in it. A call belongs to the template version that brings its
function. `$name` in an input is a value that an earlier call saved, `$newest_notification` the newest one of Ada's. The
caller is Ada, the first user, once she is there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import httpx

from tests.support.members import Member
from tests.support.tenant_calls import TenantCalls, principal

_SAVED = re.compile(r'"\$([a-z_]+)"')


@dataclass(frozen=True)
class Call:
    """A call of a function with the status that it must have; `save` maps names to paths below the answer's data.

    `least` maps a list below the data to a number: the call is repeated until there are so many items.
    """

    function: str
    input: Mapping[str, Any]
    status: int = 200
    save: Mapping[str, str] = field(default_factory=dict)
    roles: tuple[str, ...] = ()
    api: int | None = None  # None: the default of the home's version
    least: Mapping[str, int] = field(default_factory=dict)
    caller: str = "ada"  # a saved id


NOBODY = "00000000-0000-0000-0000-00000000ffff"
ORDER = "00000000-0000-0000-0000-0000000000a1"
OTHER_ORDER = "00000000-0000-0000-0000-0000000000a2"
START = "0.0.00000000-0000-0000-0000-000000000000.0"

CALLS: dict[int, list[Call]] = {
    1: [
        Call("create_user", {"email": "ada@example.com", "name": "Ada"}, save={"ada": "user.id"}),
        Call("create_user", {"email": "Ada@Example.com", "name": "Ada again"}, 409),
        Call("create_user", {"email": "nowhere", "name": ""}, 422),
        Call("create_user", {"email": "grace@example.com", "name": "Grace"}, save={"grace": "user.id"}),
        Call("create_project", {"name": "Engine", "owner_id": "$ada"}, save={"project": "project.id"}),
        Call("create_project", {"name": "Nobody's"}),
        Call("create_project", {"name": "Engine", "owner_id": NOBODY}, 404),
        Call("create_project", {"name": "Engine", "owner_id": "ada"}, 422),
        Call("rename_project", {"id": "$project", "name": "Analytical Engine"}),
        Call("rename_project", {"id": NOBODY, "name": "Nothing"}, 404),
        Call("rename_project", {"id": "$project", "name": "x" * 201}, 422),
    ],
    2: [],
    3: [
        Call("create_user", {"email": "edsger@example.com", "name": "Edsger"}, api=1),
        Call("create_user", {"email": "barbara@example.com", "name": "Barbara"}, api=2),
        Call("create_project", {"name": "Compiler"}, save={"compiler": "project.id"}, api=2),
        Call("rename_project", {"id": "$compiler", "name": "CLU"}, api=1),
    ],
    4: [
        Call("update_person", {"id": "$ada", "bio": "Counts.", "phone": "+44 1", "listed": True}),
        Call("update_person", {"id": "$ada", "avatar_url": "http://example.com"}, 422),
        Call("update_person", {"id": "$grace", "phone": "+1 2"}, 403),
        Call("update_person", {"id": "$grace", "suspended": False, "private_notes": "Kind."}, roles=("admin",)),
        Call("update_person", {"id": NOBODY, "bio": "?"}, 404),
    ],
    5: [
        Call("create_category", {"name": "Electronics"}, save={"electronics": "category.id"}),
        Call("create_category", {"name": "Computers", "parent_id": "$electronics"}, save={"computers": "category.id"}),
        Call("create_category", {"name": "Phones", "parent_id": "$electronics"}, save={"phones": "category.id"}),
        Call("create_category", {"name": "Garden", "sort_order": 7}, save={"garden": "category.id"}),
        Call("create_category", {"name": "Computers", "slug": "computers", "parent_id": "$electronics"}, 409),
        Call("create_category", {"name": "Lost", "parent_id": NOBODY}, 404),
        Call("create_category", {"name": "Bad", "slug": "Not A Slug"}, 422),
        Call("rename_category", {"id": "$garden", "name": "Outdoors", "slug": "outdoors"}),
        Call("rename_category", {"id": NOBODY, "name": "Nothing"}, 404),
        Call("move_category", {"id": "$garden", "parent_id": "$phones"}),
        Call("move_category", {"id": "$electronics", "parent_id": "$phones"}, 409),
        Call("move_category", {"id": "$phones", "parent_id": NOBODY}, 404),
        Call("reorder_category", {"id": "$phones", "before": "$computers"}),
        Call("reorder_category", {"id": "$phones", "before": "$garden"}, 404),
        Call("category_tree", {}),
        Call("category_tree", {"id": NOBODY}, 404),
        Call("category_ancestors", {"id": "$garden"}),
        Call("category_ancestors", {"id": "garden"}, 422),
        Call("category_children", {"id": "$electronics"}),
        Call("category_children", {"id": NOBODY}, 404),
        Call("category_subtree", {"path": "electronics", "levels": 1}),
        Call("category_subtree", {"path": "electronics..phones"}, 422),
        Call("category_breadcrumb", {"path": "electronics.phones.outdoors"}),
        Call("category_breadcrumb", {"path": "electronics.nowhere"}, 404),
        Call("category_level", {"depth": 1}),
        Call("category_level", {"depth": 99}, 422),
        Call("check_categories", {}),
        Call("delete_category", {"id": "$electronics"}, 409),
        Call("delete_category", {"id": "$garden", "policy": "cascade"}),
        Call("delete_category", {"id": "$garden"}, 404),
    ],
    6: [
        Call("create_product", {"sku": "lamp", "name": "Lamp", "price": "12.50"}, save={"product": "product.id"}),
        Call("create_product", {"sku": "lamp", "name": "Lamp", "price": 1}, 409),
        Call("create_product", {"sku": "odd", "name": "Odd", "price": 1.005}, 422),
        Call("create_product", {"sku": "bulb", "name": "Bulb", "price": 2, "category_id": "$phones"},
             save={"bulb": "product.id"}),
        Call("create_product", {"sku": "lost", "name": "Lost", "price": 2, "category_id": NOBODY}, 404),
        Call("update_product", {"id": "$product", "name": "Desk lamp", "price": 13}),
        Call("update_product", {"id": NOBODY, "name": "Nothing"}, 404),
        Call("set_stock", {"product_id": "$product", "location": "Zürich", "in_stock": 5, "reserved": 2}),
        Call("set_stock", {"product_id": "$product", "location": "Zürich", "in_stock": 1}, 409),
        Call("set_stock", {"product_id": NOBODY, "location": "Zürich", "in_stock": 1}, 404),
        Call("create_review", {"product_id": "$product", "rating": 5, "content": "Bright."}),
        Call("create_review", {"product_id": "$product", "rating": 1, "content": "Dim."}, save={"review": "review.id"}),
        Call("create_review", {"product_id": NOBODY, "rating": 5, "content": "?"}, 404),
        Call("create_review", {"product_id": "$product", "rating": 6, "content": "?"}, 422),
        Call("delete_review", {"id": "$review"}),
        Call("delete_review", {"id": "$review"}, 404),
        Call("delete_product", {"id": "$bulb"}),
        Call("delete_product", {"id": "$bulb"}, 404),
    ],
    7: [
        Call(
            "set_price",
            {"product_id": "$product", "currency": "EUR", "price": "9.50", "valid_from": "2026-01-01"},
        ),
        Call(
            "set_price",
            {
                "product_id": "$product", "currency": "EUR", "price": 8, "valid_from": "2026-02-01",
                "valid_to": "2026-03-01",
            },
        ),
        Call("set_price", {"product_id": NOBODY, "currency": "EUR", "price": 1, "valid_from": "2026-01-01"}, 404),
        Call("set_price", {"product_id": "$product", "currency": "ZZZ", "price": 1, "valid_from": "2026-01-01"}, 422),
        Call("price_at", {"product_id": "$product", "currency": "EUR", "day": "2026-02-10"}),
        Call("price_at", {"product_id": NOBODY, "currency": "EUR", "day": "2026-02-10"}, 404),
        Call("price_at", {"product_id": "$product", "currency": "EUR", "day": "2026-02-30"}, 422),
    ],
    8: [
        Call(
            "place_order",
            {"id": ORDER, "customer": "Charles", "items": [{"sku": "lamp", "qty": 2}], "idempotency_key": "one"},
        ),
        Call(
            "place_order",
            {"id": ORDER, "customer": "Charles", "items": [{"sku": "lamp", "qty": 2}], "idempotency_key": "one"},
        ),
        Call("place_order", {"customer": ""}, 422),
        Call("add_order_item", {"id": ORDER, "sku": "shade", "qty": 1, "expected_version": 2}),
        Call("add_order_item", {"id": ORDER, "sku": "shade", "qty": 1, "expected_version": 2}, 409),
        Call("add_order_item", {"id": NOBODY, "sku": "shade", "qty": 1}, 404),
        Call("add_order_note", {"id": ORDER, "note": "Fragile."}),
        Call(
            "append_order_events",
            {"stream_id": ORDER, "events": [{"type": "Weighed", "data": {"grams": 12}, "opaque": True}]},
        ),
        Call("append_order_events", {"stream_id": ORDER, "events": []}, 422),
        Call("ship_order", {"id": ORDER, "shipped_on": "2026-03-01"}),
        Call("deliver_order", {"id": ORDER, "delivered_on": "2026-03-02"}),
        Call("deliver_order", {"id": NOBODY}, 404),
        Call("place_order", {"id": OTHER_ORDER, "customer": "Mary"}),
        Call("cancel_order", {"id": OTHER_ORDER, "reason": "Changed her mind."}),
        Call("replay_order", {"id": ORDER, "as_of_version": 2}),
        Call("replay_order", {"id": NOBODY}, 404),
        # The feed waits for every older transaction on the server, be it an autovacuum.
        Call("read_order_events", {"after": START, "limit": 100}, least={"events": 9}),
        Call("read_order_events", {"after": "x"}, 422),
        Call("rebuild_order", {"id": ORDER}),
        Call("rebuild_order", {"id": NOBODY}, 404),
        Call("rebuild_orders", {"limit": 10}),
        Call("erase_order_events", {"id": OTHER_ORDER, "reason": "Asked for."}, 403),
        Call("erase_order_events", {"id": OTHER_ORDER, "reason": "Asked for."}, roles=("admin",)),
    ],
    9: [
        Call("create_post", {"title": "Notes", "content": "On the engine."}, save={"post": "post.id"}),
        Call("create_post", {"title": "Draft", "content": "…", "is_private": True}, save={"draft": "post.id"}),
        Call("create_post", {"title": "", "content": ""}, 422),
        Call("update_post", {"id": "$post", "title": "Notes A to G"}),
        Call("update_post", {"id": NOBODY, "title": "Nothing"}, 404),
        Call("create_comment", {"post_id": "$post", "content": "Splendid."}, save={"comment": "comment.id"}),
        Call("create_comment", {"post_id": "$post", "content": "Again."}, save={"again": "comment.id"}),
        Call("create_comment", {"post_id": NOBODY, "content": "Lost."}, 404),
        Call("delete_comment", {"id": "$again"}),
        Call("delete_comment", {"id": "$again"}, 404),
        Call("delete_post", {"id": "$draft"}),
        Call("delete_post", {"id": NOBODY}, 404),
    ],
    10: [
        Call("like_post", {"id": "$post"}, caller="grace"),
        Call("like_post", {"id": NOBODY}, 404),
        Call("create_comment", {"post_id": "$post", "content": "Indeed."}, caller="grace"),
        Call("follow_person", {"id": "$ada"}, caller="grace"),
        Call("follow_person", {"id": "$ada"}, 409),
        Call("follow_person", {"id": NOBODY}, 404),
        Call("announce", {"text": "Tea at four."}, 403),
        Call("announce", {"text": "Tea at four."}, roles=("admin",)),
        Call("announce", {"text": "Tea?", "user_id": NOBODY}, 404, roles=("admin",)),
        Call("count_unread_notifications", {}),
        Call("read_notification", {"id": NOBODY}, 404),
        Call("read_notification", {"id": "$newest_notification"}),
        Call("read_all_notifications", {}),
        Call("read_all_notifications", {"of": "everybody"}, 422),
        Call("purge_notifications", {"older_than_days": 30}, 403),
        Call("purge_notifications", {"older_than_days": 30}, roles=("admin",)),
        Call("report_dangling_notifications", {}, roles=("admin",)),
    ],
    11: [
        Call("track_page_view", {"page_url": "/notes", "duration_seconds": 7}),
        Call("track_page_view", {"page_url": "/notes", "duration_seconds": -1}, 422),
        Call("track_button_click", {"button": "save", "page_url": "/notes"}),
        Call("track_button_click", {}, 422),
        Call("submit_form", {"form": "contact", "fields": {"text": "Hello."}}),
        Call("submit_form", {"form": "contact", "fields": []}, 422),
    ],
    12: [
        Call("popular_posts", {"limit": 5}),
        Call("popular_posts", {"limit": 0}, 400),
        Call("read_query", {"name": "popular_posts", "parameters": {"limit": 5}}),
        Call("read_query", {"name": "popular_posts", "parameters": {"limit": 5}}),
        Call("read_query", {"name": "nothing"}, 404),
        Call("popular_posts", {"limit": 5}),
        Call("popular_posts", {"limit": 5}),
        Call("popular_posts", {"limit": 0}, 400),
        Call("read_query", {"name": "popular_posts", "parameters": {"limit": 5}}),
        Call("read_query", {"name": "popular_posts", "bypass": True}, 403),
        Call("read_query", {"name": "popular_posts", "bypass": True}, roles=("admin",)),
        Call("read_query", {"name": "tb_user"}, 404),
        Call("read_page", {"resource": "projects", "limit": 1}),
        Call("read_page", {"resource": "users", "sort": "email", "direction": "desc", "limit": 2}),
        Call("read_page", {"resource": "users", "sort": "email", "direction": "up"}, 400),
    ],
}  # fmt: skip


class Life:
    """Makes the calls for one tenant, in order."""

    def __init__(self, calls: TenantCalls, member: Member) -> None:
        self.calls = calls
        self.member = member
        self.saved: dict[str, str] = {}
        self._newcomer = uuid4()

    @property
    def user_id(self) -> UUID:
        return self._user("ada")

    def _user(self, name: str) -> UUID:
        return UUID(self.saved[name]) if name in self.saved else self._newcomer

    async def make(self, call: Call, version: int) -> httpx.Response:
        """Make one call of `version`, a version that the home is at; fails unless it has the expected status."""
        api = "default" if call.api is None else f"v{call.api}"
        if "$newest_notification" in call.input.values():  # no function answers with one
            self.saved["newest_notification"] = (await self.get(f"/api/{api}/notifications")).json()[0]["id"]
        body = json.loads(_SAVED.sub(lambda match: json.dumps(self.saved[match[1]]), json.dumps(call.input)))
        who = principal(self.member, self._user(call.caller), *call.roles)
        while True:
            answer = await self.calls.post(who, f"/api/{api}/rpc/{call.function}", body)
            assert answer.status_code == call.status, f"version {version}, {call}: {answer.status_code} {answer.text}"
            if all(len(answer.json()["data"][path]) >= items for path, items in call.least.items()):
                break
        for name, path in call.save.items():
            value = answer.json()["data"]
            for part in path.split("."):
                value = value[part]
            self.saved[name] = value
        return answer

    async def get(self, path: str, *roles: str) -> httpx.Response:
        return await self.calls.get(principal(self.member, self.user_id, *roles), path)

    async def rows(self, path: str) -> httpx.Response:
        """A list as the caller sees it; what is empty for her is read as an admin."""
        answer = await self.get(path)
        assert answer.status_code == 200, f"{path}: {answer.text}"
        return answer if answer.json() else await self.get(path, "admin")

    async def post(self, path: str, body: object) -> httpx.Response:
        return await self.calls.post(principal(self.member, self.user_id), path, body)
