"""Jobs on a cluster of dask: a scheduler and workers as processes of this machine."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calls import counted, dies, faulty, number, raises, shipped
from clusters import ROOT, TESTS, Cluster
from comparisons import SMALL

import n2uq_hw as n2
from n2uq_hw import cluster
from n2uq_hw.compare.measure import measure
from n2uq_hw.compare.report import described
from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.designs import Uniform
from n2uq_hw.jobs import Failure, Job, run_jobs
from n2uq_hw.shipping import Packer, Reads, Writes, called, merge, stored, tree

pytest.importorskip("distributed")
LIMIT = 60.0


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster of three workers, two of which have nannies."""
    with Cluster(tmp_path) as held:
        held.worker(), held.worker(), held.worker("--no-nanny")
        yield held


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(
        folder.rglob("*")) if path.is_file()}


def test_parcels_hold_each_part_once(tmp_path: Path) -> None:
    files = tmp_path / "files"
    (files / "in").mkdir(parents=True)
    (files / "a.txt").write_text("one")
    (files / "in" / "b.txt").write_text("two")
    (files / "link").symlink_to("a.txt")
    array, small = np.arange(9000), np.arange(3)
    packer = Packer()
    parcels = [packer.pack(shipped, (Reads(files), array, Writes(tmp_path / "out"))),
               packer.pack(shipped, (Reads(files / "a.txt"), small, Writes(tmp_path / "out"))),
               packer.pack(shipped, (Reads(files, ("in/b.txt",)), array, Writes(tmp_path / "out")))]
    assert len(packer.parts) == 4 and [len(each.parts) for each in parcels] == [2, 1, 2]
    assert all(len(each.text) < 500 for each in parcels)
    found = []
    for k, each in enumerate(parcels):
        for part in each.parts:
            stored(tmp_path / "store", part, packer.parts[part])
        out = tmp_path / f"out{k}"
        found.append(called(each.text, tmp_path / "store", out))
        merge({place.name: tree(place) for place in out.iterdir()}, [tmp_path / "out"])
    total = sum(range(9000))
    assert found == [
        {"files": {"a.txt": "one", "in/b.txt": "two", "link": "one"}, "sum": total},
        {"files": {"a.txt": "one"}, "sum": 3}, {"files": {"in/b.txt": "two"}, "sum": total}]
    assert content(tmp_path / "out") == {"3/sum.txt": b"3", f"{total}/sum.txt": b"%d" % total}
    again = Packer().pack(shipped, (Reads(files), array.copy(), Writes(tmp_path / "out")))
    assert again.digest == parcels[0].digest  # of equal contents


def test_no_scheduler_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "WAIT", 0.5)
    for address in ("tcp://127.0.0.1:9", "nowhere", "http://x"):
        with pytest.raises(N2uqError, match=f"^cluster {address}: no scheduler of dask answers"):
            run_jobs([Job("", number, (1,))], tmp_path, workers=1, limit=LIMIT, cluster=address)


def test_a_job_on_a_cluster(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    with Cluster(tmp_path) as held:
        held.worker()
        found = run_jobs([Job("s", shipped, (Reads(tmp_path / "a.txt"), np.arange(9000),
                                             Writes(tmp_path / "out")))],
                         tmp_path / "cache", workers=0, limit=LIMIT, cluster=held.address)
    total = sum(range(9000))
    assert found == [{"files": {"a.txt": "one"}, "sum": total}]
    assert content(tmp_path / "out") == {f"{total}/sum.txt": b"%d" % total}
    assert content(tmp_path / "cache") == {
        "s.json": b'{"files": {"a.txt": "one"}, "sum": %d}' % total}


@pytest.mark.slow
def test_a_cluster_gives_what_this_machine_gives(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "a.txt").write_text("one")

    def asked(cache: Path) -> list[Job]:
        return [Job("one", number, (1,)), Job("n", faulty, ()), Job("d", dies, ()),
                Job("r", raises, ()), Job("", number, (1,)),
                Job("s", shipped, (Reads(files), np.arange(9000), Writes(cache / "out")))]

    (tmp_path / "here" / "out").mkdir(parents=True)
    here = run_jobs(asked(tmp_path / "here"), tmp_path / "here", workers=2, limit=LIMIT)
    shares: list[float] = []
    with Cluster(tmp_path) as held:
        held.worker()
        there = run_jobs(asked(tmp_path / "there"), tmp_path / "there", workers=0, limit=LIMIT,
                         cluster=held.address, progress=shares.append)
    assert there == here and isinstance(here[2], Failure)
    assert content(tmp_path / "there") == content(tmp_path / "here")
    assert shares[0] == 0 and shares[-1] == 1 and shares == sorted(shares)


@pytest.mark.slow
def test_commands_find_what_they_find_here(built: Path, images: np.ndarray, net: n2.Net,
                                           tmp_path: Path) -> None:
    build = n2.load_build(built)

    def found(at: str, address: str) -> list[Any]:
        cache = tmp_path / at
        verdict = build.verify(images, stalls=0.3, jobs=2, cluster=address).as_dict()
        assert verdict.pop("cycles_per_second") > 0 and verdict["mismatches"] == 0
        explored = n2.explore(net, styles=("folded",), budget=0, cache=cache, cluster=address)
        settings = replace(SMALL, classes=(Uniform,), families=("cmos",))
        compared = measure(settings, cache, cluster=address)
        assert not compared.failures and not explored.failures
        return [verdict, explored.as_dict(), described(compared, settings)]

    with Cluster(tmp_path) as held:
        held.worker()
        there = found("there", held.address)
    assert json.dumps(there) == json.dumps(found("here", ""))
    assert content(tmp_path / "there") == content(tmp_path / "here")


@pytest.mark.slow
def test_other_code_on_a_worker_is_a_fault(tmp_path: Path) -> None:
    with Cluster(tmp_path) as held:
        subprocess.run(["cp", "-aL", str(ROOT / "n2uq_hw"), str(tmp_path)], check=True)
        with (tmp_path / "n2uq_hw" / "names.py").open("a") as file:
            file.write("\nOTHER = 1\n")
        held.env["PYTHONPATH"] = f"{tmp_path}:{TESTS}"
        held.worker()
        with pytest.raises(N2uqError, match=r"worker tcp://.*: must have the n2uq-hw of the cli"):
            run_jobs([Job("", number, (1,))], tmp_path, workers=0, limit=LIMIT,
                     cluster=held.address)


@pytest.mark.slow
def test_a_limit_holds_on_a_cluster(tmp_path: Path) -> None:
    with Cluster(tmp_path) as held:
        held.worker()
        assert run_jobs([Job("s", time.sleep, (600,))], tmp_path, workers=0, limit=0.5,
                        cluster=held.address) == [Failure("took longer than 0.5 s")]


@pytest.mark.slow
def test_workers_come_and_go(three: Cluster, tmp_path: Path) -> None:
    """One is killed in the middle, one comes late: nothing is lost, and nothing done twice."""
    log, count = tmp_path / "log", 30
    asked = [Job(f"k{k}", counted, (k, 0.5, str(log))) for k in range(count)]
    came: list[int] = []

    def each(place: int, result: object) -> None:
        came.append(place)
        if len(came) == 6:
            three.kill(three.processes[3])
        if len(came) == 9:
            three.worker()

    found = run_jobs(asked, tmp_path / "cache", workers=0, limit=LIMIT, cluster=three.address,
                     each=each)
    assert [row["value"] for row in found] == [*range(count)]
    assert sorted(came) == [*range(count)]
    lines = sorted(map(int, log.read_text().split()))
    # What had ended on the killed worker, and was not fetched yet, may be done again.
    assert {*lines} == {*range(count)} and len(lines) <= count + 1
    here = run_jobs(asked, tmp_path / "here", workers=2, limit=LIMIT)
    assert here == found and content(tmp_path / "here") == content(tmp_path / "cache")


CLIENT = """
import sys
from pathlib import Path
from calls import counted
from n2uq_hw.jobs import Job, run_jobs
_, address, cache, log = sys.argv
run_jobs([Job(f"k{k}", counted, (k, 0.5, log)) for k in range(30)], Path(cache), workers=0,
         limit=60.0, cluster=address, each=lambda place, result: print(place, flush=True))
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_client_comes_back(three: Cluster, tmp_path: Path, how: signal.Signals) -> None:
    """What ran while it was away is there, and nothing is done twice."""
    log, cache = tmp_path / "log", tmp_path / "cache"
    command = [sys.executable, "-c", CLIENT, three.address, str(cache), str(log)]
    first = subprocess.Popen(command, env=three.env, stdout=subprocess.PIPE, text=True,
                             stderr=subprocess.DEVNULL)
    assert first.stdout is not None
    before = [int(first.stdout.readline()) for _ in range(4)]
    first.send_signal(how)
    assert first.wait(30) != 0
    end = time.monotonic() + 30
    while len(log.read_text().split()) < len(before) + 6:  # they go on
        assert time.monotonic() < end
        time.sleep(0.1)
    second = subprocess.run(command, env=three.env, stdout=subprocess.PIPE, text=True, check=True)
    after = [int(line) for line in second.stdout.split()]
    assert {*before} | {*after} == {*range(30)}
    assert sorted(map(int, log.read_text().split())) == [*range(30)]
    assert len([*cache.glob("k*.json")]) == 30
    with cluster.connected(three.address) as client:
        left = client.list_datasets()  # killed between a result and its last word of it: that one
        assert len(left) <= (how is signal.SIGKILL)


@pytest.mark.slow
def test_a_lost_scheduler_is_a_line(tmp_path: Path) -> None:
    with Cluster(tmp_path) as held:
        held.worker()
        with pytest.raises(N2uqError, match=f"^cluster {held.address}: "):
            run_jobs([Job("a", number, (1,)), Job("s", time.sleep, (60,))], tmp_path / "cache",
                     workers=0, limit=LIMIT, cluster=held.address,
                     each=lambda place, result: held.kill(held.processes[0]))
        assert (tmp_path / "cache" / "a.json").is_file()
