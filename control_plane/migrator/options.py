"""What whoever starts a run may ask of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from control_plane.migrator.policy import HaltPolicy, Policy


@dataclass(slots=True)
class Options:
    """`only` are slugs; `concurrency` is homes at a time per cluster; `policy` gives the waves and when to halt.

    `halt_failures` and `halt_rate` take the place of the policy's. `approve` waits for an operator after each wave;
    after `max_seconds` no further home is taken. `override_sunset` is the reason why something may go before its
    sunset; `actor` is who says so.
    """

    target: int | None = None
    only: Sequence[str] = ()
    concurrency: int | None = None
    policy: Policy = field(default_factory=Policy)
    halt_failures: int | None = None
    halt_rate: float | None = None
    approve: bool = False
    max_seconds: float | None = None
    override_sunset: str | None = None
    actor: str = "library"

    @property
    def halt(self) -> HaltPolicy:
        given = self.policy.halt
        return HaltPolicy(
            failures=given.failures if self.halt_failures is None else self.halt_failures,
            rate=given.rate if self.halt_rate is None else self.halt_rate,
        )

    def recorded(self) -> dict[str, Any]:
        """What another runner of the run has to know, as JSON."""
        policy = self.policy.model_copy(update={"halt": self.halt})
        return {
            "only": list(self.only),
            "approve": self.approve,
            "policy": policy.model_dump(mode="json"),
            "concurrency": self.concurrency,
            "max_seconds": self.max_seconds,
            "override_sunset": self.override_sunset,
        }

    @classmethod
    def of(cls, target: int, recorded: dict[str, Any], actor: str) -> Options:
        """The options of a run that was recorded, for a runner that joins it; its time is not that of the run."""
        return cls(
            target=target,
            only=recorded.get("only", ()),
            policy=Policy.model_validate(recorded.get("policy", {})),
            approve=recorded.get("approve", False),
            concurrency=recorded.get("concurrency"),
            override_sunset=recorded.get("override_sunset"),
            actor=actor,
        )
