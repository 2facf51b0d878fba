"""How far integers agree with floats: one network in detail, the shipped ones as a table."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import nets, tools
from ..data import Samples, channels_last, images_for
from ..errors import N2uqError
from ..files import write_file
from ..ir import Graph, golden
from ..jobs import Progress
from ..lowering.formats import Formats
from ..lowering.lower import Ranges, lower
from ..model import Conv, FloatConv, FloatLinear, Linear, MaxPool, Net, load_net
from ..tables import Shown, percent
from .task import Task, classes, figure, margins, measure

__all__ = ["Agreement", "agreement", "calibrate", "explain", "measure_shipped", "normalized",
           "shipped_table", "topology", "trained"]

BATCH = 250
PORTION = 8        # images at a time where every edge is kept
FLOAT_NOISE = 2**-40  # of the largest float64 logit
MARGIN = 2         # what a calibrated range leaves above the largest value seen
FINE = {"residual stream": {"residual_fraction_bits": 20}, "stem": {"stem_bits": 16},
        "head": {"head_bits": 16}}
RTL_IMAGES = 1000  # of MNIST; the digits' test split runs whole



@dataclass(frozen=True, repr=False)
class Agreement(Shown):
    """Golden against the float model, in terms of a `Task`.

    `top1_agreement`: share of the `count` images or pixels that get the same class; None of values.
    `worst_logit_error`: of the real values; None where classes come out.
    `accuracy`, `accuracy_float`: against labels of classes; `mean_error`, `mean_error_float`: mean
    absolute errors against labels that are values.
    `counted`, `rule`: as in `Task`.
    `close`: how many have their class by less than a step of the output, `step`, in float.
    """

    images: int
    top1_agreement: float | None
    worst_logit_error: float | None
    accuracy: float | None
    accuracy_float: float | None
    mean_error: float | None
    mean_error_float: float | None
    counted: str
    count: int
    rule: str
    close: int
    step: float

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    def parts(self) -> list[str]:
        """What was found, and what it means, in one line."""
        values, error = self.counted == "values", self.worst_logit_error
        what = ", ".join([f"{self.images} images",
                          *[f"{self.count:,} pixels"] * (self.counted == "pixels"),
                          *[self.rule] * bool(self.rule)])
        same = "" if values else ("the integers give the float model's class on "
                                  f"{percent(self.top1_agreement)}, ")
        line = (f"{what}: {same}worst {'error' if values else 'logit error'} "
                + ("–" if error is None else f"{error:.4f}" if error >= 1e-3 else f"{error:.2g}"))
        ours = figure(self.counted, self.accuracy, self.mean_error)
        theirs = figure(self.counted, self.accuracy_float, self.mean_error_float)
        return [line + (f"; {measure(self.counted, '')} {ours} (float {theirs})" if ours else "")]


def agreement(net: Net, graph: Graph, images: np.ndarray, labels: np.ndarray | None,
              progress: Progress | None = None, *, logits: np.ndarray | None = None) -> Agreement:
    """Run golden on `images` [N, C, H, W] and compare with the float model.

    `labels` are those of a `Task`.  `logits`, [N, C] or [N, C, H, W], are those of the float model
    where they are known; else it runs too.
    """
    net.check_images(images)
    task = Task(graph, labels)
    if not len(images):
        raise N2uqError(f"images of {net.name} must be at least 1, not 0")
    floats, integers = [], []
    for start in range(0, len(images), BATCH):
        part = images[start:start + BATCH]
        if logits is None:
            floats.append(net.forward(part))
        integers.append(golden.run(graph, channels_last(part, graph.input.shape, graph.name)))
        if progress:
            progress(f"{net.name} float and golden", (start + len(part)) / len(images))
    real = np.concatenate(floats) if logits is None else logits
    outputs = np.concatenate(integers)
    if task.is_class:
        real, error = real.reshape(len(real), 1, 1, -1), None
    else:
        shape = [len(outputs), *(outputs.shape[at] for at in (3, 1, 2))]
        if list(real.shape) not in (shape, [shape[0], outputs[0].size]):
            raise N2uqError(f"logits of {net.name} must be "
                            f"{shape if shape[2:] != [1, 1] else shape[:2]}, "
                            f"not {list(real.shape)}")
        real = real.reshape(shape).transpose(0, 2, 3, 1)
        error = float(np.abs(outputs * task.scale - real).max())
    step = float(graph.meta.get("logit_scale", task.scale))
    if not task.is_values:  # equal logits differ by what float sums round: that is no decision
        unit = float(np.abs(real).max()) * FLOAT_NOISE or 1.0
        real = np.rint(real / unit) * unit
    margin = np.zeros(0) if task.is_values else margins(real)
    ours, theirs = task.predictions(outputs), real if task.is_values else classes(real)
    return Agreement(
        len(images), None if task.is_values else float((ours == theirs).mean()), error,
        task.accuracy(ours), task.accuracy(theirs), task.mean_error(ours), task.mean_error(theirs),
        task.counted, ours.size, task.rule, int(((margin > 0) & (margin < step)).sum()), step)


def normalized(net: Net, samples: Samples) -> Net:
    """The net for images that are normalized as `samples` says; itself if they are as its own."""
    mean, std = (of if told is None else tuple(float(v) for v in told) for told, of in
                 ((samples.mean, net.input.mean), (samples.std, net.input.std)))
    changed = replace(net.input, mean=mean, std=std)
    if np.allclose([changed.factor, changed.offset], [net.input.factor, net.input.offset], 1e-6):
        return net
    return replace(net, input=changed)


def explain(net: Net, formats: Formats, images: np.ndarray, logits: np.ndarray,
            progress: Progress | None = None) -> list[dict[str, Any]]:
    """What each choice of format costs: golden against `logits` with the others made fine.

    A row per choice with `top1_agreement` and `worst_logit_error`, and one with all made fine;
    a choice alone is what remains when only it is as `formats` says.
    """
    finest: dict[str, int] = {key: value for bits in FINE.values() for key, value in bits.items()}
    kept = {"none": finest} | {
        name: {key: value for key, value in finest.items() if key not in bits}
        for name, bits in FINE.items()}
    rows = []
    for k, (name, bits) in enumerate(kept.items()):
        if progress:
            progress("what each format costs", k / len(kept))
        graph = lower(net, replace(formats, residual_bits=None, **bits))
        result = agreement(net, graph, images, None, logits=logits)
        rows.append({"rounded": name, "top1_agreement": result.top1_agreement,
                     "worst_logit_error": result.worst_logit_error})
    return rows


def calibrate(net: Net, formats: Formats, images: np.ndarray) -> Ranges:
    """Ranges of the residual stream's tensors that hold `MARGIN` times what `images` reach.

    Images are integers [N, C, H, W]; ranges are those of two's complement, by node name.
    """
    graph = lower(net, replace(formats, residual_bits=None))
    reach: dict[str, int] = {}
    for start in range(0, len(images), PORTION):
        values = golden.run_all(graph, channels_last(
            net.check_images(images[start:start + PORTION]), graph.input.shape, net.name))
        for name in graph.meta.get("residual", ()):
            largest = int(np.abs(values[name].astype(np.int64)).max())
            reach[name] = max(largest, reach.get(name, 0))
    powers = {name: 1 << (MARGIN * most).bit_length() for name, most in reach.items()}
    return {name: (-power, power - 1) for name, power in powers.items()}


def trained(net: Net) -> float | None:
    """Test accuracy of the float model that a net file tells."""
    known = net.meta.get("accuracy")
    accuracy = known.get("float") if isinstance(known, dict) else None
    return accuracy if isinstance(accuracy, float) else None


def topology(net: Net) -> str:
    """Layers in short: ``16c3`` a convolution with its kernel, ``p2`` a max-pool, ``10`` linear."""
    parts = []
    for layer in net.layers:
        if isinstance(layer, Conv | FloatConv):
            parts.append(f"{layer.out_channels}c{layer.kernel}")
        elif isinstance(layer, MaxPool):
            parts.append(f"p{layer.kernel}")
        elif isinstance(layer, Linear | FloatLinear):
            parts.append(f"{layer.out_features}")
    return "-".join(parts)


def shipped_table() -> dict[str, dict[str, Any]]:
    """A row per shipped net: its size, and the accuracies that `measure_shipped` last found."""
    try:
        measured = json.loads(nets.ACCURACY.read_text(encoding="utf-8"))
    except FileNotFoundError:
        measured = {}
    rows = {}
    for name, path in nets.shipped().items():
        net = load_net(path)
        rows[name] = {"layers": topology(net),
                      "weights": sum(
                          net.params[f"{layer.name}.weight"].size for layer in net.layers
                          if isinstance(layer, Conv | Linear | FloatConv | FloatLinear)),
                      **measured.get(name, {})}
    return rows


def measure_shipped(source: Path | None, progress: Progress | None = None) -> None:
    """Measure every shipped net whose data set is at hand, and keep the figures in the package.

    Float and golden run on the whole test split, the Verilog on all of digits and the first
    1,000 of MNIST.  Nets without data keep their earlier figures.
    """
    from ..plan.choice import choose
    from ..sim.timing.fifos import size_fifos
    from .emit import emit, load_build
    from .verify import verify

    rows = {name: {k: v for k, v in row.items() if k not in ("layers", "weights")}
            for name, row in shipped_table().items()}
    shipped = [load_net(path) for path in nets.shipped().values()]
    known = [(net, images_for(net.meta["dataset"], source)) for net in shipped]
    for net, (images, labels) in [(net, held) for net, held in known if held is not None]:
        name, graph = net.name, lower(net)
        agrees = agreement(net, graph, images, labels, progress)
        few = images[:RTL_IMAGES], None if labels is None else labels[:RTL_IMAGES]
        with tools.scratch() as folder:
            emit(graph, size_fifos(graph, choose(graph)), folder / name, images[:1], None)
            def report(stage: str, done: float, name: str = name) -> None:
                if progress:
                    progress(f"{name} {stage}", done)
            verdict = verify(load_build(folder / name), *few, stalls=0.3, progress=report)
        rows[name] = {
            "images": agrees.images, "float": agrees.accuracy_float, "golden": agrees.accuracy,
            "rtl": verdict.accuracy, "rtl_images": verdict.images,
            "mismatches": verdict.mismatches}
        kept = {name: row for name, row in rows.items() if row}
        write_file(nets.ACCURACY, json.dumps(kept, indent=1) + "\n")
