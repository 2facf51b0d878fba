"""From a trained net to the integer graph.

Between a matrix product and the next quantizer, a trained network is a scalar function of an
integer per channel, and becomes integer steps that agree with the float64 formula at every integer
of the range.  What the net adds, pools or classifies in reals is rounded to fixed point of one step
per net (`Formats`).  All other real factors travel along as scales.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np

from .. import ir, model
from ..errors import N2uqError
from ..ir import Graph, Scale, Threshold
from ..model import (
    LTQ,
    BatchNorm,
    Bias,
    Conv,
    FloatConv,
    FloatLinear,
    Linear,
    Net,
    Pact,
    PReLU,
    ReLU,
    ReLU6,
    ltq_levels,
    pact_levels,
    weight_codes,
)
from . import low_bit, moves
from .builder import PRODUCT_BITS, Lowering, Ranges, Rules
from .formats import Formats
from .steps import Scalar, step_function
from .values import Affine, Value

__all__ = ["RULES", "Ranges", "Unlowered", "lower"]

STEM_BITS = 16            # for which `Precision.pixels` is

class Unlowered(N2uqError):
    """A net without an integer form; `layer` names the layer at which that shows."""

    def __init__(self, error: N2uqError, layer: str) -> None:
        super().__init__(str(error))
        self.layer = layer


def lower(net: Net, formats: Formats | None = None, *, top1: bool = False,
          ranges: Ranges | None = None) -> Graph:
    """The integer graph of a net.

    Parameters
    ----------
    net: the trained network.
    formats: the integer formats of what is real-valued in the net.
    top1: end in an ArgMax (the class index) instead of the logits; so does a net whose
        ``meta["top1"]`` is true.
    ranges: lo and hi by node name, of the residual stream's tensors (`meta["residual"]`), which
        are held in them (see `accuracy.calibrate`).  Without it they are as wide as any image can
        make them.

    Returns
    -------
    A verified graph.  Its output holds the logits, times `meta["output_scale"]`, or the class
    index.  The logits are the accumulators themselves where one factor is all that these lack; else
    in fixed point, each less than one step from the real value of its accumulator, or, of a wide
    accumulator, 2^-18 of the largest.  `meta["output"]` is "class" or
    "logits", or "values" if the net's own ``meta["output"]`` is.  `meta["exact"]` says of each
    quantizer of a low-bit net how it is proven, `meta["warnings"]` which are constant.  Raises
    Unlowered, an N2uqError, for layers that have no integer form and for a residual stream that
    does not fit, naming the layer.
    """
    lowering = Lowering(net, formats or Formats(), ranges or {}, RULES)
    layer = net.layers[-1]
    try:
        for layer in net.layers:
            lowering.lower(layer)
        return lowering.finish(top1 or bool(net.meta.get("top1")))
    except N2uqError as error:
        raise Unlowered(error, layer.name) from None


def _channelwise(self: Lowering, layer: BatchNorm | Bias | PReLU, x: Value) -> Value:
    if layer.channels != x.edge.channels:
        raise self.error(layer, f"must have {x.edge.channels} channels, not {layer.channels}")
    return self.stage(layer, x)


def _bend(self: Lowering, layer: ReLU | ReLU6, x: Value) -> Value:
    return self.stage(layer, x)


def _conv(self: Lowering, layer: Conv, x: Value) -> Value:
    weights, delta = _weights(self, layer)
    return low_bit.convolved(self, layer, x, weights, delta)


def _float_conv(self: Lowering, layer: FloatConv, x: Value) -> Value:
    """Integer weights of `stem_bits`; the normalization of pixels goes into them."""
    x = self.image(layer, x)
    if x.edge.channels != layer.in_channels:
        raise self.error(layer, f"must have {x.edge.channels} input channels, "
                         f"not {layer.in_channels}")
    normal = x.waiting[0] if x.node == self.images and len(x.waiting) == 1 else None
    weights = self.net.of(layer)["weight"].astype(np.float64)
    if layer.groups > 1:
        weights = low_bit.written_out(self, layer, weights)
    room = _room(self.formats.stem_bits, weights[0].size)
    if not isinstance(normal, Affine):
        x = self.narrowed(x if x.settled else self.fixed(x), room)
        codes, delta = _symmetric(weights, self.formats.stem_bits)
        factor, x = x.factor, self.windows(layer, x, np.zeros(1, np.int64))
        return low_bit.product(self.append(low_bit.matrix(layer, codes), x), (delta, factor))
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
    return low_bit.product(self.append(low_bit.matrix(layer, codes), x),
                           (delta, np.array([2.0**-bits])),
                           waiting=(Affine(layer.name, np.ones(1), dark),))


def _linear(self: Lowering, layer: Linear, x: Value) -> Value:
    weights, delta = _weights(self, layer)
    return low_bit.multiplied(self, layer, x, weights, delta)


def _float_linear(self: Lowering, layer: FloatLinear, x: Value) -> Value:
    """Integer weights of `head_bits`."""
    x = x if x.settled else self.fixed(x)
    p, bits = self.net.of(layer), self.formats.head_bits
    x = self.narrowed(x, _room(bits, layer.in_features))
    codes, delta = _symmetric(p["weight"].astype(np.float64), bits)
    product = low_bit.multiplied(self, layer, x, codes, delta)
    bias = Affine(layer.name, np.ones(1), p["bias"].astype(np.float64))
    return replace(product, waiting=(bias,))


def _weights(self: Lowering, layer: Conv | Linear) -> tuple[np.ndarray, np.ndarray]:
    """Odd integer weights int16, and their real value per unit and channel."""
    p = self.net.of(layer)
    k, delta = weight_codes(p["weight"], p["clip_val"][0], layer.bits)
    return (2 * k - (2**layer.bits - 1)).astype(np.int16), delta


def _quantizer(self: Lowering, layer: LTQ | Pact, x: Value) -> Value:
    """Waiting layers and quantizer become steps; a negative δ turns the levels' sign."""
    if x.terms:
        x = self.fixed(x)
    p, n = self.net.of(layer), 2**layer.bits - 1
    quantize: Scalar
    if isinstance(layer, LTQ):
        delta, quantize = 2 / n * float(p["scale2"][0]), partial(ltq_levels, p)
    else:
        delta, quantize = float(p["clip_val"][0]) / n, partial(pact_levels, p, layer.bits)
    lo, hi = x.edge.lo, x.edge.hi
    if x.plain and x.uniform:
        lo, hi = lo.min(keepdims=True), hi.max(keepdims=True)  # one function for all channels
    stages = x.stages(x.waiting)
    turns = [(len(stages) - len(x.waiting) + k, turn) for k, stage in enumerate(x.waiting)
             for turn in stage.turns]
    try:
        thresholds, signs, base = step_function([*stages, quantize], turns, lo, hi, n)
    except N2uqError as error:
        raise self.error(layer, f"cannot be lowered: {error}") from None
    sign = int(np.sign(delta))
    if sign == 0:  # scale2 = 0: all levels are 0
        thresholds, signs = thresholds[:, :0], signs[:, :0]
    node = Threshold(layer.name, thresholds=thresholds,
                     signs=(signs * sign).astype(np.int8), base=base * sign)
    return self.counted(self.append(node, x), abs(delta) or 1.0)


def _add(self: Lowering, layer: model.Add, x: Value, y: Value) -> Value:
    if (x.order is None) != (y.order is None):
        raise self.error(layer, "must read two images or two vectors, not one of each")
    exact = low_bit.added(self, layer, x, y) if self.low_bit else None
    return exact or self.held(self.append(ir.Add(layer.name), self.fixed(x), self.fixed(y)))


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


RULES: Rules = {
    BatchNorm: _channelwise, Bias: _channelwise, PReLU: _channelwise, ReLU: _bend, ReLU6: _bend,
    Conv: _conv, FloatConv: _float_conv, Linear: _linear, FloatLinear: _float_linear,
    LTQ: _quantizer, Pact: _quantizer, model.Add: _add, **low_bit.RULES, **moves.RULES}
