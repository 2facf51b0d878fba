"""A build as one HTML page: verdict, provenance, the network, thresholds, time, cells, accuracy."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from .. import charts
from ..data import channels_last
from ..files import write_file
from ..hw.accelerator import WRAPPER, module_name, module_names
from ..hw.passes import hardware_graph, lanes_of, unroll
from ..ir import Fifo, Flatten, Fork, Graph, Threshold, WidthConvert, golden
from ..sim.timing.cycles import MODES
from ..sim.timing.forecast import Forecast, forecast
from ..templates import render
from . import pictures
from .diagram import Box, Line, diagram
from .emit import Build, report
from .measured import load_measured, verilog_hash
from .synth import FAMILIES
from .task import Task, measure

__all__ = ["PAGE", "write_report"]

PAGE = "report.html"
CLOCK = 200.0         # MHz, where nothing was placed and routed
SPANS = 120           # of time, fewer where many units make the picture large
ELEMENTS = 2**28      # of all edges, for the images whose sums are shown
PORTION = 2**24       # the same, at a time
SAMPLES = 50_000      # sums of a channel
LISTED = 16           # channels whose thresholds the page lists as numbers


def write_report(build: Build, images: np.ndarray | None = None,
                 labels: np.ndarray | None = None, *, clock: float = CLOCK) -> Path:
    """Write `report.html` into the folder of `build`, whole or not at all; returns its path.

    Parameters
    ----------
    images, labels: [N, C, H, W] and those of a `Task`, for golden's accuracy and the histograms of
        sums; the test vectors of the build if left out.
    clock: MHz, for images per second.

    What was simulated and synthesized comes from `measured.json`.  The same build and results give
    the same bytes.
    """
    of_vectors = images is None
    if images is None:
        images, labels = build.vectors["images"], build.vectors.get("labels")
    task = Task(build.graph, labels)
    count = len(unroll(build.graph, build.folding)[0].nodes)
    timing = forecast(build.graph, build.folding, spans=SPANS if count <= 60 else SPANS // 2)
    measured = load_measured(build)
    units = _units(build, timing, measured)
    with charts.style(build.graph.name):
        page = render(
            "report.html.j2", name=build.graph.name, units=units, forecast=timing, clock=clock,
            graph=build.graph, report=report(build.graph, build.folding), modes=MODES,
            verdicts=_verdicts(measured), costs=_costs(measured),
            accuracy=_accuracy(build, measured, images, task, of_vectors),
            measure=measure(task.counted, task.rule), are_values=task.is_values,
            network=_network(build, timing, units), provenance=_provenance(build),
            over_time=charts.inline(pictures.over_time(timing), "time", _time_label(timing)),
            cycles=charts.inline(pictures.cycle_bars(
                timing, {row["name"]: row["cycles"] for row in units}, clock), "cycles",
                _cycles_label(timing, units)),
            cells=_cells_picture(measured, units), quantizers=_quantizers(build, images),
            images=len(images), of_vectors=of_vectors, theme=charts.THEME, changed=build.changed,
            saturation=_saturation(measured), training=_training(build.graph.meta.get("history")))
    write_file(path := build.path / PAGE, page)
    return path


def _training(history: Any) -> Markup | None:
    """The loss curve, of a net that came with one."""
    try:
        label = (f"Loss of {len(history)} epochs, {history[0]['loss']:.4g} to "
                 f"{history[-1]['loss']:.4g}, and validation accuracy, at best "
                 f"{100 * max(row['validation'] for row in history):.2f} %")
        return charts.inline(charts.loss_curve(history), "training", label)
    except (TypeError, KeyError, IndexError, ValueError):  # notes are anyone's
        return None


def _verdicts(measured: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The simulations, those without stalls first; `agrees`: cycles were those predicted."""
    rows = sorted(measured.get("verdicts", []), key=lambda row: (row["stalls"], -row["images"]))
    return [row | {"agrees": row["predicted"] is not None and all(
        row[key] == value for key, value in row["predicted"].items())} for row in rows]


def _units(build: Build, timing: Forecast, measured: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row per unit: what was built, what it does, what it costs, where its module is."""
    built = {row["name"]: row for row in report(build.graph, build.folding)["layers"]}
    lines, cells = _modules(build), _cells(build, measured)
    hardware, _ = hardware_graph(build.graph, build.folding)
    modules = module_names(hardware) | {hardware.input.name: module_name(hardware, WRAPPER)}
    rows = []
    for row in timing.layers:
        name = row["name"]
        module = modules[name]
        file, line = lines[module]
        rows.append(built[name] | row | {
            "file": file, "line": line, "link": f"rtl/{file}#:~:text=module%20{module}(",
            "cells": cells.get(name, {})})
    return rows


def _modules(build: Build) -> dict[str, tuple[str, int]]:
    """File and line of each Verilog module."""
    places = {}
    for path in build.verilog:
        if path.suffix == ".v":
            for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if named := re.match(r"module (\w+)\s*\(", text):
                    places[named[1]] = path.name, number
    return places


def _owner(hardware: Graph, name: str) -> str:
    """The unit that a converter or a FIFO feeds, or that a fork splits the output of."""
    node = hardware[name]
    if isinstance(node, Fork):
        return _source(hardware, name)
    while isinstance(node, Fifo | WidthConvert | Fork | Flatten):
        node = next(other for other in hardware.nodes if node.name in other.inputs)
    return node.name


def _source(hardware: Graph, name: str) -> str:
    """The unit that makes the stream of `name`."""
    while isinstance(node := hardware[name], Fifo | WidthConvert | Fork | Flatten):
        (name,) = node.inputs
    return name


def _costs(measured: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The costed families, in the order of FAMILIES."""
    order = list(FAMILIES)
    costs: dict[str, dict[str, Any]] = measured.get("costs", {})
    return dict(sorted(costs.items(), key=lambda item: (order.index(item[1]["family"]), item[0])))


def _cells(build: Build, measured: Mapping[str, Any]) -> dict[str, dict[str, tuple[int, int]]]:
    """Of the first costed family: cells by kind of each unit, its own and those around it."""
    first = next(iter(_costs(measured).values()), None)
    if first is None:
        return {}
    hardware, _ = hardware_graph(build.graph, build.folding)
    cells: dict[str, dict[str, tuple[int, int]]] = {}
    for node in hardware.nodes:
        if node.name not in first["units"]:
            continue
        used, owner = first["units"][node.name], _owner(hardware, node.name)
        counts = {"LUT": used["lut"] + used["lutram"], "FF": used["ff"], "BRAM": used["bram"],
                  "DSP": used["dsp"]}
        at = int(owner != node.name)
        row = cells.setdefault(owner, dict.fromkeys(counts, (0, 0)))
        for kind, n in counts.items():
            own, around = row[kind]
            row[kind] = (own, around + n) if at else (own + n, around)
    return cells


def _cells_picture(measured: Mapping[str, Any], units: list[dict[str, Any]]) -> Markup | None:
    costs = _costs(measured)
    if not costs:
        return None
    names = [row["name"] for row in units if row["cells"]]
    kinds = [kind for kind in ("LUT", "FF", "BRAM", "DSP")
             if kind in ("LUT", "FF") or any(sum(row["cells"][kind]) for row in units
                                             if row["cells"])]
    cells = {kind: {row["name"]: row["cells"][kind] for row in units if row["cells"]}
             for kind in kinds}
    label = f"Cells on {next(iter(costs))}: " + "; ".join(
        f"{name} " + ", ".join(f"{sum(cells[kind][name]):,} {kind}" for kind in kinds
                               if sum(cells[kind][name])) for name in names)
    return charts.inline(pictures.cell_bars(cells, names), "cells", label)


def _network(build: Build, timing: Forecast, units: list[dict[str, Any]]) -> Markup:
    """The picture of the network."""
    hardware, folds = hardware_graph(build.graph, build.folding)
    names, lines = {row["name"] for row in units}, []
    boxes = []
    for row in units:
        lanes = f" · PE {row['pe']}" + f" × SIMD {row['simd']}" * (row["simd"] > 1)
        shape = "×".join(map(str, row["shape"]))
        boxes.append(Box(
            row["name"], f"{row['kind']}{lanes} · {shape}", row["utilization"], row["link"],
            f"{row['name']}: {row['kind']}, PE {row['pe']}, SIMD {row['simd']}, output {shape} of "
            f"{row['bits']} bits, {row['cycles']:,} cycles per image, utilization "
            f"{100 * row['utilization']:.1f} %", row["name"] == timing.bottleneck))
        for at in hardware[row["name"]].inputs:
            source, takes = _source(hardware, at), lanes_of(hardware, folds, at)
            if source in names:
                gives = lanes_of(hardware, folds, source)
                depths = _fifo_depths(hardware, at)
                lines.append(Line(source, row["name"], (
                    f"{hardware.edges[source].width} bit × {gives}"
                    + (f" → {takes}" if takes != gives else "")
                    + "".join(f" · FIFO {depth:,}" for depth in depths))))
    return diagram(boxes, lines)


def _fifo_depths(hardware: Graph, name: str) -> Iterator[int]:
    while isinstance(node := hardware[name], Fifo | WidthConvert | Fork | Flatten):
        if isinstance(node, Fifo):
            yield node.depth
        (name,) = node.inputs


def _time_label(timing: Forecast) -> str:
    start = f"What each unit does in {timing.cycles:,} cycles of {timing.images} images: "
    return start + "; ".join(
        f"{row['name']} " + ", ".join(f"{mode} {100 * row[mode] / timing.cycles:.1f} %"
                                      for mode in MODES if row[mode]) for row in timing.layers)


def _cycles_label(timing: Forecast, units: list[dict[str, Any]]) -> str:
    return (f"Cycles per image that each unit needs, of {timing.cycles_per_image:,.2f} taken; "
            f"bottleneck {timing.bottleneck}: "
            + "; ".join(f"{row['name']} {row['cycles']:,}" for row in units))


@dataclass(frozen=True)
class Quantizer:
    """A Threshold of the page: its picture, and its first channels' steps as numbers."""

    name: str
    channels: int
    steps: int
    departure: float
    falling: int
    picture: Markup
    listed: list[tuple[str, list[int], list[float]]]
    sums: int


def _quantizers(build: Build, images: np.ndarray) -> list[Quantizer]:
    graph = build.graph
    nodes = [node for node in graph.nodes if isinstance(node, Threshold)]
    sums = _sums(graph, nodes, images)
    quantizers: list[Quantizer] = []
    for node in nodes:
        (edge,) = graph.reads(node)
        channels = pictures.steps_of(node, edge)
        one = len(channels) == 1
        listed = [("all" if one else str(k), steps.learned.tolist(), steps.equidistant.tolist())
                  for k, steps in enumerate(channels[:LISTED])]
        departure = max((steps.departure for steps in channels), default=0.0)
        falling = sum(int((steps.signs < 0).sum()) for steps in channels)
        label = (f"Thresholds of {node.name}, {len(channels)} channels, farthest from equidistant "
                 f"by {departure:.2f} of their distance: " + "; ".join(
                     f"channel {name} learned {_listed(learned)}, equidistant {_listed(even)}"
                     for name, learned, even in listed[:pictures.SHOWN]))
        seen = sums.get(node.name)
        quantizers.append(Quantizer(
            node.name, len(channels), max(len(steps.learned) for steps in channels), departure,
            falling, charts.inline(pictures.thresholds(channels, seen, edge),
                                   f"steps{len(quantizers)}", label),
            listed, 0 if seen is None else len(seen)))
    return quantizers


def _listed(values: list[int] | list[float]) -> str:
    return ", ".join(f"{value:,.1f}".removesuffix(".0") for value in values) or "none"


def _sums(graph: Graph, nodes: list[Threshold], images: np.ndarray) -> dict[str, np.ndarray]:
    """What the first channels of each Threshold read, [n, channels], by its name."""
    size = sum(edge.size for edge in graph.edges.values())
    images = channels_last(images[:max(ELEMENTS // size, 1)], graph.input.shape, graph.name)
    portion = max(PORTION // size, 1)
    parts: dict[str, list[np.ndarray]] = {node.name: [] for node in nodes}
    for start in range(0, len(images), portion):
        values = golden.run_all(graph, images[start:start + portion])
        for node in nodes:
            x = values[node.inputs[0]]
            x = (x.reshape(-1, 1) if len(node.thresholds) == 1
                 else x.reshape(-1, x.shape[-1])[:, :pictures.SHOWN])
            parts[node.name].append(x[::-(-len(x) * -(-len(images) // portion) // SAMPLES)])
    return {name: np.concatenate(part) for name, part in parts.items() if part}


def _accuracy(build: Build, measured: Mapping[str, Any], images: np.ndarray, task: Task,
              of_vectors: bool) -> list[tuple[str, float, int | None]]:
    """Rows of name, figure, images: of the float model, golden and RTL, where they are known.

    The figure is the accuracy, or the mean absolute error of values.  None stands for the images of
    the test split.
    """
    key = "mean_error" if task.is_values else "accuracy"
    rows: list[tuple[str, float | None, int | None]] = []
    agrees = measured.get("agreement", {})
    if agrees and not task.is_values:
        rows.append(("float model, as trained", agrees["trained"], None))
    if agrees:
        rows.append(("float model", agrees.get(f"{key}_float"), agrees["images"]))
    if agrees and agrees["images"] >= len(images):
        rows.append(("golden (integers)", agrees.get(key), agrees["images"]))
    elif task.labels is not None and len(task.labels):
        outputs = task.predictions(build.vectors["expected"] if of_vectors else golden.run(
            build.graph, channels_last(images, build.graph.input.shape, build.graph.name)))
        rows.append(("golden (integers)", (
            task.mean_error if task.is_values else task.accuracy)(outputs), len(images)))
    best = max((row for row in measured.get("verdicts", ()) if row.get(key) is not None),
               key=lambda row: row["images"], default=None)
    if best is not None:
        rows.append(("Verilog in simulation", best[key], best["images"]))
    return [(title, figure, count) for title, figure, count in rows if figure is not None]


def _saturation(measured: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Images and elements that saturated, of simulations that counted them."""
    return [(row["images"], row["saturated"]) for row in measured.get("verdicts", ())
            if row["saturated"] is not None]


def _provenance(build: Build) -> dict[str, Any]:
    """Versions of what made the build, and hashes of its files."""
    manifest = json.loads((build.path / "manifest.json").read_text(encoding="utf-8"))
    rest = {name: digest for name, digest in manifest["sha256"].items()
            if not name.endswith((".hex", ".md", ".json"))}
    return {"versions": {"n2uq-hw": manifest["n2uq-hw"], **manifest.get("tools", {})},
            "files": rest, "others": len(manifest["sha256"]) - len(rest),
            "verilog": verilog_hash(build), "manifest": hashlib.sha256(
                (build.path / "manifest.json").read_bytes()).hexdigest()}
