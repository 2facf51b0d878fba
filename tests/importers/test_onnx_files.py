"""ONNX files with every kind of fault: one line that names it, soon, and without much memory."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from commands import child
from conftest import Cli
from onnx import TensorProto, helper
from onnx_graphs import QONNX, Net
from shared import MODELS, needs_models

import n2uq_hw as n2
from n2uq_hw.errors import N2uqError
from n2uq_hw.importers.onnx import Format, Unsupported, import_onnx, lowered

M = np.arange(100, dtype=np.float32).reshape(20, 5) - 50
SIGNED = Format(bits=4, signed=True)


def small(change: Callable[[onnx.ModelProto], Any] | None = None) -> onnx.ModelProto:
    """x → Quant → MatMul by quantized weights → y, and what `change` makes of it."""
    net = Net("N", 20)
    y = net.op("MatMul", net.quant("x", 0.5, 4), net.quant(M, 10.0, 4))
    model = net.model(y)
    if change is not None:
        change(model)
    return model


def saved(model: onnx.ModelProto, tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def constant(model: onnx.ModelProto, name: str, value: Any) -> None:
    for tensor in model.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(value, np.float32), name))


def external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[3]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def claim(model: onnx.ModelProto, *dims: int) -> None:
    del model.graph.initializer[3].dims[:]
    model.graph.initializer[3].dims.extend(dims)


def loop(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = model.graph.node[2].output[0]
    model.graph.node[0].input.append("x")


def shape(*sizes: Any) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, sizes))
    return change


def node(place: int, **fields: Any) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        for key, value in fields.items():
            setattr(model.graph.node[place], key, value)
    return change


def control_flow(model: onnx.ModelProto) -> None:
    body = helper.make_graph([], "body", [], [])
    model.graph.node[0].CopyFrom(helper.make_node(
        "If", ["x"], list(model.graph.node[0].output), "If_0", then_branch=body, else_branch=body))


FAULTS: dict[str, tuple[Callable[[onnx.ModelProto], Any], str]] = {
    "no opset": (lambda m: m.opset_import[0].CopyFrom(helper.make_opsetid("", 99)),
                 "opset must be in 1..2"),
    "no opset of QONNX": (lambda m: m.opset_import.append(helper.make_opsetid(QONNX, 99)),
                          "opset of qonnx.custom_op.general must be in 1..2, not 99"),
    "domain": (node(2, domain="some.vendor"), "MatMul MatMul_2 must be of a known domain, not"),
    "operator": (node(2, op_type="Einsum"), "Einsum MatMul_2 has no integer form"),
    "cycle": (loop, "must hold no cycle, not one through Quant Quant_0"),
    "missing initializer": (lambda m: m.graph.initializer.pop(3), "c3, which Quant Quant_1 reads, "
                            "must be an input, an initializer or the output of a node"),
    "written twice": (lambda m: m.graph.node.append(m.graph.node[2]), "t2_0 must be written once"),
    "external data": (external, "c3 must lie in the file, not in another"),
    "2^40 elements": (lambda m: claim(m, 2**20, 2**20), "c3 must have at most 67,108,864 elements, "
                      "not 1048576×1048576"),
    "more than it holds": (lambda m: claim(m, 5000, 5000), "c3 must hold its 25,000,000 elements"),
    "a size below 0": (lambda m: claim(m, -1, 100), "c3 must have at most"),
    "text": (lambda m: setattr(m.graph.initializer[3], "data_type", TensorProto.STRING),
             "c3 must be a tensor of numbers, not of type 8"),
    "an unknown type": (lambda m: setattr(m.graph.initializer[3], "data_type", 77),
                        "c3 must be a tensor of numbers, not of type 77"),
    "a huge input": (shape(1, 2**20, 2**20), "input x must have at most 67,108,864 elements"),
    "free sizes": (shape("N", "width"), "input x must have sizes of its own but for the batch"),
    "no shape": (lambda m: m.graph.input[0].type.tensor_type.ClearField("shape"),
                 "input x must have a shape of 2 to 5 sizes, not none"),
    "a text input": (lambda m: m.graph.input[0].CopyFrom(helper.make_tensor_value_info(
        "x", TensorProto.STRING, [1, 20])), "input x must be a tensor of numbers, not tensor_type"),
    "a sequence": (lambda m: m.graph.input[0].CopyFrom(helper.make_tensor_sequence_value_info(
        "x", TensorProto.FLOAT, [1, 20])), "input x must be a tensor of numbers, not sequence"),
    "two outputs": (lambda m: m.graph.output.append(helper.make_tensor_value_info(
        "t0_0", TensorProto.FLOAT, None)), "must have one output, not 2: t2_0, t0_0"),
    "two inputs": (lambda m: (m.graph.input.append(helper.make_tensor_value_info(
        "z", TensorProto.FLOAT, [1])), m.graph.node[1].input.__setitem__(1, "z")),
        "must have one input, not 2: x, z"),
    "no nodes": (lambda m: m.graph.ClearField("node"), "not a whole ONNX file"),
    "an output of no node": (lambda m: setattr(m.graph.output[0], "name", "none"),
                             "output none must be the output of a node"),
    "functions": (lambda m: m.functions.append(helper.make_function(
        "d", "f", [], [], [], [])), "must hold no functions, not f"),
    "NaN scale": (lambda m: constant(m, "c0", np.nan), "Quant_0 scale must be positive and finite"),
    "zero scale": (lambda m: constant(m, "c4", 0), "Quant Quant_1 scale must be positive and "
                   "finite, not 0.0"),
    "infinite scale": (lambda m: constant(m, "c0", np.inf), "scale must be positive and finite"),
    "33 bits": (lambda m: constant(m, "c2", 33), "Quant Quant_0 bit width must be a whole "
                "number in 1..32, not 33"),
    "1.5 bits": (lambda m: constant(m, "c2", 1.5), "bit width must be a whole number in 1..32"),
    "NaN zero point": (lambda m: constant(m, "c1", np.nan), "zero point must be finite"),
    "NaN weights": (lambda m: constant(m, "c3", np.full((20, 5), np.nan)), "a constant must be "
                    "finite, not NaN or infinite"),
    "a scale of another shape": (lambda m: constant(m, "c0", np.ones(7)), "a constant must be of "
                                 "sizes [1, 20] or 1, not [1, 7]"),
    "weights of another shape": (lambda m: constant(m, "c3", np.ones((3, 5))), "weights must be a "
                                 "matrix of 20 rows, not [3, 5]"),
    "too few inputs": (lambda m: m.graph.node[0].input.pop(), "must have 4 to 4 inputs, not 3"),
    "an attribute of another type": (lambda m: m.graph.node[0].attribute[2].CopyFrom(
        helper.make_attribute("signed", "yes")), "signed must be of type int, not str"),
    "a rounding": (lambda m: m.graph.node[0].attribute[1].CopyFrom(helper.make_attribute(
        "rounding_mode", "SIDEWAYS")), "rounding_mode must be one of ROUND, "),
    "two initializers of one name": (lambda m: m.graph.initializer.append(m.graph.initializer[0]),
                                     "c0 must be written once, not by two initializers"),
    "two inputs of one name": (lambda m: m.graph.input.append(m.graph.input[0]),
                               "must have one input, not 2: x, x"),
    "an input without elements": (shape(1, 0), "input x must have sizes of its own"),
    "nine axes": (shape(*[1] * 9), "input x must have a shape of 2 to 5 sizes, not 9"),
    "a negative opset": (lambda m: m.opset_import[0].CopyFrom(helper.make_opsetid("", -5)),
                         "opset must be in 1..2"),
    "2^62 times 4 elements": (lambda m: claim(m, 2**62, 4), "c3 must have at most 67,108,864 elem"),
    "a path out of its folder": (lambda m: m.graph.initializer[3].external_data.add(
        key="location", value="../../etc/passwd"), "c3 must lie in the file, not in another"),
    "sparse weights": (lambda m: m.graph.sparse_initializer.append(helper.make_sparse_tensor(
        helper.make_tensor("held", 1, [1], [1.0]), helper.make_tensor("at", 7, [1], [0]), [20])),
        "held must be dense, not sparse"),
    "names that are no text": (lambda m: m.graph.node[0].ParseFromString(
        m.graph.node[0].SerializeToString().replace(b"Quant_0", b"Quan\xff_0")),
        "names must be UTF-8 text"),
    "control flow": (control_flow, "If If_0 is control flow, which has no integer form"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faulty_files(name: str, tmp_path: Path) -> None:
    change, message = FAULTS[name]
    path, start = saved(small(change), tmp_path), time.process_time()
    with pytest.raises(N2uqError) as caught:
        import_onnx(path)
    assert time.process_time() - start < 1
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_faulty_files_take_no_memory(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, (change, _) in FAULTS.items():
        with pytest.raises(N2uqError):
            import_onnx(saved(small(change), tmp_path))
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18, name  # of KiB


@pytest.mark.parametrize("name", ["cycle", "zero scale"])  # refused as it is read, and after
def test_the_command_refuses_soon(name: str, tmp_path: Path) -> None:
    change, message = FAULTS[name]
    saved(small(change), tmp_path)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert message in child(tmp_path, "import", "net.onnx", "--out", "never", code=2).stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


def test_reading_loads_no_more_than_it_needs() -> None:
    code = "import sys, n2uq_hw.importers.onnx.reading; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                            check=True).stdout.split()
    assert not {"n2uq_hw.model", "n2uq_hw.api", "rich", "torch", "amaranth"} & {*loaded}


def test_the_file_without_a_fault(tmp_path: Path) -> None:
    assert import_onnx(saved(small(), tmp_path)).net.input.min == -8


def test_bytes_that_are_none(tmp_path: Path) -> None:
    whole = small().SerializeToString()
    path = tmp_path / "net.onnx"
    for content in (b"", b"\0", b"\xff" * 100, whole[:-1], whole[:len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(N2uqError, match=r"not a whole ONNX file|must (hold|be|have)"):
            import_onnx(path)
    with pytest.raises(N2uqError, match="no such file"):
        import_onnx(tmp_path / "none.onnx")


def test_a_file_of_a_gigabyte(tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(N2uqError, match="must be at most 268,435,456 bytes, not 1,073,741,824"):
        import_onnx(path)


def test_damaged_files_are_nets_or_one_line(tmp_path: Path) -> None:
    whole, rng, path = small().SerializeToString(), np.random.default_rng(0), tmp_path / "net.onnx"
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), rng.integers(1, 6)):
            damaged[place] = rng.integers(256)
        path.write_bytes(bytes(damaged))
        try:
            import_onnx(path, SIGNED)
        except N2uqError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ")
    assert refused > 25


def test_constants_that_would_fill_the_memory(tmp_path: Path) -> None:
    net = Net(1, 20)
    total = net.op("ConstantOfShape", net.const([2**22], np.int64))
    for _ in range(40):
        total = net.op("Add", total, 1.0)
    path = net.save(net.op("Mul", "x", total), tmp_path / "net.onnx")
    start = time.process_time()
    with pytest.raises(N2uqError, match="constants of the graph must not grow beyond what"):
        import_onnx(path, SIGNED)
    assert time.process_time() - start < 1


def test_many_nodes_of_one_name(tmp_path: Path) -> None:
    net, y = Net(1, 20), "x"
    for _ in range(1000):
        y = net.op("Mul", y, 1.5)
        net.nodes[-1].name = "same"
    start = time.process_time()
    assert len(import_onnx(net.save(y, tmp_path / "net.onnx"), SIGNED).net.layers) == 1000
    assert time.process_time() - start < 5
    y = net.op("Mul", y, np.ones((20, 1)))
    for _ in range(2**15):
        net.nodes.append(net.nodes[-1])
    with pytest.raises(N2uqError, match="must have at most 32,768 nodes, not 33,769"):
        import_onnx(net.save(y, tmp_path / "net.onnx"))


@pytest.mark.parametrize("build,message", [
    (lambda n: n.op("Expand", n.op("Mul", "x", 2.0), n.const([2**20, 2**20], np.int64)),
     "Expand Expand_1 has no integer form"),
    (lambda n: n.op("Mul", "x", n.op("ConstantOfShape", n.const([2**20, 2**20], np.int64))),
     "constants must have at most 4,194,304 elements, not 1,099,511,627,776"),
    (lambda n: n.op("Mul", "x", n.op("Add", np.ones((2**14, 1)), np.ones((1, 2**14)))),
     "constants must have at most 4,194,304 elements, not 268,435,456"),
    (lambda n: n.op("MatMul", "x", n.op("MatMul", np.ones((20, 1)), np.ones((1, 2**20)))),
     "constants must have at most"),
    (lambda n: n.op("Reshape", "x", n.const([3, 7], np.int64)), "shape must have the 20 elements"),
    (lambda n: n.op("MatMul", "x", n.op("Mul", "x", 2.0)), "must multiply an activation by "),
    (lambda n: n.op("Mul", "x", n.op("Tanh", "x")), "must not multiply two activations: only"),
    (lambda n: n.op("Div", "x", n.op("Exp", "x")), "must not divide two activations: only their"),
    (lambda n: n.op("Max", "x", n.op("Tanh", "x")), "must not join two activations: only their s"),
    (lambda n: n.op("Relu", n.op("Pad", n.op("Reshape", "x", n.const([1, 1, 4, 5], np.int64)),
                                 n.const([0, 0, 1, 1] * 2, np.int64), -np.inf)),
     "must pad with a finite constant, but for a MaxPool, not with -inf"),
    (lambda n: n.op("ConvTranspose", n.op("Reshape", "x", n.const([1, 1, 4, 5], np.int64)),
                    np.ones((1, 2, 1, 1)), pads=[2] * 4), "must not cut off all pixels: pads (2, "),
    (lambda n: n.op("LSTM", "x", M, M), "LSTM LSTM_0 has no integer form"),
    (lambda n: n.op("MatMul", n.op("Softmax", "x"), M), "must be at the end of the network"),
    (lambda n: n.op("TopK", "x", n.const([3], np.int64), outputs=2)[1], "must take the one larg"),
    (lambda n: n.op("Div", "x", np.zeros(20)), "must not divide by 0"),
    (lambda n: n.op("Add", "x", np.ones((3, 1))), "a constant must be of sizes [1, 20] or 1"),
    (lambda n: n.op("Conv", "x", np.ones((1, 1, 3, 3))), "must read an image [N, C, H, W]"),
    (lambda n: n.op("Gather", "x", n.const([20], np.int64), axis=1), "channels must be in 0..19"),
    (lambda n: n.op("Gather", "x", n.const([0], np.int64), axis=77), "axis must be in -2..1, not"),
    (lambda n: n.op("Concat", "x", "x", axis=-3), "axis must be in -2..1, not -3"),
    (lambda n: n.op("Unsqueeze", "x", n.const([1, 1], np.int64)), "axes must be different ones in"),
    (lambda n: n.op("MatMul", n.op("Cast", "x", to=8), M), "must make numbers, not type 8"),
    (lambda n: n.op("MatMul", n.op("Cast", n.op("Mul", "x", 0.3), to=999), M), "not type 999"),
    (lambda n: n.op("Scan", "x", body=helper.make_graph([], "b", [], [])), "is control flow"),
    (lambda n: n.op("Loop", "", "", "x", body=helper.make_graph([], "b", [], [])), "is control"),
    (lambda n: n.op("Add", "x", n.op("Range", n.const(0, np.int64), n.const(2**40, np.int64),
                                     n.const(1, np.int64))), "Range Range_0 has no integer form"),
    (lambda n: n.op("BatchNormalization", "x", *[np.ones(20)] * 3, -np.ones(20)),
     "variance must be positive and finite"),
    (lambda n: n.op("MultiThreshold", "x", np.full((1, 3), np.nan), domain=QONNX),
     "thresholds must be numbers, not NaN"),
    (lambda n: n.op("MultiThreshold", "x", np.zeros((1, 2**16)), domain=QONNX),
     "thresholds must be 1 to 65,535 per channel, not 65,536"),
    (lambda n: n.op("BitwiseAnd", n.op("Round", "x"), n.const(5, np.int64)),
     "must mask by minus a power of two, not by 5"),
    (lambda n: n.op("BitwiseAnd", n.op("Mul", "x", 0.3), n.const(-4, np.int64)),
     "must mask whole numbers"),
    (lambda n: n.op("Mul", "x", n.const(2**53 + 1, np.int64)), "a whole constant must be below 2"),
    (lambda n: n.op("Quant", "x", n.const(1e-320, np.float64), 0.0, 4.0, domain=QONNX),
     "scale must be at least 2.23e-308"),
])
def test_graphs_without_a_form(build: Callable[[Net], str], message: str, tmp_path: Path) -> None:
    net = Net(1, 20)
    start = time.process_time()
    with pytest.raises(N2uqError) as caught:
        import_onnx(net.save(build(net), tmp_path / "net.onnx"), SIGNED)
    assert message in str(caught.value) and time.process_time() - start < 1


def test_what_is_odd_is_said(tmp_path: Path) -> None:
    net = Net(1, 20)
    x = net.quant("x", 1e-40, 4)
    result = import_onnx(net.save(net.op("MatMul", x, net.quant(M, 10.0, 4, signed=0)),
                                  tmp_path / "net.onnx"), SIGNED)
    assert "Quant_0: its scale 1e-40 is denormal in float32" in result.notes
    assert "Quant_1: is unsigned, and takes 50 of 100 weights that are below 0 to 0 or more" in (
        result.notes)


def test_layers_that_give_one_value_are_named(tmp_path: Path) -> None:
    net = Net(1, 20)
    y = net.op("MatMul", net.quant("x", 1.0, 4), net.quant(M, 10.0, 4))  # -8..7 times -50..40
    alive = net.quant(net.op("Add", y, 4000.0), 1000.0, 3, signed=0)
    dead = net.quant(net.op("Relu", net.op("Sub", alive, 7001.0)), 1.0, 3, signed=0)
    loaded = import_onnx(net.save(dead, tmp_path / "net.onnx"))
    assert [note for note in loaded.notes if "every image" in note] == [
        "Quant_7: gives 0 for every image"]
    loaded = import_onnx(net.save(alive, tmp_path / "net.onnx"))
    assert not [note for note in loaded.notes if "every image" in note]


def test_reals_without_a_quantizer_need_a_format(tmp_path: Path) -> None:
    net = Net(1, 20)
    path = net.save(net.op("MatMul", "x", net.quant(M, 10.0, 4)), tmp_path / "net.onnx")
    with pytest.raises(N2uqError, match="input x must have a quantizer or a format: give --inp"):
        import_onnx(path)
    per_channel = net.save(net.op("MatMul", net.quant("x", np.arange(1, 21), 4), M),
                           tmp_path / "channels.onnx")
    with pytest.raises(N2uqError, match=r"or a format \(Quant_\d has scales per channel\): give"):
        import_onnx(per_channel)
    spec = n2.import_onnx(path, input_scale=0.25, input_bits=3).net.input
    assert (spec.min, spec.max, spec.scale) == (0, 7, 0.25)
    for wrong in (dict(scale=0.0), dict(scale=np.nan), dict(bits=0), dict(bits=17)):
        with pytest.raises(N2uqError, match=r"--input-(scale|bits) must be"):
            Format(**wrong)


def test_all_nodes_without_a_form_at_once(run: Cli, tmp_path: Path) -> None:
    net = Net(1, 20)
    y = net.op("MatMul", net.op("Einsum", net.quant("x", 0.5, 4)), net.quant(M, 10.0, 4))
    path = net.save(net.op("LRN", y), tmp_path / "net.onnx")
    with pytest.raises(Unsupported) as caught:
        import_onnx(path)
    assert {row.node: row.why for row in caught.value.rows} == {
        "Quant_0": "", "Einsum_1": "has no integer form", "Quant_2": "",
        "MatMul_3": "reads t1_0, which has no form", "LRN_4": "reads t3_0, which has no form"}
    code, printed, error = run("import", path, "--explain")
    assert code == 2 and "UNSUPPORTED: has no integer form" in printed
    assert error == f"error: {path}: Einsum Einsum_1 has no integer form\n"
    code, printed, _ = run("import", path, "--explain", "--json")
    assert code == 2 and "Einsum" in {row["op"] for row in json.loads(printed)["nodes"]}


def test_what_lowering_has_no_form_for_is_refused_by_the_import(run: Cli, tmp_path: Path) -> None:
    """Pixels less their mean, padded with a 0 that no pixel is, without a quantizer between."""
    net = Net(1, 1, 4, 4)
    x = net.op("Conv", net.op("Sub", "x", 123.675), net.quant(np.ones((2, 1, 3, 3)), 1.0, 3),
               pads=[1] * 4)
    path = net.save(net.quant(net.op("Relu", x), 1.5, 4), tmp_path / "net.onnx")
    why = "pads with 0, which must be a level of input or lie midway between two, not at 123.675"
    code, printed, error = run("import", path, "--input-bits", "8", "--out", "never", "--explain")
    assert (code, error) == (2, f"error: {path}: Conv Conv_2 {why}\n")
    assert f"Conv_2   Conv      UNSUPPORTED: {why}\n" in printed and "Relu_3   Relu" in printed
    assert not (tmp_path / "never").exists()


def test_what_lowering_says_without_a_name_is_of_its_node(tmp_path: Path) -> None:
    net = Net(1, 20)
    y = net.op("Tanh", net.op("MatMul", net.quant("x", 0.5, 4), net.quant(M, 10.0, 4)))
    loaded = import_onnx(net.save(net.op("Add", y, net.op("Relu", y)), tmp_path / "net.onnx"))
    with pytest.raises(Unsupported, match="Tanh_3 must be followed by a quantizer") as caught:
        lowered(loaded)
    assert [row.node for row in caught.value.rows if row.why] == ["Add_5"]


# --- The command line -----------------------------------------------------------------------------


def test_import_command_with_a_check(run: Cli, tmp_path: Path) -> None:
    path, out, npz = saved(small(), tmp_path), tmp_path / "out.safetensors", tmp_path / "c.npz"
    x = np.random.default_rng(0).integers(-8, 8, (6, 20)) * 0.5
    weights = np.clip(np.rint(M / 10), -8, 7) * 10.0
    np.savez(npz, inputs=x.astype(np.float32), outputs=x @ weights)
    code, printed, error = run("import", path, "--out", out, "--check", npz, "--json")
    result = json.loads(printed)
    assert code == 0 and result["rows"] == 6 and result["worst_error"] < 1e-12
    assert result["same_class"] == 1 and result["exact"] is True
    assert result["input"] == {"shape": [20, 1, 1], "min": -8, "max": 7, "scale": 0.5}
    assert "the net reads the integers of Quant_0, -8..7 times 0.5" in error
    assert n2.load(out).forward(np.zeros((1, 20, 1, 1), int)).shape == (1, 5)
    assert n2.load(path).layers == n2.load(out).layers
    np.savez(npz, inputs=x.astype(np.float32), outputs=x @ weights + 1)
    code, printed, _ = run("import", path, "--check", npz, "--explain")
    assert code == 0 and "MatMul_2  MatMul    Flatten Quant_0_flat, IntLinear" in printed
    assert "6 rows" in printed


@pytest.mark.parametrize("arrays,message", [
    ({"inputs": np.ones((2, 20))}, "must hold inputs and outputs"),
    ({"inputs": np.ones((2, 20)), "outputs": np.ones((3, 5))}, "as many outputs as inputs, not 3"),
    ({"inputs": np.ones((2, 19)), "outputs": np.ones((2, 5))}, "inputs must be numbers [N, 20]"),
    ({"inputs": np.ones((2, 20)), "outputs": np.ones((2, 4))}, "outputs must be [2, 5] as those o"),
    ({"inputs": np.full((2, 20), np.nan), "outputs": np.ones((2, 5))}, "must be finite numbers"),
])
def test_faulty_checks(run: Cli, arrays: dict[str, np.ndarray], message: str, tmp_path: Path
                       ) -> None:
    path, npz = saved(small(), tmp_path), tmp_path / "c.npz"
    np.savez(npz, **arrays)
    out = tmp_path / "out.safetensors"
    code, _, error = run("import", path, "--check", npz, "--out", out)
    assert code == 2 and message in error and not out.exists()


@pytest.mark.parametrize("options,message", [
    ([], "one of --out, --check and --explain must be given"),
    (["--out", "n", "--arch", "resnet18"], "--arch is for checkpoints"),
    (["--out", "n", "--input-bits", "17"], "--input-bits must be in 1..16"),
    (["--out", "n", "--input-scale", "-1"], "--input-scale must be positive and finite, not -1.0"),
])
def test_faulty_options(run: Cli, options: list[str], message: str, tmp_path: Path) -> None:
    code, _, error = run("import", saved(small(), tmp_path), *options)
    assert code == 2 and error.startswith(f"error: {message}")


@needs_models
@pytest.mark.parametrize("name", ["zoo_tfc_w1a1", "finn_tfc_w1a1_topk", "maupiti_cnn_int8",
                                  "ort_cnn_qoperator_int8"])
def test_golden_of_files_by_the_command(run: Cli, name: str) -> None:
    code, printed, _ = run("import", MODELS / f"{name}.onnx", "--check", MODELS / f"{name}.npz",
                           "--json")
    result = json.loads(printed)
    assert code == 0 and result["exact"] and result["same_class"] == 1 and result["rows"] == 8


