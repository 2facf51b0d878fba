"""Calls side by side: in threads, in processes, or on a cluster; results are kept as files."""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing import connection, get_context
from multiprocessing.forkserver import ensure_running
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from .errors import N2uqError
from .signals import uninterrupted

__all__ = ["Failure", "Job", "Progress", "alone", "cache_folder", "key_of", "run_jobs",
           "side_by_side", "sources"]

Progress = Callable[[str, float], None]  # is told a stage, and the share of it that is done
Result = TypeVar("Result")

GRACE = 5.0  # seconds for a job to clean up
_CONTEXT = get_context("forkserver")


@dataclass(frozen=True)
class Job:
    """``call(*args)`` gives a JSON object, which is kept under `key`; "" for one not to keep."""

    key: str
    call: Callable[..., dict[str, Any]]
    args: tuple[Any, ...]


@dataclass(frozen=True)
class Failure:
    """Why a job has no result: one line, and the class of what it raised ("" if it was ended)."""

    text: str
    kind: str = ""


def key_of(kind: str, *parts: object) -> str:
    """The name under which a result is kept: equal for equal `parts`, by their `repr`."""
    return f"{kind}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:24]}"


@cache
def sources(names: tuple[str, ...]) -> str:
    """A digest of files and folders of this package, by their names in it."""
    root, digest = Path(__file__).parent, hashlib.sha256()
    for path in (root / name for name in names):
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()


def cache_folder() -> Path:
    """Where results are kept unless another folder is named: ~/.cache/n2uq-hw."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "n2uq-hw"


def side_by_side(work: Callable[[int, int, Progress], Result], cuts: Sequence[tuple[int, int]],
                 jobs: int, progress: Progress) -> list[Result]:
    """What `work` makes of each share of the images, first to end, `jobs` threads at a time.

    The first that fails, or Ctrl-C, ends all others, which their progress tells them.
    """
    if len(cuts) == 1:
        return [work(*cuts[0], progress)]
    ended, done = threading.Event(), dict.fromkeys(cuts, 0.0)

    def one(cut: tuple[int, int]) -> Result:
        def told(stage: str, fraction: float) -> None:
            if ended.is_set():
                raise N2uqError("ended with the others")
            done[cut] = fraction
            progress(stage, sum(done.values()) / len(cuts))
        return work(*cut, told)

    with ThreadPoolExecutor(jobs) as pool:
        try:
            futures = {pool.submit(one, cut): cut for cut in cuts}
            wait(futures, return_when=FIRST_EXCEPTION)
            for future, (first, end) in futures.items():
                error = future.done() and future.exception()
                if isinstance(error, N2uqError):
                    raise N2uqError(f"images {first} to {end - 1}: {error}") from None
            return [future.result() for future in futures]
        finally:
            ended.set()
            pool.shutdown(cancel_futures=True)


def run_jobs(jobs: Sequence[Job], cache: Path, *, workers: int, limit: float, cluster: str = "",
             progress: Callable[[float], None] = lambda done: None,
             each: Callable[[int, dict[str, Any] | Failure], None] = lambda place, result: None
             ) -> list[dict[str, Any] | Failure]:
    """The results of all jobs, in their order; those that are kept already run no more.

    Each job is a process of its own: what it raises, and how it dies, is its own result.  The
    processes end with this call, or with this process even if that is killed.  On a cluster, jobs
    that were asked for go on though this process ends, and the next call with them has what they
    found (docs: More than one machine).

    Parameters
    ----------
    cache: folder of results, made if it is not there.
    workers: processes at a time, on this machine.
    limit: seconds that a job may take.
    cluster: the address of a dask scheduler, tcp://HOST:PORT, whose workers run the jobs; "" for
        this machine.
    progress: is told the share of the jobs that are done.
    each: is given the place of each job that ran, and its result, as it comes.
    """
    results = _kept(jobs, cache)
    waiting = [k for k in range(len(jobs)) if k not in results]

    def keep(place: int, result: dict[str, Any] | Failure) -> None:
        results[place] = result
        each(place, result)
        progress(len(results) / len(jobs))

    if waiting:
        progress(len(results) / len(jobs))
        if cluster:
            from .cluster import run_remotely

            run_remotely(cluster, {k: (jobs[k].call, jobs[k].args) for k in waiting}, limit, alone,
                         lambda k, found: keep(k, _returned(found, jobs[k].key, cache)))
        else:
            _run_here(jobs, waiting, cache, workers, limit, keep)
    progress(1.0)
    return [results[k] for k in range(len(jobs))]


def alone(call: Callable[..., dict[str, Any]], args: tuple[Any, ...], limit: float, folder: Path
          ) -> dict[str, Any] | Failure:
    """The result of one call in a process of its own; `folder` is for what it leaves behind."""
    (result,) = run_jobs([Job("", call, args)], folder, workers=1, limit=limit)
    return result


def _returned(found: dict[str, Any], key: str, cache: Path) -> dict[str, Any] | Failure:
    """What came from a cluster, kept as `_work` keeps it."""
    if "failure" in found:
        return Failure(*found["failure"])
    if key:
        _keep(found["text"], key, cache)
    result: dict[str, Any] = json.loads(found["text"])
    return result


def _keep(text: str, key: str, cache: Path) -> None:
    """A result under its key, whole or not at all."""
    part = cache / f".{key}.{os.getpid()}"
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(cache / f"{key}.json")
    finally:
        with suppress(OSError):
            part.unlink()


def _run_here(jobs: Sequence[Job], waiting: list[int], cache: Path, workers: int, limit: float,
              keep: Callable[[int, dict[str, Any] | Failure], None]) -> None:
    """Run jobs in processes of this machine."""
    running: dict[connection.Connection, tuple[int, BaseProcess, float]] = {}
    _start_server()
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                k = waiting.pop(0)
                ours, theirs = _CONTEXT.Pipe(duplex=False)
                process: BaseProcess = _CONTEXT.Process(target=_work, args=(theirs, jobs[k], cache))
                running[ours] = k, process, 0.0
                with uninterrupted():  # else it might run on, unknown
                    process.start()
                running[ours] = k, process, time.monotonic() + limit
                theirs.close()
            next_end = min(end for _, _, end in running.values())
            ready = connection.wait(list(running), max(0.0, next_end - time.monotonic()))
            for pipe, (k, child, end) in list(running.items()):
                if pipe in ready:
                    result = _received(pipe, child)
                elif time.monotonic() >= end:
                    child.terminate()
                    result = Failure(f"took longer than {limit:g} s")
                else:
                    continue
                child.join()
                del running[pipe]
                keep(k, result)
    finally:
        for _, child, _ in running.values():
            if child.pid is not None:
                child.terminate()
                child.join()


def _kept(jobs: Sequence[Job], cache: Path) -> dict[int, dict[str, Any] | Failure]:
    """The results that the cache has, by the places of their jobs."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        return {k: json.loads(path.read_text(encoding="utf-8")) for k, job in enumerate(jobs)
                if job.key and (path := cache / f"{job.key}.json").is_file()}
    except OSError as error:
        raise N2uqError(f"{error.filename or cache}: {error.strerror}") from None


def _start_server() -> None:
    """Start what the processes are forked from: it has the modules, and Ctrl-C passes it by."""
    _CONTEXT.set_forkserver_preload(["n2uq_hw.cli", "n2uq_hw.compare.measure", *(
        name for name in ("distributed",) if name in sys.modules)])  # which each process imports
    if threading.current_thread() is not threading.main_thread():  # of a cluster's worker
        return ensure_running()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        ensure_running()
    finally:
        signal.signal(signal.SIGINT, before)


def _received(pipe: connection.Connection, process: BaseProcess) -> dict[str, Any] | Failure:
    try:
        result: dict[str, Any] | Failure = pipe.recv()
        return result
    except EOFError:
        process.join()
        return Failure(f"must end by itself, was ended with code {process.exitcode}")


def _work(pipe: connection.Connection, job: Job, cache: Path) -> None:
    """The process of one job."""
    def stop(number: int, frame: object) -> NoReturn:
        raise SystemExit(128 + signal.SIGTERM)

    def astray(what: Any) -> None:
        if issubclass(what.exc_type, SystemExit):  # swallowed by a finalizer: once more, after it
            signal.setitimer(signal.ITIMER_REAL, 0.01)
        else:
            sys.__unraisablehook__(what)

    # What reaches all processes of a terminal: the first one sees to the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGALRM, stop)
    sys.unraisablehook = astray
    threading.Thread(target=_end_with, args=(pipe,), daemon=True).start()
    result: dict[str, Any] | Failure
    try:
        text = json.dumps(job.call(*job.args))
        result = json.loads(text)  # as it will be read
        if job.key:
            _keep(text, job.key, cache)
    except Exception as error:  # of a user's class, for instance: any
        text = " ".join(str(error).split())
        kind = type(error).__name__
        result = Failure(text if isinstance(error, N2uqError) else f"{kind}: {text}", kind)
    with suppress(BrokenPipeError):  # of who no longer waits for it
        pipe.send(result)


def _end_with(pipe: connection.Connection) -> None:
    """End this process once nobody can read `pipe` any more: who wanted its result was killed."""
    gone = select.poll()
    gone.register(pipe.fileno(), 0)  # of what may happen to it, only its faults
    gone.poll()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)  # for what it started, and its files
    os.kill(os.getpid(), signal.SIGKILL)
