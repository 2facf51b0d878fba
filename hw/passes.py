"""Passes from a lowered graph to the hardware graph: what only hardware needs is inserted."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from .. import ir
from ..errors import N2uqError
from ..ir.folding import (
    ConvertFold,
    Fold,
    Folding,
    MatVecFold,
    UnrolledFold,
    check,
    fifo_depths,
    fifo_names,
    lanes_in,
    lanes_out,
)
from ..names import fresh
from .depths import fifo_depth, gives_whole, join_depths, window_of
from .mac import products_offset
from .stream import element
from .width_convert import convert_width

__all__ = ["hardware_graph", "in_logic", "lanes_of", "saturates", "unroll"]


def steps_behind(graph: ir.Graph, node: ir.Node) -> ir.Threshold | None:
    """The Threshold that reads `node`, if nothing else does, and none that can be written."""
    readers = [other for other in graph.nodes if node.name in other.inputs]
    return readers[0] if len(readers) == 1 and isinstance(
        readers[0], ir.Threshold) and not readers[0].room else None


def in_logic(graph: ir.Graph, matvec: ir.MatVec) -> ir.Unrolled:
    """`matvec` unrolled, with the Threshold behind it, and its name (`steps_behind`).

    Groups are a matrix that is 0 between them.
    """
    weights = matvec.weights
    if matvec.groups > 1:
        weights = np.zeros((len(weights), matvec.groups * weights.shape[1]), weights.dtype)
        at = np.arange(matvec.groups)
        weights.reshape(matvec.groups, -1, matvec.groups, matvec.weights.shape[1])[
            at, :, at] = matvec.weights.reshape(matvec.groups, -1, matvec.weights.shape[1])
    if steps := steps_behind(graph, matvec):
        return ir.Unrolled(steps.name, matvec.inputs, weights, threshold=steps)
    return ir.Unrolled(matvec.name, matvec.inputs, weights)


def unroll(graph: ir.Graph, folding: Folding) -> tuple[ir.Graph, Folding]:
    """An Unrolled in the place of each MatVec of that form, and of the Threshold in it."""
    in_units = {node.name: in_logic(graph, node) for node in graph.nodes
                if isinstance(node, ir.MatVec) and not isinstance(node, ir.Unrolled)
                and isinstance(folding[node.name], UnrolledFold)}
    if not in_units:
        return graph, folding
    folds, places = dict(folding), {node.name: node for node in in_units.values()}
    for name, node in in_units.items():
        folds[node.name] = folds.pop(name)
    return graph.with_nodes(places.get(node.name, node) for node in graph.nodes
                            if node.name in places or node.name not in in_units), folds


def absorbs(graph: ir.Graph, node: ir.MatVec) -> bool:
    """Whether a constant per output of `node` can go into the thresholds behind it.

    That is, of odd weights, if the Threshold's channels have steps of their own.
    """
    behind = steps_behind(graph, node)
    if behind is None or node.room or not (node.weights % 2).all():
        return False
    steps = behind.thresholds
    return len(steps) == len(node.weights) and bool((steps != steps[0]).any())


def absorb(graph: ir.Graph, folding: Folding) -> ir.Graph:
    """An OffsetMatVec in the place of each MatVec of "pairs" or a "heap" where `absorbs` allows it.

    Thresholds behind have what these add (`products_offset`), and a constant by which sums are from
    0 on.  Raises N2uqError for a heap that has none behind it.
    """
    offsets, nodes = dict[str, np.ndarray](), list[ir.Node]()
    for node in graph.nodes:
        new: ir.Node = node
        if isinstance(node, ir.Threshold) and node.inputs[0] in offsets:
            new = replace(node, thresholds=node.thresholds + offsets[node.inputs[0]][:, None])
        elif (type(node) is ir.MatVec and isinstance(fold := folding[node.name], MatVecFold)
              and fold.products.absorbed):
            if not absorbs(graph, node):
                if fold.products.heap:
                    raise N2uqError(f"{node.name}: form {fold.form} must have odd weights, and "
                                    "behind it a Threshold with steps of each channel")
                nodes.append(node)
                continue
            (read,), sums = graph.reads(node), graph.edges[node.name]
            offset = products_offset(node.weights, element(read), fold.simd, fold.form)
            offsets[node.name] = offset - (sums.lo + offset).min()
            new = ir.OffsetMatVec(**node.__dict__, offset=offsets[node.name])
        nodes.append(new)
    return graph.with_nodes(nodes) if offsets else graph


def hardware_graph(graph: ir.Graph, folding: Folding) -> tuple[ir.Graph, Folding]:
    """Insert what only hardware needs, and return the graph and the folding with it.

    A Fork where several nodes read an edge, its outputs in the order of its readers; width
    converters where lanes differ; a Fifo where `depths.py` asks for one, on an Add as deep as
    `folding` says.  A Flatten has no unit: the stream passes through.  See `unroll` for what is
    unrolled.

    Raises N2uqError for a Fifo with which the graph could deadlock.
    """
    check(graph, folding)
    fifos, chosen = fifo_names(graph), fifo_depths(graph, folding)
    taken = {node.name for node in graph.nodes} | {*fifos}
    graph, folding = unroll(graph, folding)
    graph = absorb(graph, folding)
    folds, nodes, lanes = dict(folding), list[ir.Node](), dict[str, int]()
    readers = Counter(name for node in graph.nodes for name in node.inputs)
    tip: dict[str, str] = {}  # the node whose edge is read for the key's
    of_joins = iter(fifos)

    def ours(name: str) -> str:
        taken.add(name := fresh(name, taken))
        return name

    def insert(node: ir.Node, width: int) -> str:
        nodes.append(node)
        folds[node.name], lanes[node.name] = (
            ConvertFold(width, lanes[node.inputs[0]]) if isinstance(node, ir.WidthConvert)
            else Fold(width)), width
        return node.name

    for node in graph.nodes:
        sources = []
        for k, name in enumerate(node.inputs):
            at, prefix = tip[name], f"{node.name}_i{k}" if len(node.inputs) > 1 else node.name
            if not isinstance(node, ir.Flatten):
                wanted = lanes_in(node, k, folds[node.name], graph.edges[name])
                for step, width in enumerate(convert_width(lanes[at], wanted)):
                    at = insert(ir.WidthConvert(ours(f"{prefix}_width{step or ''}"), (at,),
                                             lanes=width), width)
                window = window_of(graph, node)
                whole = window is not None and gives_whole(graph, window, folds[window.name])
                depth = fifo_depth(graph, node, wanted, whole=whole)
                if depth:
                    called = next(of_joins) if len(node.inputs) > 1 else ours(f"{prefix}_fifo")
                    at = insert(ir.Fifo(called, (at,), depth=depth), wanted)
            sources.append(at)
        nodes.append(type(node)(**{**node.__dict__, "inputs": tuple(sources)}))
        name = tip[node.name] = node.name
        lanes[name] = (lanes[sources[0]] if isinstance(node, ir.Flatten)
                       else lanes_out(node, folds[name], graph.edges[name]))
        if (ways := readers[name]) > 1:
            tip[name] = insert(ir.Fork(ours(f"{name}_fork"), (name,), ways=ways), lanes[name])
    hardware = graph.with_nodes(nodes)
    depths = join_depths(hardware, lanes, chosen)
    return hardware.with_nodes(replace(node, depth=depths[node.name]) if isinstance(node, ir.Fifo)
                               and node.name in depths else node for node in hardware.nodes), folds


def lanes_of(graph: ir.Graph, folding: Folding, name: str) -> int:
    """Elements per beat on the edge `name` of a hardware graph."""
    node = graph[name]
    if isinstance(node, ir.Flatten):
        return lanes_of(graph, folding, node.inputs[0])
    return lanes_out(node, folding[name], graph.edges[name])


def saturates(graph: ir.Graph) -> bool:
    """Whether the accelerator has elements to count that Saturate nodes change."""
    return any(isinstance(node, ir.Saturate) for node in graph.nodes)
