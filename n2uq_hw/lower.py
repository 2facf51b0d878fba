"""From a trained net to the integer graph.

Between a matrix product and the next quantizer, a trained network is a scalar function of the
integer accumulator per channel.  `step_function` turns it into integer steps that agree with the
float64 formula at every integer of the range.  All other real factors travel along as scales.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial, singledispatchmethod
from itertools import pairwise

import numpy as np

from .errors import N2uqError
from .ir import (
    ArgMax,
    DepthwiseMatVec,
    Edge,
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
    infer,
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
    Params,
    PReLU,
    layer_float,
    ltq_levels,
    pact_levels,
    weight_codes,
)
from .model import Flatten as FlattenLayer
from .model import MaxPool as MaxPoolLayer

__all__ = ["LOGIT_FRACTION_BITS", "lower", "step_function"]

LOGIT_FRACTION_BITS = 8   # an output step of 1/256: far below what separates two classes

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
    ``base + Σ signs·[x >= thresholds]`` equals the function at every integer of lo..hi.  Raises
    N2uqError where a stage overflows float64.

    The range is cut where a turning stage's input changes its sign, into pieces on which the whole
    function is monotone, in float64 too, since rounding is monotone.  On a piece each level is
    passed at most once, and bisection finds where.
    """
    def value(x: np.ndarray, until: int | None = None) -> np.ndarray:
        y = x.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            for stage in stages[:until]:
                # On a piece all stages are largest at an end, and both ends are evaluated.
                if not np.isfinite(y).all():
                    raise N2uqError("values before the quantizer must be finite in float64, "
                                    f"not {y[~np.isfinite(y)][0]}")
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
        for start, end in pairwise(starts):
            at_start = value(np.minimum(start, hi)[None], turn) > 0
            cut = first(lambda x, t=turn, s=at_start: (value(x, t) > 0) != s,  # type: ignore[misc]
                        start[None], end[None])
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
    fraction bits, each less than one step from the real value of its accumulator
    (`meta["output_scale"]` is the step), or the class index.  Raises N2uqError for a
    chain of layers that has no integer form, naming the layer.
    """
    lowering = _Lowering(net)
    for layer in net.layers:
        lowering.add(layer)
    return lowering.finish(top1)


@dataclass
class _Lowering:
    """The nodes so far, and what the last edge stands for.

    real = integer · factors[0] · factors[1] ..., multiplied in this order as the paper writes it
    (acc · Δ · δ), then through the scalar layers that wait for a quantizer.  After a Flatten,
    element i of the stream is element `order[i]` of the net's vector.
    """

    net: Net
    nodes: list[Node] = field(default_factory=list)
    waiting: list[Layer] = field(default_factory=list)
    order: np.ndarray | None = None

    def __post_init__(self) -> None:
        channels, height, width = self.net.input.shape
        pixels = Input("input", shape=(height, width, channels), hi=self.net.input.max)
        self.nodes.append(pixels)
        self.edge: Edge = infer(pixels)
        self.factors = [np.array([float(self.net.input.scale)])]

    def append(self, node: Node) -> None:
        try:
            self.edge = infer(node, self.edge)
        except N2uqError as error:
            raise N2uqError(f"{self.net.name}: {error}") from None
        self.nodes.append(replace(node, inputs=(self.nodes[-1].name,)))

    def error(self, layer: Layer, rule: str) -> N2uqError:
        return N2uqError(f"{self.net.name}: {type(layer).__name__} {layer.name} {rule}")

    def settled(self, layer: Layer) -> np.ndarray:
        """The one factor of the last edge, for a layer that mixes elements."""
        if self.waiting or len(self.factors) > 1:
            raise self.error(layer, "must follow a quantizer (LTQ or Pact) or the input, not "
                             f"{(self.waiting or self.nodes)[-1].name}")
        return self.factors[0]

    def image(self, layer: Layer) -> np.ndarray:
        """The same, for a layer that needs an image."""
        if self.order is not None:
            raise self.error(layer, "must read an image, not the vector of a Flatten")
        return self.settled(layer)

    @singledispatchmethod
    def add(self, layer: Layer) -> None:
        raise N2uqError(f"{self.net.name}: no lowering for {type(layer).__name__} {layer.name}")

    @add.register(BatchNorm)
    @add.register(Bias)
    @add.register(PReLU)
    def _(self, layer: BatchNorm | Bias | PReLU) -> None:
        if layer.channels != self.edge.channels:
            raise self.error(layer, f"must have {self.edge.channels} channels, "
                             f"not {layer.channels}")
        self.waiting.append(layer)

    @add.register
    def _(self, layer: Conv) -> None:
        factor, channels = self.image(layer), self.edge.channels
        if channels != layer.in_channels:
            raise self.error(layer, f"must have {channels} input channels, not {layer.in_channels}")
        depthwise = layer.groups > 1 and layer.groups == layer.in_channels == layer.out_channels
        if layer.groups != 1 and not depthwise:
            raise self.error(layer, f"must have 1 group or be depthwise, not {layer.groups} groups "
                             f"of {layer.in_channels} to {layer.out_channels} channels")
        if layer.padding:
            self.append(Pad(f"{layer.name}_pad", frame=(layer.padding,) * 4,
                            values=np.zeros(1, np.int64)))
        if depthwise or (layer.kernel, layer.stride) != (1, 1):
            self.append(SlidingWindow(f"{layer.name}_window", kernel=(layer.kernel,) * 2,
                                      stride=(layer.stride,) * 2))
        weights, delta = self.weights(layer)
        # OIHW in the net, (ky, kx, c) in the stream
        if depthwise:
            self.append(DepthwiseMatVec(layer.name, weights=weights.reshape(channels, -1).T))
        else:
            self.append(MatVec(layer.name, weights=weights.transpose(0, 2, 3, 1)
                               .reshape(len(weights), -1)))
        self.factors = [delta, factor]

    @add.register
    def _(self, layer: Linear) -> None:
        factor, edge = self.settled(layer), self.edge
        if edge.shape[:2] != (1, 1):
            raise self.error(layer, f"must follow a Flatten, not read an image {edge.shape}")
        if layer.in_features != edge.channels:
            raise self.error(layer, f"must have {edge.channels} input features, "
                             f"not {layer.in_features}")
        weights, delta = self.weights(layer)
        self.append(MatVec(layer.name, weights=self.ordered(weights)))
        self.factors, self.order = [delta, factor], None

    def weights(self, layer: Conv | Linear) -> tuple[np.ndarray, np.ndarray]:
        """Odd integer weights int16, and their real value per unit and channel."""
        p = self.net.of(layer)
        k, delta = weight_codes(p["weight"], p["clip_val"][0], layer.bits)
        return (2 * k - (2**layer.bits - 1)).astype(np.int16), delta

    def ordered(self, values: np.ndarray) -> np.ndarray:
        """`values` [..., C] of the net, in the order of the stream."""
        return values if self.order is None else values[..., self.order]

    @add.register(LTQ)
    @add.register(Pact)
    def _(self, layer: LTQ | Pact) -> None:
        """Waiting layers and quantizer become steps; a negative δ turns the levels' sign."""
        p, n = self.net.of(layer), 2**layer.bits - 1
        quantize: Scalar
        if isinstance(layer, LTQ):
            delta, quantize = 2 / n * float(p["scale2"][0]), partial(ltq_levels, p)
        else:
            delta, quantize = float(p["clip_val"][0]) / n, partial(pact_levels, p, layer.bits)
        lo, hi = self.edge.lo, self.edge.hi
        if not self.waiting and all(factor.size == 1 for factor in self.factors):
            lo, hi = lo.min(keepdims=True), hi.max(keepdims=True)  # one function for all channels
        stages, turns = self.stages()
        try:
            thresholds, signs, base = step_function([*stages, quantize], turns, lo, hi, n)
        except N2uqError as error:
            raise self.error(layer, f"cannot be lowered: {error}") from None
        sign = int(np.sign(delta))
        if sign == 0:  # scale2 = 0: all levels are 0
            thresholds, signs = thresholds[:, :0], signs[:, :0]
        self.append(Threshold(layer.name, thresholds=thresholds,
                              signs=(signs * sign).astype(np.int8), base=base * sign))
        self.factors, self.waiting = [np.array([abs(delta) or 1.0])], []

    def stages(self) -> tuple[list[Scalar], list[int]]:
        """Factors and waiting layers as functions of the integer, and which of them turn."""
        stages: list[Scalar] = [partial(np.multiply, factor) for factor in self.factors]
        turns = []
        for layer in self.waiting:
            p: Params = {key: self.ordered(value.reshape(-1))
                         for key, value in self.net.of(layer).items()}
            if isinstance(layer, PReLU) and (p["weight"] < 0).any():
                turns.append(len(stages))
            stages.append(partial(layer_float, layer, p))
        return stages, turns

    @add.register
    def _(self, layer: MaxPoolLayer) -> None:
        self.image(layer)
        self.append(SlidingWindow(f"{layer.name}_window", kernel=(layer.kernel,) * 2,
                                  stride=(layer.stride,) * 2))
        self.append(MaxPool(layer.name, positions=layer.kernel**2))

    @add.register
    def _(self, layer: AvgPool) -> None:
        factor, (height, width, _) = self.image(layer), self.edge.shape
        self.append(Flatten(f"{layer.name}_pixels"))
        self.append(SumPool(layer.name, positions=height * width))
        self.factors = [factor / (height * width)]

    @add.register
    def _(self, layer: FlattenLayer) -> None:
        self.settled(layer)
        height, width, channels = self.edge.shape
        if (height, width) != (1, 1):
            # The net's vector runs over (C, H, W), the stream over (H, W, C).
            self.order = (np.arange(self.edge.size).reshape(channels, height, width)
                          .transpose(1, 2, 0).reshape(-1))
            self.append(Flatten(layer.name))

    def finish(self, top1: bool) -> Graph:
        """Scale the last accumulators to logits; ``y = (x·m + c) >> r`` rounds half up."""
        if self.order is not None:
            raise N2uqError(f"{self.net.name}: a Flatten must be followed by a Linear, "
                            f"not by the output")
        if turning := [layer for layer in self.waiting if isinstance(layer, PReLU)]:
            raise self.error(turning[0], "must be followed by a quantizer, not by the output")
        # The two ends of the range give the line with the least rounding.
        edge = self.edge
        span = max(1, int(-edge.lo.min()), int(edge.hi.max()))
        y = np.repeat([[0.0], [float(span)]], edge.channels, axis=1)
        with np.errstate(over="ignore", invalid="ignore"):
            for stage in self.stages()[0]:
                y = stage(y)
        slope, intercept = (y[1] - y[0]) / span, y[0]
        # Rounding the multiplier moves x·m by at most half a step, rounding y by another half.
        unit, shift = 2.0**-LOGIT_FRACTION_BITS, span.bit_length() + 1
        m, c = slope / unit * 2.0**shift, intercept / unit * 2.0**shift
        if not (np.abs(m) * span + np.abs(c) < 2.0**60).all():
            raise N2uqError(f"{self.net.name}: logits must stay below 2^{60 - shift} steps of "
                            f"{unit}, not reach {np.abs(y).max():.3g}")
        self.append(Scale("logits", multiplier=np.rint(m).astype(np.int64), shift=shift,
                          offset=np.rint(c).astype(np.int64) + (1 << shift >> 1)))
        if top1:
            self.append(ArgMax("top1"))
        meta = {"net": self.net.name, "dataset": self.net.meta.get("dataset", ""),
                "output": "class" if top1 else "logits", "output_scale": 1.0 if top1 else unit}
        return Graph(self.net.name, tuple(self.nodes), meta).verify()
