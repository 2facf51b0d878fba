"""`n2uq-hw pack`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..lowering.formats import Formats
from .options import Calibrate, NetName, Top1, takes_formats
from .output import say, show, warn


@takes_formats
def pack(
        net: NetName,
        build: Annotated[Path, typer.Option(
            metavar="DIR", help="A build with --writable, of the same network in another "
            "training.")],
        out: Annotated[Path, typer.Option(
            help="The file to write: .bin, words for the C driver, or .npz.")],
        top1: Top1 = False, calibrate: Calibrate = None, *, formats: Formats) -> None:
    """Make the tables that turn a build's hardware into another training of its network.

    A network that the build has no room for is refused, in one line that names the layer.
    """
    from .. import api

    built = api.load_build(build)
    for name in built.changed:
        say(f"note: {build / name} is not as it was built")
    graph = api.lower(net, formats, top1=top1, calibrate=calibrate)
    warn(graph)
    tables = api.pack(graph, built)
    tables.save(out)
    show(*tables.parts())
