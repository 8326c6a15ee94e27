"""Every failure of the control plane on one screen: stable code, HTTP status, message, hint.

A class docstring is the default message. `details` never holds SQL, row contents or names of database objects
of a tenant, unless the reader is an operator (the posture and migration errors).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class ControlPlaneError(Exception):
    """Something went wrong on our side."""

    code = "internal"
    status = 500
    hint: str | None = None
    retry_after: int | None = None  # seconds; set on every 503

    def __init__(
        self,
        message: str | None = None,
        *,
        hint: str | None = None,
        details: str | None = None,
        retry_after: int | None = None,
        errors: Sequence[dict[str, Any]] = (),
    ) -> None:
        self.message = message or (type(self).__doc__ or "").strip()
        self.details = details
        self.errors = list(errors)
        if hint is not None:
            self.hint = hint
        if retry_after is not None:
            self.retry_after = retry_after
        super().__init__(self.message)


class BadRequest(ControlPlaneError):
    """The request is malformed."""

    code, status = "bad_request", 400


class InvalidInput(BadRequest):
    """A value of the request is not valid."""

    code = "invalid_input"


class InvalidSlug(BadRequest):
    """The slug is not valid."""

    code = "invalid_slug"
    hint = "2 to 40 characters: lower-case letters, digits and single hyphens, starting with a letter; not reserved."


class NotPinnable(BadRequest):
    """A shared tenant cannot be pinned: its home is everybody's."""

    code = "not_pinnable"
    hint = "Only a tenant of the isolation schema or database has a home of its own."


class Unauthenticated(ControlPlaneError):
    """A bearer token is required."""

    code, status = "unauthenticated", 401
    hint = "Send the header 'Authorization: Bearer <token>'."


class InvalidToken(Unauthenticated):
    """The bearer token is not valid."""

    code = "invalid_token"
    hint = "Get a new token from your issuer."


class Forbidden(ControlPlaneError):
    """The caller may not do this."""

    code, status = "forbidden", 403


class InsufficientScope(Forbidden):
    """The token lacks the scope that this call needs."""

    code = "insufficient_scope"


class WrongTokenKind(Forbidden):
    """This kind of token is not accepted here."""

    code = "wrong_token_kind"
    hint = "Platform tokens call the control plane; tenant tokens call /api."


class TenantSuspended(Forbidden):
    """The tenant is suspended."""

    code = "tenant_suspended"
    hint = "Ask the operator of this service to resume it."


class NotFound(ControlPlaneError):
    """There is nothing at this address."""

    code, status = "not_found", 404


class Gone(NotFound):
    """What was at this address has been removed."""

    code, status = "gone", 410


class TenantNotFound(NotFound):
    """There is no such tenant."""

    code = "tenant_not_found"


class MemberNotFound(NotFound):
    """The user is not on the tenant's list of members."""

    code = "member_not_found"


class HomeNotFound(NotFound):
    """There is no such home."""

    code = "home_not_found"
    hint = "cp doctor --json names the homes that differ."


class OperationNotFound(NotFound):
    """There is no such operation."""

    code = "operation_not_found"


class ClusterNotFound(NotFound):
    """There is no such cluster."""

    code = "cluster_not_found"


class AdoptionNotFound(NotFound):
    """There is no such adoption, or it has no such table or entity."""

    code = "adoption_not_found"


class RunNotFound(NotFound):
    """There is no such migration run."""

    code = "run_not_found"
    hint = "cp migrate history lists them."


class PinNotFound(NotFound):
    """The tenant is not pinned."""

    code = "pin_not_found"


class TemplateNotFound(NotFound):
    """There is no such template, or it has no such version."""

    code = "template_not_found"


class MethodNotAllowed(ControlPlaneError):
    """The method is not allowed here."""

    code, status = "method_not_allowed", 405

    def __init__(self, message: str | None = None, *, allow: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.allow = allow


class NotAcceptable(ControlPlaneError):
    """None of the media types in the header Accept is available."""

    code, status = "PGRST107", 406  # PostgREST's


class NotSingular(ControlPlaneError):
    """The result is not one object."""

    code, status = "PGRST116", 406  # PostgREST's, which its clients look for
    hint = "Filter by the id, or ask for a list: Accept: application/json."


class RangeNotSatisfiable(ControlPlaneError):
    """There are no rows in this range."""

    code, status = "PGRST103", 416  # PostgREST's

    def __init__(self, message: str | None = None, *, total: int | None = None) -> None:
        super().__init__(message, details=None if total is None else f"There are {total} rows.")
        self.total = total


class PayloadTooLarge(ControlPlaneError):
    """The body is too large."""

    code, status = "payload_too_large", 413


class UnsupportedMediaType(ControlPlaneError):
    """The body has the wrong media type."""

    code, status = "unsupported_media_type", 415


class Conflict(ControlPlaneError):
    """The request conflicts with the present state."""

    code, status = "conflict", 409


class SlugTaken(Conflict):
    """The slug is taken."""

    code = "slug_taken"


class ClusterNameTaken(Conflict):
    """The cluster name is taken."""

    code = "cluster_name_taken"


class InvalidTransition(Conflict):
    """The tenant's status does not allow this."""

    code = "invalid_transition"


class OperationInProgress(Conflict):
    """Another operation on this tenant is in progress."""

    code = "operation_in_progress"


class IdempotencyKeyReused(Conflict):
    """The Idempotency-Key was used before with another request."""

    code = "idempotency_key_reused"
    hint = "Use a new key for a new request."


class AdoptionConflict(Conflict):
    """The adoption's state does not allow this."""

    code = "adoption_conflict"


class CutoverRefused(Conflict):
    """The entity may not go on to its next stage."""

    code = "cutover_refused"


class VersionConflict(Conflict):
    """The pattern version does not fit the home's."""

    code = "version_conflict"


class RunFinished(Conflict):
    """The migration run is over."""

    code = "run_finished"


class RunInProgress(Conflict):
    """Another migration run of this template is open."""

    code = "run_in_progress"
    hint = "Wait for its end, work on it too (cp migrate join), or end it (cp migrate abort)."


class TenantPinned(Conflict):
    """The tenant is pinned to an earlier version."""

    code = "tenant_pinned"


class BeforeSunset(Conflict):
    """The version removes what is promised until a later day."""

    code = "before_sunset"
    hint = "Wait until then, or say why not: cp migrate-all --override-sunset REASON. The reason is recorded."


class BelowMinimum(Conflict):
    """The version takes away what tenants of earlier versions may still use."""

    code = "below_minimum_version"


class NoCapacity(Conflict):
    """No cluster can take this tenant."""

    code = "no_capacity"
    hint = "Register a cluster that allows this isolation: cp cluster add."


class StaleEpoch(Conflict):
    """The tenant has moved; its placement is being read again."""

    code = "stale_placement"


class Unprocessable(ControlPlaneError):
    """The data breaks a rule of the database."""

    code, status = "unprocessable", 422


class ProvisioningFailed(ControlPlaneError):
    """The tenant could not be provisioned; nothing of it was left behind."""

    code = "provisioning_failed"


class ExtensionUnavailable(ControlPlaneError):
    """A database lacks an extension that the template needs."""

    code = "extension_unavailable"


class Unavailable(ControlPlaneError):
    """The service cannot answer at the moment."""

    code, status, retry_after = "unavailable", 503, 1


class ClusterUnavailable(Unavailable):
    """The tenant's cluster cannot be reached."""

    code, retry_after = "cluster_unavailable", 2


class RegistryUnavailable(Unavailable):
    """The registry cannot be reached."""

    code, retry_after = "registry_unavailable", 2


class PoolExhausted(Unavailable):
    """All connections to the tenant's cluster are in use."""

    code = "pool_exhausted"


class TenantMoving(Unavailable):
    """The tenant is being moved."""

    code = "tenant_moving"


class TenantNotReady(Unavailable):
    """The tenant is being provisioned."""

    code = "tenant_not_ready"


class TimedOut(Unavailable):
    """The database did not finish in time."""

    code = "timed_out"


class TooManyStreams(Unavailable):
    """This process has as many event streams open as it may."""

    code, retry_after = "too_many_streams", 5


class UnsafePosture(ControlPlaneError):
    """The database cannot isolate tenants in its present state."""

    code, status = "unsafe_posture", 422


class TemplateInvalid(ControlPlaneError):
    """The template breaks a rule."""

    code, status = "template_invalid", 422


class TemplateRefused(TemplateInvalid):
    """The template breaks a rule of isolation or of its API versions."""

    code = "template_refused"


class TemplateExists(Conflict):
    """There is a template of this name."""

    code = "template_exists"
    hint = "Choose another name, or another directory with --into."


class TemplateChanged(Conflict):
    """A released template version was changed afterwards."""

    code = "template_changed"
    hint = "Restore the released files and put the change into a new version."


class AdoptionRefused(ControlPlaneError):
    """The legacy database, or a table of it, cannot be adopted as it is."""

    code, status = "adoption_refused", 422


class ConfigurationError(ControlPlaneError):
    """A setting is missing or not valid."""

    code = "configuration"
