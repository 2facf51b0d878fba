"""A quantizer behind integers, exactly: as steps, or as one multiply, add and shift."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ..errors import N2uqError
from ..ir import Node, Scale, Threshold, bits_for, infer
from ..model import Layer, Params, Quant, layer_float
from .fit import SHIFTS, Bounds, Fit, fit, of_steps
from .steps import evaluated, every_step, step_function
from .values import Means, Value

__all__ = ["Levels", "Quantized", "levels_of", "node_of", "quantized", "stepped"]

EVERY = 2**24      # integers of all channels that are evaluated one by one, where bisection may err
FEW = 2**16        # that always are
LOW = 15           # steps up to which thresholds cost no more than a multiplier
MOST_LEVELS = 2**17
MOST_STEPS = 2**20


@dataclass(frozen=True, eq=False)
class Levels:
    """What a quantizer makes of real numbers [M, C]: integers in least..most, and what they mean.

    A level stands for (level - zero + origin) · factor; `zero` is integer.
    """

    name: str
    least: int
    most: int
    parameters: tuple[Layer, Params]
    zero: np.ndarray
    origin: np.ndarray
    factor: np.ndarray
    even: bool = False

    def __call__(self, y: np.ndarray) -> np.ndarray:
        """Levels, counted from `least`."""
        layer, p = self.parameters
        if isinstance(layer, Quant):
            # (q - zero)·scale with scale and zero left out: q itself.
            q = layer_float(layer, {"scale": np.ones(1), "zero_point": np.zeros(1)},
                            y / p["scale"] + p["zero_point"])
        else:
            q = layer_float(layer, {**p, "scale": np.ones(1), "offset": np.zeros(1)}, y)
        return q - self.least

    def take(self, channel: int) -> Levels:
        """The levels of one channel."""
        layer, p = self.parameters
        return replace(self, parameters=(layer, {
            key: value[channel:channel + 1] if len(value) > 1 else value
            for key, value in p.items()}))

    @property
    def uniform(self) -> bool:
        """Whether all channels have one function."""
        return all(len(value) == 1 for value in self.parameters[1].values())


@dataclass(frozen=True)
class Quantized:
    """The node, the proof in words, and the origin of the node's integers."""

    node: Node
    proof: str
    constant: bool
    origin: np.ndarray


@dataclass(frozen=True)
class Line(Quantized):
    """A node that is a multiply, add and shift."""

    node: Scale


def levels_of(layer: Layer, p: Params) -> Levels:
    """The levels of a Quant or a Steps with parameters in the stream's order."""
    if isinstance(layer, Quant):
        zero = np.rint(p["zero_point"])
        # The integers leave the zero point out, unless they need more bits then.
        held = bool((zero == p["zero_point"]).all()) and bits_for(
            int(layer.lo - zero.max()), int(layer.hi - zero.min())) <= bits_for(layer.lo, layer.hi)
        return Levels(layer.name, layer.lo, layer.hi, (layer, p),
                      zero.astype(np.int64) if held else np.zeros(1, np.int64),
                      np.zeros(1) if held else -p["zero_point"], p["scale"],
                      layer.rounding == "even")
    origin = p["offset"] / p["scale"]
    near = np.rint(origin)
    held = bool((np.abs(origin - near) <= 1e-9 * np.abs(origin)).all())
    return Levels(layer.name, 0, p["thresholds"].shape[1], (layer, p),
                  -near.astype(np.int64) if held else np.zeros(1, np.int64),
                  np.zeros(1) if held else origin, p["scale"])


def stepped(x: Value, levels: Levels, lo: np.ndarray, hi: np.ndarray
            ) -> tuple[np.ndarray, np.ndarray, np.ndarray, str]:
    """Steps of the levels behind `x`, counted as they are; and how it is proven."""
    stages, count = x.stages(x.waiting), int((hi - lo + 1).sum())
    monotone = all(stage.monotone for stage in x.waiting)
    turns = [(len(stages) - len(x.waiting) + k, turn) for k, stage in enumerate(x.waiting)
             for turn in stage.turns]
    many = count <= 8 * len(lo) * (levels.most - levels.least)  # bisection would take longer
    if count <= FEW or (count <= EVERY and (turns or many or not monotone)):
        steps = every_step([*stages, levels], lo, hi)
        return *steps[:2], steps[2] + levels.least, f"evaluated at all {count:,} integers"
    least, most = levels.least, levels.most
    if most - least > MOST_LEVELS and not turns:
        ends = evaluated([*stages, levels], np.stack([lo, hi])) + least
        least, most = max(least, int(ends.min())), min(most, int(ends.max()))
    if most - least > MOST_LEVELS:
        raise N2uqError(f"{levels.name} must have at most {MOST_LEVELS} levels within its input's "
                        f"range, not {most - least + 1}")
    shift = least - levels.least
    quantize = partial(_counted, levels, shift, most - least)
    steps = step_function([*stages, quantize], turns, lo, hi, most - least)
    return *steps[:2], steps[2] + least, f"bisected over all {count:,} integers"


def _counted(levels: Levels, shift: int, most: int, y: np.ndarray) -> np.ndarray:
    return (levels(y) - shift).clip(0, most)


def quantized(x: Value, levels: Levels) -> Quantized:
    """The node that makes the levels of `x`."""
    lo, hi = x.edge.lo, x.edge.hi
    written = _as_written(x, levels)
    if written is not None and levels.most - levels.least > MOST_LEVELS:
        return replace(written, node=_unclipped(written.node, x))
    alike = not x.terms and all(isinstance(stage, Means) and stage.uniform for stage in x.waiting)
    if alike and x.uniform and levels.uniform:
        lo, hi = lo.min(keepdims=True), hi.max(keepdims=True)  # one function for all channels
    thresholds, signs, base, proof = stepped(x, levels, lo, hi)
    bounds = of_steps(thresholds, signs, base, lo, hi, (levels.least, levels.most))
    quantized = node_of(levels, thresholds, signs, base, bounds, proof)
    node = quantized.node
    if not isinstance(node, Scale):
        return quantized
    _prove(x, levels, quantized, thresholds)
    if written is not None and written.node.shift <= node.shift:
        node = written.node
    return replace(quantized, node=_unclipped(node, x))


def _unclipped(node: Scale, x: Value) -> Scale:
    """Without its clip, if that never clips."""
    free = replace(node, clip=())
    wide, held = infer(free, x.edge), infer(node, x.edge)
    return free if (wide.lo == held.lo).all() and (wide.hi == held.hi).all() else node


def _prove(x: Value, levels: Levels, quantized: Quantized, thresholds: np.ndarray) -> None:
    """Both sides of every step, and both ends, by the node as golden computes it."""
    node, lo, hi = quantized.node, x.edge.lo, x.edge.hi
    assert isinstance(node, Scale)
    infer(node, x.edge)  # no product wraps
    at = np.broadcast_to(thresholds.T, (thresholds.shape[1], len(lo)))
    points = np.concatenate([at - 1, at, lo[None], hi[None]]).clip(lo, hi)
    want = evaluated([*x.stages(x.waiting), levels], points) + levels.least
    left_out = np.where(quantized.origin == levels.origin, levels.zero, 0)
    y = node.rounded(points * node.multiplier + node.offset)
    assert (y.clip(node.clip[0], node.clip[1]) == want - left_out).all(), levels.name


def _as_written(x: Value, levels: Levels) -> Line | None:
    """The constants of the file itself, where what is rounded down is a line of dyadic numbers.

    Each operation has numerators below 2^53 at every integer of the range, so that float64, in
    which the formula is evaluated, rounds none.  None where that is not so.
    """
    layer, p = levels.parameters
    operations = x.operations
    if operations is None or not isinstance(layer, Quant):
        return None
    span = float(max(1, int(-x.edge.lo.min()), int(x.edge.hi.max())))
    m, c, shift = np.ones(1), np.zeros(1), 0
    for op, value in (*operations, ("div", p["scale"]), ("add", p["zero_point"])):
        if op == "div":
            if (np.frexp(value)[0] % 0.5).any():  # no power of two
                return None
            op, value = "mul", 1 / value
        bits = _fraction_bits(value)
        if bits is None:
            return None
        if op == "mul":
            m, c, shift = m * value, c * value, shift + bits
        else:
            m, c, shift = m + 0 * value, c + value, max(shift, bits)
        if ((np.abs(m) * span + np.abs(c)) * 2.0**shift >= 2.0**53).any():
            return None
    while shift and (m * 2.0**(shift - 1) % 1 == 0).all() and (c * 2.0**(shift - 1) % 1 == 0).all():
        shift -= 1
    zero = int(levels.zero[0])
    if shift > SHIFTS or (levels.zero != zero).any() or (shift and layer.rounding != "floor"):
        return None  # whole numbers are not rounded
    multiplier, offset = ((values * 2.0**shift).astype(np.int64) for values in (m, c))
    return Line(Scale(levels.name, multiplier=_one(multiplier), shift=shift,
                      offset=_one(offset - (zero << shift)),
                      clip=(levels.least - zero, levels.most - zero)),
                f"(x·m + c) >> {shift}, floor, is the formula itself, whose numbers are dyadic and "
                "below 2^53", False, levels.origin)


def _fraction_bits(values: np.ndarray) -> int | None:
    """The least number of bits behind the point that hold them all; None for more than `SHIFTS`."""
    for bits in range(SHIFTS + 1):
        if (values * 2.0**bits % 1 == 0).all():
            return bits
    return None


def node_of(levels: Levels, thresholds: np.ndarray, signs: np.ndarray, base: np.ndarray,
            bounds: Bounds | None, proof: str) -> Quantized:
    """A line where it costs less than the steps; else these."""
    steps, constant = thresholds.shape[1], not signs.any()
    line = None
    if bounds is not None and steps and (steps > LOW or len(base) == 1) \
            and (levels.zero == levels.zero[0]).all():
        line = fit(bounds, even=levels.even)
    if line is not None and (steps > LOW or _wires(line)):
        if line.ties == "even" and levels.zero[0] % 2:  # without it, ties go to the odd
            levels = replace(levels, zero=np.zeros(1, np.int64), origin=-levels.zero[:1])
        zero = int(levels.zero[0])
        clip = (levels.least - zero, levels.most - zero)
        node: Node = Scale(levels.name, multiplier=_one(line.multiplier),
                           offset=_one(line.offset - (zero << line.shift)), shift=line.shift,
                           clip=clip, ties=line.ties)
        how = "ties to even" if line.ties == "even" else "floor"
        return Quantized(node, f"(x·m + c) >> {line.shift}, {how}, equals the formula at every "
                         f"integer: {steps} steps, {proof}", constant, levels.origin)
    if thresholds.size > MOST_STEPS:
        raise N2uqError(f"{levels.name} must be a multiply, add and shift, or need at most "
                        f"{MOST_STEPS} steps, not {thresholds.size}")
    base = base - levels.zero
    if len(levels.zero) > 1 and len(thresholds) == 1:
        thresholds, signs = (np.repeat(each, len(base), axis=0) for each in (thresholds, signs))
    node = Threshold(levels.name, thresholds=thresholds, signs=signs, base=base)
    return Quantized(node, f"{steps} steps, {proof}", constant, levels.origin)


def _wires(line: Fit) -> bool:
    """Whether it needs no multiplier."""
    m = int(line.multiplier[0])
    return m > 0 and m & (m - 1) == 0


def _one(values: np.ndarray) -> np.ndarray:
    return values[:1] if (values == values[0]).all() else values
