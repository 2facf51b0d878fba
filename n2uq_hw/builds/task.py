"""What a network's outputs mean, and how right they are: one definition, which all commands use."""

from __future__ import annotations

import numpy as np

from ..errors import N2uqError
from ..ir import Graph
from ..tables import percent

__all__ = ["Task", "classes", "figure", "margins", "measure"]


def classes(logits: np.ndarray) -> np.ndarray:
    """Classes int64 [N, H, W] of logits [N, H, W, C]: the largest, the first of several.

    Of a single logit: 1 where it is above 0, else 0.
    """
    if logits.shape[3] == 1:
        return (logits[..., 0] > 0).astype(np.int64)
    return logits.argmax(axis=3)


def margins(logits: np.ndarray) -> np.ndarray:
    """By how much the largest of logits [N, H, W, C] exceeds all others, [N, H, W].

    Of a single logit: how far it is from 0.
    """
    if logits.shape[3] == 1:
        return np.abs(logits[..., 0])
    return np.ptp(np.partition(logits, -2, axis=3)[..., -2:], axis=3)


def measure(counted: str, rule: str) -> str:
    """What is measured against labels, in words; `counted` and `rule` are those of a `Task`."""
    if counted == "values":
        return "mean absolute error"
    return "accuracy" + " of pixels" * (counted == "pixels") + f"; {rule}" * bool(rule)


def figure(counted: str, accuracy: float | None, mean_error: float | None) -> str:
    """The one that a `Task` has, which counts `counted`; "" if it is not known."""
    if counted == "values":
        return "" if mean_error is None else f"{mean_error:.4f}"
    return "" if accuracy is None else percent(accuracy)


class Task:
    """What the outputs [N, H, W, C] of a graph stand for, and the labels that they should match.

    ``meta["output"]`` of the graph tells: "class", an index; "logits", from which every pixel has a
    class (see `classes`), and a vector is a map of one pixel; or "values", which have no classes.
    Labels that are floats make values of logits.

    Attributes
    ----------
    counted: what agreement and accuracy count: "images", "pixels" of a map, or "values".
    rule: how logits become classes, where that is not the largest; "" where it is.
    labels: int64 [N, H, W] of classes, float64 [N, H, W, C] of values; None if not known.
    """

    def __init__(self, graph: Graph, labels: np.ndarray | None = None) -> None:
        """`labels` begin with an axis of images; other axes of size 1 may be left out.

        Classes are integers [N, H, W]; in a map a negative one is none, and does not count.  Values
        are floats [N, C, H, W].  Raises N2uqError for labels that do not fit the outputs.
        """
        edge, output = graph.edges[graph.output], graph.meta.get("output", "logits")
        height, width, channels = edge.shape
        self.name, self.is_class = graph.name, output == "class"
        self.scale = float(graph.meta.get("output_scale", 1.0))
        self.is_values = output == "values" or (labels is not None and labels.dtype.kind == "f")
        is_map = (height, width) != (1, 1)
        self.counted = "values" if self.is_values else "pixels" if is_map else "images"
        one = channels == 1 and not self.is_class
        self.rule = ("no classes" if self.is_values else
                     "class 1 where the logit is above 0" if one else "")
        self.labels = labels
        if labels is None:
            return
        if self.is_values and self.is_class:
            raise N2uqError(f"labels of {self.name} must be integers, since its output is a class, "
                            f"not {labels.dtype}")
        wanted = (channels, height, width) if self.is_values else (height, width)
        sizes = [size for size in wanted if size > 1]
        if [size for size in labels.shape[1:] if size > 1] != sizes:
            raise N2uqError(f"labels of {self.name} must be {'floats' if self.is_values else ''}"
                            f"{'integers' * (not self.is_values)} "
                            f"[{', '.join(map(str, ['N', *sizes]))}], not {labels.dtype} "
                            f"{list(labels.shape)}")
        self.labels = labels.reshape(len(labels), *wanted)
        if self.is_values:
            self.labels = self.labels.transpose(0, 2, 3, 1)
            return
        if self.is_class:
            channels = graph.reads(graph[graph.output])[0].channels
        most = max(channels, 2) - 1
        wrong = (self.labels > most) | ((self.labels < 0) & (not is_map))
        if wrong.any():
            raise N2uqError(f"labels of {self.name} must be in 0..{most}"
                            f"{', or negative where there is none' * is_map}, "
                            f"not {self.labels[wrong][0]}")

    def predictions(self, outputs: np.ndarray) -> np.ndarray:
        """Classes [N, H, W], or values float64 [N, H, W, C], of the graph's integers."""
        if self.is_class:
            return outputs[..., 0]
        return outputs * self.scale if self.is_values else classes(outputs)

    def accuracy(self, predictions: np.ndarray) -> float | None:
        """Share of labeled images or pixels whose class is right; None without."""
        if self.labels is None or self.is_values:
            return None
        right = (predictions == self.labels)[self.labels >= 0]
        return float(right.mean()) if right.size else None

    def mean_error(self, predictions: np.ndarray) -> float | None:
        """Mean absolute error of values against their labels; None without."""
        if self.labels is None or not self.is_values:
            return None
        return float(np.abs(predictions - self.labels).mean())
