"""Training of chain networks: topologies, recipes of the shipped nets, and the loop."""

from __future__ import annotations

import copy
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeRemainingColumn

from . import data
from .errors import N2uqError
from .model import (
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
from .nn import Network, to_net

__all__ = ["ARCHITECTURES", "RECIPES", "Recipe", "cnn", "mlp", "train"]

VALIDATION = 10  # every tenth training image chooses the epoch that is kept


@dataclass(frozen=True)
class Recipe:
    """Everything that a training run depends on; the same recipe gives the same net.

    `widths`: hidden features (mlp), or channels of the 3 × 3 convolutions (cnn), of which those in
    `pools` end in a 2 × 2 max-pool.  `edge_bits`: weight bits of the first and the last layer.
    `input_bits`: if not 0, the pixels pass a learned quantizer first.
    """

    dataset: str
    architecture: str
    widths: tuple[int, ...]
    pools: tuple[int, ...] = ()
    weight_bits: int = 2
    act_bits: int = 2
    edge_bits: int = 8
    input_bits: int = 0
    epochs: int = 60
    batch: int = 64
    lr: float = 2e-3
    shift: int = 0
    seed: int = 0


def _activation(name: str, channels: int, bits: int) -> list[Layer]:
    return [BatchNorm(f"{name}_bn", channels), Bias(f"{name}_bias1", channels),
            PReLU(f"{name}_prelu", channels), Bias(f"{name}_bias2", channels),
            LTQ(f"{name}_quan", bits)]


def mlp(recipe: Recipe, shape: tuple[int, int, int], classes: int) -> tuple[Layer, ...]:
    """Linear layers of `widths`, each followed by BN, bias-PReLU-bias and LTQ; then the classes."""
    sizes = [int(np.prod(shape)), *recipe.widths, classes]
    layers: list[Layer] = [LTQ("input_quan", recipe.input_bits)] if recipe.input_bits else []
    layers.append(Flatten("flatten"))
    for k, (inputs, outputs) in enumerate(zip(sizes[:-1], sizes[1:], strict=True), 1):
        edge = k in (1, len(sizes) - 1)
        layers.append(Linear(f"fc{k}", inputs, outputs,
                             recipe.edge_bits if edge else recipe.weight_bits))
        layers += (_activation(f"fc{k}", outputs, recipe.act_bits) if k < len(sizes) - 1
                   else [BatchNorm(f"fc{k}_bn", outputs)])
    return tuple(layers)


def cnn(recipe: Recipe, shape: tuple[int, int, int], classes: int) -> tuple[Layer, ...]:
    """3 × 3 convolutions of `widths`, pooled after those in `pools`; then a linear classifier."""
    channels, height, width = shape
    layers: list[Layer] = [LTQ("input_quan", recipe.input_bits)] if recipe.input_bits else []
    for k, outputs in enumerate(recipe.widths, 1):
        layers.append(Conv(f"conv{k}", channels, outputs, 3, 1, 1,
                           bits=recipe.edge_bits if k == 1 else recipe.weight_bits))
        layers += _activation(f"conv{k}", outputs, recipe.act_bits)
        if k in recipe.pools:
            layers.append(MaxPool(f"pool{k}", 2, 2))
            height, width = height // 2, width // 2
        channels = outputs
    if min(height, width) < 1:
        raise N2uqError(f"cnn: pools must leave a pixel of {shape[1]} × {shape[2]}, "
                        f"not {len(recipe.pools)} of them")
    return (*layers, Flatten("flatten"),
            Linear("fc", channels * height * width, classes, recipe.edge_bits),
            BatchNorm("fc_bn", classes))


ARCHITECTURES = {"mlp": mlp, "cnn": cnn}

_DIGITS_CNN = Recipe("digits", "cnn", (16, 32, 32), (2, 3), epochs=60, shift=1)
RECIPES = {
    "digits_mlp_w2a2": Recipe("digits", "mlp", (64, 64), epochs=100),
    "digits_cnn_w2a2": _DIGITS_CNN,
    "digits_cnn_w3a3": replace(_DIGITS_CNN, weight_bits=3, act_bits=3),
    "digits_cnn_w4a4": replace(_DIGITS_CNN, weight_bits=4, act_bits=4),
    "mnist_mlp_w2a2": Recipe("mnist", "mlp", (64, 64, 64), edge_bits=2, input_bits=2, epochs=120,
                             batch=128, lr=2e-3),
    "mnist_cnn_w2a2": Recipe("mnist", "cnn", (16, 32, 64), (1, 2, 3), epochs=16, batch=128,
                             lr=2e-3, shift=2),
}


def _shifted(images: torch.Tensor, most: int, rng: np.random.Generator) -> torch.Tensor:
    """A batch moved by up to `most` pixels each way, zeros coming in."""
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


def train(name: str, recipe: Recipe, folder: Path | None = None, *, quiet: bool = False) -> Net:
    """Train a network and return it as data.

    Parameters
    ----------
    name: of the net.
    recipe: what to train; bits 1..8.
    folder: of the data set's files, where it has any.
    quiet: no progress on the terminal.

    Returns
    -------
    The net of the epoch that did best on the validation images (every tenth training image), with
    recipe and float test accuracy in ``meta``.  Seeded: the same call gives the same net.
    """
    for what in ("weight_bits", "act_bits", "edge_bits"):
        if getattr(recipe, what) not in range(1, 9):
            raise N2uqError(f"{what} must be in 1..8, not {getattr(recipe, what)}")
    if recipe.architecture not in ARCHITECTURES:
        raise N2uqError(f"architecture must be one of {', '.join(ARCHITECTURES)}, "
                        f"not {recipe.architecture}")
    given, held = data.load(recipe.dataset, folder, "train"), data.load(recipe.dataset, folder)
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    shape = tuple(given.images.shape[1:])
    layers = ARCHITECTURES[recipe.architecture](recipe, shape, given.classes)
    network = Network(layers)
    if recipe.input_bits:
        # Pixels come in 0..1, the quantizer's surrogate covers 0..2.
        torch.nn.init.constant_(network.get_submodule("input_quan").scale1, 2.0)
    images = torch.from_numpy(given.images).float() / given.max
    labels = torch.from_numpy(given.labels)
    validation = torch.arange(len(labels)) % VALIDATION == 0
    x, y = images[~validation], labels[~validation]
    optimizer = torch.optim.Adam(network.parameters(), recipe.lr)
    steps = recipe.epochs * -(-len(y) // recipe.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, steps, pct_start=0.1)

    best, kept = -1.0, copy.deepcopy(network.state_dict())
    console = Console(stderr=True, quiet=quiet)
    columns = (*Progress.get_default_columns()[:3], TimeRemainingColumn(),
               TextColumn("{task.fields[note]}"))
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(name, total=recipe.epochs, note="")
        for epoch in range(1, recipe.epochs + 1):
            network.train()
            order, began = torch.from_numpy(rng.permutation(len(y))), time.monotonic()
            for chosen in order.split(recipe.batch):
                if len(chosen) < 2:  # batch normalization needs two
                    continue
                loss = F.cross_entropy(network(_shifted(x[chosen], recipe.shift, rng)), y[chosen])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            score = _accuracy(network, images[validation], labels[validation])
            if score >= best:
                best, kept = score, copy.deepcopy(network.state_dict())
            note = f"loss {float(loss.detach()):.3f}, validation {score:.4f} (best {best:.4f})"
            progress.update(task, advance=1, note=note)
            if epoch in (1, 2, 5) or epoch % 10 == 0:
                progress.print(f"epoch {epoch:>3}: {note}, {time.monotonic() - began:.1f} s")
    network.load_state_dict(kept)
    meta = {"dataset": recipe.dataset, "recipe": asdict(recipe), "validation": best, "accuracy": {
        "float": _accuracy(network, torch.from_numpy(held.images).float() / held.max,
                           torch.from_numpy(held.labels))}}
    return to_net(network, name, InputSpec(shape, given.max, 1 / given.max), layers, meta)


if __name__ == "__main__":
    # python -m n2uq_hw.train NAME [FOLDER]: train a shipped net again, into n2uq_hw/nets.
    chosen, *rest = sys.argv[1:]
    trained = train(chosen, RECIPES[chosen], Path(rest[0]) if rest else None)
    trained.save(Path(__file__).parent / "nets" / f"{chosen}.safetensors")
    print(f"{chosen}: float accuracy {trained.meta['accuracy']['float']:.4f}")
