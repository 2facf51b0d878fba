"""Whole networks on ECP5: clock, LUTs and images per second, beside those of another commit.

    python -m bench nets [--against COMMIT] [--seeds 1,2,3] [--keep]
                         [NET[@CYCLES] ...]

Each net is built with the folding that `build` chooses, for CYCLES if it says so, placed and routed
with each seed; the clock is the median.  The other commit is checked out beside the present code,
in a folder that is removed afterwards, and runs the same commands.  Without nets all that are
shipped: hours, of which nextpnr's results are kept.  ``--keep`` writes the rows to docs/results.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from n2uq_hw import __version__, tools
from n2uq_hw.nets import shipped

ROOT = Path(__file__).parents[1]
WORK = Path("build/bench/nets").absolute()
FAMILY = "ecp5"


def command(code: Path, *arguments: str) -> str:
    """What `n2uq-hw` of the checkout `code` prints."""
    run = subprocess.run(
        [sys.executable, "-m", "n2uq_hw", *arguments], cwd=WORK, text=True, check=True,
        stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(code)})
    return run.stdout


def commit(*name: str) -> str:
    """The first digits of a commit; of the present code, which may have changed since then."""
    return subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--exclude=*", *(name or ["--dirty"])],
        check=True, text=True, stdout=subprocess.PIPE).stdout.strip()


@contextmanager
def checkout(name: str) -> Iterator[Path]:
    """A folder with the files of a commit."""
    git, folder = ["git", "-C", str(ROOT), "worktree"], WORK / f"commit-{name}"
    subprocess.run([*git, "add", "--quiet", "--force", "--detach", str(folder), name], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def measured(code: Path, name: str, net: str, seeds: list[int]) -> dict[str, Any]:
    """Cells, MHz and rates of a net that the checkout `code` of commit `name` builds."""
    folder = WORK / f"{net}-{name}"
    if name.endswith("dirty"):
        shutil.rmtree(folder, ignore_errors=True)
    if not folder.is_dir():
        what, _, cycles = net.partition("@")
        command(code, "build", what, "--out", str(folder),
                *(("--cycles", cycles) if cycles else ()))
    runs = [json.loads(command(code, "cost", str(folder), "--family", FAMILY, "--pnr", "--seed",
                               str(seed), "--json")) for seed in seeds]
    total, clock = runs[0]["total"], median(run["pnr"]["fmax_mhz"] for run in runs)
    luts = total["lut"] + total["lutram"]
    cycles = runs[0]["pnr"]["cycles_per_image"]
    rate = clock * 1e6 / cycles
    return {"net": net, "commit": name, "mhz": round(clock, 1), "luts": luts, "ff": total["ff"],
            "bram": total["bram"], "dsp": total["dsp"],
            "cycles": cycles, "images_per_s": round(rate),
            "images_per_s_per_lut": float(f"{rate / luts:.4g}")}


def ratios(before: dict[str, Any], after: dict[str, Any]) -> dict[str, float]:
    """How many times as much the second is."""
    return {key: after[key] / before[key] for key in (
        "mhz", "luts", "ff", "images_per_s_per_lut")}


def show(console: Console, rows: list[dict[str, Any]]) -> None:
    """A line for each net and commit, and one of ratios below two."""
    table = Table(box=None, pad_edge=False)
    for k, name in enumerate(("net", "commit", "MHz", "LUTs", "FF", "BRAM", "cycles", "images/s",
                              "images/s per LUT")):
        table.add_column(name, justify="right" if k > 1 else "left")
    before: dict[str, Any] = {}
    for row in rows:
        table.add_row(row["net"], row["commit"], f"{row['mhz']:.1f}", f"{row['luts']:,}",
                      f"{row['ff']:,}", str(row["bram"]), f"{row['cycles']:,.2f}",
                      f"{row['images_per_s']:,}", f"{row['images_per_s_per_lut']:.1f}")
        if before and before["net"] == row["net"]:
            times = ratios(before, row)
            table.add_row("", "times", *(f"{times[key]:.2f}" for key in ("mhz", "luts", "ff")),
                          "", "", "", f"{times['images_per_s_per_lut']:.2f}")
        before = row
    console.print(table)


def main(arguments: list[str]) -> int:
    """See above."""
    parser = argparse.ArgumentParser(prog="python -m bench nets")
    parser.add_argument("nets", nargs="*", metavar="NET[@CYCLES]",
                        help="default: all that are shipped")
    parser.add_argument("--against", metavar="COMMIT", help="measure this commit, too")
    parser.add_argument("--seeds", default="1,2,3", help="of the placer")
    parser.add_argument("--keep", action="store_true", help="write docs/results/nets.json")
    options = parser.parse_args(arguments)
    nets, seeds = options.nets or list(shipped()), list(map(int, options.seeds.split(",")))
    WORK.mkdir(parents=True, exist_ok=True)
    rows = []
    for net in nets:
        if options.against:
            name = commit(options.against)
            with checkout(name) as code:
                rows.append(measured(code, name, net, seeds))
        rows.append(measured(ROOT, commit(), net, seeds))
    used = tools.versions()
    versions = {name: used[name] for name in ("pyosys", f"yowasp-nextpnr-{FAMILY}")}
    show(Console(width=None if sys.stdout.isatty() else 118, highlight=False), rows)
    if options.keep:
        sys.path.insert(0, str(ROOT / "docs"))
        import tables

        tables.write("nets", {"command": f"python -m bench nets {' '.join(arguments)}",
                              "date": str(date.today()), "n2uq-hw": __version__,
                              "versions": versions, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
