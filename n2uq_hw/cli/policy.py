"""What commands decide alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import data
from ..builds import accuracy
from ..errors import N2uqError
from ..ir import Graph
from ..ir.folding import Folding
from ..lowering.formats import Formats
from ..lowering.lower import Ranges
from ..model import Net
from .output import say

if TYPE_CHECKING:
    from ..sim.timing.fifos import Sizing

VECTORS = 64  # test vectors that a build keeps


def ranges(net: Net, formats: Formats, calibrate: Path | None) -> Ranges | None:
    """Those of the residual stream that the images in the file `calibrate` reach."""
    if calibrate is None:
        return None
    return accuracy.calibrate(net, formats, data.read_npz(calibrate).images)


def normalized(net: Net, samples: data.Samples, path: Path) -> Net:
    """The net for images that are normalized as the file says."""
    mean, std = (of if given is None else tuple(float(v) for v in given) for given, of in
                 ((samples.mean, net.input.mean), (samples.std, net.input.std)))
    changed = replace(net.input, mean=mean, std=std)
    if np.allclose([changed.factor, changed.offset], [net.input.factor, net.input.offset], 1e-6):
        return net
    say(f"note: {net.name} is lowered for the mean and std in {path}, which are not its own")
    return replace(net, input=changed)


def folding_of(graph: Graph, path: Path | None, cycles: int | None) -> Folding:
    """The folding in the file `path`, or the one for so many cycles per image."""
    from ..plan.choice import choose, load_folding

    if path is not None and cycles is not None:
        raise N2uqError("--folding and --cycles exclude each other, and both are given: "
                        f"{path}, {cycles}")
    return choose(graph, cycles) if path is None else load_folding(path, graph)


def sizing(percent: float, least: bool = False) -> dict[str, float]:
    """What `size_fifos` takes for --fifo-budget and --least-fifos."""
    from ..sim.timing.fifos import WORK

    return {"budget": percent / 100, "work": inf if least else WORK}


def emit_build(net: Net, graph: Graph, out: Path, sized: Sizing, source: Path | None,
               progress: Callable[[str, float], None]) -> dict[str, Any]:
    """Emit; test vectors are real images where there are any, else random."""
    from ..builds.emit import emit

    found = data.images_for(net.meta.get("dataset", ""), source)
    images, labels = found or (np.random.default_rng(0).integers(
        0, net.input.max + 1, (VECTORS, *net.input.shape)), None)
    return emit(graph, sized, out, images[:VECTORS], None if labels is None else labels[:VECTORS],
                lambda stage: progress(f"build: {stage}", 0.0))


def trained(net: Net) -> float | None:
    """Test accuracy of the float model that a net file tells."""
    known = net.meta.get("accuracy")
    found = known.get("float") if isinstance(known, dict) else None
    return found if isinstance(found, float) else None


def report_build(net: Net, out: Path, source: Path | None, progress: Callable[[str, float], None]
            ) -> None:
    """Write report.html of a new build, and how its test vectors agree with the float model."""
    from ..builds.emit import load_build
    from ..builds.measured import keep_agreement
    from ..builds.report import write_report

    progress("build: report", 0.0)
    made = load_build(out)
    labels = made.vectors.get("labels")
    if labels is not None:
        keep_agreement(made, accuracy.agreement(net, made.graph, made.vectors["images"], labels),
                       trained(net))
    write_report(made)
