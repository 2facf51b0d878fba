"""``python -m bench long``: networks in RTL for as long as a device would run them in a second.

    python -m bench long [--part N] [--keep] [NAME ...]

NAME is mlp or cnn, by default both: 1,000,000 images through digits_mlp_w2a2 in logic, 100,000
through digits_cnn_w2a2 at 2,304 cycles per image.  Half of the images are digits, moved and with
noise, the others random pixels; stalls differ from chunk to chunk.  Every output bit is compared
with golden, and the cycles of each chunk with the timing model's.  Each chunk is kept in
build/bench/long as soon as it is done: the same command goes on where it was ended.  ``--part 100``
runs a hundredth.  ``--keep`` writes what is done to docs/results, where the table of
docs/netlist.md has it from.  The exit code is 1 if a bit or a cycle differs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from n2uq_hw import __version__, data, tools
from n2uq_hw.builds.emit import Build, emit, load_build
from n2uq_hw.builds.measured import verilog_hash
from n2uq_hw.builds.verify import verify
from n2uq_hw.ir import Graph
from n2uq_hw.ir.folding import Folding
from n2uq_hw.lowering.lower import lower
from n2uq_hw.nets import find_net
from n2uq_hw.plan.choice import choose, unrolled
from n2uq_hw.sim.timing.fifos import size_fifos
from n2uq_hw.sim.timing.forecast import forecast, stalled

WORK = Path("build/bench/long")
STALLS = (0.3, 0.05, 0.6, 0.0)  # of the chunks, in turn
Row = dict[str, Any]


@dataclass(frozen=True)
class Long:
    """A network, how it is built, how many images run, and how many at a time."""

    net: str
    how: str
    folding: Callable[[Graph], Folding]
    images: int
    chunk: int


RUNS = {
    "mlp": Long("digits_mlp_w2a2", "in logic", lambda graph: unrolled(graph, 2), 10**6, 10_000),
    "cnn": Long("digits_cnn_w2a2", "2,304 cycles per image", lambda graph: choose(graph, 2304),
                10**5, 1_000),
}


def pixels(chunk: int, count: int) -> np.ndarray:
    """Images [count, 1, 8, 8] of 0..16, the same for the same chunk."""
    rng = np.random.default_rng(chunk)
    digits = data.load("digits").images
    images = digits[rng.integers(len(digits), size=count)]
    rows, columns = rng.integers(-1, 2, (2, count, 1))
    at = np.arange(8)
    images = images[np.arange(count)[:, None, None], 0, ((at + rows) % 8)[:, :, None],
                    ((at + columns) % 8)[:, None, :]][:, None]
    images = np.clip(images.astype(int) + rng.integers(-2, 3, images.shape), 0, 16)
    images[1::2] = rng.integers(0, 17, images[1::2].shape)
    return images


def run_chunk(build: Build, chunk: int, count: int) -> Row:
    """What simulation and timing model say of the images of a chunk."""
    stalls, begin = STALLS[chunk % len(STALLS)], time.perf_counter()
    verdict = verify(build, pixels(chunk, count), None, stalls=stalls, seed=chunk)
    timing = (stalled(build.graph, build.folding, count, stalls, chunk) if stalls
              else forecast(build.graph, build.folding, images=count))
    exact = (verdict.cycles_first_output, verdict.cycles_per_image) == (
        timing.cycles_first_output, timing.cycles_per_image)
    return {"chunk": chunk, "images": count, "stalls": stalls, "cycles": timing.cycles,
            "mismatches": verdict.mismatches, "exact": exact, "first": verdict.first_mismatch,
            "seconds": round(time.perf_counter() - begin, 1)}


def run(name: str, part: int) -> list[Row]:
    """The rows of a run's chunks, of which those that are there are not run again."""
    long = RUNS[name]
    graph = lower(find_net(long.net))
    sized = size_fifos(graph, long.folding(graph))
    with tools.scratch() as folder:
        emit(graph, sized, folder / name, pixels(0, 8), None)
        place = WORK / f"{name}-{verilog_hash(load_build(folder / name))[:16]}"
    if not place.is_dir():  # else the compiled simulator is there, too
        emit(graph, sized, place, pixels(0, 8), None)
    build, kept = load_build(place), place / "chunks.jsonl"
    lines = kept.read_text(encoding="utf-8").splitlines() if kept.is_file() else []
    rows: list[Row] = [json.loads(line) for line in lines if line.endswith("}")]
    ran = {row["chunk"] for row in rows}
    for chunk in range(max(1, long.images // long.chunk // part)):
        if chunk not in ran:
            rows.append(run_chunk(build, chunk, long.chunk))
            with kept.open("a", encoding="utf-8") as file:
                file.write(json.dumps(rows[-1]) + "\n")
        images, wrong = (sum(row[key] for row in rows) for key in ("images", "mismatches"))
        print(f"{name}: {images:,} of {long.images:,} images, {wrong} mismatches, cycles "
              f"{'as predicted' if all(row['exact'] for row in rows) else 'DIFFERENT'}, "
              f"{sum(row['seconds'] for row in rows):,.0f} s", file=sys.stderr)
    return rows


def keep(results: dict[str, list[Row]]) -> None:
    """Write what the table of the page needs."""
    sys.path.append(str(Path(__file__).parents[1] / "docs"))
    import tables

    tables.write("long", {
        "command": "python -m bench long --keep", "date": str(date.today()),
        "n2uq-hw": __version__, "versions": tools.versions(), "rows": [
            {"network": RUNS[name].net, "how": RUNS[name].how, "asked": RUNS[name].images,
             "images": sum(row["images"] for row in rows),
             "cycles": sum(row["cycles"] for row in rows),
             "mismatches": sum(row["mismatches"] for row in rows),
             "exact": all(row["exact"] for row in rows)} for name, rows in results.items()]})


def main(argv: list[str] | None = None) -> int:
    """Run what is not done yet."""
    parser = argparse.ArgumentParser(prog="python -m bench long", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=" or ".join(RUNS))
    parser.add_argument("--part", type=int, default=1, metavar="N")
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args(argv)
    if unknown := [name for name in args.names if name not in RUNS]:
        parser.error(f"NAME must be one of {', '.join(RUNS)}, not {unknown[0]}")
    if args.part < 1:
        parser.error(f"--part must be at least 1, not {args.part}")
    results = {name: run(name, args.part) for name in args.names or RUNS}
    if args.keep:
        keep(results)
    bad = [row for rows in results.values() for row in rows
           if row["mismatches"] or not row["exact"]]
    for row in bad:
        print(f"chunk {row['chunk']}: {row['first'] or 'cycles differ'}")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
