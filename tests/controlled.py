"""A small build with registers, compiled once, of which several tests simulate the wrapper."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

import cocotbed
import numpy as np
import pytest

from n2uq_hw import __version__
from n2uq_hw.builds.emit import Build, emit, load_build, ports
from n2uq_hw.builds.verify import golden_saturated
from n2uq_hw.hw.accelerator import WRAPPER, module_name
from n2uq_hw.hw.registers import REGISTERS, identity
from n2uq_hw.ir import Graph, Input, MatVec, Saturate, SlidingWindow
from n2uq_hw.plan.choice import choose
from n2uq_hw.sim.rtl.harness import pack
from n2uq_hw.sim.timing.fifos import size_fifos

__all__ = ["Controlled", "small"]

IMAGES = 5


def small() -> Graph:
    """Signed pixels of an odd width, windows, and results that saturate."""
    rng = np.random.default_rng(4)
    return Graph("counted", (
        Input("x", shape=(4, 5, 3), lo=-9, hi=9), SlidingWindow("windows", ("x",), kernel=(3, 3)),
        MatVec("layer", ("windows",), weights=rng.integers(-2, 3, (4, 27))),
        Saturate("held", ("layer",), lo=-30, hi=30))).verify()


def integers(bits: np.ndarray) -> list[int]:
    """Beats as Python's integers, which have any width."""
    return [int.from_bytes(row.tobytes(), "little")
            for row in np.packbits(bits, axis=1, bitorder="little")]


class Controlled:
    """The build, its simulator, and tests of cocotb that run in it.

    All workers of pytest-xdist share them.
    """

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        base = factory.getbasetemp()
        base = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "controlled"
        base.mkdir(exist_ok=True)
        self.images = np.random.default_rng(5).integers(-9, 10, (IMAGES, 3, 4, 5))
        with (base / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (base / "build").exists():
                graph = small()
                emit(graph, size_fifos(graph, choose(graph)), base / "build", self.images, None,
                     control=True)
            self.build: Build = load_build(base / "build")
            self.top = module_name(self.build.graph, WRAPPER)
            self.simulator = cocotbed.compiled(self.build.verilog, self.top, base)

    def plan(self) -> dict[str, object]:
        """What the bench sends, what must come, and the constants of the registers."""
        graph, nhwc = self.build.graph, self.images.transpose(0, 2, 3, 1)
        source, output = ports(graph, self.build.folding)
        results = pack(self.build.vectors["expected"].reshape(-1, output.lanes), output.width)
        results = np.hstack([results, results[:, -1:].repeat(output.tdata - output.bits, axis=1)])
        constants = identity(graph, __version__)
        beats = integers(pack(nhwc.reshape(-1, source.lanes), source.width))
        return {
            "pixels": self.images.tolist(), "integers": self.build.vectors["expected"].tolist(),
            "images": np.reshape(beats, (IMAGES, -1)).tolist(),
            "expected": np.reshape(integers(results), (IMAGES, -1)).tolist(),
            "saturated": [golden_saturated(graph, nhwc[k:k + 1]) for k in range(IMAGES)],
            "beats_in": source.beats, "beats_out": output.beats, "seed": 7,
            "bytes_in": source.tdata // 8, "bytes_out": output.tdata // 8,
            "constants": {register.offset: register.constant(constants) for register in REGISTERS
                          if register.fields[0].access == "constant"}}

    def failures(self, folder: Path, module: str, *tests: str) -> list[str]:
        """Run `tests` of a bench in `folder`; returns those that failed, see `cocotbed`."""
        (folder / "plan.json").write_text(json.dumps(self.plan()))
        return cocotbed.failures(self.simulator, self.top, module, folder, *tests)
