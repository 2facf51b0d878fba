"""How fine the residual stream and padded pixels must be, by the gain of what follows them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from functools import singledispatchmethod
from typing import TypeVar

import numpy as np

from ..model import (
    LTQ,
    Add,
    AvgPool,
    BatchNorm,
    Bias,
    Concat,
    Conv,
    Flatten,
    FloatConv,
    FloatLinear,
    IntConv,
    IntLinear,
    Layer,
    Linear,
    Net,
    Pact,
    Pointwise,
    PReLU,
    Quant,
    ReLU,
    ReLU6,
    Steps,
    frame,
    images_name,
    pair,
    sources,
    ungrouped,
    walk,
)
from ..model.layers import BN_EPS
from .formats import LEAST, LIMITS

__all__ = ["BUDGET", "Precision", "split"]

# What rounding may move the residual stream by, of an interval between thresholds.  It flips about
# that share of the levels, and a 2-bit net amplifies flips: of a trained ResNet-18's classes, 2 %
# change at 9 fraction bits and none at the 16 that this asks for.
BUDGET = 2**-11
STEPS_PER_BLOCK = 2   # roundings of at most a step: the sum's last convolution, bias-PReLU-bias
T = TypeVar("T")


def split(waiting: tuple[T, ...]) -> tuple[tuple[T, ...], tuple[T, ...], tuple[T, ...],
                                           tuple[T, ...]]:
    """What of the layers that wait is rounded together: affine ones, a bend, its bias; the rest."""
    layers = [getattr(each, "layer", each) for each in waiting]
    bend = next((k for k, layer in enumerate(layers)
                 if isinstance(layer, PReLU | ReLU | ReLU6)), len(layers))
    after = bend + 1
    if isinstance(next(iter(layers[bend:]), None), PReLU):
        after += isinstance(next(iter(layers[after:]), None), Bias)
    return waiting[:bend], waiting[bend:bend + 1], waiting[bend + 1:after], waiting[after:]


@dataclass(frozen=True)
class Precision:
    """Fraction bits that keep roundings within `BUDGET`.

    residual: of the residual stream.  Whatever path it takes, all that is rounded before a
        quantizer moves what it reads by less than `BUDGET` of its mean interval; so would all
        roundings of the net, if each had the gain of the path from the one with the most.  At least
        `LEAST`, as the outputs have, where these come from the stream.
    pixels: of padded pixels, which move it by as much at most.

    Lowering keeps to it where a tensor and what it is made of have at most 58 bits together, so
    that a multiplier has all that it needs; a wider one errs by 2^-58 of the two largest values'
    product, in steps.
    """

    residual: int
    pixels: int

    @classmethod
    def of(cls, net: Net) -> Precision:
        """By the gain of every path from a rounding to a quantizer."""
        rounding = _Rounding(net)
        total, single, pixels = rounding.worst
        roundings = STEPS_PER_BLOCK * (1 + sum(isinstance(layer, Add) for layer in net.layers))
        least = LEAST if rounding.last.errors[0].any() else 0
        return cls(max(_bits(max(total, roundings * single)), least), _bits(pixels))


def _bits(moved: float) -> int:
    """Fraction bits of units that move a value by `moved` intervals."""
    most = LIMITS["residual_fraction_bits"][1]
    if not 0 < moved < 2.0**most:
        return most if moved > 0 else 0
    return min(max(math.ceil(math.log2(moved / BUDGET)), 0), most)


@dataclass(frozen=True, eq=False)
class _Moved:
    """How far rounding may move a value, before the layers that `wait` for a quantizer or a format.

    `errors` is [3, C] or [3, 1]: in steps of the stream, by all roundings together, and by the one
    that has the most gain; in reals, by rounding padded pixels to whole ones.
    `settled`: the value is an integer times one factor; `stepped`: times the step of the stream.
    """

    errors: np.ndarray
    waiting: tuple[Layer, ...] = ()
    settled: bool = False
    stepped: bool = False


class _Rounding:
    """The errors of a net, followed from layer to layer; it is rounded where lowering rounds.

    `worst` [3]: the largest errors that a quantizer reads, in its intervals; `last`: of the output.
    """

    def __init__(self, net: Net) -> None:
        self.net, self.sources, self.worst = net, sources(net.layers), np.zeros(3)
        self.readers = Counter(name for names in self.sources.values() for name in names)
        factor, offset = net.input.factor, net.input.offset
        plain = not offset.any() and bool((factor == factor[0]).all())
        self.last = walk(net.layers, _Moved(np.zeros((3, 1)), settled=plain), self.step)
        if not self.worst.any():  # no quantizer: as if one of interval 1 came last
            self.worst = self.through(self.last.errors, self.last.waiting).max(axis=1)

    def step(self, layer: Layer, *xs: _Moved) -> _Moved:
        y = self.moved(layer, *xs)
        return self.fixed(y) if self.readers[layer.name] > 1 and not y.settled else y

    def through(self, errors: np.ndarray, layers: tuple[Layer, ...]) -> np.ndarray:
        """Errors behind scalar layers."""
        for layer in layers:
            p = {key: value.astype(np.float64) for key, value in self.net.of(layer).items()}
            if isinstance(layer, BatchNorm):
                errors = _times(p["weight"] / np.sqrt(p["running_var"] + BN_EPS), errors)
            elif isinstance(layer, PReLU):
                errors = _times(np.maximum(np.abs(p["weight"]), 1), errors)
            elif isinstance(layer, Pointwise) and layer.op in ("mul", "div"):
                errors = _times(p["value"] if layer.op == "mul" else 1 / p["value"], errors)
        return errors

    def fixed(self, x: _Moved) -> _Moved:
        """`x` in fixed point: rounded once for each bend that waits."""
        if x.stepped:
            return x
        affine, bend, bias, rest = split(x.waiting)
        total, single, pixels = self.through(x.errors, (*affine, *bend, *bias))
        errors = np.stack([total + 1, np.maximum(single, 1), pixels])
        moved = _Moved(errors, rest, settled=not rest, stepped=not rest)
        return self.fixed(moved) if rest else moved

    @singledispatchmethod
    def moved(self, layer: Layer, x: _Moved) -> _Moved:
        """Layers that move pixels."""
        return x if x.settled else self.fixed(x)

    @moved.register(Conv)
    @moved.register(Linear)
    def _(self, layer: Conv | Linear, x: _Moved) -> _Moved:
        return _Moved(np.zeros((3, 1)))  # levels are exact

    @moved.register(IntConv)
    @moved.register(IntLinear)
    def _(self, layer: IntConv | IntLinear, x: _Moved) -> _Moved:
        p, errors = self.net.of(layer), self.through(x.errors, x.waiting)
        gain = np.abs(p["codes"].reshape(len(p["codes"]), -1).astype(np.float64)).sum(axis=1)
        return _Moved(_times(gain * p["scale"], errors.max(axis=1, keepdims=True)))

    @moved.register(BatchNorm)
    @moved.register(Bias)
    @moved.register(PReLU)
    @moved.register(ReLU)
    @moved.register(ReLU6)
    @moved.register(Pointwise)
    def _(self, layer: Layer, x: _Moved) -> _Moved:
        return _Moved(x.errors, (*x.waiting, layer))

    @moved.register(LTQ)
    @moved.register(Pact)
    @moved.register(Quant)
    @moved.register(Steps)
    def _(self, layer: LTQ | Pact | Quant | Steps, x: _Moved) -> _Moved:
        p = self.net.of(layer)
        if isinstance(layer, Quant):
            density = 1 / float(p["scale"].min())
        elif isinstance(layer, Steps):
            span = np.ptp(p["thresholds"])
            density = layer.steps / float(span) if span else 0.0
        elif isinstance(layer, LTQ):
            density = abs(float(p["scale1"][0])) / float(np.maximum(p["a"], 1e-3).mean())
        else:
            density = (2**layer.bits - 1) / float(p["clip_val"][0])
        errors = _times(np.array([density]), self.through(x.errors, x.waiting))
        self.worst = np.maximum(self.worst, errors.max(axis=1))
        return _Moved(np.zeros((3, 1)), settled=True)

    @moved.register
    def _(self, layer: Add, x: _Moved, y: _Moved) -> _Moved:
        x, y = self.fixed(x), self.fixed(y)
        a, b = _over(x.errors, y.errors.shape[1]), _over(y.errors, x.errors.shape[1])
        with np.errstate(over="ignore"):
            sums = np.stack([a[0] + b[0], np.maximum(a[1], b[1]), a[2] + b[2]])
        return replace(x, errors=sums)

    @moved.register
    def _(self, layer: Concat, *xs: _Moved) -> _Moved:
        return _Moved(np.max([self.fixed(x).errors.max(axis=1, keepdims=True) for x in xs], axis=0))

    @moved.register(FloatConv)
    @moved.register(FloatLinear)
    def _(self, layer: FloatConv | FloatLinear, x: _Moved) -> _Moved:
        weights = np.abs(self.net.of(layer)["weight"].astype(np.float64))
        if isinstance(layer, FloatConv):
            weights = ungrouped(weights, layer.groups)
        images = self.sources[layer.name] == (images_name(self.net.layers),) and not x.settled
        if isinstance(layer, FloatConv) and images:
            errors = np.zeros((3, len(weights)))
            rounded = np.where(self.net.input.offset, self.net.input.factor, 0)
            if len(rounded) == weights.shape[1]:
                errors[2] = _padded(layer, weights * rounded[:, None, None], self.net.input.shape)
            return _Moved(errors)
        x = x if x.settled else self.fixed(x)
        each = np.broadcast_to(_over(x.errors, weights.shape[1]), (3, weights.shape[1]))
        return _Moved(each @ weights.reshape(*weights.shape[:2], -1).sum(axis=2).T)

    @moved.register
    def _(self, layer: AvgPool, x: _Moved) -> _Moved:
        x = x if x.settled else self.fixed(x)
        pixels = math.prod(pair(layer.kernel)) if layer.total else 1
        return replace(x, errors=x.errors * pixels, stepped=False)

    @moved.register
    def _(self, layer: Flatten, x: _Moved) -> _Moved:
        x = x if x.settled else self.fixed(x)
        return replace(x, errors=x.errors.max(axis=1, keepdims=True))


def _over(errors: np.ndarray, channels: int) -> np.ndarray:
    """Errors that go with so many channels: a net that does not fit is refused elsewhere."""
    return errors if channels in (1, errors.shape[1]) else errors.max(axis=1, keepdims=True)


def _times(gain: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """What is exact stays so, whatever the gain."""
    errors = _over(errors, len(gain))
    with np.errstate(over="ignore", invalid="ignore"):
        return np.where(errors > 0, errors * np.abs(gain), 0)


def _padded(layer: FloatConv, weights: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Half the largest sum of `weights` [C, I, k, k] over the padded pixels of a window, [C]."""
    inside, sides = [], frame(layer.padding)
    for size, kernel, stride, pads in zip(shape[1:], pair(layer.kernel), pair(layer.stride),
                                          (sides[:2], sides[2:]), strict=True):
        if size + sum(pads) < kernel:  # refused elsewhere
            return np.zeros(len(weights))
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(np.ones(size), pads), kernel)
        inside.append(np.unique(windows[::stride], axis=0))
    rows, columns = inside
    padded = 1 - rows[:, None, :, None] * columns[None, :, None, :]
    return np.einsum("oikl,rskl->ors", weights, padded).max(axis=(1, 2)) / 2
