"""What a simulation is made of: devices, streams, beats as bits, stalls, and their files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np

from n2uq_hw.errors import N2uqError
from n2uq_hw.templates import render

from .switching import Switching

__all__ = ["DRAIN", "PERIOD", "Await", "Dut", "Probe", "Record", "Run", "Sink", "Source", "Tap",
           "harness_verilog", "pack", "read_cycles", "read_record", "stall_pattern", "streams",
           "unpack", "write_inputs"]

DRAIN = 16  # cycles to listen at least after the last expected beat, and beats too many to take
PERIOD = 10  # ns; the first rising edge comes after half of it
_CYCLE = 5  # bytes of a cycle number in the logs


@dataclass(frozen=True)
class Source:
    """An input stream: names of its ports, bits of a beat, and the beats to send.

    `beats` is uint8 bits [n, width], least significant first (see `pack`).  A port `last` takes the
    top bit of each beat, `data` the others; without it, `data` takes all.
    """

    data: str
    valid: str
    ready: str
    width: int
    beats: np.ndarray
    last: str = ""


@dataclass(frozen=True)
class Sink:
    """An output stream, ports as in a `Source`; it must give `count` beats, no fewer, no more."""

    data: str
    valid: str
    ready: str
    width: int
    count: int
    last: str = ""


@dataclass(frozen=True)
class Tap:
    """A stream inside the device, recorded only; dotted names relative to the device."""

    name: str
    valid: str
    ready: str
    data: str
    width: int


@dataclass(frozen=True)
class Await:
    """A stream inside the device that must move `count` beats before the run ends."""

    name: str
    valid: str
    ready: str
    count: int


@dataclass(frozen=True)
class Probe:
    """A signal of the device, by its dotted `name`, that is read when the run ends."""

    name: str
    width: int


@dataclass(frozen=True)
class Dut:
    """A device under test: the Verilog `module` and its streams, under a `name` for messages.

    Of `taps` each transfer is recorded, of `waves` each change of valid, ready and data.  Inputs
    that are `tied` are 0.
    """

    name: str
    module: str
    sources: tuple[Source, ...]
    sinks: tuple[Sink, ...]
    taps: tuple[Tap, ...] = ()
    awaits: tuple[Await, ...] = ()
    probes: tuple[Probe, ...] = ()
    waves: tuple[Tap, ...] = ()
    clock: str = "clk"
    reset: str = "rst"
    reset_active_low: bool = False
    tied: tuple[str, ...] = ()


@dataclass(frozen=True)
class Record:
    """The transfers of a stream since the last reset.

    `cycles` is int64 [n], 0 for the first clock edge after reset; `beats` is uint8 bits
    [n, width]; for a sink, n is its `count`.
    """

    cycles: np.ndarray
    beats: np.ndarray


@dataclass(frozen=True)
class Run:
    """What a simulation gave, per device by name, streams in the order of the device.

    Members
    -------
    sinks: the transfers of each output.
    sources: int64 [n], the cycle in which each beat of an input was taken.
    taps: the transfers of each tap by its name.
    probes: uint8 bits [width], what each probe read, by its name.
    waves: the changes of each wave by its name: data, up to whole bytes, then ready, valid.
    cycles: from reset to the last expected beat.
    switching: toggles of all signals, where they were asked for.
    seconds: wall time in the simulator, without compile and start-up.
    compile_seconds: wall time of the compile, 0.0 if the simulator was there.
    """

    sinks: dict[str, tuple[Record, ...]]
    sources: dict[str, tuple[np.ndarray, ...]]
    taps: dict[str, dict[str, Record]]
    probes: dict[str, dict[str, np.ndarray]]
    waves: dict[str, dict[str, Record]]
    cycles: int
    seconds: float
    compile_seconds: float
    switching: Switching | None = None


def pack(values: np.ndarray, width: int) -> np.ndarray:
    """Integers [n, lanes] as uint8 bits [n, lanes * width], lane 0 in the low bits.

    Negative values become two's complement.  Raises N2uqError for a value that fits `width`
    bits neither signed nor unsigned.
    """
    values = np.asarray(values)
    if values.dtype.kind not in "ui":
        values = values.astype(np.int64)
    if values.ndim != 2 or not 1 <= width <= 63:
        raise N2uqError(f"pack: takes [n, lanes] and 1 to 63 bits, not {values.shape} and {width}")
    lo, hi = (int(values.min()), int(values.max())) if values.size else (0, 0)
    if lo < -(1 << width - 1) or hi >= 1 << width:
        raise N2uqError(f"pack: values must fit {width} bits, not range over [{lo}, {hi}]")
    size = 1 << (-(-width // 8) - 1).bit_length()
    octets = np.ascontiguousarray(values, f"<u{size}")[..., None].view(np.uint8)
    return np.unpackbits(octets, axis=2, count=width, bitorder="little"
                         ).reshape(len(values), values.shape[1] * width)


def unpack(bits: np.ndarray, lanes: int, width: int, signed: bool) -> np.ndarray:
    """The inverse of `pack`: uint8 bits [n, lanes * width] as int64 [n, lanes]."""
    if bits.ndim != 2 or bits.shape[1] != lanes * width:
        raise N2uqError(f"unpack: takes [n, {lanes * width}] bits, not {bits.shape}")
    octets = np.zeros((len(bits), lanes, 8), np.uint8)
    octets[..., :-(-width // 8)] = np.packbits(bits.reshape(len(bits), lanes, width), axis=2,
                                               bitorder="little")
    values = octets.view("<i8")[..., 0].astype(np.int64)
    if signed:
        values -= (values >> width - 1) << width
    return values


def _xorshift(x: np.ndarray) -> np.ndarray:
    x = x ^ x << np.uint32(13)
    x = x ^ x >> np.uint32(17)
    return x ^ x << np.uint32(5)


def _seed(seed: int, port: int) -> int:
    """The nonzero 32-bit state a port starts from: murmur3's finalizer over both numbers."""
    x = (seed * 0x9E3779B9 + port * 0x7FEB352D + 1) & 0xFFFFFFFF
    x = (x ^ x >> 16) * 0x85EBCA6B & 0xFFFFFFFF
    x = (x ^ x >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
    return x ^ x >> 16 or 1


def _threshold(probability: float) -> int:
    return round(probability * 2**32)


def stall_pattern(seed: int, port: int, probability: float, cycles: int) -> np.ndarray:
    """Whether a port stalls in each cycle since reset, bool [cycles].

    A port counts from 0 through all devices of a simulation, a device's sources before its
    sinks.  Its 32-bit state starts from `seed` and `port` and makes one step of xorshift32
    (13, 17, 5) per cycle; the port stalls while the state is below `probability` * 2**32.  A
    sink is ready when it does not stall; a source offers a new beat when it does not stall,
    and goes on offering it until it is taken.
    """
    # The step is linear over GF(2): its images of the 32 unit vectors give 2, 4, 8, ... steps.
    def jump(images: np.ndarray, states: np.ndarray) -> np.ndarray:
        result = np.zeros_like(states)
        for bit, image in enumerate(images):
            result ^= (states >> np.uint32(bit) & np.uint32(1)) * image
        return result

    states = np.array([_seed(seed, port)], np.uint32)
    images = _xorshift(np.left_shift(np.uint32(1), np.arange(32, dtype=np.uint32)))
    while len(states) < cycles:
        states = np.concatenate([states, jump(images, states)])
        images = jump(images, images)
    return states[:cycles].astype(np.int64) < _threshold(probability)


def streams(duts: Sequence[Dut]) -> Iterator[tuple[int, Dut, Source | Sink]]:
    """Every source and sink with its port number and device."""
    port = count()
    for dut in duts:
        for source in dut.sources:
            yield next(port), dut, source
        for sink in dut.sinks:
            yield next(port), dut, sink


def harness_verilog(duts: Sequence[Dut], dump: str = "") -> str:
    """The harness around `duts`; independent of beats, counts, stalls and seed.

    `dump`: the file for changes of all signals of the devices, from reset to the last beat.
    """
    port, inner = count(), {kind: count() for kind in ("taps", "waves", "awaits", "probes")}
    rows = []
    for number, dut in enumerate(duts):
        rows.append({
            "name": dut.name, "module": dut.module, "instance": f"dut{number}",
            "clock": dut.clock, "reset": dut.reset, "reset_active_low": dut.reset_active_low,
            "tied": dut.tied,
            "sources": [(next(port), it) for it in dut.sources],
            "sinks": [(next(port), it) for it in dut.sinks],
            **{kind: [(next(numbers), it) for it in getattr(dut, kind)]
               for kind, numbers in inner.items()}})
    return render("harness.sv.j2", duts=rows, ports=next(port), awaits=next(inner["awaits"]),
                  drain=DRAIN, period=PERIOD, dump=dump)


def write_inputs(folder: Path, duts: Sequence[Dut], stalls: tuple[float, float], seed: int,
                 max_idle: int, listen: int) -> None:
    """The files that the harness reads when it starts: params.hex and the sources' beats."""
    params = [_threshold(stalls[0]), _threshold(stalls[1]), max_idle, listen]
    for port, _, stream in streams(duts):
        beats = len(stream.beats) if isinstance(stream, Source) else stream.count
        params += [_seed(seed, port), beats]
        if isinstance(stream, Source):
            # $fread fills a register from its most significant byte on.
            packed = np.packbits(stream.beats, axis=1, bitorder="little")[:, ::-1]
            (folder / f"port{port}.bin").write_bytes(packed.tobytes())
    params += [it.count for dut in duts for it in dut.awaits]
    (folder / "params.hex").write_text("".join(f"{value:016x}\n" for value in params),
                                       encoding="utf-8")


def _read_log(path: Path, width: int, what: str, least: int = 0
              ) -> tuple[np.ndarray, np.ndarray]:
    text, size = path.read_text(encoding="utf-8"), 2 * (_CYCLE + -(-width // 8)) + 1
    if len(text) % size or len(text) < least * size:
        raise N2uqError(f"{what}: {path} was cut short; is the disk full?")
    unknown = re.search("[xXzZ]", text)
    if unknown:
        raise N2uqError(f"{what}: beat {unknown.start() // size} has undefined bits")
    rows = np.frombuffer(bytes.fromhex(text), np.uint8).reshape(-1, size // 2)
    cycles = rows[:, :_CYCLE].astype(np.int64) @ (1 << 8 * np.arange(_CYCLE, dtype=np.int64)[::-1])
    return cycles, rows[:, _CYCLE:]


def read_cycles(path: Path, what: str) -> np.ndarray:
    """The log of a source, int64 [n]."""
    return _read_log(path, 0, what)[0]


def read_record(path: Path, width: int, what: str, least: int = 0) -> Record:
    """The log of a sink, tap or probe, of `least` lines; `what` names it in errors."""
    cycles, data = _read_log(path, width, what, least)
    return Record(cycles, np.unpackbits(data[:, ::-1], axis=1, count=width, bitorder="little"))
