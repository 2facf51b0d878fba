"""Our models of vendors' block RAMs: what synthesis makes of a RAM reads as the RAM does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from n2uq_hw import tools
from n2uq_hw.boards.bitstream import cell_models

# A RAM of one port that reads what was there, its first words known; a bench compares both.
RAM = """\
module ram(input clk, input en, input we, input [9:0] addr, input [W-1:0] d, output reg [W-1:0] q);
    (* ram_style = "block" *) reg [W-1:0] words [0:1023];
    integer k;
    initial for (k = 0; k < 1024; k = k + 1) words[k] = k * 40503;
    always @(posedge clk) if (en) begin
        if (we) words[addr] <= d;
        q <= words[addr];
    end
endmodule
"""
BENCH = """\
module bench;
    reg clk = 0, en = 0, we = 0, read = 0;
    reg [9:0] addr = 0;
    reg [W-1:0] d = 0;
    wire [W-1:0] one, two;
    integer k, wrong = 0;
    ram reference(clk, en, we, addr, d, one);
    netlist made(clk, en, we, addr, d, two);
    initial begin
        for (k = 0; k < 20000; k = k + 1) begin
            {en, we} = $urandom;
            addr = k < 4000 ? k : $urandom & 31;
            d = {$urandom, $urandom};
            if (k < 2000) we = 0;
            read = read | en;
            #1 clk = 1; #1 clk = 0;
            if (read && one !== two) wrong = wrong + 1;
        end
        $display("wrong: %0d", wrong);
        $finish;
    end
endmodule
"""


@pytest.mark.slow
@pytest.mark.parametrize("family,command,cell", [
    ("ecp5", "synth_ecp5", "DP16KD"),
    ("gowin", "synth_gowin -noiopads", "SPX?9?|SDPX?9?B|DPX?9?B")], ids=["ecp5", "gowin"])
@pytest.mark.parametrize("width", [9])
def test_a_ram_in_the_vendors_cells(tmp_path: Path, family: str, command: str, cell: str,
                                    width: int) -> None:
    (tmp_path / "ram.v").write_text(RAM.replace("W-1", str(width - 1)))
    (tmp_path / "bench.v").write_text(BENCH.replace("W-1", str(width - 1)))
    tools.run_yosys(f"read_verilog ram.v\n{command} -top ram\nrename ram netlist\n"
                    "write_verilog -noattr made.v", tmp_path)
    assert re.search(rf"^ +({cell}) #", (tmp_path / "made.v").read_text(), re.MULTILINE)
    tool = tools.verilator()
    models = [str(path) for path in cell_models(family) if path.suffix == ".v"]
    tools.run([tool.command, "--binary", "--timing", "-Wno-fatal", "-Wno-lint", "--top-module",
               "bench", f"-I{tools.yosys_share() / family}", "bench.v", "ram.v", "made.v", *models],
              cwd=tmp_path, env=tool.env, name="verilator")
    assert "wrong: 0\n" in tools.run([str(tmp_path / "obj_dir" / "Vbench")], cwd=tmp_path,
                                     name="bench")
