"""Toggles of simulated devices: by hand, in two simulators, and as SAIF read back."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from n2uq_hw.sim.rtl.harness import PERIOD, Dut, Run, Sink, Source, pack
from n2uq_hw.sim.rtl.netlists import shortened
from n2uq_hw.sim.rtl.runner import simulate
from n2uq_hw.sim.rtl.switching import Switching

BEATS = np.array([0, 255, 255, 1, 254, 85, 170, 0, 3, 3, 12], np.uint8)
COUNTER = r"""
module inner (input clk, input rst, output reg [3:0] \odd.name[1] , output one);
    assign one = 1;
    always @(posedge clk) \odd.name[1] <= rst ? 4'd0 : \odd.name[1] + 4'd1;
endmodule
module counts (input clk, input rst, input [7:0] i, input i_valid, output i_ready,
               output [7:0] o, output o_valid, input o_ready);
    wire [299:0] wide = {292'd0, i};
    wire [3:0] count;
    wire starts_at_one = !count[0];
    wire one;
    assign o = i, o_valid = i_valid, i_ready = o_ready;
    inner _inner (.clk(clk), .rst(rst), .\odd.name[1] (count), .one(one));
endmodule
"""


def run(folder: Path, simulator: str, **options: object) -> Run:
    (folder / "counts.v").write_text(COUNTER)
    beats = pack(BEATS[:, None], 8)
    return simulate([folder / "counts.v"], [Dut("counts", "counts", (
        Source("i", "i_valid", "i_ready", 8, beats),), (
        Sink("o", "o_valid", "o_ready", 8, len(beats)),))],
        work=folder / "work", simulator=simulator, switching=True, **options)


def counts_of(found: Switching, scope: str, name: str) -> list[int]:
    first, end = found.scopes["harness", *scope.split("/")][name]
    return found.toggles[first:end].tolist()


@pytest.mark.parametrize("simulator", ["verilator", "icarus"])
def test_toggles_of_a_counter_by_hand(tmp_path: Path, simulator: str) -> None:
    result = run(tmp_path, simulator)
    found, cycles = result.switching, result.cycles
    assert found is not None and cycles == len(BEATS)
    assert found.duration == cycles * PERIOD * 1000
    assert (found.low + found.high == found.duration).all()
    for scope in "dut0", "dut0/_inner":
        assert counts_of(found, scope, "clk") == [2 * cycles]
    for scope, name in (("dut0", "count"), ("dut0/_inner", "odd.name[1]")):
        assert counts_of(found, scope, name) == [cycles >> bit for bit in range(4)]
    assert counts_of(found, "dut0", "starts_at_one") == [cycles]  # what it starts at is no toggle
    assert counts_of(found, "dut0/_inner", "one") == [0]
    # The last beat stays; before the first comes what the source holds: the first.
    flips = np.unpackbits(BEATS[1:] ^ BEATS[:-1]).reshape(-1, 8).sum(axis=0)[::-1]
    assert counts_of(found, "dut0", "wide")[:8] == flips.tolist()
    first, _ = found.scopes["harness", "dut0"]["count"]
    # Bit 1 of 0, 1, 2, 3, ...: counted is from 1 ns after a falling edge on.
    assert found.high[first + 1] == 1000 * sum(
        10 if 0 < n < cycles else 6 if n else 4 for n in range(cycles + 1) if n >> 1 & 1)


def test_saif_read_back(tmp_path: Path) -> None:
    found = run(tmp_path, "icarus", stalls=(0.4, 0.3), seed=3).switching
    assert found is not None
    text = "".join(found.saif())
    assert text.count("(") == text.count(")")
    assert f"(DURATION {found.duration})" in text
    path, read = list[str](), {}
    for line in text.splitlines()[7:]:
        net = re.fullmatch(r"\((\S+) \(T0 (\d+)\) \(T1 (\d+)\) \(TX (\d+)\) \(TC (\d+)\) "
                           r"\(IG 0\)\)", line)
        if net:
            read["/".join(path[:-1]), net[1]] = tuple(map(int, net.groups()[1:]))
        elif line == ")":
            path = path[:-1]
        else:
            path.append(line.removeprefix("(INSTANCE "))
    assert not path[1:]
    assert len(read) == sum(end - first for names in found.scopes.values()
                            for first, end in names.values())
    assert all(t0 + t1 == found.duration and tx == 0 for t0, t1, tx, _ in read.values())
    for bit, count in enumerate(counts_of(found, "dut0/_inner", "odd.name[1]")):
        assert read["harness/dut0/_inner", rf"odd\.name\[1\]\[{bit}\]"][3] == count


def test_long_names_are_cut_and_known_again() -> None:
    plain, dotted = "a" * 101, "_117_[3]" + "_LUT.O" * 15
    new, other = "a" * 40 + "_n0", "_117__3_" + "_LUT_O" * 5 + "_L_n1"
    form = "  wire {};\n  LUT #(.INIT(128'h" + plain + ")) \\{}  (.O(\\{} ), .I(\\b[1] ));"
    assert shortened(form.format(plain, dotted, plain)) == (
        form.format(new, other, new), {new: plain, other: dotted})
    assert shortened("wire short;") == ("wire short;", {})
