"""The torch side: N2UQ modules with the authors' parameter names, forward numerics and gradients.

Only training and the tests need this module; everything after training reads a `Net`.

A straight-through estimator is written ``levels + (smooth - smooth.detach())``: the bracket is
exactly 0, so the forward value is the level itself.  The authors' order of the same terms,
``(levels - smooth) + smooth``, is off by an ulp of `smooth`: up to 1e-3 of a quantized weight that
is much smaller than the ``weight / s`` that passes by.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import singledispatch
from itertools import accumulate
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import model
from ..errors import N2uqError
from ..model import InputSpec, Layer, Net, Padding, Size, sources, walk
from .fused import fused

__all__ = ["LTQ", "PACT", "Add", "LearnableBias", "Network", "QuantizedConv2d", "QuantizedLinear",
           "count_below", "even_padding", "framed", "gste", "module_for", "net_of",
           "quantize_weight", "settle_codes", "weight_codes"]

FEW = 15  # points that are faster compared one by one than searched
NUDGE, NUDGES = 1e-5, 20  # relative move of a weight on a rounding boundary, and how often


def count_below(x: Tensor, points: Tensor) -> Tensor:
    """How many of the ascending `points` lie strictly below each entry of `x`, int64."""
    if len(points) > FEW:
        return torch.bucketize(x, points)
    count = torch.zeros_like(x, dtype=torch.uint8)
    for point in points:
        count += (x > point).view(torch.uint8)
    return count.long()


class _GSTE(torch.autograd.Function):
    """Step function forward, piecewise-linear surrogate backward (paper section 3.2)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, start: Tensor, a: Tensor) -> Tensor:
        # The reference's float32 additions in its order: cumsum would add in double.
        thresholds = torch.stack([*accumulate(
            [start[0] + a[0] / 2, *(a[:-1] / 2 + a[1:] / 2).unbind()])])
        ctx.save_for_backward(x, torch.stack([*accumulate([start[0], *a.unbind()])]), a)
        return count_below(x, thresholds).to(x.dtype) * (2 / len(a))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, points, a = ctx.saved_tensors
        n = len(a)
        # 1..n; 0 below `start`, n + 1 above the last point
        interval = count_below(x, points).flatten()
        slope = F.pad((2 / n) / a, (1, 1))     # 0 outside
        to_x = grads[0] * slope.index_select(0, interval).reshape(x.shape)
        left = F.pad(points, (1, 0)).index_select(0, interval).reshape(x.shape)

        def per_interval(values: Tensor) -> Tensor:
            sums = x.new_zeros(n + 2)
            return sums.index_add_(0, interval, values.flatten())[1:-1]

        # An interval's slope shrinks with its own width; its left end moves with all before it.
        sums = per_interval(to_x)
        after = sums.sum() - sums.cumsum(0)
        return to_x, -sums.sum(0, keepdim=True), -after - per_interval(to_x * (x - left)) / a


def gste(x: Tensor, start: Tensor, a: Tensor) -> Tensor:
    """Levels ``q·2/n`` of `x`, with gradients of the generalized straight-through estimator.

    Parameters
    ----------
    x: any shape.
    start: [1], left end of the first interval.
    a: [n], positive widths of the intervals; threshold i is the middle of interval i.

    Source: paper section 3.2.  The surrogate is linear through (start + a₁ + … + aᵢ, i·2/n), 0
    before and 2 after; its gradient reaches all three arguments.
    """
    return _GSTE.apply(x, start, a)


def _constant(value: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor([value]), requires_grad=False)


class LTQ(nn.Module):
    """Learnable threshold quantizer to 2**bits levels (paper section 3.2).

    Parameters `start` [1], `a` [n], `scale1` [1], `scale2` [1] start as the authors': intervals
    of equal width over 0..2, scales 1.
    """

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
        """Equidistant levels ``q·(2/n)·scale2`` of `x` of any shape."""
        whole = fused(x, None, self.parts())
        if whole is not None:
            return whole
        start, a, scale1, scale2 = self.parts()
        return gste(x * scale1, start, a) * scale2

    def parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`start`, `a` from 1e-3 on, `scale1` and `scale2`."""
        a = torch.where(self.a > self.eps, self.a, self.eps)
        return self.start, a, self.scale1, self.scale2


class PACT(nn.Module):
    """PACT quantizer (`clip_val` [1]): ``rint(min(relu(x), clip)·n/clip)`` levels of clip/n."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.clip_val = nn.Parameter(torch.tensor([2.0]))

    def forward(self, x: Tensor) -> Tensor:
        """Levels of `x` of any shape; the gradient goes to x inside, to `clip_val` above."""
        x = F.relu(x)
        x = torch.where(x < self.clip_val, x, self.clip_val)
        n = (2**self.bits - 1) / self.clip_val
        return (torch.round(x * n) / n).detach() + (x - x.detach())


def weight_codes(weight: Tensor, clip_val: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Codes k in 0..2**bits - 1 like `weight` [Cout, ...], and the scale s [Cout, 1, ...].

    The operations and their order are the reference's (nested means, last axis first), in torch;
    `model.weight_codes` is the same in NumPy.
    """
    scale = weight.abs()
    for axis in range(weight.dim() - 1, 0, -1):
        scale = scale.mean(dim=axis, keepdim=True)
    scale, half = (2**bits - 1) / 2**(bits - 1) * scale, clip_val / 2
    clipped = torch.maximum(torch.minimum(weight / scale, half), -half)
    return torch.round((clipped + half) * ((2**bits - 1) / clip_val)), scale


def quantize_weight(weight: Tensor, clip_val: Tensor, bits: int) -> Tensor:
    """Quantized weights like `weight` [Cout, ...], one L1 scale per channel (paper section 3.3).

    The gradient is the reference's: straight to ``weight / s`` with s held fixed, also where the
    weight is clipped; none to `clip_val`.
    """
    return _Weights.apply(weight, clip_val, bits)


class _Weights(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, clip_val: Tensor, bits: int) -> Tensor:
        codes, scale = weight_codes(weight, clip_val, bits)
        ctx.save_for_backward(scale)
        return scale * (codes / ((2**bits - 1) / clip_val) - clip_val / 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0] / ctx.saved_tensors[0], None, None


def framed(x: Tensor, padding: Padding) -> tuple[Tensor, Size]:
    """`x`, framed already where opposite sides differ, and the padding that is left."""
    if isinstance(padding, int) or len(padding) == 2:
        return x, padding if isinstance(padding, int) else (padding[0], padding[1])
    top, bottom, left, right = padding
    return F.pad(x, (left, right, top, bottom)), 0


class _Conv2d(nn.Conv2d):
    """Of full precision, with a padding for each side."""

    def __init__(self, layer: model.FloatConv) -> None:
        super().__init__(layer.in_channels, layer.out_channels, layer.kernel, layer.stride,
                         dilation=layer.dilation, groups=layer.groups, bias=False)
        self.sides = layer.padding

    def forward(self, input: Tensor) -> Tensor:
        x, padding = framed(input, self.sides)
        return F.conv2d(x, self.weight, None, self.stride, padding, self.dilation, self.groups)


class QuantizedConv2d(nn.Module):
    """Convolution with N2UQ weights; `groups` = channels makes it depthwise.

    `padding` is as `n2uq_hw.model` has it: of all sides, (height, width), or of each side.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: Size, stride: Size = 1,
                 padding: Padding = 0, groups: int = 1, bits: int = 2, dilation: Size = 1
                 ) -> None:
        super().__init__()
        self.stride, self.padding, self.groups, self.bits = stride, padding, groups, bits
        self.dilation = dilation
        self.clip_val, self.zero = nn.Parameter(torch.tensor([2.0])), _constant(0.0)
        self.weight = nn.Parameter(
            torch.empty(out_channels, in_channels // groups, *model.pair(kernel)))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """[N, Cin, H, W] -> [N, Cout, H', W']."""
        weight = quantize_weight(self.weight, self.clip_val, self.bits)
        x, padding = framed(x, self.padding)
        return F.conv2d(x, weight, None, self.stride, padding, self.dilation, self.groups)


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


class Add(nn.Module):
    """The sum of two tensors."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x + y."""
        return x + y


class _BatchNorm(nn.BatchNorm1d):
    """Batch normalization over axis 1 of [N, C] or [N, C, H, W]."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() not in (2, 4):
            raise ValueError(f"expected [N, C] or [N, C, H, W], not {list(input.shape)}")


def even_padding(layer: model.Conv | model.FloatConv | model.MaxPool | model.AvgPool) -> Size:
    """The padding of a layer as torch's modules have it: opposite sides alike."""
    if isinstance(layer.padding, int):
        return layer.padding
    top, bottom, left, right = model.frame(layer.padding)
    if (top, left) != (bottom, right):
        raise N2uqError(f"padding of {layer.name} must be alike on opposite sides for torch, "
                        f"not {layer.padding}")
    return top, left


@singledispatch
def module_for(layer: Layer) -> nn.Module:
    """The torch module of a declared layer."""
    raise N2uqError(f"no torch module for {type(layer).__name__} {layer.name}")


@module_for.register
def _(layer: model.Conv) -> nn.Module:
    return QuantizedConv2d(layer.in_channels, layer.out_channels, layer.kernel, layer.stride,
                           layer.padding, layer.groups, layer.bits, layer.dilation)


@module_for.register
def _(layer: model.Linear) -> nn.Module:
    return QuantizedLinear(layer.in_features, layer.out_features, layer.bits)


@module_for.register
def _(layer: model.FloatConv) -> nn.Module:
    if isinstance(layer.padding, tuple) and len(layer.padding) == 4:
        return _Conv2d(layer)
    return nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel, layer.stride,
                     even_padding(layer), layer.dilation, layer.groups, bias=False)


@module_for.register
def _(layer: model.FloatLinear) -> nn.Module:
    return nn.Linear(layer.in_features, layer.out_features)


@module_for.register
def _(layer: model.ReLU) -> nn.Module:
    return nn.ReLU()


@module_for.register
def _(layer: model.ReLU6) -> nn.Module:
    return nn.ReLU6()


@module_for.register
def _(layer: model.Add) -> nn.Module:
    return Add()


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
    if layer.zeros:
        raise N2uqError(f"padding of {layer.name} must be with -inf for torch, not with 0")
    return nn.MaxPool2d(layer.kernel, layer.stride, even_padding(layer), layer.dilation)


@module_for.register
def _(layer: model.AvgPool) -> nn.Module:
    if layer.kernel == 0:
        return nn.AdaptiveAvgPool2d(1)
    return nn.AvgPool2d(layer.kernel, layer.stride, even_padding(layer),
                        count_include_pad=layer.count_pad,
                        divisor_override=1 if layer.total else None)


@module_for.register
def _(layer: model.Flatten) -> nn.Module:
    return nn.Flatten()


RUN = (model.Bias, model.PReLU, model.Bias, model.LTQ)


def _runs(layers: tuple[Layer, ...]) -> Iterator[tuple[Layer, ...]]:
    """Bias, PReLU, bias and, where it follows, a quantizer, that only read one another."""
    reads = sources(layers)
    readers = Counter(name for names in reads.values() for name in names)
    for at, first in enumerate(layers):
        run = [first]
        for layer in layers[at + 1:at + len(RUN)]:
            if reads[layer.name] != (run[-1].name,) or readers[run[-1].name] > 1:
                break
            run.append(layer)
        for length in (4, 3):
            if tuple(map(type, run[:length])) == RUN[:length]:
                yield tuple(run[:length])
                break


def _plain(module: nn.Module) -> bool:
    """Whether a module is one of a run's, and nobody looks into it."""
    return (type(module) in (LearnableBias, nn.PReLU, LTQ) and not module._forward_hooks
            and not module._forward_pre_hooks)


def _children(module: nn.Module) -> dict[str, nn.Module]:
    """The modules within `module` by name, to be changed."""
    return cast(dict[str, nn.Module], module._modules)


class Network(nn.Module):
    """Declared layers as modules within modules; parameters are named ``layer.parameter``.

    It takes the normalized images that a net's `InputSpec` describes.
    """

    def __init__(self, layers: tuple[Layer, ...]) -> None:
        super().__init__()
        self.layers = layers
        # Not by add_module, which refuses the names of a module's attributes, ours among them.
        for layer in layers:
            *path, name = layer.name.split(".")
            parent: nn.Module = self
            for part in path:
                parent = _children(parent).setdefault(part, nn.Module())
            module = module_for(layer)
            if name in _children(parent):  # of layers within this one, by name
                _children(module).update(_children(_children(parent)[name]))
            _children(parent)[name] = module
        self.runs = [*_runs(layers)]

    def forward(self, images: Tensor) -> Tensor:
        """[N, C, H, W] -> the value of the last layer."""
        fusible = {run[-1].name: run for run in self.runs
                   if all(_plain(self.module(layer)) for layer in run)}
        within = {layer.name for run in fusible.values() for layer in run[:-1]}

        def step(layer: Layer, *x: Tensor) -> Tensor:
            if layer.name in within:
                return x[0]  # the last layer of the run does all of it
            run = fusible.get(layer.name, (layer,))
            whole = self.fused(run, *x) if len(run) > 1 else None
            if whole is not None:
                return whole
            for each in run:
                x = (self.module(each)(*x),)
            return x[0]

        return walk(self.layers, images, step)

    def fused(self, run: tuple[Layer, ...], x: Tensor) -> Tensor | None:
        """What bias, PReLU, bias and perhaps a quantizer make of `x`, in one pass; None if none."""
        modules: list[Any] = [self.module(layer) for layer in run]
        before, prelu, after, *quan = modules
        bend = torch.stack([before.bias.view(-1), prelu.weight.expand(before.bias.numel()),
                            after.bias.view(-1)])
        return fused(x, bend, quan[0].parts() if quan else ())

    def module(self, layer: Layer) -> nn.Module:
        """The module of a layer."""
        module: nn.Module = self
        for part in layer.name.split("."):
            module = _children(module)[part]
        return module


    @classmethod
    def from_net(cls, net: Net) -> Network:
        """The module of a trained net, in evaluation mode; constants keep their values."""
        network = cls(net.layers).eval()
        tensors = {key: torch.from_numpy(value.copy()) for key, value in net.params.items()}
        network.load_state_dict({**network.state_dict(), **tensors})
        return network

    def to_net(self, name: str, input: InputSpec, meta: dict[str, Any]) -> Net:
        """The trained network as data, without the constants that no `Net` holds.

        `net_of` says what is moved and refused.
        """
        state = self.state_dict()
        names = [f"{layer.name}.{key}" for layer in self.layers for key in layer.shapes()]
        return net_of(name, input, self.layers,
                      {key: state[key] for key in names if key in state}, meta)


def net_of(name: str, input: InputSpec, layers: tuple[Layer, ...], tensors: Mapping[str, Tensor],
           meta: dict[str, Any]) -> Net:
    """Layers and their parameters ``layer.parameter`` as data.

    Weights on a rounding boundary are moved (see `settle_codes`).  Raises N2uqError for
    parameters that are missing, not float32, not finite, or that no `Net` may hold.
    """
    others = {f"{layer.name}.{key}" for layer in layers for key in layer.TYPES}
    for key, value in tensors.items():
        if value.dtype != torch.float32 and key not in others:
            raise N2uqError(f"{name}: {key} must be float32, not "
                            f"{str(value.dtype).removeprefix('torch.')}; "
                            "the module's float() makes it so")
    params = {key: value.detach().cpu().numpy().copy() for key, value in tensors.items()}
    net = Net(name, input, layers, params, meta)  # says what is wrong with its values
    for layer in layers:
        if isinstance(layer, model.Conv | model.Linear):
            settle_codes(f"{name}: {layer.name}.weight", params[f"{layer.name}.weight"],
                         params[f"{layer.name}.clip_val"], layer.bits)
    return net


def settle_codes(what: str, weight: np.ndarray, clip_val: np.ndarray, bits: int) -> int:
    """Make NumPy give `weight` [Cout, ...] the codes that torch gives it; how many moved.

    Float32 means in torch and in NumPy may differ in the last bit, so a weight on a rounding
    boundary could get another code k.  Such a weight is moved in place by 1e-5 of itself towards
    the code of torch, until both give all weights these codes.  Where all weights of a filter
    lie on boundaries the scale follows, and none leaves its own: then away from zero, until both
    give the same codes.  N2uqError if they never do.
    """
    before = weight.copy()

    def codes() -> tuple[np.ndarray, np.ndarray]:
        theirs, _ = weight_codes(torch.from_numpy(weight), torch.from_numpy(clip_val), bits)
        return model.weight_codes(weight, clip_val[0], bits)[0], theirs.numpy()

    _, wanted = codes()
    for towards_wanted in (True, False):
        weight[:] = before
        for _ in range(NUDGES):
            ours, theirs = codes()
            differs = ours != theirs
            if towards_wanted:
                differs |= ours != wanted
            if not differs.any():
                return int((weight != before).sum())
            step = NUDGE * np.abs(weight[differs])
            if towards_wanted:
                step *= np.sign((2 * wanted - ours - theirs)[differs])
            else:
                step *= np.sign(weight[differs])
            weight[differs] += step.astype(np.float32)
    raise N2uqError(f"{what} must get the same codes in torch and in NumPy, "
                    f"{int(differs.sum())} of {weight.size} do not")
