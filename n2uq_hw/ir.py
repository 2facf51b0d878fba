"""The integer dataflow graph between lowering and everything that reads it.

A `Graph` is a tuple of frozen nodes in topological order.  A node has one output edge, named like
the node: an integer tensor [H, W, C], channels last, with the exact range of each channel, so that
widths follow from ranges.  A vector is a tensor [1, 1, C].
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, singledispatch
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from .errors import N2uqError

__all__ = [
    "ArgMax", "DepthwiseMatVec", "Edge", "Fifo", "Flatten", "Graph", "Input", "MatVec", "MaxPool",
    "Node", "Pad", "Scale", "SlidingWindow", "SumPool", "Threshold", "WidthConvert", "bits_for",
    "dump", "infer", "load_graph", "threshold_values",
]

FORMAT = 1


def bits_for(lo: int, hi: int) -> tuple[int, bool]:
    """Width in bits and signedness of the narrowest integer that holds `lo`..`hi`."""
    signed = lo < 0
    return max(max(int(hi), 0).bit_length(), (~int(lo)).bit_length() if signed else 1) + signed, \
        signed


@dataclass(frozen=True, eq=False)
class Edge:
    """An integer tensor: `shape` (H, W, C) and the exact range `lo`..`hi`, int64 [C] each."""

    shape: tuple[int, int, int]
    lo: np.ndarray
    hi: np.ndarray

    @property
    def size(self) -> int:
        """Elements in one image."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    @property
    def channels(self) -> int:
        """C, the elements of one pixel."""
        return self.shape[2]

    @property
    def width(self) -> int:
        """Bits of one element, two's complement if signed."""
        return bits_for(int(self.lo.min()), int(self.hi.max()))[0]

    @property
    def signed(self) -> bool:
        """Whether any channel can be negative."""
        return bool((self.lo < 0).any())

    @property
    def dtype(self) -> np.dtype:
        """The narrowest NumPy integer for the range."""
        for dtype in (np.int8, np.uint8, np.int16, np.int32):
            info = np.iinfo(dtype)
            if info.min <= self.lo.min() and self.hi.max() <= info.max:
                return np.dtype(dtype)
        return np.dtype(np.int64)


@dataclass(frozen=True, eq=False)
class Node:
    """An operation with a unique `name` and the names of the nodes that it reads."""

    name: str
    inputs: tuple[str, ...] = ()
    KINDS: ClassVar[dict[str, type[Node]]] = {}

    def __init_subclass__(cls) -> None:
        Node.KINDS[cls.__name__] = cls


@dataclass(frozen=True, eq=False)
class Input(Node):
    """Images [H, W, C] of integers in `lo`..`hi`, pixel by pixel, channels last."""

    shape: tuple[int, int, int] = (1, 1, 1)
    lo: int = 0
    hi: int = 255


@dataclass(frozen=True, eq=False)
class Pad(Node):
    """Frame of (top, bottom, left, right) pixels that hold `values`, int [C]."""

    frame: tuple[int, int, int, int] = (0, 0, 0, 0)
    values: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))


@dataclass(frozen=True, eq=False)
class SlidingWindow(Node):
    """[H, W, C] -> [H', W', kh·kw·C]: each window as one vector in the order (ky, kx, c)."""

    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)


@dataclass(frozen=True, eq=False)
class Flatten(Node):
    """[H, W, C] -> [1, 1, H·W·C] in stream order: the same stream, read as one vector."""


@dataclass(frozen=True, eq=False)
class MatVec(Node):
    """Each pixel's vector [K] times `weights` [N, K]: a linear layer, or a convolution's windows."""

    weights: np.ndarray = field(default_factory=lambda: np.ones((1, 1), np.int8))


@dataclass(frozen=True, eq=False)
class DepthwiseMatVec(Node):
    """Windows [P·C] to [C]: channel c is the dot product of its P pixels with `weights` [P, C]."""

    weights: np.ndarray = field(default_factory=lambda: np.ones((1, 1), np.int8))


@dataclass(frozen=True, eq=False)
class Threshold(Node):
    """General step function per channel: ``base + Σᵢ signs[i]·[x >= thresholds[i]]``.

    `thresholds` int64 and `signs` int8 (+1, -1, or 0 for an unused step) are [C, S], `base` is
    int64 [C]; C = 1 serves all channels.
    """

    thresholds: np.ndarray = field(default_factory=lambda: np.zeros((1, 0), np.int64))
    signs: np.ndarray = field(default_factory=lambda: np.zeros((1, 0), np.int8))
    base: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))


@dataclass(frozen=True, eq=False)
class Scale(Node):
    """Fixed point: ``(x·multiplier + offset) >> shift``, floor; `offset` holds the rounding half."""

    multiplier: np.ndarray = field(default_factory=lambda: np.ones(1, np.int64))
    offset: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    shift: int = 0


@dataclass(frozen=True, eq=False)
class MaxPool(Node):
    """Windows [P·C] -> [C]: maximum over `positions` P pixels."""

    positions: int = 1


@dataclass(frozen=True, eq=False)
class SumPool(Node):
    """Windows [P·C] -> [C]: sum over `positions` P pixels; the divisor belongs to the scale."""

    positions: int = 1


@dataclass(frozen=True, eq=False)
class ArgMax(Node):
    """[1, 1, C] -> [1, 1, 1]: index of the largest element, the lowest one on a tie."""


@dataclass(frozen=True, eq=False)
class Fifo(Node):
    """Hardware only: the identity, with room for `depth` beats."""

    depth: int = 2


@dataclass(frozen=True, eq=False)
class WidthConvert(Node):
    """Hardware only: the identity; the stream changes to `lanes` elements per beat."""

    lanes: int = 1


@dataclass(frozen=True, eq=False)
class Graph:
    """A named graph; `meta` (JSON) says where it comes from and what its integers mean."""

    name: str
    nodes: tuple[Node, ...]
    meta: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def edges(self) -> dict[str, Edge]:
        """The inferred output edge of every node."""
        edges: dict[str, Edge] = {}
        for node in self.nodes:
            if missing := [name for name in node.inputs if name not in edges]:
                raise N2uqError(f"{self.name}: node {node.name} must read an earlier node, "
                                f"not {missing[0]}")
            try:
                edges[node.name] = infer(node, *(edges[name] for name in node.inputs))
            except (N2uqError, TypeError) as error:
                raise N2uqError(f"{self.name}: {error}") from None
        return edges

    @property
    def input(self) -> Input:
        """The one Input node."""
        return next(node for node in self.nodes if isinstance(node, Input))

    @property
    def output(self) -> str:
        """Name of the one node that nothing reads."""
        read = {name for node in self.nodes for name in node.inputs}
        return next(node.name for node in reversed(self.nodes) if node.name not in read)

    def __getitem__(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    def reads(self, node: Node) -> tuple[Edge, ...]:
        """The edges that `node` reads."""
        return tuple(self.edges[name] for name in node.inputs)

    def with_nodes(self, nodes: Iterable[Node]) -> Graph:
        """The same graph with other nodes, verified."""
        return replace(self, nodes=tuple(nodes)).verify()

    def verify(self) -> Graph:
        """Return the graph if it is legal, else raise N2uqError.

        Legal: unique names that are identifiers, one Input (first), one output, every node reads
        earlier nodes, every edge's shape and range can be inferred, ranges fit 63 bits.
        """
        names = [node.name for node in self.nodes]
        for name in names:
            if not name.isidentifier() or names.count(name) > 1:
                raise N2uqError(f"{self.name}: node names must be unique identifiers, not {name!r}")
        if [isinstance(node, Input) for node in self.nodes] != [True] + [False] * (len(names) - 1):
            raise N2uqError(f"{self.name}: exactly one Input must come first")
        read = {name for node in self.nodes for name in node.inputs}
        if len(ends := [name for name in names if name not in read]) != 1:
            raise N2uqError(f"{self.name}: exactly one node must be the output, not {ends}")
        for name, edge in self.edges.items():
            if edge.width > 62:
                raise N2uqError(f"{self.name}: {name} must fit 62 bits, not {edge.width}")
        return self

    def save(self, path: Path) -> None:
        """Write structure and arrays to one safetensors file, whole or not at all."""
        arrays, rows = {}, []
        for node in self.nodes:
            row: dict[str, Any] = {"kind": type(node).__name__}
            for f in fields(node):
                value = getattr(node, f.name)
                if isinstance(value, np.ndarray):
                    arrays[f"{node.name}.{f.name}"] = np.ascontiguousarray(value)
                else:
                    row[f.name] = value
            rows.append(row)
        described = {"format": FORMAT, "name": self.name, "meta": self.meta, "nodes": rows}
        part = path.with_name(path.name + ".part")
        try:
            save_file(arrays, part, metadata={"n2uq-ir": json.dumps(described, sort_keys=True)})
            part.replace(path)
        except (OSError, SafetensorError) as error:
            part.unlink(missing_ok=True)
            raise N2uqError(f"{path}: cannot be written: {error}") from None


def load_graph(path: Path) -> Graph:
    """Read a graph that `Graph.save` wrote; any fault in it is an N2uqError naming the file."""
    try:
        with safe_open(path, "np") as file:
            described = json.loads((file.metadata() or {})["n2uq-ir"])
            if described["format"] != FORMAT:
                raise N2uqError(f"{path}: IR format must be {FORMAT}, not {described['format']}")
            nodes = []
            for row in described["nodes"]:
                kind = Node.KINDS[row.pop("kind")]
                given = {key: tuple(v) if isinstance(v, list) else v for key, v in row.items()}
                given |= {f.name: file.get_tensor(f"{row['name']}.{f.name}")
                          for f in fields(kind) if f.name not in row}
                nodes.append(kind(**given))
        return Graph(described["name"], tuple(nodes), described["meta"]).verify()
    except FileNotFoundError:
        raise N2uqError(f"{path}: no such IR file") from None
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise N2uqError(f"{path}: not a whole IR file: {error}") from None


def _need(holds: bool, node: Node, rule: str) -> None:
    if not holds:
        raise N2uqError(f"{type(node).__name__} {node.name}: {rule}")


def _channels(node: Node, edge: Edge, **arrays: np.ndarray) -> None:
    for key, array in arrays.items():
        _need(array.shape[0] in (1, edge.channels), node,
              f"{key} must serve the {edge.channels} channels, not {array.shape[0]}")


@singledispatch
def infer(node: Node, *edges: Edge) -> Edge:
    """The output edge of `node` for its input edges; raises N2uqError where they do not fit."""
    raise N2uqError(f"no shape rule for {type(node).__name__}")


@infer.register
def _(node: Input) -> Edge:
    _need(len(node.shape) == 3 and min(node.shape) > 0 and node.lo <= node.hi, node,
          f"shape must be three positive sizes and lo <= hi, not {node.shape}, "
          f"{node.lo}..{node.hi}")
    channels = node.shape[2]
    return Edge(node.shape, np.full(channels, node.lo), np.full(channels, node.hi))


@infer.register
def _(node: Pad, x: Edge) -> Edge:
    _channels(node, x, values=node.values)
    _need(min(node.frame) >= 0, node, f"the frame must not be negative, not {node.frame}")
    top, bottom, left, right = node.frame
    shape = (x.shape[0] + top + bottom, x.shape[1] + left + right, x.channels)
    if not any(node.frame):
        return x
    return Edge(shape, np.minimum(x.lo, node.values), np.maximum(x.hi, node.values))


@infer.register
def _(node: SlidingWindow, x: Edge) -> Edge:
    (kh, kw), (sh, sw), (height, width, _) = node.kernel, node.stride, x.shape
    _need(0 < kh <= height and 0 < kw <= width and min(sh, sw) > 0, node,
          f"kernel {kh}×{kw} with stride {sh}×{sw} must fit the {height}×{width} image")
    shape = ((height - kh) // sh + 1, (width - kw) // sw + 1, kh * kw * x.channels)
    return Edge(shape, np.tile(x.lo, kh * kw), np.tile(x.hi, kh * kw))


@infer.register
def _(node: Flatten, x: Edge) -> Edge:
    pixels = x.shape[0] * x.shape[1]
    return Edge((1, 1, x.size), np.tile(x.lo, pixels), np.tile(x.hi, pixels))


@infer.register
def _(node: MatVec, x: Edge) -> Edge:
    _need(node.weights.ndim == 2 and node.weights.shape[1] == x.channels, node,
          f"weights must be [N, {x.channels}], not {list(node.weights.shape)}")
    w = node.weights.astype(np.int64)
    up, down = np.maximum(w, 0), np.minimum(w, 0)
    return Edge((*x.shape[:2], len(w)), up @ x.lo + down @ x.hi, up @ x.hi + down @ x.lo)


@infer.register
def _(node: DepthwiseMatVec, x: Edge) -> Edge:
    _need(node.weights.ndim == 2 and node.weights.size == x.channels, node,
          f"weights must be [P, C] with P·C = {x.channels}, not {list(node.weights.shape)}")
    w = node.weights.astype(np.int64)
    ends = np.stack([w * x.lo.reshape(w.shape), w * x.hi.reshape(w.shape)])
    return Edge((*x.shape[:2], w.shape[1]), ends.min(axis=0).sum(axis=0),
                ends.max(axis=0).sum(axis=0))


def threshold_values(node: Threshold, x: np.ndarray) -> np.ndarray:
    """The step function at int64 `x` [..., C]; the golden model and range inference use it."""
    out = np.broadcast_to(node.base, x.shape).astype(np.int64)
    for i in range(node.signs.shape[1]):
        out += node.signs[:, i] * (x >= node.thresholds[:, i])
    return out


@infer.register
def _(node: Threshold, x: Edge) -> Edge:
    _channels(node, x, thresholds=node.thresholds, signs=node.signs, base=node.base)
    _need(node.thresholds.shape == node.signs.shape and node.signs.ndim == 2, node,
          "thresholds and signs must both be [C, S]")
    _need(bool(np.isin(node.signs, (-1, 0, 1)).all()), node, "signs must be -1, 0 or 1")
    # A step function takes all its values at the low end of the range and at the steps within.
    steps = np.broadcast_to(node.thresholds.T, (node.signs.shape[1], x.channels))
    at = np.vstack([x.lo, np.clip(steps, x.lo, x.hi)])
    values = threshold_values(node, at)
    return Edge(x.shape, values.min(axis=0), values.max(axis=0))


@infer.register
def _(node: Scale, x: Edge) -> Edge:
    _channels(node, x, multiplier=node.multiplier, offset=node.offset)
    _need(node.shift >= 0, node, f"shift must not be negative, not {node.shift}")
    ends = np.stack([(end * node.multiplier + node.offset) >> node.shift for end in (x.lo, x.hi)])
    return Edge(x.shape, ends.min(axis=0), ends.max(axis=0))


def _pooled(node: MaxPool | SumPool, x: Edge) -> tuple[tuple[int, int, int], Edge]:
    _need(node.positions > 0 and x.channels % node.positions == 0, node,
          f"{node.positions} positions must divide the window of {x.channels} elements")
    by_position = (node.positions, x.channels // node.positions)
    return (*x.shape[:2], by_position[1]), Edge(x.shape, x.lo.reshape(by_position),
                                                x.hi.reshape(by_position))


@infer.register
def _(node: MaxPool, x: Edge) -> Edge:
    shape, x = _pooled(node, x)
    return Edge(shape, x.lo.max(axis=0), x.hi.max(axis=0))


@infer.register
def _(node: SumPool, x: Edge) -> Edge:
    shape, x = _pooled(node, x)
    return Edge(shape, x.lo.sum(axis=0), x.hi.sum(axis=0))


@infer.register
def _(node: ArgMax, x: Edge) -> Edge:
    _need(x.shape[:2] == (1, 1), node, f"must read one vector, not an image {x.shape}")
    return Edge((1, 1, 1), np.array([0]), np.array([x.channels - 1]))


@infer.register
def _(node: Fifo, x: Edge) -> Edge:
    _need(node.depth > 0, node, f"depth must be positive, not {node.depth}")
    return x


@infer.register
def _(node: WidthConvert, x: Edge) -> Edge:
    _need(node.lanes > 0 and x.size % node.lanes == 0, node,
          f"{node.lanes} lanes must divide the {x.size} elements of an image")
    return x


def dump(graph: Graph) -> str:
    """Readable text, one line per node: name, kind, inputs, shape, range, width, attributes."""
    lines = [f"graph {graph.name}"]
    for node in graph.nodes:
        edge = graph.edges[node.name]
        attributes = [
            f"{f.name}={list(value.shape)}" if isinstance(value, np.ndarray) else f"{f.name}={value}"
            for f in fields(node) if f.name not in ("name", "inputs", "shape", "lo", "hi")
            for value in [getattr(node, f.name)]]
        lines.append(
            f"  {node.name:<16} = {type(node).__name__}({', '.join([*node.inputs, *attributes])})"
            f" : [{', '.join(map(str, edge.shape))}] in {edge.lo.min()}..{edge.hi.max()}"
            f", {edge.width} bits{' signed' if edge.signed else ''}")
    return "\n".join(lines) + "\n"
