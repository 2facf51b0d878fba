"""A module in Verilator under tests of cocotb's own, which wake in every cycle."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from cocotb_tools import config

from n2uq_hw import tools
from n2uq_hw.sim.rtl import runner

__all__ = ["compiled", "failures"]

HERE = Path(__file__).parent


def compiled(verilog: Sequence[Path], top: str, work: Path) -> Path:
    """The simulator of module `top`, whose signals cocotb reads and writes."""
    verilator, libs = tools.verilator(), config.libs_dir

    def translate(build: Path) -> None:
        tools.run([
            verilator.command, "-cc", "--exe", "--vpi", "--public-flat-rw", "-Wno-fatal",
            "--timing", "--top-module", top, "--prefix", "Vtop", "-Mdir", ".", "-o", "simulator",
            "--timescale", "1ns/1ps",
            "-LDFLAGS", f"-Wl,-rpath,{libs} -L{libs} -lcocotbvpi_verilator",
            str(Path(config.share_dir) / "lib" / "verilator" / "verilator.cpp"),
            *(path.name for path in verilog if path.suffix == ".v")],
            cwd=build, env=verilator.env, name="verilator")
        runner.make(build, verilator, "timing", 0, lambda stage, fraction: None)

    return runner.compiled("cocotbed", [top], verilog, work, translate)[0]


def failures(program: Path, top: str, module: str, folder: Path, *tests: str) -> list[str]:
    """Run `tests` of a Python module in `folder`; returns the names of those that failed.

    What they said is in the file `said`.
    """
    env = {**runner._environment("verilator"), "COCOTB_TOPLEVEL": top,
           "COCOTB_TEST_MODULES": module, "COCOTB_TEST_FILTER": f"({'|'.join(tests)})$",
           "COCOTB_RESULTS_FILE": "results.xml", "COCOTB_RANDOM_SEED": "1",
           "PYTHONPATH": ":".join([str(HERE / "hw"), str(HERE / "packages"), *sys.path])}
    with (folder / "said").open("w") as said:
        subprocess.run([str(program)], cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=said,
                       stderr=subprocess.STDOUT, check=False)
    cases = list(ElementTree.parse(folder / "results.xml").getroot().iter("testcase"))
    assert sorted(case.attrib["name"] for case in cases) == sorted(tests), (
        folder / "said").read_text()[-3000:]
    return [case.attrib["name"] for case in cases
            if case.find("failure") is not None or case.find("error") is not None]
