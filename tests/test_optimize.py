"""The chosen folding costs the least of all, by exhaustive search where that is possible."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from math import ceil, prod

import numpy as np
import pytest
from graphs import random_chain, random_residual, resnet18

from n2uq_hw.cost import Cost, estimate
from n2uq_hw.errors import N2uqError
from n2uq_hw.folding import (
    FORMS,
    STYLES,
    Fold,
    Folding,
    check,
    choose,
    fold_cycles,
    folds_of,
    reach,
)
from n2uq_hw.ir import (
    Add,
    Flatten,
    Graph,
    Input,
    MatVec,
    MaxPool,
    Node,
    Pad,
    Scale,
    SlidingWindow,
    SumPool,
    Threshold,
)
from n2uq_hw.lower import lower
from n2uq_hw.nets import find_net
from n2uq_hw.optimize import BLOCK_LUTS, FF_LUTS, Problem, least, prices


def quantizer(name: str, x: str, channels: int) -> Threshold:
    steps = np.tile([-3, 1, 5], (channels, 1)) + np.arange(channels)[:, None]
    return Threshold(name, (x,), thresholds=steps, signs=np.ones_like(steps, dtype=np.int8),
                     base=np.zeros(channels, np.int64))


def weights(outputs: int, inputs: int) -> np.ndarray:
    return 2 * np.random.default_rng(inputs).integers(0, 4, (outputs, inputs)) - 3


GRAPHS: dict[str, tuple[Node, ...]] = {
    "convolution": (
        Input("x", shape=(3, 3, 2), hi=3), SlidingWindow("w", ("x",), kernel=(2, 2)),
        MatVec("c", ("w",), weights(2, 8)), quantizer("q", "c", 2), Flatten("f", ("q",)),
        MatVec("fc", ("f",), weights(1, 8))),
    "vector": (
        Input("x", shape=(1, 1, 6), hi=3), MatVec("a", ("x",), weights(4, 6)),
        quantizer("q", "a", 4), MatVec("b", ("q",), weights(2, 4)),
        Scale("s", ("b",), multiplier=np.array([3, 5]))),
    "sum": (
        Input("x", shape=(2, 2, 2), lo=-4, hi=3), quantizer("q", "x", 2),
        MatVec("c", ("q",), weights(2, 2)), Add("sum", ("c", "x")),
        Scale("s", ("sum",), multiplier=np.array([3, 5]))),
    "pool": (
        Input("x", shape=(4, 4, 4), hi=3), Pad("p", ("x",), frame=(1, 1, 1, 1)),
        SlidingWindow("w", ("p",), kernel=(2, 2), stride=(2, 2)),
        MaxPool("m", ("w",), positions=4), Flatten("f", ("m",)),
        SumPool("mean", ("f",), positions=9), MatVec("c", ("mean",), weights(2, 4))),
    "three readers": (
        Input("x", shape=(1, 1, 4), hi=3), MatVec("a", ("x",), weights(4, 4)),
        Add("twice", ("a", "a")), Add("thrice", ("twice", "a")), Scale("s", ("thrice",))),
}


def styles(node: Node, fold: Fold) -> Iterator[Fold]:
    """The fold in every style and form that its unit has."""
    for style in STYLES if isinstance(node, Threshold) else STYLES[:1]:
        for form in FORMS if isinstance(node, MatVec) else FORMS[:1]:
            yield Fold(fold.pe, fold.simd, style, form)


def all_foldings(graph: Graph, cycles: int, family: str) -> Iterator[Folding]:
    """Every folding in which each unit, and each MatVec with what comes to it, is in time.

    Each unit in the style that costs least: this is no concern of its neighbours.
    """
    nodes = [node for node in graph.nodes if not isinstance(node, Flatten)]
    options = []
    for node in nodes:
        reads, edge = graph.reads(node), graph.edges[node.name]
        options.append([min(styles(node, fold), key=lambda it: weighed(
            estimate(node, reads, edge, it, family), family))
            for fold in folds_of(node, reads, edge)
            if fold_cycles(node, reads, edge, fold) <= cycles])
    for folds in product(*options):
        folding = {node.name: fold for node, fold in zip(nodes, folds, strict=True)}
        if all(comes_in_time(graph, folding, node, cycles) for node in nodes):
            yield folding


def comes_in_time(graph: Graph, folding: Folding, node: Node, cycles: int) -> bool:
    """Whether what no queue holds comes fast enough: a vector while it is read, once; pixels from
    a Pad or the Input to a window in every cycle."""
    if isinstance(node, SlidingWindow) and isinstance(graph[node.inputs[0]], Pad | Input):
        return folding[node.inputs[0]].pe >= folding[node.name].pe
    if not isinstance(node, MatVec) or not isinstance(graph[node.inputs[0]],
                                                      SlidingWindow | Input):
        return True
    (outputs, inputs), fold = node.weights.shape, folding[node.name]
    come = inputs / min(folding[node.inputs[0]].pe, fold.simd)
    vector = come + (outputs // fold.pe - 1) * inputs // fold.simd
    return prod(graph.edges[node.name].shape[:2]) * vector <= cycles


def weighed(cost: Cost, family: str) -> float:
    return cost.lut + cost.lutram + BLOCK_LUTS[family] * cost.bram + FF_LUTS * cost.ff


def score(graph: Graph, folding: Folding, family: str) -> float:
    """The cost of a folding, from the estimates of all that its hardware graph has.

    Without the Forks, which no choice changes, and the FIFOs of an Add.
    """
    return sum(weighed(cost, family) for name, cost in prices(graph, folding, family).items()
               if not name.endswith(("_fork", "_i0_fifo", "_i1_fifo")))


@pytest.mark.parametrize("factor,family", [(2, "xcup"), (4, "ecp5")])
@pytest.mark.parametrize("name", GRAPHS)
def test_equals_exhaustive_search(name: str, factor: int, family: str) -> None:
    graph = Graph("g", GRAPHS[name]).verify()
    cycles = reach(graph)[0] * factor
    every = list(all_foldings(graph, cycles, family))
    best, folding = Problem(graph, family).solve(cycles)
    assert folding in every and len(every) > 8
    assert score(graph, folding, family) == pytest.approx(best)
    assert best == pytest.approx(min(score(graph, other, family) for other in every))


@pytest.mark.parametrize("seed", range(8))
def test_least_sum_of_random_tables(seed: int) -> None:
    """Loops, separate parts, infinite entries: against the sum of all tables at every place."""
    rng = np.random.default_rng(seed)
    sizes = {name: int(rng.integers(1, 5)) for name in "abcdef"}
    factors = []
    for _ in range(7):
        axes = tuple(rng.permutation(list(sizes))[:rng.integers(1, 4)].tolist())
        table = rng.integers(0, 9, [sizes[v] for v in axes]).astype(float)
        table[rng.random(table.shape) < 0.2] = np.inf
        factors.append((axes, table))
    total, at = least(factors)
    used = sorted({v for axes, _ in factors for v in axes})
    places = [dict(zip(used, place, strict=True))
              for place in product(*(range(sizes[v]) for v in used))]
    sums = [sum(table[tuple(place[v] for v in axes)] for axes, table in factors)
            for place in places]
    assert total == min(sums) == sum(table[tuple(at[v] for v in axes)] for axes, table in factors)


@pytest.mark.parametrize("make", [random_chain, random_residual])
@pytest.mark.parametrize("seed", range(4))
def test_random_graphs_cost_what_was_said(make: Callable, seed: int) -> None:
    graph = make("g", seed)
    cycles = reach(graph)[0] * (1 + seed)
    best, folding = Problem(graph).solve(cycles)
    check(graph, folding)
    assert score(graph, folding, "xcup") == pytest.approx(best)
    assert Problem(graph).bound(cycles) <= best + 1e-6


def test_a_large_net_is_near_the_sum_of_its_units_least_costs() -> None:
    """The result is exact; what it costs more than all parts alone is what joins them."""
    graph = resnet18()
    problem = Problem(graph)
    costs = []
    for factor in (1, 4, 16):
        cycles = reach(graph)[0] * factor
        best, folding = problem.solve(cycles)
        check(graph, folding)
        assert problem.bound(cycles) <= best <= 1.05 * problem.bound(cycles)
        costs.append(best)
    assert costs == sorted(costs, reverse=True)


def luts(graph: Graph, folding: Folding, family: str = "xcup") -> float:
    return sum(cost.lut + cost.lutram for cost in prices(graph, folding, family).values())


def test_the_fastest_within_a_budget() -> None:
    graph = lower(find_net("digits_cnn_w2a2"))
    problem = Problem(graph)
    slow = luts(graph, problem.solve(10**9, 0)[1])
    speeds = []
    for budget in (slow + 1, 2 * slow, 4 * slow):
        folding = problem.fastest(int(budget))
        assert luts(graph, folding) <= budget
        cycles = problem.cycles(folding)
        speeds.append(cycles)
        # In one cycle less, no folding has so few LUTs.
        if cycles > reach(graph)[0]:
            assert luts(graph, problem.solve(cycles - 1, 0)[1]) > budget
    assert speeds[0] > speeds[1] > speeds[2]
    with pytest.raises(N2uqError) as error:
        problem.fastest(100)
    assert str(error.value) == (f"digits_cnn_w2a2: needs {ceil(slow):,} LUTs at least, by "
                                "estimate, not 100")


def test_unknown_family() -> None:
    with pytest.raises(N2uqError, match=r"^family: estimates are for xcup, ecp5, not vax$"):
        choose(lower(find_net("digits_cnn_w2a2")), family="vax")
