"""The registers behind AXI4-Lite against a model of them, in every cycle."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cocotbed
import numpy as np
import pytest
from controlled import IMAGES, integers, small

from n2uq_hw import __version__
from n2uq_hw.builds.emit import Build, emit, load_build, ports
from n2uq_hw.builds.verify import golden_saturated
from n2uq_hw.hw.accelerator import WRAPPER, module_name
from n2uq_hw.hw.registers import REGISTERS, identity
from n2uq_hw.plan.choice import choose
from n2uq_hw.sim.rtl.harness import pack
from n2uq_hw.sim.timing.fifos import size_fifos


@pytest.fixture(scope="module")
def controlled(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """A build with registers, and a plan for the bench beside it."""
    graph, folder = small(), tmp_path_factory.mktemp("control")
    images = np.random.default_rng(5).integers(-9, 10, (IMAGES, 3, 4, 5))
    emit(graph, size_fifos(graph, choose(graph)), folder / "build", images, None, control=True)
    build = load_build(folder / "build")
    nhwc = images.transpose(0, 2, 3, 1)
    source, output = ports(graph, build.folding)
    results = pack(build.vectors["expected"].reshape(-1, output.lanes), output.width)
    results = np.hstack([results, results[:, -1:].repeat(output.tdata - output.bits, axis=1)])
    constants = identity(graph, __version__)
    (folder / "plan.json").write_text(json.dumps({
        "images": np.reshape(integers(pack(nhwc.reshape(-1, source.lanes), source.width)),
                             (IMAGES, -1)).tolist(),
        "expected": np.reshape(integers(results), (IMAGES, -1)).tolist(),
        "saturated": [golden_saturated(graph, nhwc[k:k + 1]) for k in range(IMAGES)],
        "beats_in": source.beats, "beats_out": output.beats, "seed": 7,
        "constants": {register.offset: register.constant(constants) for register in REGISTERS
                      if register.fields[0].access == "constant"}}))
    return build


@pytest.fixture(scope="module")
def simulator(controlled: Build) -> Path:
    return cocotbed.compiled(controlled.verilog, module_name(controlled.graph, WRAPPER),
                             controlled.path.parent)


def test_registers_equal_a_model_in_every_cycle(controlled: Build, simulator: Path) -> None:
    """And a counter that is wrong by one is noticed."""
    failed = cocotbed.failures(
        simulator, module_name(controlled.graph, WRAPPER), "control_bench", controlled.path.parent,
        "traffic", "counts", "soft_reset", "frame_error",
        "interrupt", "miscounted")
    said = (controlled.path.parent / "said").read_text()
    assert failed == ["miscounted"], re.findall("^.*(?:Error|FAIL).*$", said, re.MULTILINE)
    assert "s_axi_control_rdata is" in said
