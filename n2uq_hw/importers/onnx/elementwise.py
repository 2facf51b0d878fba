"""Rules of element-wise operations, normalizations, sums, and what moves axes and channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...model import Add, Concat, DepthToSpace, Permute, Pointwise, Steps, Upsample
from .constants import (
    BINARY,
    UNARY,
    Constant,
    axes_of,
    ends_of,
    reshape_target,
    shape_of,
    slices_of,
)
from .linear import over_pixels
from .reading import Node, NoForm
from .tensors import Levels, Tensor, atoms
from .trace import WIDE, Trace, Value, rule

__all__ = ["add"]

NEVER = float(np.finfo(np.float64).max) / 4    # a threshold that nothing reaches


def _left_off(trace: Trace, node: Node, x: Tensor) -> Tensor:
    trace.text = f"left off: {node.op} at the end"
    trace.notes.append(f"{node.name}: {node.op} at the end is left off; the order of classes is "
                       "the same")
    return replace(trace.plain(x, node.name), ending=node.op)


@rule(*UNARY)
def _unary(trace: Trace, node: Node, x: Tensor) -> Tensor:
    if node.op == "Sigmoid" and trace.at_end(node):
        return _left_off(trace, node, x)
    if node.op in ("Floor", "Ceil", "Round"):
        rounding = {"Floor": "floor", "Ceil": "ceil", "Round": "even"}[node.op]
        return trace.quantize(x, np.ones(1), np.zeros(1), WIDE, rounding, node.name)
    if node.op == "Relu" and (kept := trace.narrowed(x, 0.0, math.inf, node.name)):
        return kept
    y = trace.pointwise(x, UNARY[node.op], None, node.name)
    if node.op == "Sign":
        return trace.quantize(y, np.ones(1), np.zeros(1), (-1, 1), "even", f"{node.name}_levels")
    return y


@rule("Softmax", "LogSoftmax")
def _softmax(trace: Trace, node: Node, x: Tensor) -> Tensor:
    if not trace.at_end(node, ("QuantizeLinear", "DequantizeLinear", "Quant", "Clip")):
        raise NoForm("must be at the end of the network")
    return _left_off(trace, node, x)


@rule(*BINARY)
def _binary(trace: Trace, node: Node, *inputs: Value) -> Value:
    result = inputs[0]
    if len(inputs) == 1:
        return result
    for place, other in enumerate(inputs[1:]):
        label = node.name if place == 0 else f"{node.name}_{place + 1}"
        if isinstance(result, Tensor) and isinstance(other, Tensor):
            result = _two(trace, node, result, other, label)
        elif isinstance(result, Tensor) and isinstance(other, Constant):
            result = _valued(trace, result, BINARY[node.op][0], other, label)
        elif isinstance(other, Tensor) and isinstance(result, Constant):
            result = _valued(trace, other, BINARY[node.op][1], result, label)
        else:
            raise NoForm("must not begin with two constants")
    return result


def _valued(trace: Trace, x: Tensor, op: str, value: Constant, label: str) -> Tensor:
    if not op:
        raise NoForm("must have a constant exponent")
    if x.levels is not None and op == "mul":
        return weighted(trace, x, x.levels, value.array.astype(np.float64))
    array = value.array.astype(np.float64)
    if not np.isfinite(array).all():
        raise NoForm("a constant must be finite, not NaN or infinite")
    if op == "div" and not array.all():
        raise NoForm("must not divide by 0")
    if op in ("min", "max") and array.size == 1:
        low, high = (-math.inf, array.item()) if op == "min" else (array.item(), math.inf)
        if (kept := trace.narrowed(x, low, high, label)) is not None:
            return kept
    if array.ndim > len(x.dims):  # such as [1, 1, C] with [N, C]
        lead = array.shape[:array.ndim - len(x.dims)]
        if any(size > 1 for size in lead):
            raise NoForm(f"a constant must not have more axes than {list(x.shape)}, "
                         f"not {list(array.shape)}")
        x = replace(x, dims=((),) * len(lead) + x.dims)
    return trace.undone(x, op, array, label) or trace.pointwise(x, op, array, label)


def _two(trace: Trace, node: Node, x: Tensor, y: Tensor, label: str) -> Tensor:
    if node.op == "Add":
        return add(trace, x, y, label)
    if node.op == "Sub":
        return add(trace, x, trace.pointwise(y, "neg", None, f"{label}_neg"), label)
    if node.op == "Mul":
        if x is y:
            return trace.pointwise(x, "pow", np.array(2.0), label)
        for one, other in ((x, y), (y, x)):
            layer = trace.layer(other.layer)
            if isinstance(layer, Pointwise) and layer.op == "sigmoid" and (
                    layer.inputs == (one.layer,) and one.dims == other.dims):
                return trace.pointwise(one, "silu", None, label)
    raise NoForm("must have a constant, or be the sum of two activations")


def add(trace: Trace, x: Tensor, y: Tensor, label: str) -> Tensor:
    """The sum of two activations of one shape."""
    if x.factor != y.factor or x.coded is not None or y.coded is not None:
        x, y = trace.plain(x, f"{label}_a"), trace.plain(y, f"{label}_b")
    x, y = trace.unpadded(x), trace.unpadded(y)
    if x.vector != y.vector:
        x, y = trace.flattened(x), trace.flattened(y)
    if x.pattern() != y.pattern():
        if len(x.dims) == len(y.dims) and x.shape == y.shape:
            for axis in range(len(x.dims)):  # channels in another order than they are held
                if set(x.dims[axis]) == set(x.channels) and set(y.dims[axis]) == set(y.channels):
                    x = trace.reordered(x, x.dims[axis])
                    y = trace.reordered(y, y.dims[axis])
        if x.pattern() != y.pattern():
            raise NoForm(f"must add two activations of one shape and order of axes, not "
                         f"{list(x.shape)} and {list(y.shape)}")
    return replace(x, layer=trace.emit(Add, label, x.layer, y.layer))


@rule("Clip")
def _clip(trace: Trace, node: Node, x: Tensor, *ends: Any) -> Tensor:
    low, high = ends_of(node, (x, *ends))
    if x.ending:
        trace.text = f"left off with the {x.ending} before it"
        return x
    return clipped(trace, x, low, high, node.name)


def clipped(trace: Trace, x: Tensor, low: float, high: float, label: str) -> Tensor:
    """`x` within bounds that may be infinite."""
    if (kept := trace.narrowed(x, low, high, label)) is not None:
        return kept
    if low > -math.inf:
        x = trace.pointwise(x, "max", np.array(low), f"{label}_low")
    return trace.pointwise(x, "min", np.array(high), f"{label}_high") if high < math.inf else x


@rule("LeakyRelu", "Elu", "Selu", "Celu", "HardSigmoid", "Gelu", "PRelu", "Reciprocal", "Swish")
def _activation(trace: Trace, node: Node, x: Tensor, slope: object = None) -> Tensor:
    def then(t: Tensor, op: str, value: float | None, part: str = "") -> Tensor:
        return trace.pointwise(t, op, None if value is None else np.array(value),
                               f"{node.name}{part}")
    match node.op:
        case "PRelu":
            if not isinstance(slope, Constant):
                raise NoForm("slope must be constant")
            return trace.pointwise(x, "leaky_relu", slope.array, node.name)
        case "LeakyRelu":
            return then(x, "leaky_relu", node.of("alpha", 0.01))
        case "Elu":
            return then(x, "elu", node.of("alpha", 1.0))
        case "Selu":
            y = then(x, "elu", node.of("alpha", 1.67326319217681884765625))
            return then(y, "mul", node.of("gamma", 1.05070102214813232421875), "_gamma")
        case "Celu":
            alpha = node.of("alpha", 1.0)
            return then(then(then(x, "div", alpha, "_in"), "elu", 1.0), "mul", alpha, "_out")
        case "HardSigmoid":
            y = then(then(x, "mul", node.of("alpha", 0.2), "_alpha"), "add",
                     node.of("beta", 0.5), "_beta")
            return then(then(y, "max", 0.0, "_low"), "min", 1.0, "_high")
        case "Reciprocal":
            return then(x, "rdiv", 1.0)
        case "Swish":
            if node.of("alpha", 1.0) != 1:
                raise NoForm(f"alpha must be 1, not {node.of('alpha', 1.0)}")
            return then(x, "silu", None)
    if node.of("approximate", "none") != "none":
        raise NoForm(f"approximate must be none, not {node.of('approximate', 'none')}")
    return then(x, "gelu", None)


@rule("BatchNormalization")
def _batch_norm(trace: Trace, node: Node, x: Tensor, *inputs: Value) -> Tensor:
    """In the order of the formula: (x - mean) / sqrt(var + eps) · weight + bias."""
    if len(inputs) != 4 or not all(isinstance(each, Constant) for each in inputs):
        raise NoForm("scale, bias, mean and variance must be constant")
    if node.of("training_mode", 0):
        raise NoForm("must not be in training mode")
    weight, bias, mean, var = (each.array.astype(np.float64).reshape(
        -1, *(1,) * (len(x.dims) - 2)) for each in inputs if isinstance(each, Constant))
    deviation = np.sqrt(var + node.of("epsilon", 1e-5))
    if not (np.isfinite(deviation) & (deviation > 0)).all():
        raise NoForm("variance must be positive and finite")
    for op, array, part in (("sub", mean, "_mean"), ("div", deviation, "_deviation"),
                            ("mul", weight, "_weight"), ("add", bias, "_bias")):
        x = trace.pointwise(x, op, array, f"{node.name}{part}")
    return x


# --- Comparisons --------------------------------------------------------------------------------


@rule("Greater", "GreaterOrEqual", "Less", "LessOrEqual")
def _compare(trace: Trace, node: Node, x: Value, y: Value) -> Tensor:
    """1 or 0: a level above a threshold, or one less than above it."""
    op = node.op
    if isinstance(x, Constant):
        x, y = y, x
        op = op.replace("Greater", "?").replace("Less", "Greater").replace("?", "Less")
    if not isinstance(x, Tensor) or not isinstance(y, Constant):
        raise NoForm("must compare an activation with a constant")
    x = trace.plain(x, node.name)
    array = y.array.astype(np.float64)
    if op in ("Greater", "LessOrEqual"):  # x > c where x >= the next float64
        array = np.nextafter(array, np.inf)
    sign, base = (1.0, 0.0) if op.startswith("Greater") else (-1.0, 1.0)
    several = [axis for axis, size in enumerate(array.shape)
               if size > 1 and array.ndim == len(x.dims) and not x.dims[axis]]
    if several:
        x, rows = _rows(trace, x, array, several[-1])
        return replace(x, levels=Levels(several[-1], rows, np.full(rows.shape, sign), base))
    x, bounds = trace.per_channel(x, array)
    return _counted(trace, x, bounds[:, None], sign, base, node.name)


def _rows(trace: Trace, x: Tensor, array: np.ndarray, axis: int) -> tuple[Tensor, np.ndarray]:
    """A constant with several values along an axis where `x` has one, as rows per channel."""
    rows = np.moveaxis(array, axis, -1)
    places = np.arange(rows[..., 0].size, dtype=np.float64).reshape(np.expand_dims(
        rows[..., 0], axis).shape)
    x, order = trace.per_channel(x, places)
    return x, rows.reshape(-1, rows.shape[-1])[order.astype(np.int64)].astype(np.float64)


def _counted(trace: Trace, x: Tensor, rows: np.ndarray, sign: float, base: float, label: str
             ) -> Tensor:
    """base + sign · #{x >= threshold}, rows of thresholds."""
    count = len(rows)
    return x.of(trace.emit(Steps, label, x.layer, params={
        "thresholds": np.sort(rows, axis=1), "scale": np.full(count, sign),
        "offset": np.full(count, base)}, channels=count, steps=rows.shape[1]))


def weighted(trace: Trace, x: Tensor, levels: Levels, array: np.ndarray) -> Tensor:
    """Comparisons times constants, such as the signs of steps."""
    bare = replace(x, levels=None)
    if array.size == 1:
        array = np.broadcast_to(array, levels.thresholds.shape)
    else:
        _, array = _rows(trace, bare, array, levels.axis)
    return replace(bare, levels=replace(levels, weights=levels.weights * array))


@rule("ReduceSum")
def _sum(trace: Trace, node: Node, x: Tensor, *axes: Value) -> Tensor:
    """Over pixels; or of comparisons with several constants, which makes them a quantizer."""
    if x.levels is None:
        return over_pixels(trace, node, x, *axes)
    levels, over = x.levels, axes_of(node, (x, *axes), len(x.dims))
    if over != (levels.axis,):
        raise NoForm(f"must be over axis {levels.axis}, along which there are several comparisons, "
                     f"not over {list(over)}")
    bare = replace(x, levels=None)
    if not node.of("keepdims", 1):
        bare = replace(bare, dims=tuple(dim for k, dim in enumerate(x.dims) if k != levels.axis))
    weights = levels.weights
    if levels.base or (weights != np.rint(weights)).any() or np.abs(weights).max() > 1:
        raise NoForm("comparisons must count 1 or -1")
    parts = []
    for sign, part in ((1.0, "_up"), (-1.0, "_down")):
        used = weights == sign
        if used.any():
            most = int(used.sum(axis=1).max())
            rows = np.sort(np.where(used, levels.thresholds, NEVER), axis=1)[:, :most]
            rows = np.broadcast_to(rows, np.broadcast_shapes(rows.shape, (len(weights), 1)))
            parts.append(_counted(trace, bare, rows, sign, 0.0, f"{node.name}{part}"))
    if not parts:
        raise NoForm("must count a comparison")
    return parts[0] if len(parts) == 1 else add(trace, parts[0], parts[1], node.name)


@rule("Not")
def _not(trace: Trace, node: Node, x: Tensor) -> Tensor:
    return trace.pointwise(x, "rsub", np.array(1.0), node.name)


@rule("Where")
def _where(trace: Trace, node: Node, test: Value, one: Value, other: Value) -> Tensor:
    """Two constants, by a comparison: its level times their difference, and the second."""
    layer = trace.layer(test.layer) if isinstance(test, Tensor) else None
    if not (isinstance(test, Tensor) and isinstance(layer, Steps) and isinstance(one, Constant)
            and isinstance(other, Constant) and one.array.size == other.array.size == 1):
        raise NoForm("must choose between two constants by a comparison")
    span, base = one.value - other.value, other.value
    held = {key: trace.params[f"{layer.name}.{key}"] for key in ("thresholds", "scale", "offset")}
    held |= {"scale": held["scale"] * span, "offset": held["offset"] * span + base}
    return replace(test, layer=trace.emit(Steps, node.name, *layer.inputs, params=held,
                                          channels=layer.channels, steps=layer.steps))


# --- Axes ---------------------------------------------------------------------------------------


@rule("Identity", "Dropout")
def _identity(trace: Trace, node: Node, x: Tensor, *rest: Value) -> Tensor:
    return x


@rule("Cast")
def _cast(trace: Trace, node: Node, x: Tensor) -> Tensor:
    layer = trace.layer(x.layer)
    whole = x.coded is not None or x.ending or isinstance(layer, Steps) or trace.source.whole or (
        trace.grid(x.layer) is not None)
    if node.of("to", 1) not in (1, 10, 11, 16, 9) and not whole:
        raise NoForm("must not cut reals to whole numbers; use Floor or a quantizer")
    return x


@rule("Shape")
def _shape(trace: Trace, node: Node, x: Tensor) -> Constant:
    start, end = node.of("start", 0), node.attributes.get("end")
    return Constant(np.array(x.shape[start:end], np.int64))


@rule("Reshape")
def _reshape(trace: Trace, node: Node, x: Tensor, shape: Value) -> Tensor:
    if not isinstance(shape, Constant):
        raise NoForm("shape must be constant")
    return trace.view(x).reshaped(reshape_target(node, shape, x.shape))


@rule("Flatten")
def _flatten(trace: Trace, node: Node, x: Tensor) -> Tensor:
    axis = node.of("axis", 1)
    axis += len(x.dims) if axis < 0 else 0
    return trace.view(x).reshaped((math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


@rule("Transpose")
def _transpose(trace: Trace, node: Node, x: Tensor) -> Tensor:
    return trace.view(x).transposed(node.of("perm", tuple(reversed(range(len(x.dims))))))


@rule("Squeeze")
def _squeeze(trace: Trace, node: Node, x: Tensor, *axes: Value) -> Tensor:
    over = axes_of(node, (x, *axes), len(x.dims), default=[
        axis for axis, size in enumerate(x.shape) if size == 1])
    if any(x.dims[axis] for axis in over):
        raise NoForm(f"axes must be of size 1, not {list(over)} of {list(x.shape)}")
    x = trace.view(x)
    return replace(x, dims=tuple(dim for axis, dim in enumerate(x.dims) if axis not in over))


@rule("Unsqueeze")
def _unsqueeze(trace: Trace, node: Node, x: Tensor, *axes: Value) -> Tensor:
    held = shape_of(axes[0]) if axes and isinstance(axes[0], Constant) else node.of("axes", ())
    rank = len(x.dims) + len(held)
    places = {axis % rank for axis in held}
    rest = iter(trace.view(x).dims)
    return replace(x, dims=tuple(() if axis in places else next(rest) for axis in range(rank)))


@rule("Pad")
def _pad(trace: Trace, node: Node, x: Tensor, *inputs: Value) -> Tensor:
    if any(isinstance(each, Tensor) for each in inputs):
        raise NoForm("pads must be constant")
    held = [each.array if isinstance(each, Constant) else None for each in inputs] + [None] * 3
    pads = tuple(int(size) for size in held[0].reshape(-1)) if held[0] is not None else \
        node.of("pads", ())
    value = float(held[1].reshape(-1)[0]) if held[1] is not None else node.of("value", 0.0)
    if node.of("mode", "constant") != "constant" or value != 0 or x.coded is not None:
        raise NoForm("must pad reals with the constant 0")
    rank = len(x.dims)
    if held[2] is not None:
        axes, whole = [int(axis) % rank for axis in held[2].reshape(-1)], [0] * (2 * rank)
        for place, axis in enumerate(axes):
            whole[axis], whole[rank + axis] = pads[place], pads[len(axes) + place]
        pads = tuple(whole)
    if len(pads) != 2 * rank or min(pads) < 0 or max(pads) > 2**16:
        raise NoForm(f"pads must be {2 * rank} sizes from 0, not {list(pads)}")
    if not any(pads):
        return x
    x, swapped = trace.image(x)
    if any(pads[:2]) or any(pads[rank:rank + 2]):
        raise NoForm("must pad height and width alone")
    sides = [(0, 0)] * (rank == 3) + [(pads[axis], pads[rank + axis]) for axis in range(2, rank)]
    (top, bottom), (left, right) = reversed(sides) if swapped else sides
    trace.text = "the padding of what reads it"
    more = x.pads
    return replace(x, pads=(top + more[0], bottom + more[1], left + more[2], right + more[3]))


# --- Channels -----------------------------------------------------------------------------------


def _along_channels(trace: Trace, x: Tensor, axis: int) -> Tensor:
    """`x`, its channels held in the order of that axis."""
    if set(x.dims[axis]) - set(x.batch) == {*x.axes} and not x.vector:
        x = trace.flattened(x)
    if set(x.dims[axis]) != set(x.channels):
        raise NoForm(f"must be along the channels, not along axis {axis} of {list(x.shape)}")
    return trace.reordered(x, x.dims[axis])


@rule("Concat")
def _concat(trace: Trace, node: Node, *inputs: Value) -> Tensor:
    tensors = [each for each in inputs if isinstance(each, Tensor)]
    if len(tensors) != len(inputs):
        raise NoForm("must join activations alone, no constants")
    rank = len(tensors[0].dims)
    axis = node.of("axis", 1) % rank
    if len({(each.factor, each.coded) for each in tensors}) > 1:
        tensors = [trace.plain(each, f"{node.name}_{k}") for k, each in enumerate(tensors)]
    tensors = [_along_channels(trace, trace.unpadded(each), axis) for each in tensors]
    first = tensors[0]
    if len(tensors) == 1:
        return first
    if len({replace(each, dims=tuple(
            dim for k, dim in enumerate(each.dims) if k != axis), channels=()).pattern()
            for each in tensors}) > 1:
        raise NoForm("must join activations of one size and order of axes")
    name = trace.emit(Concat, node.name, *(each.layer for each in tensors))
    whole = atoms(sum(each.size for each in tensors))
    dims = tuple(whole if k == axis else dim for k, dim in enumerate(first.dims))
    return trace.bounded(replace(first, layer=name, channels=whole, dims=dims))


def _selected(trace: Trace, x: Tensor, axis: int, places: Sequence[int], label: str) -> Tensor:
    """Some of the channels of `x`, which lie along that axis."""
    x = _along_channels(trace, trace.unpadded(x), axis)
    order = np.array(places, np.int64)
    if not order.size or order.min() < 0 or order.max() >= x.size:
        raise NoForm(f"channels must be in 0..{x.size - 1}")
    if order.tolist() == list(range(x.size)):
        return x
    whole = atoms(len(order))
    name = trace.emit(Permute, label, x.layer, params={"order": order}, channels=len(order))
    dims = tuple(whole if k == axis else dim for k, dim in enumerate(x.dims))
    return replace(x, layer=name, channels=whole, dims=dims)


@rule("Split")
def _split(trace: Trace, node: Node, x: Tensor, *inputs: Value) -> list[Tensor]:
    axis = node.of("axis", 0) % len(x.dims)
    size, count = x.shape[axis], len(node.outputs)
    if inputs and isinstance(inputs[0], Constant):
        sizes = shape_of(inputs[0])
    else:
        part = -(-size // count)
        sizes = node.of("split", tuple(min(part, size - part * k) for k in range(count)))
    if sum(sizes) != size or len(sizes) != count or min(sizes) < 1:
        raise NoForm(f"split must be {count} sizes of {size} in all, not {list(sizes)}")
    starts = np.cumsum([0, *sizes])
    return [_selected(trace, x, axis, range(start, start + part), f"{node.name}_{k}")
            for k, (start, part) in enumerate(zip(starts.tolist(), sizes, strict=False))]


@rule("Slice")
def _slice(trace: Trace, node: Node, x: Tensor, *inputs: Value) -> Tensor:
    cut = slices_of(node, (x, *inputs), x.shape)
    kept = [list(range(size))[part] for part, size in zip(cut, x.shape, strict=True)]
    for axis, places in enumerate(kept):
        if places != list(range(x.shape[axis])):
            x = _selected(trace, x, axis, places, node.name)
    return x


@rule("Gather")
def _gather(trace: Trace, node: Node, x: Value, index: Value) -> Tensor:
    if not isinstance(x, Tensor) or not isinstance(index, Constant) or index.array.ndim > 1:
        raise NoForm("must take channels by a row of constant places")
    axis = node.of("axis", 0) % len(x.dims)
    places = [int(place) % x.shape[axis] for place in index.array.reshape(-1)]
    y = _selected(trace, x, axis, places, node.name)
    if index.array.ndim == 0:
        return replace(y, dims=tuple(dim for k, dim in enumerate(y.dims) if k != axis))
    return y


@rule("DepthToSpace")
def _depth_to_space(trace: Trace, node: Node, x: Tensor) -> Tensor:
    x, swapped = trace.image(trace.unpadded(x))
    block, mode = node.of("blocksize", 1), node.of("mode", "DCR")
    if swapped or block < 1 or x.size % block**2 or mode not in ("DCR", "CRD"):
        raise NoForm(f"blocksize {block} must divide {x.size} channels, in mode DCR or CRD")
    name = trace.emit(DepthToSpace, node.name, x.layer, block=block, mode=mode)
    c, h, w = atoms(x.size // block**2), atoms(x.shape[2] * block), atoms(x.shape[3] * block)
    return replace(x, layer=name, channels=c, height=h, width=w, dims=(x.batch, c, h, w))


@rule("Resize", "Upsample")
def _resize(trace: Trace, node: Node, x: Tensor, *inputs: Value) -> Tensor:
    """Nearest, where each pixel comes the same number of times."""
    x, swapped = trace.image(trace.unpadded(x))
    mode = node.of("mode", "nearest")
    if mode != "nearest":
        raise NoForm(f"mode must be nearest, not {mode}")
    held = [each.array for each in inputs if isinstance(each, Constant)]
    scales = next((array for array in held if array.dtype == np.float64
                   and array.size == len(x.dims)), None)
    sizes = next((array for array in held if array.dtype == np.int64
                  and array.size == len(x.dims)), None)
    if scales is None and isinstance(node.attributes.get("scales"), tuple):
        scales = np.array(node.attributes["scales"])
    if sizes is None and scales is not None:
        sizes = np.floor(np.array(x.shape) * scales)
    if sizes is None:
        raise NoForm("scales or sizes must be constant, one per axis")
    factors = [int(size) // old for size, old in zip(sizes, x.shape, strict=True)]
    if any(factor < 1 or factor * old != size for factor, size, old in zip(
            factors, sizes, x.shape, strict=True)) or factors[:2] != [1, 1]:
        raise NoForm(f"must enlarge height and width by whole factors, not {list(x.shape)} to "
                     f"{[int(size) for size in sizes]}")
    for factor in factors[2:]:
        if _nearest(node, factor) != [0] * factor:
            raise NoForm("must take the nearest pixel of equal parts, not of those of "
                         f"{node.of('coordinate_transformation_mode', 'half_pixel')}")
    two = ([1] * (len(x.dims) == 3) + factors[2:])[::-1 if swapped else 1]
    name = trace.emit(Upsample, node.name, x.layer, factor=(two[0], two[1]))
    old, new = (*x.height, *x.width), {}
    for atom, factor in ((a, two[0]) for a in x.height):
        new[atom] = atoms(atom.size * factor)[0]
    for atom, factor in ((a, two[1]) for a in x.width):
        new[atom] = atoms(atom.size * factor)[0]
    if len(old) != (two[0] > 1 or bool(x.height)) + (two[1] > 1 or bool(x.width)):
        raise NoForm("must enlarge axes of more than one pixel")
    return trace.bounded(replace(
        x, layer=name, height=tuple(new[a] for a in x.height), width=tuple(new[a] for a in x.width),
        dims=tuple(tuple(new.get(a, a) for a in dim) for dim in x.dims)))


def _nearest(node: Node, factor: int) -> list[int]:
    """Where the first pixels of an enlarged row come from."""
    to = np.arange(factor)
    if node.op == "Upsample" or node.opset < 11:
        return np.floor(to / factor).astype(int).tolist()
    match node.of("coordinate_transformation_mode", "half_pixel"):
        case "asymmetric":
            at = to / factor
        case "half_pixel" | "pytorch_half_pixel" | "half_pixel_symmetric":
            at = (to + 0.5) / factor - 0.5
        case _:
            return []
    how = node.of("nearest_mode", "round_prefer_floor")
    rounded = {"round_prefer_floor": np.ceil(at - 0.5), "round_prefer_ceil": np.floor(at + 0.5),
               "floor": np.floor(at), "ceil": np.ceil(at)}.get(how, at - 1)
    return np.maximum(rounded, 0).astype(int).tolist()


@rule("TopK", "ArgMax")
def _class(trace: Trace, node: Node, x: Tensor, count: Value | None = None) -> Any:
    """The class: at the end of the network, and in the hardware where that is asked for."""
    rank = len(x.dims)
    axis = node.of("axis", -1 if node.op == "TopK" else 0) % rank
    if node.op == "TopK":
        k = count.value if isinstance(count, Constant) else node.of("k", 0)
        if k != 1 or not node.of("largest", 1):
            raise NoForm(f"must take the one largest, not {k:g}")
        used = node.outputs[0]
        if used and (used == trace.source.output or used in trace.readers):
            raise NoForm("must give the place of the largest, not its value")
    elif node.of("select_last_index", 0):
        raise NoForm("must take the first of equals")
    held = {atom for k, dim in enumerate(x.dims) if k != axis for atom in dim} - set(x.batch)
    if held or not trace.at_end(node):
        raise NoForm("must choose among all classes, at the end of the network")
    trace.top1, trace.text = True, "the class: ArgMax with top1"
    y = replace(trace.plain(replace(x, ending=""), node.name), ending=x.ending or node.op)
    keep = node.op == "TopK" or node.of("keepdims", 1)
    y = replace(y, dims=tuple(() if k == axis else dim for k, dim in enumerate(y.dims)
                              if keep or k != axis))
    return (None, y) if node.op == "TopK" else y

