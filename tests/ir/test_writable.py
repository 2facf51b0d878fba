"""Room for other parameters: ranges hold for all that fits, and what does not fit is named."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from n2uq_hw.errors import N2uqError
from n2uq_hw.ir import Graph, Input, MatVec, Node, Scale, Threshold, adopt, golden, writable


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
