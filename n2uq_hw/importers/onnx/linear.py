"""Rules of convolutions, matrix products and pools."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...model import AvgPool, FloatConv, FloatLinear, IntConv, IntLinear, MaxPool
from ...model.transposed import block_weights, blocks
from .constants import Constant, axes_of
from .reading import Node, NoForm
from .tensors import Tensor, atoms, new_image, new_vector
from .trace import NO_PADS, Trace, rule

__all__ = ["average_pool", "convolution", "integer_weights", "over_pixels", "product"]

WIDEST = 2.0**31        # of a code
DYADIC = 15             # bits of codes of weights that are whole numbers times a power of two
Four = tuple[int, int, int, int]


@dataclass(frozen=True)
class _Window:
    """Kernel, stride, dilation and padding of an image, as (height, width) of the value."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pads: Four
    ceil: Four           # of `pads`, what a rounded-up size added

    def size(self, image: Sequence[int]) -> tuple[int, int]:
        """Height and width of what comes out."""
        sides = (sum(self.pads[:2]), sum(self.pads[2:]))
        height, width = ((image[k] + sides[k] - (self.kernel[k] - 1) * self.dilation[k] - 1)
                         // self.stride[k] + 1 for k in (0, 1))
        if height < 1 or width < 1:
            raise NoForm(f"kernel {self.kernel} must fit its image {image[0]}×{image[1]}")
        return height, width


def _spatial(t: Tensor) -> tuple[int, int]:
    return math.prod(a.size for a in t.height), math.prod(a.size for a in t.width)


def _window(node: Node, t: Tensor, swapped: bool, kernel: Sequence[int]) -> _Window:
    """What the attributes say, `kernel` along the axes of the tensor."""
    axes = len(t.dims) - 2
    stride, dilation = node.sizes("strides", (1,) * axes), node.sizes("dilations", (1,) * axes)
    pads = node.sizes("pads", (0,) * (2 * axes))
    if min((*kernel, *stride, *dilation)) < 1 or min(pads) < 0:
        raise NoForm(f"kernel, strides and dilations must be positive, not {tuple(kernel)}, "
                     f"{stride}, {dilation}; pads must not be negative, not {pads}")
    rows = [(kernel[axis], stride[axis], dilation[axis],
             *_sides_of(node, t.shape[2 + axis], (kernel[axis] - 1) * dilation[axis] + 1,
                        stride[axis], pads[axis], pads[axes + axis])) for axis in range(axes)]
    if axes == 1:
        rows = [(1, 1, 1, 0, 0, 0), *rows]
    one, two = reversed(rows) if swapped else rows
    (top, bottom), (left, right) = one[3:5], two[3:5]
    more = t.pads
    return _Window((one[0], two[0]), (one[1], two[1]), (one[2], two[2]), (
        top + more[0], bottom + more[1], left + more[2], right + more[3]),
        (0, one[5], 0, two[5]))


def _sides_of(node: Node, size: int, extent: int, stride: int, before: int, after: int
              ) -> tuple[int, int, int]:
    """Pads before and after an axis of so many pixels, and what ceil_mode adds of these."""
    auto = node.of("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        lack = max((-(-size // stride) - 1) * stride + extent - size, 0)
        before = lack // 2 if auto == "SAME_UPPER" else lack - lack // 2
        return before, lack - before, 0
    if auto == "VALID":
        before = after = 0
    elif auto != "NOTSET":
        raise NoForm(f"auto_pad must be NOTSET, VALID, SAME_UPPER or SAME_LOWER, not {auto}")
    more = (extent - size - before - after) % stride if node.of("ceil_mode", 0) else 0
    if size + before + after + more - extent >= size + before:
        more = 0  # its last window would begin beyond the image
    return before, after + more, more


def _field(sizes: Sequence[int]) -> Any:
    """A size as nets have it: one number where all are alike."""
    return sizes[0] if len({*sizes}) == 1 else tuple(sizes)


def integer_weights(w: Constant) -> tuple[np.ndarray, np.ndarray, bool] | None:
    """Codes [Cout, ...], scale [Cout], and whether no quantizer was there; None of other floats."""
    if w.codes is not None and w.scale is not None:
        scales = w.scale.reshape(len(w.scale), -1).astype(np.float64)
        if (scales != scales[:, :1]).any():
            raise NoForm("weights must have one scale per output channel, not several")
        codes, scale, plain = w.codes, scales[:, 0], False
    else:
        codes, plain = w.array.astype(np.float64), True
        scale = np.ones(len(codes))
        if (codes != np.rint(codes)).any():
            # Whole numbers times a power of two, few bits of them.
            largest = np.abs(codes).max()
            unit = 2.0**(math.frexp(largest)[1] - DYADIC)
            while unit < largest and (np.rint(codes / (unit * 2)) * (unit * 2) == codes).all():
                unit *= 2
            codes, scale, plain = codes / unit, np.full(len(codes), unit), False
            if (codes != np.rint(codes)).any():
                return None
    if (codes != np.rint(codes)).any() or np.abs(codes).max(initial=0) >= WIDEST:
        raise NoForm("codes of weights less their zero point must be whole numbers below 2^31")
    return codes.astype(np.int32), scale, plain


def _constant(w: object, what: str = "weights") -> Constant:
    if not isinstance(w, Constant):
        raise NoForm(f"{what} must be constant")
    if not np.isfinite(w.array).all():
        raise NoForm(f"{what} must be finite, not NaN or infinite")
    return w


def convolution(trace: Trace, node: Node, x: Tensor, w: Constant, label: str) -> Tensor:
    """The convolution of `x` as real values, without a bias."""
    if x.coded is not None:
        x = trace.plain(x, label)
    x, swapped = trace.image(x)
    axes = len(x.dims) - 2
    if w.array.ndim != axes + 2:
        raise NoForm(f"weights must have {axes + 2} axes, not {w.array.ndim}")
    kernel = node.sizes("kernel_shape", w.array.shape[2:])
    groups, outputs = node.of("group", 1), len(w.array)
    if kernel != w.array.shape[2:] or groups < 1 or outputs % groups or (
            w.array.shape[1] * groups != x.size):
        raise NoForm(f"weights must fit {x.size} channels in {groups} groups, and a kernel of "
                     f"{kernel}, not be {list(w.array.shape)}")
    window = _window(node, x, swapped, kernel)
    if x.base.any() and window.pads != x.pads:
        raise NoForm("must not pad with 0 what a Pad before it has padded with another value")
    base = _summed(w.array, np.broadcast_to(x.base * x.factor, x.size).reshape(groups, -1))
    size = window.size(_spatial(x))
    if axes == 1:
        w = w.map(lambda array: array[:, :, None])
    if swapped:
        w = w.map(lambda array: array.swapaxes(2, 3))
    fields = {"in_channels": x.size, "out_channels": outputs, "kernel": _field(window.kernel),
              "stride": _field(window.stride), "padding": _field(window.pads),
              "dilation": _field(window.dilation)}
    integers = integer_weights(w)
    if integers is None:
        if groups != 1:
            raise NoForm("weights in groups must be whole numbers or come from a quantizer")
        name = trace.emit(FloatConv, label, x.layer, params={"weight": w.array * x.factor},
                          **fields)
        trace.notes.append(f"{node.name}: its weights are floats; lowering rounds them "
                           "(--stem-bits)")
    else:
        codes, scale, plain = integers
        name = trace.emit(IntConv, label, x.layer, params={
            "codes": codes, "scale": scale * x.factor}, groups=groups, **fields)
        trace.plain_weights |= {name} if plain else set()
    y = trace.bounded(new_image(name, x, outputs, *size, swapped=swapped))
    return trace.added(y, base, f"{label}_base") if base.any() else y


def _summed(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A convolution's outputs where its inputs are `values` [groups, C/groups] everywhere."""
    sums = weights.astype(np.float64).reshape(*weights.shape[:2], -1).sum(axis=2)
    return (sums * np.repeat(values, len(weights) // len(values), axis=0)).sum(axis=1)


@rule("Conv")
def _conv(trace: Trace, node: Node, x: Tensor, w: object, bias: object = None) -> Tensor:
    y = convolution(trace, node, x, _constant(w), node.name)
    return _biased(trace, y, bias, node.name)


def _biased(trace: Trace, y: Tensor, bias: object, label: str) -> Tensor:
    if bias is None:
        return y
    array = _constant(bias, "a bias").array
    spread = array.reshape(-1, *(1,) * (len(y.dims) - 2))
    return trace.pointwise(y, "add", spread, f"{label}_bias")


@rule("ConvTranspose")
def _transposed(trace: Trace, node: Node, x: Tensor, w: object, bias: object = None) -> Tensor:
    """A convolution that makes a block of pixels of each, as large as the strides, and moves them.

    Pixels that the last blocks have too many are cut off.
    """
    x, weights = trace.unpadded(x), _constant(w)
    axes, groups = len(x.dims) - 2, node.of("group", 1)
    if weights.array.ndim != axes + 2 or groups < 1 or x.shape[1] % groups or (
            len(weights.array) != x.shape[1]):
        raise NoForm(f"weights must have {axes + 2} axes and {x.shape[1]} channels in {groups} "
                     f"groups, not be {list(weights.array.shape)}")
    auto = node.of("auto_pad", "NOTSET")
    if auto not in ("NOTSET", "VALID") or "output_shape" in node.attributes:
        raise NoForm("must say its pads, not auto_pad or output_shape")
    kernel = node.sizes("kernel_shape", weights.array.shape[2:])
    strides, apart, more = (node.sizes(key, (default,) * axes) for key, default in (
        ("strides", 1), ("dilations", 1), ("output_padding", 0)))
    pads = node.sizes("pads", (0,) * (2 * axes))
    if kernel != weights.array.shape[2:] or min(*strides, *apart) < 1 or min(*pads, *more) < 0:
        raise NoForm(f"kernel must be that of the weights, not {kernel}; strides and dilations "
                     f"positive, not {strides}, {apart}; pads not negative, not {pads}, {more}")
    sides = [blocks(*each) for each in zip(
        x.shape[2:], kernel, strides, apart, zip(pads[:axes], pads[axes:], strict=True), more,
        strict=True)]
    if min(side.size * stride - side.cut for side, stride in zip(
            sides, strides, strict=True)) < 1:
        raise NoForm(f"must not cut off all pixels: pads {pads} are too large")
    part = weights.map(lambda array: block_weights(array, groups, sides))
    if weights.scale is not None:
        part = replace(part, scale=block_weights(weights.scale, groups, sides, zeros=False))
    small = replace(node, op="Conv", attributes={
        "group": groups, "pads": tuple(side.pads[k] for k in (0, 1) for side in sides)})
    y = convolution(trace, small, x, part, node.name)
    sizes = [side.size for side in sides]
    y = y.reshaped((y.shape[0], len(part.array) // math.prod(strides), *strides, *sizes))
    y = y.transposed((0, 1, *(place for k in range(axes) for place in (2 + axes + k, 2 + k))))
    y, _ = trace.image(y.reshaped((*y.shape[:2], *(size * stride for size, stride in zip(
        sizes, strides, strict=True)))))
    return _biased(trace, _cut(trace, node, y, [side.cut for side in sides]), bias, node.name)


def _cut(trace: Trace, node: Node, x: Tensor, sizes: Sequence[int]) -> Tensor:
    """`x` without its last pixels: windows of which a depthwise convolution takes the first."""
    if not any(sizes):
        return x
    kernel = [size + 1 for size in sizes]
    first = np.tile(np.arange(math.prod(kernel)).reshape(kernel) == 0,
                    (x.shape[1], 1, *(1 for _ in kernel)))
    return convolution(trace, replace(node, op="Conv", attributes={"group": x.shape[1]}), x,
                       Constant(first.astype(np.float64)), f"{node.name}_cut")


def product(trace: Trace, node: Node, x: Tensor, w: Constant, label: str) -> Tensor:
    """The product of the last axis of `x`, as real values, and a matrix [K, M]."""
    if x.columns is not None:
        return _columned(trace, x.columns, replace(x, columns=None), w, label)
    x = trace.unpadded(x)
    if x.coded is not None:
        x = trace.plain(x, label)
    while w.array.ndim > 2 and w.array.shape[0] == 1:
        if w.array.ndim > len(x.dims):
            x = replace(x, dims=((), *x.dims))
        w = w.map(lambda array: array[0])
    if w.array.ndim != 2 or w.array.shape[0] != x.shape[-1]:
        raise NoForm(f"weights must be a matrix of {x.shape[-1]} rows, not "
                     f"{list(w.array.shape)}")
    last, outputs = x.dims[-1], w.array.shape[1]
    others = {atom for dim in x.dims[:-1] for atom in dim} - set(x.batch)
    if others and (x.vector or set(last) != set(x.channels)):
        raise NoForm("must multiply whole vectors, or the channels of each pixel")
    if not others:
        x = trace.flattened(x)
    # Rows of the weights in the order of the value.
    rows = np.arange(x.shape[-1]).reshape([atom.size for atom in last])
    rows = rows.transpose([last.index(atom) for atom in x.channels]).reshape(-1)
    w = w.map(lambda array: array[rows].T)
    integers = integer_weights(w)
    params = {"weight": w.array * x.factor, "bias": np.zeros(outputs)} if integers is None else {
        "codes": integers[0], "scale": integers[1] * x.factor}
    if integers is None:
        trace.notes.append(f"{node.name}: its weights are floats; lowering rounds them "
                           "(--head-bits)")
    if others:
        params = {key: value.reshape(*value.shape, *(1,) * (2 * (value.ndim - 1)))
                  for key, value in params.items() if key != "bias"}
        name = trace.emit(FloatConv if integers is None else IntConv, label, x.layer, params=params,
                          in_channels=x.size, out_channels=outputs, kernel=1)
        axis = atoms(outputs)
        y = Tensor(name, axis, x.height, x.width, (*x.dims[:-1], axis), x.batch)
    else:
        name = trace.emit(FloatLinear if integers is None else IntLinear, label, x.layer,
                          params=params, in_features=x.size, out_features=outputs)
        y = new_vector(name, x, outputs)
    trace.plain_weights |= {name} if integers is not None and integers[2] else set()
    return trace.bounded(y)


@rule("Im2Col")
def _im2col(trace: Trace, node: Node, x: Tensor) -> Tensor:
    """FINN's lowered convolutions: windows of an image with channels last, (ky, kx, c) each."""
    if len(x.dims) != 4 or node.of("pad_value", 0):
        raise NoForm("must read an image [N, H, W, C], padded with 0")
    columns = replace(node, op="Conv", attributes={
        "kernel_shape": node.sizes("kernel_size", (1, 1)), "strides": node.sizes("stride", (1, 1)),
        "dilations": node.sizes("dilations", (1, 1)),
        "pads": node.sizes("pad_amount", (0,) * 4)})
    trace.text = "the windows of what reads it"
    return replace(trace.unpadded(x), columns=columns)


def _columned(trace: Trace, columns: Node, x: Tensor, w: Constant, label: str) -> Tensor:
    """The product of windows and a matrix: a convolution; where it is diagonal, a depthwise one."""
    (height, width), channels = columns.sizes("kernel_shape", (1, 1)), x.shape[-1]
    if w.array.ndim != 2 or len(w.array) != height * width * channels:
        raise NoForm(f"weights must be a matrix of {height * width * channels} rows, "
                     f"not {list(w.array.shape)}")
    w = w.map(lambda array: array.reshape(height, width, channels, -1).transpose(3, 2, 0, 1))
    each = np.arange(channels)
    if len(w.array) == channels > 1 and not w.array[each[:, None] != each].any():
        w = w.map(lambda array: array[each, each][:, None])
        columns = replace(columns, attributes=columns.attributes | {"group": channels})
    y = convolution(trace, columns, x.transposed((0, 3, 1, 2)), w, label)
    return y.transposed((0, 2, 3, 1))


@rule("MatMul")
def _matmul(trace: Trace, node: Node, x: object, w: object) -> Tensor:
    if not isinstance(x, Tensor) or isinstance(w, Tensor):
        raise NoForm("must multiply an activation by constant weights from the right")
    return product(trace, node, x, _constant(w), node.name)


@rule("Gemm")
def _gemm(trace: Trace, node: Node, x: object, w: object, bias: object = None) -> Tensor:
    if not isinstance(x, Tensor) or node.of("transA", 0):
        raise NoForm("must multiply an activation by constant weights from the right")
    alpha, beta = node.of("alpha", 1.0), node.of("beta", 1.0)
    weights = _constant(w)
    if node.of("transB", 0):
        weights = weights.map(lambda array: array.T)
    if alpha != 1:
        weights = weights.scaled(np.array(alpha), np.multiply)
    y = product(trace, node, x, weights, node.name)
    if bias is None:
        return y
    return trace.pointwise(y, "add", _constant(bias, "a bias").array * beta, f"{node.name}_bias")


# --- Pools --------------------------------------------------------------------------------------


def _pooled(trace: Trace, node: Node, x: Tensor) -> tuple[Tensor, bool, _Window]:
    x, swapped = trace.image(x)
    kernel = node.attributes.get("kernel_shape", ())
    axes = len(x.dims) - 2
    return x, swapped, _window(node, x, swapped, node.sizes("kernel_shape", (
        kernel if len(kernel) == axes else (0,) * axes)))


@rule("MaxPool")
def _max_pool(trace: Trace, node: Node, x: Tensor) -> Tensor:
    if x.factor < 0:
        x = trace.plain(x, node.name)
    lowest = bool((x.base == -math.inf).all())  # of a Pad: the pool's own padding
    zeros = any(x.pads) and not lowest and bool(
        x.base.any() or x.layer not in trace.positive)
    x, swapped, window = _pooled(trace, node, x)
    if zeros and window.pads != x.pads:
        raise NoForm("must not pad what a Pad before it has padded with another value")
    extent = [(size - 1) * apart + 1 for size, apart in zip(
        window.kernel, window.dilation, strict=True)]
    if any(x.pads) and not zeros and any(side >= extent[k // 2]
                                         for k, side in enumerate(window.pads)):
        raise NoForm(f"kernel {window.kernel} must be larger than the pads {window.pads}")
    size = window.size(_spatial(x))
    name = trace.emit(MaxPool, node.name, x.layer, kernel=_field(window.kernel),
                      stride=_field(window.stride), padding=_sides(window.pads),
                      dilation=_field(window.dilation), zeros=zeros)
    y = replace(new_image(name, x, x.size, *size, swapped=swapped), factor=x.factor, coded=x.coded)
    return trace.added(y, x.base, f"{node.name}_base") if zeros and x.base.any() else y


def _sides(pads: Four) -> int | Four:
    return 0 if not any(pads) else pads


@rule("AveragePool")
def average_pool(trace: Trace, node: Node, x: Tensor, *, total: bool = False) -> Tensor:
    """The average, or sum, of windows of reals; whether pads count is the node's to say."""
    if x.coded is not None:
        x = trace.plain(x, node.name)
    x, swapped, window = _pooled(trace, node, x)
    counted = bool(node.of("count_include_pad", 0))
    if any(x.pads):  # of a Pad, which count
        if window.pads != x.pads and (x.base.any() or not counted):
            raise NoForm("must not pad what a Pad before it has padded")
        counted = True
    if window.dilation != (1, 1):
        raise NoForm(f"dilations must be 1, not {window.dilation}")
    if any(window.ceil) and counted and any(window.pads):
        x, window = _with_zeros(trace, node, x, window)
        counted = False
    size = window.size(_spatial(x))
    if window.kernel == _spatial(x) and not any(window.pads) and not total:
        name = trace.emit(AvgPool, node.name, x.layer)
    else:
        name = trace.emit(AvgPool, node.name, x.layer, kernel=_field(window.kernel),
                          stride=_field(window.stride), padding=_sides(window.pads),
                          count_pad=counted or not any(window.pads), total=total)
    y = replace(new_image(name, x, x.size, *size, swapped=swapped), factor=x.factor)
    times = math.prod(window.kernel) if total else 1
    return trace.added(y, x.base * times, f"{node.name}_base") if x.base.any() else y


def _with_zeros(trace: Trace, node: Node, x: Tensor, window: _Window) -> tuple[Tensor, _Window]:
    """`x` with its pads as pixels, which count; of the window stay the pads that ceil_mode adds."""
    own = tuple(side - more for side, more in zip(window.pads, window.ceil, strict=True))
    window = replace(window, pads=window.ceil)
    if not any(own):
        return x, window
    name = trace.emit(MaxPool, f"{node.name}_pad", x.layer, kernel=1, stride=1, padding=own,
                      zeros=True)
    height, width = _spatial(x)
    return replace(x, layer=name, height=atoms(height + own[0] + own[1]),
                   width=atoms(width + own[2] + own[3]), pads=NO_PADS), window


def _all_of(trace: Trace, node: Node, x: Tensor, over: set[int]) -> Tensor:
    """`x`, if these axes are all of its pixels."""
    x = trace.unpadded(x)
    held = {atom for axis in over for atom in x.dims[axis]}
    if x.vector or held != {*x.height, *x.width}:
        raise NoForm(f"must be over all pixels of each channel, not over axes {sorted(over)} of "
                     f"{list(x.shape)}")
    return x


def _all_pixels(x: Tensor, name: str, over: set[int], keep: bool) -> Tensor:
    dims = tuple(() if axis in over else dim for axis, dim in enumerate(x.dims)
                 if keep or axis not in over)
    return replace(x, layer=name, height=(), width=(), dims=dims)


def _reduced(trace: Trace, node: Node, x: Tensor, over: set[int], keep: bool) -> Tensor:
    if not any(x.dims[axis] for axis in over):  # of one element each
        x = trace.view(x)
        return replace(x, dims=tuple(dim for axis, dim in enumerate(x.dims)
                                     if keep or axis not in over))
    if "Max" in node.op:
        x = _all_of(trace, node, x, over)
        name = trace.emit(MaxPool, node.name, x.layer, kernel=_field(_spatial(x)), stride=1)
        return _all_pixels(x, name, over, keep)
    if x.coded is not None:
        x = trace.plain(x, node.name)
    x = _all_of(trace, node, x, over)
    sizes = {"kernel": _field(_spatial(x)), "total": True} if "Sum" in node.op else {}
    return _all_pixels(x, trace.emit(AvgPool, node.name, x.layer, **sizes), over, keep)


@rule("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(trace: Trace, node: Node, x: Tensor) -> Tensor:
    return _reduced(trace, node, x, set(range(2, len(x.dims))), True)


@rule("ReduceMean", "ReduceMax")
def over_pixels(trace: Trace, node: Node, x: Tensor, *axes: object) -> Tensor:
    """The mean, maximum or sum over all pixels of each channel."""
    over = set(axes_of(node, (x, *axes), len(x.dims)))
    return _reduced(trace, node, x, over, bool(node.of("keepdims", 1)))

