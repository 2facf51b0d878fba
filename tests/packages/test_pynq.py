"""The drivers for PYNQ and C on the Verilog, and PYNQ's packing against the streams'."""

from __future__ import annotations

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from c_streams import DRIVER, STREAMS, build_of, library
from controlled import Controlled
from units import images_on

from n2uq_hw.builds.emit import Build, ports
from n2uq_hw.builds.verify import _beats
from n2uq_hw.packages import pynq


def loaded(build: Build, folder: Path) -> ModuleType:
    """driver.py of a build."""
    (text,) = pynq.files(build).values()
    (folder / "driver.py").write_text(text)
    spec = spec_from_file_location(f"driver_of_{build.graph.name}", folder / "driver.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", STREAMS)
def test_packing_is_that_of_the_streams(name: str, tmp_path: Path) -> None:
    build = build_of(name, *STREAMS[name])
    source, output = ports(build.graph, build.folding)
    module = loaded(build, tmp_path)
    images = images_on(build.graph.edges["x"], 12, 3)
    beats = np.packbits(_beats(images, source)[:, :-1], axis=1, bitorder="little")
    got = module.pack(images.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(got, beats.reshape(len(images), -1))
    results = images.clip(*STREAMS[name][2])
    beats = np.packbits(_beats(results, output)[:, :-1], axis=1, bitorder="little")
    np.testing.assert_array_equal(module.unpack(beats.reshape(len(images), -1)), results)
    assert not hasattr(module, "REGISTERS")  # the build has none


@pytest.mark.slow
def test_the_drivers_drive_the_verilog(
        tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    controlled = Controlled(tmp_path_factory)
    loaded(controlled.build, tmp_path)
    library(controlled.build, tmp_path, "gcc", "-std=c99", DRIVER)
    failed = controlled.failures(tmp_path, "pynq_bench", "driver", "wide_driver", "c_driver")
    said = (tmp_path / "said").read_text()
    assert not failed, re.findall("^.*(?:Error|FAIL).*$", said, re.MULTILINE)
