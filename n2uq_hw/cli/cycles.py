"""`n2uq-hw cycles`."""

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
    Clock,
    Cycles,
    FifoBudget,
    FractionBits,
    HeadBits,
    NetName,
    OutputBits,
    ResidualBits,
    StemBits,
    within,
)
from .output import fifo_parts, fifos, show, show_json
from .policy import folding_of, ranges, sizing


def cycles(
        net: NetName,
        folding: Annotated[Path | None, typer.Option(
            help="A YAML folding; default: as `build` chooses.")] = None,
        cycles: Annotated[int | None, typer.Option(
            callback=Cycles,
            help="Choose a folding for at most so many cycles per image, as `build` does.")] = None,
        images: Annotated[int, typer.Option(
            callback=within(1, 1_000_000),
            help="How many images, without a gap.")] = 4,
        clock: Clock = 200.0,
        source: Annotated[str, typer.Option(
            help="When a beat of pixels may come: always, every:N (one in N cycles), burst:ON,OFF "
            "or a file (.npy, or .txt) with a 0 per cycle, 1 where none may.")] = "always",
        sink: Annotated[str, typer.Option(help="When a result may leave; the same.")] = "always",
        stalls: Annotated[float, typer.Option(
            help="Stall both sides as `verify` does with --stalls and --seed.")] = 0.0,
        seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="The same.")] = 0,
        fifo_budget: FifoBudget = 0.0,
        top1: Annotated[bool, typer.Option(
            help="Put out the class index instead of the logits.")] = False,
        calibrate: Calibrate = None, residual_fraction_bits: FractionBits = None,
        residual_bits: ResidualBits = None, stem_bits: StemBits = 16, head_bits: HeadBits = 8,
        output_fraction_bits: OutputBits = None,
        picture: Annotated[Path | None, typer.Option(
            "--plot", help="Draw the pipeline over time in this .svg or .png file.")] = None,
        as_json: AsJson = False) -> None:
    """Predict cycles, rate and bottleneck without simulating: exact, for any size of network."""
    from ..sim.timing.fifos import size_fifos
    from ..sim.timing.forecast import forecast, pattern, plot, stalled

    if stalls and (source, sink) != ("always", "always"):
        raise N2uqError("--stalls and --source or --sink exclude each other")
    formats = Formats(residual_fraction_bits, residual_bits, stem_bits, head_bits,
                      output_fraction_bits)
    given = nets.find_net(net)
    graph = lower_net(given, formats, top1=top1, ranges=ranges(given, formats, calibrate))
    sized = size_fifos(graph, folding_of(graph, folding, cycles), **sizing(fifo_budget))
    if stalls:
        found = stalled(graph, sized.folding, images, stalls, seed)
    else:
        at_hand = images == sized.images and source == sink == "always"
        found = forecast(graph, sized.folding, images=images, source=pattern(source),
                         sink=pattern(sink), trace=sized.trace if at_hand else None)
    if picture is not None:
        plot(found, picture)
    timed = {"clock_mhz": clock, "images_per_second": clock * 1e6 / found.cycles_per_image,
             "latency_us": found.cycles_last_output / clock}
    if as_json:
        return show_json(found.as_dict() | timed | fifos(sized))
    table = Table("unit", "kind", "PE", "SIMD", "busy", "starved", "blocked", "idle",
                  "utilization", "FIFO depth", "most held", left=2)
    for row in found.layers:
        depths = [", ".join(str(pair[k]) for pair in row["fifos"].values()) for k in (0, 1)]
        table.add_row(row["name"], row["kind"], str(row["pe"]), str(row["simd"]), *(
            f"{row[mode]:,}" for mode in ("busy", "starved", "blocked", "idle")),
            f"{row['utilization']:.4f}", *depths)
    show(f"{found.name}, {images} images", table,
           "cycles of all images; utilization: share of the cycles per image that the unit needs",
           f"bottleneck: {found.bottleneck}", *fifo_parts(sized),
           f"cycles to the first output: {found.cycles_first_output:,}, to the image's last: "
           f"{found.cycles_last_output:,}; per image: {found.cycles_per_image:,.2f}; "
           f"MAC utilization of the slowest layer: {found.mac_utilization:.4f}",
           f"at {clock:g} MHz: {timed['images_per_second']:,.1f} images/s, latency "
           f"{timed['latency_us']:,.1f} µs")
