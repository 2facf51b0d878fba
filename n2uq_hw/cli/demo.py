"""`n2uq-hw demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import data, nets
from ..builds import accuracy
from ..lowering.lower import lower as lower_net
from ..tables import Table
from .output import bars, percent, say, show, verdict_rows
from .policy import emit_build, trained

CYCLES = 2304  # per image: a small design, which Yosys maps in half a minute


def demo(out: Annotated[Path, typer.Option(help="Folder to work in.")] = Path("n2uq-demo")
         ) -> None:
    """The whole way on real data: a shipped digits CNN becomes Verilog, proven and costed."""
    from ..builds import measured, synth
    from ..builds.emit import load_build
    from ..builds.report import write_report
    from ..builds.verify import verify
    from ..plan.choice import choose
    from ..sim.timing.fifos import size_fifos

    net, family = nets.find_net("digits_cnn_w2a2"), "xcup"
    folder = out / net.name
    found = data.images_for("digits", None)
    assert found is not None
    with bars() as progress:
        agrees = accuracy.agreement(net, lower_net(net), *found, progress)
        graph = lower_net(net)
        emit_build(net, graph, folder, size_fifos(graph, choose(graph, CYCLES)), None, progress)
        made = load_build(folder)
        verdict = verify(made, *found, progress=progress)
        stalled = verify(made, *found, stalls=0.3, seed=1, progress=progress)
        progress(f"yosys {family}", 0.0)
        costs = synth.synthesize_build(made, family)
        of = measured.verilog_hash(made)
        measured.keep_agreement(made, agrees, trained(net))
        measured.keep_verdict(made, stalled, of)
        measured.keep_verdict(made, verdict, of)
        measured.keep_costs(made, costs, True, None, of)
        page = write_report(made)
    total = costs.total
    table = Table("", "", left=2)
    for key, value in [
            ("accuracy of the float model", percent(agrees.accuracy_float)),
            ("accuracy of golden (integers)", percent(agrees.accuracy)),
            *verdict_rows(verdict),
            ("with random stalls on both sides", f"{stalled.images} images, {stalled.mismatches} "
             f"mismatches, {stalled.cycles_per_image:,.2f} cycles per image"),
            (f"cost on {family}, Yosys {costs.version}", f"{total.lut:,} LUT, {total.ff:,} FF, "
             f"{total.bram} BRAM18, {total.lutram:,} LUTRAM, {total.dsp} DSP"),
            ("Verilog", str(folder / "rtl")), ("report", str(page)),
            ("IR, folding, test vectors", str(folder))]:
        table.add_row(key, value)
    show(f"{net.name}: {accuracy.topology(net)} on the digits test split", table)
    if verdict.mismatches or stalled.mismatches:
        say(f"mismatch: {verdict.first_mismatch or stalled.first_mismatch}")
        raise typer.Exit(1)
