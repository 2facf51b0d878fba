# amaranth: UnusedElaboratable=no
"""FifoUnit and WidthConverter against the golden model, and their timing; what all units share."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.hdl import Shape
from units import SCENARIOS, Bench, Case, case, edge_of

from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.stream import (
    LUT_DEPTH,
    FifoUnit,
    Library,
    WidthConverter,
    beats,
    convert_width,
    divides,
    element,
    shape_for,
)
from n2uq_hw.ir import Fifo, WidthConvert


def fifo(depth: int, lanes: int, lo: int, hi: int) -> Case:
    node = Fifo(f"fifo{depth}_{lanes}", depth=depth)
    edge = edge_of((2, max(5, depth // 2), 2 * lanes), lo, hi)
    return case(node, edge, lambda out: FifoUnit(layout=beats(element(edge), lanes), depth=depth))


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


def converters() -> list[Case]:
    return [convert(lanes_in, lanes_out, lo, hi) for lanes_in, lanes_out, lo, hi in [
        (1, 2, 0, 3), (1, 7, -4, 3), (3, 6, 0, 1), (4, 32, 0, 255), (2, 10, -1, 0), (6, 6, 0, 3),
        (2, 1, 0, 3), (7, 1, -4, 3), (6, 3, 0, 1), (32, 4, 0, 255), (10, 2, -1, 0)]]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(fifos() + converters(), tmp_path_factory)


@pytest.mark.parametrize("source,sink,resets", SCENARIOS)
def test_bit_exact(bench: Bench, source: float, sink: float, resets: tuple[int, ...]) -> None:
    bench.run(source, sink, resets)


def test_stream_rules(bench: Bench) -> None:
    bench.check_rules()


def test_timing(bench: Bench) -> None:
    for name, (given, made) in bench.timing.items():
        unit = bench.cases[name].unit
        if isinstance(unit, FifoUnit):
            latency = 2 if unit.depth > LUT_DEPTH else 1
            interval, first = 2 if unit.depth == 1 else 1, given
        elif unit.up:
            interval, latency, first = 1, unit.ratio, given[::unit.ratio]
        else:
            interval, latency, first = unit.ratio, 1, np.arange(len(made))
        assert np.array_equal(given, np.arange(len(given)) * interval), name
        assert np.array_equal(made, first + latency), name


def test_fifo_holds_its_depth(bench: Bench) -> None:
    """Beats taken and not yet given reach the depth when the sink is slow, and stay there."""
    run = bench.run(sink=0.9)
    for c in fifos():
        taken, given = run.sources[c.name][0], run.sinks[c.name][0].cycles
        cycles = np.arange(given[-1])
        level = np.searchsorted(taken, cycles, "right") - np.searchsorted(given, cycles, "right")
        assert level.max() == c.unit.depth, c.name


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
