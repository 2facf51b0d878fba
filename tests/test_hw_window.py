# amaranth: UnusedElaboratable=no
"""PadUnit and SlidingWindowUnit against the golden model, and their timing."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import ArrayLike
from units import SCENARIOS, Bench, Case, case, edge_of

from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.window import PadUnit, SlidingWindowUnit
from n2uq_hw.ir import Pad, SlidingWindow, infer

Pair = tuple[int, int]


def window(kernel: Pair, stride: Pair, shape: tuple[int, int, int], lanes: int,
           lo: int = 0, hi: int = 3) -> Case:
    (kh, kw), (sh, sw), (height, width, channels) = kernel, stride, shape
    node = SlidingWindow(f"k{kh}x{kw}_s{sh}x{sw}_of_{height}x{width}x{channels}_by{lanes}",
                         kernel=kernel, stride=stride)
    edge = edge_of(shape, lo, hi)
    return case(node, edge, lambda out: SlidingWindowUnit(node, edge, lanes=lanes), 4)


def pad(frame: tuple[int, int, int, int], values: ArrayLike, shape: tuple[int, int, int],
        lanes: int, lo: ArrayLike = 0, hi: ArrayLike = 3) -> Case:
    node = Pad("_".join(map(str, ("pad", *frame, "of", *shape, "by", lanes, "with", np.size(values),
                                  np.sum(np.abs(values))))),
               frame=frame, values=np.array(values, np.int64))
    edge = edge_of(shape, lo, hi)
    return case(node, edge, lambda out: PadUnit(node, edge, out, lanes=lanes))


def windows() -> list[Case]:
    found = [
        window((1, 1), (1, 1), (1, 1, 1), 1), window((1, 1), (1, 1), (5, 6, 4), 2),
        window((1, 1), (2, 2), (7, 8, 3), 3), window((1, 1), (1, 3), (4, 8, 2), 1, -4, 3),
        window((1, 3), (1, 1), (4, 7, 2), 1), window((1, 3), (1, 3), (4, 9, 4), 2),
        window((3, 1), (1, 1), (5, 4, 2), 2, -1, 0), window((3, 1), (3, 1), (9, 4, 2), 2),
        window((3, 3), (1, 1), (3, 3, 2), 1), window((3, 3), (1, 1), (6, 7, 4), 1, -128, 127),
        window((3, 3), (1, 1), (6, 7, 4), 2, 0, 255), window((3, 3), (1, 1), (6, 7, 4), 4),
        window((3, 3), (2, 2), (7, 9, 2), 1), window((3, 3), (2, 2), (8, 10, 2), 1),
        window((3, 3), (1, 2), (7, 8, 2), 2), window((3, 3), (2, 1), (7, 8, 2), 2),
        window((3, 3), (3, 3), (11, 10, 2), 1), window((2, 2), (2, 2), (8, 8, 2), 1, 0, 1),
        window((2, 2), (2, 2), (9, 9, 2), 2), window((2, 2), (3, 3), (9, 9, 1), 1),
        window((5, 5), (1, 1), (9, 8, 1), 1), window((5, 5), (2, 3), (11, 12, 2), 2),
        window((7, 7), (1, 1), (7, 7, 2), 1), window((7, 7), (2, 2), (13, 12, 1), 1)]
    for seed in range(14):  # whatever fits
        rng = np.random.default_rng(seed)
        height, width = (int(v) for v in rng.integers(1, 13, 2))
        kernel = (int(rng.integers(1, min(height, 6) + 1)), int(rng.integers(1, min(width, 6) + 1)))
        sh, sw, groups = (int(v) for v in rng.integers(1, 5, 3))
        found.append(window(kernel, (sh, sw), (height, width, 2 * groups), 2))
    return found


def pads() -> list[Case]:
    return [
        pad((1, 1, 1, 1), [0], (3, 4, 2), 1), pad((1, 1, 1, 1), [0], (3, 4, 2), 2),
        pad((2, 0, 0, 3), [2], (2, 3, 1), 1), pad((0, 3, 1, 0), [-5], (2, 3, 6), 3),
        pad((0, 1, 2, 0), [1, -2, 3, -4, 5, -6], (3, 2, 6), 1),
        pad((1, 0, 0, 1), [1, -2, 3, -4, 5, -6], (3, 2, 6), 2, -8, 7),
        pad((3, 3, 3, 3), [9, 8, 7, 6], (1, 1, 4), 4), pad((0, 0, 0, 0), [3], (3, 2, 2), 1),
        pad((0, 0, 1, 1), [0], (4, 1, 1), 1, -1, 0), pad((1, 2, 0, 0), [200], (1, 5, 2), 1, -3, 2),
        pad((1, 1, 1, 1), [7, 7, 7], (2, 2, 3), 1, [-9, 2, 0], [-1, 5, 0])]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(windows() + pads(), tmp_path_factory)


@pytest.mark.parametrize("source,sink,resets", SCENARIOS)
def test_bit_exact(bench: Bench, source: float, sink: float, resets: tuple[int, ...]) -> None:
    bench.run(source, sink, resets)


def test_stream_rules(bench: Bench) -> None:
    bench.check_rules()


def test_pad_timing(bench: Bench) -> None:
    for c in pads():
        given, made = bench.timing[c.name]
        (count, height, width, _), (top, bottom, left, right) = c.images.shape, c.unit.node.frame
        inside = np.zeros((count, top + height + bottom, left + width + right, c.unit.groups), bool)
        inside[:, top:top + height, left:left + width] = True
        assert np.array_equal(given, np.flatnonzero(inside)), c.name
        assert np.array_equal(made, np.arange(len(made))), c.name


def test_window_timing(bench: Bench) -> None:
    for c in windows():
        given, made = bench.timing[c.name]
        unit, (height, width, _) = c.unit, c.images.shape[1:]
        (kh, kw), (sh, sw), words = unit.node.kernel, unit.node.stride, unit.groups
        rows, columns = (height - kh) // sh + 1, (width - kw) // sw + 1

        # The first window: a word leaves 2 cycles after it came, one per cycle.
        at = (np.arange(kh)[:, None] * width * words + np.arange(kw * words)).reshape(-1)
        expected = [2]
        for taken in given[at[1:]]:
            expected.append(max(expected[-1] + 1, taken + 2))
        assert made[:len(at)].tolist() == expected, c.name

        # All images: their cycles are what the docstring says.
        depth = ((kh + sh - 2) * width + kw) * words + 1
        rest = (height * width - (rows - 1) * sh * width - (columns - 1) * sw) * words
        wait = max(0, rest + (kh - 1) * (width - kw) * words + 1 - depth)
        per_image = rows * columns * kh * kw * words
        cycles = max(height * width * words, per_image + wait)
        assert (np.diff(made[per_image - 1::per_image]) == cycles).all(), c.name


def test_window_at_stride_1_waits_for_its_first_rows(bench: Bench) -> None:
    _, made = bench.timing["k3x3_s1x1_of_6x7x4_by2"]
    beats = 4 * 5 * 9 * 2
    assert np.diff(made[beats - 1::beats]).tolist() == [beats + (3 - 1) * (7 - 3) * 2] * 3


@pytest.mark.parametrize("lanes", [0, 3, 8])
def test_bad_folding(lanes: int) -> None:
    edge, padded = edge_of((5, 5, 4), 0, 3), Pad("conv1", frame=(1, 1, 1, 1))
    message = f"^conv1: lanes must divide the 4 channels, not {lanes}$"
    with pytest.raises(N2uqError, match=message):
        PadUnit(padded, edge, infer(padded, edge), lanes=lanes)
    with pytest.raises(N2uqError, match=message):
        SlidingWindowUnit(SlidingWindow("conv1", kernel=(3, 3)), edge, lanes=lanes)
