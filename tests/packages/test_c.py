"""The C and C++ header against Python's packing, and its driver against registers."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
from c_streams import DRIVER, STREAMS, build_of, library
from units import images_on

from n2uq_hw import __version__
from n2uq_hw.builds.emit import ports
from n2uq_hw.builds.verify import _beats
from n2uq_hw.hw.registers import REGISTERS, identity
from n2uq_hw.packages import c

STANDARDS = [("gcc", "-std=c99"), ("g++", "-std=c++17")]


@pytest.mark.parametrize("compiler,standard", STANDARDS)
@pytest.mark.parametrize("name", STREAMS)
def test_packing_is_pythons(name: str, compiler: str, standard: str, tmp_path: Path) -> None:
    build = build_of(name, *STREAMS[name])
    source, output = ports(build.graph, build.folding)
    code = library(build, tmp_path, compiler, standard)
    for k, image in enumerate(images_on(build.graph.edges["x"], 12, 3)):
        beats = _beats(image[None], source)[:, :-1]  # without tlast
        right = np.packbits(beats, axis=1, bitorder="little").reshape(-1)
        for function, values in (("pack", image), ("planes", image.transpose(2, 0, 1))):
            given = np.ascontiguousarray(values, c_type(source.width, source.signed))
            got = np.full(right.size, 0xA5, np.uint8)
            getattr(code, function)(given.ctypes, got.ctypes)
            np.testing.assert_array_equal(got, right, f"{function}, image {k}")
        result = image.clip(*STREAMS[name][2])
        beats = _beats(result[None], output)[:, :-1]
        octets = np.packbits(beats, axis=1, bitorder="little")
        got_result = np.zeros(result.shape, c_type(output.width, output.signed))
        code.unpack(octets.ctypes, got_result.ctypes)
        np.testing.assert_array_equal(got_result, result)


def c_type(width: int, signed: bool) -> np.dtype:
    return np.dtype(f"{'i' if signed else 'u'}{next(n for n in (1, 2, 4, 8) if width <= 8 * n)}")


@pytest.mark.parametrize("compiler,standard", STANDARDS)
def test_the_driver_reads_and_writes_registers(
        compiler: str, standard: str, tmp_path: Path) -> None:
    """Through a pointer, and through functions; what it writes is written down."""
    build = build_of("driven", *STREAMS["signed"], control=True)
    code = library(build, tmp_path, compiler, standard, DRIVER)
    code.check.restype = ctypes.c_char_p
    memory = np.zeros(64, np.uint32)
    constants = identity(build.graph, __version__)
    at = {register.name: register.offset // 4 for register in REGISTERS}
    for register in REGISTERS:
        if register.fields[0].access == "constant":
            memory[at[register.name]] = register.constant(constants)
    for k, register in enumerate(REGISTERS[10:]):
        memory[at[register.name]] = 1000 + k
    log: list[tuple[int, int]] = []

    def write(_: object, address: int, value: int) -> None:
        log.append((address, value))
        memory[address // 4] = value

    read_type = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32)
    write_type = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32)
    calls = read_type(lambda _, address: int(memory[address // 4])), write_type(write)
    for base in (None, memory.ctypes):
        code.attach(base, *calls)
        assert code.check() is None
        for name, said in (("id", b"no accelerator of n2uq-hw"), ("hash_high", b"another network"),
                           ("map_version", b"registers of another version")):
            memory[at[name]] += 1
            assert code.check() == said
            memory[at[name]] -= 1
        counts = np.zeros(6, np.uint64)
        code.snapshot(1, counts.ctypes)
        assert memory[at["control"]] == 6
        assert counts.tolist() == [1000 + (1001 << 32), 1002, 1003, 1004 + (1005 << 32),
                                   1006 + (1007 << 32), 1008]
        code.reset(1)
        assert memory[at["control"]] == 1
        code.reset(0)
        code.interrupts(1)
        assert (memory[at["control"]], memory[at["interrupt_enable"]]) == (0, 1)
        memory[at["status"]] = memory[at["interrupt_status"]] = 0
        assert code.frame_error() == code.image_done() == 0
        memory[at["status"]] = memory[at["interrupt_status"]] = 1
        assert code.frame_error() == code.image_done() == 1
    # Only what is set is cleared.
    assert log == [(0x18, 6), (0x18, 1), (0x18, 0), (0x20, 1), (0x1C, 1), (0x24, 1)]


def test_without_registers_the_header_has_none() -> None:
    ((path, text),) = c.files(build_of("a-b */ c", *STREAMS["odd"])).items()
    assert path == "c/n2uq_a_b____c.h" and "device" not in text and "*/ c" not in text
