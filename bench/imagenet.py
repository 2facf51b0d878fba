"""``make sim-imagenet``: the whole ResNet-18 W2A2 at 224 × 224 in RTL simulation, every bit.

    python -m bench.imagenet [--checkpoint FILE] [--images N] [--cycles N] [--out FOLDER]

From the net to Verilog, to a compiled simulation, to the first image and to each further one: how
long it takes, how many cycles, how much memory.  FILE is a checkpoint of the authors' training
code; without one the parameters are random (`networks.plausible`).  Images are random.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from n2uq_hw.builds.emit import emit, load_build
from n2uq_hw.builds.verify import Verdict, verify
from n2uq_hw.errors import N2uqError
from n2uq_hw.importers.checkpoint import import_checkpoint
from n2uq_hw.lowering.lower import lower
from n2uq_hw.plan.choice import choose
from n2uq_hw.sim.timing.fifos import size_fifos
from n2uq_hw.sim.timing.forecast import forecast

from .networks import plausible

SIZE = 224


def main(arguments: list[str]) -> int:
    """Run all and print the table; 1 if a bit differs, 2 for a fault."""
    parser = argparse.ArgumentParser(prog="python -m bench.imagenet", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--cycles", type=int, help="per image; default: as the slowest window")
    parser.add_argument("--out", type=Path, default=Path("build/imagenet"))
    options = parser.parse_args(arguments)
    try:
        return run(options)
    except N2uqError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def run(options: argparse.Namespace) -> int:
    """Build, simulate one image, then `options.images` of them; print what it took.

    The cycles must be those of the timing model.
    """
    rows: list[tuple[str, str]] = []
    clock = time.perf_counter()

    def took(what: str) -> None:
        nonlocal clock
        rows.append((what, f"{time.perf_counter() - clock:,.1f} s"))
        clock = time.perf_counter()

    net = (plausible("resnet18", SIZE) if options.checkpoint is None else
           import_checkpoint(options.checkpoint, "resnet18", size=SIZE))
    images = np.random.default_rng(0).integers(0, 256, (options.images, 3, SIZE, SIZE), np.uint8)
    took("net read or made")
    graph = lower(net)
    took("lowered")
    sized = size_fifos(graph, choose(graph, options.cycles))
    took("folding chosen, FIFOs sized")
    predicted = forecast(graph, sized.folding, images=options.images)
    took("cycles predicted")
    emit(graph, sized, options.out, images[:1], None)
    build = load_build(options.out)
    took("Verilog written, golden of one image")
    size = sum(path.stat().st_size for path in (options.out / "rtl").iterdir())
    rows.append(("  of it", f"{size / 1e6:,.1f} MB"))
    first = timed(build, images[:1], rows, "first image: ")
    further = timed(build, images, rows, f"{options.images} images again: ")
    each = (further[1] - first[1]) / max(options.images - 1, 1)
    for verdict, _ in (first, further):
        if verdict.mismatches:
            print(f"mismatch: {verdict.first_mismatch}", file=sys.stderr)
            return 1
    verdict = further[0]
    for key in ("cycles_first_output", "cycles_per_image"):
        if (measured := getattr(verdict, key)) != (due := getattr(predicted, key)):
            print(f"mismatch: {key} must be {due:,}, as predicted, not {measured:,}",
                  file=sys.stderr)
            return 1
    rows += [("each further image", f"{each:,.1f} s"),
             ("cycles to the first logit", f"{verdict.cycles_first_output:,}, as predicted"),
             ("cycles per image", f"{verdict.cycles_per_image:,.0f}, as predicted"),
             ("MAC utilization of the slowest layer", f"{verdict.mac_utilization:.4f}"),
             ("simulated cycles per second", f"{verdict.cycles_per_second:,.0f}"),
             ("mismatches", f"{verdict.mismatches} in {verdict.images} images, every logit")]
    for who, name in ((resource.RUSAGE_SELF, "Python"), (resource.RUSAGE_CHILDREN, "tools")):
        rows.append((f"most memory, {name}",
                     f"{resource.getrusage(who).ru_maxrss / 1e6:,.2f} GB"))
    table = Table("", "", show_header=False, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    Console(highlight=False).print(f"ResNet-18 W2A2, {SIZE} × {SIZE}, {graph.name}", table)
    return 0


def timed(build, images: np.ndarray, rows: list[tuple[str, str]], what: str
          ) -> tuple[Verdict, float]:
    """Verify, with a row per stage; returns the seconds of the simulation too."""
    begun: dict[str, float] = {}
    with Progress(transient=True) as progress:
        tasks = {}

        def report(stage: str, fraction: float) -> None:
            if stage not in tasks:
                begun[stage], tasks[stage] = time.perf_counter(), progress.add_task(stage, total=1)
            progress.update(tasks[stage], completed=fraction)
        begun["golden"] = time.perf_counter()
        verdict = verify(build, images, None, progress=report)
    begun["end"] = time.perf_counter()
    stages = sorted(begun, key=lambda stage: begun[stage])
    seconds = {stage: begun[after] - begun[stage]
               for stage, after in pairwise(stages)}
    rows += [(what + stage, f"{value:,.1f} s") for stage, value in seconds.items()]
    return verdict, seconds["simulate"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
