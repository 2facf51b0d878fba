"""The integer graph as an ONNX file that computes golden's integers, every one."""

from __future__ import annotations

from dataclasses import replace
from functools import singledispatchmethod
from typing import Any

import numpy as np
import onnx
from onnx import helper

from .. import ir
from ..errors import N2uqError
from ..ir import Edge, Graph, Node
from .tensors import DOMAIN, EXACT, SCALE_KEY, Dialect, Tensors, Value, largest

__all__ = ["SCALE_KEY", "Dialect", "export_onnx"]

ONE = ir.SlidingWindow("pixel")


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


class _Writer(Tensors):
    """What each node becomes."""

    @singledispatchmethod
    def write(self, node: Node, *xs: Value) -> Value:
        """What `node` makes of the values that it reads."""
        raise self.unformed(node)

    @write.register
    def _(self, node: ir.Input) -> Value:
        height, width, _ = node.shape
        self.taken.add(node.name)
        edge = self.edge(node)
        if (height, width) != (1, 1):
            return Value(node.name, edge)
        return Value(self.op("Flatten", [node.name], f"{node.name}.flat", self.shape(edge),
                             np.float32, axis=1), edge)

    @write.register
    def _(self, node: ir.Pad, x: Value) -> Value:
        return replace(x, frame=node.frame, values=node.values) if any(node.frame) else x

    @write.register
    def _(self, node: ir.SlidingWindow, x: Value) -> Value:
        x = self.image(self.plain(x)) if x.flat or x.window is not None else x
        return replace(x, window=node)

    @write.register
    def _(self, node: ir.Flatten, x: Value) -> Value:
        return x if x.vector else replace(x, flat=True)

    @write.register
    def _(self, node: ir.MatVec, x: Value) -> Value:
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
    def _(self, node: Node, *xs: Value) -> Value:
        """Only hardware graphs have them: they are more than the MatVec that they derive from."""
        raise self.unformed(node)

    @write.register
    def _(self, node: ir.DepthwiseMatVec, x: Value) -> Value:
        return self.depthwise(node, x, node.weights)

    @write.register
    def _(self, node: ir.SumPool, x: Value) -> Value:
        if x.flat and node.positions == x.edge.shape[0] * x.edge.shape[1]:
            edge = self.edge(node)
            dtype = self.dtype(edge, node.name)  # no partial sum is larger
            axes = self.array(f"{node.name}.axes", np.array([2, 3], np.int64))
            return Value(self.op("ReduceSum", [self.cast(x, dtype), axes], node.name,
                                  self.shape(edge), dtype, keepdims=0), edge)
        return self.depthwise(node, x, np.ones((node.positions, self.edge(node).channels), np.int8))

    def depthwise(self, node: Node, x: Value, weights: np.ndarray) -> Value:
        """Windows' dot products with `weights` [P, C], channel by channel."""
        if x.window is None:
            raise self.unformed(node, "read windows of an image")
        kernel = weights.T.reshape(-1, 1, *x.window.kernel)
        return self.convolved(node, x, kernel, len(kernel))

    @write.register
    def _(self, node: ir.MaxPool, x: Value) -> Value:
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
    def _(self, node: ir.Add, x: Value, y: Value) -> Value:
        edge, (x, y) = self.edge(node), map(self.ordered, (x, y))
        dtype = max(self.dtype(each.edge, each.tensor) for each in (x, y, Value(node.name, edge)))
        return self.settled(node, self.op("Add", [self.cast(x, dtype), self.cast(y, dtype)],
                                          node.name, self.shape(edge), dtype), dtype)

    @write.register
    def _(self, node: ir.Concat, *xs: Value) -> Value:
        edge = self.edge(node)
        dtype = self.dtype(edge, node.name)
        parts = [self.cast(self.ordered(x), dtype) for x in xs]
        return Value(self.op("Concat", parts, node.name, self.shape(edge), dtype, axis=1), edge)

    @write.register
    def _(self, node: ir.Upsample, x: Value) -> Value:
        height, width = node.factor
        scales = self.array(f"{node.name}.scales", np.array([1, 1, height, width], np.float32))
        return self.moved(node, x, "Resize", "", scales, mode="nearest", nearest_mode="floor",
                          coordinate_transformation_mode="asymmetric")

    @write.register
    def _(self, node: ir.DepthToSpace, x: Value) -> Value:
        (down, across), (_, _, outputs) = node.sides, self.edge(node).shape
        if down == across:
            return self.moved(node, x, "DepthToSpace", blocksize=down, mode=node.mode)
        # ONNX's operator makes squares alone.
        x = self.image(self.ordered(x))
        height, width, _ = x.edge.shape
        dtype, batch = self.dtype(x.edge, x.tensor), self.batch
        sizes, places = ([batch, down, across, outputs, height, width], (0, 3, 4, 1, 5, 2)) \
            if node.mode == "DCR" else ([batch, outputs, down, across, height, width],
                                        (0, 1, 4, 2, 5, 3))
        form = self.array(f"{node.name}.parts", np.array(sizes, np.int64))
        tensor = self.op("Reshape", [x.tensor, form], f"{node.name}.split", sizes, dtype)
        tensor = self.op("Transpose", [tensor], f"{node.name}.turned",
                         [sizes[place] for place in places], dtype, perm=places)
        sizes = [batch, outputs, height * down, width * across]
        form = self.array(f"{node.name}.shape", np.array(sizes, np.int64))
        tensor = self.op("Reshape", [tensor, form], node.name, sizes, dtype)
        return self.settled(node, self.squeezed(node, tensor, dtype), dtype)

    @write.register
    def _(self, node: ir.Permute, x: Value) -> Value:
        order = self.array(f"{node.name}.order", node.order.astype(np.int64))
        return self.moved(node, x, "Gather", order, axis=1)

    def moved(self, node: Node, x: Value, kind: str, *more: str, **attributes: Any) -> Value:
        """The value of a node that moves the pixels or channels of an image."""
        x, edge = self.image(self.ordered(x)), self.edge(node)
        dtype = self.dtype(x.edge, x.tensor)
        tensor = self.op(kind, [x.tensor, *more], node.name,
                         [self.batch, edge.channels, *edge.shape[:2]], dtype, **attributes)
        return self.settled(node, self.squeezed(node, tensor, dtype), dtype)

    @write.register
    def _(self, node: ir.Saturate, x: Value) -> Value:
        x = self.plain(x)
        dtype = self.dtype(x.edge, x.tensor)
        return self.settled(node, self.clipped(node, x.tensor, dtype, node.lo, node.hi), dtype,
                            x.order)

    @write.register
    def _(self, node: ir.ArgMax, x: Value) -> Value:
        return Value(self.op("ArgMax", [self.ordered(x).tensor], node.name, [self.batch, 1],
                              np.int64, axis=1, keepdims=1), self.edge(node))

    @write.register
    def _(self, node: ir.Threshold, x: Value) -> Value:
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
        if base.any():
            parts[0] = self.op("Add", [parts[0], self.array(f"{node.name}.base", self.row(
                base, x.edge).astype(dtype))], node.name, shape, dtype)
        tensor = parts[0] if len(parts) == 1 else self.op("Add", parts, node.name, shape, dtype)
        return self.settled(node, tensor, dtype, x.order)

    def counted(self, node: ir.Threshold, x: Value, direction: np.ndarray,
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
    def _(self, node: ir.Scale, x: Value) -> Value:
        x = self.plain(x)
        tensor, dtype = self.line(node, x, node.multiplier, node.offset)
        tensor, dtype = self.shifted(node, tensor, dtype, x)
        if node.clip:
            tensor = self.clipped(node, tensor, dtype, *node.clip)
        return self.settled(node, tensor, dtype, x.order)

    @write.register
    def _(self, node: ir.PiecewiseLinear, x: Value) -> Value:
        x, shape, parts = self.plain(x), self.shape(self.edge(node)), []
        for multiplier, offset in zip(node.multiplier, node.offset, strict=True):
            tensor, dtype = self.line(node, x, multiplier, offset)
            tensor, dtype = self.shifted(node, tensor, dtype, x)
            parts.append(self.cast_to(tensor, shape, dtype, np.dtype(np.float64)))
        own = self.dtype(x.edge, x.tensor)
        turn = self.row(self.streamed(node.turn, x), x.edge).astype(own)
        above = self.op("GreaterOrEqual", [x.tensor, self.array(f"{node.name}.turn", turn)],
                        f"{node.name}.above", shape, bool)
        tensor = self.op("Where", [above, parts[1], parts[0]], node.name, shape, np.float64)
        return self.settled(node, tensor, np.dtype(np.float64), x.order)

    # --- Convolutions ------------------------------------------------------------------------

    def sums(self, node: Node, edge: Edge, weights: np.ndarray) -> np.dtype:
        """The float in which no partial sum of products is rounded."""
        bound = int(np.abs(weights.astype(np.int64)).reshape(len(weights), -1).sum(axis=1).max()
                    * largest(edge))
        return self.dtype(Edge((1, 1, 1), np.array([-bound]), np.array([bound])), node.name)

    def convolved(self, node: Node, x: Value, weights: np.ndarray, group: int) -> Value:
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

    def pixel_digits(self, x: Value, bits: int) -> list[tuple[int, str]]:
        """Shifts, and digits of so many bits of the tensor of `x`, in float32: x = Σ digit·2^s."""
        double, shape = np.dtype(np.float64), [self.batch, x.edge.channels, *x.edge.shape[:2]]
        rest = self.cast_to(x.tensor, shape, self.dtype(x.edge, x.tensor), double)
        parts, shift, left = [], 0, largest(x.edge).bit_length()
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


def _sizes(window: ir.SlidingWindow) -> dict[str, Any]:
    """Attributes of a convolution or pool."""
    return {"kernel_shape": [*window.kernel], "strides": [*window.stride],
            "dilations": [*window.dilation]}


def _digits(values: np.ndarray, bits: int) -> list[tuple[int, np.ndarray]]:
    """Shifts, and digits of so many bits; values = Σ digit·2^shift, the last digit is signed."""
    rest, shift, parts = values.astype(np.int64), 0, []
    while np.abs(rest).max().item().bit_length() > bits:
        parts.append((shift, rest & ((1 << bits) - 1)))
        rest, shift = rest >> bits, shift + bits
    return [*parts, (shift, rest)]
