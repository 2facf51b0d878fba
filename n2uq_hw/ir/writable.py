"""Parameters that can be written while the hardware runs: what there is room for, what fits.

A node with `room` has the ranges, and so the widths, that hold for all that may be written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from functools import singledispatch
from typing import Any

import numpy as np

from ..errors import N2uqError
from .graph import Graph
from .nodes import (
    DepthwiseMatVec,
    Edge,
    MatVec,
    Node,
    Scale,
    Threshold,
    bits_for,
)

__all__ = ["WRITABLE", "adopt", "code_room", "is_writable", "writable"]

# What can be asked for, and the nodes whose parameters it is.
WRITABLE: dict[str, tuple[type[Node], ...]] = {
    "weights": (MatVec, DepthwiseMatVec), "thresholds": (Threshold, Scale),
    "all": (MatVec, DepthwiseMatVec, Threshold, Scale)}
# The fields of a node that are written.
FIELDS = ("weights", "thresholds", "signs", "base", "multiplier", "offset")


def is_writable(graph: Graph) -> bool:
    """Whether any node has parameters that can be written."""
    return any(getattr(node, "room", ()) for node in graph.nodes)


def writable(graph: Graph, what: str) -> Graph:
    """The same network with room for other parameters: "weights", "thresholds" or "all".

    Weights: all codes of as many bits, signed ones if any is negative.  Thresholds: as many steps,
    at any integer, to any result of as many bits; multipliers and offsets of Scale nodes: a bit
    more than they have.  What is not written stays as it is.
    """
    if what not in WRITABLE:
        raise N2uqError(f"writable must be one of {', '.join(WRITABLE)}, not {what!r}")
    if is_writable(graph):
        raise N2uqError(f"{graph.name}: must not be writable yet")
    chosen = [isinstance(node, WRITABLE[what]) for node in graph.nodes]
    if not any(chosen):
        raise N2uqError(f"{graph.name}: must have {what} to write, and has none")
    nodes = list(graph.nodes)
    for k, node in enumerate(graph.nodes):
        if chosen[k]:  # one by one: a Scale asks what it reads by now
            wide = graph.with_nodes(nodes)
            nodes[k] = _with_room(node, graph.reads(node)[0], wide.reads(node)[0],
                                  graph.edges[node.name])
    return graph.with_nodes(nodes)


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
    # A network trained anew may have sums, and so a shift, of more bits.
    more = wide.width - read.width
    factors, offsets = (np.repeat(values.astype(np.int64) << more, edge.channels // len(values))
                        for values in (node.multiplier, node.offset))
    most, least = 2**(1 + int(np.abs(factors).max()).bit_length()), bool((factors < 0).any())
    reach = 2**(1 + int(np.abs(offsets).max()).bit_length())
    return replace(node, multiplier=factors, offset=offsets, shift=node.shift + more,
                   room=(-least * most, most - 1, -reach, reach - 1))


def adopt(built: Graph, other: Graph) -> Graph:
    """`built` with the parameters of `other`, another training of the same network.

    Raises N2uqError for what has no room, and for what differs where nothing can be written.
    """
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
        changes: dict[str, Any] = dict(_taken(node, new))
        nodes.append(replace(node, **changes))
    return replace(built, meta=other.meta).with_nodes(nodes)


def _taken(node: Node, new: Node) -> Iterator[tuple[str, np.ndarray]]:
    """The fields of `node` that become those of `new`; raises N2uqError for others that differ."""
    room = getattr(node, "room", ())
    if room and isinstance(node, Threshold) and isinstance(new, Threshold):
        new = _steps(node, new)
    if room and isinstance(node, Scale) and isinstance(new, Scale):
        new = _shifted(node, new)
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


def _shifted(node: Scale, new: Scale) -> Scale:
    """`new` with the shift of `node`, a row for each channel."""
    more = node.shift - new.shift
    if more < 0:
        raise N2uqError(f"{node.name}: shift must be at most {node.shift}, as built, "
                        f"not {new.shift}")
    if (most := max(int(np.abs(values.astype(np.int64)).max()).bit_length() for values in (
            new.multiplier, new.offset))) + more > 62:
        raise N2uqError(f"{node.name}: parameters must fit 62 bits, not {most + more}")
    factors, offsets = (values.astype(np.int64) << more for values in (new.multiplier, new.offset))
    channels = len(node.multiplier)
    factors, offsets = (np.repeat(values, channels) if len(values) == 1 else values
                        for values in (factors, offsets))
    return replace(new, shift=node.shift, multiplier=factors, offset=offsets)
