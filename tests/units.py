"""What the gateware tests share: units in simulation against the golden model, every bit."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Shape
from amaranth.lib import data, wiring
from marks import few
from numpy.typing import ArrayLike

from n2uq_hw.builds.emit import LINT, library_verilog
from n2uq_hw.hw.library import Library
from n2uq_hw.ir import Edge, Node, golden, infer
from n2uq_hw.sim.contract import CONTRACT
from n2uq_hw.sim.rtl.harness import Dut, Record, Run, Sink, Source, pack, unpack
from n2uq_hw.sim.rtl.runner import simulate
from n2uq_hw.templates import render
from n2uq_hw.tools import run, run_yosys, verilator

# Sources and sinks that never stall, one of them, both; and resets in the middle of all of it.
SCENARIOS = [(0, 0, ()), (0.5, 0, ()), (0, 0.5, ()), (0.3, 0.4, ()), (0, 0, (53, 0, 1, 200)),
             (0.4, 0.3, (7, 111, 29)), (0.2, 0.8, (2, 300))]
QUICK = SCENARIOS[0], SCENARIOS[5]

# A stream rule that the unit breaks (a beat offered is withdrawn or changes before it is taken)
# inverts all beats from then on, so that they differ from the golden model's.
CHECK = CONTRACT.read_text(encoding="utf-8") + """
module checked_stream #(parameter WIDTH = 1) (input clk, input rst,
        input [WIDTH-1:0] payload, input valid, input ready, output [WIDTH-1:0] checked);
    reg ever;
    wire broken;
    n2uq_contract #(.WIDTH(WIDTH)) contract (.clk(clk), .rst(rst), .valid(valid), .ready(ready),
        .payload(payload), .broken(broken));
    assign checked = payload ^ {WIDTH{ever || broken}};
    always @(posedge clk) ever <= !rst && (ever || broken);
endmodule
"""


def edge_of(shape: tuple[int, int, int], lo: ArrayLike, hi: ArrayLike) -> Edge:
    """An edge with one range for all channels or one for each."""
    return Edge(shape, *(np.broadcast_to(np.asarray(end, np.int64), shape[2]) for end in (lo, hi)))


def images_on(edge: Edge, count: int, seed: int) -> np.ndarray:
    """Random images on `edge`; the first two have every channel at its low, at its high end."""
    rng = np.random.default_rng(seed)
    images = rng.integers(edge.lo, edge.hi + 1, (count, *edge.shape))
    for image, end in zip(images, (edge.lo, edge.hi), strict=False):
        image[:] = end
    return images


@dataclass(frozen=True)
class Case:
    """A unit, the images it gets and those it must give, on each output.

    Members
    -------
    images, more: of the first input, of the further ones.
    counts: what the unit's counter must be while each beat is offered, if it has one.
    """

    name: str
    unit: wiring.Component
    images: np.ndarray
    expected: np.ndarray
    more: tuple[np.ndarray, ...] = ()
    counts: np.ndarray | None = None

    def streams(self, flow: wiring.Flow) -> dict[str, data.ArrayLayout]:
        """Payload layouts of the unit's inputs or outputs by name."""
        return {name: getattr(self.unit, name).payload.shape()
                for name, member in self.unit.signature.members.items()
                if member.flow == flow and member.is_signature}

    @cached_property
    def counter(self) -> dict[str, int]:
        """Name and bits of the unit's counter."""
        return {name: Shape.cast(member.shape).width
                for name, member in self.unit.signature.members.items() if member.is_port}

    def bits(self, layout: data.ArrayLayout) -> int:
        """Bits of a recorded beat: the counter is above the payload."""
        return layout.size + sum(self.counter.values())

    @cached_property
    def dut(self) -> Dut:
        """The unit as a device under test."""
        ins, outs = self.streams(wiring.In), self.streams(wiring.Out)
        sources = (Source(f"{i}__payload", f"{i}__valid", f"{i}__ready", it.size,
                          pack(images.reshape(-1, it.length), it.elem_shape.width))
                   for (i, it), images in zip(ins.items(), (self.images, *self.more), strict=True))
        sinks = (Sink(f"{o}__payload", f"{o}__valid", f"{o}__ready", self.bits(it),
                      self.expected.size // it.length) for o, it in outs.items())
        return Dut(self.name, f"{self.name}_checked", tuple(sources), tuple(sinks))

    @property
    def checked(self) -> str:
        """Verilog of the unit within a check of the stream rules."""
        ports, pins, body = ["input clk", "input rst"], [".clk(clk)", ".rst(rst)"], []
        for i, it in self.streams(wiring.In).items():
            ports += [f"input [{it.size - 1}:0] {i}__payload", f"input {i}__valid",
                      f"output {i}__ready"]
            pins.append(f".{i}__payload({i}__payload)")
        for o, it in self.streams(wiring.Out).items():
            bits = self.bits(it)
            ports += [f"output [{bits - 1}:0] {o}__payload", f"output {o}__valid",
                      f"input {o}__ready"]
            pins += [f".{o}__payload({o}[{it.size - 1}:0])",
                     *(f".{name}({o}[{bits - 1}:{it.size}])" for name in self.counter)]
            body.append(f"wire [{bits - 1}:0] {o}; checked_stream #(.WIDTH({bits})) check_{o} ("
                        f".clk(clk), .rst(rst), .payload({o}), .valid({o}__valid), "
                        f".ready({o}__ready), .checked({o}__payload));")
        pins += [f".{s}__{pin}({s}__{pin})" for flow in (wiring.In, wiring.Out)
                 for s in self.streams(flow) for pin in ("valid", "ready")]
        return (f"module {self.name}_checked ({', '.join(ports)});\n" + "\n".join(body)
                + f"\n{self.name} unit ({', '.join(pins)});\nendmodule\n")

    def values(self, output: str, record: Record) -> np.ndarray:
        """The images that a run gave on `output`."""
        o = self.streams(wiring.Out)[output]
        return unpack(record.beats[:, :o.size], o.length, o.elem_shape.width, o.elem_shape.signed
                      ).reshape(self.expected.shape)

    def counted(self, output: str, record: Record) -> np.ndarray:
        """The unit's counter at each beat of `output`."""
        bits = record.beats[:, self.streams(wiring.Out)[output].size:]
        return unpack(bits, 1, bits.shape[1], False)[:, 0]


def case(node: Node, edges: Edge | Sequence[Edge], make: Callable[[Edge], wiring.Component],
         images: np.ndarray | Sequence[np.ndarray] | int = 3) -> Case:
    """The case of `node` on `images`, or on so many random ones; `make` gets the edge it makes."""
    edges = (edges,) if isinstance(edges, Edge) else tuple(edges)
    if isinstance(images, int):
        images = [images_on(edge, images, sum(map(ord, node.name)) + k)
                  for k, edge in enumerate(edges)]
    first, *more = [images] if isinstance(images, np.ndarray) else images
    return Case(node.name, make(infer(node, *edges)), first,
                golden.evaluate(node, edges, first, *more), tuple(more))


def same(what: str, got: np.ndarray, expected: np.ndarray) -> None:
    """Fail with the first difference."""
    wrong = np.argwhere(got != expected)
    assert not len(wrong), (
        f"{what}: {len(wrong)} of {got.size} differ, first at {wrong[0].tolist()}: "
        f"{got[tuple(wrong[0])]}, not {expected[tuple(wrong[0])]}")


def lint(folder: Path, *verilog: str, top: str = "", more: Sequence[str] = ()) -> None:
    """Fail for whatever Verilator, or Icarus if it is installed, has to say of the files."""
    (folder / LINT).write_text(render(LINT))
    tool = verilator()
    said = run([tool.command, "--lint-only", "-Wall", "-Wno-fatal", *more,
                *(["--top-module", top] if top else []), LINT, *verilog], cwd=folder,
               env=tool.env, name="verilator")
    assert not re.search("%(Warning|Error)", said), said[:2000]
    if shutil.which("iverilog"):
        said = run(["iverilog", "-g2005", "-Wall", *(["-s", top] if top else []), "-t", "null",
                    *verilog], cwd=folder, name="iverilog")
        assert not said, said[:2000]


class Bench:
    """Many units in one simulation, compiled once."""

    def __init__(self, cases: Sequence[Case], factory: pytest.TempPathFactory) -> None:
        self.cases = {c.name: c for c in cases}
        assert len(self.cases) == len(cases)
        library = Library()
        for c in cases:
            library.signature(c.name, lambda c=c: c.unit)
        self.folder = factory.mktemp("units")
        files = library_verilog(library, "plain")
        self.verilog = files["plain.v"]
        files["units.v"] = self.verilog + CHECK + "".join(c.checked for c in cases)
        for name, text in files.items():
            (self.folder / name).write_text(text)
        self.files = [self.folder / name for name in files if name != "plain.v"]
        # All workers of pytest-xdist look here, so that only the first of them compiles.
        base = factory.getbasetemp()
        base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
        self.work = base / f"simulators-{cases[0].name}"

    def run(self, source: float = 0, sink: float = 0, resets: Sequence[int] = (), seed: int = 1,
            max_idle: int = 2000) -> Run:
        """Simulate and compare every output of every unit with the golden model."""
        self.work.mkdir(exist_ok=True)
        with (self.work / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # not two workers at the same compile
            run = simulate(self.files, [c.dut for c in self.cases.values()], work=self.work,
                           stalls=(source, sink), resets=resets, seed=seed, max_idle=max_idle,
                           short=True)
        for c in self.cases.values():
            for output, record in zip(c.streams(wiring.Out), run.sinks[c.name], strict=True):
                same(f"{c.name}.{output}", c.values(output, record), c.expected)
                if c.counts is not None:
                    same(f"{c.name}.{output} counter", c.counted(output, record), c.counts)
        return run

    @cached_property
    def timing(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Per unit, the cycles in which beats were taken and given when nobody stalls.

        Of the first input and the first output.
        """
        run = self.run()
        return {name: (run.sources[name][0], run.sinks[name][0].cycles) for name in self.cases}

    def check_rules(self) -> None:
        """No combinational loop, and no path from an output's ready to any output's valid.

        No linter has anything to say of the Verilog.
        """
        lint(self.folder, "plain.v", more=("-Wno-MULTITOP",))
        registers = ",".join(f"-{kind}" for kind in
                             ("$dff", "$dffe", "$sdff", "$sdffe", "$sdffce", "$memrd_v2"))
        run_yosys("\n".join([
            "read_verilog plain.v", "proc", "memory_dff", "flatten", "opt_clean",
            "check -assert",
            *(f"select -assert-none {name}/w:{valid}__valid %ci*:{registers} "
              f"{name}/w:{ready}__ready %i"
              for name, c in self.cases.items() for outs in [c.streams(wiring.Out)]
              for valid in outs for ready in outs)]), self.folder)


def bench_of(cases: Callable[[], Sequence[Case]]) -> Any:
    """The fixture `bench` of a module of tests: its cases in one simulation."""
    @pytest.fixture(scope="module")
    def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
        return Bench(cases(), tmp_path_factory)
    return bench


# What a module of tests takes over by name: `test_bit_exact, test_stream_rules = ...`.
@pytest.mark.parametrize("source,sink,resets", few(SCENARIOS, QUICK.__contains__))
def bit_exact(bench: Bench, source: float, sink: float, resets: tuple[int, ...]) -> None:
    """Every output is golden's, whoever stalls, and after a reset at any time."""
    bench.run(source, sink, resets)


def stream_rules(bench: Bench) -> None:
    """A beat once offered stays."""
    bench.check_rules()
