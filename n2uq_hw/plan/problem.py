"""The folding that costs least: every unit in time, all units and what joins them priced together.

The lanes of neighbours are coupled: where they differ, a width converter is between them.  Form
"pairs" of a MatVec changes the Threshold behind; it is taken as other lanes of the MatVec.  So the
cost of a folding is a sum of tables over the lanes of a unit and of two neighbours, and its least
value is found exactly, by eliminating one unit's lanes after the other (dynamic programming, on
chains and on branches alike).

The cost is estimated LUTs, those that are memory included, and `BLOCK_LUTS` for each block RAM.
The FIFOs of joins are left out of the choice: the branches settle how many bits they hold.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from math import ceil, prod
from typing import Any

import numpy as np

from .. import ir
from ..cost.estimate import Cost, estimate, estimates
from ..cost.fitted import numbers
from ..cost.memories import FAMILIES
from ..errors import N2uqError
from ..hw.depths import fifo_depth, gives_whole
from ..hw.passes import absorb, hardware_graph, in_logic
from ..hw.sliding_window import line_buffer
from ..hw.threshold import threshold_styles
from ..hw.width_convert import convert_width
from ..ir.folding import (
    AUTO,
    FORMS,
    MEMORIES,
    PAIRED,
    ConvertFold,
    DepthwiseFold,
    FifoFold,
    Fold,
    Folding,
    MatVecFold,
    UnrolledFold,
    fifo_names,
    fold_cycles,
    folds_of,
    lanes_in,
    lanes_out,
    out_of_reach,
    product_bits,
    reach,
    unfolded,
)
from ..sim.timing.cycles import UNBOUNDED
from ..sim.timing.forecast import forecast

__all__ = ["BLOCK_LUTS", "CHOSEN", "Problem", "least", "prices"]

BLOCK_LUTS = {family: numbers(family).block for family in FAMILIES}  # what a block RAM counts
UNROLLED_BITS = 2**17  # of all products of a MatVec that may be unrolled: more take minutes to see
LUT_INPUTS = {"xcup": 6, "ecp5": 4}  # of the LUTs that logic suits
# Forms to choose among.  Pairs are for several PEs, which share their sums.  Those of odd weights
# are another matter: only where the Threshold behind takes their offset, which ties its cost to
# theirs, and for an even SIMD.
CHOSEN = tuple(form for form in FORMS if form != PAIRED)
PAIRED_BITS = 8  # of codes: nothing wider was measured in pairs
FF_LUTS = 1e-3  # of two foldings with equal LUTs, that with fewer flip-flops

NEAR = 1.01  # of the least cost: what is as near is not looked into further

Variable = tuple[str, str]  # a unit, and whether its lanes are those that it "takes" or "gives"
Factor = tuple[tuple[Variable, ...], np.ndarray]
Limits = dict[str, int]  # cycles per image, by unit


def least(factors: list[Factor]) -> tuple[float, dict[Variable, int]]:
    """The least sum of tables, and the index of each variable there.

    A factor is a table with one axis for each of its variables.  Variables go one by one, that
    with the smallest table first: exact, and fast where each has few neighbours.  Of equal sums
    the lowest indices of what went last win.
    """
    sizes = {v: n for axes, table in factors for v, n in zip(axes, table.shape, strict=True)}
    near: dict[Variable, set[Variable]] = {v: set() for v in sizes}
    for axes, _ in factors:
        for v in axes:
            near[v].update(axes)
    order: list[tuple[Variable, list[Variable], np.ndarray]] = []
    total = 0.0
    while near:
        v = min(near, key=lambda v: (prod(sizes[u] for u in near[v]), v))
        others = sorted(near.pop(v) - {v})
        kept = [*others, v]
        table = np.zeros([sizes[u] for u in kept])
        for its, values in factors:
            if v in its:
                places = sorted(range(len(its)), key=lambda k: kept.index(its[k]))
                shape = [sizes[u] if u in its else 1 for u in kept]
                table = table + values.transpose(places).reshape(shape)
        order.append((v, others, table.argmin(axis=-1)))
        factors = [factor for factor in factors if v not in factor[0]]
        if others:
            factors.append((tuple(others), table.min(axis=-1)))
        else:
            total += float(table.min())
        for u in others:
            near[u] = (near[u] | set(others)) - {v}
    at: dict[Variable, int] = {}
    for v, others, best in reversed(order):
        at[v] = int(best[tuple(at[u] for u in others)])
    return total, at


@lru_cache(2**16)
def _between(bits: int, gives: int, takes: int, depth: int, family: str) -> Cost:
    """Width converters and a Fifo of `depth` beats between two units; elements of `bits`."""
    def edge(lanes: int) -> ir.Edge:
        return ir.Edge((1, 1, lanes), np.zeros(1, np.int64), np.full(1, 2**bits - 1))

    total, lanes = Cost(), gives
    for width in convert_width(gives, takes):
        total = total.plus(estimate(ir.WidthConvert("", lanes=width), (edge(lanes),), edge(lanes),
                                    ConvertFold(width, lanes), family))
        lanes = width
    if depth:
        total = total.plus(estimate(ir.Fifo("", depth=depth), (edge(takes),), edge(takes),
                                    Fold(takes), family))
    return total


@lru_cache(64)
def _pairs_suit(node: ir.MatVec) -> bool:
    return bool((node.weights % 2 == 0).any()) and ir.code_bits(node) <= PAIRED_BITS


def _styles(node: ir.Node, reads: tuple[ir.Edge, ...], fold: Fold) -> list[dict[str, Any]]:
    """What can be chosen for `node` beside lanes and memory, by field of its Fold."""
    if isinstance(node, ir.OffsetMatVec):
        return [{"form": PAIRED}]
    if isinstance(node, ir.MatVec):
        pairs = fold.pe > 1 and fold.simd > 1 and _pairs_suit(node)
        return [{"form": form} for form in (FORMS if pairs else CHOSEN)]
    if isinstance(node, ir.Threshold):
        return [{"style": style} for style in threshold_styles(node, reads[0])]
    return [{}]


def _late(cycles: np.ndarray, limit: int) -> np.ndarray:
    """Where `cycles` are above the limit, and above what those with the most lanes take."""
    return cycles > max(limit, cycles.flat[-1])


@dataclass(frozen=True)
class _Unit:
    """What a unit can be.

    Members
    -------
    takes, gives: the lanes that it can have on each side, `takes` by input port: of a MatVec, which
        has an axis for either; of others those of each folding, which are one axis.
    pairs: how many there are in `gives`, after which come as many again, of form "pairs", if
        the MatVec can have it.
    costs: [takes, gives, styles, 4] of a MatVec; of others [foldings, styles, 4].
    behind: the same of a Threshold that takes the offset of pairs, else None.
    cycles: of an image, [takes, gives] or [foldings]; infinite where there is no such unit.
    folds: by index in `costs`.
    places: the index in `cycles` by PE and SIMD.
    logic: whether the last index, on all axes, is another one with all lanes: a MatVec unrolled, or
        a Threshold that is in it, and costs nothing.
    """

    takes: list[list[int]]
    gives: list[int]
    pairs: int
    costs: np.ndarray
    behind: np.ndarray | None
    cycles: np.ndarray
    folds: dict[tuple[int, ...], Fold]
    places: dict[tuple[int, int], tuple[int, ...]]
    logic: bool


class Problem:
    """The foldings of a graph and what they cost.

    Parameters
    ----------
    graph: lowered graph, without hardware-only nodes.
    family: "xcup" or "ecp5".
    unrolls: whether a MatVec may be unrolled, where `UNROLLED_BITS` allow it.
    """

    def __init__(self, graph: ir.Graph, family: str = "xcup", *, unrolls: bool = True) -> None:
        self.graph, self.family = graph, family
        self.nodes = [node for node in graph.nodes if not isinstance(node, ir.Flatten)]
        self.logic = {node.name: in_logic(graph, node) for node in self.nodes
                      if unrolls and type(node) is ir.MatVec and not node.room
                      and product_bits(node, graph.reads(node)[0]) <= UNROLLED_BITS}
        self.inside = {node.name: node for node in self.logic.values()}  # by what they make
        self.behind = {name for name, node in self.inside.items() if node.threshold is not None}
        # With pairs wherever their offset can be taken; it is the same for each even SIMD.
        self.paired = absorb(graph, {
            node.name: MatVecFold(simd=2, form=FORMS[0] if node.weights.shape[1] % 2 else PAIRED)
            for node in graph.nodes if isinstance(node, ir.MatVec)})
        self.priced = set[str]()  # those of `logic` whose cost is known
        self.units = {node.name: self._unit(node) for node in self.nodes}
        self.links = [link for node in self.nodes for link in self._links(node)]
        self.slow = {node.name: table for node in self.nodes if node.inputs
                     for table in [self._slow(node, graph[node.inputs[0]])] if table is not None}

    def _unit(self, node: ir.Node) -> _Unit:
        reads, edge = self.graph.reads(node), self.graph.edges[node.name]
        folds = folds_of(node, reads, edge)
        takes = [[lanes_in(node, port, fold, read) for fold in folds]
                 for port, read in enumerate(reads or (edge,))]
        gives = [lanes_out(node, fold, edge) for fold in folds]
        places: list[tuple[int, ...]] = [(k,) for k in range(len(folds))]
        if isinstance(node, ir.MatVec):
            sides = sorted(set(takes[0])), sorted(set(gives))
            places = [(sides[0].index(a), sides[1].index(b))
                      for a, b in zip(takes[0], gives, strict=True)]
            takes, gives = [sides[0]], sides[1]
        costs, pairs = self._costs(node, self.graph, folds), len(gives)
        other = self.paired[node.name]
        parts = [(0, costs)]
        if isinstance(other, ir.OffsetMatVec):
            parts.append((pairs, self._costs(other, self.paired, [
                fold for fold in folds if fold.simd % 2 == 0])))
            gives = [*gives, *gives]
        logic = node.name in self.logic or node.name in self.behind
        if logic:
            takes, gives = [[*takes[0], reads[0].channels]], [*gives, edge.channels]
        shape = (len(takes[0]), len(gives))[:1 + isinstance(node, ir.MatVec)]
        cycles, chosen = np.full(shape, np.inf), dict[tuple[int, ...], Fold]()
        count = max(map(len, costs.values()))
        table, behind = np.zeros((*shape, count, 4)), None
        place = dict(zip(folds, places, strict=True))
        for start, part in parts:
            for fold, options in part.items():
                *before, at = place[fold]
                cycles[*before, start + at] = fold_cycles(node, reads, edge, fold)
                for k in range(count):  # pairs have fewer styles: each several times
                    at_style = (*before, start + at, k)
                    chosen[at_style], table[at_style] = options[k % len(options)]
        if isinstance(other, ir.Threshold) and other is not node:
            behind = np.zeros_like(table)
            for fold, options in self._costs(other, self.paired, folds).items():
                behind[place[fold]] = [cost for _, cost in options]
        if logic:
            last, fold = tuple(n - 1 for n in shape), unfolded(node, pe=edge.channels)
            if isinstance(node, ir.MatVec):
                fold = UnrolledFold(edge.channels, reads[0].channels, lut=LUT_INPUTS[self.family])
                each = numbers(self.family).unrolled_least * reads[0].width
                table[last] = Cost(each * np.count_nonzero(np.unique(node.weights, axis=0)))
            cycles[last] = edge.shape[0] * edge.shape[1]
            chosen.update({(*last, k): fold for k in range(count)})
        return _Unit(takes, gives, pairs, table, behind, cycles, chosen, dict(zip(
            ((fold.pe, fold.simd) for fold in folds), places, strict=True)), logic)

    def _costs(self, node: ir.Node, graph: ir.Graph, folds: list[Fold]
               ) -> dict[Fold, list[tuple[Fold, Cost]]]:
        """Of each fold of `node` of `graph` all styles, and what they cost."""
        reads, edge = graph.reads(node), graph.edges[node.name]
        memories = [memory for memory in MEMORIES if memory != AUTO]
        options: dict[Fold, list[tuple[Fold, Cost]]] = {fold: [] for fold in folds}
        styled = [(fold, replace(fold, **styles)) for fold in folds
                  for styles in _styles(node, reads, fold)]
        for fold, each in styled:
            if not isinstance(each, MatVecFold | DepthwiseFold):
                options[fold].append((each, estimate(node, reads, edge, each, self.family)))
                continue
            costs = estimates(node, reads, edge, each, self.family, memories)
            # Of one word, there is nothing to choose.
            differ = costs[0] != costs[-1]
            options[fold] += [(replace(each, memory=memory if differ else AUTO), cost)
                              for memory, cost in zip(memories, costs, strict=True)]
        return options

    def _price(self, name: str) -> None:
        """Find what the MatVec costs unrolled, the Threshold in it included."""
        node, unit = self.logic[name], self.units[name]
        unit.costs[-1, -1] = estimate(
            node, self.graph.reads(self.graph[name]), self.graph.edges[node.name],
            unit.folds[len(unit.takes[0]) - 1, len(unit.gives) - 1, 0], self.family)
        self.priced.add(name)

    def _source(self, name: str) -> str:
        """The unit that makes the stream `name`: a Flatten has none."""
        node = self.graph[name]
        return self._source(node.inputs[0]) if isinstance(node, ir.Flatten) else name

    def _links(self, node: ir.Node) -> list[tuple[str, str, np.ndarray]]:
        """Unit, unit that reads it, and costs [gives, takes, 4] of what is between them."""
        links, unit = [], self.units[node.name]
        whole = [isinstance(node, ir.SlidingWindow) and gives_whole(self.graph, node, Fold(lanes))
                 for lanes in (unit.takes[0] if isinstance(node, ir.MatVec) else unit.gives)]
        for takes, read in zip(unit.takes, node.inputs, strict=False):  # an Input reads nothing
            source, bits = self._source(read), self.graph.edges[read].width
            gives, pairs = self.units[source].gives, self.units[source].pairs
            widths = [bits] * pairs + [self.paired.edges[read].width] * (len(gives) - pairs)
            joins = len(node.inputs) > 1
            depths = [0 if joins else fifo_depth(self.graph, node, b, whole=all_of)
                      for b, all_of in zip(takes, whole, strict=True)]
            costs = np.array([
                [_between(width, a, b, depth, self.family)
                 for b, depth in zip(takes, depths, strict=True)]
                for a, width in zip(gives, widths, strict=True)], float)
            if unit.logic:
                costs[:, -1] = [_between(bits, a, takes[-1], 0, self.family) for a in gives]
                if isinstance(node, ir.MatVec) and read in self.inside:
                    depth = fifo_depth(self.graph, self.logic[node.name], takes[-1],
                                       source=self.inside[read])
                    costs[-1, -1] = _between(bits, gives[-1], takes[-1], depth, self.family)
            if isinstance(pad := self.graph[source], ir.Pad) and any(whole):
                costs[:, whole] += self._queued(pad, gives, True) - self._queued(pad, gives, False)
            links.append((source, node.name, costs))
        return links

    def _queued(self, pad: ir.Pad, lanes: list[int], whole: bool) -> np.ndarray:
        """Costs [lanes, 1, 4] of the Fifo before `pad`, by whether windows of it come whole."""
        (read,) = self.graph.reads(pad)
        depths = [fifo_depth(self.graph, pad, b, whole=whole) for b in lanes]
        return np.array([[_between(read.width, b, b, depth, self.family)]
                         for b, depth in zip(lanes, depths, strict=True)], float)

    def _slow(self, node: ir.Node, source: ir.Node) -> np.ndarray | None:
        """Cycles of an image [gives of the source, *lanes of the node], where no queue is between.

        None if lanes that suit each other badly cost no time.
        """
        unit = self.units[node.name]
        tables: list[np.ndarray] = []
        if isinstance(node, ir.MatVec) and isinstance(source, ir.SlidingWindow | ir.Input):
            # A vector is read in the first of its folds, as it comes.
            outputs, inputs = node.weights.shape
            gives = np.array(self.units[source.name].gives)[:, None, None]
            beats = inputs / np.array(unit.takes[0])[:, None]
            wait = np.maximum(inputs / gives - beats, 0)
            tables.append(np.prod(self.graph.edges[node.name].shape[:2]) * (
                node.groups * wait + beats * outputs / np.array(unit.gives)))
        if isinstance(source, ir.SlidingWindow):
            # A whole window comes when its last pixel does: no line buffer evens bursts out.
            it = line_buffer(source, self.graph.reads(source)[0], 1)
            often = it.rows * (it.columns - 1), it.rows - 1, 1
            each = unit.cycles / (it.rows * it.columns)
            late = sum(times * np.maximum(each, jump)
                       for times, jump in zip(often, it.jumps, strict=True) if times)
            whole = np.reshape([gives_whole(self.graph, source, Fold(lanes))
                                for lanes in self.units[source.name].gives],
                               (-1, *[1] * unit.cycles.ndim))
            tables.append(np.where(whole, late, 0.0))
        if isinstance(node, ir.SlidingWindow) and isinstance(source, ir.Pad | ir.Input):
            # Between rows and images a line buffer waits for words: they must come in each cycle.
            gives = np.array(self.units[source.name].gives)[:, None]
            tables.append(np.where(gives < np.array(unit.takes[0]), np.inf, unit.cycles))
        return reduce(np.maximum, tables) if tables else None

    def cycles(self, folding: Folding) -> int:
        """Cycles per image of the slowest unit, in steady state."""
        needs = [fold_cycles(node, self.graph.reads(node), self.graph.edges[node.name],
                             folding[node.name]) for node in self.nodes]
        for name, cycles in self.slow.items():
            source = self.graph[name].inputs[0]
            folds = folding[source], folding[name]
            (*_, gives), at = (self.units[it].places[fold.pe, fold.simd]
                               for it, fold in zip((source, name), folds, strict=True))
            needs.append(ceil(cycles[gives, *at]))
        return max(needs)

    def solve(self, cycles: int, blocks: float | None = None) -> tuple[float, Folding]:
        """The least cost of a folding with at most `cycles` per image, and the folding.

        `blocks` is what a block RAM costs, default `BLOCK_LUTS`.  Raises N2uqError if a unit
        cannot be in time.

        What a MatVec costs unrolled takes seconds to see: as long as it is not known,
        `unrolled_least` stands for it, and only what would be chosen with these is looked at.
        """
        if cycles < (fewest := reach(self.graph))[0]:
            raise out_of_reach(self.graph[fewest[1]], self.graph, cycles)
        return self._priced(dict.fromkeys(self.units, cycles), blocks)

    def _priced(self, limits: Limits, blocks: float | None = None) -> tuple[float, Folding]:
        """As `solve`; a unit that is never in time has the most lanes."""
        while True:
            total, folding = self._solve(limits, blocks)
            new = [name for name in self.logic.keys() - self.priced
                   if isinstance(folding[name], UnrolledFold)]
            if not new:
                return total, folding
            for name in new:
                self._price(name)

    def _solve(self, limits: Limits, blocks: float | None) -> tuple[float, Folding]:
        """As `_priced`, with what is known of the costs of logic."""
        weights = np.array([1, FF_LUTS, BLOCK_LUTS[self.family] if blocks is None else blocks, 1])
        factors: list[Factor] = []
        styles = {}
        for node in self.nodes:
            unit, variables = self.units[node.name], self._variables(node)
            scores = unit.costs @ weights
            if unit.behind is not None:  # with the lanes before it comes whether these are pairs
                before = self.units[node.inputs[0]]
                scores = np.array([unit.behind @ weights if before.pairs <= k < 2 * before.pairs
                                   else scores for k in range(len(before.gives))])
                variables = (*self._variables(self.graph[node.inputs[0]])[1:], *variables)
            styles[node.name] = variables, scores.argmin(axis=-1)
            factors.append((variables, np.where(_late(unit.cycles, limits[node.name]), np.inf,
                                                scores.min(axis=-1))))
        for source, reader, costs in self.links:
            node, other = self.graph[reader], self.graph[source]
            gives, takes = self._variables(other)[-1], self._variables(node)[0]
            factors.append(((gives, takes), costs @ weights))
            if reader in self.slow:
                late = _late(self.slow[reader], limits[reader])
                factors.append(((gives, *self._variables(node)), np.where(late, np.inf, 0.0)))
        for name, unrolled in self.logic.items():
            if unrolled.threshold is not None:  # it goes with the Threshold that is in it
                a, b = (np.arange(len(lanes)) == len(lanes) - 1 for lanes in (
                    self.units[name].gives, self.units[unrolled.name].takes[0]))
                factors.append((((name, "gives"), (unrolled.name, "gives")),
                                np.where(a[:, None] != b, np.inf, 0.0)))
        total, at = least(factors)
        folding = {}
        for node in self.nodes:
            place = tuple(at[v] for v in self._variables(node))
            variables, best = styles[node.name]
            folding[node.name] = self.units[node.name].folds[
                *place, best[tuple(at[v] for v in variables)]]
        return total, folding

    def _variables(self, node: ir.Node) -> tuple[Variable, ...]:
        """What is to be chosen: the lanes on both sides of a MatVec, those that others give."""
        gives = node.name, "gives"
        return ((node.name, "takes"), gives) if isinstance(node, ir.MatVec) else (gives,)

    def within(self, cycles: int) -> Folding:
        """The folding that costs least with at most `cycles` per image in the timing model.

        FIFOs of joins never fill there.  Units wait for each other, such as between two images:
        what that takes more than they need by themselves, they are given less, and then as many of
        them as can be are given back what that costs.  Raises N2uqError where even units that are
        all as fast as they can be take too many.
        """
        target, (bound, folding) = cycles, self.solve(cycles)
        cost = bound
        while (reached := self.taken(folding)) > cycles:
            faster = [taken for node in self.nodes for taken in [fold_cycles(
                node, self.graph.reads(node), self.graph.edges[node.name], folding[node.name])]
                      if taken > self.units[node.name].cycles.flat[-1]]
            if not faster:
                raise N2uqError(f"{self.graph.name}: takes {reached:,.0f} cycles per image where "
                                f"every unit is as fast as it can be; {cycles:,} cannot be reached")
            target = min(int(target * cycles / reached), max(faster) - 1)
            cost, folding = self._priced(dict.fromkeys(self.units, target))
        limits, names = dict.fromkeys(self.units, target), list(self.units)
        parts = [names[len(names) // 2:], names[:len(names) // 2]] if cost > NEAR * bound else []
        while parts:
            part = parts.pop()
            eased = limits | dict.fromkeys(part, cycles)
            less, other = self._priced(eased)
            if other == folding or self.taken(other) <= cycles:
                limits, cost, folding = eased, less, other
            elif len(part) > 1:
                parts += [part[len(part) // 2:], part[:len(part) // 2]]
        return folding

    def taken(self, folding: Folding) -> float:
        """Cycles per image in the timing model, with unbounded FIFOs where branches meet."""
        deep = {name: FifoFold(depth=UNBOUNDED) for name in fifo_names(self.graph)}
        return forecast(self.graph, folding | deep).cycles_per_image

    def bound(self, cycles: int) -> float:
        """What no folding can cost less than: the sum of the least cost of every unit alone.

        With that of the least that can join it to its readers.
        """
        weights = np.array([1, FF_LUTS, BLOCK_LUTS[self.family], 1])
        after = {name: np.zeros(len(unit.gives)) for name, unit in self.units.items()}
        for source, _, costs in self.links:
            after[source] += (costs @ weights).min(axis=1)
        total = 0.0
        best: dict[str, tuple[float, float]] = {}  # folded, and in logic
        for name, unit in self.units.items():
            late = unit.cycles > cycles
            if name in self.slow:  # also with all that can come before it
                before = self.units[self.graph[name].inputs[0]]
                late |= (self.slow[name][before.cycles <= cycles] > cycles).all(axis=0)
            each = (unit.costs @ weights).min(axis=-1)
            if unit.behind is not None:
                each = np.minimum(each, (unit.behind @ weights).min(axis=-1))
            each = np.where(late, np.inf, each + after[name])
            inside = float(each.flat[-1]) if unit.logic else np.inf
            if unit.logic:
                each.flat[-1] = np.inf
            best[name] = float(each.min()), inside
        for name, (folded, inside) in best.items():
            if name in self.logic and (steps := self.logic[name]).threshold is not None:
                total += min(folded + best[steps.name][0], inside + best[steps.name][1])
            elif name not in self.behind:
                total += min(folded, inside)
        return total

    def fastest(self, luts: int) -> Folding:
        """The folding with the fewest cycles per image whose estimated LUTs are at most `luts`.

        Raises N2uqError if the slowest has more.
        """
        every = np.concatenate([table.reshape(-1) for table in (
            *(unit.cycles for unit in self.units.values()), *self.slow.values())])
        possible = every[np.isfinite(every) & (every >= reach(self.graph)[0])]
        targets = np.unique(np.ceil(possible)).astype(int).tolist()

        def used(folding: Folding) -> float:
            return sum(cost.lut + cost.lutram
                       for cost in prices(self.graph, folding, self.family).values())

        slowest, folding = self.solve(targets[-1], 0)
        if (needed := used(folding)) > luts:
            raise N2uqError(f"{self.graph.name}: needs {ceil(needed):,} LUTs at least, "
                            f"by estimate, not {luts:,}")
        # What is left out of the choice changes little: it is counted anew at each place found.
        rest, at = needed - slowest, len(targets)
        for _ in range(4):
            def fits(cycles: int, rest: float = rest) -> bool:
                limits = dict.fromkeys(self.units, cycles)
                return all(solve(limits, 0)[0] + rest <= luts
                           for solve in (self._solve, self._priced))

            before, at = at, min(bisect_left(targets, True, key=fits), len(targets) - 1)
            if at == before:
                break
            cost, folding = self.solve(targets[at], 0)
            rest = (needed := used(folding)) - cost
        while needed > luts:
            at += 1
            needed = used(self.solve(targets[at], 0)[1])
        # The fewest block RAMs that the LUTs leave room for.
        foldings = (self.solve(targets[at], blocks)[1] for blocks in
                    (*(BLOCK_LUTS[self.family] / 4**k for k in range(4)), 0))
        return next(folding for folding in foldings if used(folding) <= luts)


def prices(graph: ir.Graph, folding: Folding, family: str) -> dict[str, Cost]:
    """The estimated cost of every unit, by its name in the hardware graph."""
    hardware, folds = hardware_graph(graph, folding)
    return {node.name: estimate(node, hardware.reads(node), hardware.edges[node.name],
                                folds[node.name], family)
            for node in hardware.nodes if not isinstance(node, ir.Flatten)}
