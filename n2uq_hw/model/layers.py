"""Layers of N2UQ networks, and what they compute: the formulas of the paper in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import singledispatch
from typing import Any, ClassVar

import numpy as np

from ..errors import N2uqError

__all__ = [
    "BN_EPS", "LATER", "LTQ", "Add", "AvgPool", "BatchNorm", "Bias", "Conv", "Flatten",
    "FloatConv", "FloatLinear", "Layer", "Linear", "MaxPool", "PReLU", "Pact", "Padding", "Params",
    "ReLU", "ReLU6", "Shapes", "Size", "convolve", "frame", "layer_float", "ltq_levels",
    "ltq_thresholds", "pact_levels", "pair", "per_channel", "ungrouped", "weight_codes",
    "windows",
]

LATER = {"later": True}  # a field that older files lack; files hold it where it is no default
COLUMNS = 2**23         # float64 entries of a convolution's matrix of windows: 64 MiB
BN_EPS = 1e-5
Params = dict[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]
Size = int | tuple[int, int]       # of a square, or (height, width)
Padding = int | tuple[int, ...]    # all around, (height, width), or (top, bottom, left, right)


def pair(size: Size) -> tuple[int, int]:
    """A size as (height, width)."""
    return (size, size) if isinstance(size, int) else size


def frame(padding: Padding) -> tuple[int, int, int, int]:
    """A padding as (top, bottom, left, right)."""
    sides = (padding, padding) if isinstance(padding, int) else padding
    top, bottom, left, right = sides if len(sides) == 4 else (sides[0],) * 2 + (sides[1],) * 2
    return top, bottom, left, right


@dataclass(frozen=True)
class Layer:
    """One layer: hyperparameters only; `Net.params` holds its arrays as ``name.parameter``.

    `inputs` names the layers that it reads; `images_name` is what the images are called, "input"
    unless a layer has that name.  () is the layer before it.
    """

    name: str
    inputs: tuple[str, ...] = field(default=(), kw_only=True, metadata=LATER)
    arity: ClassVar[int] = 1  # inputs; 0: two or more
    TYPES: ClassVar[dict[str, type]] = {}  # of parameters that are not float32
    KINDS: ClassVar[dict[str, type[Layer]]] = {}

    def __init_subclass__(cls) -> None:
        Layer.KINDS[cls.__name__] = cls

    def shapes(self) -> Shapes:
        """Shape of each parameter, by its name inside the layer."""
        return {}


@dataclass(frozen=True)
class Conv(Layer):
    """2-D convolution with N2UQ weights, [N, Cin, H, W] -> [N, Cout, H', W']; pads with 0."""

    in_channels: int
    out_channels: int
    kernel: Size
    stride: Size = 1
    padding: Padding = 0
    groups: int = 1
    bits: int = 2
    dilation: Size = field(default=1, metadata=LATER)

    def shapes(self) -> Shapes:
        """`weight` [Cout, Cin/groups, kh, kw], `clip_val` [1]."""
        return {"weight": (self.out_channels, self.in_channels // self.groups,
                           *pair(self.kernel)), "clip_val": (1,)}


@dataclass(frozen=True)
class Linear(Layer):
    """Matrix product with N2UQ weights, [N, in] -> [N, out]."""

    in_features: int
    out_features: int
    bits: int = 2

    def shapes(self) -> Shapes:
        """`weight` [out, in], `clip_val` [1]."""
        return {"weight": (self.out_features, self.in_features), "clip_val": (1,)}


@dataclass(frozen=True)
class FloatConv(Layer):
    """Full-precision 2-D convolution without bias, [N, Cin, H, W] -> [N, Cout, H', W']."""

    in_channels: int
    out_channels: int
    kernel: Size
    stride: Size = 1
    padding: Padding = 0
    dilation: Size = field(default=1, metadata=LATER)
    groups: int = field(default=1, metadata=LATER)

    def shapes(self) -> Shapes:
        """`weight` [Cout, Cin/groups, kh, kw]."""
        return {"weight": (self.out_channels, self.in_channels // self.groups,
                           *pair(self.kernel))}


@dataclass(frozen=True)
class FloatLinear(Layer):
    """Full-precision matrix product and bias, [N, in] -> [N, out]."""

    in_features: int
    out_features: int

    def shapes(self) -> Shapes:
        """`weight` [out, in], `bias` [out]."""
        return {"weight": (self.out_features, self.in_features), "bias": (self.out_features,)}


@dataclass(frozen=True)
class BatchNorm(Layer):
    """Batch normalization with running statistics, eps 1e-5."""

    channels: int

    def shapes(self) -> Shapes:
        """`weight`, `bias`, `running_mean`, `running_var`, each [C]."""
        return dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (self.channels,))


@dataclass(frozen=True)
class Bias(Layer):
    """Learnable bias per channel."""

    channels: int

    def shapes(self) -> Shapes:
        """`bias` [1, C, 1, 1]."""
        return {"bias": (1, self.channels, 1, 1)}


@dataclass(frozen=True)
class PReLU(Layer):
    """Slope per channel below zero; the slope may be negative."""

    channels: int

    def shapes(self) -> Shapes:
        """`weight` [C]."""
        return {"weight": (self.channels,)}


@dataclass(frozen=True)
class ReLU(Layer):
    """0 below zero."""


@dataclass(frozen=True)
class ReLU6(Layer):
    """0 below zero, 6 above six."""


@dataclass(frozen=True)
class Add(Layer):
    """The sum of two layers of one shape."""

    arity: ClassVar[int] = 2


@dataclass(frozen=True)
class LTQ(Layer):
    """Learnable threshold quantizer to 2**bits levels (paper section 3.2)."""

    bits: int

    def shapes(self) -> Shapes:
        """`start` [1], `a` [2**bits - 1], `scale1` [1], `scale2` [1]."""
        return {"start": (1,), "a": (2**self.bits - 1,), "scale1": (1,), "scale2": (1,)}


@dataclass(frozen=True)
class Pact(Layer):
    """PACT quantizer: clip to 0..c, 2**bits uniform levels, half-even rounding."""

    bits: int

    def shapes(self) -> Shapes:
        """`clip_val` [1]."""
        return {"clip_val": (1,)}


@dataclass(frozen=True)
class MaxPool(Layer):
    """Maximum over a window of pixels; pads with -inf, by at most half a kernel all around.

    With `zeros` it pads with 0, as far as it may be.
    """

    kernel: Size
    stride: Size
    padding: Padding = field(default=0, metadata=LATER)
    dilation: Size = field(default=1, metadata=LATER)
    zeros: bool = field(default=False, metadata=LATER)


@dataclass(frozen=True)
class AvgPool(Layer):
    """Average over a window of pixels; kernel 0: over the whole map, [N, C, H, W] -> [N, C, 1, 1].

    Pads with 0, which counts as pixels where `count_pad`.  With `total` it is the sum of a window,
    exact for integers, whose average times their number is not.
    """

    kernel: Size = field(default=0, metadata=LATER)
    stride: Size = field(default=1, metadata=LATER)
    padding: Padding = field(default=0, metadata=LATER)
    count_pad: bool = field(default=True, metadata=LATER)
    total: bool = field(default=False, metadata=LATER)


@dataclass(frozen=True)
class Flatten(Layer):
    """[N, C, H, W] -> [N, C·H·W], in the order "chw" or "hwc"."""

    order: str = field(default="chw", metadata=LATER)


# --- The formulas of the paper ----------------------------------------------------------------


def weight_codes(weight: np.ndarray, clip_val: float, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Quantize weights to codes, one scale per output channel (paper section 3.3).

    Parameters
    ----------
    weight: float32 [Cout, ...].
    clip_val: positive clip width.
    bits: 1..8.

    Returns
    -------
    k: int64 like `weight`, 0..2**bits - 1; the weight is the odd level ``2k - (2**bits - 1)``.
    delta: float64 [Cout]; the real weight is ``delta * (2k - n)``.

    The float32 operations and their order are the reference's, since k hangs on their rounding:
    means are nested from the last axis to the first, and kept axes keep the order of additions.
    """
    n = 2**bits - 1
    scale = np.abs(weight.astype(np.float32))
    for axis in range(weight.ndim - 1, 0, -1):
        scale = scale.mean(axis=axis, keepdims=True, dtype=np.float32)
    scale = np.float32(n / 2**(bits - 1)) * scale
    clip = np.float32(clip_val)
    half = clip / np.float32(2)
    u = np.clip(weight.astype(np.float32) / scale, -half, half)
    k = np.rint((u + half) * (np.float32(n) / clip)).astype(np.int64)
    delta = scale.reshape(-1).astype(np.float64) * float(clip) / (2 * n)
    return k, delta


def ltq_thresholds(p: Params) -> np.ndarray:
    """Thresholds θ [n], float64, ascending, to be compared with x · scale1 (strict >)."""
    a = np.maximum(p["a"].astype(np.float64), 1e-3)
    # The sums of the paper's recurrence, one after the other: θ₁, then + (aᵢ₋₁/2 + aᵢ/2).
    return np.cumsum(np.concatenate([p["start"] + a[:1] / 2, a[:-1] / 2 + a[1:] / 2]))


def ltq_levels(p: Params, x: np.ndarray) -> np.ndarray:
    """Level indices q = #{i : x·scale1 > θᵢ}, int64, 0..n, of finite float64 `x` of any shape."""
    # side="left" counts the thresholds strictly below.
    return np.searchsorted(ltq_thresholds(p), x * float(p["scale1"][0]), side="left")


def pact_levels(p: Params, bits: int, x: np.ndarray) -> np.ndarray:
    """Level indices rint(clip(x, 0, c) · n / c), int64, 0..n, of float64 `x` of any shape."""
    n, clip = 2**bits - 1, float(p["clip_val"][0])
    return np.rint(np.clip(x, 0, clip) * n / clip).astype(np.int64)


def per_channel(values: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Float64 parameters [C] shaped to broadcast along axis 1 of `x`."""
    return values.astype(np.float64).reshape((1, -1) + (1,) * (x.ndim - 2))


@singledispatch
def layer_float(layer: Layer, p: Params, *x: np.ndarray) -> np.ndarray:
    """What a layer with parameters `p` computes of float64 `x` [N, C, ...], one per input."""
    raise N2uqError(f"no float formula for {type(layer).__name__}")


def windows(x: np.ndarray, kernel: Size, stride: Size = 1, padding: Padding = 0,
            dilation: Size = 1, pad: float = 0) -> np.ndarray:
    """Views [N, C, H', W', kh, kw] of `x` framed with the value `pad`."""
    (height, width), (down, right), (dy, dx) = pair(kernel), pair(stride), pair(dilation)
    top, bottom, left, beyond = frame(padding)
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, beyond)), constant_values=pad)
    size = ((height - 1) * dy + 1, (width - 1) * dx + 1)
    views = np.lib.stride_tricks.sliding_window_view(x, size, axis=(2, 3))
    return views[:, :, ::down, ::right, ::dy, ::dx]


def convolve(layer: Any, w: np.ndarray, groups: int, x: np.ndarray) -> np.ndarray:
    """Convolution with float64 `w` [Cout, Cin/groups, kh, kw], a product of matrices per group.

    Kernel, stride, padding and dilation are those of `layer`.
    """
    views = windows(x, layer.kernel, layer.stride, layer.padding, layer.dilation)
    images, _, height, width = views.shape[:4]
    y = np.empty((images, len(w), height, width))
    w = w.reshape(groups, len(w) // groups, -1)
    batch = max(1, COLUMNS // max(1, math.prod(views.shape[1:])))
    for at in range(0, images, batch):
        part = views[at:at + batch]
        columns = (part.reshape(len(part), groups, -1, *part.shape[2:])
                   .transpose(1, 2, 5, 6, 0, 3, 4).reshape(groups, w.shape[2], -1))
        y[at:at + batch] = (w @ columns).reshape(-1, len(part), height, width).swapaxes(0, 1)
    return y


def ungrouped(weights: np.ndarray, groups: int) -> np.ndarray:
    """Weights [Cout, Cin/groups, kh, kw] as [Cout, Cin, kh, kw], zeros between the groups."""
    outputs, own = weights.shape[:2]
    out = np.zeros((outputs, own * groups, *weights.shape[2:]), weights.dtype)
    group = np.arange(outputs) // (outputs // groups)
    out[np.arange(outputs)[:, None], group[:, None] * own + np.arange(own)] = weights
    return out


# Whole numbers times levels are summed, and Δ comes last: what cancels leaves the least behind.
@layer_float.register
def _(layer: Conv, p: Params, x: np.ndarray) -> np.ndarray:
    k, delta = weight_codes(p["weight"], p["clip_val"][0], layer.bits)
    w = (2 * k - (2**layer.bits - 1)).astype(np.float64)
    return convolve(layer, w, layer.groups, x) * per_channel(delta, x)


@layer_float.register
def _(layer: FloatConv, p: Params, x: np.ndarray) -> np.ndarray:
    return convolve(layer, p["weight"].astype(np.float64), layer.groups, x)


@layer_float.register
def _(layer: FloatLinear, p: Params, x: np.ndarray) -> np.ndarray:
    return x @ p["weight"].astype(np.float64).T + p["bias"]


@layer_float.register
def _(layer: ReLU, p: Params, x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


@layer_float.register
def _(layer: ReLU6, p: Params, x: np.ndarray) -> np.ndarray:
    return np.clip(x, 0, 6)


@layer_float.register
def _(layer: Add, p: Params, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return x + y


@layer_float.register
def _(layer: Linear, p: Params, x: np.ndarray) -> np.ndarray:
    k, delta = weight_codes(p["weight"], p["clip_val"][0], layer.bits)
    return x @ (2 * k - (2**layer.bits - 1)).astype(np.float64).T * delta


@layer_float.register
def _(layer: BatchNorm, p: Params, x: np.ndarray) -> np.ndarray:
    mean, var, weight, bias = (per_channel(p[key], x) for key in
                               ("running_mean", "running_var", "weight", "bias"))
    return (x - mean) / np.sqrt(var + BN_EPS) * weight + bias


@layer_float.register
def _(layer: Bias, p: Params, x: np.ndarray) -> np.ndarray:
    return x + per_channel(p["bias"], x)


@layer_float.register
def _(layer: PReLU, p: Params, x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, x * per_channel(p["weight"], x))


@layer_float.register
def _(layer: LTQ, p: Params, x: np.ndarray) -> np.ndarray:
    return ltq_levels(p, x) * (2 / (2**layer.bits - 1) * float(p["scale2"][0]))


@layer_float.register
def _(layer: Pact, p: Params, x: np.ndarray) -> np.ndarray:
    return pact_levels(p, layer.bits, x) * (float(p["clip_val"][0]) / (2**layer.bits - 1))


@layer_float.register
def _(layer: MaxPool, p: Params, x: np.ndarray) -> np.ndarray:
    return windows(x, layer.kernel, layer.stride, layer.padding, layer.dilation,
                   0 if layer.zeros else -np.inf).max(axis=(4, 5))


@layer_float.register
def _(layer: AvgPool, p: Params, x: np.ndarray) -> np.ndarray:
    if layer.kernel == 0:
        return x.mean(axis=(2, 3), keepdims=True)
    if layer.total:
        return windows(x, layer.kernel, layer.stride, layer.padding).sum(axis=(4, 5))
    if layer.count_pad:
        return windows(x, layer.kernel, layer.stride, layer.padding).mean(axis=(4, 5))
    sums, counts = (windows(values, layer.kernel, layer.stride, layer.padding).sum(axis=(4, 5))
                    for values in (x, np.ones_like(x[:1, :1])))
    return sums / counts


@layer_float.register
def _(layer: Flatten, p: Params, x: np.ndarray) -> np.ndarray:
    if layer.order == "hwc" and x.ndim == 4:
        x = x.transpose(0, 2, 3, 1)
    return x.reshape(len(x), math.prod(x.shape[1:]))
