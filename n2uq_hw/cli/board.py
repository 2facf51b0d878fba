"""`n2uq-hw board`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..lowering.formats import Formats
from .options import AsJson, Calibrate, Cycles, DataPath, NetName, Top1, takes_formats
from .output import show, show_json


@takes_formats
def board(
        net: NetName,
        board: Annotated[str, typer.Option(
            help="icebreaker, tangnano9k, or ulx3s (with 85F; ulx3s-12f, -25f, -45f).")],
        out: Annotated[Path, typer.Option(help="The board directory to write.")],
        cycles: Annotated[int | None, typer.Option(
            callback=Cycles, help="Take at most so many cycles per image. Default: as many as the "
            "serial line takes for one, or the fewest that fit the device.")] = None,
        baud: Annotated[int, typer.Option(help="Bits per second of the serial line.")] = 1_000_000,
        virtual: Annotated[bool, typer.Option(
            "--virtual", help="Make no bitstream, just what the virtual board needs.")] = False,
        top1: Top1 = False, calibrate: Calibrate = None, *, formats: Formats,
        data_path: DataPath = None, as_json: AsJson = False) -> None:
    """Make a bitstream with open tools: network, serial link, class on the LEDs.

    `n2uq-hw run DIR IMAGES --port /dev/ttyUSB0` then runs images on the board, and `--port virtual`
    on a simulation of the same design.
    """
    from .. import api
    from ..data import images_for

    graph = api.lower(net, formats, top1=top1, calibrate=calibrate)
    images, labels = images_for(graph.meta.get("dataset", ""), data_path) or (None, None)
    made = api.board(graph, board, out, cycles=cycles, baud=baud, bitstream=not virtual,
                     images=images, labels=labels)
    if as_json:
        return show_json(made.told)
    show(*made.parts())
