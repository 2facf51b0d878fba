"""`n2uq-hw train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import N2uqError, installed
from .options import numbers
from .output import percent, show

if TYPE_CHECKING:
    from ..model import Net


def train(
        out: Annotated[Path, typer.Option(
            help="The net file to write. The net has its name, without the ending.")],
        dataset: Annotated[str | None, typer.Argument(
            help="The data set: digits or mnist. None with --model.")] = None,
        architecture: Annotated[str | None, typer.Argument(
            help="The architecture: mlp, cnn, resnet8, resnet18 or mobilenetv2.")] = None,
        model: Annotated[str | None, typer.Option(
            metavar="FILE.py:FUNCTION", help="Train your own module: the function returns it. The "
            "file is run, as Python code. The same command goes on after a break.")] = None,
        convert: Annotated[bool, typer.Option(
            help="With --model: train the N2UQ model of a float module.")] = False,
        teacher: Annotated[str | None, typer.Option(
            metavar="FILE.py:FUNCTION", help="With --model: a trained module, whose softmax is "
            "learned in the place of labels. The file is run.")] = None,
        arch: Annotated[str | None, typer.Option(help="The architecture, as an option.")] = None,
        widths: Annotated[str | None, typer.Option(
            help="Features (mlp) or channels (cnn, resnet8) of the hidden layers. Default: 64,64, "
            "or the architecture's own.")] = None,
        weight_bits: Annotated[int, typer.Option(
            min=1, max=8, help="Bits of the weights.")] = 2,
        act_bits: Annotated[int, typer.Option(
            min=1, max=8, help="Bits of the activations.")] = 2,
        first_last_bits: Annotated[int, typer.Option(
            min=0, max=8, help="Weight bits of the first and the last layer. 0, with --convert, "
            "leaves them in full precision.")] = 8,
        input_bits: Annotated[int, typer.Option(
            min=0, max=8, help="Quantize the pixels to so many bits. 0 takes them whole.")] = 0,
        epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 60,
        batch: Annotated[int, typer.Option(help="Images per step.")] = 64,
        lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 2e-3,
        seed: Annotated[int, typer.Option(help="Seed of the training. The same seed trains the "
        "same net.")] = 0,
        pools: Annotated[str | None, typer.Option(
            help="Convolutions that end in a max-pool, such as 1,2. Default: the last "
            "two.")] = None,
        shift: Annotated[int, typer.Option(
            help="Move training images by up to so many pixels each way.")] = 0,
        data_path: Annotated[Path | None, typer.Option(
            "--data", envvar="N2UQ_MNIST", help="Folder of the MNIST IDX files. With --model: an "
            ".npz with `images` [N, C, H, W] and `labels` [N], IDX files, CIFAR-10's binary "
            "archive or its folder, or a folder of images for each class.")] = None) -> None:
    """Train a network with N2UQ quantizers. Needs torch."""
    with installed("for training", "train"):
        from ..train.fit import run_training
        from ..train.own import Settings, train_own
    if model is not None:
        if dataset or architecture or arch or widths or pools or input_bits or data_path is None:
            raise N2uqError("--model must come with --data, and without a data set, an "
                            "architecture, --widths, --pools or --input-bits")
        net = train_own(Settings(
            model, str(data_path), teacher or "", convert, weight_bits, act_bits, first_last_bits,
            epochs, batch, lr, shift, seed), out)
        return _show(net, out, f"; loss curve in {out.with_suffix('.svg')}")
    if dataset is None or teacher or convert:
        raise N2uqError("--teacher and --convert must come with --model" if dataset else
                        "a data set or --model must be given")
    if (architecture is None) == (arch is None):
        raise N2uqError("architecture must be given once, as an argument or with --arch, not "
                        + ("never" if arch is None else f"twice: {architecture}, {arch}"))
    architecture = architecture or arch or ""
    if widths is None and architecture in ("mlp", "cnn"):
        widths = "64,64"
    _show(run_training(
        dataset, architecture, widths=numbers("widths", widths) if widths else (),
        weight_bits=weight_bits, act_bits=act_bits, first_last_bits=first_last_bits,
        input_bits=input_bits, epochs=epochs, lr=lr, seed=seed, batch=batch, data_folder=data_path,
        out=out, name=out.stem, pools=numbers("pools", pools) if pools else None, shift=shift), out)


def _show(net: Net, out: Path, more: str = "") -> None:
    accuracy = net.meta.get("accuracy")
    show(f"{out}: " + (f"float accuracy {percent(accuracy['float'])} on the test split, "
                       if accuracy else "")
         + f"{percent(net.meta['validation'])} in validation" + more)
