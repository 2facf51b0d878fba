"""What hardware makes of images, simulated or on a board: bytes of beats, and answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data import channels_last
from ..errors import N2uqError
from ..ir import Graph
from ..sim.rtl.runner import pack, unpack
from ..tables import Shown, Table
from .emit import Port
from .task import Task, figure, measure

__all__ = ["Answers", "answered", "beat_bytes", "checked_images", "elements"]


@dataclass(frozen=True, repr=False, kw_only=True)
class Answers(Shown):
    """What hardware made of images.

    Members
    -------
    outputs: integers, in the layout of `Graph.forward`: logits [N, classes], class indices [N], or
        a map [N, C, H, W].
    classes: [N], or [N, H, W] of a map; None where the outputs are values.
    accuracy, mean_error: against labels of classes or of values; None without.
    """

    name: str
    outputs: np.ndarray
    classes: np.ndarray | None
    accuracy: float | None
    mean_error: float | None
    counted: str
    rule: str

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready: all fields; classes where there are any, else outputs."""
        known = {key: value for key, value in vars(self).items()
                 if key not in ("outputs", "classes")}
        key, values = ("outputs", self.outputs) if self.classes is None else (
            "classes", self.classes)
        return known | {"images": len(values), key: values.tolist()}

    def add_figure(self, table: Table) -> None:
        """A row for the accuracy or the error, if it was measured."""
        if text := figure(self.counted, self.accuracy, self.mean_error):
            table.add_row(measure(self.counted, self.rule), text)


def answered(graph: Graph, task: Task, outputs: np.ndarray) -> dict[str, Any]:
    """The fields of `Answers`, of hardware's outputs [N, H, W, C]."""
    predictions = task.predictions(outputs)
    return {
        "name": graph.name, "outputs": graph.arranged(outputs),
        "classes": None if task.is_values else predictions.reshape(
            len(outputs), *(size for size in predictions.shape[1:] if size > 1)),
        "accuracy": task.accuracy(predictions), "mean_error": task.mean_error(predictions),
        "counted": task.counted, "rule": task.rule}


def checked_images(graph: Graph, images: np.ndarray) -> np.ndarray:
    """Integer images [N, C, H, W] as [N, H, W, C]; raises N2uqError for what is no input."""
    if len(images) < 1:
        raise N2uqError("images must be at least 1, not 0")
    nhwc = channels_last(images, graph.input.shape, graph.name)
    lo, hi = graph.input.lo, graph.input.hi
    if not lo <= nhwc.min() <= nhwc.max() <= hi:
        raise N2uqError(f"images of {graph.name} must lie in {lo}..{hi}, "
                        f"not {nhwc.min()}..{nhwc.max()}")
    return nhwc


def beat_bytes(nhwc: np.ndarray, port: Port) -> np.ndarray:
    """The tdata of all beats of images [N, H, W, C], one after the other: uint8 [beats, bytes]."""
    return np.packbits(pack(nhwc.reshape(-1, port.lanes), port.width), axis=1, bitorder="little")


def elements(beats: np.ndarray, port: Port) -> np.ndarray:
    """The integers of beats uint8 [beats, bytes]."""
    bits = np.unpackbits(beats, axis=1, count=port.bits, bitorder="little")
    return unpack(bits, port.lanes, port.width, port.signed)
