"""How layers that move or pool pixels become nodes; the real values move along."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np

from .. import ir, model
from ..ir import Scale, SumPool
from ..model import (
    AvgPool,
    Concat,
    DepthToSpace,
    Flatten,
    Layer,
    MaxPool,
    Permute,
    Pointwise,
    Upsample,
)
from ..model.layers import windows
from .builder import Lowering, Rules
from .low_bit import integers, whole
from .steps import evaluated
from .values import Affine, Joined, Means, Stage, Value, Waiting

__all__ = ["RULES"]

EVERY = 2**22      # integers of all channels that are evaluated to see whether a function rises


def _image(self: Lowering, layer: Layer, x: Value) -> Value:
    """An image of integers: in a low-bit net, scalar layers go on waiting behind it."""
    x = self.image(layer, x)
    return self.fixed(x) if x.terms or not (x.settled or self.low_bit) else x


def _max_pool(self: Lowering, layer: MaxPool, x: Value) -> Value:
    """The largest integer is the largest real value, where all that waits rises."""
    x = _image(self, layer, x)
    if layer.zeros:
        x = whole(self, layer, integers(self, layer, x))
    if not x.settled:
        x = _rising(self, x)
    # No pixel is below the low end of its range: that pad never wins.
    pad = -x.origin.astype(np.int64) if layer.zeros else x.edge.lo
    x = self.windows(layer, x, pad if (pad != pad[0]).any() else pad[:1], always=True)
    return self.append(ir.MaxPool(layer.name, positions=math.prod(model.pair(layer.kernel))), x)


def _rising(self: Lowering, x: Value) -> Value:
    """`x` with a real value that rises with the integer: negated where it falls, or rounded."""
    lo, hi = x.edge.lo, x.edge.hi
    points = np.stack([lo, hi])
    if any(stage.turns or not stage.monotone for stage in x.waiting):
        size = int((hi - lo).max()) + 1
        if size * x.edge.channels > EVERY:
            return self.fixed(x)
        points = np.minimum(lo + np.arange(size)[:, None], hi)
    change = np.diff(evaluated(x.stages(x.waiting), points), axis=0)
    if ((change > 0).any(axis=0) & (change < 0).any(axis=0)).any():
        return self.fixed(x)
    falls = (change < 0).any(axis=0)
    if not falls.any():
        return x
    sign = np.where(falls, -1, 1)
    node = Scale(self.ours(f"{x.node}_negated"), multiplier=sign)
    return replace(self.append(node, x), factors=(sign * x.factors[0], *x.factors[1:]),
                   origin=sign * x.origin)


def _avg_pool(self: Lowering, layer: AvgPool, x: Value) -> Value:
    """The sum of a window; the divisor of an average is a factor."""
    x = _image(self, layer, x)
    if x.waiting and not all(stage.affine for stage in x.waiting):
        x = self.fixed(x)
    if layer.kernel == 0 or (model.pair(layer.kernel) == x.edge.shape[:2]
                             and not any(model.frame(layer.padding))):
        positions = x.edge.shape[0] * x.edge.shape[1]
        x = self.append(ir.Flatten(self.ours(f"{layer.name}_pixels")), x)
    else:
        positions = math.prod(model.pair(layer.kernel))
        if any(model.frame(layer.padding)):
            if not (layer.count_pad or layer.total):
                return _uneven(self, layer, x, positions)
            x = whole(self, layer, integers(self, layer, x))
        x = self.windows(layer, x, -x.origin.astype(np.int64), always=True)
    pooled = self.append(SumPool(layer.name, positions=positions), x)
    if not layer.total:
        return replace(pooled, divisor=x.divisor * positions, origin=x.origin * positions)
    if not x.waiting:
        return replace(pooled, origin=x.origin * positions)
    # A sum of lines of integers is a line of their sum.
    at = evaluated(x.stages(x.waiting), np.arange(2)[:, None].repeat(pooled.edge.channels, axis=1))
    line = Affine(layer.name, at[1] - at[0], at[0] * positions)
    return Value(pooled.node, pooled.edge, (np.ones(1),), (line,), pooled.order)


def _uneven(self: Lowering, layer: AvgPool, x: Value, positions: int) -> Value:
    """Means of the pixels alone.  A pad is so large an integer that a window's sum tells how many.

    Sums with more pads lie above all that have fewer; so the mean is a function of the sum.
    """
    lo, hi = int(x.edge.lo.min()), int(x.edge.hi.max())
    inside = windows(np.ones((1, 1, *x.edge.shape[:2])), layer.kernel, layer.stride,
                     layer.padding).sum(axis=(4, 5))
    counts = np.unique(inside.astype(np.int64))[::-1]
    mark = max((int(many * hi - few * lo) // int(many - few) + 1
                for many, few in pairwise(counts)), default=0)
    pads = (positions - counts) * mark
    means = Means(layer.name, pads + counts * lo, counts, pads, hi, x.origin, x.factors, x.divisor)
    x = replace(x, factors=(np.ones(1),), waiting=(means, *x.waiting), origin=np.zeros(1),
                divisor=1)
    x = self.windows(layer, x, np.array([mark]), always=True)
    return self.append(SumPool(layer.name, positions=positions), x)


def _flatten(self: Lowering, layer: Flatten, x: Value) -> Value:
    x = x if x.settled or (self.low_bit and not x.terms) else self.fixed(x)
    height, width, channels = x.edge.shape
    if (height, width) == (1, 1):
        return x
    # The net's vector runs over (C, H, W), the stream over (H, W, C).
    order = np.arange(x.edge.size)
    if layer.order == "chw":
        order = order.reshape(channels, height, width).transpose(1, 2, 0).reshape(-1)
    x = x.take(np.tile(np.arange(channels), height * width))
    return replace(self.append(ir.Flatten(layer.name), x), order=order)


def _concat(self: Lowering, layer: Concat, *xs: Value) -> Value:
    """Factors of each branch, channel by channel, and what waits in each."""
    if len({x.order is None for x in xs}) > 1:
        raise self.error(layer, "must read images or vectors, not some of each")
    turned = [x.terms or any(stage.turns for stage in x.waiting) for x in xs]
    xs = tuple(self.fixed(x) if turns or not (x.plain or self.low_bit) else x
               for x, turns in zip(xs, turned, strict=True))
    y = self.append(ir.Concat(layer.name), *xs)
    starts = np.cumsum([0, *(x.edge.channels for x in xs)])
    orders = [start + x.order for start, x in zip(starts, xs, strict=False) if x.order is not None]
    order = np.concatenate(orders) if orders else None
    if any(x.waiting or x.divisor & (x.divisor - 1) for x in xs):
        branches = tuple((start + np.arange(x.edge.channels), _own(x))
                         for start, x in zip(starts, xs, strict=False))
        return Value(y.node, y.edge, (np.ones(1),), (Joined(layer.name, branches),), order)
    factors = [(*x.factors[:-1], x.factors[-1] / x.divisor) for x in xs]
    own = tuple(_joined(xs, [each[k] if k < len(each) else np.ones(1) for each in factors])
                for k in range(max(map(len, factors))))
    return Value(y.node, y.edge, own, (), order, _joined(xs, [x.origin for x in xs]))


def _own(x: Value) -> Waiting:
    """All that makes real values of the integers of `x`."""
    zero, one = np.zeros(1), np.ones(1)
    stages = [Affine(x.node, one, x.origin), *(Affine(x.node, f, zero) for f in x.factors)]
    if x.divisor != 1:
        divide = Pointwise(x.node, "div")
        return *stages, Stage(divide, {"value": np.array([float(x.divisor)])}), *x.waiting
    return *stages, *x.waiting


def _joined(xs: tuple[Value, ...], values: list[np.ndarray]) -> np.ndarray:
    joined = np.concatenate([np.broadcast_to(value, x.edge.channels)
                             for x, value in zip(xs, values, strict=True)])
    return joined[:1] if (joined == joined[0]).all() else joined


def _upsample(self: Lowering, layer: Upsample, x: Value) -> Value:
    x = _image(self, layer, x)
    return self.append(ir.Upsample(layer.name, factor=model.pair(layer.factor)), x)


def _depth_to_space(self: Lowering, layer: DepthToSpace, x: Value) -> Value:
    """Channels become pixels of one channel: they must have one real value of an integer."""
    x = _image(self, layer, _in_order(self, x))
    if (size := math.prod(model.pair(layer.block))) == 1:
        return x
    every = np.arange(x.edge.channels)
    places = every.reshape(size, -1) if layer.mode == "DCR" else every.reshape(-1, size).T
    x = x.take(places[0]) if _alike(x, places) else self.fixed(x)
    return self.append(ir.DepthToSpace(layer.name, block=layer.block, mode=layer.mode), x)


def _alike(x: Value, places: np.ndarray) -> bool:
    """Whether all channels of each column of `places` have one real value of an integer."""
    values = [*x.factors, x.origin]
    for stage in x.waiting:
        if not isinstance(stage, Stage | Affine):
            return False
        values += [stage.slope, stage.intercept] if isinstance(stage, Affine) else [
            value for value in stage.params.values()]
    return all(value.size == 1 or (value[places] == value[places[:1]]).all() for value in values)


def _permute(self: Lowering, layer: Permute, x: Value) -> Value:
    order = self.net.of(layer)["order"].astype(np.int64)
    if order.max() >= x.edge.channels:
        raise self.error(layer, f"must take channels below {x.edge.channels}, not {order.max()}")
    x = _image(self, layer, _in_order(self, x))
    return self.append(ir.Permute(layer.name, order=order), x.take(order))


def _in_order(self: Lowering, x: Value) -> Value:
    """`x`; a vector of a Flatten in the net's order instead of the stream's."""
    if x.order is None:
        return x
    order = np.argsort(x.order)
    node = ir.Permute(self.ours(f"{x.node}_order"), order=order)
    return replace(self.append(node, replace(x, order=None).take(order)), order=None)


RULES: Rules = {
    MaxPool: _max_pool, AvgPool: _avg_pool, Flatten: _flatten, Concat: _concat,
    Upsample: _upsample, DepthToSpace: _depth_to_space, Permute: _permute}
