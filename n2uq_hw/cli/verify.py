"""`n2uq-hw verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import AsJson, BuildDir, Cluster, DataPath, Simulator
from .output import say, show, show_json


def verify(
        folder: BuildDir,
        images: Annotated[int | None, typer.Option(
            help="How many images to simulate. Default: all of --data, else the build's test "
            "vectors.")] = None,
        stalls: Annotated[float, typer.Option(
            help="Probability of a stalled cycle on either side, 0 to 0.95.")] = 0.0,
        seed: Annotated[int, typer.Option(
            min=0, max=2**32 - 1, help="Seed of the stall pattern.")] = 0,
        bulk: Annotated[bool, typer.Option(
            "--bulk", help="Share the images among the cores of the machine, with a simulator "
            "each. Cycle counts are those of the first share.")] = False,
        shares: Annotated[int, typer.Option(
            min=0, help="With --bulk: how many shares. 0 is one per core, or per thread of "
            "--cluster.")] = 0,
        cluster: Cluster = "",
        waves: Annotated[Path | None, typer.Option(
            help="Write the waveforms of the images to this FST file: a scope per layer, a decimal "
            "number per lane. Beside it lie .gtkw, which GTKWave opens, and .sucl, Surfer's "
            "commands. Needs pylibfst.")] = None,
        simulator: Simulator = "verilator",
        netlist: Annotated[str, typer.Option(
            metavar="FAMILY", help="Simulate the cells that Yosys makes of the accelerator, as "
            "`cost` counts them, for xcup, ecp5 or ice40. In Verilator; minutes for large "
            "networks.")] = "",
        power_up: Annotated[int | None, typer.Option(
            "--power-up", min=1, max=2**31 - 1, metavar="SEED", help="Start registers, and "
            "memories without contents, at random, so that only the reset sets them.")] = None,
        data_path: DataPath = None,
        as_json: AsJson = False) -> None:
    """Simulate a build's Verilog and compare every output bit with golden.

    Exit code 1 if a bit differs.
    """
    from ..api import load_build

    build = load_build(folder)
    for name in build.changed:
        say(f"note: {folder / name} is not as it was built")
    chosen, labels = build.images(3 if waves and images is None else images, data_path)
    if waves is not None:
        build.waves(chosen, waves, stalls=stalls, seed=seed)
    verdict = build.verify(chosen, labels, stalls=stalls, seed=seed,
                           simulator=simulator, netlist=netlist, power_up=power_up,
                           jobs=shares if bulk or cluster else None, cluster=cluster)
    if as_json:
        show_json(verdict.as_dict())
    else:
        head, table, *_ = verdict.parts()
        show(f"{build.graph.name}, {head}", table)
    if verdict.mismatches:
        say(f"mismatch: {verdict.first_mismatch}")
        raise typer.Exit(1)
