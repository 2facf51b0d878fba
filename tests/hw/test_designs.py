# amaranth: UnusedElaboratable=no
"""Every design's gateware against its golden model, side by side in one simulation per point."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.hdl import Module, Shape, Signal
from units import SCENARIOS, Bench, Case

from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.designs import Design, Uniform, designs
from n2uq_hw.hw.stream import Unit, beats, shape_for

POINTS = [(2, 2, 8), (3, 3, 5), (4, 4, 3), (2, 4, 1), (4, 2, 16)]  # weight bits, act bits, lanes
LEFT = 40  # beats of the recorded extremes and random codes


class SideBySide(Unit):
    """Designs that get the same codes; the beats that come out hold all their dot products.

    Writable tables are loaded first, entry by entry, while no beat is taken.
    """

    def __init__(self, every: list[Design], width: int) -> None:
        self.every, self.width = every, width
        one = every[0]
        super().__init__(beats(Shape(1), (one.weight_bits + one.act_bits) * one.lanes),
                         beats(Shape(width, True), len(every)))

    def elaborate(self, platform):
        m = Module()
        depth = max(design.latency for design in self.every)
        enable, ready = Signal(), Signal()
        valid = Signal(depth)
        loads = [(k, place, at, int(value)) for k, design in enumerate(self.every)
                 if design.writable for place, values in enumerate(design.tables.values())
                 for at, value in enumerate(values)]
        step = Signal(range(len(loads) + 1))
        m.d.comb += [ready.eq(step == len(loads)), enable.eq(~self.o.valid | self.o.ready),
                     self.i.ready.eq(enable & ready), self.o.valid.eq(valid[-1])]
        with m.If(~ready):
            m.d.sync += step.eq(step + 1)
        with m.If(enable):
            m.d.sync += valid.eq(valid << 1 | (self.i.valid & ready))
        word = self.i.payload.as_value()
        for k, design in enumerate(self.every):
            m.submodules[f"design_{k}"] = lanes = design.create()
            bits = design.weight_bits * design.lanes
            m.d.comb += [lanes.enable.eq(enable), lanes.w.eq(word[:bits]),
                         lanes.a.eq(word[bits:])]
            if design.writable:
                with m.Switch(step):
                    for at, (owner, table, addr, value) in enumerate(loads):
                        if owner == k:
                            with m.Case(at):
                                if hasattr(lanes, "load_table"):
                                    m.d.comb += lanes.load_table.eq(table)
                                m.d.comb += [lanes.load_en.eq(1), lanes.load_addr.eq(addr),
                                             lanes.load_data.eq(value)]
            out = lanes.dot
            for _ in range(depth - design.latency):
                later = Signal.like(out, reset_less=True)
                with m.If(enable):
                    m.d.sync += later.eq(out)
                out = later
            m.d.comb += self.o.payload[k].eq(out)
        return m


def codes(bits: int, lanes: int, seed: int) -> np.ndarray:
    """Codes [n, lanes]: each one in all lanes, then random ones."""
    same = np.repeat(np.arange(2**bits)[:, None], lanes, axis=1)
    rng = np.random.default_rng(seed)
    return np.concatenate([same, rng.integers(0, 2**bits, (LEFT, lanes))])


def pairs(one: Design) -> tuple[np.ndarray, np.ndarray]:
    """Codes of weights and of activations [n, lanes]: all pairs of extremes, and random ones."""
    w, a = codes(one.weight_bits, one.lanes, 1), codes(one.act_bits, one.lanes, 2)
    return np.repeat(w, len(a), axis=0), np.tile(a, (len(w), 1))


def beside(weight_bits: int, act_bits: int, lanes: int) -> Case:
    every = designs(weight_bits=weight_bits, act_bits=act_bits, lanes=lanes)
    w, a = pairs(every[0])
    dots = np.stack([design.golden(w, a) for design in every], axis=-1)
    width = max(shape_for(design.dot.lo, design.dot.hi).width for design in every) + 1
    bits = np.concatenate([(codes[..., None] >> np.arange(size) & 1).reshape(len(codes), -1)
                           for codes, size in ((w, weight_bits), (a, act_bits))], axis=1)
    return Case(f"designs_{weight_bits}_{act_bits}_{lanes}", SideBySide(every, width), bits, dots)


@pytest.fixture(scope="module", params=[
    pytest.param(POINTS[:3], id="equal bits"),
    pytest.param(POINTS[3:], id="other bits", marks=pytest.mark.slow)])
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench([beside(*point) for point in request.param], tmp_path_factory)


@pytest.mark.slow
@pytest.mark.parametrize("source,sink,resets", SCENARIOS[:5])
def test_every_dot_product_is_golden(bench: Bench, source: float, sink: float,
                                     resets: tuple[int, ...]) -> None:
    bench.run(source, sink, resets)


@pytest.mark.parametrize("point", POINTS)
def test_the_range_of_a_dot_product_is_reached(point: tuple[int, int, int]) -> None:
    """No accumulator has a spare bit: of constants, its ends are a dot product or next to it."""
    for design in designs(**dict(zip(("weight_bits", "act_bits", "lanes"), point, strict=True))):
        dots = design.golden(*pairs(design))
        assert design.dot.lo <= dots.min() and dots.max() <= design.dot.hi, design.name
        if not design.writable:
            assert shape_for(design.dot.lo, design.dot.hi).width - shape_for(
                int(dots.min()), int(dots.max())).width in (0, 1), design.name


@pytest.mark.parametrize("point", POINTS)
def test_golden_is_the_sum_of_products(point: tuple[int, int, int]) -> None:
    every = designs(**dict(zip(("weight_bits", "act_bits", "lanes"), point, strict=True)))
    assert len({design.name for design in every}) == len(every)
    w, a = (codes[::17] for codes in pairs(every[0]))
    for design in every:
        if type(design).golden is Design.golden:
            by_hand = [sum(int(design.weights[i]) * int(design.activations[j])
                           for i, j in zip(row, column, strict=True))
                       for row, column in zip(w, a, strict=True)]
            assert design.golden(w, a).tolist() == by_hand, design.name


def test_uniform_levels_are_n2uqs() -> None:
    design = Uniform(weight_bits=2, act_bits=2, lanes=1)
    assert design.weights.tolist() == [-3, -1, 1, 3]
    assert design.activations.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("change,message", [
    ({"weight_bits": 0}, "N2UQ: weight bits must be 1..8, not 0"),
    ({"act_bits": 9}, "N2UQ: activation bits must be 1..8, not 9"),
    ({"lanes": 0}, "N2UQ: lanes must be 1..4096, not 0"),
])
def test_what_a_design_cannot_be(change: dict[str, int], message: str) -> None:
    with pytest.raises(N2uqError, match=f"^{message}$"):
        Uniform(**{"weight_bits": 2, "act_bits": 2, "lanes": 8} | change)
