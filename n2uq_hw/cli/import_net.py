"""`n2uq-hw import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import N2uqError, installed
from .options import AsJson, floats, within
from .output import percent, say, show, show_json

Bits = Annotated[int | None, typer.Option(
    help="Bits of weights and activations of a checkpoint, 2 to 8. Default: as the file says.")]


def import_net(
        file: Annotated[Path, typer.Argument(
            help="An ONNX file, a checkpoint of the authors' training code, or a .safetensors file "
            "with the same names.")],
        out: Annotated[Path | None, typer.Option(
            help="The net file to write. The net has its name, without the ending.")] = None,
        check: Annotated[Path | None, typer.Option(
            help="An .npz with the ONNX file's `inputs` and `outputs_float64` or `outputs`. Golden "
            "runs on the inputs, and is compared.")] = None,
        explain: Annotated[bool, typer.Option(
            "--explain", help="List what each node of the ONNX file became, or why it cannot be "
            "anything.")] = False,
        as_json: AsJson = False,
        input_scale: Annotated[float | None, typer.Option(
            help="What an integer of the ONNX file's input stands for, if the file has no "
            "quantizer there. Default: 1.")] = None,
        input_bits: Annotated[int | None, typer.Option(
            help="Bits of the integers of the ONNX file's input, 1 to 16, if the file has no "
            "quantizer there.", callback=within(1, 16))] = None,
        input_signed: Annotated[bool, typer.Option(
            "--input-signed", help="The integers of the ONNX file's input are signed.")] = False,
        arch: Annotated[str | None, typer.Option(
            help="The architecture of a checkpoint: resnet18, resnet34, resnet50 or "
            "mobilenetv2.")] = None,
        bits: Bits = None,
        quantize_downsample: Annotated[bool | None, typer.Option(
            help="Whether shortcuts of a checkpoint are quantized. Default: as the file says."
            )] = None,
        num_classes: Annotated[int | None, typer.Option(
            help="Number of classes of a checkpoint. Default: as the file says.")] = None,
        key: Annotated[str | None, typer.Option(
            help="The dictionary to read, such as ema, if a checkpoint holds several.")] = None,
        size: Annotated[int, typer.Option(
            "--input", help="Height and width of a checkpoint's images, 32 to 224.")] = 224,
        mean: Annotated[str, typer.Option(
            help="Mean of each channel of a checkpoint's images, for pixels from 0 to 1."
            )] = "0.485,0.456,0.406",
        std: Annotated[str, typer.Option(
            help="Standard deviation of each channel of a checkpoint's images, for pixels from 0 "
            "to 1.")] = "0.229,0.224,0.225") -> None:
    """Make a net file from an ONNX file (needs onnx) or from a trained checkpoint (needs torch)."""
    if file.suffix == ".onnx":
        if arch is not None:
            raise N2uqError(f"--arch is for checkpoints, and {file} is an ONNX file")
        if out is None and check is None and not explain:
            raise N2uqError("one of --out, --check and --explain must be given")
        return _onnx(file, out, check, explain, as_json,
                     {"scale": input_scale, "bits": input_bits, "signed": input_signed})
    if arch is None or out is None:
        raise N2uqError(f"--arch and --out must be given for a checkpoint, which {file} is taken "
                        "for; the name of an ONNX file ends in .onnx")
    _checkpoint(file, arch, out, bits=bits, quantize_downsample=quantize_downsample,
                classes=num_classes, size=size, mean=floats("mean", mean),
                std=floats("std", std), key=key)


def _checkpoint(file: Path, arch: str, out: Path, **options: Any) -> None:
    with installed("to read checkpoints", "train"):
        from ..importers.checkpoint import import_checkpoint
    net = import_checkpoint(file, arch, name=out.stem, **options)
    for note in net.meta.get("notes", ()):
        say(f"note: {file}: {note}")
    net.save(out)
    shortcuts = {True: ", quantized downsampling", False: ", full-precision downsampling", None: ""}
    size = options["size"]
    show(f"{out}: {arch}, {net.meta['bits']} bits"
         f"{shortcuts[net.meta.get('quantize_downsample')]}, {net.meta['classes']} classes, "
         f"{sum(value.size for value in net.params.values()):,} parameters, "
         f"input 3×{size}×{size}, {net.meta['moved_weights']} weights moved off a boundary")


def _onnx(file: Path, out: Path | None, check: Path | None, explain: bool, as_json: bool,
          form: dict[str, Any]) -> None:
    with installed("to read ONNX files", "onnx"):
        from ..importers.onnx.reading import read_source

        source = read_source(file)  # what is no good file is refused before the rest is loaded
        from ..importers.onnx import (
            Format,
            Unsupported,
            explained,
            import_onnx,
            lowered,
            read_samples,
        )
        from ..importers.onnx import check as compare
    samples = None if check is None else read_samples(check)
    try:
        imported = import_onnx(source, Format(**form, samples=samples and samples.inputs),
                               name=out.stem if out else None)
        graph = lowered(imported)
    except Unsupported as error:
        if explain and as_json:
            show_json({"nodes": [row._asdict() for row in error.rows]})
        elif explain:
            show(explained(error.rows))
        raise
    notes = [*imported.notes, *graph.meta.get("warnings", ())]
    for note in notes:
        say(f"note: {file}: {note}")
    agrees = None if samples is None else compare(imported, samples, graph)
    if out is not None:
        imported.net.save(out)
    spec = imported.net.input
    if as_json:
        nodes = {"nodes": [row._asdict() for row in imported.rows]} if explain else {}
        return show_json({
            "name": imported.net.name, "layers": len(imported.net.layers),
            "input": {"shape": spec.shape, "min": spec.min, "max": spec.max, "scale": spec.scale},
            "notes": notes, **nodes, **(agrees._asdict() if agrees else {})})
    if explain:
        show(explained(imported.rows))
    show(f"{out or file}: {len(imported.rows)} nodes, {len(imported.net.layers)} layers, "
         f"{sum(value.size for value in imported.net.params.values()):,} parameters, input "
         f"{'×'.join(map(str, spec.shape))} in {spec.min}..{spec.max} times {spec.scale:.6g}")
    if agrees is not None:
        show(f"{agrees.rows} rows of {check}: worst error {agrees.worst_error:.2g} of the outputs' "
             f"range, the same class on {percent(agrees.same_class)}")
