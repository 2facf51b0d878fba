"""Golden on the inputs of a reference, compared with its outputs."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...errors import N2uqError
from ...files import readable
from ...model import OPS, layer_float
from .imported import Imported, Unsupported

if TYPE_CHECKING:
    from ...ir import Graph

__all__ = ["Check", "Samples", "check", "lowered", "read_samples"]

EXACT = 1e-6    # of the outputs' range: what float32 leaves of a float64 formula


class Samples(NamedTuple):
    """Inputs [N, ...] of an ONNX file, and its outputs."""

    path: Path
    inputs: np.ndarray
    outputs: np.ndarray


class Check(NamedTuple):
    """How golden agrees: the worst error is a share of the outputs' range, the class of rows."""

    rows: int
    worst_error: float
    same_class: float
    exact: bool


def read_samples(path: Path) -> Samples:
    """`inputs`, and `outputs_float64` or else `outputs`, of an .npz file without pickles."""
    try:
        with np.load(readable(path), allow_pickle=False) as file:
            name = "outputs_float64" if "outputs_float64" in file else "outputs"
            inputs, outputs = file["inputs"], file[name]
    except KeyError as error:
        raise N2uqError(f"{path}: must hold inputs and outputs: {error.args[0]}") from None
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise N2uqError(f"{path}: must be an .npz file of plain arrays: {error}") from None
    for key, array in (("inputs", inputs), (name, outputs)):
        if array.dtype.kind not in "fiub" or array.ndim < 2 or not len(array) or not np.isfinite(
                array.astype(np.float64)).all():
            raise N2uqError(f"{path}: {key} must be finite numbers [N, ...], not {array.dtype} "
                            f"{list(array.shape)}")
    if len(inputs) != len(outputs):
        raise N2uqError(f"{path}: must hold as many outputs as inputs, not {len(outputs)} for "
                        f"{len(inputs)}")
    return Samples(path, inputs, outputs.astype(np.float64).reshape(len(outputs), -1))


def lowered(imported: Imported) -> Graph:
    """The integers of the net; raises `Unsupported` for the node that has none."""
    from ...lowering.lower import Unlowered, lower  # which a file that is refused does without

    net = imported.net
    try:
        return lower(net)
    except Unlowered as error:
        said = str(error).removeprefix(f"{net.name}: ")
        why = said.partition(f" {error.layer} ")[2] or said
        node = imported.nodes.get(error.layer, imported.rows[-1].node)
        rows = [row._replace(why=why) if row.node == node else row for row in imported.rows]
        op = next(row.op for row in rows if row.node == node)
        said = f"{op} {node} {why}" if why != said else f"{op} {node}: {said}"
        raise Unsupported(f"{imported.path}: {said}", rows) from None


def check(imported: Imported, samples: Samples, graph: Graph | None = None) -> Check:
    """Run golden on the inputs, and compare; what was left off is computed behind it.

    `graph` is the net's, where it is lowered already.
    """
    net = imported.net
    graph = graph or lowered(imported)
    images = imported.prepare(samples.inputs)
    ours = graph.forward(images).astype(np.float64).reshape(len(images), -1)
    if graph.meta["output"] != "class":
        ours = _ended(ours * graph.meta["output_scale"], imported.ending)
        for layer, params in imported.tail:
            ours = layer_float(layer, params, ours)
    theirs = samples.outputs
    if imported.order is not None and theirs.shape == ours.shape:
        theirs = theirs[:, imported.order]
    if ours.shape != theirs.shape:
        raise N2uqError(f"{samples.path}: outputs must be {list(ours.shape)} as those of "
                        f"{net.name}, not {list(theirs.shape)}")
    worst = float(np.abs(ours - theirs).max() / (np.ptp(theirs) or 1.0))
    classes = ours == theirs if ours.shape[1] == 1 else (
        ours.argmax(axis=1) == theirs.argmax(axis=1))
    return Check(len(images), worst, float(classes.mean()), worst <= EXACT)


def _ended(y: np.ndarray, ending: str) -> np.ndarray:
    if ending in ("Sigmoid", "Tanh"):
        return OPS[ending.lower()].function(y)
    if ending in ("Softmax", "LogSoftmax"):
        y = y - y.max(axis=1, keepdims=True)
        y = y - np.log(np.exp(y).sum(axis=1, keepdims=True))
        return np.exp(y) if ending == "Softmax" else y
    return y
