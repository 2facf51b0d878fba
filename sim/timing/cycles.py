# amaranth: UnusedElaboratable=no
"""The timing model: when each beat of the generated hardware moves, to the cycle, without data.

Every unit is one or more small state machines of counters, its `Stage`s, that do what its valid,
ready and enable do in RTL; `timing` gives them for a node, with latencies from the gateware's own
functions.  A `Circuit` joins them, and `cycles.cpp` clocks it, compiled once by g++, which the
simulator needs too.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cache, singledispatch
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import numpy as np

from n2uq_hw import tools
from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.depth_to_space import block_lines, block_order
from n2uq_hw.hw.fifo import in_block
from n2uq_hw.hw.line_buffer import LineBuffer
from n2uq_hw.hw.mac import mac_latency
from n2uq_hw.hw.passes import lanes_of
from n2uq_hw.hw.piecewise_linear import PiecewiseLinearUnit
from n2uq_hw.hw.scale import ScaleUnit
from n2uq_hw.hw.sliding_window import line_buffer, stages
from n2uq_hw.hw.threshold import threshold_latency
from n2uq_hw.hw.unrolled import unrolled_latency
from n2uq_hw.hw.upsample import upsample_lines
from n2uq_hw.ir import (
    Add,
    ArgMax,
    Concat,
    DepthToSpace,
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
    Permute,
    PiecewiseLinear,
    Saturate,
    Scale,
    SlidingWindow,
    SumPool,
    Threshold,
    Unrolled,
    Upsample,
    WidthConvert,
    code_bits,
)
from n2uq_hw.ir.folding import Fold, Folding, MatVecFold, ThresholdFold, UnrolledFold

__all__ = ["ALWAYS", "MODES", "UNBOUNDED", "Circuit", "Kind", "Stage", "Trace", "Trials", "circuit",
           "timing"]

ALWAYS = np.zeros(1, np.uint8)  # the pattern of a source or sink that never stalls
MODES = ("busy", "starved", "blocked", "idle")
ROW = 20                        # PARAMETERS in cycles.cpp
LIMIT = 2**42                   # cycles of a run
UNBOUNDED = 2**30               # beats of a FIFO that never fills
MARKS, STEP = 512, 512          # of a run that trials begin from; cycles between two, at least


class Kind(IntEnum):
    """State machines, in the order of cycles.cpp."""

    PIPE, JOIN, FORK, PAD, WINDOW, UP, DOWN, FIFO, SELECT, SOURCE, SINK = range(11)


@dataclass(frozen=True)
class Stage:
    """A state machine: its `kind`, and its parameters as cycles.cpp names them."""

    kind: Kind
    parameters: tuple[int, ...] = ()


def pipe(latency: int, beats: int = 1, emits: int = 1, folds: int = 1, every: int = 1,
         rows: tuple[int, int, int] = (1, 1, 1)) -> tuple[Stage]:
    """Registers with one enable; of each `beats` taken the last `emits` give a beat.

    With `folds` it works on its beats so many times, and takes them in the first.  With `every`
    only the first of so many of the last `emits` does, the first of the next so many, and so on.
    The same of `rows` of beats: how many there are, how many of the last give, every how many.
    """
    if not 1 <= latency <= 31:
        raise N2uqError(f"latency of a pipeline must be 1..31 cycles, not {latency}")
    return (Stage(Kind.PIPE, (latency, beats, emits, folds, every, *rows)),)


@singledispatch
def timing(node: Node, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> tuple[Stage, ...]:
    """The stages, one after the other, of the unit that `hw.units.unit` makes."""
    raise N2uqError(f"no timing for {type(node).__name__}")


@timing.register
def _(node: Pad, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> tuple[Stage, ...]:
    (top, _, left, _), (height, width, _), groups = (
        node.frame, reads[0].shape, edge.channels // fold.pe)
    return (Stage(Kind.PAD, (edge.shape[0], edge.shape[1] * groups, top, top + height,
                             left * groups, (left + width) * groups)),)


@timing.register
def _(node: SlidingWindow, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> tuple[Stage, ...]:
    kernel, lines = stages(node, reads[0], fold.pe)
    parts: tuple[Stage, ...] = ()
    if kernel:
        (windows, read) = kernel
        (height, width, _), (kh, kw), (sh, sw) = read.shape, windows.extent, windows.stride
        parts += pipe(1, beats=width, emits=width - kw + 1, every=sw,
                      rows=(height, height - kh + 1, sh))
    if lines:
        windows, read = lines
        parts += (_lines(line_buffer(windows, read, read.channels // fold.pe)),)
    return parts


def _lines(it: LineBuffer) -> Stage:
    """Of a line buffer with four loops at most."""
    turns = [*(loop.turns for loop in it.loops), 1, 1, 1][:4]
    steps = [*it.steps[1:], 0, 0, 0][:3]
    return Stage(Kind.WINDOW, (*turns, *steps, it.columns, it.rows, it.depth, *it.jumps, it.back))


@timing.register
def _(node: MatVec, reads: tuple[Edge, ...], edge: Edge, fold: MatVecFold
      ) -> tuple[Stage, ...]:
    outputs, inputs = node.weights.shape
    latency = mac_latency(fold.simd, code_bits(node), reads[0].width, fold.form)
    return pipe(latency + 2, beats=inputs // fold.simd, folds=outputs // node.groups // fold.pe)


@timing.register
def _(node: Unrolled, reads: tuple[Edge, ...], edge: Edge, fold: UnrolledFold
      ) -> tuple[Stage, ...]:
    return pipe(unrolled_latency(node, reads[0], fold.levels, fold.lut))


@timing.register(DepthwiseMatVec)
def _(node: DepthwiseMatVec, reads: tuple[Edge, ...], edge: Edge, fold: Fold
      ) -> tuple[Stage, ...]:
    """Products, then a pool of them, each with an enable of its own."""
    return (*pipe(3), *_pool(reads[0], edge, fold))


@timing.register(MaxPool)
@timing.register(SumPool)
def _(node: Node, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> tuple[Stage, ...]:
    return _pool(reads[0], edge, fold)


def _pool(read: Edge, edge: Edge, fold: Fold) -> tuple[Stage, ...]:
    return pipe(1, beats=read.channels // fold.pe, emits=max(edge.channels // fold.pe, 1))


@timing.register
def _(node: ArgMax, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> tuple[Stage, ...]:
    return pipe(1, beats=reads[0].channels // fold.pe)


@timing.register
def _(node: Threshold, reads: tuple[Edge, ...], edge: Edge, fold: ThresholdFold
      ) -> tuple[Stage, ...]:
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
def _(node: Concat, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> tuple[Stage, ...]:
    """Each input is joined to those before it, in turn or at once; a register behind."""
    at_once = fold.pe == edge.channels
    beats = [0 if at_once else read.channels // fold.pe for read in reads]
    return (*(Stage(Kind.SELECT, (sum(beats[:k]), beats[k])) for k in range(1, len(beats))),
            *pipe(1))


@timing.register
def _(node: Upsample, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> tuple[Stage, ...]:
    return (_lines(upsample_lines(node, reads[0], edge.channels // fold.pe)),)


@timing.register
def _(node: DepthToSpace, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> tuple[Stage, ...]:
    order = block_order(node, reads[0])
    return (*(timing(order, reads, reads[0], fold) if order else ()),
            _lines(block_lines(node, reads[0], edge.channels // fold.pe)))


@timing.register
def _(node: Permute, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> tuple[Stage, ...]:
    """A pixel is gathered and given out again; or moves at once."""
    if fold.pe == edge.channels:
        return pipe(1)
    gathers = (Stage(Kind.UP, (reads[0].channels // fold.pe,)),) * (fold.pe < reads[0].channels)
    return (*gathers, Stage(Kind.DOWN, (edge.channels // fold.pe,)))


@timing.register
def _(node: Fork, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> tuple[Stage, ...]:
    return (Stage(Kind.FORK, (node.ways,)),)


@timing.register
def _(node: Fifo, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> tuple[Stage, ...]:
    return (Stage(Kind.FIFO, (node.depth, in_block(node.depth))),)


@timing.register
def _(node: WidthConvert, reads: tuple[Edge, ...], edge: Edge, fold: Fold) -> tuple[Stage, ...]:
    narrow, wide = sorted((fold.simd, fold.pe))
    return (Stage(Kind.UP if fold.pe > fold.simd else Kind.DOWN, (wide // narrow,)),)


# Of a source or sink its name, of a unit its name and which of its stages: what users call a layer
# never meets an end.
Key = str | tuple[str, int]


@dataclass(frozen=True)
class Trace:
    """What a run of a Circuit showed.

    Members
    -------
    cycles: from reset until the sinks had their beats.
    ends: int64 [n], the cycle of each beat of each source and sink, by name; cycle 0 is the first
        after reset.
    images: int64 [images, 2], the cycles in which the first and the last beat of each image left a
        stage, by its `Key`; -1 for what did not.
    spent: int64 [4], the cycles that a stage was in each of MODES, by its `Key`: "busy" as it
        worked on a beat; else "blocked" as it offered one that was not taken; else "starved" as it
        waited for one; else "idle", as a source after its last beat.
    high: the most beats in a Fifo at a time, one that came as another left counted too, by its
        name: with that depth it never refused one.
    over: int64 [spans, 4], `spent` span by span, by `Key`; empty if not asked for.
    """

    cycles: int
    ends: dict[str, np.ndarray]
    images: dict[Key, np.ndarray]
    spent: dict[Key, np.ndarray]
    high: dict[str, int]
    over: dict[Key, np.ndarray] = field(default_factory=dict)

    def stages(self, unit: str) -> list[Key]:
        """The stages of a unit, the first first."""
        return list(takewhile(self.spent.__contains__, ((unit, k) for k in count())))


class Circuit:
    """Stages and the streams between them, put together in topological order.

    A source offers a beat in each cycle in which its pattern is 0, and goes on until it is taken; a
    sink takes one in each such cycle, as those of `templates/harness.sv.j2` do.  A pattern is uint8
    [n], one value per cycle, over again when it ends.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[int, ...]] = []
        self._keys: list[Key] = []
        self._ends: dict[str, int] = {}  # beats by name
        self._streams = 0

    def _stage(self, key: Key, stage: Stage, inputs: Sequence[int], beats: int, outputs: int
               ) -> list[int]:
        streams = list(range(self._streams, self._streams + outputs))
        self._streams += outputs
        first, second = (*inputs, -1, -1)[:2]
        self._rows.append((stage.kind, first, second, streams[0] if streams else -1, beats,
                           *stage.parameters))
        self._keys.append(key)
        return streams

    def add(self, name: str, stages: Sequence[Stage], inputs: Sequence[int], beats: int
            ) -> list[int]:
        """A unit that reads the streams `inputs` and gives `beats` per image; its outputs.

        A stage reads what the one before it gives, and as many more of `inputs` as it takes.
        """
        for k, stage in enumerate(stages):
            outputs = stage.parameters[0] if stage.kind == Kind.FORK else 1
            takes = 1 + (stage.kind in (Kind.JOIN, Kind.SELECT))
            inputs = [*self._stage((name, k), stage, inputs[:takes], beats, outputs),
                      *inputs[takes:]]
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
            dense: bool = False, limit: int = LIMIT, span: int = 1, spans: int = 0) -> Trace:
        """Clock the circuit until all sinks have their images.

        Parameters
        ----------
        patterns: of sources and sinks by name; ALWAYS for those it leaves out.
        images: how many of them to watch.
        dense: evaluate every unit in every cycle; the result is the same, and late.
        limit: cycles after which the run has failed.
        span, spans: watch what units spend in each of so many spans of `span` cycles; the last
            has the rest.

        Raises N2uqError, naming the sinks and how far they came, if nothing moves any more.
        """
        tables = _Tables(self._rows, self._keys, self._ends, patterns or {}, images)
        over = np.zeros((tables.count, spans, len(MODES)), np.int64)
        trace = tables.trace(lambda *results: _library().n2uq_cycles(
            *tables.circuit(self._streams), _at(tables.log), images, _at(tables.images), limit,
            *results, dense, _at(over) if spans else None, span, spans))
        return replace(trace, over=dict(zip(self._keys, over, strict=True)) if spans else {})

    def trials(self, fifos: dict[str, bool], images: int) -> Trials:
        """A run with room for any number of beats in `fifos`, to try others from.

        With each of them goes whether it answers as late as one in block RAM.
        """
        tables = _Tables(self._rows, self._keys, self._ends, {}, images)
        return Trials(tables, self._streams, fifos)


class _Tables:
    """The arrays that cycles.cpp reads and writes in a run of a Circuit."""

    def __init__(self, rows: Sequence[tuple[int, ...]], keys: Sequence[Key], ends: dict[str, int],
                 patterns: dict[str, np.ndarray], images: int) -> None:
        self.keys, self.ends, self.count = keys, ends, len(rows)
        self.patterns = {name: np.ascontiguousarray(patterns.get(name, ALWAYS), np.uint8)
                         for name in ends}
        for name, pattern in self.patterns.items():
            if pattern.ndim != 1 or not len(pattern) or pattern.all():
                raise N2uqError(f"{name}: a pattern must be a row of cycles, one of them 0")
        self.log = np.full(sum(ends.values()), -1, np.int64)
        self.rows, at = np.zeros((self.count, ROW), np.int32), 0
        self.logs: dict[str, np.ndarray] = {}
        for row, values, key in zip(self.rows, rows, keys, strict=True):
            row[:len(values)] = values
            if isinstance(key, str):
                row[5:8] = ends[key], len(self.logs), at
                self.logs[key] = self.log[at:at + ends[key]]
                at += ends[key]
        self.images = np.full((self.count, images, 2), -1, np.int64)
        self.stalls = (ctypes.c_void_p * len(ends))(*(
            self.patterns[name].ctypes.data for name in self.logs))
        self.lengths = np.array([len(self.patterns[name]) for name in self.logs], np.int64)

    def circuit(self, streams: int) -> tuple[Any, ...]:
        """The first arguments of the functions in cycles.cpp."""
        return self.count, _at(self.rows), streams, self.stalls, _at(self.lengths)

    def trace(self, run: Callable[..., int]) -> Trace:
        """What `run` shows, given places for what units spent, held and moved."""
        spent = np.zeros((self.count, len(MODES)), np.int64)
        high, moved = np.zeros(self.count, np.int32), np.zeros(self.count, np.int64)
        cycles = run(_at(spent), _at(high), _at(moved))
        kinds = [Kind(int(row[0])) for row in self.rows]
        keyed = list(enumerate(self.keys))
        if cycles < 0:
            raise N2uqError("; ".join(
                f"deadlock, {key} got {moved[k]} of {self.ends[key]} beats, then nothing moved"
                for k, key in keyed if isinstance(key, str) and kinds[k] == Kind.SINK))
        return Trace(
            int(cycles), {name: log.copy() for name, log in self.logs.items()},
            {key: self.images[k].copy() for k, key in keyed},
            {key: spent[k] for k, key in keyed},
            {key[0]: int(high[k]) for k, key in keyed if kinds[k] == Kind.FIFO})


class Trials:
    """A run that is kept, and trials of the same run with other FIFOs.

    A trial is run only from where a FIFO first does other than in the kept run, and only until all
    units are in the same state as there again.

    Members
    -------
    kept: the Trace of the kept run.
    times: int64 [n], the cycle of each beat of the sink `o` in the last trial.
    """

    def __init__(self, tables: _Tables, streams: int, fifos: dict[str, bool]) -> None:
        self._tables = tables
        self._places = {name: tables.keys.index((name, 0)) for name in fifos}
        for name, place in self._places.items():
            tables.rows[place, 5:7] = UNBOUNDED, fifos[name]
        self.times = tables.logs["o"]  # of the sink, which comes last
        beats = int(tables.rows[:, 4].max())
        self._search = _library().n2uq_search(
            *tables.circuit(streams), _at(tables.log), len(tables.log), tables.images.shape[1],
            _at(tables.images), max(beats * tables.images.shape[1] // MARKS, STEP))
        assert self._search, "without a bound there is no deadlock"
        weakref.finalize(self, _library().n2uq_close, self._search)

    def attempt(self, depths: dict[str, int], due: np.ndarray | None = None) -> bool:
        """Whether no beat of `o` comes later than `due` with FIFOs of these depths.

        `due` is not before the kept run; without it, all that is asked for is an end.
        """
        changes = np.array([(self._places[name], depth, in_block(depth))
                            for name, depth in depths.items()], np.int32)
        late = np.full(len(self._tables.log), LIMIT)
        if due is not None:
            late[-len(due):] = due
        return bool(_library().n2uq_attempt(self._search, len(changes), _at(changes), _at(late)))

    def keep(self) -> None:
        """Keep the run of the last trial, which must have been in time."""
        _library().n2uq_keep(self._search)

    @property
    def kept(self) -> Trace:
        return self._tables.trace(lambda *results: _library().n2uq_kept(self._search, *results))

    @property
    def work(self) -> int:
        """Evaluations of units up to now: what runs cost, some 40 million in a second."""
        return int(_library().n2uq_work(self._search))


def _at(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def circuit(graph: Graph, folding: Folding, images: int) -> Circuit:
    """The circuit of a hardware graph, with a source `i` and a sink `o` of so many images."""
    model = Circuit()
    lanes = {node.name: lanes_of(graph, folding, node.name) for node in graph.nodes}
    beats = {name: edge.size // lanes[name] for name, edge in graph.edges.items()}
    streams = {graph.input.name: [model.source("i", beats[graph.input.name], images)]}
    for node in graph.nodes[1:]:
        inputs = [streams[name].pop(0) for name in node.inputs]
        streams[node.name] = inputs if isinstance(node, Flatten) else model.add(
            node.name, timing(node, graph.reads(node), graph.edges[node.name], folding[node.name]),
            inputs, beats[node.name])
    model.sink("o", streams[graph.output][0], beats[graph.output], images)
    return model


@cache
def _library() -> ctypes.CDLL:
    """The compiled functions of cycles.cpp."""
    return _entry(tools.library(Path(__file__).with_name("cycles.cpp"), "the timing model", "-O3"))


def _entry(library: ctypes.CDLL) -> ctypes.CDLL:
    pointer, i32, i64 = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
    circuit, results = [i32, pointer, i32, pointer, pointer], [pointer] * 3
    functions: Sequence[tuple[str, Any, list[Any]]] = (
        ("cycles", i64, [*circuit, pointer, i32, pointer, i64, *results, i32, pointer, i64, i32]),
        ("search", pointer, [*circuit, pointer, i64, i32, pointer, i64]),
        ("attempt", i32, [pointer, i32, pointer, pointer]), ("keep", None, [pointer]),
        ("kept", i64, [pointer, *results]), ("work", i64, [pointer]), ("close", None, [pointer]))
    for name, result, arguments in functions:
        function = library[f"n2uq_{name}"]
        function.restype, function.argtypes = result, arguments
        setattr(library, f"n2uq_{name}", function)
    return library
