"""The board directory: a build, the design around it, bitstream, constraints and report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..builds.emit import Build, emit, load_build
from ..errors import N2uqError
from ..files import changed_files, read_text, whole_directory, write_file
from ..hw.accelerator import module_name
from ..ir import Graph
from ..plan.plan import Plan
from ..tables import Shown, Table
from ..templates import render
from .bitstream import FAMILIES, Bitstream, TooSlow, make_bitstream, need_tools
from .design import TOP, board_verilog, divisor_of, plan_for, sides
from .devices import Device

__all__ = ["BOARD", "BoardBuild", "emit_board", "is_board", "load_board"]

BOARD, BUILD = "board.json", "build"
RETRIES = 3  # foldings that are tried after one that misses the clock


@dataclass(frozen=True, repr=False)
class BoardBuild(Shown):
    """A board directory, read back; `told` is what board.json says."""

    path: Path
    build: Build
    told: dict[str, Any]

    @property
    def top(self) -> str:
        """The top's module."""
        return module_name(self.build.graph, TOP)

    @property
    def verilog(self) -> list[Path]:
        """All that the bitstream was made of."""
        return [self.path / f"{self.top}.v", *self.build.verilog]

    @property
    def identity(self) -> bytes:
        """What the board answers a greeting."""
        return bytes.fromhex(self.told["identity"])

    def parts(self) -> list[str | Table]:
        """What it takes of the board, and how to load it."""
        told, table = self.told, Table("", "", left=2)
        table.add_row("serial line", f"{told['baud']:,} bit/s")
        if told["fmax_mhz"] is None:
            table.add_row("bitstream", "none: the virtual board alone")
        else:
            table.add_row("clock", f"{told['mhz']} MHz; the design reaches "
                          f"{told['fmax_mhz']:.1f} MHz")
            for cycles, mhz in told["missed"]:
                table.add_row("too slow", f"{mhz:.1f} MHz with {cycles:,.0f} cycles per image")
            for name, (used, available) in told["utilization"].items():
                table.add_row(name, f"{used:,} of {available:,}")
            table.add_row("load it", told["load"])
        return [f"{told['name']} on {told['title']}", table]


def _identity(build: Path) -> bytes:
    """8 bytes that tell builds apart: the hash of the manifest of the directory `build`."""
    return hashlib.sha256((build / "manifest.json").read_bytes()).digest()[:8]


def emit_board(graph: Graph, device: Device, out: Path, images: np.ndarray,
               labels: np.ndarray | None, *, baud: int, cycles: int | None = None,
               bitstream: bool = True, progress: Callable[[str], None] = lambda stage: None
               ) -> BoardBuild:
    """Write the board directory `out`, whole or not at all.

    The folding is that of `plan_for`.  Where it misses the device's clock, and no `cycles` are
    asked for, one of twice the cycles is tried, up to `RETRIES` times: narrower units have shorter
    paths.

    Parameters
    ----------
    images, labels: test vectors of the build in it, as for `builds.emit.emit`.
    baud: bits per second of the serial line.
    bitstream: without, no tool of the family is needed, and only the virtual board can run.
    progress: is told each stage as it begins.
    """
    divisor = divisor_of(device, baud)
    if bitstream:
        need_tools(device)
    plan = plan_for(graph, device, divisor, cycles=cycles)
    missed = list[tuple[float, float]]()
    while True:
        try:
            return _emit(graph, plan, device, out, images, labels, divisor, bitstream, missed,
                         progress)
        except TooSlow as slow:
            slower = plan_for(graph, device, divisor, cycles=int(2 * plan.cycles))
            if cycles is not None or len(missed) == RETRIES or slower.cycles <= plan.cycles:
                raise
            missed.append((plan.cycles, slow.fmax_mhz))
            progress(f"{slow.fmax_mhz:.1f} MHz, too slow: a folding of more cycles")
            plan = slower


def _emit(graph: Graph, plan: Plan, device: Device, out: Path, images: np.ndarray,
          labels: np.ndarray | None, divisor: int, bitstream: bool,
          missed: list[tuple[float, float]], progress: Callable[[str], None]) -> BoardBuild:
    """Write the directory with this folding; `missed` are cycles and MHz of those tried before."""
    with whole_directory(out, **{"n2uq-hw": __version__}, name=graph.name, board=device.name
                         ) as part:
        build = part / BUILD
        emit(graph, plan.sizing, build, images, labels, progress)
        identity = _identity(build)
        top = module_name(graph, TOP)
        write_file(part / f"{top}.v", board_verilog(
            graph, plan.folding, device, divisor, identity))
        made = None
        if bitstream:
            progress("bitstream")
            made = make_bitstream(
                device, [part / f"{top}.v", *load_build(build).verilog], top)
            for name, content in made.files.items():
                write_file(part / name, content)
        told = _told(graph, plan, device, divisor, identity, made) | {"missed": missed}
        write_file(part / BOARD, json.dumps(told, indent=1) + "\n")
        write_file(part / "report.md", render("board.md.j2", **told))
    return load_board(out)


def _told(graph: Graph, plan: Plan, device: Device, divisor: int, identity: bytes,
          made: Bitstream | None) -> dict[str, Any]:
    source, output = sides(graph, plan.folding)
    name = FAMILIES[device.family].bitstream
    return {
        "name": graph.name, "version": __version__, "board": device.name, "title": device.title,
        "device": device.device, "mhz": device.mhz, "divisor": divisor,
        "baud": round(device.mhz * 1e6 / divisor), "identity": identity.hex(),
        "image_bytes": source.image, "result_bytes": output.image,
        "cycles": plan.cycles, "pins": device.pins,
        "load": device.load.format(name) if made else "",
        "fmax_mhz": made.fmax_mhz if made else None,
        "utilization": made.utilization if made else {}, "tools": made.tools if made else {}}


def is_board(path: Path) -> bool:
    """Whether `path` is a board directory."""
    return (path / BOARD).is_file()


def load_board(path: Path) -> BoardBuild:
    """Read the board directory `path`; raises N2uqError if it is none, not whole, or edited."""
    if changed := changed_files(path):
        raise N2uqError(f"{path / changed[0]}: must be as it was made, for the board is, and was "
                        "edited")
    try:
        told = json.loads(read_text(path / BOARD))
    except ValueError as error:
        raise N2uqError(f"{path / BOARD}: not JSON: {error}") from None
    return BoardBuild(path, load_build(path / BUILD), told)
