"""Verilog to simulate beside a build's own: cells of FPGAs, and registers without a start."""

from __future__ import annotations

import re
from pathlib import Path

from n2uq_hw import tools

__all__ = ["CELLS", "cell_models", "shortened", "unset"]

CELLS = Path(__file__).with_name("cells")  # models of what Yosys leaves as black boxes, by family
_START = re.compile(r"^(?P<register> *reg [^;\n]*;) initial [^;\n]*;$", re.MULTILINE)
_NAME = re.compile(r"\\(?P<escaped>\S+)|(?<![\w'\\])(?P<plain>[A-Za-z_]\w{99,})")
_LONGEST = 100  # characters of a name: Verilator cannot dump signals below names of over 127
_FOLDERS = {"xcup": "xilinx"}  # of Yosys, where it has another name


def cell_models(family: str) -> list[Path]:
    """Verilog models of the family's cells, and the files that these include.

    Ours come first: Verilator takes the first of two modules of a name, and Yosys has black boxes.
    A cell that nothing models is an error of Verilator.
    """
    folder = tools.yosys_share() / _FOLDERS.get(family, family)
    ours = [CELLS / f"{family}.v", CELLS / "block_ram.v"]
    return [*(path for path in ours if ours[0].exists()), folder / "cells_sim.v",
            *sorted(folder.glob("*.vh"))]


def unset(verilog: str) -> str:
    """`verilog` as `tools.rtlil_to_verilog` writes it, with no value in a register at the start.

    Contents of memories stay: they are the network.
    """
    return _START.sub(r"\g<register>", verilog)


def shortened(verilog: str) -> tuple[str, dict[str, str]]:
    """`verilog` with its long names cut and numbered, and these names by the short ones.

    Yosys names cells after all that they are connected to.  Verilator spells out a character that
    is no letter, digit or underscore in seven.
    """
    short: dict[str, str] = {}

    def cut(match: re.Match[str]) -> str:
        name = match["escaped"] or match["plain"]
        if len(name) + 6 * len(re.findall(r"\W", name)) <= _LONGEST:
            return match[0]
        start = re.sub(r"\W", "_", name)[:40]
        return "\\" * bool(match["escaped"]) + short.setdefault(name, f"{start}_n{len(short)}")

    text = _NAME.sub(cut, verilog)
    return text, {new: name for name, new in short.items()}
