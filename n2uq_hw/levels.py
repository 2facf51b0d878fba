"""What is compared: designs as gateware of some size, and how each proves that it is its golden."""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import data, golden, nets
from .data import channels_last
from .emit import library_verilog
from .errors import N2uqError
from .gates import STREAMS, Netlist, map_gates
from .hw.designs import Design
from .hw.stream import Library
from .ir import MatVec
from .lower import lower

__all__ = ["BEATS", "LEVELS", "Codes", "Lane", "MismatchError", "Proof", "Subject",
           "layer_codes"]

BEATS = 64   # beats of each stream in which toggles are counted
PACKAGE = __name__.partition(".")[0]
IMAGES = 16  # images of a net's data set whose activations are used


@dataclass(frozen=True)
class Codes:
    """Codes of a trained layer: weights uint8 [N, K], activations uint8 [P, K] of P positions."""

    name: str
    weight_bits: int
    act_bits: int
    weights: np.ndarray
    activations: np.ndarray

    @property
    def digest(self) -> str:
        """Of the contents."""
        return hashlib.sha256(repr((self.name, self.weights.shape, self.activations.shape)).encode()
                              + self.weights.tobytes() + self.activations.tobytes()).hexdigest()


@dataclass(frozen=True)
class Proof:
    """What a simulation showed, and the gates that it was of.

    Members
    -------
    latency: cycles from codes to their dot product.
    dots: dot products that were compared with golden, all of them equal.
    ports: of each port, whether it is an output, and its bits.
    gates, flops, transistors: of CMOS gates.
    activity: per cycle, how often each net changes times the pins that it drives.
    """

    latency: int
    dots: int
    ports: dict[str, list[int]]
    gates: int
    flops: int
    transistors: int
    activity: float


class Subject(ABC):
    """Gateware of some size in some design.

    Members
    -------
    name, method, uniform, writable: of the design, as in the tables.
    weight_bits, act_bits, lanes: what it is compared at.
    macs: multiply-accumulates per cycle.
    top: its module.
    identity: what it was made from, beside the sources of this package; its repr tells it from
        all others.  None if other sources had a part in it.
    """

    name: str
    method: str
    uniform: bool
    writable: bool
    weight_bits: int
    act_bits: int
    lanes: int
    macs: int
    top: str
    identity: object

    @abstractmethod
    def verilog(self) -> dict[str, str]:
        """Texts by file name: Verilog, and the memory files that it reads."""

    @abstractmethod
    def prove(self, verilog: Sequence[Path], codes: Codes | None) -> Proof:
        """Simulate the files and compare with golden; raises MismatchError where they differ.

        Toggles are counted on `codes`, else on random codes.
        """


class MismatchError(N2uqError):
    """Gateware that is not its golden model."""


class Lane(Subject):
    """One dot product a cycle of all lanes: `hw.designs.Lanes`.

    Simulated are its gates.  Compared are all pairs of a code in all weights and a code in all
    activations, then BEATS beats in each of STREAMS streams, a new one each cycle.  Codes of a
    layer come as a folded MVU takes them: a stream is a row of weights, chunk by chunk, beside
    position after position.
    """

    def __init__(self, design: Design) -> None:
        self.design = design
        self.name, self.method = design.name, design.method
        self.uniform, self.writable = design.uniform, design.writable
        self.weight_bits, self.act_bits = design.weight_bits, design.act_bits
        self.lanes = self.macs = design.lanes
        self.top = re.sub(r"\W", "_", f"lanes {design.name}", flags=re.ASCII)
        cls = type(design)
        values = [(name, array.tolist()) for name, array in (
            ("weights", design.weights), ("activations", design.activations),
            *design.tables.items())]
        self.identity = (cls.__qualname__, design.name, design.weight_bits, design.act_bits,
                         design.lanes, values) if cls.__module__.startswith(PACKAGE) else None

    def verilog(self) -> dict[str, str]:
        library = Library()
        library.signature(self.top, self.design.create)
        return library_verilog(library, self.top)

    def prove(self, verilog: Sequence[Path], codes: Codes | None) -> Proof:
        design, net = self.design, map_gates(verilog, self.top)
        w, a = (np.concatenate(parts) for parts in zip(_extremes(design), _beats(design, codes),
                                                       strict=True))
        lanes = w.shape[2]
        expected = design.golden(w.reshape(-1, lanes), a.reshape(-1, lanes)).reshape(len(w), -1)
        net.set("enable", 1)
        _load(net, design)
        for beat in range(len(w) + design.latency):
            if beat < len(w):
                net.set("w", w[beat])
                net.set("a", a[beat])
            net.settle()
            done = beat - design.latency
            if done >= 0 and (net.get("dot") != expected[done]).any():
                stream = int((net.get("dot") != expected[done]).argmax())
                raise MismatchError(
                    f"{design.name}: {net.get('dot')[stream]} in gates, {expected[done][stream]} "
                    f"in golden for weights {w[done][stream].tolist()} and activations "
                    f"{a[done][stream].tolist()}")
            # The pipeline is full of what is counted, up to the last beat that enters.
            net.counting = len(w) - BEATS + design.latency <= beat < len(w) - 1
            net.clock()
        cycles = BEATS - 1 - design.latency
        activity = float((net.toggles * net.fanout).sum()) / (cycles * STREAMS)
        return Proof(design.latency, expected.size, net.widths, net.gates, net.flops,
                     net.transistors, round(activity, 3))


def _extremes(design: Design) -> tuple[np.ndarray, np.ndarray]:
    """Codes [beats, STREAMS, lanes] of weights and activations: all pairs, each in all lanes."""
    pairs = np.indices((2**design.weight_bits, 2**design.act_bits)).reshape(2, -1)
    pairs = np.resize(pairs, (2, -(-pairs.shape[1] // STREAMS) * STREAMS))
    w, a = pairs.reshape(2, -1, STREAMS, 1).repeat(design.lanes, axis=3)
    return w, a


def _beats(design: Design, codes: Codes | None) -> tuple[np.ndarray, np.ndarray]:
    """Codes [BEATS, STREAMS, lanes] of weights and activations."""
    shape = BEATS, STREAMS, design.lanes
    if codes is None:
        rng = np.random.default_rng(0)
        return (rng.integers(0, 2**design.weight_bits, shape),
                rng.integers(0, 2**design.act_bits, shape))
    size, rows = BEATS * design.lanes, len(codes.weights)
    streams = [(np.resize(codes.weights[s % rows], size),
                np.resize(np.roll(codes.activations, -s * len(codes.activations) // STREAMS, 0),
                          size)) for s in range(STREAMS)]
    w, a = (np.array(each).reshape(STREAMS, BEATS, design.lanes).swapaxes(0, 1).astype(np.int64)
            for each in zip(*streams, strict=True))
    return w, a


def _load(net: Netlist, design: Design) -> None:
    """Write every entry of the tables of a design whose tables are written."""
    if not design.writable:
        return
    net.set("load_en", 1)
    for place, values in enumerate(design.tables.values()):
        for at, value in enumerate(values):
            for port, number in (("table", place), ("addr", at), ("data", int(value))):
                net.set(f"load_{port}", number)
            net.settle()
            net.clock()
    net.set("load_en", 0)


def layer_codes(name: str) -> Codes:
    """Codes of the layer of a net with the most multiplies, of those with N2UQ's weights.

    Activations are those of the first images of the net's data set.
    """
    net = nets.find_net(name)
    graph = lower(net)
    images = data.images_for(net.meta.get("dataset", ""), None)
    if images is None:
        raise N2uqError(f"{name}: must be a net whose images are at hand, and is not")
    values = golden.run_all(graph, channels_last(images[0][:IMAGES], graph.input.shape, name))
    best, most = None, 0
    for node in graph.nodes:
        if not isinstance(node, MatVec):
            continue
        x = values[node.inputs[0]]
        top, peak = int(np.abs(node.weights).max()), int(graph.reads(node)[0].hi.max())
        macs = x[0].size * len(node.weights)
        if (macs > most and (node.weights % 2 == 1).all() and x.min() >= 0
                and top & (top + 1) == peak & (peak + 1) == 0):
            most = macs
            best = Codes(f"{graph.name} {node.name}", top.bit_length(), peak.bit_length(),
                         ((node.weights.astype(int) + top) // 2).astype(np.uint8),
                         x.reshape(-1, x.shape[3]).astype(np.uint8))
    if best is None:
        raise N2uqError(f"{name}: must have a layer with odd weights of at most 8 bits, "
                        "and has none")
    return best


def _lane(classes: Iterable[type[Design]], **point: int) -> Iterator[Subject]:
    """One array of lanes for each variant of each class."""
    for cls in classes:
        yield from map(Lane, cls.variants(**point))


# What is compared on each level, of classes of designs, at `weight_bits`, `act_bits` and `lanes`.
LEVELS: Mapping[str, Callable[..., Iterator[Subject]]] = {"lane": _lane}
