"""A quantizer behind a sum of levels of different scales: integers that give the same levels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np

from ..errors import N2uqError
from ..ir import Scale
from .fit import Bounds, steepest
from .quantize import LOW, Levels, Quantized, node_of
from .steps import evaluated
from .values import Value

__all__ = ["quantized_sum"]

PAIRS = 2**24      # of all channels, that are evaluated
FINEST = 2**16     # multiplier of the term with the smallest step
SHIFTS = 25        # that are tried


@dataclass(frozen=True, eq=False)
class _Channel:
    """All tuples of the terms' integers of a channel [terms, P], their real sums and levels.

    `slopes` are the reals per integer; `rising`: the levels rise with the real sum.
    """

    integers: np.ndarray
    totals: np.ndarray
    levels: np.ndarray
    slopes: np.ndarray
    rising: bool

    def steps(self, sums: np.ndarray) -> tuple[np.ndarray, ...] | None:
        """Of sums [P]: where the level changes, from where, by how much; the ends.

        None if tuples of one sum have different levels, or levels fall that should rise.
        """
        order = np.argsort(sums, kind="stable")
        sums, levels = sums[order], self.levels[order]
        change = np.diff(levels)
        at = np.flatnonzero(change)
        if (sums[at] == sums[at + 1]).any() or (self.rising and (change < 0).any()):
            return None
        return sums[at + 1], sums[at], change[at], levels[:1], sums[[0, -1]]


def quantized_sum(x: Value, levels: Levels) -> tuple[list[np.ndarray], Quantized]:
    """A multiplier [1] or [C] for each term of `x`, and the quantizer behind their sum.

    For all tuples of the terms' integers it gives the level of the float64 formula.
    """
    one = not x.waiting and levels.uniform and all(t.plain and t.uniform for t in x.terms)
    channels = [_channel(x, levels, c, one) for c in range(1 if one else x.edge.channels)]
    pairs = sum(channel.levels.size for channel in channels)
    proof = f"equal at all {pairs:,} pairs"
    if levels.most - levels.least > LOW and (shifted := _shifted(channels, levels, proof)):
        return shifted
    for fineness in _finenesses():
        multipliers = [_whole(channel.slopes, fineness) for channel in channels]
        if steps := _all_steps(channels, multipliers):
            return _columns(multipliers), _node(levels, steps, proof)
    raise N2uqError(f"the sum {x.node} must have integer multipliers up to {FINEST} that give the "
                    f"level of each of its {pairs} pairs")


def _shifted(channels: list[_Channel], levels: Levels, proof: str
             ) -> tuple[list[np.ndarray], Quantized] | None:
    """Multipliers that make a level 2^shift, for many levels: the sum need only be shifted."""
    real = [channel.steps(channel.totals) for channel in channels]
    bounds = _bounds([each for each in real if each is not None], levels)
    if len(real) < len(channels) or bounds is None:
        return None
    densities = steepest(bounds)[:, 0]
    for shift in range(4, SHIFTS):
        multipliers = [np.rint(channel.slopes * density * 2.0**shift).astype(np.int64)
                       for channel, density in zip(channels, densities, strict=True)]
        if steps := _all_steps(channels, multipliers):
            quantized = _node(levels, steps, proof)
            if isinstance(quantized.node, Scale) and (quantized.node.multiplier == 1).all():
                return _columns(multipliers), quantized
    return None


def _all_steps(channels: list[_Channel], multipliers: list[np.ndarray]
               ) -> list[tuple[np.ndarray, ...]]:
    """The steps of each channel; none if a channel has none."""
    steps = []
    for channel, multiplier in zip(channels, multipliers, strict=True):
        if (own := channel.steps(multiplier @ channel.integers)) is None:
            return []
        steps.append(own)
    return steps


def _columns(multipliers: list[np.ndarray]) -> list[np.ndarray]:
    """A multiplier for each term, [1] or [C]."""
    return [_one(column) for column in np.stack(multipliers, axis=1)]


def _channel(x: Value, levels: Levels, c: int, one: bool) -> _Channel:
    """Channel `c`; `one` for all."""
    index = slice(None) if one else slice(c, c + 1)
    spans = [(int(term.edge.lo[index].min()), int(term.edge.hi[index].max())) for term in x.terms]
    size = math.prod(hi - lo + 1 for lo, hi in spans)
    if size * (1 if one else x.edge.channels) > PAIRS:
        raise N2uqError(f"the sum {x.node} must have at most {PAIRS} pairs of values, not {size} "
                        f"of each of {x.edge.channels} channels")
    own_channel, reals, slopes = np.array([c]), [], []
    for term, (lo, hi) in zip(x.terms, spans, strict=True):
        own = term.take(own_channel)
        real = evaluated(own.stages(own.waiting), np.arange(lo, hi + 1)[:, None])[:, 0]
        reals.append(real)
        slopes.append((real[-1] - real[0]) / max(hi - lo, 1))
    integers = np.stack([grid.reshape(-1) for grid in np.meshgrid(
        *(np.arange(lo, hi + 1) for lo, hi in spans), indexing="ij")])
    total = reals[0]
    for real in reals[1:]:
        total = (total[:, None] + real).reshape(-1)
    stages = [stage.take(own_channel) for stage in x.waiting]
    values = evaluated([*stages, levels.take(c)], total[:, None])[:, 0]
    rising = bool((np.diff(values[np.argsort(total, kind="stable")]) >= 0).all())
    return _Channel(integers, total, values.astype(np.int64) + levels.least, np.array(slopes),
                    rising)


def _finenesses() -> Iterator[int]:
    """1, 2, 3, 4, 5, 6, 7, 8, 10, 12, ..., FINEST."""
    for octave in count():
        for eighth in range(8, 16):
            fineness = eighth << octave >> 3
            if fineness > FINEST:
                return
            if octave >= 3 or (eighth << octave) % 8 == 0:
                yield fineness


def _whole(slopes: np.ndarray, fineness: int) -> np.ndarray:
    """Integers in the ratio of the slopes; the smallest is `fineness`."""
    least = np.abs(slopes[slopes != 0]).min(initial=np.inf)
    return np.rint(slopes / least * fineness).astype(np.int64)


def _node(levels: Levels, steps: list[tuple[np.ndarray, ...]], proof: str) -> Quantized:
    """Steps at the sums where levels change; free between the sums that there are."""
    (above, *_), signs = _table(steps)
    base = np.array([first[0] for *_, first, _ in steps])
    return node_of(levels, above, signs, base, _bounds(steps, levels), proof)


def _table(steps: list[tuple[np.ndarray, ...]]) -> tuple[list[np.ndarray], np.ndarray]:
    """Where each step is, and the sum before it, [C, S]; and signs, 0 where unused."""
    widest = max(int(np.abs(change).sum()) for _, _, change, _, _ in steps)
    sides = [np.zeros((len(steps), widest), steps[0][0].dtype) for _ in range(2)]
    signs = np.zeros((len(steps), widest), np.int8)
    for c, (at, before, change, _, _) in enumerate(steps):
        repeat, used = np.abs(change), int(np.abs(change).sum())
        for side, values in zip(sides, (at, before), strict=True):
            side[c, :used] = np.repeat(values, repeat)
        signs[c, :used] = np.repeat(np.sign(change), repeat)
    return sides, signs


def _bounds(steps: list[tuple[np.ndarray, ...]], levels: Levels) -> Bounds | None:
    """The bounds of steps that rise; None if they fall."""
    (above, below), signs = _table(steps)
    if (signs < 0).any():
        return None
    base = np.array([first for *_, first, _ in steps])
    place, used = np.arange(signs.shape[1]), signs != 0
    lo, hi = (np.array([ends[k] for *_, ends in steps])[:, None] for k in (0, 1))
    last = base + used.sum(axis=1, keepdims=True) + 1
    never = np.zeros_like(last, bool)
    join = np.concatenate
    return Bounds(
        join([base + place + 1, base, last], axis=1), join([below, lo, hi], axis=1),
        join([above, lo, hi], axis=1), join([used, never, last <= levels.most], axis=1),
        join([used, base > levels.least, never], axis=1), np.ones(len(steps), np.int64))


def _one(values: np.ndarray) -> np.ndarray:
    return values[:1] if (values == values[0]).all() else values
