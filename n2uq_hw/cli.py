"""The command line: arguments in, tables or JSON out; every fault is one line and exit code 2.

Results go to standard output, all else (progress, notes, faults) to standard error.
"""

from __future__ import annotations

import codecs
import io
import json
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from math import inf
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from . import __version__, data, nets
from .builds import accuracy
from .errors import N2uqError
from .ir import Graph, describe, dump
from .ir.folding import Folding, reach
from .lowering.formats import Formats
from .lowering.lower import Ranges
from .lowering.lower import lower as lower_net
from .model import Net

if TYPE_CHECKING:
    from .sim.timing.fifos import Sizing

__all__ = ["app", "main"]

app = typer.Typer(
    help="Trained N2UQ networks as verified hardware.\n\nExit codes: 0, all is well; 1, a bit in "
    "simulation differs from golden; 2, a fault, named in one line; 130, Ctrl-C.",
    no_args_is_help=True, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]})
VECTORS = 64         # test vectors that a build keeps
DEMO_CYCLES = 2304   # per image: a small design, which Yosys maps in half a minute
UNLIMITED = 10_000  # columns, where no terminal bounds them
NEAREST = {"×": "x", "–": "-", "µ": "u", "·": ".", "σ": "sigma", "α": "alpha", "→": "->",
           "…": "...", "✔": "ok"}
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)



def _within(least: float, most: float, unit: str = "") -> Callable[[typer.CallbackParam, Any], Any]:
    """A callback for an option that is a number in such a range: neither NaN nor infinite."""
    def check(param: typer.CallbackParam, value: Any) -> Any:
        if value is not None and not least <= value <= most:
            raise N2uqError(f"{param.opts[0]} must be in {least:,.15g}..{most:,.15g}"
                            f"{' ' * bool(unit)}{unit}, not {value:.15g}")
        return value
    return check


NetName = Annotated[str, typer.Argument(metavar="NET", help="A shipped net's name, or a net file.")]
BuildDir = Annotated[Path, typer.Argument(metavar="DIR", help="What `n2uq-hw build` made.")]
DataPath = Annotated[Path | None, typer.Option(
    "--data", envvar="N2UQ_MNIST", help="An .npz with integer `images` [N, C, H, W] and, if known, "
    "`labels` [N]; or the folder of the MNIST IDX files, for nets that were trained on them.")]
MnistPath = Annotated[Path | None, typer.Option(
    "--data", envvar="N2UQ_MNIST", help="Folder of the MNIST IDX files.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Calibrate = Annotated[Path | None, typer.Option(
    "--calibrate", help="An .npz with `images`: hold the residual stream in twice the range that "
    "they reach, to the next power of two, instead of in what no image can exceed.")]
FractionBits = Annotated[int | None, typer.Option(
    "--residual-fraction-bits", help="Of the residual stream; default: as few as keep its "
    "rounding below 1/2048 of the narrowest quantizer's interval.")]
ResidualBits = Annotated[int | None, typer.Option(
    "--residual-bits", help="The widest that the residual stream may be; default: as its range "
    "asks.")]
StemBits = Annotated[int, typer.Option(
    "--stem-bits", help="Of full-precision convolutions' weights; 8 are cheaper, and cost "
    "agreement with the float model.")]
HeadBits = Annotated[int, typer.Option(
    "--head-bits", help="Of full-precision linear layers' weights.")]
FifoBudget = Annotated[float, typer.Option(
    "--fifo-budget", callback=_within(0, 1000, "percent"),
    help="Percent by which outputs and images may come later than with FIFOs that "
    "never fill: what that spares of the FIFOs where branches meet.")]
LeastFifos = Annotated[bool, typer.Option(
    "--least-fifos", help="Search for the least FIFOs however long it takes; without it, those of "
    "a large network are near them.")]
Clock = Annotated[float, typer.Option(
    "--clock", callback=_within(0.001, 100_000, "MHz"), help="MHz.")]
Cycles = _within(1, 10**12)
Simulator = Annotated[str, typer.Option(help="verilator or icarus.")]


def _console(stderr: bool = False) -> Console:
    """A terminal as wide as it is; elsewhere as wide as the text.  Text is text, not markup."""
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = UNLIMITED
    return console


def _table(*columns: str, left: int = 1) -> Table:
    """An empty table whose first `left` columns are text, the others numbers."""
    table = Table(show_header=any(columns), box=None, header_style="bold", pad_edge=False)
    for k, column in enumerate(columns):
        table.add_column(column, justify="left" if k < left else "right", overflow="fold")
    return table


def _print(*parts: str | Table) -> None:
    """Lines and tables on standard output."""
    console = _console()
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str))


@contextmanager
def _progress() -> Iterator[Callable[[str, float], None]]:
    """A function (stage, fraction done) that shows a bar per stage if stderr is a terminal."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    console = _console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal
                  ) as progress:
        tasks: dict[str, Any] = {}

        def report(stage: str, fraction: float) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=1.0)
            progress.update(tasks[stage], completed=fraction)
        yield report


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, allow_nan=False))


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f} %"


def _version(asked: bool) -> None:
    if asked:
        print(f"n2uq-hw {__version__}")
        raise typer.Exit


@app.callback()
def _main(version: Annotated[bool, typer.Option(
        "--version", callback=_version, is_eager=True, help="Print the version.")] = False) -> None:
    pass


@app.command("nets")
def nets_command(
        measure: Annotated[bool, typer.Option(
            help="Measure the accuracies anew: float, golden, and RTL in simulation.")] = False,
        data_path: MnistPath = None, as_json: AsJson = False) -> None:
    """List the shipped networks and the accuracy that they reach."""
    if measure:
        with _progress() as progress:
            accuracy.measure_shipped(data_path, progress)
    rows = accuracy.shipped_table()
    if as_json:
        return _print_json(rows)
    table = _table("net", "layers", "weights", "images", "float", "golden", "RTL", "RTL images",
                   "mismatches", left=2)
    for name, row in rows.items():
        table.add_row(name, row["layers"], f"{row['weights']:,}", str(row.get("images", "–")),
                      *(_percent(row.get(key)) for key in ("float", "golden", "rtl")),
                      str(row.get("rtl_images", "–")), str(row.get("mismatches", "–")))
    _print(table, "layers: 16c3 is a 3 × 3 convolution to 16 channels, p2 a 2 × 2 max-pool, 10 a "
           "linear layer; the rest is test accuracy of the float model, of golden (integers) and "
           "of the Verilog in simulation")


@app.command()
def train(
        dataset: Annotated[str, typer.Argument(help="digits or mnist.")],
        out: Annotated[Path, typer.Option(
            help="The net file to write; its name without the ending is the net's.")],
        architecture: Annotated[str | None, typer.Argument(
            help="mlp, cnn, resnet8, resnet18 or mobilenetv2.")] = None,
        arch: Annotated[str | None, typer.Option(help="The same, as an option.")] = None,
        widths: Annotated[str | None, typer.Option(
            help="Features (mlp) or channels (cnn, resnet8) of the hidden layers; default 64,64, "
            "or the architecture's own.")] = None,
        weight_bits: Annotated[int, typer.Option(
            min=1, max=8, help="Bits of the weights.")] = 2,
        act_bits: Annotated[int, typer.Option(
            min=1, max=8, help="Bits of the activations.")] = 2,
        first_last_bits: Annotated[int, typer.Option(
            min=1, max=8, help="Weight bits of the first and the last layer.")] = 8,
        input_bits: Annotated[int, typer.Option(
            min=0, max=8, help="Quantize the pixels to so many bits; 0: take them whole.")] = 0,
        epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 60,
        batch: Annotated[int, typer.Option(help="Images per step.")] = 64,
        lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 2e-3,
        seed: Annotated[int, typer.Option(help="The same seed trains the same net.")] = 0,
        pools: Annotated[str | None, typer.Option(
            help="Convolutions that end in a max-pool, such as 1,2; default the last two.")] = None,
        shift: Annotated[int, typer.Option(
            help="Move training images by up to so many pixels each way.")] = 0,
        data_path: MnistPath = None) -> None:
    """Train a network with N2UQ quantizers (needs torch)."""
    try:
        from .train.fit import run_training
    except ModuleNotFoundError as error:
        raise N2uqError(f"{error.name}: needed for training, and not installed "
                        "(pip install 'n2uq-hw[train]')") from None
    if (architecture is None) == (arch is None):
        raise N2uqError("architecture must be given once, as an argument or with --arch, not "
                        + ("never" if arch is None else f"twice: {architecture}, {arch}"))
    architecture = architecture or arch or ""
    if widths is None and architecture in ("mlp", "cnn"):
        widths = "64,64"
    net = run_training(
        dataset, architecture, widths=_numbers("widths", widths) if widths else (),
        weight_bits=weight_bits,
        act_bits=act_bits, first_last_bits=first_last_bits, input_bits=input_bits, epochs=epochs,
        lr=lr, seed=seed, batch=batch, data_folder=data_path, out=out, name=out.stem,
        pools=_numbers("pools", pools) if pools else None, shift=shift)
    _print(f"{out}: float accuracy {_percent(net.meta['accuracy']['float'])} on the test split, "
           f"{_percent(net.meta['validation'])} in validation")


@app.command("import")
def import_command(
        checkpoint: Annotated[Path, typer.Argument(
            help="What the authors' training code saved, or the same names as .safetensors.")],
        arch: Annotated[str, typer.Option(help="resnet18, resnet34, resnet50 or mobilenetv2.")],
        out: Annotated[Path, typer.Option(
            help="The net file to write; its name without the ending is the net's.")],
        bits: Annotated[int | None, typer.Option(
            help="Bits of weights and activations, 2 to 8; default: as the file says.")] = None,
        quantize_downsample: Annotated[bool | None, typer.Option(
            help="Whether shortcuts are quantized; default: as the file says.")] = None,
        num_classes: Annotated[int | None, typer.Option(
            help="Default: as the file says.")] = None,
        key: Annotated[str | None, typer.Option(
            help="The dictionary in the file, such as ema, where it holds several.")] = None,
        size: Annotated[int, typer.Option(
            "--input", help="Height and width of the images, 32 to 224.")] = 224,
        mean: Annotated[str, typer.Option(
            help="Of the channels, pixels being 0 to 1.")] = "0.485,0.456,0.406",
        std: Annotated[str, typer.Option(help="The same.")] = "0.229,0.224,0.225") -> None:
    """Make a net file of a trained checkpoint (needs torch)."""
    try:
        from .importers.checkpoint import import_checkpoint
    except ModuleNotFoundError as error:
        raise N2uqError(f"{error.name}: needed to read checkpoints, and not installed "
                        "(pip install 'n2uq-hw[train]')") from None
    net = import_checkpoint(
        checkpoint, arch, bits=bits, quantize_downsample=quantize_downsample, classes=num_classes,
        size=size, mean=_floats("mean", mean), std=_floats("std", std), name=out.stem,
        key=key)
    for note in net.meta.get("notes", ()):
        _say(f"note: {checkpoint}: {note}")
    net.save(out)
    shortcuts = {True: ", quantized downsampling", False: ", full-precision downsampling", None: ""}
    _print(f"{out}: {arch}, {net.meta['bits']} bits"
           f"{shortcuts[net.meta.get('quantize_downsample')]}, {net.meta['classes']} classes, "
           f"{sum(value.size for value in net.params.values()):,} parameters, "
           f"input 3×{size}×{size}, {net.meta['moved_weights']} weights moved off a boundary")


def _floats(what: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise N2uqError(f"{what} must be numbers with commas between, not {text!r}") from None


def _numbers(what: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise N2uqError(f"{what} must be whole numbers with commas between, not {text!r}"
                        ) from None


def _ranges(net: Net, formats: Formats, calibrate: Path | None) -> Ranges | None:
    if calibrate is None:
        return None
    return accuracy.calibrate(net, formats, data.read_npz(calibrate).images)


def _normalized(net: Net, samples: data.Samples, path: Path) -> Net:
    """The net for images that are normalized as the file says."""
    mean, std = (of if given is None else tuple(float(v) for v in given) for given, of in
                 ((samples.mean, net.input.mean), (samples.std, net.input.std)))
    changed = replace(net.input, mean=mean, std=std)
    if np.allclose([changed.factor, changed.offset], [net.input.factor, net.input.offset], 1e-6):
        return net
    _say(f"note: {net.name} is lowered for the mean and std in {path}, which are not its own")
    return replace(net, input=changed)


@app.command()
def lower(
        net: NetName, data_path: DataPath = None, top1: Annotated[bool, typer.Option(
            help="End in the class index instead of the logits.")] = False,
        reference: Annotated[Path | None, typer.Option(
            "--agreement", help="An .npz with `images` uint8 [N, C, H, W] and, if known, `labels`, "
            "the float model's `logits`, and the `mean` and `std` of its images: measure the "
            "agreement, and what each choice of format costs.")] = None,
        calibrate: Calibrate = None, residual_fraction_bits: FractionBits = None,
        residual_bits: ResidualBits = None, stem_bits: StemBits = 16, head_bits: HeadBits = 8,
        out: Annotated[Path | None, typer.Option(help="Save the graph in this file.")] = None,
        text: Annotated[bool, typer.Option("--text", help="Print the graph as text.")] = False,
        as_json: AsJson = False) -> None:
    """Lower a network to integers: layers, ranges, widths, and agreement with the float model."""
    given, formats = nets.find_net(net), Formats(residual_fraction_bits, residual_bits, stem_bits,
                                                 head_bits)
    if reference is not None and data_path is not None:
        raise N2uqError("--agreement and --data exclude each other, and both are given: "
                        f"{reference}, {data_path}")
    samples = None
    if reference is not None:
        samples = data.read_npz(reference)
        given = _normalized(given, samples, reference)
    elif (found := data.images_for(given.meta.get("dataset", ""), data_path)) is not None:
        samples = data.Samples(*found)
    graph = lower_net(given, formats, top1=top1, ranges=_ranges(given, formats, calibrate))
    agrees, costs = None, []
    if samples is not None:
        with _progress() as progress:
            agrees = accuracy.agreement(given, graph, samples.images, samples.labels, progress,
                                        logits=samples.logits)
            if reference is not None and "residual" in graph.meta and samples.logits is not None:
                costs = accuracy.explain(given, formats, samples.images, samples.logits, progress)
    if out is not None:
        graph.save(out)
    rows = describe(graph)
    if as_json:
        return _print_json({
            "name": graph.name, "layers": rows,
            **{key: graph.meta[key] for key in ("residual_fraction_bits",) if key in graph.meta},
            **({"rounding": costs} if costs else {}),
            **(agrees.as_dict() if agrees else {"images": 0})})
    if text:
        _print(dump(graph).rstrip())
    else:
        table = _table("layer", "kind", "shape", "range", "bits", "weights",
                       "weight bits", "thresholds", "MACs", left=2)
        for row in rows:
            table.add_row(row["name"], row["kind"], "×".join(map(str, row["shape"])),
                          f"{row['range'][0]}..{row['range'][1]}", str(row["bits"]),
                          *(f"{row[key]:,}" if row[key] else "" for key in
                            ("weights", "weight_bits", "thresholds", "macs")))
        _print(graph.name, table, f"{sum(row['macs'] for row in rows):,} MACs per image")
    if residual := graph.meta.get("residual"):
        widths = [graph.edges[name].width for name in residual]
        _print(f"residual stream: {graph.meta['residual_fraction_bits']} fraction bits, "
               f"{min(widths)} to {max(widths)} bits; stem weights {stem_bits} bits, "
               f"head weights {head_bits} bits")
    if costs:
        table = _table("rounded", "same class", "worst logit error")
        for row in costs:
            table.add_row(row["rounded"], _percent(row["top1_agreement"]),
                          f"{row['worst_logit_error']:.4f}")
        _print(table, "each row with one format as chosen and the others fine: 20 fraction bits, "
               "16-bit stem and head")
    if agrees is None:
        _print("agreement with the float model not measured: give images of "
               f"{given.name} with --data")
    else:
        _print(
            f"{agrees.images} images: the integers give the float model's class on "
            f"{_percent(agrees.top1_agreement)}, worst logit error "
            + ("–" if agrees.worst_logit_error is None else f"{agrees.worst_logit_error:.4f}")
            + ("" if agrees.accuracy is None else
               f"; accuracy {_percent(agrees.accuracy)} (float {_percent(agrees.accuracy_float)})"))


@app.command()
def build(
        net: NetName, out: Annotated[Path, typer.Option(help="The build directory to make.")],
        folding: Annotated[Path | None, typer.Option(
            help="A YAML folding, such as an edited folding.yaml of another build.")] = None,
        cycles: Annotated[int | None, typer.Option(
            callback=Cycles,
            help="Choose the least estimated cost that takes at most so many cycles per image; "
            "default: as many cycles as the slowest sliding window.")] = None,
        unroll: Annotated[int | None, typer.Option(
            callback=_within(1, 1000),
            metavar="LEVELS", help="Every MatVec in logic, all other units with all the lanes that "
            "they can have; a register after so many levels of carry chains.")] = None,
        lut: Annotated[int | None, typer.Option(
            help="With --unroll: inputs of the LUTs that the logic suits, 6 (Xilinx, the default) "
            "or 4.")] = None,
        top1: Annotated[bool, typer.Option(
            help="Put out the class index instead of the logits.")] = False,
        fifo_budget: FifoBudget = 0.0, least_fifos: LeastFifos = False,
        calibrate: Calibrate = None, residual_fraction_bits: FractionBits = None,
        residual_bits: ResidualBits = None, stem_bits: StemBits = 16, head_bits: HeadBits = 8,
        data_path: DataPath = None, as_json: AsJson = False) -> None:
    """Write Verilog, IR, folding, test vectors, manifest and report to a directory."""
    from .plan.choice import unrolled
    from .sim.timing.fifos import size_fifos

    formats = Formats(residual_fraction_bits, residual_bits, stem_bits, head_bits)
    given = nets.find_net(net)
    with _progress() as progress:
        graph = lower_net(given, formats, top1=top1, ranges=_ranges(given, formats, calibrate))
        progress("build: FIFOs", 0.0)
        if unroll is not None and (folding is not None or cycles is not None):
            raise N2uqError("--unroll excludes --folding and --cycles, and is given beside "
                            f"{folding or cycles}")
        if unroll is None and lut is not None:
            raise N2uqError(f"--lut must come with --unroll, and is given without: {lut}")
        folds = (_folding(graph, folding, cycles) if unroll is None
                 else unrolled(graph, unroll, 6 if lut is None else lut))
        sized = size_fifos(graph, folds, **_sizing(fifo_budget, least_fifos))
        made = _build(given, graph, out, sized.folding, data_path, progress)
        _report(given, out, data_path, progress)
    if as_json:
        return _print_json(made | _fifos(sized))
    table = _table("unit", "kind", "shape", "bits", "PE", "SIMD",
                   "style", "cycles", left=2)
    for row in made["layers"]:
        table.add_row(row["name"], row["kind"], "×".join(map(str, row["shape"])),
                      *(str(row[key]) for key in ("bits", "pe", "simd", "style", "cycles")))
    _print(f"{made['name']} in {out}", table,
           "PE output channels × SIMD inputs per cycle; cycles per image in which the unit is busy",
           *_fifo_parts(sized))


def _folding(graph: Graph, path: Path | None, cycles: int | None) -> Folding:
    """The folding in the file `path`, or the one for so many cycles per image."""
    from .plan.choice import choose, load_folding

    if path is not None and cycles is not None:
        raise N2uqError("--folding and --cycles exclude each other, and both are given: "
                        f"{path}, {cycles}")
    return choose(graph, cycles) if path is None else load_folding(path, graph)


def _sizing(percent: float, least: bool = False) -> dict[str, float]:
    """What `size_fifos` takes for --fifo-budget and --least-fifos."""
    from .sim.timing.fifos import WORK

    return {"budget": percent / 100, "work": inf if least else WORK}


def _fifos(sized: Sizing) -> dict[str, Any]:
    """What was chosen, for JSON: nothing if there was nothing to choose."""
    return {"fifo_sizing": sized.as_dict()} if sized.least else {}


def _fifo_parts(sized: Sizing) -> list[str | Table]:
    """The same as a table and a line."""
    if not sized.least or sized.trace is None:
        return []
    table = _table("FIFO", "depth", "least", "most held")
    for name, depth in sized.depths.items():
        table.add_row(name, *(f"{beats:,}" for beats in (
            depth, sized.least[name], sized.trace.high[name])))
    return [table, f"least: lest the graph deadlocks; {sized.bits:,} bits in all; "
            f"{sized.cycles_per_image:,.2f} cycles per image, {sized.full:,.2f} with FIFOs that "
            "never fill" + ("" if sized.minimal else "; --least-fifos may spare some entries")]


def _build(net: Net, graph: Graph, out: Path, folding: Folding, source: Path | None,
           progress: Callable[[str, float], None]) -> dict[str, Any]:
    """Emit; test vectors are real images where there are any, else random."""
    from .builds.emit import emit

    found = data.images_for(net.meta.get("dataset", ""), source)
    images, labels = found or (np.random.default_rng(0).integers(
        0, net.input.max + 1, (VECTORS, *net.input.shape)), None)
    return emit(graph, folding, out, images[:VECTORS], None if labels is None else labels[:VECTORS],
                lambda stage: progress(f"build: {stage}", 0.0))


def _trained(net: Net) -> float | None:
    """Test accuracy of the float model that a net file tells."""
    known = net.meta.get("accuracy")
    found = known.get("float") if isinstance(known, dict) else None
    return found if isinstance(found, float) else None


def _report(net: Net, out: Path, source: Path | None, progress: Callable[[str, float], None]
            ) -> None:
    """Write report.html of a new build, and how its test vectors agree with the float model."""
    from .builds.emit import load_build
    from .builds.measured import keep_agreement
    from .builds.report import write_report

    progress("build: report", 0.0)
    made = load_build(out)
    labels = made.vectors.get("labels")
    if labels is not None:
        keep_agreement(made, accuracy.agreement(net, made.graph, made.vectors["images"], labels),
                       _trained(net))
    write_report(made)


@app.command()
def sim(
        folder: BuildDir,
        images: Annotated[int | None, typer.Option(
            help="How many images; default all of --data, else the build's test vectors.")] = None,
        stalls: Annotated[float, typer.Option(
            help="Probability of a stalled cycle on either side, 0 to 0.95.")] = 0.0,
        seed: Annotated[int, typer.Option(
            min=0, max=2**32 - 1, help="Seed of the stall pattern.")] = 0,
        bulk: Annotated[bool, typer.Option(
            "--bulk", help="Share the images among the machine's cores, a simulator each; cycle "
            "counts are those of the first share.")] = False,
        simulator: Simulator = "verilator", data_path: DataPath = None,
        as_json: AsJson = False) -> None:
    """Simulate a build's Verilog and compare every output bit with golden.

    Exit code 1 if a bit differs.
    """
    from .builds.emit import load_build
    from .builds.measured import keep_verdict, verilog_hash
    from .builds.verify import verify

    made = load_build(folder)
    for name in made.changed:
        _say(f"note: {folder / name} is not as it was built")
    given, labels = made.images(images, data_path)
    of = verilog_hash(made)
    with _progress() as progress:
        verdict = verify(made, given, labels, stalls=stalls, seed=seed, simulator=simulator,
                         jobs=len(os.sched_getaffinity(0)) if bulk else None, progress=progress)
    keep_verdict(made, verdict, of)
    if as_json:
        _print_json(verdict.as_dict())
    else:
        table = _table("", "", left=2)
        for key, value in _verdict_rows(verdict):
            table.add_row(key, value)
        _print(f"{made.graph.name}, {simulator}, stalls {stalls}, seed {seed}"
               + f", {verdict.shares} shares; cycles are those of the first" * bulk, table)
    if verdict.mismatches:
        _say(f"mismatch: {verdict.first_mismatch}")
        raise typer.Exit(1)


def _verdict_rows(verdict: Any) -> list[tuple[str, str]]:
    exact = "every output bit as in golden" if not verdict.mismatches else "DIFFERENT"
    counted = [] if verdict.saturated is None else [
        ("saturated elements", f"{verdict.saturated:,} "
         f"({'as in golden' if verdict.saturated_exact else 'DIFFERENT'})")]
    return [("images", f"{verdict.images}, {verdict.mismatches} mismatches ({exact})"),
            ("accuracy", _percent(verdict.accuracy)), *counted,
            ("cycles to the first output", f"{verdict.cycles_first_output:,}"),
            ("cycles per image", f"{verdict.cycles_per_image:,.2f}"),
            ("MAC utilization of the slowest layer", f"{verdict.mac_utilization:.4f}"),
            ("simulated cycles per second", f"{verdict.cycles_per_second:,.0f}")]


@app.command()
def simulate(
        net: NetName,
        folding: Annotated[Path | None, typer.Option(
            help="A YAML folding; default: as `build` chooses.")] = None,
        cycles: Annotated[int | None, typer.Option(
            callback=Cycles,
            help="Choose a folding for at most so many cycles per image, as `build` does.")] = None,
        images: Annotated[int, typer.Option(
            callback=_within(1, 1_000_000),
            help="How many images, without a gap.")] = 4,
        clock: Clock = 200.0,
        source: Annotated[str, typer.Option(
            help="When a beat of pixels may come: always, every:N (one in N cycles), burst:ON,OFF "
            "or a file (.npy, or .txt) with a 0 per cycle, 1 where none may.")] = "always",
        sink: Annotated[str, typer.Option(help="When a result may leave; the same.")] = "always",
        stalls: Annotated[float, typer.Option(
            help="Stall both sides as `sim` does with --stalls and --seed.")] = 0.0,
        seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="The same.")] = 0,
        fifo_budget: FifoBudget = 0.0,
        top1: Annotated[bool, typer.Option(
            help="Put out the class index instead of the logits.")] = False,
        calibrate: Calibrate = None, residual_fraction_bits: FractionBits = None,
        residual_bits: ResidualBits = None, stem_bits: StemBits = 16, head_bits: HeadBits = 8,
        picture: Annotated[Path | None, typer.Option(
            "--plot", help="Draw the pipeline over time in this .svg or .png file.")] = None,
        as_json: AsJson = False) -> None:
    """Predict cycles, rate and bottleneck without simulating: exact, for any size of network."""
    from .sim.timing.fifos import size_fifos
    from .sim.timing.forecast import forecast, pattern, plot, stalled

    if stalls and (source, sink) != ("always", "always"):
        raise N2uqError("--stalls and --source or --sink exclude each other")
    formats = Formats(residual_fraction_bits, residual_bits, stem_bits, head_bits)
    given = nets.find_net(net)
    graph = lower_net(given, formats, top1=top1, ranges=_ranges(given, formats, calibrate))
    sized = size_fifos(graph, _folding(graph, folding, cycles), **_sizing(fifo_budget))
    if stalls:
        found = stalled(graph, sized.folding, images, stalls, seed)
    else:
        at_hand = images == sized.images and source == sink == "always"
        found = forecast(graph, sized.folding, images=images, source=pattern(source),
                         sink=pattern(sink), trace=sized.trace if at_hand else None)
    if picture is not None:
        plot(found, picture)
    timed = {"clock_mhz": clock, "images_per_second": clock * 1e6 / found.cycles_per_image,
             "latency_us": found.cycles_last_output / clock}
    if as_json:
        return _print_json(found.as_dict() | timed | _fifos(sized))
    table = _table("unit", "kind", "PE", "SIMD", "busy", "starved", "blocked", "idle",
                   "utilization", "FIFO depth", "most held", left=2)
    for row in found.layers:
        depths = [", ".join(str(pair[k]) for pair in row["fifos"].values()) for k in (0, 1)]
        table.add_row(row["name"], row["kind"], str(row["pe"]), str(row["simd"]), *(
            f"{row[mode]:,}" for mode in ("busy", "starved", "blocked", "idle")),
            f"{row['utilization']:.4f}", *depths)
    _print(f"{found.name}, {images} images", table,
           "cycles of all images; utilization: share of the cycles per image that the unit needs",
           f"bottleneck: {found.bottleneck}", *_fifo_parts(sized),
           f"cycles to the first output: {found.cycles_first_output:,}, to the image's last: "
           f"{found.cycles_last_output:,}; per image: {found.cycles_per_image:,.2f}; "
           f"MAC utilization of the slowest layer: {found.mac_utilization:.4f}",
           f"at {clock:g} MHz: {timed['images_per_second']:,.1f} images/s, latency "
           f"{timed['latency_us']:,.1f} µs")


@app.command()
def fold(
        net: NetName,
        fps: Annotated[float | None, typer.Option(
            callback=_within(1e-6, 1e12, "images/s"),
            help="Reach so many images per second at --clock.")] = None,
        cycles: Annotated[int | None, typer.Option(
            callback=Cycles,
            help="Take at most so many cycles per image.")] = None,
        max_luts: Annotated[int | None, typer.Option(
            callback=_within(1, 10**12),
            help="The best rate with at most so many LUTs, those that are memory included.")
            ] = None,
        clock: Clock = 200.0,
        family: Annotated[str, typer.Option(help="xcup or ecp5.")] = "xcup",
        out: Annotated[Path | None, typer.Option(
            help="Write the folding in this YAML file, which `build --folding` takes.")] = None,
        fifo_budget: FifoBudget = 0.0, least_fifos: LeastFifos = False,
        top1: Annotated[bool, typer.Option(
            help="Put out the class index instead of the logits.")] = False,
        calibrate: Calibrate = None, residual_fraction_bits: FractionBits = None,
        residual_bits: ResidualBits = None, stem_bits: StemBits = 16, head_bits: HeadBits = 8,
        as_json: AsJson = False) -> None:
    """Choose the folding that costs least at a rate, or is fastest within a budget of LUTs.

    LUTs are estimated, without DSP blocks; a block RAM counts as 160 (xcup) or 400 (ecp5).
    """
    from .plan.choice import fold as fold_problem
    from .plan.choice import save_folding
    from .plan.problem import BLOCK_LUTS, Problem

    given = {"--fps": fps, "--cycles": cycles, "--max-luts": max_luts}
    named = [f"{name} {value:g}" for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise N2uqError(f"{' and '.join(named)} exclude each other")
    formats = Formats(residual_fraction_bits, residual_bits, stem_bits, head_bits)
    whole = nets.find_net(net)
    graph = lower_net(whole, formats, top1=top1, ranges=_ranges(whole, formats, calibrate))
    least, slowest = reach(graph)
    if fps is not None:
        cycles = int(clock * 1e6 / fps)
        if cycles < least:
            raise N2uqError(f"{slowest}: takes {least:,} cycles per image at its fastest, "
                            f"{clock * 1e6 / least:,.1f} images/s at {clock:g} MHz; {fps:g} "
                            "images/s cannot be reached")
    problem = Problem(graph, family)
    sized, made = fold_problem(problem, cycles=cycles, max_luts=max_luts,
                                **_sizing(fifo_budget, least_fifos))
    taken = made["cycles_per_image"]
    if out is not None:
        save_folding(sized.folding, graph, out)
    rate = clock * 1e6 / taken
    if as_json:
        return _print_json(made | {"clock_mhz": clock, "images_per_second": rate}
                           | _fifos(sized))
    kinds = ("lut", "ff", "bram", "lutram")
    table = _table("unit", "kind", "PE", "SIMD", "style", "cycles", *(k.upper() for k in kinds),
                   left=2)
    for row in made["layers"]:
        table.add_row(row["name"], row["kind"], str(row["pe"]), str(row["simd"]), row["style"],
                      *(f"{row[key]:,}" for key in ("cycles", *kinds)))
    for name, row in ((f"between units ({made['between']['units']})", made["between"]),
                      ("in all", made["total"])):
        table.add_row(name, *[""] * 5, *(f"{row[kind]:,}" for kind in kinds))
    _print(f"{graph.name} on {family}, estimated without DSP blocks", table,
           "between units: width converters, FIFOs, forks; cycles per image in which the unit is "
           f"busy; a block RAM was taken for {BLOCK_LUTS[family]} LUTs",
           *_fifo_parts(sized),
           f"{taken:,.0f} cycles per image, {made['macs_per_cycle']:,.1f} MACs per "
           f"cycle; at {clock:g} MHz: {rate:,.1f} images/s")


@app.command()
def estimator(family: Annotated[str, typer.Option(help="xcup or ecp5.")] = "xcup",
              as_json: AsJson = False) -> None:
    """How far the estimates of `fold` are off, per kind of unit, against Yosys."""
    from .cost.memories import FAMILIES
    from .cost.samples import errors, load_samples

    if family not in FAMILIES:
        raise N2uqError(f"--family must be one of {', '.join(FAMILIES)}, not {family or 'nothing'}")
    version, samples = load_samples()
    rows = errors(samples, family)
    if as_json:
        return _print_json({"yosys": version, "family": family,
                            "kinds": [row.as_dict() for row in rows]})
    table = _table("kind of unit", "units", "LUT median", "worst", "held out", "LUT median",
                   "worst", "FF median", "worst", "BRAM differs")
    for row in rows:
        held = row.lut[:row.held_out]
        table.add_row(row.kind, str(row.units), *(
            str(cell) if isinstance(cell, int) else f"{100 * cell:.1f} %" for cell in (
                median(row.lut), max(row.lut), row.held_out, median(held), max(held),
                median(row.ff), max(row.ff))), str(row.blocks))
    _print(f"estimates for {family} against Yosys {version}, {len(samples)} units", table,
           "held out: units that nothing was fitted to, the columns after it are of them alone; "
           "LUTs include those that are memory; units below 20 cells count as 20")


@app.command()
def cost(
        folder: BuildDir,
        family: Annotated[str, typer.Option(help="xcup, xc7, ecp5 or ice40.")] = "xcup",
        dsp: Annotated[bool, typer.Option(help="Whether multiplier blocks may be used.")] = True,
        pnr: Annotated[bool, typer.Option(
            "--pnr", help="Place and route too (ecp5, ice40): Fmax, images per second.")] = False,
        seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Seed of the placer.")] = 1,
        as_json: AsJson = False) -> None:
    """Synthesize a build with Yosys: LUTs, flip-flops and memories per unit and in all."""
    from .builds import synth
    from .builds.emit import load_build
    from .builds.measured import keep_costs, keep_verdict, verilog_hash
    from .builds.verify import verify
    from .cost.estimate import Cost
    from .cost.memories import FAMILIES
    from .hw.accelerator import module_name
    from .plan.problem import prices

    made = load_build(folder)
    of = verilog_hash(made)
    with _progress() as progress:
        placed = None
        if pnr:  # first: it asks for more
            progress(f"yosys and nextpnr {family}", 0.0)
            placed = synth.place_and_route(made.verilog, module_name(made.graph), family, seed=seed,
                                           dsp=dsp, work=folder / "synthesis")
            verdict = verify(made, *made.images(8, None), progress=progress)
            keep_verdict(made, verdict, of)
        progress(f"yosys {family}", 0.0)
        found = synth.synthesize_build(made, family, dsp=dsp)
    keep_costs(made, found, dsp, placed, of)
    result = found.as_dict()
    # Beside what was counted, where there are estimates: the families that they are fitted to.
    guessed = {} if dsp or family not in FAMILIES else prices(made.graph, made.folding, family)
    if guessed:
        result["estimates"] = {name: guess._asdict() for name, guess in guessed.items()}
    if placed is not None:
        result["pnr"] = placed.as_dict() | {
            "cycles_per_image": verdict.cycles_per_image,
            "images_per_second": placed.fmax_mhz * 1e6 / verdict.cycles_per_image}
    if as_json:
        return _print_json(result)
    kinds = ("lut", "carry", "ff", "bram", "lutram", "dsp")
    also = ("lut", "ff", "bram", "lutram") if guessed else ()
    guessed["in all"] = Cost(*map(sum, zip(*guessed.values(), strict=True)))
    table = _table("unit", *(k.upper() for k in kinds), *(f"estimated {k.upper()}" for k in also))
    for name, used in [*found.units.items(), ("in all", found.total)]:
        table.add_row(name, *(f"{getattr(used, kind):,}" for kind in kinds),
                      *(f"{getattr(guessed[name], kind):,.0f}" for kind in also))
    _print(f"{made.graph.name} on {family}, Yosys {found.version}, DSP blocks "
           f"{'on' if dsp else 'off'}", table,
           "in all: the units and what connects them")
    if placed is not None:
        row = result["pnr"]
        _print(f"nextpnr-{family} {placed.version}, {placed.device}, seed {seed}: "
               f"{placed.fmax_mhz:.1f} MHz; {row['cycles_per_image']:,.2f} cycles per image, "
               f"{row['images_per_second']:,.0f} images/s")


@app.command("report")
def report_command(
        folder: BuildDir,
        images: Annotated[int | None, typer.Option(
            help="How many images to draw histograms of; default all of --data, else the build's "
            "test vectors.")] = None,
        clock: Clock = 200.0,
        data_path: DataPath = None) -> None:
    """Write DIR/report.html: verdicts, network, thresholds, time, cells and accuracy on one page.

    It shows what `sim` and `cost` have found of this Verilog, and needs no network.
    """
    from .builds.emit import load_build
    from .builds.report import write_report

    made = load_build(folder)
    given = (None, None) if images is None and data_path is None else made.images(images, data_path)
    _print(str(write_report(made, *given, clock=clock)))


@app.command()
def compare(
        out: Annotated[Path, typer.Option(help="The folder of results to make.")],
        quick: Annotated[bool, typer.Option(
            "--quick", help="In minutes: unless said otherwise 8 lanes, xcup and cmos, no DSP "
            "blocks, no place and route; small designs are synthesized several at a time, which "
            "moves their LUTs by about 1 %.")] = False,
        level: Annotated[str, typer.Option(
            help="What is compared: lane, an array of lanes; mvu, one with weight memory and "
            "quantizer; quantizer; network, a shipped net.")] = "lane",
        bits: Annotated[str, typer.Option(help="Of weights and activations.")] = "2,3,4",
        lanes: Annotated[str | None, typer.Option(
            help="Products per cycle; default 8,16,64,256, of an MVU 64,256, of a quantizer "
            "1,8.")] = None,
        families: Annotated[str | None, typer.Option(
            help="Of xcup, xc7, ecp5, ice40, and cmos for gates and transistors; default "
            "all.")] = None,
        dsp: Annotated[str | None, typer.Option(
            help="Whether multiplier blocks may be used: off, on, or off,on (default).")] = None,
        pnr: Annotated[str | None, typer.Option(
            help="What to place and route on ecp5 and ice40: all, none, or best (default): of each "
            "method the design with the fewest LUTs.")] = None,
        seeds: Annotated[str, typer.Option(help="Of the placer; Fmax is the median.")] = "1,2,3",
        design: Annotated[list[str] | None, typer.Option(
            help="A design of your own, module:Class, beside the others; once for each.")] = None,
        methods: Annotated[str | None, typer.Option(
            help="Compare designs of these methods only, such as N2UQ,APoT.")] = None,
        net: Annotated[list[str] | None, typer.Option(
            help="Count toggles on the codes of this net, at its bits; once for each. Default: "
            "random codes, all as likely.")] = None,
        levels: Annotated[bool | None, typer.Option(
            "--trained/--no-trained", help="Designs with levels that nets were trained with, "
            "too, to stand beside their accuracy; by default not with --quick.")] = None,
        jobs: Annotated[int, typer.Option(min=1, help="Processes side by side.")] = 2,
        limit: Annotated[float, typer.Option(
            callback=_within(0.001, 10_000_000, "seconds"),
            help="Seconds for one step of one design.")] = 1800.0,
        cache: Annotated[Path | None, typer.Option(
            envvar="N2UQ_CACHE", help="Folder of what was measured before; default "
            "~/.cache/n2uq-hw.")] = None,
        as_json: AsJson = False) -> None:
    """Measure what N2UQ's arithmetic costs beside that of nonuniform quantizers.

    Exit code 1 if a design is not its golden model; 2 if a row could not be measured.
    """
    from .compare import report
    from .compare.measure import FAMILIES, Settings, find_design, measure
    from .compare.subjects import LEVELS, layer_codes
    from .hw.designs import DESIGNS
    from .train.study import load_rows, studies

    classes = (*DESIGNS, *map(find_design, design or ()))
    if methods is not None:
        known = list(dict.fromkeys(cls.method for cls in classes))
        for name in methods.split(","):
            if name not in known:
                raise N2uqError(f"--methods must be of {', '.join(known)}, not {name or 'nothing'}")
        classes = tuple(cls for cls in classes if cls.method in methods.split(","))
    default = LEVELS[level].lanes if level in LEVELS else ()
    settings = Settings(
        classes=classes, level=level,
        bits=_numbers("--bits", bits),
        lanes=_numbers("--lanes", lanes) if lanes else default[:1] if quick else default,
        families=tuple((families or ("xcup,cmos" if quick else ",".join(FAMILIES))
                        ).split(",")),
        dsps=tuple((dsp or ("off" if quick else "off,on")).split(",")),
        routed=pnr or ("none" if quick else "best"), seeds=_numbers("--seeds", seeds),
        codes=tuple(map(layer_codes, net or ())), together=quick,
        trained=() if (quick if levels is None else not levels) else tuple(
            given for study in studies(level)
            for given in study.levels(load_rows(study.results))))
    with _progress() as progress:
        found = measure(settings, cache or _cache_folder(), workers=jobs, limit=limit,
                        progress=progress)
    made = report.write(found, settings, out)
    if as_json:
        _print_json(made)
    else:
        table = _table("bits", "lanes", "family", "N2UQ", "size", "best nonuniform", "size",
                       "ratio", left=1)
        for contest in report.contests(found.rows):
            table.add_row(*report.cells(contest))
        _print(table, "size: LUTs, transistors on cmos; of the best form of each side",
               f"{len(found.rows):,} rows and {len(made['losses']):,} cases that N2UQ loses in "
               f"{out / 'report.md'}")
    for line in found.notes:
        _say(f"note: {line}")
    for line in found.failures:
        _say(f"failed: {line}")
    if found.failures:
        raise typer.Exit(1 if found.mismatch else 2)


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "n2uq-hw"


@app.command()
def demo(out: Annotated[Path, typer.Option(help="Folder to work in.")] = Path("n2uq-demo")
         ) -> None:
    """The whole way on real data: a shipped digits CNN becomes Verilog, proven and costed."""
    from .builds import measured, synth
    from .builds.emit import load_build
    from .builds.report import write_report
    from .builds.verify import verify
    from .plan.choice import choose

    net, family = nets.find_net("digits_cnn_w2a2"), "xcup"
    folder = out / net.name
    found = data.images_for("digits", None)
    assert found is not None
    with _progress() as progress:
        agrees = accuracy.agreement(net, lower_net(net), *found, progress)
        graph = lower_net(net)
        _build(net, graph, folder, choose(graph, DEMO_CYCLES), None, progress)
        made = load_build(folder)
        verdict = verify(made, *found, progress=progress)
        stalled = verify(made, *found, stalls=0.3, seed=1, progress=progress)
        progress(f"yosys {family}", 0.0)
        costs = synth.synthesize_build(made, family)
        of = measured.verilog_hash(made)
        measured.keep_agreement(made, agrees, _trained(net))
        measured.keep_verdict(made, stalled, of)
        measured.keep_verdict(made, verdict, of)
        measured.keep_costs(made, costs, True, None, of)
        page = write_report(made)
    total = costs.total
    table = _table("", "", left=2)
    for key, value in [
            ("accuracy of the float model", _percent(agrees.accuracy_float)),
            ("accuracy of golden (integers)", _percent(agrees.accuracy)),
            *_verdict_rows(verdict),
            ("with random stalls on both sides", f"{stalled.images} images, {stalled.mismatches} "
             f"mismatches, {stalled.cycles_per_image:,.2f} cycles per image"),
            (f"cost on {family}, Yosys {costs.version}", f"{total.lut:,} LUT, {total.ff:,} FF, "
             f"{total.bram} BRAM18, {total.lutram:,} LUTRAM, {total.dsp} DSP"),
            ("Verilog", str(folder / "rtl")), ("report", str(page)),
            ("IR, folding, test vectors", str(folder))]:
        table.add_row(key, value)
    _print(f"{net.name}: {accuracy.topology(net)} on the digits test split", table)
    if verdict.mismatches or stalled.mismatches:
        _say(f"mismatch: {verdict.first_mismatch or stalled.first_mismatch}")
        raise typer.Exit(1)


def _say(text: str) -> None:
    """One printable line on standard error."""
    line = re.sub(r"\s*\n\s*", " ", text.strip())
    print("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line), file=sys.stderr)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Signals that stop the program end it as an exception does, so that all cleans up."""
    codes: list[int] = []

    def stop(number: int, frame: object) -> NoReturn:
        for each in STOPS:
            signal.signal(each, signal.SIG_IGN)  # nothing stops the cleaning
        if not codes:
            _say("interrupted")
            codes.append(128 + number)
        raise SystemExit(codes[0])

    def swallowed(what: Any) -> None:
        # Raised in a destructor, from which Python goes on; hence once more, a little later.
        if what.exc_type is SystemExit:
            signal.signal(signal.SIGALRM, stop)
            signal.setitimer(signal.ITIMER_REAL, 0.01)

    sys.unraisablehook = swallowed
    before = {each: signal.getsignal(each) for each in STOPS}
    for each in STOPS:
        if before[each] != signal.SIG_IGN:  # as under nohup
            signal.signal(each, stop)
    try:
        yield
    finally:
        sys.unraisablehook = sys.__unraisablehook__
        if not codes:
            for each in STOPS:
                signal.signal(each, before[each])


def _given(option: Any) -> str:
    """The value that a faulty `option` was given; typer says only which values it may have."""
    words = [part for word in sys.argv for part in word.split("=", 1)]
    return next((f", not {value!r}" for name, value in pairwise(words)
                 if option is not None and name in option.opts), "")


def _run() -> int:
    try:
        code = app(prog_name="n2uq-hw", standalone_mode=False)
        if sys.stdout:
            sys.stdout.flush()
        return int(code or 0)
    except SystemExit as end:
        if end.code != 1:  # a signal
            raise
        return 128 + signal.SIGPIPE  # typer met a pipe that nobody reads, and closed it
    except N2uqError as error:
        fault = str(error)
    except typer.TyperException as error:
        fault = error.format_message() + _given(getattr(error, "param", None))
        if not fault:  # no arguments: the help was printed
            return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + signal.SIGPIPE
    except OSError as error:
        name = error.filename2 or error.filename
        fault = f"{name or 'standard output'}: {error.strerror or error}"
        if name is None:
            # Python would try to write the rest when it ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except MemoryError:
        fault = "memory: needed more than there is"
    _say(f"error: {fault}")
    return 2


def _nearest(error: UnicodeError) -> tuple[str, int]:
    """What a terminal shows that lacks a character: the nearest in ASCII, or its escape."""
    assert isinstance(error, UnicodeEncodeError)
    return "".join(NEAREST.get(c) or ascii(c)[1:-1]
                   for c in error.object[error.start:error.end]), error.end


codecs.register_error("nearest", _nearest)


def main() -> None:
    """Run the command line.

    Exit code: 0, 1 for a mismatch, 2 for a fault, 128 + its number for a signal (Ctrl-C: 130).
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="nearest")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # such as for gateware that an error left unused
    with _stoppable():
        code = _run()
    sys.exit(code)
