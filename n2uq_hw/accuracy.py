"""How far integers agree with floats: one network in detail, the shipped ones as a table."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import golden, nets
from .data import channels_last, images_for
from .errors import N2uqError
from .ir import Graph
from .lower import lower
from .model import Conv, Linear, MaxPool, Net, load_net

__all__ = ["Agreement", "agreement", "classes", "measure_shipped", "shipped_table", "topology"]

BATCH = 250
RTL_IMAGES = 1000  # of MNIST; the digits' test split runs whole

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Agreement:
    """Golden against the float model.  `worst_logit_error` is None where classes come out."""

    images: int
    top1_agreement: float
    worst_logit_error: float | None
    accuracy: float | None
    accuracy_float: float | None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def classes(outputs: np.ndarray) -> np.ndarray:
    """Class indices [N] of outputs [N, ...]: logits, or the index itself."""
    flat = outputs.reshape(len(outputs), -1)
    return flat[:, 0] if flat.shape[1] == 1 else flat.argmax(axis=1)


def agreement(net: Net, graph: Graph, images: np.ndarray, labels: np.ndarray | None,
              progress: Progress | None = None) -> Agreement:
    """Run both on `images` [N, C, H, W]."""
    net.check_images(images)
    if not len(images):
        raise N2uqError(f"images of {net.name} must be at least 1, not 0")
    floats, integers = [], []
    for start in range(0, len(images), BATCH):
        part = images[start:start + BATCH]
        floats.append(net.forward(part))
        integers.append(golden.run(graph, channels_last(part, graph.input.shape, graph.name)))
        if progress:
            progress(f"{net.name} float and golden", (start + len(part)) / len(images))
    real, whole = np.concatenate(floats), np.concatenate(integers).reshape(len(images), -1)
    theirs, ours = classes(real), classes(whole)
    error = None if whole.shape != real.shape else float(
        np.abs(whole * graph.meta["output_scale"] - real).max())

    def right(guesses: np.ndarray) -> float | None:
        return None if labels is None else float((guesses == labels).mean())
    return Agreement(len(images), float((ours == theirs).mean()), error, right(ours),
                     right(theirs))


def topology(net: Net) -> str:
    """Layers in short: ``16c3`` a convolution with its kernel, ``p2`` a max-pool, ``10`` linear."""
    parts = []
    for layer in net.layers:
        if isinstance(layer, Conv):
            parts.append(f"{layer.out_channels}c{layer.kernel}")
        elif isinstance(layer, MaxPool):
            parts.append(f"p{layer.kernel}")
        elif isinstance(layer, Linear):
            parts.append(f"{layer.out_features}")
    return "-".join(parts)


def shipped_table() -> dict[str, dict[str, Any]]:
    """A row per shipped net: its size, and the accuracies that `measure_shipped` last found."""
    try:
        measured = json.loads(nets.ACCURACY.read_text())
    except FileNotFoundError:
        measured = {}
    rows = {}
    for name, path in nets.shipped().items():
        net = load_net(path)
        rows[name] = {"layers": topology(net),
                      "weights": sum(net.params[f"{layer.name}.weight"].size
                                     for layer in net.layers if isinstance(layer, Conv | Linear)),
                      **measured.get(name, {})}
    return rows


def measure_shipped(source: Path | None, progress: Progress | None = None) -> None:
    """Measure every shipped net whose data set is at hand, and keep the figures in the package.

    Float and golden run on the whole test split, the Verilog on all of digits and the first
    1,000 of MNIST.  Nets without data keep their earlier figures.
    """
    from .emit import emit, load_build
    from .folding import choose
    from .verify import verify

    rows = {name: {k: v for k, v in row.items() if k not in ("layers", "weights")}
            for name, row in shipped_table().items()}
    shipped = [load_net(path) for path in nets.shipped().values()]
    found = [(net, images_for(net.meta["dataset"], source)) for net in shipped]
    for net, (images, labels) in [(net, held) for net, held in found if held is not None]:
        name, graph = net.name, lower(net)
        agrees = agreement(net, graph, images, labels, progress)
        few = images[:RTL_IMAGES], None if labels is None else labels[:RTL_IMAGES]
        with tempfile.TemporaryDirectory(prefix="n2uq-") as folder:
            emit(graph, choose(graph), Path(folder) / name, images[:1], None)
            def report(stage: str, done: float, name: str = name) -> None:
                if progress:
                    progress(f"{name} {stage}", done)
            verdict = verify(load_build(Path(folder) / name), *few, stalls=0.3, progress=report)
        rows[name] = {
            "images": agrees.images, "float": agrees.accuracy_float, "golden": agrees.accuracy,
            "rtl": verdict.accuracy, "rtl_images": verdict.images,
            "mismatches": verdict.mismatches}
        kept = {name: row for name, row in rows.items() if row}
        try:
            nets.ACCURACY.write_text(json.dumps(kept, indent=1) + "\n")
        except OSError as error:
            raise N2uqError(f"{nets.ACCURACY}: cannot be written: {error.strerror}") from None
