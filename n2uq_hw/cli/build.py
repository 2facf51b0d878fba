"""`n2uq-hw build`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import nets
from ..errors import N2uqError
from ..lowering.formats import Formats
from ..lowering.lower import lower as lower_net
from ..tables import Table
from .options import (
    AsJson,
    Calibrate,
    Cycles,
    DataPath,
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
from .output import bars, fifo_parts, fifos, show, show_json
from .policy import emit_build, folding_of, ranges, report_build, sizing


def build(
        net: NetName, out: Annotated[Path, typer.Option(help="The build directory to make.")],
        folding: Annotated[Path | None, typer.Option(
            help="A YAML folding, such as an edited folding.yaml of another build.")] = None,
        cycles: Annotated[int | None, typer.Option(
            callback=Cycles,
            help="Choose the least estimated cost that takes at most so many cycles per image; "
            "default: as many cycles as the slowest sliding window.")] = None,
        unroll: Annotated[int | None, typer.Option(
            callback=within(1, 1000),
            metavar="LEVELS", help="Every MatVec in logic, all other units with all the lanes that "
            "they can have; a register after so many levels of carry chains.")] = None,
        lut: Annotated[int | None, typer.Option(
            help="With --unroll: inputs of the LUTs that the logic suits, 6 (Xilinx, the default) "
            "or 4.")] = None,
        top1: Annotated[bool, typer.Option(
            help="Put out the class index instead of the logits.")] = False,
        fifo_budget: FifoBudget = 0.0, least_fifos: LeastFifos = False,
        calibrate: Calibrate = None, residual_fraction_bits: FractionBits = None,
        residual_bits: ResidualBits = None, stem_bits: StemBits = 16, head_bits: HeadBits = 8,
        output_fraction_bits: OutputBits = None,
        data_path: DataPath = None, as_json: AsJson = False) -> None:
    """Write Verilog, IR, folding, test vectors, manifest and report to a directory."""
    from ..plan.choice import unrolled
    from ..sim.timing.fifos import size_fifos

    formats = Formats(residual_fraction_bits, residual_bits, stem_bits, head_bits,
                      output_fraction_bits)
    given = nets.find_net(net)
    with bars() as progress:
        graph = lower_net(given, formats, top1=top1, ranges=ranges(given, formats, calibrate))
        progress("build: FIFOs", 0.0)
        if unroll is not None and (folding is not None or cycles is not None):
            raise N2uqError("--unroll excludes --folding and --cycles, and is given beside "
                            f"{folding or cycles}")
        if unroll is None and lut is not None:
            raise N2uqError(f"--lut must come with --unroll, and is given without: {lut}")
        folds = (folding_of(graph, folding, cycles) if unroll is None
                 else unrolled(graph, unroll, 6 if lut is None else lut))
        sized = size_fifos(graph, folds, **sizing(fifo_budget, least_fifos))
        made = emit_build(given, graph, out, sized, data_path, progress)
        report_build(given, out, data_path, progress)
    if as_json:
        return show_json(made | fifos(sized))
    table = Table("unit", "kind", "shape", "bits", "PE", "SIMD",
                  "style", "cycles", left=2)
    for row in made["layers"]:
        table.add_row(row["name"], row["kind"], "×".join(map(str, row["shape"])),
                      *(str(row[key]) for key in ("bits", "pe", "simd", "style", "cycles")))
    show(f"{made['name']} in {out}", table,
           "PE output channels × SIMD inputs per cycle; cycles per image in which the unit is busy",
           *fifo_parts(sized))
