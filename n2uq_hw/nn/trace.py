"""Any torch module of operations that a `Net` has layers for, as a net.

The module runs once, on meta tensors, which have shapes and no values (`recorder`); each operation
becomes layers by the rule of its name (`rules`).
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from .. import model
from ..errors import N2uqError
from ..model import InputSpec, Layer, Net
from .layers import net_of
from .recorder import BATCH, Read, Recorder, Step, no_form
from .rules import FRAMED, MARGIN, RULES, Layers, NoForm, Value, add_whole

__all__ = ["input_of", "layers_of", "trace"]

DIES = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)  # differ while training
SEQUENCES = (nn.Conv1d, nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveAvgPool1d)  # read [N, C, L]


def trace(module: nn.Module, input: InputSpec | Tensor | np.ndarray, name: str | None = None,
          meta: dict[str, Any] | None = None) -> Net:
    """The net that `module` computes; see `n2uq_hw.trace`."""
    if not isinstance(module, nn.Module):
        raise N2uqError(f"module must be a torch module, not {type(module).__name__}")
    name = type(module).__name__ if name is None else name
    spec = input if isinstance(input, InputSpec) else input_of(input)
    Net(name, spec, (), {})  # says what is wrong with name and input
    shape = spec.shape if isinstance(input, InputSpec) else tuple(input.shape[1:])
    layers, tensors = layers_of(name, module, shape)
    return net_of(name, spec, layers, tensors, meta or {})


def input_of(batch: Tensor | np.ndarray) -> InputSpec:
    """What an example batch [N, C, H, W] or [N, C, L] says of pixels; see `n2uq_hw.trace`."""
    values = np.asarray(batch.detach().cpu() if isinstance(batch, Tensor) else batch)
    if values.ndim not in (3, 4) or not values.size or values.dtype.kind not in "uif":
        raise N2uqError("an example batch must be numbers [N, C, H, W] or [N, C, L], not "
                        f"{values.dtype} {list(values.shape)}")
    channels, *pixels = values.shape[1:]
    shape = (channels, *(pixels if len(pixels) == 2 else (1, *pixels)))
    least, most = values.min(), values.max()
    if values.dtype.kind == "f":
        if not (least >= 0 and most <= 1):
            raise N2uqError(f"an example batch of floats must lie in 0..1, not {least}..{most}; "
                            "an InputSpec says what others are")
        return InputSpec(shape)
    if least < 0:
        raise N2uqError(f"an example batch of integers must lie in 0..max, not from {least}; "
                        "an InputSpec says what others are")
    return InputSpec(shape, max=max(255, 2**int(most).bit_length() - 1), scale=1.0)


def layers_of(name: str, module: nn.Module, shape: Sequence[int]
              ) -> tuple[tuple[Layer, ...], dict[str, Tensor]]:
    """Layers and their tensors, of a module in evaluation mode that takes [N, *shape]."""
    module = getattr(module, "_orig_mod", module)  # of torch.compile
    _check_module(name, module)
    recorder = Recorder(name, module, RULES)
    if len(shape) == 3 and shape[1] == 1 and any(
            isinstance(each, SEQUENCES) for each in module.modules()):
        shape = (shape[0], shape[2])
    images = torch.empty(BATCH, *shape, device="meta", dtype=torch.float32)
    layers, tensors = _translate(name, recorder.steps, recorder.run(module, images))
    unread = [key for key, value in module.named_parameters() if id(value) not in recorder.seen]
    if unread:
        raise N2uqError(f"{name}: {unread[0]} must be read by forward{_more(unread)}; "
                        "delete what is not used")
    return layers, tensors


def _more(faults: Sequence[object]) -> str:
    return f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""


def _check_module(name: str, module: nn.Module) -> None:
    """One input, in evaluation mode, in Python."""
    for path, each in module.named_modules():
        if isinstance(each, torch.jit.ScriptModule):
            raise N2uqError(f"{name}: {path or 'module'} must be a module in Python, not a script")
    wanted = [p.name for p in inspect.signature(module.forward).parameters.values()
              if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if len(wanted) > 1:
        raise N2uqError(f"{name}: forward must take the images alone, not {', '.join(wanted)}")
    training = [path for path, each in module.named_modules()
                if isinstance(each, DIES) and each.training]
    if training:
        raise N2uqError(f"{name}: {training[0] or 'module'} must be in evaluation mode"
                        f"{_more(training)}; call module.eval() first")


def _translate(name: str, steps: list[Step], output: int | str
               ) -> tuple[tuple[Layer, ...], dict[str, Tensor]]:
    """The layers of the steps that the output needs, and their tensors."""
    if isinstance(output, str):
        raise N2uqError(f"{name}: the output {output}")
    needed: set[int] = set()
    todo = [output]
    while todo:
        if (k := todo.pop()) >= 0 and k not in needed:
            needed.add(k)
            todo += [each.step for each in tree_leaves((steps[k].args, steps[k].kwargs))
                     if isinstance(each, Read) and isinstance(each.step, int)]
    readers = Counter(each.step for k in needed
                      for each in tree_leaves((steps[k].args, steps[k].kwargs))
                      if isinstance(each, Read) and isinstance(each.step, int))
    net, values, faults = Layers(steps, readers + Counter([output])), {-1: ""}, []
    for k in sorted(needed):
        net.at = k
        try:
            values[k] = _apply(net, steps[k], values)
        except NoForm as fault:
            values[k] = ""  # to find the faults that follow
            faults.append(steps[k].says(str(fault)))
    if faults:
        raise N2uqError(f"{name}: {faults[0]}{_more(faults)}")
    if output in net.margins:
        raise N2uqError(f"{name}: the output {MARGIN}")
    if not net.layers:
        raise N2uqError(f"{name}: forward must do something with the images")
    images = model.images_name(net.layers)
    return tuple(replace(layer, inputs=tuple(each or images for each in layer.inputs))
                 for layer in net.layers), net.tensors


def _apply(net: Layers, step: Step, values: dict[int, str]) -> str:
    """Add the layers of a step; the name of that which makes its value."""
    def value(read: Read) -> Value:
        if isinstance(read.step, str):
            raise NoForm(read.step)
        margin = net.margins.get(read.step, (0, 0, 0, 0))
        if any(margin) and step.key not in FRAMED and not isinstance(step.what, nn.Module):
            raise NoForm(MARGIN)
        return Value(values[read.step], read.shape, read.step, margin)

    args, kwargs = tree_map_only(Read, value, (step.args, step.kwargs))
    if isinstance(step.what, nn.Module):
        return add_whole(net, step.what, *args)
    if step.key not in RULES:
        raise NoForm(no_form(step.what))
    if step.dtype != torch.float32:
        raise NoForm(f"must give float32, not {str(step.dtype).removeprefix('torch.')}")
    try:
        inspect.signature(RULES[step.key]).bind(net, *args, **kwargs)
    except TypeError as error:
        raise NoForm(f"has arguments that no layer has: {error}") from None
    return RULES[step.key](net, *args, **kwargs)
