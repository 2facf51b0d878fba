"""The jobs of `explore`: foldings of a graph with their estimates, their synthesis, agreement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from .. import tools
from ..builds.accuracy import agreement
from ..builds.synth import synthesize_folding
from ..errors import N2uqError
from ..files import write_file
from ..ir import Flatten, Graph, MatVec
from ..ir.folding import (
    FORMS,
    MatVecFold,
    check,
    fold_cycles,
    product_bits,
    reach,
    unfolded,
)
from ..model import Net
from ..plan.choice import folding_text, load_folding, sized, solve, unrolled
from ..plan.plan import Plan
from ..plan.problem import BLOCK_LUTS, LUT_INPUTS, UNROLLED_BITS, Problem

__all__ = ["LEAST", "STYLES", "agree", "area", "better", "estimate", "promising", "ranks",
           "synthesize", "targets"]

LEAST, FOLDED, LOGIC = "least", "folded", "logic"
# What a folding is chosen from: `least`, all that `fold` chooses from; `folded`, that without
# logic; a form, which every folded MatVec has then; `logic`, every MatVec in logic, where all are
# small enough for `least` to weigh it.
STYLES = (LEAST, FOLDED, *FORMS, LOGIC)
Row = dict[str, Any]


def targets(graph: Graph) -> list[int]:
    """Cycles per image to fold for: twice as many each, from the fewest to one lane everywhere."""
    fewest, _ = reach(graph)
    most = max(fold_cycles(node, graph.reads(node), graph.edges[node.name], unfolded(node))
               for node in graph.nodes if not isinstance(node, Flatten))
    return [fewest << k for k in range((-(-most // fewest) - 1).bit_length() + 1)]


def estimate(graph: Graph, family: str, style: str) -> Row:
    """All foldings in one style of `STYLES`, from the fastest on, each once, with their estimates.

    A row of "points" has `cycles_per_image`, `estimated` cells by kind, and the `folding`'s YAML.
    """
    points: dict[str, Row] = {}
    for plan in _plans(graph, family, style):
        text = folding_text(plan.folding, graph)
        points.setdefault(text, {"cycles_per_image": plan.cycles, "folding": text,
                                 "estimated": plan.as_dict()["total"]})
    return {"points": [*points.values()]}


def _plans(graph: Graph, family: str, style: str) -> Iterator[Plan]:
    if style == LOGIC:
        if all(product_bits(node, graph.reads(node)[0]) <= UNROLLED_BITS
               for node in graph.nodes if isinstance(node, MatVec)):
            yield sized(graph, unrolled(graph, lut=LUT_INPUTS[family]), family)
        return
    problem = Problem(graph, family, unrolls=style == LEAST)
    for cycles in targets(graph):
        with suppress(N2uqError):  # out of reach with its FIFOs; an odd SIMD in pairs
            plan = solve(problem, cycles=cycles)
            if style in FORMS:
                folding = {name: replace(fold, form=style) if isinstance(fold, MatVecFold) else fold
                           for name, fold in plan.folding.items()}
                check(graph, folding)
                plan = sized(graph, folding, family)
            yield plan


def synthesize(graph: Graph, text: str, family: str) -> Row:
    """Cells of the whole accelerator in the folding of this YAML `text`, without DSP blocks."""
    with tools.scratch() as folder:
        write_file(path := folder / "folding.yaml", text)
        folding = load_folding(path, graph)
    return asdict(synthesize_folding(graph, folding, family, dsp=False).total)


def agree(net: Net, graph: Graph, images: np.ndarray, labels: np.ndarray | None) -> Row:
    """`Agreement` of golden with the float model on `images` [N, C, H, W]."""
    return agreement(net, graph, images, labels).as_dict()


def area(cells: Row, family: str) -> int:
    """LUTs, those that are memory included, and `BLOCK_LUTS` for each block RAM, as in `fold`."""
    return round(cells["lut"] + cells["lutram"] + BLOCK_LUTS[family] * cells["bram"])


Goal = tuple[float, ...]  # of a design, each the less the better


def better(one: Goal, other: Goal) -> bool:
    """Whether `one` is nowhere worse than `other`, and somewhere better."""
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def ranks(goals: Sequence[Goal]) -> list[int]:
    """0 for the Pareto front of `goals`, 1 for that of the others, and so on."""
    rank, left, of = 0, {*range(len(goals))}, [0] * len(goals)
    while left:
        front = {k for k in left if not any(better(goals[j], goals[k]) for j in left)}
        for k in front:
            of[k] = rank
        left, rank = left - front, rank + 1
    return of


def promising(goals: Sequence[Goal], budget: int) -> list[int]:
    """The places of at most `budget` goals: whole fronts, and of the last one those spread widest.

    Of equal goals the first; widest by the logarithms of the goals' first members.
    """
    first = {goal: k for k, goal in reversed([*enumerate(goals)])}
    places = sorted(first.values())
    fronts: dict[int, list[int]] = {}
    for k, rank in zip(places, ranks([goals[k] for k in places]), strict=True):
        fronts.setdefault(rank, []).append(k)
    chosen: list[int] = []
    for _, front in sorted(fronts.items()):
        chosen += _spread(front, [float(np.log(goals[k][0])) for k in front],
                          budget - len(chosen))
    return sorted(chosen)


def _spread(places: Sequence[int], at: Sequence[float], count: int) -> list[int]:
    """So many of `places`: both ends, then always the one farthest from those that are there."""
    if count >= len(places) or count < 1:
        return [*places][:max(count, 0)]
    order = sorted(range(len(places)), key=lambda k: at[k])
    kept = [order[0], order[-1]][:count]
    while len(kept) < count:
        kept.append(max((k for k in order if k not in kept),
                        key=lambda k: min(abs(at[k] - at[j]) for j in kept)))
    return [places[k] for k in kept]
