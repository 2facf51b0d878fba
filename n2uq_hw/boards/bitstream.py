"""Verilog to a bitstream with open tools: Yosys, nextpnr, and the packer of the family."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import tools
from ..errors import N2uqError
from ..sim.rtl.netlists import cell_models
from .devices import Device

__all__ = ["Bitstream", "TooSlow", "cell_models", "constraints", "make_bitstream", "need_tools"]


class TooSlow(N2uqError):
    """The design reaches `fmax_mhz`, and the device's clock is faster."""

    def __init__(self, device: Device, fmax_mhz: float) -> None:
        self.fmax_mhz = fmax_mhz
        super().__init__(f"{device.name}: must run at {device.mhz} MHz, but reaches "
                         f"{fmax_mhz:.1f} MHz; another folding may")


@dataclass(frozen=True)
class Family:
    """How the devices of a family are made: Yosys' command, the modules of nextpnr and what follows
    it, and the names of files.
    """

    synth: str
    nextpnr: str
    constraints: str
    placed: str
    bitstream: str


# DSP blocks of the ECP5 stay out: products of 2 to 4 bits are cheaper in LUTs.
FAMILIES = {
    "ecp5": Family("synth_ecp5 -nodsp", "ecp5", "board.lpf", "board.config", "board.bit"),
    "ice40": Family("synth_ice40", "ice40", "board.pcf", "board.asc", "board.bin"),
    "gowin": Family("synth_gowin", "himbaechel_gowin", "board.cst", "placed.json", "board.fs"),
}


@dataclass(frozen=True)
class Bitstream:
    """What `make_bitstream` made.

    Members
    -------
    files: contents by name: bitstream, constraints, `netlist.v` as synthesized.
    fmax_mhz: that the clock reaches.
    utilization: used and available, per kind of cell.
    tools: versions by name.
    """

    files: dict[str, bytes]
    fmax_mhz: float
    utilization: dict[str, tuple[int, int]]
    tools: dict[str, str]


def constraints(device: Device) -> str:
    """Where the ports of the top lie, and the clock's frequency, as the family's tools read it."""
    if device.family == "ecp5":
        lines = [f'LOCATE COMP "{port}" SITE "{pin}";\nIOBUF PORT "{port}" IO_TYPE=LVCMOS33;'
                 for port, pin in device.pins.items()]
        lines.append(f'FREQUENCY PORT "clk" {device.mhz} MHZ;')
    elif device.family == "ice40":
        lines = [f"set_io {port} {pin}" for port, pin in device.pins.items()]
        lines.append(f"set_frequency clk {device.mhz}")
    else:
        lines = [f'IO_LOC "{port}" {pin};\nIO_PORT "{port}" IO_TYPE=LVCMOS33;'
                 for port, pin in device.pins.items()]
    return "\n".join((*lines, ""))


def need_tools(device: Device) -> None:
    """Raise N2uqError if a tool for the board is not installed."""
    tools.need_nextpnr(FAMILIES[device.family].nextpnr)
    if device.family == "gowin":
        tools.need_module("apycula", "bitstreams of Gowin devices", "board")


def _script(names: Sequence[str], top: str, command: str) -> str:
    """As in `builds.synth`: abc9 puts no design back in which a cell drives part of a wire."""
    command = f"{command} -top {top}"
    return "\n".join((
        *(f"read_verilog -sv {name}" for name in names if name.endswith(".v")),
        f"hierarchy -check -top {top}", "proc", "flatten", f"{command} -run begin:map_luts",
        "splitnets", "opt_clean", f"{command} -run map_luts:", "write_json synthesized.json",
        "write_verilog -noattr netlist.v", ""))


def make_bitstream(device: Device, verilog: Sequence[Path], top: str) -> Bitstream:
    """Synthesize, place, route and pack module `top` for the board; minutes for large ones.

    `verilog` are files with the .hex files that they read.  Raises TooSlow where the clock is too
    fast, and N2uqError where the device is too small and for faults of the tools.
    """
    need_tools(device)
    family = FAMILIES[device.family]
    with tools.scratch() as folder:
        for path in verilog:
            shutil.copy(path, folder)
        (folder / family.constraints).write_text(constraints(device), encoding="utf-8")
        tools.run_yosys(_script([path.name for path in verilog], top, family.synth), folder)
        tools.run_nextpnr(family.nextpnr, [*device.place, *_files(device), "--freq",
                                           str(device.mhz), "--seed", "1", "--timing-allow-fail",
                                           "--report", "report.json"], folder)
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        fmax = min(clock["achieved"] for clock in report["fmax"].values())
        if fmax < device.mhz:
            raise TooSlow(device, fmax)
        _pack(device, folder)
        names = (family.bitstream, family.constraints, "netlist.v")
        files = {name: (folder / name).read_bytes() for name in names}
    used = {name: (row["used"], row["available"]) for name, row in report["utilization"].items()
            if row["used"]}
    versions = {"pyosys": tools.yosys_version(), **tools.wheels(
        f"yowasp-nextpnr-{family.nextpnr.replace('_', '-')}",
        *["apycula"] * (device.family == "gowin"))}
    return Bitstream(files, fmax, used, versions)


def _files(device: Device) -> list[str]:
    """nextpnr's options that name files."""
    family = FAMILIES[device.family]
    read = ["--json", "synthesized.json"]
    if device.family == "gowin":
        return [*read, "--vopt", f"cst={family.constraints}", "--write", family.placed]
    pins, out = ("--lpf", "--textcfg") if device.family == "ecp5" else ("--pcf", "--asc")
    return [*read, pins, family.constraints, out, family.placed]


def _pack(device: Device, folder: Path) -> None:
    family = FAMILIES[device.family]
    if device.family == "gowin":
        tools.run([sys.executable, "-m", "apycula.gowin_pack", *device.pack, "-o",
                   family.bitstream, family.placed], cwd=folder, name="gowin_pack")
    elif device.family == "ecp5":
        tools.run_yowasp("ecp5", "ecppack", ["--compress", family.placed, family.bitstream], folder)
    else:
        tools.run_yowasp("ice40", "icepack", [family.placed, family.bitstream], folder)
