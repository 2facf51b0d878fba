"""The folding and the Verilog of a board's design."""

from __future__ import annotations

from ..builds.emit import port
from ..errors import N2uqError
from ..hw.accelerator import WRAPPER, module_name
from ..hw.board import Board, Side
from ..hw.library import Library
from ..hw.link import FRAME
from ..hw.passes import hardware_graph
from ..ir import Graph
from ..ir.folding import Folding, reach
from ..plan.choice import fold
from ..plan.plan import Plan
from ..tools import rtlil_to_verilog
from .devices import Device

__all__ = ["TOP", "board_verilog", "divisor_of", "plan_for", "sides"]

TOP = "board"  # the top's module, behind the network's name
SHARE = 0.8    # of a device's LUTs, by estimate: nextpnr needs room to place


def divisor_of(device: Device, baud: int) -> int:
    """Cycles per bit; raises N2uqError where the line's speed differs by more than 2 percent."""
    if not 300 <= baud <= device.mhz * 1_000_000 // 4:
        raise N2uqError(f"baud must be in 300..{device.mhz * 250_000:,} on {device.name}, "
                        f"not {baud}")
    divisor = round(device.mhz * 1e6 / baud)
    if abs(device.mhz * 1e6 / divisor / baud - 1) > 0.02:
        raise N2uqError(f"baud must divide {device.mhz} MHz within 2 %, not {baud}: "
                        f"{device.mhz * 1e6 / divisor:,.0f} is what comes next")
    return divisor


def plan_for(graph: Graph, device: Device, divisor: int, *, cycles: int | None = None) -> Plan:
    """The cheapest folding that keeps up with the serial line, or takes `cycles` per image at most.

    Where the device has too few LUTs for that, the fastest one that fits, by estimate.
    """
    edge = graph.edges[graph.input.name]
    frame = -(-edge.width // 8) * edge.size + FRAME + 2
    wanted = max(reach(graph)[0], 10 * divisor * frame) if cycles is None else cycles
    plan = fold(graph, cycles=wanted, family="ecp5", search=False)
    room = int(SHARE * device.luts)
    if plan.luts > room and cycles is None:
        plan = fold(graph, luts=room, family="ecp5")
    return plan


def sides(graph: Graph, folding: Folding) -> tuple[Side, Side]:
    """The accelerator's input and its output."""
    hardware, folds = hardware_graph(graph, folding)
    names = hardware.input.name, hardware.output
    source, output = (Side(hardware.edges[name], port(hardware, folds, name).lanes)
                      for name in names)
    return source, output


def board_verilog(graph: Graph, folding: Folding, device: Device, divisor: int,
                  identity: bytes) -> str:
    """Verilog of the top, without the accelerator's."""
    source, output = sides(graph, folding)
    kind = graph.meta.get("output", "logits")
    if output.edge.shape[:2] != (1, 1):
        kind = "map"
    library, name = Library(), module_name(graph, TOP)
    library.signature(name, lambda: Board(
        module_name(graph, WRAPPER), source, output, kind=kind, divisor=divisor,
        identity=identity, leds=len(device.leds), leds_low=device.leds_low,
        high=bool(device.high)))
    return rtlil_to_verilog("\n".join(library.rtlil().values()))
