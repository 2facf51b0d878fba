"""`n2uq-hw cycles`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import N2uqError
from ..lowering.formats import Formats
from .options import (
    AsJson,
    Calibrate,
    Clock,
    Cycles,
    FifoBudget,
    NetName,
    Top1,
    takes_formats,
    within,
)
from .output import fifos, show, show_json


@takes_formats
def cycles(
        net: NetName,
        folding: Annotated[Path | None, typer.Option(
            help="A YAML folding. Default: the one that `build` chooses.")] = None,
        cycles: Annotated[int | None, typer.Option(
            callback=Cycles,
            help="Take at most so many cycles per image, at the least estimated cost.")] = None,
        images: Annotated[int, typer.Option(
            callback=within(1, 1_000_000),
            help="How many images follow each other without a gap.")] = 4,
        clock: Clock = 200.0,
        source: Annotated[str, typer.Option(
            help="When a beat of pixels may come: always, every:N (once in N cycles), "
            "burst:ON,OFF, or a file (.npy or .txt) with a number per cycle: 0 if a beat may come, "
            "1 if not.")] = "always",
        sink: Annotated[str, typer.Option(help="When a beat of results may leave, in the words of "
        "--source.")] = "always",
        stalls: Annotated[float, typer.Option(
            help="Probability of a stalled cycle on either side, 0 to 0.95: the stalls of `verify` "
            "with the same seed.")] = 0.0,
        seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the stalls.")] = 0,
        fifo_budget: FifoBudget = 0.0,
        top1: Top1 = False,
        calibrate: Calibrate = None, *, formats: Formats,
        picture: Annotated[Path | None, typer.Option(
            "--plot", help="Draw the pipeline over time, to this .svg or .png file.")] = None,
        as_json: AsJson = False) -> None:
    """Predict cycles, rate and bottleneck exactly, without RTL simulation."""
    from .. import api
    from ..sim.timing.forecast import forecast, pattern, plot, stalled

    if stalls and (source, sink) != ("always", "always"):
        raise N2uqError("--stalls and --source or --sink exclude each other")
    graph = api.lower(net, formats, top1=top1, calibrate=calibrate)
    plan = api.fold(graph, folding=folding, cycles=cycles, search=False, fifo_budget=fifo_budget)
    if stalls:
        timing = stalled(graph, plan.folding, images, stalls, seed)
    else:
        at_hand = images == plan.sizing.images and source == sink == "always"
        timing = forecast(graph, plan.folding, images=images, source=pattern(source),
                          sink=pattern(sink), trace=plan.sizing.trace if at_hand else None)
    if picture is not None:
        plot(timing, picture)
    timed = timing.timed(clock)
    if as_json:
        return show_json(timing.as_dict() | timed | fifos(plan.sizing))
    show(*timing.parts(), *plan.sizing.parts(),
         f"at {clock:g} MHz: {timed['images_per_second']:,.1f} images/s, latency "
         f"{timed['latency_us']:,.1f} µs")
