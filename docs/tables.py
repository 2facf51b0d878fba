"""Tables of the pages whose numbers take hours to measure, made from the results that are kept.

A table stands below a line ``<!-- table NAME -->``.  Its rows are in ``results/NAME.json``, with
the command that measured them, the date and the versions of the tools.  ``python docs/figures.py
--kept`` takes them from the compare.json of the page's ``n2uq-hw compare --out NAME``;
``python -m bench.unrolled --mnist --keep xcup`` writes its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from n2uq_hw.builds.control import registers_table
from n2uq_hw.train.study import STUDIES

__all__ = ["RESULTS", "TABLES", "kept", "remade", "standing", "write"]

RESULTS = Path(__file__).with_name("results")
PUBLISHED = Path(__file__).parents[1] / "bench" / "published.json"
TABLE = re.compile(r"^<!-- table (?P<name>\w+) -->\n(?P<body>(?:\|.*\n)*)", re.MULTILINE)
REGISTERS = re.compile(r"^<!-- registers -->\n(?:\|.*\n)*", re.MULTILINE)
Row = Mapping[str, Any]


def kept(name: str, comparison: Mapping[str, Any], command: str) -> dict[str, Any]:
    """What the table `name` needs of a compare.json."""
    keys, rows = COMPARED[name](comparison)
    return {"command": command, "date": str(date.today()), "n2uq-hw": comparison["n2uq-hw"],
            "versions": comparison["versions"],
            "rows": [{key: row[key] for key in keys} for row in rows]}


def write(name: str, result: Mapping[str, Any]) -> None:
    """Write a file of results, a line for each row."""
    head = json.dumps({key: value for key, value in result.items() if key != "rows"},
                      ensure_ascii=False, indent=1).removesuffix("\n}")
    rows = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in result["rows"])
    (RESULTS / f"{name}.json").write_text(f'{head},\n "rows": [\n{rows}\n ]\n}}\n',
                                          encoding="utf-8")


def smallest(rows: Iterable[Row]) -> list[Row]:
    """The design of each method, bits and family with the fewest LUTs."""
    best: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        point = row["method"], row["weight_bits"], row["family"]
        if row["luts"] is not None and (
                point not in best or row["luts"] < best[point]["luts"]):
            best[point] = row
    return list(best.values())


COMPARED: dict[str, Callable[[Mapping[str, Any]], tuple[tuple[str, ...], Sequence[Row]]]] = {
    "mvu": lambda run: (("method", "bits", "top1", "size"), run["imagenet"]),
    "network": lambda run: (("net", "method", "bits", "mean", "std", "differs", "size"),
                              run["trained"]),
    "fmax": lambda run: (("method", "weight_bits", "family", "luts", "fmax_mhz",
                            "gmacs_per_kilolut"), smallest(run["rows"])),
}


def standing(text: str) -> dict[str, str]:
    """The tables that stand in a page, by name."""
    return {match["name"]: match["body"] for match in TABLE.finditer(text)}


def remade(text: str) -> str:
    """The page with its tables made anew from the results, and that of registers from its source.
    """
    text = REGISTERS.sub(lambda match: f"<!-- registers -->\n{registers_table()}", text)
    return TABLE.sub(lambda match: f"<!-- table {match['name']} -->\n"
                     + TABLES[match["name"]](json.loads(
                         (RESULTS / f"{match['name']}.json").read_text(encoding="utf-8"))), text)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "".join([f"| {' | '.join(head)} |\n", f"|{'---|' * len(head)}\n",
                    *(f"| {' | '.join(row)} |\n" for row in rows)])


def _by_method(rows: Iterable[Row], *columns: str) -> dict[str, dict[Any, Row]]:
    """The rows of each method, by what tells the columns of a table apart."""
    methods: dict[str, dict[Any, Row]] = {}
    for row in rows:
        methods.setdefault(row["method"], {})[tuple(row[key] for key in columns)] = row
    return methods


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,}"


def imagenet(measured: Mapping[str, Any]) -> str:
    """Top-1 as published beside LUTs of a layer, the most accurate at the fewest bits first."""
    bits = sorted({row["bits"] for row in measured["rows"]})
    methods = sorted(_by_method(measured["rows"], "bits").items(),
                     key=lambda item: -item[1][bits[0],]["top1"])
    return _table(["", *(text for n in bits for text in (f"{n} bits", "LUTs"))], [
        [method, *(text for n in bits for text in (
            str(rows[n,]["top1"]), _number(rows[n,]["size"])))] for method, rows in methods])


def speeds(measured: Mapping[str, Any]) -> str:
    """LUTs, MHz and GMAC/s per 1,000 LUTs of each method's smallest design."""
    columns = sorted({(row["family"], row["weight_bits"]) for row in measured["rows"]})
    return _table(["", *(f"{family}, {n} bits" for family, n in columns)], [
        [method, *("–" if rows[at]["fmax_mhz"] is None else
                   f"{rows[at]['luts']:,} at {rows[at]['fmax_mhz']:.0f}: "
                   f"{rows[at]['gmacs_per_kilolut']:.1f}" for at in columns)]
        for method, rows in _by_method(measured["rows"], "family", "weight_bits").items()])


def trained(measured: Mapping[str, Any]) -> str:
    """Accuracies of nets trained alike beside LUTs; a star where N2UQ's differs."""
    nets = list(dict.fromkeys(row["net"] for row in measured["rows"]))
    (bits,) = {row["bits"] for row in measured["rows"]}
    return _table([f"{bits} bits", *(
        text for net in nets for text in (STUDIES[net].title, "LUTs"))], [
        [method, *(text for net in nets for text in (
            f"{rows[net,]['mean']:.2f} ± {rows[net,]['std']:.2f}{'*' * rows[net,]['differs']}",
            _number(rows[net,]["size"])))]
        for method, rows in _by_method(measured["rows"], "net").items()])


def in_logic(measured: Mapping[str, Any]) -> str:
    """The MNIST MLP in logic beside published networks."""
    others = json.loads(PUBLISHED.read_text(encoding="utf-8"))["mnist_in_logic"]["rows"]
    return _table(["", "accuracy", "LUT", "FF", "Fmax MHz", "latency"], [*(
        [f"ours, {row['family']}, Yosys {measured['versions']['pyosys']}",
         f"{row['accuracy']:.2f} %", _number(row["lut"]), _number(row["ff"]),
         _number(row["fmax_mhz"]), f"{row['cycles']} cycles"] for row in measured["rows"]), *(
        [row["name"], f"{row['accuracy']} %", _number(row["lut"]), _number(row["ff"]),
         _number(row["fmax_mhz"]), f"{row['latency_ns']} ns"] for row in others)])


def proofs(result: Mapping[str, Any]) -> str:
    """A line per unit: how each property was proven, and in how long."""
    units: dict[str, list[Row]] = {}
    for row in result["rows"]:
        units.setdefault(row["unit"], []).append(row)
    return _table(
        ["Unit", *(row["property"] for row in next(iter(units.values()))), "Images", "s"],
        ([unit, *(row["how"] if row["found"] == "proven" else f"**{row['found']}**"
                  for row in rows),
          str(rows[-1]["images"]), f"{sum(row['seconds'] for row in rows):.1f}"]
         for unit, rows in units.items()))


def written(result: Mapping[str, Any]) -> str:
    """What each part of the parameters costs as memory that can be written."""
    cells = {"lut": "LUT", "ff": "FF", "bram": "BRAM18", "lutram": "LUTRAM"}
    return _table(["Written", *(name for of in cells.values() for name in (of, "estimated"))], (
        [row["written"], *(f"{count:,}" for of in cells for count in (
            row[of], row["estimate"][of]))] for row in result["rows"]))


def many_images(result: Mapping[str, Any]) -> str:
    """Images that ran, of how many were asked for, and what they showed."""
    return _table(["Network", "Images", "Cycles", "Mismatches", "Cycles as predicted"], (
        [f"`{row['network']}`, {row['how']}", f"{row['images']:,}" + (
            f" of {row['asked']:,}" if row["images"] < row["asked"] else ""),
         f"{row['cycles']:,}", str(row["mismatches"]), "all" if row["exact"] else "**no**"]
        for row in result["rows"]))


MODELS = ("file", "bits", "layers", "cycles per image", "images/s", "LUT on xcup", "published")


def of_others(result: Mapping[str, Any]) -> str:
    """Networks of others, imported: a line each, its cells as the bench prints them."""
    return _table(MODELS, ([row[name] for name in MODELS] for row in result["rows"]))


def mutated(result: Mapping[str, Any]) -> str:
    """A row per file: what became of its mutants."""
    return _table(("File", "Mutants", "Tried", "Dead: test", "Dead: proof", "Same Verilog",
                   "Equal by proof", "Survive", "Score", "On"),
                  ((f"`{row['file']}`", *(str(row[key]) for key in (
                      "mutants", "tried", "test", "proof", "same", "equal", "survive")),
                    f"{row['score']:.1%}", row["date"]) for row in result["rows"]))


def trees(result: Mapping[str, Any]) -> str:
    """A PE of each size as a compressor tree, beside FINN's."""
    return _table(("Lanes", "Bits", "LUT", "FF", "Cycles", "FINN's LUT", "Ratio"),
                  ([*(f"{row[key]:,}" for key in ("lanes", "bits", "luts", "ff", "cycles", "finn")),
                    f"{row['luts'] / row['finn']:.2f}"] for row in result["rows"]))


def of_cluster(result: Mapping[str, Any]) -> str:
    """What a job costs a cluster."""
    return _table(("What", "Measured"), ((row["what"], row["value"]) for row in result["rows"]))


def switching(result: Mapping[str, Any]) -> str:
    """A row per design, beside that of N2UQ's which switches least."""
    base = min((row for row in result["rows"] if row["method"] == "N2UQ"),
               key=lambda row: float(row["all"]))
    return _table(("Format", "Design", "LUT", "Cycles per image", "Low-bit layer", "Beside N2UQ",
                   "Network", "Beside N2UQ"),
                  ((row["method"], f"`{row['design']}`", f"{row['luts']:,}",
                    f"{row['cycles']:,.1f}", f"{row['layers']:,.0f}",
                    f"{row['layers'] / base['layers']:.2f}", f"{row['all']:,.0f}",
                    f"{row['all'] / base['all']:.2f}") for row in result["rows"]))


TABLES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "mvu": imagenet, "fmax": speeds, "network": trained, "mnist_in_logic": in_logic,
    "formal": proofs, "writable": written, "models": of_others,
    "long": many_images, "mutation": mutated, "compressor": trees, "cluster": of_cluster,
    "energy": switching}
