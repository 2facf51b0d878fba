# amaranth: UnusedElaboratable=no
"""MatVecUnit against the golden model at every accumulator's extremes; its tables and timing."""

from __future__ import annotations

import numpy as np
import pytest
from units import (
    Bench,
    Case,
    bench_of,
    bit_exact,
    case,
    edge_of,
    images_on,
    stream_rules,
)

from n2uq_hw.builds.emit import library_verilog
from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.library import Library
from n2uq_hw.hw.mac import mac_latency, products_offset
from n2uq_hw.hw.matvec import MatVecUnit, accumulator_range, weight_codes_of
from n2uq_hw.hw.stream import element
from n2uq_hw.ir import Edge, MatVec, OffsetMatVec, infer, weight_bits
from n2uq_hw.ir.folding import FORMS, HEAP, PAIRED


def odd(bits: int, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """N2UQ weights of so many bits, the extreme ones among them."""
    weights = 2 * rng.integers(0, 2**bits, shape) - (2**bits - 1)
    weights.flat[0], weights.flat[-1] = 2**bits - 1, 1 - 2**bits
    return weights


def extremes(weights: np.ndarray, edge: Edge, simd: int) -> np.ndarray:
    """Vectors [n, K] that drive every output's accumulator to both ends after each of its beats."""
    beat = np.arange(weights.shape[1]) // simd
    rows = []
    for w in weights:
        up, down = np.where(w > 0, edge.hi, edge.lo), np.where(w > 0, edge.lo, edge.hi)
        for end in range(beat[-1] + 1):
            rows += [np.where(beat <= end, up, down), np.where(beat <= end, down, up)]
    return np.unique(rows, axis=0)


def matvec(name: str, weights: np.ndarray, pe: int, simd: int, form: str,
           lo: int | np.ndarray = 0, hi: int | np.ndarray = 3, groups: int = 1) -> Case:
    node = MatVec(name, weights=weights, groups=groups)
    of_group = edge_of((1, 2, weights.shape[1]), lo, hi)
    rows = np.tile(extremes(weights.astype(np.int64), of_group, simd), groups)
    edge = edge_of((1, 2, groups * weights.shape[1]), *(
        np.tile(end, groups) for end in (of_group.lo, of_group.hi)))
    rows = np.concatenate([rows, images_on(edge, 5, len(rows)).reshape(10, -1), rows[::-1]])
    return case(node, edge, lambda out: MatVecUnit(node, edge, out, pe=pe, simd=simd, form=form),
                rows.reshape(-1, *edge.shape))


def centered(form: str, bits: int, pe: int, simd: int, lo: int, hi: int) -> Case:
    """Products whose offset is in the sum: what they add by themselves, and a constant."""
    rng = np.random.default_rng(bits)
    weights, edge = odd(bits, (4, 15), rng), edge_of((1, 2, 15), lo, hi)
    offset = products_offset(weights, element(edge), simd, form)
    plain = MatVec("plain", weights=weights)
    offset -= (infer(plain, edge).lo + offset).min()
    node = OffsetMatVec(f"{form}{bits}_pe{pe}_simd{simd}", weights=weights, offset=offset)
    rows = extremes(weights, edge, simd)
    rows = np.concatenate([rows, images_on(edge, 5, len(rows)).reshape(10, -1), rows[::-1]])
    return case(node, edge, lambda out: MatVecUnit(node, edge, out, pe=pe, simd=simd,
                                                   form=form), rows.reshape(-1, *edge.shape))


def cases() -> list[Case]:
    rng = np.random.default_rng(0)
    units = []
    # N2UQ weights of 1 to 8 bits: every fold, every form.
    ranges = [(0, 3), (0, 1), (-4, 3), (-1, 0), (0, 255), (-128, 127), (-3, 9), (2, 5)]
    folds = [(1, 1), (1, 2), (1, 6), (2, 1), (2, 3), (2, 6), (4, 1), (4, 2), (4, 6)]
    for n, (pe, simd) in enumerate(folds):
        bits, form, (lo, hi) = 1 + n % 8, FORMS[(n + n // 3) % len(FORMS)], ranges[n % 8]
        units.append(matvec(f"odd{bits}_pe{pe}_simd{simd}_{form}", odd(bits, (4, 6), rng), pe,
                            simd, form, lo, hi))
    # The same code bits, with other steps and ends: each wants PEs of its own.
    others = {
        "zero": np.zeros((4, 4)), "even": 2 * rng.integers(-2, 3, (4, 4)),
        "ternary": rng.integers(-1, 2, (4, 4)), "ones": np.ones((4, 4)),
        "positive": rng.integers(0, 4, (4, 4)), "negative": rng.integers(-4, 0, (4, 4)),
        "odd2": odd(2, (4, 4), rng), "shifted": rng.integers(-1, 3, (4, 4)),
        "far": rng.integers(100, 104, (4, 4)), "int8": rng.integers(-128, 128, (4, 4))}
    for n, (kind, weights) in enumerate(others.items()):
        units.append(matvec(kind, weights.astype(np.int64), 1, 2, "planes"))
        form = FORMS[1 + n % (len(FORMS) - 1)]
        units.append(matvec(f"{kind}_{form}", weights.astype(np.int64), 2, 2, form))
    # Each channel its own range; ranges of one width and not one size.
    lo, hi = rng.integers(-9, 3, 6), rng.integers(3, 9, 6)
    units += [matvec(f"channels_{form}", odd(3, (4, 6), rng), 2, 3, form, lo, hi)
              for form in FORMS]
    units += [matvec(f"upto{hi}", odd(2, (4, 6), rng), 2, 1, "planes", 0, hi) for hi in (2, 3)]
    # Only the whole sum is positive: what is partial has another sign and a wider range.
    units += [matvec("cancel", np.array([[-3, 3, 3]]), 1, 1, "product", 3, 5),
              matvec("one", np.array([[-3]]), 1, 1, "planes"),
              matvec("int8_array", odd(4, (2, 17), rng).astype(np.int8), 1, 17, "product")]
    units += [centered(PAIRED, 1 + n, pe, simd, *ends) for n, (pe, simd, ends) in enumerate(zip(
        (1, 2, 4, 1, 2, 4, 1, 2), (3, 5, 15, 1, 3, 5, 15, 5), ranges, strict=True))]
    units += [centered(HEAP, *case) for case in (
        (1, 1, 1, 0, 1), (2, 2, 3, 0, 3), (2, 4, 15, -2, 1), (3, 2, 5, -3, 9), (4, 1, 5, 0, 15))]
    units += [matvec(f"pairs{pe}_{simd}", odd(2, (4, 12), rng), pe, simd, "pairs")
              for pe, simd in ((2, 12), (1, 4), (4, 3))]
    units += [matvec(f"groups{groups}_pe{pe}_simd{simd}_{form}", odd(2, (outputs, inputs), rng),
                     pe, simd, form, *ends, groups=groups)
              for groups, outputs, inputs, pe, simd, form, ends in (
                  (2, 4, 6, 1, 2, "planes", (0, 3)), (2, 4, 6, 2, 6, "direct", (0, 3)),
                  (3, 3, 4, 1, 4, "product", (-4, 3)), (4, 8, 1, 1, 1, "pairs", (0, 3)),
                  (6, 6, 2, 1, 1, "planes", (-1, 0)), (2, 6, 4, 1, 2, "pairs", (0, 1)))]
    for seed in range(8):
        rng = np.random.default_rng(seed)
        outputs, inputs = (int(v) for v in rng.integers(1, 9, 2))
        pe, simd = (int(rng.choice([d for d in range(1, n + 1) if n % d == 0]))
                    for n in (outputs, inputs))
        lo = int(rng.integers(-20, 2))
        units.append(matvec(f"random{seed}", rng.integers(-9, 10, (outputs, inputs)), pe, simd,
                            FORMS[seed % len(FORMS)], lo, lo + int(rng.integers(1, 40))))
    return units


bench = bench_of(cases)
test_bit_exact, test_stream_rules = bit_exact, stream_rules


def test_timing(bench: Bench) -> None:
    for name, (accepted, emitted) in bench.timing.items():
        unit = bench.cases[name].unit
        vector = np.arange(len(accepted)) // unit.beats
        beat = np.arange(len(accepted)) % unit.beats
        assert np.array_equal(accepted, vector * unit.folds * unit.beats + beat), name
        last = np.arange(1, len(emitted) + 1) * unit.beats - 1
        assert np.array_equal(emitted, last + 2 + mac_latency(
            unit.simd, weight_bits(unit.node.weights), unit.edge.width, unit.form)), name


def test_accumulators_reach_their_range(bench: Bench) -> None:
    for c in bench.cases.values():
        node, x = c.unit.node, c.images.reshape(-1, c.images.shape[-1])
        w = node.weights.astype(np.int64)
        met = x.reshape(len(x), node.groups, -1).repeat(len(w) // node.groups, axis=1)
        products = (met * w).reshape(len(x), len(w), -1, c.unit.simd)
        sums = products.sum(axis=3).cumsum(axis=2)
        ends = accumulator_range(w, c.unit.edge, c.unit.simd, node.groups)
        assert ends == (sums.min(), sums.max()), c.name


@pytest.mark.parametrize("bits", range(1, 9))
def test_codes_of_odd_weights(bits: int) -> None:
    weights = np.arange(1 - 2**bits, 2**bits, 2, dtype=np.int16)[:, None]
    codes, width, step, least = weight_codes_of(weights)
    assert (width, step, least) == (bits, 2, 1 - 2**bits)
    assert codes.dtype == np.uint32 and codes[:, 0].tolist() == list(range(2**bits))


@pytest.mark.parametrize("weights,bits,step,least", [
    ([0, 0], 1, 1, 0), ([5, 5], 3, 2, -7), ([4, 4], 1, 1, 4), ([-1, 1], 1, 2, -1),
    ([-1, 0, 1], 2, 1, -1), ([-128, 127], 8, 1, -128), ([3, -1], 2, 2, -3), ([-6, 2], 4, 1, -6)])
def test_codes_of_weights(weights: list[int], bits: int, step: int, least: int) -> None:
    codes, *rest = weight_codes_of(np.array([weights], np.int8))
    assert rest == [bits, step, least]
    assert (step * codes.astype(np.int64) + least).tolist() == [weights]
    assert codes.max() < 2**bits


@pytest.mark.parametrize("pe,simd,message", [
    (12, 1, r"^conv1: PE must divide the 64 output channels, not 12$"),
    (0, 1, r"^conv1: PE must divide the 64 output channels, not 0$"),
    (64, 5, r"^conv1: SIMD must divide the 27 inputs, not 5$")])
def test_bad_folding(pe: int, simd: int, message: str) -> None:
    node, edge = MatVec("conv1", weights=np.ones((64, 27), np.int8)), edge_of((1, 1, 27), 0, 1)
    with pytest.raises(N2uqError, match=message):
        MatVecUnit(node, edge, infer(node, edge), pe=pe, simd=simd)


def test_unknown_form() -> None:
    node, edge = MatVec("conv1", weights=np.ones((4, 9), np.int8)), edge_of((1, 1, 9), 0, 1)
    message = "^conv1: product form must be one of planes, product, direct, pairs, heap, not fast$"
    with pytest.raises(N2uqError, match=message):
        MatVecUnit(node, edge, infer(node, edge), pe=1, simd=1, form="fast")


@pytest.mark.parametrize("pe,simd", [(1, 576), (16, 36), (64, 64)])
def test_verilog_of_a_wide_unit_is_short(pe: int, simd: int) -> None:
    """A few hundred characters for each lane and each PE, not for each of their products."""
    rng, edge = np.random.default_rng(0), edge_of((1, 1, 576), 0, 3)
    node = MatVec("wide", weights=2 * rng.integers(0, 4, (64, 576)) - 3)
    library = Library()
    library.signature("wide", lambda: MatVecUnit(node, edge, infer(node, edge), pe=pe, simd=simd))
    files = library_verilog(library, "wide")
    assert len(files["wide.v"]) < 600 * pe + 500 * simd + 15_000
    assert len(files["wide.weights.hex"]) < 64 * 576 * 2 / 4 * 1.1
