# amaranth: UnusedElaboratable=no
"""PadUnit and SlidingWindowUnit against the golden model, and their timing."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import ArrayLike
from units import Bench, Case, bit_exact, case, edge_of, stream_rules

from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.pad import PadUnit
from n2uq_hw.hw.sliding_window import SlidingWindowUnit
from n2uq_hw.ir import Pad, SlidingWindow, infer

Pair = tuple[int, int]


def window(kernel: Pair, stride: Pair, shape: tuple[int, int, int], lanes: int,
           lo: int = 0, hi: int = 3, dilation: Pair = (1, 1), groups: int = 1) -> Case:
    (kh, kw), (sh, sw), (height, width, channels) = kernel, stride, shape
    more = "" if dilation == (1, 1) and groups == 1 else "_d{}x{}_g{}".format(*dilation, groups)
    node = SlidingWindow(f"k{kh}x{kw}_s{sh}x{sw}_of_{height}x{width}x{channels}_by{lanes}{more}",
                         kernel=kernel, stride=stride, dilation=dilation, groups=groups)
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
    units = [
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
        window((7, 7), (1, 1), (7, 7, 2), 1), window((7, 7), (2, 2), (13, 12, 1), 1),
        # Whole rows of the kernel.
        window((1, 3), (1, 1), (4, 7, 2), 6), window((1, 2), (2, 3), (5, 8, 1), 2, -4, 3),
        window((3, 3), (1, 1), (3, 3, 2), 6), window((3, 3), (1, 1), (6, 7, 4), 12, -128, 127),
        window((3, 3), (2, 2), (7, 9, 2), 6), window((3, 2), (3, 3), (11, 10, 2), 4),
        window((3, 3), (1, 4), (6, 11, 1), 3), window((2, 2), (2, 2), (8, 8, 1), 2, 0, 1),
        window((2, 5), (1, 1), (5, 11, 1), 5), window((7, 7), (2, 2), (13, 12, 3), 21, 0, 255),
        # Whole windows; images as wide as a pixel, as small as a window, with rows to spare.
        window((3, 1), (1, 1), (5, 4, 2), 6, -1, 0), window((2, 1), (1, 1), (6, 1, 3), 6),
        window((3, 1), (2, 1), (8, 1, 1), 3, -4, 3), window((3, 3), (1, 1), (3, 3, 2), 18),
        window((3, 3), (1, 1), (10, 10, 1), 9, 0, 15), window((3, 3), (1, 1), (6, 7, 4), 36, -9, 9),
        window((2, 2), (2, 2), (8, 8, 3), 12), window((3, 3), (2, 2), (8, 10, 2), 18),
        window((3, 2), (3, 3), (11, 10, 2), 12), window((2, 2), (4, 1), (9, 5, 1), 4),
        window((5, 4), (1, 2), (9, 11, 1), 20), window((7, 7), (2, 2), (13, 12, 3), 147, 0, 255)]
    for seed in range(26):  # whatever fits
        rng = np.random.default_rng(seed)
        height, width = (int(v) for v in rng.integers(1, 13, 2))
        kernel = (int(rng.integers(1, min(height, 6) + 1)), int(rng.integers(1, min(width, 6) + 1)))
        sh, sw, groups = (int(v) for v in rng.integers(1, 5, 3))
        row = 2 * groups * kernel[1]
        lanes = 2 if seed < 14 else row if seed < 20 else row * kernel[0]
        units.append(window(kernel, (sh, sw), (height, width, 2 * groups), lanes))
    return units


def spread() -> list[Case]:
    """With dilation and groups, one-dimensional, of every way to give windows."""
    units = [
        window((10, 4), (1, 2), (13, 9, 1), 1), window((10, 4), (1, 2), (12, 8, 2), 8),
        window((3, 3), (1, 1), (7, 8, 2), 1, dilation=(2, 2)),
        window((3, 3), (1, 1), (7, 8, 2), 2, -4, 3, dilation=(3, 2)),
        window((2, 3), (2, 1), (8, 9, 2), 2, dilation=(1, 4)),
        window((3, 2), (1, 2), (8, 5, 4), 2, dilation=(2, 1)),
        window((3, 3), (1, 1), (5, 5, 2), 2, dilation=(2, 2)),   # one window
        window((1, 4), (1, 2), (1, 20, 3), 3, dilation=(1, 3)),  # of one dimension
        window((1, 4), (1, 2), (1, 20, 3), 12, -9, 9, dilation=(1, 3)),
        window((1, 1), (1, 1), (3, 4, 2), 1, dilation=(5, 5)),   # which changes nothing
        window((3, 2), (1, 1), (7, 6, 2), 4, dilation=(2, 3)),   # a row of the kernel
        window((3, 3), (2, 2), (9, 9, 1), 3, dilation=(2, 2)),
        window((3, 2), (1, 1), (7, 6, 2), 12, dilation=(2, 3)),  # all of it
        window((2, 2), (3, 2), (9, 9, 3), 12, -9, 9, dilation=(4, 1)),
        window((3, 3), (1, 1), (6, 7, 4), 1, groups=2),
        window((3, 3), (1, 1), (6, 7, 4), 2, groups=2),
        window((3, 3), (1, 1), (6, 7, 4), 1, groups=4),
        window((3, 3), (2, 2), (7, 9, 6), 1, -128, 127, groups=3),
        window((2, 3), (3, 1), (9, 5, 6), 2, groups=3),
        window((3, 3), (1, 1), (6, 7, 4), 36, groups=2),
        window((3, 3), (1, 2), (6, 7, 4), 36, groups=4),
        window((1, 3), (1, 1), (1, 9, 6), 3, groups=2),
        window((1, 1), (1, 1), (3, 4, 6), 2, groups=3),
        window((1, 3), (1, 1), (2, 9, 6), 18, groups=3),
        window((3, 2), (1, 1), (8, 7, 4), 2, dilation=(2, 3), groups=2),
        window((3, 2), (2, 2), (8, 7, 4), 24, dilation=(2, 3), groups=2)]
    for seed in range(16):
        rng = np.random.default_rng(seed)
        groups, of_group, dh, dw = (int(v) for v in rng.integers(1, 4, 4))
        kernel = tuple(int(v) for v in rng.integers(1, 4, 2))
        shape = (*(int((k - 1) * d + 1 + rng.integers(0, 5)) for k, d in
                   zip(kernel, (dh, dw), strict=True)), groups * of_group)
        whole = seed % 3 == 0 and kernel != (1, 1)
        lanes = kernel[0] * kernel[1] * groups * of_group if whole else of_group
        units.append(window(kernel, tuple(int(v) for v in rng.integers(1, 4, 2)), shape, lanes,
                            dilation=(dh, dw), groups=groups))
    return units


def way(c: Case) -> str:
    """Whether a beat is a part of a pixel, a whole row of the kernel, or a whole window."""
    i, o = (port.payload.shape().length for port in (c.unit.i, c.unit.o))
    kh, kw = c.unit.node.kernel
    return WINDOWS if i == o else WHOLE if o == kh * kw * i else ROWS


def pads() -> list[Case]:
    return [
        pad((1, 1, 1, 1), [0], (3, 4, 2), 1), pad((1, 1, 1, 1), [0], (3, 4, 2), 2),
        pad((2, 0, 0, 3), [2], (2, 3, 1), 1), pad((0, 3, 1, 0), [-5], (2, 3, 6), 3),
        pad((0, 1, 2, 0), [1, -2, 3, -4, 5, -6], (3, 2, 6), 1),
        pad((1, 0, 0, 1), [1, -2, 3, -4, 5, -6], (3, 2, 6), 2, -8, 7),
        pad((3, 3, 3, 3), [9, 8, 7, 6], (1, 1, 4), 4), pad((0, 0, 0, 0), [3], (3, 2, 2), 1),
        pad((0, 0, 1, 1), [0], (4, 1, 1), 1, -1, 0), pad((1, 2, 0, 0), [200], (1, 5, 2), 1, -3, 2),
        pad((1, 1, 1, 1), [7, 7, 7], (2, 2, 3), 1, [-9, 2, 0], [-1, 5, 0])]


WINDOWS, ROWS, WHOLE, PADS = "windows", "windows in rows", "whole windows", "pads"
SPREAD = "dilated and grouped windows"
CASES = {**{kind: [c for c in windows() if way(c) == kind] for kind in (WINDOWS, ROWS, WHOLE)},
         SPREAD: spread(), PADS: pads()}


@pytest.fixture(scope="module", params=CASES)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(CASES[request.param], tmp_path_factory)


test_bit_exact, test_stream_rules = bit_exact, stream_rules


@pytest.mark.parametrize("bench", [PADS], indirect=True)
def test_pad_timing(bench: Bench) -> None:
    for c in bench.cases.values():
        accepted, emitted = bench.timing[c.name]
        (count, height, width, _), (top, bottom, left, right) = c.images.shape, c.unit.node.frame
        inside = np.zeros((count, top + height + bottom, left + width + right, c.unit.groups), bool)
        inside[:, top:top + height, left:left + width] = True
        assert np.array_equal(accepted, np.flatnonzero(inside)), c.name
        assert np.array_equal(emitted, np.arange(len(emitted))), c.name


@pytest.mark.parametrize("bench", [WINDOWS, ROWS], indirect=True)
def test_window_timing(bench: Bench) -> None:
    for c in bench.cases.values():
        accepted, emitted = bench.timing[c.name]
        (height, width, channels), (kh, kw), (sh, sw) = (
            c.images.shape[1:], c.unit.node.kernel, c.unit.node.stride)
        rows, columns = (height - kh) // sh + 1, (width - kw) // sw + 1
        wide, words = way(c) == ROWS, channels // c.unit.i.payload.shape().length

        # The first window: a beat leaves 2 or 3 cycles after its last word came, one per cycle.
        of_row = [kw - 1] if wide else np.arange(kw * words)
        at = (np.arange(kh)[:, None] * width * words + of_row).reshape(-1)
        expected = [-1]
        for taken in accepted[at]:
            expected.append(max(expected[-1] + 1, taken + 2 + wide))
        assert emitted[:len(at)].tolist() == expected[1:], c.name

        # All images: their cycles are what the docstring says.
        per_image = rows * columns * kh * (1 if wide else kw * words)
        if wide:
            beat = (kh + sh - 2) * columns + 2 - (
                (height - (rows - 1) * sh) * columns - (columns - 1))  # D - J
            row, column = np.divmod([beat, (kh - 1) * columns], columns)
            wait = max(0, int(np.diff(row * width + column * sw)[0]) + 2 - kh)
        else:
            depth = ((kh + sh - 2) * width + kw) * words + 1
            rest = (height * width - (rows - 1) * sh * width - (columns - 1) * sw) * words
            wait = max(0, rest + (kh - 1) * (width - kw) * words + 1 - depth)
        cycles = max(height * width * words, per_image + wait)
        if not wide or kw <= kh:
            assert (np.diff(emitted[per_image - 1::per_image]) == cycles).all(), c.name


@pytest.mark.parametrize("bench", [WHOLE], indirect=True)
def test_whole_windows_leave_a_cycle_after_their_last_pixel(bench: Bench) -> None:
    """Also those of the next image, which follows without a gap."""
    for c in bench.cases.values():
        accepted, emitted = bench.timing[c.name]
        (count, height, width, _), (kh, kw), (sh, sw) = (
            c.images.shape, c.unit.node.kernel, c.unit.node.stride)
        last = np.zeros((count, height, width), bool)
        last[:, kh - 1::sh, kw - 1::sw] = True
        assert np.array_equal(accepted, np.arange(count * height * width)), c.name
        assert np.array_equal(emitted, np.flatnonzero(last) + 1), c.name


@pytest.mark.parametrize("bench,name,beats,wait", [
    (WINDOWS, "k3x3_s1x1_of_6x7x4_by2", 4 * 5 * 9 * 2, (3 - 1) * (7 - 3) * 2),
    (ROWS, "k3x3_s1x1_of_6x7x4_by12", 4 * 5 * 3, (3 - 1) * (7 - 1))], indirect=["bench"])
def test_window_at_stride_1_waits_for_its_first_rows(bench: Bench, name: str, beats: int,
                                                     wait: int) -> None:
    _, emitted = bench.timing[name]
    assert np.diff(emitted[beats - 1::beats]).tolist() == [beats + wait] * 3


@pytest.mark.parametrize("lanes", [0, 3, 6, 8])
def test_bad_folding(lanes: int) -> None:
    edge, padded = edge_of((5, 5, 4), 0, 3), Pad("conv1", frame=(1, 1, 1, 1))
    message = f"^conv1: lanes must divide the 4 channels, not {lanes}$"
    with pytest.raises(N2uqError, match=message):
        PadUnit(padded, edge, infer(padded, edge), lanes=lanes)
    with pytest.raises(N2uqError, match=message):
        SlidingWindowUnit(SlidingWindow("conv1", kernel=(3, 3)), edge, lanes=lanes)
