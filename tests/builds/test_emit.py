"""The build directory: complete, repeatable, whole or not there; the AXI4-Stream wrapper."""

from __future__ import annotations

import hashlib
import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from n2uq_hw.builds.emit import Build, emit, load_build, ports
from n2uq_hw.builds.verify import verify
from n2uq_hw.data import images_for
from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.accelerator import WRAPPER, module_name
from n2uq_hw.ir import golden
from n2uq_hw.lowering.lower import lower
from n2uq_hw.model import Net
from n2uq_hw.nets import find_net
from n2uq_hw.plan.choice import choose
from n2uq_hw.sim.rtl.harness import Dut, Probe, Sink, Source, pack, unpack
from n2uq_hw.sim.rtl.runner import simulate
from n2uq_hw.sim.timing.fifos import size_fifos


@pytest.fixture(scope="module")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """A shipped net's build, and beside it `RESTARTED` around its wrapper."""
    graph = lower(find_net("digits_cnn_w2a2"))
    folder = tmp_path_factory.mktemp("cnn")
    images, _ = images_for("digits", None)
    emit(graph, size_fifos(graph, choose(graph)), folder / "cnn", images[:3], None)
    build = load_build(folder / "cnn")
    source, output = ports(build.graph, build.folding)
    streams = {"s_axis_tdata": f"input [{source.tdata - 1}:0]", "s_axis_tvalid": "input",
               "s_axis_tready": "output", "m_axis_tdata": f"output [{output.tdata - 1}:0]",
               "m_axis_tvalid": "output", "m_axis_tready": "input", "m_axis_tlast": "output"}
    (folder / "restarted.v").write_text(RESTARTED.format(
        ports=", ".join(f"{kind} {name}" for name, kind in streams.items())
        + ", input s_axis_tlast",
        pins=", ".join(f".{name}({name})" for name in streams),
        wrapper=module_name(graph, WRAPPER)))
    return build


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes()
            for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_second_build_is_byte_identical(net: Net, images: np.ndarray, tmp_path: Path) -> None:
    graph = lower(net)
    for name in ("one", "two"):
        emit(graph, size_fifos(graph, choose(graph)), tmp_path / name, images[:8],
             np.arange(8) % 5)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert {"rtl/small.v", "rtl/small_axis.v", "graph.safetensors", "folding.yaml", "report.md",
            "vectors.safetensors", "report.json", "manifest.json", "lint.vlt"
            } == set(files(tmp_path / "one"))


def test_manifest_has_the_hash_of_every_file(built: Path) -> None:
    manifest = json.loads((built / "manifest.json").read_text())
    rest = {name: data for name, data in files(built).items()
            if name != "manifest.json" and not name.startswith("simulation")}
    assert manifest["sha256"] == {name: hashlib.sha256(data).hexdigest()
                                  for name, data in rest.items()}


@pytest.mark.slow
def test_memory_files_are_listed_and_found(net: Net, images: np.ndarray, tmp_path: Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("n2uq_hw.hw.memory.FILE_BITS", 50)
    graph = lower(net)
    emit(graph, size_fifos(graph, choose(graph)), tmp_path / "b", images[:4], None)
    memories = json.loads((tmp_path / "b" / "report.json").read_text())["memories"]
    assert "small_conv1.weights.hex" in memories
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())["sha256"]
    assert {f"rtl/{name}" for name in memories} == {n for n in manifest if n.endswith(".hex")}
    assert f"reads {len(memories)} memory file(s)" in (tmp_path / "b" / "report.md").read_text()
    build = load_build(tmp_path / "b")
    assert {path.name for path in build.verilog} == {*memories, "small.v", "small_axis.v"}
    assert verify(build, images[:4], None, stalls=0.2).mismatches == 0
    (tmp_path / "b" / "rtl" / memories[0]).unlink()
    with pytest.raises(N2uqError, match=f"but has no rtl/{memories[0]}"):
        load_build(tmp_path / "b")


def test_vectors_hold_goldens_results(built: Path, net: Net, images: np.ndarray) -> None:
    build = load_build(built)
    expected = golden.run(build.graph, images[:8].transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(build.vectors["images"], images[:8])
    np.testing.assert_array_equal(build.vectors["expected"], expected)
    np.testing.assert_array_equal(build.graph.edges["fc"].lo, lower(net).edges["fc"].lo)


def test_report_counts_by_hand(built: Path) -> None:
    report = json.loads((built / "report.json").read_text())
    rows = {row["name"]: row for row in report["layers"]}
    # 5×5 windows of 18 by 4 channels; 3×3 windows of 4 by 6; one vector of 24 by 5
    assert rows["conv1"]["macs"] == 25 * 18 * 4 and rows["conv3"]["macs"] == 9 * 4 * 6
    assert rows["fc"]["macs"] == 24 * 5 and rows["fc"]["weight_bits"] == 3
    assert rows["dw2"]["kind"] == "DepthwiseMatVec" and rows["dw2"]["macs"] == 9 * 9 * 4
    assert report["macs"] == 1800 + 324 + 216 + 120
    assert report["weight_bits"] == 8 * 72 + 4 * 36 + 2 * 24 + 3 * 120
    text = (built / "report.md").read_text()
    assert all(f"| {name} |" in text for name in rows)


def test_changed_and_missing_files_are_found(net: Net, images: np.ndarray, tmp_path: Path) -> None:
    graph = lower(net)
    emit(graph, size_fifos(graph, choose(graph)), tmp_path / "b", images[:2], None)
    (tmp_path / "b" / "rtl" / "small.v").write_text("module small; endmodule\n")
    assert load_build(tmp_path / "b").changed == ("rtl/small.v",)
    (tmp_path / "b" / "graph.safetensors").unlink()
    with pytest.raises(N2uqError, match=r"must be a build directory, but has no graph.safetensors"):
        load_build(tmp_path / "b")
    with pytest.raises(N2uqError, match=r"must be a build directory, but has no manifest.json"):
        load_build(tmp_path)


@pytest.mark.parametrize("name,content", [
    ("manifest.json", b"{"), ("manifest.json", b"[]"), ("manifest.json", b'{"sha256": 3}'),
    ("manifest.json", b'{"sha256": {"../../etc/passwd": "0"}}'),
    ("vectors.safetensors", b"abc"), ("graph.safetensors", b""), ("folding.yaml", b"conv1: 3")])
def test_damaged_builds_are_one_line(net: Net, images: np.ndarray, tmp_path: Path, name: str,
                                     content: bytes) -> None:
    graph = lower(net)
    emit(graph, size_fifos(graph, choose(graph)), tmp_path / "b", images[:2], None)
    (tmp_path / "b" / name).write_bytes(content)
    with pytest.raises(N2uqError) as error:
        load_build(tmp_path / "b")
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


@pytest.mark.parametrize("most", [300, 3000, 20_000])
def test_nothing_half_written_stays(net: Net, tmp_path: Path, most: int) -> None:
    """Files that cannot grow beyond so many bytes, as on a full disk."""
    net.save(tmp_path / "small.safetensors")
    command = [sys.executable, "-m", "n2uq_hw", "build", "small.safetensors", "--out", "b"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "b" / "report.html").unlink()  # is made anew
    before = files(tmp_path)
    failed = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)))
    assert failed.returncode == 2 and failed.stderr.count("\n") == 1, failed.stderr
    assert "File too large" in failed.stderr
    assert files(tmp_path) == before  # the earlier build, and no other file


def test_images_must_fit(net: Net, images: np.ndarray, tmp_path: Path) -> None:
    graph = lower(net)
    for wrong, message in [
            (images[:, :1], r"integers \[N, 2, 5, 5\], not int64 \[40, 1, 5, 5\]"),
            (images / 2, r"integers \[N, 2, 5, 5\], not float64"),
            (images[0], r"integers \[N, 2, 5, 5\], not int64 \[2, 5, 5\]"),
            (images + 1, r"must lie in 0..15, not 1..16")]:
        with pytest.raises(N2uqError, match=message):
            emit(graph, size_fifos(graph, choose(graph)), tmp_path / "b", wrong, None)
    assert not list(tmp_path.iterdir())


def test_verilog_is_plain_2005_and_named_after_the_network(built: Path, tmp_path: Path) -> None:
    from n2uq_hw.tools import run_yosys

    for name in ("small.v", "small_axis.v"):
        (tmp_path / name).write_text((built / "rtl" / name).read_text())
    # Without -sv Yosys reads Verilog-2005 only.
    run_yosys("read_verilog small.v small_axis.v\nhierarchy -check -top small_axis\nproc\n"
              "check -assert", tmp_path)
    text = (built / "rtl" / "small.v").read_text()
    modules = set(re.findall(r"^module (\w+)", text, re.MULTILINE))
    assert {"small_accelerator", "small_conv1", "small_quan1", "small_dw2"} <= modules
    assert not re.search(r"\b(logic|always_ff|always_comb)\b|/work|/tmp|\.py", text)


def test_ports_are_bytes(built: Path) -> None:
    build = load_build(built)
    for port in ports(build.graph, build.folding):
        assert port.tdata % 8 == 0 and 0 <= port.tdata - port.bits < 8
        assert port.beats * port.lanes == np.prod(port.shape)


# The wrapper, without any tlast from the first reset to the second, with it on every beat to the
# third; and at the end of each run frame_error, and whether any ended amid input and output.
RESTARTED = """
module restarted (input aclk, input aresetn, {ports}, output frame_error);
    reg [4:0] runs = 0;
    reg [31:0] errors = 0;
    reg was = 0, amid = 0;
    {wrapper} inner (.aclk(aclk), .aresetn(aresetn), {pins}, .frame_error(frame_error),
        .s_axis_tlast(runs == 0 ? 1'b0 : runs == 1 ? 1'b1 : s_axis_tlast));
    always @(posedge aclk) begin
        was <= aresetn;
        if (was && !aresetn) begin
            runs <= runs + 1;
            errors[runs] <= frame_error;
            if (inner.input_beat != 0 && inner.output_beat != 0) amid <= 1;
        end
    end
endmodule
"""


@pytest.mark.parametrize("stalls", [0.0, 0.3])
def test_a_reset_at_any_time_begins_anew(cnn: Build, stalls: float) -> None:
    """And frame_error tells a tlast that is missing or misplaced, until then."""
    source, output = ports(cnn.graph, cnn.folding)
    nhwc = cnn.vectors["images"][:3].transpose(0, 2, 3, 1)
    bits = pack(nhwc.reshape(-1, source.lanes), source.width)
    bits = np.pad(bits, ((0, 0), (0, source.tdata + 1 - source.bits)))
    bits[source.beats - 1::source.beats, -1] = 1
    dut = Dut("restarted", "restarted",
              (Source("s_axis_tdata", "s_axis_tvalid", "s_axis_tready", source.tdata + 1, bits,
                      last="s_axis_tlast"),),
              (Sink("m_axis_tdata", "m_axis_tvalid", "m_axis_tready", output.tdata + 1,
                    len(nhwc) * output.beats, last="m_axis_tlast"),),
              probes=(Probe("errors", 32), Probe("amid", 1), Probe("frame_error", 1)),
              clock="aclk", reset="aresetn", reset_active_low=True)
    run = simulate([*cnn.verilog, cnn.path.parent / "restarted.v"], [dut],
                   work=cnn.path.parent / "work", stalls=(stalls, stalls), seed=3,
                   resets=(1200, 20, *range(900, 1200, 12)), short=True)
    beats = run.sinks["restarted"][0].beats
    truth = golden.run(cnn.graph, nhwc)
    assert np.array_equal(unpack(beats[:, :output.bits], output.lanes, output.width, output.signed),
                          truth.reshape(-1, output.lanes))
    assert np.array_equal(np.flatnonzero(beats[:, -1]) + 1,
                          output.beats * np.arange(1, len(nhwc) + 1))
    probes = run.probes["restarted"]
    assert probes["errors"].tolist() == [1, 1] + [0] * 30
    assert (probes["amid"].tolist(), probes["frame_error"].tolist()) == ([1], [0])
