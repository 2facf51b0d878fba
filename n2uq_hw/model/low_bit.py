"""Layers of any low-bit network: integer weights, quantizers, element-wise operations, moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .layers import Layer, Padding, Params, Shapes, Size, convolve, layer_float, pair, per_channel
from .pointwise import OPS

__all__ = ["ROUNDINGS", "Concat", "DepthToSpace", "IntConv", "IntLinear", "Permute",
           "PiecewiseLinear", "Pointwise",            "Quant", "Steps", "Upsample", "check_values"]


@dataclass(frozen=True)
class IntConv(Layer):
    """2-D convolution with integer weights, then a scale per channel; pads with 0."""

    in_channels: int
    out_channels: int
    kernel: Size
    stride: Size = 1
    padding: Padding = 0
    dilation: Size = 1
    groups: int = 1
    TYPES: ClassVar[dict[str, type]] = {"codes": np.int32, "scale": np.float64}

    def shapes(self) -> Shapes:
        """`codes` [Cout, Cin/groups, kh, kw], `scale` [Cout]."""
        return {"codes": (self.out_channels, self.in_channels // self.groups, *pair(self.kernel)),
                "scale": (self.out_channels,)}


@dataclass(frozen=True)
class IntLinear(Layer):
    """Matrix product with integer weights, then a scale per output, [N, in] -> [N, out]."""

    in_features: int
    out_features: int
    TYPES: ClassVar[dict[str, type]] = {"codes": np.int32, "scale": np.float64}

    def shapes(self) -> Shapes:
        """`codes` [out, in], `scale` [out]."""
        return {"codes": (self.out_features, self.in_features), "scale": (self.out_features,)}


@dataclass(frozen=True)
class Quant(Layer):
    """Uniform quantizer: q = clip(round(x/scale + zero_point), lo, hi), y = (q - zero_point)·scale.

    `channels` is 1 for one scale of all.  `rounding` is a name in `ROUNDINGS`: "even" is half to
    even, "half_up" floor(x + 1/2); "half_away" and "half_to_zero" move halves so, "away" and
    "to_zero" all fractions.
    """

    channels: int
    lo: int
    hi: int
    rounding: str = "even"
    TYPES: ClassVar[dict[str, type]] = {"scale": np.float64, "zero_point": np.float64}

    def shapes(self) -> Shapes:
        """`scale` and `zero_point` [channels]."""
        return dict.fromkeys(("scale", "zero_point"), (self.channels,))


@dataclass(frozen=True)
class Steps(Layer):
    """Quantizer by thresholds: y = #{x >= threshold}·scale + offset; `channels` is 1 or C."""

    channels: int
    steps: int
    TYPES: ClassVar[dict[str, type]] = dict.fromkeys(("thresholds", "scale", "offset"), np.float64)

    def shapes(self) -> Shapes:
        """`thresholds` [channels, steps], ascending; `scale`, `offset` [channels]."""
        return {"thresholds": (self.channels, self.steps), "scale": (self.channels,),
                "offset": (self.channels,)}


@dataclass(frozen=True)
class Pointwise(Layer):
    """An operation of `OPS`, element by element, with a value for all (`channels` 1) or each one.

    `float32`: its result is rounded to float32, as a runtime has it.
    """

    op: str
    channels: int = 1
    float32: bool = False
    TYPES: ClassVar[dict[str, type]] = {"value": np.float64}

    def shapes(self) -> Shapes:
        """`value` [channels] where the operation has one."""
        return {"value": (self.channels,)} if self.op in OPS and OPS[self.op].valued else {}


@dataclass(frozen=True)
class PiecewiseLinear(Layer):
    """Two lines per channel in fixed point: floor((x·multiplier + offset) / 2^shift).

    The second line holds from `turn` on.  All parameters are whole numbers.
    """

    channels: int
    shift: int = 0
    TYPES: ClassVar[dict[str, type]] = dict.fromkeys(("turn", "multiplier", "offset"), np.float64)

    def shapes(self) -> Shapes:
        """`turn` [C]; `multiplier`, `offset` [2, C]."""
        return {"turn": (self.channels,), "multiplier": (2, self.channels),
                "offset": (2, self.channels)}


@dataclass(frozen=True)
class Concat(Layer):
    """Images of one size, or vectors, one after the other along the channels."""

    arity: ClassVar[int] = 0


@dataclass(frozen=True)
class Upsample(Layer):
    """Each pixel `factor` times, the nearest of a larger image."""

    factor: Size = 2


@dataclass(frozen=True)
class DepthToSpace(Layer):
    """[N, C·a·b, H, W] -> [N, C, H·a, W·b]; channels run (a, b, C) in "DCR", (C, a, b) in "CRD".

    `block` is (a, b), or a number for both.  A vector is an image of one pixel.
    """

    block: Size
    mode: str = "DCR"


@dataclass(frozen=True)
class Permute(Layer):
    """Channels in another order, or some of them."""

    channels: int
    TYPES: ClassVar[dict[str, type]] = {"order": np.int32}

    def shapes(self) -> Shapes:
        """`order` [channels]: where each channel comes from."""
        return {"order": (self.channels,)}


def check_values(layer: Layer, p: Params) -> str:
    """The rule that a parameter breaks, with its name and value; nothing where all hold."""
    if isinstance(layer, Quant) and not (p["scale"] > 0).all():
        return f"scale must be positive, not {p['scale'].min()}"
    if isinstance(layer, Steps) and (np.diff(p["thresholds"], axis=1) < 0).any():
        return "thresholds must ascend in every channel"
    if isinstance(layer, PiecewiseLinear):
        for key, values in p.items():
            if (values != np.rint(values)).any() or np.abs(values).max() >= WIDEST:
                return f"{key} must hold whole numbers below 2^53"
    if isinstance(layer, Permute) and (p["order"] < 0).any():
        return f"order must hold places from 0, not {p['order'].min()}"
    return ""


WIDEST = 2.0**53     # whole numbers below it are exact in float64


def _half_up(x: np.ndarray) -> np.ndarray:
    """Exact where x + 1/2 is not."""
    below = np.floor(x)
    return below + (x - below >= 0.5)


ROUNDINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "even": np.rint, "floor": np.floor, "ceil": np.ceil, "to_zero": np.trunc, "half_up": _half_up,
    "away": lambda x: np.sign(x) * np.ceil(np.abs(x)),
    "half_away": lambda x: np.sign(x) * _half_up(np.abs(x)),
    "half_to_zero": lambda x: np.sign(x) * -_half_up(-np.abs(x))}


@layer_float.register
def _(layer: IntConv, p: Params, x: np.ndarray) -> np.ndarray:
    return convolve(layer, p["codes"].astype(np.float64), layer.groups, x) * per_channel(
        p["scale"], x)


@layer_float.register
def _(layer: IntLinear, p: Params, x: np.ndarray) -> np.ndarray:
    return x @ p["codes"].astype(np.float64).T * p["scale"]


@layer_float.register
def _(layer: Quant, p: Params, x: np.ndarray) -> np.ndarray:
    scale, zero = per_channel(p["scale"], x), per_channel(p["zero_point"], x)
    return (np.clip(ROUNDINGS[layer.rounding](x / scale + zero), layer.lo, layer.hi) - zero) * scale


@layer_float.register
def _(layer: Steps, p: Params, x: np.ndarray) -> np.ndarray:
    count = np.zeros(x.shape)
    for threshold in p["thresholds"].T:  # one for each channel
        count += x >= per_channel(threshold, x)
    return count * per_channel(p["scale"], x) + per_channel(p["offset"], x)


@layer_float.register
def _(layer: Pointwise, p: Params, x: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        y = OPS[layer.op].function(x, *(per_channel(value, x) for value in p.values()))
    return y.astype(np.float32).astype(np.float64) if layer.float32 else y


@layer_float.register
def _(layer: PiecewiseLinear, p: Params, x: np.ndarray) -> np.ndarray:
    below, above = (x * per_channel(m, x) + per_channel(c, x)
                    for m, c in zip(p["multiplier"], p["offset"], strict=True))
    return np.floor(np.where(x >= per_channel(p["turn"], x), above, below) / 2.0**layer.shift)


@layer_float.register
def _(layer: Concat, p: Params, *x: np.ndarray) -> np.ndarray:
    return np.concatenate(x, axis=1)


@layer_float.register
def _(layer: Upsample, p: Params, x: np.ndarray) -> np.ndarray:
    height, width = pair(layer.factor)
    return x.repeat(height, axis=2).repeat(width, axis=3)


@layer_float.register
def _(layer: DepthToSpace, p: Params, x: np.ndarray) -> np.ndarray:
    x = x.reshape(*x.shape, 1, 1) if x.ndim == 2 else x
    (count, _, height, width), (a, b) = x.shape, pair(layer.block)
    if layer.mode == "DCR":
        x = x.reshape(count, a, b, -1, height, width).transpose(0, 3, 4, 1, 5, 2)
    else:
        x = x.reshape(count, -1, a, b, height, width).transpose(0, 1, 4, 2, 5, 3)
    return x.reshape(count, -1, height * a, width * b)


@layer_float.register
def _(layer: Permute, p: Params, x: np.ndarray) -> np.ndarray:
    return x[:, p["order"]]
