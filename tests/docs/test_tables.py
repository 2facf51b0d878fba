"""Tables of measured numbers: each stands as it is made from the results that are kept."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pages
import pytest
import tables

from n2uq_hw.compare import report
from n2uq_hw.compare.measure import Comparison, Row, Settings
from n2uq_hw.hw.designs import DESIGNS

MEASURED = re.compile(r"\|[^|\n]*\d[^|\n]*(?=\|)")  # a cell with a number


@pytest.mark.parametrize("page", pages.PAGES)
def test_tables_are_those_of_the_results(page: str) -> None:
    text = pages.PAGES[page].read_text("utf-8")
    assert tables.remade(text) == text, "`make docs-figures` would change a table"
    for name in tables.standing(text):
        result = json.loads((tables.RESULTS / f"{name}.json").read_text("utf-8"))
        assert result["command"] and result["versions"]["pyosys"]
        assert result["date"] in text
    # No other table has more numbers than words.
    for table in re.findall(r"(?:^\|.*\n)+", tables.TABLE.sub("", text), re.MULTILINE):
        cells = "".join(table.splitlines(keepends=True)[2:])
        assert len(MEASURED.findall(cells)) < cells.count("|") / 2, table


def test_every_table_and_every_file_of_results_stands_in_a_page() -> None:
    stand = [name for path in pages.PAGES.values()
             for name in tables.standing(path.read_text("utf-8"))]
    assert sorted(stand) == sorted(tables.TABLES)
    assert {path.stem for path in tables.RESULTS.glob("*.json")} == {*stand}


def row(design: str, method: str, bits: int, luts: int | None, **more: object) -> Row:
    return Row(design, "mvu", bits, bits, 64, "xcup", luts=luts, method=method, ff=1, latency=1,
               uniform=method == "N2UQ", **more)


def compared(rows: list[Row]) -> dict:
    """What compare.json holds, read back."""
    comparison = Comparison(rows, {"pyosys": "0.70"}, [], [], False)
    settings = Settings(DESIGNS, level="mvu", bits=(2, 3), lanes=(64,), families=("xcup",))
    return json.loads(json.dumps(report.described(comparison, settings)))


def test_a_comparison_becomes_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: 69.4 and 71.9, 67.3 and 69.9 are what the paper says of ResNet-18."""
    comparison = compared([
        row("a", "N2UQ", 2, 1210), row("b", "N2UQ", 2, 1300), row("c", "APoT", 2, 1152),
        row("a", "N2UQ", 3, 1961), row("c", "APoT", 3, None), row("d", "APoT", 3, 2053)])
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    tables.write("mvu", tables.kept("mvu", comparison, "n2uq-hw compare"))
    page = tables.remade("One.\n\n<!-- table mvu -->\n| old |\n|---|\n\nTwo.\n")
    assert page.startswith("One.\n\n<!-- table mvu -->\n|  | 2 bits | LUTs | 3 bits | LUTs |\n"
                           "|---|---|---|---|---|\n| N2UQ | 69.4 | 1,210 | 71.9 | 1,961 |\n")
    assert "| APoT | 67.3 | 1,152 | 69.9 | 2,053 |\n" in page and page.endswith("|\n\nTwo.\n")
    stored = json.loads((tmp_path / "mvu.json").read_text("utf-8"))
    assert stored["command"] == "n2uq-hw compare" and stored["versions"] == {"pyosys": "0.70"}


def test_speeds_are_of_the_smallest_design() -> None:
    rows = [row("a", "N2UQ", 2, 90, fmax_mhz=300.0, gmacs_per_kilolut=26.7),
            row("b", "N2UQ", 2, 80, fmax_mhz=255.6, gmacs_per_kilolut=25.56),
            row("c", "APoT", 2, 1055), row("d", "APoT", 2, None)]
    result = tables.kept("fmax", compared(rows), "")
    assert [each["luts"] for each in result["rows"]] == [80, 1055]
    assert tables.speeds(result) == ("|  | xcup, 2 bits |\n|---|---|\n"
                                     "| N2UQ | 80 at 256: 25.6 |\n| APoT | – |\n")


def test_a_star_is_where_n2uq_differs() -> None:
    result = {"rows": [
        {"net": "digits_cnn", "method": "N2UQ", "bits": 2, "mean": 98.4, "std": 0.368,
         "differs": False, "size": 3905},
        {"net": "digits_cnn", "method": "APoT", "bits": 2, "mean": 97.389, "std": 0.32,
         "differs": True, "size": None}]}
    assert tables.trained(result) == (
        "| 2 bits | digits CNN | LUTs |\n|---|---|---|\n"
        "| N2UQ | 98.40 ± 0.37 | 3,905 |\n| APoT | 97.39 ± 0.32* | – |\n")
