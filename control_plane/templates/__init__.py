"""Tenant templates: read from `tenant_templates/`, compiled into the one message that a home is migrated by."""

from control_plane.templates.manifest import RESERVED_PARAMETERS, Deprecation, FieldRule
from control_plane.templates.script import Script
from control_plane.templates.template import Function, Resource, Template, Templates, Version

__all__ = [
    "RESERVED_PARAMETERS",
    "Deprecation",
    "FieldRule",
    "Function",
    "Resource",
    "Script",
    "Template",
    "Templates",
    "Version",
]
