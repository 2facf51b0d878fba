"""Faults on the command line: one line, exit code 2, and nothing left behind."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import fault, names
from conftest import Cli
from safetensors.numpy import save

from n2uq_hw import tools
from n2uq_hw.builds import accuracy, emit
from n2uq_hw.model import Net

IMAGES = np.zeros((3, 2, 5, 5), np.uint8)
ARRAYS: dict[str, dict[str, np.ndarray]] = {
    "ok": {"images": IMAGES}, "shape": {"images": IMAGES[:, :1]}, "flat": {"images": IMAGES[0]},
    "none": {"images": IMAGES[:0]}, "scalar": {"images": np.uint8(3)},
    "float": {"images": IMAGES / 2}, "bool": {"images": IMAGES > 0},
    "range": {"images": IMAGES + 16},
    "negative": {"images": IMAGES.astype(np.int8) - 1}, "other": {"pictures": IMAGES},
    "labels": {"images": IMAGES, "labels": np.arange(2)},
    "halves": {"images": IMAGES, "labels": np.arange(3) / 2}}
FOLDINGS = {"pe": "conv1: {pe: 3}", "simd": "conv1: {simd: 5}", "broken": "conv1: {pe: ",
            "list": "[1]", "unit": "convx: {pe: 1}", "word": "conv1: {pe: many}",
            "form": "conv1: {form: round}"}


@pytest.fixture
def inputs(tmp_path: Path, net: Net) -> None:
    """Good and bad files of every kind, by the names that the cases below use."""
    net.save(tmp_path / "net.safetensors")
    whole = (tmp_path / "net.safetensors").read_bytes()
    (tmp_path / "short.safetensors").write_bytes(whole[:-9])
    (tmp_path / "file").write_text("x")
    (tmp_path / "busy").mkdir()
    (tmp_path / "busy" / "precious").write_text("x")
    for name, arrays in ARRAYS.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
    (tmp_path / "short.npz").write_bytes((tmp_path / "ok.npz").read_bytes()[:99])
    for name, text in FOLDINGS.items():
        (tmp_path / f"{name}.yaml").write_text(text)


BUILD = "build net.safetensors --out o"


@pytest.mark.parametrize("arguments,message", [
    ("bogus", "No such command 'bogus'"), ("--bogus", "No such option: --bogus"),
    ("verify", "Missing argument 'DIR'"), ("nets extra", "unexpected extra argument(s) (extra)"),
    ("build net.safetensors", "Missing option '--out'"),
    ("lower nowhere", "net must be a file or one of digits_cnn_w2a2, "),
    ("lower no.safetensors", "no.safetensors: no such file"),
    ("lower short.safetensors", "short.safetensors: not a whole safetensors file"),
    (f"lower {'x' * 300}", "File name too long"),
    ("lower \x1b[31mred", r"not \x1b[31mred"), ("lower größe", "not größe"),
    ("lower net.safetensors --data shape.npz", "[N, 2, 5, 5], not [3, 1, 5, 5]"),
    ("lower net.safetensors --data float.npz", "must be integers, not float64"),
    ("lower net.safetensors --data bool.npz", "must be integers, not bool"),
    ("lower net.safetensors --data range.npz", "must lie in 0..15, not 16..16"),
    ("lower net.safetensors --data negative.npz", "must lie in 0..15, not -1..-1"),
    ("lower net.safetensors --data none.npz", "N at least 1, not [0, 2, 5, 5]"),
    ("lower net.safetensors --data labels.npz", "labels must be 3 integers, not int64 [2]"),
    ("lower net.safetensors --data halves.npz",
     "labels of small must be floats [N, 5], not float64 [3]"),
    ("lower net.safetensors --data no.npz", "no.npz: no such file or folder"),
    ("lower mnist_mlp_w2a2 --data busy", "busy/t10k-images-idx3-ubyte: no such file"),
    ("lower net.safetensors --out file/g", "file/g: cannot be written: Not a directory"),
    ("lower net.safetensors --out busy", "busy: cannot be written: Is a directory"),
    (f"lower net.safetensors --out {'x' * 300}", "cannot be written: File name too long"),
    (f"{BUILD} --data flat.npz", "flat.npz: images must be [N, C, H, W]"),
    (f"{BUILD} --data scalar.npz", "N at least 1, not []"),
    (f"{BUILD} --data other.npz", "other.npz: must hold an array named images"),
    (f"{BUILD} --data short.npz", "short.npz: must be a whole .npz file"),
    (f"{BUILD} --folding pe.yaml", "conv1: PE must divide the 4 output channels, not 3"),
    (f"{BUILD} --folding simd.yaml", "conv1: SIMD must divide the 18 inputs, not 5"),
    (f"{BUILD} --folding broken.yaml", "broken.yaml: not YAML: "),
    (f"{BUILD} --folding list.yaml", "list.yaml: must map layer names to foldings, not list"),
    (f"{BUILD} --folding unit.yaml", "unit.yaml: convx must be a unit of small: input, "),
    (f"{BUILD} --folding word.yaml", "word.yaml: conv1.pe must be int, not 'many'"),
    (f"{BUILD} --folding form.yaml", "conv1.form must be one of planes, "),
    (f"{BUILD} --folding no.yaml", "no.yaml: no such file"),
    (f"{BUILD} --folding pe.yaml --cycles 9", "cycles 9 and folding pe.yaml exclude each other"),
    (f"{BUILD} --unroll 2 --cycles 9", "cycles 9 and unroll 2 exclude each other"),
    (f"{BUILD} --unroll 0", "--unroll must be in 1..1,000, not 0"),
    (f"{BUILD} --unroll 2 --lut 5", "conv1: lut must be one of 4, 6, not 5"),
    (f"{BUILD} --lut 4", "lut must come with unroll, and is given without: 4"),
    (f"{BUILD} --cycles 0", "--cycles must be in 1..1,000,000,000,000, not 0"),
    (f"{BUILD} --cycles 1", "1 cannot be reached"),
    (f"{BUILD} --cycles x", "'--cycles': Input should be a valid integer"),
    ("build net.safetensors --out file", "file: must be new, empty or an earlier build"),
    ("build net.safetensors --out file/o", "file: must be a folder, to hold file/o, and is a file"),
    ("build net.safetensors --out busy", "busy: must be new, empty or an earlier build"),
    ("verify busy", "busy: must be a build directory, but has no manifest.json"),
    ("cost no", "no: must be a build directory, but has no manifest.json"),
    ("demo --out file", "file: must be a folder, to hold file/digits_cnn_w2a2"),
    ("train digits rnn --out t.safetensors", "must be one of mlp, cnn, resnet8, resnet18, "),
    ("train digits --out t.safetensors", "as an argument or with --arch, not never"),
    ("train digits mlp --arch cnn --out t.safetensors", "not twice: mlp, cnn"),
    ("train digits --arch rnn --out t.safetensors", "must be one of mlp, cnn, resnet8, resnet18, "),
    ("train cifar mlp --out t.safetensors", "dataset must be one of digits, mnist, not 'cifar'"),
    ("train mnist mlp --out t.safetensors --data busy", "busy/train-images-idx3-ubyte: no such"),
    ("train digits mlp --out t.safetensors --widths x", "widths must be whole numbers"),
    ("train digits mlp --out t.safetensors --widths 99999", "widths must be at most 4096"),
    ("train digits mlp --out t.safetensors --weight-bits 9", "less than or equal to 8, not '9'"),
    ("train digits mlp --out t.safetensors --lr nan", "lr must be above 0 and at most 1, not n"),
    ("train digits mlp --out t.safetensors --seed -1", "seed must be in 0.."),
    ("train digits mlp --out no/t.safetensors", "no/t.safetensors: must be a file in a folder"),
    ("train digits mlp --out \tnet.safetensors", r"net name must be text that prints, not '\tnet'"),
    ("train digits mlp --out /proc/t.safetensors", "/proc/t.safetensors: cannot be written"),
])
@pytest.mark.usefixtures("inputs")
def test_bad_input_is_one_line_and_leaves_nothing(run: Cli, tmp_path: Path, arguments: str,
                                                  message: str) -> None:
    if arguments.startswith("train"):
        pytest.importorskip("torch")
    before = names(tmp_path)
    assert message in fault(run(*arguments.split(" ")))
    assert names(tmp_path) == before


@pytest.mark.parametrize("arguments,message", [
    ("--images 0", "images must be 1 to the 8 at hand, not 0"),
    ("--images -1", "images must be 1 to the 8 at hand, not -1"),
    ("--images 9", "images must be 1 to the 8 at hand, not 9 (--data names more)"),
    ("--images 99999999999999999999", "not 99999999999999999999"),
    ("--stalls nan", "stalls must be a probability in 0..0.95, not nan"),
    ("--stalls 0.96", "stalls must be a probability in 0..0.95, not 0.96"),
    ("--stalls -0.1", "stalls must be a probability in 0..0.95, not -0.1"),
    ("--seed -1", "'--seed': Input should be greater than or equal to 0, not '-1'"),
    ("--seed=4294967296", "should be less than or equal to 4294967295, not '4294967296'"),
    ("--simulator vcs", "simulator: must be verilator or icarus, not vcs")])
def test_bad_options_of_sim(run: Cli, built: Path, arguments: str, message: str) -> None:
    before = names(built)
    assert message in fault(run("verify", built, *arguments.split()))
    assert names(built) == before


@pytest.mark.parametrize("arguments,message", [
    ("--family xc8", "family: must be one of xcup, xc7, ecp5, ice40, not xc8"),
    ("--pnr", "family: place and route needs one of ecp5, ice40, not xcup"),
    ("--pnr --family ecp5", "nextpnr-ecp5: needed for place and route, and not installed"),
    ("--seed -1", "'--seed': Input should be greater than or equal to 0, not '-1'")])
def test_bad_options_of_cost(run: Cli, built: Path, monkeypatch: pytest.MonkeyPatch,
                             arguments: str, message: str) -> None:
    find = tools.importlib.util.find_spec
    monkeypatch.setattr(tools.importlib.util, "find_spec",
                        lambda name: None if "nextpnr" in name else find(name))
    before = names(built)
    assert message in fault(run("cost", built, *arguments.split()))
    assert names(built) == before


@pytest.mark.parametrize("key,value,message", [
    ("conv1.weight", np.nan, "conv1.weight must be finite, not nan"),
    ("bn1.bias", np.inf, "bn1.bias must be finite, not inf"),
    ("conv1.weight", 0, "conv1.weight must not hold an all-zero filter"),
    ("conv1.clip_val", 0, "conv1.clip_val must be positive, not 0.0")])
def test_bad_parameters(run: Cli, net: Net, tmp_path: Path, key: str, value: float, message: str
                        ) -> None:
    bad = replace(net)
    object.__setattr__(bad, "params", {**net.params, key: np.full_like(net.params[key], value)})
    bad.save(tmp_path / "bad.safetensors")
    assert message in fault(run("build", "bad.safetensors", "--out", "o"))


@pytest.mark.parametrize("name,value,message", [
    ("\a", 2, r"net name must be text that prints, not '\x07'"),
    ("small", 9, "bits of conv1 must be in 1..8, not 9")])
def test_bad_description(run: Cli, net: Net, tmp_path: Path, name: str, value: int, message: str
                         ) -> None:
    bad = replace(net)
    object.__setattr__(bad, "name", name)
    object.__setattr__(bad, "layers", (replace(net.layers[0], bits=value), *net.layers[1:]))
    bad.save(tmp_path / "bad.safetensors")
    assert message in fault(run("lower", "bad.safetensors"))


@pytest.mark.parametrize("name,content,message", [
    ("manifest.json", "{}", "not a whole build directory: 'sha256'"),
    ("manifest.json", "[" * 100_000, "not a whole build directory: maximum recursion"),
    ("graph.safetensors", "x", "graph.safetensors: not a whole safetensors file"),
    ("folding.yaml", "conv1: {pe: 2, simd: 2}", "folding.yaml: must be what the Verilog was built"),
    ("vectors.safetensors", None, "but has no vectors.safetensors"),
    ("rtl/small.v", None, "but has no rtl/small.v")])
@pytest.mark.parametrize("command", ["verify", "cost"])
def test_damaged_builds(run: Cli, built: Path, tmp_path: Path, command: str, name: str,
                        content: str | None, message: str) -> None:
    shutil.copytree(built, tmp_path / "c")
    (tmp_path / "c" / name).unlink()
    if content is not None:
        (tmp_path / "c" / name).write_text(content)
    assert message in fault(run(command, "c"))


@pytest.mark.parametrize("change,message", [
    ({"images": IMAGES[0]}, "images must be [N, C, H, W] with N at least 1, not [2, 5, 5]"),
    ({"labels": np.arange(3)}, "labels must be 8 integers, not int64 [3]"),
    ({"images": None}, "must hold an array named images")])
def test_damaged_vectors(run: Cli, built: Path, tmp_path: Path, change: dict, message: str
                         ) -> None:
    shutil.copytree(built, tmp_path / "c")
    path = tmp_path / "c" / "vectors.safetensors"
    arrays = {key: value for key, value in (emit.load_build(built).vectors | change).items()
              if value is not None}
    path.unlink()
    path.write_bytes(save(arrays))
    assert f"vectors.safetensors: {message}" in fault(run("verify", "c"))


def test_training_without_torch(run: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "n2uq_hw.train.fit", raising=False)
    assert fault(run("train", "digits", "mlp", "--out", "t.safetensors")) == \
        "torch: needed for training, and not installed (pip install 'n2uq-hw[train]')"


@pytest.mark.parametrize("error,message", [
    (PermissionError(13, "Permission denied", "there"), "there: Permission denied"),
    (MemoryError(), "memory: needed more than there is")])
def test_what_no_module_foresees(run: Cli, monkeypatch: pytest.MonkeyPatch, error: Exception,
                                 message: str) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(accuracy, "shipped_table", fail)
    assert fault(run("nets")) == message
