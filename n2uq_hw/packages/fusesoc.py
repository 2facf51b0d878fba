"""FuseSoC: a CAPI2 core with targets for lint, simulation and synthesis."""

from __future__ import annotations

from .. import __version__
from ..builds.emit import LINT, Build
from ..hw.accelerator import prefix
from ..templates import render
from .bench import BENCH
from .pins import top

__all__ = ["files"]


def files(build: Build) -> dict[str, str]:
    """`<name>.core`."""
    return {f"{prefix(build.graph)}.core": render(
        "fusesoc.core.j2", name=prefix(build.graph), version=__version__, top=top(build),
        bench=BENCH, lint=LINT, verilog=[path.name for path in build.verilog
                                         if path.suffix == ".v"],
        memories=[path.name for path in build.verilog if path.suffix == ".hex"])}
