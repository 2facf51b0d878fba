"""The tensors, initializers and operations of an ONNX file in the making.

Tensors hold integers in floats: float32 below 2^24, float64 below 2^53, where these are exact.
Images are [N, C, H, W], vectors [N, C].  A window is no tensor: it becomes part of the operation
that reads it, as convolutions and pools have it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .. import ir
from ..errors import N2uqError
from ..importers.onnx.reading import INPUT_KEY
from ..ir import Edge, Graph, Node
from ..names import fresh

__all__ = ["DOMAIN", "EXACT", "SCALE_KEY", "Dialect", "Tensors", "Value", "largest"]

Dialect = Literal["qonnx", "integer"]
DOMAIN = "qonnx.custom_op.general"
OPSET, MASKS, IR_VERSION = 13, 18, 8    # from MASKS on, there are bitwise operators
EXACT: dict[np.dtype, int] = {  # bits of integers that a float holds
    np.dtype(np.float32): 24, np.dtype(np.float64): 53}
SCALE_KEY = "n2uq-hw.output_scale"  # of the metadata: what 1 of the output stands for
Frame = tuple[int, int, int, int]
ZERO = np.zeros(1, np.int64)


@dataclass(frozen=True, eq=False)
class Value:
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

class Tensors:
    """The ONNX nodes, initializers and tensors so far."""

    def __init__(self, graph: Graph, dialect: Dialect, batch: int) -> None:
        self.graph, self.dialect, self.batch, self.opset = graph, dialect, batch, OPSET
        self.nodes: list[onnx.NodeProto] = []
        self.arrays: list[onnx.TensorProto] = []
        self.infos: dict[str, onnx.ValueInfoProto] = {}
        self.taken: set[str] = set()
        self.values: dict[str, Value] = {}

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

    def cast(self, value: Value, dtype: np.dtype) -> str:
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

    def plain(self, value: Value) -> Value:
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
            return Value(name, edge, order=order)
        return value

    def ordered(self, value: Value) -> Value:
        """`value` in the order of the stream."""
        value = self.plain(value)
        if value.order is None:
            return value
        places = self.array(f"{value.tensor}.places", np.argsort(value.order))
        return Value(self.op("Gather", [value.tensor, places], f"{value.tensor}.ordered",
                              self.shape(value.edge), self.dtype(value.edge, value.tensor),
                              axis=1), value.edge)

    def image(self, value: Value) -> Value:
        """`value` as a tensor [N, C, H, W]."""
        if not value.vector:
            return value
        shape = [self.batch, value.edge.channels, 1, 1]
        form = self.array(f"{value.tensor}.shape", np.array(shape, np.int64))
        return replace(value, tensor=self.op(
            "Reshape", [value.tensor, form], f"{value.tensor}.image", shape,
            self.dtype(value.edge, value.tensor)))

    def framed(self, value: Value) -> Value:
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

    # --- What nodes share ---------------------------------------------------------------------

    def edge(self, node: Node) -> Edge:
        return self.graph.edges[node.name]

    def unformed(self, node: Node, rule: str = "be of a graph that was lowered, not of a hardware "
                 "graph,") -> N2uqError:
        return N2uqError(f"{self.graph.name}: {type(node).__name__} {node.name} must {rule} to "
                         "have an ONNX form")

    def streamed(self, values: np.ndarray, x: Value) -> np.ndarray:
        """Parameters [C, ...] of a node in the order of the tensor that it reads."""
        return values if x.order is None or len(values) == 1 else values[x.order]

    def settled(self, node: Node, tensor: str, dtype: np.dtype,
                order: np.ndarray | None = None) -> Value:
        """The value of `node`, in the type of its range."""
        edge = self.edge(node)
        return Value(self.cast_to(tensor, self.shape(edge), dtype,
                                   self.dtype(edge, node.name)), edge, order=order)

    def squeezed(self, node: Node, tensor: str, dtype: np.dtype) -> str:
        """An image [N, C, 1, 1] as [N, C]; others as they are."""
        edge = self.edge(node)
        if edge.shape[:2] != (1, 1):
            return tensor
        return self.op("Flatten", [tensor], f"{node.name}.vector", self.shape(edge), dtype, axis=1)

    def line(self, node: Node, x: Value, multiplier: np.ndarray, offset: np.ndarray
             ) -> tuple[str, np.dtype]:
        """x · multiplier + offset, in the narrowest type that is exact; int64 above 2^53."""
        m, c = (self.streamed(values, x) for values in (multiplier, offset))
        reach = int(np.abs(m).max()) * largest(x.edge) + int(np.abs(c).max())
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

    def shifted(self, node: ir.Scale | ir.PiecewiseLinear, tensor: str, dtype: np.dtype, x: Value
                ) -> tuple[str, np.dtype]:
        """⌊tensor / 2^shift⌋.  Of int64, which divides towards zero, without its last bits."""
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
        self.opset = max(self.opset, MASKS)
        mask = self.array(f"{node.name}.mask", np.int64(-unit))
        tensor = self.op("BitwiseAnd", [tensor, mask], f"{node.name}.multiple", shape, dtype)
        return self.op("Div", [tensor, divisor], node.name, shape, dtype), dtype

    def clipped(self, node: Node, tensor: str, dtype: np.dtype, lo: int, hi: int) -> str:
        ends = [self.array(f"{node.name}.{what}", np.asarray(value, dtype))
                for what, value in (("least", lo), ("most", hi))]
        return self.op("Clip", [tensor, *ends], node.name, self.shape(self.edge(node)), dtype)

    # --- The file -----------------------------------------------------------------------------

    def model(self) -> onnx.ModelProto:
        """The whole model, checked by `onnx`."""
        last = self.ordered(self.values[self.graph.output])
        output = self.infos.pop(last.tensor)
        pixels = self.graph.input
        height, width, channels = pixels.shape
        input = helper.make_tensor_value_info(pixels.name, TensorProto.FLOAT,
                                              [self.batch, channels, height, width])
        graph = helper.make_graph(self.nodes, self.graph.name, [input], [output], self.arrays,
                                  value_info=[*self.infos.values()])
        bits, signed = ir.bits_for(pixels.lo, pixels.hi)
        graph.quantization_annotation.add(
            tensor_name=pixels.name).quant_parameter_tensor_names.add(
                key="finn_datatype", value=f"{'INT' if signed else 'UINT'}{bits}")
        opsets = [helper.make_opsetid("", self.opset)]
        if self.dialect == "qonnx":
            opsets.append(helper.make_opsetid(DOMAIN, 1))
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION,
                                  producer_name="n2uq-hw")
        for key, value in ((INPUT_KEY, json.dumps({"min": pixels.lo, "max": pixels.hi})),
                           (SCALE_KEY, repr(self.graph.scale))):
            model.metadata_props.add(key=key, value=value)
        onnx.checker.check_model(model)
        return model


def largest(edge: Edge) -> int:
    """The largest magnitude in it."""
    return int(np.maximum(np.abs(edge.lo), np.abs(edge.hi)).max())
