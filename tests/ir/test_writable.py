"""Room for other parameters: ranges hold for all that fits, and what does not fit is named."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

import n2uq_hw as n2
from n2uq_hw.errors import N2uqError
from n2uq_hw.ir import (
    Graph,
    Input,
    MatVec,
    Node,
    PiecewiseLinear,
    Saturate,
    Scale,
    Threshold,
    adopt,
    golden,
    writable,
)


def trained(**other: Node) -> Graph:
    """Two layers and their quantizers; `other` takes the places of nodes, by name."""
    nodes = (
        Input("x", shape=(1, 1, 3), lo=-2, hi=5),
        MatVec("a", ("x",), np.array([[3, -1, 1], [1, 1, -3]], np.int8)),
        Threshold("q", ("a",), np.array([[-3, 0, 4], [-9, 1, 2]]), np.ones((2, 3), np.int8),
                  np.zeros(2, np.int64)),
        MatVec("b", ("q",), np.array([[-2, 5], [7, 0]], np.int8)),
        Scale("y", ("b",), np.array([5, 7]), np.array([-3, 9]), shift=2))
    return Graph("n", tuple(other.get(node.name, node) for node in nodes)).verify()


def random_like(graph: Graph, rng: np.random.Generator) -> Graph:
    """`graph` with any parameters that its room allows, the ends most often."""
    nodes = []
    for node in graph.nodes:
        new = node
        if isinstance(node, MatVec):
            bits, step, least = node.room
            codes = rng.choice([0, rng.integers(2**bits), 2**bits - 1], node.weights.shape)
            new = replace(node, weights=step * codes + least)
        elif isinstance(node, Scale):
            low, high, *offsets = node.room
            new = replace(node, multiplier=rng.choice([low, high], 2),
                          offset=rng.choice(offsets, 2))
        nodes.append(new)
    return graph.with_nodes(nodes)


def test_no_parameters_leave_the_ranges_and_some_reach_them() -> None:
    graph, rng = writable(trained(), "all"), np.random.default_rng(0)
    corners = np.stack(np.meshgrid(*[[-2, 5]] * 3), axis=-1).reshape(-1, 1, 1, 3)
    reached = {name: set[int]() for name in ("a", "b", "y")}
    for _ in range(400):
        values = golden.run_all(random_like(graph, rng), corners)
        for name, seen in reached.items():
            seen |= {int(values[name].min()), int(values[name].max())}
    for name, seen in reached.items():
        edge = graph.edges[name]
        assert edge.lo.min() <= min(seen) and max(seen) <= edge.hi.max()
    ends = graph.edges["a"]
    assert (min(reached["a"]), max(reached["a"])) == (ends.lo.min(), ends.hi.max()) == (-45, 45)
    assert (graph.edges["b"].lo[0], graph.edges["b"].hi[0]) == (-8 * 3 * 2, 7 * 3 * 2)


def test_the_trained_network_stays_what_it_was() -> None:
    graph = writable(trained(), "all")
    images = np.random.default_rng(1).integers(-2, 6, (50, 1, 1, 3))
    assert (golden.run(graph, images) == golden.run(trained(), images)).all()
    assert (golden.run(adopt(graph, trained()), images) == golden.run(trained(), images)).all()


def test_fewer_steps_and_a_smaller_shift_fit() -> None:
    other = trained(
        a=MatVec("a", ("x",), np.array([[3, 3, 1], [-1, 1, -3]], np.int8)),
        q=Threshold("q", ("a",), np.array([[2, 9, 9, 0]]), np.array([[1, 0, 0, 1]], np.int8),
                    np.ones(1, np.int64)),
        y=Scale("y", ("b",), np.array([3]), np.array([1]), shift=1))
    images = np.random.default_rng(1).integers(-2, 6, (50, 1, 1, 3))
    taken = adopt(writable(trained(), "all"), other)
    assert (golden.run(taken, images) == golden.run(other, images)).all()


FAULTS: dict[str, tuple[Node, str]] = {
    "bits": (MatVec("a", ("x",), np.array([[5, -1, 1], [1, 1, -3]])),
             "MatVec a: weights must be -3, -1, ... 3, not 5"),
    "parity": (MatVec("a", ("x",), np.array([[2, -1, 1], [1, 1, -3]])),
               "MatVec a: weights must be -3, -1, ... 3, not 2"),
    "steps": (Threshold("q", ("a",), np.array([[0, 1, 2, 3]] * 2), np.array([[1, 1, 1, -1]] * 2),
                        np.zeros(2, np.int64)),
              "q: must have at most 3 steps a channel, as built, not 4"),
    "results": (Threshold("q", ("a",), np.array([[-3, 0, 4]] * 2), np.ones((2, 3), np.int8),
                          np.ones(2, np.int64)), "Threshold q: results must be in 0..3, not 1..4"),
    "multiplier": (Scale("y", ("b",), np.array([5, 999]), np.array([-3, 9]), shift=2),
                   "Scale y: multipliers must be in "),
    "offset": (Scale("y", ("b",), np.array([5, 5]), np.array([-3, 9999]), shift=2),
               "Scale y: offsets must be in "),
    "shift": (Scale("y", ("b",), np.array([5, 7]), np.array([-3, 9]), shift=9),
              "y: shift must be at most "),
    "clip": (Scale("y", ("b",), np.array([5, 7]), np.array([-3, 9]), shift=2, clip=(0, 5)),
             "y: clip must be (), as built, not (0, 5)"),
    "kind": (Scale("q", ("a",), np.array([5, 7]), np.array([0, 0])),
             "q: must be a Threshold, as built, not a Scale"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_fit_is_named(fault: str) -> None:
    node, said = FAULTS[fault]
    with pytest.raises(N2uqError, match=re.escape(said)):
        adopt(writable(trained(), "all"), trained(**{node.name: node}))


@pytest.mark.parametrize(("what", "name"), [("weights", "q"), ("thresholds", "a")])
def test_what_is_not_written_must_not_differ(what: str, name: str) -> None:
    node = trained()[name]
    changed = (replace(node, thresholds=node.thresholds + 1) if isinstance(node, Threshold)
               else replace(node, weights=-node.weights) if isinstance(node, MatVec) else node)
    with pytest.raises(N2uqError, match=f"^{name}: .* must be as built"):
        adopt(writable(trained(), what), trained(**{name: changed}))


def test_what_can_be_asked_for() -> None:
    with pytest.raises(N2uqError, match=r"^writable must be one of weights, thresholds, all, not "):
        writable(trained(), "biases")
    with pytest.raises(N2uqError, match=r"^n: must not be writable yet"):
        writable(writable(trained(), "weights"), "thresholds")
    with pytest.raises(N2uqError, match=r"^p: must have weights to write, and has none"):
        writable(Graph("p", (Input("x"), Scale("y", ("x",)))).verify(), "weights")


def bent(slopes: list[list[int]], **other: Node) -> Graph:
    """Three channels on two lines each, of 4 fraction bits."""
    node = PiecewiseLinear("b", ("x",), np.array([0, -3, 9]), np.array(slopes),
                           np.array([[5, -20, 7], [0, 40, -9]]), shift=4)
    return Graph("n", (Input("x", shape=(1, 1, 3), lo=-30, hi=20), other.get("b", node))).verify()


def test_lines_bend_anywhere_with_slopes_of_their_room() -> None:
    """A line of slope 1 in all channels keeps it, others have the ends of room at any turn."""
    x = np.arange(-30, 21).reshape(-1, 1, 1, 1).repeat(3, axis=3)
    prelu, both = (writable(bent(slopes), "thresholds") for slopes in (
        [[3, -9, 5], [16] * 3], [[3, -9, 5], [16, 17, 31]]))
    assert isinstance(prelu["b"], PiecewiseLinear) and isinstance(both["b"], PiecewiseLinear)
    assert prelu["b"].room == (-16, 15, 16, 16, -128, 127)
    assert both["b"].room == (-16, 15, -32, 31, -128, 127)
    rng, reached = np.random.default_rng(0), set[int]()
    for _ in range(300):
        node = replace(both["b"], turn=rng.integers(-99, 99, 3), offset=rng.choice(
            [-128, 127], (2, 3)), multiplier=np.stack([rng.choice(ends, 3) for ends in (
                [-16, 15], [-32, 31])]))
        other = bent([], b=replace(node, room=()))
        results = golden.run(adopt(both, other), x)
        assert (results == golden.run(other, x)).all()
        reached |= {int(results.min()), int(results.max())}
    edge = both.edges["b"]
    assert (min(reached), max(reached)) == (edge.lo.min(), edge.hi.max())
    smaller = PiecewiseLinear("b", ("x",), np.array([7]), np.array([[1, -2, 3], [4] * 3]),
                              np.array([[1], [-2]]), shift=2)
    taken = adopt(prelu, bent([], b=smaller))
    assert (golden.run(taken, x) == golden.run(bent([], b=smaller), x)).all()
    for wrong, said in (([[3, 16, 5], [16] * 3], "lower multipliers must be in -16..15, not 3..16"),
                        ([[3, -9, 5], [16, 16, 15]], "upper multipliers must be in 16..16, not ")):
        with pytest.raises(N2uqError, match=f"n: PiecewiseLinear b: {said}"):
            adopt(prelu, bent(wrong))


def test_what_62_bits_would_not_hold_is_held() -> None:
    """A Saturate that changes nothing of what fits; what does not is named."""
    def graph(weights: list[int], multiplier: int, offset: int = 0) -> Graph:
        return Graph("n", (Input("x", shape=(1, 1, 4), lo=0, hi=2**30), MatVec(
            "fc", ("x",), np.array([weights])), Scale("y", ("fc",), np.array([multiplier]),
                                                      np.array([offset]), shift=24))).verify()

    trained = [5, -40, 0, 0]  # sums of 37 bits, and of 39 for all codes
    room = writable(graph(trained, 2**20), "all")
    held, scaled = room.nodes[2:]
    assert isinstance(held, Saturate) and (held.name, held.lo, held.hi) == (
        "fc_held", -2**37, 2**37 - 1)
    assert isinstance(scaled, Scale) and scaled.room[:2] == (0, 2**23 - 1)
    x = np.random.default_rng(0).integers(0, 2**30 + 1, (50, 1, 1, 4))
    for other in (graph(trained, 2**20), graph([63, -60, 1, 0], 2**21, -1)):
        assert (golden.run(adopt(room, other), x) == golden.run(other, x)).all()
    with pytest.raises(N2uqError, match=f"^fc: results must be in -{2**37}..{2**37 - 1}, as built"):
        adopt(room, graph([-64, -64, -1, 0], 2**20))
    narrow = writable(graph(trained, 2**23 - 1), "all")
    assert isinstance(narrow["y"], Scale) and narrow["y"].room[1] == (2**61 - 3) // 2**37


def test_a_shipped_residual_network_takes_other_trainings() -> None:
    """Lowered from its floats, each 5 % off; the end of ReLU's range is no part of the Verilog."""
    net = n2.load("mnist_resnet8_w2a2")
    room, rng = writable(n2.lower(net), "all"), np.random.default_rng(4)
    moved = {key: (values * (1 + rng.normal(0, 0.05, values.shape))).astype(values.dtype)
             for key, values in net.params.items()}
    other = n2.lower(replace(net, params=moved))
    clips = [node.clip for graph in (room, other) for node in graph.nodes
             if isinstance(node, Scale) and node.clip]
    assert clips[0][1] != clips[1][1]
    images = rng.integers(0, 256, (2, 1, 28, 28))
    assert (adopt(room, other).forward(images) == other.forward(images)).all()
