"""A quantizer behind a sum of levels of different scales: integers that give the same levels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np

from ..errors import N2uqError
from .fit import Bounds
from .quantize import Levels, Quantized, node_of
from .steps import evaluated
from .values import Value

__all__ = ["quantized_sum"]

PAIRS = 2**24      # of all channels, that are evaluated
FINEST = 2**16     # multiplier of the term with the smallest step


@dataclass(frozen=True, eq=False)
class _Channel:
    """All tuples of the terms' integers of a channel [terms, P], their levels, and slopes."""

    integers: np.ndarray
    levels: np.ndarray
    slopes: np.ndarray

    def steps(self, multiplier: np.ndarray) -> tuple[np.ndarray, ...] | None:
        """Of Σ multiplier·integer: where the level changes, from where, by how much; the ends.

        None if tuples of one sum have different levels.
        """
        sums = multiplier @ self.integers
        order = np.argsort(sums, kind="stable")
        sums, levels = sums[order], self.levels[order]
        change = np.diff(levels)
        at = np.flatnonzero(change)
        if (sums[at] == sums[at + 1]).any():
            return None
        return sums[at + 1], sums[at], change[at], levels[:1], sums[[0, -1]]


def quantized_sum(x: Value, levels: Levels) -> tuple[list[np.ndarray], Quantized]:
    """A multiplier [1] or [C] for each term of `x`, and the quantizer behind their sum.

    For all tuples of the terms' integers it gives the level of the float64 formula.
    """
    one = not x.waiting and levels.uniform and all(t.plain and t.uniform for t in x.terms)
    channels = [_channel(x, levels, c, one) for c in range(1 if one else x.edge.channels)]
    pairs = sum(channel.levels.size for channel in channels)
    for fineness in _finenesses():
        multipliers = [_whole(channel.slopes, fineness) for channel in channels]
        found = [channel.steps(m) for channel, m in zip(channels, multipliers, strict=True)]
        if all(each is not None for each in found):
            break
    else:
        raise N2uqError(f"the sum {x.node} must have integer multipliers up to {FINEST} that give "
                        f"the level of each of its {pairs} pairs")
    factors = [_one(np.array([m[k] for m in multipliers])) for k in range(len(x.terms))]
    steps = [each for each in found if each is not None]
    return factors, _node(levels, steps, f"equal at all {pairs:,} pairs")


def _channel(x: Value, levels: Levels, c: int, one: bool) -> _Channel:
    """Channel `c`; `one` for all."""
    index = slice(None) if one else slice(c, c + 1)
    spans = [(int(term.edge.lo[index].min()), int(term.edge.hi[index].max())) for term in x.terms]
    size = math.prod(hi - lo + 1 for lo, hi in spans)
    if size * (1 if one else x.edge.channels) > PAIRS:
        raise N2uqError(f"the sum {x.node} must have at most {PAIRS} pairs of values, not {size} "
                        f"of each of {x.edge.channels} channels")
    order, reals, slopes = np.array([c]), [], []
    for term, (lo, hi) in zip(x.terms, spans, strict=True):
        own = term.take(order)
        real = evaluated(own.stages(own.waiting), np.arange(lo, hi + 1)[:, None])[:, 0]
        reals.append(real)
        slopes.append((real[-1] - real[0]) / max(hi - lo, 1))
    integers = np.stack([grid.reshape(-1) for grid in np.meshgrid(
        *(np.arange(lo, hi + 1) for lo, hi in spans), indexing="ij")])
    total = reals[0]
    for real in reals[1:]:
        total = (total[:, None] + real).reshape(-1)
    stages = [stage.take(order) for stage in x.waiting]
    values = evaluated([*stages, levels.take(c)], total[:, None])[:, 0]
    return _Channel(integers, values.astype(np.int64) + levels.least, np.array(slopes))


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
    widest = max(int(np.abs(change).sum()) for _, _, change, _, _ in steps)
    shape = (len(steps), widest)
    above, below = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    signs, base = np.zeros(shape, np.int8), np.array([first[0] for *_, first, _ in steps])
    for c, (at, before, change, _, _) in enumerate(steps):
        repeat, used = np.abs(change), int(np.abs(change).sum())
        above[c, :used], below[c, :used] = np.repeat(at, repeat), np.repeat(before, repeat)
        signs[c, :used] = np.repeat(np.sign(change), repeat)
    bounds = None
    if (signs >= 0).all():
        place, used = np.arange(widest), signs != 0
        lo, hi = (np.array([ends[k] for *_, ends in steps])[:, None] for k in (0, 1))
        first, last = base[:, None], base[:, None] + used.sum(axis=1, keepdims=True) + 1
        join = np.concatenate
        bounds = Bounds(
            join([base[:, None] + place + 1, first, last], axis=1), join([below, lo, hi], axis=1),
            join([above, lo, hi], axis=1), join([used, first > first, last <= levels.most], axis=1),
            join([used, first > levels.least, last < last], axis=1), np.ones(len(steps), np.int64))
    return node_of(levels, above, signs, base, bounds, proof)


def _one(values: np.ndarray) -> np.ndarray:
    return values[:1] if (values == values[0]).all() else values
