"""FIFO sizing: the least depths on the inputs of Adds that cost no cycle."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np

from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.fifo import in_block
from n2uq_hw.hw.passes import hardware_graph
from n2uq_hw.ir import Fifo, Graph
from n2uq_hw.ir.folding import FifoFold, Folding, fifo_names
from n2uq_hw.tables import Shown, Table

from .cycles import UNBOUNDED, Circuit, Trace, circuit
from .forecast import cycles_per_image

__all__ = ["WORK", "Sizing", "size_fifos"]

IMAGES = 4          # to size for, or one more than there are in the hardware at a time
WORK = 150_000_000  # evaluations of units, four seconds; of a search that takes RUNS runs or more
RUNS = 4
PARTS = 32          # steps in which FIFOs become shallower together


@dataclass(frozen=True, repr=False)
class Sizing(Shown):
    """Depths of FIFOs, and what they cost.

    Members
    -------
    folding: the given one, with the depths.
    least: by name the depth below which the graph can deadlock; of the FIFOs that the given folding
        has no depth for.
    bits: of all these FIFOs.
    full: cycles per image with unbounded FIFOs; `cycles_per_image` with these.
    minimal: whether each FIFO, one entry less, is known to cost cycles, unless it is at its least.
    images: of the run in which that shows, without a gap; `trace` is that of these FIFOs.
    """

    folding: Folding
    least: dict[str, int]
    bits: int
    full: float
    cycles_per_image: float
    minimal: bool
    images: int
    trace: Trace | None

    @property
    def depths(self) -> dict[str, int]:
        """The chosen depths by name."""
        return {name: fold.depth for name in self.least
                if isinstance(fold := self.folding[name], FifoFold)}

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"fifos": {name: {"depth": depth, "least": self.least[name]}
                          for name, depth in self.depths.items()},
                "fifo_bits": self.bits, "cycles_per_image": self.cycles_per_image,
                "cycles_per_image_unbounded": self.full, "minimal": self.minimal}

    def parts(self) -> list[str | Table]:
        """A row per FIFO; nothing where there was no depth to choose."""
        if not self.least or self.trace is None:
            return []
        table = Table("FIFO", "depth", "least", "most held")
        for name, depth in self.depths.items():
            table.add_row(name, *(f"{beats:,}" for beats in (
                depth, self.least[name], self.trace.high[name])))
        return [table, f"least: below it the graph can deadlock; {self.bits:,} bits in all; "
                f"{self.cycles_per_image:,.2f} cycles per image, {self.full:,.2f} with unbounded "
                "FIFOs" + ("" if self.minimal else "; --least-fifos may spare some entries")]


def size_fifos(graph: Graph, folding: Folding, *, budget: float = 0.0, work: float = WORK
               ) -> Sizing:
    """Choose a depth for each FIFO on an Add that `folding` gives none.

    These are the smallest depths that delay no output, and no image, compared with unbounded FIFOs.
    One FIFO after the other becomes shallower, until an entry less would cost cycles or could
    deadlock (`hw/depths.py`).  That is repeated until nothing changes, for a pipeline that stalls
    as a whole is not quite monotonic: a beat that comes earlier may delay a later one.

    Parameters
    ----------
    graph, folding: lowered, as `hardware_graph` takes them.
    budget: the share by which all these times may be longer.
    work: evaluations of units after which depths stay as they are by then: at most the beats in
        unbounded FIFOs, so that no time is lost.
    """
    if not budget >= 0:
        raise N2uqError(f"{graph.name}: the FIFOs' budget must be 0 or more, not {budget:g}")
    names = [name for name in fifo_names(graph) if name not in folding]
    if not names:
        return Sizing(folding, {}, 0, 0, 0, True, 0, None)
    hardware, folds = hardware_graph(graph, folding)
    least = {node.name: node.depth for node in hardware.nodes
             if isinstance(node, Fifo) and node.name in names}
    # Those in block RAM answer a cycle later: a short run shows which they are.
    deep = {name for name, depth in least.items() if in_block(depth)}
    images, enough = 2, IMAGES
    while True:
        search = _Search(circuit(hardware, folds, images), images, least, deep, budget, work)
        high = search.trials.kept.high
        more = {name for name in least if in_block(high[name])} - deep
        enough = max(enough, ceil((search.ends[0] + 1) / search.rate) + 1)
        if images >= enough and not more:
            break
        deep, images = deep | more, enough
    search.run()
    trace, depths = search.trials.kept, search.depths
    return Sizing(
        folding | {name: FifoFold(depth=depth) for name, depth in depths.items()}, least,
        sum(depth * folds[name].pe * hardware.edges[name].width for name, depth in depths.items()),
        search.full, cycles_per_image(trace.ends["o"][search.beats - 1::search.beats], 0),
        search.minimal, images, trace)


class _Search:
    """Trials of depths, from FIFOs that never fill downwards.

    Members
    -------
    depths: those of the run that is kept.
    full, due: cycles per image of FIFOs that never fill, and float64 [n], the cycles by which
        output beats must come.
    failed: the depths of each run that was too slow.
    minimal: whether all was tried.
    """

    def __init__(self, model: Circuit, images: int, least: dict[str, int], deep: set[str],
                 budget: float, work: float) -> None:
        self.least, self.budget, self.work = least, budget, work
        self.beats = model.beats("o") // images
        self.trials = model.trials({name: name in deep for name in least}, images)
        self.depths = dict.fromkeys(least, UNBOUNDED)
        self.failed = set[tuple[int, ...]]()

    @property
    def ends(self) -> np.ndarray:
        """The cycle in which each image left, in the last trial."""
        return self.trials.times[self.beats - 1::self.beats]

    @property
    def rate(self) -> float:
        """Cycles per image in the last trial."""
        return cycles_per_image(self.ends, 0)

    @property
    def goes_on(self) -> bool:
        """Whether there is work left."""
        return self.trials.work <= self.work

    def run(self) -> None:
        """Lower whatever can be; a search that would not come to its end is not begun."""
        begin = RUNS * self.trials.work <= self.work
        self.settle()
        if self.budget:
            self.scale([name for name, depth in self.least.items() if not in_block(depth)])
            self.scale(list(self.least))
        before: dict[str, int] = {}
        while begin and before != self.depths:
            before = dict(self.depths)
            for name in self.least:
                self.lower(name)
        self.minimal = begin and self.goes_on

    def keep(self, depths: dict[str, int]) -> None:
        """The last trial was of these."""
        self.trials.keep()
        self.depths.update(depths)

    def fits(self, depths: dict[str, int]) -> bool:
        """Whether they are in time; if so they are kept."""
        tried = tuple((self.depths | depths).values())
        if tried in self.failed:
            return False
        if (self.trials.attempt(depths, self.due)
                and self.rate <= self.full * (1 + self.budget)):
            self.keep(depths)
            return True
        self.failed.add(tried)
        return False

    def settle(self) -> None:
        """Set what is due, and depths to the most beats in each FIFO, which changes no time."""
        self.full = self.rate
        self.due = np.floor((self.trials.times + 1) * (1 + self.budget)) - 1
        high = self.trials.kept.high
        depths = {name: max(high[name], depth) for name, depth in self.least.items()}
        self.trials.attempt(depths)
        self.keep(depths)

    def scale(self, names: list[str]) -> None:
        """Lower several at once, by one share of the way to their least."""
        high, bad, good, at = dict(self.depths), -1, PARTS, 0
        while bad < at < good:
            if self.fits({name: self.least[name] + (high[name] - self.least[name]) * at // PARTS
                          for name in names}):
                good = at
            else:
                bad = at
            at = (bad + good) // 2

    def lower(self, name: str) -> None:
        """Lower one of them: in doubled steps, then by halves once they went too far."""
        bad, step = self.least[name] - 1, 1
        while self.goes_on and (gap := self.depths[name] - bad) > 1:
            at = self.depths[name] - (min(step, gap - 1) if step else gap // 2)
            if self.fits({name: at}):
                step *= 2
            else:
                bad, step = at, 0
