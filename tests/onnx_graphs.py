"""Small ONNX graphs: a chain of operators with constants, and what other runtimes make of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.util.cleanup import cleanup_model

QONNX = "qonnx.custom_op.general"
ELEMENTS = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int64): TensorProto.INT64,
            np.dtype(np.uint8): TensorProto.UINT8}


class Net:
    """A graph to be: `op` appends a node and returns its output."""

    def __init__(self, *shape: int | str, opset: int = 20, element: int = TensorProto.FLOAT
                 ) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.shape, self.opset, self.element = shape, opset, element
        self.outputs = 1

    def const(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.constants)}"
        own = isinstance(value, np.ndarray | np.generic) and value.dtype != np.float64
        array = np.array(value, value.dtype if own else dtype)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def op(self, kind: str, *inputs: Any, domain: str = "", outputs: int = 1, **attributes: Any
           ) -> Any:
        """Inputs are names, "" or constants."""
        names = [each if isinstance(each, str) else self.const(each) for each in inputs]
        place = len(self.nodes)
        results = [f"t{place}_{k}" for k in range(outputs)]
        self.nodes.append(helper.make_node(kind, names, results, name=f"{kind}_{place}",
                                           domain=domain, **attributes))
        return results[0] if outputs == 1 else results

    def quant(self, x: str | np.ndarray, scale: Any, bits: int, zero: Any = 0.0, *, signed: int = 1,
              narrow: int = 0, mode: str = "ROUND") -> str:
        return self.op("Quant", x, np.float32(scale), np.float32(zero), np.float32(bits),
                       domain=QONNX, signed=signed, narrow=narrow, rounding_mode=mode)

    def model(self, output: str) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes, "graph", [helper.make_tensor_value_info("x", self.element, self.shape)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)], self.constants)
        domains = {node.domain for node in self.nodes if node.domain} | {"com.microsoft"}
        return helper.make_model(graph, ir_version=8, opset_imports=[
            helper.make_opsetid("", self.opset), *(helper.make_opsetid(domain, 1)
                                                   for domain in sorted(domains))])

    def save(self, output: str, path: Path) -> Path:
        path.write_bytes(self.model(output).SerializeToString())
        return path


def by_onnxruntime(model: onnx.ModelProto, inputs: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return np.concatenate([session.run(None, {"x": inputs[k:k + 1]})[0]
                           for k in range(len(inputs))])


def by_qonnx(model: onnx.ModelProto, inputs: np.ndarray) -> np.ndarray:
    wrapper = cleanup_model(ModelWrapper(model))
    name = wrapper.graph.input[0].name
    return np.concatenate([next(iter(execute_onnx(wrapper, {name: inputs[k:k + 1]}).values()))
                           for k in range(len(inputs))])
