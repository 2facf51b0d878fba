"""What a module asks of torch in one run on meta tensors: its operations, in their order.

A module and a function come to the same operation: `nn.ReLU`, `F.relu` and ``x.relu_()`` are one.
Only the quantizers and the layers with quantized weights are taken whole.

Why not torch.fx: its proxies are no tensors.  ``x.shape[2] > 4`` and ``isinstance(x, Tensor)`` go
astray, and ``x += y`` does not reach the other names of x.  Why not torch.export: it takes seconds,
and takes each quantizer apart.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_leaves, tree_map_only

from ..errors import N2uqError
from .layers import LTQ, PACT, QuantizedConv2d, QuantizedLinear
from .low_bit import SIZES

__all__ = ["BATCH", "Read", "Recorder", "Step", "no_form", "says", "shown", "whole"]

BATCH = 7  # images of the run: with one, a reshape that mixes images would look like one that keeps
OURS = ("torch", "n2uq_hw")  # packages of modules that are one operation
VALUES = {"__bool__", "__float__", "__int__", "__index__", "item", "tolist", "numpy", "__array__"}
MOVES = {"to", "cpu", "cuda"}
WHOLE: tuple[type[nn.Module], ...] = (LTQ, PACT, QuantizedConv2d, QuantizedLinear, *SIZES)

SCALARS = "ReLU, ReLU6, PReLU, Sigmoid, Tanh, Hardtanh or a quantizer (LTQ, PACT)"
ADVICE = {name: would_do for would_do, names in {
    SCALARS: "celu selu mish logsigmoid threshold rrelu hardshrink softshrink tanhshrink",
    "a sum of branches of one shape (+), or cat": "stack",
    "a convolution or a max-pool with a stride": "__getitem__ __setitem__ chunk split narrow "
                                                 "select unbind index_select masked_select",
    "BatchNorm": "layer_norm group_norm instance_norm local_response_norm normalize",
    "nothing in its place, the largest logit stays so": "softmax log_softmax",
    "float32 throughout": "double half bfloat16 type int long",
    "Conv1d or Conv2d": "conv3d conv_transpose3d",
    "Flatten": "permute transpose unflatten",
    "PixelShuffle, ChannelShuffle": "pixel_unshuffle",
}.items() for name in names.split()}
ANYTHING = ("Conv1d, Conv2d, Linear, BatchNorm, PReLU, ReLU, Sigmoid, Tanh, max and average pools, "
            "Flatten, Upsample, PixelShuffle, cat, + and the layers of n2uq_hw.nn")


@dataclass(frozen=True)
class Read:
    """A tensor that an operation reads: the step that made it, or why none did, and its shape."""

    step: int | str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """An operation: its module's path, what was called, and the shape that it made.

    `alone`: the operation is all that the module does.  A `Read` stands for each tensor of the
    run in `args` and `kwargs`; other tensors are parameters, or made of such.
    """

    path: str
    alone: bool
    what: Callable[..., Any] | nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def key(self) -> str:
        """The operation's name, of all its forms."""
        return _key(self.what)

    def says(self, rule: str) -> str:
        """What is wrong with it."""
        return says(self.path, self.what, rule)


def _key(what: Callable[..., Any] | nn.Module) -> str:
    """`add` of ``torch.add``, ``x + y`` and ``x.add_(y)``."""
    name = str(getattr(what, "__name__", type(what).__name__))
    return name if name.startswith("_") else name.rstrip("_")


def says(path: str, what: Callable[..., Any] | nn.Module, rule: str) -> str:
    operation = (type(what).__name__ if isinstance(what, nn.Module)
                 else resolve_name(what) or _key(what))
    for long, short in (("torch.nn.functional.", "F."), ("torch.Tensor.", "Tensor.")):
        operation = operation.replace(long, short)
    return f"{path or 'forward'}: {operation} {rule}"


def no_form(what: Callable[..., Any] | nn.Module) -> str:
    return f"has no layer in a Net; what would do: {ADVICE.get(_key(what), ANYTHING)}"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def whole(module: nn.Module) -> type[nn.Module] | None:
    """The kind of layer that `module` is taken for without a look into its `forward`."""
    return next((kind for kind in WHOLE
                 if isinstance(module, kind) and type(module).forward is kind.forward), None)


def _meta(tensor: Tensor) -> Tensor:
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return tensor if tensor.is_meta else torch.empty_like(tensor, dtype=dtype, device="meta")


class Recorder(TorchFunctionMode):
    """Records the operations of one run; what has no part in the images is simply computed.

    Members
    -------
    known: names of the operations that a layer does.
    steps: in the order of the run; a step may read those before it.
    seen: ids of all tensors that operations read.
    """

    def __init__(self, name: str, module: nn.Module, known: Collection[str]) -> None:
        super().__init__()
        self.name, self.known = name, known
        self.paths = {each: path for path, each in module.named_modules()}
        self.steps: list[Step] = []
        self.seen: set[int] = set()
        self.origins: dict[int, tuple[Tensor, int | str]] = {}  # by id; the tensor keeps it so
        self.inside: list[nn.Module] = []
        self.whole: nn.Module | None = None  # that runs, whose operations are not recorded

    def run(self, module: nn.Module, images: Tensor) -> int | str:
        """The step that makes the output."""
        self.origins[id(images)] = images, -1
        with ExitStack() as stack:
            for each in self.paths:  # the user's own hooks run outside of ours, and are recorded
                for handle in (each.register_forward_pre_hook(self.enter),
                               each.register_forward_hook(self.leave, prepend=True,
                                                          with_kwargs=True, always_call=True)):
                    stack.callback(handle.remove)
                # A buffer that forward adds pixels to would become one without values.
                stack.callback(each._buffers.update, dict(each._buffers))
            stack.enter_context(torch.no_grad())
            stack.enter_context(self)
            try:
                output = module(images)
            except N2uqError:
                raise
            except Exception as error:
                raise N2uqError(f"{self.name}: forward must run on images "
                                f"{shown(tuple(images.shape))}, and fails: "
                                f"{_first_line(error)}") from error
        if not isinstance(output, Tensor):
            raise N2uqError(f"{self.name}: forward must return one tensor, "
                            f"not {type(output).__name__}")
        read = self.read(output)
        return read.step if isinstance(read, Read) else "has no part in the images"

    def enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self.inside.append(module)
        if self.whole is None and whole(module):
            self.whole = module
            self.seen.update(map(id, module.parameters()))

    def leave(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any],
              output: Any) -> None:
        if self.whole is module:
            self.whole = None
            self.record(module, args, kwargs, output, [])
        self.inside.pop()

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (),
                           kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        self.seen.update(map(id, tensors))
        ours = [each for each in tensors if each.is_meta]
        if not ours:
            return func(*args, **kwargs)
        if _key(func) in MOVES and not any(isinstance(each, torch.dtype)
                                           for each in (*args, *kwargs.values())):
            return args[0]
        if func.__name__ in VALUES:
            raise self.fault(func, "reads values, which must not steer forward; shapes may")
        versions = [each._version for each in ours]
        ran, named = tree_map_only(Tensor, _meta, (args, kwargs))
        try:
            output = func(*ran, **named)
        except Exception as error:
            known = not isinstance(error, NotImplementedError) and (
                self.whole is not None or _key(func) in self.known)
            shapes = " and ".join(shown(each.shape) for each in tensors)
            raise self.fault(func, f"does not fit {shapes}: {_first_line(error)}" if known
                             else no_form(func)) from error
        if self.whole is None:
            self.record(func, args, kwargs, output, [
                each for each, version in zip(ours, versions, strict=True)
                if each._version != version])
        return output

    def fault(self, func: Callable[..., Any], rule: str) -> N2uqError:
        path = self.paths[self.inside[-1]] if self.inside else ""
        return N2uqError(f"{self.name}: {says(path, func, rule)}")

    def read(self, tensor: Tensor) -> Tensor | Read:
        """What stands for `tensor` in a step's arguments."""
        if not tensor.is_meta:
            return tensor
        _, step = self.origins.get(id(tensor), (tensor, "reads what scripted code or an autograd "
                                                "Function made; modules and functions would do"))
        return Read(step, tuple(tensor.shape))

    def record(self, what: Callable[..., Any] | nn.Module, args: tuple[Any, ...],
               kwargs: dict[str, Any], output: Any, changed: list[Tensor]) -> None:
        """Append a step, if it made tensors or `changed` some in place."""
        tensors = [each for each in tree_leaves(output) if isinstance(each, Tensor)] + changed
        if not tensors:
            return
        module = self.inside[-1] if self.inside else None
        alone = what is module or type(module).__module__.split(".")[0] in OURS
        args, kwargs = tree_map_only(Tensor, self.read, (args, kwargs))
        self.steps.append(Step(self.paths[module] if module else "", alone, what, args, kwargs,
                                tuple(tensors[0].shape), tensors[0].dtype))
        for each in changed:  # other views of it have changed as well
            memory = each.untyped_storage()._cdata
            for key, (tensor, _) in self.origins.items():
                if tensor.untyped_storage()._cdata == memory:
                    self.origins[key] = tensor, (f"reads a view of a tensor that {_key(what)} has "
                                                 "changed in place; a copy would do")
        self.origins.update((id(each), (each, len(self.steps) - 1)) for each in tensors)


def shown(shape: Sequence[int]) -> str:
    """``[N, 3, 8, 8]``"""
    return f"[{', '.join('N' if k == 0 and n == BATCH else str(n) for k, n in enumerate(shape))}]"
