"""The integer dataflow graph between lowering and everything that reads it.

A `Graph` is a tuple of frozen nodes in topological order.  A node has one output edge, named like
the node: an integer tensor [H, W, C], channels last, with the exact range of each channel, so that
widths follow from ranges.  A vector is a tensor [1, 1, C].
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache, singledispatch
from types import UnionType
from typing import Any, ClassVar, get_args, get_type_hints

import numpy as np

from ..errors import N2uqError

__all__ = ["Add", "ArgMax", "Concat", "DepthwiseMatVec", "Edge", "Fifo", "Flatten", "Fork", "Input",
           "MatVec", "MaxPool", "Node", "OffsetMatVec", "Pad", "PiecewiseLinear", "Saturate",
           "Scale", "SlidingWindow", "SumPool", "Threshold", "Unrolled", "WidthConvert",
           "bits_for", "dtype_for", "infer", "lines", "threshold_values", "weight_bits"]

MAX_ELEMENTS = 2**26  # of one image on one edge; what is above is a fault, not a network
MAX_BITS = 62         # so that int64 holds every sum of two
LATER = {"later": True}  # a field that older files lack; files hold it where it is no default
MAX_INPUTS = 2**10


def bits_for(lo: int, hi: int) -> tuple[int, bool]:
    """Width in bits and signedness of the narrowest integer that holds `lo`..`hi`."""
    lo, hi = int(lo), int(hi)
    if lo >= 0:
        return max(hi.bit_length(), 1), False
    return max(max(hi, 0).bit_length(), (~lo).bit_length()) + 1, True


def dtype_for(lo: int, hi: int) -> np.dtype:
    """The narrowest NumPy integer that holds `lo`..`hi`."""
    for dtype in (np.int8, np.uint8, np.int16, np.uint16, np.int32):
        info = np.iinfo(dtype)
        if info.min <= lo and hi <= info.max:
            return np.dtype(dtype)
    return np.dtype(np.int64)


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
        return dtype_for(int(self.lo.min()), int(self.hi.max()))


@dataclass(frozen=True, eq=False)
class Node:
    """An operation with a unique `name` and the names of the nodes that it reads.

    KINDS are what files hold: the classes that derive from Node itself.  READS are the numbers of
    edges that a kind can read, one for each of its input ports.
    """

    name: str
    inputs: tuple[str, ...] = ()
    KINDS: ClassVar[dict[str, type[Node]]] = {}
    READS: ClassVar[range] = range(1, 2)

    def __init_subclass__(cls) -> None:
        if Node in cls.__bases__:
            Node.KINDS[cls.__name__] = cls


@dataclass(frozen=True, eq=False)
class Input(Node):
    """Images [H, W, C] of integers in `lo`..`hi`, pixel by pixel, channels last."""

    READS: ClassVar[range] = range(1)
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
    """Each pixel's vector [K] times `weights` [N, K]: a linear layer, or windows' convolution."""

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
class Unrolled(MatVec):
    """A MatVec in logic, with the `threshold` behind it that alone reads it, if there is one.

    Only hardware graphs have it.
    """

    threshold: Threshold | None = None


@dataclass(frozen=True, eq=False)
class OffsetMatVec(MatVec):
    """A MatVec with `offset`, int64 [N], added: what the thresholds behind it are moved by.

    Only hardware graphs have it.
    """

    offset: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))


@dataclass(frozen=True, eq=False)
class Scale(Node):
    """Fixed point: ``(x·multiplier + offset) >> shift``, floor; `offset` holds what rounds.

    With `ties` "even" it is ``(x·multiplier + offset) / 2^shift`` rounded to the nearest integer,
    and to the even one of two.  `clip` is () or (lo, hi): the result is held in that range, as
    ReLU and ReLU6 do.
    """

    multiplier: np.ndarray = field(default_factory=lambda: np.ones(1, np.int64))
    offset: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    shift: int = 0
    clip: tuple[int, ...] = ()
    ties: str = field(default="floor", metadata=LATER)

    @property
    def half(self) -> int:
        """What is added before the shift so that it rounds to the nearest."""
        return 1 << self.shift >> 1 if self.ties == "even" else 0

    def rounded(self, y: np.ndarray) -> np.ndarray:
        """``y >> shift``, rounded as `ties` says; int64 `y` is overwritten."""
        if not self.half:
            y >>= self.shift
            return y
        y += self.half
        tie = (y & (1 << self.shift) - 1) == 0
        y >>= self.shift
        y &= ~tie.astype(np.int64)  # of an odd result of a tie, the even one below
        return y


@dataclass(frozen=True, eq=False)
class PiecewiseLinear(Node):
    """Two lines per channel, in fixed point: ``(x·multiplier[s] + offset[s]) >> shift``, floor.

    s = [x >= turn] chooses the line.  `multiplier` and `offset` are int64 [2, C], `turn` int64 [C];
    bias, PReLU and bias are one such node.
    """

    turn: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    multiplier: np.ndarray = field(default_factory=lambda: np.ones((2, 1), np.int64))
    offset: np.ndarray = field(default_factory=lambda: np.zeros((2, 1), np.int64))
    shift: int = 0


@dataclass(frozen=True, eq=False)
class Add(Node):
    """Sum of two tensors of one shape, exact."""

    READS: ClassVar[range] = range(2, 3)


@dataclass(frozen=True, eq=False)
class Concat(Node):
    """[H, W, C1], [H, W, C2], ... to [H, W, C1 + C2 + ...]: the channels of one after the other."""

    READS: ClassVar[range] = range(2, MAX_INPUTS + 1)


@dataclass(frozen=True, eq=False)
class Saturate(Node):
    """Holds x in `lo`..`hi`: where a format is narrower than the range; hardware counts it."""

    lo: int = 0
    hi: int = 0


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
class Fork(Node):
    """Hardware only: the identity, for `ways` readers; each takes every beat once."""

    ways: int = 2


@dataclass(frozen=True, eq=False)
class WidthConvert(Node):
    """Hardware only: the identity; the stream changes to `lanes` elements per beat."""

    lanes: int = 1


def _fits(value: object, hint: Any) -> bool:
    """Whether `value` is of the type `hint` of a node's field: int, str, tuple or integer array."""
    if isinstance(hint, UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    if hint is np.ndarray:
        return isinstance(value, np.ndarray) and value.dtype.kind in "iu" \
            and value.dtype != np.uint64
    if hint is int:  # not bool, and none that a float cannot hold
        return type(value) is int and value.bit_length() <= MAX_BITS
    if (parts := get_args(hint)) and isinstance(value, tuple):
        parts = parts[:1] * len(value) if parts[-1] is ... else parts
        return len(value) == len(parts) and all(map(_fits, value, parts))
    return isinstance(hint, type) and isinstance(value, hint)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    """Types of the fields of a kind of node."""
    return get_type_hints(kind)


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
    _need(0 < kh <= height and 0 < kw <= width and min(sh, sw) > 0, node,
          f"kernel {kh}×{kw} with stride {sh}×{sw} must fit the {height}×{width} image")
    shape = ((height - kh) // sh + 1, (width - kw) // sw + 1, kh * kw * x.channels)
    _size(node, *shape)
    return Edge(shape, np.tile(x.lo, kh * kw), np.tile(x.hi, kh * kw))


@infer.register
def _(node: Flatten, x: Edge) -> Edge:
    pixels = x.shape[0] * x.shape[1]
    return Edge((1, 1, x.size), np.tile(x.lo, pixels), np.tile(x.hi, pixels))


@infer.register
def _(node: MatVec, x: Edge) -> Edge:
    _need(node.weights.ndim == 2 and node.weights.shape[1] == x.channels and len(node.weights) > 0,
          node, f"weights must be [N, {x.channels}], not {list(node.weights.shape)}")
    _size(node, *x.shape[:2], len(node.weights))
    _narrow(node, _magnitude(node.weights) @ _magnitude(x.lo, x.hi))
    # Twice the middle of each sum's range, and its width.
    w = node.weights.astype(np.int64)
    middle, width = w @ (x.lo + x.hi), np.abs(w) @ (x.hi - x.lo)
    return Edge((*x.shape[:2], len(w)), (middle - width) // 2, (middle + width) // 2)


@infer.register
def _(node: DepthwiseMatVec, x: Edge) -> Edge:
    _need(node.weights.ndim == 2 and node.weights.size == x.channels, node,
          f"weights must be [P, C] with P·C = {x.channels}, not {list(node.weights.shape)}")
    w = node.weights.astype(np.int64)
    lo, hi = x.lo.reshape(w.shape), x.hi.reshape(w.shape)
    _narrow(node, (_magnitude(w) * _magnitude(lo, hi)).sum(axis=0))
    ends = np.stack([w * lo, w * hi])
    return Edge((*x.shape[:2], w.shape[1]), ends.min(axis=0).sum(axis=0),
                ends.max(axis=0).sum(axis=0))


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
    return Edge(x.shape, values.min(axis=0), values.max(axis=0))


@infer.register
def _(node: Unrolled, x: Edge) -> Edge:
    sums = infer.dispatch(MatVec)(node, x)
    return sums if node.threshold is None else infer(node.threshold, sums)


@infer.register
def _(node: OffsetMatVec, x: Edge) -> Edge:
    sums = infer.dispatch(MatVec)(node, x)
    return Edge(sums.shape, sums.lo + node.offset, sums.hi + node.offset)


TIES = ("floor", "even")


@infer.register
def _(node: Scale, x: Edge) -> Edge:
    _channels(node, x, multiplier=node.multiplier, offset=node.offset)
    _need(0 <= node.shift <= MAX_BITS, node, f"shift must be in 0..{MAX_BITS}, not {node.shift}")
    _need(node.ties in TIES, node, f"ties must be {' or '.join(TIES)}, not {node.ties!r}")
    _narrow(node, _magnitude(x.lo, x.hi) * _magnitude(node.multiplier) + _magnitude(node.offset)
            + node.half)
    m, offset = node.multiplier.astype(np.int64), node.offset.astype(np.int64)
    ends = node.rounded(np.stack([x.lo, x.hi]) * m + offset)
    if node.clip:
        _need(len(node.clip) == 2 and node.clip[0] <= node.clip[1], node,
              f"clip must be () or (lo, hi) with lo <= hi, not {node.clip}")
        ends = ends.clip(node.clip[0], node.clip[1])
    return Edge(x.shape, ends.min(axis=0), ends.max(axis=0))


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


def weight_bits(weights: np.ndarray) -> int:
    """Bits of a weight's code in memory: odd levels need those of their index, 2^b of them."""
    low, high = int(weights.min()), int(weights.max())
    return max(-low, high).bit_length() if (weights & 1).all() else max(
        (high - low).bit_length(), 1)
