"""Random low-bit nets of every kind of layer: golden's outputs are the float64 formulas'."""

from __future__ import annotations

import re

import numpy as np
from low_bit import make, random_images

from n2uq_hw import model
from n2uq_hw.errors import N2uqError
from n2uq_hw.lowering.lower import lower
from n2uq_hw.model import (
    AvgPool,
    Concat,
    Flatten,
    InputSpec,
    IntConv,
    IntLinear,
    Layer,
    MaxPool,
    Net,
    Permute,
    Pointwise,
    Quant,
    Steps,
    Upsample,
)

NETS = 60
REFUSED = r"must read values of one scale|pads with 0|must be followed by a quantizer"


class Grower:
    """A net that grows layer by layer; scales are of float32, as files have them."""

    def __init__(self, seed: int) -> None:
        self.rng, self.seed = np.random.default_rng(seed), seed
        self.layers: list[Layer] = []
        self.values: dict[str, object] = {}
        self.spec = InputSpec((int(self.rng.choice([2, 4])), 6, 5), int(self.rng.choice([1, 15])),
                              0.125, min=int(self.rng.choice([0, -8])))
        self.channels, self.size = self.spec.shape[0], self.spec.shape[1:]
        self.quantizer("first")

    def scales(self, count: int) -> list[float]:
        return [float(np.float32(scale)) for scale in self.rng.uniform(0.02, 0.3, count)]

    def quantizer(self, name: str, *inputs: str) -> None:
        count = self.channels if self.rng.random() < 0.1 else 1
        if self.rng.random() < 0.7:
            lo = int(self.rng.choice([0, -8, -128]))
            self.layers.append(Quant(name, count, lo, lo + int(self.rng.choice([3, 15, 31, 255])),
                                     str(self.rng.choice(["even", "floor", "half_up"])),
                                     inputs=inputs))
            self.values |= {f"{name}_scale": self.scales(count),
                            f"{name}_zero_point": float(self.rng.choice([0, 0, 3]))}
        else:
            self.layers.append(Steps(name, count, int(self.rng.choice([1, 3, 7])), inputs=inputs))
            self.values |= {f"{name}_scale": 0.5,
                            f"{name}_offset": float(self.rng.choice([0, -0.25, -1.0]))}

    def convolution(self, name: str) -> None:
        kernel, outputs = int(self.rng.choice([1, 2])), int(self.rng.choice([2, 4]))
        padding = kernel - 1
        groups = int(self.rng.choice([1, 2])) if self.channels % 2 == 0 else 1
        self.layers.append(IntConv(name, self.channels, outputs, kernel, 1, padding, 1, groups))
        self.values[f"{name}_scale"] = self.scales(outputs)
        self.channels, self.size = outputs, tuple(size + padding for size in self.size)
        for k in range(self.rng.integers(0, 3)):
            op = str(self.rng.choice(["relu", "leaky_relu", "mul", "add", "tanh", "abs", "min"]))
            self.layers.append(Pointwise(f"{name}_{k}", op, outputs,
                                         float32=bool(self.rng.random() < 0.2)))
            self.values[f"{name}_{k}_value"] = self.rng.choice([0.125, -0.5, 0.7, 1.5], outputs)
        self.quantizer(f"{name}_q")

    def pool(self, name: str) -> None:
        kind = MaxPool if self.rng.random() < 0.5 else AvgPool
        self.layers.append(kind(name, 2, 1, 1))
        self.size = tuple(size + 1 for size in self.size)

    def branches(self, name: str) -> None:
        before = self.layers[-1].name
        self.quantizer(f"{name}_a", before)
        self.quantizer(f"{name}_b", before)
        join = model.Add if self.rng.random() < 0.5 else Concat
        self.layers.append(join(name, inputs=(f"{name}_a", f"{name}_b")))
        self.channels *= 2 if join is Concat else 1
        self.quantizer(f"{name}_q")

    def move(self, name: str) -> None:
        if self.rng.random() < 0.5:
            self.layers.append(Upsample(name, (1, 2)))
            self.size = (self.size[0], 2 * self.size[1])
        else:
            self.values[f"{name}_order"] = self.rng.integers(0, self.channels, 2)
            self.layers.append(Permute(name, 2))
            self.channels = 2

    def net(self) -> Net:
        kinds = [self.convolution, self.convolution, self.pool, self.branches, self.move]
        for k in range(self.rng.integers(2, 6)):
            kinds[self.rng.integers(len(kinds))](f"l{k}")
        features = self.channels * self.size[0] * self.size[1]
        self.layers += [Flatten("flat", str(self.rng.choice(["chw", "hwc"]))),
                        IntLinear("fc", features, 3), Pointwise("bias", "add", 3)]
        return make(*self.layers, spec=self.spec, seed=self.seed, **self.values)


def test_random_nets() -> None:
    equal = refused = rounded = 0
    for seed in range(NETS):
        net = Grower(seed).net()
        images = random_images(net, 6)
        try:
            graph = lower(net)
        except N2uqError as error:
            assert re.search(REFUSED, str(error)), (seed, error)
            refused += 1
            continue
        if "residual" in graph.meta:
            rounded += 1
            continue
        want = net.forward(images)
        worst = np.abs(graph.forward(images) * graph.scale - want).max()
        assert worst <= 1e-6 * np.abs(want).max(), (seed, worst)
        equal += 1
    assert equal > 0.7 * NETS and refused < 0.3 * NETS and rounded < 0.2 * NETS
