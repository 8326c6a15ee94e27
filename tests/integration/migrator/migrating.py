"""A runner of `migrate-all` that may be killed.

It goes on with the latest run where that is not done, else starts one to `target`, and says `working` once it may take
homes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from control_plane.migrator import Event, Options, Started, migrate_all, operators
from control_plane.pools.databases import Databases
from control_plane.registry.secrets import SecretBox
from control_plane.settings import Settings
from control_plane.templates import Templates


async def main(say: Callable[[object], None], options: dict[str, Any]) -> None:
    def listen(event: Event) -> None:
        if isinstance(event, Started):
            say("working")

    settings = Settings.model_validate(options["settings"])
    databases = Databases(options["registry"], SecretBox(options["key"]), settings)
    template = Templates.load(settings.templates)["reference"]
    chosen, run_id = Options(target=options["target"], actor="tests"), None
    latest = await operators.history(databases, 1)
    if latest and latest[0].status != "done":
        record, again = await operators.go_on(databases, "last", actor="tests")
        assert again is not None, "a dead runner still counts as alive"
        chosen, run_id = again, record.id
    result = await migrate_all(databases, template, chosen, run_id=run_id, listener=listen)
    await databases.aclose()
    sys.exit(0 if result.status == "done" else 1)
