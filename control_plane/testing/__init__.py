"""For the tests of an application on `control_plane.tenancy`: a pytest plugin, and the contract that it must fulfil.

`docs/library.md` tells how to use it. Nothing of the service imports this. The names are imported when they are first
asked for, since pytest loads the plugin, and so this package, in every run of an environment that has it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from control_plane.testing.application import FailedAfterAnswer, Tenancy, Tenant
    from control_plane.testing.contract import TenancyContract
    from control_plane.testing.installation import Installation
    from control_plane.testing.routes import unbound_routes

__all__ = ["FailedAfterAnswer", "Installation", "Tenancy", "TenancyContract", "Tenant", "unbound_routes"]

_MODULES = {
    "FailedAfterAnswer": "application",
    "Installation": "installation",
    "Tenancy": "application",
    "TenancyContract": "contract",
    "Tenant": "application",
    "unbound_routes": "routes",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
