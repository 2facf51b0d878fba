"""`n2uq-hw explore`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import AsJson, Clock, Cluster, DataPath, NetName, numbers, within
from .output import say, show, show_json


def explore(
        net: NetName,
        family: Annotated[str, typer.Option(help="The device family: xcup or ecp5.")] = "xcup",
        budget: Annotated[int, typer.Option(
            callback=within(0, 10_000, "designs"),
            help="How many designs to synthesize: the promising ones.")] = 8,
        stem_bits: Annotated[str, typer.Option(
            help="Bits of the weights of full-precision convolutions to try.")] = "16,12,8",
        head_bits: Annotated[str, typer.Option(
            help="Bits of the weights of full-precision linear layers to try.")] = "8,6,4",
        styles: Annotated[str | None, typer.Option(
            help="What foldings are chosen from: least (as `fold` chooses), folded (nothing in "
            "logic), planes, product, direct or pairs (all products in this form), logic (all in "
            "logic). Default: all.")] = None,
        cycles: Annotated[str, typer.Option(
            help="The fewest and the most cycles per image.")] = "1,1000000000000",
        clock: Clock = 200.0,
        images: Annotated[int, typer.Option(
            callback=within(0, 10**9), help="Most images for the agreement of golden with the "
            "float model.")] = 1000,
        out: Annotated[Path | None, typer.Option(
            help="The folder to write: explore.json, report.html with an interactive picture, and "
            "the foldings for `build --folding`.")] = None,
        jobs: Annotated[int, typer.Option(
            min=0, help="How many processes work side by side. 0 is one per core.")] = 0,
        cache: Annotated[Path | None, typer.Option(
            envvar="N2UQ_CACHE", help="Folder of earlier results. Default: ~/.cache/n2uq-hw.")
            ] = None,
        data_path: DataPath = None, cluster: Cluster = "", as_json: AsJson = False) -> None:
    """Try foldings, forms and bits: estimate all, synthesize the promising, show the best.

    The same command goes on after a break. Exit code 2 if a design could not be synthesized.
    """
    from .. import api

    found = api.explore(
        net, family, budget=budget, stem_bits=numbers("--stem-bits", stem_bits),
        head_bits=numbers("--head-bits", head_bits),
        styles=None if styles is None else tuple(styles.split(",")), clock=clock,
        cycles=numbers("--cycles", cycles), images=images, data_path=data_path, out=out,
        jobs=jobs, cache=cache, cluster=cluster)
    if as_json:
        show_json(found.as_dict())
    else:
        show(*found.parts(), *[f"picture and all designs in {out / 'report.html'}"] if out else [])
    for line in found.failures:
        say(f"failed: {line}")
    if found.failures:
        raise typer.Exit(2)
