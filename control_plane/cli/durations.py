"""Durations as people write them."""

from __future__ import annotations

import re

from control_plane.errors import InvalidInput

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def parse_duration(text: str) -> int:
    """Seconds of a duration such as 90s, 15m, 1h or 7d."""
    match = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", text)
    if match is None:
        raise InvalidInput(f"'{text}' is no duration.", hint="A number and a unit: 90s, 15m, 1h, 7d.")
    return int(match[1]) * _UNITS[match[2]]


def parse_percentage(text: str) -> float:
    """The share that a percentage such as 5% or 0.5% stands for."""
    match = re.fullmatch(r"([0-9]{1,2}(?:\.[0-9]{1,3})?) ?%?", text)
    if match is None or float(match[1]) == 0:
        raise InvalidInput(f"'{text}' is no percentage.", hint="A number between 0 and 100: 5%, 0.5%.")
    return float(match[1]) / 100
