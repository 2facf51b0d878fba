"""The stream contract: assumed and asserted by proofs, and checked in every run of a net's RTL."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["CONTRACT", "bound"]

CONTRACT = Path(__file__).with_name("contract.v")
_MODULE = re.compile(r"^module (\w+)\b(.*?)^endmodule", re.MULTILINE | re.DOTALL)
_PAYLOAD = re.compile(r"^ *wire +(?:signed +)?(?:\[(\d+):0\] +)?(\w+__o\d*)__payload;",
                      re.MULTILINE)
_CHECK = """
module n2uq_checked #(parameter WIDTH = 1) (
    input clk, input rst, input valid, input ready, input [WIDTH-1:0] payload
);
    wire broken;
    n2uq_contract #(.WIDTH(WIDTH)) contract (.clk(clk), .rst(rst), .valid(valid), .ready(ready),
        .payload(payload), .broken(broken));
    always @(posedge clk)
        if (broken && !rst) begin
            $display("%%Error: %m: a beat was withdrawn or changed before it was taken");
            $stop;
        end
endmodule
"""


def bound(verilog: str) -> str:
    """SystemVerilog that checks the streams between the units of a net, each one's outputs.

    They are the wires ``UNIT__o__payload``, with `valid` and `ready`, of the modules in `verilog`;
    "" if it has none.
    """
    checks = [f"bind {module[1]} n2uq_checked #(.WIDTH({int(payload[1] or 0) + 1})) "
              f"{payload[2]}__checked (.clk(clk), .rst(rst), .valid({payload[2]}__valid), "
              f".ready({payload[2]}__ready), .payload({payload[2]}__payload));\n"
              for module in _MODULE.finditer(verilog) for payload in _PAYLOAD.finditer(module[2])]
    return CONTRACT.read_text(encoding="utf-8") + _CHECK + "".join(checks) if checks else ""
