"""LiteX takes the package: its SoC in Verilator, and its own host program at the serial line."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import flows
import numpy as np
import pytest

from n2uq_hw import tools
from n2uq_hw.builds.emit import Port, emit
from n2uq_hw.hw.registers import REGISTERS
from n2uq_hw.ir import Graph, Input, Saturate
from n2uq_hw.ir.folding import unfolded
from n2uq_hw.packages.bench import BENCH
from n2uq_hw.packages.litex import TCP, Memory, memory_of
from n2uq_hw.sim.rtl.serial import VirtualBoard, board_program
from n2uq_hw.sim.timing.fifos import size_fifos

pytest.importorskip("litex", reason="needs litex, of the extra `test`")
pytest.importorskip("migen", reason="needs migen, of the extra `test`")
pytest.importorskip("serial", reason="needs pyserial, of the extra `board`")

CYCLES = 8  # per bit of the line
BOARD = """\
module board(input clk, input rx, output tx, output leds);
    assign leds = 0;
    soc soc(.sys_clk(clk), .serial_rx(rx), .serial_tx(tx));
endmodule
"""


def header(*names: str) -> Iterator[bool]:
    """Whether the C compiler finds each header."""
    for name in names:
        text = f"#include <{name}>\n"
        yield subprocess.run(["gcc", "-E", "-x", "c", "-"], input=text.encode(),
                             capture_output=True).returncode == 0


def python(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=cwd, capture_output=True,
                          text=True, timeout=300)


def verilog(package: Path) -> list[Path]:
    """The files of the example SoC, as LiteX writes them, and what its memories hold at first."""
    done = python("soc.py", "--cycles", CYCLES, cwd=package / "litex")
    assert done.returncode == 0, done.stderr
    gateware = package / "litex" / "build" / "gateware"
    (gateware / "board.v").write_text(BOARD)
    for path in gateware.glob("*.init"):  # the virtual board takes memories of this name
        path.rename(path.with_suffix(".hex"))
    soc = gateware / "soc.v"
    soc.write_text(soc.read_text().replace('.init"', '.hex"'))
    return [*map(Path, (gateware / "soc.f").read_text().split()), gateware / "board.v",
            *gateware.glob("*.hex")]


@contextmanager
def running(package: Path, work: Path) -> Iterator[str]:
    """The serial port of the example SoC, in Verilator."""
    files = verilog(package)
    program = board_program(files, "board", work, lambda stage, fraction: None)
    board = VirtualBoard(program, files, divisor=CYCLES, busy=200_000)
    try:
        yield board.port
    finally:
        board.close()


def host(package: Path, port: str) -> subprocess.CompletedProcess[str]:
    return python("host.py", port, cwd=package / "litex")


def test_beats_take_whole_bytes_and_images_whole_words() -> None:
    """Bits of a beat, beats in an image's words, bytes of an image, by hand."""
    for width, beats, memory in [(1, 9, (8, 12, 12)), (9, 3, (16, 4, 8)), (24, 3, (32, 3, 12)),
                                 (40, 2, (64, 2, 16)), (160, 2, (160, 2, 40))]:
        port = Port((1, 1, beats), 1, width, False)
        assert memory_of(port) == Memory(*memory)


@pytest.mark.slow
def test_the_soc_computes_the_vectors_of_the_bench(built: Path, tmp_path: Path) -> None:
    package = tmp_path / "p"
    flows.packaged(built, package, "litex")
    with running(package, tmp_path / "work") as port:
        for _ in range(2):  # a transfer after another
            done = host(package, port)
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout.startswith("PASS: 8 images, 0 of ")
        flows.spoil(package / "bench" / f"{BENCH}_expected.hex")
        done = host(package, port)
        assert done.returncode == 1 and done.stdout.startswith("FAIL: 8 images, 1 of ")


@pytest.mark.slow
def test_registers_and_beats_that_fill_no_word(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """9 beats of 5 bits, 3 of 3 × 4 bits; batches, and an image at a time; another network."""
    graph = Graph("odd_beats", (Input("x", shape=(1, 3, 3), lo=-9, hi=9),
                                Saturate("held", ("x",), lo=-8, hi=7))).verify()
    folding = {node.name: unfolded(node, pe=pe) for node, pe in zip(graph.nodes, (1, 3),
                                                                    strict=True)}
    images = np.random.default_rng(6).integers(-9, 10, (40, 3, 1, 3))
    emit(graph, size_fifos(graph, folding), tmp_path / "b", images, None, control=True)
    package = tmp_path / "p"
    flows.packaged(tmp_path / "b", package, "litex")
    with running(package, tmp_path / "work") as port:
        assert host(package, port).stdout == "PASS: 8 images, 0 of 72 values wrong\n"
        spec = spec_from_file_location("litex_host", package / "litex" / "host.py")
        assert spec is not None and spec.loader is not None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        comm = module.CommUART(port, csr_csv=str(package / "litex/build/csr.csv"))
        accelerator = module.Accelerator(comm)
        for batch in (40, 7, 1):
            accelerator.batch = batch
            some = images[:2 * batch]
            np.testing.assert_array_equal(accelerator.predict(some).transpose(0, 3, 1, 2),
                                          graph.forward(some))
        register = {each.name: accelerator.control + each.offset for each in REGISTERS}
        comm.write(register["control"], 2)  # snapshot
        run = 8 + 40 + 14 + 2
        assert comm.read(register["images_in"]) == comm.read(register["images_out"]) == run
        assert comm.read(register["status"]) == 0  # each image's last beat had tlast
        monkeypatch.setitem(module.CONSTANTS, 0x10, 1)
        with pytest.raises(RuntimeError, match=r"register 0x10 must be 0x1, not .*another network"):
            module.Accelerator(comm)


@pytest.mark.slow
@pytest.mark.skipif(not all(header("json-c/json.h", "event2/event.h")),
                    reason="LiteX's simulator needs the headers of json-c and libevent")
def test_litex_simulator_runs_the_soc(built: Path, tmp_path: Path) -> None:
    """LiteX's own simulator, with a server in the place of the serial line."""
    pytest.importorskip("pythondata_misc_tapcfg")
    package = tmp_path / "p"
    flows.packaged(built, package, "litex")
    with (tmp_path / "log").open("w") as log:
        simulator = subprocess.Popen(
            [sys.executable, "soc.py", "--run"], cwd=package / "litex", stdout=log,
            stderr=subprocess.STDOUT, env=os.environ | tools.verilator().env,
            start_new_session=True)
        try:
            for _ in range(3000):
                with suppress(OSError), socket.create_connection(("localhost", TCP), 1):
                    break
                assert simulator.poll() is None, (tmp_path / "log").read_text()[-2000:]
                time.sleep(0.1)
            done = host(package, f"socket://localhost:{TCP}")
        finally:
            os.killpg(simulator.pid, signal.SIGKILL)
            simulator.wait()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("PASS: 8 images, 0 of ")
