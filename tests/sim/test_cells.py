"""Our models of vendors' block RAMs: what synthesis makes of a RAM reads as the RAM does."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from n2uq_hw import tools
from n2uq_hw.boards.bitstream import cell_models
from n2uq_hw.hw.memory import hex_rows

# RAMs that read what was there, their first words known: a block of each width.
RAM = """\
module ram_{name}(input clk, input en, input we, input [13:0] at, input [13:0] to,
                  input [35:0] d, output reg [{width}-1:0] q);
    (* ram_style = "block" *) reg [{width}-1:0] words [0:{depth}-1];
    initial $readmemh("{width}.hex", words);
    always @(posedge clk) begin
        if ({write}) words[{to} % {depth}] <= d[{width}-1:0];
        if (en) q <= words[at % {depth}];
    end
endmodule
"""
# Those of one port write where they read, and only while they do.
PORTS = {"one": {"write": "en && we", "to": "at"}, "two": {"write": "we", "to": "to"}}
BENCH = """\
module bench;
    reg clk = 0, en = 0, we = 0, read = 0;
    reg [13:0] at = 0, to = 0;
    reg [35:0] d = 0;
    wire [{bits}-1:0] one, two;
    integer k, wrong = 0;
    rams reference(clk, en, we, at, to, d, one);
    netlist made(clk, en, we, at, to, d, two);
    initial begin
        for (k = 0; k < 40000; k = k + 1) begin
            {{en, we}} = $urandom;
            at = k < 17000 ? k : $urandom & (k & 64 ? 15 : 16383);
            to = k & 32 ? at : $urandom & (k & 64 ? 15 : 16383);
            d = {{$urandom, $urandom}};
            if (k < 17000) {{en, we}} = 2'b10;
            #1 clk = 1; #1 clk = 0;
            if (one !== two) begin
                wrong = wrong + 1;
                if (wrong < 9) $display("at %0d: %b", k, one ^ two);
            end
        end
        $display("wrong: %0d", wrong);
        $finish;
    end
endmodule
"""
DEPTHS = {1: 16384, 2: 8192, 4: 4096, 9: 2048, 18: 1024, 36: 512}  # by width
# The cells that Yosys takes, and all widths of their ports: of 8, 16, 32 bits it makes 9, 18, 36.
ECP5 = {("DP16KD", width) for width in (1, 2, 4, 9, 18, 36)}
GOWIN = {(cell, width) for cell, widths in (
    ("SP", (1, 2, 4)), ("SPX9", (9, 18, 36)), ("DPB", (1, 2, 4)), ("DPX9B", (9, 18)),
    ("SDPX9B", (36,))) for width in widths}


@pytest.mark.slow
@pytest.mark.parametrize("family,command,cells", [
    ("ecp5", "synth_ecp5", ECP5),
    ("gowin", "synth_gowin -noiopads", GOWIN)], ids=["ecp5", "gowin"])
def test_a_ram_in_the_vendors_cells(tmp_path: Path, family: str, command: str,
                                    cells: set[tuple[str, int]]) -> None:
    text, outputs, rng = "", [], np.random.default_rng(0)
    for width, depth in DEPTHS.items():
        words = rng.integers(0, 2, (depth, width), np.uint8)
        (tmp_path / f"{width}.hex").write_bytes(hex_rows(words))
        for ports, fields in PORTS.items():
            name = f"{width}_{ports}"
            text += RAM.format(name=name, width=width, depth=depth, **fields)
            outputs.append((name, width))
    bits = sum(width for _, width in outputs)
    top = "".join(f"    wire [{width}-1:0] q_{name};\n"
                  f"    ram_{name} of_{name}(clk, en, we, at, to, d, q_{name});\n"
                  for name, width in outputs)
    q = ", ".join(f"q_{name}" for name, _ in outputs)
    text += ("module rams(input clk, input en, input we, input [13:0] at, input [13:0] to, "
             f"input [35:0] d, output [{bits}-1:0] q);\n"
             f"{top}    assign q = {{{q}}};\nendmodule\n")
    (tmp_path / "rams.v").write_text(text)
    (tmp_path / "bench.v").write_text(BENCH.format(bits=bits))
    tools.run_yosys(f"read_verilog rams.v\n{command} -top rams\nrename rams netlist\n"
                    "write_verilog -noattr made.v", tmp_path)
    made = (tmp_path / "made.v").read_text()
    taken = {(cell, int(width)) for cell, body in re.findall(
        r"^  (\w+) #\((.*?)^  \) ", made, re.MULTILINE | re.DOTALL)
        for width in re.findall(r"\.(?:DATA_WIDTH_\w|BIT_WIDTH\w*)\(32'[sd]*(\d+)\)", body)}
    assert taken == cells
    tool = tools.verilator()
    models = [str(path) for path in cell_models(family) if path.suffix == ".v"]
    tools.run([tool.command, "--binary", "--timing", "-Wno-fatal", "-Wno-lint",
               "--top-module", "bench", f"-I{tools.yosys_share() / family}", "bench.v", "rams.v",
               "made.v", *models],
              cwd=tmp_path, env=tool.env, name="verilator")
    said = tools.run([str(tmp_path / "obj_dir" / "Vbench")], cwd=tmp_path, name="bench")
    assert "wrong: 0\n" in said, said
