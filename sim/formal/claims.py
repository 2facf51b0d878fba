"""What is proven of which units: every kind that `hw/` has, at sizes that a proof can cover."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from amaranth.lib import wiring

from ... import ir
from ...hw.mac import pairs_offset
from ...hw.stream import element
from ...hw.units import unit
from ...hw.verilog import Written
from ...ir.folding import (
    FORMS,
    PAIRED,
    STYLES,
    ConvertFold,
    DepthwiseFold,
    Fold,
    MatVecFold,
    ThresholdFold,
    UnrolledFold,
)
from .function import truth_tables
from .miter import Miter
from .prove import Invariant, Verdict, bounded, formulas, independent, induction

__all__ = ["CONTRACT", "FUNCTION", "PATH", "Claim", "Proof", "claims", "prove"]

CONTRACT = "an offered beat stays as it is"
PATH = "valid does not wait for ready"
FUNCTION = "golden's beats, in order, none lost, none late"


@dataclass(frozen=True, eq=False)
class Claim:
    """A unit of which all is to be proven.

    Members
    -------
    nodes: inputs, and last the node whose unit it is.
    cycles, images, patience: of the bounded proof, see `Miter`.
    fast: whether it is among those that the tests prove.
    invariant: what the induction needs, which is proven with it.
    """

    name: str
    nodes: tuple[ir.Node, ...]
    fold: Fold
    cycles: int = 16
    images: int = 2
    patience: int = 8
    fast: bool = False
    invariant: Invariant | None = None

    @property
    def kind(self) -> type[ir.Node]:
        """Of the node."""
        return type(self.nodes[-1])

    @cached_property
    def graph(self) -> ir.Graph:
        """The nodes with their edges."""
        return ir.Graph("claim", self.nodes)

    def unit(self) -> wiring.Component:
        """The gateware."""
        node = self.nodes[-1]
        return unit(node, self.graph.reads(node), self.graph.edges[node.name], self.fold)

    def miter(self, *, function: bool) -> tuple[Miter, str]:
        """The unit, beside golden or by itself, and the Verilog that it needs."""
        node, gateware = self.nodes[-1], self.unit()
        edges = self.graph.reads(node)
        written = gateware.verilog("written") if isinstance(gateware, Written) else ""
        return Miter(gateware, edges, truth_tables(node, edges) if function else None,
                     images=self.images, patience=self.patience,
                     instance="written" if written else ""), written


@dataclass(frozen=True)
class Proof:
    """A property of a claim's unit, and how it was proven, by "induction", "structure", or up to a
    number of cycles behind a reset."""

    claim: Claim
    property: str
    how: str
    verdict: Verdict


def prove(claim: Claim, *, seconds: float = 600) -> Iterator[Proof]:
    """Prove a claim, property by property; each within so many `seconds`."""
    always: Invariant = claim.invariant or (lambda name: "true")
    miter, verilog = claim.miter(function=False)
    ports = [port.name for port in miter.ports]
    yield Proof(claim, PATH, "structure", Verdict(independent(miter, verilog), 0, 0.0))
    text = formulas(claim.miter(function=False)[0], verilog)
    yield Proof(claim, CONTRACT, "induction", induction(text, 4, ports, seconds=seconds,
                                                        invariant=always))
    miter, verilog = claim.miter(function=True)
    text, outs = formulas(miter, verilog), [s.name for s in miter.outs]
    yield Proof(claim, FUNCTION, f"{claim.cycles} cycles", bounded(
        text, claim.cycles, ports, outputs=outs, seconds=seconds, invariant=always))


def _queue(depth: int) -> Invariant:
    """Of a FifoUnit: the places lie in the ring; if they are one, it is empty or full."""
    def invariant(name: Callable[[str], str]) -> str:
        some, room = name("o__valid"), name("i__ready")
        if depth == 1:
            return f"(xor {some} {room})"
        first, end = name("unit.first"), name("unit.write__addr")
        bits = (depth - 1).bit_length()
        inside = "" if depth == 2**bits else "".join(
            f" (bvult {place} (_ bv{depth} {bits}))" for place in (first, end))
        return f"(or {some} {room}) (= (and {some} {room}) (distinct {first} {end})){inside}"
    return invariant


def _x(*shape: int, lo: int = 0, hi: int = 1, name: str = "x") -> ir.Input:
    h, w, c = (1,) * (3 - len(shape)) + shape
    return ir.Input(name, shape=(h, w, c), lo=lo, hi=hi)


def _of(name: str, kind: type[ir.Node], *inputs: ir.Input, fold: Fold | int = 1, claim: Any = None,
        **parameters: Any) -> Claim:
    node = kind("y", tuple(i.name for i in inputs), **parameters)
    return Claim(name, (*inputs, node), Fold(fold) if isinstance(fold, int) else fold,
                 **(claim or {}))


def _odd(n: int, k: int, bits: int = 2) -> np.ndarray:
    return 2 * np.random.default_rng(n + k).integers(0, 2**bits, (n, k)) - 2**bits + 1


def _offset(x: ir.Input, weights: np.ndarray, simd: int) -> np.ndarray:
    """What a MatVec of the paired form adds where thresholds follow."""
    graph = ir.Graph("claim", (x, ir.MatVec("y", (x.name,), weights=weights)))
    offset = pairs_offset(weights, element(graph.edges[x.name]), simd)
    return offset - (graph.edges["y"].lo + offset).min()


FAST: dict[str, Any] = {"fast": True}
STEPS: dict[str, Any] = {
    "thresholds": np.array([[-5, 0, 3], [-2, 1, 6]]), "base": np.array([0, -1]),
    "signs": np.array([[1, 1, 1], [1, -1, 1]], np.int8)}
SCALES: dict[str, Any] = {"multiplier": np.array([3, -5]), "offset": np.array([4, -1]), "shift": 2}
LINES: dict[str, Any] = {
    "turn": np.array([0, 2]), "multiplier": np.array([[1, 2], [4, -3]]),
    "offset": np.array([[1, 0], [-2, 3]]), "shift": 1}


def claims() -> list[Claim]:
    """All of them, in the order of the table."""
    small, signed = _x(4, hi=3), _x(2, lo=-8, hi=7)
    few, pool = _x(2, lo=-4, hi=3), _x(4, lo=-2, hi=1)
    rows = [_of(f"Fifo, depth {depth}", ir.Fifo, _x(2), depth=depth,
                claim={"invariant": _queue(depth), "images": 4,
                       "cycles": 12 + depth, "fast": depth == 2}) for depth in (1, 2, 5)]
    rows += [
        _of("Fork, 2 ways", ir.Fork, _x(2), ways=2, claim=FAST),
        _of("WidthConvert, 1 to 4 lanes", ir.WidthConvert, _x(4), lanes=4, fold=ConvertFold(4, 1)),
        _of("WidthConvert, 4 to 1 lanes", ir.WidthConvert, _x(4), lanes=1, fold=ConvertFold(1, 4),
            claim=FAST),
        _of("Saturate", ir.Saturate, signed, lo=-2, hi=3, claim=FAST),
        _of("Scale", ir.Scale, few, **SCALES),
        _of("Scale, to even", ir.Scale, few, **SCALES, ties="even"),
        _of("PiecewiseLinear", ir.PiecewiseLinear, few, **LINES),
        *(_of(f"Threshold, {style}, PE {pe}", ir.Threshold, signed, **STEPS,
              fold=ThresholdFold(pe, style=style), claim={"fast": pe == 1})
          for style in STYLES for pe in (1, 2)),
        _of("Add", ir.Add, _x(2, hi=3), _x(2, lo=-4, hi=3, name="b"), claim=FAST),
        _of("Concat", ir.Concat, _x(2), _x(1, name="b")),
        *(_of(f"MaxPool, PE {pe}", ir.MaxPool, pool, positions=2, fold=pe) for pe in (1, 2, 4)),
        *(_of(f"SumPool, PE {pe}", ir.SumPool, pool, positions=2, fold=pe) for pe in (1, 2)),
        *(_of(f"ArgMax, {pe} lanes", ir.ArgMax, pool, fold=pe) for pe in (1, 4)),
        _of("Permute", ir.Permute, _x(3, hi=3), order=np.array([2, 0, 1]), claim=FAST),
        _of("DepthToSpace", ir.DepthToSpace, _x(1, 2, 4), block=2, claim={"cycles": 20}),
        _of("Upsample", ir.Upsample, _x(1, 2, 1), factor=(2, 2), claim={"cycles": 20}),
        _of("Pad", ir.Pad, _x(2, 2, 1), frame=(1, 1, 1, 1), claim={"cycles": 36}),
        *(_of(f"SlidingWindow 2×2, {lanes} lanes", ir.SlidingWindow, _x(3, 3, 1), kernel=(2, 2),
              fold=lanes, claim={"cycles": 20}) for lanes in (1, 2, 4)),
        _of("SlidingWindow 2×2, stride 2, 2 lanes", ir.SlidingWindow, _x(4, 4, 1), kernel=(2, 2),
            stride=(2, 2), fold=2, claim={"cycles": 20}),
        *(_of(f"MatVec {form}, PE {pe}, SIMD {simd}", ir.MatVec, small, weights=_odd(2, 4),
              fold=MatVecFold(pe, simd, form=form), claim={"cycles": 20}) for form in FORMS
          for pe, simd in ((1, 2), (2, 4))),
        _of("MatVec, 2 groups", ir.MatVec, small, weights=_odd(2, 2), groups=2,
            fold=MatVecFold(1, 1)),
        _of("OffsetMatVec", ir.OffsetMatVec, small, weights=_odd(2, 4),
            offset=_offset(small, _odd(2, 4), 2), fold=MatVecFold(1, 2, form=PAIRED),
            claim={"cycles": 20}),
        _of("MatVec, signed input", ir.MatVec, _x(3, lo=-4, hi=3), weights=_odd(2, 3),
            fold=MatVecFold(1, 1, form="direct")),
        *(_of(f"DepthwiseMatVec, PE {pe}", ir.DepthwiseMatVec, small, weights=_odd(2, 2),
              fold=DepthwiseFold(pe)) for pe in (1, 2)),
        *(_of(f"Unrolled, LUT{lut}{', with steps' * steps}", ir.Unrolled, small, weights=_odd(2, 4),
              threshold=ir.Threshold("t", **STEPS) if steps else None,
              fold=UnrolledFold(2, 4, levels=1, lut=lut), claim={"images": 4, "cycles": 10})
          for lut in (4, 6) for steps in (False, True)),
    ]
    return rows
