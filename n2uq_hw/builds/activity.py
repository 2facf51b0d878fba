"""How often the nets of a netlist switch on images, by unit: a proxy of energy, no energy.

Counted is what a simulation without delays shows: a net changes at most once a cycle, and glitches
are not there.  A net counts with each input pin of a cell that it drives, clocks apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data import channels_last
from ..errors import N2uqError
from ..files import write_file
from ..hw.accelerator import signal_names
from ..hw.passes import hardware_graph
from ..ir import golden
from ..jobs import Progress
from ..sim.rtl.harness import PERIOD
from ..sim.rtl.netlists import shortened
from ..sim.rtl.switching import Switching
from ..tables import Shown, Table, percent
from .emit import Build
from .pins import Pins, netlist_pins
from .synth import synthesize_build
from .verify import Trial

__all__ = ["PROXY", "Activity", "Unit", "activity", "by_instance"]

INSTANCE = ("harness", "dut0", "accelerator")
BETWEEN = "between units"  # FIFOs, converters of widths and what else is in no unit
PROXY = ("toggles are a PROXY of energy: without delays and so without glitches, wires as long as "
         "one another, no leakage, no clock tree")


@dataclass(frozen=True)
class Unit:
    """A unit's part: its `nets`, their toggles, and those times the pins that they drive.

    Toggles are of all images together.  `pins` is None where no cells were simulated.
    """

    name: str
    nets: int
    toggles: int
    pins: int | None


@dataclass(frozen=True, repr=False)
class Activity(Shown):
    """Switching of an accelerator on images, which its outputs are golden's for.

    Members
    -------
    family: whose cells were simulated; "" for the Verilog as built.
    cycles: from the end of reset to the last output beat.
    units: in the order of the network, then what is between them.
    """

    net: str
    family: str
    images: int
    cycles: int
    units: tuple[Unit, ...]

    def weight(self, unit: Unit) -> int:
        """What shares are of: toggles with the pins driven, or toggles where pins are unknown."""
        return unit.toggles if unit.pins is None else unit.pins

    @property
    def per_image(self) -> float:
        """Of all units, per image."""
        return sum(map(self.weight, self.units)) / self.images

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"net": self.net, "family": self.family, "images": self.images,
                "cycles": self.cycles, "per_image": self.per_image, "proxy": PROXY,
                "units": [vars(unit) for unit in self.units]}

    def parts(self) -> list[str | Table]:
        """A row per unit and one of all."""
        pins = bool(self.family)
        table = Table("unit", "nets", "toggles per image", *["toggles × pins per image"] * pins,
                      "share")
        total = sum(map(self.weight, self.units))
        for unit in (*self.units, _sum("all", self.units)):
            table.add_row(
                unit.name, f"{unit.nets:,}", f"{unit.toggles / self.images:,.0f}",
                *[f"{(unit.pins or 0) / self.images:,.0f}"] * pins,
                percent(self.weight(unit) / total if total else None))
        of = f"netlist for {self.family}" if pins else "signals of the Verilog as built"
        return [f"{self.net}, {of}, {self.images} images in {self.cycles:,} cycles, outputs as in "
                "golden", table, PROXY]


def _sum(name: str, units: Iterable[Unit]) -> Unit:
    each = list(units)
    return Unit(name, sum(unit.nets for unit in each), sum(unit.toggles for unit in each),
                None if any(unit.pins is None for unit in each)
                else sum(unit.pins or 0 for unit in each))


def activity(build: Build, images: np.ndarray, *, family: str = "xcup", saif: Path | None = None,
             progress: Progress | None = None) -> Activity:
    """Simulate `images` [N, C, H, W] without stalls and count how often each net switches.

    Parameters
    ----------
    family: as `netlist` of `verify`; "" for the Verilog as built, whose signals are counted once
        each and without pins.
    saif: a file for the toggles and levels of all nets, below ``harness/dut0``.

    Raises N2uqError where an output is not golden's.
    """
    nhwc = channels_last(images, build.graph.input.shape, build.graph.name)
    trial = Trial(build, nhwc, golden.run(build.graph, nhwc), 0.0, 0, "verilator", family)
    trial.check()
    if family and progress:
        progress(f"yosys {family}", 0.0)
    wrong, found, cycles = trial.switching(progress)
    if wrong.any():
        raise N2uqError(f"{build.graph.name}: image {int(wrong.argmax())} must give golden's bits, "
                        "and does not; `n2uq-hw verify` tells more")
    graph, _ = hardware_graph(build.graph, build.folding)
    names = {f"{signal}_unit": node for node, signal in signal_names(graph).items()}
    if family:
        synthesis = synthesize_build(build, family)
        found = found.named(shortened(Path(synthesis.netlist).read_text(encoding="utf-8"))[1])
        units = by_instance(found, netlist_pins(synthesis), INSTANCE)
    else:
        units = _signals(found, set(names))
    ordered = [*(name for name in names if name in units), *sorted(units.keys() - names.keys())]
    result = Activity(build.graph.name, family, len(images), cycles, tuple(
        Unit(names.get(name, name), *units[name]) for name in ordered))
    if saif is not None:
        write_file(saif, "".join(found.saif()))
    return result


Counts = tuple[int, int, int | None]  # nets, toggles, toggles times pins


def by_instance(found: Switching, netlist: Mapping[str, Pins], path: tuple[str, ...]
                ) -> dict[str, Counts]:
    """Counts of each unit of a netlist whose top, the first module, is simulated at `path`."""
    def counts(module: str, at: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Counts]]:
        pins, signals = netlist[module], found.scopes[at]
        nets = [(signals[name][0] + bit, drives, loads) for names, drives, loads in pins.nets
                for name, bit in [_known(names, signals, at)]]
        bits, drives, loads = np.array(nets, np.int64).reshape(-1, 3).T
        toggles = np.where(_clocks(found, bits), 0, found.toggles[bits])
        yield at, (int(drives.sum()), int((toggles * drives).sum()), int((toggles * loads).sum()))
        for instance, of in pins.instances.items():
            yield from counts(of, (*at, instance))

    units: dict[str, Counts] = {}
    for at, (nets, toggles, pins) in counts(next(iter(netlist)), path):
        name = at[len(path)] if len(at) > len(path) else BETWEEN
        before = units.get(name, (0, 0, 0))
        units[name] = before[0] + nets, before[1] + toggles, (before[2] or 0) + (pins or 0)
    return units


def _known(names: list[tuple[str, int]], signals: Mapping[str, tuple[int, int]],
           at: tuple[str, ...]) -> tuple[str, int]:
    """One of the names of a net that the dump has."""
    for name, bit in names:
        if name in signals:
            return name, bit
    raise N2uqError(f"{'/'.join(at)}: the simulation must dump net {names[:1]}, and does not")


def _clocks(found: Switching, bits: np.ndarray) -> np.ndarray:
    """Which of the bits change twice a cycle: clocks, as all else changes once at most."""
    return found.toggles[bits] * PERIOD * 1000 > found.duration


def _signals(found: Switching, units: set[str]) -> dict[str, Counts]:
    """Counts of signals by unit, each bit once: with the first unit that has it."""
    counts, seen = dict[str, Counts](), np.zeros(len(found.toggles), bool)
    for path in sorted(found.scopes, key=lambda path: (len(path) <= len(INSTANCE), path)):
        if path[:len(INSTANCE)] != INSTANCE:
            continue
        name = path[len(INSTANCE)] if len(path) > len(INSTANCE) else BETWEEN
        name = name if name in units else BETWEEN
        bits = np.unique([bit for first, end in found.scopes[path].values()
                          for bit in range(first, end)])
        bits = bits[~seen[bits] & ~_clocks(found, bits)]
        seen[bits] = True
        nets, toggles, _ = counts.get(name, (0, 0, None))
        counts[name] = nets + len(bits), toggles + int(found.toggles[bits].sum()), None
    return counts
