"""What a unit is made of, as counts: what all kinds of units share."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from .. import ir
from ..hw.writable import INDEX_BITS
from ..ir.folding import AUTO, MEMORIES
from .memories import Memory, table

__all__ = ["Counts", "Parts"]

LUT4 = 4  # inputs of a LUT of ECP5
Counts = dict[str, float]


@dataclass(frozen=True)
class Parts:
    """What a unit is made of.

    Members
    -------
    key: whose weights apply: the kind of the node, and its style where it has one; "Lines" for
        Scale and PiecewiseLinear.
    lut, ff: counts by name, of bits mostly, which weights turn into LUTs and flip-flops.
    memories: how the unit's memories map, that of its weights apart.
    weights: how that one maps, by its style.
    memory: the style that it has.
    exact: LUTs and flip-flops beside all these, which no weights change.
    """

    key: str
    lut: Counts
    ff: Counts
    memories: tuple[Memory, ...] = ()
    weights: dict[str, Memory] = field(default_factory=dict)
    memory: str = AUTO
    exact: tuple[float, float] = (0, 0)

    @property
    def counts(self) -> dict[str, Counts]:
        """`lut` and `ff` with the logic of the memories."""
        memories = [*self.memories, self.weights.get(self.memory, Memory())]
        logic = {name: sum(getattr(memory, name) for memory in memories)
                 for name in ("table", "deep", "select", "copy")}
        copy = logic.pop("copy")
        return {"lut": {"unit": 1, **self.lut, **logic}, "ff": {"unit": 1, **self.ff, "copy": copy}}


def _weight_tables(node: ir.MatVec | ir.DepthwiseMatVec, depth: int, width: int, family: str
                   ) -> dict[str, Memory]:
    """A memory of weights in each style."""
    return {style: table(depth, width, family, written=bool(node.room), style=style)
            for style in MEMORIES}


def _bank(node: ir.Node, read: ir.Edge) -> int:
    """Bits of the counters of pixels and images of a unit whose tables are written, see
    `hw/writable.py`."""
    pixels = read.shape[0] * read.shape[1]
    return (_count(pixels) + INDEX_BITS) * bool(getattr(node, "room", ()))


@lru_cache(2**12)
def _bits(edge: ir.Edge) -> int:
    return edge.width


def _count(length: int) -> int:
    """Bits of a counter 0..length-1."""
    return (length - 1).bit_length()


def _wraps(length: int) -> int:
    """Bits of a counter that does not wrap by itself."""
    return _count(length) if length & (length - 1) else 0


@lru_cache(64)
def _weight_bits(node: ir.MatVec | ir.DepthwiseMatVec) -> int:
    return ir.code_bits(node)
