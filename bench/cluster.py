"""``python -m bench cluster``: what a job costs a cluster of dask, on this machine.

    python -m bench cluster [--tasks N] [--jobs N] [--workers N] [--keep]

A scheduler and workers of one thread each start as processes here.  Measured are: tasks per second
of the scheduler, which do nothing; jobs per second by `run_jobs`, which do nothing either, but are
a process each; and the bytes of a job of each kind: what travels with every job, what travels once
to each worker, what comes back.  ``--keep`` writes the table of docs/cluster.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from datetime import date
from functools import partial
from operator import neg
from pathlib import Path
from typing import Any

import numpy as np

import n2uq_hw as n2
from n2uq_hw import __version__, data, tools
from n2uq_hw.builds.verify import Trial
from n2uq_hw.cluster import connected
from n2uq_hw.data import channels_last
from n2uq_hw.exploring.points import estimate, synthesize
from n2uq_hw.jobs import Job, run_jobs
from n2uq_hw.plan.choice import folding_text
from n2uq_hw.shipping import Packer

TESTS = Path(__file__).parents[1] / "tests"


def rates(tasks: int, jobs: int, workers: int) -> Iterator[tuple[str, str]]:
    """Of a scheduler with so many workers: what was measured, and its value."""
    from calls import number
    from clusters import Cluster

    with tools.scratch() as folder, Cluster(folder) as held:
        for _ in range(workers):
            held.worker("--no-nanny")
        with connected(held.address) as client:
            client.wait_for_workers(workers)
            client.gather(client.map(neg, range(100)))
            begin = time.perf_counter()
            client.gather(client.map(neg, range(1000, 1000 + tasks)))
            seconds = time.perf_counter() - begin
        yield f"{tasks:,} empty tasks", f"{tasks / seconds:,.0f} per second"
        run = partial(run_jobs, workers=0, limit=60.0, cluster=held.address)
        run([Job("", number, (k,)) for k in range(workers)], folder / "kept")  # it is warm
        begin = time.perf_counter()
        run([Job("", number, (1000 + k,)) for k in range(jobs)], folder / "kept")
        seconds = time.perf_counter() - begin
        yield f"{jobs:,} empty jobs", f"{jobs / seconds:,.1f} per second"


def sizes() -> Iterator[tuple[str, str]]:
    """Bytes of jobs of the digits CNN."""
    graph = n2.lower("digits_cnn_w2a2")
    plan = n2.fold(graph, cycles=2304, search=False)
    images = data.load("digits").images
    text = folding_text(plan.folding, graph)
    with tools.scratch() as folder:
        build = n2.build(graph, plan, folder / "b")
        nhwc = channels_last(images, graph.input.shape, graph.name)
        share = Trial(build, nhwc, np.zeros((len(nhwc), 1, 1, 10), np.int64), 0.3, 0,
                      "verilator").jobs([(0, len(nhwc))])[0]
        for what, job in (("explore: estimates", Job("", estimate, (graph, "xcup", "least"))),
                          ("explore: synthesis", Job("", synthesize, (graph, text, "xcup"))),
                          (f"verify --bulk: {len(nhwc)} images", share)):
            packer = Packer()
            parcel = packer.pack(job.call, job.args)
            yield what, (f"{len(parcel.text):,} bytes a job, "
                         f"{sum(map(len, packer.parts.values())):,} once to a worker")
    yield "explore: estimates, the result", (
        f"{len(json.dumps(estimate(graph, 'xcup', 'folded'))):,} bytes")


def main(arguments: list[str]) -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser("python -m bench cluster")
    parser.add_argument("--tasks", type=int, default=2000, metavar="N")
    parser.add_argument("--jobs", type=int, default=60, metavar="N")
    parser.add_argument("--workers", type=int, default=3, metavar="N")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args(arguments)
    sys.path.append(str(TESTS))
    rows: list[dict[str, Any]] = []
    for what, value in (*rates(options.tasks, options.jobs, options.workers), *sizes()):
        rows.append({"what": what, "value": value})
        print(f"{what:36} {value}")
    if options.keep:
        sys.path.append(str(TESTS.parent / "docs"))
        import tables

        tables.write("cluster", {
            "command": " ".join(["python -m bench cluster", *arguments]),
            "date": str(date.today()), "n2uq-hw": __version__,
            "cores": len(os.sched_getaffinity(0)),
            "versions": tools.wheels("distributed", "pyosys"), "rows": rows})
    return 0
