"""ONNX files as plain data: bounded, checked, in topological order; nothing in them is executed."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, numpy_helper

from ...errors import N2uqError
from ...files import readable

__all__ = ["INPUT_KEY", "NoForm", "Node", "Source", "one_line", "read_source"]

LARGEST_FILE = 2**28      # bytes
INPUT_KEY = "n2uq-hw.input"  # of the metadata: the range of the pixels, as JSON
MOST_NODES = 2**15
LARGEST_TENSOR = 2**26    # elements, of a constant or of what is between nodes
STANDARD = ("", "ai.onnx")
NEWEST = dict.fromkeys(STANDARD, onnx.defs.onnx_opset_version()) | {"qonnx.custom_op.general": 2}
# The zero point of each operator's output: its type is that of the codes.
ZERO_POINTS = {"QuantizeLinear": 2, "QLinearConv": 7, "QLinearMatMul": 7, "QGemm": 8,
               "QLinearAdd": 7, "QLinearGlobalAveragePool": 4, "QLinearAveragePool": 4,
               "QLinearLeakyRelu": 4, "QLinearSigmoid": 4, "QLinearSoftmax": 4,
               "QLinearConcat": 1}
RANGES = {f"{sign}INT{bits}": (0, 2**bits - 1) if sign else (-2**(bits - 1), 2**(bits - 1) - 1)
          for sign in ("", "U") for bits in (4, 8, 16, 32)}
NUMBERS = {TensorProto.DataType.Value(name) for name in (
    "FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16", "INT4", "UINT4", "INT8", "UINT8", "INT16", "UINT16",
    "INT32", "UINT32", "INT64", "UINT64", "BOOL")}


class NoForm(Exception):
    """Why a node has no integer form: a rule, as in "must be ..., not ..."."""


@dataclass(frozen=True, eq=False)
class Node:
    """An operator: its inputs ("" where one is left out), its outputs, and its attributes."""

    name: str
    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    opset: int = 1

    def of(self, key: str, default: Any = None) -> Any:
        """An attribute, of the type that `default` has."""
        value = self.attributes.get(key, default)
        if default is not None and not isinstance(value, type(default)) and not (
                isinstance(default, float) and isinstance(value, int)):
            raise NoForm(f"{key} must be of type {type(default).__name__}, "
                         f"not {type(value).__name__}")
        if isinstance(value, float) and not math.isfinite(value):
            raise NoForm(f"{key} must be finite, not {value}")
        return value

    def sizes(self, key: str, default: Iterable[int]) -> tuple[int, ...]:
        """An attribute of whole numbers, as many as `default` has."""
        wanted = tuple(default)
        value = self.attributes.get(key, wanted)
        if not isinstance(value, tuple) or len(value) != len(wanted) or any(
                type(size) is not int or abs(size) > LARGEST_TENSOR for size in value):
            raise NoForm(f"{key} must be {len(wanted)} whole numbers, not {value!r}")
        return value


@dataclass(frozen=True, eq=False)
class Source:
    """What a file holds of a network with one input and one output.

    Members
    -------
    nodes: those that the output needs, each after all that it reads.
    constants: initializers by name.
    input, shape: name and sizes of the input; a free batch is 1.
    whole: whether the input is of a type of whole numbers.
    output: name.
    datatypes: FINN's annotations by tensor, such as "UINT8".
    pixels: the least and largest integer of the input, where our own export has said so.
    """

    path: Path
    nodes: tuple[Node, ...]
    constants: dict[str, np.ndarray]
    input: str
    shape: tuple[int, ...]
    whole: bool
    output: str
    datatypes: dict[str, str]
    pixels: tuple[int, int] | None


def read_source(path: Path) -> Source:
    """Read an ONNX file; raises N2uqError, one line with the file's name, for whatever is wrong."""
    try:
        return _source(path, _parsed(path))
    except NoForm as error:
        raise N2uqError(f"{path}: {one_line(error)}") from None


def one_line(error: object) -> str:
    """What is said of a file in one line, whatever its names hold."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(str(error).split()))


def _parsed(path: Path) -> onnx.ModelProto:
    size = readable(path).stat().st_size
    if size > LARGEST_FILE:
        raise NoForm(f"must be at most {LARGEST_FILE:,} bytes, not {size:,}")
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except (DecodeError, ValueError, RuntimeError) as error:
        raise NoForm(f"not a whole ONNX file: {error}") from None
    if not model.graph.node or not model.graph.output:
        raise NoForm("not a whole ONNX file: it holds no graph with nodes and an output")
    return model


def _source(path: Path, model: onnx.ModelProto) -> Source:
    graph = model.graph
    if len(graph.node) > MOST_NODES:
        raise NoForm(f"must have at most {MOST_NODES:,} nodes, not {len(graph.node):,}")
    if model.functions:
        raise NoForm(f"must hold no functions, not {model.functions[0].name}: inline them first "
                     "(onnx.inliner)")
    opsets = {_text(each.domain): each.version for each in model.opset_import}
    for domain, newest in NEWEST.items():
        if not 0 < opsets.get(domain, 1) <= newest:
            of = "" if domain in STANDARD else f" of {domain}"
            raise NoForm(f"opset{of} must be in 1..{newest}, not {opsets[domain]}")
    opset = max(opsets.get(domain, 1) for domain in STANDARD)
    if graph.sparse_initializer:
        raise NoForm(f"{graph.sparse_initializer[0].values.name} must be dense, not sparse")
    twice = [name for name, count in Counter(
        _text(tensor.name) for tensor in graph.initializer).items() if count > 1]
    if twice:
        raise NoForm(f"{twice[0]} must be written once, not by two initializers")
    constants = {tensor.name: _array(tensor.name, tensor) for tensor in graph.initializer}
    inputs = [value for value in graph.input if _text(value.name) not in constants]
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    types |= {node.output[0]: held.t.data_type for node in graph.node for held in node.attribute
              if node.op_type == "Constant" and held.name == "value" and node.output}
    types |= {value.name: value.type.tensor_type.elem_type for value in inputs}
    nodes = [_node(node, opsets, opset, types) for node in graph.node]
    counts = Counter(node.name for node in nodes)
    nodes = [replace(node, name=next(filter(None, node.outputs), node.op))
             if counts[node.name] > 1 else node for node in nodes]
    _check_names(nodes, constants, {value.name for value in inputs})
    output = _only("output", [_text(value.name) for value in graph.output])
    nodes = _live(nodes, output)
    read = {name for node in nodes for name in node.inputs}
    inputs = [value for value in inputs if value.name in read] or inputs
    name = _only("input", [value.name for value in inputs])
    whole = TensorProto.DataType.Name(types[name]) in (*RANGES, "INT64", "UINT64")
    return Source(path, tuple(_ordered(nodes)), constants, name,
                  _shape(next(value for value in inputs if value.name == name)), whole, output,
                  _datatypes(graph), _pixels(model))


def _only(what: str, names: list[str]) -> str:
    if len(names) != 1:
        raise NoForm(f"must have one {what}, not {len(names)}: {', '.join(names[:8])}")
    return names[0]


def _text(name: str | bytes) -> str:
    """A name, which protobuf gives as bytes where it is no text."""
    if isinstance(name, bytes):
        raise NoForm(f"names must be UTF-8 text, not {name[:40]!r}")
    return name


def _pixels(model: onnx.ModelProto) -> tuple[int, int] | None:
    """The range of the input that a file of `n2uq-hw export` has in its metadata."""
    metadata = {_text(pair.key): _text(pair.value) for pair in model.metadata_props}
    try:
        held = json.loads(metadata.get(INPUT_KEY, "null"))
        least, most = (held[key] for key in ("min", "max"))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    good = type(least) is int and type(most) is int and -65535 <= least <= 0 < most <= 65535
    return (least, most) if good else None


def _datatypes(graph: GraphProto) -> dict[str, str]:
    return {_text(each.tensor_name): _text(pair.value) for each in graph.quantization_annotation
            for pair in each.quant_parameter_tensor_names if pair.key == "finn_datatype"}


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """The sizes of the input; a batch that is free is 1."""
    kind = value.type.tensor_type
    if value.type.WhichOneof("value") != "tensor_type" or kind.elem_type not in NUMBERS:
        raise NoForm(f"input {value.name} must be a tensor of numbers, not "
                     f"{value.type.WhichOneof('value') or 'untyped'} of type "
                     f"{TensorProto.DataType.Name(kind.elem_type)}")
    if not kind.HasField("shape") or not 2 <= len(kind.shape.dim) <= 5:
        raise NoForm(f"input {value.name} must have a shape of 2 to 5 sizes, not "
                     f"{len(kind.shape.dim) if kind.HasField('shape') else 'none'}")
    sizes = [size.dim_value for size in kind.shape.dim]
    free = [size.dim_param or "?" for size in kind.shape.dim[1:] if size.dim_value < 1]
    if free:
        raise NoForm(f"input {value.name} must have sizes of its own but for the batch, not "
                     f"{', '.join(free)}")
    if math.prod(sizes[1:]) > LARGEST_TENSOR:
        raise NoForm(f"input {value.name} must have at most {LARGEST_TENSOR:,} elements, "
                     f"not {math.prod(sizes[1:]):,}")
    if sizes[0] > 2**16:
        raise NoForm(f"batch of input {value.name} must be at most {2**16:,}, not {sizes[0]:,}")
    return (max(sizes[0], 1), *sizes[1:])


def _array(name: str, tensor: TensorProto) -> np.ndarray:
    """A constant, checked before it takes memory; floats as float64, whole numbers as int64."""
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        raise NoForm(f"{name} must lie in the file, not in another")
    if tensor.data_type not in NUMBERS:
        raise NoForm(f"{name} must be a tensor of numbers, not of type {tensor.data_type}")
    count = math.prod(tensor.dims)
    if any(size < 0 for size in tensor.dims) or count > LARGEST_TENSOR:
        raise NoForm(f"{name} must have at most {LARGEST_TENSOR:,} elements, not "
                     f"{'×'.join(map(str, tensor.dims))}")
    held = len(tensor.raw_data) * 2 if tensor.HasField("raw_data") else 8 * max(
        len(tensor.float_data), len(tensor.double_data), len(tensor.int32_data),
        len(tensor.int64_data), len(tensor.uint64_data))
    if count > held:
        raise NoForm(f"{name} must hold its {count:,} elements, not fewer")
    try:
        array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise NoForm(f"{name} must hold its {count:,} elements: {error}") from None
    if array.dtype.kind in "iub" or array.dtype.name in ("int4", "uint4"):
        return array.astype(np.bool_ if array.dtype.kind == "b" else np.int64)
    return array.astype(np.float64)


def _attribute(node: NodeProto, held: AttributeProto) -> Any:
    """A Python value; None for a graph, which no operator here has."""
    kinds = AttributeProto.AttributeType
    match held.type:
        case kinds.FLOAT:
            return held.f
        case kinds.INT:
            return held.i
        case kinds.STRING:
            return held.s.decode("utf-8", "replace")
        case kinds.FLOATS:
            return tuple(held.floats)
        case kinds.INTS:
            return tuple(held.ints)
        case kinds.TENSOR:
            return _array(f"{held.name} of {node.name or node.op_type}", held.t)
    return None


def _node(node: NodeProto, opsets: dict[str, int], opset: int, types: dict[str, int]) -> Node:
    if not node.output:
        raise NoForm(f"{node.op_type} {node.name} must have an output")
    held = {_text(each.name): _attribute(node, each) for each in node.attribute}
    name, op, domain, *tensors = map(_text, (node.name, node.op_type, node.domain, *node.input,
                                             *node.output))
    inputs, outputs = tensors[:len(node.input)], tensors[len(node.input):]
    held.pop("range", None)
    if (place := ZERO_POINTS.get(node.op_type)) is not None:
        zero = node.input[place] if len(node.input) > place else ""
        kind = types.get(zero, 0) if zero else held.get("output_dtype") or TensorProto.UINT8
        known = {number: name for name, number in TensorProto.DataType.items()}
        held["range"] = RANGES.get(known.get(kind, ""))
    return Node(name or next(filter(None, outputs), op), op, domain, tuple(inputs), tuple(outputs),
                held, opset if domain in STANDARD else opsets.get(domain, 1))


def _check_names(nodes: list[Node], constants: dict[str, np.ndarray], inputs: set[str]) -> None:
    """Every tensor is written once, and whatever is read is written."""
    written = {*inputs, *constants}
    for node in nodes:
        for name in filter(None, node.outputs):
            if name in written:
                raise NoForm(f"{name} must be written once, not again by {node.op} {node.name}")
            written.add(name)
    for node in nodes:
        for name in filter(None, node.inputs):
            if name not in written:
                raise NoForm(f"{name}, which {node.op} {node.name} reads, must be an input, an "
                             "initializer or the output of a node, and is none")


def _live(nodes: list[Node], output: str) -> list[Node]:
    """The nodes that `output` needs."""
    writers = {name: node for node in nodes for name in node.outputs if name}
    needed: set[Node] = set()
    waiting = [output]
    while waiting:
        node = writers.get(waiting.pop())
        if node is not None and node not in needed:
            needed.add(node)
            waiting += filter(None, node.inputs)
    if not needed:
        raise NoForm(f"output {output} must be the output of a node")
    return [node for node in nodes if node in needed]


def _ordered(nodes: list[Node]) -> Iterable[Node]:
    """The nodes, each after all that it reads; otherwise in the order of the file."""
    writers = {name: node for node in nodes for name in node.outputs if name}
    missing = {node: len({writers[name] for name in node.inputs if name in writers})
               for node in nodes}
    readers: dict[Node, list[Node]] = {node: [] for node in nodes}
    for node in nodes:
        for writer in {writers[name] for name in node.inputs if name in writers}:
            readers[writer].append(node)
    place = {node: k for k, node in enumerate(nodes)}
    ready = [k for k, node in enumerate(nodes) if not missing[node]]  # ascending: a heap
    done = 0
    while ready:
        node = nodes[heappop(ready)]
        done += 1
        yield node
        for reader in readers[node]:
            missing[reader] -= 1
            if not missing[reader]:
                heappush(ready, place[reader])
    if done < len(nodes):
        stuck = next(node for node in nodes if missing[node])
        raise NoForm(f"must hold no cycle, not one through {stuck.op} {stuck.name}")
