"""Torch modules of layers that join, move or map values one by one."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import model
from ..errors import N2uqError
from .layers import module_for

__all__ = ["OPERATIONS", "Concat", "Permute", "Pointwise"]

OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "add": torch.add, "sub": torch.sub, "rsub": torch.rsub, "mul": torch.mul, "div": torch.div,
    "rdiv": lambda x, value: value / x, "pow": torch.pow, "min": torch.minimum,
    "max": torch.maximum, "leaky_relu": lambda x, value: torch.where(x < 0, x * value, x),
    "elu": lambda x, value: torch.where(x < 0, value * torch.expm1(x.clamp(max=0)), x),
    "neg": torch.neg, "abs": torch.abs, "sign": torch.sign, "relu": F.relu, "floor": torch.floor,
    "ceil": torch.ceil, "round": torch.round, "sqrt": torch.sqrt, "exp": torch.exp,
    "log": torch.log, "erf": torch.erf, "sigmoid": torch.sigmoid, "tanh": torch.tanh,
    "softplus": F.softplus, "softsign": F.softsign, "hard_swish": F.hardswish, "silu": F.silu,
    "gelu": F.gelu}


class Concat(nn.Module):
    """Tensors one after the other along the channels."""

    def forward(self, *x: Tensor) -> Tensor:
        """[N, C1, ...], [N, C2, ...], ... -> [N, C1 + C2 + ..., ...]."""
        return torch.cat(x, 1)


class Permute(nn.Module):
    """Channels in another order, or some of them; `order` [channels]."""

    order: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("order", torch.arange(channels, dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, ...] -> [N, channels, ...]."""
        return x.index_select(1, self.order)


class Pointwise(nn.Module):
    """An operation of `OPERATIONS`, with `value` [channels] where it has one."""

    value: Tensor

    def __init__(self, op: str, channels: int, valued: bool) -> None:
        super().__init__()
        self.op = op
        if valued:
            self.register_buffer("value", torch.ones(channels, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Of `x` [N, C, ...], element by element."""
        values = [each.to(x.dtype).reshape(1, -1, *(1,) * (x.dim() - 2))
                  for each in self.buffers()]
        return OPERATIONS[self.op](x, *values)


@module_for.register
def _(layer: model.Concat) -> nn.Module:
    return Concat()


@module_for.register
def _(layer: model.Upsample) -> nn.Module:
    return nn.Upsample(scale_factor=tuple(map(float, model.pair(layer.factor))))


@module_for.register
def _(layer: model.DepthToSpace) -> nn.Module:
    if layer.mode != "CRD" or not isinstance(layer.block, int):
        raise N2uqError(f"{layer.name} must have one block size and mode CRD for torch, not "
                        f"{layer.block} and {layer.mode}")
    return nn.PixelShuffle(layer.block)


@module_for.register
def _(layer: model.Permute) -> nn.Module:
    return Permute(layer.channels)


@module_for.register
def _(layer: model.Pointwise) -> nn.Module:
    if layer.op not in OPERATIONS or layer.float32:
        raise N2uqError(f"op of {layer.name} must be one of {', '.join(OPERATIONS)} for torch, "
                        f"not {layer.op}{' in float32' if layer.float32 else ''}")
    return Pointwise(layer.op, layer.channels, bool(layer.shapes()))
