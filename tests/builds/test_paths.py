"""Longest paths: delays of SDF and of Yosys' cells, sums by hand."""

from __future__ import annotations

import pytest

from n2uq_hw.builds.paths import TimingPath, of_netlist, of_sdf, specified, worst

SDF = r"""(DELAYFILE (DIVIDER /) (TIMESCALE 1ps)
  (CELL (CELLTYPE "top") (INSTANCE )
    (DELAY (ABSOLUTE
        (INTERCONNECT clk$TRELLIS_IO_IN/O conv_unit.sum\[0\]_TRELLIS_FF_Q/CLK (900:900:900) (9:9:9))
        (INTERCONNECT conv_unit.sum\[0\]_TRELLIS_FF_Q/Q conv_unit.o_LUT4_Z/A (1:5:400) (1:5:300))
        (INTERCONNECT conv_unit.o_LUT4_Z/F fc_unit.at\[3\]_CCU2C_S0/A (1:5:250) (1:5:260))
        (INTERCONNECT fc_unit.at\[3\]_CCU2C_S0/FCO fc_unit.at\[4\]_CCU2C_S0/FCI (0:0:0) (0:0:0))
        (INTERCONNECT fc_unit.at\[4\]_CCU2C_S0/F fc_unit.at\[4\]_TRELLIS_FF_Q/DI (1:1:1) (1:1:2))
    (INTERCONNECT fc_unit.at\[4\]_TRELLIS_FF_Q/Q conv_unit.sum\[0\]_TRELLIS_FF_Q/M (7:8:9) (1:1:1))
        (INTERCONNECT rst/O conv_unit.sum\[0\]_TRELLIS_FF_Q/LSR (1:1:9999) (1:1:9999)))))
  (CELL (CELLTYPE "TRELLIS_FF") (INSTANCE conv_unit.sum\[0\]_TRELLIS_FF_Q)
    (DELAY (ABSOLUTE (IOPATH CLK Q (430:477:525) (430:477:500))))
    (TIMINGCHECK
      (SETUPHOLD (posedge M) (posedge CLK) (10:20:30) (267:285:303))
      (SETUPHOLD (posedge LSR) (posedge CLK) (1:2:3) (4:5:6))))
  (CELL (CELLTYPE "TRELLIS_COMB") (INSTANCE conv_unit.o_LUT4_Z)
    (DELAY (ABSOLUTE (IOPATH A F (1:1:240) (1:1:230)))))
  (CELL (CELLTYPE "TRELLIS_COMB") (INSTANCE fc_unit.at\[3\]_CCU2C_S0)
    (DELAY (ABSOLUTE (IOPATH A FCO (1:1:445) (1:1:445)) (IOPATH A F (1:1:100) (1:1:100)))))
  (CELL (CELLTYPE "TRELLIS_COMB") (INSTANCE fc_unit.at\[4\]_CCU2C_S0)
    (DELAY (ABSOLUTE (IOPATH FCI F (1:1:443) (1:1:440)) (IOPATH FCI FCO (62:66:71) (1:1:1)))))
  (CELL (CELLTYPE "TRELLIS_FF") (INSTANCE fc_unit.at\[4\]_TRELLIS_FF_Q)
    (DELAY (ABSOLUTE (IOPATH CLK Q (430:477:525) (430:477:525))))
    (TIMINGCHECK
      (SETUPHOLD (posedge DI) (posedge CLK) (0:0:4) (1:1:1))
      (SETUPHOLD (negedge DI) (posedge CLK) (0:0:6) (1:1:1)))))
"""


def test_paths_of_a_placed_design() -> None:
    paths = worst(of_sdf(SDF), 9)
    assert [(path.start, path.end, path.units) for path in paths] == [
        ("conv.sum", "fc.at", ("conv", "fc")), ("fc.at", "conv.sum", ("fc", "conv"))]
    assert paths[0].logic_ns == pytest.approx((525 + 240 + 445 + 443 + 6) / 1000)
    assert paths[0].routing_ns == pytest.approx((400 + 260 + 2) / 1000)
    assert (paths[0].luts, paths[0].carries) == (2, 1)  # the LUT, and the sum out of the chain
    assert paths[1].ns == pytest.approx((525 + 9 + 30) / 1000)
    assert worst(of_sdf(SDF), 1) == paths[:1]
    assert paths[0].named({"conv": "stage1.0.conv"}).start == "stage1.0.conv.sum"


CELLS = """
module FDRE (output reg Q, input C, input CE, input D, input R);
  specify
    $setup(D , posedge C &&& CE && !IS_C_INVERTED , /*-46*/ 7); // Negative times
    $setup(CE, posedge C &&& !IS_C_INVERTED, 109);
    if (!IS_C_INVERTED && R == IS_R_INVERTED && CE) (posedge C => (Q : D ^ IS_D_INVERTED)) = 303;
    if ( IS_C_INVERTED && R == IS_R_INVERTED && CE) (negedge C => (Q : D ^ IS_D_INVERTED)) = 999;
  endspecify
endmodule
module LUT2 (output O, input I0, I1);
  specify
    (I0 => O) = 238;
    (I1 => O) = 127; // fast
  endspecify
endmodule
module CARRY4 (output [3:0] CO, output [3:0] O, input CI, input CYINIT, input [3:0] DI, S);
  specify
    (S[1]   => CO[3]) = 500 + 28 /* to cross */;
    (CI     => CO[3]) = 114;
  endspecify
endmodule
"""


def _cell(kind: str, **ports: list) -> dict:
    return {"type": kind, "connections": ports, "port_directions": {
        port: "output" if port in ("O", "Q", "CO") else "input" for port in ports}}


def test_paths_of_a_mapped_design() -> None:
    module = {
        "netnames": {"a_unit.x": {"bits": [2, 3], "hide_name": 0},
                     "a_unit.y": {"bits": [9], "hide_name": 0},
                     "$1": {"bits": [4], "hide_name": 1}, "i": {"bits": [8], "hide_name": 0}},
        "cells": {
            "f0": _cell("FDRE", Q=[2], C=[1], D=[8], CE=["1"], R=["0"]),
            "f1": _cell("FDRE", Q=[3], C=[1], D=[2], CE=["1"], R=["0"]),
            "f2": _cell("FDRE", Q=[9], C=[1], D=[7], CE=[3], R=["0"]),
            "lut": _cell("LUT2", O=[4], I0=[8], I1=[2]),
            "carry": _cell("CARRY4", O=[20, 21, 22, 23], CO=[24, 25, 26, 7], CI=["0"],
                           DI=["0", "0", "0", "0"], S=["0", 4, "0", "0"])}}
    paths = worst(of_netlist(module, specified(CELLS)), 9)
    assert paths == [
        TimingPath("a.x", "a.y", ("a",), 1, 1, (303 + 127 + 528 + 7) / 1000, 0.0),
        TimingPath("a.x", "a.x", ("a",), 0, 0, (303 + 7) / 1000, 0.0)]
