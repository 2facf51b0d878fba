# amaranth: UnusedElaboratable=no
"""Compressor trees: what they leave, PEs in simulation under stalls, and their chains as cells."""

from __future__ import annotations

import json
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from amaranth.hdl import Module, Shape, Signal
from marks import few
from units import Bench, Case, bench_of, bit_exact, stream_rules

from n2uq_hw import tools
from n2uq_hw.hw.compressor import BELOW, compressor_tree, product_columns
from n2uq_hw.hw.compressor_mac import (
    CHAIN,
    PRIMITIVES,
    CompressorMac,
    compressor_latency,
    compressor_offset,
)
from n2uq_hw.hw.library import instantiate
from n2uq_hw.hw.stream import Unit, beats, shape_for, wraps


class DotUnit(Unit):
    """Sums of products over `length` beats; an element is a weight code below an activation."""

    def __init__(self, *, simd: int, bits: int, activation: Shape, length: int, start: int,
                 acc: Shape) -> None:
        self.options = {"simd": simd, "code_bits": bits, "activation": activation, "start": start,
                        "acc": acc}
        self.length = length
        self.latency = compressor_latency(simd, bits, activation.width)
        super().__init__(beats(Shape(bits + activation.width), simd), beats(acc, 1))

    def elaborate(self, platform):
        m, bits = Module(), self.options["code_bits"]
        name = "_".join(f"{key}{int(value) if isinstance(value, int) else repr(value)}"
                        for key, value in self.options.items())
        name = "pe_" + "".join(c if c.isalnum() else "_" for c in name)
        mac = instantiate(m, partial(CompressorMac, **self.options), "mac", name, platform)
        enable, beat = Signal(), Signal(range(self.length))
        last = wraps(m, beat, self.length, enable & self.i.valid)
        m.d.comb += [enable.eq(~self.o.valid | self.o.ready), self.i.ready.eq(enable),
                     mac.enable.eq(enable), self.o.payload[0].eq(mac.acc)]
        for lane in range(self.options["simd"]):
            m.d.comb += [mac.codes[lane].eq(self.i.payload[lane]),
                         mac.a[lane].eq(self.i.payload[lane] >> bits)]
        stage = [self.i.valid, beat == 0, last]
        for _ in range(self.latency - 1):
            registers = [Signal() for _ in stage]
            with m.If(enable):
                m.d.sync += [r.eq(s) for r, s in zip(registers, stage, strict=True)]
            stage = registers
        m.d.comb += [mac.valid.eq(stage[0]), mac.first.eq(stage[1])]
        with m.If(enable):
            m.d.sync += self.o.valid.eq(stage[0] & stage[2])
        return m


def dot(simd: int, bits: int, activation: Shape, length: int, start: int) -> Case:
    """Random codes and activations; the first sums are the extremes of what both can be."""
    rng = np.random.default_rng([simd, bits, activation.width])
    lo = -2**(activation.width - 1) if activation.signed else 0
    hi, most = lo + 2**activation.width - 1, 2**bits - 1
    codes = rng.integers(0, most + 1, (40, length * simd))
    a = rng.integers(lo, hi + 1, codes.shape)
    for sums, (code, value) in enumerate([(0, lo), (0, hi), (most, lo), (most, hi)]):
        codes[sums], a[sums] = code, value
    weights = 2 * codes - most
    sums = (weights * a).sum(axis=1) + compressor_offset(weights, bits, activation) + start
    end = length * simd * most * (hi - lo)
    unit = DotUnit(simd=simd, bits=bits, activation=activation, length=length, start=start,
                   acc=shape_for(min(start, 0), end + start))
    return Case(f"dot{simd}_w{bits}_a{activation.width}{'s' * activation.signed}", unit,
                codes | (a & 2**activation.width - 1) << bits, sums)


def cases() -> list[Case]:
    return [dot(simd, bits, Shape(width, signed), length, start)
            for simd, bits, width, signed, length, start in [
                (1, 1, 1, False, 1, 0), (1, 2, 2, False, 3, 5), (2, 1, 3, True, 2, -7),
                (4, 2, 2, True, 2, 0), (3, 3, 4, False, 1, -100), (16, 2, 2, False, 2, 0)]]


bench = bench_of(cases)
test_bit_exact, test_stream_rules = bit_exact, stream_rules


def test_latency(bench: Bench) -> None:
    for name, (accepted, emitted) in bench.timing.items():
        unit = bench.cases[name].unit
        assert np.array_equal(accepted, np.arange(len(accepted))), name
        assert np.array_equal(
            emitted, accepted[unit.length - 1::unit.length] + unit.latency), name


@pytest.mark.parametrize("simd,code_bits,activation_bits", few(
    [(1, 1, 1), (1, 2, 2), (2, 4, 1), (16, 2, 2), (9, 3, 2), (36, 2, 2), (64, 1, 1), (5, 8, 8),
     (64, 4, 4)], lambda sizes: sizes[0] * sizes[1] * sizes[2] < 150))
def test_tree_adds_up_all(simd: int, code_bits: int, activation_bits: int) -> None:
    """Each gate once, each bit once and not before the level behind its own, two rows at last."""
    columns, top = product_columns(simd, code_bits, activation_bits)
    assert sum(n << c for c, n in enumerate(columns)) == (
        simd * (2**code_bits - 1) * (2**activation_bits - 1)) < 2**top
    tree = compressor_tree(columns, top)
    gates, plain, new, level = Counter(dict(enumerate(columns))), Counter(), Counter(), 1
    for chain in tree.chains:
        assert chain.level >= level
        if chain.level > level:
            plain, new, level = plain + new, Counter(), chain.level
        for column, gate, bits in chain.takes():
            gates[column] -= gate
            plain[column] -= bits
            assert gates[column] >= 0 <= plain[column]
        new.update(column for _, _, column in chain.gives())
        for i, cell in enumerate(chain.cells):
            assert 2 * cell.gates + cell.bits + (cell.more == BELOW) <= 5
            assert cell.more != BELOW or (i and chain.cells[i - 1].wide)
    rest = plain + new
    assert not any(gates.values()) and level == tree.levels
    assert [rest[c] for c in range(top)] == [*tree.rest]
    assert all(n <= 2 + (c == 0) for c, n in enumerate(tree.rest))
    # Two thirds of a LUT for a product, by count of bits, and what ends chains.
    assert tree.luts <= simd * code_bits * activation_bits * (0.8 if simd > 5 else 1)


@pytest.mark.parametrize("lanes,bits", few(
    [(16, 2), (36, 2), (16, 3), (64, 3)], lambda at: at == (16, 2)))
def test_cells_are_counted_without_yosys(lanes: int, bits: int) -> None:
    kept = json.loads((Path(__file__).parents[2] / "docs/results/compressor.json").read_text())
    (row,) = [r for r in kept["rows"] if (r["lanes"], r["bits"]) == (lanes, bits)]
    acc = Shape(product_columns(lanes, bits, bits)[1] + 3)
    luts, registers = CompressorMac(
        simd=lanes, code_bits=bits, activation=Shape(bits), acc=acc).cells
    assert 0 <= row["luts"] - luts <= 2 and abs(row["ff"] - registers) <= 4


PROOF = """
read_verilog {plain}
rename unit gold
hierarchy -top gold
proc
flatten
design -stash gold
read_verilog -D {macro} {plain}
read_verilog {cells}
rename unit gate
hierarchy -top gate
proc
flatten
design -stash gate
design -copy-from gold -as gold gold
design -copy-from gate -as gate gate
miter -equiv -flatten -make_outputs gold gate miter
hierarchy -top miter
sat -verify -prove trigger 0 -show-inputs miter
"""
# Five positions of every kind of cell, as masks: ONE, TWO, THREE, WIDE, OWN.
CHAINS = [(0x99999, 0x99999, 0, 0, 0), (0x96969, 0xaaaaa, 0b11110, 0b11110, 0b11100),
          (0xaaaaa, 0x00000, 0b10101, 0b11111, 0b00110),
          (0x2e2e2, 0xa0a0a, 0b01011, 0b11011, 0b10010)]


@pytest.mark.parametrize("masks", CHAINS)
def test_cells_do_what_operators_do(masks: tuple[int, ...], tmp_path: Path) -> None:
    one, two, three, wide, own = masks
    top = (f"module unit(input [4:0] g, k, b, n, q, input ci, output [4:0] s, m, output co);\n"
           f"chain #(.W(5), .ONE(20'h{one:x}), .TWO(20'h{two:x}), .THREE(5'h{three:x}), "
           f".WIDE(5'h{wide:x}), .OWN(5'h{own:x})) it(g, k, b, n, q, ci, s, m, co);\nendmodule\n")
    (tmp_path / "unit.v").write_text(
        CHAIN.replace("@NAME@", "chain").replace("@MACRO@", PRIMITIVES) + top)
    cells = tools.yosys_share() / "xilinx" / "cells_sim.v"
    (tmp_path / "cells.v").write_text(cells.read_text(encoding="utf-8"))
    tools.run_yosys(PROOF.format(plain="unit.v", cells="cells.v", macro=PRIMITIVES), tmp_path)
