"""`n2uq-hw cost`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..tables import Table
from .options import AsJson, BuildDir
from .output import bars, show, show_json


def cost(
        folder: BuildDir,
        family: Annotated[str, typer.Option(help="xcup, xc7, ecp5 or ice40.")] = "xcup",
        dsp: Annotated[bool, typer.Option(help="Whether multiplier blocks may be used.")] = True,
        pnr: Annotated[bool, typer.Option(
            "--pnr", help="Place and route too (ecp5, ice40): Fmax, images per second.")] = False,
        seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Seed of the placer.")] = 1,
        as_json: AsJson = False) -> None:
    """Synthesize a build with Yosys: LUTs, flip-flops and memories per unit and in all."""
    from ..builds import synth
    from ..builds.emit import load_build
    from ..builds.measured import keep_costs, keep_verdict, verilog_hash
    from ..builds.verify import verify
    from ..cost.estimate import Cost
    from ..cost.memories import FAMILIES
    from ..hw.accelerator import module_name
    from ..plan.problem import prices

    made = load_build(folder)
    of = verilog_hash(made)
    with bars() as progress:
        placed = None
        if pnr:  # first: it asks for more
            progress(f"yosys and nextpnr {family}", 0.0)
            placed = synth.place_and_route(made.verilog, module_name(made.graph), family, seed=seed,
                                           dsp=dsp, work=folder / "synthesis")
            verdict = verify(made, *made.images(8, None), progress=progress)
            keep_verdict(made, verdict, of)
        progress(f"yosys {family}", 0.0)
        found = synth.synthesize_build(made, family, dsp=dsp)
    keep_costs(made, found, dsp, placed, of)
    result = found.as_dict()
    # Beside what was counted, where there are estimates: the families that they are fitted to.
    guessed = {} if dsp or family not in FAMILIES else prices(made.graph, made.folding, family)
    if guessed:
        result["estimates"] = {name: guess._asdict() for name, guess in guessed.items()}
    if placed is not None:
        result["pnr"] = placed.as_dict() | {
            "cycles_per_image": verdict.cycles_per_image,
            "images_per_second": placed.fmax_mhz * 1e6 / verdict.cycles_per_image}
    if as_json:
        return show_json(result)
    kinds = ("lut", "carry", "ff", "bram", "lutram", "dsp")
    also = ("lut", "ff", "bram", "lutram") if guessed else ()
    guessed["in all"] = Cost(*map(sum, zip(*guessed.values(), strict=True)))
    table = Table("unit", *(k.upper() for k in kinds), *(f"estimated {k.upper()}" for k in also))
    for name, used in [*found.units.items(), ("in all", found.total)]:
        table.add_row(name, *(f"{getattr(used, kind):,}" for kind in kinds),
                      *(f"{getattr(guessed[name], kind):,.0f}" for kind in also))
    show(f"{made.graph.name} on {family}, Yosys {found.version}, DSP blocks "
           f"{'on' if dsp else 'off'}", table,
           "in all: the units and what connects them")
    if placed is not None:
        row = result["pnr"]
        show(f"nextpnr-{family} {placed.version}, {placed.device}, seed {seed}: "
               f"{placed.fmax_mhz:.1f} MHz; {row['cycles_per_image']:,.2f} cycles per image, "
               f"{row['images_per_second']:,.0f} images/s")
