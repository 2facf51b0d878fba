"""Import of checkpoints that the authors' training code wrote: strict, and without running them.

What the file tells (bits, shortcuts, classes) is read from it, and what contradicts it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import N2uqError
from ..files import readable
from ..model import LTQ, BatchNorm, Conv, InputSpec, Layer, Net, Shapes
from ..model.architectures import mobilenetv2, resnet
from ..nn import settle_codes

__all__ = ["ARCHITECTURES", "IMAGENET_MEAN", "IMAGENET_STD", "import_checkpoint", "read_state"]

ARCHITECTURES = ("resnet18", "resnet34", "resnet50", "mobilenetv2")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = (32, 224)  # pixels of a side
BITS = range(2, 9)
CONSTANTS = {"two": 2.0, "one": 1.0, "zero": 0.0, "minusone": -1.0, "eps": 1e-3}
COUNTER = "num_batches_tracked"  # of batch normalization; older versions of torch have none
# What training code keeps a network under, what wrappers put before its names, what profilers add.
KEYS = ("state_dict", "model_state_dict", "model", "net", "network", "ema", "model_ema",
        "ema_state_dict", "state_dict_ema")
PREFIXES = ("module.", "model.", "net.", "network.", "backbone.")
COMPILED = "_orig_mod."
PROFILED = {"total_ops", "total_params"}
# What the authors' modules hold beside the parameters of a `Net`.
BESIDE: dict[type[Layer], Shapes] = {
    LTQ: dict.fromkeys(CONSTANTS, (1,)), Conv: {"zero": (1,)}, BatchNorm: {COUNTER: ()}}
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def import_checkpoint(path: Path, arch: str, *, bits: int | None = None,
                      quantize_downsample: bool | None = None, classes: int | None = None,
                      size: int = 224, mean: tuple[float, ...] = IMAGENET_MEAN,
                      std: tuple[float, ...] = IMAGENET_STD, name: str | None = None,
                      key: str | None = None) -> Net:
    """The net in a checkpoint of the authors' training code.

    Parameters
    ----------
    path: a file of `torch.save` or a .safetensors file; see `read_state` for what may be around
        the network.  ``meta["notes"]`` says what was taken off.
    arch: one of `ARCHITECTURES`.
    bits, quantize_downsample, classes: what the file is taken to hold; None: as it says.
    size: height and width of the images, 32..224.
    mean, std: of the three channels, for pixels in 0..1.
    name: of the net; None: `arch`.
    key: of the dictionary in the file, where it holds several.

    Returns
    -------
    The net, its parameters those of the file, bit for bit, but for weights on a rounding boundary
    that torch and NumPy would round apart (see `nn.settle_codes`; ``meta["moved_weights"]`` counts
    them).  float16 and bfloat16 widen to float32; float64 must hold float32 values, for rounding
    could change a weight's code.  Raises N2uqError, naming the file, for anything that is not as
    the architecture wants it: names, shapes, types, values, constants.
    """
    if arch not in ARCHITECTURES:
        raise N2uqError(f"arch must be one of {', '.join(ARCHITECTURES)}, not {arch!r}")
    if type(size) is not int or not SIZES[0] <= size <= SIZES[1]:
        raise N2uqError(f"input size must be in {SIZES[0]}..{SIZES[1]}, not {size!r}")
    spec = InputSpec((3, size, size), 255, 1 / 255, tuple(mean), tuple(std))
    Net(name or arch, spec, (), {})  # what is wrong with these, before the file is read
    notes: list[str] = []
    state = read_state(path, key, notes)
    try:
        bits = _bits(state, bits)
        quantize_downsample = _quantize_downsample(state, arch, quantize_downsample)
        classes = _classes(state, classes)
        layers = _layers(arch, bits, quantize_downsample, classes)
        _check_names(state, arch, layers, bits, classes)
        params = _params(state, layers)
        meta: dict[str, Any] = {"arch": arch, "bits": bits, "classes": classes}
        if notes:
            meta["notes"] = notes
        if arch.startswith("resnet"):
            meta["quantize_downsample"] = quantize_downsample
        net = Net(name or arch, spec, layers, params, meta)
        meta["moved_weights"] = sum(
            settle_codes(f"{layer.name}.weight", params[f"{layer.name}.weight"],
                         params[f"{layer.name}.clip_val"], layer.bits)
            for layer in layers if isinstance(layer, Conv))
        return net
    except N2uqError as error:
        raise N2uqError(f"{path}: {error}") from None


def read_state(path: Path, key: str | None = None, notes: list[str] | None = None
               ) -> dict[str, Tensor]:
    """The tensors in a checkpoint file by the names of the network; runs no code in it.

    What training code wraps around a network is taken off where that is unambiguous: a dictionary
    under one of `KEYS`, prefixes that all names have (`PREFIXES`), torch.compile's ``_orig_mod.``
    anywhere, profilers' counters.  `notes` gets a line for each.

    Parameters
    ----------
    key: of the dictionary, where the file holds several.
    """
    said = [] if notes is None else notes
    try:
        if path.suffix == ".safetensors":
            held: Any = load_file(readable(path))
        else:
            held = torch.load(readable(path), map_location="cpu", weights_only=True)
    except N2uqError:
        raise
    except OSError as error:
        raise N2uqError(f"{path}: cannot be read: {error.strerror or error}") from None
    except SafetensorError as error:
        raise N2uqError(f"{path}: not a whole safetensors file: {error}") from None
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to mean
        raise N2uqError(f"{path}: {_reason(error)}") from None
    try:
        return _unwrapped(_chosen(held, key, said), said)
    except N2uqError as error:
        raise N2uqError(f"{path}: {error}") from None


def _chosen(held: Any, key: str | None, said: list[str]) -> Mapping[str, Any]:
    """The dictionary of tensors: `held` itself, or the only one under one of `KEYS`."""
    if not isinstance(held, Mapping):
        raise N2uqError(f"must hold tensors by their names, not a {type(held).__name__}")
    if not held:
        raise N2uqError("must hold tensors by their names, not nothing")
    if key is not None and not isinstance(held.get(key), Mapping):
        raise N2uqError(f"--key must be one of the dictionaries {_some(_inner(held))}, not {key}")
    names = [name for name in KEYS if isinstance(held.get(name), Mapping)]
    if key is None and any(isinstance(value, Tensor) for value in held.values()):
        names = []
    if key is None and len(names) > 1 and all(_equal(held[names[0]], held[name])
                                              for name in names[1:]):
        names = names[:1]
    if key is None and len(names) > 1:
        raise N2uqError(f"holds several networks, under {', '.join(names)}: choose one with --key")
    if (name := key or (names[0] if names else None)) is None:
        return held
    if name != KEYS[0]:
        said.append(f"the tensors under {name!r} are taken")
    return _chosen(held[name], None, said)


def _inner(held: Mapping[str, Any]) -> list[str]:
    return [str(name) for name, value in held.items() if isinstance(value, Mapping)]


def _equal(one: Mapping[str, Any], two: Mapping[str, Any]) -> bool:
    return one.keys() == two.keys() and all(
        isinstance(a, Tensor) and isinstance(b, Tensor) and torch.equal(a, b)
        for a, b in ((value, two[name]) for name, value in one.items()))


def _unwrapped(held: Mapping[str, Any], said: list[str]) -> dict[str, Tensor]:
    """The tensors by names without what wrappers put before them."""
    for name, value in held.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise N2uqError(f"{name} must be a tensor, not a {type(value).__name__}")
    state = {name: value for name, value in held.items()
             if name.rpartition(".")[2] not in PROFILED}
    if dropped := len(held) - len(state):
        said.append(f"{dropped} counters of a profiler are left out "
                    f"({', '.join(sorted({name.rpartition('.')[2] for name in held} & PROFILED))})")
    plain = {name.replace(COMPILED, ""): value for name, value in state.items()}
    if len(plain) == len(state) and plain.keys() != state.keys():
        said.append(f"{COMPILED!r} is taken off the names")
        state = plain
    while prefix := next((prefix for prefix in PREFIXES if state and all(
            name.startswith(prefix) and name != prefix for name in state)), None):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
        if prefix != PREFIXES[0]:  # DataParallel's, which the authors' own files have
            said.append(f"{prefix!r} is taken off the names")
    return state


def _some(names: Iterable[str], most: int = 4) -> str:
    """The first few of the different `names`."""
    listed = list(dict.fromkeys(names))
    return ", ".join(listed[:most]) + ", …" * (len(listed) > most)


def _reason(error: Exception) -> str:
    """Why torch would not load a file, in one line."""
    needs = re.search(r"GLOBAL ([\w.]+)", str(error))
    if needs:
        return (f"must hold tensors and plain values, not a pickled {needs[1]}, which could run "
                "code")
    return f"not a whole checkpoint file: {str(error).split('. ')[0].splitlines()[0]}" \
        if str(error) else f"not a whole checkpoint file: {type(error).__name__}"


def _bits(state: dict[str, Tensor], asked: int | None) -> int:
    """Bits of the quantizers: the given ones, which must be what the first of them says."""
    if asked is not None and asked not in BITS:
        raise N2uqError(f"--bits must be in {BITS[0]}..{BITS[-1]}, not {asked}")
    key = next((key for key in state if key.endswith(".a")), None)
    if key is None:
        raise N2uqError("must hold quantizers (names that end in .a), and holds none")
    intervals = state[key].numel()
    said = (intervals + 1).bit_length() - 1
    if said not in BITS or intervals != 2**said - 1:
        raise N2uqError(f"{key} must hold 2**bits - 1 intervals with bits in {BITS[0]}..{BITS[-1]}"
                        f", not {intervals}")
    if asked not in (None, said):
        raise N2uqError(f"--bits must be {said}, as the {intervals} intervals of {key} say, "
                        f"not {asked}")
    return said


def _quantize_downsample(state: dict[str, Tensor], arch: str, asked: bool | None) -> bool:
    """Whether shortcuts are quantized: as given, which must be what the first of them says."""
    if not arch.startswith("resnet"):
        if asked is not None:
            raise N2uqError(f"--quantize-downsample is for resnets, not for {arch}")
        return True
    key = next((key for key in state if key.endswith(("downsample.0.start",
                                                      "downsample.0.weight"))), None)
    if key is None:
        return asked is not False
    said = key.endswith(".start")
    if asked not in (None, said):
        yes, no = "--quantize-downsample", "--no-quantize-downsample"
        raise N2uqError(f"downsampling must be {yes if said else no}, as {key} says, "
                        f"not {no if said else yes}")
    return said


def _classes(state: dict[str, Tensor], asked: int | None) -> int:
    """Classes: the given number, which must be that of the rows of fc.weight."""
    if "fc.weight" not in state or state["fc.weight"].dim() != 2:
        return 1000 if asked is None else asked  # the name or shape is refused later
    said = len(state["fc.weight"])
    if asked not in (None, said):
        raise N2uqError(f"--num-classes must be {said}, as the rows of fc.weight say, not {asked}")
    return said


def _layers(arch: str, bits: int, quantize_downsample: bool, classes: int) -> tuple[Layer, ...]:
    if arch == "mobilenetv2":
        return mobilenetv2(bits, classes)
    return resnet(int(arch.removeprefix("resnet")), bits, quantize_downsample, classes)


def _names(layers: tuple[Layer, ...]) -> Shapes:
    """Every name of a checkpoint, and its shape."""
    return {f"{layer.name}.{key}": shape for layer in layers
            for key, shape in {**layer.shapes(), **BESIDE.get(type(layer), {})}.items()}


def _check_names(state: dict[str, Tensor], arch: str, layers: tuple[Layer, ...], bits: int,
                 classes: int) -> None:
    def optional(key: str) -> bool:
        return key.endswith(f".{COUNTER}")

    wanted = _names(layers)
    missing = [key for key in wanted if key not in state and not optional(key)]
    surplus = [key for key in state if key not in wanted]
    if missing or surplus:
        required = {key for key in state if not optional(key)}
        for other in ARCHITECTURES:
            for quantize in (True, False):
                names = _names(_layers(other, bits, quantize, classes))
                if other != arch and required == {key for key in names if not optional(key)}:
                    raise N2uqError(f"looks like {other}, not {arch}")
    counts = f"{len(missing)} missing, {len(surplus)} surplus"
    if missing:
        begin = "" if wanted.keys() & state.keys() else (
            f"; its names begin with {_some(key.split('.')[0] for key in state)}")
        raise N2uqError(f"{missing[0]} of {arch} is missing ({counts}){begin}")
    if surplus:
        raise N2uqError(f"{surplus[0]} is no part of {arch} ({counts})")
    for key, shape in wanted.items():
        if key in state and tuple(state[key].shape) != shape:
            raise N2uqError(f"{key} of {arch} must have shape {list(shape)}, "
                            f"not {list(state[key].shape)}")


def _params(state: dict[str, Tensor], layers: tuple[Layer, ...]) -> dict[str, np.ndarray]:
    """Float32 arrays of what a net holds; constants are checked and left out."""
    for key, value in state.items():
        last = key.rpartition(".")[2]
        if last == COUNTER:
            continue
        if value.dtype not in FLOATS or value.layout != torch.strided:
            raise N2uqError(f"{key} must be a plain tensor of floats, not {value.dtype}"
                            + ("" if value.layout == torch.strided else f" {value.layout}"))
        if last in CONSTANTS:
            constant = torch.tensor(CONSTANTS[last]).to(value.dtype).float()
            if (value.float() != constant).any():
                raise N2uqError(f"{key} must be the constant {CONSTANTS[last]}, "
                                f"not {value.flatten()[0].item()}")
    return {f"{layer.name}.{key}": _float32(f"{layer.name}.{key}", state[f"{layer.name}.{key}"])
            for layer in layers for key in layer.shapes()}


def _float32(key: str, value: Tensor) -> np.ndarray:
    narrow = value.detach().to(torch.float32)
    changed = (narrow != value) & ~value.isnan()
    if changed.any():
        raise N2uqError(f"{key} must hold float32 values, not float64 such as "
                        f"{value[changed][0].item()!r} ({int(changed.sum())} of {value.numel()})")
    return narrow.contiguous().numpy().copy()
