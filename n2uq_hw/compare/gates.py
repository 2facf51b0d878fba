"""Verilog as CMOS gates: how many, their transistors, and a simulation that counts toggles.

It is the gates whose cost is counted that are simulated: what proves them also shows how often each
of their nets switches.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np

from .. import tools
from ..errors import N2uqError
from ..sim.rtl.harness import pack, unpack

__all__ = ["SCRIPT", "STREAMS", "Netlist", "map_gates"]

STREAMS = 64  # independent simulations side by side, each a bit of a word

# A register's enable and reset are gates before it, a memory is registers.
SCRIPT = """synth -flatten -top {top} -noabc
dfflegalize -cell $_DFF_P_ 01
abc -g cmos
opt_clean
tee -q -o stat.json stat -json -tech cmos
write_json gates.json"""

# Yosys's cells by their pins, in words: an inversion is of every bit.
_GATES: dict[str, Callable[..., np.ndarray]] = {
    "$_BUF_": lambda A: A,
    "$_NOT_": lambda A: ~A,
    "$_AND_": lambda A, B: A & B,
    "$_NAND_": lambda A, B: ~(A & B),
    "$_OR_": lambda A, B: A | B,
    "$_NOR_": lambda A, B: ~(A | B),
    "$_XOR_": lambda A, B: A ^ B,
    "$_XNOR_": lambda A, B: ~(A ^ B),
    "$_MUX_": lambda A, B, S: A ^ (A ^ B) & S,
    "$_NMUX_": lambda A, B, S: ~(A ^ (A ^ B) & S),
    "$_AOI3_": lambda A, B, C: ~(A & B | C),
    "$_OAI3_": lambda A, B, C: ~((A | B) & C),
    "$_AOI4_": lambda A, B, C, D: ~(A & B | C & D),
    "$_OAI4_": lambda A, B, C, D: ~((A | B) & (C | D)),
}
_PINS = {kind: tuple(signature(gate).parameters) for kind, gate in _GATES.items()}
_CONSTANTS = {"0": 0, "1": 1, "x": 0, "z": 0}  # nets 0 and 1; Yosys numbers the others from 2 on


class Netlist:
    """Gates and flip-flops of one clock, simulated by cycles, without delay, in STREAMS streams.

    A cycle is: `set` inputs, `settle`, `get` outputs, `clock`.  Flip-flops start at 0.

    Parameters
    ----------
    module: of a JSON netlist of Yosys.
    transistors: of all cells.

    Members
    -------
    gates, flops: how many.
    fanout: int64 [nets], the pins of gates and flip-flops that a net drives, clock pins apart.
    widths: of each port, whether it is an output (1, else 0) and its bits.
    toggles: int64 [nets], how often each changed from a cycle to the next while `counting`, in all
        streams.
    """

    def __init__(self, module: Mapping[str, Any], transistors: int = 0) -> None:
        def nets(bits: list[Any]) -> list[int]:
            return [_CONSTANTS.get(bit, bit) for bit in bits]

        self.transistors, self.counting = transistors, False
        self._ports = {name: (np.array(nets(port["bits"])), bool(port.get("signed")))
                       for name, port in module["ports"].items()}
        self.widths = {name: [int(port["direction"] == "output"), len(port["bits"])]
                       for name, port in module["ports"].items()}
        drivers: dict[int, tuple[str, list[int]]] = {}
        flops: list[tuple[int, int]] = []
        for cell in module["cells"].values():
            kind = cell["type"]
            at = {pin: nets(bits)[0] for pin, bits in cell["connections"].items()}
            if kind == "$_DFF_P_":
                flops.append((at["D"], at["Q"]))
            elif kind in _GATES:
                drivers[at["Y"]] = kind, [at[pin] for pin in _PINS[kind]]
            else:
                raise N2uqError(f"{kind}: must be a gate or a flip-flop of the netlist, and is not")
        self.gates, self.flops = len(drivers), len(flops)
        self._d, self._q = np.array(flops, int).reshape(-1, 2).T
        used = Counter(net for _, pins in drivers.values() for net in pins)
        used.update(self._d.tolist())
        count = 1 + max([1, *drivers, *used, *self._q.tolist(),
                         *(net for port, _ in self._ports.values() for net in port.tolist())])
        self.fanout = np.array([used[net] for net in range(count)])
        self.toggles = np.zeros(count, np.int64)
        self._plan = list(_plan(drivers))
        self._values = np.zeros(count, np.uint64)
        self._values[1] = ~np.uint64(0)
        self._settled = self._values.copy()

    def set(self, port: str, values: int | np.ndarray) -> None:
        """Hold an input at unsigned integers, one for all streams or [STREAMS, lanes] of them."""
        nets, _ = self._ports[port]
        lanes = np.full((STREAMS, 1), values) if np.ndim(values) == 0 else np.asarray(values)
        bits = pack(lanes, len(nets) // lanes.shape[1])
        self._values[nets] = np.packbits(bits, axis=0, bitorder="little").T.copy().view(
            "<u8")[:, 0]

    def get(self, port: str) -> np.ndarray:
        """An output as integers [STREAMS]."""
        nets, signed = self._ports[port]
        words = np.ascontiguousarray(self._values[nets], "<u8")[:, None].view(np.uint8)
        bits = np.unpackbits(words, axis=1, bitorder="little").T
        return unpack(bits, 1, len(nets), signed)[:, 0]

    def settle(self) -> None:
        """Gates take the values that their inputs give them."""
        values = self._values
        for gate, inputs, outputs in self._plan:
            values[outputs] = gate(*values[inputs])
        if self.counting:
            self.toggles += np.bitwise_count(values ^ self._settled)
        self._settled = values.copy()

    def clock(self) -> None:
        """Flip-flops take their inputs."""
        self._values[self._q] = self._values[self._d]


def _plan(drivers: Mapping[int, tuple[str, list[int]]]
          ) -> list[tuple[Callable[..., np.ndarray], np.ndarray, np.ndarray]]:
    """Gates of one kind whose inputs are there by then, at a time: kind, inputs, outputs."""
    try:
        order = list(TopologicalSorter({net: pins for net, (_, pins) in drivers.items()}
                                       ).static_order())
    except CycleError:
        raise N2uqError("netlist: must have no combinational loop, and has one") from None
    level: dict[int, int] = defaultdict(int)
    groups: dict[tuple[int, str], list[int]] = defaultdict(list)
    for net in order:
        if net in drivers:
            kind, pins = drivers[net]
            level[net] = 1 + max(level[pin] for pin in pins)
            groups[level[net], kind].append(net)
    return [(_GATES[kind], np.array([drivers[net][1] for net in outputs]).T, np.array(outputs))
            for (_, kind), outputs in sorted(groups.items())]


def map_gates(verilog: Sequence[Path], top: str) -> Netlist:
    """Module `top` of the files, whose names differ, as CMOS gates."""
    with tools.scratch() as folder:
        for path in verilog:
            (folder / path.name).write_bytes(path.read_bytes())
        read = [f"read_verilog -sv {path.name}" for path in verilog if path.suffix != ".hex"]
        tools.run_yosys("\n".join([*read, SCRIPT.format(top=top)]), folder)
        stat = json.loads((folder / "stat.json").read_text(encoding="utf-8"))["modules"][f"\\{top}"]
        module = json.loads((folder / "gates.json").read_text(encoding="utf-8"))["modules"][top]
    return Netlist(module, int(stat["estimated_num_transistors"]))
