"""Rules of whole numbers: lines in fixed point, which are rounded down."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ...model import PiecewiseLinear, Pointwise, Quant, Steps
from .constants import Constant
from .reading import Node, NoForm
from .tensors import Tensor
from .trace import WIDE, Trace, Value, rule

__all__ = ["bent"]

Line = tuple[str, np.ndarray, np.ndarray, float]


@rule("BitShift")
def _bit_shift(trace: Trace, node: Node, x: Value, bits: Value) -> Tensor:
    """Of whole numbers from 0."""
    if not isinstance(x, Tensor) or not isinstance(bits, Constant):
        raise NoForm("must shift an activation by constants")
    power = 2.0**bits.array.astype(np.float64)
    if node.of("direction", "RIGHT") == "LEFT":
        return trace.pointwise(x, "mul", power, node.name)
    y = trace.pointwise(x, "div", power, f"{node.name}_quotient")
    return trace.quantize(y, np.ones(1), np.zeros(1), WIDE, "floor", node.name)


@rule("BitwiseAnd")
def _multiples(trace: Trace, node: Node, *inputs: Value) -> Tensor:
    """Whole numbers without their last bits: 2^bits times a line that is rounded down."""
    x, mask = inputs if isinstance(inputs[0], Tensor) else inputs[::-1]
    if not isinstance(x, Tensor) or not isinstance(mask, Constant):
        raise NoForm("must mask an activation by a constant")
    unit = -int(mask.value)
    if unit < 1 or unit & (unit - 1):
        raise NoForm(f"must mask by minus a power of two, not by {mask.value:g}")
    x = trace.plain(x, node.name)
    name, slope, offset = _straight(trace, x.layer)
    if not {name, x.layer} <= trace.whole:
        raise NoForm("must mask whole numbers")
    line = _emitted(trace, x, name, np.zeros(1), [slope] * 2, [offset] * 2, unit, node.name)
    return replace(line, factor=float(unit))


def bent(trace: Trace, test: Steps, above: Tensor, below: Tensor, label: str) -> Tensor:
    """floor((x·m + c) / 2^shift), the lines of both sides of a threshold, of one x."""
    p = trace.of(test)
    lines = [line for each in (below, above) if (line := _line(trace, each)) is not None]
    if test.steps != 1 or (p["scale"] != 1).any() or p["offset"].any() or len(lines) < 2 or any(
            line[0] != test.inputs[0] for line in lines) or above.pattern() != below.pattern():
        raise NoForm("must choose between two constants, or two lines that are rounded down")
    divisor = max(line[3] for line in lines)
    return _emitted(trace, above, test.inputs[0], np.ceil(p["thresholds"][:, 0]),
                    [line[1] * (divisor / line[3]) for line in lines],
                    [line[2] * (divisor / line[3]) for line in lines], divisor, label)


def _emitted(trace: Trace, like: Tensor, name: str, turn: np.ndarray, slopes: list[np.ndarray],
             offsets: list[np.ndarray], divisor: float, label: str) -> Tensor:
    """floor((x·slope + offset) / divisor) of the layer `name`, below and above a turn."""
    count, shift = like.size, math.log2(divisor)
    slope, offset = (np.stack([np.broadcast_to(each, count) for each in values])
                    for values in (slopes, offsets))
    if shift != int(shift) or any((values != np.rint(values)).any() for values in (slope, offset)):
        raise NoForm("must choose between lines of whole numbers over a power of two")
    return like.of(trace.emit(PiecewiseLinear, label, name, params={
        "turn": np.broadcast_to(turn, count), "multiplier": slope, "offset": offset},
        channels=count, shift=int(shift)))


def _straight(trace: Trace, name: str) -> tuple[str, np.ndarray, np.ndarray]:
    """The layer that one is a whole slope times and a whole offset more than."""
    slope, offset = np.ones(1), np.zeros(1)
    while isinstance(layer := trace.layer(name), Pointwise) and layer.op in ("add", "mul"):
        value = trace.of(layer)["value"]
        steeper = slope * value if layer.op == "mul" else slope
        more = offset + slope * value if layer.op == "add" else offset
        if layer.float32 or (value % 1).any() or max(
                np.abs(steeper).max(), np.abs(more).max()) >= 2.0**53:
            break
        slope, offset, name = steeper, more, layer.inputs[0]
    return name, slope, offset


def _line(trace: Trace, t: Tensor) -> Line | None:
    """What a tensor is the floor of: a layer's value times a slope, plus an offset, over a divisor.

    None where it is none such.
    """
    layer = trace.layer(t.layer)
    if t.factor != 1 or t.coded is not None:
        return None
    if isinstance(layer, PiecewiseLinear):
        slopes, offsets = trace.of(layer)["multiplier"], trace.of(layer)["offset"]
        if (slopes[0] != slopes[1]).any() or (offsets[0] != offsets[1]).any():
            return None
        return layer.inputs[0], slopes[0], offsets[0], 2.0**layer.shift
    if not isinstance(layer, Quant) or (layer.rounding, layer.lo, layer.hi) != (
            "floor", *WIDE) or any((value != rest).any() for value, rest in zip(
                trace.of(layer).values(), (1, 0), strict=True)):
        return None
    name, divisor = layer.inputs[0], np.ones(1)
    before = trace.layer(name)
    if isinstance(before, Pointwise) and before.op == "div" and not before.float32:
        divisor, name = trace.of(before)["value"], before.inputs[0]
    return (*_straight(trace, name), float(divisor[0])) if divisor.size == 1 else None
