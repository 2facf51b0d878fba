# amaranth: UnusedElaboratable=no
"""What a unit will cost on an FPGA, estimated from what it is made of; no tool runs.

A few weights per kind of unit and family, fitted by least squares to synthesized samples
(`samples.py`), make LUTs and flip-flops of what `parts` counts; memories map as in `memories.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import add
from typing import NamedTuple

from ..errors import N2uqError
from ..hw.unrolled import UnrolledUnit
from ..ir import Edge, Node, Unrolled
from ..ir.folding import AUTO, DepthwiseFold, Fold, MatVecFold, UnrolledFold
from .fitted import numbers, weights
from .memories import FAMILIES, Memory
from .parts import Counts, parts

__all__ = ["Cost", "estimate", "estimates"]


class Cost(NamedTuple):
    """Estimated cells, as `synth.Resources` counts them, without DSP blocks."""

    lut: float = 0
    ff: float = 0
    bram: float = 0
    lutram: float = 0

    def plus(self, other: Cost) -> Cost:
        """The sum."""
        return Cost(*map(add, self, other))


def weighed(counts: Counts, weighs: Mapping[str, float]) -> float:
    """The weighted sum of `counts`."""
    return sum(count * weighs[name] for name, count in counts.items())


def estimate(node: Node, reads: tuple[Edge, ...], edge: Edge, fold: Fold, family: str) -> Cost:
    """What the unit of `node` costs, reading edges `reads`, making `edge`, folded as `fold` says.

    Without DSP blocks.  Raises N2uqError for a kind or a family that nothing is known of.
    """
    held = fold.memory if isinstance(fold, MatVecFold | DepthwiseFold) else AUTO
    return estimates(node, reads, edge, fold, family, (held,))[0]


def estimates(node: Node, reads: tuple[Edge, ...], edge: Edge, fold: Fold, family: str,
              memories: Sequence[str]) -> list[Cost]:
    """`estimate` with each of the styles `memories` of weight memory, at little more than one."""
    if family not in FAMILIES:
        raise N2uqError(f"family: estimates are for {', '.join(FAMILIES)}, "
                        f"not {family or 'nothing'}")
    if isinstance(node, Unrolled) and isinstance(fold, UnrolledFold):
        unit = UnrolledUnit(node, reads[0], edge, levels=fold.levels, lut=fold.lut)
        compared = (numbers(family).unrolled_compared * edge.channels
                    * (node.threshold is not None))
        return [Cost(unit.graph.luts + compared, unit.registers)] * len(memories)
    counted = parts(node, reads, edge, fold, family)
    if counted.key == "Input":
        return [Cost()] * len(memories)
    weighs = weights(family, counted.key)
    lut, ff = weighs["lut"], weighs["ff"]
    cost = Cost(lut["unit"] + weighed(counted.lut, lut),
                ff["unit"] + weighed(counted.ff, ff)).plus(Cost(*counted.exact))
    for memory in counted.memories:
        cost = cost.plus(_mapped(memory, lut, ff))
    return [cost.plus(_mapped(counted.weights[style], lut, ff)) for style in memories
            ] if counted.weights else [cost] * len(memories)


def _mapped(memory: Memory, lut: Counts, ff: Counts) -> Cost:
    """What a memory costs in a unit of these weights."""
    return Cost(memory.table * lut["table"] + memory.deep * lut["deep"]
                + memory.select * lut["select"], memory.copy * ff["copy"],
                memory.bram, memory.lutram)
