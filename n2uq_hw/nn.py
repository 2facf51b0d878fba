"""The torch side: N2UQ modules with the authors' parameter names, forward numerics and gradients.

Only training and the tests need this module; everything after training reads a `Net`.
"""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import model
from .errors import N2uqError
from .model import InputSpec, Layer, Net, weight_codes

__all__ = ["LTQ", "PACT", "LearnableBias", "Network", "QuantizedConv2d", "QuantizedLinear",
           "gste", "module_for", "quantize_weight", "to_net"]


class _GSTE(torch.autograd.Function):
    """Step function forward, piecewise-linear surrogate backward (paper section 3.2)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, start: Tensor, a: Tensor) -> Tensor:
        thresholds = start + torch.cumsum(a, 0) - a / 2
        points = torch.cat([start, start + torch.cumsum(a, 0)])
        ctx.save_for_backward(x, points, a)
        # bucketize(right=False) counts the thresholds strictly below x: q = #{x > θ}.
        return torch.bucketize(x, thresholds).to(x.dtype) * (2 / len(a))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, points, a = ctx.saved_tensors
        grad, n = grads[0], len(a)
        # Interval i in 1..n, 0 below `start`, n + 1 above the last point.
        interval = torch.bucketize(x, points)
        inside = torch.zeros(n + 2, dtype=x.dtype)
        inside[1:n + 1] = (2 / n) / a
        slope = inside[interval]
        to_x = grad * slope
        by_interval = torch.zeros(n + 2, dtype=x.dtype).index_add_(
            0, interval.reshape(-1), to_x.reshape(-1))[1:n + 1]
        left = points[(interval - 1).clamp(min=0)]
        moved = torch.zeros(n + 2, dtype=x.dtype).index_add_(
            0, interval.reshape(-1), (to_x * (x - left)).reshape(-1))[1:n + 1]
        # An interval's slope shrinks with its own width; its left end moves with all before it.
        after = by_interval.sum() - torch.cumsum(by_interval, 0)
        return to_x, -by_interval.sum().reshape(1), -after - moved / a


def gste(x: Tensor, start: Tensor, a: Tensor) -> Tensor:
    """Levels ``q·2/n`` of `x` of any shape; gradients of the generalized straight-through estimator.

    `start` [1] and positive interval widths `a` [n] place thresholds and surrogate.
    """
    return _GSTE.apply(x, start, a)  # type: ignore[no-any-return]


def _constant(value: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor([value]), requires_grad=False)


class LTQ(nn.Module):
    """Learnable threshold quantizer to 2**bits levels (paper section 3.2); any input shape."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        n = 2**bits - 1
        self.start = nn.Parameter(torch.zeros(1))
        self.a = nn.Parameter(torch.full((n,), 2 / n))
        self.scale1 = nn.Parameter(torch.ones(1))
        self.scale2 = nn.Parameter(torch.ones(1))
        # The authors' checkpoints hold these constants.
        self.two, self.one, self.zero = _constant(2.0), _constant(1.0), _constant(0.0)
        self.minusone, self.eps = _constant(-1.0), _constant(1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """Equidistant levels ``q·(2/n)·scale2``."""
        a = torch.where(self.a > self.eps, self.a, self.eps)
        return gste(x * self.scale1, self.start, a) * self.scale2


class PACT(nn.Module):
    """PACT quantizer: ``rint(min(relu(x), clip)·n/clip)·clip/n``; any input shape."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.clip_val = nn.Parameter(torch.tensor([2.0]))

    def forward(self, x: Tensor) -> Tensor:
        """Levels; straight-through gradient inside, to `clip_val` above."""
        x = torch.minimum(F.relu(x), self.clip_val)
        n = (2**self.bits - 1) / self.clip_val
        return x + (torch.round(x * n) / n - x).detach()


def quantize_weight(weight: Tensor, clip_val: Tensor, bits: int) -> Tensor:
    """Quantized weights like `weight` [Cout, ...] (paper section 3.3), straight-through gradient.

    The operations and their order are the reference's: nested means, last axis first.
    """
    scale = weight.abs()
    for axis in range(weight.dim() - 1, 0, -1):
        scale = scale.mean(dim=axis, keepdim=True)
    scale = ((2**bits - 1) / 2**(bits - 1) * scale).detach()
    scaled, half = weight / scale, clip_val / 2
    clipped = torch.maximum(torch.minimum(scaled, half), -half)
    n = (2**bits - 1) / clip_val
    quantized = scale * (torch.round((clipped + half) * n) / n - half)
    if torch.is_grad_enabled() and weight.requires_grad:
        return quantized.detach() - scaled.detach() + scaled
    return quantized


class QuantizedConv2d(nn.Module):
    """Convolution with N2UQ weights; `groups` = channels makes it depthwise."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1,
                 padding: int = 0, groups: int = 1, bits: int = 2) -> None:
        super().__init__()
        self.stride, self.padding, self.groups, self.bits = stride, padding, groups, bits
        self.clip_val, self.zero = nn.Parameter(torch.tensor([2.0])), _constant(0.0)
        self.weight = nn.Parameter(
            torch.empty(out_channels, in_channels // groups, kernel, kernel))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """[N, Cin, H, W] -> [N, Cout, H', W']."""
        weight = quantize_weight(self.weight, self.clip_val, self.bits)
        return F.conv2d(x, weight, None, self.stride, self.padding, 1, self.groups)


class QuantizedLinear(nn.Module):
    """Matrix product with N2UQ weights."""

    def __init__(self, in_features: int, out_features: int, bits: int = 2) -> None:
        super().__init__()
        self.bits = bits
        self.clip_val, self.zero = nn.Parameter(torch.tensor([2.0])), _constant(0.0)
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in] -> [N, out]."""
        return F.linear(x, quantize_weight(self.weight, self.clip_val, self.bits))


class LearnableBias(nn.Module):
    """Bias [1, C, 1, 1] on [N, C, ...]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """x + bias."""
        return x + self.bias.reshape((1, -1) + (1,) * (x.dim() - 2))


class _BatchNorm(nn.BatchNorm1d):
    """Batch normalization over axis 1 of [N, C] or [N, C, H, W]."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() not in (2, 4):
            raise ValueError(f"expected [N, C] or [N, C, H, W], not {list(input.shape)}")


@singledispatch
def module_for(layer: Layer) -> nn.Module:
    """The torch module of a declared layer."""
    raise N2uqError(f"no torch module for {type(layer).__name__} {layer.name}")


@module_for.register
def _(layer: model.Conv) -> nn.Module:
    return QuantizedConv2d(layer.in_channels, layer.out_channels, layer.kernel, layer.stride,
                           layer.padding, layer.groups, layer.bits)


@module_for.register
def _(layer: model.Linear) -> nn.Module:
    return QuantizedLinear(layer.in_features, layer.out_features, layer.bits)


@module_for.register
def _(layer: model.BatchNorm) -> nn.Module:
    return _BatchNorm(layer.channels)


@module_for.register
def _(layer: model.Bias) -> nn.Module:
    return LearnableBias(layer.channels)


@module_for.register
def _(layer: model.PReLU) -> nn.Module:
    return nn.PReLU(layer.channels)


@module_for.register
def _(layer: model.LTQ) -> nn.Module:
    return LTQ(layer.bits)


@module_for.register
def _(layer: model.Pact) -> nn.Module:
    return PACT(layer.bits)


@module_for.register
def _(layer: model.MaxPool) -> nn.Module:
    return nn.MaxPool2d(layer.kernel, layer.stride)


@module_for.register
def _(layer: model.AvgPool) -> nn.Module:
    return nn.AdaptiveAvgPool2d(1)


@module_for.register
def _(layer: model.Flatten) -> nn.Module:
    return nn.Flatten()


class Network(nn.Sequential):
    """A declared chain of layers as one module; parameters are named ``layer.parameter``."""

    def __init__(self, layers: tuple[Layer, ...]) -> None:
        super().__init__()
        for layer in layers:
            self.add_module(layer.name, module_for(layer))

    @classmethod
    def from_net(cls, net: Net) -> Network:
        """The module of a trained net, in evaluation mode; constants keep their values."""
        network = cls(net.layers).eval()
        tensors = {key: torch.from_numpy(value.copy()) for key, value in net.params.items()}
        network.load_state_dict({**network.state_dict(), **tensors})
        return network


def to_net(network: Network, name: str, input: InputSpec, layers: tuple[Layer, ...],
           meta: dict[str, Any]) -> Net:
    """The trained net as data.

    Means in torch and in NumPy may differ in the last bit, so a weight that lies on a rounding
    boundary could get another code.  Such a weight is moved by 1e-5 of itself until both agree.
    """
    state = {key: value.detach().numpy().copy() for key, value in network.state_dict().items()}
    params = {f"{layer.name}.{key}": state[f"{layer.name}.{key}"]
              for layer in layers for key in layer.shapes()}
    for layer in layers:
        if isinstance(layer, model.Conv | model.Linear):
            weight, clip = params[f"{layer.name}.weight"], params[f"{layer.name}.clip_val"]
            for _ in range(20):
                k, delta = weight_codes(weight, clip[0], layer.bits)
                ours = ((2 * k - 2**layer.bits + 1).reshape(len(k), -1) * delta[:, None])
                theirs = quantize_weight(torch.from_numpy(weight), torch.from_numpy(clip),
                                         layer.bits).numpy().reshape(len(k), -1)
                differs = (np.abs(ours - theirs) > np.abs(delta[:, None])).reshape(weight.shape)
                if not differs.any():
                    break
                weight[differs] *= np.float32(1 + 1e-5)
            else:
                raise N2uqError(f"{name}: {layer.name}.weight must quantize alike in torch and "
                                f"NumPy, and {int(differs.sum())} weights do not")
    return Net(name, input, layers, params, meta)
