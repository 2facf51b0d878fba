"""Models of UltraScale+ cells: what synthesis makes of memories and products computes the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from n2uq_hw import tools
from n2uq_hw.errors import N2uqError
from n2uq_hw.sim.rtl.netlists import cell_models

PORTS = "(input clk, input en, input we, input rst, input [13:0] a, b, input [71:0] d, output {} q)"
# Some words; the others are 0 until something writes them.
FILLED = """integer k;
    initial for (k = 0; k < 32; k = k + 1) words[k] = {3{k * 32'd40503}};"""
# The cell that Yosys makes of each, and the body of a module with PORTS.
DESIGNS = {
    "read_first": ("RAMB18E2", """
    (* ram_style = "block" *) reg [17:0] words [0:1023];
    FILLED
    always @(posedge clk) if (en) begin
        if (we) words[a[9:0]] <= d[17:0];
        q <= words[a[9:0]];
    end"""),
    "no_change": ("RAMB18E2", """
    (* ram_style = "block" *) reg [8:0] words [0:2047];
    FILLED
    always @(posedge clk) if (en) begin
        if (we) words[a[10:0]] <= d[8:0]; else q <= words[a[10:0]];
    end"""),
    "write_first": ("RAMB36E2", """
    (* ram_style = "block" *) reg [35:0] words [0:1023];
    FILLED
    always @(posedge clk) if (en) begin
        q <= words[a[9:0]];
        if (we) begin words[a[9:0]] <= d[35:0]; q <= d[35:0]; end
    end"""),
    "a_bit": ("RAMB18E2", """
    (* ram_style = "block" *) reg words [0:16383];
    FILLED
    always @(posedge clk) begin
        if (we) words[b] <= d[0];
        if (en) q <= words[a];
    end"""),
    "four_bits": ("RAMB36E2", """
    (* ram_style = "block" *) reg [3:0] words [0:8191];
    FILLED
    always @(posedge clk) begin
        if (we) words[b[12:0]] <= d[3:0];
        if (en) q <= words[a[12:0]];
    end"""),
    "wide": ("RAMB18E2", """
    (* ram_style = "block" *) reg [35:0] words [0:511];
    FILLED
    always @(posedge clk) begin
        if (we) words[b[8:0]] <= d[35:0];
        if (en) q <= words[a[8:0]];
    end"""),
    "widest": ("RAMB36E2", """
    (* ram_style = "block" *) reg [71:0] words [0:511];
    FILLED
    always @(posedge clk) begin
        if (we) words[b[8:0]] <= d;
        if (en) q <= words[a[8:0]];
    end"""),
    "bytes": ("RAMB36E2", """
    (* ram_style = "block" *) reg [71:0] words [0:511];
    FILLED
    integer lane;
    always @(posedge clk) begin
        for (lane = 0; lane < 8; lane = lane + 1)
            if (we && b[9 + lane % 4]) words[b[8:0]][9 * lane +: 9] <= d[9 * lane +: 9];
        if (en) q <= words[a[8:0]];
    end"""),
    "reset": ("RAMB36E2", """
    (* ram_style = "block" *) reg [71:0] words [0:511];
    FILLED
    initial q = 72'h123456789abcdef012;
    always @(posedge clk) begin
        if (we) words[b[8:0]] <= d;
        if (en) q <= rst ? 72'hfedcba987654321001 : words[a[8:0]];
    end"""),
    "narrow_reset": ("RAMB18E2", """
    (* ram_style = "block" *) reg [17:0] words [0:1023];
    FILLED
    initial q = 18'h2a5c3;
    always @(posedge clk) if (en) begin
        if (we) words[a[9:0]] <= d[17:0];
        q <= rst ? 18'h15a3c : words[a[9:0]];
    end"""),
    "rom": ("RAMB18E2", """
    (* rom_style = "block" *) reg [35:0] words [0:511];
    FILLED
    always @(posedge clk) if (en) q <= words[a[8:0]];"""),
    "luts": ("RAM32M16|RAM64M8?|RAM32M", """
    (* ram_style = "distributed" *) reg [13:0] words [0:31];
    FILLED
    always @(posedge clk) begin
        if (we) words[b[4:0]] <= d[13:0];
        if (en) q <= words[a[4:0]];
    end"""),
    "shifted": ("SRL16E|SRLC32E", """
    reg [3:0] x [0:19];
    integer k;
    initial for (k = 0; k < 20; k = k + 1) x[k] = 0;
    always @(posedge clk) if (en) begin
        x[0] <= d[3:0];
        for (k = 1; k < 20; k = k + 1) x[k] <= x[k - 1];
        q <= x[19];
    end"""),
    "product": ("DSP48E2", """
    always @(posedge clk) if (en) q <= $signed(d[26:0]) * $signed(d[44:27]);"""),
    "unsigned_product": ("DSP48E2", """
    always @(posedge clk) if (en) q <= d[15:0] * d[31:16];"""),
}
WIDTHS = {"read_first": 18, "no_change": 9, "write_first": 36, "a_bit": 1, "four_bits": 4, "wide":
          36, "widest": 72, "bytes": 72, "reset": 72, "narrow_reset": 18, "rom": 36, "luts": 14,
          "shifted": 4, "product": 45, "unsigned_product": 32}
# Few addresses, so that they meet; a word counts once it was read.
BENCH = """\
module bench;
    reg clk = 0, en = 0, we = 0, rst = 0, read = 0;
    reg [13:0] a = 0, b = 0;
    reg [71:0] d = 0;
    integer k;
    INSTANCES
    initial begin
        for (k = 0; k < 20000; k = k + 1) begin
            {en, we, rst} = $urandom;
            a = k < 8000 ? $urandom : {$urandom, 2'd0} & 14'h1e07;
            b = k < 8000 ? $urandom : {$urandom, 2'd0} & 14'h1e07;
            d = {$urandom, $urandom, $urandom};
            if (k < 2000) begin we = 0; a = a & 31; end
            read = read | en;
            #1 clk = 1; #1 clk = 0;
            COMPARED
        end
        DISPLAYED
        $finish;
    end
endmodule
"""


def module(name: str, prefix: str = "") -> str:
    body = DESIGNS[name][1].replace("FILLED", FILLED)
    return (f"module {prefix}{name}{PORTS.format(f'reg [{WIDTHS[name] - 1}:0]')};"
            f"{body}\nendmodule\n")


def run(folder: Path, *files: str) -> str:
    """What module `bench` prints, in Verilator with the models of the cells."""
    tool = tools.verilator()
    models = [str(path) for path in cell_models("xcup") if path.suffix == ".v"]
    tools.run([tool.command, "--binary", "--timing", "-Wno-fatal", "-Wno-lint", "--top-module",
               "bench", "-CFLAGS", "-O0", *files, *models], cwd=folder, env=tool.env,
              name="verilator")
    return tools.run([str(folder / "obj_dir" / "Vbench")], cwd=folder, name="bench")


@pytest.mark.slow
def test_memories_and_products_in_the_vendors_cells(tmp_path: Path) -> None:
    (tmp_path / "plain.v").write_text("".join(module(name, "plain_") for name in DESIGNS))
    (tmp_path / "designs.v").write_text("".join(module(name) for name in DESIGNS))
    wires = "".join(f"    wire [{width - 1}:0] x_{name}, y_{name};\n    integer n_{name} = 0;\n"
                    f"    plain_{name} one_{name}(clk, en, we, rst, a, b, d, x_{name});\n"
                    f"    {name} two_{name}(clk, en, we, rst, a, b, d, y_{name});\n"
                    for name, width in WIDTHS.items())
    (tmp_path / "bench.v").write_text(
        BENCH.replace("INSTANCES", wires)
        .replace("COMPARED", "\n".join(
            f"if (read && x_{name} !== y_{name}) n_{name} = n_{name} + 1;" for name in DESIGNS))
        .replace("DISPLAYED", "\n".join(
            f'$display("{name}: %0d", n_{name});' for name in DESIGNS)))
    script = "read_verilog designs.v\ndesign -save all\n"
    for name in DESIGNS:
        script += (f"design -load all\nsynth_xilinx -family xcup -noiopad -top {name}\n"
                   f"write_verilog -noattr {name}.v\n")
    tools.run_yosys(script, tmp_path)
    for name, (cell, _) in DESIGNS.items():
        text = (tmp_path / f"{name}.v").read_text()
        assert re.search(rf"^ +({cell}) #", text, re.MULTILINE), (name, cell)
    said = run(tmp_path, "bench.v", "plain.v", *(f"{name}.v" for name in DESIGNS))
    assert {name: f"{name}: 0\n" in said for name in DESIGNS} == dict.fromkeys(DESIGNS, True), said


@pytest.mark.slow
@pytest.mark.parametrize("cell,message", [
    ("RAMB18E2 #(.DOA_REG(1), .DOB_REG(0))", "no model of output registers"),
    ("RAMB36E2 #(.DOA_REG(0), .DOB_REG(0), .READ_WIDTH_A(9), .WRITE_WIDTH_A(18))",
     "no model of a port that writes in another width than it reads"),
    ("DSP48E2", "no model of registers"),
    ("DSP48E2 #(.ACASCREG(0), .ADREG(0), .ALUMODEREG(0), .AREG(0), .BCASCREG(0), .BREG(0), "
     ".CREG(0), .CARRYINREG(0), .CARRYINSELREG(0), .DREG(0), .INMODEREG(0), .MREG(0), "
     ".OPMODEREG(0), .PREG(0))", "no model of anything but A times B")])
def test_other_modes_are_refused(tmp_path: Path, cell: str, message: str) -> None:
    """Loudly, for a model that guesses proves nothing."""
    (tmp_path / "bench.v").write_text(
        f"module bench; {cell} cell_(); initial #10 $finish; endmodule\n")
    with pytest.raises(N2uqError, match=message):
        run(tmp_path, "bench.v")
