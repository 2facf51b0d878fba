"""Real functions of an integer as integer steps, exact at every integer of a range."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from ..errors import N2uqError

__all__ = ["Scalar", "every_step", "packed", "step_function"]

Scalar = Callable[[np.ndarray], np.ndarray]
Steps = tuple[np.ndarray, np.ndarray, np.ndarray]
PART = 2**20  # integers evaluated at a time


def evaluated(stages: Sequence[Scalar], x: np.ndarray) -> np.ndarray:
    """The stages, one after the other, of integers [M, C]; raises where one is not finite."""
    y = x.astype(np.float64)
    with np.errstate(all="ignore"):
        for stage in stages:
            # On a piece all stages are largest at an end, and both ends are evaluated.
            if not np.isfinite(y).all():
                raise N2uqError("values before the quantizer must be finite in float64, "
                                f"not {y[~np.isfinite(y)][0]}")
            y = stage(y)
    return y


def every_step(stages: Sequence[Scalar], lo: np.ndarray, hi: np.ndarray) -> Steps:
    """The steps of any function, as `step_function` has them: evaluated at every integer."""
    size, channels = int((hi - lo).max()) + 1, len(lo)
    base = before = evaluated(stages, lo[None]).astype(np.int64)
    parts = []
    for start in range(0, size, max(PART // channels, 1)):
        x = lo + np.arange(start, min(start + max(PART // channels, 1), size))[:, None]
        levels = evaluated(stages, np.minimum(x, hi)).astype(np.int64)
        levels = np.broadcast_to(levels, x.shape)
        change = np.diff(levels, axis=0, prepend=before)
        at, channel = np.nonzero(change)
        parts.append(np.stack([channel, x[at, channel], change[at, channel]]))
        before = levels[-1:]
    channel, at, change = np.concatenate(parts, axis=1)
    channel, at, change = (np.repeat(each, np.abs(change)) for each in (channel, at, change))
    sort = np.lexsort((at, channel))
    channel, at, change = channel[sort], at[sort], change[sort]
    counts = np.bincount(channel, minlength=channels)
    place = np.arange(len(channel)) - np.repeat(np.cumsum(counts) - counts, counts)
    thresholds = np.zeros((channels, int(counts.max(initial=0))), np.int64)
    signs = np.zeros(thresholds.shape, np.int8)
    thresholds[channel, place], signs[channel, place] = at, np.sign(change)
    return thresholds, signs, np.broadcast_to(base[0], channels).copy()


def step_function(stages: Sequence[Scalar], turns: Sequence[tuple[int, float]], lo: np.ndarray,
                  hi: np.ndarray, levels: int) -> Steps:
    """Integer steps of a quantized scalar function, exact at every integer of its range.

    Parameters
    ----------
    stages: functions of float64 arrays [M, C], applied in order; the last one gives integers in
        0..levels.  Every stage but those in `turns` is monotone in each channel.
    turns: indices of stages that are monotone only on either side of a value (PReLU with a
        negative slope: of 0), and the value.
    lo, hi: the range of each channel, int64 [C].
    levels: the number n of steps of the quantizer.

    Returns
    -------
    thresholds int64 [C, S], signs int8 [C, S] (0 where unused), base int64 [C], such that
    ``base + Σ signs·[x >= thresholds]`` equals the function at every integer of lo..hi.  Raises
    N2uqError where a stage overflows float64.

    The range is cut where a turning stage's input passes its turn, into pieces on which the whole
    function is monotone, in float64 too, since rounding is monotone.  On a piece each level is
    passed at most once, and bisection finds where.
    """
    def value(x: np.ndarray, until: int | None = None) -> np.ndarray:
        return evaluated(stages[:until], x)

    def moved(until: int | None, compare: np.ufunc, bound: float | np.ndarray, before: np.ndarray
              ) -> Callable[[np.ndarray], np.ndarray]:
        """Whether a value compares with `bound` otherwise than `before`."""
        return lambda x: compare(value(x, until), bound) != before

    # Pieces are [starts[i], starts[i + 1]), per channel; empty ones do no harm.
    starts = [lo, hi + 1]
    for turn, bound in turns:
        cuts = [starts[0]]
        for start, end in pairwise(starts):
            at_start = value(np.minimum(start, hi)[None], turn) > bound
            cut = _first(moved(turn, np.greater, bound, at_start), start[None], end[None])
            cuts += [cut[0], end]
        starts = cuts

    level = np.arange(1, levels + 1)[:, None]
    base = value(lo[None])[0].astype(np.int64)
    passed = value(lo[None]) >= level
    thresholds, signs = [], []
    for start, end in pairwise(starts):
        filled = start < end
        begin = np.where(filled, value(np.minimum(start, hi)[None]) >= level, passed)
        finish = np.where(filled, value(np.maximum(end - 1, lo)[None]) >= level, passed)
        inside = _first(moved(None, np.greater_equal, level, begin),
                        np.broadcast_to(start, begin.shape),
                        np.broadcast_to(np.maximum(end - 1, start), begin.shape))
        for at, before, after in ((np.broadcast_to(start, begin.shape), passed, begin),
                                  (inside, begin, finish)):
            thresholds.append(at)
            signs.append(after.astype(np.int8) - before.astype(np.int8))
        passed = finish
    return packed(np.concatenate(thresholds).T, np.concatenate(signs).T, base)


def _first(holds: Callable[[np.ndarray], np.ndarray], low: np.ndarray, high: np.ndarray
           ) -> np.ndarray:
    """Smallest x in low..high where `holds`, given that it stays so; high if nowhere below."""
    low, high = low.copy(), high.copy()
    while (low < high).any():
        middle = (low + high) // 2
        there = holds(middle)
        high = np.where(there & (low < high), middle, high)
        low = np.where(~there & (low < high), middle + 1, low)
    return low


def packed(thresholds: np.ndarray, signs: np.ndarray, base: np.ndarray) -> Steps:
    """Sort each channel's steps, unused ones last, and drop the columns that no channel uses."""
    order = np.lexsort((thresholds, signs == 0), axis=1)
    thresholds = np.take_along_axis(thresholds, order, axis=1)
    signs = np.take_along_axis(signs, order, axis=1).astype(np.int8)
    used = int((signs != 0).sum(axis=1).max(initial=0))
    return np.where(signs != 0, thresholds, 0)[:, :used], signs[:, :used], base
