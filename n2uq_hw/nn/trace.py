"""Any torch module of operations that a `Net` has layers for, as a net.

The module runs once, on meta tensors, which have shapes and no values, while a
`TorchFunctionMode` records what it asks of torch.  A module and a function come to the same
operation: one rule serves `nn.ReLU`, `F.relu` and ``x.relu_()``.  Only the quantizers and the
layers with quantized weights are taken whole.

Why not torch.fx: its proxies are no tensors.  ``x.shape[2] > 4`` and ``isinstance(x, Tensor)`` go
astray, and ``x += y`` does not reach the other names of x.  Why not torch.export: it takes seconds,
and takes each quantizer apart.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_leaves, tree_map_only

from .. import model
from ..errors import N2uqError
from ..model import InputSpec, Layer, Net
from ..model.layers import BN_EPS
from .layers import LTQ, PACT, QuantizedConv2d, QuantizedLinear, net_of

__all__ = ["trace"]

BATCH = 7  # images of the run: with one, a reshape that mixes images would look like one that keeps
OURS = ("torch", "n2uq_hw")  # packages of modules that are one operation
VALUES = {"__bool__", "__float__", "__int__", "__index__", "item", "tolist", "numpy", "__array__"}
MOVES = {"to", "cpu", "cuda"}
DIES = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)  # differ while training

BENDS = "ReLU, ReLU6, PReLU or a quantizer (LTQ, PACT)"
ADVICE = {name: would_do for would_do, names in {
    BENDS: "sigmoid tanh silu gelu elu selu celu mish softplus softsign hardsigmoid hardswish "
           "logsigmoid round abs exp threshold rrelu sign",
    "a sum of branches of one shape (+)": "cat concat concatenate stack",
    "a convolution or a max-pool with a stride": "__getitem__ __setitem__ chunk split narrow "
                                                 "select unbind index_select masked_select",
    "BatchNorm": "layer_norm group_norm instance_norm local_response_norm normalize",
    "nothing in its place, the largest logit stays so": "softmax log_softmax",
    "float32 throughout": "double half bfloat16 type int long",
    "mean and std of the InputSpec for pixels, BatchNorm elsewhere": "mul sub div rsub",
    "Conv2d, on images": "conv1d conv3d conv_transpose2d conv_transpose1d",
    "Flatten": "permute transpose unsqueeze unflatten",
}.items() for name in names.split()}
ANYTHING = ("Conv2d, Linear, BatchNorm, PReLU, ReLU, ReLU6, MaxPool2d, AdaptiveAvgPool2d(1), "
            "Flatten, + and the layers of n2uq_hw.nn")


def trace(module: nn.Module, input: InputSpec, name: str | None = None,
          meta: dict[str, Any] | None = None) -> Net:
    """The net that `module` computes; see `n2uq_hw.trace`."""
    module = getattr(module, "_orig_mod", module)  # of torch.compile
    if not isinstance(module, nn.Module):
        raise N2uqError(f"module must be a torch module, not {type(module).__name__}")
    name = type(module).__name__ if name is None else name
    Net(name, input, (), {})  # says what is wrong with name and input
    _check_module(name, module)
    recorder = _Recorder(name, module)
    images = torch.empty(BATCH, *input.shape, device="meta", dtype=torch.float32)
    layers, tensors = _translate(name, recorder.steps, recorder.run(module, images))
    unread = [key for key, value in module.named_parameters() if id(value) not in recorder.seen]
    if unread:
        raise N2uqError(f"{name}: {unread[0]} must be read by forward{_more(unread)}; "
                        "delete what is not used")
    return net_of(name, input, layers, tensors, meta or {})


def _more(found: Sequence[object]) -> str:
    return f" (and {len(found) - 1} more)" if len(found) > 1 else ""


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


# --- The run: which operations there are --------------------------------------------------------


@dataclass(frozen=True)
class _Read:
    """A tensor that an operation reads: the step that made it, or why none did, and its shape."""

    step: int | str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Step:
    """An operation: its module's path, what was called, and the shape that it made.

    `alone`: the operation is all that the module does.  A `_Read` stands for each tensor of the
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
        """The operation's name in `RULES`, of all its forms."""
        return _key(self.what)

    def says(self, rule: str) -> str:
        """What is wrong with it."""
        return _says(self.path, self.what, rule)


def _key(what: Callable[..., Any] | nn.Module) -> str:
    """`add` of ``torch.add``, ``x + y`` and ``x.add_(y)``."""
    name = str(getattr(what, "__name__", type(what).__name__))
    return name if name.startswith("_") else name.rstrip("_")


def _says(path: str, what: Callable[..., Any] | nn.Module, rule: str) -> str:
    operation = (type(what).__name__ if isinstance(what, nn.Module)
                 else resolve_name(what) or _key(what))
    for long, short in (("torch.nn.functional.", "F."), ("torch.Tensor.", "Tensor.")):
        operation = operation.replace(long, short)
    return f"{path or 'forward'}: {operation} {rule}"


def _no_form(what: Callable[..., Any] | nn.Module) -> str:
    return f"has no layer in a Net; what would do: {ADVICE.get(_key(what), ANYTHING)}"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _whole(module: nn.Module) -> type[nn.Module] | None:
    """The kind of layer that `module` is taken for without a look into its `forward`."""
    return next((kind for kind in WHOLE
                 if isinstance(module, kind) and type(module).forward is kind.forward), None)


def _meta(tensor: Tensor) -> Tensor:
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return tensor if tensor.is_meta else torch.empty_like(tensor, dtype=dtype, device="meta")


class _Recorder(TorchFunctionMode):
    """Records the operations of one run; what has no part in the images is simply computed.

    Members
    -------
    steps: in the order of the run; a step may read those before it.
    seen: ids of all tensors that operations read.
    """

    def __init__(self, name: str, module: nn.Module) -> None:
        super().__init__()
        self.name = name
        self.paths = {each: path for path, each in module.named_modules()}
        self.steps: list[_Step] = []
        self.seen: set[int] = set()
        self.made: dict[int, tuple[Tensor, int | str]] = {}  # by id, which lives as the tensor does
        self.inside: list[nn.Module] = []
        self.whole: nn.Module | None = None  # that runs, whose operations are not recorded

    def run(self, module: nn.Module, images: Tensor) -> int | str:
        """The step that makes the output."""
        self.made[id(images)] = images, -1
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
                                f"{_shown(tuple(images.shape))}, and fails: "
                                f"{_first_line(error)}") from error
        if not isinstance(output, Tensor):
            raise N2uqError(f"{self.name}: forward must return one tensor, "
                            f"not {type(output).__name__}")
        read = self.read(output)
        return read.step if isinstance(read, _Read) else "has no part in the images"

    def enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self.inside.append(module)
        if self.whole is None and _whole(module):
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
            known = self.whole is not None or _key(func) in RULES
            shapes = " and ".join(_shown(each.shape) for each in tensors)
            raise self.fault(func, f"does not fit {shapes}: {_first_line(error)}" if known
                             else _no_form(func)) from error
        if self.whole is None:
            self.record(func, args, kwargs, output, [
                each for each, version in zip(ours, versions, strict=True)
                if each._version != version])
        return output

    def fault(self, func: Callable[..., Any], rule: str) -> N2uqError:
        path = self.paths[self.inside[-1]] if self.inside else ""
        return N2uqError(f"{self.name}: {_says(path, func, rule)}")

    def read(self, tensor: Tensor) -> Tensor | _Read:
        """What stands for `tensor` in a step's arguments."""
        if not tensor.is_meta:
            return tensor
        _, step = self.made.get(id(tensor), (tensor, "reads what scripted code or an autograd "
                                             "Function made; modules and functions would do"))
        return _Read(step, tuple(tensor.shape))

    def record(self, what: Callable[..., Any] | nn.Module, args: tuple[Any, ...],
               kwargs: dict[str, Any], output: Any, changed: list[Tensor]) -> None:
        """Append a step, if it made tensors or `changed` some in place."""
        made = [each for each in tree_leaves(output) if isinstance(each, Tensor)] + changed
        if not made:
            return
        module = self.inside[-1] if self.inside else None
        alone = what is module or type(module).__module__.split(".")[0] in OURS
        args, kwargs = tree_map_only(Tensor, self.read, (args, kwargs))
        self.steps.append(_Step(self.paths[module] if module else "", alone, what, args, kwargs,
                                tuple(made[0].shape), made[0].dtype))
        for each in changed:  # other views of it have changed as well
            memory = each.untyped_storage()._cdata
            for key, (tensor, _) in self.made.items():
                if tensor.untyped_storage()._cdata == memory:
                    self.made[key] = tensor, (f"reads a view of a tensor that {_key(what)} has "
                                              "changed in place; a copy would do")
        self.made.update((id(each), (each, len(self.steps) - 1)) for each in made)


# --- What each operation becomes ----------------------------------------------------------------


@dataclass(frozen=True)
class _Value:
    """A tensor [N, C, ...]: the layer that makes it."""

    layer: str
    shape: tuple[int, ...]

    @property
    def channels(self) -> int:
        return self.shape[1]


class _NoForm(Exception):
    """An operation that no layer is; the rule that it breaks."""


class _Layers:
    """The layers so far and their tensors; a rule adds to them, for `step`."""

    def __init__(self, steps: list[_Step]) -> None:
        self.layers: list[Layer] = []
        self.tensors: dict[str, Tensor] = {}
        self.taken: set[str] = set()
        self.reserved = {step.path for step in steps if step.alone}
        self.last = ""  # the images
        self.step: _Step

    def add(self, kind: type[Layer], sizes: Sequence[int], reads: tuple[_Value, ...],
            name: str = "", **tensors: Tensor) -> str:
        """A layer of hyperparameters `sizes`, called `name` or by its module; returns its name."""
        names = tuple(value.layer for value in reads)
        layer = kind(self.apart(name or self.name(kind)), *sizes,
                     inputs=() if names == (self.last,) else names)
        self.layers.append(layer)
        self.tensors.update((f"{layer.name}.{key}", value) for key, value in tensors.items())
        self.last = layer.name
        return layer.name

    def name(self, kind: type[Layer]) -> str:
        """Of a module that is one operation, its path; else what it does in the module."""
        path = self.step.path
        return path if self.step.alone and path else f"{path}.{kind.__name__.lower()}".lstrip(".")

    def apart(self, name: str) -> str:
        """`name`, with a number where another layer is called so, or will be."""
        path, k = name, 0
        while name in self.taken or (name in self.reserved and name != self.step.path):
            k += 1
            name = f"{path}_{k}"
        self.taken.add(name)
        return name


def _translate(name: str, steps: list[_Step], output: int | str
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
                     if isinstance(each, _Read) and isinstance(each.step, int)]
    made, values, faults = _Layers(steps), {-1: ""}, []
    for k in sorted(needed):
        try:
            values[k] = _apply(made, steps[k], values)
        except _NoForm as fault:
            values[k] = ""  # to find the faults that follow
            faults.append(steps[k].says(str(fault)))
    if faults:
        raise N2uqError(f"{name}: {faults[0]}{_more(faults)}")
    if not made.layers:
        raise N2uqError(f"{name}: forward must do something with the images")
    images = model.images_name(made.layers)
    return tuple(replace(layer, inputs=tuple(each or images for each in layer.inputs))
                 for layer in made.layers), made.tensors


def _apply(made: _Layers, step: _Step, values: dict[int, str]) -> str:
    """Add the layers of a step; the name of that which makes its value."""
    def value(read: _Read) -> _Value:
        if isinstance(read.step, str):
            raise _NoForm(read.step)
        return _Value(values[read.step], read.shape)

    args, kwargs = tree_map_only(_Read, value, (step.args, step.kwargs))
    made.step = step
    if isinstance(step.what, nn.Module):
        return _add_whole(made, step.what, *args)
    if step.key not in RULES:
        raise _NoForm(_no_form(step.what))
    if step.dtype != torch.float32:
        raise _NoForm(f"must give float32, not {str(step.dtype).removeprefix('torch.')}")
    try:
        inspect.signature(RULES[step.key]).bind(made, *args, **kwargs)
    except TypeError as error:
        raise _NoForm(f"has arguments that no layer has: {error}") from None
    return RULES[step.key](made, *args, **kwargs)


Parts = tuple[type[Layer], tuple[int, ...]]
WHOLE: dict[type[nn.Module], Callable[[Any], Parts]] = {
    LTQ: lambda m: (model.LTQ, (len(m.a).bit_length(),)),
    PACT: lambda m: (model.Pact, (m.bits,)),
    QuantizedConv2d: lambda m: (model.Conv, (
        m.weight.shape[1] * m.groups, m.weight.shape[0], m.weight.shape[2], m.stride, m.padding,
        m.groups, m.bits)),
    QuantizedLinear: lambda m: (model.Linear, (m.weight.shape[1], m.weight.shape[0], m.bits)),
}


def _add_whole(made: _Layers, module: nn.Module, x: _Value) -> str:
    whole = _whole(module)
    assert whole is not None
    kind, sizes = WHOLE[whole](module)
    if kind is model.Linear:
        _vector(x)
    keys = kind("", *sizes).shapes()
    return made.add(kind, sizes, (x,), **{key: getattr(module, key) for key in keys})


RULES: dict[str, Callable[..., str]] = {}


def _rule(*names: str) -> Callable[[Callable[..., str]], Callable[..., str]]:
    """Registers what operations of these names become; arguments are theirs, as torch has them."""
    def register(rule: Callable[..., str]) -> Callable[..., str]:
        RULES.update(dict.fromkeys(names, rule))
        return rule

    return register


def _shown(shape: Sequence[int]) -> str:
    """``[N, 3, 8, 8]``"""
    return f"[{', '.join('N' if k == 0 and n == BATCH else str(n) for k, n in enumerate(shape))}]"


def _vector(x: _Value) -> None:
    if len(x.shape) != 2:
        raise _NoForm(f"must read a vector [N, features], not {_shown(x.shape)}; "
                      "a Flatten before it would do")


def _both(what: str, value: int | Sequence[int]) -> int:
    """The size that height and width share."""
    sizes = tuple(value) if isinstance(value, Sequence) else (value,)
    if len({*sizes}) != 1:
        raise _NoForm(f"must have one {what} for height and width, not {sizes}")
    return int(sizes[0])


def _only(what: str, value: object, wanted: object) -> None:
    if value != wanted:
        raise _NoForm(f"must have {what} {wanted}, not {value}")


@_rule("conv2d")
def _conv2d(made: _Layers, input: _Value, weight: Tensor, bias: Tensor | None = None,
            stride: int | Sequence[int] = 1, padding: str | int | Sequence[int] = 0,
            dilation: int | Sequence[int] = 1, groups: int = 1) -> str:
    outputs, inputs, *size = weight.shape
    kernel = _both("kernel size", size)
    _only("dilation", _both("dilation", dilation), 1)
    if groups != 1:
        raise _NoForm(f"must have 1 group, not {groups}; QuantizedConv2d may be depthwise")
    if padding == "same" and kernel % 2 == 0:
        raise _NoForm(f"must have an odd kernel size for padding 'same', not {kernel}")
    if isinstance(padding, str):
        padding = kernel // 2 if padding == "same" else 0
    sizes = (inputs, outputs, kernel, _both("stride", stride), _both("padding", padding))
    name = made.add(model.FloatConv, sizes, (input,), weight=weight)
    if bias is None:
        return name
    return made.add(model.Bias, (outputs,), (_Value(name, made.step.shape),), f"{name}_bias",
                    bias=bias.reshape(1, -1, 1, 1))


@_rule("linear")
def _linear(made: _Layers, input: _Value, weight: Tensor, bias: Tensor | None = None) -> str:
    _vector(input)
    outputs, inputs = weight.shape
    bias = weight.new_zeros(outputs) if bias is None else bias
    return made.add(model.FloatLinear, (inputs, outputs), (input,), weight=weight, bias=bias)


@_rule("batch_norm")
def _batch_norm(made: _Layers, input: _Value, running_mean: Tensor | None,
                running_var: Tensor | None, weight: Tensor | None = None,
                bias: Tensor | None = None, training: bool = False, momentum: float = 0.1,
                eps: float = BN_EPS) -> str:
    """An eps of one's own goes into the variance, which is rounded to float32 again."""
    if training or running_mean is None or running_var is None:
        raise _NoForm("must use running statistics: track them, and call module.eval() first")
    if eps != BN_EPS:
        running_var = (running_var.double() + (eps - BN_EPS)).to(running_var.dtype)
        if (running_var < 0).any():
            raise _NoForm(f"must have eps {BN_EPS} or more where a variance is as small, not {eps}")
    return made.add(
        model.BatchNorm, (input.channels,), (input,), running_mean=running_mean,
        running_var=running_var,
        weight=torch.ones_like(running_mean) if weight is None else weight,
        bias=torch.zeros_like(running_mean) if bias is None else bias)


@_rule("prelu")
def _prelu(made: _Layers, input: _Value, weight: Tensor) -> str:
    return made.add(model.PReLU, (input.channels,), (input,),
                    weight=weight.reshape(-1).expand(input.channels))


@_rule("leaky_relu")
def _leaky_relu(made: _Layers, input: _Value, negative_slope: float = 0.01,
                inplace: bool = False) -> str:
    return _prelu(made, input, torch.tensor([negative_slope], dtype=torch.float32))


@_rule("relu")
def _relu(made: _Layers, input: _Value, inplace: bool = False) -> str:
    return made.add(model.ReLU, (), (input,))


@_rule("relu6")
def _relu6(made: _Layers, input: _Value, inplace: bool = False) -> str:
    return made.add(model.ReLU6, (), (input,))


@_rule("hardtanh")
def _hardtanh(made: _Layers, input: _Value, min_val: float = -1.0, max_val: float = 1.0,
              inplace: bool = False) -> str:
    return _clamp(made, input, min_val, max_val)


@_rule("clamp", "clip")
def _clamp(made: _Layers, input: _Value, min: float | None = None,
           max: float | None = None) -> str:
    if (min, max) == (0, None):
        return _relu(made, input)
    if (min, max) == (0, 6):
        return _relu6(made, input)
    raise _NoForm(f"must be from 0, up to 6 or without end, not from {min} to {max}; "
                  f"what would do: {BENDS}")


@_rule("max_pool2d")
def _max_pool2d(made: _Layers, input: _Value, kernel_size: int | Sequence[int],
                stride: int | Sequence[int] | None = None, padding: int | Sequence[int] = 0,
                dilation: int | Sequence[int] = 1, ceil_mode: bool = False,
                return_indices: bool = False) -> str:
    kernel = _both("kernel size", kernel_size)
    stride = _both("stride", stride or kernel)
    padding = _both("padding", padding)
    _only("dilation", _both("dilation", dilation), 1)
    _only("return_indices", return_indices, False)
    if made.step.shape[2:] != tuple((n + 2 * padding - kernel) // stride + 1
                                    for n in input.shape[2:]):
        raise _NoForm(f"must have whole windows, not end within one (ceil_mode) of "
                      f"{_shown(input.shape)}")
    return made.add(model.MaxPool, (kernel, stride, padding), (input,))


@_rule("avg_pool2d")
def _avg_pool2d(made: _Layers, input: _Value, kernel_size: int | Sequence[int],
                stride: int | Sequence[int] | None = None, padding: int | Sequence[int] = 0,
                ceil_mode: bool = False, count_include_pad: bool = True,
                divisor_override: int | None = None) -> str:
    height, width = (kernel_size if isinstance(kernel_size, Sequence) and len(kernel_size) == 2
                     else (_both("kernel size", kernel_size),) * 2)
    _only("padding", _both("padding", padding), 0)
    _only("divisor_override", divisor_override, None)
    return _average(made, input, (height, width) == input.shape[2:])


@_rule("adaptive_avg_pool2d")
def _adaptive_avg_pool2d(made: _Layers, input: _Value, output_size: Any) -> str:
    if made.step.shape == input.shape != (*input.shape[:2], 1, 1):
        return input.layer  # averages of a pixel each
    return _average(made, input, made.step.shape[2:] == (1, 1))


@_rule("mean")
def _mean(made: _Layers, input: _Value, dim: int | Sequence[int] | None = None,
          keepdim: bool = False) -> str:
    axes = range(len(input.shape)) if dim is None else dim if isinstance(dim, Sequence) else (dim,)
    name = _average(made, input, len(input.shape) == 4 and {axis % 4 for axis in axes} == {2, 3})
    return name if keepdim else made.add(
        model.Flatten, (), (_Value(name, (*input.shape[:2], 1, 1)),))


def _average(made: _Layers, input: _Value, whole: bool) -> str:
    if not whole:
        raise _NoForm(f"must average all pixels of {_shown(input.shape)}; "
                      "AdaptiveAvgPool2d(1) does")
    return made.add(model.AvgPool, (), (input,))


@_rule("flatten", "view", "reshape", "squeeze")
def _flatten(made: _Layers, input: _Value, *shape: Any, **named: Any) -> str:
    """Whatever the arguments, the shape tells: rows of a reshape keep their order."""
    if made.step.shape == input.shape:
        return input.layer
    if made.step.shape != (BATCH, math.prod(input.shape[1:])):
        raise _NoForm(f"must make a vector of each image, [N, {math.prod(input.shape[1:])}], "
                      f"not {_shown(made.step.shape)}")
    return made.add(model.Flatten, (), (input,))


@_rule("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
def _dropout(made: _Layers, input: _Value, p: float = 0.5, training: bool = True,
             inplace: bool = False) -> str:
    if training:
        raise _NoForm("must not drop in evaluation mode: pass training=self.training, and call "
                      "module.eval() first")
    return input.layer


@_rule("contiguous", "clone", "detach", "float", "to")
def _same(made: _Layers, input: _Value, *how: Any, **named: Any) -> str:
    return input.layer


@_rule("add")
def _add(made: _Layers, input: _Value | Tensor | float, other: _Value | Tensor | float, *,
         alpha: float = 1) -> str:
    """Of two layers, or of a layer and a bias per channel."""
    _only("alpha", alpha, 1)
    if isinstance(input, _Value) and isinstance(other, _Value):
        if input.shape != other.shape:
            raise _NoForm("must read tensors of one shape, not "
                          f"{_shown(input.shape)} and {_shown(other.shape)}")
        return made.add(model.Add, (), (input, other))
    x, bias = (input, other) if isinstance(input, _Value) else (other, input)
    assert isinstance(x, _Value) and not isinstance(bias, _Value)
    if not isinstance(bias, Tensor):
        if bias == 0:  # where sum() starts
            return x.layer
        bias = torch.tensor(bias, dtype=torch.float32)
    shape = (1,) * (len(x.shape) - bias.dim()) + tuple(bias.shape)
    if bias.numel() != 1 and shape != (1, x.channels, *(1,) * (len(x.shape) - 2)):
        raise _NoForm(f"must read a bias per channel of {_shown(x.shape)}, "
                      f"not {list(bias.shape)}")
    return made.add(model.Bias, (x.channels,), (x,),
                    bias=bias.reshape(-1).expand(x.channels).reshape(1, -1, 1, 1))
