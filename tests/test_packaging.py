"""What is installed is what is here: packages, data files, links, pinned requirements."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_package_list_is_complete() -> None:
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    packages = {".".join(path.relative_to(ROOT).parts[:-1])
                for pattern in ("n2uq_hw/__init__.py", "n2uq_hw/*/__init__.py",
                                "n2uq_hw/*/*/__init__.py") for path in ROOT.glob(pattern)}
    assert listed == packages
    for name in ("hw", "sim", "templates"):
        link = ROOT / "n2uq_hw" / name
        assert link.is_symlink() and link.resolve() == ROOT / name


def test_requirements_pin_every_dependency() -> None:
    pins = {}
    for name in ("requirements.txt", "requirements-all.txt"):
        for line in (ROOT / name).read_text().splitlines():
            if line and not line.startswith(("#", "-r")):
                package, version = line.split("==")
                pins[package] = version
    extras = PROJECT["project"]["optional-dependencies"]
    lists = [PROJECT["project"]["dependencies"], *extras.values()]
    for requirement in (requirement for listed in lists for requirement in listed):
        package, rest = re.match(r"([\w-]+)(?:\[[\w-]+\])?(.*)", requirement).groups()
        assert package in pins, package
        if rest.startswith("=="):
            assert pins[package] == rest[2:]
    demo = (ROOT / "requirements.txt").read_text()
    assert "torch" not in demo and "nextpnr" not in demo


def test_only_the_torch_side_imports_torch_and_only_hardware_amaranth() -> None:
    """Everything after training works without torch; golden and lowering without Amaranth."""
    code = ("import sys, n2uq_hw.cli; assert 'numpy' not in sys.modules; "
            "import n2uq_hw.builds.accuracy, n2uq_hw.ir.golden, n2uq_hw.lowering.lower; "
            "assert 'torch' not in sys.modules and 'amaranth' not in sys.modules; "
            "import n2uq_hw.builds.emit, n2uq_hw.builds.verify, n2uq_hw.builds.synth; "
            "assert 'torch' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_wheel_holds_all_that_runs(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77")
    code = ("import os, sys; from setuptools import build_meta; os.chdir(sys.argv[1]); "
            "build_meta.build_wheel(sys.argv[2])")
    source = tmp_path / "source"
    source.mkdir()
    parts = ("pyproject.toml", "README.md", "LICENSE", "n2uq_hw", "hw", "sim", "templates")
    subprocess.run(["cp", "-a", *(str(ROOT / part) for part in parts), str(source)], check=True)
    subprocess.run([sys.executable, "-c", code, str(source), str(tmp_path)], check=True,
                   capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in ["hw/matvec.py", "hw/designs/mvu.py", "sim/rtl/harness.py", "sim/timing/cycles.cpp",
                 "templates/axis.v.j2", "templates/lint.vlt", "templates/harness.sv.j2",
                 "cost/fitted.json",
                 "compare/literature.json", "train/study_mnist_mlp.json", "ir/golden.py",
                 "nets/digits_cnn_w2a2.safetensors", "nets/accuracy.json",
                 "cli/__init__.py", "cli/build.py"]:
        assert f"n2uq_hw/{path}" in names, path
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"n2uq_hw"}


def test_the_readme_names_two_commands() -> None:
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    assert "make demo" in readme and "make test" in readme
    assert re.search(r"^demo:.*\n\t\$\(BIN\)/n2uq-hw demo$", makefile, re.MULTILINE)
    assert "$ n2uq-hw demo\n" in readme  # with what it prints
    assert "make test" in (ROOT / ".ci" / "run").read_text()
