# amaranth: UnusedElaboratable=no
"""Builds whose parameters can be written, and other trainings of their networks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cocotbed
import numpy as np
from controlled import integers

from n2uq_hw import ir
from n2uq_hw.builds.emit import Build, emit, load_build, ports
from n2uq_hw.builds.tables import Tables, pack
from n2uq_hw.data import channels_last
from n2uq_hw.hw.accelerator import WRAPPER, Accelerator, module_name
from n2uq_hw.ir import golden
from n2uq_hw.ir.folding import Folding
from n2uq_hw.sim.rtl.harness import pack as beats_of
from n2uq_hw.sim.timing.fifos import size_fifos

__all__ = ["Swapped", "other"]


def other(graph: ir.Graph, seed: int) -> ir.Graph:
    """The same network with other weights, thresholds and scales, as of another training."""
    rng, nodes = np.random.default_rng(seed), list[ir.Node]()
    for node in graph.nodes:
        new = node
        if isinstance(node, ir.MatVec | ir.DepthwiseMatVec):
            new = replace(node, weights=rng.permuted(node.weights.reshape(-1)).reshape(
                node.weights.shape))
        elif isinstance(node, ir.Threshold):
            far = max(int(np.abs(node.thresholds).max()) // 4, 2)
            moved = node.thresholds + rng.integers(-far, far, node.thresholds.shape)
            flipped = rng.random(len(node.signs)) < 0.3  # channels that fall instead
            base = np.where(flipped, node.base + node.signs.sum(axis=1), node.base)
            new = replace(node, thresholds=np.sort(moved, axis=1), base=base, signs=np.where(
                flipped[:, None], -node.signs, node.signs).astype(np.int8))
        elif isinstance(node, ir.Scale):
            most = int(np.abs(node.multiplier).max())
            new = replace(node, multiplier=rng.integers(1, 2 * most, node.multiplier.shape),
                          offset=rng.permutation(node.offset))
        elif isinstance(node, ir.PiecewiseLinear):
            one = 1 << node.shift
            kept = (node.multiplier == one).all(axis=1, keepdims=True)
            far = max(int(np.abs(node.turn).max()), 2)
            new = replace(node, turn=rng.integers(-far, far, node.turn.shape),
                          offset=rng.permuted(node.offset.reshape(-1)).reshape(node.offset.shape),
                          multiplier=np.where(kept, one, rng.integers(
                              -one, one, node.multiplier.shape)))
        nodes.append(new)
    return graph.with_nodes(nodes)


class Swapped:
    """A build of `graph`, which can be written, and the tables of three trainings of it."""

    def __init__(self, graph: ir.Graph, folding: Folding, images: np.ndarray, base: Path,
                 others: Sequence[ir.Graph]) -> None:
        self.images = images
        emit(graph, size_fifos(graph, folding), base / "build", images, None)
        self.build: Build = load_build(base / "build")
        self.tables: list[Tables] = [pack(each, self.build) for each in others]
        self.top = module_name(graph, WRAPPER)
        self.simulator = cocotbed.compiled(self.build.verilog, self.top, base)

    def plan(self, alone: int) -> dict[str, object]:
        """What the bench sends, writes, and expects of each training."""
        graph = self.build.graph
        nhwc = channels_last(self.images, graph.input.shape, graph.name)
        source, output = ports(graph, self.build.folding)

        def results(tables: Tables) -> list[list[int]]:
            values = golden.run(tables.graph, nhwc)
            bits = beats_of(values.reshape(-1, output.lanes), output.width)
            fill = bits[:, -1:] if output.signed else np.zeros((len(bits), 1), np.uint8)
            bits = np.hstack([bits, fill.repeat(output.tdata - output.bits, axis=1)])
            return np.reshape(integers(bits), (len(nhwc), -1)).tolist()

        region = Accelerator(graph, self.build.folding).region
        assert region is not None
        beats = integers(beats_of(nhwc.reshape(-1, source.lanes), source.width))
        return {"images": np.reshape(beats, (len(nhwc), -1)).tolist(), "seed": 7, "alone": alone,
                "expected": [results(each) for each in self.tables],
                "tables": [list(zip(each.address.tolist(), each.data.tolist(), strict=True))
                           for each in self.tables],
                "end": region.first + 4 * region.words}

    def failures(self, folder: Path, *tests: str, alone: int = 100) -> list[str]:
        """Run `tests` of the bench in `folder`; returns those that failed, see `cocotbed`."""
        (folder / "plan.json").write_text(json.dumps(self.plan(alone)))
        for path in self.build.verilog:
            if path.suffix == ".hex":  # is read where the simulator runs
                shutil.copy(path, folder)
        return cocotbed.failures(self.simulator, self.top, "writable_bench", folder, *tests)
