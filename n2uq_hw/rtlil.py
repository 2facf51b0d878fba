"""From RTLIL to Verilog that linters take: ``python rtlil.py IN OUT``, a process of its own.

Yosys ends its process when it meets an error, which is one line of its log that begins with ERROR.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from pyosys import libyosys as yosys

# Attributes that say where something comes from.
_STRIP = " ".join(f"-remove {attribute}" for attribute in
                  ("generator", "top", "src", "amaranth.hierarchy", "amaranth.decoding", "filled"))
PASSES = (
    # A register with its enable is one statement, where Amaranth writes a process of ten lines:
    # Verilator takes a tenth of the time and its simulators run thrice as fast.
    # A choice among several becomes a tree of choices among two: linters say that a casez overlaps.
    "proc -norom", "pmuxtree", "opt_clean", "opt_dff", "opt_clean",
    # A RAM is read where it was written: no line of Verilog for each of its first values, but of
    # one that says that it is filled.
    "memory_collect", "select -set rams t:$mem_v2 r:WR_PORTS>0 %i a:filled %d",
    "setparam -set INIT 1'x @rams",
    f"attrmap {_STRIP}", f"attrmap -modattr {_STRIP}", "widths",
    # Where a register is gone that nothing reads, so is its first value.
    "opt_clean", "setattr -unset init w:* t:$*dff* %co1:+[Q] %d", "drive",
    # Icarus takes even an escaped name that begins with $ for a system function.
    # A port keeps its name: cells of other modules connect to it.
    "rename -enumerate", "rename -unescape w:* x:* %d c:* %u")

ARITHMETIC = {"$add", "$sub", "$neg", "$not", "$and", "$or", "$xor", "$xnor"}
COMPARISONS = {"$lt", "$le", "$eq", "$ne", "$ge", "$gt"}
SHIFTS = {"$shr", "$sshr", "$shift"}  # what amount has no sign

A, B, Y = (yosys.IdString(f"\\{port}") for port in "ABY")


def widen(module: Any, cell: Any) -> None:
    """Give operands and result the widths that Verilog's linters expect of them; same values.

    That is what Verilog does by itself.  Products keep theirs: no linter asks, and a DSP block is
    found by them.
    """
    kind = cell.type.str()
    if kind == "$logic_not":  # !word
        cell.type = yosys.IdString("$eq")
        cell.setPort(B, yosys.SigSpec(0, cell.getPort(A).size()))
        cell.setParam(yosys.IdString("\\B_SIGNED"), cell.getParam(yosys.IdString("\\A_SIGNED")))
        cell.fixup_parameters()
    elif kind in ARITHMETIC:
        _extend(cell, cell.getPort(Y).size())
    elif kind in COMPARISONS:
        _extend(cell, max(cell.getPort(A).size(), cell.getPort(B).size()))
    elif kind in SHIFTS and cell.getPort(A).size() > cell.getPort(Y).size():
        whole = yosys.SigSpec(module.addWire(module.uniquify(yosys.IdString("$shifted")),
                                             cell.getPort(A).size()))
        module.connect(cell.getPort(Y), whole.extract(0, cell.getPort(Y).size()))
        cell.setPort(Y, whole)
        cell.fixup_parameters()
    elif kind in SHIFTS | {"$shl"}:
        _extend(cell, cell.getPort(Y).size(), (A,))


def _extend(cell: Any, width: int, ports: tuple[Any, ...] = (A, B)) -> None:
    """Let the operands at `ports` have `width` bits."""
    ports = tuple(port for port in ports if cell.hasPort(port))
    signed = all(cell.getParam(yosys.IdString(f"{port.str()}_SIGNED")).as_bool()
                 for port in ports)
    for port in ports:
        operand = cell.getPort(port)
        if operand.size() != width:
            operand.extend_u0(width, signed)
            cell.setPort(port, operand)
    cell.fixup_parameters()


def widths(module: Any) -> None:
    """`widen` all cells, after opt_clean.

    Dead bits of wires without a name, in whose place cells read what drives them, go: they would
    make a loop of the wire.
    """
    module.new_connections(yosys.SigsigVector(
        [pair for pair in module.connections()
         if not pair[0].lsb().wire.name.str().startswith("$")]))
    for cell in module.selected_cells():
        widen(module, cell)


def drive(module: Any) -> None:
    """Let 0 drive the names of what is gone, for nothing reads it."""
    driven = {bit.wire.name.str() for cell in module.selected_cells()
              for port, signal in cell.connections().items()
              if cell.output(port) or not cell.known()  # such as a memory with a file
              for bit in _ends(signal) if bit.wire is not None}
    driven |= {pair[0].lsb().wire.name.str() for pair in module.connections()}
    for wire in module.selected_wires():
        if wire.name.str() not in driven and not wire.port_input:
            module.connect(yosys.SigSpec(wire), yosys.SigSpec(0, wire.width))


def _ends(signal: Any) -> list[Any]:
    """A bit of each wire in `signal`, at least."""
    return [signal.lsb()] if signal.is_chunk() else list(signal.to_sigbit_vector())


class Each(yosys.Pass):  # type: ignore[misc]
    """A command of Yosys that does `change` to each module."""

    def __init__(self, change: Callable[[Any], None]) -> None:
        self.change = change
        super().__init__(change.__name__, str(change.__doc__))

    def execute(self, args: Any, design: Any) -> None:
        """Called by Yosys."""
        for module in design.all_selected_modules():
            self.change(module)


def main(source: str, target: str) -> None:
    """Write the modules of the RTLIL file `source` to the Verilog file `target`."""
    ours = Each(widths), Each(drive)  # held, for Yosys does not hold them
    for command in (f"read_rtlil {source}", *PASSES, f"write_verilog -norename {target}"):
        yosys.run_pass(command)
    del ours


if __name__ == "__main__":
    main(*sys.argv[1:])
