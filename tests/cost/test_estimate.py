"""Estimates against Yosys: the stored set of units, and units synthesized here."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest

from n2uq_hw import tools
from n2uq_hw.builds import synth
from n2uq_hw.builds.emit import library_verilog
from n2uq_hw.cost import fitted, parts_lines, parts_threshold
from n2uq_hw.cost.estimate import Cost, estimate
from n2uq_hw.cost.memories import FAMILIES, Memory, ram, rom
from n2uq_hw.cost.parts import parts
from n2uq_hw.cost.samples import STORE, Sample, errors, fit, load_samples, save_samples
from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.library import Library
from n2uq_hw.hw.units import unit
from n2uq_hw.ir import (
    Add,
    Edge,
    Graph,
    Input,
    MatVec,
    Node,
    Scale,
    Threshold,
    Unrolled,
    infer,
    writable,
)
from n2uq_hw.ir.folding import FORMS, Fold, MatVecFold, ThresholdFold, UnrolledFold

VERSION, SAMPLES = load_samples()
# Aim: 10 % in the median, 25 % at worst.  What misses the second, and by how much it may.
MISSES = {("xcup", "Threshold constant"): 0.27, ("ecp5", "Threshold search"): 0.26,
          ("ecp5", "MatVec planes"): 0.28, ("xcup", "MatVec tables"): 0.29,
          ("xcup", "PiecewiseLinear"): 0.26, ("xcup", "Threshold search"): 0.28}


@pytest.mark.parametrize("family", FAMILIES)
def test_errors_by_kind_of_unit(family: str) -> None:
    for row in errors(SAMPLES, family):
        worst = MISSES.get((family, row.kind), 0.25)
        assert median(row.lut) <= 0.10 and max(row.lut) <= worst, row.kind
        assert worst == 0.25 or max(row.lut) > 0.25, f"{row.kind} misses no more"
        assert median(row.ff) <= 0.10, row.kind
        assert row.blocks <= (row.kind == "Fifo"), row.kind


@pytest.mark.parametrize("family", FAMILIES)
def test_units_that_nothing_was_fitted_to(family: str) -> None:
    rows = errors([sample for sample in SAMPLES if sample.held_out], family)
    every = [error for row in rows for error in row.lut]
    assert len(every) > 50 and median(every) <= 0.10
    assert sorted(every)[int(0.9 * len(every))] <= 0.25


def test_the_weights_are_those_that_fit() -> None:
    """Also on another machine, whose least squares may round otherwise."""
    refitted, stored = fit(SAMPLES), {
        family: of["weights"] for family, of in json.loads(fitted.FITTED.read_text()).items()}
    assert refitted.keys() == stored.keys() == FAMILIES.keys()
    for family, keys in stored.items():
        assert refitted[family].keys() == keys.keys()
        for key, weights in keys.items():
            for of in ("lut", "ff"):
                assert weights[of] == pytest.approx(refitted[family][key][of], rel=0.02, abs=0.02)


def test_held_out_units_have_no_say() -> None:
    wrong = [Sample(s.kind, s.params, s.held_out, {family: {k: 9 * n for k, n in cells.items()}
                                                   for family, cells in s.cells.items()})
             if s.held_out else s for s in SAMPLES]
    assert fit(wrong) == fit(SAMPLES)


def test_every_kind_is_in_the_set() -> None:
    in_set = {type(sample.make()[0]).__name__ for sample in SAMPLES}
    kinds = set(Node.KINDS) - {"Input", "Flatten"}
    assert in_set == kinds | {"OffsetMatVec"}
    assert {sample.kind for sample in SAMPLES if sample.held_out} == kinds
    assert len(SAMPLES) >= 400 and tools.yosys_version() == VERSION
    forms = {sample.params["form"] for sample in SAMPLES if sample.kind == "MatVec"}
    assert forms == set(FORMS)


def synthesized(sample: Sample, family: str, folder: Path) -> dict[str, int]:
    library = Library()
    library.signature("unit", lambda: unit(*sample.make()))
    files = library_verilog(library, "unit")
    for name, text in files.items():
        (folder / name).write_text(text)
    total = synth.synthesize([folder / name for name in files], "unit", family, dsp=False,
                             work=folder / "work").total
    return {kind: getattr(total, kind) for kind in sample.cells[family]}


@pytest.mark.parametrize("kind", ["WidthConvert", "Add", "Fork", "Pad"])
def test_yosys_finds_what_is_stored(kind: str, tmp_path: Path) -> None:
    sample = next(sample for sample in SAMPLES if sample.kind == kind)
    assert synthesized(sample, "ecp5", tmp_path) == sample.cells["ecp5"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted({sample.kind for sample in SAMPLES}))
def test_the_stored_set_is_of_this_gateware(kind: str, tmp_path: Path) -> None:
    """The smallest unit of each kind, on the family that Yosys is faster with."""
    sample = min((sample for sample in SAMPLES if sample.kind == kind),
                 key=lambda sample: sample.cells["ecp5"]["lut"])
    assert synthesized(sample, "ecp5", tmp_path) == sample.cells["ecp5"]


def test_the_set_is_written_as_it_is_read(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("n2uq_hw.cost.samples.STORE", tmp_path / "units.json")
    save_samples(VERSION, SAMPLES)
    assert (tmp_path / "units.json").read_text() == STORE.read_text()
    assert [vars(sample) for sample in load_samples()[1]] == [vars(s) for s in SAMPLES]


# Cells that Yosys 0.70 makes of single memories: words, bits, block RAMs, LUTs that are memory.
@pytest.mark.parametrize("family, block, depth, width, cells", [
    ("xcup", True, 64, 36, (0, 48)), ("xcup", True, 128, 36, (1, 0)),
    ("xcup", True, 256, 8, (0, 64)), ("xcup", True, 512, 8, (1, 0)),
    ("xcup", True, 1024, 72, (4, 0)), ("xcup", True, 4096, 16, (4, 0)),
    ("xcup", False, 512, 16, (0, 192)), ("xcup", False, 33, 8, (0, 16)),
    ("ecp5", True, 33, 16, (0, 72)), ("ecp5", True, 64, 36, (1, 0)),
    ("ecp5", True, 1000, 72, (4, 0)), ("ecp5", True, 256, 2, (0, 96)),
    ("ecp5", False, 1024, 8, (0, 768))])
def test_memories_that_are_written(family, block, depth, width, cells) -> None:
    memory = ram(depth, width, family, block=block)
    assert (memory.bram, memory.lutram) == cells


@pytest.mark.parametrize("family,depth,width,blocks", [
    ("xcup", 1024, 8, 0), ("xcup", 2048, 8, 1), ("xcup", 128, 288, 0), ("xcup", 256, 288, 8),
    ("xcup", 1000, 72, 4), ("ecp5", 1024, 2, 0), ("ecp5", 2048, 2, 1), ("ecp5", 33, 144, 0),
    ("ecp5", 64, 144, 4), ("ecp5", 1000, 36, 2), ("xcup", 9216, 2, 1), ("xcup", 4608, 36, 9),
    ("xcup", 2304, 18, 3), ("ecp5", 4608, 3, 1), ("ecp5", 4608, 36, 9), ("ecp5", 5000, 4, 2)])
def test_memories_that_are_only_read(family, depth, width, blocks) -> None:
    memory = rom(depth, width, family)
    assert memory.bram == blocks
    assert (memory.table + memory.deep == 0) == (blocks > 0)


# Cells that Yosys 0.70 makes on xcup of single units whose tables are written: LUTs, flip-flops,
# block RAMs, LUTs that are memory.
WRITTEN: list[tuple[str, dict[str, Any], tuple[int, int, int, int]]] = [
    ("Threshold", {"channels": 64, "steps": 3, "acc_bits": 12, "pe": 4, "style": "parallel"},
     (136, 252, 0, 128)),
    ("Threshold", {"channels": 64, "steps": 3, "acc_bits": 12, "pe": 4, "style": "search"},
     (96, 238, 0, 160)),
    ("Threshold", {"channels": 256, "steps": 7, "acc_bits": 14, "pe": 1, "style": "search"},
     (39, 93, 5, 0)),
    ("Threshold", {"channels": 512, "steps": 15, "acc_bits": 16, "pe": 2, "style": "parallel"},
     (442, 90, 17, 0)),
    ("Scale", {"channels": 64, "acc_bits": 12, "factor_bits": 10, "shift": 8, "pe": 2},
     (638, 313, 0, 80)),
    ("PiecewiseLinear", {"channels": 64, "acc_bits": 16, "factor_bits": 12, "shift": 11, "pe": 2,
                         "prelu": True}, (960, 551, 0, 184)),
    ("PiecewiseLinear", {"channels": 32, "acc_bits": 16, "factor_bits": 12, "shift": 11, "pe": 1,
                         "prelu": False}, (494, 318, 0, 112)),
    ("MatVec", {"outputs": 64, "inputs": 144, "weight_bits": 2, "act_bits": 2, "pe": 8, "simd": 16,
                "form": "direct"}, (1057, 1083, 8, 16)),
    ("MatVec", {"outputs": 64, "inputs": 576, "weight_bits": 2, "act_bits": 2, "pe": 4, "simd": 32,
                "form": "direct", "memory": "block"}, (1090, 1122, 16, 32))]


def written_cost(kind: str, params: dict[str, Any], family: str) -> Cost:
    node, (read,), _, fold = Sample(kind, params).make()
    graph = writable(Graph("g", (Input("x", shape=read.shape, lo=int(read.lo.min()),
                                       hi=int(read.hi.max())), node)).verify(), "all")
    node = graph.nodes[-1]
    return estimate(node, graph.reads(node), graph.edges[node.name], fold, family)


@pytest.mark.parametrize("kind,params,cells", WRITTEN)
def test_units_whose_tables_are_written(kind, params, cells) -> None:
    """Memories are those that Yosys makes, what is around them within an eighth."""
    cost, (lut, ff, *memories) = written_cost(kind, params, "xcup"), cells
    assert [cost.bram, cost.lutram] == memories
    assert cost.lut == pytest.approx(lut, rel=0.14) and cost.ff == pytest.approx(ff, rel=0.04)


@pytest.mark.parametrize("at,lut,bram,lutram", [
    (0, 405, 0, 504), (4, 975, 1, 168), (5, 1564, 3, 288)])
def test_some_of_them_on_ecp5(at, lut, bram, lutram) -> None:
    kind, params, _ = WRITTEN[at]
    cost = written_cost(kind, params, "ecp5")
    assert (cost.bram, cost.lutram) == (bram, lutram) and cost.lut == pytest.approx(lut, rel=0.15)


# LUTs and flip-flops that Yosys 0.70 makes on xcup of a Scale of 32 channels, one lane, with two
# multipliers: bits in which they agree are in no table, those that are 0 in both add nothing.
@pytest.mark.parametrize("low,high,lut,ff", [
    (65792, 65793, 51, 78), (33024, 33028, 60, 75), (32801, 33825, 89, 75), (700, 701, 122, 57)])
def test_multipliers_that_share_bits(low, high, lut, ff) -> None:
    which = np.arange(32) ** 2 % 7 > 2
    graph = Graph("g", (Input("x", shape=(1, 1, 32), lo=-512, hi=511), Scale(
        "y", ("x",), multiplier=np.where(which, high, low), offset=np.array([0]), shift=12,
        clip=()))).verify()
    node = graph.nodes[-1]
    cost = estimate(node, graph.reads(node), graph.edges["y"], Fold(), "xcup")
    assert cost.lut == pytest.approx(lut, rel=0.32) and cost.ff == pytest.approx(ff, rel=0.03)


def test_small_memories() -> None:
    """By hand: 2 words of n bits are the 4 functions of one bit, and two of them constants."""
    assert rom(2, 1000, "xcup") == Memory(copy=pytest.approx(2))
    assert ram(1, 24, "ecp5", block=False) == Memory(copy=24)


# LUTs that Yosys 0.70 makes of single comparisons ``x >= t``: bits of x, t, on xcup, on ecp5.
@pytest.mark.parametrize("bits,t,xcup,ecp5", [
    (4, 3, 1, 1), (6, -13, 1, 5), (7, 20, 1, 5), (8, 77, 3, 7), (8, 76, 1, 5), (10, -301, 3, 9),
    (12, -256, 1, 1), (12, 1001, 4, 11), (14, 4097, 5, 13), (16, -9999, 6, 15),
    (20, 123457, 8, 19)])
def test_comparators_with_constants(bits, t, xcup, ecp5) -> None:
    graph = Graph("g", (
        Input("x", shape=(1, 1, 8), lo=-2**(bits - 1), hi=2**(bits - 1) - 1),
        Threshold("y", ("x",), thresholds=np.array([[t]]), signs=np.ones((1, 1), np.int8),
                  base=np.zeros(1, np.int64))))
    for family, luts in (("xcup", xcup), ("ecp5", ecp5)):
        sides = graph["y"], graph.reads(graph["y"]), graph.edges["y"]
        counted = parts(*sides, ThresholdFold(3), family)
        assert abs(counted.lut["compare"] / 3 - luts) <= 1, family


@pytest.mark.parametrize("bits,xcup,ecp5", [
    (1, 0, 0), (3, 2, 2), (6, 4, 7), (7, 4, 7), (10, 11, 14), (15, 17, 21), (31, 43, 49),
    (63, 90, 109)])
def test_counters_of_ones(bits, xcup, ecp5) -> None:
    """Measured as well, of single counters."""
    for family, luts in (("xcup", xcup), ("ecp5", ecp5)):
        assert parts_threshold._ones(bits, family) == pytest.approx(luts, rel=0.12, abs=0.5)


@pytest.mark.parametrize("value,bits,xcup,ecp5", [
    (83, 12, 56, 86), (97, 12, 36, 64), (6092, 12, 130, 202), (2527, 16, 200, 291),
    (21, 20, 62, 82), (15727, 6, 32, 96), (-8, 8, 0, 18), (-425, 16, 156, 232)])
def test_products_with_constants(value, bits, xcup, ecp5) -> None:
    """Measured: single ones are up to a third off."""
    for family, luts in (("xcup", xcup), ("ecp5", ecp5)):
        assert parts_lines._multiplied(value, bits, family) == pytest.approx(luts, rel=0.33)
    assert parts_lines._multiplied(64, bits, "ecp5") == 0
    assert parts_lines._multiplied(0, bits, "xcup") == 0


def test_adders_by_hand() -> None:
    """Full and half adders, and bits of the last addition."""
    assert parts_lines._adders([[2, 3, 4], [5, 6, 7], [8, 9, 10]]) == (3, 0, 2)
    assert parts_lines._adders([[2, 3, 4], [0, 2, 3], [0, 0, 2]]) == (1, 1, 1)
    assert parts_lines._adders([[2, 2], [3, 3], [4, 4]]) == (1, 0, 1)  # what is made twice is one
    assert parts_lines._adders([[2], [2], [3]]) == (0, 0, 0)           # twice a bit is the next one
    assert parts_lines._adders([[2], [2], [3], [4], [5]]) == (0, 2, 0)  # and the third goes on
    assert parts_lines._adders([[2], [-2], [1]]) == (0, 0, 0)          # x + ~x + 1
    assert parts_lines._adders([[2, 3], [4, 5]]) == (0, 0, 2)


def matvec(pe: int, simd: int, form: str = "planes", bits: int = 2) -> tuple:
    weights = 2 * np.random.default_rng(0).integers(0, 2**bits, (64, 576)) - 2**bits + 1
    graph = Graph("g", (Input("x", shape=(1, 1, 576), hi=3), MatVec("y", ("x",), weights)))
    return graph["y"], graph.reads(graph["y"]), graph.edges["y"], MatVecFold(pe, simd, form)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("form", FORMS)
def test_more_lanes_cost_more(form: str, family: str) -> None:
    luts = [estimate(*matvec(pe, simd, form), family).lut
            for pe, simd in ((1, 1), (2, 8), (8, 16), (8, 64), (32, 64))]
    assert luts == sorted(luts) and luts[-1] > 50 * luts[0]


def test_an_add_by_hand() -> None:
    """8 lanes of 16 and 8 bits: on xcup a LUT for each of 16 bits, 17 registers, 4 for control."""
    def edge(bits: int) -> Edge:
        return Edge((1, 1, 8), np.full(8, -2**(bits - 1)), np.full(8, 2**(bits - 1) - 1))

    cost = estimate(Add("y"), (edge(16), edge(8)), edge(17), Fold(8), "xcup")
    assert [round(n) for n in cost] == [8 * 16 + 4, 8 * 17 + 1, 0, 0]


def test_faults() -> None:
    with pytest.raises(N2uqError, match=r"^family: estimates are for xcup, ecp5, not vax$"):
        estimate(*matvec(1, 1), "vax")
    with pytest.raises(N2uqError, match=r"^samples: kind must be one of Pad, .*, not Odd$"):
        Sample("Odd", {}).make()
    assert estimate(Input("x"), (), matvec(1, 1)[1][0], Fold(), "xcup") == Cost()
    assert parts(*matvec(2, 4), "xcup").key == "MatVec planes"


@pytest.mark.parametrize("family", FAMILIES)
def test_unrolled_layers(family: str, tmp_path: Path) -> None:
    """Chains are counted, not fitted; flip-flops to within those that Yosys finds alike."""
    rng = np.random.default_rng(0)
    steps = Threshold("q", thresholds=np.sort(rng.integers(-30, 30, (6, 3)), axis=1),
                      signs=np.ones((6, 3), np.int8), base=np.zeros(1, np.int64))
    node = Unrolled("fc", weights=2 * rng.integers(0, 4, (6, 24)) - 3, threshold=steps)
    edge = Edge((1, 1, 24), np.zeros(24, np.int64), np.full(24, 3))
    sides = node, (edge,), infer(node, edge), UnrolledFold(
        6, 24, levels=2, lut={"xcup": 6, "ecp5": 4}[family])
    library = Library()
    library.signature("fc", lambda: unit(*sides))
    for name, text in library_verilog(library, "fc").items():
        (tmp_path / name).write_text(text)
    total = synth.synthesize([tmp_path / "fc.v"], "fc", family, dsp=False, work=tmp_path).total
    guess = estimate(*sides, family)
    assert guess.lut == pytest.approx(total.lut, rel=0.15)
    assert guess.ff == pytest.approx(total.ff, rel=0.1)


def test_new_weights_leave_the_other_numbers(tmp_path: Path) -> None:
    """And no number that stands in the file is without a use, or the other way round."""
    stored = json.loads(fitted.FITTED.read_text())
    weights = {family: of["weights"] for family, of in stored.items()}
    path = tmp_path / "fitted.json"
    fitted.save_weights(weights, path)
    assert path.read_bytes() == fitted.FITTED.read_bytes()
    weights["ecp5"] = {"Add": {"lut": {"unit": 7.0}, "ff": {}}}
    fitted.save_weights(weights, path)
    assert json.loads(path.read_text()) == {
        "xcup": stored["xcup"], "ecp5": {**stored["ecp5"], "weights": weights["ecp5"]}}
    for family in FAMILIES:
        assert fitted.numbers(family)._asdict().keys() == stored[family]["numbers"].keys()
