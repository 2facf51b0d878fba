"""Mutants of a text: which there are, and that each is a Python program of another meaning."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from clusters import Cluster

from bench import mutation
from bench.mutants import Mutant, mutants
from bench.mutation import TARGETS, Copy, Target

TEXT = '''"""µ: 1 + 1."""
def f(a: int = 0, *, b: list[1]) -> "1":
    """2 < 3."""
    if a < 7 and not b:
        raise ValueError(f"{a + 1}")
    g(a)
    a += 1
    return Mux(a, ("µ", -a), (b))
'''


def test_mutants_by_hand() -> None:
    changed = {mutant.of(TEXT) for mutant in mutants(TEXT)}
    assert changed == {TEXT.replace(old, new) for old, new in [
        ("= 0", "= 1"), ("< 7", "<= 7"), ("< 7", "< 8"), ("and", "or"), ("not b", "b"),
        ("    g(a)", "    pass"), ("a += 1", "pass"), ("a += 1", "a += 2"), ("-a)", "a)"),
        ('("µ", -a), (b)', '(b), ("µ", -a)')]}


def test_mutants_of_cpp_by_hand() -> None:
    text = """#include <vector>  // 1 + 1
template <int k> bool f(const int *x, std::vector<int> &v) {
    wake(x[0] + 2);
    if (!v.size() || *x <= 0x10) return true; /* 3 */
    return "a < 4"[k] == '5' && x[0]++ >> 1 & 1ull;
}
"""
    changed = {mutant.of(text) for mutant in mutants(text, ".cpp")}
    assert changed == {text.replace(old, new, 1) for old, new in [
        ("wake(x[0] + 2);", ";"), ("x[0] +", "x[1] +"), ("+ 2", "- 2"), ("+ 2", "+ 3"), ("!v", "v"),
        ("||", "&&"), ("<= ", "< "), ("true", "false"), ("==", "!="), ("&& x[0]", "|| x[0]"),
        ("&& x[0]", "&& x[1]"), ("++", "--"), (">> 1", "<< 1"), (">> 1", ">> 2"),
        ("1 & 1ull", "1 | 1ull")]}


def test_mutants_of_a_template_by_hand() -> None:
    """A ``<=`` assigns, a ``|`` filters."""
    text = """{% if a and not b %}  // 1
  wire [{{ width - 1 }}:0] x = y == 1'b0;
  always @(posedge clk) z <= {{ all | length }};
{# 2 #}"""
    changed = {mutant.of(text) for mutant in mutants(text, ".j2")}
    assert changed == {text.replace(old, new, 1) for old, new in [
        ("and", "or"), ("- 1", "+ 1"), ("- 1", "- 2"), (":0]", ":1]"), ("==", "!="),
        ("1'b0", "1'b1")]}


@pytest.mark.parametrize("name", TARGETS)
def test_every_mutant_is_a_program_of_another_meaning(name: str) -> None:
    target = TARGETS[name]
    assert all((mutation.ROOT / test).exists() for test in target.tests)
    text = (mutation.ROOT / target.file).read_text(encoding="utf-8")
    every = mutants(text, Path(target.file).suffix)
    assert every
    if not target.file.endswith(".py"):
        return
    plain = ast.dump(ast.parse(text))
    for mutant in every[::max(1, len(every) // 40)]:
        assert ast.dump(ast.parse(mutant.of(text))) != plain, mutant


def test_a_dead_one_and_one_that_survives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a project of two files; what is changed is put back."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "one.py").write_text("def f(a):\n    return a + 1 if a < 9 else 0\n")
    (root / "test_one.py").write_text("from one import f\ndef test():\n    assert f(1) == 2\n")
    monkeypatch.setattr(mutation, "ROOT", root)
    monkeypatch.setattr(mutation, "tracked", lambda: ["one.py", "test_one.py"])
    monkeypatch.setattr(mutation, "WORK", tmp_path / "kept")
    monkeypatch.setitem(TARGETS, "one", Target("one.py", ("test_one.py",)))
    copy = Copy(tmp_path / "copy")
    rows = list(mutation.rows_of("one", copy, "", 0, 1))
    assert {(row["old"], row["new"]): row["found"] for row in rows} == {
        ("+", "-"): "test", ("1", "2"): "test", ("<", "<="): "survives", ("9", "10"): "survives",
        ("0", "1"): "survives"}
    assert copy.killers[0] == "test_one.py::test"
    order, = (tmp_path / "kept").glob("*.json")
    assert order.read_text() == '["test_one.py::test"]'
    assert (copy.folder / "one.py").read_text() == (root / "one.py").read_text()
    monkeypatch.setattr(Copy, "verdict", None)  # kept: nothing runs again
    assert list(mutation.rows_of("one", copy, "", 0, 1)) == rows
    total = mutation.summary("one.py", rows, len(rows))
    assert (total["score"], total["survive"], total["survivors"][0]) == (0.4, 3, "2: < -> <=")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "docs"))
    import tables

    monkeypatch.setattr(tables, "RESULTS", tmp_path)  # rows of other files stay in the table
    tables.write("mutation", {"date": "", "rows": [
        {"file": "one.py"}, {"file": "two.py", "tried": 7}]})
    assert mutation.main(["--unit", "one", "--keep"]) == 1
    written = json.loads((tmp_path / "mutation.json").read_text())["rows"]
    assert [(row["file"], row["tried"]) for row in written] == [("one.py", 5), ("two.py", 7)]


def test_the_score_is_of_those_that_change_what_is_built() -> None:
    mutant = vars(Mutant(1, 0, "0", "1"))
    rows = [{**mutant, "found": found} for found in (
        mutation.DEAD, mutation.PROOF, mutation.SAME, mutation.EQUAL, mutation.SURVIVES,
        mutation.NONE)]
    total = mutation.summary("f", rows, 9)
    assert total["score"] == pytest.approx(2 / 3, abs=1e-4) and total["tried"] == 5


def test_what_does_not_compile_is_no_mutant(tmp_path: Path) -> None:
    copy, target = Copy(tmp_path, ()), Target("one.cpp", ())
    (tmp_path / "one.cpp").write_text("int f() { return 1 + 2; }\n")
    assert copy.verdict(target, Mutant(1, 19, "+", "!"), "", []) == mutation.NONE
    assert copy.verdict(target, Mutant(1, 19, "+", "-"), "", ["--version"]) == mutation.SURVIVES


@pytest.mark.slow
def test_a_cluster_judges_as_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy, rows = Copy(tmp_path / "copy"), []
    with Cluster(tmp_path) as held:
        held.worker()
        for address in (held.address, ""):
            monkeypatch.setattr(mutation, "WORK", tmp_path / f"kept{bool(address)}")
            rows.append([*mutation.rows_of("fork", copy, "", 1, 1, address)])
    assert rows[0] == rows[1] and rows[0][0]["found"] in (mutation.DEAD, mutation.PROOF)
