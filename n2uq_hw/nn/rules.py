"""What each operation of torch becomes: one rule for a module and its functions.

Sequences [N, C, L] are images of height 1.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .. import model
from ..model import Layer, Padding, Size, frame, pair
from ..model.layers import BN_EPS
from ..model.transposed import block_weights, blocks
from .layers import LTQ, PACT, QuantizedConv2d, QuantizedLinear
from .low_bit import SIZES
from .recorder import BATCH, Step, shown, whole

__all__ = ["RULES", "Layers", "NoForm", "Value", "add_whole"]


@dataclass(frozen=True)
class Value:
    """A tensor [N, C, ...]: the layer that makes it, and the step that did.

    `margin` (top, bottom, left, right) is of zeros around it, which a convolution takes in.
    """

    layer: str
    shape: tuple[int, ...]
    step: int = -1
    margin: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def channels(self) -> int:
        return self.shape[1]

    @property
    def image(self) -> tuple[int, ...]:
        """Its shape, of a sequence that of an image."""
        return _image(self.shape)


class NoForm(Exception):
    """An operation that no layer is; the rule that it breaks."""


class Layers:
    """The layers so far and their tensors; a rule adds to them, for `step`."""

    def __init__(self, steps: list[Step], readers: Counter[int]) -> None:
        self.layers: list[Layer] = []
        self.tensors: dict[str, Tensor] = {}
        self.taken: set[str] = set()
        self.reserved = {step.path for step in steps if step.alone}
        self.margins: dict[int, tuple[int, int, int, int]] = {}
        self.last = ""  # the images
        self.steps, self.readers = steps, readers
        self.at = -1

    @property
    def step(self) -> Step:
        """That a rule adds to them for."""
        return self.steps[self.at]

    def add(self, kind: type[Layer], sizes: Sequence[Any], reads: tuple[Value, ...],
            name: str = "", **tensors: Tensor) -> str:
        """A layer of hyperparameters `sizes`, called `name` or by its module; returns its name."""
        names = tuple(value.layer for value in reads)
        layer = kind(self.apart(name or self.name(kind)), *sizes,
                     inputs=() if names == (self.last,) else names)
        self.layers.append(layer)
        self.tensors.update((f"{layer.name}.{key}", value) for key, value in tensors.items())
        self.last = layer.name
        return layer.name

    def name(self, kind: type[Layer]) -> str:
        """Of a module that is one operation, its path; else what it does in the module."""
        path = self.step.path
        return path if self.step.alone and path else f"{path}.{kind.__name__.lower()}".lstrip(".")

    def apart(self, name: str) -> str:
        """`name`, with a number where another layer is called so, or will be."""
        path, k = name, 0
        while name in self.taken or (name in self.reserved and name != self.step.path):
            k += 1
            name = f"{path}_{k}"
        self.taken.add(name)
        return name


def _image(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:2], 1, *shape[2:]) if len(shape) == 3 else shape


def _size(sizes: Sequence[int]) -> Size:
    """(height, width), or the one size of both."""
    height, width = sizes
    return int(height) if height == width else (int(height), int(width))


def _sizes(x: Value, value: int | Sequence[int], beside: int = 1) -> Size:
    """A size as torch gives it for `x`; of a sequence the height's is `beside`."""
    sizes = tuple(value) if isinstance(value, Sequence) else (value,)
    if len(x.shape) == 3:
        return _size((beside, sizes[0]))
    return _size(sizes if len(sizes) == 2 else sizes * 2)


Parts = tuple[type[Layer], tuple[Any, ...]]
WHOLE: dict[type[nn.Module], Callable[[Any], Parts]] = {
    LTQ: lambda m: (model.LTQ, (len(m.a).bit_length(),)),
    PACT: lambda m: (model.Pact, (m.bits,)),
    QuantizedConv2d: lambda m: (model.Conv, (
        m.weight.shape[1] * m.groups, m.weight.shape[0], _size(m.weight.shape[2:]), m.stride,
        m.padding, m.groups, m.bits, m.dilation)),
    QuantizedLinear: lambda m: (model.Linear, (m.weight.shape[1], m.weight.shape[0], m.bits)),
    **SIZES,
}


def add_whole(net: Layers, module: nn.Module, x: Value) -> str:
    """The layer that a quantizer or a module with quantized weights is."""
    of = whole(module)
    assert of is not None
    kind, sizes = WHOLE[of](module)
    if kind in (model.Linear, model.IntLinear):
        _vector(x)
    if any(x.margin):
        if kind not in (model.Conv, model.IntConv):
            raise NoForm(MARGIN)
        sizes = (*sizes[:4], _framed(sizes[4], x.margin), *sizes[5:])
    keys = kind("", *sizes).shapes()
    return net.add(kind, sizes, (x,), **{key: getattr(module, key) for key in keys})


MARGIN = "must read what no F.pad has framed, as a convolution or a max pool may"
FRAMED = {"conv1d", "conv2d", "max_pool1d", "max_pool2d"}  # operations that take a margin in
RULES: dict[str, Callable[..., str]] = {}


def _rule(*names: str) -> Callable[[Callable[..., str]], Callable[..., str]]:
    """Registers what operations of these names become; arguments are theirs, as torch has them."""
    def register(rule: Callable[..., str]) -> Callable[..., str]:
        RULES.update(dict.fromkeys(names, rule))
        return rule

    return register


def _vector(x: Value) -> None:
    if len(x.shape) != 2:
        raise NoForm(f"must read a vector [N, features], not {shown(x.shape)}; "
                     "a Flatten before it would do")


def _only(what: str, value: object, wanted: object) -> None:
    if value != wanted:
        raise NoForm(f"must have {what} {wanted}, not {value}")


def _framed(padding: Padding, margin: Sequence[int]) -> Padding:
    """A padding and a margin together, in the shortest form."""
    top, bottom, left, right = (int(a + b) for a, b in zip(frame(padding), margin, strict=True))
    if (top, left) == (bottom, right):
        return _size((top, left))
    return top, bottom, left, right


@_rule("conv1d", "conv2d")
def _conv(net: Layers, input: Value, weight: Tensor, bias: Tensor | None = None,
          stride: int | Sequence[int] = 1, padding: str | int | Sequence[int] = 0,
          dilation: int | Sequence[int] = 1, groups: int = 1) -> str:
    outputs, inputs, *size = weight.shape
    weight = weight.reshape(_image(tuple(weight.shape)))
    kernel, steps = _sizes(input, size), _sizes(input, dilation)
    if padding == "same":
        most = [(k - 1) * d for k, d in zip(pair(kernel), pair(steps), strict=True)]
        around: Padding = (most[0] // 2, most[0] - most[0] // 2, most[1] // 2,
                           most[1] - most[1] // 2)
    else:
        around = 0 if isinstance(padding, str) else _sizes(input, padding, 0)
    sizes = (inputs * groups, outputs, kernel, _sizes(input, stride),
             _framed(around, input.margin), steps, groups)
    name = net.add(model.FloatConv, sizes, (input,), weight=weight)
    if bias is None:
        return name
    return net.add(model.Bias, (outputs,), (Value(name, net.step.shape),), f"{name}_bias",
                   bias=bias.reshape(1, -1, 1, 1))


@_rule("conv_transpose1d", "conv_transpose2d")
def _conv_transpose(net: Layers, input: Value, weight: Tensor, bias: Tensor | None = None,
                    stride: int | Sequence[int] = 1, padding: int | Sequence[int] = 0,
                    output_padding: int | Sequence[int] = 0, groups: int = 1,
                    dilation: int | Sequence[int] = 1) -> str:
    """A convolution that makes a block of pixels of each, as large as the strides, and moves it."""
    weight = weight.reshape(_image(tuple(weight.shape)))
    steps = pair(_sizes(input, stride))
    axes = [blocks(*each) for each in zip(
        input.image[2:], weight.shape[2:], steps, pair(_sizes(input, dilation)),
        ((side, side) for side in pair(_sizes(input, padding, 0))),
        pair(_sizes(input, output_padding, 0)), strict=True)]
    made = _image(net.step.shape)
    if any(each.cut for each in axes):
        raise NoForm(f"must make whole multiples of its stride {_size(steps)}, not "
                     f"{shown(net.step.shape)}; output_padding would do")
    parts = torch.from_numpy(block_weights(weight.detach().cpu().numpy(), groups, axes))
    kernel = _size([each.places.shape[1] for each in axes])
    sizes = (input.channels, len(parts), kernel, 1,
             _framed(0, [side for each in axes for side in each.pads]), 1, groups)
    name = net.add(model.FloatConv, sizes, (input,), weight=parts.contiguous())
    if steps != (1, 1):
        value = Value(name, (BATCH, len(parts), *(each.size for each in axes)))
        name = net.add(model.DepthToSpace, (_size(steps), "CRD"), (value,), f"{name}_blocks")
    if bias is None:
        return name
    return net.add(model.Bias, (made[1],), (Value(name, made),), f"{name}_bias",
                   bias=bias.reshape(1, -1, 1, 1))


@_rule("pad")
def _pad(net: Layers, input: Value, pad: Sequence[int], mode: str = "constant",
         value: float | None = None) -> str:
    """Zeros around an image, for the convolution or the max pool that reads it."""
    _only("mode", mode, "constant")
    left, right, top, bottom = (*pad, 0, 0, 0, 0)[:4]
    if value or min(pad) < 0 or any(pad[4:]) or len(pad) > 2 * (len(input.shape) - 2):
        raise NoForm(f"must add zeros around images, not {list(pad)} of {value or 0}")
    net.margins[net.at] = (top, bottom, left, right)
    return input.layer


@_rule("__getitem__")
def _slice(net: Layers, input: Value, index: Any) -> str:
    """Every n-th pixel, or a convolution of which the last or first pixels are cut off."""
    places = index if isinstance(index, tuple) else (index,)
    cuts = [each for each in places if isinstance(each, slice)]
    if len(cuts) < len(places) or len(cuts) > len(input.shape):
        raise NoForm(CUT)
    ranges = [range(*(cuts[k] if k < len(cuts) else slice(None)).indices(n))
              for k, n in enumerate(input.shape)]
    if any(len(ranges[k]) != input.shape[k] for k in (0, 1)):
        raise NoForm(CUT)
    if all(each.start == 0 for each in ranges) and all(
            (each.stop - 1) // each.step == (n - 1) // each.step
            for each, n in zip(ranges, input.shape, strict=True)):
        strides = _size(([1] + [each.step for each in ranges[2:]])[-2:])
        return input.layer if strides == 1 else net.add(
            model.MaxPool, (1, strides), (input,))
    if any(each.step != 1 for each in ranges):
        raise NoForm(CUT)
    spans = ([(0, 0)] + [(each.start, n - each.stop)
                         for each, n in zip(ranges[2:], input.shape[2:], strict=True)])[-2:]
    return _cropped(net, input, [side for span in spans for side in span])


CUT = ("must take every n-th pixel, or cut off what a convolution before it has padded; what would "
       "do: a convolution or a max-pool with a stride")


def _cropped(net: Layers, input: Value, sides: Sequence[int]) -> str:
    """The convolution that made `input`, with so much less padding."""
    places = {layer.name: k for k, layer in enumerate(net.layers)}
    layer = net.layers[places[input.layer]] if input.layer else None
    if isinstance(layer, model.Bias):
        layer = net.layers[places[input.layer] - 1]
    if (not isinstance(layer, model.FloatConv | model.Conv) or net.readers[input.step] > 1
            or layer.stride != 1 or net.steps[input.step].key not in
            (*FRAMED, "QuantizedConv2d")):
        raise NoForm(CUT)
    less = [a - b for a, b in zip(frame(layer.padding), sides, strict=True)]
    if min(less) < 0:
        raise NoForm(CUT)
    net.layers[places[layer.name]] = replace(layer, padding=_framed(0, less))
    return input.layer


@_rule("linear")
def _linear(net: Layers, input: Value, weight: Tensor, bias: Tensor | None = None) -> str:
    _vector(input)
    outputs, inputs = weight.shape
    bias = weight.new_zeros(outputs) if bias is None else bias
    return net.add(model.FloatLinear, (inputs, outputs), (input,), weight=weight, bias=bias)


@_rule("batch_norm")
def _batch_norm(net: Layers, input: Value, running_mean: Tensor | None,
                running_var: Tensor | None, weight: Tensor | None = None,
                bias: Tensor | None = None, training: bool = False, momentum: float = 0.1,
                eps: float = BN_EPS) -> str:
    """An eps of one's own goes into the variance, which is rounded to float32 again."""
    if training or running_mean is None or running_var is None:
        raise NoForm("must use running statistics: track them, and call module.eval() first")
    if eps != BN_EPS:
        running_var = (running_var.double() + (eps - BN_EPS)).to(running_var.dtype)
        if (running_var < 0).any():
            raise NoForm(f"must have eps {BN_EPS} or more where a variance is as small, not {eps}")
    return net.add(
        model.BatchNorm, (input.channels,), (input,), running_mean=running_mean,
        running_var=running_var,
        weight=torch.ones_like(running_mean) if weight is None else weight,
        bias=torch.zeros_like(running_mean) if bias is None else bias)


@_rule("prelu")
def _prelu(net: Layers, input: Value, weight: Tensor) -> str:
    return net.add(model.PReLU, (input.channels,), (input,),
                   weight=weight.reshape(-1).expand(input.channels))


@_rule("leaky_relu")
def _leaky_relu(net: Layers, input: Value, negative_slope: float = 0.01,
                inplace: bool = False) -> str:
    return _prelu(net, input, torch.tensor([negative_slope], dtype=torch.float32))


@_rule("relu")
def _relu(net: Layers, input: Value, inplace: bool = False) -> str:
    return net.add(model.ReLU, (), (input,))


@_rule("relu6")
def _relu6(net: Layers, input: Value, inplace: bool = False) -> str:
    return net.add(model.ReLU6, (), (input,))


@_rule("hardtanh")
def _hardtanh(net: Layers, input: Value, min_val: float = -1.0, max_val: float = 1.0,
              inplace: bool = False) -> str:
    return _clamp(net, input, min_val, max_val)


@_rule("clamp", "clip")
def _clamp(net: Layers, input: Value, min: float | None = None,
           max: float | None = None) -> str:
    if (min, max) == (0, None):
        return _relu(net, input)
    if (min, max) == (0, 6):
        return _relu6(net, input)
    return _chain(net, input, *(("max", min) if min is not None else (),
                                ("min", max) if max is not None else ()))


def _chain(net: Layers, x: Value, *operations: tuple[Any, ...]) -> str:
    """Element-wise operations one after the other, each with its number or tensor."""
    for op, *value in filter(None, operations):
        tensors = {"value": _values(x, value[0])} if value else {}
        channels = len(tensors["value"]) if value else 1
        name = "" if len(operations) == 1 and net.step.alone else _within(net, op)
        x = replace(x, layer=net.add(model.Pointwise, (op, channels), (x,), name, **tensors))
    return x.layer


def _within(net: Layers, op: str) -> str:
    return f"{net.step.path}.{op}".lstrip(".")


def _values(x: Value, value: float | Tensor) -> Tensor:
    """[1], or [C] of a value per channel."""
    value = value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
    shape = (1,) * (len(x.shape) - value.dim()) + tuple(value.shape)
    if value.numel() != 1 and shape != (1, x.channels, *(1,) * (len(x.shape) - 2)):
        raise NoForm(f"must read a value per channel of {shown(x.shape)}, not {list(value.shape)}")
    return value.double().reshape(-1)


POINTWISE = {"sigmoid": "sigmoid", "tanh": "tanh", "silu": "silu", "softsign": "softsign",
             "abs": "abs", "absolute": "abs", "neg": "neg", "negative": "neg", "sign": "sign",
             "exp": "exp", "erf": "erf", "sqrt": "sqrt", "round": "round", "floor": "floor",
             "ceil": "ceil", "__neg__": "neg"}


def _pointwise(op: str) -> Callable[..., str]:
    def rule(net: Layers, input: Value, inplace: bool = False) -> str:
        return _chain(net, input, (op,))

    return rule


RULES.update({name: _pointwise(op) for name, op in POINTWISE.items()})


@_rule("gelu")
def _gelu(net: Layers, input: Value, approximate: str = "none") -> str:
    _only("approximate", approximate, "none")
    return _chain(net, input, ("gelu",))


@_rule("elu")
def _elu(net: Layers, input: Value, alpha: float = 1.0, inplace: bool = False) -> str:
    return _chain(net, input, ("elu", alpha))


@_rule("softplus")
def _softplus(net: Layers, input: Value, beta: float = 1, threshold: float = 20) -> str:
    _only("beta", beta, 1)
    return _chain(net, input, ("softplus",))


@_rule("hardswish")
def _hardswish(net: Layers, input: Value, inplace: bool = False) -> str:
    return _chain(net, input, ("hard_swish",))


@_rule("hardsigmoid")
def _hardsigmoid(net: Layers, input: Value, inplace: bool = False) -> str:
    return _chain(net, input, ("div", 6.0), ("add", 0.5), ("max", 0.0), ("min", 1.0))


def _scalars(op: str, turned: str) -> Callable[..., str]:
    """``x op value``, and ``value op x`` where that is another operation."""
    def rule(net: Layers, input: Value | Tensor | float, other: Value | Tensor | float, *,
             rounding_mode: str | None = None, alpha: float = 1) -> str:
        _only("rounding_mode", rounding_mode, None)
        _only("alpha", alpha, 1)
        if isinstance(input, Value) and isinstance(other, Value):
            raise NoForm("must read one layer and constants, not two layers")
        x, value = (input, other) if isinstance(input, Value) else (other, input)
        assert isinstance(x, Value) and not isinstance(value, Value)
        return _chain(net, x, (op if x is input else turned, value))

    return rule


for _name, _op, _turned in (("mul", "mul", "mul"), ("multiply", "mul", "mul"),
                            ("div", "div", "rdiv"), ("true_divide", "div", "rdiv"),
                            ("__rdiv__", "rdiv", "div"), ("sub", "sub", "rsub"),
                            ("__rsub__", "rsub", "sub"), ("rsub", "rsub", "sub"),
                            ("maximum", "max", "max"), ("minimum", "min", "min")):
    RULES[_name] = _scalars(_op, _turned)


def _clipped(net: Layers, input: Value, kernel: Size, stride: Size, padding: Size) -> Padding:
    """The padding with what ceil_mode adds below and to the right, for windows that end beyond."""
    more = [max((m - 1) * s + k - n - 2 * p, 0) for m, n, k, s, p in zip(
        _image(net.step.shape)[2:], input.image[2:], pair(kernel), pair(stride), pair(padding),
        strict=True)]
    return _framed(padding, (0, more[0], 0, more[1]))


@_rule("max_pool1d", "max_pool2d")
def _max_pool(net: Layers, input: Value, kernel_size: int | Sequence[int],
              stride: int | Sequence[int] | None = None, padding: int | Sequence[int] = 0,
              dilation: int | Sequence[int] = 1, ceil_mode: bool = False,
              return_indices: bool = False) -> str:
    kernel = _sizes(input, kernel_size)
    step = _sizes(input, stride) if stride else kernel
    around, apart = _sizes(input, padding, 0), _sizes(input, dilation)
    _only("return_indices", return_indices, False)
    spread = _size([(k - 1) * d + 1 for k, d in zip(pair(kernel), pair(apart), strict=True)])
    if any(input.margin):  # of zeros
        if around != 0 or ceil_mode:
            raise NoForm("must not pad, or have ceil_mode, where F.pad has framed what it reads")
        return net.add(model.MaxPool, (kernel, step, _framed(0, input.margin), apart, True),
                       (input,))
    framed = _clipped(net, input, spread, step, around)
    sizes = (kernel, step, framed) if apart == 1 else (kernel, step, framed, apart)
    return net.add(model.MaxPool, sizes, (input,))


@_rule("avg_pool1d", "avg_pool2d")
def _avg_pool(net: Layers, input: Value, kernel_size: int | Sequence[int],
              stride: int | Sequence[int] | None = None, padding: int | Sequence[int] = 0,
              ceil_mode: bool = False, count_include_pad: bool = True,
              divisor_override: int | None = None) -> str:
    kernel, around = _sizes(input, kernel_size), _sizes(input, padding, 0)
    step = _sizes(input, stride) if stride else kernel
    if divisor_override not in (None, 1):
        raise NoForm(f"must have divisor_override None or 1, not {divisor_override}")
    framed = _clipped(net, input, kernel, step, around)
    if divisor_override == 1:
        return net.add(model.AvgPool, (kernel, step, framed, True, True), (input,))
    if around == 0 and pair(kernel) == input.image[2:]:
        return net.add(model.AvgPool, (), (input,))
    if kernel == step == 1:
        return input.layer
    counted = bool(count_include_pad) and around != 0
    if counted and framed != around:  # pads that count are pixels, those of ceil_mode are none
        name = net.add(model.MaxPool, (1, 1, around, 1, True), (input,), _within(net, "pad"))
        input = replace(input, layer=name)
        framed, counted = _framed(framed, [-side for side in frame(around)]), False
    return net.add(model.AvgPool, (kernel, step, framed, counted or framed == 0), (input,))


@_rule("adaptive_avg_pool1d", "adaptive_avg_pool2d")
def _adaptive_avg_pool(net: Layers, input: Value, output_size: Any) -> str:
    return _adaptive(net, input, model.AvgPool)


@_rule("adaptive_max_pool1d", "adaptive_max_pool2d")
def _adaptive_max_pool(net: Layers, input: Value, output_size: Any,
                       return_indices: bool = False) -> str:
    _only("return_indices", return_indices, False)
    return _adaptive(net, input, model.MaxPool)


def _adaptive(net: Layers, input: Value, kind: type[Layer]) -> str:
    """Windows of one size side by side, if that is what they are."""
    shape, wanted = input.image[2:], _image(net.step.shape)[2:]
    if shape == wanted and (kind is model.MaxPool or shape != (1, 1)):
        return input.layer  # of a pixel each
    if wanted == (1, 1) and kind is model.AvgPool:
        return net.add(model.AvgPool, (), (input,))
    if any(n % m for n, m in zip(shape, wanted, strict=True)):
        raise NoForm(f"must make windows of one size, not {wanted} of {shown(input.shape)}")
    kernel = _size([n // m for n, m in zip(shape, wanted, strict=True)])
    return net.add(kind, (kernel, kernel), (input,))


@_rule("mean")
def _mean(net: Layers, input: Value, dim: int | Sequence[int] | None = None,
          keepdim: bool = False) -> str:
    count = len(input.shape)
    axes = range(count) if dim is None else dim if isinstance(dim, Sequence) else (dim,)
    if count < 3 or {axis % count for axis in axes} != {*range(2, count)}:
        raise NoForm(f"must average all pixels of {shown(input.shape)}; AdaptiveAvgPool2d(1) does")
    name = net.add(model.AvgPool, (), (input,))
    return name if keepdim else net.add(
        model.Flatten, (), (Value(name, (*input.shape[:2], 1, 1)),))


@_rule("cat", "concat", "concatenate")
def _cat(net: Layers, tensors: Sequence[Value | Tensor], dim: int = 0) -> str:
    if not all(isinstance(each, Value) for each in tensors):
        raise NoForm("must read layers, not constants")
    parts = tuple(each for each in tensors if isinstance(each, Value))
    if dim % len(parts[0].shape) != 1:
        raise NoForm(f"must join channels, axis 1, not axis {dim} of {shown(parts[0].shape)}")
    return parts[0].layer if len(parts) == 1 else net.add(model.Concat, (), parts)


@_rule("interpolate", "upsample", "upsample_nearest")
def _interpolate(net: Layers, input: Value, size: Any = None, scale_factor: Any = None,
                 mode: str = "nearest", align_corners: bool | None = None,
                 recompute_scale_factor: bool | None = None, antialias: bool = False) -> str:
    if mode not in ("nearest", "nearest-exact"):
        raise NoForm(f"must have mode nearest, not {mode}")
    before, after = input.image[2:], _image(net.step.shape)[2:]
    if any(m % n for n, m in zip(before, after, strict=True)):
        raise NoForm(f"must repeat whole pixels of {shown(input.shape)}, "
                     f"not make {shown(net.step.shape)}")
    factor = _size([m // n for n, m in zip(before, after, strict=True)])
    return input.layer if factor == 1 else net.add(model.Upsample, (factor,), (input,))


@_rule("pixel_shuffle")
def _pixel_shuffle(net: Layers, input: Value, upscale_factor: int) -> str:
    return net.add(model.DepthToSpace, (upscale_factor, "CRD"), (input,))


@_rule("channel_shuffle", "native_channel_shuffle")
def _channel_shuffle(net: Layers, input: Value, groups: int) -> str:
    order = torch.arange(input.channels).reshape(groups, -1).T.reshape(-1)
    return net.add(model.Permute, (input.channels,), (input,), order=order.int())


@_rule("flatten", "view", "reshape", "squeeze", "unsqueeze")
def _flatten(net: Layers, input: Value, *shape: Any, **named: Any) -> str:
    """Whatever the arguments, the shape tells: rows of a reshape keep their order."""
    if _image(net.step.shape) == input.image:
        return input.layer
    if len(input.shape) == 2 and len(net.step.shape) in (3, 4) and net.step.shape[0] == BATCH:
        sides = _image(net.step.shape)[2:]  # a vector runs over (C, H, W)
        return net.add(model.DepthToSpace, (_size(sides), "CRD"), (input,))
    if net.step.shape != (BATCH, math.prod(input.shape[1:])):
        raise NoForm(f"must make a vector of each image, [N, {math.prod(input.shape[1:])}], "
                      f"not {shown(net.step.shape)}")
    return net.add(model.Flatten, (), (input,))


@_rule("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
def _dropout(net: Layers, input: Value, p: float = 0.5, training: bool = True,
             inplace: bool = False) -> str:
    if training:
        raise NoForm("must not drop in evaluation mode: pass training=self.training, and call "
                      "module.eval() first")
    return input.layer


@_rule("contiguous", "clone", "detach", "float", "to")
def _same(net: Layers, input: Value, *how: Any, **named: Any) -> str:
    return input.layer


@_rule("add")
def _add(net: Layers, input: Value | Tensor | float, other: Value | Tensor | float, *,
         alpha: float = 1) -> str:
    """Of two layers, or of a layer and a bias per channel."""
    _only("alpha", alpha, 1)
    if isinstance(input, Value) and isinstance(other, Value):
        if input.shape != other.shape:
            raise NoForm("must read tensors of one shape, not "
                          f"{shown(input.shape)} and {shown(other.shape)}")
        return net.add(model.Add, (), (input, other))
    x, bias = (input, other) if isinstance(input, Value) else (other, input)
    assert isinstance(x, Value) and not isinstance(bias, Value)
    if not isinstance(bias, Tensor):
        if bias == 0:  # where sum() starts
            return x.layer
        bias = torch.tensor(bias, dtype=torch.float32)
    shape = (1,) * (len(x.shape) - bias.dim()) + tuple(bias.shape)
    if bias.numel() != 1 and shape != (1, x.channels, *(1,) * (len(x.shape) - 2)):
        raise NoForm(f"must read a bias per channel of {shown(x.shape)}, "
                      f"not {list(bias.shape)}")
    return net.add(model.Bias, (x.channels,), (x,),
                   bias=bias.reshape(-1).expand(x.channels).reshape(1, -1, 1, 1))
