"""What the timing model says of an accelerator: rate, latency, bottleneck, a row per layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.passes import hardware_graph, unroll
from n2uq_hw.ir import (
    DepthwiseMatVec,
    Fifo,
    Flatten,
    Fork,
    Graph,
    Input,
    MatVec,
    Node,
    WidthConvert,
)
from n2uq_hw.ir.folding import Folding, fold_cycles
from n2uq_hw.names import fresh
from n2uq_hw.tables import Shown, Table

from ..rtl.harness import stall_pattern
from .cycles import ALWAYS, MODES, Key, Trace, circuit

__all__ = ["PATTERNS", "Forecast", "cycles_per_image", "forecast", "mac_utilization", "pattern",
           "plot", "stalled"]

PATTERNS = "always, every:N, burst:ON,OFF or a file in .npy or .txt"


def pattern(text: str) -> np.ndarray:
    """Cycles in which a source or sink stalls, uint8, over again when they end.

    "always": none; "every:N": a beat may move in one of N cycles, as at a camera's rate;
    "burst:ON,OFF": in ON cycles, then not in OFF cycles, as in a camera's lines and blanks; else
    the name of a file with a 0 for each cycle and a 1 where it stalls, NumPy's .npy or .txt.
    """
    if text.endswith((".npy", ".txt")):
        return _recorded(Path(text))
    kind, _, rest = text.partition(":")
    try:
        numbers = [int(part) for part in rest.split(",")] if rest else []
    except ValueError:
        numbers = [0]
    if kind == "always" and not rest:
        return ALWAYS
    if kind == "every" and len(numbers) == 1 and 1 <= numbers[0] <= 2**30:
        return np.arange(numbers[0]).astype(bool).astype(np.uint8)
    if kind == "burst" and len(numbers) == 2 and min(numbers) >= 1 and sum(numbers) <= 2**30:
        return np.repeat(np.array([0, 1], np.uint8), numbers)
    raise N2uqError(f"pattern must be {PATTERNS}, not {text}")


def _recorded(path: Path) -> np.ndarray:
    try:
        cycles = np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.array(
            list("".join(path.read_text(encoding="utf-8").split())), "U1").astype(int)
    except OSError as error:
        raise N2uqError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError:
        cycles = np.array(2)
    if cycles.ndim != 1 or not np.isin(cycles, (0, 1)).all() or cycles.all():
        raise N2uqError(f"{path}: must be a row of 0 and 1, some of them 0, and is not")
    return cycles.astype(np.uint8)


@dataclass(frozen=True, repr=False)
class Forecast(Shown):
    """What a simulation will show; keys as in `verify.Verdict`, all cycles exact.

    `cycles_first_output`, `cycles_last_output`: from the first input beat to the first output beat
    of the first image, and to its last, all counted.
    `cycles`: from reset to the last output beat of the last image.
    `bottleneck`: the unit of the highest utilization; "source" or "sink" if its pattern asks for a
        greater share of the cycles per image (with a _ behind it where a unit is called so).
    `layers`: a row per unit: busy + starved + blocked + idle = cycles, see `Trace`; `utilization`,
        its `fold_cycles` per `cycles_per_image`; `fifos`, [depth, most beats in it] of those before
        it, see `Trace.high`.
    """

    name: str
    images: int
    cycles: int
    cycles_first_output: int
    cycles_last_output: int
    cycles_per_image: float
    mac_utilization: float
    bottleneck: str
    layers: tuple[dict[str, Any], ...]
    trace: Trace

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {key: value for key, value in self.__dict__.items() if key != "trace"}

    def timed(self, clock: float) -> dict[str, float]:
        """Images per second and microseconds to the last beat of an image, at `clock` MHz."""
        return {"clock_mhz": clock, "images_per_second": clock * 1e6 / self.cycles_per_image,
                "latency_us": self.cycles_last_output / clock}

    def parts(self) -> list[str | Table]:
        """A row per unit, the bottleneck, and what an image takes."""
        table = Table("unit", "kind", "PE", "SIMD", *MODES, "utilization", "FIFO depth",
                      "most held", left=2)
        for row in self.layers:
            depths = [", ".join(str(pair[k]) for pair in row["fifos"].values()) for k in (0, 1)]
            table.add_row(row["name"], row["kind"], str(row["pe"]), str(row["simd"]),
                          *(f"{row[mode]:,}" for mode in MODES), f"{row['utilization']:.4f}",
                          *depths)
        return [f"{self.name}, {self.images} images", table,
                "cycles of all images; utilization: share of the cycles per image that the unit "
                "needs", f"bottleneck: {self.bottleneck}",
                f"cycles to the first output: {self.cycles_first_output:,}, to the image's last: "
                f"{self.cycles_last_output:,}; per image: {self.cycles_per_image:,.2f}; "
                f"MAC utilization of the slowest layer: {self.mac_utilization:.4f}"]

    def over_time(self) -> dict[str, np.ndarray]:
        """Cycles of each unit in each of MODES, int64 [spans, 4], of a forecast with `spans`."""
        return {row["name"]: self.trace.over[_stage(row, self.trace)] for row in self.layers}


def cycles_per_image(ends: np.ndarray, start: int) -> float:
    """Between the last beats of successive images, at `ends`, over the second half of them.

    Of one image: from its first input beat, at `start`, to its last output beat, both counted.
    """
    half = len(ends) // 2
    return float(ends[-1] - ends[half - 1]) / (len(ends) - half) if half else float(
        ends[0] - start + 1)


def mac_utilization(graph: Graph, folding: Folding, per_image: float) -> dict[str, float]:
    """The useful share of each layer's multiplies, at `per_image` cycles per image."""
    return {node.name: fold_cycles(node, graph.reads(node), graph.edges[node.name],
                                   folding[node.name]) / per_image
            for node in graph.nodes if isinstance(node, MatVec | DepthwiseMatVec)}


def forecast(graph: Graph, folding: Folding, *, images: int = 4, source: np.ndarray = ALWAYS,
             sink: np.ndarray = ALWAYS, trace: Trace | None = None, spans: int = 0) -> Forecast:
    """Run so many images through the model of what `emit` makes of `graph` and `folding`.

    Parameters
    ----------
    source, sink: their patterns, see `Circuit`; a recorded one from `harness.stall_pattern`.
    trace: of that run, where it is at hand.
    spans: watch the units in so many spans of time of one length, see `Forecast.over_time`.
    """
    if images < 1:
        raise N2uqError(f"images must be at least 1, not {images}")
    hardware, folds = hardware_graph(graph, folding)
    graph, folding = unroll(graph, folding)
    model = circuit(hardware, folds, images)
    per_image = model.beats("o") // images
    ends = {"i": source, "o": sink}
    trace = trace or model.run(ends, images=images)
    if spans:
        trace = model.run(ends, images=images, span=-(-trace.cycles // spans), spans=spans)
    start, last = int(trace.ends["i"][0]), trace.ends["o"][per_image - 1::per_image]
    rate = cycles_per_image(last, start)
    rows = _rows(graph, folding, hardware, trace, rate)
    return Forecast(
        graph.name, images, trace.cycles, int(trace.ends["o"][0]) - start + 1,
        int(last[0]) - start + 1, rate,
        max(mac_utilization(graph, folding, rate).values(), default=0.0),
        _bottleneck(rows, {"source": (model.beats("i") // images, source),
                           "sink": (per_image, sink)}, rate), rows, trace)


def stalled(graph: Graph, folding: Folding, images: int, stalls: float, seed: int) -> Forecast:
    """What `verify` will measure with these stalls: a forecast with its patterns."""
    if not 0 <= stalls <= 0.95:
        raise N2uqError(f"stalls must be a probability in 0..0.95, not {stalls}")
    cycles = 2**16
    while True:  # until the patterns are long enough
        source, sink = (stall_pattern(seed, port, stalls, cycles) for port in range(2))
        timing = forecast(graph, folding, images=images, source=source, sink=sink)
        if timing.cycles <= cycles:
            return timing
        cycles = 2 * timing.cycles


def _unit(name: str, trace: Trace) -> Key:
    """Of the stages of a unit, the one that works most."""
    return max(trace.stages(name), key=lambda it: int(trace.spent[it][0]))


def _stage(row: dict[str, Any], trace: Trace) -> Key:
    """The key in `trace` of the unit of a row."""
    return "i" if row["kind"] == "Input" else _unit(row["name"], trace)


def _last(row: dict[str, Any], trace: Trace) -> Key:
    """The key in `trace` of the stage of a row that gives what the unit does."""
    return "i" if row["kind"] == "Input" else trace.stages(row["name"])[-1]


def _units(graph: Graph, trace: Trace) -> dict[str, Key]:
    """The key in `trace` of each unit of a lowered graph."""
    return {node.name: "i" if isinstance(node, Input) else _unit(node.name, trace)
            for node in graph.nodes if not isinstance(node, Flatten)}


def _bottleneck(rows: Sequence[dict[str, Any]], ends: dict[str, tuple[int, np.ndarray]],
                rate: float) -> str:
    """The name of what needs most cycles for an image; of equals that which is busy longest."""
    slowest = max(rows, key=lambda row: (row["utilization"], row["busy"], row["kind"] == "MatVec"))
    name, most = slowest["name"], slowest["utilization"]
    for end, (beats, pattern) in ends.items():
        share = beats / (1 - pattern.mean()) / rate
        if pattern.any() and share > most:
            name, most = fresh(end, {row["name"] for row in rows}), share
    return name


def _before(hardware: Graph, node: Node) -> Iterator[Node]:
    """The hardware-only nodes between `node` and those that it reads."""
    ahead = list(hardware[node.name].inputs)
    while ahead:
        at = hardware[ahead.pop(0)]
        if isinstance(at, Fifo | Fork | WidthConvert):
            yield at
            ahead += at.inputs


def _rows(graph: Graph, folding: Folding, hardware: Graph, trace: Trace, rate: float
          ) -> tuple[dict[str, Any], ...]:
    """A row per unit, at `rate` cycles per image."""
    rows = []
    for name, unit in _units(graph, trace).items():
        node, fold = graph[name], folding[name]
        needs = fold_cycles(node, graph.reads(node), graph.edges[name], fold)
        rows.append({
            "name": name, "kind": type(node).__name__, "pe": fold.pe, "simd": fold.simd,
            **{mode: int(cycles) for mode, cycles in zip(MODES, trace.spent[unit], strict=True)},
            "utilization": needs / rate, "fifos": {
                fifo.name: [fifo.depth, trace.high[fifo.name]] for fifo in _before(hardware, node)
                if isinstance(fifo, Fifo)}})
    return tuple(rows)


def plot(timing: Forecast, path: Path) -> None:
    """Draw the pipeline over time and what each unit's cycles went into; SVG or PNG by suffix."""
    from n2uq_hw import charts

    if path.suffix not in (".svg", ".png"):
        raise N2uqError(f"{path}: a plot must be an .svg or .png file")
    with charts.style(timing.name):
        figure = drawn(timing)
        try:
            figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
        except OSError as error:
            raise N2uqError(f"{path}: cannot be written: {error.strerror}") from None


def drawn(timing: Forecast) -> Any:
    """The Figure of `plot`."""
    from matplotlib.figure import Figure

    rows, y = timing.layers, np.arange(len(timing.layers))
    figure = Figure(figsize=(13, 2 + 0.16 * len(rows)), layout="constrained")
    time, spent = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for k, row in enumerate(rows):
        times = timing.trace.images[_last(row, timing.trace)]
        for image, (first, last) in enumerate(times):
            if last >= 0:
                time.barh(k, last - first + 1, left=first, height=0.8, color=f"C{image % 10}")
    time.set(xlabel="cycle: from the first beat of an image to its last, a color per image",
             yticks=y, yticklabels=[row["name"] for row in rows],
             title=f"{timing.name}: {timing.cycles_per_image:,.2f} cycles per image")
    left = np.zeros(len(rows))
    for mode, color in zip(MODES, ("C2", "0.8", "C3", "0.93"), strict=True):
        values = np.array([row[mode] for row in rows]) / timing.cycles
        spent.barh(y, values, left=left, height=0.8, color=color, label=mode)
        left += values
    spent.set(xlabel="share of all cycles", xlim=(0, 1), title=f"bottleneck: {timing.bottleneck}")
    figure.legend(*spent.get_legend_handles_labels(), loc="outside lower right",
                  ncols=len(MODES), frameon=False)
    time.invert_yaxis()
    return figure
