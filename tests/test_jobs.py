"""Jobs in processes of their own: results that are kept, faults, limits, Ctrl-C."""

from __future__ import annotations

import signal
import time
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from calls import dies, faulty, lingers, number, raises

from n2uq_hw import jobs
from n2uq_hw.errors import N2uqError
from n2uq_hw.jobs import Failure, Job, Progress, run_jobs, side_by_side


def test_jobs_fail_one_by_one_and_results_are_kept(tmp_path: Path) -> None:
    asked = [Job("", dies, ()), Job("one", number, (1,)), Job("r", raises, ()),
             Job("n", faulty, ()), Job("two", number, (2,))]
    shares: list[float] = []
    results = run_jobs(asked, tmp_path, workers=2, limit=600.0, progress=shares.append)
    assert results == [
        Failure("must end by itself, was ended with code -9"), {"value": 1, "pair": [1, 1]},
        Failure("ZeroDivisionError: all gone", "ZeroDivisionError"),
        Failure("x must be 1, not 2", "N2uqError"), {"value": 2, "pair": [2, 2]}]
    assert shares[0] == 0 and shares[-1] == 1 and shares == sorted(shares)
    assert {path.name for path in tmp_path.iterdir()} == {"one.json", "two.json"}
    again = [replace(job, call=dies, args=()) for job in asked if job.key in ("one", "two")]
    assert run_jobs(again, tmp_path, workers=2, limit=600.0) == [results[1], results[4]]


def test_a_job_has_a_limit(tmp_path: Path) -> None:
    results = run_jobs([Job("s", time.sleep, (600,))], tmp_path, workers=1, limit=0.5)
    assert results == [Failure("took longer than 0.5 s")] and not list(tmp_path.iterdir())


def test_a_job_ends_though_a_finalizer_swallows_it(tmp_path: Path) -> None:
    begin = time.monotonic()
    results = run_jobs([Job("s", lingers, ())], tmp_path, workers=1, limit=3.0)
    assert results == [Failure("took longer than 3 s")] and time.monotonic() - begin < 15


def test_ctrl_c_while_a_job_starts_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                           ) -> None:
    started: list[BaseProcess] = []

    def start(process: BaseProcess) -> None:
        started.append(process)
        signal.raise_signal(signal.SIGINT)
        BaseProcess.start(process)

    monkeypatch.setattr(jobs._CONTEXT.Process, "start", start)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_jobs([Job("s", time.sleep, (600,))], tmp_path, workers=1, limit=600.0)
    finally:
        signal.signal(signal.SIGINT, before)
    assert started[0].pid and not started[0].is_alive()


@pytest.mark.parametrize("fault", [N2uqError, KeyboardInterrupt])
def test_a_share_that_fails_ends_the_others(fault: type[BaseException]) -> None:
    began, ended, interrupts = set[int](), set[int](), [signal.SIGINT]

    def work(first: int, end: int, told: Progress) -> Any:
        began.add(first)
        try:
            while first != 2:
                told("simulate", 0.5)
                time.sleep(0.01)
            while not {0, 4} <= began:
                time.sleep(0.01)
            if fault is KeyboardInterrupt and interrupts:
                signal.raise_signal(interrupts.pop())
            raise N2uqError("broken")
        finally:
            ended.add(first)

    message = "images 2 to 3: broken" if fault is N2uqError else None
    with pytest.raises(fault, match=message):
        side_by_side(work, [(0, 2), (2, 4), (4, 6), (6, 8)], 3, lambda stage, done: None)
    assert ended == began >= {0, 2, 4}
