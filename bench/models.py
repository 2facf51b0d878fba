"""Networks that others made, from their ONNX files to hardware, beside published figures.

    python -m bench.models [--synth] [--limit SECONDS] [NAME ...]

NAME is a file of ../shared/models without its ending; without one, all are run.  Per file: layers,
bits of weights and activations, seconds to import and to lower, how golden agrees with the file's
own outputs, cycles per image, and LUTs on xcup, estimated or, with --synth, as Yosys counts them.
A row is printed when it is done; one that takes longer than the limit says so in its last cell.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from n2uq_hw.api import import_onnx
from n2uq_hw.builds import synth
from n2uq_hw.builds.emit import emit, load_build
from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.accelerator import module_name
from n2uq_hw.importers.onnx import check, read_samples
from n2uq_hw.ir import DepthwiseMatVec, Graph, MatVec, weight_bits
from n2uq_hw.lowering.lower import lower
from n2uq_hw.plan.choice import choose, sized

MODELS = Path(__file__).parents[2] / "shared" / "models"
FORMATS: dict[str, dict[str, Any]] = {  # of inputs that no quantizer reads
    "qkeras_mnist_cnn_w4w8a16": {"input_scale": 1 / 255, "input_bits": 8},
    "dvs_cnn_w2a2_ternary": {"input_bits": 2, "input_signed": True}}
CLOCK = 200              # MHz
FAMILY = "xcup"
LIMIT = 300              # seconds for a file
COLUMNS = {"file": 30, "layers": 6, "bits": 13, "import s": 8, "lower s": 7, "exact": 6,
           "cycles": 9, "images/s": 10, "LUT": 16}
PUBLISHED = json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))


def bits(graph: Graph) -> str:
    """Bits of weights and of what is multiplied with them, from the least to the most."""
    products = [node for node in graph.nodes if isinstance(node, MatVec | DepthwiseMatVec)]
    return " ".join(f"{letter}{_span(values)}" for letter, values in (
        ("W", [weight_bits(node.weights) for node in products]),
        ("A", [graph.reads(node)[0].width for node in products])))


def _span(values: list[int]) -> str:
    return str(min(values)) if min(values) == max(values) else f"{min(values)}–{max(values)}"


class Late(Exception):
    """The limit of a file is over."""


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """A block that ends with Late after so many seconds; programs that it runs end with it."""
    def ring(number: int, frame: object) -> None:
        raise Late

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def cells(name: str, *, counted: bool, work: Path) -> Iterator[str]:
    """A file's cells of the table, as they become known."""
    begin = time.perf_counter()
    imported = import_onnx(MODELS / f"{name}.onnx", **FORMATS.get(name, {}))
    read = time.perf_counter()
    graph = lower(imported.net)
    lowered = time.perf_counter()
    yield from (str(len(imported.net.layers)), bits(graph), f"{read - begin:.2f}",
                f"{lowered - read:.2f}")
    samples = read_samples(MODELS / f"{name}.npz")
    agrees = check(imported, samples)
    yield f"{agrees.rows}/{agrees.rows}" if agrees.exact else f"{agrees.worst_error:.0e}"
    plan = sized(graph, choose(graph, family=FAMILY), FAMILY)
    yield from (f"{plan.cycles:,.0f}", f"{CLOCK * 1e6 / plan.cycles:,.0f}")
    luts = plan.luts
    if counted:
        images = imported.prepare(samples.inputs)
        emit(graph, plan.sizing, work / name, images[:1], None)
        total = synth.synthesize(load_build(work / name).verilog, module_name(graph), FAMILY,
                                 dsp=False, work=work).total
        luts = total.lut + total.lutram
    yield f"{luts:,}"


def line(values: Sequence[str]) -> str:
    """Cells in their columns: the first to the left, the others to the right."""
    first, *others = COLUMNS.values()
    return "  ".join([f"{values[0]:<{first}}", *(
        f"{value:>{width}}" for value, width in zip(values[1:], others, strict=False))]).rstrip()


def run(console: Console, names: list[str], *, counted: bool = False, limit: int = LIMIT) -> None:
    """Print a row per file as it is done, and a published row behind those that have one."""
    def show(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)
        console.file.flush()

    how = "Yosys" if counted else "estimated"
    show(line([f"LUT, {how}" if column == "LUT" else column for column in COLUMNS]))
    published = {each["file"]: each for each in PUBLISHED["models"]["rows"]}
    with tempfile.TemporaryDirectory(prefix="n2uq-") as folder:
        for name in names:
            values = [name]
            try:
                with limited(limit):
                    for cell in cells(name, counted=counted, work=Path(folder)):
                        values.append(cell)
            except Late:
                values += [""] * (len(COLUMNS) - 1 - len(values)) + [f"not within {limit} s"]
            except N2uqError as error:
                values = [name, str(error)]
            show(line(values))
            if name in published:
                it = published[name]
                show(line([f"  {it['name']}", *[""] * 6, f"{it['images_per_second']:,}", "–"]))
    show("exact: rows whose outputs are the file's, to 1e-6 of their range, else the worst error; "
         f"images/s at {CLOCK} MHz; {PUBLISHED['models']['source']}")


def main(arguments: list[str]) -> int:
    """Run the files named, or all."""
    parser = argparse.ArgumentParser(prog="python -m bench.models", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--synth", action="store_true", help="count LUTs by Yosys: minutes")
    parser.add_argument("--limit", type=int, default=LIMIT, metavar="SECONDS",
                        help=f"for each file, from 1; default {LIMIT}")
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args(arguments)
    present = sorted(path.stem for path in MODELS.glob("*.onnx"))
    if unknown := [name for name in options.names if name not in present]:
        print(f"error: NAME must be a file of {MODELS}, not {unknown[0]}", file=sys.stderr)
        return 2
    if options.limit < 1:
        print(f"error: --limit must be at least 1 second, not {options.limit}", file=sys.stderr)
        return 2
    warnings.simplefilter("ignore")  # for gateware that the limit left unused
    run(Console(width=None if sys.stdout.isatty() else 150, highlight=False),
        options.names or present, counted=options.synth,
        limit=options.limit)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
