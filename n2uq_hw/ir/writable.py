"""Parameters that can be written while the hardware runs: what there is room for, what fits.

A node with `room` has the ranges, and so the widths, that hold for all that may be written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from functools import singledispatch
from typing import Any, TypeVar

import numpy as np

from ..errors import N2uqError
from ..names import fresh
from .graph import Graph
from .nodes import (
    MAX_BITS,
    DepthwiseMatVec,
    Edge,
    MatVec,
    Node,
    PiecewiseLinear,
    Saturate,
    Scale,
    Threshold,
    bits_for,
)
from .ranges import infer

__all__ = ["WRITABLE", "adopt", "code_room", "is_writable", "writable"]

# What can be asked for, and the nodes whose parameters it is.
WRITABLE: dict[str, tuple[type[Node], ...]] = {
    "weights": (MatVec, DepthwiseMatVec), "thresholds": (Threshold, Scale, PiecewiseLinear),
    "all": (MatVec, DepthwiseMatVec, Threshold, Scale, PiecewiseLinear)}
# The fields of a node that are written.
FIELDS = ("weights", "thresholds", "signs", "base", "multiplier", "offset", "turn")
LIMIT = 2**(MAX_BITS - 1) - 1  # of a product and an offset: see `ranges`

Lines = Scale | PiecewiseLinear
LinesT = TypeVar("LinesT", bound=Scale | PiecewiseLinear)


def is_writable(graph: Graph) -> bool:
    """Whether any node has parameters that can be written."""
    return any(getattr(node, "room", ()) for node in graph.nodes)


def writable(graph: Graph, what: str) -> Graph:
    """The same network with room for other parameters: "weights", "thresholds" or "all".

    Weights: all codes of as many bits, signed ones if any is negative.  Thresholds: as many steps,
    at any integer, to any result of as many bits; multipliers and offsets of Scale nodes: a bit
    more than they have.  Of a PiecewiseLinear any turns, offsets of a bit more, and slopes from -1
    to 1, or of as many bits as they have; a line of slope 1 in all channels keeps it.  What is not
    written stays as it is.

    Where 62 bits would not hold what a Scale or PiecewiseLinear computes, a Saturate holds what it
    reads to a bit more than that was; if need be, multipliers have less room.
    """
    if what not in WRITABLE:
        raise N2uqError(f"writable must be one of {', '.join(WRITABLE)}, not {what!r}")
    if is_writable(graph):
        raise N2uqError(f"{graph.name}: must not be writable yet")
    if not any(isinstance(node, WRITABLE[what]) for node in graph.nodes):
        raise N2uqError(f"{graph.name}: must have {what} to write, and has none")
    nodes, edges = list[Node](), dict[str, Edge]()

    def add(node: Node) -> None:
        nodes.append(node)
        edges[node.name] = infer(node, *(edges[name] for name in node.inputs))

    try:
        for node in graph.nodes:
            new = node
            if isinstance(node, WRITABLE[what]):
                (name,), (read,) = node.inputs, graph.reads(node)
                if isinstance(node, Lines) and _too_wide(node, read, edges[name]):
                    held = fresh(f"{name}_held", graph.edges)
                    add(Saturate(held, (name,), *_a_bit_more(read)))
                    name, node = held, replace(node, inputs=(held,))
                new = _with_room(node, read, edges[name], graph.edges[node.name])
            add(new)
    except N2uqError as error:
        raise N2uqError(f"{graph.name}: {error}") from None
    return graph.with_nodes(nodes)


def _a_bit_more(edge: Edge) -> tuple[int, int]:
    """The ends of integers with a sign and a bit more than `edge` has."""
    return -2**edge.width, 2**edge.width - 1


@singledispatch
def _with_room(node: Node, read: Edge, wide: Edge, edge: Edge) -> Node:
    """`node` with room; `read` was the edge that it reads, `wide` is it now."""
    raise N2uqError(f"no room for {type(node).__name__}")


@_with_room.register(MatVec)
@_with_room.register(DepthwiseMatVec)
def _(node: Any, read: Edge, wide: Edge, edge: Edge) -> Node:
    return replace(node, room=code_room(node.weights))


def code_room(weights: np.ndarray) -> tuple[int, int, int]:
    """(bits, step, least) of codes that hold `weights`: odd ones, else all of as many bits."""
    if (weights & 1).all():
        bits = int(np.abs(weights.astype(np.int64)).max()).bit_length()
        return bits, 2, 1 - 2**bits
    bits, signed = bits_for(int(weights.min()), int(weights.max()))
    return bits, 1, -signed * 2**(bits - 1)


@_with_room.register
def _(node: Threshold, read: Edge, wide: Edge, edge: Edge) -> Node:
    bits = edge.width
    lo = -edge.signed * 2**(bits - 1)
    channels = edge.channels
    rows: dict[str, Any] = {key: np.repeat(values, channels // len(values), axis=0)
                            for key in ("thresholds", "signs", "base")
                            for values in [getattr(node, key)]}
    return replace(node, room=(lo, lo + 2**bits - 1), **rows)


@_with_room.register
def _(node: Scale, read: Edge, wide: Edge, edge: Edge) -> Node:
    clip = node.clip
    if clip and clip[1] == infer(replace(node, clip=()), read).hi.max():  # the end of its range
        clip = clip[0], 2**(1 + clip[1].bit_length()) - 1
    return replace(_with_wide_lines(node, read, wide), clip=clip)


@_with_room.register
def _(node: PiecewiseLinear, read: Edge, wide: Edge, edge: Edge) -> Node:
    turn = np.repeat(node.turn, edge.channels // len(node.turn))
    return replace(_with_wide_lines(node, read, wide), turn=turn)


def _with_wide_lines(node: LinesT, read: Edge, wide: Edge) -> LinesT:
    """`node` with room for multipliers and offsets, as much as 62 bits have."""
    # A network trained anew may have sums, and so a shift, of more bits.
    for more in range(max(wide.width - read.width, 0), -1, -1):
        rows, reach, most = _wanted(node, read, wide, more)
        if _largest(node.multiplier) << more <= most:
            break
    else:
        most = _largest(node.multiplier)  # refused later, for its width
    factors, offsets = (np.repeat(values.astype(np.int64) << more,
                                  wide.channels // values.shape[-1], axis=-1)
                        for values in (node.multiplier, node.offset))
    ends = np.array(rows).clip(-most, most).reshape(-1).tolist()
    return replace(node, multiplier=factors, offset=offsets, shift=node.shift + more,
                   room=(*ends, -reach, reach - 1))


def _wanted(node: Lines, read: Edge, wide: Edge, more: int
            ) -> tuple[list[tuple[int, int]], int, int]:
    """Room for the multipliers of each line and for offsets, with a shift of `more`; the largest
    multiplier that 62 bits have room for."""
    rows, unity = [], 1 << node.shift + more
    for row in np.atleast_2d(node.multiplier.astype(np.int64) << more):
        if isinstance(node, Scale):
            most = 2**(1 + _largest(row).bit_length())
            rows.append((-most * bool((row < 0).any()), most - 1))
        else:
            most = max(unity, 2**_largest(row).bit_length())
            rows.append((unity, unity) if (row == unity).all() else (-most, most - 1))
    reach, half = 2**(1 + (_largest(node.offset) << more).bit_length()), getattr(node, "half", 0)
    x = max(_largest(wide.lo), _largest(wide.hi), 1)
    return rows, reach, (LIMIT - reach - (half << more)) // x


def _too_wide(node: Lines, read: Edge, wide: Edge) -> bool:
    """Whether its products pass 62 bits for the width of what it reads."""
    more = wide.width - read.width
    rows, _, most = _wanted(node, read, wide, more)
    return more > 1 and max(abs(end) for row in rows for end in row) > most


def _largest(values: np.ndarray) -> int:
    return int(np.abs(values.astype(np.int64)).max())


def adopt(built: Graph, other: Graph) -> Graph:
    """`built` with the parameters of `other`, another training of the same network.

    Raises N2uqError for what has no room, and for what differs where nothing can be written.
    """
    other = _held(built, other)
    if len(built.nodes) != len(other.nodes):
        raise N2uqError(f"{other.name}: must have the {len(built.nodes)} nodes of the build, "
                        f"not {len(other.nodes)}")
    places = {node.name: k for k, node in enumerate(other.nodes)}
    nodes = []
    for node, new in zip(built.nodes, other.nodes, strict=True):
        if type(node) is not type(new):
            raise N2uqError(f"{node.name}: must be a {type(node).__name__}, as built, not a "
                            f"{type(new).__name__}")
        if [built.nodes[places[name]].name for name in new.inputs] != list(node.inputs):
            raise N2uqError(f"{node.name}: must read {', '.join(node.inputs)}, as built, not "
                            f"{', '.join(new.inputs)}")
        changes: dict[str, Any] = dict(_taken(node, new, other.reads(new)))
        nodes.append(replace(node, **changes))
    return replace(built, meta=other.meta).with_nodes(nodes)


def _held(built: Graph, other: Graph) -> Graph:
    """`other` with the Saturate nodes that `writable` added to `built`, which change nothing."""
    nodes, edges = list(other.nodes), other.edges
    for k, node in enumerate(built.nodes[:-1]):
        if isinstance(node, Saturate) and 0 < k < len(nodes) and not isinstance(nodes[k], Saturate):
            before, reader = nodes[k - 1], nodes[k]
            lo, hi = edges[before.name].lo.min(), edges[before.name].hi.max()
            if lo < node.lo or node.hi < hi:
                raise N2uqError(f"{before.name}: results must be in {node.lo}..{node.hi}, as "
                                f"built, not {lo}..{hi}")
            nodes[k:k + 1] = [replace(node, inputs=(before.name,)),
                              replace(reader, inputs=(node.name,))]
    return other.with_nodes(nodes)


def _taken(node: Node, new: Node, reads: tuple[Edge, ...]) -> Iterator[tuple[str, np.ndarray]]:
    """The fields of `node` that become those of `new`; raises N2uqError for others that differ."""
    room = getattr(node, "room", ())
    if room and isinstance(node, Threshold) and isinstance(new, Threshold):
        new = _steps(node, new)
    if room and isinstance(node, Scale) and isinstance(new, Scale):
        new = _shifted(node, _unclipped(node, new, reads[0]))
    if room and isinstance(node, PiecewiseLinear) and isinstance(new, PiecewiseLinear):
        new = _shifted(node, new)
        new = replace(new, turn=np.repeat(new.turn, len(node.turn) // len(new.turn)))
    for f in fields(node):
        old, value = getattr(node, f.name), getattr(new, f.name)
        if f.name in ("name", "inputs", "room"):
            continue
        if not isinstance(old, np.ndarray):
            if old != value:
                raise N2uqError(f"{node.name}: {f.name} must be {old}, as built, not {value}")
        elif room and f.name in FIELDS:
            if value.shape != old.shape:
                raise N2uqError(f"{node.name}: {f.name} must be {list(old.shape)}, as built, "
                                f"not {list(value.shape)}")
            yield f.name, value
        elif old.shape != value.shape or (old != value).any():
            raise N2uqError(f"{node.name}: {f.name} must be as built, for they are part of the "
                            "Verilog, and differ")


def _steps(node: Threshold, new: Threshold) -> Threshold:
    """`new` with a row for each channel and as many steps as `node`, of which some are unused."""
    channels, size = node.signs.shape
    if any(len(values) not in (1, channels) for values in (new.signs, new.base)):
        return new
    signs, thresholds, base = (
        np.repeat(values, channels // len(values), axis=0)
        for values in (new.signs, new.thresholds, new.base))
    used = signs != 0
    most = int(used.sum(axis=1).max(initial=0))
    if most > size:
        raise N2uqError(f"{node.name}: must have at most {size} steps a channel, as built, "
                        f"not {most}")
    order = np.argsort(~used, axis=1, kind="stable")[:, :size]  # the used ones first
    signs, thresholds = (np.take_along_axis(values, order, axis=1)
                         for values in (signs, thresholds))
    more = ((0, 0), (0, size - signs.shape[1]))
    return replace(new, signs=np.pad(signs, more), thresholds=np.pad(thresholds, more), base=base)


def _unclipped(node: Scale, new: Scale, read: Edge) -> Scale:
    """`new` with the upper end of the clip of `node`, if it stays below both."""
    if node.clip and new.clip and (
            infer(replace(new, clip=()), read).hi.max() <= new.clip[1] <= node.clip[1]):
        return replace(new, clip=(new.clip[0], node.clip[1]))
    return new


def _shifted(node: LinesT, new: LinesT) -> LinesT:
    """`new` with the shift of `node`, parameters for each channel."""
    more = node.shift - new.shift
    if more < 0:
        raise N2uqError(f"{node.name}: shift must be at most {node.shift}, as built, "
                        f"not {new.shift}")
    if (most := max(_largest(values).bit_length() for values in (
            new.multiplier, new.offset))) + more > MAX_BITS:
        raise N2uqError(f"{node.name}: parameters must fit {MAX_BITS} bits, not {most + more}")
    channels = node.multiplier.shape[-1]
    factors, offsets = (np.repeat(values, channels, axis=-1) if values.shape[-1] == 1 else values
                        for values in (new.multiplier.astype(np.int64) << more,
                                       new.offset.astype(np.int64) << more))
    return replace(new, shift=node.shift, multiplier=factors, offset=offsets)
