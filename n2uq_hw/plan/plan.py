"""What was chosen: a folding with its FIFOs, what it takes and what it costs by estimate."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..cost.estimate import Cost
from ..hw.passes import unroll
from ..ir import Flatten, Graph, MatVec, describe
from ..ir.folding import Folding, fold_cycles, style_of
from ..sim.timing.fifos import Sizing
from ..sim.timing.forecast import Forecast, forecast
from ..tables import Shown, Table
from .problem import BLOCK_LUTS, prices

__all__ = ["Plan"]

KINDS = ("lut", "ff", "bram", "lutram")


@dataclass(frozen=True, repr=False)
class Plan(Shown):
    """A folding of a graph.  Cycles are exact; costs are estimates, without DSP blocks.

    Members
    -------
    graph: what is folded.
    sizing: the folding, and how the depths of its FIFOs came about.
    family: what costs are estimated for, xcup or ecp5.
    """

    graph: Graph
    sizing: Sizing
    family: str = "xcup"

    @property
    def folding(self) -> Folding:
        """Lanes and styles by unit, depths by FIFO."""
        return self.sizing.folding

    @cached_property
    def forecast(self) -> Forecast:
        """The timing model's run of four images without a gap."""
        trace = self.sizing.trace if self.sizing.images == 4 else None
        return forecast(self.graph, self.folding, images=4, trace=trace)

    @property
    def cycles(self) -> float:
        """Cycles per image."""
        return self.forecast.cycles_per_image

    @property
    def estimate(self) -> Cost:
        """LUTs, flip-flops, block RAMs and LUTs that are memory, in whole cells."""
        return Cost(**self.as_dict()["total"])

    @property
    def luts(self) -> int:
        """Estimated LUTs, those that are memory included."""
        total: dict[str, int] = self.as_dict()["total"]
        return total["lut"] + total["lutram"]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready: a row per unit, what joins units, and the whole."""
        return self._described

    @cached_property
    def _described(self) -> dict[str, Any]:
        graph, folding = unroll(self.graph, self.folding)
        priced = prices(graph, folding, self.family)
        whole = _counted(*priced.values())
        rows = []
        for node in graph.nodes:
            if isinstance(node, Flatten):
                continue
            fold = folding[node.name]
            macs = fold.pe * fold.simd if isinstance(node, MatVec) else 0
            rows.append({
                "name": node.name, "kind": type(node).__name__, "pe": fold.pe, "simd": fold.simd,
                "style": style_of(fold),
                "multipliers": macs, "cycles": fold_cycles(
                    node, graph.reads(node), graph.edges[node.name], fold),
                **_counted(priced.pop(node.name))})
        macs = sum(row["macs"] for row in describe(graph))
        return {"name": graph.name, "family": self.family, "cycles_per_image": self.cycles,
                "macs": macs, "macs_per_cycle": macs / self.cycles, "layers": rows,
                "between": {"units": len(priced), **_counted(*priced.values())},
                "total": whole}

    def parts(self) -> list[str | Table]:
        """A row per unit with its folding, cycles and cells, the FIFOs, and what an image takes."""
        summary = self.as_dict()
        table = Table("unit", "kind", "PE", "SIMD", "style", "cycles", *(k.upper() for k in KINDS),
                      left=2)
        for row in summary["layers"]:
            table.add_row(row["name"], row["kind"], str(row["pe"]), str(row["simd"]), row["style"],
                          *(f"{row[key]:,}" for key in ("cycles", *KINDS)))
        for name, row in ((f"between units ({summary['between']['units']})", summary["between"]),
                          ("in all", summary["total"])):
            table.add_row(name, *[""] * 5, *(f"{row[kind]:,}" for kind in KINDS))
        return [f"{self.graph.name} on {self.family}, estimated without DSP blocks", table,
                "between units: width converters, FIFOs, forks; cycles per image in which the unit "
                f"is busy; a block RAM was taken for {BLOCK_LUTS[self.family]} LUTs",
                *self.sizing.parts(),
                f"{self.cycles:,.0f} cycles per image, {summary['macs_per_cycle']:,.1f} MACs per "
                "cycle"]


def _counted(*costs: Cost) -> dict[str, int]:
    """The sum, in whole cells."""
    return {kind: round(sum(getattr(cost, kind) for cost in costs)) for kind in Cost._fields}
