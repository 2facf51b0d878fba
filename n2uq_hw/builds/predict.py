"""The Verilog of a build as a function: its compiled model stays alive, and images stream in."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from threading import Lock

import numpy as np

from ..errors import N2uqError
from ..hw.accelerator import WRAPPER, module_name
from ..jobs import Progress, side_by_side
from ..sim.rtl.model import Model, Shape, model_program
from ..sim.rtl.runner import MAX_IDLE
from ..sim.timing.forecast import cycles_per_image
from ..tables import Table
from .answers import Answers, answered, beat_bytes, checked_images, elements
from .emit import Build, ports, report
from .task import Task

__all__ = ["Predictions", "predict"]

BITS = 2**27  # of the beats that a model is sent at a time
KEPT = 4      # builds whose models stay alive
_MODELS: dict[Path, list[Model]] = {}
_LOCK = Lock()


@dataclass(frozen=True, repr=False, kw_only=True)
class Predictions(Answers):
    """What the hardware makes of images, without stalls.

    Members
    -------
    outputs, classes, accuracy, mean_error: see `Answers`.
    scale: what 1 of the outputs stands for.
    cycles_first_output: from the first input beat to the first image's last output beat, both
        counted.
    cycles_per_image: between the last beats of successive images, over the second half of them.
    cycles_per_second: of all models together.
    """

    scale: float
    cycles_first_output: int
    cycles_per_image: float
    cycles_per_second: float

    @property
    def values(self) -> np.ndarray:
        """Float64: the outputs times `scale`."""
        return self.outputs * self.scale

    def parts(self) -> list[str | Table]:
        """A row per thing found."""
        table = Table("", "", left=2)
        table.add_row("images", f"{len(self.outputs):,}")
        self.add_figure(table)
        table.add_row("cycles to the first image's output", f"{self.cycles_first_output:,}")
        table.add_row("cycles per image", f"{self.cycles_per_image:,.2f}")
        table.add_row("simulated cycles per second", f"{self.cycles_per_second:,.0f}")
        return [f"{self.name} in RTL, without stalls", table]


def predict(build: Build, images: np.ndarray, labels: np.ndarray | None = None, *,
            jobs: int | None = None, progress: Progress | None = None) -> Predictions:
    """What the build's Verilog makes of integer `images` [N, C, H, W].

    Parameters
    ----------
    labels: those of a `Task`.
    jobs: models side by side, each with a share of the images; None for one per core, but no more
        than there are images.  Cycles are those of the first.

    The model is compiled once, kept in the build directory under the hash of the Verilog, and its
    processes wait for the next call.
    """
    if jobs is not None and jobs < 1:
        raise N2uqError(f"jobs must be at least 1, not {jobs}")
    graph, told = build.graph, progress or (lambda stage, fraction: None)
    task = Task(graph, labels)
    nhwc = checked_images(graph, images)
    count = min(jobs or len(os.sched_getaffinity(0)), len(images))
    models = _models(build, count, told)
    cuts = list(pairwise(k * len(images) // count for k in range(count + 1)))
    began = time.perf_counter()

    def share(first: int, end: int, told: Progress) -> tuple[np.ndarray, int, np.ndarray, int]:
        return _run(build, models[cuts.index((first, end))], nhwc[first:end],
                    lambda done: told("simulate", done / (end - first)))

    shares = side_by_side(share, cuts, count, told)
    seconds = time.perf_counter() - began
    outputs = np.concatenate([got for got, *_ in shares])
    _, first, ends, _ = shares[0]
    return Predictions(
        **answered(graph, task, outputs), scale=graph.scale,
        cycles_first_output=int(ends[0]) - first + 1,
        cycles_per_image=cycles_per_image(ends, first),
        cycles_per_second=sum(cycles for *_, cycles in shares) / max(seconds, 1e-9))


def _run(build: Build, model: Model, nhwc: np.ndarray, tell: Callable[[int], None]
         ) -> tuple[np.ndarray, int, np.ndarray, int]:
    """Outputs [N, H, W, C], the first cycle, each image's last one, of the first portion; cycles.
    """
    source, output = ports(build.graph, build.folding)
    most = max(1, BITS // (source.beats * source.tdata + output.beats * output.tdata))
    parts, first, ends, cycles = [], 0, np.zeros(0, np.int64), 0
    for start in range(0, len(nhwc), most):
        portion = nhwc[start:start + most]

        def told(images_done: int, before: int = start) -> None:
            tell(before + images_done)

        at, times, beats = model.run(beat_bytes(portion, source), len(portion), told)
        parts.append(elements(beats.reshape(-1, beats.shape[2]), output)
                     .reshape(len(portion), *build.graph.edges[build.graph.output].shape))
        cycles += int(times[-1]) + 1
        if not start:
            first, ends = at, times
    return np.concatenate(parts), first, ends, cycles


def _models(build: Build, count: int, told: Progress) -> list[Model]:
    """So many running models of the build, those of earlier calls first."""
    program = model_program(build.verilog, module_name(build.graph, WRAPPER),
                            (build.path / "simulation").resolve(), told)
    source, output = ports(build.graph, build.folding)
    shape = Shape(source.beats, output.beats, source.tdata // 8, output.tdata // 8)
    busy = sum(row["cycles"] for row in report(build.graph, build.folding)["layers"])
    with _LOCK:
        running = [model for model in _MODELS.pop(program, []) if model.alive]
        while len(running) < count:
            running.append(Model(program, build.verilog, shape, MAX_IDLE + busy))
        _MODELS[program] = running
        while len(_MODELS) > KEPT:
            for model in _MODELS.pop(next(iter(_MODELS))):
                model.close()
    return running

