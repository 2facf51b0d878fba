"""From a file to a net: the walk, the format of the input, and what runs on the host."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import N2uqError
from ...model import (
    InputSpec,
    IntConv,
    IntLinear,
    Layer,
    Net,
    Permute,
    Pointwise,
    Quant,
    Steps,
    images_name,
    layer_float,
)
from ...tables import Shown, Table
from . import elementwise, linear, lines, moves, quantizers
from .ranges import dead_layers
from .reading import NoForm, Source, one_line, read_source
from .tensors import Tensor
from .trace import Row, Trace

__all__ = ["Imported", "import_onnx"]

RULES_OF = (elementwise, linear, lines, moves, quantizers)  # loaded, they are registered
LAYOUTS = {2: ("C",), 3: ("CW", "WC", "HW"), 4: ("CHW", "HWC"), 5: ()}
PIXELS = (0, 255)
BITS = range(1, 17)
CLOSE = 2.0**-10        # of a code, by which inputs of float32 may miss theirs


@dataclass(frozen=True, repr=False)
class Imported(Shown):
    """A net from an ONNX file, and what became of each node.

    Members
    -------
    rows: a row per node of the file that the output needs.
    notes: what a user must know: what was assumed, left off, or looks odd.
    host: layers and their parameters in front of the net, between the file's input and integers.
    places: which axis of the file's input, the batch left out, is each of (C, H, W); None: size 1.
    ending: what stood behind the last layer and was left off.
    tail: layers and their parameters behind that, left off, too.
    order: where each of the net's outputs is in the file's; None: they are in one order.
    nodes: the node of the file that each layer was made for.
    path: of the file.
    """

    net: Net
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    host: tuple[tuple[Layer, dict[str, np.ndarray]], ...]
    places: tuple[int | None, ...]
    ending: str = ""
    tail: tuple[tuple[Layer, dict[str, np.ndarray]], ...] = ()
    order: np.ndarray | None = field(default=None, compare=False)
    nodes: Mapping[str, str] = field(default_factory=dict, compare=False)
    path: Path = Path()

    def prepare(self, inputs: np.ndarray) -> np.ndarray:
        """The net's integers [N, C, H, W] of the file's inputs [N, ...], float."""
        batch, spec = np.asarray(inputs), self.net.input
        sizes = [spec.shape[k] for k, place in enumerate(self.places) if place is not None]
        order = [place for place in self.places if place is not None]
        wanted = [size for _, size in sorted(zip(order, sizes, strict=True))]
        if batch.dtype.kind not in "fiu" or list(batch.shape[1:]) != wanted:
            raise N2uqError(f"inputs must be numbers [N, {', '.join(map(str, wanted))}], "
                            f"not {batch.dtype} {list(batch.shape)}")
        if not np.isfinite(batch).all():
            raise N2uqError("inputs must be finite, not NaN or infinite")
        x = batch.astype(np.float64).transpose(0, *(place + 1 for place in order))
        x = x.reshape(len(x), *spec.shape)
        for layer, params in self.host:
            x = layer_float(layer, params, x)
        codes = x / spec.scale
        whole = np.rint(codes)
        off = np.abs(codes - whole) > CLOSE * np.maximum(np.abs(whole), 1)
        if off.any():
            raise N2uqError(f"inputs must be whole numbers times {spec.scale:.6g}, not "
                            f"{x[off].reshape(-1)[0]:.6g}")
        return self.net.check_images(whole.astype(np.int64))

    def parts(self) -> list[str | Table]:
        """A row per node, then the notes."""
        return [explained(self.rows), *self.notes]


def explained(rows: Sequence[Row]) -> Table:
    """What each node became, or why not."""
    table = Table("node", "operator", "became", left=3)
    for row in rows:
        table.add_row(row.node, row.op, f"UNSUPPORTED: {row.why}" if row.why else row.became)
    return table


class Unsupported(N2uqError):
    """Nodes without an integer form; `rows` says which, and what the others become."""

    def __init__(self, text: str, rows: Sequence[Row]) -> None:
        super().__init__(text)
        self.rows = tuple(rows)


@dataclass(frozen=True)
class Format:
    """What a user says of the input; `samples` are inputs, where the file says nothing."""

    scale: float | None = None
    bits: int | None = None
    signed: bool = False
    samples: np.ndarray | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.scale is not None and not (math.isfinite(self.scale) and self.scale > 0):
            raise N2uqError(f"--input-scale must be positive and finite, not {self.scale}")
        if self.bits is not None and self.bits not in BITS:
            raise N2uqError(f"--input-bits must be in {BITS[0]}..{BITS[-1]}, not {self.bits}")

    @property
    def ends(self) -> tuple[int, int]:
        """Least and largest integer."""
        bits = self.bits or 8
        return (-2**(bits - 1), max(2**(bits - 1) - 1, 1)) if self.signed else (0, 2**bits - 1)


def import_onnx(file: Path | Source, form: Format | None = None, *, name: str | None = None
                ) -> Imported:
    """The net in an ONNX file; raises N2uqError, one line, with the file's name.

    Parameters
    ----------
    file: one of at most 256 MiB with its weights in it, or what `read_source` found in such a file.
        Nothing in it is executed.
    form: the format of the input, where the file has no quantizer there.
    name: of the net; None: as the file is called.
    """
    source = file if isinstance(file, Source) else read_source(file)
    try:
        trace = _trace(source)
        return _finish(trace, form or Format(), name or source.path.stem)
    except Unsupported as error:
        raise Unsupported(f"{source.path}: {one_line(error)}", error.rows) from None
    except (NoForm, N2uqError) as error:
        raise N2uqError(f"{source.path}: {one_line(error)}") from None


def _trace(source: Source) -> Trace:
    """The walk with the layout of the input under which all nodes have a form."""
    first: Trace | None = None
    for letters in LAYOUTS[len(source.shape)]:
        trace = Trace(source, letters)
        trace.run()
        if not any(row.why for row in trace.rows):
            return trace
        first = first or trace
    if first is None:
        raise NoForm(f"input {source.input} must have 2 to 4 axes, not {len(source.shape)}")
    faults = [row for row in first.rows if row.why and not row.why.startswith("reads ")]
    more = f" ({len(faults) - 1} more: --explain)" if len(faults) > 1 else ""
    raise Unsupported(f"{faults[0].op} {faults[0].node} {faults[0].why}{more}", first.rows)


def _output(trace: Trace) -> tuple[str, str, np.ndarray | None]:
    """The last layer, what was left off behind it, and where the file has each of its values.

    A vector is put in the order of the file; a map with channels last stays with channels first.
    """
    t = trace.values[trace.source.output]
    if not isinstance(t, Tensor):
        raise NoForm(f"output {trace.source.output} must depend on the input")
    if t.tail is not None:
        t = trace.behind(trace.source.output, t, lambda tail: trace.plain(
            tail, trace.source.output))
        assert t.tail is not None
        trace.tail = _live(trace.tail, t.tail.layer)
    if t.ending:
        return t.layer, t.ending, None
    t = trace.plain(t, trace.source.output)
    order = [atom for dim in t.dims for atom in dim if atom not in t.batch]
    if order == [*t.axes]:
        return t.layer, "", None
    last = {atom for dim in t.dims[1:] for atom in dim if len(dim) < len(order)}
    if not t.vector and last == set(order):
        trace.notes.append(f"output {trace.source.output}: the net's has the channels first, [N, "
                           "C, H, W]")
        places = np.arange(math.prod(t.shape[1:])).reshape([atom.size for atom in order])
        return t.layer, "", places.transpose([order.index(atom) for atom in t.axes]).reshape(-1)
    t = trace.flattened(t)
    places = np.arange(t.size).reshape([atom.size for atom in t.channels])
    places = places.transpose([t.channels.index(atom) for atom in order]).reshape(-1)
    return trace.emit(Permute, f"{t.layer}_order", t.layer, params={"order": places},
                      channels=t.size), "", None


def _live(layers: Sequence[Layer], last: str) -> list[Layer]:
    """The layers that `last` needs."""
    named = {layer.name: layer for layer in layers}
    needed: set[str] = set()
    waiting = [last]
    while waiting:
        name = waiting.pop()
        if name in named and name not in needed:
            needed.add(name)
            waiting += named[name].inputs
    return [layer for layer in layers if layer.name in needed]


def _finish(trace: Trace, form: Format, name: str) -> Imported:
    last, ending, order = _output(trace)
    layers = _live(trace.layers, last)
    if not layers:
        raise NoForm("must have a layer between its input and its output")
    entry = trace.entry
    shape = tuple(math.prod(atom.size for atom in axes)
                  for axes in (entry.channels, entry.height, entry.width))
    ends, scale, hosted = _input(trace, layers, form)
    (least, most), host = ends, layers[:0]
    if hosted:
        host = [layer for layer in layers if layer.name in hosted]
        layers = [layer for layer in layers if layer.name not in hosted]
        trace.notes.append(
            f"input {trace.source.input}: the net reads the integers of {hosted[-1]}, {least}.."
            f"{most} times {scale:.6g}; the host computes {', '.join(hosted)}")
    if not layers:
        raise NoForm(f"must have a layer behind {hosted[-1]}, the quantizer of its input")
    images = images_name([*layers])
    wired = tuple(replace(layer, inputs=tuple(
        images if each in ("", *hosted) else each for each in layer.inputs)) for layer in layers)
    params = {key: value for key, value in trace.params.items()
              if any(key == f"{layer.name}.{short}" for layer in wired for short in layer.shapes())}
    meta: dict[str, Any] = {"source": trace.source.path.name}
    if trace.top1:
        meta["top1"] = True
    if ending:
        meta["left_off"] = ending
    net = Net(name, InputSpec((shape[0], shape[1], shape[2]), most, scale, min=least), wired,
              params, meta)
    trace.notes += [f"{layer}: gives {value:g} for every image" for layer, value in
                    dead_layers(net)]
    meta["notes"] = [*trace.notes]
    rows = tuple(row._replace(became=f"{row.became}, on the host") if row.node in hosted else row
                 for row in trace.rows)
    held, tail = (tuple((layer, {short: trace.params[f"{layer.name}.{short}"]
                                 for short in layer.shapes()}) for layer in layers)
                  for layers in (host, trace.tail))
    places = tuple(trace.letters.index(letter) if letter in trace.letters else None
                   for letter in "CHW")
    return Imported(net, rows, tuple(trace.notes), held, places, ending, tail, order,
                    trace.made, trace.source.path)


def _input(trace: Trace, layers: Sequence[Layer], form: Format
           ) -> tuple[tuple[int, int], float, list[str]]:
    """The integers that the net reads, their scale, and the layers that the host computes.

    What the user says comes first; then what our own export says; then a quantizer that reads the
    input, behind operations that the host computes; then annotations and types; then whole numbers,
    where the first layer takes such.  Reals without any of these are refused.
    """
    source = trace.source
    if form.scale is not None or form.bits is not None:
        return form.ends, form.scale or 1.0, []
    if source.pixels is not None:
        return source.pixels, 1.0, []
    chain, quantizer = _prefix(layers)
    if isinstance(quantizer, Quant) and quantizer.channels == 1:
        scale, zero = (trace.params[f"{quantizer.name}.{key}"][0]
                       for key in ("scale", "zero_point"))
        least, most = quantizer.lo - zero, quantizer.hi - zero
        if zero == int(zero) and -65535 <= least <= 0 < most <= 65535:
            return (int(least), int(most)), float(scale), [*chain, quantizer.name]
    if isinstance(quantizer, Steps) and quantizer.name in trace.bipolar and quantizer.channels == 1:
        scale = trace.params[f"{quantizer.name}.scale"][0] / 2
        if trace.params[f"{quantizer.name}.offset"][0] == -scale:
            return (-1, 1), float(scale), [*chain, quantizer.name]
    kind = source.datatypes.get(source.input, "")
    if kind.startswith(("UINT", "INT")) and kind.lstrip("UINT").isdigit() and int(
            kind.lstrip("UINT")) in BITS:
        known = Format(bits=int(kind.lstrip("UINT")), signed=kind.startswith("INT")).ends
        trace.notes.append(f"input {source.input}: integers {known[0]}..{known[1]}, as annotated")
        return known, 1.0, []
    if not (isinstance(quantizer, Steps) or source.whole or (
            isinstance(quantizer, IntConv | IntLinear) and quantizer.name in trace.plain_weights)):
        why = f" ({quantizer.name} has scales per channel)" if isinstance(quantizer, Quant) else ""
        raise NoForm(f"input {source.input} must have a quantizer or a format{why}: give "
                     "--input-scale and --input-bits")
    ends, said = PIXELS, "by default; --input-bits says otherwise"
    if form.samples is not None and form.samples.size and (
            form.samples.min() < 0 or form.samples.max() > 255):
        least, most = int(np.floor(form.samples.min())), int(np.ceil(form.samples.max()))
        bits = max((-least - 1).bit_length(), max(most, 0).bit_length()) + 1
        ends = (-1, 1) if (least, most) == (-1, 1) else Format(
            bits=min(bits, BITS[-1]), signed=True).ends if least < 0 else (
            0, 2**min(max(most, 1).bit_length(), BITS[-1]) - 1)
        said = "which hold those of the check"
    trace.notes.append(f"input {source.input}: integers {ends[0]}..{ends[1]}, {said}")
    return ends, 1.0, []


def _prefix(layers: Sequence[Layer]) -> tuple[list[str], Layer | None]:
    """The element-wise layers behind the input, one after the other, and the layer behind them."""
    readers = Counter(name for layer in layers for name in layer.inputs)
    chain: list[str] = []
    at = ""
    while readers[at] == 1:
        layer = next(layer for layer in layers if at in layer.inputs)
        if not isinstance(layer, Pointwise):
            return chain, layer
        chain.append(layer.name)
        at = layer.name
    return chain, None
