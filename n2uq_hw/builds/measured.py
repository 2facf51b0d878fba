"""What was measured of a build, kept in its folder: verdicts of simulations, cells, agreement.

`measured.json` holds results of one Verilog, whose hash it names.  Of another build's nothing is
shown, and the next result takes their place.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from .. import tools
from ..errors import N2uqError
from ..files import write_file
from ..sim.timing.forecast import forecast, stalled
from .accuracy import Agreement
from .emit import Build
from .synth import Pnr, Synthesis
from .verify import Verdict

__all__ = ["FILE", "keep_agreement", "keep_costs", "keep_verdict", "load_measured", "verilog_hash"]

FILE = "measured.json"
Results = dict[str, Any]  # verdicts: a list of rows; costs: rows by what they are of; agreement


def verilog_hash(build: Build) -> str:
    """SHA-256 of the names and contents of the Verilog and its memory files, as they are now."""
    names = [[path.name, hashlib.sha256(path.read_bytes()).hexdigest()] for path in build.verilog]
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()


def load_measured(build: Build) -> Results:
    """The results of the Verilog that `build` has now: {} if there are none.

    Raises N2uqError for a file that is not as it was written.
    """
    try:
        held = json.loads((build.path / FILE).read_text(encoding="utf-8"))
        results: Results = held["results"]
        whole = held["sha256"] == _digest(held["verilog"], results)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise N2uqError(f"{build.path / FILE}: must be as n2uq-hw wrote it, and was changed; "
                        "remove it, and measure again")
    return results if held["verilog"] == verilog_hash(build) else {}


def keep_verdict(build: Build, verdict: Verdict, of: str) -> None:
    """Keep what a simulation showed of the Verilog with the hash `of`, and what was predicted.

    It takes the place of an earlier one of as many images under the same stalls.
    """
    predicted = None
    images = verdict.images // verdict.shares  # cycles are those of the first share
    with suppress(N2uqError):  # without g++
        timing = (stalled(build.graph, build.folding, images, verdict.stalls, verdict.seed)
                  if verdict.stalls else forecast(build.graph, build.folding, images=images))
        predicted = {"cycles_first_output": timing.cycles_first_output,
                     "cycles_per_image": timing.cycles_per_image}
    tool = "iverilog" if verdict.simulator == "icarus" else verdict.simulator
    row = verdict.as_dict() | {"predicted": predicted, "version": tools.versions()[tool]}
    del row["cycles_per_second"]  # of the machine, not of the design
    key = ("images", "stalls", "seed", "simulator", "netlist", "power_up")
    with _changed(build, of) as results:
        results["verdicts"] = [row, *(old for old in results.get("verdicts", ())
                                      if any(old.get(name) != row[name] for name in key))]


def keep_costs(build: Build, costs: Synthesis, dsp: bool, placed: Pnr | None, of: str) -> None:
    """Keep the cells of the Verilog with the hash `of`, and Fmax where it was placed."""
    row = {"family": costs.family, "dsp": dsp, "version": costs.version,
           "total": costs.as_dict()["total"], "units": costs.as_dict()["units"]}
    key = costs.family + ", no DSP blocks" * (not dsp)
    with _changed(build, of) as results:
        before = results.setdefault("costs", {}).get(key, {})
        results["costs"][key] = row | {"pnr": before.get("pnr") if placed is None else {
            name: getattr(placed, name) for name in ("device", "fmax_mhz", "seed", "version")}}


def keep_agreement(build: Build, agrees: Agreement, trained: float | None) -> None:
    """Keep how golden agrees with the float model on labeled images.

    `trained`: accuracy of the float model on its whole test split, as its training found.
    """
    with _changed(build, verilog_hash(build)) as results:
        results["agreement"] = agrees.as_dict() | {"trained": trained}


@contextmanager
def _changed(build: Build, of: str) -> Iterator[Results]:
    """The kept results, to change, of the Verilog `of`; not kept if it is another by now.

    No other process changes them meanwhile.
    """
    lock = os.open(build.path, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        results: Results = {}
        with suppress(N2uqError):  # what was edited is no loss
            results = load_measured(build)
        yield results
        if of != verilog_hash(build):
            return
        write_file(build.path / FILE, json.dumps(
            {"verilog": of, "results": results, "sha256": _digest(of, results)}, indent=1) + "\n")
    finally:
        os.close(lock)


def _digest(of: str, results: Results) -> str:
    return hashlib.sha256(json.dumps([of, results], sort_keys=True).encode()).hexdigest()
