# amaranth: UnusedElaboratable=no
"""The element-wise units against the golden model, and their timing, multipliers and counters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from amaranth.sim import Simulator
from numpy.typing import ArrayLike
from units import Bench, Case, bit_exact, case, edge_of, stream_rules

from n2uq_hw.builds.emit import library_verilog
from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.add import AddUnit
from n2uq_hw.hw.argmax import ArgMaxUnit
from n2uq_hw.hw.library import Library
from n2uq_hw.hw.piecewise_linear import PiecewiseLinearUnit
from n2uq_hw.hw.saturate import SaturateUnit
from n2uq_hw.hw.scale import ScaleUnit
from n2uq_hw.ir import Add, ArgMax, Edge, PiecewiseLinear, Saturate, Scale, infer
from n2uq_hw.tools import run_yosys

CHANNELS = 6
LATENCY: dict[str, int] = {}  # by name of a case
FACTORS: dict[str, int] = {}  # multipliers that are built, likewise


def all_values(edge: Edge) -> np.ndarray:
    """One image with every integer of the range of each channel; of a wide range, a sample."""
    count = edge.shape[1]
    if edge.hi.max() - edge.lo.min() < count:
        values = np.arange(edge.lo.min(), edge.lo.min() + count)[:, None]
    else:
        rng = np.random.default_rng(count)
        values = rng.integers(edge.lo, edge.hi + 1, (count, edge.channels))
        values[:2] = edge.lo, edge.hi
    return np.clip(values, edge.lo, edge.hi).reshape(1, *edge.shape)


def edge_for(lo: ArrayLike, hi: ArrayLike, channels: int = CHANNELS) -> Edge:
    """As wide as `all_values` wants it."""
    return edge_of((1, min(int(np.max(hi) - np.min(lo)) + 1, 100), channels), lo, hi)


def scale(name: str, multiplier: ArrayLike, offset: ArrayLike, shift: int, pe: int, *,
          latency: int, factors: int, lo: ArrayLike = -20, hi: ArrayLike = 23,
          clip: tuple[int, ...] = (), ties: str = "floor") -> Case:
    node = Scale(f"scale_{name}", multiplier=np.array(multiplier, np.int64), shift=shift,
                 offset=np.array(offset, np.int64), clip=clip, ties=ties)
    edge = edge_for(lo, hi)
    LATENCY[node.name], FACTORS[node.name] = latency, factors
    return case(node, edge, lambda out: ScaleUnit(node, edge, out, pe=pe), all_values(edge))


def lines(name: str, turn: ArrayLike, multiplier: ArrayLike, offset: ArrayLike, shift: int,
          pe: int, *, latency: int, factors: int, lo: ArrayLike = -20, hi: ArrayLike = 23,
          channels: int = CHANNELS) -> Case:
    node = PiecewiseLinear(f"lines_{name}", turn=np.array(turn, np.int64), shift=shift,
                           multiplier=np.array(multiplier, np.int64).reshape(2, -1),
                           offset=np.array(offset, np.int64).reshape(2, -1))
    edge = edge_for(lo, hi, channels)
    LATENCY[node.name], FACTORS[node.name] = latency, factors
    return case(node, edge, lambda out: PiecewiseLinearUnit(node, edge, out, pe=pe),
                all_values(edge))


def add(name: str, pe: int, lo: tuple[ArrayLike, ArrayLike], hi: tuple[ArrayLike, ArrayLike]
        ) -> Case:
    node = Add(f"add_{name}", ("x", "y"))
    edges = [edge_of((3, 4, CHANNELS), *ends) for ends in zip(lo, hi, strict=True)]
    LATENCY[node.name] = 1
    return case(node, edges, lambda out: AddUnit(node, *edges, out, pe=pe))


def saturate(name: str, lo: int, hi: int, pe: int, *, x_lo: ArrayLike = -20, x_hi: ArrayLike = 23
             ) -> Case:
    """Its counter, while a beat is offered, has counted the beats before."""
    node, edge = Saturate(f"saturate_{name}", lo=lo, hi=hi), edge_for(x_lo, x_hi)
    plain = case(node, edge, lambda out: SaturateUnit(node, edge, out, pe=pe), all_values(edge))
    changed = (plain.images != plain.expected).reshape(-1, pe).sum(axis=1)
    LATENCY[node.name] = 1
    return replace(plain, counts=changed.cumsum() - changed)


def argmax(name: str, channels: int, pe: int, lo: ArrayLike, hi: ArrayLike) -> Case:
    """Images with ties and, for each element, one where it is the largest."""
    node, edge = ArgMax(f"argmax_{name}"), edge_of((1, 1, channels), lo, hi)
    rng = np.random.default_rng(channels * 31 + pe)
    images = rng.integers(edge.lo, edge.hi + 1, (channels + 20, 1, 1, channels))
    images[:channels, 0, 0] = np.where(np.eye(channels, dtype=bool), edge.hi, edge.lo)
    images[-2], images[-1] = edge.lo, edge.hi
    return case(node, edge, lambda out: ArgMaxUnit(node, edge, out, pe=pe), images)


def scales() -> list[Case]:
    rng = np.random.default_rng(0)
    m, c = rng.integers(-300, 300, (2, CHANNELS))
    m40 = [2**18 - 1, -2**18, 12345, -77777, 1, -1]
    x40 = {"lo": [-2**40, 0, -2**39, -5, 7, -2**40], "hi": [2**40, 2**40, 3, 2**38, 7, -2**20]}
    memory, constant = {"latency": 5}, {"latency": 4}
    return [
        scale("same", [1], [0], 0, 1, latency=1, factors=0),
        scale("half", [1], [1], 1, 2, latency=1, factors=0),
        scale("double", [64], [-3], 4, 3, latency=1, factors=0),
        scale("powers", [1, 2, 4, 8, 16, 32], [1], 2, 6, latency=1, factors=0),
        scale("powers_by_3", [1, 2, 4, 1, 2, 4], [1], 2, 3, latency=1, factors=0),
        scale("powers_in_turn", [1, 2, 4, 8, 16, 32], [1], 2, 3, **memory, factors=3),
        scale("offsets_only", [8], c, 2, 2, latency=3, factors=0),
        scale("minus", [-8], [0], 2, 2, **constant, factors=0),
        scale("down", [-7], [4], 3, 6, **constant, factors=6),
        scale("channels", m, c, 5, 3, **memory, factors=3),
        scale("channels_at_once", m, c, 5, 6, **constant, factors=6),
        scale("offsets", [3], c, 2, 1, **constant, factors=1),
        scale("multipliers", m, [-1], 4, 1, **memory, factors=1),
        scale("nothing", [0], [0], 4, 2, **constant, factors=0),
        scale("constant", [0] * 6, c, 2, 3, **constant, factors=0),
        scale("gone", m, c, 40, 2, **memory, factors=2),
        scale("wide", [2**30 - 1], [-2**38], 12, 2, **constant, factors=4),
        scale("wider", m40, [2**57, -2**57, 5, 9, 0, -2**20], 17, 2, **memory, factors=6, **x40),
        scale("wide_factors", [2**38 + 5, -2**39, 7, 1, -1, -2**17], c, 3, 2, **memory, factors=6),
        scale("signed_18", m, c, 3, 2, **memory, factors=2, lo=-2**17, hi=2**17 - 1),
        scale("signed_19", m, c, 3, 2, **memory, factors=4, lo=-2**17 - 1, hi=2**17 - 1),
        scale("unsigned_17", m, c, 3, 2, **memory, factors=2, lo=0, hi=2**17 - 1),
        scale("unsigned_18", m, c, 3, 2, **memory, factors=4, lo=0, hi=2**17),
        scale("signed_36", m, c, 3, 2, **memory, factors=6, lo=-2**35, hi=5),
        scale("unsigned", [5], [3], 1, 1, **constant, factors=1, lo=0, hi=63),
        scale("negative", [-5], [3], 1, 6, **constant, factors=6, lo=-9, hi=-1),
        scale("one", m, [0], 0, 2, **memory, factors=2, lo=7, hi=7),
        scale("ranges", m, c, 3, 2, **memory, factors=2, lo=[-9, -5, 0, 3, -1, -7],
              hi=[-5, 2, 3, 9, 0, 9]),
        scale("relu", m, c, 3, 2, latency=6, factors=2, clip=(0, 2**30)),
        scale("relu6", [37], c, 3, 1, latency=5, factors=1, clip=(0, 96)),
        scale("clip_bits", [2], [1], 0, 3, latency=2, factors=0, clip=(-16, 15)),
        scale("clip_one", [2], [1], 0, 3, latency=2, factors=0, clip=(3, 3)),
        scale("clip_below", m, c, 5, 2, latency=6, factors=2, clip=(-9000, -5000)),
        scale("clip_above", m, c, 5, 2, latency=6, factors=2, clip=(5000, 9000)),
        scale("clip_never", m, c, 5, 2, latency=5, factors=2, clip=(-9000, 9000)),
        scale("clip_wide", m40, c, 3, 2, latency=6, factors=6, clip=(-2**50, 2**51), **x40),
        scale("even", [1], [0], 2, 2, latency=1, factors=0, ties="even"),
        scale("even_no_shift", [1], [3], 0, 2, latency=1, factors=0, ties="even"),
        scale("even_half", [1], [0], 1, 6, latency=1, factors=0, ties="even"),
        scale("even_channels", m & -16, c & -8, 5, 2, **memory, factors=2, ties="even"),
        scale("even_offsets", [8], c, 4, 3, latency=3, factors=0, ties="even"),
        scale("even_clip", [6], [-2], 3, 2, latency=5, factors=2, clip=(0, 15), ties="even"),
        scale("even_odd_low_end", [1], [0], 1, 3, latency=1, factors=0, lo=-3, hi=-1, ties="even"),
        scale("even_gone", m, [2**30], 40, 2, **memory, factors=2, ties="even"),
        scale("even_wide", m40, [2**57, -2**57, 5, 9, 0, -2**20], 4, 2, **memory, factors=6,
              ties="even", **x40)]


def piecewise() -> list[Case]:
    rng = np.random.default_rng(1)
    m, c = rng.integers(-300, 300, (2, 2, CHANNELS))
    turn = np.array([-3, 7, 0, 23, -20, 24])
    far = np.array([-10**6, 10**6, -21, 24, 3, -2**40])
    slopes, one = np.stack([m[0], np.full(CHANNELS, 16)]), [[-3], [16]]
    m40 = np.stack([[2**18 - 1, -2**18, 12345, -77777, 1, -1], [-2**18, 1, 0, 2**17, -9, 55]])
    x40 = {"lo": [-2**40, 0, -2**39, -5, 7, -2**40], "hi": [2**40, 2**40, 3, 2**38, 7, -2**20]}
    turn40 = [-2**39, 2**38 + 1, -1, 2**37, 7, -2**20]
    many = rng.integers(-2**44, 2**44, (2, 768))  # two offsets each are more than FILE_BITS
    prelu40 = np.stack([m40[0], np.full(CHANNELS, 2**16)])
    return [
        lines("any", turn, m, c, 4, 2, latency=7, factors=2),
        lines("any_by_1", turn, m, c, 4, 1, latency=7, factors=1),
        lines("at_once", turn, m, c, 4, 6, latency=5, factors=6),
        lines("one_turn", [5], m, c, 0, 3, latency=5, factors=3),
        lines("one_for_all", [5], [[-3], [7]], [[1], [-50]], 2, 2, latency=5, factors=2),
        lines("far", far, m, c, 4, 2, latency=7, factors=2),
        lines("far_at_once", far, m, c, 4, 6, latency=5, factors=6),
        lines("all_above", [-20], m, c, 4, 2, latency=5, factors=2),
        lines("all_below", [24], m, c, 4, 2, latency=5, factors=2),
        lines("all_way_above", [-2**50], slopes, c, 4, 2, latency=3, factors=0),
        lines("all_way_below", [2**50], slopes, c, 4, 2, latency=5, factors=2),
        lines("prelu", turn, slopes, c, 4, 2, latency=5, factors=2),
        lines("prelu_by_1", turn, slopes, c, 4, 1, latency=5, factors=1),
        lines("prelu_at_once", turn, slopes, c, 4, 6, latency=4, factors=6),
        lines("prelu_one_slope", turn, one, c, 4, 3, latency=5, factors=3),
        lines("prelu_one_for_all", [0], one, [[8], [8]], 4, 3, latency=4, factors=3),
        lines("prelu_offsets", [0], one, [[8], [-8]], 4, 3, latency=4, factors=3),
        lines("prelu_far", far, slopes, c, 4, 2, latency=5, factors=2),
        lines("prelu_wide", turn40, prelu40, np.stack([[2**56, -2**56, 0, 1, -1, 7], c[1]]), 16, 2,
              latency=5, factors=6, **x40),
        lines("upper_power", turn, np.stack([m[0], np.full(CHANNELS, 4)]), c, 4, 2, latency=5,
              factors=2),
        lines("two_powers", turn, [[2], [16]], c, 4, 2, latency=5, factors=0),
        lines("leaky", [0], [[2], [16]], [[8], [8]], 4, 2, latency=2, factors=0),
        lines("relu", [0], [[0], [16]], [[8], [8]], 4, 2, latency=4, factors=0),
        lines("bias", turn, [[16], [16]], np.stack([c[0], c[0]]), 4, 2, latency=3, factors=0),
        lines("steps", turn, [[16], [16]], c, 4, 2, latency=5, factors=0),
        lines("wide", turn40, m40, np.stack([[2**56, -2**56, 0, 1, -1, 7], c[1]]), 11, 3,
              latency=7, factors=9, **x40),
        lines("file", [0], [[-3], [4]], many, 2, 3, latency=4, factors=3, lo=-1, hi=1,
              channels=768),
        lines("unsigned", [0, 4, 9, 31, 63, 64], m, c, 2, 2, latency=7, factors=2, lo=0, hi=63),
        lines("one_value", [7, 8] * 3, m, c, 2, 3, latency=7, factors=3, lo=7, hi=7),
        lines("ranges", [-9, -5, 2, 9, -1, 0], m, c, 3, 2, latency=7, factors=2,
              lo=[-9, -5, 0, 3, -1, -7], hi=[-5, 2, 3, 9, 0, 9])]


def random_lines(count: int) -> list[Case]:
    """Anything legal; of the latency and the multipliers only the units' own word is taken."""
    rng, chosen = np.random.default_rng(2), []
    for k in range(count):
        x = int(rng.choice([3, 12, 40]))
        lo = rng.integers(-2**x, 2**x, CHANNELS)
        hi = lo + rng.integers(0, 2**int(rng.integers(1, x + 1)), CHANNELS)
        size = int(rng.choice([1, CHANNELS]))
        m = rng.integers(-2**9, 2**9, (2, size))
        m[1] = rng.choice([m[1], np.full(size, 2**int(rng.integers(0, 9)))])
        turn = rng.integers(lo.min() - 5, hi.max() + 5, int(rng.choice([1, CHANNELS])))
        c = rng.integers(-2**45, 2**45, (2, int(rng.choice([1, CHANNELS]))))
        pe, shift = int(rng.choice([1, 2, 3, 6])), int(rng.integers(0, 20))
        chosen += [lines(f"random{k}", turn, m, c, shift, pe, latency=0, factors=-1, lo=lo, hi=hi),
                   scale(f"random{k}", m[0], c[1], shift, pe, latency=0, factors=-1, lo=lo, hi=hi,
                         clip=((), (-100, 2**30))[k % 2], ties=("floor", "even")[k // 2 % 2])]
    return chosen


def adds() -> list[Case]:
    return [
        add("signed", 2, (-8, -100), (7, 100)), add("unsigned", 3, (0, 0), (3, 255)),
        add("mixed", 1, (0, -128), (255, 127)), add("all", 6, (-1, -1), (0, 0)),
        add("wide", 2, (-2**40, -2**39), (2**40, 2**41)), add("one", 6, (5, -3), (5, 4)),
        add("ranges", 3, ([-9, -5, 0, 3, -1, -7], [0, 1, 2, 3, 4, 5]),
            ([-5, 2, 3, 9, 0, 9], [9, 9, 9, 9, 9, 9]))]


def saturates() -> list[Case]:
    return [
        saturate("both", -8, 7, 2), saturate("all", -8, 7, 6), saturate("single", -8, 7, 1),
        saturate("below", -5, 100, 3), saturate("above", -100, 5, 3),
        saturate("never", -20, 23, 2), saturate("wider", -2**40, 2**40, 2),
        saturate("one", 4, 4, 2), saturate("out_below", 50, 60, 2),
        saturate("out_above", -60, -50, 6), saturate("unsigned", 2, 50, 2, x_lo=0, x_hi=63),
        saturate("wide", -2**35, 2**35 - 1, 3, x_lo=-2**40, x_hi=2**40),
        saturate("ranges", -4, 3, 2, x_lo=[-9, -5, 0, 3, -1, -7], x_hi=[-5, 2, 3, 9, 0, 9])]


def argmaxes() -> list[Case]:
    return [
        argmax("ten_by_1", 10, 1, -5, 5), argmax("ten_by_2", 10, 2, -5, 5),
        argmax("ten_by_10", 10, 10, -5, 5), argmax("single", 1, 1, 0, 3),
        argmax("two", 2, 1, 0, 1), argmax("negative", 6, 3, -9, -2),
        argmax("unsigned", 12, 4, 0, 2), argmax("wide", 7, 7, -10**9, 10**9),
        argmax("many", 100, 5, -3, 3), argmax("equal", 6, 2, 4, 4),
        argmax("many_lanes", 100, 50, -3, 3), argmax("all_lanes", 37, 37, -2, 2),
        argmax("odd_lanes", 15, 5, 0, 1), argmax("tie_of_all", 26, 26, -1, -1),
        argmax("ranges", 6, 2, [-9, -5, 0, 3, -1, -7], [-5, 2, 3, 9, 0, 9])]


def test_argmax_grows_with_its_lanes_and_no_faster() -> None:
    """One comparator a lane: nested expressions would double the text with every lane."""
    edge = edge_of((1, 1, 128), -9, 9)
    texts = []
    for pe in (16, 32, 64):
        node, library = ArgMax(f"argmax{pe}"), Library()
        library.signature("unit", lambda node=node, pe=pe: ArgMaxUnit(
            node, edge, infer(node, edge), pe=pe))
        texts.append(library_verilog(library, "unit")["unit.v"])
    assert [text.count(" > ") for text in texts] == [16, 32, 64]
    assert len(texts[2]) < 2.2 * len(texts[1]) < 2.2**2 * len(texts[0])


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench([*scales(), *piecewise(), *random_lines(12), *adds(), *saturates(), *argmaxes()],
                 tmp_path_factory)


test_bit_exact, test_stream_rules = bit_exact, stream_rules


def test_timing(bench: Bench) -> None:
    for name, (accepted, emitted) in bench.timing.items():
        unit = bench.cases[name].unit
        assert np.array_equal(accepted, np.arange(len(accepted))), name
        if latency := LATENCY.get(name):
            assert np.array_equal(emitted, accepted + latency), name
        elif isinstance(unit, ArgMaxUnit):
            assert np.array_equal(emitted, accepted[unit.beats - 1::unit.beats] + 1), name
        else:
            assert np.array_equal(emitted, accepted + emitted[0]), name


@pytest.mark.slow
def test_multipliers(bench: Bench) -> None:
    """As many as a case says, each between registers."""
    run_yosys("\n".join([
        "read_verilog plain.v", "proc", "flatten", "memory_dff", "opt",
        *(f"select -assert-count {count} {name}/t:$mul" for name, count in FACTORS.items()
          if count >= 0),
        # Cells one step before a multiplier, one step behind.
        *(f"select -assert-none {name}/t:$mul {reach} {name}/t:$mul {name}/t:*dff* {name}/w:* "
          "%u %u %d" for name, count in FACTORS.items() if count > 0
          for reach in ("%ci2", "%co2")),
        ]), bench.folder)


def test_the_counter_stays_at_its_end() -> None:
    node, edge = Saturate("n", lo=0, hi=1), edge_of((1, 1, 3), 0, 5)
    unit = SaturateUnit(node, edge, infer(node, edge), pe=3)
    seen = []

    async def bench(ctx) -> None:
        ctx.set(unit.saturated, 2**32 - 8)
        ctx.set(unit.i.valid, 1)
        ctx.set(unit.i.payload, [5, 5, 5])
        ctx.set(unit.o.ready, 1)
        for _ in range(6):
            await ctx.tick()
            seen.append(ctx.get(unit.saturated) - 2**32)

    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert seen == [-8, -5, -2, -1, -1, -1]


@pytest.mark.parametrize("pe", [0, 4, 20])
def test_bad_folding(pe: int) -> None:
    edge = edge_of((1, 1, 10), 0, 3)
    for node, unit, what in (
            (Scale("s1"), ScaleUnit, "channels"), (ArgMax("s1"), ArgMaxUnit, "elements"),
            (PiecewiseLinear("s1"), PiecewiseLinearUnit, "channels"),
            (Saturate("s1"), SaturateUnit, "channels"), (Add("s1"), AddUnit, "channels")):
        edges = [edge] * node.READS[0]
        with pytest.raises(N2uqError, match=f"^s1: PE must divide the 10 {what}, not {pe}$"):
            unit(node, *edges, infer(node, *edges), pe=pe)
