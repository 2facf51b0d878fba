"""Foldings, forms and bits of a network: all estimated, the promising ones synthesized."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__, tools
from ..cost.memories import FAMILIES
from ..errors import N2uqError, check_range
from ..files import whole_directory
from ..ir import Graph
from ..jobs import Failure, Job, Progress, key_of, run_jobs, sources
from ..lowering.formats import Formats
from ..lowering.lower import lower
from ..model import Net
from ..plan.problem import BLOCK_LUTS
from ..tables import Shown, Table, percent
from . import page
from .points import STYLES, agree, area, estimate, promising, ranks, synthesize

__all__ = ["Exploration", "Options", "explore"]

LIMIT = 6 * 3600.0  # seconds for one job
# What the results of the jobs come from.
_ESTIMATED = ("cost", "exploring/points.py", "hw", "ir", "names.py", "plan", "sim/timing")
_SYNTHESIZED = ("builds/emit.py", "builds/synth.py", "exploring/points.py", "hw", "ir", "names.py",
                "rtlil.py", "sim/timing", "templates/axis.v.j2", "templates/library.v.j2",
                "tools.py")
_AGREED = ("builds/accuracy.py", "builds/task.py", "data.py", "ir", "lowering", "model")
KINDS = ("lut", "lutram", "bram", "ff")
Row = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """What to explore.

    Members
    -------
    family: the device family, xcup or ecp5.
    budget: designs to synthesize, 0 or more.
    stem_bits, head_bits: bits of the weights of full-precision convolutions and linear layers;
        all pairs are tried where the network has such layers.
    styles: of `points.STYLES`; those beside the first are tried with the first pair of bits.
    clock: MHz, for images per second.
    cycles: the fewest and the most cycles per image.
    """

    family: str = "xcup"
    budget: int = 8
    stem_bits: tuple[int, ...] = (16, 12, 8)
    head_bits: tuple[int, ...] = (8, 6, 4)
    styles: tuple[str, ...] = STYLES
    clock: float = 200.0
    cycles: tuple[int, ...] = (1, 10**12)

    def __post_init__(self) -> None:
        for what, values, allowed in (("family", (self.family,), FAMILIES),
                                      ("styles", self.styles, STYLES)):
            for value in values:
                if value not in allowed:
                    raise N2uqError(f"{what} must be of {', '.join(allowed)}, "
                                    f"not {value or 'nothing'}")
        for what, chosen in (("styles", self.styles), ("stem-bits", self.stem_bits),
                             ("head-bits", self.head_bits)):
            if not chosen or len({*chosen}) < len(chosen):
                raise N2uqError(f"{what} must be one or more, each once, "
                                f"not {', '.join(map(str, chosen)) or 'none'}")
        if len(self.cycles) != 2 or not 1 <= self.cycles[0] <= self.cycles[1]:
            raise N2uqError("cycles must be the fewest and the most, 1 or more, "
                            f"not {', '.join(map(str, self.cycles)) or 'none'}")
        check_range("budget", self.budget, 0, 10_000, "designs")
        check_range("clock", self.clock, 0.001, 100_000, "MHz")


@dataclass(frozen=True, repr=False)
class Exploration(Shown):
    """The designs of a network, by images per second; none without an estimate.

    Members
    -------
    name, family, clock: the network's name, the device family, MHz.
    rows: of each design `name`, `style`, `stem_bits`, `head_bits`, `cycles_per_image` (exact),
        `images_per_second`, cells by kind as `estimated` and, where it was synthesized, `measured`
        (else None), `area_estimated` and `area_measured`, `agreement` of golden with the float
        model and `accuracy` (None without images), `front_estimated` and `front_measured`: whether
        no design is better in images per second, area and agreement; and its `folding` as YAML.
    versions: of the tools.
    images: how many the agreement is of.
    failures: a line for each job that failed.
    """

    name: str
    family: str
    clock: float
    rows: list[Row]
    versions: dict[str, str]
    images: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def front(self) -> list[Row]:
        """The designs that were synthesized and are on the Pareto front of these."""
        return [row for row in self.rows if row["front_measured"]]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; the same for the same network and options, wherever the jobs ran."""
        return {"n2uq-hw": __version__, "name": self.name, "family": self.family,
                "clock_mhz": self.clock, "block_luts": BLOCK_LUTS[self.family],
                "images": self.images, "versions": self.versions, "rows": self.rows,
                "failures": self.failures}

    def parts(self) -> list[str | Table]:
        """The designs that were synthesized, or, without any, those on the estimated front."""
        measured = [row for row in self.rows if row["measured"]]
        shown = measured or [row for row in self.rows if row["front_estimated"]]
        agreed = self.images > 0
        table = Table("design", "cycles", "images/s", "area estimated", "measured", "off",
                      *(f"{kind.upper()} {how}" for kind in ("lut", "bram")
                        for how in ("estimated", "measured")),
                      *["same class", "accuracy"] * agreed, "front")
        for row in shown:
            found, area = row["measured"], row["area_measured"]
            table.add_row(
                row["name"], f"{row['cycles_per_image']:,.0f}", f"{row['images_per_second']:,.0f}",
                f"{row['area_estimated']:,}", "–" if area is None else f"{area:,}",
                "–" if not area else f"{100 * (row['area_estimated'] / area - 1):+.1f} %",
                *(cell for kind in ("lut", "bram") for cell in (
                    f"{row['estimated'][kind]:,}", f"{found[kind]:,}" if found else "–")),
                *[percent(row["agreement"]), percent(row["accuracy"])] * agreed,
                "measured" if row["front_measured"] else
                "estimated" if row["front_estimated"] else "")
        return [f"{self.name} on {self.family} at {self.clock:g} MHz, without DSP blocks: "
                f"{len(self.rows):,} designs estimated, {len(measured):,} synthesized with Yosys "
                f"{self.versions['pyosys']}", table,
                f"area: LUTs, those that are memory included, and {BLOCK_LUTS[self.family]} for "
                "each block RAM; cycles are exact; off: estimated over measured; front: no design "
                "is better in images/s, area" + " and same class" * agreed]

    def write(self, out: str | Path) -> Path:
        """Write the folder `out`, whole or not at all: explore.json, report.html, foldings/.

        ``foldings/NAME.yaml`` are for ``build --folding``.  Returns the path of the page.
        """
        with whole_directory(Path(out), **{"n2uq-hw": __version__}) as part:
            (part / "explore.json").write_text(json.dumps(self.as_dict(), indent=1) + "\n",
                                               encoding="utf-8")
            (part / "foldings").mkdir()
            for row in self.rows:
                (part / "foldings" / f"{row['name']}.yaml").write_text(row["folding"],
                                                                      encoding="utf-8")
            (part / "report.html").write_text(page.page(self.as_dict()), encoding="utf-8")
        return Path(out) / "report.html"


def explore(net: Net, options: Options, cache: Path, *, images: np.ndarray | None = None,
            labels: np.ndarray | None = None, workers: int = 0, cluster: str = "",
            progress: Progress = lambda stage, done: None) -> Exploration:
    """Estimate all designs of `options`, synthesize the promising ones.

    Parameters
    ----------
    cache: folder of results, each by what it comes from: what is there is not made again.
    images, labels: integers [N, C, H, W] and [N], for golden's agreement with the float model.
    workers: processes side by side; 0 for one per core.
    cluster: as for `run_jobs`.

    The promising ones are the estimated Pareto front of cycles per image, area and agreement, and,
    within the budget, what would be the front without it; of a front that is too long, those whose
    rates lie farthest apart.
    """
    bench = _Bench(cache, workers or len(os.sched_getaffinity(0)), cluster, progress)
    versions = tools.wheels("pyosys", "amaranth")
    graphs = [*_graphs(net, options)]
    agreements = bench.run("agreement", [] if images is None else [
        (graph.name, Job(key_of("agreed", net.layers, net.input, _digest(
            *(net.params[key] for key in sorted(net.params))), graph.digest,
            _digest(images, labels), sources(_AGREED)), agree, (net, graph, images, labels)))
        for _, graph in graphs])
    asked = [(formats, graph, style, place) for place, (formats, graph) in enumerate(graphs)
             for style in (options.styles[:1] if place else options.styles)]
    estimates = bench.run("estimates", [
        (style, Job(key_of("estimated", graph.digest, options.family, style, sources(_ESTIMATED)),
                    estimate, (graph, options.family, style)))
        for _, graph, style, _ in asked])
    rows, of = list[Row](), dict[str, Graph]()
    for (formats, graph, style, place), found in zip(asked, estimates, strict=True):
        agreed = agreements[place] if agreements else None
        for point in found["points"] if found else ():
            if not options.cycles[0] <= point["cycles_per_image"] <= options.cycles[1]:
                continue
            row = _row(net, options, formats, style, point, agreed, len(graphs) > 1)
            if any(same["folding"] == row["folding"] and of[same["name"]] is graph
                   for same in rows):
                continue  # another style has it
            alike = sum(name == row["name"] or name.startswith(row["name"] + ".") for name in of)
            row["name"] += f".{alike + 1}" * (alike > 0)
            rows.append(row)
            of[row["name"]] = graph
    rows.sort(key=lambda row: (row["cycles_per_image"], row["area_estimated"], row["name"]))
    estimated = [_goal(row, "area_estimated") for row in rows]
    chosen = [rows[k] for k in promising(estimated, options.budget)]
    cells = bench.run("synthesis", [
        (row["name"], Job(key_of("cells", of[row["name"]].digest, row["folding"], options.family,
                                 sources(_SYNTHESIZED), versions), synthesize,
                          (of[row["name"]], row["folding"], options.family))) for row in chosen])
    for row, found in zip(chosen, cells, strict=True):
        if found is not None:
            row.update(measured=found, area_measured=area(found, options.family))
    measured = [row for row in rows if row["measured"]]
    for name, those, key in (("front_estimated", rows, "area_estimated"),
                             ("front_measured", measured, "area_measured")):
        for row, rank in zip(those, ranks([_goal(row, key) for row in those]), strict=True):
            row[name] = rank == 0
    return Exploration(net.name, options.family, options.clock, rows, versions,
                       0 if images is None else len(images), bench.failures)


class _Bench:
    """Where jobs run; what failed."""

    def __init__(self, cache: Path, workers: int, cluster: str, progress: Progress) -> None:
        self.cache, self.workers, self.cluster = cache, workers, cluster
        self.progress = progress
        self.failures: list[str] = []

    def run(self, stage: str, named: Sequence[tuple[str, Job]]) -> list[Row | None]:
        """The results in their order; None, and a line, for each that failed."""
        if not named:
            return []
        results = run_jobs([job for _, job in named], self.cache, workers=self.workers,
                           limit=LIMIT, cluster=self.cluster,
                           progress=lambda done: self.progress(stage, done))
        self.failures += [f"{name}, {stage}: {result.text}" for (name, _), result
                          in zip(named, results, strict=True) if isinstance(result, Failure)]
        return [None if isinstance(result, Failure) else result for result in results]


def _graphs(net: Net, options: Options) -> Iterator[tuple[Formats, Graph]]:
    """Each graph that the bits of `options` make, once, with the first of these."""
    seen = set[str]()
    for stem, head in product(options.stem_bits, options.head_bits):
        formats = Formats(stem_bits=stem, head_bits=head)
        graph = lower(net, formats)
        if graph.digest not in seen:
            seen.add(graph.digest)
            yield formats, graph


def _digest(*arrays: np.ndarray | None) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        if array is not None:
            digest.update(repr((array.dtype.str, array.shape)).encode() + array.tobytes())
    return digest.hexdigest()


def _row(net: Net, options: Options, formats: Formats, style: str, point: Row,
         agreed: Row | None, by_bits: bool) -> Row:
    cycles = point["cycles_per_image"]
    bits = f"-s{formats.stem_bits}h{formats.head_bits}" * by_bits
    return {"name": f"{style}-{cycles:.0f}{bits}", "style": style, "stem_bits": formats.stem_bits,
            "head_bits": formats.head_bits, "cycles_per_image": cycles,
            "images_per_second": round(options.clock * 1e6 / cycles, 3),
            "estimated": point["estimated"], "measured": None,
            "area_estimated": area(point["estimated"], options.family), "area_measured": None,
            "agreement": agreed and agreed["top1_agreement"],
            "error": agreed and agreed["worst_logit_error"],
            "accuracy": agreed and agreed["accuracy"],
            "front_estimated": False, "front_measured": False, "folding": point["folding"]}


def _goal(row: Row, key: str) -> tuple[float, ...]:
    """What a design is judged by: the less the better."""
    agreement = row["agreement"]
    return (row["cycles_per_image"], float(row[key]),
            -agreement if agreement is not None else row["error"] or 0.0)
