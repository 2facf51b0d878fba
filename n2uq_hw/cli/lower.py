"""`n2uq-hw lower`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import N2uqError
from ..lowering.formats import Formats
from ..tables import Table
from .options import (
    AsJson,
    Calibrate,
    DataPath,
    NetName,
    Top1,
    takes_formats,
)
from .output import bars, percent, say, show, show_json, warn

if TYPE_CHECKING:
    from ..ir import Graph


@takes_formats
def lower(
        net: NetName, data_path: DataPath = None, top1: Top1 = False,
        reference: Annotated[Path | None, typer.Option(
            "--agreement", help="An .npz with `images` uint8 [N, C, H, W] and, if known, `labels`, "
            "the float model's `logits`, and the `mean` and `std` of its images. Measures the "
            "agreement, and what each format costs of it.")] = None,
        calibrate: Calibrate = None, *, formats: Formats,
        out: Annotated[Path | None, typer.Option(help="Save the graph to this file.")] = None,
        text: Annotated[bool, typer.Option("--text", help="Print the graph as text.")] = False,
        as_json: AsJson = False) -> None:
    """Lower a network to integers: layers, ranges, widths, and agreement with the float model."""
    from .. import api, data
    from ..builds import accuracy
    from ..ir import describe, dump

    trained = api.load(net)
    if reference is not None and data_path is not None:
        raise N2uqError("--agreement and --data exclude each other, and both are given: "
                        f"{reference}, {data_path}")
    samples = None
    if reference is not None:
        samples = data.read_npz(reference)
        own, trained = trained, accuracy.normalized(trained, samples)
        if trained is not own:
            say(f"note: {trained.name} is lowered for the mean and std in {reference}, "
                "which are not its own")
    elif (images := data.images_for(trained.meta.get("dataset", ""), data_path)) is not None:
        samples = data.Samples(*images)
    graph = api.lower(trained, formats, top1=top1, calibrate=calibrate)
    agrees, costs = None, []
    if samples is not None:
        with bars() as progress:
            agrees = accuracy.agreement(trained, graph, samples.images, samples.labels, progress,
                                        logits=samples.logits)
            if reference is not None and "residual" in graph.meta and samples.logits is not None:
                costs = accuracy.explain(trained, formats, samples.images, samples.logits, progress)
    warn(graph)
    if agrees is not None and agrees.close:
        say(f"note: {trained.name}: {agrees.close} of {agrees.count} {agrees.counted} have their "
            f"class by less than a step of the output, {agrees.step:.3g}; more "
            "--output-fraction-bits tell them apart")
    if out is not None:
        graph.save(out)
    if as_json:
        return show_json({
            "name": graph.name, "layers": describe(graph),
            **{key: graph.meta[key] for key in ("residual_fraction_bits", "output_scale")
               if key in graph.meta},
            **({"rounding": costs} if costs else {}),
            **(agrees.as_dict() if agrees else {"images": 0})})
    show(*([dump(graph).rstrip()] if text else graph.parts()))
    _show_formats(graph, formats, costs)
    show(*agrees.parts() if agrees else (
        "agreement with the float model not measured: give images of "
        f"{trained.name} with --data",))


def _show_formats(graph: Graph, formats: Formats, costs: Sequence[Mapping[str, Any]]) -> None:
    """The formats of a residual network, and what each costs where that was measured."""
    if residual := graph.meta.get("residual"):
        widths = [graph.edges[name].width for name in residual]
        show(f"residual stream: {graph.meta['residual_fraction_bits']} fraction bits, "
             f"{min(widths)} to {max(widths)} bits; stem weights {formats.stem_bits} bits, "
             f"head weights {formats.head_bits} bits")
    if costs:
        table = Table("rounded", "same class", "worst logit error")
        for row in costs:
            table.add_row(row["rounded"], percent(row["top1_agreement"]),
                          f"{row['worst_logit_error']:.4f}")
        show(table, "each row with one format as chosen and the others fine: 20 fraction bits, "
             "16-bit stem and head")
