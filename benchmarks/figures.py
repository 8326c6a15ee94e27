"""What a benchmark found: one value per round, the median and the range of them, and ratios within rounds."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

PACKAGES = ("asyncpg", "fastapi", "httptools", "python-jose", "sqlalchemy", "starlette", "uvicorn", "uvloop")


@dataclass
class Series:
    """The values of one contestant, one per round."""

    name: str
    unit: str
    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return median(self.values)

    def __str__(self) -> str:
        low, high = min(self.values), max(self.values)
        return f"{self.name:<44} {_short(self.median):>9} {self.unit:<9} ({_short(low)} – {_short(high)})"


@dataclass
class Ratio(Series):
    """`goal` says what is aimed at, as "≥ 0.7"."""

    goal: str = ""

    def __str__(self) -> str:
        return super().__str__() + (f"  goal {self.goal}" if self.goal else "")


def ratio(name: str, ours: Series, theirs: Series, goal: str = "") -> Ratio:
    """ours / theirs, round by round: what disturbs a whole round cancels out."""
    values = [a / b for a, b in zip(ours.values, theirs.values, strict=True)]
    return Ratio(name, "×", values, goal)


@dataclass
class Report:
    """One run of one benchmark."""

    benchmark: str
    quick: bool
    settings: dict[str, Any]  # sizes, and the server's configuration
    figures: list[Series] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    load_before: float = field(default_factory=lambda: os.getloadavg()[0])

    def show(self) -> None:
        """Print it, figures first."""
        print(f"\n{self.benchmark}{' (quick)' if self.quick else ''}")
        for name, value in self.settings.items():
            print(f"  {name}: {value}")
        for series in [*self.figures, *self.ratios]:
            print(f"  {series}")

    def write(self, directory: Path) -> Path:
        """Write `<benchmark>.json`, or `<benchmark>-quick.json`, which no real run is mistaken for."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{self.benchmark}{'-quick' if self.quick else ''}.json"
        path.write_text(json.dumps(self._document(), indent=2, ensure_ascii=False) + "\n")
        return path

    def _document(self) -> dict[str, Any]:
        return {
            "benchmark": self.benchmark,
            "quick": self.quick,
            "started_at": self.started_at,
            "machine": {
                "cpus": os.cpu_count(),
                "architecture": platform.machine(),
                "system": f"{platform.system()} {platform.release()}",
                "load_before": self.load_before,
                "load_after": os.getloadavg()[0],
            },
            "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
            "settings": self.settings,
            "figures": [_entry(series) for series in self.figures],
            "ratios": [_entry(series) for series in self.ratios],
        }


def _entry(series: Series) -> dict[str, Any]:
    summary = {"median": series.median, "low": min(series.values), "high": max(series.values)}
    return {**asdict(series), **summary}


def interleaved(names: Sequence[str], rounds: int) -> list[list[str]]:
    """The order of each round: rotated, so that nobody always comes after the same neighbour."""
    return [[*names[i % len(names) :], *names[: i % len(names)]] for i in range(rounds)]


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.3f}"
