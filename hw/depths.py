"""How deep every FIFO is.

Before a unit with one input: what it needs so as never to wait, `fifo_depth`.  Where branches meet:
what the folding says, or the least with which no graph can deadlock, `join_depths`.  Between that
least and a FIFO that never fills, `sim.timing.fifos` finds what costs no cycle.

Branches leave a Fork and meet in a node with several inputs, a join, which has a Fifo on each.  If
the join waits for one branch, a, the Fork goes on only while another, b, has room for its beats.

Claim: no graph deadlocks if the Fifo on every input b of every join has room for

    max over j of (beats of b that can have left when beat j + 1 of a can leave) - t(j)    beats,

where t(j) are the beats of b without which what j beats of a suffice for had not left, j itself of
an Add, and "when" is counted in beats of F, the last Fork that all ways to the join pass through.

Proof.  Units are deterministic and wait only for a given stream, so with their bounded buffers they
are a Kahn network: whether it stops does not depend on the order in which units work.  Let them
work in this order: the Input gives a beat only when no unit can go on, and a beat that a unit gives
is worked off by all units behind it before that unit gives its next one; a Fork serves its readers
one after the other.  After beat p of F is worked off, each stream between F and the join has given
what p beats of F allow, and the join has taken all that it could.  When beat p brings new beats of
b, the join has taken t(j) of them or more and lacks beat j + 1 of a, which needs p beats of F or
more: no more of b waits than the bound says.  So every buffer has the room that this order needs. ∎

If the Fork serves b after all that a comes from, beat p of F comes to b when all that it brings to
a is there: "beat j + 1 of a can leave" then counts one beat of F less.  That is least for a branch
without units: the bound less one does deadlock.

Images follow each other without a gap, but the first beat of an image's result needs the image's
first beat, so that the maximum over one image is that over all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import singledispatch

import numpy as np

from .. import ir
from ..errors import N2uqError
from ..ir.folding import Fold
from .depth_to_space import block_order
from .fifo import in_block
from .sliding_window import stages

__all__ = ["CUT", "fifo_depth", "gives_whole", "join_depths", "least_depth", "least_depths",
           "needed", "window_of"]

CUT = 2  # beats of a Fifo that only cuts the ready path


@singledispatch
def needed(node: ir.Node, port: int, count: np.ndarray, reads: tuple[ir.Edge, ...], edge: ir.Edge,
           takes: int, gives: int) -> np.ndarray:
    """Beats of an image that must come to `port` before `count` beats of the result can leave.

    Parameters
    ----------
    count: integers of any shape, 1 to the beats of one image.
    reads, edge: what `node` reads, by input port, and what it makes.
    takes, gives: elements per beat of what comes to `port` and of the result.
    """
    raise N2uqError(f"no order of beats for {type(node).__name__}")


@needed.register(ir.Threshold)
@needed.register(ir.Scale)
@needed.register(ir.PiecewiseLinear)
@needed.register(ir.Add)
@needed.register(ir.Saturate)
@needed.register(ir.Flatten)
@needed.register(ir.Fifo)
@needed.register(ir.Fork)
def _(node: ir.Node, port: int, count: np.ndarray, reads: tuple[ir.Edge, ...], edge: ir.Edge,
      takes: int, gives: int) -> np.ndarray:
    return count


@needed.register
def _(node: ir.WidthConvert, port: int, count: np.ndarray, reads: tuple[ir.Edge, ...],
      edge: ir.Edge, takes: int, gives: int) -> np.ndarray:
    return -(-count * gives // takes)


@needed.register
def _(node: ir.Pad, port: int, count: np.ndarray, reads: tuple[ir.Edge, ...], edge: ir.Edge,
      takes: int, gives: int) -> np.ndarray:
    (height, width, channels), (top, _, left, _) = reads[port].shape, node.frame
    pixel, group = np.divmod(count - 1, channels // gives)
    row, column = np.divmod(pixel, edge.shape[1])
    row, column = row - top, column - left
    in_row, in_column = (row >= 0) & (row < height), (column >= 0) & (column < width)
    before = row.clip(0, height) * width + in_row * column.clip(0, width)
    come = before * (channels // gives) + (in_row & in_column) * (group + 1)
    return np.maximum(come, 1)  # the frame waits for the image's first beat


@needed.register
def _(node: ir.SlidingWindow, port: int, count: np.ndarray, reads: tuple[ir.Edge, ...],
      edge: ir.Edge, takes: int, gives: int) -> np.ndarray:
    (kh, kw), (sh, sw), (_, width, channels) = node.kernel, node.stride, reads[port].shape
    (eh, ew), (dh, dw), of_group = node.extent, node.dilation, channels // node.groups
    window, beat = np.divmod(count - 1, edge.channels // gives)
    row, column = np.divmod(window, edge.shape[1])
    # Its last element, and what comes last of the groups before.
    group, element = np.divmod((beat + 1) * gives - 1, kh * kw * of_group)
    position, channel = np.divmod(element, of_group)
    before = group * of_group
    ky, kx = np.divmod(position, kw)

    def come(y: np.ndarray, x: np.ndarray, channel: np.ndarray | int) -> np.ndarray:
        """Beats up to that of `channel` of pixel (y, x)."""
        return (y * width + x) * (channels // takes) + channel // takes + 1

    here = np.maximum(
        come(row * sh + ky * dh, column * sw + kx * dw, before + channel),
        (group > 0) * come(row * sh + eh - 1, column * sw + ew - 1, before - 1))
    # The window before had to be complete.
    row, column = np.divmod(window - 1, edge.shape[1])
    return np.maximum(here, (window > 0) * come(row * sh + eh - 1, column * sw + ew - 1,
                                                channels - 1))


@needed.register
def _(node: ir.Concat, port: int, count: np.ndarray, reads: tuple[ir.Edge, ...], edge: ir.Edge,
      takes: int, gives: int) -> np.ndarray:
    pixel, channel = np.divmod(count * gives - 1, edge.channels)
    before = sum(read.channels for read in reads[:port])
    channels = (channel + 1 - before).clip(0, reads[port].channels)
    return -(-(pixel * reads[port].channels + channels) // takes)


@needed.register
def _(node: ir.MatVec, port: int, count: np.ndarray, reads: tuple[ir.Edge, ...], edge: ir.Edge,
      takes: int, gives: int) -> np.ndarray:
    """Whole groups, one after the other."""
    beats = edge.channels // node.groups // gives
    return -(-count // beats) * (reads[port].channels // node.groups // takes)


@needed.register
def _(node: ir.Upsample, port: int, count: np.ndarray, reads: tuple[ir.Edge, ...], edge: ir.Edge,
      takes: int, gives: int) -> np.ndarray:
    (_, width, channels), (down, across) = reads[port].shape, node.factor
    pixel, group = np.divmod(count - 1, channels // gives)
    row, column = np.divmod(pixel, edge.shape[1])
    (row, line), (column, copy) = np.divmod(row, down), np.divmod(column, across)
    # A copy comes after the whole of what it is a copy of.
    pixels = row * width + np.where(line > 0, width, column + (copy > 0))
    return pixels * (channels // takes) + ((line == 0) & (copy == 0)) * (group + 1)


@needed.register
def _(node: ir.DepthToSpace, port: int, count: np.ndarray, reads: tuple[ir.Edge, ...],
      edge: ir.Edge, takes: int, gives: int) -> np.ndarray:
    (_, width, _), (a, b), groups = reads[port].shape, node.sides, edge.channels // gives
    pixel, group = np.divmod(count - 1, groups)
    row, column = np.divmod(pixel, edge.shape[1])
    (row, line), (column, across) = np.divmod(row, a), np.divmod(column, b)

    def come(column: np.ndarray | int, line: np.ndarray, last: np.ndarray | int) -> np.ndarray:
        """Beats up to that many of `line` of the pixel in `column`."""
        return ((row * width + column) * a + line) * b * groups + last

    need = np.maximum(come(column, line, across * groups + group + 1),
                      (line > 0) * come(width - 1, line - 1, b * groups))
    if block_order(node, reads[port]):  # whole pixels
        need = -(-need // (a * b * groups)) * (a * b * groups)
    return need


@needed.register(ir.ArgMax)
@needed.register(ir.Permute)
def _(node: ir.Node, port: int, count: np.ndarray, reads: tuple[ir.Edge, ...], edge: ir.Edge,
      takes: int, gives: int) -> np.ndarray:
    return -(-count // (edge.channels // gives)) * (reads[port].channels // takes)


@needed.register(ir.DepthwiseMatVec)
@needed.register(ir.MaxPool)
@needed.register(ir.SumPool)
def _(node: ir.Node, port: int, count: np.ndarray, reads: tuple[ir.Edge, ...], edge: ir.Edge,
      takes: int, gives: int) -> np.ndarray:
    groups = edge.channels // gives
    positions = reads[port].channels // takes // groups  # in beats
    pixel, group = np.divmod(count - 1, groups)
    return ((pixel + 1) * positions - 1) * groups + group + 1


def least_depth(needs: np.ndarray, others: np.ndarray, taken: np.ndarray, beats: int, shift: int
                ) -> int:
    """Beats of a join's input that wait while another input lacks its next beat, at most.

    Parameters
    ----------
    needs, others: int64, beats of the Fork that each beat of this and of the other input needs.
    taken: int64, beats of this input that the join has taken, of those that the image has, while
        it lacks each beat of the other: of an Add as many as of that.
    beats: of the Fork, in one image.
    shift: beats that the Fork gives in addition: -1 where it serves this input last, else 0.
    """
    image, rest = np.divmod(others + shift, beats)
    come = image * len(needs) + np.searchsorted(needs, rest, side="right")
    return int((come - taken).max())


def _taken(graph: ir.Graph, lanes: dict[str, int], node: ir.Node, port: int, other: int
          ) -> np.ndarray:
    """`taken` of `least_depth`: what the beats of the result need that all have left by then."""
    reads, edge = graph.reads(node), graph.edges[node.name]
    counts = np.arange(1, edge.size // lanes[node.name] + 1)
    own, others = (needed(node, k, counts, reads, edge, lanes[node.inputs[k]], lanes[node.name])
                   for k in (port, other))
    left = np.searchsorted(others, np.arange(reads[other].size // lanes[node.inputs[other]]),
                           side="right")
    return np.append(0, own)[left]


def least_depths(graph: ir.Graph, lanes: dict[str, int]) -> dict[str, int]:
    """The bound above for each Fifo on an Add, by name.

    Parameters
    ----------
    graph: with hardware-only nodes: a Fork where several nodes read, a Fifo on each input of Adds.
    lanes: elements per beat of each edge.
    """
    depths: dict[str, int] = {}
    if all(len(node.inputs) < 2 for node in graph.nodes):
        return depths
    root = _dominators(graph)
    for node in graph.nodes:
        if len(node.inputs) < 2:
            continue
        fork = root[node.name]
        beats = graph.edges[fork].size // lanes[fork]
        branches = [_branch(graph, lanes, fork, name) for name in node.inputs]
        for port, (this, name) in enumerate(zip(branches, node.inputs, strict=True)):
            depths[name] = max(
                least_depth(this.needs, other.needs, _taken(graph, lanes, node, port, k), beats,
                            -(min(this.ways) > max(other.ways)))
                for k, other in enumerate(branches) if k != port)
    return depths


def join_depths(graph: ir.Graph, lanes: dict[str, int], chosen: Mapping[str, int]) -> dict[str,
                int]:
    """The depth of each Fifo on an Add, by name: as `chosen`, else the least that is of use.

    Parameters
    ----------
    graph, lanes: as for `least_depths`.

    Raises N2uqError for a depth with which the graph could deadlock.
    """
    depths = {}
    for name, least in least_depths(graph, lanes).items():
        depths[name] = chosen.get(name, max(least, CUT))
        if depths[name] < max(least, 1):
            raise N2uqError(f"{name}: depth must be at least {max(least, 1)} beats, lest the graph "
                            f"deadlocks, not {depths[name]}")
    return depths


def _dominators(graph: ir.Graph) -> dict[str, str]:
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
    lead here.
    """

    needs: np.ndarray
    ways: list[int]


def _branch(graph: ir.Graph, lanes: dict[str, int], fork: str, fifo: str) -> _Branch:
    """The branch from `fork` to `fifo`."""
    first, last = (next(k for k, node in enumerate(graph.nodes) if node.name == name)
                   for name in (fork, fifo))
    demand = {fifo: np.arange(1, graph.edges[fifo].size // lanes[fifo] + 1)}
    ways = []
    readers = [node.name for node in graph.nodes if fork in node.inputs]
    for node in reversed(graph.nodes[first + 1:last + 1]):
        if node.name not in demand:
            continue
        count, reads, edge = demand[node.name], graph.reads(node), graph.edges[node.name]
        for port, name in enumerate(node.inputs):
            need = needed(node, port, np.maximum(count, 1), reads, edge, lanes[name],
                          lanes[node.name])
            demand[name] = np.maximum(demand.get(name, 0), need * (count > 0))
            if name == fork:
                ways.append(readers.index(node.name))
        del demand[node.name]
    return _Branch(demand[fork], ways)


def window_of(graph: ir.Graph, node: ir.Node) -> ir.SlidingWindow | None:
    """The SlidingWindow that `node` is, or that reads it, if it is a Pad."""
    if isinstance(node, ir.Pad):
        node = next((n for n in graph.nodes if node.name in n.inputs), node)
    return node if isinstance(node, ir.SlidingWindow) else None


def gives_whole(graph: ir.Graph, window: ir.SlidingWindow, fold: Fold) -> bool:
    """Whether a beat of it is a whole window."""
    return stages(window, graph.reads(window)[0], fold.pe)[1] is None


def fifo_depth(graph: ir.Graph, node: ir.Node, lanes: int, *, whole: bool = False,
               source: ir.Node | None = None) -> int:
    """Beats of `lanes` elements to queue before `node`, so that it never waits; 0 for no Fifo.

    Where branches meet there is always one, as deep as `join_depths` says.

    A MatVec takes its vector in the first of its folds; in the others the next vector piles up,
    unless it comes from a window, which makes it in no time.  A line buffer is full until an
    image's last window is read; the pixels pile up that the next image's first window needs beyond
    the rows that a stride leaves to spare.  If windows come `whole`, nothing is ever full: pixels
    pile up while a Pad gives its frame's first rows, and while the Fifo gives the first of them.

    `source` gives the beats, if not the node that the graph says.
    """
    read, *others = graph.reads(node)
    if others:
        return CUT
    source = source or graph[node.inputs[0]]
    if isinstance(node, ir.Unrolled):  # the path of ready through many registers is long
        return CUT if isinstance(source, ir.Unrolled) else 0
    if isinstance(node, ir.MatVec):
        vector = 0 if isinstance(source, ir.SlidingWindow | ir.Input) else read.channels // lanes
        return max(vector, CUT)
    if isinstance(source, ir.MatVec) and isinstance(node, ir.Threshold):
        return CUT  # what follows would stall the MatVec through one long path
    window = window_of(graph, node)
    if window is None or isinstance(source, ir.Input | ir.Pad):
        return 0
    (kh, kw), (sh, _) = window.extent, window.stride
    top, _, left, _ = node.frame if isinstance(node, ir.Pad) else (0, 0, 0, 0)
    rows, pixels = (top, left + 2) if whole else (max(kh - sh - top, 0), max(kw - left, 0))
    depth = (rows * read.shape[1] + pixels) * read.channels // lanes
    return max(depth + (whole and in_block(depth)), CUT)
