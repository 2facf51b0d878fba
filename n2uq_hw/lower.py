"""From a trained net to the integer graph.

Between a matrix product and the next quantizer, a trained network is a scalar function of the
integer accumulator per channel.  `step_function` turns it into integer steps that agree with the
float64 formula at every integer of the range.  All other real factors travel along as scales.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import singledispatchmethod

import numpy as np

from .errors import N2uqError
from .ir import (
    ArgMax,
    Flatten,
    Graph,
    Input,
    MatVec,
    MaxPool,
    Node,
    Pad,
    Scale,
    SlidingWindow,
    SumPool,
    Threshold,
)
from .model import (
    LTQ,
    AvgPool,
    BatchNorm,
    Bias,
    Conv,
    Layer,
    Linear,
    Net,
    Pact,
    PReLU,
    layer_float,
    ltq_levels,
    pact_levels,
    weight_codes,
)
from .model import Flatten as FlattenLayer
from .model import MaxPool as MaxPoolLayer

__all__ = ["LOGIT_FRACTION_BITS", "MULTIPLIER_BITS", "lower", "step_function"]

LOGIT_FRACTION_BITS = 8   # an output step of 1/256: far below what separates two classes
MULTIPLIER_BITS = 12      # significant bits of the largest multiplier of a Scale

Scalar = Callable[[np.ndarray], np.ndarray]


def step_function(stages: list[Scalar], turns: list[int], lo: np.ndarray, hi: np.ndarray,
                  levels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Integer steps of a quantized scalar function, exact at every integer of its range.

    Parameters
    ----------
    stages: functions of float64 arrays [M, C], applied in order; the last one gives integers in
        0..levels.  Every stage but those in `turns` is monotone in each channel.
    turns: indices of stages that are monotone only on either side of zero (PReLU with a negative
        slope).
    lo, hi: the range of each channel, int64 [C].
    levels: the number n of steps of the quantizer.

    Returns
    -------
    thresholds int64 [C, S], signs int8 [C, S] (0 where unused), base int64 [C], such that
    ``base + Σ signs·[x >= thresholds]`` equals the function at every integer of lo..hi.

    The range is cut where a turning stage's input changes its sign, into pieces on which the whole
    function is monotone, in float64 too, since rounding is monotone.  On a piece each level is
    passed at most once, and bisection finds where.
    """
    def value(x: np.ndarray, until: int | None = None) -> np.ndarray:
        y = x.astype(np.float64)
        for stage in stages[:until]:
            y = stage(y)
        return y

    def first(holds: Callable[[np.ndarray], np.ndarray], low: np.ndarray,
              high: np.ndarray) -> np.ndarray:
        """Smallest x in low..high where `holds`, given that it stays so; high if nowhere below."""
        low, high = low.copy(), high.copy()
        while (low < high).any():
            middle = (low + high) // 2
            found = holds(middle)
            high = np.where(found & (low < high), middle, high)
            low = np.where(~found & (low < high), middle + 1, low)
        return low

    # Pieces are [starts[i], starts[i + 1]), per channel; empty ones do no harm.
    starts = [lo, hi + 1]
    for turn in turns:
        cuts = [starts[0]]
        for start, end in zip(starts[:-1], starts[1:], strict=True):
            at_start = value(start[None], turn) > 0
            cut = first(lambda x, t=turn, s=at_start: (value(x, t) > 0) != s,  # type: ignore[misc]
                        start[None], end[None])
            cuts += [cut[0], end]
        starts = cuts

    level = np.arange(1, levels + 1)[:, None]
    base = value(lo[None])[0].astype(np.int64)
    passed = value(lo[None]) >= level
    thresholds, signs = [], []
    for start, end in zip(starts[:-1], starts[1:], strict=True):
        filled = start < end
        begin = np.where(filled, value(np.minimum(start, hi)[None]) >= level, passed)
        finish = np.where(filled, value(np.maximum(end - 1, lo)[None]) >= level, passed)
        inside = first(lambda x, b=begin: (value(x) >= level) != b,  # type: ignore[misc]
                       np.broadcast_to(start, begin.shape),
                       np.broadcast_to(np.maximum(end - 1, start), begin.shape))
        for at, before, after in ((np.broadcast_to(start, begin.shape), passed, begin),
                                  (inside, begin, finish)):
            thresholds.append(at)
            signs.append(after.astype(np.int8) - before.astype(np.int8))
        passed = finish
    return _packed(np.concatenate(thresholds).T, np.concatenate(signs).T, base)


def _packed(thresholds: np.ndarray, signs: np.ndarray, base: np.ndarray
            ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sort each channel's steps, unused ones last, and drop the columns that no channel uses."""
    order = np.lexsort((thresholds, signs == 0), axis=1)
    thresholds = np.take_along_axis(thresholds, order, axis=1)
    signs = np.take_along_axis(signs, order, axis=1).astype(np.int8)
    used = int((signs != 0).sum(axis=1).max(initial=0))
    return np.where(signs != 0, thresholds, 0)[:, :used], signs[:, :used], base


def lower(net: Net, *, top1: bool = False) -> Graph:
    """The integer graph of a chain net.

    Parameters
    ----------
    net: the trained network.
    top1: end in an ArgMax (the class index) instead of the logits.

    Returns
    -------
    A verified graph.  Its output holds the logits in fixed point with `LOGIT_FRACTION_BITS`
    fraction bits (`meta["output_scale"]` is their real value per unit), or the class index.
    Raises N2uqError for a chain of layers that has no integer form, naming the layer.
    """
    lowering = _Lowering(net)
    for layer in net.layers:
        lowering.add(layer)
    return lowering.finish(top1)


@dataclass
class _Lowering:
    """The nodes so far, and what the last edge stands for: ``real = integer · scale[channel]``,
    followed by the scalar layers that wait for a quantizer."""

    net: Net
    nodes: list[Node] = field(default_factory=list)
    waiting: list[Layer] = field(default_factory=list)

    def __post_init__(self) -> None:
        channels, height, width = self.net.input.shape
        self.nodes.append(Input("input", shape=(height, width, channels), hi=self.net.input.max))
        self.scale = np.array([self.net.input.scale])

    @property
    def graph(self) -> Graph:
        return Graph(self.net.name, tuple(self.nodes))

    def append(self, node: Node) -> None:
        self.nodes.append(replace(node, inputs=(self.nodes[-1].name,)))

    def settled(self, layer: Layer) -> float:
        """The one scale of the last edge, for a layer that mixes channels."""
        if self.waiting or len(self.scale) > 1 or self.scale[0] <= 0:
            raise N2uqError(f"{self.net.name}: {type(layer).__name__} {layer.name} must follow a "
                            f"quantizer (LTQ or Pact) or the input, not "
                            f"{(self.waiting or self.nodes)[-1].name}")
        return float(self.scale[0])

    def edge_of(self) -> tuple[int, int, int]:
        return self.graph.edges[self.nodes[-1].name].shape

    @singledispatchmethod
    def add(self, layer: Layer) -> None:
        raise N2uqError(f"{self.net.name}: no lowering for {type(layer).__name__} {layer.name}")

    @add.register(BatchNorm)
    @add.register(Bias)
    @add.register(PReLU)
    def _(self, layer: Layer) -> None:
        channels = self.edge_of()[2]
        if layer.channels != channels:  # type: ignore[attr-defined]
            raise N2uqError(f"{self.net.name}: {layer.name} must have {channels} channels, "
                            f"not {layer.channels}")  # type: ignore[attr-defined]
        self.waiting.append(layer)

    @add.register
    def _(self, layer: Conv) -> None:
        scale, channels = self.settled(layer), self.edge_of()[2]
        if channels != layer.in_channels or layer.groups != 1:
            raise N2uqError(f"{self.net.name}: {layer.name} must have {channels} input channels in "
                            f"1 group, not {layer.in_channels} in {layer.groups}")
        if layer.padding:
            self.append(Pad(f"{layer.name}_pad", frame=(layer.padding,) * 4,
                            values=np.zeros(1, np.int64)))
        if (layer.kernel, layer.stride) != (1, 1):
            self.append(SlidingWindow(f"{layer.name}_window", kernel=(layer.kernel,) * 2,
                                      stride=(layer.stride,) * 2))
        # OIHW in the net, (ky, kx, c) in the stream
        self.matvec(layer, scale, lambda w: w.transpose(0, 2, 3, 1).reshape(len(w), -1))

    @add.register
    def _(self, layer: Linear) -> None:
        scale, (height, width, channels) = self.settled(layer), self.edge_of()
        if isinstance(self.nodes[-1], Flatten):
            height, width, channels = self.graph.reads(self.nodes[-1])[0].shape
        if layer.in_features != height * width * channels:
            raise N2uqError(f"{self.net.name}: {layer.name} must have {height * width * channels} "
                            f"input features, not {layer.in_features}")
        # Flatten runs over (C, H, W) in the net, over (H, W, C) in the stream.
        self.matvec(layer, scale, lambda w: w.reshape(len(w), channels, height, width)
                    .transpose(0, 2, 3, 1).reshape(len(w), -1))

    def matvec(self, layer: Conv | Linear, scale: float,
               arrange: Callable[[np.ndarray], np.ndarray]) -> None:
        p = self.net.of(layer)
        k, delta = weight_codes(p["weight"], p["clip_val"][0], layer.bits)
        weights = arrange(2 * k - (2**layer.bits - 1))
        self.append(MatVec(layer.name, weights=weights.astype(np.int16)))
        self.scale = delta * scale

    @add.register(LTQ)
    @add.register(Pact)
    def _(self, layer: LTQ | Pact) -> None:
        """Pending layers and quantizer become steps; a negative δ turns the levels' sign."""
        p, n = self.net.of(layer), 2**layer.bits - 1
        if isinstance(layer, LTQ):
            delta = 2 / n * float(p["scale2"][0])
            quantize: Scalar = lambda y: ltq_levels(p, y)  # noqa: E731
        else:
            delta = float(p["clip_val"][0]) / n
            quantize = lambda y: pact_levels(p, layer.bits, y)  # noqa: E731
        edge = self.graph.edges[self.nodes[-1].name]
        shared = len(self.scale) == 1 and not self.waiting
        span = slice(0, 1) if shared else slice(None)
        lo, hi = (edge.lo.min()[None], edge.hi.max()[None]) if shared else (edge.lo, edge.hi)
        stages, turns = self.stages()
        thresholds, signs, base = step_function([*stages, quantize], turns, lo[span], hi[span], n)
        sign = int(np.sign(delta))
        self.append(Threshold(layer.name, thresholds=thresholds,
                              signs=(signs * sign).astype(np.int8), base=base * sign))
        self.scale, self.waiting = np.array([abs(delta) or 1.0]), []

    def stages(self) -> tuple[list[Scalar], list[int]]:
        """The waiting layers as functions of the integer, and which of them turn."""
        scale, stages = self.scale, []
        stages.append(lambda x: x * scale)
        turns = []
        for layer in self.waiting:
            p = self.net.of(layer)
            if isinstance(layer, PReLU) and (p["weight"] < 0).any():
                turns.append(len(stages))
            stages.append(lambda x, layer=layer, p=p: layer_float(layer, p, x))
        return stages, turns

    @add.register
    def _(self, layer: MaxPoolLayer) -> None:
        self.settled(layer)
        self.append(SlidingWindow(f"{layer.name}_window", kernel=(layer.kernel,) * 2,
                                  stride=(layer.stride,) * 2))
        self.append(MaxPool(layer.name, positions=layer.kernel**2))

    @add.register
    def _(self, layer: AvgPool) -> None:
        scale, (height, width, _) = self.settled(layer), self.edge_of()
        self.append(Flatten(f"{layer.name}_pixels"))
        self.append(SumPool(layer.name, positions=height * width))
        self.scale = np.array([scale / (height * width)])

    @add.register
    def _(self, layer: FlattenLayer) -> None:
        self.settled(layer)
        if self.edge_of()[:2] != (1, 1):
            self.append(Flatten(layer.name))

    def finish(self, top1: bool) -> Graph:
        """Scale the last accumulators to logits; ``y = (x·m + c) >> r`` rounds half up."""
        turning = [layer for layer in self.waiting if isinstance(layer, PReLU)]
        if turning:
            raise N2uqError(f"{self.net.name}: PReLU {turning[0].name} must be followed by a "
                            f"quantizer, not by the output")
        channels = self.edge_of()[2]
        stages, _ = self.stages()
        y = np.stack([np.zeros(channels), np.ones(channels)])
        for stage in stages:
            y = stage(y)
        slope, intercept = y[1] - y[0], y[0]
        unit = 2.0**-LOGIT_FRACTION_BITS
        largest = float(np.abs(slope).max()) / unit
        shift = max(0, MULTIPLIER_BITS - int(np.floor(np.log2(largest or 1.0))) - 1)
        self.append(Scale(
            "logits", multiplier=np.rint(slope / unit * 2**shift).astype(np.int64), shift=shift,
            offset=np.rint(intercept / unit * 2**shift).astype(np.int64) + (1 << shift >> 1)))
        if top1:
            self.append(ArgMax("top1"))
        meta = {"net": self.net.name, "dataset": self.net.meta.get("dataset", ""),
                "output": "class" if top1 else "logits", "output_scale": 1.0 if top1 else unit}
        return replace(self.graph, meta=meta).verify()
