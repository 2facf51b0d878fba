"""A training step of an N2UQ ResNet-20 beside one of the float ResNet-20 that it is made of.

    python -m bench.training

CPU, one thread, 64 images of 3 × 32 × 32, W2A2, by `n2uq_hw.nn.convert`.  The networks take turns,
and the best turn of each counts, since other work on the machine only ever slows a turn down.  The
last row has the quantizer's passes one by one, as without a compiler.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from unittest import mock

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from n2uq_hw.nn import convert, fused

BATCH, TURNS = 64, 8


class Block(nn.Module):
    """Two 3 × 3 convolutions and a shortcut, as He et al. have them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1, self.relu1 = nn.BatchNorm2d(outputs), nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2, self.relu2 = nn.BatchNorm2d(outputs), nn.ReLU()
        self.shortcut = nn.Identity() if inputs == outputs else nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] -> [N, outputs, H', W']."""
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(y + self.shortcut(x))


def resnet20() -> nn.Sequential:
    """The network of He et al. for CIFAR-10: three stages of three blocks."""
    blocks = [Block(inputs, outputs, stride) for inputs, outputs, stride in (
        (16, 16, 1), (16, 16, 1), (16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 32, 1), (32, 64, 2),
        (64, 64, 1), (64, 64, 1))]
    return nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
                         *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def _step(network: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.SGD(network.parameters(), 1e-3, momentum=0.9)

    def step() -> None:
        loss = F.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def measure(turns: int = TURNS) -> tuple[float, float, float]:
    """Seconds of a step: float, quantized, and quantized without the compiled pass."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images, labels = torch.rand(BATCH, 3, 32, 32), torch.randint(0, 10, (BATCH,))
    module = resnet20()
    quantized = _step(convert(module, batches=images), images, labels)

    def apart() -> None:
        with mock.patch.object(fused, "_library", lambda: None):
            quantized()

    steps = (_step(module.train(), images, labels), quantized, apart)
    best = [float("inf")] * len(steps)
    for turn in range(turns + 1):
        for k, step in enumerate(steps):
            begin = perf_counter()
            step()
            if turn:  # the first compiles and allocates
                best[k] = min(best[k], perf_counter() - begin)
    return best[0], best[1], best[2]


def main(console: Console) -> None:
    """The table."""
    console.print(f"A training step of ResNet-20, batch {BATCH}, CPU, one thread "
                  "(aim: ratio ≤ 1.3)")
    rows = Table(box=None, pad_edge=False)
    for k, column in enumerate(("network", "seconds", "ratio")):
        rows.add_column(column, justify="right" if k else "left")
    seconds = measure()
    for name, each in zip(("float", "W2A2", "W2A2, passes one by one"), seconds, strict=True):
        rows.add_row(name, f"{each:.3f}", f"{each / seconds[0]:.2f}")
    console.print(rows, "")


if __name__ == "__main__":
    main(Console())
