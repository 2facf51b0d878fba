"""The integer graph as an ONNX file that computes golden's integers, every one.

Tensors hold integers in floats: float32 below 2^24, float64 below 2^53, where these are exact.
Images are [N, C, H, W], vectors [N, C].  A window is no tensor: it becomes part of the operation
that reads it, as convolutions and pools have it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import singledispatchmethod
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .. import ir
from ..errors import N2uqError
from ..importers.onnx.reading import INPUT_KEY
from ..ir import Edge, Graph, Node
from ..names import fresh

__all__ = ["SCALE_KEY", "Dialect", "export_onnx"]

Dialect = Literal["qonnx", "integer"]
DOMAIN = "qonnx.custom_op.general"
OPSET, IR_VERSION = 13, 8
EXACT: dict[np.dtype, int] = {  # bits of integers that a float holds
    np.dtype(np.float32): 24, np.dtype(np.float64): 53}
SCALE_KEY = "n2uq-hw.output_scale"  # of the metadata: what 1 of the output stands for
Frame = tuple[int, int, int, int]
ONE, ZERO = ir.SlidingWindow("pixel"), np.zeros(1, np.int64)


def export_onnx(graph: Graph, dialect: Dialect = "qonnx", batch: int = 1) -> onnx.ModelProto:
    """An ONNX model of `graph` for `batch` images [batch, C, H, W] of integers in float32.

    Its output is golden's: integers [batch, C] or [batch, C, H, W], or class indices [batch, 1].
    "qonnx" has MultiThreshold nodes, and weights behind Quant nodes, as FINN and QONNX read them;
    "integer" has standard operators alone.  Raises N2uqError for values of 2^53 and more between
    nodes, and for nodes that only hardware graphs have.
    """
    writer = _Writer(graph, dialect, batch)
    for node in graph.nodes:
        writer.values[node.name] = writer.write(node, *(writer.values[name]
                                                        for name in node.inputs))
    return writer.model()


@dataclass(frozen=True, eq=False)
class _Value:
    """A tensor of the ONNX graph, [N, C, H, W] or [N, C], and what still happens to it.

    `frame` and `window`: it is padded with `values`, and read in windows; `edge` is of the tensor
    itself.  `flat`: it is read as one vector, in the order (H, W, C).  `order`: element i of the
    tensor is element `order[i]` of the stream.
    """

    tensor: str
    edge: Edge
    frame: Frame = (0, 0, 0, 0)
    values: np.ndarray = field(default_factory=lambda: ZERO)
    window: ir.SlidingWindow | None = None
    flat: bool = False
    order: np.ndarray | None = None

    @property
    def vector(self) -> bool:
        """Whether the tensor is [N, C]."""
        return self.edge.shape[:2] == (1, 1)


class _Writer:
    """The ONNX nodes, initializers and tensors so far."""

    def __init__(self, graph: Graph, dialect: Dialect, batch: int) -> None:
        self.graph, self.dialect, self.batch = graph, dialect, batch
        self.nodes: list[onnx.NodeProto] = []
        self.arrays: list[onnx.TensorProto] = []
        self.infos: dict[str, onnx.ValueInfoProto] = {}
        self.taken: set[str] = set()
        self.values: dict[str, _Value] = {}

    # --- Tensors ------------------------------------------------------------------------------

    def name(self, name: str) -> str:
        self.taken.add(name := fresh(name, self.taken))
        return name

    def dtype(self, edge: Edge, name: str) -> np.dtype:
        """The float that holds the integers of `edge`."""
        largest = int(np.maximum(np.abs(edge.lo), np.abs(edge.hi)).max())
        for dtype, bits in EXACT.items():
            if largest <= 2**bits:
                return dtype
        raise N2uqError(f"{self.graph.name}: values of {name} must stay within 2^53 to be held in "
                        f"ONNX floats, not reach {largest}")

    def shape(self, edge: Edge) -> list[int]:
        height, width, channels = edge.shape
        return [self.batch, channels] + ([height, width] if (height, width) != (1, 1) else [])

    def array(self, name: str, values: np.ndarray | np.generic) -> str:
        name = self.name(name)
        self.arrays.append(numpy_helper.from_array(np.asarray(values, order="C"), name))
        return name

    def op(self, kind: str, inputs: Sequence[str], output: str, shape: Sequence[int],
           dtype: np.dtype | type, domain: str = "", **attributes: Any) -> str:
        """Append an operation; its one output has about this name, this shape and type."""
        output = self.name(output)
        self.nodes.append(helper.make_node(kind, [*inputs], [output], name=output, domain=domain,
                                           **attributes))
        code = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self.infos[output] = helper.make_tensor_value_info(output, code, [*shape])
        return output

    def cast(self, value: _Value, dtype: np.dtype) -> str:
        """The tensor of `value` in another type."""
        return self.cast_to(value.tensor, self.shape(value.edge),
                            self.dtype(value.edge, value.tensor), dtype)

    def cast_to(self, tensor: str, shape: Sequence[int], before: np.dtype, dtype: np.dtype) -> str:
        if before == dtype:
            return tensor
        return self.op("Cast", [tensor], f"{tensor}.{dtype.name}", shape, dtype,
                       to=helper.np_dtype_to_tensor_dtype(dtype))

    def row(self, values: np.ndarray, edge: Edge) -> np.ndarray:
        """A value per channel, shaped to meet a tensor of `edge`; a single one is []."""
        values = np.asarray(values)
        if (values == values.flat[0]).all():
            return values.reshape(-1)[0].reshape(())
        return values.reshape((1, -1) + (() if edge.shape[:2] == (1, 1) else (1, 1)))

    def plain(self, value: _Value) -> _Value:
        """`value` without what still happens to it; a vector of an image is in (C, H, W) order."""
        if value.frame != (0, 0, 0, 0) and value.window is None:
            value = self.framed(value)
        if value.flat:
            size = value.edge.size
            name = self.op("Flatten", [value.tensor], f"{value.tensor}.vector", [self.batch, size],
                           self.dtype(value.edge, value.tensor), axis=1)
            order = np.arange(size).reshape(value.edge.shape).transpose(2, 0, 1).reshape(-1)
            edge = Edge((1, 1, size), np.repeat(value.edge.lo, size // value.edge.channels),
                        np.repeat(value.edge.hi, size // value.edge.channels))
            return _Value(name, edge, order=order)
        return value

    def ordered(self, value: _Value) -> _Value:
        """`value` in the order of the stream."""
        value = self.plain(value)
        if value.order is None:
            return value
        places = self.array(f"{value.tensor}.places", np.argsort(value.order))
        return _Value(self.op("Gather", [value.tensor, places], f"{value.tensor}.ordered",
                              self.shape(value.edge), self.dtype(value.edge, value.tensor),
                              axis=1), value.edge)

    def image(self, value: _Value) -> _Value:
        """`value` as a tensor [N, C, H, W]."""
        if not value.vector:
            return value
        shape = [self.batch, value.edge.channels, 1, 1]
        form = self.array(f"{value.tensor}.shape", np.array(shape, np.int64))
        return replace(value, tensor=self.op(
            "Reshape", [value.tensor, form], f"{value.tensor}.image", shape,
            self.dtype(value.edge, value.tensor)))

    def framed(self, value: _Value) -> _Value:
        """`value` with its frame as pixels of a tensor: zeros around x less v, then v."""
        value = self.image(value)
        top, bottom, left, right = value.frame
        padded = ir.infer(ir.Pad("pad", frame=value.frame, values=value.values), value.edge)
        dtype = self.dtype(padded, value.tensor)
        shape = [self.batch, padded.channels, *padded.shape[:2]]
        pads = self.array(f"{value.tensor}.pads",
                          np.array([0, 0, top, left, 0, 0, bottom, right], np.int64))
        black = np.broadcast_to(value.values, padded.channels).reshape(1, -1, 1, 1).astype(dtype)
        inner = [self.batch, value.edge.channels, *value.edge.shape[:2]]
        x = self.cast_to(value.tensor, inner, self.dtype(value.edge, value.tensor), dtype)
        moved = bool(value.values.any())
        if moved:
            x = self.op("Sub", [x, self.array(f"{value.tensor}.black", black)],
                        f"{value.tensor}.above", inner, dtype)
        x = self.op("Pad", [x, pads], f"{value.tensor}.padded", shape, dtype)
        if moved:
            x = self.op("Add", [x, self.array(f"{value.tensor}.black", black)],
                        f"{value.tensor}.framed", shape, dtype)
        return replace(value, tensor=x, edge=padded, frame=(0, 0, 0, 0), values=ZERO)

    def weights(self, name: str, codes: np.ndarray, dtype: np.dtype) -> str:
        """Integers as an initializer; in QONNX behind a Quant node, which says how wide they are.
        """
        held = self.array(f"{name}.weight", codes.astype(dtype))
        bits, signed = ir.bits_for(int(codes.min()), int(codes.max()))
        if self.dialect == "integer" or dtype != np.float32 or bits > 24:
            return held
        one, zero, width = (self.array(f"{name}.{what}", np.float32(value)) for what, value in
                            (("scale", 1), ("zero_point", 0), ("bits", bits)))
        return self.op("Quant", [held, one, zero, width], f"{name}.quantized",
                       codes.shape, dtype, DOMAIN, signed=int(signed), narrow=0,
                       rounding_mode="ROUND")

    # --- Nodes --------------------------------------------------------------------------------

    @singledispatchmethod
    def write(self, node: Node, *xs: _Value) -> _Value:
        """What `node` makes of the values that it reads."""
        raise self.unformed(node)

    def edge(self, node: Node) -> Edge:
        return self.graph.edges[node.name]

    @write.register
    def _(self, node: ir.Input) -> _Value:
        height, width, channels = node.shape
        self.taken.add(node.name)
        self.pixels = helper.make_tensor_value_info(
            node.name, TensorProto.FLOAT, [self.batch, channels, height, width])
        edge = self.edge(node)
        if (height, width) != (1, 1):
            return _Value(node.name, edge)
        return _Value(self.op("Flatten", [node.name], f"{node.name}.flat",
                              self.shape(edge), np.float32, axis=1), edge)

    @write.register
    def _(self, node: ir.Pad, x: _Value) -> _Value:
        return replace(x, frame=node.frame, values=node.values) if any(node.frame) else x

    @write.register
    def _(self, node: ir.SlidingWindow, x: _Value) -> _Value:
        x = self.image(self.plain(x)) if x.flat or x.window is not None else x
        return replace(x, window=node)

    @write.register
    def _(self, node: ir.Flatten, x: _Value) -> _Value:
        return x if x.vector else replace(x, flat=True)

    @write.register
    def _(self, node: ir.MatVec, x: _Value) -> _Value:
        weights = node.weights
        if x.window is not None or not (x.flat or x.vector) or node.groups > 1:
            kernel = weights.reshape(len(weights), *(x.window or ONE).kernel, -1)
            return self.convolved(node, x, kernel.transpose(0, 3, 1, 2), node.groups)
        x = self.plain(x)
        weights = weights if x.order is None else weights[:, x.order]
        dtype = self.sums(node, x.edge, weights)
        return self.settled(node, self.op(
            "MatMul", [self.cast(x, dtype), self.weights(node.name, weights.T, dtype)],
            node.name, self.shape(self.edge(node)), dtype), dtype)

    @write.register(ir.Unrolled)
    @write.register(ir.OffsetMatVec)
    def _(self, node: Node, *xs: _Value) -> _Value:
        """Only hardware graphs have them: they are more than the MatVec that they derive from."""
        raise self.unformed(node)

    @write.register
    def _(self, node: ir.DepthwiseMatVec, x: _Value) -> _Value:
        return self.depthwise(node, x, node.weights)

    @write.register
    def _(self, node: ir.SumPool, x: _Value) -> _Value:
        if x.flat and node.positions == x.edge.shape[0] * x.edge.shape[1]:
            edge = self.edge(node)
            dtype = self.dtype(edge, node.name)  # no partial sum is larger
            axes = self.array(f"{node.name}.axes", np.array([2, 3], np.int64))
            return _Value(self.op("ReduceSum", [self.cast(x, dtype), axes], node.name,
                                  self.shape(edge), dtype, keepdims=0), edge)
        return self.depthwise(node, x, np.ones((node.positions, self.edge(node).channels), np.int8))

    def depthwise(self, node: Node, x: _Value, weights: np.ndarray) -> _Value:
        """Windows' dot products with `weights` [P, C], channel by channel."""
        if x.window is None:
            raise self.unformed(node, "read windows of an image")
        kernel = weights.T.reshape(-1, 1, *x.window.kernel)
        return self.convolved(node, x, kernel, len(kernel))

    @write.register
    def _(self, node: ir.MaxPool, x: _Value) -> _Value:
        if x.window is None:
            raise self.unformed(node, "read windows of an image")
        edge, wide, window = self.edge(node), self.dtype(x.edge, x.tensor), x.window
        # A frame that never wins is what ONNX pads with; runtimes want it smaller than a window.
        plain = bool((x.values <= x.edge.lo).all()) and max(x.frame) < min(window.kernel)
        x = self.image(x) if plain or not any(x.frame) else self.framed(x)
        top, bottom, left, right = x.frame
        tensor = self.op("MaxPool", [x.tensor], node.name,
                         [self.batch, edge.channels, *edge.shape[:2]], wide,
                         pads=[top, left, bottom, right], **_sizes(window))
        return self.settled(node, self.squeezed(node, tensor, wide), wide)

    @write.register
    def _(self, node: ir.Add, x: _Value, y: _Value) -> _Value:
        edge, (x, y) = self.edge(node), map(self.ordered, (x, y))
        dtype = max(self.dtype(each.edge, each.tensor) for each in (x, y, _Value(node.name, edge)))
        return self.settled(node, self.op("Add", [self.cast(x, dtype), self.cast(y, dtype)],
                                          node.name, self.shape(edge), dtype), dtype)

    @write.register
    def _(self, node: ir.Concat, *xs: _Value) -> _Value:
        edge = self.edge(node)
        dtype = self.dtype(edge, node.name)
        parts = [self.cast(self.ordered(x), dtype) for x in xs]
        return _Value(self.op("Concat", parts, node.name, self.shape(edge), dtype, axis=1), edge)

    @write.register
    def _(self, node: ir.Upsample, x: _Value) -> _Value:
        height, width = node.factor
        scales = self.array(f"{node.name}.scales", np.array([1, 1, height, width], np.float32))
        return self.moved(node, x, "Resize", "", scales, mode="nearest", nearest_mode="floor",
                          coordinate_transformation_mode="asymmetric")

    @write.register
    def _(self, node: ir.DepthToSpace, x: _Value) -> _Value:
        return self.moved(node, x, "DepthToSpace", blocksize=node.block, mode=node.mode)

    @write.register
    def _(self, node: ir.Permute, x: _Value) -> _Value:
        order = self.array(f"{node.name}.order", node.order.astype(np.int64))
        return self.moved(node, x, "Gather", order, axis=1)

    def moved(self, node: Node, x: _Value, kind: str, *more: str, **attributes: Any) -> _Value:
        """The value of a node that moves the pixels or channels of an image."""
        x, edge = self.image(self.ordered(x)), self.edge(node)
        dtype = self.dtype(x.edge, x.tensor)
        tensor = self.op(kind, [x.tensor, *more], node.name,
                         [self.batch, edge.channels, *edge.shape[:2]], dtype, **attributes)
        return self.settled(node, self.squeezed(node, tensor, dtype), dtype)

    @write.register
    def _(self, node: ir.Saturate, x: _Value) -> _Value:
        x = self.plain(x)
        dtype = self.dtype(x.edge, x.tensor)
        return self.settled(node, self.clipped(node, x.tensor, dtype, node.lo, node.hi), dtype,
                            x.order)

    @write.register
    def _(self, node: ir.ArgMax, x: _Value) -> _Value:
        return _Value(self.op("ArgMax", [self.ordered(x).tensor], node.name, [self.batch, 1],
                              np.int64, axis=1, keepdims=1), self.edge(node))

    @write.register
    def _(self, node: ir.Threshold, x: _Value) -> _Value:
        """Rising steps count x; falling ones count -x, since [x < T] = [-x >= 1 - T]."""
        x, shape = self.plain(x), self.shape(self.edge(node))
        thresholds, signs = self.streamed(node.thresholds, x), self.streamed(node.signs, x)
        counts = [(sign, steps) for sign in (1, -1) if (steps := signs == sign).any()]
        mixed = len(counts) == 2 and bool((counts[0][1].any(axis=1)
                                           & counts[1][1].any(axis=1)).any())
        base = self.streamed(node.base, x) - (signs < 0).sum(axis=1)
        turned = np.where((signs < 0).any(axis=1), -1, 1)
        directions = ([np.ones(1, np.int64), np.full(1, -1)] if mixed
                      else [turned if len(counts) == 2 else np.full(1, counts[0][0])]
                      if counts else [])
        parts = [self.counted(node, x, direction, thresholds, signs) for direction in directions]
        dtype = self.dtype(x.edge, x.tensor)
        if not parts:
            zero = self.array(f"{node.name}.zero", np.zeros((), dtype))
            parts = [self.op("Mul", [x.tensor, zero], node.name, shape, dtype)]
        tensor = parts[0] if len(parts) == 1 else self.op("Add", parts, node.name, shape, dtype)
        if base.any():
            tensor = self.op("Add", [tensor, self.array(f"{node.name}.base", self.row(
                base, x.edge).astype(dtype))], node.name, shape, dtype)
        return self.settled(node, tensor, dtype, x.order)

    def counted(self, node: ir.Threshold, x: _Value, direction: np.ndarray,
                thresholds: np.ndarray, signs: np.ndarray) -> str:
        """How many steps of each channel's `direction`, 1 or -1, x · direction has reached."""
        shape, dtype = self.shape(self.edge(node)), self.dtype(x.edge, x.tensor)
        tensor = x.tensor
        if (direction < 0).any():
            tensor = self.op("Mul", [tensor, self.array(f"{node.name}.direction", self.row(
                direction, x.edge).astype(dtype))], node.name, shape, dtype)
        side = np.broadcast_to(direction, len(signs))[:, None]
        never = int(np.maximum(np.abs(x.edge.lo), np.abs(x.edge.hi)).max()) + 1
        steps = np.sort(np.where(signs == side, np.where(side > 0, thresholds, 1 - thresholds),
                                 never).clip(-never, never), axis=1)
        used = max(int((signs == side).sum(axis=1).max()), 1)
        held = steps[:, :used].astype(dtype)
        if self.dialect == "qonnx":
            bits = ir.bits_for(0, used)[0]
            return self.op("MultiThreshold", [tensor, self.array(f"{node.name}.thresholds", held)],
                           node.name, shape, dtype, DOMAIN, out_dtype=f"UINT{bits}",
                           data_layout="NC" if x.vector else "NCHW")
        along = [*shape[:2], 1, *shape[2:]]
        axis = self.array(f"{node.name}.axis", np.array([2], np.int64))
        held = held.reshape(1, *held.shape, *[1] * (len(shape) - 2))
        tensor = self.op("Unsqueeze", [tensor, axis], f"{node.name}.each", along, dtype)
        along[2] = used
        tensor = self.op("GreaterOrEqual", [tensor, self.array(f"{node.name}.thresholds", held)],
                         f"{node.name}.reached", along, bool)
        tensor = self.op("Cast", [tensor], f"{node.name}.ones", along, dtype,
                         to=helper.np_dtype_to_tensor_dtype(dtype))
        return self.op("ReduceSum", [tensor, axis], node.name, shape, dtype, keepdims=0)

    @write.register
    def _(self, node: ir.Scale, x: _Value) -> _Value:
        x = self.plain(x)
        tensor, dtype = self.line(node, x, node.multiplier, node.offset)
        tensor, dtype = self.shifted(node, tensor, dtype, x, node.multiplier, node.offset)
        if node.clip:
            tensor = self.clipped(node, tensor, dtype, *node.clip)
        return self.settled(node, tensor, dtype, x.order)

    @write.register
    def _(self, node: ir.PiecewiseLinear, x: _Value) -> _Value:
        x, shape, parts = self.plain(x), self.shape(self.edge(node)), []
        for multiplier, offset in zip(node.multiplier, node.offset, strict=True):
            tensor, dtype = self.line(node, x, multiplier, offset)
            tensor, dtype = self.shifted(node, tensor, dtype, x, multiplier, offset)
            parts.append(self.cast_to(tensor, shape, dtype, np.dtype(np.float64)))
        own = self.dtype(x.edge, x.tensor)
        turn = self.row(self.streamed(node.turn, x), x.edge).astype(own)
        above = self.op("GreaterOrEqual", [x.tensor, self.array(f"{node.name}.turn", turn)],
                        f"{node.name}.above", shape, bool)
        tensor = self.op("Where", [above, parts[1], parts[0]], node.name, shape, np.float64)
        return self.settled(node, tensor, np.dtype(np.float64), x.order)

    # --- What nodes share ---------------------------------------------------------------------

    def unformed(self, node: Node, rule: str = "be of a graph that was lowered, not of a hardware "
                 "graph,") -> N2uqError:
        return N2uqError(f"{self.graph.name}: {type(node).__name__} {node.name} must {rule} to "
                         "have an ONNX form")

    def streamed(self, values: np.ndarray, x: _Value) -> np.ndarray:
        """Parameters [C, ...] of a node in the order of the tensor that it reads."""
        return values if x.order is None or len(values) == 1 else values[x.order]

    def settled(self, node: Node, tensor: str, dtype: np.dtype,
                order: np.ndarray | None = None) -> _Value:
        """The value of `node`, in the type of its range."""
        edge = self.edge(node)
        return _Value(self.cast_to(tensor, self.shape(edge), dtype,
                                   self.dtype(edge, node.name)), edge, order=order)

    def squeezed(self, node: Node, tensor: str, dtype: np.dtype) -> str:
        """An image [N, C, 1, 1] as [N, C]; others as they are."""
        edge = self.edge(node)
        if edge.shape[:2] != (1, 1):
            return tensor
        return self.op("Flatten", [tensor], f"{node.name}.vector", self.shape(edge), dtype, axis=1)

    def sums(self, node: Node, edge: Edge, weights: np.ndarray) -> np.dtype:
        """The float in which no partial sum of products is rounded."""
        bound = int(np.abs(weights.astype(np.int64)).reshape(len(weights), -1).sum(axis=1).max()
                    * _largest(edge))
        return self.dtype(Edge((1, 1, 1), np.array([-bound]), np.array([bound])), node.name)

    def convolved(self, node: Node, x: _Value, weights: np.ndarray, group: int) -> _Value:
        """A convolution with OIHW `weights`.

        ONNX runtimes convolve in float32 alone: where that would round, pixels and weights are cut
        into digits, and the sums of their products are put together in float64.
        """
        x = self.framed(x) if x.values.any() else self.image(x)
        window, edge, single = x.window or ONE, self.edge(node), np.dtype(np.float32)
        top, bottom, left, right = x.frame
        shape = [self.batch, len(weights), *edge.shape[:2]]
        pixels, codes = [(0, x.tensor)], [(0, weights)]
        dtype = self.sums(node, x.edge, weights)
        if dtype != single:
            room = EXACT[single] - (weights[0].size - 1).bit_length()
            wide = int(np.abs(weights.astype(np.int64)).max()).bit_length()
            bits = max(room // 2, room - wide)
            if room < 2:
                raise N2uqError(f"{self.graph.name}: {node.name} must have fewer than 2^22 weights "
                                f"per channel to be exported, not {weights[0].size}")
            codes = _digits(weights, room - bits)
            pixels = self.pixel_digits(x, bits)
        parts = []
        for up, tensor in pixels:
            for more, digit in codes:
                held = self.weights(node.name, digit, single)
                parts.append((up + more, self.op(
                    "Conv", [tensor, held], node.name, shape, single,
                    group=group, pads=[top, left, bottom, right], **_sizes(window))))
        tensor = self.joined(node, parts, shape, dtype)
        return self.settled(node, self.squeezed(node, tensor, dtype), dtype)

    def pixel_digits(self, x: _Value, bits: int) -> list[tuple[int, str]]:
        """Shifts, and digits of so many bits of the tensor of `x`, in float32: x = Σ digit·2^s."""
        double, shape = np.dtype(np.float64), [self.batch, x.edge.channels, *x.edge.shape[:2]]
        rest = self.cast_to(x.tensor, shape, self.dtype(x.edge, x.tensor), double)
        parts, shift, left = [], 0, _largest(x.edge).bit_length()
        base = self.array(f"{x.tensor}.base", np.float64(2**bits)) if left > bits else ""
        while left > bits:
            over = self.op("Div", [rest, base], f"{x.tensor}.over", shape, double)
            high = self.op("Floor", [over], f"{x.tensor}.high", shape, double)
            back = self.op("Mul", [high, base], f"{x.tensor}.back", shape, double)
            low = self.op("Sub", [rest, back], f"{x.tensor}.low", shape, double)
            parts.append((shift, self.cast_to(low, shape, double, np.dtype(np.float32))))
            rest, shift, left = high, shift + bits, left - bits
        return [*parts, (shift, self.cast_to(rest, shape, double, np.dtype(np.float32)))]

    def joined(self, node: Node, parts: list[tuple[int, str]], shape: list[int], dtype: np.dtype
               ) -> str:
        """Σ part · 2^shift."""
        if len(parts) == 1:
            return parts[0][1]
        total = ""
        for shift, tensor in parts:
            tensor = self.cast_to(tensor, shape, np.dtype(np.float32), dtype)
            if shift:
                factor = self.array(f"{node.name}.factor", np.asarray(2.0**shift, dtype))
                tensor = self.op("Mul", [tensor, factor], f"{node.name}.part", shape, dtype)
            total = tensor if not total else self.op("Add", [total, tensor], node.name, shape,
                                                     dtype)
        return total

    def line(self, node: Node, x: _Value, multiplier: np.ndarray, offset: np.ndarray
             ) -> tuple[str, np.dtype]:
        """x · multiplier + offset, in the narrowest type that is exact; int64 above 2^53."""
        m, c = (self.streamed(values, x) for values in (multiplier, offset))
        reach = int(np.abs(m).max()) * _largest(x.edge) + int(np.abs(c).max())
        floats = [dtype for dtype, bits in EXACT.items() if reach <= 2**bits]
        dtype = floats[0] if floats else np.dtype(np.int64)
        tensor, shape = self.cast(x, dtype), self.shape(x.edge)
        if (m != 1).any():
            tensor = self.op("Mul", [tensor, self.array(f"{node.name}.multiplier", self.row(
                m, x.edge).astype(dtype))], node.name, shape, dtype)
        if c.any():
            tensor = self.op("Add", [tensor, self.array(f"{node.name}.offset", self.row(
                c, x.edge).astype(dtype))], node.name, shape, dtype)
        return tensor, dtype

    def shifted(self, node: ir.Scale | ir.PiecewiseLinear, tensor: str, dtype: np.dtype, x: _Value,
                multiplier: np.ndarray, offset: np.ndarray) -> tuple[str, np.dtype]:
        """⌊tensor / 2^shift⌋.  Of int64, which divides towards zero, after a lift above it."""
        shape, unit = self.shape(x.edge), 2**node.shift
        if not node.shift:
            return tensor, dtype
        divisor = self.array(f"{node.name}.divisor", np.asarray(unit, dtype))
        if dtype.kind == "f":
            tensor = self.op("Div", [tensor, divisor], f"{node.name}.quotient", shape, dtype)
            even = isinstance(node, ir.Scale) and node.ties == "even"
            return self.op("Round" if even else "Floor", [tensor], node.name, shape, dtype), dtype
        if isinstance(node, ir.Scale) and node.ties == "even":
            raise N2uqError(f"{self.graph.name}: products of {node.name} must stay within 2^53 to "
                            "be rounded half to even in ONNX")
        ends = np.stack([x.edge.lo, x.edge.hi]) * multiplier + offset
        lift = -min(int(ends.min()) // unit, 0)
        more = self.array(f"{node.name}.lift", np.int64(lift * unit))
        tensor = self.op("Add", [tensor, more], f"{node.name}.lifted", shape, dtype)
        tensor = self.op("Div", [tensor, divisor], f"{node.name}.quotient", shape, dtype)
        back = self.array(f"{node.name}.back", np.int64(lift))
        return self.op("Sub", [tensor, back], node.name, shape, dtype), dtype

    def clipped(self, node: Node, tensor: str, dtype: np.dtype, lo: int, hi: int) -> str:
        ends = [self.array(f"{node.name}.{what}", np.asarray(value, dtype))
                for what, value in (("least", lo), ("most", hi))]
        return self.op("Clip", [tensor, *ends], node.name, self.shape(self.edge(node)), dtype)

    # --- The file -----------------------------------------------------------------------------

    def model(self) -> onnx.ModelProto:
        """The whole model, checked by `onnx`."""
        last = self.ordered(self.values[self.graph.output])
        output = self.infos.pop(last.tensor)
        graph = helper.make_graph(self.nodes, self.graph.name, [self.pixels], [output],
                                  self.arrays, value_info=[*self.infos.values()])
        pixels = self.graph.input
        bits, signed = ir.bits_for(pixels.lo, pixels.hi)
        graph.quantization_annotation.add(
            tensor_name=pixels.name).quant_parameter_tensor_names.add(
                key="finn_datatype", value=f"{'INT' if signed else 'UINT'}{bits}")
        opsets = [helper.make_opsetid("", OPSET)]
        if self.dialect == "qonnx":
            opsets.append(helper.make_opsetid(DOMAIN, 1))
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION,
                                  producer_name="n2uq-hw")
        for key, value in ((INPUT_KEY, json.dumps({"min": pixels.lo, "max": pixels.hi})),
                           (SCALE_KEY, repr(self.graph.scale))):
            model.metadata_props.add(key=key, value=value)
        onnx.checker.check_model(model)
        return model


def _sizes(window: ir.SlidingWindow) -> dict[str, Any]:
    """Attributes of a convolution or pool."""
    return {"kernel_shape": [*window.kernel], "strides": [*window.stride],
            "dilations": [*window.dilation]}


def _largest(edge: Edge) -> int:
    return int(np.maximum(np.abs(edge.lo), np.abs(edge.hi)).max())


def _digits(values: np.ndarray, bits: int) -> list[tuple[int, np.ndarray]]:
    """Shifts, and digits of so many bits; values = Σ digit·2^shift, the last digit is signed."""
    rest, shift, parts = values.astype(np.int64), 0, []
    while np.abs(rest).max().item().bit_length() > bits:
        parts.append((shift, rest & ((1 << bits) - 1)))
        rest, shift = rest >> bits, shift + bits
    return [*parts, (shift, rest)]
