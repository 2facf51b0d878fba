"""A graph of nodes: edges inferred, verified, saved, described."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import Field, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import N2uqError
from ..files import load_arrays, save_arrays
from ..names import is_name
from ..tables import Shown, Table
from . import golden
from .nodes import (
    DepthwiseMatVec,
    Edge,
    Input,
    MatVec,
    Node,
    Threshold,
    Unrolled,
    _fits,
    _hints,
    code_bits,
)
from .ranges import _need, infer

__all__ = ["Graph", "channels_first", "describe", "dump", "load_graph"]

FORMAT = 2


@dataclass(frozen=True, eq=False, repr=False)
class Graph(Shown):
    """A named graph; `meta` (JSON) says where it comes from and what its integers mean."""

    name: str
    nodes: tuple[Node, ...]
    meta: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def edges(self) -> dict[str, Edge]:
        """The inferred output edge of every node."""
        return self._infer(None)

    def _infer(self, before: Graph | None) -> dict[str, Edge]:
        """The edges; those of nodes that `before` has, reading the same edges, are its own."""
        known = {node.name: node for node in before.nodes} if before else {}
        edges: dict[str, Edge] = {}
        for node in self.nodes:
            if missing := [name for name in node.inputs if name not in edges]:
                raise N2uqError(f"{self.name}: node {node.name} must read an earlier node, "
                                f"not {missing[0]}")
            reads = [edges[name] for name in node.inputs]
            old = known.get(node.name)
            if before and old and _alike(node, old) and len(reads) == len(old.inputs) and all(
                    a is b for a, b in zip(reads, before.reads(old), strict=True)):
                edges[node.name] = before.edges[node.name]
                continue
            try:
                _need(len(reads) in node.READS, node,
                      f"must read {_counts(node.READS)} edges, not {len(reads)}")
                edges[node.name] = infer(node, *reads)
            except N2uqError as error:
                raise N2uqError(f"{self.name}: {error}") from None
        return edges

    @property
    def input(self) -> Input:
        """The one Input node."""
        return next(node for node in self.nodes if isinstance(node, Input))

    @property
    def output(self) -> str:
        """Name of the one node that nothing reads."""
        read = {name for node in self.nodes for name in node.inputs}
        return next(node.name for node in reversed(self.nodes) if node.name not in read)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of name, nodes and meta: two graphs that differ in any of these differ in it.

        Of a field that is neither array, node nor plain value, only the type counts.
        """
        digest = hashlib.sha256(repr((self.name, sorted(self.meta.items()))).encode())

        def add(value: Any) -> None:
            if isinstance(value, np.ndarray):
                digest.update(repr((value.dtype.str, value.shape)).encode() + value.tobytes())
            elif isinstance(value, Node):
                digest.update(type(value).__name__.encode())
                for f in fields(value):
                    if not _later(f, getattr(value, f.name)):
                        add(getattr(value, f.name))
            else:
                plain = isinstance(value, str | int | tuple | None)
                digest.update((repr(value) if plain else type(value).__qualname__).encode())

        for node in self.nodes:
            add(node)
        return digest.hexdigest()

    @property
    def scale(self) -> float:
        """What 1 of the output stands for; 1 where class indices come out."""
        return float(self.meta.get("output_scale", 1.0))

    @property
    def is_class(self) -> bool:
        """Whether class indices come out."""
        return self.meta.get("output") == "class"

    def forward(self, images: np.ndarray) -> np.ndarray:
        """What golden computes of integer images [N, C, H, W], in the layout of the float net.

        Integers: logits [N, classes], class indices [N], or a map [N, C, H, W].  Logits and maps
        times `scale` are the float net's, but for what the formats round.  Raises N2uqError for
        images that the graph does not take.
        """
        return self.arranged(golden.run(self, self._pixels(images)))

    def trace(self, images: np.ndarray, name: str) -> np.ndarray:
        """What node `name` makes of images [N, C, H, W]: [N, C', H', W'], or [N, C'] of vectors."""
        if name not in self.edges:
            raise N2uqError(f"{self.name}: node must be one of {', '.join(self.edges)}, "
                            f"not {name!r}")
        return channels_first(golden.run_all(self, self._pixels(images))[name])

    def _pixels(self, images: np.ndarray) -> np.ndarray:
        """Images [N, C, H, W] as [N, H, W, C]."""
        images, (height, width, channels) = np.asarray(images), self.input.shape
        if images.shape[1:] != (channels, height, width):
            raise N2uqError(f"images of {self.name} must be integers [N, {channels}, {height}, "
                            f"{width}], not {images.dtype} {list(images.shape)}")
        return np.moveaxis(images, 1, -1)

    def arranged(self, outputs: np.ndarray) -> np.ndarray:
        """Outputs [N, H, W, C] in the layout of `forward`."""
        if self.is_class:
            return outputs.reshape(len(outputs))
        return channels_first(outputs)

    def parts(self) -> list[str | Table]:
        """The name, a row per node, and the multiplies."""
        table = Table("layer", "kind", "shape", "range", "bits", "weights", "weight bits",
                      "thresholds", "MACs", left=2)
        rows = describe(self)
        for row in rows:
            table.add_row(row["name"], row["kind"], "×".join(map(str, row["shape"])),
                          f"{row['range'][0]}..{row['range'][1]}", str(row["bits"]),
                          *(f"{row[key]:,}" if row[key] else "" for key in
                            ("weights", "weight_bits", "thresholds", "macs")))
        return [self.name, table, f"{sum(row['macs'] for row in rows):,} MACs per image"]

    def __getitem__(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    def reads(self, node: Node) -> tuple[Edge, ...]:
        """The edges that `node` reads."""
        return tuple(self.edges[name] for name in node.inputs)

    def with_nodes(self, nodes: Iterable[Node]) -> Graph:
        """The same graph with other nodes, verified."""
        return replace(self, nodes=tuple(nodes)).verify(self)

    def verify(self, before: Graph | None = None) -> Graph:
        """Return the graph if it is legal, else raise N2uqError.

        Legal: names that print, those of nodes unique; fields of the declared types;
        one Input (first), one output, every node reads earlier nodes; every edge's shape and range
        can be inferred, has at most 2**26 elements and fits 62 bits.

        `before` is a graph whose edges need not be inferred again, where nodes are alike.
        """
        names = [node.name for node in self.nodes]
        for name in [self.name, *names]:
            if not is_name(name):
                raise N2uqError(f"{self.name}: names must be text that prints, not {name!r}")
            if names.count(name) > 1:
                raise N2uqError(f"{self.name}: node names must be unique, not {name} twice")
        if not isinstance(self.meta, dict):
            raise N2uqError(f"{self.name}: meta must be a dict, not {type(self.meta).__name__}")
        for node in self.nodes:
            _check_fields(self.name, node)
        if [isinstance(node, Input) for node in self.nodes] != [True] + [False] * (len(names) - 1):
            raise N2uqError(f"{self.name}: exactly one Input must come first")
        read = {name for node in self.nodes for name in node.inputs}
        if len(ends := [name for name in names if name not in read]) != 1:
            raise N2uqError(f"{self.name}: exactly one node must be the output, not {ends}")
        if "edges" not in self.__dict__:
            self.__dict__["edges"] = self._infer(before)  # raises where one cannot be inferred
        return self

    def save(self, path: Path) -> None:
        """Write structure and arrays to one safetensors file, whole or not at all."""
        arrays, rows = {}, []
        for node in self.nodes:
            row: dict[str, Any] = {"kind": type(node).__name__}
            for f in fields(node):
                value = getattr(node, f.name)
                if isinstance(value, np.ndarray):
                    arrays[f"{node.name}.{f.name}"] = value
                elif not _later(f, value):
                    row[f.name] = value
            rows.append(row)
        save_arrays(path, arrays, "n2uq-ir", {
            "format": FORMAT, "name": self.name, "meta": self.meta, "nodes": rows})


def channels_first(values: np.ndarray) -> np.ndarray:
    """[N, H, W, C] as [N, C, H, W], or [N, C] of vectors."""
    values = np.moveaxis(values, -1, 1)
    return values if values.shape[2:] != (1, 1) else values[:, :, 0, 0]


def load_graph(path: Path) -> Graph:
    """Read a graph that `Graph.save` wrote; any fault in it is an N2uqError naming the file."""
    arrays, described = load_arrays(path, "n2uq-ir", FORMAT)
    try:
        nodes = tuple(_node(row, arrays) for row in described["nodes"])
        graph = Graph(described["name"], nodes, described["meta"]).verify()
    except N2uqError as error:
        raise N2uqError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise N2uqError(f"{path}: malformed n2uq-ir description: {error!r}") from None
    if arrays:
        raise N2uqError(f"{path}: array {min(arrays)} is of no node")
    return graph


def _counts(counts: range) -> str:
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _node(row: dict[str, Any], arrays: dict[str, np.ndarray]) -> Node:
    """The node that `row` describes; takes its arrays out of `arrays`."""
    name, kind = row["name"], row.pop("kind")
    if kind not in Node.KINDS:
        raise N2uqError(f"node {name} must be one of {', '.join(Node.KINDS)}, not {kind}")
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in row.items()}
    for f in fields(Node.KINDS[kind]):
        if f.name not in values and not f.metadata.get("later"):
            if (key := f"{name}.{f.name}") not in arrays:
                raise N2uqError(f"{f.name} of {name} is missing")
            values[f.name] = arrays.pop(key)
    return Node.KINDS[kind](**values)


def _later(f: Field[Any], value: Any) -> bool:
    """Whether a field came later than older files, and has what it stands for in these."""
    return bool(f.metadata.get("later")) and value == f.default


def _alike(node: Node, other: Node) -> bool:
    """Whether two nodes differ in their inputs at most; arrays are alike if they are the same."""
    return type(node) is type(other) and all(
        a is b or (not isinstance(a, np.ndarray) and a == b) for a, b in (
            (getattr(node, f.name), getattr(other, f.name))
            for f in fields(node) if f.name != "inputs"))


def _check_fields(graph: str, node: Node) -> None:
    kind: Any = type(node)  # mypy does not see that classes are hashable
    hints = _hints(kind)
    for f in fields(node):
        value = getattr(node, f.name)
        if not _fits(value, hints[f.name]):
            rule = "an integer array" if hints[f.name] is np.ndarray else f"{f.type}"
            actual = f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) \
                else repr(value)
            raise N2uqError(f"{graph}: {f.name} of {node.name} must be {rule}, not {actual}")


def dump(graph: Graph) -> str:
    """Readable text, one line per node: name, kind, inputs, shape, range, width, attributes."""
    lines = [f"graph {graph.name}"]
    for node in graph.nodes:
        edge = graph.edges[node.name]
        attributes = [
            f"{f.name}={list(value.shape) if isinstance(value, np.ndarray) else value}"
            for f in fields(node) if f.name not in ("name", "inputs", "shape", "lo", "hi")
            for value in [getattr(node, f.name)] if not _later(f, value)]
        lines.append(
            f"  {node.name:<16} = {type(node).__name__}({', '.join([*node.inputs, *attributes])})"
            f" : [{', '.join(map(str, edge.shape))}] in {edge.lo.min()}..{edge.hi.max()}"
            f", {edge.width} bits{' signed' if edge.signed else ''}")
    return "\n".join(lines) + "\n"


def describe(graph: Graph) -> list[dict[str, Any]]:
    """A JSON-ready row per node: shape, exact range, width, weights, thresholds, MACs per image."""
    rows = []
    for node in graph.nodes:
        edge = graph.edges[node.name]
        row: dict[str, Any] = {
            "name": node.name, "kind": type(node).__name__, "shape": list(edge.shape),
            "range": [int(edge.lo.min()), int(edge.hi.max())], "bits": edge.width,
            "weights": 0, "weight_bits": 0, "thresholds": 0, "macs": 0}
        if isinstance(node, MatVec | DepthwiseMatVec):
            row |= {"weights": node.weights.size, "weight_bits": code_bits(node),
                    "macs": edge.shape[0] * edge.shape[1] * node.weights.size}
        steps = node.threshold if isinstance(node, Unrolled) else node
        if isinstance(steps, Threshold):
            row["thresholds"] = int((steps.signs != 0).sum())
        rows.append(row)
    return rows
