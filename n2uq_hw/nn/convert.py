"""A float model as an N2UQ model, to be trained on.

The model is traced to layers; these become the paper's, with the weights of the model:

* a convolution or linear layer gets N2UQ weights, its bias a layer of its own;
* a quantizer (LTQ) stands before it, behind bias–PReLU–bias; a ReLU that only such layers read,
  directly or through pools and moves, becomes these four;
* another ReLU becomes bias–PReLU–bias, so that what is added to it stays real, as in the paper;
* the first layer reads pixels; the last stays in full precision where it reads averages.

Then a few batches pass, layer by layer.  Each quantizer starts where its error is least; each batch
normalization and bias is moved so that its output has the mean and variance that the model's has.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from .. import model
from ..errors import N2uqError
from ..model import Layer, sources, walk
from ..names import fresh
from .layers import LTQ, LearnableBias, Network, quantize_weight
from .trace import layers_of

__all__ = ["convert"]

Weighted = model.FloatConv | model.FloatLinear
MOVES = (model.MaxPool, model.Flatten, model.Upsample, model.DepthToSpace, model.Permute)
BENDS = (model.ReLU, model.PReLU)
SAMPLES = 100_000  # values that a quantizer is fitted to
TRIALS = 60        # steps or clips that are tried
LEAST = 1e-12      # of a variance


def convert(module: nn.Module, weight_bits: int = 2, act_bits: int = 2,
            first_last_bits: int = 8, *, batches: Iterable[Tensor] | Tensor) -> Network:
    """The N2UQ model of a float model, in training mode; `module` itself stays as it is.

    Parameters
    ----------
    module: of layers that `n2uq_hw.trace` knows.  Dropout is left out; a layer that is called twice
        becomes two, which are trained apart.
    weight_bits, act_bits: of the layers between; 1..8.
    first_last_bits: of the weights of the first and the last layer; 0 keeps them in full precision,
        as the paper does, and as pixels with `mean` or `std` need.
    batches: a few of the training images, [N, C, H, W] or [N, C, L] each, as the module takes them.
        All of them pass at once: some hundreds of images are enough.

    The result takes images [N, C, H, W], sequences as images of height 1.
    """
    for what, bits, least in (("weight_bits", weight_bits, 1), ("act_bits", act_bits, 1),
                              ("first_last_bits", first_last_bits, 0)):
        if type(bits) is not int or not least <= bits <= 8:
            raise N2uqError(f"{what} must be in {least}..8, not {bits!r}")
    listed = [batches] if isinstance(batches, Tensor) else [*batches]
    if not listed or any(not isinstance(each, Tensor) or each.dim() not in (3, 4) or not len(each)
                         for each in listed):
        raise N2uqError("batches must be one or more tensors [N, C, H, W] or [N, C, L]")
    images = torch.cat([each.detach().float().cpu() for each in listed])
    name, module = type(module).__name__, copy.deepcopy(module).cpu().eval()
    layers, tensors = layers_of(name, module, images.shape[1:])
    images = images.unsqueeze(2) if images.dim() == 3 else images
    before = _loaded(layers, tensors)
    with torch.no_grad():
        wanted, channels = _statistics(before, images)
        plan = _Plan(layers, tensors, channels, weight_bits, act_bits, first_last_bits)
        plan.build()
        network = _loaded(tuple(plan.layers), plan.tensors)
        _calibrate(network, images, wanted, plan)
    return network.train()


def _loaded(layers: tuple[Layer, ...], tensors: Mapping[str, Tensor]) -> Network:
    """The network of the layers, in evaluation mode."""
    network = Network(layers).eval()
    network.load_state_dict({**network.state_dict(), **{
        key: value.detach() for key, value in tensors.items()}})
    return network


def _mean_var(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance per channel."""
    var, mean = torch.var_mean(x.transpose(0, 1).flatten(1), dim=1, correction=0)
    return mean, var


def _statistics(network: Network, images: Tensor
                ) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, int]]:
    """Mean and variance of what batch norms read and of what other layers make; all channels."""
    wanted, channels = {}, {}

    def step(layer: Layer, *x: Tensor) -> Tensor:
        y = network.module(layer)(*x)
        wanted[layer.name] = _mean_var(x[0] if isinstance(layer, model.BatchNorm) else y)
        channels[layer.name] = y.shape[1]
        return y

    walk(network.layers, images, step)
    return wanted, channels


class _Plan:
    """The new layers and their tensors.

    Members
    -------
    shifts: biases that make signed values positive, before a quantizer.
    corrected: biases that get the mean of a layer of the model, by name.
    """

    def __init__(self, layers: tuple[Layer, ...], tensors: Mapping[str, Tensor],
                 channels: Mapping[str, int], weight_bits: int, act_bits: int,
                 first_last_bits: int) -> None:
        self.old, self.values, self.channels = layers, tensors, channels
        self.bits, self.act_bits = (weight_bits, first_last_bits), act_bits
        self.reads = sources(layers)
        self.kinds = {layer.name: layer for layer in layers}
        self.readers: dict[str, list[str]] = {}
        for reader, names in self.reads.items():
            for each in names:
                self.readers.setdefault(each, []).append(reader)
        self.layers: list[Layer] = []
        self.tensors: dict[str, Tensor] = {}
        self.shifts: set[str] = set()
        self.corrected: dict[str, str] = {}
        self.taken = set(self.kinds)
        self.renamed: dict[str, str] = {}    # what stands for a value of the model
        self.quantized: dict[str, str] = {}  # and for its quantized form
        ends = self.ends()
        self.weights = {name: bits for name in self.kinds
                        if (bits := self.weight_bits(name, ends))}

    def ends(self) -> set[str]:
        """The first weighted layers, which read pixels, and the last."""
        weighted = [name for name, layer in self.kinds.items() if isinstance(layer, Weighted)]
        ends = {name for name in weighted if self.origin(name) not in self.kinds}
        behind: set[str] = set()
        for layer in reversed(self.old):
            readers = self.readers.get(layer.name, [])
            if any(each in behind or each in weighted for each in readers):
                behind.add(layer.name)
        return ends | {name for name in weighted if name not in behind}

    def origin(self, name: str) -> str:
        """What a layer reads, before all moves."""
        name = self.reads[name][0]
        while isinstance(self.kinds.get(name), MOVES):
            name = self.reads[name][0]
        return name

    def weight_bits(self, name: str, ends: set[str]) -> int:
        """Bits of a layer's weights; 0 for what stays as it is."""
        if not isinstance(self.kinds[name], Weighted):
            return 0
        if name in ends and isinstance(self.kinds.get(self.origin(name)), model.AvgPool):
            return 0
        return self.bits[name in ends]

    def only_quantized(self, name: str) -> bool:
        """Whether all that read a value want it quantized."""
        readers = self.readers.get(name, [])
        return bool(readers) and all(each in self.weights or (
            isinstance(self.kinds[each], MOVES) and self.only_quantized(each)) for each in readers)

    def point(self, name: str) -> str:
        """The value whose quantizer a layer reads; images stay as they are."""
        source = self.reads[name][0]
        while isinstance(self.kinds.get(source), MOVES) and self.only_quantized(
                before := self.reads[source][0]):
            source = before
        return source

    def build(self) -> None:
        """All layers."""
        points = {self.point(name) for name in self.weights}
        images = model.images_name(self.old)
        for layer in self.old:
            inputs = tuple(self.source(each, layer.name) for each in self.reads[layer.name])
            self.layer(layer, inputs, points)
            if layer.name in points and layer.name not in self.quantized:
                self.chain(layer.name, self.renamed[layer.name], 1.0, True)
        fixed = model.images_name(self.layers)
        self.layers = [_reading(layer, tuple(fixed if each == images else each
                                             for each in layer.inputs)) for layer in self.layers]

    def source(self, name: str, reader: str) -> str:
        if name in self.quantized and (reader in self.weights or self.only_quantized(name)):
            return self.quantized[name]
        return self.renamed.get(name, name)

    def layer(self, layer: Layer, inputs: tuple[str, ...], points: set[str]) -> None:
        """What one layer of the model becomes."""
        name = layer.name
        if name in self.weights:
            self.weighted(layer, inputs)
        elif isinstance(layer, BENDS):
            slope = self.values[f"{name}.weight"] if isinstance(layer, model.PReLU) else 0.0
            whole = name in points and self.only_quantized(name)
            self.chain(name, inputs[0], slope, whole)
        elif (isinstance(layer, model.ReLU6) and name in points and self.only_quantized(name)):
            self.chain(name, inputs[0], 0.0, True)
        else:
            self.add(_reading(layer, inputs), {
                key: self.values[f"{name}.{key}"] for key in layer.shapes()})
            self.renamed[name] = name
            if isinstance(layer, model.Bias | model.FloatLinear):
                self.corrected[name] = name

    def weighted(self, layer: Layer, inputs: tuple[str, ...]) -> None:
        name, bits = layer.name, self.weights[layer.name]
        weight = self.values[f"{name}.weight"]
        new: Layer
        if isinstance(layer, model.FloatConv):
            new = model.Conv(name, layer.in_channels, layer.out_channels, layer.kernel,
                             layer.stride, layer.padding, layer.groups, bits, layer.dilation,
                             inputs=inputs)
        else:
            assert isinstance(layer, model.FloatLinear)
            new = model.Linear(name, layer.in_features, layer.out_features, bits, inputs=inputs)
        self.add(new, {"weight": weight, "clip_val": _clip(weight, bits)})
        self.renamed[name] = name
        bias = self.values.get(f"{name}.bias")
        if bias is not None and bias.any():
            after = self.fresh(f"{name}_bias")
            self.add(model.Bias(after, len(bias), inputs=(name,)),
                     {"bias": bias.reshape(1, -1, 1, 1)})
            self.renamed[name], self.corrected[after] = after, name

    def chain(self, name: str, source: str, slope: float | Tensor, quantized: bool) -> None:
        """bias–PReLU–bias for the value `name`, and a quantizer."""
        count = self.channels[name]
        names = [self.fresh(f"{name}_{part}") for part in ("bias1", "prelu", "bias2")]
        kinds = (model.Bias, model.PReLU, model.Bias)
        zeros = torch.zeros(1, count, 1, 1)
        tensors = ({"bias": zeros}, {"weight": torch.ones(count) * slope}, {"bias": zeros})
        for kind, own, tensor in zip(kinds, names, tensors, strict=True):
            self.add(kind(own, count, inputs=(source,)), tensor)
            source = own
        if quantized:
            self.shifts.add(source)
            quan = self.fresh(f"{name}_quan")
            self.add(model.LTQ(quan, self.act_bits, inputs=(source,)), {})
            self.quantized[name] = quan
        if name not in self.renamed:
            self.renamed[name] = self.quantized.get(name, source)

    def fresh(self, name: str) -> str:
        self.taken.add(name := fresh(name, self.taken))
        return name

    def add(self, layer: Layer, tensors: Mapping[str, Tensor]) -> None:
        self.layers.append(layer)
        self.tensors.update((f"{layer.name}.{key}", value) for key, value in tensors.items())


def _reading(layer: Layer, inputs: tuple[str, ...]) -> Layer:
    return replace(layer, inputs=inputs)


def _clip(weight: Tensor, bits: int) -> Tensor:
    """The `clip_val` with the least squared error of the quantized weights."""
    n = 2**bits - 1
    scale = weight.abs().flatten(1).mean(1) * (n / 2**(bits - 1))
    most = 2 * float((weight.abs().flatten(1).amax(1) / scale.clamp(min=LEAST)).max())
    clips = torch.linspace(min(1.0, most), max(most, 1.0), TRIALS)
    errors = [float((quantize_weight(weight, clip, bits) - weight).square().sum())
              for clip in clips]
    return clips[int(torch.tensor(errors).argmin())].reshape(1)


def _calibrate(network: Network, images: Tensor, wanted: Mapping[str, tuple[Tensor, Tensor]],
               plan: _Plan) -> None:
    """Start quantizers, move biases and statistics, layer by layer."""
    def step(layer: Layer, *x: Tensor) -> Tensor:
        module = network.module(layer)
        if isinstance(module, LTQ):
            _start(module, x[0], plan.act_bits)
        elif isinstance(module, LearnableBias) and layer.name in plan.shifts:
            _shift(module, x[0], plan.act_bits)
        elif isinstance(layer, model.BatchNorm):
            _normalize(module, x[0], *wanted[layer.name])
        y = module(*x)
        if layer.name in plan.corrected and isinstance(module.bias, Tensor):
            moved = wanted[plan.corrected[layer.name]][0] - _mean_var(y)[0]
            module.bias += moved.reshape(module.bias.shape)
            y = module(*x)
        return y

    walk(network.layers, images, step)


def _normalize(module: nn.Module, x: Tensor, mean: Tensor, var: Tensor) -> None:
    """Statistics that give `x` the mean and variance that the model's values had."""
    own, spread = _mean_var(x)
    ratio = torch.where((var > LEAST) & (spread > LEAST), spread / var.clamp(min=LEAST), 1.0)
    running_mean, running_var = module.get_buffer("running_mean"), module.get_buffer("running_var")
    running_mean.copy_(own - (mean - running_mean) * ratio.sqrt())
    running_var.mul_(ratio)


def _shift(module: LearnableBias, x: Tensor, bits: int) -> None:
    """Move signed values up: what a uniform quantizer of so many bits would clip stays below 0."""
    mean, var = _mean_var(x)
    least = x.transpose(0, 1).flatten(1).amin(1)
    low = torch.maximum(least, mean - (0.4 + 0.55 * bits) * var.sqrt()).clamp(max=0)
    module.bias.copy_(-low.reshape(module.bias.shape))


def _start(module: LTQ, x: Tensor, bits: int) -> None:
    """Levels i·δ with the δ of the least squared error; thresholds in the middle between them."""
    n, values = 2**bits - 1, x.flatten()
    values = values[::-(-len(values) // SAMPLES)]
    largest = float(values.max())
    if largest <= 0:
        return
    steps = torch.linspace(0.02, 1, TRIALS) * (largest / n)
    errors = [float(((values / step).round().clamp(0, n) * step - values.clamp(min=0))
                    .square().sum()) for step in steps]
    span = n * float(steps[int(torch.tensor(errors).argmin())])
    module.scale1.fill_(2 / span)
    module.scale2.fill_(span / 2)
