"""A scheduler of dask and its workers, as processes of this machine."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

__all__ = ["Cluster"]

TESTS = Path(__file__).parent
ROOT = TESTS.parent


class Cluster:
    """`address` is its scheduler's; all processes end with the block."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.processes = folder, list[subprocess.Popen[str]]()
        self.env = os.environ | {
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, TESTS))),
            "DASK_DISTRIBUTED__ADMIN__LOG_FORMAT": "%(message)s",
            "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "10s"}

    def __enter__(self) -> Cluster:
        scheduler = self._start("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port",
                                "0", "--no-dashboard", "--no-show", "--dashboard-address", ":0")
        assert scheduler.stderr is not None
        for line in scheduler.stderr:
            if found := re.search(r"tcp://127.0.0.1:\d+", line):
                self.address = found[0]
                break
        threading.Thread(target=scheduler.stderr.read, daemon=True).start()  # lest it waits
        return self

    def worker(self, *options: str) -> subprocess.Popen[str]:
        """One more, of one thread; with a nanny that starts it anew, unless `options` say not."""
        process = self._start("distributed.cli.dask_worker", self.address, "--nthreads", "1",
                              "--no-dashboard", "--local-directory", str(self.folder), *options)
        assert process.stderr is not None
        threading.Thread(target=process.stderr.read, daemon=True).start()
        return process

    def _start(self, module: str, *options: str) -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, "-m", module, *options], env=self.env,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                   start_new_session=True, cwd=self.folder)
        self.processes.append(process)
        return process

    def kill(self, process: subprocess.Popen[str]) -> None:
        """End one without a word to anyone, and all that it started in its session."""
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        end = time.monotonic() + 10
        for process in self.processes:
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.kill(process)
