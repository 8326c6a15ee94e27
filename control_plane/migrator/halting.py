"""When a run has seen enough failures to stop by itself."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from control_plane.migrator.policy import HaltPolicy
from control_plane.migrator.results import HomeResult

WINDOW = 200  # outcomes that a rate is taken of
ENOUGH = 20  # outcomes before a rate means anything
ALIKE = 3  # homes of a trial that fail, and none that does not, before the script is at fault


@dataclass(slots=True)
class Halting:
    """`judge` each outcome and `judge_trial` after a wave that is one; both answer why to stop, or None."""

    policy: HaltPolicy
    _failures: int = 0
    _latest: deque[bool] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _trial: dict[int, Counter[str]] = field(default_factory=dict)  # by the version that a script starts from

    def judge(self, result: HomeResult, *, trial: bool) -> str | None:
        if result.status == "skipped":
            return None
        failed = result.status == "failed"
        self._failures += failed
        self._latest.append(failed)
        if trial:
            outcome = "done" if not failed else "refused" if _is_script(result) else "failed"
            self._trial.setdefault(result.from_version, Counter())[outcome] += 1
            if (reason := self._wrong_script(ALIKE)) is not None:
                return reason
        if self.policy.failures is not None and self._failures >= self.policy.failures:
            return f"{self._failures} homes failed"
        rate = sum(self._latest) / len(self._latest)
        if self.policy.rate is not None and len(self._latest) >= ENOUGH and rate > self.policy.rate:
            return f"{rate:.0%} of the latest {len(self._latest)} homes failed"
        return None

    def judge_trial(self) -> str | None:
        return self._wrong_script(1)

    def _wrong_script(self, enough: int) -> str | None:
        """A home may have drifted; that no home takes a script is the script's fault."""
        for version, outcomes in self._trial.items():
            if outcomes["refused"] >= enough and not outcomes["done"]:
                return f"no home of the trial took the script from version {version}"
        return None


def _is_script(result: HomeResult) -> bool:
    """Whether the failure can be the script's: it does not fit the schema, or the audit refuses what it made."""
    return (result.sqlstate or "").startswith("42") or result.sqlstate == "CP003"
