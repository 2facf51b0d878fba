"""The nodes of a graph as a net's layers are lowered to them, and what is real-valued in it.

A rule says what a kind of layer becomes: `lower` has those of N2UQ's layers, `low_bit` those of any
low-bit network's, `moves` those of layers that move or pool pixels.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from .. import ir, model
from ..errors import N2uqError
from ..ir import (
    ArgMax,
    Graph,
    Input,
    MatVec,
    Node,
    Pad,
    PiecewiseLinear,
    Saturate,
    Scale,
    SlidingWindow,
    infer,
)
from ..model import (
    AvgPool,
    Conv,
    FloatConv,
    IntConv,
    IntLinear,
    Layer,
    MaxPool,
    Net,
    PReLU,
    Quant,
    ReLU6,
    Steps,
)
from ..names import fresh
from .formats import EXACT, OUTPUT_BITS, SIGNIFICANT, Formats, output_fraction_bits
from .precision import Precision, split
from .values import Affine, Stage, Value, Waiting, Waits

__all__ = ["PRODUCT_BITS", "Lowering", "Ranges", "Rules"]

PRODUCT_BITS = 60         # of an accumulator times a multiplier: int64, with room for the offset
SPAN = 42                 # bits of an accumulator of logits, for errors of 2^-18 of the largest
WHOLE = 1e-9              # of an integer, what float64 may miss
NARROW = 32               # bits of any accumulator, for errors of 2^-28 of the largest
LOW_BIT = (IntConv, IntLinear, Quant, Steps)  # layers of nets that have a formula for every integer

Ranges = Mapping[str, tuple[int, int]]
Rules = Mapping[type[Layer], Callable[..., Value]]


class Lowering:
    """The nodes so far, and what each layer of the net has become."""

    def __init__(self, net: Net, formats: Formats, ranges: Ranges, rules: Rules) -> None:
        self.net, self.formats, self.ranges, self.rules = net, formats, ranges, rules
        bits, self.precision = formats.residual_fraction_bits, Precision.of(net)
        self.fraction_bits = self.precision.residual if bits is None else bits
        self.step = 2.0**-self.fraction_bits
        self.sources = model.sources(net.layers)
        self.readers = Counter(name for names in self.sources.values() for name in names)
        self.low_bit = any(isinstance(layer, LOW_BIT) for layer in net.layers)
        self.residual: list[str] = []
        self.proofs: dict[str, str] = {}
        self.warnings: list[str] = []
        self.rounded_of: dict[Value, Value] = {}
        self.taken = {layer.name for layer in net.layers}
        channels, height, width = net.input.shape
        self.images = self.ours(model.IMAGES)
        pixels = Input(self.images, shape=(height, width, channels), lo=net.input.min,
                       hi=net.input.max)
        self.nodes: list[Node] = [pixels]
        factor, offset = net.input.factor, net.input.offset
        plain = not offset.any() and (factor == factor[0]).all()
        waiting = () if plain else (Affine(self.images, factor, offset),)
        self.last = Value(self.images, infer(pixels), (factor[:1] if plain else np.ones(1),),
                          waiting)
        self.values = {self.images: self.last}
        self.edges = {self.images: self.last.edge}

    def ours(self, name: str) -> str:
        """The name of a node that is no layer's, apart from all layers and from the others."""
        self.taken.add(name := fresh(name, self.taken))
        return name

    def lower(self, layer: Layer) -> None:
        """Append the nodes of `layer`; what several layers read is settled once, for all.

        A low-bit net's formulas hold for every reader by itself: nothing is rounded for them.
        """
        value = self.add(layer, *(self.values[name] for name in self.sources[layer.name]))
        if self.readers[layer.name] > 1 and not (value.settled or self.low_bit):
            value = self.fixed(value)
        self.values[layer.name] = self.last = value

    def append(self, node: Node, *sources: Value) -> Value:
        """Append a node that reads `sources`; its value has the factors of the first."""
        try:
            edge = infer(node, *(source.edge for source in sources))
        except N2uqError as error:
            raise N2uqError(f"{self.net.name}: {error}") from None
        self.nodes.append(replace(node, inputs=tuple(source.node for source in sources)))
        self.edges[node.name] = edge
        return replace(sources[0], node=node.name, edge=edge)

    def error(self, layer: Layer, rule: str) -> N2uqError:
        return N2uqError(f"{self.net.name}: {type(layer).__name__} {layer.name} {rule}")

    def stage(self, layer: Layer, x: Value) -> Value:
        """`layer` waits behind `x`, with its parameters in the order of the stream."""
        return replace(x, waiting=(*x.waiting, Stage.of(layer, self.net.of(layer), x.order)))

    def image(self, layer: Layer, x: Value) -> Value:
        """`x`, for a layer that needs an image."""
        if x.order is not None:
            raise self.error(layer, "must read an image, not the vector of a Flatten")
        return x

    # --- Real values: steps and fixed point -----------------------------------------------------

    def line(self, x: Value, affine: Waiting, unit: float
             ) -> tuple[np.ndarray, np.ndarray, int]:
        """Slope and intercept [C] of `affine` after `x`, in `unit` per integer, and max |x|."""
        # The two ends of the range give the line with the least rounding.
        span = max(1, int(-x.edge.lo.min()), int(x.edge.hi.max()))
        y = np.repeat([[0.0], [float(span)]], x.edge.channels, axis=1)
        with np.errstate(over="ignore", invalid="ignore"):
            for stage in x.stages(affine):
                y = stage(y)
            slope, intercept = (y[1] - y[0]) / span / unit, y[0] / unit
        if not (np.abs(slope) * span + np.abs(intercept) < 2.0**PRODUCT_BITS).all():
            after = affine[-1].name if affine else x.node
            raise N2uqError(f"{self.net.name}: values after {after} must stay below "
                            f"2^{PRODUCT_BITS} steps of {unit}, not reach {np.abs(y).max():.3g}")
        return slope, intercept, span

    def stepped(self, x: Value) -> bool:
        """Whether the integers of `x` count the net's step."""
        return x.uniform and len(x.factors) == x.divisor == 1 and not x.origin.any() \
            and x.factors[0] == self.step

    def settled_line(self, x: Value, affine: Waiting, unit: float, least: int = 0
                     ) -> tuple[Value, np.ndarray, np.ndarray, int]:
        """`x` and its `line`; `x` loses bits far below `unit` that a multiplier has no room for.

        It keeps them if it has no more than `least`, or is on the net's step already.
        """
        slope, intercept, span = self.line(x, affine, unit)
        reach = int((np.abs(slope) * span + np.abs(intercept)).max()).bit_length()
        room = PRODUCT_BITS - 2 - reach
        if span.bit_length() <= max(room, least):
            return x, slope, intercept, span
        self.warn_of_width(x, affine[-1].name if affine else x.node, span, reach)
        if self.stepped(x):
            return x, slope, intercept, span
        x = self.narrowed(x, max(room, min(reach + 3, NARROW)))
        return x, *self.line(x, affine, unit)

    def warn_of_width(self, x: Value, after: str, span: int, reach: int) -> None:
        """Say that integers up to `span` and the `reach` bits that they become are too wide."""
        warning = (f"{x.node} of {span.bit_length()} bits and {after} of {reach} have more than "
                   f"{PRODUCT_BITS - 2} together: the lowest are lost")
        if warning not in self.warnings:
            self.warnings.append(warning)

    def fixed(self, x: Value) -> Value:
        """`x` in fixed point of the net's step: nodes for all that waits, made once."""
        if x not in self.rounded_of:
            self.rounded_of[x] = self.rounded(x)
        return self.rounded_of[x]

    def rounded(self, x: Value) -> Value:
        """`x` in fixed point, of nodes of its own."""
        if x.settled and self.stepped(x):
            return x
        affine, bend, after, rest = split(x.waiting)
        if bent := [stage for stage in affine if not stage.affine]:
            raise N2uqError(f"{self.net.name}: {bent[0].name} must be followed by a quantizer, "
                            "since it is no line")
        if x.terms:
            x = self.added(x)
            return self.fixed(x) if x.waiting else x
        x, slope, intercept, span = self.settled_line(x, affine, self.step)
        kind = bend[0].layer if bend and isinstance(bend[0], Stage) else None
        if isinstance(kind, PReLU):
            node: Node = self.bent(x, bend[0], after, slope, intercept, span)
        else:
            names = [layer.name for layer in (*affine, *bend)]
            # Taken: of pixels, or levels, of which nothing waits.
            taken = not names or any(node.name == names[-1] for node in self.nodes)
            node = self.straight(self.ours(f"{x.node}_fixed") if taken else names[-1], slope,
                                 intercept, span)
            if bend:
                hi = int(infer(node, x.edge).hi.max())
                most = round(6 / self.step) if isinstance(kind, ReLU6) else max(hi, 0)
                node = replace(node, clip=(0, most))
        value = self.held(self.counted(self.append(node, x), self.step, rest))
        return self.fixed(value) if rest else value

    def counted(self, x: Value, unit: float, waiting: Waiting = ()) -> Value:
        """The node of `x`, whose integers now count `unit`."""
        return Value(x.node, x.edge, (np.array([unit]),), waiting, x.order)

    def added(self, x: Value) -> Value:
        """A sum that waits, of terms in fixed point."""
        terms = [self.fixed(term) for term in x.terms]
        total = self.held(self.append(ir.Add(x.node), *terms))
        return replace(total, waiting=x.waiting)

    def narrowed(self, x: Value, bits: int) -> Value:
        """`x` rounded to so many bits and a sign, where it has more."""
        drop = int(np.abs([x.edge.lo, x.edge.hi]).max()).bit_length() - bits
        if drop <= 0:
            return x
        node = Scale(self.ours(f"{x.node}_rounded"), shift=drop, offset=np.array([1 << drop >> 1]))
        return replace(self.append(node, x), factors=(x.factors[0] * 2.0**drop, *x.factors[1:]),
                       origin=x.origin * 2.0**-drop)

    def straight(self, name: str, slope: np.ndarray, intercept: np.ndarray, span: int) -> Scale:
        """``y = (x·m + c) >> r``, rounding half up."""
        shift = _shift(span, slope, intercept)
        return Scale(name, multiplier=_scaled(slope, shift), shift=shift,
                     offset=_scaled(intercept, shift) + (1 << shift >> 1))

    def bent(self, x: Value, prelu: Waits, after: Waiting, slope: np.ndarray,
             intercept: np.ndarray, span: int) -> PiecewiseLinear:
        """The lines on both sides of zero, and the bias behind them, if there is one."""
        assert isinstance(prelu, Stage)
        below = prelu.params["weight"].astype(np.float64)
        more = sum((bias.params["bias"].astype(np.float64) for bias in after
                    if isinstance(bias, Stage)), np.zeros(1)) / self.step
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
        reach = int((np.abs(slopes) * span + np.abs(intercepts)).max()).bit_length()
        if (np.abs(below) > 1).any() and span.bit_length() + reach > PRODUCT_BITS - 2:
            self.warn_of_width(x, prelu.name, span, reach)  # where its slope has made it so
        shift = _shift(span, slopes, intercepts)
        return PiecewiseLinear(
            prelu.name, turn=turn.clip(-span - 1, span + 1).astype(np.int64),
            multiplier=_scaled(slopes, shift), shift=shift,
            offset=_scaled(intercepts, shift) + (1 << shift >> 1))

    def held(self, x: Value) -> Value:
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

    # --- Layers: windows, and the end -----------------------------------------------------------

    def add(self, layer: Layer, *xs: Value) -> Value:
        """The value of `layer`, which reads `xs`."""
        if type(layer) not in self.rules:
            raise N2uqError(f"{self.net.name}: no lowering for {type(layer).__name__} {layer.name}")
        return self.rules[type(layer)](self, layer, *xs)

    def windows(self, layer: Conv | FloatConv | IntConv | MaxPool | AvgPool, x: Value,
                pad: np.ndarray, always: bool = False, groups: int = 1) -> Value:
        """Padding with `pad` and the layer's windows, where a pixel alone is not all it reads."""
        kernel, stride = model.pair(layer.kernel), model.pair(layer.stride)
        if any(sides := model.frame(layer.padding)):
            x = self.append(Pad(self.ours(f"{layer.name}_pad"), frame=sides, values=pad), x)
        if always or (kernel, stride) != ((1, 1), (1, 1)):
            x = self.append(SlidingWindow(self.ours(f"{layer.name}_window"), kernel=kernel,
                                          stride=stride, groups=groups,
                                          dilation=model.pair(getattr(layer, "dilation", 1))), x)
        return x

    def output(self, x: Value) -> Value:
        """`x` with all factors of one value: the logits in fixed point, or as they are."""
        bits, whole = self.formats.output_fraction_bits, x.uniform and not x.origin.any()
        if bits is None and whole and x.plain and x.edge.width <= OUTPUT_BITS:
            return x
        if bits is None and self.low_bit and (exact := self.whole(x)):
            return exact
        if bits is None:
            slope, intercept, _ = self.line(x, x.waiting, 1.0)
            ends = np.stack([x.edge.lo, x.edge.hi]) * slope
            terms = next((node.weights.shape[1] for node in self.nodes
                          if node.name == x.node and isinstance(node, MatVec)), 1)
            reach = float(np.abs(ends + intercept).max())
            spreads = np.ptp(ends, axis=0) / 2 / math.sqrt(terms)
            spread = float(spreads[spreads > 0].min()) if spreads.any() else reach
            bits = output_fraction_bits(reach, spread, self.fraction_bits if self.residual else 0,
                                        EXACT if self.low_bit else SIGNIFICANT)
        unit = 2.0**-bits
        x, slope, intercept, span = self.settled_line(x, x.waiting, unit, SPAN)
        node = self.straight(self.ours("logits"), slope, intercept, span)
        return self.counted(self.append(node, x), unit)

    def whole(self, x: Value) -> Value | None:
        """`x` as integers times one factor, if it is so: with what is added to an accumulator."""
        slope, intercept, span = self.line(x, x.waiting, 1.0)
        unit = float(slope[0])
        if unit <= 0 or (np.abs(slope - unit) > WHOLE * unit / span).any():
            return None
        offset = np.rint(intercept / unit)
        if (np.abs(intercept / unit - offset) > WHOLE).any() or np.abs(offset).max() >= 2.0**SPAN:
            return None
        if offset.any():
            node = Scale(self.ours("logits"), offset=offset.astype(np.int64))
            x = self.append(node, x)
        return self.counted(x, unit) if x.edge.width <= OUTPUT_BITS else None

    def finish(self, top1: bool) -> Graph:
        """Settle the output."""
        x = self.last
        if x.order is not None:
            raise N2uqError(f"{self.net.name}: a Flatten must be followed by a Linear, "
                            f"not by the output")
        if x.terms or not all(stage.affine for stage in x.waiting):
            x = self.fixed(x)
        values = self.net.meta.get("output") == "values"
        if top1 and (values or x.edge.channels == 1):
            raise N2uqError(f"{self.net.name}: top1 must choose among classes, not "
                            + ("values" if values else f"one: the class is 1 where {x.node} is "
                               "above 0"))
        x = self.output(x)
        scale = float(x.factor.item())
        if top1:
            self.append(ArgMax(self.ours("top1")), x)
        meta = {"net": self.net.name, "dataset": self.net.meta.get("dataset", ""),
                "output": "class" if top1 else "values" if values else "logits",
                "output_scale": 1.0 if top1 else scale, "logit_scale": scale}
        if "history" in self.net.meta:  # of the training, for the report
            meta["history"] = self.net.meta["history"]
        if self.residual:
            meta |= {"residual": self.residual, "residual_fraction_bits": self.fraction_bits}
        if self.proofs:
            meta["exact"] = self.proofs
        if self.warnings:
            meta["warnings"] = self.warnings
        return Graph(self.net.name, tuple(self.nodes), meta).verify()


def _shift(span: int, slope: np.ndarray, intercept: np.ndarray) -> int:
    """Fraction bits of a multiplier for |x| <= span.

    Rounding it moves x·m by at most a quarter of a step, unless the product's width forbids.
    """
    reach = float((np.abs(slope) * span + np.abs(intercept)).max())
    room = PRODUCT_BITS - int(np.ceil(np.log2(max(reach, 1.0)))) - 1
    return max(min(span.bit_length() + 1, room), 0)


def _scaled(values: np.ndarray, shift: int) -> np.ndarray:
    return np.rint(values * 2.0**shift).astype(np.int64)
