"""A multiplier, an offset and a shift that equal a rising or falling step function everywhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["SHIFTS", "Bounds", "Fit", "fit", "of_steps", "steepest"]

SHIFTS = 44       # the most that is tried
PRODUCT_BITS = 60
HALVINGS = 90     # of the interval of slopes: enough for float64
BIG = np.int64(2**61)
SLACK = 1e-6      # of a level: what float64 may miss of room
MANY = 2048       # bounds of a channel of which some tell the slope


@dataclass(frozen=True, eq=False)
class Bounds:
    """Where a rising function of t passes its levels, [C, S] each.

    Level `level` must not be reached at `below`, and must be at `above`; `used` where there is such
    a demand on one side (`low`, `high`).  `sign` [C] is -1 where the function falls, and t is -x.
    """

    level: np.ndarray
    below: np.ndarray
    above: np.ndarray
    low: np.ndarray
    high: np.ndarray
    sign: np.ndarray


@dataclass(frozen=True, eq=False)
class Fit:
    """``(x·multiplier + offset) >> shift``, or rounded half to even, clipped, equals the steps."""

    multiplier: np.ndarray
    offset: np.ndarray
    shift: int
    ties: str


def of_steps(thresholds: np.ndarray, signs: np.ndarray, base: np.ndarray, lo: np.ndarray,
             hi: np.ndarray, ends: tuple[int, int]) -> Bounds | None:
    """Bounds of steps as `step_function` gives them; None where a channel rises and falls.

    lo, hi: the range of x, [C].  `ends`: the levels that a clip gives, which need no bound.
    """
    used = signs != 0
    rises, falls = (signs > 0).any(axis=1), (signs < 0).any(axis=1)
    if (rises & falls).any():
        return None
    count = used.sum(axis=1, keepdims=True)
    place = np.arange(signs.shape[1])
    level = np.where(falls.reshape(-1, 1), base[:, None] - place, base[:, None] + place + 1)
    above = np.where(falls.reshape(-1, 1), 1 - thresholds, thresholds)
    # What is reached before the first step, and what is not behind the last one.
    first, start, end = (np.where(falls, down, up).reshape(-1, 1) for down, up in (
        (base - count[:, 0], base), (-hi, lo), (-lo, hi)))
    last = first + count + 1
    join = np.concatenate
    return Bounds(
        join([level, first, last], axis=1), join([above - 1, start, end], axis=1),
        join([above, start, end], axis=1), join([used, first > first, last <= ends[1]], axis=1),
        join([used, first > ends[0], last < last], axis=1), np.where(falls, -1, 1))


def fit(bounds: Bounds, *, even: bool) -> Fit | None:
    """The least shift with which a line passes between all bounds; None if none does.

    even: ties to the even are allowed, if nothing else passes.
    """
    slope = steepest(bounds)
    least, most = _room(bounds, slope)
    margin = most - least
    middle = np.where(margin < 2.0**32, (least + most) / 2,  # else one end is far away
                      np.where(np.abs(least) < np.abs(most), least + 1, most - 1))
    if (margin > 0).all():
        chosen = _floor(bounds, slope)
        if chosen is not None:
            return chosen
    return _even(bounds, slope, middle) if even else None


def _room(bounds: Bounds, slope: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least and most intercept [C] of a line of `slope` [C, 1]."""
    # Far away from 0 where there is no demand, so that neither is infinite.
    far = 2.0**62
    least = np.where(bounds.high, bounds.level - slope * bounds.above, -far).max(axis=1)
    most = np.where(bounds.low, bounds.level - slope * bounds.below, far).min(axis=1)
    return least, most


def steepest(bounds: Bounds) -> np.ndarray:
    """The slope that leaves the most room [C, 1]; of many bounds, those some of them leave."""
    if bounds.level.shape[1] > MANY:
        places = np.r_[0:bounds.level.shape[1]:MANY // 8, -3:0]
        some = Bounds(bounds.level[:, places], bounds.below[:, places], bounds.above[:, places],
                      bounds.low[:, places], bounds.high[:, places], bounds.sign)
        slope = _steepness(some)
        least, most = _room(bounds, slope)
        if (most - least > -SLACK).all():
            return slope
    return _steepness(bounds)


def _steepness(bounds: Bounds) -> np.ndarray:
    """The slope [C, 1] that leaves the most room, which is a concave function of the slope."""
    both = bounds.low & bounds.high
    steps = both.sum(axis=1)
    left = np.where(both, bounds.above, BIG).min(axis=1)
    right = np.where(both, bounds.below, -BIG).max(axis=1)
    rise = np.where(both, bounds.level, -BIG).max(axis=1) - np.where(both, bounds.level,
                                                                     BIG).min(axis=1)
    # The first and the last step bound the slope; with one of them, any will do.
    most = np.where(right > left, rise / np.where(right > left, right - left, 1), rise + 1.0)
    most = np.where(steps > 1, most, np.where(steps == 1, 1.0, 0.0))
    low, high = np.zeros(len(most)), most * (1 + 1e-12)
    for _ in range(HALVINGS):
        a, b = low + (high - low) / 3, high - (high - low) / 3
        rooms = []
        for each in (a, b):
            least, greatest = _room(bounds, each[:, None])
            rooms.append(greatest - least)
        better = rooms[0] < rooms[1]
        low, high = np.where(better, a, low), np.where(better, high, b)
    return ((low + high) / 2)[:, None]


def _floor(bounds: Bounds, slope: np.ndarray) -> Fit | None:
    channels = len(slope)
    multiplier, offset = np.zeros(channels, np.int64), np.zeros(channels, np.int64)
    shifts = np.full(channels, -1)
    reach = np.abs(np.stack([bounds.above, bounds.below])).max(initial=1)
    for shift in range(SHIFTS):
        if 2.0**shift * max(float(slope.max()) * float(reach),
                            float(np.abs(bounds.level).max())) >= 2.0**(PRODUCT_BITS - 1):
            break
        for near in (0, 1, -1):
            m = np.maximum(np.rint(slope * 2.0**shift).astype(np.int64) + near, 0)
            least, most = _offsets(bounds, m, shift)
            good = (least <= most) & (shifts < 0)
            multiplier = np.where(good, m[:, 0], multiplier)
            offset = np.where(good, _roundest(least, most, shift), offset)
            shifts = np.where(good, shift, shifts)
        if (shifts >= 0).all():
            more = shift - shifts
            return Fit((multiplier << more) * bounds.sign, offset << more, shift, "floor")
    return None


def _offsets(bounds: Bounds, m: np.ndarray, shift: int) -> tuple[np.ndarray, np.ndarray]:
    """Least and most offset [C] of lines with multipliers `m` [C, 1]."""
    level = bounds.level << shift
    least = np.where(bounds.high, level - m * bounds.above, -BIG).max(axis=1)
    most = np.where(bounds.low, level - 1 - m * bounds.below, BIG).min(axis=1)
    return least, most


def _roundest(least: np.ndarray, most: np.ndarray, shift: int) -> np.ndarray:
    """The number in least..most with the most zeros behind; 0 if it is one.

    Where one end is far away, no more than two levels from the other.
    """
    low, high = least > -BIG, most < BIG  # the ends that are not far away
    least = np.where(low, least, np.where(high, most - (2 << shift), 0))
    most = np.where(high, most, np.where(low, least + (2 << shift), 0))
    best = most.copy()
    for zeros in range(1, 62):
        candidate = (most >> zeros) << zeros
        best = np.where(candidate >= least, candidate, best)
    return np.where((least <= 0) & (most >= 0), 0, best)


def _even(bounds: Bounds, slope: np.ndarray, middle: np.ndarray) -> Fit | None:
    """A line of dyadic numbers through the ties."""
    for shift in range(1, 31):
        m = np.rint(slope * 2.0**shift).astype(np.int64)
        offset = np.rint((middle[:, None] - 0.5) * 2.0**shift).astype(np.int64)
        reaches, stays = (_rounded(m * x + offset, shift) for x in (bounds.above, bounds.below))
        if ((reaches >= bounds.level) | ~bounds.high).all() and (
                (stays < bounds.level) | ~bounds.low).all():
            return Fit(m[:, 0] * bounds.sign, offset[:, 0], shift, "even")
    return None


def _rounded(y: np.ndarray, shift: int) -> np.ndarray:
    up = (y + (1 << shift >> 1))
    tie = (up & (1 << shift) - 1) == 0
    return (up >> shift) & ~tie.astype(np.int64)
