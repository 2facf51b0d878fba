# amaranth: UnusedElaboratable=no
"""The gateware of each kind of node: one registration each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, singledispatch

from amaranth.lib import wiring

from .. import ir
from ..errors import N2uqError
from ..ir.folding import (
    ConvertFold,
    DepthwiseFold,
    Fold,
    MatVecFold,
    ThresholdFold,
    UnrolledFold,
)
from .add import AddUnit
from .argmax import ArgMaxUnit
from .concat import ConcatUnit
from .depth_to_space import DepthToSpaceUnit
from .depthwise import DepthwiseMatVecUnit
from .fifo import FifoUnit
from .fork import ForkUnit
from .matvec import MatVecUnit
from .max_pool import MaxPoolUnit
from .pad import PadUnit
from .permute import PermuteUnit
from .piecewise_linear import PiecewiseLinearUnit
from .saturate import SaturateUnit
from .scale import ScaleUnit
from .sliding_window import SlidingWindowUnit
from .stream import Unit, beats, element
from .sum_pool import SumPoolUnit
from .threshold import ThresholdUnit
from .unrolled import UnrolledUnit
from .upsample import UpsampleUnit
from .width_convert import WidthConverter

__all__ = ["unit"]


@singledispatch
def unit(node: ir.Node, reads: tuple[ir.Edge, ...], edge: ir.Edge, fold: Fold) -> wiring.Component:
    """The gateware of `node`, reading edges `reads` and making `edge`, folded as `fold` says."""
    raise N2uqError(f"no gateware for {type(node).__name__}")


@unit.register
def _(node: ir.Pad, reads: tuple[ir.Edge, ...], edge: ir.Edge, fold: Fold) -> Unit:
    return PadUnit(node, reads[0], edge, lanes=fold.pe)


@unit.register
def _(node: ir.SlidingWindow, reads: tuple[ir.Edge, ...], edge: ir.Edge, fold: Fold) -> Unit:
    return SlidingWindowUnit(node, reads[0], lanes=fold.pe)


@unit.register
def _(node: ir.MatVec, reads: tuple[ir.Edge, ...], edge: ir.Edge, fold: MatVecFold) -> Unit:
    return MatVecUnit(node, reads[0], edge, pe=fold.pe, simd=fold.simd, form=fold.form,
                      memory=fold.memory)


@unit.register
def _(node: ir.Unrolled, reads: tuple[ir.Edge, ...], edge: ir.Edge, fold: UnrolledFold) -> Unit:
    return UnrolledUnit(node, reads[0], edge, levels=fold.levels, lut=fold.lut)


@unit.register
def _(node: ir.DepthwiseMatVec, reads: tuple[ir.Edge, ...], edge: ir.Edge, fold: DepthwiseFold
     ) -> Unit:
    return DepthwiseMatVecUnit(node, reads[0], edge, pe=fold.pe, memory=fold.memory)


@unit.register
def _(node: ir.Threshold, reads: tuple[ir.Edge, ...], edge: ir.Edge, fold: ThresholdFold) -> Unit:
    return ThresholdUnit(node, reads[0], edge, pe=fold.pe, style=fold.style)


@unit.register
def _(node: ir.Add, reads: tuple[ir.Edge, ...], edge: ir.Edge, fold: Fold) -> wiring.Component:
    return AddUnit(node, reads[0], reads[1], edge, pe=fold.pe)


@unit.register
def _(node: ir.Concat, reads: tuple[ir.Edge, ...], edge: ir.Edge, fold: Fold) -> wiring.Component:
    return ConcatUnit(node, reads, edge, pe=fold.pe)


@unit.register
def _(node: ir.Upsample, reads: tuple[ir.Edge, ...], edge: ir.Edge, fold: Fold) -> Unit:
    return UpsampleUnit(node, reads[0], pe=fold.pe)


@unit.register
def _(node: ir.Fifo, reads: tuple[ir.Edge, ...], edge: ir.Edge, fold: Fold) -> Unit:
    return FifoUnit(layout=beats(element(edge), fold.pe), depth=node.depth)


@unit.register
def _(node: ir.Fork, reads: tuple[ir.Edge, ...], edge: ir.Edge, fold: Fold) -> wiring.Component:
    return ForkUnit(layout=beats(element(edge), fold.pe), ways=node.ways)


@unit.register
def _(node: ir.WidthConvert, reads: tuple[ir.Edge, ...], edge: ir.Edge, fold: ConvertFold) -> Unit:
    return WidthConverter(shape=element(edge), lanes_in=fold.simd, lanes_out=fold.pe)


# Units of one input that need no more than their PE.
PLAIN: dict[type[ir.Node], Callable[..., Unit]] = {
    ir.Scale: ScaleUnit, ir.PiecewiseLinear: PiecewiseLinearUnit, ir.Saturate: SaturateUnit,
    ir.MaxPool: MaxPoolUnit, ir.SumPool: SumPoolUnit, ir.ArgMax: ArgMaxUnit,
    ir.DepthToSpace: DepthToSpaceUnit, ir.Permute: PermuteUnit}


def _plain(make: Callable[..., Unit], node: ir.Node, reads: tuple[ir.Edge, ...], edge: ir.Edge,
           fold: Fold) -> Unit:
    return make(node, reads[0], edge, pe=fold.pe)


for kind, make in PLAIN.items():
    unit.register(kind, partial(_plain, make))
