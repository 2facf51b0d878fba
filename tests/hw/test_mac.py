"""MacArray in all forms, with codes and activations from a stream; adder trees and latencies."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.hdl import Cat, Module, Shape, Signal
from units import Bench, Case, bench_of, bit_exact, stream_rules

from n2uq_hw.hw.mac import (
    MacArray,
    adder_tree,
    digits_latency,
    mac_latency,
    mac_name,
    pair_sums,
    tree_latency,
)
from n2uq_hw.hw.stream import Unit, beats, shape_for, wraps
from n2uq_hw.ir.folding import FORMS


def activation_ends(shape: Shape) -> tuple[int, int]:
    """The extremes of a shape."""
    lo = -2**(shape.width - 1) if shape.signed else 0
    return lo, lo + 2**shape.width - 1


class DotUnit(Unit):
    """Sums of products over `length` beats; an element is a weight code below an activation."""

    def __init__(self, *, simd: int, bits: int, activation: Shape, step: int, least: int,
                 form: str, length: int) -> None:
        ends = [w * a for w in (least, least + step * (2**bits - 1))
                for a in activation_ends(activation)]
        self.options = {
            "simd": simd, "code_bits": bits, "activation": activation, "step": step,
            "least": least, "form": form,
            "acc": shape_for(length * simd * min(ends), length * simd * max(ends))}
        self.length = length
        super().__init__(beats(Shape(bits + activation.width), simd),
                         beats(self.options["acc"], 1))

    def elaborate(self, platform):
        m = Module()
        m.submodules.mac = mac = MacArray(**self.options)
        enable, beat = Signal(), Signal(range(self.length))
        last = wraps(m, beat, self.length, enable & self.i.valid)
        m.d.comb += [enable.eq(~self.o.valid | self.o.ready), self.i.ready.eq(enable),
                     mac.enable.eq(enable), self.o.payload[0].eq(mac.acc)]
        late = mac.form == "pairs"  # its sums take a cycle
        a = Signal(beats(mac.activation, mac.simd))
        for lane in range(mac.simd):
            m.d.comb += a[lane].eq(self.i.payload[lane] >> mac.code_bits)
            code = self.i.payload[lane]
            if late:
                held = Signal.like(code)
                with m.If(enable):
                    m.d.sync += held.eq(code)
                code = held
            m.d.comb += mac.codes[lane].eq(code)
        activations = [a[lane] for lane in range(mac.simd)]
        m.d.comb += mac.a.as_value().eq(
            pair_sums(m, enable, activations, centered=False) if late else Cat(activations))
        terms = [mac.a[k] for k in range(mac.a.shape().length)]
        total = adder_tree(m, enable, terms[::3] if late else terms, "total")
        total = total * mac.least
        for _ in range(digits_latency(mac.code_bits, mac.activation.width, mac.form)):
            delayed = Signal.like(total)
            with m.If(enable):
                m.d.sync += delayed.eq(total)
            total = delayed
        m.d.comb += mac.total.eq(total)
        stage = [self.i.valid, beat == 0, last]
        for _ in range(late + mac_latency(mac.simd, mac.code_bits, mac.activation.width,
                                          mac.form) - 1):
            registers = [Signal() for _ in stage]
            with m.If(enable):
                m.d.sync += [r.eq(s) for r, s in zip(registers, stage, strict=True)]
            stage = registers
        m.d.comb += [mac.valid.eq(stage[0]), mac.first.eq(stage[1])]
        with m.If(enable):
            m.d.sync += self.o.valid.eq(stage[0] & stage[2])
        return m


def dot(form: str, simd: int, bits: int, activation: Shape, step: int, least: int, length: int
        ) -> Case:
    """Random codes and activations; the first sums are the extremes of what both can be."""
    name = f"dot_{form}_{step}_{least % 997}_w{bits}"
    rng = np.random.default_rng(sum(map(ord, name)))
    lo, hi = activation_ends(activation)
    codes = rng.integers(0, 2**bits, (30, length * simd))
    a = rng.integers(lo, hi + 1, codes.shape)
    for sums, (code, value) in enumerate([(0, lo), (0, hi), (2**bits - 1, lo), (2**bits - 1, hi)]):
        codes[sums], a[sums] = code, value
    unit = DotUnit(simd=simd, bits=bits, activation=activation, step=step, least=least,
                   form=form, length=length)
    return Case(name, unit, codes | (a & 2**activation.width - 1) << bits,
                ((step * codes + least) * a).sum(axis=1))


def cases() -> list[Case]:
    levels = [(bits, 2, 1 - 2**bits) for bits in range(1, 9)]  # N2UQ
    levels += [(1, 1, 0), (2, 1, -2), (3, 1, -5), (5, 1, 7)]  # others, zero among them or not
    sizes = [(1, 1), (2, 3), (3, 1), (4, 2), (5, 2), (9, 1), (17, 1), (1, 5)]
    units = []
    for shift, form in enumerate(FORMS):
        for n, (bits, step, least) in enumerate(levels):
            simd, length = sizes[(n + 3 * shift) % len(sizes)]
            activation = Shape(1 + (n + shift) % 8, (n + shift) % 3 == 1)
            units.append(dot(form, simd, bits, activation, step, least, length))
    return units


bench = bench_of(cases)
test_bit_exact, test_stream_rules = bit_exact, stream_rules


def test_latency(bench: Bench) -> None:
    for name, (accepted, emitted) in bench.timing.items():
        unit = bench.cases[name].unit
        ends = accepted[unit.length - 1::unit.length]
        assert np.array_equal(accepted, np.arange(len(accepted))), name
        assert np.array_equal(emitted, ends + (unit.options["form"] == "pairs") + mac_latency(
            unit.options["simd"], unit.options["code_bits"], unit.options["activation"].width,
            unit.options["form"])), name


@pytest.mark.parametrize("terms,cycles", [
    (1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (16, 4), (17, 5), (64, 6), (65, 7), (256, 8)])
def test_tree_latency(terms: int, cycles: int) -> None:
    assert tree_latency(terms) == cycles and mac_latency(terms, 1, 2, "planes") == cycles + 2


@pytest.mark.parametrize("form,bits,cycles", [
    ("planes", 2, 6), ("product", 2, 4), ("direct", 2, 4), ("direct", 3, 5), ("direct", 4, 5),
    ("direct", 5, 6), ("direct", 6, 4), ("pairs", 2, 5)])
def test_mac_latency(form: str, bits: int, cycles: int) -> None:
    """Codes of 4 bits; a digit and an activation of `bits` are 6 together."""
    assert mac_latency(4, 4, bits, form) == cycles


def test_only_equal_arrays_share_a_name() -> None:
    plain = {"simd": 2, "code_bits": 2, "activation": Shape(2), "acc": Shape(9, True), "step": 2,
             "least": -3, "form": "planes"}
    changes = [{}, {"simd": 3}, {"code_bits": 3}, {"activation": Shape(3)},
               {"activation": Shape(2, True)}, {"acc": Shape(8, True)}, {"acc": Shape(9)},
               {"step": 1}, {"least": 3}, {"least": -1}, {"form": "direct"}, {"start": 1},
               {"start": -1}]
    names = {mac_name(**{**plain, **change}) for change in changes}
    assert len(names) == len(changes) and all(name.isidentifier() for name in names)
