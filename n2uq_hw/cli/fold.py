"""`n2uq-hw fold`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import nets
from ..errors import N2uqError
from ..ir.folding import reach
from ..lowering.formats import Formats
from ..lowering.lower import lower as lower_net
from ..tables import Table
from .options import (
    AsJson,
    Calibrate,
    Clock,
    Cycles,
    FifoBudget,
    FractionBits,
    HeadBits,
    LeastFifos,
    NetName,
    OutputBits,
    ResidualBits,
    StemBits,
    within,
)
from .output import fifo_parts, fifos, show, show_json
from .policy import ranges, sizing


def fold(
        net: NetName,
        fps: Annotated[float | None, typer.Option(
            callback=within(1e-6, 1e12, "images/s"),
            help="Reach so many images per second at --clock.")] = None,
        cycles: Annotated[int | None, typer.Option(
            callback=Cycles,
            help="Take at most so many cycles per image.")] = None,
        max_luts: Annotated[int | None, typer.Option(
            callback=within(1, 10**12),
            help="The best rate with at most so many LUTs, those that are memory included.")
            ] = None,
        clock: Clock = 200.0,
        family: Annotated[str, typer.Option(help="xcup or ecp5.")] = "xcup",
        out: Annotated[Path | None, typer.Option(
            help="Write the folding in this YAML file, which `build --folding` takes.")] = None,
        fifo_budget: FifoBudget = 0.0, least_fifos: LeastFifos = False,
        top1: Annotated[bool, typer.Option(
            help="Put out the class index instead of the logits.")] = False,
        calibrate: Calibrate = None, residual_fraction_bits: FractionBits = None,
        residual_bits: ResidualBits = None, stem_bits: StemBits = 16, head_bits: HeadBits = 8,
        output_fraction_bits: OutputBits = None,
        as_json: AsJson = False) -> None:
    """Choose the folding that costs least at a rate, or is fastest within a budget of LUTs.

    LUTs are estimated, without DSP blocks; a block RAM counts as 160 (xcup) or 400 (ecp5).
    """
    from ..plan.choice import fold as fold_problem
    from ..plan.choice import save_folding
    from ..plan.problem import BLOCK_LUTS, Problem

    given = {"--fps": fps, "--cycles": cycles, "--max-luts": max_luts}
    named = [f"{name} {value:g}" for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise N2uqError(f"{' and '.join(named)} exclude each other")
    formats = Formats(residual_fraction_bits, residual_bits, stem_bits, head_bits,
                      output_fraction_bits)
    whole = nets.find_net(net)
    graph = lower_net(whole, formats, top1=top1, ranges=ranges(whole, formats, calibrate))
    least, slowest = reach(graph)
    if fps is not None:
        cycles = int(clock * 1e6 / fps)
        if cycles < least:
            raise N2uqError(f"{slowest}: takes {least:,} cycles per image at its fastest, "
                            f"{clock * 1e6 / least:,.1f} images/s at {clock:g} MHz; {fps:g} "
                            "images/s cannot be reached")
    problem = Problem(graph, family)
    sized, made = fold_problem(problem, cycles=cycles, max_luts=max_luts,
                                **sizing(fifo_budget, least_fifos))
    taken = made["cycles_per_image"]
    if out is not None:
        save_folding(sized.folding, graph, out)
    rate = clock * 1e6 / taken
    if as_json:
        return show_json(made | {"clock_mhz": clock, "images_per_second": rate}
                           | fifos(sized))
    kinds = ("lut", "ff", "bram", "lutram")
    table = Table("unit", "kind", "PE", "SIMD", "style", "cycles", *(k.upper() for k in kinds),
                   left=2)
    for row in made["layers"]:
        table.add_row(row["name"], row["kind"], str(row["pe"]), str(row["simd"]), row["style"],
                      *(f"{row[key]:,}" for key in ("cycles", *kinds)))
    for name, row in ((f"between units ({made['between']['units']})", made["between"]),
                      ("in all", made["total"])):
        table.add_row(name, *[""] * 5, *(f"{row[kind]:,}" for kind in kinds))
    show(f"{graph.name} on {family}, estimated without DSP blocks", table,
           "between units: width converters, FIFOs, forks; cycles per image in which the unit is "
           f"busy; a block RAM was taken for {BLOCK_LUTS[family]} LUTs",
           *fifo_parts(sized),
           f"{taken:,.0f} cycles per image, {made['macs_per_cycle']:,.1f} MACs per "
           f"cycle; at {clock:g} MHz: {rate:,.1f} images/s")
