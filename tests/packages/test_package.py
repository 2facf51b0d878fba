"""The folder of a package: complete, repeatable, whole or not there; its test bench."""

from __future__ import annotations

import subprocess
from pathlib import Path

import flows
import pytest
from commands import fault
from conftest import Cli
from keywords import KEYWORDS, identifiers

from n2uq_hw import tools
from n2uq_hw.packages import TARGETS
from n2uq_hw.packages.bench import BENCH

ALL = tuple(TARGETS)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def package(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package") / "small"
    flows.packaged(built, folder, *ALL)
    return folder


def test_a_second_package_is_byte_identical(built: Path, package: Path, tmp_path: Path) -> None:
    flows.packaged(built, tmp_path / "again", *reversed(ALL))
    assert contents(tmp_path / "again") == contents(package)
    for name in ("rtl/small.v", "rtl/small_axis.v", "lint.vlt"):
        assert (package / name).read_bytes() == (built / name).read_bytes()
    assert {"README.md", "manifest.json", f"bench/{BENCH}.v", f"bench/{BENCH}_input.hex",
            f"bench/{BENCH}_expected.hex", "small.core"} <= set(contents(package))


def test_the_command_lists_what_it_wrote(run: Cli, built: Path, tmp_path: Path) -> None:
    code, out, err = run("package", built, "--for", "fusesoc", "--out", "p")
    assert (code, err) == (0, "")
    assert set(out.split("\n")[1:-1]) == set(contents(tmp_path / "p")) - {"manifest.json"}


def test_faults_leave_nothing(run: Cli, built: Path, tmp_path: Path) -> None:
    targets = ", ".join(TARGETS)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    for arguments, message in [
            ((built, "--for", "quartus", "--out", "p"),
             f"target must be one of {targets}, not 'quartus'"),
            ((built, "--for", "", "--out", "p"), f"target must be one of {targets}, not ''"),
            ((built, "--for", "fusesoc", "--out", built),
             f"{built}: must be another folder than the build's"),
            ((built, "--for", "fusesoc", "--out", "full"),
             "full: must be new, empty or an earlier build, and is not"),
            (("full", "--for", "fusesoc", "--out", "p"),
             "full: must be a build directory, but has no manifest.json")]:
        assert fault(run("package", *arguments)) == message
    assert set(tmp_path.iterdir()) == {tmp_path / "full"}


def test_the_bench_is_clean(package: Path) -> None:
    """Verilator takes it without a warning about what it is not told to do; no name is a keyword.

    Neither one of SystemVerilog nor one of VHDL.
    """
    assert not identifiers((package / f"bench/{BENCH}.v").read_text()) & KEYWORDS
    tool = tools.verilator()
    said = tools.run([tool.command, "--lint-only", "--timing", "-Wall", "-Wno-WIDTH", "-Wno-BLKSEQ",
                      "-Wno-INITIALDLY", "-Wno-STMTDLY", "lint.vlt", f"bench/{BENCH}.v",
                      "rtl/small.v", "rtl/small_axis.v", "--top-module", BENCH],
                     cwd=package, env=tool.env, name="verilator")
    assert "%Warning" not in said, said


@flows.needs_icarus
def test_icarus_runs_the_bench_and_sees_a_wrong_vector(package: Path, tmp_path: Path) -> None:
    files = [str(package / name) for name in (f"bench/{BENCH}.v", "rtl/small.v",
                                              "rtl/small_axis.v")]
    said = tools.run(["iverilog", "-g2005", "-Wall", "-s", BENCH, "-o", "bench", *files],
                     cwd=tmp_path, name="iverilog")
    assert not said
    for path in (package / "bench").glob("*.hex"):
        (tmp_path / path.name).write_bytes(path.read_bytes())

    def simulate(*plusargs: str) -> tuple[int, str]:
        done = subprocess.run(["vvp", "-N", "bench", *plusargs], cwd=tmp_path, capture_output=True,
                              text=True)
        return done.returncode, done.stdout.splitlines()[-1]
    assert simulate()[1].startswith("PASS: 8 images, ")
    assert simulate("+stalls=0")[0] == simulate("+stalls=240", "+seed=9")[0] == 0
    assert simulate("+stalls=241") == (1, "FAIL: stalls must be 0 to 240, not 241")
    flows.spoil(tmp_path / f"{BENCH}_expected.hex")
    code, last = simulate()
    assert code == 1 and last.startswith("FAIL: 1 of ")
