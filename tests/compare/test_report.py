"""What a comparison says: who is best, what is lost, accuracy beside cost."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from comparisons import SMALL, row

from n2uq_hw.compare import report
from n2uq_hw.compare.measure import Comparison
from n2uq_hw.compare.report import contests, losses
from n2uq_hw.train import study

ROWS = [row("uniform a", 90, latency=2), row("uniform b", 80, ff=11, fmax_mhz=100.0),
        row("book", 85, ff=11, fmax_mhz=101.0), row("written", 79, ff=12, writable=True),
        row("failed", None, error="no"),
        replace(row("book", 5), lanes=16), replace(row("uniform a", 6), lanes=16)]


def test_each_side_has_one_best_form() -> None:
    first, second = contests(ROWS)
    assert first.ours is ROWS[1] and first.theirs is first.written is ROWS[3]
    assert second.ours is ROWS[6] and second.theirs is ROWS[5] and second.written is None
    assert report.cells(first) == ["2×2", "8", "ecp5", "uniform b", "80", "written", "79",
                                       "0.99"]


def test_every_case_that_is_lost() -> None:
    lost = [(loss.row.design, loss.row.lanes, loss.metric, loss.values) for loss in losses(ROWS)]
    assert lost == [("book", 8, "fmax_mhz", (101.0, 100.0)), ("written", 8, "luts", (79, 80)),
                    ("book", 16, "luts", (5, 6))]


def test_a_report_names_winners_and_losses(tmp_path: Path) -> None:
    comparison = Comparison(ROWS, {"pyosys": "0.70"}, [], ["failed, 2 bits: no"], False)
    summary = report.write(comparison, SMALL, tmp_path / "out")
    assert len(summary["losses"]) == 3 and summary["failures"] == comparison.failures
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| 2×2 | 8 | ecp5 | uniform b | 80 | written | 79 | 0.99 | written | 79 |" in text
    assert "| book | 2×2 | 8 | ecp5 | Fmax, MHz | 101.0 | 100.0 | uniform b |" in text
    assert "* failed, 2 bits: no" in text
    assert "| uniform b | 80 at 100 |" in text and "| failed |" not in text


def test_the_page_holds_the_report_and_its_pictures(tmp_path: Path) -> None:
    rows = [*ROWS, replace(ROWS[0], design="<b> & co", method="<i>")]
    report.write(Comparison(rows, {}, [], [], False), SMALL, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    lines = (tmp_path / "out" / "report.md").read_text().splitlines()
    for line in lines:
        if line.startswith("| written |"):
            cells = line.strip("| ").split(" | ")
            assert "".join(f"<td>{cell}</td>\n" for cell in cells) in page
    pictures = [path.stem for path in (tmp_path / "out").glob("*.svg")]
    assert pictures and page.count("<svg") == len(pictures) == page.count("<figure>")
    assert "&lt;b&gt; &amp; co" in page and "<b>" not in page and "<i>" not in page
    assert "uniform b" in page and "N2UQ, 2 bits, 8 lanes: 80" in page
    assert not re.search(r'(?:src|href)="(?!data:|#)', page) and '<html lang="en">' in page


def test_published_accuracy_stands_beside_its_own_design() -> None:
    rows = [replace(row(name, luts, method=method), weight_bits=3, act_bits=3)
            for name, luts, method in (("uniform x", 50, "N2UQ"), ("lq", 70, "LQ-Nets"),
                                       ("lq 2", 60, "LQ-Nets"))]
    by_method = {each["method"]: (each["top1"], each["design"], each["size"])
                 for each in report._accuracy(rows)}
    assert by_method["N2UQ"] == (71.9, "uniform x", 50)
    assert by_method["LSQ"] == (70.2, "uniform x", 50)
    assert by_method["LQ-Nets"] == (68.2, "lq 2", 60) and "APoT" not in by_method


def test_lsq_is_no_form_of_n2uq_and_no_nonuniform_design() -> None:
    lsq = row("decode w2 of LSQ", 60, method="LSQ", trained="LSQ")
    lsq.uniform = True
    (contest, _), lost = contests([*ROWS, lsq]), losses([*ROWS, lsq])
    assert contest.ours is ROWS[1] and contest.theirs is ROWS[3]
    assert [loss.metric for loss in lost if loss.row is lsq] == ["luts", "ff"]


def accuracies(path: Path) -> list[study.Row]:
    return [{"method": method, "bits": 2, "seed": seed, "accuracy": value}
            for method, *values in (("N2UQ", 0.98, 0.99), ("LCQ", 0.97, 0.96), ("LSQ", 0.9, 0.9))
            for seed, value in enumerate(values)]


def test_accuracy_stands_beside_the_cheapest_design_with_the_methods_levels(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row("uniform a", 90, trained="N2UQ"), row("uniform b", 80, trained="N2UQ"),
            row("decode of LCQ", 120, trained="LCQ"), row("product of LCQ", 110, trained="LCQ"),
            row("decode", 20), replace(row("uniform c", 5, trained="N2UQ"), lanes=4),
            replace(row("uniform d", 5, trained="N2UQ"), act_bits=3)]
    monkeypatch.setattr(report, "load_rows", accuracies)
    lines = report.write(Comparison(rows, {}, [], [], False), SMALL, tmp_path / "out")["trained"]
    assert [(each["method"], each["mean"], each["design"], each["size"]) for each in lines] == [
        ("N2UQ", pytest.approx(98.5), "uniform b", 80),
        ("LCQ", pytest.approx(96.5), "product of LCQ", 110)]
    assert {each["net"] for each in lines} == {"digits_cnn"}
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| N2UQ | 2 | 98.50 ± 0.71 | 98.00 | 99.00 | – | 80 | uniform b |" in text
    assert ("| LCQ | 2 | 96.50 ± 0.71 | 96.00 | 97.00 | +2.00 ± 12.71 | 110 | product of LCQ |"
            in text)


def test_a_network_has_the_accuracy_of_its_own_study(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: Path) -> list[study.Row]:
        return [each | {"accuracy": each["accuracy"] - 0.1 * ("mlp" in path.name)}
                for each in accuracies(path)]

    rows = [replace(row("uniform a", luts, trained="N2UQ"), level="network", lanes=lanes,
                    case=f"{net}_w2a2")
            for net, lanes, luts in (("digits_cnn", 20, 90), ("mnist_mlp", 30, 70))]
    monkeypatch.setattr(report, "load_rows", read)
    assert [(each["net"], each["lanes"], each["size"], round(each["mean"], 6))
            for each in report._trained(rows)] == [
        ("digits_cnn", 20, 90, 98.5), ("mnist_mlp", 30, 70, 88.5)]


def test_known_figures_are_whole() -> None:
    known = json.loads(report.LITERATURE.read_text())
    for table, key, entries in (("imagenet", "top1", "methods"),
                                ("reference_points", "luts", "designs")):
        for entry in known[table][entries].values():
            assert len(entry[key]) == len(known[table]["bits"])
