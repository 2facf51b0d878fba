"""What the nets of a netlist drive: pins of cells, by module."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import tools
from .synth import Synthesis

__all__ = ["Pins", "netlist_pins"]


@dataclass(frozen=True)
class Pins:
    """A module of a netlist: its instances of other modules, and its nets.

    Of each net: the signals and bits that are its names, how many pins of cells drive it, and how
    many input pins of cells it drives.  Cells are leaves; other modules have theirs.
    """

    instances: dict[str, str]
    nets: list[tuple[list[tuple[str, int]], int, int]]


def netlist_pins(synthesis: Synthesis) -> dict[str, Pins]:
    """The modules of what `synthesize` made, netlist kept, the top first."""
    name, family = Path(synthesis.netlist), synthesis.family
    folder = "xilinx" if family in ("xcup", "xc7") else family
    libraries = [f"+/{folder}/{file}.v" for file in ("cells_sim", "cells_xtra", "cells_bb")
                 if (tools.yosys_share() / folder / f"{file}.v").is_file()]
    script = "\n".join([*(f"read_verilog -lib -nowb {library}" for library in libraries),
                        f"read_verilog {name.name}", f"hierarchy -top {synthesis.top}",
                        "write_json pins.json"])
    with tools.scratch() as work:
        shutil.copy(name, work)
        tools.run_yosys(script, work)
        modules = json.loads((work / "pins.json").read_text(encoding="utf-8"))["modules"]
    own = {module: row for module, row in modules.items()
           if not int(row["attributes"].get("blackbox", "0"), 2)}
    order = [synthesis.top, *(module for module in own if module != synthesis.top)]
    return {module: _module_pins(own[module], own) for module in order}


def _module_pins(module: Mapping[str, Any], own: Mapping[str, Any]) -> Pins:
    names: dict[int, list[tuple[str, int]]] = {}
    for signal, row in module["netnames"].items():
        for k, bit in enumerate(row["bits"]):
            if isinstance(bit, int):
                names.setdefault(bit, []).append((signal, k))
    instances, drives, loads = dict[str, str](), Counter[int](), Counter[int]()
    for cell, row in module["cells"].items():
        if row["type"] in own:
            instances[cell] = row["type"]
            continue
        for pin, bits in row["connections"].items():
            count = drives if row["port_directions"][pin] == "output" else loads
            count.update(bit for bit in bits if isinstance(bit, int))
    return Pins(instances, [(names[bit], drives[bit], loads[bit])
                            for bit in sorted(drives.keys() | loads.keys())])
