"""Single units of every kind, with random parameters: what the estimator is fitted to.

A sample is a kind of node and a few numbers; `make` turns it into a node, its edges and its
folding.  units.json holds samples and what Yosys made of them: ``python bench/units.py --samples``
synthesizes them anew.  The weights of `cost` are fitted to three of four; the others test it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

from .. import ir
from ..errors import N2uqError
from ..hw.mac import pairs_offset
from ..hw.stream import element
from ..ir import Edge, Graph, Input, Node
from ..ir.folding import AUTO, ConvertFold, DepthwiseFold, Fold, MatVecFold, ThresholdFold
from .estimate import estimate
from .fitted import Weights
from .memories import FAMILIES
from .parts import Parts, parts

__all__ = ["STORE", "Sample", "errors", "fit", "load_samples", "save_samples"]

STORE = Path(__file__).with_name("units.json")
LEAST = 20    # cells: what is smaller counts as much
DRAW = 0.01  # of a weight to 1
Nodes = list[Node]


@dataclass(frozen=True, eq=False)
class Sample:
    """A unit to synthesize, and what it cost.

    Members
    -------
    kind, params: what `make` makes.
    held_out: not to be fitted to: the estimate is tested on it.
    cells: per family how many there are of each kind, as `synth.Resources` names them.
    verilog: digest of the Verilog that they were counted in.
    """

    kind: str
    params: dict[str, Any]
    held_out: bool = False
    cells: dict[str, dict[str, int]] = field(default_factory=dict)
    verilog: str = ""

    def make(self) -> tuple[Node, tuple[Edge, ...], Edge, Fold]:
        """The node, the edges that it reads, the edge that it makes, the folding."""
        if self.kind not in _MAKERS:
            raise N2uqError(f"samples: kind must be one of {', '.join(_MAKERS)}, not {self.kind}")
        nodes, fold = _MAKERS[self.kind](np.random.default_rng(0), **self.params)
        graph = Graph("sample", tuple(nodes))
        return nodes[-1], graph.reads(nodes[-1]), graph.edges[nodes[-1].name], fold


def load_samples() -> tuple[str, list[Sample]]:
    """Yosys's version and the stored set."""
    stored = json.loads(STORE.read_text(encoding="utf-8"))
    return stored["yosys"], [Sample(**row) for row in stored["units"]]


def save_samples(yosys: str, samples: Iterable[Sample]) -> None:
    """Write the stored set, a line for each unit."""
    rows = ",\n".join(json.dumps(asdict(sample)) for sample in samples)
    STORE.write_text(f'{{"yosys": {json.dumps(yosys)}, "units": [\n{rows}\n]}}\n', encoding="utf-8")


def fit(samples: Iterable[Sample]) -> Weights:
    """The weights of `parts.parts` that fit the samples best, but for those held out.

    Least squares of relative errors; no weight is negative, and each is drawn a little to 1, which
    is what a count of LUTs or flip-flops weighs if it is exact.
    """
    weights: Weights = {}
    for family in FAMILIES:
        groups: dict[str, list[tuple[Parts, dict[str, int]]]] = {}
        for sample in samples:
            if not sample.held_out:
                counted = parts(*sample.make(), family)
                groups.setdefault(counted.key, []).append((counted, sample.cells[family]))
        weights[family] = {key: {of: _fit([counted.counts[of] for counted, _ in rows],
                                          [cells[of] for _, cells in rows])
                                 for of in ("lut", "ff")} for key, rows in groups.items()}
    return weights


def _fit(counts: list[dict[str, float]], cells: list[int]) -> dict[str, float]:
    names = list(counts[0])
    a = np.array([[row[name] for name in names] for row in counts])
    y = np.array(cells, float)
    a, y = (values / np.maximum(cells, LEAST)[:, None] for values in (a, y[:, None]))
    draw = np.diag(np.sqrt(DRAW * (a**2).sum(axis=0)) + 1e-9)
    a, y = np.vstack([a, draw]), np.concatenate([y[:, 0], np.diag(draw)])
    return {name: float(f"{weight:.4g}") for name, weight in zip(
        names, nnls(a, y)[0].tolist(), strict=True)}


@dataclass(frozen=True)
class Errors:
    """How far the estimates of one kind of unit are off, in one family.

    Members
    -------
    kind: of unit, and its style.
    units, held_out: how many there are, and how many of them nothing was fitted to.
    lut, ff: relative errors of all LUTs, those that are memory included, and of flip-flops, of
        each unit, against 20 cells at least; the first `held_out` are of units held out.
    blocks: units whose number of block RAMs is not that measured.
    """

    kind: str
    units: int
    held_out: int
    lut: list[float]
    ff: list[float]
    blocks: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def errors(samples: Iterable[Sample], family: str) -> list[Errors]:
    """The errors of `cost.estimate`, by kind of unit."""
    rows: dict[str, list[tuple[bool, float, float, bool]]] = {}
    for sample in samples:
        unit, cells = sample.make(), sample.cells[family]
        cost = estimate(*unit, family)
        luts, key = cells["lut"] + cells["lutram"], parts(*unit, family).key
        rows.setdefault(key if key.startswith(sample.kind) else sample.kind, []).append((
            sample.held_out, abs(cost.lut + cost.lutram - luts) / max(luts, LEAST),
            abs(cost.ff - cells["ff"]) / max(cells["ff"], LEAST), cost.bram != cells["bram"]))
    made_of = []
    for key, of in sorted(rows.items()):
        of.sort(key=lambda row: not row[0])
        held, lut, ff, blocks = (list(column) for column in zip(*of, strict=True))
        made_of.append(Errors(key, len(of), sum(held), lut, ff, int(sum(blocks))))
    return made_of


def _x(shape: tuple[int, int, int], bits: int, signed: bool = False, name: str = "x") -> Input:
    low = -2**(bits - 1) if signed else 0
    return Input(name, shape=shape, lo=low, hi=low + 2**bits - 1)


def _pad(rng: np.random.Generator, side: int, channels: int, bits: int, frame: int, pe: int
         ) -> tuple[Nodes, Fold]:
    return [_x((side, side, channels), bits), ir.Pad("y", ("x",), frame=(frame,) * 4)], Fold(pe)


def _window(rng: np.random.Generator, side: int, channels: int, bits: int, kernel: int,
            stride: int, pe: int) -> tuple[Nodes, Fold]:
    return [_x((side, side, channels), bits), ir.SlidingWindow(
        "y", ("x",), kernel=(kernel,) * 2, stride=(stride,) * 2)], Fold(pe)


def _weights(rng: np.random.Generator, shape: tuple[int, int], bits: int, odd: bool) -> np.ndarray:
    codes = rng.integers(0, 2**bits, shape)
    return 2 * codes - 2**bits + 1 if odd else codes - 2**(bits - 1)


def _matvec(rng: np.random.Generator, outputs: int, inputs: int, weight_bits: int, act_bits: int,
            pe: int, simd: int, form: str, odd: bool = True, signed: bool = False,
            memory: str = AUTO, centered: bool = False) -> tuple[Nodes, Fold]:
    x, weights = (_x((1, 1, inputs), act_bits, signed),
                  _weights(rng, (outputs, inputs), weight_bits, odd))
    y = ir.MatVec("y", ("x",), weights=weights)
    if centered:  # thresholds behind it would have the offset
        graph = Graph("sample", (x, y))
        offset = pairs_offset(weights, element(graph.edges["x"]), simd)
        y = ir.OffsetMatVec("y", ("x",), weights=weights,
                            offset=offset - (graph.edges["y"].lo + offset).min())
    return [x, y], MatVecFold(pe, simd, form=form, memory=memory)


def _depthwise(rng: np.random.Generator, positions: int, channels: int, weight_bits: int,
               act_bits: int, pe: int, memory: str = AUTO) -> tuple[Nodes, Fold]:
    return [_x((2, 2, positions * channels), act_bits), ir.DepthwiseMatVec(
        "y", ("x",), weights=_weights(rng, (positions, channels), weight_bits, True))
            ], DepthwiseFold(pe, memory=memory)


def _threshold(rng: np.random.Generator, channels: int, steps: int, acc_bits: int, pe: int,
               style: str, shared: bool = False) -> tuple[Nodes, Fold]:
    half, rows = 2**(acc_bits - 1), 1 if shared else channels
    thresholds = np.sort(rng.integers(1 - half, half, (rows, steps)), axis=1)
    return [_x((1, 1, channels), acc_bits, True), ir.Threshold(
        "y", ("x",), thresholds=thresholds, signs=np.ones_like(thresholds, dtype=np.int8),
        base=np.zeros(rows, np.int64))], ThresholdFold(pe, style=style)


def _scale(rng: np.random.Generator, channels: int, acc_bits: int, factor_bits: int, shift: int,
           pe: int, shared: bool = False, clip: int = 0) -> tuple[Nodes, Fold]:
    half, rows = 2**(factor_bits - 1), 1 if shared else channels
    return [_x((1, 1, channels), acc_bits, True), ir.Scale(
        "y", ("x",), multiplier=rng.integers(-half, half, rows), shift=shift,
        offset=rng.integers(-half, half, rows) << (acc_bits // 2),
        clip=(0, 2**clip - 1) if clip else ())], Fold(pe)


def _lines(rng: np.random.Generator, channels: int, acc_bits: int, factor_bits: int, shift: int,
           pe: int, prelu: bool) -> tuple[Nodes, Fold]:
    half = 2**(factor_bits - 1)
    multiplier = rng.integers(-half, half, (2, channels))
    if prelu:
        multiplier[1] = 1 << shift
    return [_x((1, 1, channels), acc_bits, True), ir.PiecewiseLinear(
        "y", ("x",), turn=rng.integers(-2**(acc_bits - 3), 2**(acc_bits - 3), channels),
        multiplier=multiplier, shift=shift,
        offset=rng.integers(-half, half, (2, channels)) << (acc_bits // 2))], Fold(pe)


def _add(rng: np.random.Generator, channels: int, bits: int, other_bits: int, pe: int
         ) -> tuple[Nodes, Fold]:
    # The second input is the first one's top bits, in an edge of their range.
    return [_x((1, 1, channels), bits, True),
            ir.Scale("z", ("x",), shift=max(bits - other_bits, 0)),
            ir.Add("y", ("x", "z"))], Fold(pe)


def _concat(rng: np.random.Generator, ways: int, channels: int, bits: int, pe: int
            ) -> tuple[Nodes, Fold]:
    return [_x((1, 1, channels), bits), ir.Concat("y", ("x",) * ways)], Fold(pe)


def _upsample(rng: np.random.Generator, side: int, channels: int, bits: int, factor: list[int],
              pe: int) -> tuple[Nodes, Fold]:
    return [_x((side, side, channels), bits),
            ir.Upsample("y", ("x",), factor=(factor[0], factor[1]))], Fold(pe)


def _depth_to_space(rng: np.random.Generator, side: int, channels: int, bits: int, block: int,
                    mode: str, pe: int) -> tuple[Nodes, Fold]:
    return [_x((side, side, block**2 * channels), bits),
            ir.DepthToSpace("y", ("x",), block=block, mode=mode)], Fold(pe)


def _permute(rng: np.random.Generator, channels: int, outputs: int, bits: int, pe: int
             ) -> tuple[Nodes, Fold]:
    order = np.concatenate([rng.permutation(channels), rng.integers(0, channels, outputs)])
    return [_x((1, 1, channels), bits), ir.Permute("y", ("x",), order=order[:outputs])], Fold(pe)


def _saturate(rng: np.random.Generator, channels: int, bits: int, out_bits: int, pe: int
              ) -> tuple[Nodes, Fold]:
    half = 2**(out_bits - 1)
    return [_x((1, 1, channels), bits, True), ir.Saturate("y", ("x",), lo=-half, hi=half - 1)
            ], Fold(pe)


def _pool(kind: type[ir.MaxPool | ir.SumPool]) -> Callable[..., tuple[Nodes, Fold]]:
    def make(rng: np.random.Generator, positions: int, channels: int, bits: int, pe: int
             ) -> tuple[Nodes, Fold]:
        return [_x((2, 2, positions * channels), bits), kind("y", ("x",), positions=positions)
                ], Fold(pe)
    return make


def _argmax(rng: np.random.Generator, channels: int, bits: int, pe: int) -> tuple[Nodes, Fold]:
    return [_x((1, 1, channels), bits, True), ir.ArgMax("y", ("x",))], Fold(pe)


def _fifo(rng: np.random.Generator, bits: int, depth: int) -> tuple[Nodes, Fold]:
    return [_x((1, 1, bits), 1), ir.Fifo("y", ("x",), depth=depth)], Fold(bits)


def _fork(rng: np.random.Generator, bits: int, ways: int) -> tuple[Nodes, Fold]:
    return [_x((1, 1, bits), 1), ir.Fork("y", ("x",), ways=ways)], Fold(bits)


def _convert(rng: np.random.Generator, bits: int, lanes_in: int, lanes_out: int
             ) -> tuple[Nodes, Fold]:
    lanes = max(lanes_in, lanes_out)
    return [_x((1, 1, lanes), bits), ir.WidthConvert("y", ("x",), lanes=lanes_out)
            ], ConvertFold(lanes_out, lanes_in)


_MAKERS: dict[str, Callable[..., tuple[Nodes, Fold]]] = {
    "Pad": _pad, "SlidingWindow": _window, "MatVec": _matvec, "DepthwiseMatVec": _depthwise,
    "Threshold": _threshold, "Scale": _scale, "PiecewiseLinear": _lines, "Add": _add,
    "Concat": _concat, "Upsample": _upsample, "DepthToSpace": _depth_to_space, "Permute": _permute,
    "Saturate": _saturate, "MaxPool": _pool(ir.MaxPool), "SumPool": _pool(ir.SumPool),
    "ArgMax": _argmax, "Fifo": _fifo, "Fork": _fork, "WidthConvert": _convert}
