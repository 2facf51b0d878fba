"""Torch modules as users write them, and random parameters for them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from n2uq_hw.model import InputSpec

SPEC = InputSpec((2, 8, 8), 15, 1 / 15)


def trained(module: nn.Module, spec: InputSpec = SPEC, seed: int = 0) -> nn.Module:
    """With random parameters of either sign, and the running statistics of random images."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for key, value in module.named_parameters():
            if key.endswith("bias"):
                value.uniform_(-0.3, 0.3)
            elif value.dim() == 1 and key.endswith("weight"):
                value.uniform_(-0.5, 1.5)
            elif key.endswith((".a", ".scale1", ".scale2")):
                value.mul_(torch.rand_like(value) + 0.5)
        for each in module.modules():
            if isinstance(each, nn.modules.batchnorm._BatchNorm):
                each.momentum = 1.0
        module.train()(taken(module, torch.rand(32, *spec.shape)))
    return module.eval()


def taken(module: nn.Module, images: Tensor) -> Tensor:
    """Images as the module takes them; of one row, sequences where it has Conv1d."""
    sequences = any(isinstance(each, nn.Conv1d) for each in module.modules())
    return images.squeeze(2) if sequences else images


class UNet(nn.Module):
    """Skips joined by cat, nearest upsampling, a map of classes."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = self.twice(2, 4), self.twice(4, 8)
        self.pool, self.up = nn.MaxPool2d(2), nn.Upsample(scale_factor=2)
        self.bottom, self.up1 = self.twice(8, 8), self.twice(16, 4)
        self.last, self.head = self.twice(8, 4), nn.Conv2d(4, 3, 1)

    def twice(self, inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(True),
            nn.Conv2d(outputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(True))

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(self.pool(first))
        x = self.bottom(self.pool(second))
        x = self.up1(torch.cat([self.up(x), second], dim=1))
        x = torch.cat((F.interpolate(x, size=first.shape[2:], mode="nearest"), first), 1)
        return self.head(self.last(x))


class DenseNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.layers = nn.ModuleList(nn.Sequential(
            nn.BatchNorm2d(4 + 2 * k), nn.ReLU(), nn.Conv2d(4 + 2 * k, 8, 1, bias=False),
            nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 3, padding=1, bias=False))
            for k in range(3))
        self.transition = nn.Sequential(nn.BatchNorm2d(10), nn.ReLU(), nn.Conv2d(10, 5, 1),
                                        nn.AvgPool2d(2, 2))
        self.norm, self.classifier = nn.BatchNorm2d(5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        x = F.relu(self.norm(self.transition(torch.cat(features, 1))))
        return self.classifier(F.adaptive_avg_pool2d(x, (1, 1)).flatten(1))


class Chomp(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :-self.size].contiguous()


class TCN(nn.Module):
    """Causal dilated convolutions, by cutting off and by padding on the left."""

    spec = InputSpec((2, 1, 16), 15, 1 / 15)

    def __init__(self) -> None:
        super().__init__()
        norm = nn.utils.parametrizations.weight_norm
        self.first = nn.Sequential(norm(nn.Conv1d(2, 4, 3, padding=2)), Chomp(2), nn.ReLU(),
                                   nn.Dropout(0.1))
        self.second = nn.Conv1d(4, 4, 2, dilation=4, groups=2)
        self.down, self.norm = nn.Conv1d(2, 4, 1), nn.BatchNorm1d(4)
        self.pool, self.fc = nn.MaxPool1d(2), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.norm(self.second(F.pad(self.first(x), (4, 0)))))
        return self.fc(self.pool(F.relu(y + self.down(x))).mean(-1))
