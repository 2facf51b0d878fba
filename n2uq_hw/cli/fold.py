"""`n2uq-hw fold`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..lowering.formats import Formats
from .options import (
    AsJson,
    Calibrate,
    Clock,
    Cycles,
    FifoBudget,
    LeastFifos,
    NetName,
    Top1,
    takes_formats,
    within,
)
from .output import fifos, show, show_json


@takes_formats
def fold(
        net: NetName,
        fps: Annotated[float | None, typer.Option(
            callback=within(1e-6, 1e12, "images/s"),
            help="Reach at least so many images per second at --clock.")] = None,
        cycles: Annotated[int | None, typer.Option(
            callback=Cycles,
            help="Take at most so many cycles per image.")] = None,
        max_luts: Annotated[int | None, typer.Option(
            callback=within(1, 10**12),
            help="Find the best rate within so many LUTs, those that are memory included.")
            ] = None,
        clock: Clock = 200.0,
        family: Annotated[str, typer.Option(help="The device family: xcup or ecp5.")] = "xcup",
        out: Annotated[Path | None, typer.Option(
            help="Write the folding to this YAML file, for `build --folding`.")] = None,
        fifo_budget: FifoBudget = 0.0, least_fifos: LeastFifos = False,
        top1: Top1 = False,
        calibrate: Calibrate = None, *, formats: Formats,
        as_json: AsJson = False) -> None:
    """Choose the cheapest folding for a rate, or the fastest one within a budget of LUTs.

    LUTs are estimated, without DSP blocks; a block RAM counts as 160 (xcup) or 400 (ecp5).
    """
    from .. import api
    from ..plan.choice import save_folding

    graph = api.lower(net, formats, top1=top1, calibrate=calibrate)
    plan = api.fold(graph, fps=fps, cycles=cycles, luts=max_luts, clock=clock, family=family,
                    fifo_budget=fifo_budget, least_fifos=least_fifos)
    if out is not None:
        save_folding(plan.folding, graph, out)
    rate = clock * 1e6 / plan.cycles
    if as_json:
        return show_json(plan.as_dict() | {"clock_mhz": clock, "images_per_second": rate}
                         | fifos(plan.sizing))
    show(*plan.parts(), f"at {clock:g} MHz: {rate:,.1f} images/s")
