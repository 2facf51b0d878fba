"""The registers behind AXI4-Lite as SystemRDL and as a Markdown table, from the one source."""

from __future__ import annotations

from ..hw.registers import ACCESSES, ADDRESS_BITS, REGISTERS, Register, identity, registers_of
from ..ir import Graph
from ..templates import render

__all__ = ["describe_registers", "registers_table"]

# What SystemRDL calls each access: by software, by hardware, and what else is true of it.
RDL = {"constant": ("r", "na", ()), "counter": ("r", "w", ()), "bit": ("rw", "r", ()),
       "pulse": ("w", "r", ("singlepulse",)), "live": ("r", "w", ()),
       "sticky": ("rw", "r", ("hwset", "onwrite = woclr"))}


def describe_registers(graph: Graph, version: str) -> dict[str, str]:
    """Texts by file name: `control.rdl` and `control.md` of a build of `graph`."""
    constants, registers = identity(graph, version), registers_of(graph)
    values = {register.name: register.constant(constants) for register in registers}
    return {"control.rdl": render("control.rdl.j2", name=graph.name, version=version, rdl=RDL,
                                  registers=registers, values=values, bits=ADDRESS_BITS),
            "control.md": f"# Registers of {graph.name}, n2uq-hw {version}\n\n"
                          + registers_table(values, registers)}


def registers_table(values: dict[str, int] | None = None,
                    registers: tuple[Register, ...] = REGISTERS) -> str:
    """The registers as a Markdown table, a row per field; `values` are those of constant ones."""
    return render("control.md.j2", registers=registers, accesses=ACCESSES, values=values or {})
