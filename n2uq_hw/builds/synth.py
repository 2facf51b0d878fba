"""What a design costs on an FPGA: synthesis with Yosys, place and route with nextpnr."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from .. import tools
from ..errors import N2uqError
from ..files import write_file
from ..hw.accelerator import module_name, module_names
from ..hw.compressor_mac import PRIMITIVES
from ..hw.passes import hardware_graph
from ..ir import Flatten, Graph, Input
from ..ir.folding import Folding
from .emit import Build, accelerator_verilog
from .paths import TimingPath, of_netlist, of_sdf, specified, worst

__all__ = ["FAMILIES", "PATHS", "PLACED", "Pnr", "Resources", "Synthesis", "TooLargeError",
           "logic_paths", "place_and_route", "synthesize", "synthesize_build",
           "synthesize_folding"]


class TooLargeError(N2uqError):
    """A design that no device of its family holds."""


@dataclass(frozen=True)
class Resources:
    """Cells by kind.

    Members
    -------
    lut: LUTs that compute: LUT6 (xcup, xc7) or LUT4 (ecp5, ice40, adders included).
    carry: carry cells, CARRY4 and CARRY8 (4 and 8 bits), CCU2C (2), SB_CARRY (1).
    ff: flip-flops.
    bram: block RAMs of 18 kbit (xcup, xc7: halves of 36 kbit; ecp5) or 4 kbit (ice40).
    lutram: LUTs that serve as memory or shift register, beside `lut`.
    dsp: multiplier blocks.
    inv: inverters that Yosys left apart; they vanish into the neighbours' LUTs.
    """

    lut: int = 0
    carry: int = 0
    ff: int = 0
    bram: int = 0
    lutram: int = 0
    dsp: int = 0
    inv: int = 0


@dataclass(frozen=True)
class Synthesis:
    """Result of `synthesize`.

    `units` holds what ONE instance of each unit costs, all below it included; `cells` the whole
    design's cells by the vendor's name; `pads` is the bits of the top's ports; `version` is
    Yosys's; `netlist`, the file of these cells in Verilog, "" where it was not asked for.
    """

    top: str
    family: str
    total: Resources
    units: dict[str, Resources]
    cells: dict[str, int]
    pads: int
    version: str
    script: str
    netlist: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


@dataclass(frozen=True)
class Pnr:
    """Result of `place_and_route`.

    `fmax_mhz` is of the slowest clock; `utilization` gives used and available per kind of cell;
    `critical_path` has a line per cell or net with its delay; `paths` are the `PATHS` longest.
    """

    top: str
    family: str
    device: str
    fmax_mhz: float
    utilization: dict[str, tuple[int, int]]
    critical_path: str
    paths: tuple[TimingPath, ...]
    seed: int
    version: str
    script: str

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


# Synthesis command, its option without DSP blocks, and the one with them.
FAMILIES = {
    "xcup": ("synth_xilinx -family xcup", "-nodsp", ""),
    "xc7": ("synth_xilinx -family xc7", "-nodsp", ""),
    "ecp5": ("synth_ecp5 -nowidelut", "-nodsp", ""),
    "ice40": ("synth_ice40", "", "-dsp"),
}
XILINX = "xcup", "xc7"


# What reads Verilog: for Xilinx the primitives of compressor trees, by the macro that has them.
SOURCE = "read_verilog -sv"
CELLS = "read_verilog -lib +/xilinx/cells_sim.v"  # before a hierarchy is checked that has them

# Yosys 0.70 gives RAM512X1S 16 bits of address, for 9, in its table of UltraScale's LUT memories:
# a memory of one port and more than 256 words ends the synthesis.
LUTRAMS = "lutrams_xcu.txt"
WRONG, RIGHT = (f'"ABITS" {bits} {{\n\t\tabits {bits};' for bits in (16, 9))
# Commands before `map_memory`, which finds nothing left: as it has them, but with the right table.
MEMORIES = {"xcup": (
    f"memory_libmap -logic-cost-rom 0.015625 -lib {LUTRAMS} -lib +/xilinx/brams_xc4v.txt "
    "-D HAS_SIZE_36 -D HAS_MIXWIDTH_SDP -D HAS_ADDRCE -lib +/xilinx/urams.txt -no-auto-huge",
    "techmap -map +/xilinx/lutrams_xc5v_map.v")}
NETLIST = "netlist.v"
PATHS = 100  # that are kept of a design


def _cells(kind: str, names: str, weight: int = 1) -> dict[str, Resources]:
    return {name: Resources(**{kind: weight}) for name in names.split()}


# A cell type that is not here is an error: nothing may count as free because nobody knew it.
_COST: dict[str, Resources] = {
    **_cells("lut", "LUT1 LUT2 LUT3 LUT4 LUT5 LUT6 LUT6_2 SB_LUT4"),
    **_cells("inv", "INV"),
    **_cells("carry", "CARRY4 CARRY8 SB_CARRY"),
    "CCU2C": Resources(lut=2, carry=1),  # an adder of two bits takes the place of two LUT4
    **_cells("ff", "FDRE FDSE FDCE FDPE FDRE_1 FDSE_1 FDCE_1 FDPE_1 LDCE LDPE TRELLIS_FF"),
    **_cells("ff", " ".join(f"SB_DFF{edge}{rest}" for edge in ("", "N") for rest in
                            ("", "E", "SR", "R", "SS", "S", "ESR", "ER", "ESS", "ES"))),
    **_cells("bram", "RAMB18E1 RAMB18E2 DP16KD PDPW16KD"),
    **_cells("bram", "SB_RAM40_4K SB_RAM40_4KNR SB_RAM40_4KNW SB_RAM40_4KNRNW"),
    **_cells("bram", "RAMB36E1 RAMB36E2", 2),
    **_cells("lutram", "SRL16E SRLC16E SRLC32E RAM32X1S RAM64X1S"),
    **_cells("lutram", "RAM32X1D RAM64X1D RAM128X1S", 2),
    **_cells("lutram", "RAM32M RAM64M RAM128X1D RAM256X1S", 4),
    **_cells("lutram", "RAM32M16 RAM64M8 RAM256X1D RAM512X1S RAM32X16DR8 RAM64X8SW", 8),
    **_cells("lutram", "TRELLIS_DPR16X4", 6),  # 4 hold the data, 2 lie under the write port
    **_cells("dsp", "DSP48E1 DSP48E2 MULT18X18D SB_MAC16"),
    # Part of every slice, or of the pads and the clock network; and names that cost nothing.
    **_cells("lut", "MUXF7 MUXF8 MUXF9 PFUMX L6MUX21 IBUF IBUFG OBUF OBUFT IOBUF BUFG BUFGCTRL "
             "VCC GND VHI VLO TRELLIS_IO DCCA SB_IO SB_GB SB_GB_IO $scopeinfo", 0),
}

# Options, what there is of LUT4, block RAM and DSP, and pads; from the smallest device on.
# nextpnr-ice40 always makes pads of the ports, nextpnr-ecp5 can leave them.
PLACED: dict[str, dict[str, tuple[list[str], Resources, int]]] = {
    "ecp5": {
        f"LFE5U-{size}F": ([f"--{size}k", "--package", "CABGA381", "--out-of-context"],
                           Resources(lut=lut, ff=lut, bram=bram, dsp=dsp), 1 << 31)
        for size, lut, bram, dsp in ((25, 24_288, 56, 28), (45, 43_848, 108, 72),
                                     (85, 83_640, 208, 156))},
    "ice40": {
        f"iCE40HX{size}K": ([f"--hx{size}k", "--package", package],
                            Resources(lut=lut, ff=lut, bram=bram), pads)
        for size, package, lut, bram, pads in ((1, "tq144", 1280, 16, 96),
                                               (4, "tq144", 3520, 20, 107),
                                               (8, "ct256", 7680, 32, 206))},
}


def _total(cells: Mapping[str, int]) -> Resources:
    """The resources of leaf `cells` by type."""
    unknown = sorted(set(cells) - set(_COST))
    if unknown:
        raise N2uqError(f"{unknown[0]}: cell type without a known cost, {cells[unknown[0]]} used")
    return Resources(**{field.name: sum(getattr(_COST[name], field.name) * count
                                        for name, count in cells.items())
                        for field in fields(Resources)})


def _leaves(modules: Mapping[str, Mapping[str, int]], name: str) -> Counter[str]:
    """Leaf cells of a module and all below it, from each module's own cells."""
    leaves: Counter[str] = Counter()
    for cell, count in modules[name].items():
        for leaf, times in (_leaves(modules, cell) if cell in modules else {cell: 1}).items():
            leaves[leaf] += count * times
    return leaves


def _script(files: Sequence[str], top: str, family: str, units: Sequence[str], dsp: bool,
            *end: str) -> str:
    command, without, with_ = FAMILIES[family]
    command = f"{command} -top {top} {with_ if dsp else without}".rstrip()
    mapped = [f"{command} -run begin:map_luts"] if family not in MEMORIES else [
        f"{command} -run begin:map_memory", *MEMORIES[family],
        f"{command} -run map_memory:map_luts"]
    source, *cells = (f"{SOURCE} -D {PRIMITIVES}", CELLS) if family in XILINX else (SOURCE,)
    return "\n".join([
        *cells, *(f"{source} {name}" for name in files if not name.endswith(".hex")),
        f"hierarchy -check -top {top}",
        *(f"setattr -mod -set keep_hierarchy 1 {unit}" for unit in units),
        # Yosys 0.70 fails an assertion (count_id(wire->name) == 0, or GetSize(conn.first) ==
        # GetSize(conn.second)) when abc9 puts back a design in which a cell drives only part of a
        # wire; after splitnets no wire has parts.
        "proc", "flatten", *mapped, "splitnets", "opt_clean", f"{command} -run map_luts:",
        *end, ""])


def _cached(verilog: Sequence[Path], work: Path, name: str, key: Sequence[object],
            compute: Callable[[Path], dict[str, Any]], beside: str = ""
            ) -> tuple[dict[str, Any], Path]:
    """The JSON file of an earlier `compute` with the same `key` and Verilog, or a new one.

    `compute` is given a folder that has the Verilog under its own names, and vanishes after.  What
    it makes there under the name `beside` is kept beside the JSON: the path.
    """
    names = [path.name for path in verilog]
    if not names or len(set(names)) != len(names):
        raise N2uqError(f"verilog: file names must be given and differ, not {names}")
    try:
        texts = [hashlib.sha256(path.read_bytes()).hexdigest() for path in verilog]
        digest = hashlib.sha256(json.dumps([names, texts, key]).encode()).hexdigest()
        result = work / f"{name}-{digest[:16]}.json"
        other = result.with_suffix(Path(beside).suffix)
        if result.is_file() and (other.is_file() or not beside):
            earlier: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
            return earlier, other
        with tools.scratch() as scratch:
            for path in verilog:
                shutil.copy(path, scratch)
            counts = compute(scratch)
            work.mkdir(parents=True, exist_ok=True)
            if beside:
                write_file(other, (scratch / beside).read_bytes())
        write_file(result, json.dumps(counts, indent=1) + "\n")
        return counts, other
    except OSError as error:
        raise N2uqError(f"{error.filename2 or error.filename or work}: {error.strerror}") from None


def synthesize(verilog: Sequence[Path], top: str, family: str, *, units: Sequence[str] = (),
               dsp: bool = True, netlist: bool = False, work: Path) -> Synthesis:
    """Synthesize module `top` with Yosys and count its cells.

    Parameters
    ----------
    verilog: the files, no two of one name; .hex files are there for these to read.
    family: "xcup" (UltraScale+), "xc7" (7 series), "ecp5" or "ice40".
    units: modules to keep apart and count one by one; all others flatten into these and `top`.
    dsp: whether products may use multiplier blocks.
    netlist: keep what was made as Verilog, too.
    work: folder in which results are kept; the same question is answered from there.

    Raises N2uqError for a fault of Yosys, a unit that is not in the design, and a cell type
    whose cost is not known.
    """
    if family not in FAMILIES:
        raise N2uqError(f"family: must be one of {', '.join(FAMILIES)}, not {family or 'nothing'}")
    script = _script([path.name for path in verilog], top, family, units, dsp,
                     "tee -q -o stat.json stat -json",
                     *[f"write_verilog -noattr {NETLIST}"] * netlist)

    def compute(folder: Path) -> dict[str, Any]:
        if family in MEMORIES:
            table = (tools.yosys_share() / "xilinx" / LUTRAMS).read_text(encoding="utf-8")
            (folder / LUTRAMS).write_text(table.replace(WRONG, RIGHT), encoding="utf-8")
        tools.run_yosys(script, folder)
        stat = json.loads((folder / "stat.json").read_text(encoding="utf-8"))["modules"]
        modules = {name.removeprefix("\\"): row["num_cells_by_type"] for name, row in stat.items()}
        missing = [name for name in units if name not in modules]
        if missing:
            raise N2uqError(f"{missing[0]}: must be a module of the design {top}, and is not")
        cells = _leaves(modules, top)
        return {"cells": dict(sorted(cells.items())),
                "pads": stat["\\" + top]["num_port_bits"], "total": asdict(_total(cells)),
                "units": {name: asdict(_total(_leaves(modules, name))) for name in units}}

    version = tools.yosys_version()
    counts, beside = _cached(verilog, work, top,
                             [family, script, version, repr(sorted(_COST.items()))], compute,
                             NETLIST * netlist)
    return Synthesis(top, family, Resources(**counts["total"]),
                     {name: Resources(**row) for name, row in counts["units"].items()},
                     counts["cells"], counts["pads"], version, script,
                     str(beside) if netlist else "")


def synthesize_build(build: Build, family: str, *, dsp: bool = True) -> Synthesis:
    """Synthesize a build's accelerator; `units` has a row per node of the hardware graph.

    Its netlist is kept, too: `verify` simulates the same cells that are counted here.
    """
    return _by_units(build.graph, build.folding, build.verilog, family, dsp=dsp, netlist=True,
                     work=build.path / "synthesis")


def synthesize_folding(graph: Graph, folding: Folding, family: str, *, dsp: bool = True
                       ) -> Synthesis:
    """What `synthesize_build` counts of a build of `graph` in this folding, without a build."""
    with tools.scratch() as folder:
        files = []
        for name, text in accelerator_verilog(graph, folding).items():
            files.append(folder / name)
            files[-1].write_text(text, encoding="utf-8")
        return _by_units(graph, folding, files, family, dsp=dsp, work=folder / "synthesis")


def _by_units(graph: Graph, folding: Folding, verilog: Sequence[Path], family: str,
              **options: Any) -> Synthesis:
    """The accelerator, each unit of the hardware graph kept apart and counted."""
    graph, _ = hardware_graph(graph, folding)
    names = module_names(graph)
    modules = {names[node.name]: node.name for node in graph.nodes
               if not isinstance(node, Input | Flatten)}
    result = synthesize(verilog, module_name(graph), family, units=tuple(modules), **options)
    return replace(result, units={modules[name]: used for name, used in result.units.items()})


def _short(need: Resources, pads: int, limit: Resources, pads_limit: int) -> str:
    """What a device with these limits lacks, as text; "" if nothing."""
    pairs = {kind: (getattr(need, kind), getattr(limit, kind))
             for kind in ("lut", "ff", "bram", "dsp")}
    pairs["pads"] = pads, pads_limit
    return ", ".join(f"{used} {kind} of {there}" for kind, (used, there) in pairs.items()
                     if used > there)


def place_and_route(verilog: Sequence[Path], top: str, family: str, *, seed: int = 1,
                    dsp: bool = True, work: Path) -> Pnr:
    """Place and route module `top` on the smallest device it fits.

    Ports stay out of it on ecp5 (out of context); on ice40 each of their bits takes a pad.

    Parameters
    ----------
    family: "ecp5" or "ice40" (HX devices, which have no DSP blocks).
    seed: of the placer.
    verilog, dsp, work: as for `synthesize`.

    Raises TooLargeError if no device is large enough, N2uqError if the design has no clock to time.
    """
    if family not in PLACED:
        raise N2uqError(f"family: place and route needs one of {', '.join(PLACED)}, "
                        f"not {family or 'nothing'}")
    tools.need_nextpnr(family)
    dsp = dsp and family != "ice40"
    result = synthesize(verilog, top, family, dsp=dsp, work=work)
    # A LUT that serves as memory fills its place like any other.
    need = replace(result.total, lut=result.total.lut + result.total.lutram)
    lacks = {name: _short(need, result.pads, limit, pads)
             for name, (_, limit, pads) in PLACED[family].items()}
    device = next((name for name, lack in lacks.items() if not lack), "")
    if not device:
        largest, lack = list(lacks.items())[-1]
        raise TooLargeError(f"{top}: must fit {largest}, the largest {family} device, "
                            f"but needs {lack}")
    script = _script([path.name for path in verilog], top, family, (), dsp, "write_json top.json")
    options = [*PLACED[family][device][0], "--json", "top.json", "--timing-allow-fail",
               "--seed", str(seed), "--report", "report.json", "--sdf", "delays.sdf"]

    def compute(folder: Path) -> dict[str, Any]:
        tools.run_yosys(script, folder)
        tools.run_nextpnr(family, options, folder)
        report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        delays = of_sdf((folder / "delays.sdf").read_text(encoding="utf-8"))
        return report | {"paths": [asdict(path) for path in worst(delays, PATHS)]}

    version = tools.versions()[f"yowasp-nextpnr-{family}"]
    report, _ = _cached(verilog, work, f"{top}-{device}",
                        [script, options, version, tools.yosys_version()], compute)
    if not report["fmax"]:
        raise N2uqError(f"{top}: must have a clock to be timed, and has none")
    clock, speed = min(report["fmax"].items(), key=lambda item: item[1]["achieved"])
    return Pnr(top, family, device, speed["achieved"],
               {name: (row["used"], row["available"])
                for name, row in report["utilization"].items()},
               _path_text(report["critical_paths"], clock), _paths(report["paths"]), seed, version,
               script)


def logic_paths(synthesis: Synthesis) -> tuple[TimingPath, ...]:
    """The `PATHS` longest paths of what `synthesize` made for xcup or xc7, netlist kept.

    Delays are those that Yosys has, of cells of Artix-7; it has none of wires, of DSP blocks and
    of most memories.
    """
    name = Path(synthesis.netlist)
    script = "\n".join([*(f"read_verilog -lib -nowb +/xilinx/{cells}.v" for cells in (
        "cells_sim", "cells_xtra")), f"read_verilog {name.name}",
        f"hierarchy -top {synthesis.top}", "flatten", "write_json flat.json"])

    def compute(folder: Path) -> dict[str, Any]:
        tools.run_yosys(script, folder)
        design = json.loads((folder / "flat.json").read_text(encoding="utf-8"))["modules"]
        cells = (tools.yosys_share() / "xilinx" / "cells_sim.v").read_text(encoding="utf-8")
        delays = of_netlist(design[synthesis.top], specified(cells))
        return {"paths": [asdict(path) for path in worst(delays, PATHS)]}

    found, _ = _cached([name], name.parent, f"{synthesis.top}-paths",
                       [script, synthesis.version], compute)
    return _paths(found["paths"])


def _paths(rows: Sequence[Mapping[str, Any]]) -> tuple[TimingPath, ...]:
    """Paths as they are kept in JSON."""
    return tuple(TimingPath(**{**row, "units": tuple(row["units"])}) for row in rows)


def _path_text(paths: Sequence[Mapping[str, Any]], clock: str) -> str:
    """The critical path within `clock`, a line per step: delay in ns, kind, from, to."""
    for path in paths:
        if clock in path["from"] and clock in path["to"]:
            return "\n".join(
                f"{step['delay']:6.2f} {step['type']:8} {step['from']['cell']}"
                + (f" -> {step['to']['cell']}" if step["to"]["cell"] != step["from"]["cell"]
                   else "") for step in path["path"])
    return ""
