"""Gates of the comparison against Yosys's own definitions; transistors and toggles by hand."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyosys
import pytest

from n2uq_hw.compare import gates
from n2uq_hw.compare.gates import STREAMS, Netlist, map_gates
from n2uq_hw.errors import N2uqError


def of_gates(tmp_path: Path, body: str) -> Netlist:
    path = tmp_path / "top.v"
    path.write_text(f"module top {body} endmodule")
    return map_gates([path], "top")


def test_every_gate_is_yosyss() -> None:
    """By the models of its cells that Yosys brings."""
    path = Path(pyosys.__file__).parent / "share" / "simcells.v"
    models = dict(re.findall(r"module \\(\$_\w+_) \([^;]*;[^;]*;[^;]*;\s*assign Y = (.*?);",
                             path.read_text()))
    for kind, gate in gates._GATES.items():
        pins = gates._PINS[kind]
        inputs = np.indices((2,) * len(pins)).reshape(len(pins), -1)
        formula = re.sub(r"(\S+) \? (\S+) : (\S+)", r"\1 & \2 | ~\1 & \3",
                         models[kind].replace("!", "~"))
        truth = eval(formula, {}, dict(zip(pins, inputs, strict=True)))
        assert (gate(*inputs) & 1).tolist() == (truth & 1).tolist(), kind


def test_gates_compute_and_clock(tmp_path: Path) -> None:
    net = of_gates(tmp_path, """(input clk, input en, input [5:0] a, input signed [5:0] b,
        output reg signed [12:0] q);
        always @(posedge clk) if (en) q <= $signed({1'b0, a}) * b - 3;""")
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 64, STREAMS), rng.integers(-32, 32, STREAMS)
    net.set("a", a[:, None])
    net.set("b", b[:, None])
    net.set("en", 1)
    net.settle()
    assert (net.get("q") == 0).all()
    net.clock()
    net.set("a", 0)
    net.set("en", 0)
    for _ in range(2):
        net.settle()
        assert net.get("q").tolist() == (a * b - 3).tolist()
        net.clock()
    assert net.flops == 13 and net.gates > 100
    assert net.widths == {"clk": [0, 1], "en": [0, 1], "a": [0, 6], "b": [0, 6], "q": [1, 13]}


def test_transistors_and_toggles_by_hand(tmp_path: Path) -> None:
    """Two flip-flops of 16 transistors and an inverter of 2; a net counts once for each pin."""
    net = of_gates(tmp_path, """(input clk, input d, output reg q, output reg p);
        always @(posedge clk) begin q <= d; p <= ~q; end""")
    assert (net.flops, net.gates, net.transistors) == (2, 1, 34)
    for cycle in range(9):
        net.set("d", cycle & 1)
        net.settle()
        net.counting = cycle >= 3  # the last of 5 transitions is from cycle 7 to 8
        net.clock()
    # d and q drive a pin each, the inverter's output one, p none; all four change each time.
    assert sorted(net.toggles[2:].tolist()) == [0] * (len(net.toggles) - 6) + [5 * STREAMS] * 4
    assert (net.toggles * net.fanout).sum() == 3 * 5 * STREAMS


def test_a_combinational_loop_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(N2uqError, match=r"^netlist: must have no combinational loop, and has one$"):
        of_gates(tmp_path, "(input a, output q); wire p; assign p = ~(q & a); assign q = ~(p & a);")
