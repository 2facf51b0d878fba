"""The edge that each kind of node makes: its shape, and the exact range of every channel."""

from __future__ import annotations

import math
from functools import singledispatch

import numpy as np

from ..errors import N2uqError
from .nodes import (
    MAX_BITS,
    MAX_ELEMENTS,
    Add,
    ArgMax,
    Concat,
    DepthToSpace,
    DepthwiseMatVec,
    Edge,
    Fifo,
    Flatten,
    Fork,
    Input,
    MatVec,
    MaxPool,
    Node,
    OffsetMatVec,
    Pad,
    Permute,
    PiecewiseLinear,
    Saturate,
    Scale,
    SlidingWindow,
    SumPool,
    Threshold,
    Unrolled,
    Upsample,
    WidthConvert,
)

__all__ = ["infer", "levels", "lines", "scale_ends", "threshold_values"]

MODES = ("DCR", "CRD")  # of DepthToSpace


def _need(holds: bool, node: Node, rule: str) -> None:
    if not holds:
        raise N2uqError(f"{type(node).__name__} {node.name}: {rule}")


def _channels(node: Node, edge: Edge, **arrays: np.ndarray) -> None:
    for key, array in arrays.items():
        _need(array.ndim == 1 and len(array) in (1, edge.channels), node,
              f"{key} must be [1] or [{edge.channels}], not {list(array.shape)}")


def _size(node: Node, *sizes: int) -> None:
    """Refuse a shape before arrays of it are made."""
    _need(math.prod(sizes) <= MAX_ELEMENTS, node,
          f"an image must have at most {MAX_ELEMENTS} elements, not {math.prod(sizes)}")


def _magnitude(*arrays: np.ndarray) -> np.ndarray:
    """Largest magnitude at each place, in floats: near enough to see that int64 would wrap."""
    return np.abs(np.stack([array.astype(np.float64) for array in arrays])).max(axis=0)


def _narrow(node: Node, magnitude: np.ndarray) -> None:
    """Refuse what could come near the end of int64, before it is computed there."""
    _need(bool((magnitude < 2.0**(MAX_BITS - 1)).all()), node,
          f"values must fit {MAX_BITS} bits, not {magnitude.max(initial=0):.3g}")


def levels(node: MatVec | DepthwiseMatVec) -> tuple[np.ndarray, ...]:
    """Weights between which all lie that a node has or may get: its own, or the ends of its room.

    Of the shape of its weights, int64.
    """
    weights = node.weights.astype(np.int64)
    if not node.room:
        return (weights,)
    bits, step, least = node.room
    return np.full_like(weights, least), np.full_like(weights, least + step * (2**bits - 1))


def _products(node: MatVec | DepthwiseMatVec, lo: np.ndarray, hi: np.ndarray
              ) -> tuple[np.ndarray, np.ndarray]:
    """The least and the greatest product of each weight and its input, which is in `lo`..`hi`."""
    ends = np.stack([w * end for w in levels(node) for end in (lo, hi)])
    return ends.min(axis=0), ends.max(axis=0)


def _fits_codes(node: MatVec | DepthwiseMatVec) -> None:
    """Refuse weights that no code of the room is."""
    if node.room:
        _need(len(node.room) == 3 and 0 < node.room[0] < MAX_BITS, node,
              f"room must be bits, step and least, not {node.room}")
        bits, step, least = node.room
        codes, rest = np.divmod(node.weights.astype(np.int64) - least, step)
        wrong = node.weights[(rest != 0) | (codes < 0) | (codes >= 2**bits)]
        _need(not wrong.size, node, f"weights must be {least}, {least + step}, ... "
              f"{least + step * (2**bits - 1)}, not {wrong[:1].sum()}")


@singledispatch
def infer(node: Node, *edges: Edge) -> Edge:
    """The output edge of `node` for its input edges; raises N2uqError where they do not fit.

    A range is exact for inputs that take every value of their own ranges, independently.
    """
    raise N2uqError(f"no shape rule for {type(node).__name__}")


@infer.register
def _(node: Input) -> Edge:
    _need(min(node.shape) > 0 and node.lo <= node.hi, node,
          f"must have positive sizes and lo <= hi, not {node.shape}, {node.lo}..{node.hi}")
    _size(node, *node.shape)
    _narrow(node, np.array([float(node.lo), float(node.hi)]))
    channels = node.shape[2]
    return Edge(node.shape, np.full(channels, node.lo, np.int64),
                np.full(channels, node.hi, np.int64))


@infer.register
def _(node: Pad, x: Edge) -> Edge:
    _channels(node, x, values=node.values)
    _narrow(node, _magnitude(node.values))
    _need(min(node.frame) >= 0, node, f"the frame must not be negative, not {node.frame}")
    if not any(node.frame):
        return x
    top, bottom, left, right = node.frame
    shape = (x.shape[0] + top + bottom, x.shape[1] + left + right, x.channels)
    _size(node, *shape)
    values = node.values.astype(np.int64)
    return Edge(shape, np.minimum(x.lo, values), np.maximum(x.hi, values))


@infer.register
def _(node: SlidingWindow, x: Edge) -> Edge:
    (kh, kw), (sh, sw), (height, width, _) = node.kernel, node.stride, x.shape
    (eh, ew), (dh, dw) = node.extent, node.dilation
    dilated = f", dilation {dh}×{dw}" if node.dilation != (1, 1) else ""
    _need(eh <= height and ew <= width and min(kh, kw, sh, sw, dh, dw) > 0, node,
          f"kernel {kh}×{kw} with stride {sh}×{sw}{dilated} must fit the {height}×{width} image")
    _need(node.groups > 0 and x.channels % node.groups == 0, node,
          f"groups must divide the {x.channels} channels, not {node.groups}")
    shape = ((height - eh) // sh + 1, (width - ew) // sw + 1, kh * kw * x.channels)
    _size(node, *shape)
    lo, hi = (np.tile(end.reshape(node.groups, -1), kh * kw).reshape(-1) for end in (x.lo, x.hi))
    return Edge(shape, lo, hi)


@infer.register
def _(node: Upsample, x: Edge) -> Edge:
    _need(min(node.factor) > 0, node, f"factors must be positive, not {node.factor}")
    shape = (node.factor[0] * x.shape[0], node.factor[1] * x.shape[1], x.channels)
    _size(node, *shape)
    return Edge(shape, x.lo, x.hi)


@infer.register
def _(node: DepthToSpace, x: Edge) -> Edge:
    (down, across), (height, width, channels) = node.sides, x.shape
    size = down * across
    _need(node.mode in MODES, node, f"mode must be {' or '.join(MODES)}, not {node.mode!r}")
    _need(min(down, across) > 0 and channels % size == 0, node,
          f"the pixels of a block must divide the {channels} channels, not {down}×{across}")
    lo, hi = (end.reshape(size, -1) if node.mode == "DCR" else end.reshape(-1, size).T
              for end in (x.lo, x.hi))
    return Edge((down * height, across * width, channels // size), lo.min(axis=0), hi.max(axis=0))


@infer.register
def _(node: Permute, x: Edge) -> Edge:
    order = node.order
    _need(order.ndim == 1 and len(order) > 0 and order.min() >= 0 and order.max() < x.channels,
          node, f"order must be [C] of channels 0..{x.channels - 1}, not {list(order.shape)} of "
          f"{order.min(initial=0)}..{order.max(initial=0)}")
    _size(node, *x.shape[:2], len(order))
    return Edge((*x.shape[:2], len(order)), x.lo[order], x.hi[order])


@infer.register
def _(node: Flatten, x: Edge) -> Edge:
    pixels = x.shape[0] * x.shape[1]
    return Edge((1, 1, x.size), np.tile(x.lo, pixels), np.tile(x.hi, pixels))


@infer.register
def _(node: MatVec, x: Edge) -> Edge:
    groups, shape = node.groups, node.weights.shape
    _need(groups > 0 and x.channels % groups == 0, node,
          f"groups must divide the {x.channels} inputs, not {groups}")
    _need(node.weights.ndim == 2 and shape[1] == x.channels // groups and len(node.weights) > 0,
          node, f"weights must be [N, {x.channels // groups}], not {list(shape)}")
    _need(shape[0] % groups == 0, node, f"groups must divide the {shape[0]} outputs, not {groups}")
    _size(node, *x.shape[:2], shape[0])

    def sums(weights: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        products = weights.reshape(groups, -1, shape[1]) @ inputs.reshape(groups, shape[1], 1)
        return products.reshape(-1)

    _fits_codes(node)
    _narrow(node, sums(_magnitude(*levels(node)), _magnitude(x.lo, x.hi)))
    if node.room:
        by_group = x.lo.reshape(groups, -1), x.hi.reshape(groups, -1)
        low, high = _products(node, *(end.repeat(shape[0] // groups, axis=0) for end in by_group))
        return Edge((*x.shape[:2], shape[0]), low.sum(axis=1), high.sum(axis=1))
    # Twice the middle of each sum's range, and its width.
    w = node.weights.astype(np.int64)
    middle, width = sums(w, x.lo + x.hi), sums(np.abs(w), x.hi - x.lo)
    return Edge((*x.shape[:2], len(w)), (middle - width) // 2, (middle + width) // 2)


@infer.register
def _(node: DepthwiseMatVec, x: Edge) -> Edge:
    _need(node.weights.ndim == 2 and node.weights.size == x.channels, node,
          f"weights must be [P, C] with P·C = {x.channels}, not {list(node.weights.shape)}")
    _fits_codes(node)
    lo, hi = x.lo.reshape(node.weights.shape), x.hi.reshape(node.weights.shape)
    _narrow(node, (_magnitude(*levels(node)) * _magnitude(lo, hi)).sum(axis=0))
    low, high = _products(node, lo, hi)
    return Edge((*x.shape[:2], len(low[0])), low.sum(axis=0), high.sum(axis=0))


def threshold_values(node: Threshold, x: np.ndarray) -> np.ndarray:
    """The step function at int64 `x` [..., C], one step after the other."""
    out = np.broadcast_to(node.base, x.shape).astype(np.int64)
    for i in range(node.signs.shape[1]):
        out += node.signs[:, i] * (x >= node.thresholds[:, i])
    return out


@infer.register
def _(node: Threshold, x: Edge) -> Edge:
    _channels(node, x, base=node.base)
    _need(node.thresholds.shape == node.signs.shape and node.signs.ndim == 2
          and len(node.signs) in (1, x.channels), node,
          f"thresholds and signs must both be [1, S] or [{x.channels}, S], not "
          f"{list(node.thresholds.shape)} and {list(node.signs.shape)}")
    _need(bool(np.isin(node.signs, (-1, 0, 1)).all()), node, "signs must be -1, 0 or 1")
    _narrow(node, _magnitude(node.base) + node.signs.shape[1])
    # A step function takes all its values at the low end of the range and at the steps within.
    steps = np.broadcast_to(node.thresholds.T, (node.signs.shape[1], x.channels))
    at = np.vstack([x.lo, np.clip(steps, x.lo, x.hi)])
    values = threshold_values(node, at)
    lo, hi = values.min(axis=0), values.max(axis=0)
    if node.room:
        _need(len(node.room) == 2 and node.room[0] <= lo.min() and hi.max() <= node.room[1], node,
              f"results must be in {'..'.join(map(str, node.room))}, not {lo.min()}..{hi.max()}")
        lo, hi = (np.full_like(lo, end) for end in node.room)
    return Edge(x.shape, lo, hi)


@infer.register
def _(node: Unrolled, x: Edge) -> Edge:
    sums = infer.dispatch(MatVec)(node, x)
    return sums if node.threshold is None else infer(node.threshold, sums)


@infer.register
def _(node: OffsetMatVec, x: Edge) -> Edge:
    sums = infer.dispatch(MatVec)(node, x)
    return Edge(sums.shape, sums.lo + node.offset, sums.hi + node.offset)


TIES = ("floor", "even")


def scale_ends(node: Scale | PiecewiseLinear, x: Edge) -> np.ndarray:
    """The ends of ``x·multiplier + offset``, int64 [2, C] or more: for all that it may get.

    Of a PiecewiseLinear only where it has room.
    """
    xs = np.stack([x.lo, x.hi])
    if not node.room:
        return xs * node.multiplier.astype(np.int64) + node.offset.astype(np.int64)
    *factors, low, high = node.room
    products = np.concatenate([xs * factor for factor in factors])
    return np.stack([products.min(axis=0) + low, products.max(axis=0) + high])


@infer.register
def _(node: Scale, x: Edge) -> Edge:
    _channels(node, x, multiplier=node.multiplier, offset=node.offset)
    _need(0 <= node.shift <= MAX_BITS, node, f"shift must be in 0..{MAX_BITS}, not {node.shift}")
    _need(node.ties in TIES, node, f"ties must be {' or '.join(TIES)}, not {node.ties!r}")
    _fits_room(node, multipliers=node.multiplier, offsets=node.offset)
    most = [max(map(abs, node.room[k:k + 2])) if node.room else _magnitude(array)
            for k, array in ((0, node.multiplier), (2, node.offset))]
    _narrow(node, _magnitude(x.lo, x.hi) * most[0] + most[1] + node.half)
    ends = node.rounded(scale_ends(node, x))
    if node.clip:
        _need(len(node.clip) == 2 and node.clip[0] <= node.clip[1], node,
              f"clip must be () or (lo, hi) with lo <= hi, not {node.clip}")
        ends = ends.clip(node.clip[0], node.clip[1])
    return Edge(x.shape, ends.min(axis=0), ends.max(axis=0))


def _fits_room(node: Scale | PiecewiseLinear, **rows: np.ndarray) -> None:
    """Refuse parameters beyond the room, which has two ends for each of `rows`."""
    for key, array, lo, hi in zip(rows, rows.values(), node.room[::2], node.room[1::2],
                                  strict=False):  # without room, nothing
        _need(bool(lo <= array.min() and array.max() <= hi), node,
              f"{key} must be in {lo}..{hi}, not {array.min()}..{array.max()}")


def lines(node: PiecewiseLinear, x: np.ndarray) -> np.ndarray:
    """The two lines at int64 `x` [..., C]."""
    above = x >= node.turn
    m, offset = (np.where(above, values[1], values[0]).astype(np.int64)
                 for values in (node.multiplier, node.offset))
    return (x * m + offset) >> node.shift


@infer.register
def _(node: PiecewiseLinear, x: Edge) -> Edge:
    _channels(node, x, turn=node.turn)
    for key, array in (("multiplier", node.multiplier), ("offset", node.offset)):
        _need(array.ndim == 2 and array.shape in ((2, 1), (2, x.channels)), node,
              f"{key} must be [2, 1] or [2, {x.channels}], not {list(array.shape)}")
    _need(0 <= node.shift <= MAX_BITS, node, f"shift must be in 0..{MAX_BITS}, not {node.shift}")
    _narrow(node, _magnitude(node.turn))
    if node.room:
        _fits_room(node, **{"lower multipliers": node.multiplier[0],
                            "upper multipliers": node.multiplier[1], "offsets": node.offset})
        *factors, low, high = map(abs, node.room)
        _narrow(node, _magnitude(x.lo, x.hi) * max(factors) + max(low, high))
        ends = scale_ends(node, x) >> node.shift
        return Edge(x.shape, ends.min(axis=0), ends.max(axis=0))
    _narrow(node, _magnitude(x.lo, x.hi) * _magnitude(*node.multiplier)
            + _magnitude(*node.offset))
    # Each line is monotone: the ends of what is in range of it bound its values.
    below, above = np.clip(node.turn - 1, x.lo, x.hi), np.clip(node.turn, x.lo, x.hi)
    ends = lines(node, np.stack([x.lo, below, above, x.hi]))
    return Edge(x.shape, ends.min(axis=0), ends.max(axis=0))


@infer.register
def _(node: Add, x: Edge, y: Edge) -> Edge:
    _need(x.shape == y.shape, node, f"must read two equal shapes, not {x.shape} and {y.shape}")
    _narrow(node, _magnitude(x.lo, x.hi) + _magnitude(y.lo, y.hi))
    return Edge(x.shape, x.lo + y.lo, x.hi + y.hi)


@infer.register
def _(node: Concat, *edges: Edge) -> Edge:
    shapes = [edge.shape for edge in edges]
    _need(len({shape[:2] for shape in shapes}) == 1, node,
          f"must read images of one size, not {', '.join(map(str, shapes))}")
    shape = (*shapes[0][:2], sum(edge.channels for edge in edges))
    _size(node, *shape)
    return Edge(shape, np.concatenate([edge.lo for edge in edges]),
                np.concatenate([edge.hi for edge in edges]))


@infer.register
def _(node: Saturate, x: Edge) -> Edge:
    _need(node.lo <= node.hi, node, f"lo must not exceed hi, not {node.lo}..{node.hi}")
    return Edge(x.shape, x.lo.clip(node.lo, node.hi), x.hi.clip(node.lo, node.hi))


def _by_position(node: MaxPool | SumPool, x: Edge) -> tuple[np.ndarray, np.ndarray]:
    """`lo` and `hi` as [P, C]."""
    _need(node.positions > 0 and x.channels % node.positions == 0, node,
          f"{node.positions} positions must divide the window of {x.channels} elements")
    return x.lo.reshape(node.positions, -1), x.hi.reshape(node.positions, -1)


@infer.register
def _(node: MaxPool, x: Edge) -> Edge:
    lo, hi = _by_position(node, x)
    return Edge((*x.shape[:2], lo.shape[1]), lo.max(axis=0), hi.max(axis=0))


@infer.register
def _(node: SumPool, x: Edge) -> Edge:
    lo, hi = _by_position(node, x)
    _narrow(node, _magnitude(lo, hi).sum(axis=0))
    return Edge((*x.shape[:2], lo.shape[1]), lo.sum(axis=0), hi.sum(axis=0))


@infer.register
def _(node: ArgMax, x: Edge) -> Edge:
    _need(x.shape[:2] == (1, 1), node, f"must read one vector, not an image {x.shape}")
    # A channel wins at its highest value if all others, at their lowest, let it; the first of
    # equals does.
    before = np.maximum.accumulate(np.concatenate([[x.lo.min() - 1], x.lo[:-1]]))
    wins, = np.nonzero((x.hi > before) & (x.hi >= x.lo.max()))
    return Edge((1, 1, 1), wins[:1], wins[-1:])


@infer.register
def _(node: Fifo, x: Edge) -> Edge:
    _need(node.depth > 0, node, f"depth must be positive, not {node.depth}")
    return x


@infer.register
def _(node: Fork, x: Edge) -> Edge:
    _need(node.ways > 0, node, f"ways must be positive, not {node.ways}")
    return x


@infer.register
def _(node: WidthConvert, x: Edge) -> Edge:
    _need(node.lanes > 0 and x.size % node.lanes == 0, node,
          f"{node.lanes} lanes must divide the {x.size} elements of an image")
    return x
