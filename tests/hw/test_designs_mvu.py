# amaranth: UnusedElaboratable=no
"""Whole MVUs of all designs: gateware against golden, every bit, at the ends of every sum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from amaranth.hdl import Const, Mux
from amaranth.lib import wiring
from loading import Loading
from units import SCENARIOS, Bench, Case, case, edge_of, images_on

from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.designs import Design, Uniform, designs
from n2uq_hw.hw.designs.design import Datapath, Term
from n2uq_hw.hw.designs.mvu import CodedMatVec, Sums, SumsUnit, finish_lanes, sum_ranges
from n2uq_hw.hw.units import unit
from n2uq_hw.ir import Edge, infer
from n2uq_hw.ir.folding import MatVecFold


class Basis(Design):
    """Weights ``2·Σ bit_b·basis_b - basis_0``: Σa and a sum per bit, multiplied at the end."""

    method = "basis"
    entry_bits = 6

    def __init__(self, basis: Sequence[int], **point) -> None:
        super().__init__(**point)
        self.tables = {"basis": np.array([sum(basis), *basis])}

    @property
    def name(self) -> str:
        return f"basis{' written' * self.writable}"

    @property
    def ranges(self) -> dict[str, tuple[int, int]]:
        return {"basis": (0, 2**self.entry_bits - 1)} if self.writable else super().ranges

    @property
    def bits(self) -> np.ndarray:
        """[1 + weight_bits, 2^weight_bits]: 1, and the bits of each code."""
        codes = np.arange(2**self.weight_bits)
        return np.array([np.ones_like(codes), *(codes >> np.arange(self.weight_bits)[:, None] & 1)])

    @property
    def weights(self) -> np.ndarray:
        total, *basis = self.tables["basis"]
        return 2 * np.array(basis) @ self.bits[1:] - total

    @property
    def addends(self) -> np.ndarray:
        return np.multiply.outer(self.bits, self.activations)

    def shared(self, d, a):
        return [d.sum(a, "total")]

    def partial(self, d, w, a, shared):
        sums = [d.sum((Term(Mux(code.value[b], x.value, 0), 0, x.hi, x.cycle)
                       for code, x in zip(w, a, strict=True)), f"sum{b}")
                for b in range(self.weight_bits)]
        return [*shared, *sums]

    def finish(self, d: Datapath, sums: Sequence[Term]) -> Term:
        products = []
        for b, term in enumerate(sums):
            entry = d.lookup("basis", Const(b, range(len(sums))), term.cycle)
            product = Term(term.value * entry.value, 0, term.hi * entry.hi, term.cycle)
            products.append(d.register(product.times(2 if b else -1)))
        return d.sum(products)


def every(weight_bits: int, act_bits: int, lanes: int) -> list[Design]:
    """All designs at 2 bits, elsewhere one without and two with something to finish."""
    point = {"weight_bits": weight_bits, "act_bits": act_bits, "lanes": lanes}
    widest = designs(**point) if weight_bits == act_bits == 2 else [Uniform(**point)]
    basis = 3 ** np.arange(weight_bits)
    return [*widest, Basis(basis, **point), Basis(basis, **point, writable=True)]


def driven(node: CodedMatVec, edge: Edge) -> np.ndarray:
    """Vectors [n, K] that drive every sum of every output to both ends after each of its beats."""
    addends = node.design.addends
    addends = node.design.products[None] if addends is None else addends
    codes = np.arange(addends.shape[2])
    beat = np.arange(edge.channels) // node.design.lanes
    rows = []
    for table in addends:
        for w in node.weights:
            beats = [np.where((codes >= edge.lo[:, None]) & (codes <= edge.hi[:, None]),
                              sign * table[w], -10**9).argmax(axis=1) for sign in (1, -1)]
            for end in range(beat[-1] + 1):
                rows += [np.where(beat <= end, *beats), np.where(beat <= end, *beats[::-1])]
    return np.unique(rows, axis=0)


POINTS = [((2, 2), (4, 6), (4, 3)), ((3, 2), (4, 6), (2, 6)), ((4, 3), (2, 4), (1, 1))]
# bits of weights and activations; N, K; PE, SIMD


def mvu(design: Design, shape: tuple[int, int], pe: int, seed: int) -> Case:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 2**design.weight_bits, shape)
    name = "".join(c if c.isalnum() else "_" for c in f"mvu{seed}_{design.name}")
    node = CodedMatVec(name, weights=codes, design=design)
    # Some channels do not reach all codes.
    top = 2**design.act_bits - 1 - (rng.random(shape[1]) < 0.3)
    edge = edge_of((1, 2, shape[1]), 0, top)
    rows = driven(node, edge)
    rows = np.concatenate([rows, images_on(edge, 5, seed).reshape(10, -1), rows[::-1]])

    def make(out: Edge) -> wiring.Component:
        component = unit(node, (edge,), out, MatVecFold(pe, design.lanes))
        return Loading(component, {"": design}) if design.writable else component
    return case(node, edge, make, rows.reshape(-1, *edge.shape))


@pytest.fixture(scope="module")
def mvus(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench([mvu(design, shape, pe, seed) for seed, (bits, shape, (pe, simd))
                  in enumerate(POINTS) for design in every(*bits, simd)], tmp_path_factory)


@pytest.mark.slow
@pytest.mark.parametrize("source,sink,resets", SCENARIOS)
def test_mvus(mvus: Bench, source: float, sink: float, resets: tuple[int, ...]) -> None:
    mvus.run(source, sink, resets)


@pytest.mark.slow
def test_mvus_obey_the_stream_rules(mvus: Bench) -> None:
    mvus.check_rules()


@pytest.mark.slow
def test_timing_of_mvus(mvus: Bench) -> None:
    """A vector each N/PE · K/SIMD cycles; its results after the last beat of each fold."""
    for name, (accepted, emitted) in mvus.timing.items():
        whole = mvus.cases[name].unit
        whole = whole.inner if isinstance(whole, Loading) else whole
        sums = whole if isinstance(whole, SumsUnit) else whole.sums
        vector, beat = np.divmod(np.arange(len(accepted)), sums.beats)
        assert np.array_equal(accepted - accepted[0], vector * sums.folds * sums.beats + beat), name
        latency, lanes = sums.design.sums[0].cycle + 2, sums.pe
        if sums.design.finishes:
            lanes = finish_lanes(sums.pe, sums.beats)
            latency += whole.finish.latency + (lanes < sums.pe)
        fold, turn = np.divmod(np.arange(len(emitted)), sums.pe // lanes)
        leaves = (fold + 1) * sums.beats - 1 + latency + turn
        assert np.array_equal(emitted - accepted[0], leaves), name


@pytest.mark.slow
def test_accumulators_reach_their_range(mvus: Bench) -> None:
    for c in mvus.cases.values():
        whole = c.unit.inner if isinstance(c.unit, Loading) else c.unit
        sums = whole if isinstance(whole, SumsUnit) else whole.sums
        if sums.design.addends is None:
            continue
        x = c.images.reshape(-1, c.images.shape[-1])
        ranges = sum_ranges(sums.node, sums.edge)
        for table, ends in zip(sums.design.addends, ranges, strict=True):
            added = table[sums.node.weights[None], x[:, None]]
            partial = added.reshape(*added.shape[:2], -1, sums.simd).sum(axis=3).cumsum(axis=2)
            assert ends == (partial.min(), partial.max()), c.name


def test_sums_of_activations_alone_are_common() -> None:
    design = Basis([1, 3], weight_bits=2, act_bits=2, lanes=2)
    node = CodedMatVec("mvu", weights=np.array([[0, 1, 2, 3], [3, 3, 3, 0]]), design=design)
    sums = Sums.of(node, edge_of((1, 1, 4), 0, 3))
    assert sums.common == (True, False, False)
    assert sums.ranges == ((0, 12), (0, 9), (0, 9))
    assert [sums.layout(lanes).size for lanes in (1, 2, 3)] == [12, 20, 28]
    one = Uniform(weight_bits=2, act_bits=2, lanes=2)
    assert Sums.of(replace(node, design=one), edge_of((1, 1, 4), 0, 3)).common == (False,)


@pytest.mark.parametrize("pe,beats,lanes", [(1, 1, 1), (4, 1, 4), (4, 2, 2), (4, 3, 2), (4, 4, 1),
                                            (6, 2, 3), (6, 4, 2), (6, 5, 2), (16, 36, 1)])
def test_fewest_lanes_that_finish_in_time(pe: int, beats: int, lanes: int) -> None:
    assert finish_lanes(pe, beats) == lanes


@pytest.mark.parametrize("weights,hi,message", [
    ([[0, 4]], 3, "CodedMatVec mvu: weights must be codes of 2 bits, not 0..4"),
    ([[-1, 3]], 3, "CodedMatVec mvu: weights must be codes of 2 bits, not -1..3"),
    ([[0, 3]], 4, "CodedMatVec mvu: inputs must be codes of 2 bits, not 0..4"),
    ([[0, 3, 1]], 3, r"MatVec mvu: weights must be \[N, 2\], not \[1, 3\]")])
def test_what_are_no_codes(weights: list, hi: int, message: str) -> None:
    design = Uniform(weight_bits=2, act_bits=2, lanes=1)
    with pytest.raises(N2uqError, match=message):
        infer(CodedMatVec("mvu", weights=np.array(weights), design=design),
              edge_of((1, 1, 2), 0, hi))


def test_simd_is_the_lanes_of_the_design() -> None:
    node = CodedMatVec("mvu", weights=np.zeros((2, 4), np.int64),
                       design=Uniform(weight_bits=2, act_bits=2, lanes=2))
    edge = edge_of((1, 1, 4), 0, 3)
    with pytest.raises(N2uqError, match=r"^mvu: SIMD must be the 2 lanes of its design, not 4$"):
        unit(node, (edge,), infer(node, edge), MatVecFold(1, 4))
