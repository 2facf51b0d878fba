"""``python -m bench mutation``: small changes of the code, and whether a test sees each.

    python -m bench mutation [--unit NAME ...] [--sample N] [--seed S] [--keep] [--cluster ADDRESS]

A NAME is a row of `TARGETS`, by default all.  A mutant has one operator, constant, choice or
statement changed (mutants.py), in a copy of the project.  It is dead if a proof of its unit fails
(docs/formal.md), or a test of its file.  One that lives though the Verilog of every proven unit
and of the digits networks is the same, byte for byte, changed nothing that is built; one with
other Verilog for which the proofs still hold, and the cycles of all units, is equivalent as far as
these reach.  All others survive: a test is missing.

What is quick to tell comes first: quick proofs, then the tests that failed last, then the others,
the soonest done before.

``--sample`` takes so many of each file, chosen by the seed.  Rows are kept in build/mutation as
they come, by the content of the file and of the tests, and are not made twice.  ``--keep`` writes
the rows of these files into the table of docs/mutation.md.  ``--cluster`` judges on the workers of
a cluster of dask, which get the project by its hash (docs/cluster.md).  The exit code is 1 if one
survives.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from n2uq_hw import __version__, tools
from n2uq_hw.errors import N2uqError
from n2uq_hw.jobs import Failure, Job, run_jobs
from n2uq_hw.shipping import Reads, python

from .mutants import Mutant, mutants

__all__ = ["TARGETS", "Target", "main"]

ROOT = Path(__file__).parents[1]
WORK = Path("build/mutation")
CYCLES = "tests/sim/test_timing.py", "-k", "units_are_predicted"  # of which no proof speaks
LIMIT = 1200  # seconds for the tests of a mutant: one that hangs is dead
DEAD, PROOF, SAME, EQUAL, SURVIVES, NONE = (
    "test", "proof", "same Verilog", "equal by proof", "survives", "no program")
COMPILES = "g++", "-std=c++17", "-fsyntax-only"
TOOK = re.compile(r"^([\d.]+)s (?:call|setup|teardown) +(\S.*?)(?:\[.*)?$", re.MULTILINE)
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+::\w+(?:\[.*?\](?= - |$))?)", re.MULTILINE)


@dataclass(frozen=True)
class Target:
    """A file, the tests that cover it, and the beginnings of the names of its units' proofs."""

    file: str
    tests: tuple[str, ...]
    proofs: tuple[str, ...] = ()


def _unit(name: str, test: str, *proofs: str) -> Target:
    return Target(f"hw/{name}.py", (f"tests/hw/test_{test}.py",), proofs)


TARGETS = {
    "threshold": _unit("threshold", "threshold", "Threshold"),
    "matvec": _unit("matvec", "matvec", "MatVec", "OffsetMatVec"),
    "mac": _unit("mac", "mac", "MatVec"),
    "depthwise": _unit("depthwise", "depthwise", "DepthwiseMatVec"),
    "lines": _unit("lines", "eltwise", "Scale", "PiecewiseLinear"),
    "saturate": _unit("saturate", "eltwise", "Saturate"),
    "add": _unit("add", "eltwise", "Add"),
    "argmax": _unit("argmax", "eltwise", "ArgMax"),
    "concat": _unit("concat", "concat", "Concat"),
    "permute": _unit("permute", "reorder", "Permute"),
    "depth_to_space": _unit("depth_to_space", "reorder", "DepthToSpace"),
    "upsample": _unit("upsample", "reorder", "Upsample"),
    "pad": _unit("pad", "sliding_window", "Pad"),
    "sliding_window": _unit("sliding_window", "sliding_window", "SlidingWindow"),
    "line_buffer": _unit("line_buffer", "sliding_window", "SlidingWindow"),
    "max_pool": _unit("max_pool", "pool", "MaxPool"),
    "sum_pool": _unit("sum_pool", "pool", "SumPool"),
    "fifo": _unit("fifo", "stream", "Fifo"),
    "fork": _unit("fork", "stream", "Fork"),
    "width_convert": _unit("width_convert", "stream", "WidthConvert"),
    "unrolled": _unit("unrolled", "unrolled", "Unrolled"),
    "compress": Target("hw/compress.py", ("tests/hw/test_heaps.py", "tests/hw/test_unrolled.py")),
    "golden": Target("n2uq_hw/ir/golden.py", ("tests/ir/test_golden.py",
                                              "tests/lowering/test_low_bit.py")),
    "ranges": Target("n2uq_hw/ir/ranges.py", ("tests/ir",)),
    "quantize": Target("n2uq_hw/lowering/quantize.py", ("tests/lowering",)),
    "lower": Target("n2uq_hw/lowering/lower.py", ("tests/lowering",)),
    "cycles": Target("n2uq_hw/sim/timing/cycles.cpp", ("tests/sim/test_timing.py",
                                                       "tests/sim/test_fifos.py")),
    "axis": Target("templates/axis.v.j2", ("tests/hw/test_control.py", "tests/sim/test_rtl.py")),
    "library": Target("templates/library.v.j2", ("tests/hw/test_memory.py",
                                                 "tests/hw/test_writable.py")),
}

# --- Whether it lives ---------------------------------------------------------------------------

VERILOG = """
import hashlib
from n2uq_hw import api
from n2uq_hw.builds.emit import accelerator_verilog
from n2uq_hw.plan.choice import choose
from n2uq_hw.sim.formal.claims import claims
from n2uq_hw.hw.library import Library
found = hashlib.sha256()
for claim in claims():
    library = Library()
    library.signature("unit", claim.unit)
    found.update(f"{claim.name}{library.rtlil()}{library.written}".encode())
    for name, (bits, _) in sorted(library.memories.items()):
        found.update(name.encode() + bits.tobytes())
for net in ("digits_mlp_w2a2", "digits_cnn_w2a2"):
    graph = api.lower(net)
    for folding in choose(graph), choose(graph, 2304):
        for name, text in sorted(accelerator_verilog(graph, folding).items()):
            found.update(f"{name}{text}".encode())
print(found.hexdigest())
"""


PYTEST = "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider"
KILLERS = 3  # tests that failed last, which are run first


def _file(test: str) -> str:
    return test.split("::")[0]


def tracked() -> list[str]:
    """The files of the project."""
    return subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True,
                          text=True).stdout.splitlines()


class Copy:
    """A copy of the project, in which a file is changed and put back."""

    def __init__(self, folder: Path, names: Sequence[str] | None = None) -> None:
        self.folder = folder
        for name in tracked() if names is None else names:
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place, follow_symlinks=False)
        self.killers: list[str] = []
        self.env = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}

    def run(self, *arguments: str) -> tuple[bool, str]:
        """Whether Python ends well with `arguments`, within LIMIT, and what it prints."""
        process = subprocess.Popen([sys.executable, *arguments], cwd=self.folder, env=self.env,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                   start_new_session=True)
        try:
            printed, _ = process.communicate(timeout=LIMIT)
        except BaseException as error:
            os.killpg(process.pid, 9)
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                return False, f"not within {LIMIT} s"
            raise
        return process.returncode == 0, printed

    def tests(self, *chosen: str) -> bool:
        """Whether these tests pass; one that fails is the first of the next call."""
        first = [test for test in self.killers if _file(test) in map(_file, chosen)]
        passed, printed = self.run(*PYTEST, "-x", *first, *chosen)
        self.killers = [*FAILED.findall(printed)[:1], *self.killers][:KILLERS]
        return passed

    def ordered(self, target: Target) -> list[str]:
        """The test functions of a target, the soonest done first."""
        passed, printed = self.run(*PYTEST, "--durations=0", "--durations-min=0", *target.tests)
        if not passed:
            raise SystemExit(f"error: {', '.join(target.tests)}: must pass without a mutant")
        seconds: dict[str, float] = {}
        for took, test in TOOK.findall(printed):
            seconds[test] = max(seconds.get(test, 0.0), float(took))
        return sorted(seconds, key=lambda test: (seconds[test], test))

    def proofs(self, target: Target, *options: str) -> bool:
        """Whether the proofs of its units hold."""
        return self.run("-m", "bench.formal", "--jobs", "1", *options, *target.proofs)[0]

    def verdict(self, target: Target, mutant: Mutant, verilog: str, tests: Sequence[str]) -> str:
        """What becomes of a mutant; `verilog` is the digest without it.

        The quick proofs come first: no simulation has to be compiled for them.
        """
        place = self.folder / target.file
        whole = place.read_text(encoding="utf-8")
        try:
            place.write_text(mutant.of(whole), encoding="utf-8")
            if place.suffix == ".cpp" and subprocess.run(
                    [*COMPILES, place], capture_output=True).returncode:
                return NONE
            if target.proofs and not self.proofs(target, "--fast"):
                return PROOF
            if not self.tests(*tests):
                return DEAD
            if not target.proofs:
                return SURVIVES
            if self.run("-c", VERILOG) == (True, verilog):
                return SAME
            if not self.tests(*CYCLES):
                return DEAD
            return EQUAL if self.proofs(target) else PROOF
        finally:
            place.write_text(whole, encoding="utf-8")


def judge(text: str) -> dict[str, str]:
    """What becomes of one mutant, in this folder, which is a copy of the project."""
    asked = json.loads(text)
    return {"found": Copy(ROOT, ()).verdict(TARGETS[asked["name"]], Mutant(**asked["mutant"]),
                                            asked["verilog"], asked["tests"])}


def elsewhere(name: str, new: Sequence[Mutant], copy: Copy, verilog: str, tests: Sequence[str],
              address: str, keep: Callable[[Mutant, str], None]) -> None:
    """`keep` for each mutant, judged on a cluster."""
    def each(place: int, result: dict[str, Any] | Failure) -> None:
        if isinstance(result, Failure):
            raise N2uqError(f"{TARGETS[name].file}:{new[place].line}: {result.text}")
        keep(new[place], result["found"])

    WORK.mkdir(parents=True, exist_ok=True)
    run_jobs([Job("", python, (Reads(copy.folder), "-m", "bench.mutation", json.dumps(
        {"name": name, "mutant": vars(mutant), "verilog": verilog, "tests": tests})))
        for mutant in new],
        WORK, workers=0, limit=10.0 * LIMIT, cluster=address, each=each)


def rows_of(name: str, copy: Copy, verilog: str, sample: int, seed: int, cluster: str = ""
            ) -> Iterator[dict[str, Any]]:
    """The rows of a target's mutants, kept as they come."""
    target = TARGETS[name]
    text = (ROOT / target.file).read_text(encoding="utf-8")
    every = mutants(text, Path(target.file).suffix)
    chosen = sorted(random.Random(f"{seed} {name}").sample(every, min(sample, len(every))) if sample
                    else every, key=lambda mutant: mutant.start)
    read = hashlib.sha256(text.encode())
    for path in sorted(path for test in target.tests for path in (
            (ROOT / test).rglob("*.py") if (ROOT / test).is_dir() else [ROOT / test])):
        read.update(path.read_bytes())
    kept = WORK / f"{name}-{read.hexdigest()[:16]}.jsonl"
    WORK.mkdir(parents=True, exist_ok=True)
    lines = kept.read_text(encoding="utf-8").splitlines() if kept.is_file() else []
    known = {(row["start"], row["new"]): row for row in map(json.loads, lines)}
    new = [mutant for mutant in chosen if (mutant.start, mutant.new) not in known]
    order = kept.with_suffix(".json")
    if new and not order.is_file():
        order.write_text(json.dumps(copy.ordered(target)), encoding="utf-8")
    tests = json.loads(order.read_text(encoding="utf-8")) if new else []

    def keep(mutant: Mutant, found: str) -> None:
        row = {"file": target.file, **vars(mutant), "found": found}
        known[mutant.start, mutant.new] = row
        with kept.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    if cluster and new:
        elsewhere(name, new, copy, verilog, tests, cluster, keep)
    for mutant in chosen:
        if (mutant.start, mutant.new) not in known:
            keep(mutant, copy.verdict(target, mutant, verilog, tests))
        row = known[mutant.start, mutant.new]
        print(f"{target.file}:{row['line']}: {row['old']!r} -> {row['new']!r}: {row['found']}",
              file=sys.stderr)
        yield row


def summary(file: str, rows: Sequence[dict[str, Any]], every: int) -> dict[str, Any]:
    """A row of the table; the score is of those that change what is built."""
    counts = Counter(row["found"] for row in rows)
    tried = len(rows) - counts[NONE]
    real = tried - counts[SAME] - counts[EQUAL]
    return {"file": file, "mutants": every, "tried": tried, "test": counts[DEAD],
            "proof": counts[PROOF], "same": counts[SAME], "equal": counts[EQUAL],
            "survive": counts[SURVIVES],
            "score": round((counts[DEAD] + counts[PROOF]) / real, 4) if real else 1.0,
            "survivors": [f"{row['line']}: {row['old']} -> {row['new']}" for row in rows
                          if row["found"] == SURVIVES]}


def main(arguments: list[str]) -> int:
    """Judge, and print the table."""
    parser = argparse.ArgumentParser("python -m bench mutation")
    parser.add_argument("--unit", action="append", metavar="NAME", choices=list(TARGETS))
    parser.add_argument("--sample", type=int, default=0, metavar="N")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--cluster", metavar="ADDRESS", default="")
    options = parser.parse_args(arguments)
    results, names = [], options.unit or list(TARGETS)
    with tools.scratch() as folder:
        copy = Copy(folder)
        units = any(TARGETS[name].proofs for name in names)
        well, verilog = copy.run("-c", VERILOG) if units else (True, "")
        if not well:
            raise SystemExit(f"error: Verilog without a mutant: {verilog.splitlines()[-1]}")
        for name in names:
            rows = list(rows_of(name, copy, verilog, options.sample, options.seed,
                                options.cluster))
            place = ROOT / TARGETS[name].file
            every = len(mutants(place.read_text(encoding="utf-8"), place.suffix))
            results.append({**summary(TARGETS[name].file, rows, every),
                            "date": str(date.today())})
    columns = ("file", "mutants", "tried", "test", "proof", "same", "equal", "survive", "score")
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="left" if column == "file" else "right")
    for row in results:
        table.add_row(*(f"{row[key]:.1%}" if key == "score" else str(row[key]) for key in columns))
    Console(width=None if sys.stdout.isatty() else 118, highlight=False).print(table)
    for row in results:
        for survivor in row["survivors"]:
            print(f"{row['file']}:{survivor}")
    if options.keep:
        sys.path.append(str(ROOT / "docs"))
        import tables

        fresh = {row["file"]: row for row in results}
        others = json.loads((tables.RESULTS / "mutation.json").read_text(encoding="utf-8"))["rows"]
        merged = {**{row["file"]: row for row in others}, **fresh}
        tables.write("mutation", {
            "command": " ".join(["python -m bench mutation", *arguments]),
            "date": str(date.today()), "n2uq-hw": __version__,
            "versions": tools.wheels("pyosys", "bitwuzla"),
            "rows": [row for _, row in sorted(merged.items())]})
    return int(any(row["survive"] for row in results))


if __name__ == "__main__":  # a job of a cluster
    print(json.dumps(judge(sys.argv[1])))
