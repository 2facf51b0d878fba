"""`n2uq-hw verify`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from ..tables import Table
from .options import AsJson, BuildDir, DataPath, Simulator
from .output import bars, say, show, show_json, verdict_rows


def verify(
        folder: BuildDir,
        images: Annotated[int | None, typer.Option(
            help="How many images; default all of --data, else the build's test vectors.")] = None,
        stalls: Annotated[float, typer.Option(
            help="Probability of a stalled cycle on either side, 0 to 0.95.")] = 0.0,
        seed: Annotated[int, typer.Option(
            min=0, max=2**32 - 1, help="Seed of the stall pattern.")] = 0,
        bulk: Annotated[bool, typer.Option(
            "--bulk", help="Share the images among the machine's cores, a simulator each; cycle "
            "counts are those of the first share.")] = False,
        simulator: Simulator = "verilator", data_path: DataPath = None,
        as_json: AsJson = False) -> None:
    """Simulate a build's Verilog and compare every output bit with golden.

    Exit code 1 if a bit differs.
    """
    from ..builds.emit import load_build
    from ..builds.measured import keep_verdict, verilog_hash
    from ..builds.verify import verify as verify_build

    made = load_build(folder)
    for name in made.changed:
        say(f"note: {folder / name} is not as it was built")
    given, labels = made.images(images, data_path)
    of = verilog_hash(made)
    with bars() as progress:
        verdict = verify_build(made, given, labels, stalls=stalls, seed=seed, simulator=simulator,
                         jobs=len(os.sched_getaffinity(0)) if bulk else None, progress=progress)
    keep_verdict(made, verdict, of)
    if as_json:
        show_json(verdict.as_dict())
    else:
        table = Table("", "", left=2)
        for key, value in verdict_rows(verdict):
            table.add_row(key, value)
        show(f"{made.graph.name}, {simulator}, stalls {stalls}, seed {seed}"
               + f", {verdict.shares} shares; cycles are those of the first" * bulk, table)
    if verdict.mismatches:
        say(f"mismatch: {verdict.first_mismatch}")
        raise typer.Exit(1)
