"""The integer dataflow graph between lowering and everything that reads it.

A `Graph` is a tuple of frozen nodes in topological order.  A node has one output edge, named like
the node: an integer tensor [H, W, C], channels last, with the exact range of each channel, so that
widths follow from ranges.  A vector is a tensor [1, 1, C].
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from types import UnionType
from typing import Any, ClassVar, get_args, get_type_hints

import numpy as np

__all__ = ["Add", "ArgMax", "Concat", "DepthToSpace", "DepthwiseMatVec", "Edge", "Fifo", "Flatten",
           "Fork", "Input", "MatVec", "MaxPool", "Node", "OffsetMatVec", "Pad", "Permute",
           "PiecewiseLinear", "Saturate", "Scale", "SlidingWindow", "SumPool", "Threshold",
           "Unrolled", "Upsample", "WidthConvert", "bits_for", "code_bits", "dtype_for",
           "weight_bits"]

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
    """[H, W, C] -> [H', W', kh·kw·C]: each window as one vector in the order (ky, kx, c).

    A window has every `dilation`-th pixel, down and across.  With `groups` of channels the order
    is (group, ky, kx, channel of the group).
    """

    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = field(default=(1, 1), metadata=LATER)
    groups: int = field(default=1, metadata=LATER)

    @property
    def extent(self) -> tuple[int, int]:
        """Rows and columns from a window's first pixel to its last, both counted."""
        (kh, kw), (dh, dw) = self.kernel, self.dilation
        return (kh - 1) * dh + 1, (kw - 1) * dw + 1


@dataclass(frozen=True, eq=False)
class Upsample(Node):
    """[H, W, C] -> [h·H, w·W, C]: each row h times and each of its pixels w times, the `factor`."""

    factor: tuple[int, int] = (1, 1)


@dataclass(frozen=True, eq=False)
class DepthToSpace(Node):
    """[H, W, a·b·C] -> [a·H, b·W, C]: the channels of a pixel as a block of a × b pixels.

    They come in the order (row, column, channel) in `mode` DCR, (channel, row, column) in CRD.
    `block` is (a, b), or a number for both.
    """

    block: int | tuple[int, int] = 1
    mode: str = "DCR"

    @property
    def sides(self) -> tuple[int, int]:
        """Rows and columns of a block."""
        return (self.block, self.block) if isinstance(self.block, int) else self.block


@dataclass(frozen=True, eq=False)
class Permute(Node):
    """[H, W, C] -> [H, W, C']: channel k of a pixel is channel `order` [k] of the one that is read.

    A permutation, or any choice of channels: `order` is int [C'].
    """

    order: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))


@dataclass(frozen=True, eq=False)
class Flatten(Node):
    """[H, W, C] -> [1, 1, H·W·C] in stream order: the same stream, read as one vector."""


@dataclass(frozen=True, eq=False)
class MatVec(Node):
    """Each pixel's vector [K] times `weights` [N, K]: a linear layer, or windows' convolution.

    With G `groups`, `weights` are [N, K/G]: the first N/G outputs are of the first K/G inputs, and
    so on.  `room` as of `writable.py`: (bits, step, least) of the codes that can be written.
    """

    weights: np.ndarray = field(default_factory=lambda: np.ones((1, 1), np.int8))
    groups: int = field(default=1, metadata=LATER)
    room: tuple[int, ...] = field(default=(), metadata=LATER)


@dataclass(frozen=True, eq=False)
class DepthwiseMatVec(Node):
    """Windows [P·C] to [C]: channel c is the dot product of its P pixels with `weights` [P, C].

    `room` as of a MatVec.
    """

    weights: np.ndarray = field(default_factory=lambda: np.ones((1, 1), np.int8))
    room: tuple[int, ...] = field(default=(), metadata=LATER)


@dataclass(frozen=True, eq=False)
class Threshold(Node):
    """General step function per channel: ``base + Σᵢ signs[i]·[x >= thresholds[i]]``.

    `thresholds` int64 and `signs` int8 (+1, -1, or 0 for an unused step) are [C, S], `base` is
    int64 [C]; C = 1 serves all channels.  `room` as of `writable.py`: (lo, hi) of the results.
    """

    thresholds: np.ndarray = field(default_factory=lambda: np.zeros((1, 0), np.int64))
    signs: np.ndarray = field(default_factory=lambda: np.zeros((1, 0), np.int8))
    base: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    room: tuple[int, ...] = field(default=(), metadata=LATER)


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
    ReLU and ReLU6 do.  `room` as of `writable.py`: the least and the greatest multiplier, then
    those of offsets.
    """

    multiplier: np.ndarray = field(default_factory=lambda: np.ones(1, np.int64))
    offset: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    shift: int = 0
    clip: tuple[int, ...] = ()
    ties: str = field(default="floor", metadata=LATER)
    room: tuple[int, ...] = field(default=(), metadata=LATER)

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
    bias, PReLU and bias are one such node.  `room` as of `writable.py`: the least and the greatest
    multiplier of the lower line and of the upper one, then those of offsets; a turn may be any.
    """

    turn: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    multiplier: np.ndarray = field(default_factory=lambda: np.ones((2, 1), np.int64))
    offset: np.ndarray = field(default_factory=lambda: np.zeros((2, 1), np.int64))
    shift: int = 0
    room: tuple[int, ...] = field(default=(), metadata=LATER)


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


def weight_bits(weights: np.ndarray) -> int:
    """Bits of a weight's code in memory: odd levels need those of their index, 2^b of them."""
    low, high = int(weights.min()), int(weights.max())
    return max(-low, high).bit_length() if (weights & 1).all() else max(
        (high - low).bit_length(), 1)


def code_bits(node: MatVec | DepthwiseMatVec) -> int:
    """Bits of the codes of a node's weights: of those that it has, or of all that it may get."""
    return node.room[0] if node.room else weight_bits(node.weights)
