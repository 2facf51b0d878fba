"""Figures of a build: units over time, cycles, cells, and the thresholds of a quantizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..charts import color, figure
from ..ir import Edge, Threshold
from ..sim.timing.cycles import MODES
from ..sim.timing.forecast import Forecast
from .diagram import short

__all__ = ["MODE_COLORS", "WIDTH", "Steps", "cell_bars", "cycle_bars", "equidistant", "over_time",
           "steps_of", "thresholds"]

WIDTH = 380  # points: what fits a telephone
ROW = 11     # of a unit's bar
LETTERS = 20
SHOWN = 6    # channels of a quantizer that are drawn one by one
BINS = 48
# Stacked from below; what is left of a unit's row is "idle".
MODE_COLORS = {"busy": "first", "blocked": "second", "starved": "faint"}


def _rows(panel: Any, names: Sequence[str]) -> None:
    """A row for each name, from top to bottom."""
    panel.set(yticks=range(len(names)), ylim=(len(names) - 0.4, -0.6))
    panel.set_yticklabels([short(name, LETTERS) for name in names], fontsize=7)
    panel.tick_params(axis="y", length=0)


def over_time(timing: Forecast) -> Any:
    """What each unit does over time: a row per unit, its height the share of each of MODES."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Outline

    rows = timing.over_time()
    spans = len(next(iter(rows.values())))
    span = -(-timing.cycles // spans)
    drawn = figure(WIDTH, 62 + ROW * len(rows))
    panel = drawn.subplots()
    edges = np.minimum(np.arange(spans + 1) * span, timing.cycles)
    lengths = np.maximum(np.diff(edges), 1)
    base = np.zeros((len(rows), spans))
    handles = []
    for mode, name in MODE_COLORS.items():
        share = np.stack([spent[:, MODES.index(mode)] / lengths for spent in rows.values()])
        outlines = [_band(edges, k + 0.42 - 0.84 * low, k + 0.42 - 0.84 * (low + high))
                    for k, (low, high) in enumerate(zip(base, share, strict=True)) if high.any()]
        if outlines:
            patch = PathPatch(Outline.make_compound_path(*outlines), linewidth=0,
                              facecolor=color(name), label=mode)
            panel.add_patch(patch)
            handles.append(patch)
        base += share
    _rows(panel, list(rows))
    panel.set(xlim=(0, timing.cycles), xlabel="clock cycle")
    panel.xaxis.set_major_formatter("{x:,.0f}")
    panel.locator_params(axis="x", nbins=5, integer=True)
    drawn.legend(handles=handles, loc="outside upper right", ncols=3, frameon=False,
                 handlelength=1.2)
    return drawn


def _band(edges: np.ndarray, low: np.ndarray, high: np.ndarray) -> Any:
    """The outline of what lies between two step functions, as few corners as it has."""
    from matplotlib.path import Path as Outline

    def corners(values: np.ndarray) -> np.ndarray:
        keep = np.flatnonzero(np.concatenate([[True], np.abs(np.diff(values)) > 1e-3]))
        ends = np.concatenate([keep[1:], [len(values)]])
        return np.stack([np.stack([edges[keep], values[keep]], 1),
                         np.stack([edges[ends], values[keep]], 1)], 1).reshape(-1, 2)
    points = np.concatenate([corners(high), corners(low)[::-1]])
    return Outline(np.concatenate([points, points[:1]]), closed=True)


def cycle_bars(timing: Forecast, needs: Mapping[str, int], clock: float) -> Any:
    """Cycles per image that each unit needs, and images/s at `clock` MHz, beside those taken."""
    drawn = figure(WIDTH, 48 + ROW * len(needs))
    panel = drawn.subplots()
    panel.barh(range(len(needs)), list(needs.values()), height=0.76, color=[
        color("second" if name == timing.bottleneck else "first") for name in needs])
    panel.axvline(timing.cycles_per_image, color=color("ink"), linewidth=0.8, linestyle="--")
    for k, cycles in enumerate(needs.values()):
        for x, text in ((1.2, f"{cycles:,}"), (1.4, _rate(clock, cycles))):
            panel.text(x * timing.cycles_per_image, k, text, fontsize=7, ha="right", va="center")
    _rows(panel, list(needs))
    panel.set(xlim=(0, 1.4 * timing.cycles_per_image),
              xlabel="cycles per image, and images/s; dashed: the pipeline")
    panel.xaxis.set_major_formatter("{x:,.0f}")
    panel.locator_params(axis="x", nbins=4, integer=True)
    return drawn


def _rate(clock: float, cycles: float) -> str:
    rate = clock * 1e6 / cycles
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if rate >= size:
            return f"{rate / size:.3g} {unit}/s"
    return f"{rate:.3g}/s"


def cell_bars(cells: Mapping[str, Mapping[str, tuple[int, int]]], names: Sequence[str]) -> Any:
    """A panel per kind of cell: of each unit the cells of itself and of what lies before it."""
    drawn = figure(WIDTH, 66 + ROW * len(names))
    panels = drawn.subplots(1, len(cells), sharey=True, squeeze=False)[0]
    for panel, (kind, counts) in zip(panels, cells.items(), strict=True):
        own, before = (np.array([counts[name][k] for name in names]) for k in range(2))
        y = range(len(names))
        panel.barh(y, own, height=0.76, color=color("first"), label="the unit")
        bars = panel.barh(y, before, left=own, height=0.76, color=color("second"),
                          label="converters, FIFOs and forks at it")
        panel.bar_label(bars, [f"{n:,}" if n else "" for n in own + before], padding=2, fontsize=6)
        panel.set_title(f"{kind}: {int((own + before).sum()):,}")
        panel.set(xticks=(), xlim=(0, 1.5 * max(int((own + before).max()), 1)))
        panel.spines["bottom"].set_visible(False)
    _rows(panels[0], names)
    drawn.legend(*panels[0].get_legend_handles_labels(), loc="outside lower right", ncols=2,
                 frameon=False, handlelength=1.2)
    return drawn


def equidistant(thresholds: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """Ascending `thresholds` made equidistant, from the first to the last of each run of a sign."""
    moved = thresholds.astype(np.float64)
    cuts = np.flatnonzero(np.diff(signs)) + 1
    for part in np.split(np.arange(len(moved)), cuts):
        if len(part):
            moved[part] = np.linspace(moved[part[0]], moved[part[-1]], len(part))
    return moved


@dataclass(frozen=True)
class Steps:
    """The steps of a quantizer's channel within the range of its sums.

    `learned` int64 [S] ascending; `signs` of each, +1 or -1; `equidistant` float64 [S].
    """

    learned: np.ndarray
    signs: np.ndarray
    equidistant: np.ndarray

    @property
    def departure(self) -> float:
        """The farthest that a threshold lies from the equidistant one, in their distance."""
        worst = 0.0
        for part in np.split(np.arange(len(self.learned)), np.flatnonzero(np.diff(self.signs)) + 1):
            if len(part) > 2 and self.equidistant[part[1]] > self.equidistant[part[0]]:
                gap = self.equidistant[part[1]] - self.equidistant[part[0]]
                off = np.abs(self.learned[part] - self.equidistant[part]).max() / gap
                worst = max(worst, float(off))
        return worst


def steps_of(node: Threshold, edge: Edge) -> list[Steps]:
    """The steps of each channel of `node`, which reads `edge`; one for all if it has one table."""
    channels = []
    for thresholds, signs in zip(node.thresholds, node.signs, strict=True):
        order = np.argsort(thresholds[signs != 0], kind="stable")
        learned, sign = thresholds[signs != 0][order], signs[signs != 0][order]
        channels.append(Steps(learned, sign, equidistant(learned, sign)))
    return channels


def thresholds(channels: Sequence[Steps], sums: np.ndarray | None, edge: Edge) -> Any:
    """The first channels' thresholds, each with the histogram of its sums behind, then all.

    `sums` [n, SHOWN or fewer]: sums of those channels; None where there are no images.
    """
    shown = min(SHOWN, len(channels))
    several = len(channels) > shown
    drawn = figure(WIDTH, 40 + 26 * shown + (64 if several else 0))
    panels = drawn.subplots(1 + several, 1, sharex=True, squeeze=False,
                            height_ratios=(26 * shown, 64)[:1 + several])[:, 0]
    low, high = _limits(channels, sums, edge)
    top = panels[0]
    for k in range(shown):
        _channel(top, k, channels[k], None if sums is None else sums[:, k], low, high)
    top.set(ylim=(shown - 0.45, -0.55), yticks=range(shown), xlim=(low, high))
    top.set_yticklabels([f"channel {k}" for k in range(shown)] if len(channels) > 1
                        else ["all channels"], fontsize=7)
    top.tick_params(axis="y", length=0)
    if several:
        order = sorted(channels, key=lambda steps: float(steps.learned.mean()) if len(
            steps.learned) else float(low))
        for sign, name in ((1, "first"), (-1, "third")):
            at = [(x, k) for k, steps in enumerate(order)
                  for x in steps.learned[steps.signs == sign]]
            if at:
                x, y = np.array(at, np.float64).T
                panels[1].plot(np.stack([x, x, x]).T.reshape(-1),
                               np.stack([y - 0.45, y + 0.45, np.full(len(y), np.nan)]
                                        ).T.reshape(-1),
                               color=color(name), linewidth=1, solid_capstyle="butt")
        panels[1].set(ylim=(len(channels) - 0.5, -0.5), ylabel=f"all {len(channels)}, sorted",
                      yticks=())
    panels[-1].set(xlabel="accumulator")
    panels[-1].xaxis.set_major_formatter("{x:,.0f}")
    panels[-1].locator_params(axis="x", nbins=6, integer=True)
    return drawn


def _limits(channels: Sequence[Steps], sums: np.ndarray | None, edge: Edge
            ) -> tuple[float, float]:
    """The part of the axis that is drawn: all thresholds, and nearly all of what was seen."""
    ends = [int(end) for steps in channels for end in (*steps.learned[:1], *steps.learned[-1:])]
    if sums is not None and sums.size:
        ends += [int(v) for v in np.quantile(sums, (0.002, 0.998))]
    low, high = (min(ends), max(ends)) if ends else (int(edge.lo.min()), int(edge.hi.max()))
    room = max(0.04 * (high - low), 1)
    return max(low - room, int(edge.lo.min()) - 1), min(high + room, int(edge.hi.max()) + 1)


def _channel(panel: Any, k: int, steps: Steps, sums: np.ndarray | None, low: float, high: float
             ) -> None:
    """A row: the histogram, lines where the thresholds are, dashes where equidistant ones were."""
    if sums is not None and len(sums):
        size = max(round((high - low) / BINS), 1)  # whole numbers of sums in each bin
        bins = np.floor(low) - 0.5 + size * np.arange(int((high - low) / size) + 2)
        counts, _ = np.histogram(sums, bins)
        panel.fill_between(bins, k + 0.4, k + 0.4 - 0.8 * np.append(counts, 0) / max(
            counts.max(), 1), step="post", color=color("line"), linewidth=0)
    panel.axhline(k + 0.4, color=color("line"), linewidth=0.6)
    for sign, name in ((1, "first"), (-1, "third")):
        panel.vlines(steps.learned[steps.signs == sign] - 0.5, k - 0.4, k + 0.4,
                     color=color(name), linewidth=1.4)
    # Beside the learned one, not on top of it.
    apart = np.abs(steps.equidistant - steps.learned) > max(0.005 * (high - low), 0.5)
    other = steps.equidistant[apart]
    panel.vlines(other - 0.5, k - 0.4, k + 0.4, color=color("second"), linewidth=1.2,
                 linestyle=(0, (2, 1.5)))
