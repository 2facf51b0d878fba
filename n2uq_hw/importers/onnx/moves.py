"""Rules of what moves axes and channels, and of the class at the end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...model import Concat, DepthToSpace, Permute, Steps, Upsample
from .constants import (
    BOOL,
    FLOATS,
    WHOLE,
    Constant,
    axes_of,
    axis_of,
    reshape_target,
    shape_of,
    slices_of,
)
from .reading import Node, NoForm
from .tensors import Tensor, atoms, new_image
from .trace import WIDE, Trace, Value, rule

# --- Axes ---------------------------------------------------------------------------------------


@rule("Identity", "Dropout")
def _identity(trace: Trace, node: Node, x: Tensor, *rest: Value) -> Tensor:
    return x


@rule("Cast")
def _cast(trace: Trace, node: Node, x: Tensor) -> Tensor:
    """To floats, the same; to whole numbers, less the fraction."""
    layer, to = trace.layer(x.layer), node.of("to", 1)
    if to in FLOATS or x.coded is not None or x.ending or x.levels is not None:
        return x
    if isinstance(layer, Steps) and layer.steps == 1 and not (
            trace.params[f"{layer.name}.offset"] % 1).any():
        return x  # a comparison
    if to != BOOL and to not in WHOLE:
        raise NoForm(f"must make numbers, not type {to}")
    if to == BOOL:
        raise NoForm("must not make truth of numbers; compare them")
    if x.layer in trace.whole and x.factor == int(x.factor):
        return x
    return trace.quantize(x, np.ones(1), np.zeros(1), WIDE, "to_zero", node.name)


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
    return trace.turned(x, node.of("perm", tuple(reversed(range(len(x.dims))))))


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
    places = {axis % rank for axis in held if -rank <= axis < rank}
    if len(places) < len(held):
        raise NoForm(f"axes must be different ones in {-rank}..{rank - 1}, not {list(held)}")
    rest = iter(trace.view(x).dims)
    return replace(x, dims=tuple(() if axis in places else next(rest) for axis in range(rank)))


@rule("Pad")
def _pad(trace: Trace, node: Node, x: Tensor, *inputs: Value) -> Tensor:
    pads, value = _sides(node, len(x.dims), inputs)
    if not any(pads):
        return x
    rank = len(x.dims)
    if rank > 2 and set(x.dims[-1]) == set(x.channels) != set(x.dims[1]):  # channels last
        first, last = (0, rank - 1, *range(1, rank - 1)), (0, *range(2, rank), 1)
        pads = tuple(pads[side + axis] for side in (0, rank) for axis in first)
        return trace.turned(_framed(trace, node, trace.turned(x, first), pads, value), last)
    return _framed(trace, node, x, pads, value)


def _sides(node: Node, rank: int, inputs: Sequence[Value]) -> tuple[tuple[int, ...], float]:
    """Pixels before and after each axis, and their value."""
    if any(isinstance(each, Tensor) for each in inputs):
        raise NoForm("pads must be constant")
    held = [each.array if isinstance(each, Constant) else None for each in inputs] + [None] * 3
    pads = tuple(int(size) for size in held[0].reshape(-1)) if held[0] is not None else \
        node.of("pads", ())
    value = float(held[1].reshape(-1)[0]) if held[1] is not None else node.of("value", 0.0)
    if node.of("mode", "constant") != "constant" or not value < math.inf:
        raise NoForm("must pad with a constant, finite or -inf")
    if held[2] is not None:
        axes, whole = [int(axis) % rank for axis in held[2].reshape(-1)], [0] * (2 * rank)
        for place, axis in enumerate(axes):
            whole[axis], whole[rank + axis] = pads[place], pads[len(axes) + place]
        pads = tuple(whole)
    if len(pads) != 2 * rank or min(pads) < 0 or max(pads) > 2**16:
        raise NoForm(f"pads must be {2 * rank} sizes from 0, not {list(pads)}")
    return pads, value


def _framed(trace: Trace, node: Node, x: Tensor, pads: Sequence[int], value: float) -> Tensor:
    """`x` [N, C, ...] with pixels around it, which a convolution or a pool will read."""
    rank = len(x.dims)
    x, swapped = trace.image(x)
    if any(pads[:2]) or any(pads[rank:rank + 2]):
        raise NoForm("must pad height and width alone")
    if value == -math.inf and any(
            reader.op != "MaxPool" for name in node.outputs for reader in trace.readers[name]):
        raise NoForm("must pad with a finite constant, but for a MaxPool, not with -inf")
    if x.coded is not None:
        value = (value - x.coded[1]) * x.coded[0]
    value /= x.factor
    if any(x.pads) and (x.base != value).any():
        raise NoForm(f"must pad with {x.base[0] * x.factor:g} as the Pad before it, not with "
                     f"{value * x.factor:g}")
    if value > -math.inf and value and not any(x.pads):
        x = trace.added(x, np.array([-value]), f"{node.name}_around")
    sides = [(0, 0)] * (rank == 3) + [(pads[axis], pads[rank + axis]) for axis in range(2, rank)]
    (top, bottom), (left, right) = reversed(sides) if swapped else sides
    trace.text = "the padding of what reads it"
    more = x.pads
    return replace(x, base=np.array([value]) if value else x.base, pads=(
        top + more[0], bottom + more[1], left + more[2], right + more[3]))


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
    axis = axis_of(node, rank, 1)
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
    axis = axis_of(node, len(x.dims), 0)
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
    axis = axis_of(node, len(x.dims), 0)
    size = x.shape[axis]
    places = [int(place) + (size if place < 0 else 0) for place in index.array.reshape(-1)]
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
    height, width = (math.prod(atom.size for atom in axes) * factor for axes, factor in (
        (x.height, two[0]), (x.width, two[1])))
    return trace.bounded(replace(new_image(name, x, x.size, height, width, swapped=swapped),
                                 factor=x.factor, coded=x.coded))


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
    axis = axis_of(node, rank, -1 if node.op == "TopK" else 0)
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
    y = replace(trace.plain(replace(x, ending="", tail=None), node.name),
                ending=x.ending or node.op)
    keep = node.op == "TopK" or node.of("keepdims", 1)
    y = replace(y, dims=tuple(() if k == axis else dim for k, dim in enumerate(y.dims)
                              if keep or k != axis))
    return (None, y) if node.op == "TopK" else y

