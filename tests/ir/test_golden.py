"""Each node's golden function against SciPy, torch or a slow loop, at awkward values."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from scipy import signal

from n2uq_hw.errors import N2uqError
from n2uq_hw.ir import (
    Add,
    ArgMax,
    Concat,
    DepthToSpace,
    DepthwiseMatVec,
    Edge,
    Fifo,
    Flatten,
    Fork,
    Graph,
    Input,
    MatVec,
    MaxPool,
    Node,
    Pad,
    Permute,
    PiecewiseLinear,
    Saturate,
    Scale,
    SlidingWindow,
    SumPool,
    Threshold,
    Upsample,
    WidthConvert,
    golden,
    infer,
)
from n2uq_hw.ir.golden import evaluate, exact_float
from n2uq_hw.lowering.lower import lower
from n2uq_hw.nets import find_net

# Ranges around the ends of every type that the golden model may choose.
SPANS = [(0, 3), (-3, 2), (0, 127), (-128, 127), (0, 255), (-200, 100), (0, 2**16),
         (-2**31, 2**31 - 1), (0, 2**31), (-2**40, 2**40), (-2**54, 2**54)]


def drawn(rng: np.random.Generator, shape: tuple[int, ...], lo: int, hi: int
          ) -> tuple[np.ndarray, tuple[Edge]]:
    """Images in lo..hi, both ends among them, in the edge's own type, and the edge."""
    x = rng.integers(lo, hi + 1, (3, *shape))
    x.reshape(-1)[:2] = lo, hi
    edge = Edge(shape, np.full(shape[2], lo), np.full(shape[2], hi))
    return x.astype(edge.dtype), (edge,)


def same(node: Node, edges: tuple[Edge, ...], x: np.ndarray, expected: Any,
         *more: np.ndarray) -> None:
    got = evaluate(node, edges, x, *more)
    assert got.dtype.kind in "iu"
    assert got.astype(object).tolist() == np.asarray(expected).astype(object).tolist()


spans = pytest.mark.parametrize("lo,hi", SPANS)


@spans
def test_pad(lo: int, hi: int) -> None:
    x, edges = drawn(np.random.default_rng(0), (2, 3, 2), lo, hi)
    for values in ([0, 0], [lo - 1, hi + 1], [5]):
        expected = np.empty((3, 2 + 3, 3 + 5, 2), object)
        expected[:] = values
        expected[:, 1:3, 3:6] = x
        same(Pad("n", frame=(1, 2, 3, 2), values=np.array(values)), edges, x, expected)


@pytest.mark.parametrize("kernel", [(1, 1), (2, 3), (3, 2)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 1), (1, 3)])
def test_sliding_window(kernel: tuple[int, int], stride: tuple[int, int]) -> None:
    x, edges = drawn(np.random.default_rng(0), (5, 6, 2), -200, 100)
    (kh, kw), (sh, sw) = kernel, stride
    expected = [[[[int(image[y + ky, z + kx, c]) for ky in range(kh) for kx in range(kw)
                   for c in range(2)] for z in range(0, 6 - kw + 1, sw)]
                 for y in range(0, 5 - kh + 1, sh)] for image in x]
    same(SlidingWindow("n", kernel=kernel, stride=stride), edges, x, expected)


def test_upsample_and_blocks_against_torch() -> None:
    x, edges = drawn(np.random.default_rng(19), (3, 4, 18), -50, 90)
    theirs = torch.from_numpy(x.transpose(0, 3, 1, 2).astype(np.float64))
    for factor in ((2, 2), (3, 1), (1, 4)):
        expected = torch.nn.functional.interpolate(theirs, scale_factor=factor, mode="nearest")
        same(Upsample("n", factor=factor), edges, x, expected.permute(0, 2, 3, 1).long().tolist())
    shuffled = torch.nn.functional.pixel_shuffle(theirs, 3).permute(0, 2, 3, 1).long()
    same(DepthToSpace("n", block=3, mode="CRD"), edges, x, shuffled.tolist())
    expected = [[[[int(image[y // 3, z // 3, (y % 3 * 3 + z % 3) * 2 + c]) for c in range(2)]
                  for z in range(12)] for y in range(9)] for image in x]
    same(DepthToSpace("n", block=3, mode="DCR"), edges, x, expected)
    for mode, place in (("DCR", lambda row, column, c: (row * 3 + column) * 3 + c),
                        ("CRD", lambda row, column, c: (c * 2 + row) * 3 + column)):
        expected = [[[[int(image[y // 2, z // 3, place(y % 2, z % 3, c)]) for c in range(3)]
                      for z in range(12)] for y in range(6)] for image in x]
        same(DepthToSpace("n", block=(2, 3), mode=mode), edges, x, expected)


def test_permute_against_torch() -> None:
    x, edges = drawn(np.random.default_rng(20), (3, 4, 12), -50, 90)
    theirs = torch.nn.functional.channel_shuffle(
        torch.from_numpy(x.transpose(0, 3, 1, 2).astype(np.float64)), 3)
    order = np.arange(12).reshape(3, 4).T.reshape(-1)
    same(Permute("n", order=order), edges, x, theirs.permute(0, 2, 3, 1).long().tolist())
    same(Permute("n", order=np.array([7, 7, 0])), edges, x, x[..., [7, 7, 0]])


@spans
def test_matvec(lo: int, hi: int) -> None:
    rng = np.random.default_rng(1)
    x, edges = drawn(rng, (2, 2, 5), lo, hi)
    w = rng.integers(-3, 4, (4, 5))
    same(MatVec("n", weights=w), edges, x, x.astype(object) @ w.T.astype(object))


@pytest.mark.parametrize("kernel,stride,dilation,groups,padding", [
    ((3, 3), (1, 1), (2, 2), 1, (0, 0, 0, 0)), ((3, 2), (2, 1), (1, 3), 2, (1, 0, 2, 1)),
    ((3, 3), (2, 2), (1, 1), 6, (1, 1, 1, 1)), ((1, 5), (1, 2), (1, 2), 3, (0, 0, 4, 3)),
    ((10, 4), (1, 2), (1, 1), 1, (4, 5, 1, 1)), ((1, 1), (1, 1), (1, 1), 3, (0, 0, 0, 0))])
def test_convolution_of_any_kind_against_torch(
        kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int], groups: int,
        padding: tuple[int, int, int, int]) -> None:
    """Grouped, dilated, of any shape; twice as many outputs as inputs: depth multipliers too."""
    rng = np.random.default_rng(22)
    x, edges = drawn(rng, (7, 12, 6), -50, 90)
    w = rng.integers(-7, 8, (12, *kernel, 6 // groups))
    nodes = (Pad("p", frame=padding),
             SlidingWindow("w", kernel=kernel, stride=stride, dilation=dilation, groups=groups),
             MatVec("n", weights=w.reshape(12, -1), groups=groups))
    got = x
    for node in nodes:
        got, edges = evaluate(node, edges, got), (infer(node, *edges),)
    assert (got.min(axis=(0, 1, 2)) >= edges[0].lo).all()
    assert (got.max(axis=(0, 1, 2)) <= edges[0].hi).all()
    top, bottom, left, right = padding
    theirs = torch.nn.functional.conv2d(
        torch.nn.functional.pad(torch.from_numpy(x.transpose(0, 3, 1, 2).astype(np.float64)),
                                (left, right, top, bottom)),
        torch.from_numpy(w.transpose(0, 3, 1, 2).astype(np.float64)), stride=stride,
        dilation=dilation, groups=groups)
    assert got.transpose(0, 3, 1, 2).tolist() == theirs.long().tolist()


@pytest.mark.parametrize("power,dtype", [(24, np.float32), (53, np.float64), (60, np.int64)])
@pytest.mark.parametrize("off", [-2, -1, 0, 1, 2])
def test_matvec_at_the_ends_of_exact_floats(power: int, dtype: type, off: int) -> None:
    """Sums right at 2^24 and 2^53: floats there would lose the last bit."""
    total = 2**power + off
    # Odd weights whose sum of magnitudes is `total`; the first is large, the rest fill up.
    w = np.array([[total - 5, 2, 3], [-(total - 5), -2, -3], [total - 5, -2, 3]], np.int64)
    x = np.array([[1, 1, 1], [-1, -1, -1], [1, 0, 1], [1, -1, 0]], np.int8).reshape(4, 1, 1, 3)
    edges = (Edge((1, 1, 3), np.full(3, -1), np.full(3, 1)),)
    same(MatVec("n", weights=w), edges, x, x.astype(object) @ w.T.astype(object))
    wider = {24: np.float64, 53: np.int64, 60: np.int64}[power]
    assert exact_float(total) == (dtype if off < 0 else wider)


def test_matvec_of_many_small_products_at_2_to_the_24() -> None:
    # 255·255·258 = 16776450 is below 2^24; one input more is not.
    for inputs in (258, 259):
        w = np.full((2, inputs), 255, np.int16)
        w[1, ::2] = -255
        x = np.full((1, 1, 1, inputs), 255, np.uint8)
        edges = (Edge((1, 1, inputs), np.zeros(inputs, int), np.full(inputs, 255)),)
        same(MatVec("n", weights=w), edges, x, [[[[255 * 255 * inputs, -65025 * (inputs % 2)]]]])


def test_convolution_against_scipy_and_torch() -> None:
    rng = np.random.default_rng(2)
    x, edges = drawn(rng, (6, 7, 3), -50, 90)
    w = rng.integers(-7, 8, (4, 3, 2, 3))  # [O, ky, kx, c], as the stream has it
    window = SlidingWindow("w", kernel=(3, 2), stride=(1, 1))
    vectors = evaluate(window, edges, x)
    edge = Edge(vectors.shape[1:], np.full(18, -50), np.full(18, 90))
    got = evaluate(MatVec("n", weights=w.reshape(4, 18)), (edge,), vectors)
    for image, out in zip(x.astype(np.int64), got, strict=True):
        for o in range(4):
            expected = sum(signal.correlate2d(image[..., c], w[o, ..., c], "valid")
                           for c in range(3))
            assert out[..., o].tolist() == expected.tolist()
    theirs = torch.nn.functional.conv2d(
        torch.from_numpy(x.transpose(0, 3, 1, 2).astype(np.float64)),
        torch.from_numpy(w.transpose(0, 3, 1, 2).astype(np.float64)))
    assert got.transpose(0, 3, 1, 2).tolist() == theirs.long().tolist()


@spans
def test_depthwise(lo: int, hi: int) -> None:
    rng = np.random.default_rng(3)
    x, edges = drawn(rng, (2, 3, 8), lo, hi)
    w = rng.integers(-9, 10, (4, 2))
    expected = (x.astype(object).reshape(3, 2, 3, 4, 2) * w).sum(axis=3)
    same(DepthwiseMatVec("n", weights=w.astype(np.int8)), edges, x, expected)


def test_depthwise_against_torch() -> None:
    rng = np.random.default_rng(4)
    x, edges = drawn(rng, (5, 6, 3), 0, 15)
    w = rng.integers(-15, 16, (3, 3, 3))  # (ky, kx, c)
    vectors = evaluate(SlidingWindow("w", kernel=(3, 3), stride=(2, 2)), edges, x)
    edge = Edge(vectors.shape[1:], np.zeros(27, int), np.full(27, 15))
    got = evaluate(DepthwiseMatVec("n", weights=w.reshape(9, 3)), (edge,), vectors)
    theirs = torch.nn.functional.conv2d(
        torch.from_numpy(x.transpose(0, 3, 1, 2).astype(np.float64)),
        torch.from_numpy(w.transpose(2, 0, 1)[:, None].astype(np.float64)), stride=2, groups=3)
    assert got.transpose(0, 3, 1, 2).tolist() == theirs.long().tolist()


@spans
@pytest.mark.parametrize("rows", [1, 3])
def test_threshold(lo: int, hi: int, rows: int) -> None:
    rng = np.random.default_rng(5)
    x, edges = drawn(rng, (2, 4, 3), lo, hi)
    for steps, bases in ((0, (0, 1)), (4, (-3, 4)), (4, (120, 131)), (130, (0, 1)), (3, (2**40,))):
        at = rng.integers(max(lo - 3, -2**60), hi + 4, (rows, steps))
        if steps:
            at[0, :3] = lo, hi, hi + 1
            at[-1, -1] = x[0, 0, 0, rows - 1]  # hit exactly
        signs = rng.integers(-1, 2, (rows, steps)).astype(np.int8)
        base = rng.choice(bases, int(rng.choice([1, rows])))
        node = Threshold("n", thresholds=at, signs=signs, base=base)
        expected = np.empty(x.shape, object)
        for index in np.ndindex(x.shape):
            c = index[3] if rows > 1 else 0
            expected[index] = int(base[c if len(base) > 1 else 0]) + sum(
                int(s) for t, s in zip(at[c], signs[c], strict=True) if int(x[index]) >= int(t))
        same(node, edges, x, expected)


@spans
@pytest.mark.parametrize("shift", [0, 3, 20])
def test_scale_floors(lo: int, hi: int, shift: int) -> None:
    x, edges = drawn(np.random.default_rng(6), (1, 2, 3), lo, hi)
    m, c = np.array([3, -5, 0]), np.array([1 << shift >> 1, -7, 2**30])
    expected = [[[[(int(v) * int(a) + int(b)) // 2**shift
                   for v, a, b in zip(pixel, m, c, strict=True)]
                  for pixel in line] for line in image] for image in x]
    same(Scale("n", multiplier=m, offset=c, shift=shift), edges, x, expected)
    for low, high in ((0, 6), (-3, -3), (-2**50, 2**20)):
        held = [[[[min(max(v, low), high) for v in pixel] for pixel in line] for line in image]
                for image in expected]
        same(Scale("n", multiplier=m, offset=c, shift=shift, clip=(low, high)), edges, x, held)


@spans
@pytest.mark.parametrize("shift", [0, 1, 3, 20])
def test_scale_rounds_half_to_even(lo: int, hi: int, shift: int) -> None:
    x, edges = drawn(np.random.default_rng(6), (2, 2, 3), lo, hi)
    m, c = np.array([2, -5, 0]), np.array([1 << shift >> 1, 4, 2**30])
    expected = [[[[round(Fraction(int(v) * int(a) + int(b), 2**shift))  # Python's own
                   for v, a, b in zip(pixel, m, c, strict=True)]
                  for pixel in line] for line in image] for image in x]
    same(Scale("n", multiplier=m, offset=c, shift=shift, ties="even"), edges, x, expected)


def test_clip_against_torch() -> None:
    x, edges = drawn(np.random.default_rng(10), (3, 4, 2), -300, 300)
    node = Scale("n", multiplier=np.array([3]), shift=4, offset=np.array([8]), clip=(0, 6 * 4))
    theirs = torch.nn.functional.relu6(torch.floor(
        (torch.from_numpy(x.astype(np.float64)) * 3 + 8) / 16) / 4) * 4
    same(node, edges, x, theirs.long().tolist())


@spans
@pytest.mark.parametrize("shift", [0, 3, 20])
@pytest.mark.parametrize("rows", [1, 3])
def test_piecewise_linear(lo: int, hi: int, shift: int, rows: int) -> None:
    rng = np.random.default_rng(11)
    x, edges = drawn(rng, (2, 3, 3), lo, hi)
    turn = np.array([int(x[0, 0, 1, 0]), lo, hi + 1])[:rows]  # one is hit exactly
    m, c = rng.integers(-5, 6, (2, rows)), rng.integers(-2**30, 2**30, (2, rows))
    expected = np.empty(x.shape, object)
    for index in np.ndindex(x.shape):
        k, v = index[3] % rows, int(x[index])
        s = 1 if v >= int(turn[k]) else 0
        expected[index] = (v * int(m[s, k]) + int(c[s, k])) // 2**shift
    same(PiecewiseLinear("n", turn=turn, multiplier=m, offset=c, shift=shift), edges, x, expected)


def test_prelu_between_biases_against_torch() -> None:
    """In 4 fraction bits and slopes of 6, all of them exact in floats."""
    rng = np.random.default_rng(12)
    x, edges = drawn(rng, (4, 5, 3), -200, 200)
    before, after = rng.integers(-50, 50, (2, 3))
    slope = np.array([-5, 16, 0])  # of 64
    node = PiecewiseLinear("n", turn=-before, shift=6, multiplier=np.stack([slope, [64] * 3]),
                           offset=np.stack([before * slope, before * 64]) + after * 64)
    real = torch.from_numpy(x.transpose(0, 3, 1, 2) / 16)
    bias = [torch.from_numpy(values / 16)[:, None, None] for values in (before, after)]
    theirs = torch.nn.functional.prelu(real + bias[0], torch.from_numpy(slope / 64)) + bias[1]
    same(node, edges, x, torch.floor(theirs * 16).long().permute(0, 2, 3, 1).tolist())


@spans
def test_add(lo: int, hi: int) -> None:
    rng = np.random.default_rng(13)
    (x, (a,)), (y, (b,)) = drawn(rng, (2, 3, 2), lo, hi), drawn(rng, (2, 3, 2), -hi, -lo)
    same(Add("n"), (a, b), x, x.astype(object) + y, y)
    same(Add("n"), (a, a), x, x.astype(object) * 2, x)


@spans
def test_concat(lo: int, hi: int) -> None:
    rng = np.random.default_rng(18)
    (x, (a,)), (y, (b,)), (z, (c,)) = (
        drawn(rng, (2, 3, channels), *ends) for channels, ends in (
            (2, (lo, hi)), (1, (-hi, -lo)), (3, (0, 9))))
    expected = [[[[*p, *q, *r] for p, q, r in zip(*rows, strict=True)]
                 for rows in zip(*images, strict=True)]
                for images in zip(x.tolist(), y.tolist(), z.tolist(), strict=True)]
    same(Concat("n"), (a, b, c), x, expected, y, z)


@spans
def test_saturate(lo: int, hi: int) -> None:
    x, edges = drawn(np.random.default_rng(14), (2, 3, 2), lo, hi)
    for low, high in ((lo, hi), (lo + 1, hi - 1), (hi, hi), (lo, lo), (lo - 9, hi - 1),
                      (lo + 1, hi + 9), (-2**60, 2**60)):
        expected = [min(max(int(v), low), high) for v in x.reshape(-1)]
        same(Saturate("n", lo=low, hi=high), edges, x, np.reshape(expected, x.shape))


@spans
def test_pools(lo: int, hi: int) -> None:
    x, edges = drawn(np.random.default_rng(7), (2, 2, 12), lo, hi)
    for positions in (1, 4, 12):
        parts = x.astype(object).reshape(3, 2, 2, positions, -1)
        same(MaxPool("n", positions=positions), edges, x, parts.max(axis=3))
        same(SumPool("n", positions=positions), edges, x, parts.sum(axis=3))


def test_max_pool_against_torch() -> None:
    x, edges = drawn(np.random.default_rng(8), (7, 8, 2), -8, 7)
    vectors = evaluate(SlidingWindow("w", kernel=(3, 3), stride=(2, 2)), edges, x)
    edge = Edge(vectors.shape[1:], np.full(18, -8), np.full(18, 7))
    theirs = torch.nn.functional.max_pool2d(
        torch.from_numpy(x.transpose(0, 3, 1, 2).astype(np.float64)), 3, 2)
    got = evaluate(MaxPool("n", positions=9), (edge,), vectors)
    assert got.transpose(0, 3, 1, 2).tolist() == theirs.long().tolist()


def test_argmax_takes_the_first_of_equals() -> None:
    x = np.array([[3, 7, 7, -1], [-5, -5, -5, -5], [0, 1, 2, 3], [-9, -8, -8, -9]], np.int8)
    edges = (Edge((1, 1, 4), np.full(4, -9), np.full(4, 7)),)
    same(ArgMax("n"), edges, x.reshape(4, 1, 1, 4), np.reshape([1, 0, 3, 1], (4, 1, 1, 1)))


@spans
def test_identities_and_flatten(lo: int, hi: int) -> None:
    x, edges = drawn(np.random.default_rng(9), (2, 3, 2), lo, hi)
    same(Fifo("n"), edges, x, x)
    same(Fork("n", ways=3), edges, x, x)
    same(WidthConvert("n", lanes=2), edges, x, x)
    same(Flatten("n"), edges, x, [[[[v for row in image for pixel in row for v in pixel]]]
                                  for image in x.tolist()])


def test_exact_float() -> None:
    assert [exact_float(2**24 - 1), exact_float(2**24)] == [np.float32, np.float64]
    assert [exact_float(2**53 - 1), exact_float(2**53)] == [np.float64, np.int64]


def test_a_node_without_golden_is_an_error() -> None:
    with pytest.raises(N2uqError, match="no golden model for Node"):
        evaluate(Node("n"), ())


# --- Whole graphs -------------------------------------------------------------------------------

GRAPH = lower(find_net("digits_cnn_w2a2"))


def images(n: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 17, (n, 8, 8, 1))


@pytest.mark.parametrize("n", [0, 1, golden.BATCH, golden.BATCH + 1, 3 * golden.BATCH])
def test_batches_make_no_difference(n: int) -> None:
    done: list[int] = []
    x = images(n)
    out = golden.run(GRAPH, x, done.append)
    assert out.shape == (n, 1, 1, 10) and out.dtype == GRAPH.edges["logits"].dtype
    every = golden.run_all(GRAPH, x)
    assert list(every) == [node.name for node in GRAPH.nodes]
    np.testing.assert_array_equal(out, every["logits"])
    for name, values in every.items():
        edge = GRAPH.edges[name]
        assert values.dtype == edge.dtype and values.shape == (n, *edge.shape)
        assert (values >= edge.lo).all() and (values <= edge.hi).all()
    assert done[-1] == n and max(np.diff([0, *done])) <= golden.BATCH


def test_an_interrupt_leaves_the_rest_undone() -> None:
    begun = []

    def count(graph: Graph, portion: np.ndarray) -> np.ndarray:
        begun.append(len(portion))
        return portion

    def interrupt(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(golden, "_last", count)
        patch.setattr(golden, "BATCH", 1)
        golden.run(GRAPH, images(5000), interrupt)
    assert len(begun) < 5000


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint64, np.int64])
def test_the_type_of_the_images_makes_no_difference(dtype: type) -> None:
    x = images(4)
    assert golden.run(GRAPH, x.astype(dtype)).tolist() == golden.run(GRAPH, x).tolist()
    assert golden.run(GRAPH, x[::-1][::-1].tolist()).tolist() == golden.run(GRAPH, x).tolist()


@pytest.mark.parametrize("change,message", [
    (lambda x: x[0], r"images of digits_cnn_w2a2 must be integers \[N, 8, 8, 1\], not int64 \[8, "),
    (lambda x: x.transpose(0, 3, 1, 2), r"must be integers \[N, 8, 8, 1\], not int64 \[2, 1, 8"),
    (lambda x: x[:, :7], r"not int64 \[2, 7, 8, 1\]"),
    (lambda x: x.astype(np.float32), "not float32"), (lambda x: x > 3, "not bool"),
    (lambda x: x + 8, r"must lie in 0\.\.16, not 8\.\.24"),
    (lambda x: x - 1, r"must lie in 0\.\.16, not -1\.\.15"),
    (lambda x: x.astype(np.uint64) + np.uint64(2**63), r"must lie in 0\.\.16, not 92233720368547"),
    (lambda x: x.astype(object), "not object"), (lambda x: "images", "must be integers"),
])
def test_images_are_checked(change: Callable[[np.ndarray], Any], message: str) -> None:
    x = images(2)
    x.reshape(-1)[:2] = 0, 16
    for runner in (golden.run, golden.run_all):
        with pytest.raises(N2uqError, match=message):
            runner(GRAPH, change(x))


def test_an_edge_may_be_the_output_of_an_input() -> None:
    graph = Graph("g", (Input("x", shape=(1, 2, 1), lo=-300, hi=3),)).verify()
    assert golden.run(graph, np.array([[[[-300], [3]]]])).tolist() == [[[[-300], [3]]]]


def test_saturate_far_from_the_narrow_type_of_its_input() -> None:
    graph = Graph("far", (Input("input", shape=(1, 1, 2), hi=7),
                          Saturate("held", ("input",), lo=1000, hi=2000)))
    assert golden.run(graph, np.array([[[[0, 7]]]])).reshape(-1).tolist() == [1000, 1000]
