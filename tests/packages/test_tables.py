"""Files of tables, and the drivers that write them, on a device of Python's."""

from __future__ import annotations

import ctypes
import subprocess
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
from writables import other

from n2uq_hw import __version__
from n2uq_hw.builds.emit import Build, emit, load_build
from n2uq_hw.builds.tables import Tables, pack
from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.registers import TABLES, identity, registers_of
from n2uq_hw.ir import Graph, Input, MatVec, writable
from n2uq_hw.packages import c, pynq, vivado
from n2uq_hw.plan.choice import choose
from n2uq_hw.sim.timing.fifos import size_fifos


def trained() -> Graph:
    weights = np.random.default_rng(0).integers(-3, 4, (4, 6))
    return Graph("tiny", (Input("x", shape=(1, 1, 6), lo=0, hi=3),
                          MatVec("a", ("x",), weights))).verify()


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    graph, path = writable(trained(), "weights"), tmp_path_factory.mktemp("tiny") / "b"
    emit(graph, size_fifos(graph, choose(graph)), path, np.zeros((2, 6, 1, 1), int), None)
    return load_build(path)


class Device:
    """Registers that refuse words while `busy`."""

    def __init__(self, build: Build) -> None:
        self.log: list[tuple[int, int]] = []
        self.busy, self.refused = False, False
        constants = identity(build.graph, __version__)
        self.constants = {register.offset: register.constant(constants)
                          for register in registers_of(build.graph)
                          if register.fields[0].access == "constant"}

    def read(self, address: int) -> int:
        if address == TABLES.offset:
            return 2 * self.busy + 8 * self.refused
        return self.constants[address]

    def write(self, address: int, value: int) -> None:
        self.log.append((address, value))


def written(tables: Tables) -> list[tuple[int, int]]:
    """What a driver must do: clear `refused`, all words, switch."""
    words = zip(tables.address.tolist(), tables.data.tolist(), strict=True)
    return [(TABLES.offset, 8), *words, (TABLES.offset, 1)]


@pytest.mark.parametrize("compiler,standard", [("gcc", "-std=c99"), ("g++", "-std=c++17")])
def test_the_c_driver_writes_and_switches(build: Build, compiler: str, standard: str,
                                          tmp_path: Path) -> None:
    ((name, text),) = c.files(build).items()
    (tmp_path / Path(name).name).write_text(text)
    (tmp_path / "load.c").write_text(
        f'#include "{Path(name).name}"\n#ifdef __cplusplus\nextern "C"\n#endif\n'
        "const char *load(uint32_t (*r)(void *, uint32_t), void (*w)(void *, uint32_t, uint32_t),"
        " const uint32_t *words, size_t count)\n"
        "{ n2uq_tiny_device d; d.base = NULL; d.read = r; d.write = w; d.context = NULL;"
        " return n2uq_tiny_load(&d, words, count); }\n")
    subprocess.run([compiler, standard, "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC",
                    *(["-x", "c++"] if compiler == "g++" else []), "load.c", "-o", "load.so"],
                   cwd=tmp_path, check=True)
    load = ctypes.CDLL(str(tmp_path / "load.so")).load
    load.restype = ctypes.c_char_p
    device, tables = Device(build), pack(other(trained(), 1), build)
    calls = (ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32)(
        lambda _, address: device.read(address)),
        ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32)(
        lambda _, address, value: device.write(address, value)))

    def said(words: np.ndarray) -> bytes | None:
        return load(*calls, words.ctypes, ctypes.c_size_t(len(words)))

    tables.save(tmp_path / "t.bin")
    words = np.fromfile(tmp_path / "t.bin", "<u4")
    assert said(words) is None and device.log == written(tables)
    device.log.clear()
    wrong, elsewhere = words.copy(), words.copy()
    wrong[0] ^= 1
    elsewhere[1] ^= 1
    for faulty in (words[:-1], words[:3], wrong):
        assert said(faulty) == b"no whole file of tables"
    assert said(elsewhere) == b"tables of another build"
    device.busy = True
    assert said(words) == b"the last switch is not through" and not device.log
    device.busy, device.refused = False, True
    assert said(words) == b"a word was refused" and device.log == written(tables)[:-1]


def test_the_pynq_driver_does_the_same(build: Build, tmp_path: Path) -> None:
    (text,) = pynq.files(build).values()
    (tmp_path / "driver.py").write_text(text)
    spec = spec_from_file_location("driver_of_tiny", tmp_path / "driver.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    device, tables = Device(build), pack(other(trained(), 1), build)
    accelerator = module.Accelerator.__new__(module.Accelerator)
    accelerator.registers = device
    tables.save(tmp_path / "t.npz")
    accelerator.load(tmp_path / "t.npz")
    assert device.log == written(tables)
    device.busy = True
    with pytest.raises(RuntimeError, match="must be written when the last switch is through"):
        accelerator.load(tmp_path / "t.npz")


def test_what_describes_the_bus_knows_the_tables(build: Build) -> None:
    assert "| 0x28 | `tables` | 0 | `switch` |" in (build.path / "control.md").read_text()
    assert "} tables @ 0x28;" in (build.path / "control.rdl").read_text()
    assert f"format=\"long\">{2**13}</spirit:range>" in vivado.files(build)["component.xml"]


def test_a_build_of_constants_takes_none(tmp_path: Path) -> None:
    graph = trained()
    emit(graph, size_fifos(graph, choose(graph)), tmp_path / "b", np.zeros((2, 6, 1, 1), int), None)
    with pytest.raises(N2uqError, match="b: must be a build with --writable"):
        pack(graph, load_build(tmp_path / "b"))
