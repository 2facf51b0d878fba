"""What a comparison says: who is best where, every case that N2UQ loses, tables and plots."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from markdown_it import MarkdownIt
from markupsafe import Markup

from .. import __version__, charts
from ..builds.synth import FAMILIES
from ..files import whole_directory
from ..templates import render
from ..train.study import LEARNED, STUDIES, Study, load_rows, studies, summaries
from .gates import STREAMS
from .measure import COLUMNS, GATES, Comparison, Row, Settings
from .subjects import BEATS

__all__ = ["METRICS", "Contest", "Loss", "contests", "losses", "write"]

# What is compared: title and whether less is better.
METRICS = {
    "luts": ("LUTs", True), "ff": ("flip-flops", True), "bram": ("block RAMs", True),
    "dsp": ("DSP blocks", True), "latency": ("latency, cycles", True),
    "fmax_mhz": ("Fmax, MHz", False), "gmacs_per_kilolut": ("GMAC/s per 1,000 LUTs", False),
    "lut_ns": ("LUTs × ns", True), "transistors": ("transistors", True),
    "activity": ("switching activity (a proxy of energy)", True),
}
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
HATCHES = ("", "///", "...", "xxx", "---")
TINTS = ("faint", "line", "muted")
MARKERS = "os^Dv*Px<>"
PUBLISHED = "ResNet-18 top-1, % (published)"
OWN = "test accuracy, %, mean and standard deviation over seeds"
MARK = "compare.json"  # what tells a folder of results
LITERATURE = Path(__file__).parent / "literature.json"


@dataclass(frozen=True)
class Contest:
    """The best of each side at one point, by LUTs or transistors.

    Members
    -------
    ours: N2UQ's best form; None where none was measured.
    theirs, written: the best nonuniform design, and the best whose tables are written at run time.
    """

    point: tuple[Any, ...]
    ours: Row | None
    theirs: Row | None
    written: Row | None


@dataclass(frozen=True)
class Loss:
    """Another design that beats N2UQ's best form (by LUTs or transistors) in some metric."""

    row: Row
    ours: Row
    metric: str

    @property
    def values(self) -> tuple[float, float]:
        """The design's, and N2UQ's."""
        return getattr(self.row, self.metric), getattr(self.ours, self.metric)


def size(row: Row) -> int | None:
    """What decides which form is best: LUTs, or transistors."""
    return row.transistors if row.family == GATES else row.luts


def _ours(row: Row) -> bool:
    return row.uniform and row.trained in ("", "N2UQ")


def _best(rows: Iterable[Row]) -> Row | None:
    measured = [row for row in rows if size(row) is not None]
    return min(measured, key=lambda row: (size(row), row.ff, row.latency), default=None)


def contests(rows: Sequence[Row]) -> list[Contest]:
    """One for each point, in the order of `rows`."""
    pairs = []
    for point, group in _points(rows).items():
        theirs = [row for row in group if not row.uniform]
        pairs.append(Contest(point, _best(row for row in group if _ours(row)), _best(theirs),
                             _best(row for row in theirs if row.writable)))
    return pairs


def bits_of(weight_bits: int, act_bits: int) -> str:
    """Bits of weights and activations; a quantizer has no weights."""
    return f"{weight_bits}×{act_bits}" if weight_bits else str(act_bits)


def cells(contest: Contest) -> list[str]:
    """A line of the table of contests: bits, lanes, family, and design and size of each side."""
    _, weight_bits, act_bits, lanes, family, dsp, case = contest.point
    sides = [("–", None) if row is None else (row.design, size(row))
             for row in (contest.ours, contest.theirs)]
    (_, ours), (_, theirs) = sides
    return [bits_of(weight_bits, act_bits),
            f"{case}{', ' * bool(case)}{lanes}", f"{family}{', DSP blocks' * dsp}",
            *(text for name, value in sides for text in
              (name, "–" if value is None else f"{value:,}")),
            f"{theirs / ours:.2f}" if ours and theirs else "–"]


def losses(rows: Sequence[Row]) -> list[Loss]:
    """Every other design, point and metric in which N2UQ's best form is worse."""
    worse = []
    for _, group in _points(rows).items():
        ours = _best(row for row in group if _ours(row))
        for row in group:
            if ours is None or _ours(row) or size(row) is None:
                continue
            for metric, (_, less) in METRICS.items():
                value, own = getattr(row, metric), getattr(ours, metric)
                if None not in (value, own) and (value < own if less else value > own):
                    worse.append(Loss(row, ours, metric))
    return worse


def _by(rows: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """The rows of each key, in the order in which they come."""
    groups: dict[K, list[T]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def _points(rows: Iterable[Row]) -> dict[tuple[Any, ...], list[Row]]:
    return _by(rows, lambda row: row.point)


def _accuracy(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """ImageNet top-1 of each published method beside the cost of the widest array that fits it.

    A method's hardware is the cheapest of the designs that can hold its levels.  At level "mvu" it
    is a layer of ResNet-18; a whole network is another than ImageNet's, a quantizer none.
    """
    if rows[0].level not in ("lane", "mvu"):
        return []
    table = json.loads(LITERATURE.read_text(encoding="utf-8"))["imagenet"]
    widest = max(row.lanes for row in rows)
    lines = []
    for point, group in _points(row for row in rows if row.lanes == widest).items():
        _, weight_bits, act_bits, _, family, dsp, _ = point
        if weight_bits != act_bits or weight_bits not in table["bits"]:
            continue
        for method, entry in table["methods"].items():
            best = _best(row for row in group if row.method in entry["designs"])
            if best is not None:
                lines.append({
                    "method": method, "bits": weight_bits, "lanes": widest, "family": family,
                    "dsp_blocks": dsp, "top1": entry["top1"][table["bits"].index(weight_bits)],
                    "design": best.design, "size": size(best)})
    return lines


def _trained(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Accuracies of nets trained alike beside the cost of the widest array that computes them.

    A method's hardware is the cheapest of the designs with its levels; of whole networks, of the
    one that was trained.
    """
    level = rows[0].level if rows else ""
    return [each for study in studies(level) for each in _of_study(study, [
        row for row in rows if level != "network" or row.case.startswith(study.net)])]


def _of_study(study: Study, rows: Sequence[Row]) -> list[dict[str, Any]]:
    lines = []
    results = summaries(load_rows(study.results)) if rows else []
    widest = max((row.lanes for row in rows), default=0)
    for point, group in _points(row for row in rows if row.lanes == widest).items():
        _, weight_bits, act_bits, _, family, dsp, _ = point
        for each in results:
            best = _best(row for row in group if row.trained == each.method)
            if best is not None and weight_bits == act_bits == each.bits:
                lines.append({"net": study.net, **asdict(each), "differs": each.differs,
                              "lanes": widest, "family": family, "dsp_blocks": dsp,
                              "design": best.design, "size": size(best)})
    return lines


def _references(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Figures that were known before, beside the measured ones of the same designs."""
    known = json.loads(LITERATURE.read_text(encoding="utf-8"))["reference_points"]
    points = []
    for title, entry in known["designs"].items():
        for bits, luts in zip(known["bits"], entry["luts"], strict=True):
            best = _best(row for row in rows if row.family == known["family"]
                         and row.level == "lane"
                         and row.lanes == known["lanes"] and not row.dsp_blocks
                         and row.weight_bits == row.act_bits == bits
                         and row.trained not in LEARNED
                         and row.design.startswith(tuple(entry["names"])))
            if best is not None:
                points.append({"title": title, "bits": bits, "known": luts, "design": best.design,
                               "luts": best.luts})
    return points


def _csv(rows: Sequence[Row]) -> str:
    """Of all rows; lists have spaces between, what is unknown is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([" ".join(map(str, value)) if isinstance(value, tuple) else
                         int(value) if isinstance(value, bool) else value
                         for value in asdict(row).values()])
    return text.getvalue()


def described(comparison: Comparison, settings: Settings) -> dict[str, Any]:
    """All that was found, JSON-ready."""
    return {
        "n2uq-hw": __version__, "versions": comparison.versions,
        "options": {name: getattr(settings, name) for name in (
            "level", "bits", "lanes", "families", "dsps", "routed", "seeds", "together")},
        "rows": [asdict(row) for row in comparison.rows],
        "best": [{"point": contest.point, **{
            side: None if row is None else {"design": row.design, "size": size(row)}
            for side, row in (("ours", contest.ours), ("theirs", contest.theirs),
                              ("written", contest.written))}}
            for contest in contests(comparison.rows)],
        "losses": [{"design": loss.row.design, "point": loss.row.point, "metric": loss.metric,
                    "value": loss.values[0], "ours": loss.ours.design,
                    "our_value": loss.values[1]} for loss in losses(comparison.rows)],
        "imagenet": _accuracy(comparison.rows),
        "trained": _trained(comparison.rows),
        "reference_points": _references(comparison.rows),
        "failures": comparison.failures}


def write(comparison: Comparison, settings: Settings, out: Path) -> dict[str, Any]:
    """Write the folder `out`, whole or not at all; returns what its compare.json holds."""
    summary = described(comparison, settings)
    with whole_directory(out, **{"n2uq-hw": __version__}) as part:
        (part / "compare.csv").write_text(_csv(comparison.rows), encoding="utf-8")
        (part / MARK).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
        pictures = _plots(comparison.rows, summary, part)
        text = _report(comparison, settings, summary, list(pictures))
        (part / "report.md").write_text(text, encoding="utf-8")
        (part / "report.html").write_text(_page(text, pictures), encoding="utf-8")
    return summary


def _report(comparison: Comparison, settings: Settings, summary: Mapping[str, Any],
            pictures: Sequence[str]) -> str:
    """report.md."""
    literature = json.loads(LITERATURE.read_text(encoding="utf-8"))
    tables: dict[str, dict[str, dict[int, Row]]] = {}
    notes: dict[str, list[str]] = {}
    for row in comparison.rows:
        title = (f"{row.family}{', DSP blocks' * row.dsp_blocks}, {row.case}"
                 f"{', ' * bool(row.case)}{row.lanes} lanes")
        if size(row) is not None:
            tables.setdefault(title, {}).setdefault(row.design, {})[row.act_bits] = row
        if row.note:
            notes.setdefault(row.note, []).append(f"{row.design}, {row.act_bits} bits, {title}")
    dots = sorted({row.compared_dots for row in comparison.rows if row.compared_dots})
    dots = list(dict.fromkeys((*dots[:1], *dots[-1:])))
    return render(
        "compare.md.j2", version=__version__, versions=comparison.versions, level=settings.level,
        rows=comparison.rows, contests=contests(comparison.rows), losses=losses(comparison.rows),
        gates=GATES, size=size, bits_of=bits_of, metrics=METRICS, imagenet=summary["imagenet"],
        notes=notes,
        source=literature["imagenet"]["source"], references=summary["reference_points"],
        reference_source=literature["reference_points"]["source"], failures=comparison.failures,
        tables=[(title, settings.bits, lines) for title, lines in tables.items()],
        families=list(_by(summary["imagenet"], lambda row: (row["family"], row["dsp_blocks"]))),
        accuracy=_by(summary["imagenet"], lambda row: (row["method"], row["bits"], row["top1"])),
        rounded=sorted({(row.design, row.act_bits, row.rounding) for row in comparison.rows
                        if row.rounding}),
        studies=[(STUDIES[net], _by(group, lambda row: (row["method"], row["bits"])))
                 for net, group in _by(summary["trained"], lambda row: row["net"]).items()],
        pictures=pictures, seeds=settings.seeds, routed=settings.routed, beats=BEATS,
        streams=STREAMS, together=settings.together, dots=" to ".join(f"{n:,}" for n in dots),
        commands={family: FAMILIES[family] for family in settings.families if family != GATES},
        toggled_by=", ".join(sorted({row.toggled_by for row in comparison.rows if row.toggled_by})))


def _page(text: str, pictures: Mapping[str, Markup]) -> str:
    """The report `text`, in Markdown, as an HTML page, its pictures in front."""
    for name in pictures:
        text = text.replace(f"![{name}]({name})\n", "")
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    body = body.replace("<table>", '<div class="scroll" tabindex="0" role="region" '
                        'aria-label="Table"><table>').replace("</table>", "</table></div>")
    title, _, body = body.partition("</h1>")
    return render("compare.html.j2", theme=charts.THEME, version=__version__,
                  title=Markup(title.removeprefix("<h1>")), body=Markup(body),
                  pictures=list(pictures.values()))


def _plots(rows: Sequence[Row], summary: Mapping[str, Any], folder: Path) -> dict[str, Markup]:
    """Plots as SVG and PNG in `folder`; by the names of the SVG files, the same for a page."""
    from matplotlib.figure import Figure

    drawn = {}
    with charts.style("n2uq-hw"):
        for name, figure, label in (
                *_bars(rows, Figure),
                *_curves(summary["imagenet"], "imagenet", "top1", PUBLISHED, Figure),
                *(curve for net, group in _by(summary["trained"], lambda row: row["net"]).items()
                  for curve in _curves(group, net, "mean", f"{STUDIES[net].title}, {OWN}",
                                       Figure))):
            for suffix in ("svg", "png"):
                figure.savefig(folder / f"{name}.{suffix}", dpi=150,
                               metadata={"Date": None} if suffix == "svg" else None)
            drawn[f"{name}.svg"] = charts.inline(figure, name, label)
    return drawn


def _bars(rows: Sequence[Row], figure_type: Any) -> Iterator[tuple[str, Any, str]]:
    """Per family, the least size of each method: a panel per number of lanes, a bar per bits.

    Name, figure, and what it shows as text.
    """
    for (family, dsp), group in _by(rows, lambda row: (row.family, row.dsp_blocks)).items():
        lanes = sorted({row.lanes for row in group})
        methods = list(dict.fromkeys(row.method for row in group))
        bits = sorted({row.act_bits for row in group})
        figure = figure_type(figsize=(3.2 + 2.6 * len(lanes), 1.2 + 0.2 * len(methods) * len(bits)),
                             layout="constrained")
        panels = figure.subplots(1, len(lanes), sharey=True, squeeze=False)[0]
        label = []
        for panel, width in zip(panels, lanes, strict=True):
            for place, each in enumerate(bits):
                best = [_best(row for row in group if (row.lanes, row.act_bits, row.method)
                              == (width, each, method)) for method in methods]
                sizes = [0 if row is None else size(row) for row in best]
                label += [f"{method}, {each} bits, {width} lanes: {n:,}"
                          for method, n in zip(methods, sizes, strict=True) if n]
                at = [k + (place + 0.5) * 0.8 / len(bits) - 0.4 for k in range(len(methods))]
                bars = panel.barh(at, sizes, height=0.8 / len(bits), edgecolor=charts.color("ink"),
                                  color=charts.color(TINTS[place % len(TINTS)]),
                                  hatch=HATCHES[place % len(HATCHES)], label=f"{each} bits")
                panel.bar_label(bars, [f"{n:,}" if n else "–" for n in sizes], padding=2)
            panel.set(title=f"{width} lanes",
                      xlabel="transistors" if family == GATES else "LUTs")
            panel.margins(x=0.2)
        panels[0].set(yticks=range(len(methods)), yticklabels=methods)
        panels[0].invert_yaxis()
        title = f"{family}{', DSP blocks' * dsp}: best form of each method"
        figure.suptitle(title)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center",
                      ncols=len(bits), frameon=False)
        yield f"size_{family}{'_dsp' * dsp}", figure, f"{title}: {'; '.join(label)}"


def _curves(accuracy: Sequence[Mapping[str, Any]], name: str, key: str, title: str,
            figure_type: Any) -> Iterator[tuple[str, Any, str]]:
    """Per family, accuracy `key` over size: a line with a marker of its own per method.

    Bars show one standard deviation where rows have it.  Name, figure, and what it shows as text.
    """
    for (family, dsp), group in _by(accuracy, lambda row: (row["family"], row["dsp_blocks"])
                                    ).items():
        figure = figure_type(figsize=(7, 4.5), layout="constrained")
        panel = figure.subplots()
        for k, (method, points) in enumerate(_by(group, lambda row: row["method"]).items()):
            line = panel.plot([row["size"] for row in points], [row[key] for row in points],
                              marker=MARKERS[k % len(MARKERS)], label=method, color=f"C{k}",
                              linestyle=("-", "--", ":", "-.")[k % 4], fillstyle="none")[0]
            for row in points:
                panel.annotate(str(row["bits"]), (row["size"], row[key]), xytext=(4, -8),
                               textcoords="offset points", color=line.get_color())
                if "std" in row:
                    panel.errorbar(row["size"], row[key], yerr=row["std"], capsize=2,
                                   color=line.get_color(), linewidth=0.7)
        panel.set(xscale="log", ylabel=title,
                  xlabel=f"{'transistors' if family == GATES else 'LUTs'} of "
                         f"{group[0]['lanes']} lanes, {family}{', DSP blocks' * dsp} (measured)",
                  title="Accuracy over cost; numbers are bits")
        for axis in (panel.xaxis.set_major_formatter, panel.xaxis.set_minor_formatter):
            axis("{x:,.0f}")
        panel.legend(frameon=False)
        yield f"{name}_{family}{'_dsp' * dsp}", figure, f"{title} over size on {family}: " + (
            "; ".join(f"{row['method']}, {row['bits']} bits: {row['size']:,}, {row[key]:.2f}"
                      for row in group))
