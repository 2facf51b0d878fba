"""Nothing but the reset is needed: what starts at random, or undefined, reaches no output."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from n2uq_hw.builds.emit import Build, load_build
from n2uq_hw.builds.verify import Trial, verify
from n2uq_hw.errors import N2uqError
from n2uq_hw.ir import golden
from n2uq_hw.sim.rtl.harness import Dut, Sink, Source
from n2uq_hw.sim.rtl.netlists import unset
from n2uq_hw.sim.rtl.runner import simulate

ICARUS = pytest.mark.skipif(shutil.which("iverilog") is None, reason="Icarus is not installed")
# Its count never sees the reset.
FORGETFUL = """\
module forgetful(input clk, input rst, input [7:0] i, input i_valid, output i_ready,
                 output [7:0] o, output o_valid, input o_ready);
  reg [7:0] seen; initial seen = 8'h00;
  assign i_ready = o_ready && !rst;
  assign o_valid = i_valid && !rst;
  assign o = i ^ seen;
  always @(posedge clk) seen <= seen;
endmodule
"""


def wrong(build: Build, images: np.ndarray, **how: object) -> np.ndarray:
    """Which of the `images` differ from golden in any bit."""
    nhwc = images.transpose(0, 2, 3, 1)
    trial = Trial(build, nhwc, golden.run(build.graph, nhwc), **{
        "stalls": 0.0, "seed": 0, "simulator": "verilator", **how})
    return trial.share(0, len(images), lambda stage, done: None).wrong


def test_registers_lose_their_start_and_memories_keep_the_network(built: Path) -> None:
    """What is initialized: every register, all of which lose it here, and tables."""
    verilog = "".join(path.read_text() for path in load_build(built).verilog
                      if path.suffix == ".v")
    bare = unset(verilog)
    assert len(re.findall(r"reg .*; initial .* =", verilog)) > 50
    assert not re.search(r"\breg .*\binitial\b", bare)
    assert bare.count("initial begin") == verilog.count("initial begin") > 3
    started = set(re.findall(r"^ *initial (?!begin)(.*)$", bare, re.MULTILINE))
    assert not {line for line in started if "$readmem" not in line}
    # Those are contents of memories that nothing writes.
    for memory in re.findall(r"initial begin\s+(\w+)\[", bare):
        assert not re.search(rf"\b{memory}\[[^\]]*\] *<=", bare), memory


@pytest.mark.parametrize("seed", [1, 2])
def test_a_random_start_reaches_no_output(built: Path, images: np.ndarray, seed: int) -> None:
    verdict = verify(load_build(built), images, None, stalls=0.3, seed=seed, power_up=seed)
    assert (verdict.mismatches, verdict.power_up) == (0, seed)


def test_what_the_reset_forgets_is_found(tmp_path: Path) -> None:
    """A start of 0 hides it; a random one shows it, another for each seed."""
    def beats(text: str, power_up: int | None, simulator: str = "verilator") -> list[int]:
        (tmp_path / "forgetful.v").write_text(text)
        dut = Dut("forgetful", "forgetful", (Source("i", "i_valid", "i_ready", 8,
                                                    np.zeros((1, 8), np.uint8)),),
                  (Sink("o", "o_valid", "o_ready", 8, 1),))
        run = simulate([tmp_path / "forgetful.v"], [dut], work=tmp_path / "work", short=True,
                       simulator=simulator, power_up=power_up)
        return np.packbits(run.sinks["forgetful"][0].beats)[:1].tolist()
    assert beats(FORGETFUL, 1) == beats(unset(FORGETFUL), None) == [0]
    assert len({*beats(unset(FORGETFUL), 1), *beats(unset(FORGETFUL), 2), 0}) == 3
    if shutil.which("iverilog"):
        with pytest.raises(N2uqError, match="beat 0 has undefined bits"):
            beats(unset(FORGETFUL), 1, "icarus")


@ICARUS
def test_no_undefined_bit_reaches_an_output(built: Path, images: np.ndarray) -> None:
    """In four states; an X in a beat is an error of its own."""
    verdict = verify(load_build(built), images[:6], None, stalls=0.3, simulator="icarus",
                     power_up=1)
    assert verdict.mismatches == 0


@pytest.mark.slow
def test_a_reset_at_every_phase_of_a_beat(built: Path, images: np.ndarray) -> None:
    """In the middle of an image, in each cycle of the slowest unit's slowest beat."""
    build = load_build(built)
    slowest = max(Trial(build, images, images, 0.0, 0, "verilator").cycles)
    outputs = build.graph.edges[build.graph.output].size
    phases = -(-slowest // outputs)
    assert phases > 10
    for phase in range(phases):  # the second image is on its way
        seed = 1 + phase % 2
        assert not wrong(build, images[:2], resets=(400 + phase,), power_up=seed, seed=phase,
                         stalls=0.3 * (seed - 1)).any(), phase
