"""Torch modules of low-bit layers as they are imported: integer weights, quantizers, lines.

They hold constants in buffers and compute in the type of their input: ``module.double()`` gives
what `Net.forward` gives.  None of them has gradients for its constants.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import model
from ..model import Layer, Padding, Size, pair
from .layers import framed, module_for

__all__ = ["SIZES", "IntConv2d", "IntLinear", "PiecewiseLinear", "Quant", "Steps"]


def _half_up(x: Tensor) -> Tensor:
    below = torch.floor(x)
    return below + (x - below >= 0.5)


ROUNDINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "even": torch.round, "floor": torch.floor, "ceil": torch.ceil, "to_zero": torch.trunc,
    "half_up": _half_up, "away": lambda x: torch.sign(x) * torch.ceil(torch.abs(x)),
    "half_away": lambda x: torch.sign(x) * _half_up(torch.abs(x)),
    "half_to_zero": lambda x: torch.sign(x) * -_half_up(-torch.abs(x))}


class _Constants(nn.Module):
    """A module whose buffers are the parameters of a layer, with their names and shapes."""

    def __init__(self, layer: Layer, **start: float) -> None:
        super().__init__()
        for key, shape in layer.shapes().items():
            dtype = torch.int32 if key == "codes" else torch.float64
            self.register_buffer(key, torch.full(shape, start.get(key, 0), dtype=dtype))

    def per_channel(self, key: str, x: Tensor) -> Tensor:
        """A buffer [..., C] or [..., 1] beside `x` [N, C, ...]."""
        value = self.get_buffer(key).to(x.dtype)
        return value.reshape(*value.shape, *(1,) * (x.dim() - 2))

    def _apply(self, fn: Callable[..., Tensor], recurse: bool = True) -> _Constants:
        """Moves to a device alone: in another type a scale would be another number."""
        held = dict(self.named_buffers())
        super()._apply(fn, recurse)
        for key, buffer in held.items():
            setattr(self, key, buffer.to(self.get_buffer(key).device))
        return self


class IntConv2d(_Constants):
    """Convolution with weights `codes` int32 [Cout, Cin/groups, kh, kw] times `scale` [Cout]."""

    codes: Tensor

    def __init__(self, in_channels: int, out_channels: int, kernel: Size, stride: Size = 1,
                 padding: Padding = 0, dilation: Size = 1, groups: int = 1) -> None:
        super().__init__(model.IntConv("", in_channels, out_channels, kernel, groups=groups),
                         scale=1)
        self.stride, self.padding = stride, padding
        self.dilation, self.groups = dilation, groups

    def forward(self, x: Tensor) -> Tensor:
        """[N, Cin, H, W] -> [N, Cout, H', W']."""
        x, padding = framed(x, self.padding)
        y = F.conv2d(x, self.codes.to(x.dtype), None, pair(self.stride), padding,
                     pair(self.dilation), self.groups)
        return y * self.per_channel("scale", y)


class IntLinear(_Constants):
    """Matrix product with weights `codes` int32 [out, in] times `scale` [out]."""

    codes: Tensor

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(model.IntLinear("", in_features, out_features), scale=1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in] -> [N, out]."""
        return F.linear(x, self.codes.to(x.dtype)) * self.per_channel("scale", x)


class Quant(_Constants):
    """``(clip(round(x/scale + zero_point), lo, hi) - zero_point)·scale``, see `model.Quant`."""

    def __init__(self, channels: int, lo: int, hi: int, rounding: str = "even") -> None:
        super().__init__(model.Quant("", channels, lo, hi, rounding), scale=1)
        self.lo, self.hi, self.rounding = lo, hi, rounding

    def forward(self, x: Tensor) -> Tensor:
        """Of `x` [N, C, ...], element by element."""
        scale, zero = self.per_channel("scale", x), self.per_channel("zero_point", x)
        return (ROUNDINGS[self.rounding](x / scale + zero).clamp(self.lo, self.hi) - zero) * scale


class Steps(_Constants):
    """``#{x >= thresholds}·scale + offset``, thresholds [channels, steps], ascending."""

    def __init__(self, channels: int, steps: int) -> None:
        super().__init__(model.Steps("", channels, steps), scale=1)

    def forward(self, x: Tensor) -> Tensor:
        """Of `x` [N, C, ...], element by element."""
        thresholds, count = self.per_channel("thresholds", x), torch.zeros_like(x)
        for k in range(thresholds.shape[1]):
            count = count + (x >= thresholds[:, k])
        return count * self.per_channel("scale", x) + self.per_channel("offset", x)


class PiecewiseLinear(_Constants):
    """``floor((x·multiplier + offset) / 2^shift)``, the second line from `turn` on."""

    def __init__(self, channels: int, shift: int = 0) -> None:
        super().__init__(model.PiecewiseLinear("", channels, shift))
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        """Of `x` [N, C, ...], element by element."""
        slope, offset = self.per_channel("multiplier", x), self.per_channel("offset", x)
        below, above = (x * slope[k] + offset[k] for k in range(2))
        return torch.floor(torch.where(x >= self.per_channel("turn", x), above, below)
                           / 2.0**self.shift)


SIZES: dict[type[nn.Module], Callable[[Any], tuple[type[Layer], tuple[Any, ...]]]] = {
    IntConv2d: lambda m: (model.IntConv, (
        m.codes.shape[1] * m.groups, m.codes.shape[0], tuple(m.codes.shape[2:]), m.stride,
        m.padding, m.dilation, m.groups)),
    IntLinear: lambda m: (model.IntLinear, (m.codes.shape[1], m.codes.shape[0])),
    Quant: lambda m: (model.Quant, (len(m.scale), m.lo, m.hi, m.rounding)),
    Steps: lambda m: (model.Steps, tuple(m.thresholds.shape)),
    PiecewiseLinear: lambda m: (model.PiecewiseLinear, (len(m.turn), m.shift)),
}


@module_for.register
def _(layer: model.IntConv) -> nn.Module:
    return IntConv2d(layer.in_channels, layer.out_channels, layer.kernel, layer.stride,
                     layer.padding, layer.dilation, layer.groups)


@module_for.register
def _(layer: model.IntLinear) -> nn.Module:
    return IntLinear(layer.in_features, layer.out_features)


@module_for.register
def _(layer: model.Quant) -> nn.Module:
    return Quant(layer.channels, layer.lo, layer.hi, layer.rounding)


@module_for.register
def _(layer: model.Steps) -> nn.Module:
    return Steps(layer.channels, layer.steps)


@module_for.register
def _(layer: model.PiecewiseLinear) -> nn.Module:
    return PiecewiseLinear(layer.channels, layer.shift)
