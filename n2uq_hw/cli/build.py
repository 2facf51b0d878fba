"""`n2uq-hw build`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..lowering.formats import Formats
from .options import (
    AsJson,
    Calibrate,
    Cycles,
    DataPath,
    FifoBudget,
    LeastFifos,
    NetName,
    Top1,
    takes_formats,
    within,
)
from .output import fifos, show, show_json, warn


@takes_formats
def build(
        net: NetName, out: Annotated[Path, typer.Option(help="The build directory to write.")],
        folding: Annotated[Path | None, typer.Option(
            help="A YAML folding, such as the edited folding.yaml of another build.")] = None,
        cycles: Annotated[int | None, typer.Option(
            callback=Cycles,
            help="Take at most so many cycles per image, at the least estimated cost. Default: as "
            "many as the slowest sliding window takes.")] = None,
        unroll: Annotated[int | None, typer.Option(
            callback=within(1, 1000),
            metavar="LEVELS", help="Put every MatVec in logic, with a register after so many "
            "levels of carry chains. All other units get all lanes that they can have.")] = None,
        lut: Annotated[int | None, typer.Option(
            help="With --unroll: inputs of the device's LUTs, 6 (Xilinx, the default) "
            "or 4.")] = None,
        top1: Top1 = False,
        fifo_budget: FifoBudget = 0.0, least_fifos: LeastFifos = False,
        control: Annotated[bool, typer.Option(
            "--control", help="Add registers behind AXI4-Lite: identity, counters, reset, "
            "interrupt.")] = False,
        writable: Annotated[str | None, typer.Option(
            metavar="WHAT", help="Parameters that AXI4-Lite can write while the network runs: "
            "weights, thresholds (and scales, PReLUs), or all. Implies --control; `n2uq-hw pack` "
            "makes the tables.")] = None,
        calibrate: Calibrate = None, *, formats: Formats,
        data_path: DataPath = None, as_json: AsJson = False) -> None:
    """Write Verilog, IR, folding, test vectors, manifest and report to a directory."""
    from .. import api
    from ..data import images_for

    trained = api.load(net)
    graph = api.lower(trained, formats, top1=top1, calibrate=calibrate)
    warn(graph)
    if writable is not None:
        graph = api.writable(graph, writable)
    plan = api.fold(graph, folding=folding, cycles=cycles, unroll=unroll, lut=lut, search=False,
                    fifo_budget=fifo_budget, least_fifos=least_fifos)
    images, labels = images_for(trained.meta.get("dataset", ""), data_path) or (None, None)
    built = api.build(graph, plan, out, net=trained, images=images, labels=labels,
                      control=control)
    if as_json:
        return show_json(built.described | fifos(plan.sizing))
    show(*built.parts(), *plan.sizing.parts())
