"""From a trained net to the integer graph.

Between a matrix product and the next quantizer, a trained network is a scalar function of an
integer per channel, and becomes integer steps that agree with the float64 formula at every integer
of the range.  What the net adds, pools or classifies in reals is rounded to fixed point of one step
per net (`Formats`).  All other real factors travel along as scales.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial, singledispatchmethod

import numpy as np

from .. import ir, model
from ..errors import N2uqError
from ..ir import (
    ArgMax,
    DepthwiseMatVec,
    Edge,
    Graph,
    Input,
    MatVec,
    Node,
    Pad,
    PiecewiseLinear,
    Saturate,
    Scale,
    SlidingWindow,
    SumPool,
    Threshold,
    infer,
)
from ..model import (
    LTQ,
    AvgPool,
    BatchNorm,
    Bias,
    Conv,
    FloatConv,
    FloatLinear,
    Layer,
    Linear,
    Net,
    Pact,
    Params,
    PReLU,
    ReLU,
    ReLU6,
    layer_float,
    ltq_levels,
    pact_levels,
    weight_codes,
)
from ..names import fresh
from .formats import OUTPUT_BITS, Formats, output_fraction_bits
from .precision import Precision, split
from .steps import Scalar, step_function

__all__ = ["Ranges", "lower"]

STEM_BITS = 16            # for which `Precision.pixels` is
PRODUCT_BITS = 60         # of an accumulator times a multiplier: int64, with room for the offset
SPAN = 42                 # bits of an accumulator of logits, for errors of 2^-18 of the largest
NARROW = 32               # bits of any accumulator, for errors of 2^-28 of the largest

Ranges = Mapping[str, tuple[int, int]]


def lower(net: Net, formats: Formats | None = None, *, top1: bool = False,
          ranges: Ranges | None = None) -> Graph:
    """The integer graph of a net.

    Parameters
    ----------
    net: the trained network.
    formats: the integer formats of what is real-valued in the net.
    top1: end in an ArgMax (the class index) instead of the logits.
    ranges: lo and hi by node name, of the residual stream's tensors (`meta["residual"]`), which
        are held in them (see `accuracy.calibrate`).  Without it they are as wide as any image can
        make them.

    Returns
    -------
    A verified graph.  Its output holds the logits, times `meta["output_scale"]`, or the class
    index.  The logits are the accumulators themselves where one factor is all that these lack; else
    in fixed point, each less than one step from the real value of its accumulator, or, of a wide
    accumulator, 2^-18 of the largest.  `meta["output"]` is "class" or
    "logits", or "values" if the net's own ``meta["output"]`` is.  Raises N2uqError for layers that
    have no integer form and for a residual stream that does not fit, naming the layer.
    """
    lowering = _Lowering(net, formats or Formats(), ranges or {})
    for layer in net.layers:
        lowering.lower(layer)
    return lowering.finish(top1)


@dataclass(frozen=True, eq=False)
class _Affine:
    """``slope·x + intercept`` per channel, under the name of the layer that it is part of."""

    name: str
    slope: np.ndarray
    intercept: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return x * self.slope + self.intercept


_Waiting = tuple[Layer | _Affine, ...]


@dataclass(frozen=True, eq=False)
class _Value:
    """What a layer of the net has become: an edge, and what its integers stand for.

    real = integer · factors[0] · factors[1] ..., multiplied in this order as the paper writes it
    (acc · Δ · δ), then through the scalar layers that wait for a quantizer or a format.  After a
    Flatten, element i of the stream is element `order[i]` of the net's vector.
    """

    node: str
    edge: Edge
    factors: tuple[np.ndarray, ...]
    waiting: _Waiting = ()
    order: np.ndarray | None = None

    @property
    def settled(self) -> bool:
        """Whether the real value is the integer times one factor."""
        return not self.waiting and len(self.factors) == 1 and self.factors[0].size == 1


class _Lowering:
    """The nodes so far, and what each layer of the net has become."""

    def __init__(self, net: Net, formats: Formats, ranges: Ranges) -> None:
        self.net, self.formats, self.ranges = net, formats, ranges
        bits, self.precision = formats.residual_fraction_bits, Precision.of(net)
        self.fraction_bits = self.precision.residual if bits is None else bits
        self.step = 2.0**-self.fraction_bits
        self.sources = model.sources(net.layers)
        self.readers = Counter(name for names in self.sources.values() for name in names)
        self.residual: list[str] = []
        self.made: dict[_Value, _Value] = {}
        self.taken = {layer.name for layer in net.layers}
        channels, height, width = net.input.shape
        self.images = self.ours(model.IMAGES)
        pixels = Input(self.images, shape=(height, width, channels), lo=net.input.min,
                       hi=net.input.max)
        self.nodes: list[Node] = [pixels]
        factor, offset = net.input.factor, net.input.offset
        plain = not offset.any() and (factor == factor[0]).all()
        waiting = () if plain else (_Affine(self.images, factor, offset),)
        self.last = _Value(self.images, infer(pixels), (factor[:1] if plain else np.ones(1),),
                           waiting)
        self.values = {self.images: self.last}

    def ours(self, name: str) -> str:
        """The name of a node that is no layer's, apart from all layers and from the others."""
        self.taken.add(name := fresh(name, self.taken))
        return name

    def lower(self, layer: Layer) -> None:
        """Append the nodes of `layer`; what several layers read is settled once, for all."""
        value = self.add(layer, *(self.values[name] for name in self.sources[layer.name]))
        if self.readers[layer.name] > 1 and not value.settled:
            value = self.fixed(value)
        self.values[layer.name] = self.last = value

    def append(self, node: Node, *sources: _Value) -> _Value:
        """Append a node that reads `sources`; its value has the factors of the first."""
        try:
            edge = infer(node, *(source.edge for source in sources))
        except N2uqError as error:
            raise N2uqError(f"{self.net.name}: {error}") from None
        self.nodes.append(replace(node, inputs=tuple(source.node for source in sources)))
        return replace(sources[0], node=node.name, edge=edge)

    def error(self, layer: Layer, rule: str) -> N2uqError:
        return N2uqError(f"{self.net.name}: {type(layer).__name__} {layer.name} {rule}")

    def quantized(self, layer: Layer, x: _Value) -> np.ndarray:
        """The one factor of `x`, for a layer with quantized weights."""
        if not x.settled:
            raise self.error(layer, "must follow a quantizer (LTQ or Pact) or the input, not "
                             f"{x.waiting[-1].name if x.waiting else x.node}")
        return x.factors[0]

    def image(self, layer: Layer, x: _Value) -> _Value:
        """`x`, for a layer that needs an image."""
        if x.order is not None:
            raise self.error(layer, "must read an image, not the vector of a Flatten")
        return x

    # --- Real values: steps and fixed point -----------------------------------------------------

    def stages(self, x: _Value, waiting: _Waiting) -> list[Scalar]:
        """Factors and waiting layers as functions of the integer."""
        stages: list[Scalar] = [partial(np.multiply, factor) for factor in x.factors]
        for layer in waiting:
            if isinstance(layer, _Affine):
                stages.append(layer)
                continue
            p: Params = {key: _ordered(x, value.reshape(-1))
                         for key, value in self.net.of(layer).items()}
            stages.append(partial(layer_float, layer, p))
        return stages

    def line(self, x: _Value, affine: _Waiting, unit: float
             ) -> tuple[np.ndarray, np.ndarray, int]:
        """Slope and intercept [C] of `affine` after `x`, in `unit` per integer, and max |x|."""
        # The two ends of the range give the line with the least rounding.
        span = max(1, int(-x.edge.lo.min()), int(x.edge.hi.max()))
        y = np.repeat([[0.0], [float(span)]], x.edge.channels, axis=1)
        with np.errstate(over="ignore", invalid="ignore"):
            for stage in self.stages(x, affine):
                y = stage(y)
            slope, intercept = (y[1] - y[0]) / span / unit, y[0] / unit
        if not (np.abs(slope) * span + np.abs(intercept) < 2.0**PRODUCT_BITS).all():
            after = affine[-1].name if affine else x.node
            raise N2uqError(f"{self.net.name}: values after {after} must stay below "
                            f"2^{PRODUCT_BITS} steps of {unit}, not reach {np.abs(y).max():.3g}")
        return slope, intercept, span

    def stepped(self, x: _Value) -> bool:
        """Whether the integers of `x` count the net's step."""
        return len(x.factors) == 1 and x.factors[0].size == 1 and x.factors[0] == self.step

    def settled_line(self, x: _Value, affine: _Waiting, unit: float, least: int = 0
                     ) -> tuple[_Value, np.ndarray, np.ndarray, int]:
        """`x` and its `line`; `x` loses bits far below `unit` that a multiplier has no room for.

        It keeps them if it has no more than `least`, or is on the net's step already.
        """
        slope, intercept, span = self.line(x, affine, unit)
        reach = int((np.abs(slope) * span + np.abs(intercept)).max()).bit_length()
        room = PRODUCT_BITS - 2 - reach
        if span.bit_length() <= max(room, least) or self.stepped(x):
            return x, slope, intercept, span
        x = self.narrowed(x, max(room, min(reach + 3, NARROW)))
        return x, *self.line(x, affine, unit)

    def fixed(self, x: _Value) -> _Value:
        """`x` in fixed point of the net's step: nodes for all that waits, made once."""
        if x not in self.made:
            self.made[x] = self.rounded(x)
        return self.made[x]

    def rounded(self, x: _Value) -> _Value:
        """`x` in fixed point, of nodes of its own."""
        if x.settled and self.stepped(x):
            return x
        affine, bend, after, rest = split(x.waiting)
        x, slope, intercept, span = self.settled_line(x, affine, self.step)
        if bend and isinstance(bend[0], PReLU):
            node: Node = self.bent(x, bend[0], after, slope, intercept, span)
        else:
            names = [layer.name for layer in (*affine, *bend)]
            # Taken: of pixels, or levels, of which nothing waits.
            taken = not names or any(node.name == names[-1] for node in self.nodes)
            node = self.straight(self.ours(f"{x.node}_fixed") if taken else names[-1], slope,
                                 intercept, span)
            if bend:
                hi = int(infer(node, x.edge).hi.max())
                most = round(6 / self.step) if isinstance(bend[0], ReLU6) else max(hi, 0)
                node = replace(node, clip=(0, most))
        made = replace(self.append(node, x), factors=(np.array([self.step]),), waiting=rest)
        made = self.held(made)
        return self.fixed(made) if rest else made

    def narrowed(self, x: _Value, bits: int) -> _Value:
        """`x` rounded to so many bits and a sign, where it has more."""
        drop = int(np.abs([x.edge.lo, x.edge.hi]).max()).bit_length() - bits
        if drop <= 0:
            return x
        node = Scale(self.ours(f"{x.node}_rounded"), shift=drop, offset=np.array([1 << drop >> 1]))
        return replace(self.append(node, x), factors=(x.factors[0] * 2.0**drop, *x.factors[1:]))

    def straight(self, name: str, slope: np.ndarray, intercept: np.ndarray, span: int) -> Scale:
        """``y = (x·m + c) >> r``, rounding half up."""
        shift = _shift(span, slope, intercept)
        return Scale(name, multiplier=_scaled(slope, shift), shift=shift,
                     offset=_scaled(intercept, shift) + (1 << shift >> 1))

    def bent(self, x: _Value, prelu: PReLU, after: _Waiting, slope: np.ndarray,
             intercept: np.ndarray, span: int) -> PiecewiseLinear:
        """The lines on both sides of zero, and the bias behind them, if there is one."""
        below = _ordered(x, self.net.of(prelu)["weight"].astype(np.float64))
        more = sum((_ordered(x, self.net.of(bias)["bias"].astype(np.float64).reshape(-1))
                    for bias in after if isinstance(bias, Bias)), np.zeros(1)) / self.step
        rising = slope > 0
        with np.errstate(divide="ignore", invalid="ignore"):
            zero = np.nan_to_num(-intercept / slope, posinf=0, neginf=0)
        # Positive from the turn on, or up to it.
        turn = np.where(rising, np.floor(zero) + 1, np.ceil(zero))
        positive = np.stack([~rising, rising])
        if (flat := slope == 0).any():
            positive[:, flat] = intercept[flat] > 0
        bends = np.where(positive, 1.0, below)
        slopes, intercepts = slope * bends, intercept * bends + more
        shift = _shift(span, slopes, intercepts)
        return PiecewiseLinear(
            prelu.name, turn=turn.clip(-span - 1, span + 1).astype(np.int64),
            multiplier=_scaled(slopes, shift), shift=shift,
            offset=_scaled(intercepts, shift) + (1 << shift >> 1))

    def held(self, x: _Value) -> _Value:
        """A tensor of the residual stream, in the range that was calibrated, or its own."""
        self.residual.append(x.node)
        edge, wanted = x.edge, self.formats.residual_bits
        lo, hi = self.ranges.get(x.node, (int(edge.lo.min()), int(edge.hi.max())))
        if wanted is not None and (need := ir.bits_for(min(lo, -1), hi)[0]) > wanted:
            raise N2uqError(
                f"{self.net.name}: {x.node} needs {need} residual bits for its range {lo}..{hi} "
                f"in steps of 2^-{self.fraction_bits}, not {wanted}")
        if int(edge.lo.min()) >= lo and int(edge.hi.max()) <= hi:
            return x
        return self.append(Saturate(self.ours(f"{x.node}_held"), lo=lo, hi=hi), x)

    # --- Layers ---------------------------------------------------------------------------------

    @singledispatchmethod
    def add(self, layer: Layer, *xs: _Value) -> _Value:
        raise N2uqError(f"{self.net.name}: no lowering for {type(layer).__name__} {layer.name}")

    @add.register(BatchNorm)
    @add.register(Bias)
    @add.register(PReLU)
    def _(self, layer: BatchNorm | Bias | PReLU, x: _Value) -> _Value:
        if layer.channels != x.edge.channels:
            raise self.error(layer, f"must have {x.edge.channels} channels, not {layer.channels}")
        return replace(x, waiting=(*x.waiting, layer))

    @add.register(ReLU)
    @add.register(ReLU6)
    def _(self, layer: ReLU | ReLU6, x: _Value) -> _Value:
        return replace(x, waiting=(*x.waiting, layer))

    @add.register
    def _(self, layer: Conv, x: _Value) -> _Value:
        x = self.image(layer, x)
        factor, channels = self.quantized(layer, x), x.edge.channels
        if channels != layer.in_channels:
            raise self.error(layer, f"must have {channels} input channels, not {layer.in_channels}")
        depthwise = layer.groups > 1 and layer.groups == layer.in_channels == layer.out_channels
        if layer.groups != 1 and not depthwise:
            raise self.error(layer, f"must have 1 group or be depthwise, not {layer.groups} groups "
                             f"of {layer.in_channels} to {layer.out_channels} channels")
        x = self.windows(layer, x, np.zeros(1, np.int64), always=depthwise)
        weights, delta = self.weights(layer)
        # OIHW in the net, (ky, kx, c) in the stream
        node = (DepthwiseMatVec(layer.name, weights=weights.reshape(channels, -1).T)
                if depthwise else _convolution(layer, weights))
        return replace(self.append(node, x), factors=(delta, factor))

    def windows(self, layer: Conv | FloatConv | model.MaxPool, x: _Value, pad: np.ndarray,
                always: bool = False) -> _Value:
        """Padding with `pad` and the layer's windows, where a pixel alone is not all it reads."""
        if model.pair(layer.dilation) != (1, 1):
            raise self.error(layer, f"must have dilation 1, not {layer.dilation}")
        kernel, stride = model.pair(layer.kernel), model.pair(layer.stride)
        if any(sides := model.frame(layer.padding)):
            x = self.append(Pad(self.ours(f"{layer.name}_pad"), frame=sides, values=pad), x)
        if always or (kernel, stride) != ((1, 1), (1, 1)):
            x = self.append(SlidingWindow(self.ours(f"{layer.name}_window"), kernel=kernel,
                                          stride=stride), x)
        return x

    @add.register
    def _(self, layer: FloatConv, x: _Value) -> _Value:
        """Integer weights of `stem_bits`; the normalization of pixels goes into them."""
        x = self.image(layer, x)
        if x.edge.channels != layer.in_channels:
            raise self.error(layer, f"must have {x.edge.channels} input channels, "
                             f"not {layer.in_channels}")
        normal = x.waiting[0] if x.node == self.images and len(x.waiting) == 1 else None
        weights = self.net.of(layer)["weight"].astype(np.float64)
        room = _room(self.formats.stem_bits, weights[0].size)
        if not isinstance(normal, _Affine):
            x = self.narrowed(x if x.settled else self.fixed(x), room)
            codes, delta = _symmetric(weights, self.formats.stem_bits)
            x = self.windows(layer, x, np.zeros(1, np.int64))
            return replace(self.append(_convolution(layer, codes), x),
                           factors=(delta, x.factors[0]))
        # w·(p·factor + offset) = w·factor·(p - black), and the pad is black.
        black = -normal.intercept / normal.slope
        bits = self.precision.pixels
        bits += self.formats.stem_bits - STEM_BITS if bits else 0
        largest = max(self.net.input.max, math.ceil(np.abs(black).max()))
        bits = max(min(bits, room - largest.bit_length()), 0)
        if bits:
            x = self.append(Scale(self.ours("pixels"), multiplier=np.array([1 << bits])), x)
        codes, delta = _symmetric(weights * normal.slope[:, None, None], self.formats.stem_bits)
        x = self.windows(layer, x, np.rint(black * 2**bits).astype(np.int64))
        dark = -(codes.sum(axis=(2, 3)) * black).sum(axis=1) * delta
        return replace(self.append(_convolution(layer, codes), x),
                       factors=(delta, np.array([2.0**-bits])),
                       waiting=(_Affine(layer.name, np.ones(1), dark),))

    @add.register
    def _(self, layer: Linear, x: _Value) -> _Value:
        factor = self.quantized(layer, x)
        weights, delta = self.weights(layer)
        return self.linear(layer, x, weights, (delta, factor))

    @add.register
    def _(self, layer: FloatLinear, x: _Value) -> _Value:
        """Integer weights of `head_bits`."""
        x = x if x.settled else self.fixed(x)
        p, bits = self.net.of(layer), self.formats.head_bits
        x = self.narrowed(x, _room(bits, layer.in_features))
        codes, delta = _symmetric(p["weight"].astype(np.float64), bits)
        made = self.linear(layer, x, codes, (delta, x.factors[0]))
        bias = _Affine(layer.name, np.ones(1), p["bias"].astype(np.float64))
        return replace(made, waiting=(bias,))

    def linear(self, layer: Linear | FloatLinear, x: _Value, weights: np.ndarray,
               factors: tuple[np.ndarray, ...]) -> _Value:
        """One vector's matrix product."""
        if x.edge.shape[:2] != (1, 1):
            raise self.error(layer, f"must follow a Flatten, not read an image {x.edge.shape}")
        if layer.in_features != x.edge.channels:
            raise self.error(layer, f"must have {x.edge.channels} input features, "
                             f"not {layer.in_features}")
        node = MatVec(layer.name, weights=_ordered(x, weights))
        return replace(self.append(node, x), factors=factors, order=None)

    def weights(self, layer: Conv | Linear) -> tuple[np.ndarray, np.ndarray]:
        """Odd integer weights int16, and their real value per unit and channel."""
        p = self.net.of(layer)
        k, delta = weight_codes(p["weight"], p["clip_val"][0], layer.bits)
        return (2 * k - (2**layer.bits - 1)).astype(np.int16), delta

    @add.register(LTQ)
    @add.register(Pact)
    def _(self, layer: LTQ | Pact, x: _Value) -> _Value:
        """Waiting layers and quantizer become steps; a negative δ turns the levels' sign."""
        p, n = self.net.of(layer), 2**layer.bits - 1
        quantize: Scalar
        if isinstance(layer, LTQ):
            delta, quantize = 2 / n * float(p["scale2"][0]), partial(ltq_levels, p)
        else:
            delta, quantize = float(p["clip_val"][0]) / n, partial(pact_levels, p, layer.bits)
        lo, hi = x.edge.lo, x.edge.hi
        if not x.waiting and all(factor.size == 1 for factor in x.factors):
            lo, hi = lo.min(keepdims=True), hi.max(keepdims=True)  # one function for all channels
        turns = [len(x.factors) + k for k, waits in enumerate(x.waiting)
                 if isinstance(waits, PReLU) and (self.net.of(waits)["weight"] < 0).any()]
        try:
            thresholds, signs, base = step_function([*self.stages(x, x.waiting), quantize], turns,
                                                    lo, hi, n)
        except N2uqError as error:
            raise self.error(layer, f"cannot be lowered: {error}") from None
        sign = int(np.sign(delta))
        if sign == 0:  # scale2 = 0: all levels are 0
            thresholds, signs = thresholds[:, :0], signs[:, :0]
        node = Threshold(layer.name, thresholds=thresholds,
                         signs=(signs * sign).astype(np.int8), base=base * sign)
        return replace(self.append(node, x), factors=(np.array([abs(delta) or 1.0]),), waiting=())

    @add.register
    def _(self, layer: model.Add, x: _Value, y: _Value) -> _Value:
        x, y = self.fixed(x), self.fixed(y)
        if (x.order is None) != (y.order is None):
            raise self.error(layer, "must read two images or two vectors, not one of each")
        return self.held(self.append(ir.Add(layer.name), x, y))

    @add.register
    def _(self, layer: model.MaxPool, x: _Value) -> _Value:
        x = self.image(layer, x if x.settled else self.fixed(x))
        # No pixel is below the low end of its range: the pad never wins.
        lo = x.edge.lo if (x.edge.lo != x.edge.lo[0]).any() else x.edge.lo[:1]
        x = self.windows(layer, x, lo, always=True)
        return self.append(ir.MaxPool(layer.name, positions=math.prod(model.pair(layer.kernel))), x)

    @add.register
    def _(self, layer: AvgPool, x: _Value) -> _Value:
        if layer.kernel != 0:
            raise self.error(layer, f"must be of whole maps, not of {layer.kernel} pixels")
        x = self.image(layer, x if x.settled else self.fixed(x))
        height, width, _ = x.edge.shape
        x = self.append(ir.Flatten(self.ours(f"{layer.name}_pixels")), x)
        made = self.append(SumPool(layer.name, positions=height * width), x)
        return replace(made, factors=(x.factors[0] / (height * width),))

    @add.register
    def _(self, layer: model.Flatten, x: _Value) -> _Value:
        x = x if x.settled else self.fixed(x)
        height, width, channels = x.edge.shape
        if (height, width) == (1, 1):
            return x
        # The net's vector runs over (C, H, W), the stream over (H, W, C).
        order = np.arange(x.edge.size)
        if layer.order == "chw":
            order = order.reshape(channels, height, width).transpose(1, 2, 0).reshape(-1)
        return replace(self.append(ir.Flatten(layer.name), x), order=order)

    def output(self, x: _Value) -> _Value:
        """`x` with all factors of one value: the logits in fixed point, or as they are."""
        bits, whole = self.formats.output_fraction_bits, all(f.size == 1 for f in x.factors)
        if bits is None and whole and not x.waiting and x.edge.width <= OUTPUT_BITS:
            return x
        if bits is None:
            slope, intercept, _ = self.line(x, x.waiting, 1.0)
            ends = np.stack([x.edge.lo, x.edge.hi]) * slope
            terms = next((node.weights.shape[1] for node in self.nodes
                          if node.name == x.node and isinstance(node, MatVec)), 1)
            reach = float(np.abs(ends + intercept).max())
            spreads = np.ptp(ends, axis=0) / 2 / math.sqrt(terms)
            spread = float(spreads[spreads > 0].min()) if spreads.any() else reach
            bits = output_fraction_bits(reach, spread, self.fraction_bits if self.residual else 0)
        unit = 2.0**-bits
        x, slope, intercept, span = self.settled_line(x, x.waiting, unit, SPAN)
        node = self.straight(self.ours("logits"), slope, intercept, span)
        return replace(self.append(node, x), factors=(np.array([unit]),), waiting=())

    def finish(self, top1: bool) -> Graph:
        """Settle the output."""
        x = self.last
        if x.order is not None:
            raise N2uqError(f"{self.net.name}: a Flatten must be followed by a Linear, "
                            f"not by the output")
        if any(isinstance(layer, PReLU | ReLU | ReLU6) for layer in x.waiting):
            x = self.fixed(x)
        values = self.net.meta.get("output") == "values"
        if top1 and (values or x.edge.channels == 1):
            raise N2uqError(f"{self.net.name}: top1 must choose among classes, not "
                            + ("values" if values else f"one: the class is 1 where {x.node} is "
                               "above 0"))
        x = self.output(x)
        scale = float(np.prod([factor.item() for factor in x.factors]))
        if top1:
            self.append(ArgMax(self.ours("top1")), x)
        meta = {"net": self.net.name, "dataset": self.net.meta.get("dataset", ""),
                "output": "class" if top1 else "values" if values else "logits",
                "output_scale": 1.0 if top1 else scale, "logit_scale": scale}
        if self.residual:
            meta |= {"residual": self.residual, "residual_fraction_bits": self.fraction_bits}
        return Graph(self.net.name, tuple(self.nodes), meta).verify()


def _ordered(x: _Value, values: np.ndarray) -> np.ndarray:
    """`values` [..., C] of the net, in the order of the stream."""
    return values if x.order is None else values[..., x.order]


def _convolution(layer: Conv | FloatConv, weights: np.ndarray) -> MatVec:
    """OIHW in the net, (ky, kx, c) in the stream."""
    return MatVec(layer.name,
                  weights=weights.transpose(0, 2, 3, 1).reshape(len(weights), -1))


def _symmetric(weights: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Integers in ±(2**(bits - 1) - 1) nearest to `weights` [C, ...] over a scale [C] each."""
    top = 2**(bits - 1) - 1
    largest = np.abs(weights.reshape(len(weights), -1)).max(axis=1)
    delta = np.where(largest > 0, largest, 1.0) / top
    codes = np.rint(weights / delta.reshape(-1, *(1,) * (weights.ndim - 1)))
    return codes.astype(ir.dtype_for(-top, top)), delta


def _room(bits: int, terms: int) -> int:
    """Bits that factors of so many weights of `bits` bits may have: their sum fits int64."""
    return PRODUCT_BITS - (bits - 1) - (terms - 1).bit_length()


def _shift(span: int, slope: np.ndarray, intercept: np.ndarray) -> int:
    """Fraction bits of a multiplier for |x| <= span.

    Rounding it moves x·m by at most a quarter of a step, unless the product's width forbids.
    """
    reach = float((np.abs(slope) * span + np.abs(intercept)).max())
    room = PRODUCT_BITS - int(np.ceil(np.log2(max(reach, 1.0)))) - 1
    return max(min(span.bit_length() + 1, room), 0)


def _scaled(values: np.ndarray, shift: int) -> np.ndarray:
    return np.rint(values * 2.0**shift).astype(np.int64)
