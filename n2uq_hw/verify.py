"""A build's Verilog in simulation against the golden model, every bit of every output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from . import golden
from .emit import Build, Port, ports
from .errors import N2uqError
from .folding import fold_cycles
from .hw.build import Accelerator
from .ir import Flatten, Graph, MatVec
from .sim.runner import Dut, Run, Sink, Source, Tap, pack, simulate, unpack

__all__ = ["Verdict", "verify"]


@dataclass(frozen=True)
class Verdict:
    """What a simulation showed.  Cycle counts are of this run, stalls included.

    `cycles_first_output`: from the first input beat to the first output beat, both counted.
    `cycles_per_image`: between the last beats of successive images, over the second half of them.
    `mac_utilization`: of the slowest MatVec, useful share of its PE·SIMD multiplies.
    """

    images: int
    mismatches: int
    cycles_first_output: int
    cycles_per_image: float
    mac_utilization: float
    accuracy: float | None
    cycles_per_second: float
    stalls: float
    seed: int
    simulator: str
    layers: dict[str, float] = field(default_factory=dict)
    first_mismatch: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return dict(self.__dict__)


def verify(build: Build, images: np.ndarray, labels: np.ndarray | None, *, stalls: float = 0.0,
           seed: int = 0, simulator: str = "verilator",
           progress: Callable[[str, float], None] | None = None) -> Verdict:
    """Run `images` [N, C, H, W] through the build's AXI4-Stream ports and compare every bit.

    Parameters
    ----------
    stalls: probability of a stalled cycle on either side, 0..0.95.
    seed: of the stall pattern.

    On a mismatch the simulation runs again up to that image with taps on the inner streams, and
    `first_mismatch` names image, layer, pixel, channel and both values.
    """
    if not 0 <= stalls <= 0.95:
        raise N2uqError(f"stalls must be a probability in 0..0.95, not {stalls}")
    if len(images) < 1:
        raise N2uqError("images must be at least 1, not 0")
    nhwc = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    expected = golden.run(build.graph, nhwc)
    accelerator = Accelerator(build.graph, build.folding)
    given, made = ports(build.graph, accelerator)
    run = _simulate(build, nhwc, given, made, stalls, seed, simulator, progress)
    record = run.sinks[build.graph.name][0]
    got = unpack(record.beats[:, :made.bits], made.lanes, made.width, made.signed
                 ).reshape(expected.shape)
    wrong = (got != expected).reshape(len(images), -1).any(axis=1)
    first = ""
    if wrong.any():
        first = _locate(build, nhwc, int(wrong.argmax()), accelerator, given, made, stalls, seed,
                        simulator, got, expected)
    accepted = run.sources[build.graph.name][0]
    ends = record.cycles[made.beats - 1::made.beats]
    half = len(ends) // 2
    per_image = (float(ends[-1] - ends[half - 1]) / (len(ends) - half) if half
                 else float(ends[0] - accepted[0] + 1))
    layers = {node.name: fold_cycles(node, build.graph.reads(node), build.graph.edges[node.name],
                                     build.folding[node.name]) / per_image
              for node in build.graph.nodes if isinstance(node, MatVec)}
    guesses = got.reshape(len(got), -1)
    if guesses.shape[1] > 1:
        guesses = guesses.argmax(axis=1)[:, None]
    return Verdict(
        images=len(images), mismatches=int(wrong.sum()),
        cycles_first_output=int(record.cycles[0] - accepted[0] + 1),
        cycles_per_image=per_image, mac_utilization=max(layers.values(), default=0.0),
        accuracy=None if labels is None else float((guesses[:, 0] == labels).mean()),
        cycles_per_second=run.cycles / max(run.seconds, 1e-9), stalls=stalls, seed=seed,
        simulator=simulator, layers=layers, first_mismatch=first)


def _simulate(build: Build, nhwc: np.ndarray, given: Port, made: Port, stalls: float, seed: int,
              simulator: str, progress: Callable[[str, float], None] | None,
              taps: tuple[Tap, ...] = ()) -> Run:
    beats = pack(nhwc.reshape(-1, given.lanes), given.width)
    beats = np.pad(beats, ((0, 0), (0, given.tdata - given.bits)))
    dut = Dut(
        name=build.graph.name, module=f"{build.graph.name}_axis", clock="aclk", reset="aresetn",
        reset_active_low=True, taps=taps,
        sources=(Source("s_axis_tdata", "s_axis_tvalid", "s_axis_tready", given.tdata, beats),),
        sinks=(Sink("m_axis_tdata", "m_axis_tvalid", "m_axis_tready", made.tdata,
                    len(nhwc) * made.beats),))
    work = build.path / ("simulation_debug" if taps else "simulation")
    return simulate(build.verilog, [dut], work=work / simulator, stalls=(stalls, stalls), seed=seed,
                    simulator=simulator, progress=progress)


def _locate(build: Build, nhwc: np.ndarray, image: int, accelerator: Accelerator, given: Port,
            made: Port, stalls: float, seed: int, simulator: str, got: np.ndarray,
            expected: np.ndarray) -> str:
    """Where the inner streams first leave the golden model: image, layer, pixel, channel, values."""
    graph = build.graph
    taps = tuple(
        Tap(name, *(f"accelerator.{name}__o__{signal}" for signal in ("valid", "ready", "payload")),
            width=len(unit.o.p.as_value()))
        for name, unit in accelerator.units.items() if name in graph.edges)
    run = _simulate(build, nhwc[:image + 1], given, made, stalls, seed, simulator, None, taps)
    truth = golden.run_all(graph, nhwc[image:image + 1])
    for node in graph.nodes:
        if node.name not in run.taps[graph.name] or isinstance(node, Flatten):
            continue
        edge, record = graph.edges[node.name], run.taps[graph.name][node.name]
        unit = accelerator.units[node.name]
        values = unpack(record.beats, unit.o.payload.shape().length, edge.width, edge.signed)
        values = values.reshape(-1)[image * edge.size:(image + 1) * edge.size]
        right = truth[node.name].reshape(-1)[:len(values)]
        if (values != right).any():
            at = int((values != right).argmax())
            row, column, channel = (int(v) for v in np.unravel_index(at, edge.shape))
            return (f"image {image}: layer {node.name} first differs at pixel ({row}, {column}), "
                    f"channel {channel}: {values[at]} in RTL, {right[at]} in golden")
    at = int((got[image] != expected[image]).reshape(-1).argmax())
    return (f"image {image}: only the output differs, at element {at}: "
            f"{got[image].reshape(-1)[at]} in RTL, {expected[image].reshape(-1)[at]} in golden")


def images_for(graph: Graph, build: Build | None, count: int, folder: Path | None
               ) -> tuple[np.ndarray, np.ndarray | None]:
    """`count` images and their labels: of the net's data set, else the build's own vectors.

    Without a data set at hand, a build's stored vectors serve as far as they go.
    """
    from . import data

    name = graph.meta.get("dataset", "")
    if name == "digits" or (name in data.DATASETS and folder is not None):
        held = data.load(name, folder)
        if count <= len(held.images):
            return held.images[:count], held.labels[:count]
        raise N2uqError(f"images must be at most the {len(held.images)} of {name}'s test split, "
                        f"not {count}")
    if build is not None and count <= len(build.vectors["images"]):
        return build.vectors["images"][:count], build.vectors.get("labels", [None] * count)[:count]
    node = graph.input
    rng = np.random.default_rng(0)
    height, width, channels = node.shape
    return rng.integers(node.lo, node.hi + 1, (count, channels, height, width)).astype(
        np.uint8 if node.hi < 256 else np.uint16), None
