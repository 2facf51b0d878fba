"""How often each bit of a simulated device switches: a dump of changes, counted as it is written.

A dump of a whole network has gigabytes: it goes through a pipe, and no file of it is there.
Verilator's own SAIF writer counts a net that starts at 1 as a toggle, and the time before the dump
as time at 0; Icarus has none.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import takewhile
from pathlib import Path
from threading import Thread

import numpy as np

from n2uq_hw import tools
from n2uq_hw.errors import N2uqError

__all__ = ["DUMP", "Switching", "counted"]

DUMP = "switching.vcd"  # in the folder where the simulation runs
_TOP, _LAST = "harness", "dumps"  # the signal there that falls where the count ends
_VARIABLE = re.compile(r"^\s*\$var\s+\S+\s+(\d+)\s+(\S+)\s+(\S+)")
_END = b"$enddefinitions"


@dataclass(frozen=True)
class Switching:
    """Toggles and levels of every bit of a device over a time.

    Members
    -------
    duration: ps, of whole clock cycles.
    scopes: of each instance by its path, bits [first, end) of each signal, the low one first.
    toggles: int64 [bits], between 0 and 1; a change within no time is none.
    low, high: int64 [bits], ps at 0 and at 1; what is missing was undefined.
    """

    duration: int
    scopes: Mapping[tuple[str, ...], Mapping[str, tuple[int, int]]]
    toggles: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def named(self, names: Mapping[str, str]) -> Switching:
        """The same with other names of signals, by the names that they have."""
        return replace(self, scopes={path: {names.get(name, name): bits
                                            for name, bits in signals.items()}
                                     for path, signals in self.scopes.items()})

    def saif(self) -> Iterator[str]:
        """A file in SAIF 2.0, backward, with time in ps; instances below ``harness``."""
        yield ('(SAIFILE\n(SAIFVERSION "2.0")\n(DIRECTION "backward")\n(PROGRAM_NAME "n2uq-hw")\n'
               f"(DIVIDER / )\n(TIMESCALE 1 ps)\n(DURATION {self.duration})\n")
        under: tuple[str, ...] = ()
        for path in sorted(self.scopes):
            shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1],
                                              zip(under, path, strict=False)))
            yield ")\n" * (len(under) - shared)
            yield "".join(f"(INSTANCE {_escaped(name)}\n" for name in path[shared:])
            yield "(NET\n"
            for name, (first, end) in sorted(self.scopes[path].items()):
                for bit in range(first, end):
                    index = rf"\[{bit - first}\]" if end - first > 1 else ""
                    rest = self.duration - self.low[bit] - self.high[bit]
                    yield (f"({_escaped(name)}{index} (T0 {self.low[bit]}) (T1 {self.high[bit]}) "
                           f"(TX {rest}) (TC {self.toggles[bit]}) (IG 0))\n")
            yield ")\n"
            under = path
        yield ")\n" * (len(under) + 1)


def _escaped(name: str) -> str:
    """A name of SAIF: what is no letter, digit or underscore is escaped."""
    return re.sub(r"(\W)", r"\\\1", name)


@contextmanager
def counted(folder: Path) -> Iterator[list[Switching]]:
    """Count what a simulation in `folder` dumps while this lasts; the list then has the result.

    Raises N2uqError where nothing was dumped.
    """
    path, results, faults = folder / DUMP, list[Switching](), list[N2uqError]()
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(path, os.O_WRONLY)  # until it is closed the dump has no end
    os.set_blocking(reader, True)

    def work() -> None:
        try:
            results.append(_count(reader))
        except N2uqError as error:
            faults.append(error)
        finally:
            os.close(reader)

    thread, shown = Thread(target=work), list[Switching]()
    thread.start()
    try:
        yield shown
    finally:
        os.close(writer)
        thread.join()
    if faults:
        raise faults[0]
    shown += results


def _count(dump: int) -> Switching:
    text = b""
    while (cut := text.find(_END)) < 0 or b"\n" not in text[cut:]:
        if not (more := os.read(dump, 1 << 20)):
            raise N2uqError("simulation: must dump the changes of its signals, and dumped none")
        text += more
    body = text.index(b"\n", cut) + 1
    last, scopes, first, codes, bits = _declared(text[:cut].decode(errors="replace"))
    order = np.argsort(codes, kind="stable")
    size = int(bits.sum())
    times = np.zeros(2, np.int64)
    toggles, low, high, since = (np.zeros(size, np.int64) for _ in range(4))
    state = np.full(size, 2, np.uint8)
    arrays = [np.ascontiguousarray(values[order]) for values in (codes, first, bits)]
    failed = _library().n2uq_switching(
        dump, text[body:], ctypes.c_int64(len(text) - body), ctypes.c_int64(last),
        ctypes.c_int64(len(codes)), *(
            values.ctypes.data_as(ctypes.c_void_p)
            for values in (*arrays, times, toggles, low, high, state, since)))
    if failed:
        raise N2uqError("simulation: the dump of its signals was cut short, or is none")
    start, end = (int(time) for time in times)
    duration = end - start
    for level, spent in enumerate((low, high)):
        spent[state == level] += (start + duration - since)[state == level]
    return Switching(duration, scopes, toggles, low, high)


def _declared(header: str) -> tuple[int, dict[tuple[str, ...], dict[str, tuple[int, int]]],
                                    np.ndarray, np.ndarray, np.ndarray]:
    """The code of the last change; signals of each instance below the harness; arrays.

    These have of each code where its bits begin, the code's number, and its bits.
    """
    scopes: dict[tuple[str, ...], dict[str, tuple[int, int]]] = {}
    path, known, size, last = list[str](), dict[int, tuple[int, int]](), 0, -1
    for line in header.splitlines():
        words = line.split()
        if words[:1] == ["$scope"]:
            path.append(words[2].removeprefix("\\"))
        elif words[:1] == ["$upscope"]:
            path.pop()
        elif not (variable := _VARIABLE.match(line)):
            continue
        elif path == [_TOP] and variable[3] == _LAST:
            last = _number(variable[2])
        elif len(path) > 1 and path[0] == _TOP:
            bits, code = int(variable[1]), _number(variable[2])
            if code not in known:
                known[code] = size, bits
                size += bits
            begin, bits = known[code]
            scopes.setdefault(tuple(path), {})[variable[3].removeprefix("\\")] = begin, begin + bits
    first, width = np.array([*known.values()], np.int64).reshape(-1, 2).T
    return last, scopes, first, np.array([*known], np.int64), width


def _number(code: str) -> int:
    return sum((ord(letter) - 32) * 94**place for place, letter in enumerate(code))


@cache
def _library() -> ctypes.CDLL:
    return tools.library(Path(__file__).with_name("switching.cpp"), "counts of toggles", "-O2")
