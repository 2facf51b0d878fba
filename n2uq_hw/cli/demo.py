"""`n2uq-hw demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..tables import Table
from .output import percent, say, show

CYCLES = 2304  # per image: a small design, which Yosys maps in half a minute


def demo(out: Annotated[Path, typer.Option(help="Folder to work in.")] = Path("n2uq-demo")
         ) -> None:
    """Take a shipped digits CNN the whole way: Verilog, proven in simulation, and costed."""
    from .. import api, data
    from ..builds.accuracy import topology, trained
    from ..builds.measured import keep_agreement

    net, family = api.load("digits_cnn_w2a2"), "xcup"
    held = data.load("digits")
    graph = api.lower(net)
    build = api.build(graph, api.fold(graph, cycles=CYCLES, search=False), out / net.name)
    agrees = api.agreement(net, graph, held.images, held.labels)
    keep_agreement(build, agrees, trained(net))
    stalled = build.verify(held.images, held.labels, stalls=0.3, seed=1)
    verdict = build.verify(held.images, held.labels)
    costs = build.cost(family)
    page, total = build.report(), costs.total
    table = Table("", "", left=2)
    for key, value in [
            ("accuracy of the float model", percent(agrees.accuracy_float)),
            ("accuracy of golden (integers)", percent(agrees.accuracy)),
            *verdict.rows(),
            ("with random stalls on both sides", f"{stalled.images} images, {stalled.mismatches} "
             f"mismatches, {stalled.cycles_per_image:,.2f} cycles per image"),
            (f"cost on {family}, Yosys {costs.synthesis.version}", f"{total.lut:,} LUT, "
             f"{total.ff:,} FF, {total.bram} BRAM18, {total.lutram:,} LUTRAM, {total.dsp} DSP"),
            ("Verilog", str(build.path / "rtl")), ("report", str(page)),
            ("IR, folding, test vectors", str(build.path))]:
        table.add_row(key, value)
    show(f"{net.name}: {topology(net)} on the digits test split", table)
    if verdict.mismatches or stalled.mismatches:
        say(f"mismatch: {verdict.first_mismatch or stalled.first_mismatch}")
        raise typer.Exit(1)
