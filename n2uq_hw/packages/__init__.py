"""Packages: a build with what another flow needs beside its Verilog."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from .. import __version__
from ..builds.emit import LINT, Build, folder_macro
from ..errors import N2uqError
from ..files import whole_directory, write_file
from ..hw.accelerator import prefix
from ..templates import render
from . import bench, c, fusesoc, litex, pynq, vivado
from .pins import top

__all__ = ["TARGETS", "package"]

TARGETS: dict[str, Callable[[Build], dict[str, str]]] = {
    "fusesoc": fusesoc.files, "vivado": vivado.files, "litex": litex.files,
    "c": c.files, "pynq": pynq.files}


def package(build: Build, targets: Sequence[str], out: Path) -> list[str]:
    """Write the package `out` of `build`, whole or not at all; returns the files' paths in it.

    It has Verilog and memory files in `rtl/`, waivers for lint, the test bench in `bench/`, and
    what each of `targets` adds.  Raises N2uqError for a target that is none.
    """
    if not targets:
        raise N2uqError(f"targets must be some of {', '.join(TARGETS)}, not nothing")
    for target in targets:
        if target not in TARGETS:
            raise N2uqError(f"target must be one of {', '.join(TARGETS)}, not {target!r}")
    if out.resolve() == build.path.resolve():
        raise N2uqError(f"{out}: must be another folder than the build's")
    chosen = [name for name in TARGETS if name in targets]
    texts = bench.files(build)
    for name in chosen:
        texts |= TARGETS[name](build)
    texts["README.md"] = render("package.md.j2", name=build.graph.name, targets=chosen,
                                top=top(build), prefix=prefix(build.graph), control=build.control,
                                folder=folder_macro(prefix(build.graph)),
                                version=__version__)
    about = {"n2uq-hw": __version__, "name": build.graph.name, "targets": chosen}
    with whole_directory(out, **about) as part:
        (part / "rtl").mkdir()
        for path in build.verilog:
            write_file(part / "rtl" / path.name, path.read_bytes())
        write_file(part / LINT, (build.path / LINT).read_bytes())
        for name, text in texts.items():
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            write_file(part / name, text)
    return sorted([LINT, *texts, *(f"rtl/{path.name}" for path in build.verilog)])
