"""What Yosys makes of a build computes golden's bits in golden's cycles; a wrong cell is found."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from n2uq_hw import api, data
from n2uq_hw.builds.emit import load_build
from n2uq_hw.builds.synth import synthesize_build
from n2uq_hw.builds.verify import NETLISTS, Trial, verify
from n2uq_hw.errors import N2uqError
from n2uq_hw.ir import golden
from n2uq_hw.nets import shipped
from n2uq_hw.sim.timing.forecast import stalled

# Cells that netlists of the small net have beside LUTs and flip-flops: all need models.
CELLS = {"xcup": "RAM32M16", "ecp5": "TRELLIS_DPR16X4", "ice40": "SB_CARRY"}


@pytest.mark.slow
@pytest.mark.parametrize("family", NETLISTS)
def test_netlists_compute_golden(built: Path, images: np.ndarray, family: str) -> None:
    build = load_build(built)
    verdict = verify(build, images, None, stalls=0.3, seed=4, netlist=family)
    timing = stalled(build.graph, build.folding, len(images), 0.3, 4)
    assert (verdict.mismatches, verdict.netlist) == (0, family)
    assert verdict.cycles_first_output == timing.cycles_first_output
    assert verdict.cycles_per_image == timing.cycles_per_image
    synthesis = synthesize_build(build, family)  # the kept one
    text = Path(synthesis.netlist).read_text()
    assert CELLS[family] in synthesis.cells and re.search(rf"^ +{CELLS[family]} ", text, re.M)
    # The netlist alone is simulated: with none of the accelerator's own modules the wrapper has it.
    assert {"small.v", "small_axis.v"} & {
        path.name for path in Trial(build, images, images, 0.0, 0, "verilator", family).verilog
    } == {"small_axis.v"}
    nhwc = images[:3].transpose(0, 2, 3, 1)
    for cycles in (50, 301):  # a reset while images are on their way
        trial = Trial(build, nhwc, golden.run(build.graph, nhwc), 0.2, cycles, "verilator", family,
                      resets=(cycles,))
        assert not trial.share(0, len(nhwc), lambda stage, done: None).wrong.any()


@pytest.mark.slow
def test_one_wrong_bit_of_one_lut_is_found(built: Path, images: np.ndarray,
                                           monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    build = load_build(built)
    text = Path(synthesize_build(build, "xcup").netlist).read_text()
    # The exclusive or of an adder in the last layer: 0 + 0 becomes 1 in one bit of its sums.
    unit = re.search(r"^module small_fc\(.*?^endmodule", text, re.M | re.S)
    assert unit is not None
    lut = re.search(r"  LUT2 #\(\s*\.INIT\(4'h(6)\)", unit[0])
    assert lut is not None
    at = unit.start() + lut.start(1)
    (tmp_path / "wrong.v").write_text(f"{text[:at]}7{text[at + 1:]}")
    files = Trial(build, images, images, 0.0, 0, "verilator", "xcup").verilog
    monkeypatch.setattr("n2uq_hw.builds.verify.netlist_verilog",
                        lambda build, family: [tmp_path / "wrong.v", *files[1:]])
    verdict = verify(build, images, None, netlist="xcup")
    assert verdict.mismatches > 0
    assert re.match(r"image \d+: the output differs, at element \d: -?\d+ in the netlist, -?\d+ in "
                    "golden", verdict.first_mismatch)


@pytest.mark.parametrize("change,message", [
    ({"netlist": "vax"}, "netlist must be one of xcup, ecp5, ice40, not vax"),
    ({"netlist": "ecp5", "simulator": "icarus"}, "must run in Verilator, .* not in icarus"),
    ({"netlist": "ecp5", "power_up": 3}, "must run in Verilator, .* not at random"),
    ({"power_up": 0}, r"power_up must be a seed in 1..2\^31 - 1, not 0")])
def test_faults(built: Path, images: np.ndarray, change: dict, message: str) -> None:
    with pytest.raises(N2uqError, match=message) as error:
        verify(load_build(built), images, None, **change)
    assert "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("family", NETLISTS)
@pytest.mark.parametrize("net", [name for name in shipped() if name.startswith("digits")])
def test_netlists_of_digits(net: str, family: str, tmp_path: Path) -> None:
    """At most 2,304 cycles per image, which Yosys and g++ take a minute or two for."""
    graph = api.lower(net)
    build = api.build(graph, api.fold(graph, cycles=2304), tmp_path / "b")
    digits = data.load("digits")
    verdict = build.verify(digits.images[:8], digits.labels[:8], stalls=0.3, netlist=family)
    assert verdict.mismatches == 0
    timing = stalled(build.graph, build.folding, 8, 0.3, 0)
    assert verdict.cycles_per_image == timing.cycles_per_image
