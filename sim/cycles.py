# amaranth: UnusedElaboratable=no
"""The timing model: when each beat of the generated hardware moves, to the cycle, without data.

Every unit is one or more small state machines of counters, its `Stage`s, that do what its valid,
ready and enable do in RTL; `timing` gives them for a node, with latencies from the gateware's own
functions.  A `Circuit` joins them, and `cycles.cpp` clocks it, compiled once by g++, which the
simulator needs too.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache, singledispatch
from pathlib import Path

import numpy as np

from n2uq_hw import tools
from n2uq_hw.errors import N2uqError
from n2uq_hw.folding import Fold, Folding
from n2uq_hw.hw.build import lanes_of
from n2uq_hw.hw.eltwise import PiecewiseLinearUnit, ScaleUnit
from n2uq_hw.hw.mac import mac_latency
from n2uq_hw.hw.stream import LUT_DEPTH
from n2uq_hw.hw.threshold import threshold_latency
from n2uq_hw.hw.window import line_buffer, stages
from n2uq_hw.ir import (
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
    weight_bits,
)

__all__ = ["ALWAYS", "MODES", "Circuit", "Kind", "Stage", "Trace", "circuit", "timing"]

ALWAYS = np.zeros(1, np.uint8)  # the pattern of a source or sink that never stalls
MODES = ("busy", "starved", "blocked", "idle")
ROW = 16                        # PARAMETERS in cycles.cpp
LIMIT = 2**42                   # cycles of a run


class Kind(IntEnum):
    """State machines, in the order of cycles.cpp."""

    PIPE, JOIN, FORK, PAD, WINDOW, UP, DOWN, FIFO, SOURCE, SINK = range(10)


@dataclass(frozen=True)
class Stage:
    """A state machine: its `kind`, and its parameters as cycles.cpp names them."""

    kind: Kind
    parameters: tuple[int, ...] = ()


def pipe(latency: int, beats: int = 1, emits: int = 1, folds: int = 1, every: int = 1
         ) -> tuple[Stage]:
    """Registers with one enable; of each `beats` taken the last `emits` give a beat.

    With `folds` it works on its beats so many times, and takes them in the first.  With `every`
    only the first of so many of the last `emits` does, the first of the next so many, and so on.
    """
    if not 1 <= latency <= 31:
        raise N2uqError(f"latency of a pipeline must be 1..31 cycles, not {latency}")
    return (Stage(Kind.PIPE, (latency, beats, emits, folds, every)),)


@singledispatch
def timing(node: Node, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> tuple[Stage, ...]:
    """The stages, one after the other, of the unit that `hw.build.unit` makes."""
    raise N2uqError(f"no timing for {type(node).__name__}")


@timing.register
def _(node: Pad, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> tuple[Stage, ...]:
    (top, _, left, _), (height, width, _), groups = (
        node.frame, reads[0].shape, edge.channels // fold.pe)
    return (Stage(Kind.PAD, (edge.shape[0], edge.shape[1] * groups, top, top + height,
                             left * groups, (left + width) * groups)),)


@timing.register
def _(node: SlidingWindow, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> tuple[Stage, ...]:
    *rows, (lines, read) = stages(node, reads[0], fold.pe)
    it = line_buffer(lines, read, read.channels // fold.pe)
    window = Stage(Kind.WINDOW, (it.run, node.kernel[0], it.columns, it.rows, it.depth, *it.jumps,
                                 it.back, it.to_run))
    width, (_, kw), (_, sw) = reads[0].shape[1], node.kernel, node.stride
    return (*(pipe(1, beats=width, emits=width - kw + 1, every=sw) if rows else ()), window)


@timing.register
def _(node: MatVec, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> tuple[Stage, ...]:
    outputs, inputs = node.weights.shape
    latency = mac_latency(fold.simd, weight_bits(node.weights), reads[0].width, fold.form)
    return pipe(latency + 1, beats=inputs // fold.simd, folds=outputs // fold.pe)


@timing.register(DepthwiseMatVec)
def _(node: DepthwiseMatVec, reads: tuple[Edge, ...], edge: Edge, fold: Fold
      ) -> tuple[Stage, ...]:
    """Products, then a pool of them, each with an enable of its own."""
    return (*pipe(2), *_pool(reads[0], edge, fold))


@timing.register(MaxPool)
@timing.register(SumPool)
def _(node: Node, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> tuple[Stage, ...]:
    return _pool(reads[0], edge, fold)


def _pool(read: Edge, edge: Edge, fold: Fold) -> tuple[Stage, ...]:
    return pipe(1, beats=read.channels // fold.pe, emits=edge.channels // fold.pe)


@timing.register
def _(node: ArgMax, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> tuple[Stage, ...]:
    return pipe(1, beats=reads[0].channels // fold.pe)


@timing.register
def _(node: Threshold, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> tuple[Stage, ...]:
    return pipe(threshold_latency(node, reads[0], fold.pe, fold.style))


@timing.register
def _(node: Scale, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> tuple[Stage, ...]:
    return pipe(ScaleUnit(node, reads[0], edge, pe=fold.pe).latency)


@timing.register
def _(node: PiecewiseLinear, reads: tuple[Edge, ...], edge: Edge, fold: Fold
      ) -> tuple[Stage, ...]:
    return pipe(PiecewiseLinearUnit(node, reads[0], edge, pe=fold.pe).latency)


@timing.register
def _(node: Saturate, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> tuple[Stage, ...]:
    return pipe(1)


@timing.register
def _(node: Add, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> tuple[Stage, ...]:
    return (Stage(Kind.JOIN),)


@timing.register
def _(node: Fork, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> tuple[Stage, ...]:
    return (Stage(Kind.FORK, (node.ways,)),)


@timing.register
def _(node: Fifo, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> tuple[Stage, ...]:
    return (Stage(Kind.FIFO, (node.depth, node.depth > LUT_DEPTH)),)


@timing.register
def _(node: WidthConvert, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> tuple[Stage, ...]:
    narrow, wide = sorted((fold.simd, fold.pe))
    return (Stage(Kind.UP if fold.pe > fold.simd else Kind.DOWN, (wide // narrow,)),)


@dataclass(frozen=True)
class Trace:
    """What a run of a Circuit showed.

    Members
    -------
    cycles: from reset until the sinks had their beats.
    ends: int64 [n], the cycle of each beat of each source and sink, by name; cycle 0 is the first
        after reset.
    images: int64 [images, 2], the cycles in which the first and the last beat of each image left a
        unit, by its name; -1 for what did not.
    spent: int64 [4], the cycles that a unit was in each of MODES, by its name: "busy" as it worked
        on a beat; else "blocked" as it offered one that was not taken; else "starved" as it waited
        for one; else "idle", as a source after its last beat.
    high: the most beats that were in a Fifo at a time, by its name.
    """

    cycles: int
    ends: dict[str, np.ndarray]
    images: dict[str, np.ndarray]
    spent: dict[str, np.ndarray]
    high: dict[str, int]


class Circuit:
    """Stages and the streams between them, put together in topological order.

    A source offers a beat in each cycle in which its pattern is 0, and goes on until it is taken; a
    sink takes one in each such cycle, as those of `templates/harness.sv.j2` do.  A pattern is uint8
    [n], one value per cycle, over again when it ends.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[int, ...]] = []
        self._names: list[str] = []
        self._ends: dict[str, int] = {}  # beats by name
        self._streams = 0

    def _stage(self, name: str, stage: Stage, inputs: Sequence[int], beats: int, outputs: int
               ) -> list[int]:
        made = list(range(self._streams, self._streams + outputs))
        self._streams += outputs
        first, second = (*inputs, -1, -1)[:2]
        self._rows.append((stage.kind, first, second, made[0] if made else -1, beats,
                           *stage.parameters))
        self._names.append(name)
        return made

    def add(self, name: str, stages: Sequence[Stage], inputs: Sequence[int], beats: int
            ) -> list[int]:
        """A unit that reads the streams `inputs` and gives `beats` per image; its outputs."""
        for k, stage in enumerate(stages):
            outputs = stage.parameters[0] if stage.kind == Kind.FORK else 1
            last = k == len(stages) - 1
            inputs = self._stage(name if last else f"{name}.{k}", stage, inputs, beats, outputs)
        return list(inputs)

    def source(self, name: str, beats: int, images: int) -> int:
        """A source of so many images; its stream."""
        self._ends[name] = beats * images
        return self._stage(name, Stage(Kind.SOURCE), (), beats, 1)[0]

    def sink(self, name: str, stream: int, beats: int, images: int) -> None:
        """A sink that ends the run when it has so many images."""
        self._ends[name] = beats * images
        self._stage(name, Stage(Kind.SINK), (stream,), beats, 0)

    def beats(self, end: str) -> int:
        """Beats of a source or sink, in all images."""
        return self._ends[end]

    def run(self, patterns: dict[str, np.ndarray] | None = None, *, images: int,
            dense: bool = False, limit: int = LIMIT) -> Trace:
        """Clock the circuit until all sinks have their images.

        Parameters
        ----------
        patterns: of sources and sinks by name; ALWAYS for those it leaves out.
        images: how many of them to watch.
        dense: evaluate every unit in every cycle; the result is the same, and late.
        limit: cycles after which the run has failed.

        Raises N2uqError, naming the sinks and how far they came, if nothing moves any more.
        """
        given = {name: np.ascontiguousarray((patterns or {}).get(name, ALWAYS), np.uint8)
                 for name in self._ends}
        for name, pattern in given.items():
            if pattern.ndim != 1 or not len(pattern) or pattern.all():
                raise N2uqError(f"{name}: a pattern must be a row of cycles, one of them 0")
        count, log = len(self._rows), np.full(sum(self._ends.values()), -1, np.int64)
        rows, at = np.zeros((count, ROW), np.int32), 0
        logs: dict[str, np.ndarray] = {}
        for row, values, name in zip(rows, self._rows, self._names, strict=True):
            row[:len(values)] = values
            if name in self._ends:
                beats = self._ends[name]
                row[5:8] = beats, len(logs), at
                logs[name] = log[at:at + beats]
                at += beats
        times = np.full((count, images, 2), -1, np.int64)
        spent = np.zeros((count, len(MODES)), np.int64)
        high, moved = np.zeros(count, np.int32), np.zeros(count, np.int64)
        stalls = (ctypes.c_void_p * len(logs))(*(given[name].ctypes.data for name in logs))
        lengths = np.array([len(given[name]) for name in logs], np.int64)
        cycles = _library()(count, _at(rows), self._streams, stalls, _at(lengths), _at(log), images,
                            _at(times), limit, _at(spent), _at(high), _at(moved), dense)
        if cycles < 0:
            raise N2uqError("; ".join(
                f"deadlock, {name} got {moved[k]} of {self._ends[name]} beats, then nothing moved"
                for k, name in enumerate(self._names) if self._rows[k][0] == Kind.SINK))
        named = list(enumerate(self._names))
        return Trace(
            int(cycles), logs, {name: times[k] for k, name in named},
            {name: spent[k] for k, name in named},
            {name: int(high[k]) for k, name in named if self._rows[k][0] == Kind.FIFO})


def _at(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def circuit(graph: Graph, folding: Folding, images: int) -> Circuit:
    """The circuit of a hardware graph, with a source `i` and a sink `o` of so many images."""
    made = Circuit()
    lanes = {node.name: lanes_of(graph, folding, node.name) for node in graph.nodes}
    beats = {name: edge.size // lanes[name] for name, edge in graph.edges.items()}
    streams = {graph.input.name: [made.source("i", beats[graph.input.name], images)]}
    for node in graph.nodes[1:]:
        given = [streams[name].pop(0) for name in node.inputs]
        streams[node.name] = given if isinstance(node, Flatten) else made.add(
            node.name, timing(node, graph.reads(node), graph.edges[node.name], folding[node.name]),
            given, beats[node.name])
    made.sink("o", streams[graph.output][0], beats[graph.output], images)
    return made


@cache
def _library() -> Callable[..., int]:
    """The compiled `n2uq_cycles`; kept in the user's cache if that can be written."""
    source = Path(__file__).with_name("cycles.cpp").read_bytes()
    compiler = tools.need("g++", "the timing model")
    version = tools.versions()["g++"]
    key = hashlib.sha256(source + version.encode()).hexdigest()[:16]
    try:
        kept = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "n2uq-hw"
    except RuntimeError:  # a user without a home
        kept = Path(os.devnull)
    path = kept / f"cycles-{key}.so"
    if not path.is_file():
        with tools.scratch() as folder:
            (folder / "cycles.cpp").write_bytes(source)
            tools.run([compiler, "-O2", "-std=c++17", "-shared", "-fPIC", "-o", "cycles.so",
                       "cycles.cpp"], cwd=folder, name="g++")
            try:
                kept.mkdir(parents=True, exist_ok=True)
                part = kept / f".{path.name}.{os.getpid()}"
                part.write_bytes((folder / "cycles.so").read_bytes())
                part.replace(path)
            except OSError:
                path = folder / "cycles.so"
            return _entry(path)
    return _entry(path)


def _entry(path: Path) -> Callable[..., int]:
    function = ctypes.CDLL(str(path)).n2uq_cycles
    function.restype = ctypes.c_int64
    pointer = ctypes.c_void_p
    function.argtypes = [
        ctypes.c_int32, pointer, ctypes.c_int32, pointer, pointer, pointer, ctypes.c_int32, pointer,
        ctypes.c_int64, pointer, pointer, pointer, ctypes.c_int32]
    return function
