"""`n2uq-hw import_checkpoint`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import N2uqError
from .options import floats
from .output import say, show


def import_checkpoint(
        checkpoint: Annotated[Path, typer.Argument(
            help="A checkpoint of the authors' training code, or a .safetensors file with the same "
            "names.")],
        arch: Annotated[str, typer.Option(help="The architecture: resnet18, resnet34, resnet50 or "
        "mobilenetv2.")],
        out: Annotated[Path, typer.Option(
            help="The net file to write. The net has its name, without the ending.")],
        bits: Annotated[int | None, typer.Option(
            help="Bits of weights and activations, 2 to 8. Default: as the file says.")] = None,
        quantize_downsample: Annotated[bool | None, typer.Option(
            help="Whether shortcuts are quantized. Default: as the file says.")] = None,
        num_classes: Annotated[int | None, typer.Option(
            help="Number of classes. Default: as the file says.")] = None,
        key: Annotated[str | None, typer.Option(
            help="The dictionary to read, such as ema, if the file holds several.")] = None,
        size: Annotated[int, typer.Option(
            "--input", help="Height and width of the images, 32 to 224.")] = 224,
        mean: Annotated[str, typer.Option(
            help="Mean of each channel, for pixels from 0 to 1.")] = "0.485,0.456,0.406",
        std: Annotated[str, typer.Option(help="Standard deviation of each channel, for pixels from "
        "0 to 1.")] = "0.229,0.224,0.225") -> None:
    """Make a net file from a trained checkpoint. Needs torch."""
    try:
        from ..importers.checkpoint import import_checkpoint as read_checkpoint
    except ModuleNotFoundError as error:
        raise N2uqError(f"{error.name}: needed to read checkpoints, and not installed "
                        "(pip install 'n2uq-hw[train]')") from None
    net = read_checkpoint(
        checkpoint, arch, bits=bits, quantize_downsample=quantize_downsample, classes=num_classes,
        size=size, mean=floats("mean", mean), std=floats("std", std), name=out.stem,
        key=key)
    for note in net.meta.get("notes", ()):
        say(f"note: {checkpoint}: {note}")
    net.save(out)
    shortcuts = {True: ", quantized downsampling", False: ", full-precision downsampling", None: ""}
    show(f"{out}: {arch}, {net.meta['bits']} bits"
           f"{shortcuts[net.meta.get('quantize_downsample')]}, {net.meta['classes']} classes, "
           f"{sum(value.size for value in net.params.values()):,} parameters, "
           f"input 3×{size}×{size}, {net.meta['moved_weights']} weights moved off a boundary")
