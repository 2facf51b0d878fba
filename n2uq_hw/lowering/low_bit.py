"""How layers of any low-bit network become nodes: integer weights, quantizers, sums of levels."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from .. import ir, model
from ..errors import N2uqError
from ..ir import DepthwiseMatVec, MatVec, Scale, infer
from ..model import (
    Conv,
    FloatConv,
    IntConv,
    IntLinear,
    Layer,
    Linear,
    PiecewiseLinear,
    Pointwise,
    Quant,
    Steps,
)
from .builder import Lowering, Rules
from .quantize import Levels, Quantized, levels_of, quantized
from .steps import evaluated, packed
from .sums import quantized_sum
from .values import Stage, Value, Waiting, taken

__all__ = ["RULES", "added", "convolved", "integers", "matrix", "multiplied", "product"]

EXPANDED = 2**20  # weights of a grouped convolution that is written out with zeros
RATIO = 2**10     # of two scales, in whole numbers: what multipliers cost little for
WIDE = 16         # bits of such a weight, above which it is said
WIDEST = 2.0**31  # of a weight that holds a scale of its channel
EXACT = 2.0**52   # of its sums: what float64 computes without rounding
NEAR = 1e-9       # of a half, what float64 may miss
ULPS = 2.0**-49   # of a slope, what float64 may miss


def product(x: Value, factors: tuple[np.ndarray, ...], waiting: Waiting = ()) -> Value:
    """The node of `x`, an accumulator with these factors."""
    return Value(x.node, x.edge, factors, waiting)


def matrix(layer: Any, weights: np.ndarray) -> MatVec:
    """OIHW in the net, (ky, kx, c) in the stream."""
    return MatVec(layer.name, weights=weights.transpose(0, 2, 3, 1).reshape(len(weights), -1))


def integers(self: Lowering, layer: Layer, x: Value) -> Value:
    """`x` as integers plus an origin, times factors: what a layer with quantized weights reads."""
    if not self.low_bit or isinstance(layer, Conv | Linear):
        if not x.settled and (x.waiting or len(x.factors) > 1 or x.terms):
            raise self.error(layer, "must follow a quantizer (LTQ or Pact) or the input, not "
                             f"{x.waiting[-1].name if x.waiting else x.node}")
        return x
    if x.waiting and all(stage.affine for stage in x.waiting) and not x.terms:
        slope, intercept, _ = self.line(x, x.waiting, 1.0)
        if slope.all():
            slope = np.where(np.abs(slope / slope[0] - 1) <= ULPS, slope[0], slope)
            half = np.rint(2 * intercept / slope) / 2
            origin = np.where(np.abs(intercept / slope - half) <= NEAR, half, intercept / slope)
            return Value(x.node, x.edge, (_one(slope),), (), x.order, _one(origin))
    if not x.plain:
        x = self.fixed(x)
    return replace(x, factors=(_one(x.factor),), divisor=1)


def whole(self: Lowering, layer: Layer, x: Value) -> Value:
    """`x` with an origin that is an integer, for a pad of real 0."""
    if not (x.origin % 1).any():
        return x
    if (2 * x.origin % 1).any():
        raise self.error(layer, f"pads with 0, which must be a level of {x.node} or lie midway "
                         f"between two, not at {-x.origin[0]:.6g}")
    node = Scale(self.ours(f"{x.node}_doubled"), multiplier=np.array([2]),
                 offset=(2 * x.origin).astype(np.int64))
    return replace(self.append(node, x), factors=(x.factors[0] / 2, *x.factors[1:]),
                   origin=np.zeros(1))


def grouped(self: Lowering, layer: Layer, x: Value, weights: np.ndarray, groups: int
            ) -> tuple[np.ndarray, np.ndarray]:
    """Weights [O, I/groups, ...] for integers of one unit, and the unit of each output."""
    factor = x.factor
    if factor.size == 1:
        return weights, factor
    each = factor.reshape(groups, -1)
    if (each == each[:, :1]).all():
        return weights, np.repeat(each[:, 0], len(weights) // groups)
    ratio, unit = _common(factor)
    per = np.repeat(ratio.reshape(groups, -1), len(weights) // groups, axis=0)
    per = per.reshape(*per.shape, *(1,) * (weights.ndim - 2))
    reach = np.abs(weights * per.astype(np.float64)).reshape(len(weights), -1)
    span = max(int(-x.edge.lo.min()), int(x.edge.hi.max())) + np.abs(x.origin).max()
    if reach.max() >= WIDEST or (reach.sum(axis=1) * span).max() >= EXACT:
        raise self.error(layer, "must read values of one scale, or of scales with a common unit of "
                         f"which weights take fewer than {WIDEST:.0e}, not those of {x.node}, "
                         f"whose channels have {len(np.unique(factor))} scales; a quantizer of "
                         "one scale before it would do")
    weights = weights * per.astype(np.int64)
    if (bits := int(np.abs(weights).max()).bit_length()) > WIDE:
        self.warnings.append(f"{layer.name} has weights of {bits} bits, since channels of {x.node} "
                             "have different scales; a quantizer of one scale before it would do")
    return weights, np.array([unit])


def _common(factors: np.ndarray) -> tuple[np.ndarray, float]:
    """Whole numbers and a unit, whose products are the factors: floats are dyadic numbers.

    Factors that were computed, as a BatchNorm's are, have the ratios of small numbers that float64
    cannot tell from theirs.
    """
    first = Fraction(float(factors[0]))
    ratios = [(Fraction(float(factor)) / first).limit_denominator(RATIO) for factor in factors]
    exact = [Fraction(float(factor)) for factor in factors]
    if all(abs(ratio * first / each - 1) <= ULPS for ratio, each in zip(ratios, exact, strict=True)
           ) and math.lcm(*(ratio.denominator for ratio in ratios)) < WIDEST:
        exact = [ratio * first for ratio in ratios]
    base = math.lcm(*(each.denominator for each in exact))
    whole = [int(each * base) for each in exact]
    unit = math.gcd(*whole) or 1
    return np.array([each // unit for each in whole], np.float64), float(Fraction(unit, base))


def convolved(self: Lowering, layer: Conv | IntConv, x: Value, weights: np.ndarray,
              delta: np.ndarray) -> Value:
    """Windows of `x` times `weights` [O, I/groups, kh, kw], whose unit is `delta`."""
    x = integers(self, layer, self.image(layer, x))
    channels, groups = x.edge.channels, layer.groups
    if channels != layer.in_channels:
        raise self.error(layer, f"must have {channels} input channels, not {layer.in_channels}")
    depthwise = groups > 1 and groups == layer.in_channels == layer.out_channels
    if any(model.frame(layer.padding)):
        x = whole(self, layer, x)
    weights, unit = grouped(self, layer, x, weights, groups)
    own = np.broadcast_to(x.origin, channels).reshape(groups, -1)
    own = np.repeat(own, len(weights) // groups, axis=0)
    origin = (weights.sum(axis=(2, 3)) * own).sum(axis=1)
    x = self.windows(layer, x, _one(-x.origin.astype(np.int64)), always=depthwise,
                     groups=1 if depthwise else groups)
    node = (DepthwiseMatVec(layer.name, weights=weights.reshape(channels, -1).T)
            if depthwise else replace(matrix(layer, weights), groups=groups))
    return replace(product(self.append(node, x), _factors(layer, unit, delta)), origin=_one(origin))


def _factors(layer: Layer, unit: np.ndarray, delta: np.ndarray) -> tuple[np.ndarray, ...]:
    """In the order in which the layer's formula multiplies."""
    return (unit, delta) if isinstance(layer, IntConv | IntLinear) else (delta, unit)


def written_out(self: Lowering, layer: Conv | FloatConv | IntConv, weights: np.ndarray
                ) -> np.ndarray:
    """Weights of all input channels, zeros between the groups, unless these are too many."""
    if weights.size * layer.groups > EXPANDED:
        raise self.error(layer, f"must have 1 group, be depthwise, or have at most {EXPANDED} "
                         f"weights with zeros between its groups, not {layer.groups} groups of "
                         f"{layer.in_channels} to {layer.out_channels} channels")
    return model.ungrouped(weights, layer.groups)


def multiplied(self: Lowering, layer: Any, x: Value, weights: np.ndarray, delta: np.ndarray
               ) -> Value:
    """One vector's product with `weights` [out, in], whose unit is `delta`."""
    x = integers(self, layer, x)
    if x.edge.shape[:2] != (1, 1):
        raise self.error(layer, f"must follow a Flatten, not read an image {x.edge.shape}")
    if layer.in_features != x.edge.channels:
        raise self.error(layer, f"must have {x.edge.channels} input features, "
                         f"not {layer.in_features}")
    weights, unit = grouped(self, layer, x, taken(weights, x.order), 1)
    node = MatVec(layer.name, weights=weights)
    origin = (weights * x.origin).sum(axis=1)
    return replace(product(self.append(node, x), _factors(layer, unit, delta)), origin=_one(origin))


def _int_conv(self: Lowering, layer: IntConv, x: Value) -> Value:
    p = self.net.of(layer)
    return convolved(self, layer, x, _narrowest(p["codes"]), p["scale"])


def _int_linear(self: Lowering, layer: IntLinear, x: Value) -> Value:
    p = self.net.of(layer)
    return multiplied(self, layer, x, _narrowest(p["codes"]), p["scale"])


def _narrowest(codes: np.ndarray) -> np.ndarray:
    return codes.astype(ir.dtype_for(int(codes.min()), int(codes.max())))


def _pointwise(self: Lowering, layer: Pointwise, x: Value) -> Value:
    _check_channels(self, layer, x)
    return self.stage(layer, x)


def _check_channels(self: Lowering, layer: Pointwise | PiecewiseLinear | Quant | Steps,
                    x: Value) -> None:
    if layer.channels not in (1, x.edge.channels):
        raise self.error(layer, f"must have 1 or {x.edge.channels} channels, "
                         f"not {layer.channels}")


def _quantizer(self: Lowering, layer: Quant | Steps, x: Value) -> Value:
    """Waiting layers and quantizer become one node, which is left out where it changes nothing."""
    _check_channels(self, layer, x)
    p = {key: value[x.order] if x.order is not None and len(value) > 1 else value
         for key, value in self.net.of(layer).items()}
    if isinstance(layer, Steps) and not p["scale"].all():
        raise self.error(layer, "must have a scale other than 0")
    levels = levels_of(layer, p)
    try:
        if x.terms:
            x, result = _summed(self, x, levels)
        else:
            result = quantized(x, levels)
    except N2uqError as error:
        raise self.error(layer, f"cannot be lowered: {error}") from None
    self.proofs[layer.name] = result.proof
    if result.constant:
        self.warnings.append(f"{layer.name} is constant: whatever it reads, it gives one level")
    same = _changes_nothing(result.node, x)
    at = x if same else self.append(result.node, x)
    return Value(at.node, at.edge, (_one(levels.factor),), (), x.order, _one(result.origin))


def _changes_nothing(node: ir.Node, x: Value) -> bool:
    if isinstance(node, Scale):
        out = infer(node, x.edge)
        return bool((node.multiplier == 1 << node.shift).all() and not node.offset.any()
                    and (out.lo == x.edge.lo).all() and (out.hi == x.edge.hi).all())
    assert isinstance(node, ir.Threshold)
    lo, hi = int(x.edge.lo.min()), int(x.edge.hi.max())
    if hi - lo > node.thresholds.shape[1]:
        return False
    every = np.broadcast_to(np.arange(lo, hi + 1)[:, None], (hi - lo + 1, x.edge.channels))
    return bool((ir.threshold_values(node, every) == every).all())


def _summed(self: Lowering, x: Value, levels: Levels) -> tuple[Value, Quantized]:
    """The sum that waits, of terms times integers, and the quantizer behind it."""
    factors, result = quantized_sum(x, levels)
    total = None
    for k, (term, multiplier) in enumerate(zip(x.terms, factors, strict=True)):
        if (multiplier != 1).any():
            term = self.append(Scale(self.ours(f"{x.node}_scaled{k}"), multiplier=multiplier), term)
        last = k == len(x.terms) - 1
        name = x.node if last else self.ours(f"{x.node}_part{k}")
        total = self.append(ir.Add(name), total, term) if total else term
    assert total is not None
    return replace(total, order=x.order), result


def added(self: Lowering, layer: model.Add, x: Value, y: Value) -> Value | None:
    """The sum of levels, exactly: of integers, or waiting for a quantizer; None if neither."""
    x, y = _whole_line(x), _whole_line(y)
    if x.plain and y.plain and _one(x.factor).size == _one(y.factor).size == 1:
        if merged := _merged(self, layer, x, y):
            return merged
        ratio = _fraction(x) / _fraction(y)
        unit = abs(_fraction(x) / ratio.numerator)
        exact = ratio == 1 or Fraction(float(unit)) == unit
        if exact and max(abs(ratio.numerator), ratio.denominator) <= RATIO:
            sides = [_times(self, layer, k, each, whole) for k, (each, whole) in enumerate(
                ((x, int(_fraction(x) / unit)), (y, int(_fraction(y) / unit))))]
            total = self.append(ir.Add(layer.name), *sides)
            return Value(total.node, total.edge, (np.array([float(unit)]),), (), x.order,
                         sides[0].origin + sides[1].origin)
    terms = [term for each in (x, y) for term in (each.terms or (each,))]
    lines = all(stage.affine for term in terms for stage in term.waiting)
    if (x.terms and x.waiting) or (y.terms and y.waiting) or not lines \
            or self.readers[layer.name] > 1:
        return None
    edge = infer(ir.Add(layer.name), x.edge, y.edge)
    return Value(layer.name, edge, (np.ones(1),), (), x.order, terms=tuple(terms))


def _merged(self: Lowering, layer: model.Add, x: Value, y: Value) -> Value | None:
    """The sum of two quantizers of one tensor and one scale: a quantizer with the steps of both.

    None where it is no such sum, or something else reads one of them.
    """
    one, two = ({node.name: node for node in self.nodes}[each.node] for each in (x, y))
    if not (isinstance(one, ir.Threshold) and isinstance(two, ir.Threshold)) \
            or one.inputs != two.inputs or _fraction(x) != _fraction(y) or any(
                self.readers[node.name] != 1 for node in (one, two)):
        return None
    count = max(len(one.signs), len(two.signs))
    thresholds, signs = (np.concatenate([np.broadcast_to(side, (count, side.shape[1]))
                                         for side in sides], axis=1)
                         for sides in ((one.thresholds, two.thresholds), (one.signs, two.signs)))
    self.nodes = [node for node in self.nodes if node not in (one, two)]
    source = replace(x, node=one.inputs[0], edge=self.edges[one.inputs[0]])
    thresholds, signs, base = packed(thresholds, signs, one.base + two.base)
    node = ir.Threshold(layer.name, thresholds=thresholds, signs=signs, base=base)
    return replace(self.append(node, source), origin=x.origin + y.origin)


def _fraction(x: Value) -> Fraction:
    value = Fraction(1, x.divisor)
    for factor in x.factors:
        value *= Fraction(float(factor[0]))
    return value


def _times(self: Lowering, layer: Layer, k: int, x: Value, factor: int) -> Value:
    if factor == 1:
        return x
    node = Scale(self.ours(f"{layer.name}_scaled{k}"), multiplier=np.array([factor]))
    return replace(self.append(node, x), origin=x.origin * factor)


def _piecewise(self: Lowering, layer: PiecewiseLinear, x: Value) -> Value:
    """Whole numbers as they are: the node of the same name; a Scale, where both lines are one."""
    _check_channels(self, layer, x)
    x = _whole_line(_clamped(self, x))
    unit, start = x.factor, x.origin * x.factor
    if not x.plain or (unit % 1).any() or (start % 1).any():
        raise self.error(layer, "must read whole numbers")
    p = {key: taken(value, x.order) for key, value in self.net.of(layer).items()}
    slopes = (p["multiplier"] * unit).astype(np.int64)
    offsets = (p["offset"] + p["multiplier"] * start).astype(np.int64)
    x = Value(x.node, x.edge, (np.ones(1),), (), x.order)
    if (slopes[0] == slopes[1]).all() and (offsets[0] == offsets[1]).all():
        return self.append(Scale(layer.name, multiplier=_one(slopes[0]), offset=_one(offsets[0]),
                                 shift=layer.shift), x)
    if (unit < 1).any():
        raise self.error(layer, "must read whole numbers that rise with their integers")
    turn = np.ceil((p["turn"] - start) / unit).astype(np.int64)
    return self.append(ir.PiecewiseLinear(layer.name, turn=turn, multiplier=slopes,
                                          offset=offsets, shift=layer.shift), x)


def _whole_line(x: Value) -> Value:
    """`x`; where whole constants are added to and multiplied with its integers, nothing waits."""
    if not x.waiting or x.terms or not all(stage.affine for stage in x.waiting):
        return x
    start, end = evaluated(x.stages(x.waiting), np.arange(2)[:, None].repeat(x.edge.channels, 1))
    unit = _one(end - start)
    if (start % 1).any() or (unit % 1).any() or not unit.all() or (start % unit).any():
        return x
    return Value(x.node, x.edge, (unit,), (), x.order, _one(start / unit))


def _clamped(self: Lowering, x: Value) -> Value:
    """`x`, if nothing but bounds wait behind its integers: clipped to them."""
    ends = [-np.inf, np.inf]
    for stage in x.waiting:
        if not isinstance(stage, Stage) or not isinstance(stage.layer, Pointwise | model.ReLU):
            return x
        value = stage.params.get("value", np.zeros(1))
        op = stage.layer.op if isinstance(stage.layer, Pointwise) else "max"
        if op not in ("max", "min") or value.size > 1 or value.item() % 1:
            return x
        ends = [max(end, value.item()) if op == "max" else min(end, value.item()) for end in ends]
    lo, hi = (int(end) for end in np.clip(ends, x.edge.lo.min(), x.edge.hi.max()))
    bare = replace(x, waiting=())
    if not x.waiting or x.terms or lo >= hi or not bare.uniform or bare.factor != 1 or bare.origin:
        return x
    return self.append(ir.Saturate(self.ours(f"{x.node}_held"), lo=lo, hi=hi), bare)


def _one(values: np.ndarray) -> np.ndarray:
    """[1] where all are the same."""
    return values[:1] if (values == values[:1]).all() else values


RULES: Rules = {
    IntConv: _int_conv, IntLinear: _int_linear, Pointwise: _pointwise, Quant: _quantizer,
    PiecewiseLinear: _piecewise, Steps: _quantizer}
