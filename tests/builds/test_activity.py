"""Switching by unit: by hand on a few cells, in two simulators on a net, and by the command."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from n2uq_hw import api
from n2uq_hw.builds import activity as switching
from n2uq_hw.builds.activity import BETWEEN, PROXY, by_instance
from n2uq_hw.builds.pins import netlist_pins
from n2uq_hw.builds.synth import Resources, Synthesis
from n2uq_hw.builds.verify import Trial
from n2uq_hw.errors import N2uqError
from n2uq_hw.ir import MatVec, golden
from n2uq_hw.sim.rtl.netlists import cell_models
from n2uq_hw.sim.rtl.runner import Dut, Sink, Source, pack, simulate

BEATS = np.arange(13, dtype=np.uint8)
# A register whose inverted output is its input and that of another one, each in a unit.
CELLS = r"""
module leaf (input clk, input d, output q);
    SB_DFF r (.C(clk), .D(d), .Q(q));
endmodule
module top (input clk, input rst, input [7:0] i, input i_valid, output i_ready,
            output [7:0] o, output o_valid, input o_ready);
    wire d, q, \q.too ;
    assign o = i, o_valid = i_valid, i_ready = o_ready;
    SB_LUT4 #(.LUT_INIT(16'h5555)) l (.I0(q), .I1(1'b0), .I2(1'b0), .I3(1'b0), .O(d));
    leaf a (.clk(clk), .d(d), .q(q));
    leaf b (.clk(clk), .d(d), .q(\q.too ));
endmodule
"""


def test_a_few_cells_by_hand(tmp_path: Path) -> None:
    (tmp_path / "cells.v").write_text(CELLS)
    none = Resources()
    pins = netlist_pins(Synthesis("top", "ice40", none, {}, {}, 0, "", "",
                                  str(tmp_path / "cells.v")))
    assert next(iter(pins)) == "top" and pins["top"].instances == {"a": "leaf", "b": "leaf"}
    beats = pack(BEATS[:, None], 8)
    run = simulate([tmp_path / "cells.v", *cell_models("ice40")], [Dut("top", "top", (
        Source("i", "i_valid", "i_ready", 8, beats),), (
        Sink("o", "o_valid", "o_ready", 8, len(beats)),))],
        work=tmp_path / "work", switching=True)
    assert run.switching is not None and run.cycles == (n := len(BEATS))
    # d and both q change once a cycle.  In the top, the LUT drives d, and q drives the LUT; in each
    # leaf a register drives its q, and d the register.  Clocks, and what no cell has, are left out.
    assert by_instance(run.switching, pins, ("harness", "dut0")) == {
        BETWEEN: (1, n, n), "a": (1, n, n), "b": (1, n, n)}


@pytest.mark.slow
def test_verilator_and_icarus_count_the_same(built: Path, images: np.ndarray) -> None:
    build, nhwc = api.load_build(built), images[:3].transpose(0, 2, 3, 1)
    wrong, found, cycles = zip(*(Trial(build, nhwc, golden.run(build.graph, nhwc), 0.0, 0, simulator
                                       ).switching(None) for simulator in ("verilator", "icarus")),
                               strict=True)
    assert not any(each.any() for each in wrong)
    assert cycles[0] == cycles[1] and found[0].duration == found[1].duration == cycles[0] * 10_000
    compared = 0
    for path, signals in found[0].scopes.items():
        for name, (first, end) in signals.items():
            if name not in (other := found[1].scopes.get(path, {})):
                continue
            begin, stop = other[name]
            known = (found[1].low + found[1].high)[begin:stop] == found[1].duration
            compared += int(known.sum())
            for one, two in ((found[0].toggles, found[1].toggles), (found[0].high, found[1].high)):
                assert (one[first:end][known] == two[begin:stop][known]).all(), (path, name)
    assert compared > 1000


@pytest.mark.slow
def test_units_of_a_netlist(built: Path, images: np.ndarray, tmp_path: Path) -> None:
    build = api.load_build(built)
    found = build.activity(images[:4], family="ecp5", saif=tmp_path / "small.saif")
    units = {unit.name: unit for unit in found.units}
    for node in build.graph.nodes:
        if isinstance(node, MatVec):
            assert (units[node.name].pins or 0) > units[node.name].nets > 0, node.name
    assert all(unit.pins is not None for unit in found.units) and [*units][-1] == BETWEEN
    # The same images once more: twice the switching, but for what is before and behind.
    twice = build.activity(np.concatenate([images[:4]] * 2), family="ecp5")
    assert twice.per_image == pytest.approx(found.per_image, rel=0.1)
    # Black images, all the same: weights and control switch still, activations do not.
    flat = build.activity(np.zeros_like(images[:4]), family="ecp5")
    assert flat.per_image < 0.9 * found.per_image
    text = (tmp_path / "small.saif").read_text()
    nets = re.findall(r"\(T0 (\d+)\) \(T1 (\d+)\) \(TX (\d+)\) \(TC (\d+)\)", text)
    assert {sum(map(int, net[:3])) for net in nets} == {found.cycles * 10_000}
    assert sum(int(net[3]) for net in nets) > sum(unit.toggles for unit in found.units)


@pytest.mark.slow
def test_the_command(built: Path, run: Any, tmp_path: Path) -> None:
    code, out, _ = run("activity", built, "--rtl", "--images", 2, "--json", "--saif", "a.saif")
    found = json.loads(out)
    assert code == 0 and found["family"] == "" and found["images"] == 2
    assert found["proxy"] == PROXY and found["units"][-1]["name"] == BETWEEN
    assert found["per_image"] == sum(unit["toggles"] for unit in found["units"]) / 2
    assert (tmp_path / "a.saif").read_text().startswith("(SAIFILE")
    code, out, _ = run("activity", built, "--rtl", "--images", 2)
    assert code == 0 and PROXY in out.replace("\n", " ")


def test_faults(built: Path, run: Any) -> None:
    code, out, err = run("activity", built, "--family", "vax")
    assert (code, out) == (2, "") and "must be one of xcup, ecp5, ice40, not vax" in err


@pytest.mark.slow
def test_what_is_not_golden_is_no_figure(built: Path, images: np.ndarray, tmp_path: Path,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    build = api.load_build(built)
    right = golden.run(build.graph, images[:2].transpose(0, 2, 3, 1))
    right[1, 0, 0, 0] ^= 1
    monkeypatch.setattr(switching.golden, "run", lambda graph, nhwc: right)
    with pytest.raises(N2uqError, match="image 1 must give golden's bits, and does not"):
        build.activity(images[:2], family="", saif=tmp_path / "a.saif")
    assert not (tmp_path / "a.saif").exists()
