"""The designs of an exploration as one HTML page: a picture to point at, and a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Any

from .. import charts
from ..templates import render

__all__ = ["page"]

WIDTH, HEIGHT = 760, 420               # of the picture, in its own units
LEFT, RIGHT, TOP, BOTTOM = 84, 16, 12, 48  # around the plot
ROOM = 0.06                            # of the plot, beyond the outermost points
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Axis:
    """A logarithmic axis: `low`..`high` of the values lie at `start`..`end`."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def of(cls, values: Iterable[float], start: float, end: float) -> Axis:
        """One on which all `values` lie, with room around them."""
        logs = [log10(max(value, 1e-9)) for value in values] or [0.0]
        room = max(ROOM * (max(logs) - min(logs)), 0.05)
        return cls(10 ** (min(logs) - room), 10 ** (max(logs) + room), start, end)

    def at(self, value: float) -> float:
        """Where `value` lies."""
        share = log10(max(value, 1e-9) / self.low) / log10(self.high / self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self) -> Iterator[tuple[float, str]]:
        """Places and texts of 1, 2, 5 times the powers of ten; of the powers alone if many."""
        powers = range(floor(log10(self.low)), ceil(log10(self.high)) + 1)
        for power in powers:
            for digit in (1, 2, 5) if len(powers) < 5 else (1,):
                if self.low <= (value := digit * 10.0**power) <= self.high:
                    yield self.at(value), f"{value:,.0f}" if power >= 0 else f"{value:g}"


def page(summary: Mapping[str, Any]) -> str:
    """HTML of what `Exploration.as_dict` gives; the same summary gives the same bytes."""
    rows: Sequence[Row] = summary["rows"]
    areas = [row[key] for row in rows for key in ("area_estimated", "area_measured")
             if row[key] is not None]
    across = Axis.of(areas, LEFT, WIDTH - RIGHT)
    up = Axis.of([row["images_per_second"] for row in rows], HEIGHT - BOTTOM, TOP)
    return render(
        "explore.html.j2", theme=charts.THEME, run=summary, rows=rows,
        measured=[row for row in rows if row["measured"]], across=across, up=up, width=WIDTH,
        height=HEIGHT, left=LEFT, right=WIDTH - RIGHT, top=TOP, bottom=HEIGHT - BOTTOM,
        styles=list(dict.fromkeys(row["style"] for row in rows)),
        bits=sorted({(row["stem_bits"], row["head_bits"]) for row in rows}, reverse=True),
        fronts={name: _steps([row for row in rows if row[f"front_{name}"]], f"area_{name}",
                             across, up) for name in ("estimated", "measured")})


def _steps(front: Sequence[Row], key: str, across: Axis, up: Axis) -> str:
    """The line of a front as an SVG path: from each design to the next that is faster."""
    corners: list[str] = []
    best = 0.0
    for row in sorted(front, key=lambda row: (row[key], -row["images_per_second"])):
        if row["images_per_second"] > best:
            best = row["images_per_second"]
            x, y = across.at(row[key]), up.at(best)
            corners += [f"H{x} V{y}"] if corners else [f"M{x} {y}"]
    return " ".join(corners)
