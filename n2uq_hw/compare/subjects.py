# amaranth: UnusedElaboratable=no
"""What is compared: designs as gateware of some size, and how each proves that it is its golden."""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from amaranth.hdl import Shape
from amaranth.lib import wiring

from .. import data, nets, tools
from ..builds.emit import library_verilog
from ..data import channels_last
from ..errors import N2uqError
from ..hw.designs import Design, Trained
from ..hw.designs.mvu import CodedMatVec
from ..hw.library import Library
from ..hw.passes import lanes_of
from ..ir import MatVec, golden
from ..lowering.lower import lower
from ..sim.rtl.harness import Dut, Sink, Source, pack
from ..sim.rtl.runner import MAX_IDLE, simulate
from .gates import STREAMS, Netlist, map_gates
from .wholes import Whole, mvus, networks, quantizers

__all__ = ["BEATS", "LEVELS", "Codes", "Lane", "Level", "MismatchError", "Proof", "Streamed",
           "Subject", "layer_codes"]

VECTORS = 8    # images of a simulation
CYCLES = 4096  # of an image in a whole network, at most
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
    dots: results that were compared with golden, all of them equal.
    ports: of each port, whether it is an output, and its bits.
    gates, flops, transistors: of CMOS gates, where those are what is proven.
    activity: per cycle, how often each net changes times the pins that it drives.
    """

    latency: int
    dots: int
    ports: dict[str, list[int]]
    gates: int | None = None
    flops: int | None = None
    transistors: int | None = None
    activity: float | None = None


class Subject(ABC):
    """Gateware of some size in some design.

    Members
    -------
    name, method, uniform, writable, trained: of the design, as in the tables.
    weight_bits, act_bits, lanes, case: what it is compared at.
    macs: multiply-accumulates per cycle.
    rounding: as `Design.rounding`.
    top: its module.
    identity: what it was made from, beside the sources of this package; its repr tells it from
        all others.  None if other sources had a part in it.
    """

    name: str
    method: str
    uniform: bool
    writable: bool
    trained: str = ""
    weight_bits: int
    act_bits: int
    lanes: int
    macs: int
    top: str
    identity: object
    case = ""
    rounding = 0.0

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
        self.rounding = design.rounding
        self.trained = design.trained
        self.weight_bits, self.act_bits = design.weight_bits, design.act_bits
        self.lanes = self.macs = design.lanes
        self.top = re.sub(r"\W", "_", f"lanes {design.name}", flags=re.ASCII)
        self.identity = _identity(design)

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


def _identity(design: Design) -> object:
    """What tells a design of this package from all others; None of another's."""
    cls = type(design)
    values = [(name, array.tolist()) for name, array in (
        ("weights", design.weights), ("activations", design.activations), *design.tables.items())]
    return (cls.__qualname__, design.name, design.weight_bits, design.act_bits,
            design.lanes, values) if cls.__module__.startswith(PACKAGE) else None


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
            if len(design.tables) > 1:
                net.set("load_table", place)
            net.set("load_addr", at)
            net.set("load_data", int(value))
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


class Streamed(Subject):
    """A whole MVU or network, an `Accelerator` with an input and an output stream.

    Simulated is its Verilog, as that of a build is, with its tables written before: every bit of
    every output, first without a stall, then with stalls on both sides.  Inputs are `images`, else
    VECTORS random ones, of which the first two are at the ends of their range.
    """

    def __init__(self, whole: Whole, lanes: int, images: np.ndarray | None = None) -> None:
        self.whole, self.images = whole, images
        self.name, self.method, self.uniform = whole.name, whole.method, whole.uniform
        self.writable, self.trained = bool(whole.tables), whole.trained
        self.weight_bits, self.act_bits = whole.point["weight_bits"], whole.point["act_bits"]
        self.lanes = self.macs = lanes
        self.case, self.top = whole.point.get("case", ""), whole.top
        self.rounding = max((node.design.rounding for node in whole.graph.nodes
                             if isinstance(node, CodedMatVec)), default=0.0)
        made_of = [_identity(node.design) for node in whole.graph.nodes
                   if isinstance(node, CodedMatVec)]
        self.identity = None if None in made_of else (
            whole.name, sorted(whole.point.items()), whole.folding, made_of, whole.graph.digest)

    def verilog(self) -> dict[str, str]:
        return self.whole.verilog()

    def prove(self, verilog: Sequence[Path], codes: Codes | None) -> Proof:
        graph, folding, edges = self.whole.graph, self.whole.folding, self.whole.graph.edges
        read, out = edges[graph.input.name], edges[graph.nodes[-1].name]
        images = self.images
        if images is None:
            images = np.random.default_rng(0).integers(
                read.lo, read.hi + 1, (VECTORS, *read.shape))
            images[0], images[1] = read.lo, read.hi
        expected = golden.run(graph, images)
        ports = _ports(self.whole)
        beats = {"i": (read, lanes_of(graph, folding, graph.input.name), images),
                 "o": (out, lanes_of(graph, folding, graph.nodes[-1].name), expected)}
        bits = {name: pack(values.reshape(-1, lanes), edge.width)
                for name, (edge, lanes, values) in beats.items()}
        runs = []
        with tools.scratch() as folder:
            (folder / "loaded.v").write_text(_loaded(self.whole, ports), encoding="utf-8")
            dut = Dut(graph.name, "loaded", (Source(
                "i__payload", "i__valid", "i__ready", bits["i"].shape[1], bits["i"]),), (Sink(
                    "o__payload", "o__valid", "o__ready", bits["o"].shape[1], len(bits["o"])),))
            for stalls in 0.0, 0.3:
                runs.append(simulate([*verilog, folder / "loaded.v"], [dut], work=folder / "work",
                                     stalls=(stalls, stalls), seed=1, max_idle=MAX_IDLE * 100))
                ((received,),) = runs[-1].sinks.values()
                if (wrong := (received.beats != bits["o"]).any(axis=1)).any():
                    raise MismatchError(f"{self.name}: beat {wrong.argmax()} of {len(wrong)} "
                                        "differs between Verilog and golden")
        ((accepted,),), ((record,),) = runs[0].sources.values(), runs[0].sinks.values()
        return Proof(int(record.cycles[0] - accepted[0]) + 1, len(runs) * expected.size, ports)


def _ports(whole: Whole) -> dict[str, list[int]]:
    """Of each port of its Verilog, whether it is an output, and its bits."""
    members, unit = {"clk": [0, 1], "rst": [0, 1]}, whole.create()
    for path, member, _ in unit.signature.flatten(unit):
        if bits := Shape.cast(member.shape).width:
            members["__".join(map(str, path))] = [int(member.flow == wiring.Out), bits]
    return members


def _loaded(whole: Whole, ports: Mapping[str, Sequence[int]]) -> str:
    """Verilog of `whole` in a module that writes its tables, an entry a cycle, before it runs."""
    rows, loads, step = list[str](), list[str](), 0
    for prefix, of in whole.tables.items():
        mine = {what: port for what in ("en", "table", "addr", "data")
                if (port := f"{prefix}load_{what}") in ports}  # one of 0 bits is not
        loads += mine.values()
        for place, values in enumerate(of.tables.values()):
            for at, value in enumerate(values.tolist()):
                entry = {"en": 1, "table": place, "addr": at, "data": value}
                writes = "; ".join(
                    f"{port} = {ports[port][1]}'d{entry[what] % 2**ports[port][1]}"
                    for what, port in mine.items())
                rows.append(f"      {step}: begin {writes}; end\n")
                step += 1
    body = [f"  reg [{ports[name][1] - 1}:0] {name};\n" for name in loads]
    clear = "".join(f"    {name} = 0;\n" for name in loads)
    pins = [f".{name}({name})" for name in ports if name not in ("i__valid", "i__ready")]
    return f"""module loaded (input clk, input rst,
    input [{ports["i__payload"][1] - 1}:0] i__payload, input i__valid, output i__ready,
    output [{ports["o__payload"][1] - 1}:0] o__payload, output o__valid, input o__ready);
  reg [31:0] step = 0;
  wire ready, done = step == {step};
{"".join(body)}  assign i__ready = ready & done;
  always @(posedge clk) step <= rst ? 0 : step + !done;
  always @* begin
{clear}    case (step)
{"".join(rows)}      default: ;
    endcase
  end
  {whole.top} unit ({", ".join(pins)}, .i__valid(i__valid & done), .i__ready(ready));
endmodule
"""


TrainedLayers = Mapping[str, Trained]  # by layer, that with the most multiplies first


def _lane(classes: Iterable[type[Design]], trained: TrainedLayers | None = None, **point: int
          ) -> Iterator[Subject]:
    """One array of lanes for each variant of each class."""
    for cls in classes:
        yield from map(Lane, cls.with_levels(_first(trained), **point) if trained else
                       cls.variants(**point))


def _first(trained: TrainedLayers) -> Trained:
    return next(iter(trained.values()))


def _mvu(classes: Iterable[type[Design]], trained: TrainedLayers | None = None, *, weight_bits: int,
         act_bits: int, lanes: int) -> Iterator[Subject]:
    """A 3 × 3 convolution of ResNet-18, SIMD the larger factor of `lanes`; and its quantizer."""
    pe = 2**((lanes.bit_length() - 1) // 2)
    if lanes & (lanes - 1):
        raise N2uqError(f"lanes of an MVU must be a power of two, not {lanes}")
    for whole in mvus(classes, weight_bits=weight_bits, act_bits=act_bits, pe=pe,
                      simd=lanes // pe, trained=_first(trained) if trained else None):
        yield Streamed(whole, lanes)


def _quantizer(classes: Iterable[type[Design]], trained: TrainedLayers | None = None, *,
               weight_bits: int, act_bits: int, lanes: int) -> Iterator[Subject]:
    """Thresholds alone, and with a codebook, of the methods that `classes` are of."""
    methods = {cls.method for cls in classes if trained is None}
    for whole in quantizers(bits=act_bits, pe=lanes):
        if whole.method in methods:
            yield Streamed(whole, lanes)


def _network(classes: Iterable[type[Design]], trained: TrainedLayers | None = None, *,
             weight_bits: int, act_bits: int, lanes: int) -> Iterator[Subject]:
    """The shipped digits CNN and MNIST MLP of so many bits; their folding has the lanes.

    Levels are `trained` for the digits CNN, which has those layers.
    """
    for name in (f"{kind}_w{weight_bits}a{act_bits}" for kind in ("digits_cnn", "mnist_mlp")):
        if name in nets.shipped():
            samples = data.images_for(nets.find_net(name).meta.get("dataset", ""), None)
            for whole in networks(classes, net=name, cycles=CYCLES, trained=trained):
                images = None if samples is None else channels_last(
                    samples[0][:VECTORS], whole.graph.input.shape, name)
                yield Streamed(whole, whole.point["lanes"], images)


class Level(NamedTuple):
    """What is compared: of classes of designs, at `weight_bits`, `act_bits` and `lanes`.

    Members
    -------
    subjects: of classes, or of those designs that have levels `trained`.
    lanes: those that it is compared at by default; (0,) where it has its own.
    """

    subjects: Callable[..., Iterator[Subject]]
    lanes: tuple[int, ...]


LEVELS = {"lane": Level(_lane, (8, 16, 64, 256)), "mvu": Level(_mvu, (64, 256)),
          "quantizer": Level(_quantizer, (1, 8)), "network": Level(_network, (0,))}
