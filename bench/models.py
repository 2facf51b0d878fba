"""Networks that others made, from their ONNX files to hardware, beside published figures.

    python -m bench.models [--synth] [NAME ...]

NAME is a file of ../shared/models without its ending; without one, all are run.  Per file: layers,
bits of weights and activations, seconds to import and to lower, how golden agrees with the file's
own outputs, cycles per image, and LUTs on xcup, estimated or, with --synth, as Yosys counts them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

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
PUBLISHED = json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))


def bits(graph: Graph) -> str:
    """Bits of weights and of what is multiplied with them, from the least to the most."""
    products = [node for node in graph.nodes if isinstance(node, MatVec | DepthwiseMatVec)]
    return " ".join(f"{letter}{_span(values)}" for letter, values in (
        ("W", [weight_bits(node.weights) for node in products]),
        ("A", [graph.reads(node)[0].width for node in products])))


def _span(values: list[int]) -> str:
    return str(min(values)) if min(values) == max(values) else f"{min(values)}–{max(values)}"


def row(name: str, *, counted: bool, work: Path) -> list[str]:
    """A file's cells of the table."""
    begin = time.perf_counter()
    imported = import_onnx(MODELS / f"{name}.onnx", **FORMATS.get(name, {}))
    read = time.perf_counter()
    graph = lower(imported.net)
    lowered = time.perf_counter()
    samples = read_samples(MODELS / f"{name}.npz")
    agrees = check(imported, samples)
    plan = sized(graph, choose(graph, family=FAMILY), FAMILY)
    luts = plan.luts
    if counted:
        images = imported.prepare(samples.inputs)
        emit(graph, plan.sizing, work / name, images[:1], None)
        total = synth.synthesize(load_build(work / name).verilog, module_name(graph), FAMILY,
                                 dsp=False, work=work).total
        luts = total.lut + total.lutram
    return [name, str(len(imported.net.layers)), bits(graph), f"{read - begin:.2f}",
            f"{lowered - read:.2f}", f"{agrees.rows}/{agrees.rows}" if agrees.exact else
            f"{agrees.worst_error:.0e}", f"{plan.cycles:,.0f}",
            f"{CLOCK * 1e6 / plan.cycles:,.0f}", f"{luts:,}"]


def run(console: Console, names: list[str], *, counted: bool = False) -> None:
    """Print the table, a row per file, and a published row behind those that have one."""
    table = Table(box=None, pad_edge=False)
    how = "Yosys" if counted else "estimated"
    for k, column in enumerate((
            "file", "layers", "bits", "import s", "lower s", "exact", "cycles", "images/s",
            f"LUT, {how}")):
        table.add_column(column, justify="right" if k else "left", no_wrap=True)
    published = {each["file"]: each for each in PUBLISHED["models"]["rows"]}
    with tempfile.TemporaryDirectory(prefix="n2uq-") as folder:
        for name in names:
            try:
                table.add_row(*row(name, counted=counted, work=Path(folder)))
            except N2uqError as error:
                table.add_row(name, str(error))
            if name in published:
                it = published[name]
                table.add_row(f"  {it['name']}", *[""] * 6, f"{it['images_per_second']:,}", "–")
    console.print(table, "exact: rows whose outputs are the file's, to 1e-6 of their range, else "
                  f"the worst error; images/s at {CLOCK} MHz; {PUBLISHED['models']['source']}")


def main(arguments: list[str]) -> int:
    """Run the files named, or all."""
    parser = argparse.ArgumentParser(prog="python -m bench.models", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--synth", action="store_true", help="count LUTs by Yosys: minutes")
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args(arguments)
    present = sorted(path.stem for path in MODELS.glob("*.onnx"))
    if unknown := [name for name in options.names if name not in present]:
        print(f"error: NAME must be a file of {MODELS}, not {unknown[0]}", file=sys.stderr)
        return 2
    run(Console(width=None if sys.stdout.isatty() else 150, highlight=False),
        options.names or present, counted=options.synth)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
