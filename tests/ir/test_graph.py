"""The IR: widths, exact ranges by brute force, what is legal, and files that are not."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import check_full_disk, faults_of_damage
from safetensors.numpy import save_file

from n2uq_hw.errors import N2uqError
from n2uq_hw.files import load_arrays
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
    bits_for,
    dump,
    golden,
    infer,
    load_graph,
    weight_bits,
)
from n2uq_hw.ir.graph import FORMAT
from n2uq_hw.lowering.lower import lower
from n2uq_hw.nets import find_net, shipped


def array(*values: Any, dtype: type = np.int64) -> np.ndarray:
    return np.array(values, dtype)


def chain(*nodes: Node, name: str = "g", **source: Any) -> Graph:
    """An Input named x, then `nodes`, each reading the one before it, and what it names itself."""
    linked: list[Node] = [Input("x", **source)]
    for node in nodes:
        inputs = (linked[-1].name, *node.inputs)
        linked.append(type(node)(**{**node.__dict__, "inputs": inputs}))
    return Graph(name, tuple(linked))


EVERY = chain(
    Pad("pad", frame=(1, 0, 2, 1), values=array(3, -1)),
    SlidingWindow("window", kernel=(2, 2), stride=(1, 2)),
    DepthwiseMatVec("dw", weights=array([1, -3], [3, 1], [-1, 1], [5, -7])),
    Threshold("steps", thresholds=array([-4, 2, 9], [0, 0, 5]),
              signs=array([-1, 1, 1], [1, 1, 0], dtype=np.int8), base=array(1, -2)),
    Permute("order", order=array(1, 0)), Upsample("up", factor=(2, 2)),
    SlidingWindow("down", stride=(2, 2)), Permute("twice", order=array(0, 1, 0, 1, 1, 0, 1, 1)),
    DepthToSpace("blocks", block=2), SlidingWindow("again", stride=(2, 2)),
    WidthConvert("wide", lanes=2), Fifo("fifo", depth=4),
    SlidingWindow("window2", kernel=(2, 2), stride=(2, 2)), MaxPool("peak", positions=4),
    Flatten("flat"), SumPool("sums", positions=2),
    MatVec("fc", weights=array([1, -1], [3, -3], [-1, -1], dtype=np.int8)),
    Scale("scale", multiplier=array(5, -3, 0), offset=array(2, 2, 9), shift=2, clip=(-9, 40)),
    Fork("fork", ways=2),
    PiecewiseLinear("bend", turn=array(0, 3, -2), shift=2, offset=array([1, 2, 3], [0, -4, 5]),
                    multiplier=array([-1, 3, 2], [4, 4, 4])),
    Add("sum", ("fork",)), Saturate("held", lo=-30, hi=25), Concat("beside", ("fork",)),
    ArgMax("top"),
    shape=(3, 5, 2), lo=-2, hi=5)


# --- Widths and edges ---------------------------------------------------------------------------


def test_bits_for_is_the_narrowest_width() -> None:
    for lo in range(-70, 71):
        for hi in range(lo, 71):
            signed = lo < 0
            width = next(w for w in range(1, 9)
                         if (-(1 << w - 1) <= lo and hi < 1 << w - 1 if signed else hi < 1 << w))
            assert bits_for(lo, hi) == (width, signed), (lo, hi)
    assert bits_for(-2**61, 2**61 - 1) == (62, True)
    assert bits_for(0, 2**62) == (63, False)
    assert bits_for(np.int64(-1), np.int64(0)) == (1, True)


@pytest.mark.parametrize("lo,hi,width,signed,dtype", [
    ([0, 0], [1, 127], 7, False, np.int8), ([0, 0], [0, 0], 1, False, np.int8),
    ([0, 0], [255, 3], 8, False, np.uint8), ([0], [256], 9, False, np.int16),
    ([-1, 5], [0, 200], 9, True, np.int16), ([-129], [0], 9, True, np.int16),
    ([0], [2**15], 16, False, np.uint16), ([0], [2**16], 17, False, np.int32),
    ([-2**31], [2**31 - 1], 32, True, np.int32), ([0], [2**31], 32, False, np.int64),
])
def test_edge(lo: list, hi: list, width: int, signed: bool, dtype: type) -> None:
    edge = Edge((4, 3, len(lo)), np.array(lo), np.array(hi))
    assert (edge.width, edge.signed, edge.dtype) == (width, signed, np.dtype(dtype))
    assert (edge.size, edge.channels) == (12 * len(lo), len(lo))


# --- Exact ranges -------------------------------------------------------------------------------


def check_exact(node: Node, *edges: Edge) -> None:
    """`infer` gives exactly the values at its ends that all inputs on `edges` give."""
    lo, hi = (np.concatenate([np.broadcast_to(getattr(edge, end), edge.shape).reshape(-1)
                              for edge in edges]) for end in ("lo", "hi"))
    x = np.array(list(itertools.product(*(range(a, b + 1) for a, b in zip(lo, hi, strict=True)))))
    parts = np.split(x, np.cumsum([edge.size for edge in edges])[:-1], axis=1)
    out = golden.evaluate(node, edges, *(part.reshape(-1, *edge.shape) for part, edge in
                                         zip(parts, edges, strict=True)))
    inferred = infer(node, *edges)
    assert out.shape[1:] == inferred.shape
    values = out.reshape(-1, inferred.channels).astype(np.int64)
    ends = np.broadcast_arrays(inferred.lo, inferred.hi, np.zeros(inferred.channels))
    assert values.min(axis=0).tolist() == ends[0].tolist(), node
    assert values.max(axis=0).tolist() == ends[1].tolist(), node


@pytest.mark.parametrize("seed", range(30))
def test_ranges_are_reached_and_never_exceeded(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def edge(height: int, width: int, channels: int, spread: int) -> Edge:
        lo = rng.integers(-4, 5, channels)
        return Edge((height, width, channels), lo, lo + rng.integers(0, spread + 1, channels))

    check_exact(MatVec("n", weights=rng.integers(-3, 4, (3, 4))), edge(1, 1, 4, 4))
    check_exact(DepthwiseMatVec("n", weights=rng.integers(-3, 4, (2, 2))), edge(1, 1, 4, 4))
    check_exact(MaxPool("n", positions=2), edge(1, 1, 4, 4))
    check_exact(SumPool("n", positions=2), edge(1, 1, 4, 4))
    check_exact(ArgMax("n"), edge(1, 1, 4, 4))
    check_exact(Flatten("n"), edge(1, 2, 2, 3))
    check_exact(Fifo("n"), edge(1, 2, 1, 3))
    check_exact(Fork("n"), edge(1, 2, 1, 3))
    check_exact(WidthConvert("n", lanes=1), edge(1, 2, 1, 3))
    check_exact(Add("n"), edge(1, 1, 2, 3), edge(1, 1, 2, 3))
    check_exact(Upsample("n", factor=(1, 2)), edge(1, 2, 2, 3))
    check_exact(DepthToSpace("n", block=(2, (1, 2))[seed // 2 % 2], mode=("DCR", "CRD")[seed % 2]),
                edge(1, 1, 4, 4))
    check_exact(Permute("n", order=rng.integers(0, 3, 4)), edge(1, 1, 3, 4))
    check_exact(SlidingWindow("n", kernel=(1, 2), dilation=(1, 2), groups=2), edge(1, 3, 2, 2))
    check_exact(MatVec("n", weights=rng.integers(-3, 4, (4, 2)), groups=2), edge(1, 1, 4, 4))
    check_exact(Concat("n"), edge(1, 1, 2, 3), edge(1, 1, 1, 3), edge(1, 1, 1, 3))
    lo, hi = np.sort(rng.integers(-6, 10, 2)).tolist()
    check_exact(Saturate("n", lo=lo, hi=hi), edge(1, 1, 3, 6))
    check_exact(SlidingWindow("n", kernel=(1, 2)), edge(1, 3, 1, 3))
    check_exact(Pad("n", frame=tuple(rng.integers(0, 3, 4).tolist()),
                    values=rng.integers(-9, 10, int(rng.choice([1, 2])))), edge(1, 2, 2, 3))
    channels = int(rng.choice([1, 3]))
    check_exact(Scale("n", multiplier=rng.integers(-9, 10, channels),
                      offset=rng.integers(-99, 99, channels), shift=int(rng.integers(0, 5))),
                edge(1, 1, 3, 6))
    check_exact(Scale("n", multiplier=rng.integers(-9, 10, channels), clip=(lo, hi),
                      offset=rng.integers(-9, 9, channels), shift=1), edge(1, 1, 3, 6))
    check_exact(Scale("n", multiplier=rng.integers(-9, 10, channels), ties="even",
                      offset=rng.integers(-99, 99, channels), shift=int(rng.integers(0, 5))),
                edge(1, 1, 3, 6))
    check_exact(PiecewiseLinear("n", turn=rng.integers(-6, 12, channels), shift=1,
                                multiplier=rng.integers(-9, 10, (2, channels)),
                                offset=rng.integers(-99, 99, (2, channels))), edge(1, 1, 3, 6))
    check_exact(Threshold("n", thresholds=rng.integers(-6, 12, (channels, 5)),
                          signs=rng.integers(-1, 2, (channels, 5)).astype(np.int8),
                          base=rng.integers(-3, 3, int(rng.choice([1, channels])))),
                edge(1, 1, 3, 6))


def test_argmax_counts_only_channels_that_can_win() -> None:
    # Channel 0 never exceeds channel 1's lowest value; channel 3 can only tie and comes later.
    edge = infer(ArgMax("n"), Edge((1, 1, 4), array(0, 5, 0, 0), array(4, 5, 9, 5)))
    assert (edge.lo.tolist(), edge.hi.tolist()) == ([1], [2])


# --- Legal graphs -------------------------------------------------------------------------------


def test_every_kind_is_in_a_legal_graph() -> None:
    assert EVERY.verify() is EVERY
    assert {type(node) for node in EVERY.nodes} == set(Node.KINDS.values())
    assert EVERY.input.name == "x" and EVERY.output == "top" and EVERY["dw"].name == "dw"
    assert EVERY.reads(EVERY["fc"])[0] is EVERY.edges["sums"]


STEPS = {"thresholds": np.zeros((2, 1), np.int64), "signs": np.ones((2, 1), np.int8),
         "base": np.zeros(2, np.int64)}
WIDE = {"shape": (1, 1, 2), "lo": -2**60, "hi": 2**60}
VECTOR = {"shape": (1, 1, 2), "lo": 0, "hi": 3}


@pytest.mark.parametrize("graph,message", [
    (Graph("g", ()), "g: exactly one Input must come first"),
    (Graph("g", (Input("x"), Input("y"))), "g: exactly one Input must come first"),
    (Graph("g", (Fifo("f", ("x",)), Input("x"))), "g: exactly one Input must come first"),
    (Graph(" a", (Input("x"),)), " a: names must be text that prints, not ' a'"),
    (Graph("g", (Input("x\n"),)), r"g: names must be text that prints, not 'x\\n'"),
    (Graph("g", (Input(""),)), "g: names must be text that prints, not ''"),
    (Graph("g", (Input(3),)), "g: names must be text that prints, not 3"),
    (Graph("g", (Input("x"),), []), "g: meta must be a dict, not list"),
    (chain(Fifo("x")), "g: node names must be unique, not x twice"),
    (Graph("g", (Input("x"), Fifo("f"))), r"g: exactly one node must be the output, not \['x', "),
    (Graph("g", (Input("x"), Fifo("a", ("x",)), Fifo("b", ("x",)))),
     r"g: exactly one node must be the output, not \['a', 'b'\]"),
    (Graph("g", (Input("x"), Fifo("a", ("b",)), Fifo("b", ("x",)))),
     "g: node a must read an earlier node, not b"),
    (Graph("g", (Input("x"), Fifo("a", ("x", "x")))), "g: Fifo a: must read 1 edges, not 2"),
    (Graph("g", (Input("x", ("x",)),)), "g: exactly one node must be the output"),
    (chain(shape=(1, 0, 1)), r"g: Input x: must have positive sizes and lo <= hi, not \(1, 0, 1\)"),
    (chain(shape=(1, -2, 1)), "g: Input x: must have positive sizes"),
    (chain(lo=4, hi=3), r"g: Input x: .* 4\.\.3"),
    (chain(shape=(2**13, 2**13, 2)), "g: Input x: an image must have at most 67108864 elements"),
    (chain(lo=0, hi=2**61), "g: Input x: values must fit 62 bits"),
    (chain(hi=2**70), r"g: hi of x must be int, not 1180591620717411303424"),
    (chain(hi=True), "g: hi of x must be int, not True"),
    (chain(hi=2.0), r"g: hi of x must be int, not 2\.0"),
    (chain(shape="abc"), "g: shape of x must be tuple.*, not 'abc'"),
    (chain(shape=(1, 1)), r"g: shape of x must be tuple\[int, int, int\], not \(1, 1\)"),
    (chain(shape=(1, 1, "1")), "g: shape of x must be tuple"),
    (Graph("g", (Input("x", inputs=[]),)), "g: inputs of x must be tuple"),
    (chain(Pad("p", frame=(1, 1, 1))), "g: frame of p must be tuple.*, not"),
    (chain(Pad("p", frame=(1, 1, -1, 1))), "g: Pad p: the frame must not be negative"),
    (chain(Pad("p", values=array(1, 2))), r"g: Pad p: values must be \[1\] or \[1\], not"),
    (chain(Pad("p", values=np.zeros(1))), r"g: values of p must be an integer array, not float64"),
    (chain(Pad("p", values=np.array(1))), r"g: Pad p: values must be .* not \[\]"),
    (chain(Pad("p", values=[0])), r"g: values of p must be an integer array, not \[0\]"),
    (chain(Pad("p", values=array(2**62))), "g: Pad p: values must fit 62 bits"),
    (chain(Pad("p", frame=(2**40, 0, 0, 0))), "g: Pad p: an image must have at most"),
    (chain(SlidingWindow("w", kernel=(2, 1))), "g: SlidingWindow w: kernel 2×1 .* the 1×1 image"),
    (chain(SlidingWindow("w", kernel=(0, 1))), "g: SlidingWindow w: kernel 0×1"),
    (chain(SlidingWindow("w", stride=(1, 0))), "g: SlidingWindow w: kernel 1×1 with stride 1×0"),
    (chain(SlidingWindow("w", kernel=(2000, 2000)), shape=(4000, 4000, 1)),
     "g: SlidingWindow w: an image must have at most"),
    (chain(MatVec("m", weights=np.ones((2, 3), np.int8))),
     r"g: MatVec m: weights must be \[N, 1\], not \[2, 3\]"),
    (chain(MatVec("m", weights=np.ones(1, np.int8))), "g: MatVec m: weights must be"),
    (chain(MatVec("m", weights=np.ones((0, 1), np.int8))), "g: MatVec m: weights must be"),
    (chain(MatVec("m", weights=np.ones((1, 1), np.float32))), "g: weights of m must be an integer"),
    (chain(MatVec("m", weights=np.ones((1, 1), bool))), "g: weights of m must be an integer"),
    (chain(MatVec("m", weights=np.ones((1, 1), np.uint64))), "g: weights of m must be an integer"),
    (chain(MatVec("m", weights=np.full((1, 2), 8)), **WIDE), "g: MatVec m: values must fit 62"),
    (chain(MatVec("m", weights=array([-2**63, 0])), **VECTOR), "g: MatVec m: values must fit 62"),
    (chain(MatVec("m", weights=np.ones((2**14, 1), np.int8)), shape=(2**7, 2**7, 1)),
     "g: MatVec m: an image must have at most"),
    (chain(DepthwiseMatVec("m", weights=np.ones((3, 1), np.int8)), **VECTOR),
     r"g: DepthwiseMatVec m: weights must be \[P, C\] with P·C = 2, not \[3, 1\]"),
    (chain(DepthwiseMatVec("m", weights=np.full((2, 1), 8)), **WIDE), "m: values must fit 62"),
    (chain(Threshold("t", **{**STEPS, "base": np.zeros(3, int)}), **VECTOR),
     r"g: Threshold t: base must be \[1\] or \[2\], not \[3\]"),
    (chain(Threshold("t", **{**STEPS, "signs": np.ones((2, 2), np.int8)}), **VECTOR),
     r"g: Threshold t: thresholds and signs must both be .* not \[2, 1\] and \[2, 2\]"),
    (chain(Threshold("t", **{**STEPS, "signs": np.full((2, 1), 2, np.int8)}), **VECTOR),
     "g: Threshold t: signs must be -1, 0 or 1"),
    (chain(Threshold("t", **STEPS), shape=(1, 1, 3)), r"g: Threshold t: base must be \[1\] or \[3"),
    (chain(Threshold("t", **{**STEPS, "base": array(2**62, 0)}), **VECTOR), "t: values must fit 6"),
    (chain(Scale("s", shift=-1)), r"g: Scale s: shift must be in 0\.\.62, not -1"),
    (chain(Scale("s", shift=63)), r"g: Scale s: shift must be in 0\.\.62, not 63"),
    (chain(Scale("s", shift="1")), "g: shift of s must be int, not '1'"),
    (chain(Scale("s", multiplier=array(1, 2))), "g: Scale s: multiplier must be"),
    (chain(Scale("s", multiplier=array(8)), **WIDE), "g: Scale s: values must fit 62 bits"),
    (chain(Scale("s", clip=(1,))), r"g: Scale s: clip must be \(\) or \(lo, hi\) .* not \(1,\)"),
    (chain(Scale("s", clip=(3, 2))), r"g: Scale s: clip must be .* with lo <= hi, not \(3, 2\)"),
    (chain(Scale("s", ties="odd")), "g: Scale s: ties must be floor or even, not 'odd'"),
    (chain(Scale("s", clip=(0, "6"))), r"g: clip of s must be tuple\[int, \.\.\.\], not"),
    (chain(PiecewiseLinear("l", turn=array(1, 2))), r"g: PiecewiseLinear l: turn must be \[1\] or"),
    (chain(PiecewiseLinear("l", multiplier=array(1, 2))),
     r"g: PiecewiseLinear l: multiplier must be \[2, 1\] or \[2, 1\], not \[2\]"),
    (chain(PiecewiseLinear("l", offset=np.zeros((2, 3), int)), **VECTOR),
     r"g: PiecewiseLinear l: offset must be \[2, 1\] or \[2, 2\], not \[2, 3\]"),
    (chain(PiecewiseLinear("l", shift=63)), r"l: shift must be in 0\.\.62, not 63"),
    (chain(PiecewiseLinear("l", turn=array(2**62))), "g: PiecewiseLinear l: values must fit 62"),
    (chain(PiecewiseLinear("l", multiplier=array([1], [8])), **WIDE), "l: values must fit 62 bits"),
    (chain(Add("a")), "g: Add a: must read 2 edges, not 1"),
    (chain(Pad("p", frame=(1, 0, 0, 0)), Add("a", ("x",))),
     r"g: Add a: must read two equal shapes, not \(2, 1, 1\) and \(1, 1, 1\)"),
    (chain(Upsample("u", factor=(0, 1))),
     r"g: Upsample u: factors must be positive, not \(0, 1\)"),
    (chain(DepthToSpace("d", block=2)),
     "g: DepthToSpace d: the pixels of a block must divide the 1 channels, not 2×2"),
    (chain(DepthToSpace("d", mode="X")), "g: DepthToSpace d: mode must be DCR or CRD, not 'X'"),
    (chain(Permute("p", order=array(0, 1))),
     r"g: Permute p: order must be \[C\] of channels 0..0, not \[2\] of 0..1"),
    (chain(SlidingWindow("w", kernel=(1, 1), groups=2)),
     "g: SlidingWindow w: groups must divide the 1 channels, not 2"),
    (chain(SlidingWindow("w", kernel=(2, 1), dilation=(2, 1)), shape=(2, 2, 1)),
     "g: SlidingWindow w: kernel 2×1 with stride 1×1, dilation 2×1 must fit the 2×2 image"),
    (chain(MatVec("m", weights=array([1], [1], [1]), groups=2), shape=(1, 1, 2)),
     "g: MatVec m: groups must divide the 3 outputs, not 2"),
    (chain(Concat("c")), "g: Concat c: must read 2 to 1024 edges, not 1"),
    (chain(Pad("p", frame=(1, 0, 0, 0)), Concat("c", ("x",))),
     r"g: Concat c: must read images of one size, not \(2, 1, 1\), \(1, 1, 1\)"),
    (chain(Add("a", ("x",)), Add("b", ("x",)), **WIDE), "g: Add a: values must fit 62 bits"),
    (chain(Saturate("c", lo=2, hi=1)), r"g: Saturate c: lo must not exceed hi, not 2\.\.1"),
    (chain(Fork("f", ways=0)), "g: Fork f: ways must be positive, not 0"),
    (chain(MaxPool("p", positions=0)), "g: MaxPool p: 0 positions must divide the window of 1"),
    (chain(SumPool("p", positions=3), **VECTOR), "g: SumPool p: 3 positions must divide the wind"),
    (chain(SumPool("p", positions=2), **WIDE), "g: SumPool p: values must fit 62 bits"),
    (chain(ArgMax("a"), shape=(2, 1, 3)), "g: ArgMax a: must read one vector, not an image"),
    (chain(Fifo("f", depth=0)), "g: Fifo f: depth must be positive, not 0"),
    (chain(WidthConvert("w", lanes=3)), "g: WidthConvert w: 3 lanes must divide the 1 elements"),
    (chain(WidthConvert("w", lanes=0)), "g: WidthConvert w: 0 lanes must divide"),
])
def test_illegal_graphs(graph: Graph, message: str) -> None:
    with pytest.raises(N2uqError, match=message) as caught:
        graph.verify()
    assert "\n" not in str(caught.value)


def test_with_nodes_verifies() -> None:
    with pytest.raises(N2uqError, match="exactly one Input"):
        EVERY.with_nodes(EVERY.nodes[1:])
    assert EVERY.with_nodes(EVERY.nodes[:4]).output == "dw"


# --- Files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("graph", [EVERY, *map(lower, map(find_net, shipped()))],
                         ids=lambda graph: graph.name)
def test_round_trip(graph: Graph, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    graph.save(one)
    again = load_graph(one)
    again.save(two)
    assert one.read_bytes() == two.read_bytes()
    assert dump(again) == dump(graph) and again.meta == graph.meta
    for a, b in zip(graph.nodes, again.nodes, strict=True):
        assert type(a) is type(b)
        for key, value in a.__dict__.items():
            other = b.__dict__[key]
            np.testing.assert_array_equal(value, other)
            assert type(value) is type(other)
            assert not isinstance(value, np.ndarray) or value.dtype == other.dtype
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]
    images = np.random.default_rng(0).integers(graph.input.lo, graph.input.hi + 1,
                                               (3, *graph.input.shape))
    assert golden.run(again, images).tolist() == golden.run(graph, images).tolist()


def test_a_later_field_is_in_the_file_where_it_is_no_default(tmp_path: Path) -> None:
    """Files of before hold no `ties`, and are the same bytes as ever."""
    for ties in ("floor", "even"):
        chain(Scale("s", shift=1, ties=ties)).save(path := tmp_path / ties)
        assert (b"ties" in path.read_bytes()) == (ties == "even")
        assert load_graph(path)["s"].ties == ties
        assert ("ties" in dump(load_graph(path))) == (ties == "even")


def test_dump() -> None:
    assert dump(EVERY).splitlines()[:4] == [
        "graph g",
        "  x                = Input() : [3, 5, 2] in -2..5, 4 bits signed",
        "  pad              = Pad(x, frame=(1, 0, 2, 1), values=[2]) : [4, 8, 2] in -2..5, 4 bits "
        "signed",
        "  window           = SlidingWindow(pad, kernel=(2, 2), stride=(1, 2)) : [3, 4, 8] "
        "in -2..5, 4 bits signed"]
    assert dump(EVERY).count("\n") == len(EVERY.nodes) + 1
    assert "  sum              = Add(bend, fork) : [1, 1, 3] in " in dump(EVERY)
    assert "  top              = ArgMax(beside) : [1, 1, 1] in 0.." in dump(EVERY)


Change = Callable[[dict[str, Any], dict[str, np.ndarray]], object]


def row(described: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in described["nodes"] if row["name"] == name)


@pytest.mark.parametrize("change,message", [
    (lambda d, a: d.update(format=1), f"n2uq-ir format must be {FORMAT}, not 1"),
    (lambda d, a: d.pop("format"), f"n2uq-ir format must be {FORMAT}, not None"),
    (lambda d, a: d.pop("nodes"), "malformed n2uq-ir description: KeyError"),
    (lambda d, a: d.pop("meta"), "malformed n2uq-ir description: KeyError"),
    (lambda d, a: d.update(nodes=3), "malformed n2uq-ir description: TypeError"),
    (lambda d, a: d.update(nodes=["x"]), "malformed n2uq-ir description: TypeError"),
    (lambda d, a: d.update(nodes=[[]]), "malformed n2uq-ir description: TypeError"),
    (lambda d, a: d.update(nodes=[]), "of no node|exactly one Input"),
    (lambda d, a: d.update(name=None), "names must be text that prints, not None"),
    (lambda d, a: d.update(meta=[1]), "meta must be a dict, not list"),
    (lambda d, a: row(d, "pad").update(kind="Exec"), "node pad must be one of Input, .*, not Exec"),
    (lambda d, a: row(d, "pad").update(kind=["Pad"]), "malformed n2uq-ir description: TypeError"),
    (lambda d, a: row(d, "pad").update(kind="MatVec"), "weights of pad is missing"),
    (lambda d, a: row(d, "pad").update(extra=1), "malformed n2uq-ir description: TypeError"),
    (lambda d, a: row(d, "pad").pop("frame"), "frame of pad is missing"),
    (lambda d, a: row(d, "pad").pop("inputs"), "inputs of pad is missing"),
    (lambda d, a: row(d, "pad").update(name={}), "values of {} is missing"),
    (lambda d, a: row(d, "pad").update(frame="1234"), "frame of pad must be tuple"),
    (lambda d, a: row(d, "pad").update(frame=[1, 2, 3]), r"frame of pad must be tuple.* \(1, 2, 3"),
    (lambda d, a: row(d, "pad").update(frame=[1, 0, [2], 1]), "frame of pad must be tuple"),
    (lambda d, a: row(d, "pad").update(frame={"a": 1}), "frame of pad must be tuple"),
    (lambda d, a: row(d, "pad").update(values=[0]), "values of pad must be an integer array"),
    (lambda d, a: row(d, "pad").update(inputs=[["x"]]), "inputs of pad must be tuple"),
    (lambda d, a: row(d, "pad").update(inputs="x"), "inputs of pad must be tuple"),
    (lambda d, a: row(d, "scale").update(shift="2"), "shift of scale must be int, not '2'"),
    (lambda d, a: row(d, "scale").update(shift=2.5), "shift of scale must be int"),
    (lambda d, a: row(d, "scale").update(shift=None), "shift of scale must be int"),
    (lambda d, a: row(d, "scale").update(shift=10**400), "shift of scale must be int"),
    (lambda d, a: row(d, "peak").update(positions=-4), "-4 positions must divide"),
    (lambda d, a: row(d, "x").update(shape=[-1, 5, 2]), "must have positive sizes"),
    (lambda d, a: row(d, "x").update(shape=[10**9, 10**9, 2]), "must have at most 67108864"),
    (lambda d, a: row(d, "pad").update(frame=[10**18, 0, 0, 0]), "must have at most 67108864"),
    (lambda d, a: row(d, "x").update(hi=10**30), "hi of x must be int"),
    (lambda d, a: a.pop("fc.weights"), "weights of fc is missing"),
    (lambda d, a: a.update({"fc.bias": array(1)}), "array fc.bias is of no node"),
    (lambda d, a: a.update({"fc.weights": np.ones((3, 2))}), "weights of fc must be an integer"),
    (lambda d, a: a.update({"fc.weights": np.ones((3, 2), np.float16)}), "weights of fc must be"),
    (lambda d, a: a.update({"fc.weights": np.ones((3, 2), bool)}), "weights of fc must be"),
    (lambda d, a: a.update({"fc.weights": np.ones((3, 0), int)}), "weights must be"),
    (lambda d, a: a.update({"steps.signs": array([7])}), "thresholds and signs must both be"),
    (lambda d, a: a.update({"steps.base": np.zeros((2, 2), int)}), "base must be"),
])
def test_faulty_files(change: Change, message: str, tmp_path: Path) -> None:
    path = tmp_path / "graph.safetensors"
    EVERY.save(path)
    arrays, described = load_arrays(path, "n2uq-ir", FORMAT)
    change(described, arrays)
    save_file(arrays, path, metadata={"n2uq-ir": json.dumps(described)})
    check_fault(path, message)


def check_fault(path: Path, message: str) -> None:
    with pytest.raises(N2uqError, match=message) as caught:
        load_graph(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("text,message", [
    ("{", "must be JSON"), ("[]", "must be an object, not list"), ("3", "must be an object"),
    ("[" * 100000, "must be JSON"), ("null", "must be an object, not NoneType"),
])
def test_malformed_json(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "graph.safetensors"
    save_file({"a": array(1)}, path, metadata={"n2uq-ir": text})
    check_fault(path, message)


def test_foreign_and_truncated_files(tmp_path: Path) -> None:
    path = tmp_path / "graph.safetensors"
    check_fault(path, "no such file")
    check_fault(tmp_path, "must be a file, and is a folder")
    EVERY.save(path)
    whole = path.read_bytes()
    for size in (0, 7, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        check_fault(path, "not a whole safetensors file")
    path.write_bytes(b"\xff" * 64)
    check_fault(path, "not a whole safetensors file")
    path.write_text("a: 1\n")
    check_fault(path, "not a whole safetensors file")
    save_file({"a": array(1)}, path)
    check_fault(path, "holds no n2uq-ir description")
    find_net("digits_mlp_w2a2").save(path)
    check_fault(path, "holds no n2uq-ir description")


def test_random_damage_is_an_error_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "graph.safetensors"
    EVERY.save(path)
    assert faults_of_damage(path, load_graph) > 100


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "graph.safetensors"
    check_full_disk(path, EVERY.save, monkeypatch)
    with pytest.raises(N2uqError, match="cannot be written"):
        Graph("g", EVERY.nodes, {"path": path}).save(path)  # no JSON
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("weights,bits", [
    ([[1, -1]], 1), ([[1, -3]], 2), ([[3, 3]], 2), ([[7, 1]], 3), ([[-255, 255]], 8),
    ([[0, 1]], 1), ([[-2, 1]], 2), ([[4, 4]], 1), ([[-8, 7]], 4)])
def test_weight_bits_by_hand(weights: list, bits: int) -> None:
    assert weight_bits(np.array(weights)) == bits
