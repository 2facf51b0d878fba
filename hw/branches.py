"""How deep the FIFOs must be where branches meet, so that no graph can deadlock.

Branches leave a Fork and meet in a node with several inputs, an Add, which has a Fifo on each.  If
the Add waits for one branch, a, the Fork goes on only while the other, b, has room for its beats.

Claim: no graph deadlocks if the Fifo on every input b of every Add has room for

    max over j of (beats of b that can have left when beat j + 1 of a can leave) - j    beats,

where "when" is counted in beats of F, the last Fork that all ways to the Add pass through.

Proof.  Units are deterministic and wait only for a given stream, so with their bounded buffers they
are a Kahn network: whether it stops does not depend on the order in which units work.  Let them
work in this order: the Input gives a beat only when no unit can go on, and a beat that a unit gives
is worked off by all units behind it before that unit gives its next one; a Fork serves its readers
one after the other.  After beat p of F is worked off, each stream between F and the Add has given
what p beats of F allow, and the Add has taken all that both inputs have.  When beat p brings new
beats of b, the Add has taken j of them and lacks beat j + 1 of a, which needs p beats of F or
more: no more of b waits than the bound says.  So every buffer has the room that this order needs. ∎

If the Fork serves b after all that a comes from, beat p of F comes to b when all that it brings to
a is there: "beat j + 1 of a can leave" then counts one beat of F less.  That is least for a branch
without units: the bound less one does deadlock.

Images follow each other without a gap, but the first beat of an image's result needs the image's
first beat, so that the maximum over one image is that over all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from math import ceil

import numpy as np

from ..errors import N2uqError
from ..ir import (
    Add,
    ArgMax,
    DepthwiseMatVec,
    Edge,
    Fifo,
    Flatten,
    Fork,
    Graph,
    MatVec,
    MaxPool,
    Node,
    Pad,
    PiecewiseLinear,
    Saturate,
    Scale,
    SlidingWindow,
    SumPool,
    Threshold,
    WidthConvert,
)

__all__ = ["CUT", "balance", "least_depth", "needed", "share_held"]

CUT = 2  # beats of a Fifo that only cuts the ready path
# Cycles of a unit's pipeline, or more: the beats in it leave with no more coming in.
LATENCY = {MatVec: 16, DepthwiseMatVec: 16, Threshold: 8, Scale: 8, PiecewiseLinear: 8}


@singledispatch
def needed(node: Node, count: np.ndarray, read: Edge, edge: Edge, takes: int, gives: int
           ) -> np.ndarray:
    """Beats of an image that must come to `node` before `count` beats of its result can leave.

    Parameters
    ----------
    count: integers of any shape, 1 to the beats of one image.
    read, edge: what `node` reads, on each of its inputs, and what it makes.
    takes, gives: elements per beat of the two.
    """
    raise N2uqError(f"no order of beats for {type(node).__name__}")


@needed.register(Threshold)
@needed.register(Scale)
@needed.register(PiecewiseLinear)
@needed.register(Add)
@needed.register(Saturate)
@needed.register(Flatten)
@needed.register(Fifo)
@needed.register(Fork)
def _(node: Node, count: np.ndarray, read: Edge, edge: Edge, takes: int, gives: int
      ) -> np.ndarray:
    return count


@needed.register
def _(node: WidthConvert, count: np.ndarray, read: Edge, edge: Edge, takes: int, gives: int
      ) -> np.ndarray:
    return -(-count * gives // takes)


@needed.register
def _(node: Pad, count: np.ndarray, read: Edge, edge: Edge, takes: int, gives: int
      ) -> np.ndarray:
    (height, width, channels), (top, _, left, _) = read.shape, node.frame
    pixel, group = np.divmod(count - 1, channels // gives)
    row, column = np.divmod(pixel, edge.shape[1])
    row, column = row - top, column - left
    in_row, in_column = (row >= 0) & (row < height), (column >= 0) & (column < width)
    before = row.clip(0, height) * width + in_row * column.clip(0, width)
    come = before * (channels // gives) + (in_row & in_column) * (group + 1)
    return np.maximum(come, 1)  # the frame waits for the image's first beat


@needed.register
def _(node: SlidingWindow, count: np.ndarray, read: Edge, edge: Edge, takes: int, gives: int
      ) -> np.ndarray:
    (kh, kw), (sh, sw), (_, width, channels) = node.kernel, node.stride, read.shape
    window, beat = np.divmod(count - 1, edge.channels // gives)
    row, column = np.divmod(window, edge.shape[1])
    position, channel = np.divmod((beat + 1) * gives - 1, channels)  # its last element
    ky, kx = np.divmod(position, kw)

    def come(y: np.ndarray, x: np.ndarray, channel: np.ndarray | int) -> np.ndarray:
        """Beats up to that of `channel` of pixel (y, x)."""
        return (y * width + x) * (channels // takes) + channel // takes + 1

    here = come(row * sh + ky, column * sw + kx, channel)
    # The window before had to be complete.
    row, column = np.divmod(window - 1, edge.shape[1])
    return np.maximum(here, (window > 0) * come(row * sh + kh - 1, column * sw + kw - 1,
                                                channels - 1))


@needed.register(MatVec)
@needed.register(ArgMax)
def _(node: Node, count: np.ndarray, read: Edge, edge: Edge, takes: int, gives: int
      ) -> np.ndarray:
    return -(-count // (edge.channels // gives)) * (read.channels // takes)


@needed.register(DepthwiseMatVec)
@needed.register(MaxPool)
@needed.register(SumPool)
def _(node: Node, count: np.ndarray, read: Edge, edge: Edge, takes: int, gives: int
      ) -> np.ndarray:
    groups, positions = edge.channels // gives, read.channels // edge.channels
    pixel, group = np.divmod(count - 1, groups)
    return ((pixel + 1) * positions - 1) * groups + group + 1


def share_held(node: Node, read: Edge, edge: Edge, takes: int, gives: int) -> float:
    """The share of an image that `node` may take beyond what its next beat needs.

    A Fifo holds its depth, a converter two wide beats, a line buffer the rows that a stride skips
    and, of rows of its kernel, the pixels of the next two, a pipeline what it works on in LATENCY
    cycles.
    """
    come, go = read.size // takes, edge.size // gives
    if isinstance(node, Fifo):
        return node.depth / come
    if isinstance(node, WidthConvert):
        return 2 / min(come, go)
    busy = go * (read.channels // takes) if isinstance(node, MatVec) else max(come, go)
    ahead = LATENCY.get(type(node), 2) / busy
    if isinstance(node, SlidingWindow):
        (_, kw), (sh, sw) = node.kernel, node.stride
        ahead += (sh - 1) / read.shape[0] + (gives > takes) * (kw + 2 * sw) / come
    return ahead


def least_depth(needs: np.ndarray, others: np.ndarray, beats: int, shift: int) -> int:
    """Beats of an Add's input that wait while the other input lacks its next beat, at most.

    Parameters
    ----------
    needs, others: int64, beats of the Fork that each beat of this and of the other input needs.
    beats: of the Fork, in one image.
    shift: beats that the Fork gives in addition: -1 where it serves this input last, 0, or more to
        let it run ahead.
    """
    image, rest = np.divmod(others + shift, beats)
    come = image * len(needs) + np.searchsorted(needs, rest, side="right")
    return int((come - np.arange(len(needs))).max())


def balance(graph: Graph, lanes: dict[str, int], slack: float = 1) -> Graph:
    """Set the depths of the Fifos that are the inputs of an Add.

    A Fifo has room for the bound above with the Fork ahead by as many beats as the units of the
    other branch may hold beyond their needs, so that the Fork never waits for this Fifo first.

    Parameters
    ----------
    graph: with hardware-only nodes: a Fork where several nodes read, a Fifo on each input of Adds.
    lanes: elements per beat of each edge.
    slack: factor on the beats ahead; 0 for the least depths that cannot deadlock.
    """
    if all(len(node.inputs) < 2 for node in graph.nodes):
        return graph
    nodes = {node.name: node for node in graph.nodes}
    root = _dominators(graph)
    for node in graph.nodes:
        if len(node.inputs) < 2:
            continue
        fork = root[node.name]
        beats = graph.edges[fork].size // lanes[fork]
        branches = [_branch(graph, lanes, nodes, fork, name) for name in node.inputs]
        for this, name in zip(branches, node.inputs, strict=True):
            depths = [least_depth(this.needs, other.needs, beats,
                                  ceil(slack * other.held * beats) - (min(this.ways) >
                                                                      max(other.ways)))
                      for other in branches if other is not this]
            nodes[name] = Fifo(name, nodes[name].inputs, depth=max(*depths, CUT))
    return graph.with_nodes(nodes.values())


def _dominators(graph: Graph) -> dict[str, str]:
    """For each node the last that all ways to it pass through."""
    above: dict[str, str] = {}
    level = {graph.input.name: 0}
    for node in graph.nodes[1:]:
        at, *others = node.inputs
        for other in others:
            while at != other:
                if level[at] >= level[other]:
                    at = above[at]
                else:
                    other = above[other]
        above[node.name], level[node.name] = at, level[at] + 1
    return above


@dataclass(frozen=True)
class _Branch:
    """From a Fork to one input of an Add.

    `needs`: int64, beats of the Fork that each beat needs; `ways`: the outputs of the Fork that
    lead here; `held`: the share of an image that the units may hold beyond that.
    """

    needs: np.ndarray
    ways: list[int]
    held: float


def _branch(graph: Graph, lanes: dict[str, int], nodes: dict[str, Node], fork: str, fifo: str
            ) -> _Branch:
    """The branch from `fork` to `fifo`, with the depths that `nodes` have by now."""
    order = list(nodes.values())
    first, last = (next(k for k, node in enumerate(order) if node.name == name)
                   for name in (fork, fifo))
    between = order[first + 1:last + 1]
    demand = {fifo: np.arange(1, graph.edges[fifo].size // lanes[fifo] + 1)}
    inside = []
    for node in reversed(between):
        if node.name not in demand:
            continue
        inside.append(node)
        for name in node.inputs:
            need = needed(node, demand[node.name], *_sides(graph, lanes, node, name))
            demand[name] = np.maximum(demand.get(name, 0), need)
        del demand[node.name]
    held = {fork: 0.0}
    for node in reversed(inside[1:]):  # from the Fork on; the Fifo itself comes after the branch
        held[node.name] = max(held[name] + share_held(node, *_sides(graph, lanes, node, name))
                              for name in node.inputs)
    readers = [node.name for node in order if fork in node.inputs]
    return _Branch(demand[fork], [readers.index(node.name) for node in inside
                                  if fork in node.inputs], held[nodes[fifo].inputs[0]])


def _sides(graph: Graph, lanes: dict[str, int], node: Node, name: str
           ) -> tuple[Edge, Edge, int, int]:
    """What `node` reads from `name` and what it makes, and the lanes of both."""
    return graph.edges[name], graph.edges[node.name], lanes[name], lanes[node.name]
