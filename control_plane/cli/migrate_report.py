"""What `migrate-all` shows people while it runs: bars on a terminal, a few lines in a log."""

from __future__ import annotations

import heapq
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

import typer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from control_plane.migrator import (
    Event,
    HomeResult,
    Paced,
    Plan,
    Planned,
    RunResult,
    Started,
    StepProgress,
    Waiting,
    Wave,
    WaveBegun,
)

if TYPE_CHECKING:
    from control_plane.migrator.locks import VersionLocks

_FAILURES_SHOWN = 50
_SLOWEST_SHOWN = 5
_NAMES_SHOWN = 20  # of each kind
_SECONDS_BETWEEN_LINES = 5.0
_SHARE_BETWEEN_LINES = 0.05  # of the time so far, where that is more: the log of a long run stays short
_OUTCOMES = {"done": "done", "failed": "incomplete", "halted": "halted", "aborted": "aborted"}


class Report(Protocol):
    """Used around the run; told of each event, and at last of the result."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def event(self, event: Event) -> None: ...
    def end(self, result: RunResult) -> None: ...


class _Tally:
    """What an upgrade touched, over all homes: a kind of object with its names, and the rows."""

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}
        self._rows = 0

    def add(self, result: HomeResult) -> None:
        if result.touched is not None:
            self._rows += result.touched.rows
            for kind, names in result.touched.objects.items():
                self._names.setdefault(kind, set()).update(names)

    def lines(self) -> list[str]:
        """One line per kind; empty when no home was migrated."""
        if not self._names:
            return []
        shown = [
            f"  {kind}: {', '.join(sorted(names)[:_NAMES_SHOWN])}"
            + (f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else "")
            for kind, names in self._names.items()
            if names
        ]
        return ["touched in each home:", *shown, f"  rows, of all homes together: {self._rows}"]


class _Slowest:
    """The homes that took longest."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, str]] = []

    def add(self, result: HomeResult) -> None:
        if result.status == "done":
            keep = heapq.heappush if len(self._heap) < _SLOWEST_SHOWN else heapq.heappushpop
            keep(self._heap, (result.milliseconds, result.label))

    def __str__(self) -> str:
        return ", ".join(f"{label} {took:,} ms" for took, label in sorted(self._heap, reverse=True))


class LineReport(Report):
    """For logs: a line every few seconds, then less often; the first failures, a summary."""

    def __init__(self) -> None:
        self._planned = self._failures = 0
        self._tally, self._slowest = _Tally(), _Slowest()
        self._counts: Counter[str] = Counter()
        self._limits: dict[str, int] = {}
        self._began = monotonic()
        self._spoke = 0.0

    def _may_speak(self) -> bool:
        now = monotonic()
        if now - self._spoke < max(_SECONDS_BETWEEN_LINES, _SHARE_BETWEEN_LINES * (now - self._began)):
            return False
        self._spoke = now
        return True

    def event(self, event: Event) -> None:
        if isinstance(event, Planned):
            self._planned += len(event.plan.homes)
            if event.plan.homes:
                typer.echo(str(event.plan))
            self._spoke = monotonic()
            return
        if isinstance(event, StepProgress):
            if self._may_speak():
                typer.echo(_step(event))
            return
        if isinstance(event, Paced):
            self._limits[event.cluster] = event.limit
            return
        if not isinstance(event, HomeResult):
            typer.echo(_news(event))
            return
        self._counts[event.status] += 1
        self._tally.add(event)
        self._slowest.add(event)
        if event.status == "failed":
            self._failures += 1
            if self._failures <= _FAILURES_SHOWN:
                typer.echo(_failure(event))
        if self._may_speak():
            left = self._planned - self._counts.total()
            pace = "".join(f", {limit} at a time on {cluster}" for cluster, limit in sorted(self._limits.items()))
            typer.echo(f"{self._counts['done']} done, {self._counts['failed']} failed, {left} left{pace}")

    def end(self, result: RunResult) -> None:
        if self._failures > _FAILURES_SHOWN:
            typer.echo(_more_failures(self._failures - _FAILURES_SHOWN, result))
        typer.echo("\n".join([_summary(result), *self._tally.lines()]))
        if str(self._slowest):
            typer.echo(f"slowest: {self._slowest}")


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} homes/s" if speed else "- homes/s", style="progress.data.speed")


class _Bars(Progress):
    """The bars, and below them the homes that took longest so far."""

    def __init__(self, *columns: ProgressColumn, slowest: _Slowest, console: Console) -> None:
        self._slowest = slowest
        super().__init__(*columns, console=console)

    def get_renderables(self) -> Iterator[RenderableType]:
        yield from super().get_renderables()
        if str(self._slowest):
            yield Text(f"slowest: {self._slowest}", style="dim", overflow="ellipsis", no_wrap=True)


class ScreenReport(Report):
    """For a terminal: one bar per cluster with done, failed, left, pace, rate, time to go and the step of a home.

    Failures stand above the bars, the slowest homes below.
    """

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._tally, self._slowest = _Tally(), _Slowest()
        self._progress = _Bars(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[done]} done"),
            TextColumn("[red]{task.fields[failed]} failed"),
            TextColumn("{task.fields[left]} left"),
            TextColumn("{task.fields[limit]}"),
            _RateColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[step]}", markup=False),
            slowest=self._slowest,
            console=self._console,
        )
        self._bars: dict[str, TaskID] = {}
        self._counts: dict[str, Counter[str]] = {}
        self._failures = 0

    @staticmethod
    def suits() -> bool:
        return sys.stdout.isatty()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def event(self, event: Event) -> None:
        if isinstance(event, Planned):
            self._plan(event.plan)
        elif isinstance(event, HomeResult):
            self._home(event)
        elif isinstance(event, StepProgress):
            self._progress.update(self._bars[event.cluster], step=_step(event))
        elif isinstance(event, Paced):
            self._progress.update(self._bars[event.cluster], limit=f"{event.limit} at a time")
        else:
            self._progress.console.print(Text(_news(event)))

    def _plan(self, plan: Plan) -> None:
        if not plan.homes:
            return
        planned = Counter(home.place.cluster.name for home in plan.homes)
        for cluster, homes in sorted(planned.items()):
            counts = self._counts.setdefault(cluster, Counter())
            counts["planned"] += homes
            if cluster in self._bars:
                self._progress.update(self._bars[cluster], total=counts["planned"])
            else:
                self._bars[cluster] = self._progress.add_task(
                    cluster, total=homes, done=0, failed=0, left=homes, limit="", step=""
                )
        self._progress.start()

    def _home(self, result: HomeResult) -> None:
        counts = self._counts[result.cluster]
        self._tally.add(result)
        self._slowest.add(result)
        counts[result.status] += 1
        finished = counts["done"] + counts["failed"] + counts["skipped"]
        self._progress.update(
            self._bars[result.cluster],
            completed=finished,
            done=counts["done"],
            failed=counts["failed"],
            left=counts["planned"] - finished,
            step="",
        )
        if result.status == "failed":
            self._failures += 1
            if self._failures <= _FAILURES_SHOWN:
                self._progress.console.print(Text(_failure(result), style="red"))

    def end(self, result: RunResult) -> None:
        if self._failures > _FAILURES_SHOWN:
            self._console.print(_more_failures(self._failures - _FAILURES_SHOWN, result))
        self._console.print(Text("\n".join([_summary(result), *self._tally.lines()])))


def print_plan(plan: Plan, waves: Sequence[Wave], locks: Sequence[VersionLocks]) -> None:
    """The plan for people, with the lock reports of versions that are new to the fleet."""
    typer.echo(str(plan))
    if len(waves) > 1:
        typer.echo(f"waves: {', '.join(f'{wave.name} {len(wave.homes)}' for wave in waves)}")
    for line in (*_remarks(plan), *map(str, locks)):
        typer.echo(line)


def _summary(result: RunResult) -> str:
    if result.run_id is None:
        head = f"nothing to do: {result.current} homes at version {result.target}"
    else:
        head = f"{_OUTCOMES[result.status]}: {result.done} homes migrated to version {result.target}"
        head += f" in {result.seconds:.1f} s"
        head += "".join(
            f", {number} {what}"
            for number, what in (
                (result.failed, "failed"),
                (result.skipped, "skipped"),
                (result.left, "left: run again to go on"),
            )
            if number
        )
        head += f"\nit stopped because {result.reason}" if result.reason else ""
    return "\n".join([head, *_remarks(result.plan)])


def _remarks(plan: Plan) -> list[str]:
    remarks = [
        f"not reached: {each.place.cluster.name}, database {each.place.database}: {each.reason}"
        for each in plan.unreached
    ]
    remarks += [str(home) for home in plan.pinned]
    if plan.ahead:
        remarks.append(f"{plan.ahead} homes are past version {plan.target} and were left as they are")
    if plan.deleting:
        remarks.append(f"being deleted, left as they are: {', '.join(plan.deleting)}")
    if plan.building:
        remarks.append(f"{plan.building} homes are being provisioned")
    return remarks


def _news(event: Started | WaveBegun | Waiting) -> str:
    if isinstance(event, Started):
        return f"run {event.run_id}"
    if isinstance(event, WaveBegun):
        return f"wave {event.name}: {event.homes} homes"
    return f"wave {event.name} is through; to go on: cp migrate resume {str(event.run_id)[:8]}"


def _more_failures(count: int, result: RunResult) -> str:
    run = f": cp migrate explain {str(result.run_id)[:8]}" if result.run_id else ""
    return f"… and {count} more failures{run}"


def _step(progress: StepProgress) -> str:
    rows = f", {progress.rows:,} rows so far" if progress.step == "backfill" else ""
    return (
        f"{progress.label} on {progress.cluster}: {progress.step}.sql of version {progress.version}, "
        f"statement {progress.statement} of {progress.statements}{rows}"
    )


def _failure(result: HomeResult) -> str:
    code = f" [{result.sqlstate}]" if result.sqlstate else ""
    return f"failed: {result.label} on {result.cluster} stays at version {result.reached}: {result.error}{code}"
