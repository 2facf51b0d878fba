# amaranth: UnusedElaboratable=no
"""UnrolledUnit, with thresholds and without, against the golden model at every output's ends."""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
from units import Bench, Case, bench_of, bit_exact, edge_of, images_on, stream_rules

from n2uq_hw.builds.emit import library_verilog
from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.library import Library
from n2uq_hw.hw.unrolled import UnrolledUnit
from n2uq_hw.ir import Edge, MatVec, Threshold, Unrolled, golden, infer
from n2uq_hw.tools import run_yosys


def odd(bits: int, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    return 2 * rng.integers(0, 2**bits, shape) - (2**bits - 1)


def layer(name: str, weights: np.ndarray, edge: Edge, steps: Threshold | None, lut: int,
          levels: int) -> Case:
    node = Unrolled(name, weights=weights, threshold=steps)
    unit = UnrolledUnit(node, edge, infer(node, edge), levels=levels, lut=lut)
    ends = [np.where(w * sign > 0, edge.hi, edge.lo) for w in weights for sign in (1, -1)]
    images = np.concatenate([np.reshape(ends, (-1, *edge.shape)), images_on(edge, 40, len(name))])
    alone = MatVec(name, weights=weights)
    expected = golden.evaluate(alone, (edge,), images)
    if steps is not None:
        expected = golden.evaluate(steps, (infer(alone, edge),), expected)
    assert np.array_equal(golden.evaluate(node, (edge,), images), expected)
    return Case(name, unit, images, expected)


def steps_of(weights: np.ndarray, edge: Edge, rng: np.random.Generator, kind: str) -> Threshold:
    """Step functions within and beyond the sums' ranges."""
    sums = infer(MatVec("w", weights=weights), edge)
    n = len(weights)
    size = {"up": 3, "down": 3, "mixed": 6, "one": 1, "none": 0, "shared": 3}[kind]
    t = np.sort(rng.integers(sums.lo[:, None] - 3, sums.hi[:, None] + 4, (n, size)), axis=1)
    signs = {"up": np.ones((n, size)), "down": -np.ones((n, size)),
             "mixed": rng.integers(-1, 2, (n, size))}.get(kind, np.ones((n, size)))
    base = {"down": np.full(n, 3), "mixed": rng.integers(-4, 5, n),
            "shared": np.zeros(1)}.get(kind, np.zeros(n))
    rows = slice(1) if kind == "shared" else slice(None)
    return Threshold(f"t_{kind}", thresholds=t[rows], signs=signs[rows].astype(np.int8),
                     base=base.astype(np.int64))


def cases() -> list[Case]:
    rng = np.random.default_rng(0)
    units = []
    for n, kind in enumerate(("up", "down", "mixed", "one", "none", "shared", "raw")):
        for lut in (4, 6):
            weights = odd(2, (5, 17), rng)
            edge = edge_of((1, 1, 17), 0, 3)
            steps = None if kind == "raw" else steps_of(weights, edge, rng, kind)
            units.append(layer(f"{kind}_lut{lut}", weights, edge, steps, lut, 1 + (n + lut) % 3))
    lo, hi = rng.integers(-9, 3, 8), rng.integers(3, 9, 8)
    channels = edge_of((1, 1, 8), lo, hi)
    many = odd(2, (2, 90), rng)
    units += [
        layer("channels", rng.integers(-7, 8, (4, 8)), channels, None, 6, 2),
        layer("zero", np.zeros((2, 8), np.int64), channels, None, 6, 2),
        layer("copy", np.eye(8, dtype=np.int64), channels, None, 4, 1),
        layer("minus", -np.eye(8, dtype=np.int64), channels, None, 6, 1),
        layer("one", np.array([[-3]]), edge_of((1, 1, 1), -4, 3), None, 6, 9),
        layer("many", many, edge_of((1, 1, 90), 0, 3), None, 6, 1),
        layer("many_at_once", many, edge_of((1, 1, 90), 0, 3), None, 4, 99)]
    return units


bench = bench_of(cases)
test_bit_exact, test_stream_rules = bit_exact, stream_rules


def test_timing(bench: Bench) -> None:
    for name, (accepted, emitted) in bench.timing.items():
        unit = bench.cases[name].unit
        chains = unit.graph.depth + (unit.threshold is not None)
        assert np.array_equal(accepted, np.arange(len(accepted))), name
        assert np.array_equal(emitted, accepted + max(1, -(-chains // unit.levels))), name


def test_bad_levels() -> None:
    edge = edge_of((1, 1, 2), 0, 3)
    node = Unrolled("fc", weights=np.ones((1, 2), np.int8))
    with pytest.raises(N2uqError, match=r"^fc: levels must be at least 1, not 0$"):
        UnrolledUnit(node, edge, infer(node, edge), levels=0)


PLAIN = """
module plain(input clk, rst, i__valid, o__ready, input [{inputs}:0] i__payload,
             output i__ready, output reg o__valid, output reg [{outputs}:0] o__payload);
    assign i__ready = !o__valid || o__ready;
    always @(posedge clk)
        if (rst) begin o__valid <= 0; o__payload <= 0; end
        else if (i__ready) begin o__valid <= i__valid; o__payload <= {{{results}}}; end
endmodule
"""


@pytest.mark.parametrize("lut", [4, 6])
@pytest.mark.parametrize("kind", ["up", "raw"])
def test_formally_the_plain_form(kind: str, lut: int, tmp_path: Path) -> None:
    """Yosys proves a layer of one stage equal to products, sums and comparisons as written."""
    rng = np.random.default_rng(7)
    weights, edge = odd(2, (2, 5), rng), edge_of((1, 1, 5), 0, 3)
    steps = None if kind == "raw" else steps_of(weights, edge, rng, kind)
    node = Unrolled("unit", weights=weights, threshold=steps)
    out = infer(node, edge)
    library = Library()
    library.signature("unit", lambda: UnrolledUnit(node, edge, out, levels=99, lut=lut))
    results = []
    for n, row in enumerate(weights):
        total = " + ".join(f"({w}) * $signed({{14'd0, i__payload[{2 * k + 1}:{2 * k}]}})"
                           for k, w in enumerate(row))
        counted = total if steps is None else " + ".join(
            f"32'(({total}) >= $signed({t}))" for t in steps.thresholds[n])
        results.append(f"{out.width}'(16'({counted}))")
    (tmp_path / "plain.v").write_text(library_verilog(library, "unit")["unit.v"] + PLAIN.format(
        inputs=9, outputs=2 * out.width - 1, results=", ".join(results[::-1])))
    run_yosys("\n".join([
        "read_verilog -sv plain.v", "proc", "flatten", "opt_clean",
        "miter -equiv -make_assert -flatten plain unit both",
        "sat -verify -prove-asserts -tempinduct -seq 1 -set-at 1 in_rst 1 both"]), tmp_path)


def test_work_grows_as_outputs_do() -> None:
    """Calls are counted, of the search and of the text; Amaranth would make millions."""
    def calls(outputs: int) -> int:
        edge, counter, library = edge_of((1, 1, 16), 0, 3), count(), Library()
        node = Unrolled("fc", weights=odd(2, (outputs, 16), np.random.default_rng(outputs)))

        def called(frame: FrameType, event: str, arg: object) -> None:
            if event == "call":
                next(counter)
        before = sys.getprofile()
        sys.setprofile(called)
        try:
            library.signature("fc", lambda: UnrolledUnit(node, edge, infer(node, edge)))
            library_verilog(library, "fc")
        finally:
            sys.setprofile(before)
        return next(counter)
    few, many = calls(16), calls(64)
    assert many < 4.5 * few and many < 10**6
