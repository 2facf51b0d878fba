# amaranth: UnusedElaboratable=no
"""Proofs: they hold for our units, and fail for units that break a rule, one for each rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from marks import few

from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.fifo import FifoUnit
from n2uq_hw.hw.stream import beats
from n2uq_hw.ir import Edge, Fork, Node, Saturate
from n2uq_hw.sim.formal.claims import CONTRACT, FUNCTION, PATH, claims, prove
from n2uq_hw.sim.formal.function import truth_tables
from n2uq_hw.sim.formal.miter import Miter
from n2uq_hw.sim.formal.prove import bounded, formulas, independent, induction
from n2uq_hw.sim.rtl.harness import Dut, Sink, Source, pack
from n2uq_hw.sim.rtl.runner import simulate

pytest.importorskip("bitwuzla")
EDGE = Edge((1, 1, 2), np.zeros(2, np.int64), np.full(2, 3))  # an image is two beats of two bits
DEVICE = """
module device (input clk, input rst, input i__valid, output i__ready, input [1:0] i__payload,
        output o__valid, input o__ready, output [1:0] o__payload);
    reg full;
    reg [1:0] held;
    reg [2:0] taken;
    wire take = i__valid && i__ready;
    assign i__ready = READY;
    assign o__valid = VALID;
    assign o__payload = PAYLOAD;
    always @(posedge clk) begin
        if (take) begin held <= STORED; taken <= taken + 3'd1; end
        full <= take || full && !o__ready;
        if (rst) begin RESET end
    end
endmodule
"""
GOOD = {"READY": "!full || o__ready", "VALID": "full", "PAYLOAD": "held", "STORED": "i__payload",
        "RESET": "full <= 0; taken <= 0;"}
# What is changed, and the property that must fail.
BROKEN = {
    "a beat is withdrawn": ({"VALID": "full && !(i__valid && i__payload == 2'd3)"}, CONTRACT),
    "a beat changes": ({"PAYLOAD": "held ^ {2{i__valid && i__payload == 2'd3}}"}, CONTRACT),
    "valid waits for ready": ({"VALID": "full && o__ready"}, PATH),
    "a value is wrong": ({"STORED": "i__payload ^ {2{taken == 3'd5}}"}, FUNCTION),
    "a beat is lost": ({"READY": "!full || o__ready || taken == 3'd3"}, FUNCTION),
    "a beat is doubled": ({"RESET": "full <= 0; taken <= 0; end if (taken == 3'd4 && full && "
                                    "o__ready) begin full <= 1;"}, FUNCTION),
    "an old beat survives a reset": ({"RESET": "taken <= 0;"}, FUNCTION),
    "it stops": ({"READY": "(!full || o__ready) && taken < 3'd4"}, FUNCTION),
    "a beat is kept back": ({"VALID": "full && (taken != 3'd2 || i__valid)"}, FUNCTION),
}


def properties(verilog: str) -> dict[str, bool | None]:
    """What is proven of a device that should be the identity."""
    unit = FifoUnit(layout=beats(2, 1), depth=1)  # for its signature
    nothing = Saturate("y", ("x",), lo=0, hi=3)
    alone, beside = (Miter(unit, (EDGE,), function, instance="device", patience=4)
                     for function in (None, truth_tables(nothing, (EDGE,))))
    return {PATH: independent(alone, verilog),
            CONTRACT: induction(formulas(Miter(unit, (EDGE,), None, instance="device"), verilog),
                                2).proven,
            FUNCTION: bounded(formulas(beside, verilog), 12).proven}


def device(change: dict[str, str]) -> str:
    text = DEVICE
    for name, value in (GOOD | change).items():
        text = text.replace(name, value)
    return text


def test_a_right_device() -> None:
    assert properties(device({})) == {PATH: True, CONTRACT: True, FUNCTION: True}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_device(fault: str) -> None:
    change, broken = BROKEN[fault]
    assert properties(device(change))[broken] is False


@pytest.mark.parametrize("claim", [claim for claim in claims() if claim.fast],
                         ids=lambda claim: claim.name)
def test_fast_claims(claim) -> None:
    proofs = list(prove(claim))
    assert [proof.property for proof in proofs] == [PATH, CONTRACT, FUNCTION]
    assert all(proof.verdict.proven for proof in proofs)
    assert proofs[-1].verdict.images >= 2


@pytest.mark.slow
@pytest.mark.parametrize("claim", [claim for claim in claims() if not claim.fast],
                         ids=lambda claim: claim.name)
def test_other_claims(claim) -> None:
    proofs = list(prove(claim))
    assert all(proof.verdict.proven for proof in proofs) and proofs[-1].verdict.images >= 1


NET = """
module net (input clk, input rst, input [3:0] i, input i_valid, output i_ready,
        output [3:0] o, output o_valid, input o_ready);
  reg [3:0] cycle;
  wire [3:0] unit__o__payload;
  wire unit__o__valid;
  wire unit__o__ready;
  assign unit__o__payload = PAYLOAD;
  assign unit__o__valid = VALID;
  assign unit__o__ready = o_ready && cycle[0];
  assign i_ready = unit__o__ready && unit__o__valid;
  assign o = i;
  assign o_valid = i_valid && cycle[0] && unit__o__valid;
  always @(posedge clk) cycle <= rst ? 4'd0 : cycle + 4'd1;
endmodule
"""


@pytest.mark.parametrize("payload,valid", few([
    ("i", "i_valid"), ("cycle[0] ? i : ~i", "i_valid"), ("i", "i_valid && cycle != 4'd5")],
    lambda each: each[0] != "i"))
def test_streams_inside_a_net_are_checked(payload: str, valid: str, tmp_path: Path) -> None:
    """All outputs are right, and yet a unit changes, or withdraws, a beat that it offered."""
    (tmp_path / "net.v").write_text(NET.replace("PAYLOAD", payload).replace("VALID", valid))
    beats = pack(np.arange(16)[:, None], 4)
    dut = Dut("net", "net", (Source("i", "i_valid", "i_ready", 4, beats),),
              (Sink("o", "o_valid", "o_ready", 4, 16),))
    if (payload, valid) == ("i", "i_valid"):
        run = simulate([tmp_path / "net.v"], [dut], work=tmp_path / "work")
        assert np.array_equal(run.sinks["net"][0].beats, beats)
    else:
        with pytest.raises(N2uqError, match="unit__o__checked: a beat was withdrawn or changed"):
            simulate([tmp_path / "net.v"], [dut], work=tmp_path / "work")


def test_every_kind_of_unit_is_proven() -> None:
    """An OffsetMatVec is a MatVec whose sums begin elsewhere; a Flatten has no unit."""
    without = {"Input", "Flatten"}
    assert {claim.kind.__name__ for claim in claims()} >= Node.KINDS.keys() - without


def test_a_trace_shows_the_fault() -> None:
    """The streams up to the first wrong beat: the sixth, whose value is its complement."""
    unit = FifoUnit(layout=beats(2, 1), depth=1)
    miter = Miter(unit, (EDGE,), truth_tables(Saturate("y", ("x",), lo=0, hi=3), (EDGE,)),
                  instance="device")
    text = formulas(miter, device(BROKEN["a value is wrong"][0]))
    verdict = bounded(text, 12, [port.name for port in miter.ports])
    sent = [s["i__payload"] for s in verdict.trace if s["i__valid"] and s["i__ready"]]
    shown = [s["o__payload"] for s in verdict.trace[1:] if s["o__valid"]]
    assert verdict.proven is False and len(sent) >= 6 and shown[-1] == sent[5] ^ 3


def test_truth_tables() -> None:
    """A table has the elements that it depends on alone, and codes as the hardware has them."""
    edge = Edge((1, 1, 2), np.array([-2, -2]), np.array([1, 1]))
    first, second = truth_tables(Saturate("y", ("x",), lo=-1, hi=0), (edge,))
    assert (first.reads, second.reads) == ((0,), (1,))
    assert first.table.tolist() == [0, 0, -1, -1]  # of the codes 0, 1, -2 and -1
    with pytest.raises(N2uqError, match=r"^y: inputs must have at most 262,144 images for a proof, "
                                        r"not 68,719,476,736$"):
        truth_tables(Fork("y", ("x",)), (Edge((3, 3, 2), np.zeros(2, int), np.full(2, 3)),))
