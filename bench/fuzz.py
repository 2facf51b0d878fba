"""``python -m bench fuzz``: random networks and damaged files, until the time is over.

    python -m bench fuzz [--minutes M] [--seed S] [nets|graphs|files ...]

nets: random low-bit networks; golden's outputs must be those of the float64 formulas, and the net
file must come back.  graphs: random integer graphs of every kind of node and random foldings; RTL
under stalls must give golden's bits in the cycles of the timing model, and now and then the netlist
of a family of FPGAs too.  files: bytes changed, cut off and put in between in files of every format
that is read; a fault is one line, in 5 seconds and 1 GB.  By default all three share the time.

The same seed gives the same cases, as far as the time reaches.  What fails is made smaller by
hypothesis; what is left of it is kept in build/fuzz, its path is printed, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import n2uq_hw as n2
from n2uq_hw import data, tools
from n2uq_hw.builds.emit import emit, load_build
from n2uq_hw.builds.verify import NETLISTS, verify
from n2uq_hw.errors import N2uqError
from n2uq_hw.ir import load_graph
from n2uq_hw.lowering.lower import lower
from n2uq_hw.model import (
    AvgPool,
    BatchNorm,
    Concat,
    DepthToSpace,
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
    Upsample,
    load_net,
)
from n2uq_hw.plan.choice import load_folding, save_folding
from n2uq_hw.sim.timing.fifos import size_fifos
from n2uq_hw.sim.timing.forecast import forecast, stalled

__all__ = ["KINDS", "main", "run"]

KEPT = Path("build/fuzz")
CASES = 10       # of hypothesis at a time
IMAGES = 5
ODD = 0.29731    # a scale
NETLIST = 25     # one in so many graphs is synthesized
SECONDS, ROOM = 5, 2**30  # for a file
TESTS = Path(__file__).parents[1] / "tests"


@dataclass
class Tally:
    """What has run, and how to keep the last of them."""

    cases: Counter[str] = field(default_factory=Counter)
    keep: Callable[[Path], None] | None = None


# --- Networks -----------------------------------------------------------------------------------


class Grown:
    """A random net, layer by layer; `shape` [C, H, W] is that of the last one.

    Where a step is met exactly, in floats that are not dyadic, the formulas are no reference: they
    compute a sum that is 0 as -1e-16, of which floor is -1.  So floor stands behind dyadic scales,
    which `exact` tells, or a normalization; and no multiple of ODD lies halfway between levels.
    """

    def __init__(self, draw: Callable[..., Any]) -> None:
        self.draw, self.layers, self.values = draw, list[Layer](), dict[str, np.ndarray]()
        self.shape = (self.among(1, 1, 2, 3, 5), self.among(1, 2, 4, 5, 7),
                      self.among(1, 3, 4, 6, 9))
        least = self.among(0, 0, -8, -70)
        most, scale = self.among(1, 3, 15, 90), self.among(1.0, ODD)
        self.spec, self.exact = InputSpec(self.shape, most, scale, min=least), scale == 1.0
        self.rng = np.random.default_rng(draw(st.integers(0, 2**16)))

    def among(self, *values: Any) -> Any:
        """One of them; the first is the simplest."""
        return self.draw(st.sampled_from(values))

    def add(self, kind: Callable[..., Layer], *settings: Any, inputs: tuple[str, ...] = (),
            **values: Any) -> str:
        """A layer of `kind` with parameters `values`; its name."""
        layer = kind(f"l{len(self.layers)}", *settings, inputs=inputs)
        self.layers.append(layer)
        for key, shape in layer.shapes().items():
            value = values[key](shape) if callable(values[key]) else values[key]
            self.values[f"{layer.name}.{key}"] = np.broadcast_to(
                np.asarray(value, layer.TYPES.get(key, np.float32)), shape).copy()
        return layer.name

    def uniform(self, low: float, high: float) -> Callable[[tuple[int, ...]], np.ndarray]:
        return lambda shape: self.rng.uniform(low, high, shape)

    def codes(self) -> Callable[[tuple[int, ...]], np.ndarray]:
        """Weights of 1 to 8 bits; now and then a dead channel."""
        most, dead = 2 ** self.among(1, 2, 3, 7) - 1, self.among(False, False, True)

        def drawn(shape: tuple[int, ...]) -> np.ndarray:
            codes = self.rng.integers(-most, most + 1, shape)
            codes[:1] *= not dead
            return codes
        return drawn

    def convolve(self) -> None:
        """A convolution: even and rectangular kernels, strides above them, groups, dilation."""
        channels, *size = self.shape
        groups = self.among(*[1, *(k for k in range(2, channels + 1) if channels % k == 0)])
        padding = tuple(self.among(0, 1, 2) for _ in range(4))
        frames = padding[0] + padding[1], padding[2] + padding[3]
        kernel, stride, dilation, out = [], [], [], []
        for length, frame in zip(size, frames, strict=True):
            kernel.append(min(self.among(1, 2, 3), length + frame))
            dilation.append(1 if kernel[-1] * 2 > length + frame else self.among(1, 2))
            stride.append(self.among(1, 2, 3))
            out.append((length + frame - dilation[-1] * (kernel[-1] - 1) - 1) // stride[-1] + 1)
        outputs = groups * self.among(1, 2, 3)
        self.add(IntConv, channels, outputs, tuple(kernel), tuple(stride), padding,
                 tuple(dilation), groups, codes=self.codes(), scale=self.uniform(0.01, 0.1))
        self.shape = outputs, *out

    def quantize(self) -> None:
        """What may stand between accumulator and quantizer, and the quantizer."""
        channels = self.shape[0]
        before = self.among((), ("norm",), ("leaky_relu",), ("norm", "relu"), ("mul", "tanh"))
        for op in before:
            if op == "norm":
                self.add(BatchNorm, channels, weight=self.uniform(-1, 2), bias=self.uniform(-1, 1),
                         running_mean=self.uniform(-1, 1), running_var=self.uniform(0.1, 2))
            else:
                self.add(Pointwise, op, self.among(1, channels), value=self.uniform(-0.5, 1.5))
        bits, signed = self.among(1, 2, 3, 4, 8), self.among(False, True)
        least = -2**(bits - 1) if signed and bits > 1 else 0
        roundings = ["even", "half_up", *["floor"] * (self.exact or "norm" in before)]
        scale = self.among(0.25, ODD, 1.0)
        self.add(Quant, 1, least, least + 2**bits - 1, self.among(*roundings),
                 scale=scale, zero_point=0)
        self.exact = scale != ODD

    def move(self) -> None:
        """Pixels and channels, as integers."""
        channels, height, width = self.shape
        kind = self.among("none", "max", "sum", "up", "blocks", "permute", "beside")
        if kind in ("max", "sum") and min(height, width) > 1:
            settings = ((2, 2), (2, 2)) if kind == "max" else ((2, 2), (1, 1), 0, True, True)
            self.add(MaxPool if kind == "max" else AvgPool, *settings)
            step = 2 if kind == "max" else 1
            self.shape = channels, (height - 2) // step + 1, (width - 2) // step + 1
            if kind == "sum":
                self.quantize()
        elif kind == "up" and height * width <= 20:
            self.add(Upsample, (2, 1))
            self.shape = channels, 2 * height, width
        elif kind == "blocks" and channels % 4 == 0:
            self.add(DepthToSpace, 2, self.among("DCR", "CRD"))
            self.shape = channels // 4, 2 * height, 2 * width
        elif kind == "permute":
            self.add(Permute, channels, order=self.rng.permutation(channels))
        elif kind == "beside":
            last = self.layers[-1].name
            self.add(Concat, inputs=(last, last))
            self.shape = 2 * channels, height, width

    def net(self) -> Net:
        """The net, with a linear layer at its end or a map."""
        for _ in range(self.among(1, 2, 3)):
            self.convolve()
            self.quantize()
            self.move()
        if self.among(True, False):
            self.add(Flatten)
            self.add(IntLinear, int(np.prod(self.shape)), self.among(1, 3, 10), codes=self.codes(),
                     scale=self.uniform(0.01, 0.1))
        return Net("net", self.spec, tuple(self.layers), self.values)


def nets(of: st.DataObject, tally: Tally, folder: Path) -> None:
    """Golden's outputs are the formulas'."""
    net = Grown(of.draw).net()
    tally.keep = lambda path: net.save(path.with_suffix(".safetensors"))
    spec = net.input
    images = np.random.default_rng(0).integers(spec.min, spec.max + 1, (40, *spec.shape))
    try:
        graph = lower(net)
    except N2uqError as error:  # what has no integer form is refused in a line
        assert "\n" not in str(error)
        tally.cases["nets refused"] += 1
        return
    got = graph.forward(images).reshape(len(images), -1) * graph.scale
    want = net.forward(images)
    worst = np.abs(got - want).max()
    assert worst <= 1e-6 * max(np.abs(want).max(), 1e-9), f"golden differs by {worst}"
    net.save(folder / "net.safetensors")
    again = lower(load_net(folder / "net.safetensors"))
    assert again.digest == graph.digest, "the net file gives another graph"


# --- Graphs -------------------------------------------------------------------------------------


def graphs(of: st.DataObject, tally: Tally, folder: Path) -> None:
    """RTL gives golden's bits in the timing model's cycles."""
    from graphs import Drawn, random_chain, random_dense, random_folding, random_residual

    draw, source = of.draw, Drawn(of)
    make = draw(st.sampled_from([random_chain, random_residual, random_dense]))
    graph = make("g", source)
    folding = size_fifos(graph, random_folding(graph, source)).folding
    stalls, number = draw(st.sampled_from([0.0, 0.2, 0.6])), draw(st.integers(0, 99))
    family = draw(st.sampled_from(["", *NETLISTS])) if number % NETLIST == 1 else ""

    def keep(path: Path) -> None:
        graph.save(path.with_suffix(".safetensors"))
        save_folding(folding, graph, path.with_suffix(".yaml"))
        path.with_suffix(".txt").write_text(f"stalls {stalls}, seed {number}, netlist {family}\n")

    tally.keep = keep
    edge = graph.input
    images = np.random.default_rng(number).integers(
        edge.lo, edge.hi + 1, (IMAGES, edge.shape[2], *edge.shape[:2]))
    emit(graph, size_fifos(graph, folding), folder / "b", images[:2], None)
    build = load_build(folder / "b")
    tally.cases["netlists"] += bool(family)
    verdict = verify(build, images, None, stalls=stalls, seed=number, netlist=family)
    assert not verdict.mismatches, verdict.first_mismatch
    timing = (stalled(graph, build.folding, IMAGES, stalls, number) if stalls
              else forecast(graph, build.folding, images=IMAGES))
    measured = verdict.cycles_first_output, verdict.cycles_per_image
    assert measured == (timing.cycles_first_output, timing.cycles_per_image), (
        f"cycles {measured}, predicted {timing.cycles_first_output}, {timing.cycles_per_image}")


# --- Files --------------------------------------------------------------------------------------


def examples(folder: Path) -> dict[str, tuple[Path, Callable[[Path], object]]]:
    """A whole file of each format, and what reads it."""
    net = n2.load("digits_mlp_w2a2")
    graph = lower(net)
    net.save(folder / "net.safetensors")
    graph.save(folder / "graph.safetensors")
    folding = n2.fold(graph, cycles=64).folding
    save_folding(folding, graph, folder / "folding.yaml")
    digits = data.load("digits")
    np.savez(folder / "images.npz", images=digits.images[:9], labels=digits.labels[:9])
    build = n2.build(graph, n2.fold(graph, cycles=64), folder / "build")
    every: dict[str, tuple[Path, Callable[[Path], object]]] = {
        "net": (folder / "net.safetensors", n2.load),
        "graph": (folder / "graph.safetensors", load_graph),
        "folding": (folder / "folding.yaml", lambda path: load_folding(path, graph)),
        "images": (folder / "images.npz", data.read_npz),
        **{f"build {name}": (build.path / name, lambda path: load_build(build.path))
           for name in ("manifest.json", "folding.yaml", "report.json", "graph.safetensors",
                        "vectors.safetensors")}}
    try:
        n2.export(graph, folder / "net.onnx")
        every["onnx"] = folder / "net.onnx", n2.load
    except N2uqError as error:
        print(f"no ONNX files: {error}", file=sys.stderr)
    return every


@contextmanager
def limits() -> Iterator[None]:
    """SECONDS, and ROOM beyond what is there."""
    def late(number: int, frame: object) -> None:
        raise TimeoutError(f"not within {SECONDS} s")

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, late)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, hard))
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        signal.signal(signal.SIGALRM, before)


def damaged(whole: bytes, draw: Callable[..., Any]) -> bytes:
    """Some bytes changed, cut off or put in between; near the start more often than not."""
    text = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        near = draw(st.sampled_from([len(text), min(len(text), 400)]))
        at = draw(st.integers(0, max(near - 1, 0)))
        how = draw(st.sampled_from(["change", "flip", "cut", "insert", "drop"]))
        if how == "cut":
            del text[at:]
        elif how == "insert":
            text[at:at] = draw(st.binary(min_size=1, max_size=9))
        elif how == "drop":
            del text[at:at + draw(st.integers(1, 40))]
        elif text:
            text[at] = draw(st.integers(0, 255)) if how == "change" else text[at] ^ 1 << draw(
                st.integers(0, 7))
    return bytes(text)


def files(of: st.DataObject, tally: Tally, folder: Path, every: dict) -> None:
    """A fault is one line."""
    kind = of.draw(st.sampled_from(sorted(every)))
    path, read = every[kind]
    whole = path.read_bytes()
    content = damaged(whole, of.draw)
    tally.keep = lambda kept: kept.with_suffix(path.suffix).write_bytes(content) and None
    path.write_bytes(content)
    try:
        with limits(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(path)
    except N2uqError as error:
        tally.cases["files refused"] += 1
        assert "\n" not in str(error), f"{kind}: more than one line: {error}"
    finally:
        path.write_bytes(whole)


# --- The run ------------------------------------------------------------------------------------

KINDS: dict[str, Callable[..., None]] = {"nets": nets, "graphs": graphs, "files": files}


def run(kind: str, seconds: float, first: int, tally: Tally) -> bool:
    """Cases of `kind` until `seconds` are over; whether all were right."""
    end, number = time.monotonic() + seconds, first
    with tools.scratch() as folder:
        case = KINDS[kind]
        if case is files:
            case = partial(files, every=examples(folder))
        while time.monotonic() < end:
            @seed(number)
            @settings(max_examples=CASES, deadline=None, database=None, print_blob=False,
                      report_multiple_bugs=False,
                      phases=[Phase.generate, Phase.shrink],
                      suppress_health_check=list(HealthCheck))
            @given(st.data())
            def cases(of: Any) -> None:
                tally.cases[kind] += 1
                with tools.scratch() as place:
                    case(of, tally, place)

            try:
                cases()
            except Exception as error:
                return _failed(kind, number, tally, error)
            number += 1
            print(f"{kind}: {tally.cases[kind]} cases, {max(0, end - time.monotonic()):.0f} s left",
                  file=sys.stderr)
    return True


def _failed(kind: str, number: int, tally: Tally, error: Exception) -> bool:
    """Keep the smallest case that fails, and say so."""
    text = "".join(traceback.format_exception(error))
    KEPT.mkdir(parents=True, exist_ok=True)
    place = KEPT / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    place.with_suffix(".log").write_text(text)
    if tally.keep:
        tally.keep(place)
    print(f"FAILED {kind}, seed {number}: {type(error).__name__}: {str(error).splitlines()[0]}\n"
          f"kept as {place}.*")
    return False


def main(arguments: list[str]) -> int:
    """See the module."""
    parser = argparse.ArgumentParser("python -m bench fuzz")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    if unknown := [kind for kind in options.kinds if kind not in KINDS]:
        parser.error(f"kind must be one of {', '.join(KINDS)}, not {unknown[0]}")
    sys.path += [str(TESTS), str(TESTS / "hw")]
    kinds, tally = options.kinds or list(KINDS), Tally()
    shutil.rmtree(KEPT, ignore_errors=True)
    begin = time.monotonic()
    right = [run(kind, 60 * options.minutes / len(kinds), options.seed, tally) for kind in kinds]
    print(", ".join(f"{count} {what}" for what, count in sorted(tally.cases.items()))
          + f" in {(time.monotonic() - begin) / 60:.1f} minutes, seed {options.seed}: "
          + ("no fault" if all(right) else f"{right.count(False)} failed"))
    return 0 if all(right) else 1
