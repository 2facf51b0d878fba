"""The longest paths between registers, from the delays of a placed or of a mapped design."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

__all__ = ["Delays", "TimingPath", "of_netlist", "of_sdf", "specified", "worst"]

Pin = tuple[str, str]  # cell and port

# What Yosys adds to the name of a net to name the cell that drives it, and what tools make anew.
_DRIVER = re.compile(r"_(TRELLIS|SB|CCU2C|LUT\d|PFUMX|L6MUX|DP16KD|PDPW|MULT18|ICESTORM|FD[RSCP]E|"
                     r"CARRY\d|MUXF\d|RAM|SRL|DSP48)[A-Z0-9_]*.*|\$.*")
_INDEX = re.compile(r"(\[\d+\]|\.\d+)+$")
_CARRY = re.compile(r"^(FCO|COUT|CO)\b")


@dataclass(frozen=True)
class TimingPath:
    """A path from register to register.

    Members
    -------
    start, end: the registers or memories, ``unit.signal``, without the index of a bit.
    units: those that it goes through, in order.
    luts, carries: cells of either kind on it; `luts` has DSP blocks and asynchronous memories, too.
    logic_ns, routing_ns: what cells, clock-to-output and setup included, and wires take.
    """

    start: str
    end: str
    units: tuple[str, ...]
    luts: int
    carries: int
    logic_ns: float
    routing_ns: float

    @property
    def ns(self) -> float:
        """From clock to clock."""
        return self.logic_ns + self.routing_ns

    def named(self, names: Mapping[str, str]) -> TimingPath:
        """With the units' names in the network, by those in Verilog."""
        def name(path: str) -> str:
            first, dot, rest = path.partition(".")
            return names.get(first, first) + dot + rest

        return replace(self, start=name(self.start), end=name(self.end),
                       units=tuple(map(name, self.units)))


@dataclass
class Delays:
    """What a design's pins hand on, in ps.

    Members
    -------
    cells, wires: (from, to, delay), through a cell, and from driver to reader.
    setups: of each data pin of a register, the time before the clock edge.
    clocks: pins that paths begin at.
    """

    cells: list[tuple[Pin, Pin, float]] = field(default_factory=list)
    wires: list[tuple[Pin, Pin, float]] = field(default_factory=list)
    setups: dict[Pin, float] = field(default_factory=dict)
    clocks: set[Pin] = field(default_factory=set)

    def setup(self, pin: Pin, clock: Pin, ps: float) -> None:
        """Take the longer one of several."""
        self.setups[pin] = max(ps, self.setups.get(pin, 0.0))
        self.clocks.add(clock)


def worst(delays: Delays, most: int) -> list[TimingPath]:
    """The longest path to each register's data pins, longest first.

    Of those that have the same start, end and units but for numbers, as lanes have, one.  Paths
    from ports of the design, and to them, are left out.
    """
    after = defaultdict[Pin, list[tuple[Pin, float, bool]]](list)
    waits = defaultdict[Pin, int](int)
    for arcs, wire in ((delays.cells, False), (delays.wires, True)):
        for source, target, ps in arcs:
            if target not in delays.clocks:
                after[source].append((target, ps, wire))
                waits[target] += 1
    arrival: dict[Pin, float] = dict.fromkeys(delays.clocks, 0.0)
    before: dict[Pin, tuple[Pin, float, bool]] = {}
    ready = [pin for pin in list(after) if not waits[pin]]
    while ready:
        source = ready.pop()
        for target, ps, wire in after[source]:
            if source in arrival and arrival[source] + ps > arrival.get(target, -1.0):
                arrival[target] = arrival[source] + ps
                before[target] = source, ps, wire
            waits[target] -= 1
            if not waits[target]:
                ready.append(target)
    ends = sorted(((arrival[pin] + ps, pin) for pin, ps in delays.setups.items()
                   if pin in arrival), reverse=True)
    found: dict[tuple[str, ...], TimingPath] = {}
    for _, pin in ends:
        if len(found) == most:
            break
        path = _path(pin, before, delays.setups[pin])
        found.setdefault(tuple(re.sub(r"\d+", "", name) for name in (
            path.start, path.end, *path.units)), path)
    return list(found.values())


def _path(end: Pin, before: Mapping[Pin, tuple[Pin, float, bool]], setup: float) -> TimingPath:
    logic, routing, luts, carries, pins = setup, 0.0, 0, 0, [end]
    while pins[-1] in before:
        source, ps, wire = before[pins[-1]]
        if wire:
            routing += ps
        else:
            logic += ps
            first = source not in before  # from the clock
            carries += not first and bool(_CARRY.match(pins[-1][1]))
            luts += not first and not _CARRY.match(pins[-1][1])
        pins.append(source)
    signals = [signal for signal in map(_signal, (cell for cell, _ in reversed(pins))) if signal]
    units = [unit for unit, _ in groupby(signal.partition(".")[0] for signal in signals
                                         if "." in signal)]
    return TimingPath(_signal(pins[-1][0]), _signal(end[0]), tuple(units), luts, carries,
                      round(logic / 1000, 3), round(routing / 1000, 3))


def _signal(cell: str) -> str:
    """``unit.signal`` that a cell drives."""
    unit, dot, rest = _INDEX.sub("", _DRIVER.sub("", cell)).partition(".")
    return unit.removesuffix("_unit") + dot + rest


# --- nextpnr ------------------------------------------------------------------------------------

_NAME = r"((?:\\.|[^\s()\\])+)"
_MOST = r"\([\d.]*:[\d.]*:([\d.]+)\)"
_SDF = re.compile(
    rf'\(CELLTYPE "(?P<kind>[^"]*)"\)|\(INSTANCE (?P<cell>(?:\\.|[^\s()\\])*)\)'
    rf"|\(INTERCONNECT {_NAME} {_NAME} {_MOST} {_MOST}\)"
    rf"|\(IOPATH (?:\(\w+ )?{_NAME}\)? {_NAME} {_MOST} {_MOST}\)"
    rf"|\(SETUPHOLD \(\w+ {_NAME}\) \(\w+ {_NAME}\) {_MOST} {_MOST}\)")


def of_sdf(text: str) -> Delays:
    """The slowest delays in an SDF file of nextpnr."""
    delays, kind, cell = Delays(), "", ""
    kinds = defaultdict[str, list[str]](list)
    references = defaultdict[str, set[str]](set)

    def pin(path: str) -> Pin:
        name, _, port = path.rpartition("/")
        return name, port

    for found in _SDF.finditer(text):
        match [part and re.sub(r"\\(.)", r"\1", part) for part in found.groups()]:
            case [str(kind_), *_]:
                kind = kind_
            case [_, str(cell_), *_]:
                cell = cell_
                kinds[kind].append(cell)
            case [_, _, str(a), str(b), rise, fall, *_]:
                delays.wires.append((pin(a), pin(b), max(float(rise), float(fall))))
            case [*_, str(a), str(b), rise, fall, None, None, None, None]:
                delays.cells.append(((cell, a), (cell, b), max(float(rise), float(fall))))
            case [*_, data, clock, setup, _]:
                delays.setup((cell, data), (cell, clock), float(setup))
                references[kind].add(clock)
    # A register whose inputs are constant has no setup, and is clocked as all of its kind.
    delays.clocks |= {(cell, clock) for kind, clocks in references.items()
                      for cell in kinds[kind] for clock in clocks}
    return delays


# --- Yosys --------------------------------------------------------------------------------------

_BIT = r"(\w+(?:\[\d+\])?)"
_VALUE = r"= (\d+)(?: \+ (\d+))?"
_SPECIFIED = re.compile(
    rf"\({_BIT} +[=*]> +{_BIT}\) *{_VALUE}"
    rf"|\(posedge (\w+) => \({_BIT} : [^)]*\)\) *{_VALUE}"
    rf"|\$setup\({_BIT} *, *posedge (\w+)[^,]*, *(\d+)\)")
_COMMENT = re.compile(r"//.*|/\*.*?\*/")


def specified(text: str) -> dict[str, Delays]:
    """The delays of kinds of cells, of a cell "", from the specify blocks of their Verilog."""
    kinds: dict[str, Delays] = {}
    for module in re.finditer(r"^module (\w+)(.*?)^endmodule", _COMMENT.sub("", text), re.M | re.S):
        delays = Delays()
        for found in _SPECIFIED.finditer(module[2]):
            a, b, c, d, clock, q, e, f, data, edge, setup = found.groups()
            if data:
                delays.setup(("", data), ("", edge), float(setup))
            else:
                source, target, parts = (clock, q, (e, f)) if clock else (a, b, (c, d))
                delays.cells.append(
                    (("", source), ("", target), float(sum(int(x) for x in parts if x))))
                delays.clocks |= {("", clock)} if clock else set()
        kinds[module[1]] = delays
    return kinds


def of_netlist(module: Mapping[str, Any], kinds: Mapping[str, Delays]) -> Delays:
    """The delays of a flat module of Yosys' JSON, whose wires take no time."""
    delays, drivers = Delays(), dict[int, Pin]()
    readers: list[tuple[int, Pin]] = []
    nets = {bit: f"{name}[{k}]" if len(net["bits"]) > 1 else name
            for name, net in module["netnames"].items() if not net["hide_name"]
            for k, bit in enumerate(net["bits"])}
    for name, cell in module["cells"].items():
        outputs = [bit for port, bits in cell["connections"].items()
                   if cell["port_directions"].get(port) == "output" for bit in bits]
        label = next((nets[bit] for bit in outputs if bit in nets), "$") + f"${name}"
        known = kinds.get(cell["type"], Delays())
        for port, bits in cell["connections"].items():
            for k, bit in enumerate(bits):
                pin = label, f"{port}[{k}]" if len(bits) > 1 else port
                if cell["port_directions"].get(port) == "output":
                    drivers[bit] = pin
                elif isinstance(bit, int):
                    readers.append((bit, pin))
        delays.cells += [((label, a), (label, b), ps) for (_, a), (_, b), ps in known.cells]
        delays.setups |= {(label, port): ps for (_, port), ps in known.setups.items()}
        delays.clocks |= {(label, port) for _, port in known.clocks}
    delays.wires += [(drivers[bit], pin, 0.0) for bit, pin in readers if bit in drivers]
    return delays
