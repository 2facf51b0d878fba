"""The chosen folding costs the least of all, by exhaustive search where that is possible."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import product
from math import ceil, prod
from pathlib import Path

import numpy as np
import pytest
from graphs import random_chain, random_residual, resnet18
from marks import few

from n2uq_hw.cost.estimate import Cost, estimate
from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.accelerator import Accelerator
from n2uq_hw.hw.passes import absorb, unroll
from n2uq_hw.ir import (
    Add,
    Flatten,
    Graph,
    Input,
    MatVec,
    MaxPool,
    Node,
    OffsetMatVec,
    Pad,
    Scale,
    SlidingWindow,
    SumPool,
    Threshold,
    writable,
)
from n2uq_hw.ir.folding import (
    FORMS,
    MEMORIES,
    STYLES,
    UNROLLED,
    Fold,
    Folding,
    MatVecFold,
    ThresholdFold,
    UnrolledFold,
    check,
    fold_cycles,
    folds_of,
    lanes_in,
    reach,
)
from n2uq_hw.lowering.lower import lower
from n2uq_hw.nets import find_net
from n2uq_hw.plan.choice import choose, fold, load_folding, solve, unrolled
from n2uq_hw.plan.problem import BLOCK_LUTS, CHOSEN, FF_LUTS, Problem, least, prices
from n2uq_hw.sim.timing.fifos import size_fifos
from n2uq_hw.sim.timing.forecast import forecast


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
        Input("x", shape=(4, 4, 2), hi=3), Pad("p", ("x",), frame=(1, 1, 1, 1)),
        SlidingWindow("w", ("p",), kernel=(2, 2), stride=(2, 2)),
        MaxPool("m", ("w",), positions=4), Flatten("f", ("m",)),
        SumPool("mean", ("f",), positions=9), MatVec("c", ("mean",), weights(2, 2))),
    "three readers": (
        Input("x", shape=(1, 1, 4), hi=3), MatVec("a", ("x",), weights(4, 4)),
        Add("twice", ("a", "a")), Add("thrice", ("twice", "a")), Scale("s", ("thrice",))),
}


def styles(node: Node, fold: Fold) -> Iterator[Fold]:
    """The fold in every style, form and weight memory that its unit has."""
    words = node.weights.size // (fold.pe * fold.simd) if isinstance(node, MatVec) else 1
    if isinstance(node, Threshold):
        yield from (ThresholdFold(fold.pe, style) for style in STYLES)
    elif isinstance(node, MatVec):
        yield from (MatVecFold(fold.pe, fold.simd, form, memory) for form in CHOSEN
                    for memory in (MEMORIES[1:] if words > 1 else MEMORIES[:1]))
    else:
        yield fold


def all_foldings(graph: Graph, cycles: int, family: str) -> Iterator[Folding]:
    """Every folding in which each unit, and each MatVec with what comes to it, is in time.

    Each unit in the style that costs least: this is no concern of its neighbours, but for pairs,
    whose offset changes the Threshold behind.
    """
    nodes = [node for node in graph.nodes if not isinstance(node, Flatten)]
    paired = absorb(graph, dict.fromkeys((node.name for node in nodes), MatVecFold(
        simd=2, form="pairs")))

    def cheapest(graph: Graph, name: str, folds: Iterable[Fold]) -> Fold:
        sides = graph[name], graph.reads(graph[name]), graph.edges[name]
        return min(folds, key=lambda it: weighed(estimate(*sides, it, family), family))

    options: list[list[Fold]] = []
    for node in nodes:
        reads, edge, choices = graph.reads(node), graph.edges[node.name], dict[Fold, None]()
        for lanes in folds_of(node, reads, edge):
            if fold_cycles(node, reads, edge, lanes) > cycles:
                continue
            every = list(styles(node, lanes))
            choices[cheapest(graph, node.name, every)] = None
            if isinstance(node, Threshold):
                choices[cheapest(paired, node.name, every)] = None
            elif isinstance(paired[node.name], OffsetMatVec) and lanes.simd % 2 == 0:
                choices[cheapest(paired, node.name, (
                    replace(it, form="pairs") for it in every))] = None
        options.append(list(choices))
        if isinstance(node, MatVec):
            lut = {"xcup": 6, "ecp5": 4}[family]
            options[-1].append(UnrolledFold(*node.weights.shape, lut=lut))
    for folds in product(*options):
        folding = {node.name: fold for node, fold in zip(nodes, folds, strict=True)}
        if all(comes_in_time(graph, folding, node, cycles) for node in nodes):
            yield folding


def comes_in_time(graph: Graph, folding: Folding, node: Node, cycles: int) -> bool:
    """Whether what no queue holds comes fast enough: a vector while it is read, once; pixels from
    a Pad or the Input to a window in every cycle; whole windows as their last pixels come."""
    if isinstance(node, SlidingWindow) and isinstance(graph[node.inputs[0]], Pad | Input):
        (read,) = graph.reads(node)
        if folding[node.inputs[0]].pe < lanes_in(node, 0, folding[node.name], read):
            return False
    if node.inputs and isinstance(window := graph[node.inputs[0]], SlidingWindow) and folding[
            window.name].pe == graph.edges[window.name].channels > graph.reads(window)[0].channels:
        edge, (read,), (sh, sw) = graph.edges[window.name], graph.reads(window), window.stride
        y, x = np.divmod(np.arange(edge.shape[0] * edge.shape[1]), edge.shape[1])
        at = y * sh * read.shape[1] + x * sw  # the pixels that come before each window's first
        gaps = np.diff(np.append(at, read.shape[0] * read.shape[1]))
        takes = fold_cycles(node, graph.reads(node), graph.edges[node.name],
                            folding[node.name]) / len(at)
        if np.maximum(gaps, takes).sum() > cycles:
            return False
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
@pytest.mark.parametrize("name", few(GRAPHS, lambda name: name == next(iter(GRAPHS))))
def test_equals_exhaustive_search(name: str, factor: int, family: str) -> None:
    graph = Graph("g", GRAPHS[name]).verify()
    cycles = reach(graph)[0] * factor
    every = list(all_foldings(graph, cycles, family))
    best, folding = Problem(graph, family).solve(cycles)
    # The folding of a Threshold that is in an unrolled MatVec means nothing.
    assert unroll(graph, folding)[1] in [unroll(graph, it)[1] for it in every] and len(every) > 8
    assert score(graph, folding, family) == pytest.approx(best)
    assert best == pytest.approx(min(score(graph, other, family) for other in every))


@pytest.mark.parametrize("family", ["xcup", "ecp5"])
def test_layers_are_unrolled_where_the_rate_is_high(family: str) -> None:
    """A vector per cycle: the constants cost less than multipliers; one in 96 cycles: more."""
    graph = Graph("g", (
        Input("x", shape=(1, 1, 12), hi=3), MatVec("a", ("x",), weights(8, 12)),
        quantizer("q", "a", 8), MatVec("b", ("q",), weights(2, 8)))).verify()
    forms = {}
    for cycles in (1, 96):
        costs = {unrolls: Problem(graph, family, unrolls=unrolls).solve(cycles)
                 for unrolls in (True, False)}
        (best, folding), (folded, _) = costs[True], costs[False]
        forms[cycles] = folding["a"].form
        assert (best < folded) == (any(
            isinstance(fold, UnrolledFold) for fold in folding.values()))
        assert forecast(graph, folding).cycles_per_image <= cycles + 4
    assert forms[1] == UNROLLED != forms[96]


@pytest.mark.slow
def test_a_cnn_at_full_rate_is_unrolled(run) -> None:
    code, out, _ = run("fold", "digits_cnn_w2a2", "--cycles", 100, "--json", "--out", "f.yaml")
    summary, graph = json.loads(out), lower(find_net("digits_cnn_w2a2"))
    assert code == 0 and summary["cycles_per_image"] == 100
    folding = load_folding(Path("f.yaml"), graph)
    assert {folding[name].form for name in ("conv1", "conv2", "conv3")} == {UNROLLED}
    assert forecast(graph, folding).cycles_per_image == 100
    folded = luts(graph, choose(graph, 100))
    assert summary["total"]["lut"] + summary["total"]["lutram"] < folded / 2
    assert {"quan1", "quan2", "quan3"} <= {row["name"] for row in summary["layers"]}
    assert "conv2: {pe: 32, simd: 144, form: unrolled, levels: 2, lut: 6}" in Path(
        "f.yaml").read_text()


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_fifos_count_in_the_budget_of_luts() -> None:
    graph = lower(find_net("mnist_resnet8_w2a2"))
    problem = Problem(graph)
    bare = problem.fastest(16_000)
    room = ceil(luts(graph, bare))
    assert luts(graph, size_fifos(graph, bare).folding) > room
    plan = solve(problem, max_luts=room)
    assert luts(graph, plan.folding) <= room and plan.luts <= room
    assert plan.cycles == forecast(graph, plan.folding).cycles_per_image


@pytest.mark.slow
def test_a_rate_holds_with_fifos_that_cost_time() -> None:
    graph, budget = lower(find_net("mnist_resnet8_w2a2")), 0.2
    problem = Problem(graph)
    bare = problem.within(20_000)
    cycles = ceil(size_fifos(graph, bare).cycles_per_image)
    slow = size_fifos(graph, bare, budget=budget)
    assert forecast(graph, slow.folding).cycles_per_image > cycles
    plan = solve(problem, cycles=cycles, budget=budget)
    assert plan.cycles == forecast(graph, plan.folding).cycles_per_image <= cycles


@pytest.mark.parametrize("cycles", [1152, 576])
def test_what_build_takes_is_what_fold_promises(run, cycles: int) -> None:
    """All folded, units wait for each other where each is busy for so many cycles."""
    graph = lower(find_net("digits_cnn_w2a2"))
    assert forecast(graph, Problem(graph, unrolls=False).solve(cycles)[1]).cycles_per_image > cycles
    assert run("build", "digits_cnn_w2a2", "--cycles", cycles, "--out", "b")[0] == 0
    assert forecast(graph, load_folding(Path("b/folding.yaml"), graph)).cycles_per_image <= cycles
    assert forecast(graph, choose(graph, cycles)).cycles_per_image <= cycles


def test_a_budget_without_logic() -> None:
    graph = lower(find_net("digits_cnn_w2a2"))
    plan = fold(graph, luts=5000, search=False)
    assert 3000 < plan.luts <= 5000
    assert not any(isinstance(part, UnrolledFold) for part in plan.folding.values())


def test_unknown_family() -> None:
    with pytest.raises(N2uqError, match=r"^family: estimates are for xcup, ecp5, not vax$"):
        choose(lower(find_net("digits_cnn_w2a2")), family="vax")


def test_fold_meets_a_rate_that_the_cycle_model_confirms(run) -> None:
    code, out, _ = run("fold", "mnist_resnet8_w2a2", "--cycles", 20_000, "--json",
                       "--out", "f.yaml")
    summary = json.loads(out)
    assert code == 0 and summary["cycles_per_image"] <= 20_000
    assert summary["images_per_second"] == 200e6 / summary["cycles_per_image"]
    graph = lower(find_net("mnist_resnet8_w2a2"))
    folding = load_folding(Path("f.yaml"), graph)
    assert forecast(graph, folding).cycles_per_image == summary["cycles_per_image"]
    # What units need by themselves is less: they wait for each other between two images.
    busy = Problem(graph, unrolls=False).solve(20_000)[1]
    assert forecast(graph, busy).cycles_per_image > 20_000
    parts = [*summary["layers"], summary["between"]]
    luts = sum(row["lut"] for row in parts)
    assert luts == pytest.approx(summary["total"]["lut"], abs=len(parts))
    assert summary["macs_per_cycle"] == summary["macs"] / summary["cycles_per_image"]
    code, table, _ = run("fold", "mnist_resnet8_w2a2", "--fps", 10_000)
    assert code == 0 and "between units" in table and "images/s" in table.splitlines()[-1]


def test_fold_within_a_budget(run) -> None:
    code, out, _ = run("fold", "digits_cnn_w2a2", "--max-luts", 4000, "--family", "ecp5", "--json")
    total = json.loads(out)["total"]
    assert code == 0 and 2500 < total["lut"] + total["lutram"] <= 4000


@pytest.mark.parametrize("options,message", [
    (("--fps", "3e6"), "error: conv1_pad: takes 100 cycles per image at its fastest, "
     "2,000,000.0 images/s at 200 MHz; 3e+06 images/s cannot be reached"),
    (("--cycles", "5", "--max-luts", "7"), "error: cycles 5 and luts 7 exclude each other"),
    *(((option, value), f"error: {option} must be in {range}, not {shown}")
      for option, range, values in (
          ("--clock", "0.001..100,000 MHz", (
              ("nan", "nan"), ("inf", "inf"), ("0", "0"), ("-1", "-1"), ("1e9", "1000000000"))),
          ("--fps", "1e-06..1,000,000,000,000 images/s", (
              ("nan", "nan"), ("1e-300", "1e-300"), ("-inf", "-inf"), ("0", "0"))),
          ("--cycles", "1..1,000,000,000,000", (("0", "0"), ("9" * 30, "1e+30"))),
          ("--max-luts", "1..1,000,000,000,000", (("0", "0"),)),
          ("--fifo-budget", "0..1,000 percent", (("nan", "nan"), ("-1", "-1"))))
      for value, shown in values),
    (("--family", "vax"), "error: family: estimates are for xcup, ecp5, not vax")])
def test_faults_of_fold(run, options: tuple[str, ...], message: str) -> None:
    assert run("fold", "digits_cnn_w2a2", *options) == (2, "", message + "\n")


def test_units_that_wait_for_each_other_are_faster_than_asked() -> None:
    """At the fewest cycles of its slowest unit a net is late; no others need be the fastest."""
    graph = lower(find_net("mnist_resnet8_w2a2"))
    problem = Problem(graph, unrolls=False)
    cycles = reach(graph)[0]
    (cost, late), folding = problem.solve(cycles), problem.within(cycles)
    assert problem.taken(late) > cycles == problem.taken(folding)
    assert cost < score(graph, folding, "xcup") < 1.02 * cost


def test_a_rate_that_units_reach_but_not_together() -> None:
    problem = Problem(random_residual("g", 10), unrolls=False)
    with pytest.raises(N2uqError) as error:
        problem.within(49)
    assert str(error.value) == ("g: takes 50 cycles per image where every unit is as fast as it "
                                "can be; 49 cannot be reached")


@pytest.mark.parametrize("family", BLOCK_LUTS)
def test_pairs_are_chosen_where_thresholds_take_their_offset(family: str) -> None:
    graph = Graph("g", (
        Input("x", shape=(1, 1, 36), hi=3), MatVec("a", ("x",), weights(16, 36)),
        quantizer("q", "a", 16), MatVec("b", ("q",), weights(2, 16)))).verify()
    best, folding = Problem(graph, family, unrolls=False).solve(4)
    assert score(graph, folding, family) == pytest.approx(best)  # steps and widths of pairs
    assert (folding["a"].form, folding["a"].simd % 2) == ("pairs", 0) != folding["b"].form
    other = luts(graph, folding | {"a": replace(folding["a"], form="planes")}, family)
    assert luts(graph, folding, family) < other


@pytest.mark.parametrize("name,cycles", [("digits_cnn_w2a2", 10 * 10), ("digits_mlp_w2a2", 1)])
def test_a_window_or_a_vector_per_cycle(name: str, cycles: int) -> None:
    graph = lower(find_net(name))
    folding = Problem(graph, unrolls=False).within(cycles)
    assert forecast(graph, folding).cycles_per_image == cycles


@pytest.mark.parametrize("family", [
    "xcup", *(pytest.param(name, marks=pytest.mark.slow) for name in BLOCK_LUTS if name != "xcup")])
def test_estimator_prints_errors(run, family: str) -> None:
    code, out, _ = run("estimator", "--family", family, "--json")
    kinds = {row["kind"]: row for row in json.loads(out)["kinds"]}
    assert code == 0 and len(kinds["MatVec planes"]["lut"]) == kinds["MatVec planes"]["units"]
    code, table, _ = run("estimator", "--family", family)
    assert code == 0 and table.count("%") == 6 * len(kinds)
    assert run("estimator", "--family", "vax") == (
        2, "", "error: --family must be one of xcup, ecp5, not vax\n")


@pytest.mark.parametrize("family", ["xcup", "ecp5"])
@pytest.mark.parametrize("least,most", [(-1, 1), (-8, 7), (-128, 127)])
def test_weights_with_a_zero_are_multiplied_in_pairs(family: str, least: int, most: int) -> None:
    """Of 8-bit activations these cost least of all forms, where several PEs share the sums."""
    node = MatVec("y", ("x",), weights=np.random.default_rng(0).integers(least, most + 1, (8, 32)))
    graph = Graph("g", (Input("x", shape=(1, 1, 32), hi=255), node))
    for cycles in (8, 32, 256):
        fold = choose(graph, cycles, family)["y"]
        costs = {form: weighed(estimate(node, graph.reads(node), graph.edges["y"],
                                        replace(fold, form=form), family), family)
                 for form in FORMS}
        assert fold.form == min(CHOSEN if 1 in (fold.pe, fold.simd) else FORMS,
                                key=lambda form: costs[form])
        assert fold.form == "pairs" or cycles == 256


def test_steps_that_rise_and_fall_and_can_be_written_are_searched() -> None:
    """Comparators would be cheaper; those for any steps do not take these."""
    chosen = []
    for signs in ([[1, 1, 1]] * 2, [[1, 1, -1], [1, 1, 1]]):
        graph = Graph("q", (Input("x", shape=(1, 1, 2), lo=-128, hi=127), Threshold(
            "q", ("x",), np.array([[-30, 0, 55]] * 2), np.array(signs, np.int8),
            np.zeros(2, np.int64)))).verify()
        for each in (graph, writable(graph, "all")):
            folds = choose(each, 1)["q"], unrolled(each)["q"]
            chosen.append([fold.style for fold in folds if isinstance(fold, ThresholdFold)])
    fixed, written, fixed_both, written_both = chosen
    assert fixed == fixed_both == ["parallel"] * 2 and "parallel" in written
    assert written_both == ["search"] * 2
    with pytest.raises(N2uqError, match=r"^q: steps of a channel must only rise or only fall in a "
                       "unit of style parallel; style search takes any"):
        Accelerator(each, unrolled(graph))
