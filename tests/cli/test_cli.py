"""The command line: processes and signals, what it prints, JSON."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
import typer
from adverse import adverse
from commands import COMMAND, child, fault, names, strict
from conftest import Cli, random_net
from marks import few
from processes import left, marked

from n2uq_hw import __version__, cli, model, nets
from n2uq_hw.builds import emit, verify
from n2uq_hw.model import InputSpec, Net, Pointwise, Quant, architectures

ICARUS = pytest.mark.skipif(shutil.which("iverilog") is None or shutil.which("vvp") is None,
                            reason="Icarus Verilog is not installed")


@pytest.fixture(scope="module")
def simulated(net: Net, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the net in `small.safetensors`, and its build in `b`, already simulated."""
    folder = tmp_path_factory.mktemp("cli")
    net.save(folder / "small.safetensors")
    child(folder, "build", "small.safetensors", "--out", "b")
    child(folder, "verify", "b")
    return folder


@pytest.mark.parametrize("missing,there", [("g++", ""), ("make", "g++"), ("perl", "g++ make")])
def test_missing_tools(simulated: Path, tmp_path: Path, missing: str, there: str) -> None:
    for name in there.split():
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    (tmp_path / "t").mkdir()
    done = child(simulated, "verify", "b", code=2, PATH=str(tmp_path), TMPDIR=str(tmp_path / "t"))
    assert done.stderr == f"error: {missing}: needed on PATH for simulation with Verilator, " \
        "and not found\n"
    assert not names(tmp_path / "t")


@pytest.mark.parametrize("script,message", [
    ("exit 0", "g++: must make a simulator, and made none without a fault"),
    ("[ $1 = --version ] || { echo x.cpp:1: error: out of luck >&2; exit 1; }",
     "g++: x.cpp:1: error: out of luck"), ("exit 1", "g++: no message")])
def test_a_compiler_that_fails(built: Path, tmp_path: Path, script: str, message: str) -> None:
    shutil.copytree(built, tmp_path / "b", ignore=lambda folder, _: {"simulation"})
    (tmp_path / "g++").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "g++").chmod(0o755)
    before = names(tmp_path)
    done = child(tmp_path, "verify", "b", code=2, XDG_CACHE_HOME=str(tmp_path / "none"),
                 PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert done.stderr == f"error: {message}\n"
    assert names(tmp_path) - before <= {"none", "none/n2uq-hw"} | {
        name for name in names(tmp_path) if "verilated" in name}


@pytest.mark.parametrize("script,message", [
    ("kill -SEGV $$", "simulation: must end by itself, was ended by SIGSEGV"),
    ("kill -KILL $$", "simulation: must end by itself, was ended by SIGKILL"),
    ("exit 0", "simulation: no message")])
def test_a_simulator_that_crashes(run: Cli, simulated: Path, tmp_path: Path, script: str,
                                  message: str) -> None:
    shutil.copytree(simulated / "b", tmp_path / "b")
    program, = (tmp_path / "b" / "simulation" / "verilator").iterdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    before = names(tmp_path)
    assert fault(run("verify", "b")) == message
    assert names(tmp_path) == before


@pytest.mark.parametrize("arguments,stage,number,times", few([
    ("build small.safetensors --out o", "*/in.il", signal.SIGINT, 1),
    ("verify b --simulator verilator", "*/Vtop.mk", signal.SIGINT, 2),
    ("verify b --simulator verilator", "*/Vtop.mk", signal.SIGTERM, 1),
    ("cost b", "*/small.v", signal.SIGINT, 1)], lambda each: each[2] == signal.SIGINT))
def test_a_signal_leaves_nothing(net: Net, built: Path, tmp_path: Path, arguments: str, stage: str,
                                 number: int, times: int) -> None:
    temporary, work = tmp_path / "t", tmp_path / "w"
    temporary.mkdir()
    shutil.copytree(built, work / "b", ignore=lambda *_: {"simulation", "synthesis"})
    net.save(work / "small.safetensors")
    before = names(work)
    mark = f"N2UQ_TEST={tmp_path}"
    key, value = mark.split("=")
    process = subprocess.Popen(
        [*COMMAND, *arguments.split()], cwd=work, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(temporary), "XDG_CACHE_HOME": str(tmp_path), key: value})
    while not list(temporary.glob(stage)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    for _ in range(times):
        process.send_signal(number)
        time.sleep(0.02)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (128 + number, "", "interrupted\n")
    assert names(work) == before and not names(temporary)
    assert not marked(mark)


@pytest.mark.parametrize("arguments,stage,tool", [
    ("verify b", "t/*/Vtop.mk", "cc1plus"), ("cost b", "t/*/small.v", "pyosys"),
    pytest.param("verify b --bulk --data i.npz --simulator icarus",
                 "b/simulation/icarus/run-*/*.log", "vvp", marks=ICARUS)])
def test_kill_9_ends_the_tools_too(built: Path, images: np.ndarray, tmp_path: Path, arguments: str,
                                   stage: str, tool: str) -> None:
    """Those of minutes: the compiler that make started, Yosys, the simulators side by side."""
    (tmp_path / "t").mkdir()
    shutil.copytree(built, tmp_path / "b", ignore=lambda *_: {"simulation", "synthesis"})
    np.savez(tmp_path / "i.npz", images=images.repeat(100, axis=0))
    mark = f"N2UQ_TEST={tmp_path}"
    process = subprocess.Popen(
        [*COMMAND, *arguments.split()], cwd=tmp_path, stdin=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(tmp_path / "t"), "XDG_CACHE_HOME": str(tmp_path),
             "N2UQ_TEST": str(tmp_path)})
    while not (list(tmp_path.glob(stage)) and any(tool in line for line in marked(mark))):
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not left(mark, 2.0)


def test_a_signal_in_a_destructor_is_not_lost(tmp_path: Path) -> None:
    code = ("import os, signal, sys, time; from n2uq_hw import cli; "
            "from n2uq_hw.builds import accuracy\n"
            "class Last:\n"
            "    def __del__(self): os.kill(os.getpid(), signal.SIGINT); time.sleep(0)\n"
            "def table():\n"
            "    last = Last(); del last\n"
            "    time.sleep(20)\n"
            "accuracy.shipped_table = table; sys.argv = ['n2uq-hw', 'nets']; cli.main()")
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True,
                          text=True)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
    assert time.monotonic() - began < 15


def test_nobody_reads_the_pipe(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*COMMAND, "nets"], cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_a_terminal_that_lacks_signs(tmp_path: Path) -> None:
    done = child(tmp_path, "nets", PYTHONIOENCODING="ascii")
    assert r"\u2013" in done.stdout or "99" in done.stdout


@pytest.mark.parametrize("folder", ["a b", "a'b"])
def test_temporary_folder_that_make_cannot_take(simulated: Path, tmp_path: Path, folder: str
                                                ) -> None:
    (tmp_path / folder).mkdir()
    done = child(simulated, "build", "small.safetensors", "--out", "never", code=2,
                 TMPDIR=str(tmp_path / folder))
    assert done.stderr.startswith("error: TMPDIR must be a path of letters")
    assert folder in done.stderr and done.stderr.count("\n") == 1
    assert not (simulated / "never").exists() and not names(tmp_path / folder)


def test_version_and_help(run: Cli) -> None:
    assert run("--version") == (0, f"n2uq-hw {__version__}\n", "")
    code, out, err = run()
    assert code == 2 and "Usage: n2uq-hw [OPTIONS] COMMAND" in out and err == ""


@pytest.mark.parametrize("command", ["nets", "train", "lower", "build", "verify", "cost", "demo",
                                     "export", "run"])
def test_every_option_is_explained(command: str) -> None:
    asked = typer.main.get_command(cli.app()).commands[command]
    assert asked.help
    assert [p.name for p in asked.params if not getattr(p, "help", None)] == []


def test_nets_lists_what_is_shipped(run: Cli) -> None:
    code, out, err = run("nets")
    assert (code, err) == (0, "") and all(name in out for name in nets.shipped())
    rows = strict(run("nets", "--json")[1])
    assert list(rows) == list(nets.shipped()) and rows["digits_mlp_w2a2"]["weights"] == 8832


def test_lower_with_and_without_images(run: Cli, net: Net, images: np.ndarray, tmp_path: Path
                                       ) -> None:
    net.save(tmp_path / "small.safetensors")
    np.savez(tmp_path / "i.npz", images=images, labels=np.arange(len(images)) % 5)
    agreed = strict(run("lower", "small.safetensors", "--data", "i.npz", "--json")[1])
    assert {"images", "top1_agreement", "worst_logit_error", "accuracy"} <= set(agreed)
    assert agreed["images"] == 40 and agreed["top1_agreement"] > 0.9
    assert strict(run("lower", "small.safetensors", "--json")[1])["images"] == 0
    code, out, err = run("lower", "small.safetensors", "--out", "g.safetensors")
    assert (code, err) == (0, "") and "2,460 MACs per image" in out
    assert "not measured: give images of small with --data" in out
    assert (tmp_path / "g.safetensors").is_file()
    code, _, err = run("lower", "small.safetensors", "--data", "i.npz",
                       "--output-fraction-bits", "1")
    assert code == 0 and re.fullmatch(
        r"note: small: \d+ of 40 images have their class by less than a step of the output, 0\.5; "
        r"more --output-fraction-bits tell them apart\n", err)
    code, out, _ = run("lower", "small.safetensors", "--top1", "--data", "i.npz")
    assert code == 0 and "worst logit error –" in out
    assert "  conv1 " in run("lower", "small.safetensors", "--text")[1]


def test_lower_and_build_say_what_the_graph_warns_of(run: Cli, tmp_path: Path) -> None:
    net = Net("dead", InputSpec((1, 1, 1), 5, 1.0), (Pointwise("off", "min"), Quant("q", 1, 0, 3)),
              {"off.value": np.array([-1.0]), "q.scale": np.ones(1), "q.zero_point": np.zeros(1)})
    net.save(tmp_path / "dead.safetensors")
    note = "note: dead: q is constant: whatever it reads, it gives one level\n"
    assert run("lower", "dead.safetensors")[::2] == (0, note)
    code, out, err = run("build", "dead.safetensors", "--out", "b", "--json")
    assert (code, err) == (0, note) and strict(out)["name"] == "dead"


def test_export_writes_what_it_says(run: Cli, net: Net, tmp_path: Path) -> None:
    net.save(tmp_path / "small.safetensors")
    code, out, err = run("export", "small.safetensors", "--qonnx", "q.onnx", "--integer", "i.onnx",
                         "--batch", "3")
    assert (code, err) == (0, "")
    assert [line.partition(",")[0] for line in out.splitlines()] == ["q.onnx: small",
                                                                     "i.onnx: small"]
    held = {name: onnx.load_model(tmp_path / f"{name}.onnx") for name in "qi"}
    assert {node.domain for node in held["i"].graph.node} == {""}
    assert "MultiThreshold" in {node.op_type for node in held["q"].graph.node}
    assert held["q"].graph.input[0].type.tensor_type.shape.dim[0].dim_value == 3
    assert fault(run("export", "small.safetensors")) == (
        "export must have a file to write: --qonnx FILE, --integer FILE, or both")
    assert "must be in 1..65,536" in fault(run("export", "small.safetensors", "--qonnx", "x.onnx",
                                              "--batch", "0"))
    assert "cannot be written" in fault(run("export", "small.safetensors", "--qonnx", "a/x.onnx"))


def test_run_says_and_keeps_what_comes_out(run: Cli, built: Path, images: np.ndarray,
                                           tmp_path: Path) -> None:
    np.savez(tmp_path / "i.npz", images=images[:6], labels=np.zeros(6, int))
    golden = emit.load_build(built).graph.forward(images[:6])
    code, out, err = run("run", built, "i.npz", "--out", "o.npz", "--jobs", "1")
    assert (code, err) == (0, "") and "cycles per image" in out and "accuracy" in out
    with np.load(tmp_path / "o.npz") as kept:
        assert np.array_equal(kept["outputs"], golden)
        assert np.array_equal(kept["classes"], golden.argmax(axis=1))
    held = strict(run("run", built, "i.npz", "--json")[1])
    assert held["classes"] == golden.argmax(axis=1).tolist() and held["images"] == 6
    assert fault(run("run", built, "none.npz")) == "none.npz: no such file or folder"
    assert "--jobs must be in 1..4,096" in fault(run("run", built, "i.npz", "--jobs", "0"))


def test_lower_says_what_is_compared(run: Cli, tmp_path: Path) -> None:
    """One logit, a map, and values, on images that all have the label 1 or the value 1."""
    body = (model.Conv("conv", 1, 4, 3, bits=3), model.LTQ("quan", 2))
    layers_of = {"one": (*body, model.Flatten("flat"), model.Linear("fc", 32, 1, 4)),
                 "map": (*body, model.Conv("fc", 4, 3, 1, bits=4))}
    images = np.random.default_rng(0).integers(0, 16, (12, 1, 4, 6))
    for name, layers in layers_of.items():
        random_net(name, layers, (1, 4, 6)).save(tmp_path / f"{name}.safetensors")
    np.savez(tmp_path / "one.npz", images=images, labels=np.ones(12, bool))
    np.savez(tmp_path / "map.npz", images=images, labels=np.ones((12, 2, 4), int))
    np.savez(tmp_path / "values.npz", images=images, labels=np.ones(12))
    share = r"\d+\.\d\d %"
    for net, archive, begins, ends in (
            ("one", "one", "12 images, class 1 where the logit is above 0", f"accuracy {share}"),
            ("map", "map", "12 images, 96 pixels", f"accuracy of pixels {share}"),
            ("one", "values", "12 images, no classes", r"mean absolute error \d\.\d{4}")):
        code, out, err = run("lower", f"{net}.safetensors", "--data", f"{archive}.npz")
        assert (code, err) == (0, "")
        same = "" if archive == "values" else (
            f"the integers give the float model's class on {share}, ")
        error = "worst error" if archive == "values" else "worst logit error"
        assert re.fullmatch(rf"{begins}: {same}{error} [0-9.e-]+; {ends} \(float .*\)",
                            out.splitlines()[-1])
        agreed = strict(run("lower", f"{net}.safetensors", "--data", f"{archive}.npz", "--json")[1])
        assert (agreed["counted"], agreed["count"]) == {
            "one": ("images", 12), "map": ("pixels", 96), "values": ("values", 12)}[archive]


def test_agreement_with_given_logits_and_what_formats_cost(run: Cli, tmp_path: Path) -> None:
    net = adverse(architectures.resnet8(1, 2, 10), 12, channels=1)
    net.save(tmp_path / "r.safetensors")
    images = np.random.default_rng(0).integers(0, 256, (9, 1, 12, 12), np.uint8)
    logits = net.forward(images).astype(np.float32)
    arrays = {"images": images, "labels": logits.argmax(axis=1), "logits": logits,
              "mean": np.float32(net.input.mean), "std": np.float32(net.input.std)}
    np.savez(tmp_path / "i.npz", **arrays)
    fine = ("--residual-fraction-bits", "20", "--stem-bits", "16", "--head-bits", "16")
    code, out, err = run("lower", "r.safetensors", "--agreement", "i.npz", *fine, "--json")
    agreed = strict(out)
    assert (code, agreed["images"], agreed["residual_fraction_bits"]) == (0, 9, 20)
    assert all("have more than 58 together" in line for line in err.splitlines())
    assert agreed["accuracy"] == agreed["top1_agreement"]  # the labels are the logits' own
    finest, *others = agreed["rounding"]
    assert [row["rounded"] for row in others] == ["residual stream", "stem", "head"]
    assert finest["worst_logit_error"] == agreed["worst_logit_error"]
    # All is as fine as can be asked for already: no choice costs anything.
    assert all(row["worst_logit_error"] == finest["worst_logit_error"] for row in others)
    coarse = strict(run("lower", "r.safetensors", "--agreement", "i.npz", "--head-bits", "2",
                        "--json")[1])
    head = coarse["rounding"][-1]
    assert head["worst_logit_error"] > coarse["rounding"][0]["worst_logit_error"]
    # Logits that are not the net's are compared with all the same; the net does not run.
    np.savez(tmp_path / "other.npz", **arrays | {"logits": logits + 100})
    other = strict(run("lower", "r.safetensors", "--agreement", "other.npz", *fine, "--json")[1])
    assert other["worst_logit_error"] > 90 and other["top1_agreement"] == agreed["top1_agreement"]
    # The file's normalization counts, and is said to be another.
    np.savez(tmp_path / "mean.npz", **arrays | {"mean": np.float32([0.1])})
    code, out, err = run("lower", "r.safetensors", "--agreement", "mean.npz")
    assert code == 0 and err.startswith("note: net is lowered for the mean and std in mean.npz, "
                                        "which are not its own\n")
    assert "each row with one format as chosen" in out and "fraction bits, " in out


@pytest.mark.parametrize("options,message", [
    ("--agreement i.npz --data i.npz", "--agreement and --data exclude each other"),
    ("--agreement logits.npz", "logits of net must be [9, 10], not [9, 4]"),
    ("--agreement mean.npz", "mean.npz: mean must be 1 finite floats, not float64 [3]"),
    ("--agreement nan.npz", "nan.npz: logits must be 9 finite floats per class, not float64"),
    ("--residual-bits 6", "residual bits for its range 0.."),
    ("--residual-fraction-bits 31", "residual-fraction-bits must be in 0..30, not 31"),
    ("--output-fraction-bits 31", "output-fraction-bits must be in 0..30, not 31"),
    ("--stem-bits 1", "stem-bits must be in 2..24, not 1"),
    ("--calibrate no.npz", "no.npz: no such file or folder")])
def test_bad_formats_and_references(run: Cli, tmp_path: Path, options: str, message: str) -> None:
    net = adverse(architectures.resnet8(1, 2, 10), 12, channels=1)
    net.save(tmp_path / "r.safetensors")
    images = np.zeros((9, 1, 12, 12), np.uint8)
    for name, more in (("i", {}), ("logits", {"logits": np.zeros((9, 4))}),
                       ("mean", {"mean": np.zeros(3)}),
                       ("nan", {"logits": np.full((9, 10), np.nan)})):
        np.savez(tmp_path / f"{name}.npz", images=images, **more)
    assert message in fault(run("lower", "r.safetensors", *options.split()))


def test_calibrated_lowering_saturates(run: Cli, tmp_path: Path) -> None:
    adverse(architectures.resnet8(1, 2, 10), 12, channels=1).save(tmp_path / "r.safetensors")
    images = np.random.default_rng(0).integers(0, 256, (4, 1, 12, 12), np.uint8)
    np.savez(tmp_path / "i.npz", images=images)
    plain = run("lower", "r.safetensors", "--text")[1]
    held = run("lower", "r.safetensors", "--text", "--calibrate", "i.npz")[1]
    assert "Saturate(" in held and "Saturate(" not in plain


def test_graph_is_not_written_where_images_are_wrong(run: Cli, net: Net, tmp_path: Path) -> None:
    net.save(tmp_path / "small.safetensors")
    np.savez(tmp_path / "i.npz", images=np.full((3, 2, 5, 5), 16))
    fault(run("lower", "small.safetensors", "--data", "i.npz", "--out", "g.safetensors"))
    assert not (tmp_path / "g.safetensors").exists()


@pytest.mark.slow
def test_builds_are_repeatable_and_readable(run: Cli, net: Net, tmp_path: Path) -> None:
    net.save(tmp_path / "small.safetensors")
    strange = "a [b] 'c\" é"
    code, out, err = run("build", "small.safetensors", "--out", strange)
    assert (code, err) == (0, "") and f"small in {strange}\n" in out
    strict(run("build", "small.safetensors", "--out", "two", "--json")[1])
    files = {name for name in names(tmp_path / "two") if (tmp_path / "two" / name).is_file()}
    assert len(files) == 10 and "report.html" in files
    for name in files:
        one, two = tmp_path / strange / name, tmp_path / "two" / name
        assert one.read_bytes() == two.read_bytes()
        assert one.stat().st_mode & 0o777 == (tmp_path / "small.safetensors").stat().st_mode & 0o777


def test_reports_show_what_was_simulated(run: Cli, simulated: Path) -> None:
    code, out, err = run("report", simulated / "b")
    assert (code, out, err) == (0, f"{simulated / 'b' / 'report.html'}\n", "")
    text = Path(out.strip()).read_text(encoding="utf-8")
    assert "✔ Bit-exact on" in text and "Cycles measured are the cycles predicted." in text


@pytest.mark.slow
def test_unrolled(run: Cli, net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net.save(tmp_path / "small.safetensors")
    run("build", "small.safetensors", "--out", "b", "--unroll", 2)
    layers = strict((tmp_path / "b" / "report.json").read_text())["layers"]
    assert "unrolled" in [layer["style"] for layer in layers]
    verdict = strict(run("verify", "b", "--json")[1])
    assert (verdict["images"], verdict["mismatches"]) == (64, 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})
    shared = strict(run("verify", "b", "--bulk", "--json")[1])
    assert shared.keys() == verdict.keys() and (verdict["shares"], shared["shares"]) == (1, 3)
    for key in ("images", "mismatches", "cycles_first_output", "cycles_per_image"):
        assert shared[key] == verdict[key], key
    assert "3 shares; cycles are those of the first" in run("verify", "b", "--bulk")[1]


@pytest.mark.parametrize("stalls", [0.0, 0.3])
@pytest.mark.parametrize("simulator", ["verilator", pytest.param("icarus", marks=ICARUS)])
def test_sim(run: Cli, simulated: Path, stalls: float, simulator: str) -> None:
    code, out, err = run("verify", simulated / "b", "--stalls", stalls, "--simulator", simulator,
                         "--json")
    assert (code, err) == (0, "")
    verdict = strict(out)
    assert {"images", "mismatches", "cycles_first_output", "cycles_per_image", "mac_utilization",
            "accuracy", "cycles_per_second"} <= set(verdict)
    assert (verdict["images"], verdict["mismatches"], verdict["accuracy"]) == (64, 0, None)
    assert 0 < verdict["mac_utilization"] <= 1


def test_sim_table_and_labels(run: Cli, simulated: Path, images: np.ndarray, tmp_path: Path
                              ) -> None:
    np.savez(tmp_path / "i.npz", images=images, labels=np.zeros(len(images), int))
    code, out, err = run("verify", simulated / "b", "--data", tmp_path / "i.npz", "--images", 7)
    assert (code, err) == (0, "") and re.search(r"images +7, 0 mismatches", out)
    assert re.search(r"accuracy +\d+\.\d\d %", out)


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_a_mismatch_exits_1(run: Cli, simulated: Path, monkeypatch: pytest.MonkeyPatch,
                            option: list[str]) -> None:
    where = "image 3: layer fc first differs at pixel (0, 0), channel 2: 5 in RTL, 6 in golden"
    verdict = verify.Verdict(4, 1, 10, 9.5, 0.5, None, 1e5, 0.0, 0, "verilator", {}, where)
    monkeypatch.setattr(verify, "verify", lambda *args, **more: verdict)
    code, out, err = run("verify", simulated / "b", *option)
    assert (code, err) == (1, f"mismatch: {where}\n")
    assert strict(out)["mismatches"] == 1 if option else "1 mismatches (DIFFERENT)" in out


@pytest.mark.slow
@pytest.mark.parametrize("exact,text", [(True, "as in golden"), (False, "DIFFERENT")])
def test_the_table_says_of_the_counter_what_the_verdict_does(
        run: Cli, simulated: Path, monkeypatch: pytest.MonkeyPatch, exact: bool, text: str) -> None:
    verdict = verify.Verdict(4, int(not exact), 10, 9.5, 0.5, None, 1e5, 0.0, 0, "verilator",
                             saturated=1234, saturated_exact=exact)
    monkeypatch.setattr(verify, "verify", lambda *args, **more: verdict)
    code, out, _ = run("verify", simulated / "b")
    assert (code, f"1,234 ({text})" in out) == (int(not exact), True)


def test_edited_verilog_is_noted(run: Cli, simulated: Path, tmp_path: Path) -> None:
    shutil.copytree(simulated / "b", tmp_path / "b")
    with (tmp_path / "b" / "rtl" / "small.v").open("a") as file:
        file.write("(")
    code, out, err = run("verify", "b")
    note, error, end = err.split("\n")
    assert (code, out, note, end) == (2, "", "note: b/rtl/small.v is not as it was built", "")
    assert error.startswith("error: verilator: small.v:")


def test_cost(run: Cli, simulated: Path) -> None:
    costs = strict(run("cost", simulated / "b", "--family", "ice40", "--no-dsp", "--json")[1])
    assert costs["total"]["dsp"] == 0 < costs["total"]["lut"]
    code, out, err = run("cost", simulated / "b", "--family", "ice40", "--no-dsp")
    assert (code, err) == (0, "") and "small on ice40, Yosys" in out
    assert re.search(rf"in all +{costs['total']['lut']:,} ", out)
    assert all(re.search(rf"^{unit} ", out, re.MULTILINE) for unit in costs["units"])


@pytest.mark.slow
def test_progress_is_for_terminals_and_on_stderr(simulated: Path) -> None:
    done = child(simulated, "verify", "b", "--json")
    assert done.stderr == "" and strict(done.stdout)["mismatches"] == 0
    ours, theirs = pty.openpty()
    process = subprocess.Popen([*COMMAND, "verify", "b", "--json"], cwd=simulated, stdin=theirs,
                               stdout=subprocess.PIPE, stderr=theirs,
                               env={**os.environ, "TERM": "xterm"})
    os.close(theirs)
    shown = b""
    while part := _read(ours):
        shown += part
    out, _ = process.communicate()
    os.close(ours)
    assert b"\x1b[" in shown and b"simulate" in shown
    assert strict(out.decode())["mismatches"] == 0


def _read(terminal: int) -> bytes:
    """What was written to the other end; b"" once nobody can write any more."""
    try:
        return os.read(terminal, 1 << 16)
    except OSError:
        return b""
