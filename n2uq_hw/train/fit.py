"""Training: topologies, recipes of the shipped nets, and the loop.

``python -m n2uq_hw.train.fit NAME [FOLDER]`` trains a shipped net again, into n2uq_hw/nets; FOLDER
holds the MNIST files.
"""

from __future__ import annotations

import copy
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeRemainingColumn

from .. import data
from ..errors import N2uqError
from ..model import (
    LTQ,
    BatchNorm,
    Bias,
    Conv,
    Flatten,
    InputSpec,
    Layer,
    Linear,
    MaxPool,
    Net,
    PReLU,
)
from ..model.architectures import WIDTHS, mobilenetv2, resnet, resnet8
from ..nn import Network

__all__ = ["ARCHITECTURES", "RECIPES", "Recipe", "cnn", "fit", "mlp", "run_training", "start",
           "train"]

VALIDATION = 10    # every tenth training image chooses the epoch that is kept
WARM_UP = 0.1      # share of the steps in which the learning rate rises; then it falls as a cosine
TABLE = (1, 2, 5)  # epochs that get a line of their own, as every tenth does
BATCH_OF_TEST = 500
WIDEST = 4096      # so that the weights fit any memory

LIMITS = {
    "weight_bits": (1, 8), "act_bits": (1, 8), "first_last_bits": (1, 8), "input_bits": (0, 8),
    "epochs": (1, 100_000), "batch": (2, 65_536), "shift": (0, 8), "seed": (0, 2**63 - 1),
}


@dataclass(frozen=True)
class Recipe:
    """Everything that a training run depends on; the same recipe gives the same net.

    Parameters
    ----------
    dataset: a name in `data.DATASETS`.
    architecture: a name in `ARCHITECTURES`.
    widths: hidden features (mlp), channels of the 3 × 3 convolutions (cnn), or of the blocks
        (resnet8; () is its own); () for the networks of the paper.
    pools: the convolutions, counted from 1, that end in a 2 × 2 max-pool; None: the last two.
    weight_bits, act_bits: of the layers between; 1..8.
    first_last_bits: weight bits of the first and of the last layer; 1..8.  The networks of the
        paper and resnet8 have these in full precision and leave it at 8, input_bits at 0.
    input_bits: if not 0, the pixels pass a learned quantizer first; 0..8.
    lr: peak learning rate of Adam.
    shift: training images are moved by up to so many pixels each way.
    """

    dataset: str
    architecture: str
    widths: tuple[int, ...]
    pools: tuple[int, ...] | None = None
    weight_bits: int = 2
    act_bits: int = 2
    first_last_bits: int = 8
    input_bits: int = 0
    epochs: int = 60
    batch: int = 64
    lr: float = 2e-3
    shift: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for what, names in (("dataset", data.DATASETS), ("architecture", tuple(ARCHITECTURES))):
            if getattr(self, what) not in names:
                raise N2uqError(f"{what} must be one of {', '.join(names)}, "
                                f"not {getattr(self, what)!r}")
        for what, (least, most) in LIMITS.items():
            if not least <= getattr(self, what) <= most:
                raise N2uqError(f"{what} must be in {least}..{most}, not {getattr(self, what)}")
        if self.architecture in RESIDUAL:
            self._check_residual()
        if min(self.widths, default=1 if self.architecture in RESIDUAL else 0) < 1:
            raise N2uqError(f"widths must be one or more positive numbers, not {self.widths}")
        if max(self.widths, default=1) > WIDEST:
            raise N2uqError(f"widths must be at most {WIDEST}, not {max(self.widths)}")
        if not set(self.pools or ()) <= set(range(1, len(self.widths) + 1)):
            raise N2uqError(f"pools must name convolutions 1..{len(self.widths)}, "
                            f"not {self.pools}")
        if not 0 < self.lr <= 1:
            raise N2uqError(f"lr must be above 0 and at most 1, not {self.lr}")

    def _check_residual(self) -> None:
        """What the architecture decides keeps its default."""
        if self.weight_bits != self.act_bits:
            raise N2uqError(f"weight_bits of {self.architecture} must be its act_bits "
                            f"{self.act_bits}, not {self.weight_bits}")
        for what, default in (("first_last_bits", 8), ("input_bits", 0), ("pools", None),
                              ("widths", ())):
            free = (self.architecture, what) == ("resnet8", "widths")
            if not free and getattr(self, what) != default:
                raise N2uqError(f"{what} of {self.architecture} must be {default}, "
                                f"not {getattr(self, what)}")


def _input(recipe: Recipe) -> list[Layer]:
    return [LTQ("input_quan", recipe.input_bits)] if recipe.input_bits else []


def _activation(k: int, channels: int, bits: int) -> list[Layer]:
    return [BatchNorm(f"bn{k}", channels), Bias(f"bias{k}a", channels),
            PReLU(f"prelu{k}", channels), Bias(f"bias{k}b", channels), LTQ(f"quan{k}", bits)]


def mlp(recipe: Recipe, shape: tuple[int, int, int], classes: int) -> tuple[Layer, ...]:
    """Linear layers of `widths`, each followed by BN, bias-PReLU-bias and LTQ; then the classes."""
    sizes = [int(np.prod(shape)), *recipe.widths]
    layers = [*_input(recipe), Flatten("flatten")]
    for k, (inputs, outputs) in enumerate(pairwise(sizes), 1):
        bits = recipe.first_last_bits if k == 1 else recipe.weight_bits
        layers += [Linear(f"fc{k}", inputs, outputs, bits),
                   *_activation(k, outputs, recipe.act_bits)]
    return (*layers, Linear("fc", sizes[-1], classes, recipe.first_last_bits),
            BatchNorm("bn_out", classes))


def cnn(recipe: Recipe, shape: tuple[int, int, int], classes: int) -> tuple[Layer, ...]:
    """3 × 3 convolutions of `widths`, pooled after those in `pools`; then a linear classifier.

    A max-pool of quantized levels is exact in integers.
    """
    channels, height, width = shape
    last = len(recipe.widths)
    pools = range(last - 1, last + 1) if recipe.pools is None else recipe.pools
    layers = _input(recipe)
    for k, outputs in enumerate(recipe.widths, 1):
        bits = recipe.first_last_bits if k == 1 else recipe.weight_bits
        layers += [Conv(f"conv{k}", channels, outputs, 3, 1, 1, bits=bits),
                   *_activation(k, outputs, recipe.act_bits)]
        if k in pools:
            layers.append(MaxPool(f"pool{k}", 2, 2))
            height, width = height // 2, width // 2
        channels = outputs
    if min(height, width) < 1:
        raise N2uqError(f"pools must leave a pixel of {shape[1]} × {shape[2]}, "
                        f"not {len(tuple(pools))} of them")
    return (*layers, Flatten("flatten"),
            Linear("fc", channels * height * width, classes, recipe.first_last_bits),
            BatchNorm("bn_out", classes))


def _resnet8(recipe: Recipe, shape: tuple[int, int, int], classes: int) -> tuple[Layer, ...]:
    return resnet8(shape[0], recipe.act_bits, classes, recipe.widths or WIDTHS)


def _resnet18(recipe: Recipe, shape: tuple[int, int, int], classes: int) -> tuple[Layer, ...]:
    return resnet(18, recipe.act_bits, True, classes, shape[0])


def _mobilenetv2(recipe: Recipe, shape: tuple[int, int, int], classes: int) -> tuple[Layer, ...]:
    return mobilenetv2(recipe.act_bits, classes, shape[0])


RESIDUAL = {"resnet8": _resnet8, "resnet18": _resnet18, "mobilenetv2": _mobilenetv2}
ARCHITECTURES = {"mlp": mlp, "cnn": cnn, **RESIDUAL}

_DIGITS_CNN = Recipe("digits", "cnn", (16, 32, 32), (2, 3), epochs=60, shift=1)
RECIPES = {
    "digits_mlp_w2a2": Recipe("digits", "mlp", (64, 64), epochs=100),
    "digits_cnn_w2a2": _DIGITS_CNN,
    "digits_cnn_w3a3": replace(_DIGITS_CNN, weight_bits=3, act_bits=3),
    "digits_cnn_w4a4": replace(_DIGITS_CNN, weight_bits=4, act_bits=4),
    "mnist_mlp_w2a2": Recipe("mnist", "mlp", (64, 64, 64), first_last_bits=2, input_bits=2,
                             epochs=300, batch=128, shift=1),
    "mnist_cnn_w2a2": Recipe("mnist", "cnn", (16, 32, 64), (1, 2, 3), epochs=16, batch=128,
                             shift=2),
    "mnist_resnet8_w2a2": Recipe("mnist", "resnet8", (), epochs=4, lr=3e-3, shift=1),
}


def shifted(images: torch.Tensor, most: int, rng: np.random.Generator) -> torch.Tensor:
    """A batch [N, C, H, W] moved by up to `most` pixels each way, zeros coming in."""
    if not most:
        return images
    dy, dx = rng.integers(0, 2 * most + 1, 2)
    height, width = images.shape[2:]
    return F.pad(images, (most,) * 4)[:, :, dy:dy + height, dx:dx + width]


@torch.no_grad()
def _accuracy(network: Network, images: torch.Tensor, labels: torch.Tensor) -> float:
    network.eval()
    hits = sum(int((network(x).argmax(1) == y).sum())
               for x, y in zip(images.split(1000), labels.split(1000), strict=True))
    return hits / len(labels)


def _test_accuracy(net: Net, test: data.Dataset) -> float:
    """Share of the test images that the float64 reference classifies right."""
    batches = range(0, len(test.images), BATCH_OF_TEST)
    classes = [net.forward(test.images[at:at + BATCH_OF_TEST]).argmax(1) for at in batches]
    return float((np.concatenate(classes) == test.labels).mean())


def train(name: str, recipe: Recipe, folder: Path | None = None, *, quiet: bool = False) -> Net:
    """Train a network and return it as data.

    Parameters
    ----------
    name: of the net.
    recipe: what to train.
    folder: of the data set's files, where it has any.
    quiet: no progress on the terminal.

    Returns
    -------
    The net of the epoch that did best on the validation images (every tenth training image), with
    recipe and float test accuracy in ``meta``; the test images choose nothing.  Seeded: the same
    call gives the same net on the same machine (torch is held to one thread for that, which these
    small nets hardly notice).
    """
    dataset, test = data.load(recipe.dataset, folder, "train"), data.load(recipe.dataset, folder)
    network, spec = start(recipe, dataset)
    best = fit(network, recipe, dataset, name, quiet=quiet)
    meta = {"dataset": recipe.dataset, "recipe": asdict(recipe), "validation": best}
    net = network.to_net(name, spec, meta)
    return replace(net, meta=meta | {"accuracy": {"float": _test_accuracy(net, test)}})


def start(recipe: Recipe, dataset: data.Dataset) -> tuple[Network, InputSpec]:
    """The untrained network of a recipe for images as in `dataset`, and what it takes of them.

    Torch is seeded, and held to one thread.
    """
    torch.set_num_threads(1)
    torch.manual_seed(recipe.seed)
    channels, height, width = dataset.images.shape[1:]
    spec = InputSpec((channels, height, width), dataset.max, 1 / dataset.max)
    network = Network(ARCHITECTURES[recipe.architecture](recipe, spec.shape, dataset.classes))
    if recipe.input_bits:
        # Pixels come in 0..1, the quantizer's surrogate covers 0..2.
        torch.nn.init.constant_(network.get_parameter("input_quan.scale1"), 2.0)
    return network, spec


def fit(network: Network, recipe: Recipe, dataset: data.Dataset, name: str, *, quiet: bool = False
        ) -> float:
    """Train `network` in place on the images of `dataset`, by everything else that the recipe says.

    It ends as it was in the epoch that did best on every tenth of the images, which it does not
    learn; returns that accuracy.
    """
    rng = np.random.default_rng(recipe.seed)
    images = torch.from_numpy(dataset.images) / dataset.max
    labels = torch.from_numpy(dataset.labels)
    held = torch.arange(len(labels)) % VALIDATION == 0
    x, y = images[~held], labels[~held]

    def batches() -> Iterator[torch.Tensor]:
        order = torch.from_numpy(rng.permutation(len(y)))
        # Batch normalization cannot learn from a last batch of one.
        return (batch for batch in order.split(recipe.batch) if len(batch) > 1)

    optimizer = torch.optim.Adam(network.parameters(), recipe.lr)
    steps = recipe.epochs * -(-len(y) // recipe.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, steps, pct_start=WARM_UP)
    best, kept = -1.0, network.state_dict()
    columns = (*Progress.get_default_columns()[:3], TimeRemainingColumn(),
               TextColumn("{task.fields[note]}"))
    console = Console(stderr=True, quiet=quiet)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=recipe.epochs, note="")
        for epoch in range(1, recipe.epochs + 1):
            network.train()
            began, total = time.monotonic(), 0.0
            for chosen in batches():
                loss = F.cross_entropy(network(shifted(x[chosen], recipe.shift, rng)), y[chosen])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total += float(loss.detach()) * len(chosen)
            score = _accuracy(network, images[held], labels[held])
            if score >= best:
                best, kept = score, copy.deepcopy(network.state_dict())
            note = f"loss {total / len(y):.4f}  validation {score:.4f}  best {best:.4f}"
            progress.update(task, advance=1, note=note)
            if epoch in TABLE or epoch % 10 == 0:
                progress.print(f"epoch {epoch:>4}  {note}  {time.monotonic() - began:.1f} s/epoch")
    network.load_state_dict(kept)
    return best


def run_training(
        dataset: str, architecture: str, *, widths: tuple[int, ...], weight_bits: int = 2,
        act_bits: int = 2, first_last_bits: int = 8, input_bits: int = 0, epochs: int = 60,
        lr: float = 2e-3, seed: int = 0, batch: int = 64, data_folder: Path | None = None,
        out: Path, name: str, pools: tuple[int, ...] | None = None, shift: int = 0,
        quiet: bool = False) -> Net:
    """Train as the command line says, write the net file `out`, and return the net.

    The parameters are those of `Recipe` and `train`.  `out` appears whole or not at all: an
    interrupted run leaves what was there before.
    """
    recipe = Recipe(
        dataset, architecture, tuple(widths), pools, weight_bits=weight_bits, act_bits=act_bits,
        first_last_bits=first_last_bits, input_bits=input_bits, epochs=epochs, batch=batch, lr=lr,
        shift=shift, seed=seed)
    # All that can stop the net from being saved, before the hours.
    Net(name, InputSpec((1, 1, 1)), (), {})
    if not out.parent.is_dir() or out.is_dir():
        raise N2uqError(f"{out}: must be a file in a folder that exists")
    try:
        tempfile.TemporaryFile(dir=out.parent).close()
    except OSError as error:
        raise N2uqError(f"{out}: cannot be written: {error.strerror}") from None
    net = train(name, recipe, data_folder, quiet=quiet)
    net.save(out)
    return net


def _main(arguments: list[str]) -> int:
    try:
        if not 1 <= len(arguments) <= 2 or arguments[0] not in RECIPES:
            raise N2uqError(f"give the name of a net, one of {', '.join(RECIPES)}, and the "
                            f"folder of the MNIST files, not {' '.join(arguments) or 'nothing'}")
        name, *folder = arguments
        net = train(name, RECIPES[name], Path(folder[0]) if folder else None)
        net.save(Path(__file__).parents[1] / "nets" / f"{name}.safetensors")
    except N2uqError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted, nothing written", file=sys.stderr)
        return 130
    print(f"{name}: test accuracy {net.meta['accuracy']['float']:.4f}, "
          f"validation {net.meta['validation']:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
