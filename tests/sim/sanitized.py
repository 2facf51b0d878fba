"""All that `cycles.cpp` does, on a few nets, with the library that is given, else the usual one."""

from __future__ import annotations

import ctypes
import json
import sys
from typing import Any

import numpy as np
from graphs import random_chain, random_dense, random_folding, random_residual

from n2uq_hw.hw.passes import hardware_graph
from n2uq_hw.sim.timing import cycles
from n2uq_hw.sim.timing.cycles import circuit
from n2uq_hw.sim.timing.fifos import size_fifos
from n2uq_hw.sim.timing.forecast import stalled

SEEDS = (302, 303, 305, 308, 318)  # of chains, and of nets with forks and joins


def figures() -> list[Any]:
    """Depths of FIFOs by trial, and the cycles of runs with and without stalls; as JSON has it."""
    rows: list[Any] = []
    for seed in SEEDS:
        for make in random_chain, random_residual, random_dense:
            graph = make("g", seed)
            sized = size_fifos(graph, random_folding(graph, seed))
            stop = stalled(graph, sized.folding, 3, 0.4, seed)
            whole = circuit(*hardware_graph(graph, sized.folding), 3)
            runs = [whole.run(images=3, dense=dense, span=50, spans=7) for dense in (False, True)]
            rows += [sized.as_dict(), stop.as_dict(), *(
                {"over": [(str(name), np.asarray(part).tolist())
                          for name, part in run.over.items()],
                 "cycles": run.cycles, "high": list(run.high.values())} for run in runs)]
    return json.loads(json.dumps(rows))


if __name__ == "__main__":
    library = cycles._entry(ctypes.CDLL(sys.argv[1]))
    cycles._library = lambda: library
    print(json.dumps(figures()))
