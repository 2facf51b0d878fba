"""The specification: what every node computes, in integers, over a batch [N, H, W, C].

One function per node, no knowledge of the hardware.  Where BLAS multiplies in floats, the range of
every partial sum is below the float's exact integers (2^24, 2^53), which is asserted.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import singledispatch
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
from threadpoolctl import ThreadpoolController

from ..errors import N2uqError
from .nodes import (
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
    dtype_for,
)
from .ranges import infer

if TYPE_CHECKING:
    from .graph import Graph  # which has golden as a method

__all__ = ["evaluate", "exact_float", "run", "run_all"]

BATCH = 256         # images at a time, fewer where an edge has more than
ELEMENTS = 2**24    # elements: arrays that the heap has at hand
CACHED = 2**19      # elements of a node's widest edge at a time, where pixels are by themselves,
VECTORS = 512       # but no fewer pixels: all weights are read each time
ACROSS = (Pad, SlidingWindow, Flatten, Upsample, DepthToSpace)  # the nodes that move pixels
_MATRICES: WeakKeyDictionary[Node, tuple[Edge, int, np.ndarray]] = WeakKeyDictionary()


def run(graph: Graph, images: np.ndarray,
        progress: Callable[[int], None] | None = None) -> np.ndarray:
    """Output integers [N, H', W', C'] of `graph` for integer images [N, H, W, C].

    As many portions of images are worked on at a time as BLAS has threads.  `progress` is called
    with the number of images done.
    """
    images = _check(graph, images)
    largest = max(edge.size for edge in graph.edges.values())
    batch = min(max(ELEMENTS // largest, 1), BATCH)
    blas = ThreadpoolController().select(user_api="blas")
    threads = max((library["num_threads"] for library in blas.info()), default=1)
    rounds = -(-len(images) // (batch * threads))
    portions = np.array_split(images, max(min(rounds * threads, len(images)), 1))
    parts = []
    with (blas.limit(limits=max(threads // len(portions), 1)), ThreadPoolExecutor(threads) as pool):
        try:
            for part in pool.map(lambda portion: _last(graph, portion), portions):
                parts.append(part)
                if progress:
                    progress(sum(map(len, parts)))
        except BaseException:  # interrupted: what has not begun does not begin
            pool.shutdown(cancel_futures=True)
            raise
    return np.concatenate(parts)


def _last(graph: Graph, images: np.ndarray) -> np.ndarray:
    """What the last node makes of some images; others' results go when nothing reads them more."""
    values: dict[str, np.ndarray] = {}
    last_use = {name: node.name for node in graph.nodes for name in node.inputs}
    for node in graph.nodes:
        values[node.name] = _node(graph, node, values, images)
        for name in node.inputs:
            if last_use[name] == node.name:
                values.pop(name, None)
    return values[graph.output]


def run_all(graph: Graph, images: np.ndarray) -> dict[str, np.ndarray]:
    """The integers on every edge, by node name, for integer images [N, H, W, C]."""
    images = _check(graph, images)
    values: dict[str, np.ndarray] = {}
    for node in graph.nodes:
        values[node.name] = _node(graph, node, values, images)
    return values


def _check(graph: Graph, images: np.ndarray) -> np.ndarray:
    images, node = np.asarray(images), graph.input
    if images.dtype.kind not in "ui" or images.shape[1:] != node.shape:
        raise N2uqError(f"images of {graph.name} must be integers [N, "
                        f"{', '.join(map(str, node.shape))}], not {images.dtype} "
                        f"{list(images.shape)}")
    if images.size and not (node.lo <= images.min() and images.max() <= node.hi):
        raise N2uqError(f"images of {graph.name} must lie in {node.lo}..{node.hi}, "
                        f"not {images.min()}..{images.max()}")
    return images


def _node(graph: Graph, node: Node, values: dict[str, np.ndarray],
          images: np.ndarray) -> np.ndarray:
    edge, reads = graph.edges[node.name], graph.reads(node)
    if isinstance(node, Input):
        return images.astype(edge.dtype)
    xs = [values[name] for name in node.inputs]
    if isinstance(node, ACROSS):
        return evaluate(node, reads, *xs).astype(edge.dtype, copy=False)
    # The other nodes take each pixel by itself: rows of some images, as if each were an image.
    width = edge.shape[1]
    out = np.empty((len(images), *edge.shape), edge.dtype)
    *xs, rows = (array.reshape(-1, 1, *array.shape[2:]) for array in (*xs, out))
    count = max(CACHED // (width * max(array.shape[3] for array in (*xs, rows))),
                -(-VECTORS // width))
    for start in range(0, len(rows), count):
        part = slice(start, start + count)
        rows[part] = evaluate(node, reads, *(x[part] for x in xs))
    return out


def exact_float(bound: int) -> np.dtype:
    """The fastest type in which integers and sums up to `bound` in magnitude are exact."""
    for dtype, limit in ((np.float32, 2**24), (np.float64, 2**53)):
        if bound < limit:
            return np.dtype(dtype)
    return np.dtype(np.int64)


def _row(values: np.ndarray, x: np.ndarray, dtype: np.dtype | type = np.int64) -> np.ndarray:
    """[C] or [1] for one row of the pixels `x`: NumPy is fast where its inner loop is long."""
    return np.broadcast_to(values, x.shape[2:]).astype(dtype, order="C")


def _bound(edge: Edge) -> np.ndarray:
    return np.maximum(np.abs(edge.lo), np.abs(edge.hi))


@singledispatch
def evaluate(node: Node, edges: tuple[Edge, ...], *xs: np.ndarray) -> np.ndarray:
    """Output of `node` [N, H', W', C'] for inputs [N, H, W, C] that lie on `edges`."""
    raise N2uqError(f"no golden model for {type(node).__name__}")


@evaluate.register
def _(node: Pad, edges: tuple[Edge, ...], x: np.ndarray) -> np.ndarray:
    (n, height, width, channels), (top, bottom, left, right) = x.shape, node.frame
    (edge,), values = edges, node.values
    dtype = dtype_for(min(int(edge.lo.min()), int(values.min())),
                      max(int(edge.hi.max()), int(values.max())))
    out = np.empty((n, top + height + bottom, left + width + right, channels), dtype)
    out[:] = np.broadcast_to(values, out.shape[1:]).copy()  # NumPy is fast on whole images
    out[:, top:top + height, left:left + width] = x
    return out


@evaluate.register
def _(node: SlidingWindow, edges: tuple[Edge, ...], x: np.ndarray) -> np.ndarray:
    (sh, sw), (dh, dw), channels = node.stride, node.dilation, x.shape[3]
    windows = np.lib.stride_tricks.sliding_window_view(x, node.extent, axis=(1, 2))
    windows = windows[:, ::sh, ::sw, :, ::dh, ::dw]
    n, rows, columns, _, kh, kw = windows.shape
    grouped = windows.reshape(n, rows, columns, node.groups, channels // node.groups, kh, kw)
    return grouped.transpose(0, 1, 2, 3, 5, 6, 4).reshape(n, rows, columns, kh * kw * channels)


@evaluate.register
def _(node: Upsample, edges: tuple[Edge, ...], x: np.ndarray) -> np.ndarray:
    down, across = node.factor
    return x.repeat(down, axis=1).repeat(across, axis=2)


@evaluate.register
def _(node: DepthToSpace, edges: tuple[Edge, ...], x: np.ndarray) -> np.ndarray:
    (n, height, width, _), (a, b) = x.shape, node.sides
    if node.mode == "DCR":
        blocks = x.reshape(n, height, width, a, b, -1)
    else:
        blocks = np.moveaxis(x.reshape(n, height, width, -1, a, b), 3, 5)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(n, a * height, b * width, -1)


@evaluate.register
def _(node: Permute, edges: tuple[Edge, ...], x: np.ndarray) -> np.ndarray:
    return x[..., node.order]


@evaluate.register
def _(node: Flatten, edges: tuple[Edge, ...], x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), 1, 1, edges[0].size)


@evaluate.register
def _(node: MatVec, edges: tuple[Edge, ...], x: np.ndarray) -> np.ndarray:
    bound, matrix = _matrix(node, edges[0])
    assert matrix.dtype.kind == "i" or bound < 2**np.finfo(matrix.dtype).nmant * 2
    groups, inputs, outputs = matrix.shape
    by_group = x.reshape(-1, groups, inputs).swapaxes(0, 1).astype(matrix.dtype)
    products = (by_group @ matrix).swapaxes(0, 1)
    return products.astype(dtype_for(-bound, bound)).reshape(*x.shape[:3], groups * outputs)


def _matrix(node: MatVec, edge: Edge) -> tuple[int, np.ndarray]:
    """Σ|w|·|x| at most, which no partial sum in any order exceeds; the weights for BLAS.

    They are [G, K/G, N/G].  Found once: for few pixels that is most of the work.
    """
    held = _MATRICES.get(node)
    if held is None or held[0] is not edge:
        weights = node.weights.reshape(node.groups, -1, node.weights.shape[1])
        bound = int((np.abs(weights.astype(np.int64))
                     @ _bound(edge).reshape(node.groups, -1, 1)).max())
        matrix = np.ascontiguousarray(weights.swapaxes(1, 2), exact_float(bound))
        held = _MATRICES[node] = edge, bound, matrix
    return held[1:]


@evaluate.register
def _(node: Unrolled, edges: tuple[Edge, ...], x: np.ndarray) -> np.ndarray:
    sums = evaluate.dispatch(MatVec)(node, edges, x)
    return sums if node.threshold is None else evaluate(
        node.threshold, (infer.dispatch(MatVec)(node, *edges),), sums)


@evaluate.register
def _(node: OffsetMatVec, edges: tuple[Edge, ...], x: np.ndarray) -> np.ndarray:
    return evaluate.dispatch(MatVec)(node, edges, x).astype(np.int64) + node.offset


@evaluate.register
def _(node: DepthwiseMatVec, edges: tuple[Edge, ...], x: np.ndarray) -> np.ndarray:
    positions, channels = node.weights.shape
    sizes = np.abs(node.weights.astype(np.int64)) * _bound(edges[0]).reshape(positions, channels)
    bound = int(sizes.sum(axis=0).max())
    dtype = dtype_for(-bound, bound)  # holds every product and partial sum
    out = np.zeros((*x.shape[:3], channels), dtype)
    for weights, pixel in zip(node.weights, np.split(x, positions, axis=3), strict=True):
        out += np.multiply(pixel, weights.astype(dtype), dtype=dtype)
    return out


@evaluate.register
def _(node: Threshold, edges: tuple[Edge, ...], x: np.ndarray) -> np.ndarray:
    (edge,), steps, base = edges, node.thresholds, node.base
    compared = dtype_for(min(int(edge.lo.min()), int(steps.min(initial=0))),
                         max(int(edge.hi.max()), int(steps.max(initial=0))))
    summed = dtype_for(min(-1, int(base.min()) - steps.shape[1]),  # signed, as the steps are
                       int(base.max()) + steps.shape[1])

    x = x.astype(compared, copy=False)
    out = np.empty(x.shape, summed)
    out[:] = _row(base - (node.signs == -1).sum(axis=1), x, summed)
    for threshold, sign in zip(steps.T, node.signs.T, strict=True):
        step = x >= _row(threshold, x, compared)
        if (sign != 1).any():  # -[x >= T] = [x < T] - 1, and the base holds the -1
            step = (step & _row(sign != 0, x, bool)) ^ _row(sign == -1, x, bool)
        out += step.view(np.int8)
    return out


@evaluate.register
def _(node: Scale, edges: tuple[Edge, ...], x: np.ndarray) -> np.ndarray:
    y = x * _row(node.multiplier, x)
    y += _row(node.offset, x)
    y = node.rounded(y)
    return np.clip(y, *node.clip, out=y) if node.clip else y


@evaluate.register
def _(node: PiecewiseLinear, edges: tuple[Edge, ...], x: np.ndarray) -> np.ndarray:
    (below, above), (low, high) = node.multiplier, node.offset
    y = x * _row(below, x) + _row(low, x)
    y += (x * _row(above - below, x) + _row(high - low, x)) * (x >= _row(node.turn, x))
    return y >> node.shift


@evaluate.register
def _(node: Add, edges: tuple[Edge, ...], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return x.astype(np.int64) + y


@evaluate.register
def _(node: Concat, edges: tuple[Edge, ...], *xs: np.ndarray) -> np.ndarray:
    return np.concatenate(xs, axis=3)


@evaluate.register
def _(node: Saturate, edges: tuple[Edge, ...], x: np.ndarray) -> np.ndarray:
    return x.astype(np.int64).clip(node.lo, node.hi)


@evaluate.register
def _(node: MaxPool, edges: tuple[Edge, ...], x: np.ndarray) -> np.ndarray:
    return np.maximum.reduce(np.split(x, node.positions, axis=3))


@evaluate.register
def _(node: SumPool, edges: tuple[Edge, ...], x: np.ndarray) -> np.ndarray:
    return np.add.reduce(np.split(x, node.positions, axis=3), dtype=np.int64)


@evaluate.register
def _(node: ArgMax, edges: tuple[Edge, ...], x: np.ndarray) -> np.ndarray:
    return x.argmax(axis=3, keepdims=True)


@evaluate.register(Fifo)
@evaluate.register(Fork)
@evaluate.register(WidthConvert)
def _(node: Node, edges: tuple[Edge, ...], x: np.ndarray) -> np.ndarray:
    return x
