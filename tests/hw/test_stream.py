# amaranth: UnusedElaboratable=no
"""FifoUnit, ForkUnit, WidthConverter against golden, and their timing; what all units share."""

from __future__ import annotations

import re

import numpy as np
import pytest
from amaranth.hdl import Shape
from units import Bench, Case, bit_exact, case, edge_of, stream_rules

from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.fifo import LUT_DEPTH, FifoUnit
from n2uq_hw.hw.fork import ForkUnit
from n2uq_hw.hw.library import Library
from n2uq_hw.hw.stream import beats, divides, element, shape_for
from n2uq_hw.hw.width_convert import WidthConverter, convert_width
from n2uq_hw.ir import Fifo, Fork, WidthConvert
from n2uq_hw.sim.rtl.harness import Sink, stall_pattern, streams
from n2uq_hw.tools import run_yosys


def fifo(depth: int, lanes: int, lo: int, hi: int) -> Case:
    node = Fifo(f"fifo{depth}_{lanes}", depth=depth)
    edge = edge_of((2, max(5, depth // 2), 2 * lanes), lo, hi)
    return case(node, edge, lambda out: FifoUnit(layout=beats(element(edge), lanes), depth=depth))


def fork(ways: int, lanes: int, lo: int, hi: int) -> Case:
    node, edge = Fork(f"fork{ways}_{lanes}", ways=ways), edge_of((2, 5, 2 * lanes), lo, hi)
    return case(node, edge, lambda out: ForkUnit(layout=beats(element(edge), lanes), ways=ways))


def convert(lanes_in: int, lanes_out: int, lo: int, hi: int) -> Case:
    node = WidthConvert(f"convert{lanes_in}to{lanes_out}", lanes=lanes_out)
    edge = edge_of((2, 3, 2 * max(lanes_in, lanes_out)), lo, hi)
    return case(node, edge, lambda out: WidthConverter(
        shape=element(edge), lanes_in=lanes_in, lanes_out=lanes_out))


def fifos() -> list[Case]:
    return [fifo(depth, lanes, lo, hi) for depth, lanes, lo, hi in [
        (1, 1, 0, 3), (1, 3, -4, 3), (2, 1, 0, 255), (2, 4, 0, 1), (3, 2, -1, 0), (5, 1, 0, 9),
        (8, 1, -100, 100), (17, 1, 0, 7), (LUT_DEPTH, 1, 0, 7), (LUT_DEPTH + 1, 1, 0, 7),
        (128, 2, -4, 3)]]


def forks() -> list[Case]:
    return [fork(1, 1, 0, 3), fork(2, 1, -4, 3), fork(2, 3, 0, 255), fork(3, 2, -100, 100)]


def converters() -> list[Case]:
    return [convert(lanes_in, lanes_out, lo, hi) for lanes_in, lanes_out, lo, hi in [
        (1, 2, 0, 3), (1, 7, -4, 3), (3, 6, 0, 1), (4, 32, 0, 255), (2, 10, -1, 0), (6, 6, 0, 3),
        (2, 1, 0, 3), (7, 1, -4, 3), (6, 3, 0, 1), (32, 4, 0, 255), (10, 2, -1, 0)]]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(fifos() + forks() + converters(), tmp_path_factory)


test_bit_exact, test_stream_rules = bit_exact, stream_rules


def test_what_does_not_matter_is_left_to_synthesis(bench: Bench) -> None:
    """Undefined bits in the Verilog spare the LUTs of what a narrower takes in and moves on."""
    (narrower,) = re.findall(r"module convert32to4\(.*?endmodule", bench.verilog, re.DOTALL)
    assert re.search(r"256'hx+;", narrower)


def test_timing(bench: Bench) -> None:
    for name, (accepted, emitted) in bench.timing.items():
        unit = bench.cases[name].unit
        if isinstance(unit, FifoUnit):
            latency = 2 if unit.depth > LUT_DEPTH else 1
            interval, first = 2 if unit.depth == 1 else 1, accepted
        elif isinstance(unit, ForkUnit):
            interval, latency, first = 1, 0, accepted
        elif unit.up:
            interval, latency, first = 1, unit.ratio, accepted[::unit.ratio]
        else:
            interval, latency, first = unit.ratio, 1, np.arange(len(emitted))
        assert np.array_equal(accepted, np.arange(len(accepted)) * interval), name
        assert np.array_equal(emitted, first + latency), name


def test_fifo_holds_its_depth(bench: Bench) -> None:
    """Beats taken and not yet given reach the depth when the sink is slow, and stay there."""
    run = bench.run(sink=0.9)
    for c in fifos():
        taken, emitted = run.sources[c.name][0], run.sinks[c.name][0].cycles
        cycles = np.arange(emitted[-1])
        level = np.searchsorted(taken, cycles, "right") - np.searchsorted(emitted, cycles, "right")
        assert level.max() == c.unit.depth, c.name


def test_deep_queues_can_be_block_ram(bench: Bench) -> None:
    """Their memories are read at the clock, those of the others at once."""
    (bench.folder / "queues.v").write_text(bench.verilog)
    log = run_yosys("\n".join([
        "read_verilog queues.v", "proc", "flatten", "memory -nomap",
        "select -list fifo*/t:$mem_v2 r:RD_CLK_ENABLE=1'1 %i"]), bench.folder)
    stores = set(re.findall(r"^(\w+)/store$", log, re.MULTILINE))
    assert stores == {c.name for c in fifos() if c.unit.depth > LUT_DEPTH} != set()


def test_fork_gives_a_beat_to_each_reader_when_it_is_ready(bench: Bench) -> None:
    """Not only when all are, and once; the next beat comes right after the last took this one."""
    run = bench.run(sink=0.6, seed=5)
    ports = [(port, dut.name) for port, dut, it in streams([c.dut for c in bench.cases.values()])
             if isinstance(it, Sink)]
    for c in forks():
        taken = run.sources[c.name][0]
        offered = np.concatenate([[0], taken[:-1] + 1])
        ready = [np.flatnonzero(~stall_pattern(5, port, 0.6, run.cycles + 1))
                 for port, name in ports if name == c.name]
        expected = np.array([cycles[np.searchsorted(cycles, offered)] for cycles in ready])
        assert np.array_equal([sink.cycles for sink in run.sinks[c.name]], expected), c.name
        assert np.array_equal(taken, expected.max(axis=0)), c.name
        assert c.unit.ways == 1 or (expected.min(axis=0) < taken).any()


@pytest.mark.parametrize("lanes_in", range(1, 13))
@pytest.mark.parametrize("lanes_out", range(1, 13))
def test_convert_width(lanes_in: int, lanes_out: int) -> None:
    steps = convert_width(lanes_in, lanes_out)
    assert len(steps) <= 2 and ([lanes_in, *steps][-1] == lanes_out)
    assert not steps or steps[0] % lanes_in == 0 or lanes_in % steps[0] == 0
    for before, after in zip([lanes_in, *steps], steps, strict=False):
        assert before != after and (before % after == 0 or after % before == 0)
        assert min(before, after) >= min(lanes_in, lanes_out)


def test_shape_for_is_the_narrowest() -> None:
    for lo in range(-9, 10):
        for hi in range(lo, 10):
            shape = shape_for(lo, hi)
            assert shape.signed == (lo < 0)
            fits = [width for width in range(1, 8)
                    if (-2**(width - 1) <= lo and hi < 2**(width - 1) if lo < 0
                        else hi < 2**width)]
            assert shape.width == fits[0]


def test_divides() -> None:
    assert divides("conv1: PE", 16, "output channels", 64) == 4
    for lanes in 12, 0, -1, 128:
        message = f"^conv1: PE must divide the 64 output channels, not {lanes}$"
        with pytest.raises(N2uqError, match=message):
            divides("conv1: PE", lanes, "output channels", 64)


def test_converter_needs_a_divisor() -> None:
    message = r"^the narrower lanes must divide the 6 lanes of the wider side, not 4$"
    with pytest.raises(N2uqError, match=message):
        WidthConverter(shape=Shape(2), lanes_in=4, lanes_out=6)


def test_library_converts_once_and_always_the_same() -> None:
    def texts() -> dict[str, str]:
        library = Library()
        units = iter([FifoUnit(layout=beats(Shape(3), 2), depth=4)])
        for _ in range(3):  # a second unit cannot be made
            library.signature("queue", lambda: next(units))
        return library.rtlil()

    assert texts() == texts() and list(texts()) == ["queue"]
