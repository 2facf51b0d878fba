"""What the gateware tests share: units in simulation against the golden model, every bit."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
from numpy.typing import ArrayLike

from n2uq_hw import golden
from n2uq_hw.emit import library_verilog
from n2uq_hw.hw.stream import Library, Unit
from n2uq_hw.ir import Edge, Node, infer
from n2uq_hw.sim.harness import Dut, Record, Run, Sink, Source, pack, unpack
from n2uq_hw.sim.runner import simulate
from n2uq_hw.tools import run_yosys

# Sources and sinks that never stall, one of them, both; and resets in the middle of all of it.
SCENARIOS = [(0, 0, ()), (0.5, 0, ()), (0, 0.5, ()), (0.3, 0.4, ()), (0, 0, (53, 0, 1, 200)),
             (0.4, 0.3, (7, 111, 29)), (0.2, 0.8, (2, 300))]

# A stream rule that the unit breaks (a beat offered is withdrawn or changes before it is taken)
# inverts all its beats from then on, so that they differ from the golden model's.
CHECKED = """
module {name}_checked (input clk, input rst,
        input [{i}-1:0] i__payload, input i__valid, output i__ready,
        output [{o}-1:0] o__payload, output o__valid, input o__ready);
    wire [{o}-1:0] payload;
    reg [{o}-1:0] held;
    reg waiting, broken;
    wire breaks = broken || waiting && !(o__valid && payload == held);
    {name} unit (.clk(clk), .rst(rst), .i__payload(i__payload), .i__valid(i__valid),
        .i__ready(i__ready), .o__payload(payload), .o__valid(o__valid), .o__ready(o__ready));
    assign o__payload = payload ^ {{{o}{{breaks}}}};
    always @(posedge clk) begin
        waiting <= !rst && o__valid && !o__ready;
        broken <= !rst && breaks;
        held <= payload;
    end
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
    """A unit, the images it gets and those it must give."""

    name: str
    unit: Unit
    images: np.ndarray
    expected: np.ndarray

    @cached_property
    def dut(self) -> Dut:
        """The unit as a device under test."""
        i, o = self.unit.i.payload.shape(), self.unit.o.payload.shape()
        beats = pack(self.images.reshape(-1, i.length), i.elem_shape.width)
        return Dut(self.name, f"{self.name}_checked",
                   (Source("i__payload", "i__valid", "i__ready", i.size, beats),),
                   (Sink("o__payload", "o__valid", "o__ready", o.size,
                         self.expected.size // o.length),))

    @property
    def checked(self) -> str:
        """Verilog of the unit within a check of the stream rules."""
        return CHECKED.format(name=self.name, i=self.unit.i.payload.shape().size,
                              o=self.unit.o.payload.shape().size)

    def values(self, record: Record) -> np.ndarray:
        """The images that a run gave."""
        o = self.unit.o.payload.shape()
        return unpack(record.beats, o.length, o.elem_shape.width, o.elem_shape.signed
                      ).reshape(self.expected.shape)


def case(node: Node, edge: Edge, make: Callable[[Edge], Unit], images: np.ndarray | int = 3
         ) -> Case:
    """The case of `node` on `images`, or on so many random ones; `make` gets the edge it makes."""
    if isinstance(images, int):
        images = images_on(edge, images, sum(map(ord, node.name)))
    return Case(node.name, make(infer(node, edge)), images,
                golden.evaluate(node, (edge,), images))


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
        files["units.v"] = self.verilog + "".join(c.checked for c in cases)
        for name, text in files.items():
            (self.folder / name).write_text(text)
        self.files = [self.folder / name for name in files if name != "plain.v"]
        # All workers of pytest-xdist look here, so that only the first of them compiles.
        base = factory.getbasetemp()
        base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
        self.work = base / f"simulators-{cases[0].name}"

    def run(self, source: float = 0, sink: float = 0, resets: Sequence[int] = (), seed: int = 1
            ) -> Run:
        """Simulate and compare every output of every unit with the golden model."""
        self.work.mkdir(exist_ok=True)
        with (self.work / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # not two workers at the same compile
            run = simulate(self.files, [c.dut for c in self.cases.values()], work=self.work,
                           stalls=(source, sink), resets=resets, seed=seed, max_idle=2000)
        for c in self.cases.values():
            got = c.values(run.sinks[c.name][0])
            wrong = np.argwhere(got != c.expected)
            assert not len(wrong), (
                f"{c.name}: {len(wrong)} of {got.size} differ, first at {wrong[0].tolist()}: "
                f"{got[tuple(wrong[0])]}, not {c.expected[tuple(wrong[0])]}")
        return run

    @cached_property
    def timing(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Per unit, the cycles in which beats were taken and given when nobody stalls."""
        run = self.run()
        return {name: (run.sources[name][0], run.sinks[name][0].cycles) for name in self.cases}

    def check_rules(self) -> None:
        """No combinational loop, and no path from an output's ready to its valid."""
        registers = ",".join(f"-{kind}" for kind in
                             ("$dff", "$dffe", "$sdff", "$sdffe", "$sdffce", "$memrd_v2"))
        run_yosys("\n".join([
            "read_verilog plain.v", "proc", "memory_dff", "flatten", "opt_clean",
            "check -assert",
            *(f"select -assert-none {name}/w:o__valid %ci*:{registers} {name}/w:o__ready %i"
              for name in self.cases)]), self.folder)
