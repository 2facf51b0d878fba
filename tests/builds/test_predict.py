"""The Verilog as a function: golden's outputs, the forecast's cycles, processes that stay."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from graphs import n2uq_block
from processes import left, marked

from n2uq_hw import api
from n2uq_hw.builds.predict import _MODELS, predict
from n2uq_hw.errors import N2uqError
from n2uq_hw.ir.folding import MatVecFold
from n2uq_hw.lowering.lower import lower
from n2uq_hw.model import Net
from n2uq_hw.plan.choice import choose
from n2uq_hw.sim.rtl.model import Model


def test_outputs_are_goldens_and_cycles_the_forecasts(built: Path, images: np.ndarray) -> None:
    build = api.load_build(built)
    golden, labels = build.graph.forward(images), np.arange(len(images)) % 5
    got = build.predict(images, labels, jobs=1)
    assert np.array_equal(got.outputs, golden)
    assert np.array_equal(got.classes, golden.argmax(axis=1))
    assert np.array_equal(got.values, golden * build.graph.scale)
    assert got.accuracy == (golden.argmax(axis=1) == labels).mean()
    assert got.cycles_per_image == build.cycles(images=len(images)).cycles_per_image
    one = build.predict(images[:1], jobs=1)
    assert one.cycles_first_output == one.cycles_per_image == got.cycles_first_output


def running(built: Path) -> list[Model]:
    (models,) = [held for program, held in _MODELS.items() if built in program.parents]
    return models


def test_the_processes_stay(built: Path, images: np.ndarray) -> None:
    """One compile; a share of the images each; whatever is sent before, the next answer is right.
    """
    build = api.load_build(built)
    golden = build.graph.forward(images)
    assert np.array_equal(build.predict(images, jobs=1).outputs, golden)
    first = running(built)[0]._process.pid
    for jobs, part in ((3, slice(0, 7)), (2, slice(5, 40)), (1, slice(39, 40)), (50, slice(0, 3))):
        got = build.predict(images[part], jobs=jobs)
        assert np.array_equal(got.outputs, golden[part])
    models = running(built)
    assert models[0]._process.pid == first and len(models) == 3
    os.kill(first, signal.SIGKILL)
    models[0]._process.wait()
    assert np.array_equal(build.predict(images, jobs=1).outputs, golden)


def test_an_interrupt_ends_all_models(built: Path, images: np.ndarray) -> None:
    """After Ctrl-C no model simulates on, and the next call is right."""
    build, shares = api.load_build(built), list[float]()

    def progress(stage: str, share: float) -> None:
        if stage == "simulate":
            shares.append(share)
            if len(shares) == 1:
                os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)  # per image: they would be through before the interrupt is

    many = np.concatenate([images] * 50)
    with pytest.raises(KeyboardInterrupt):
        predict(build, many, jobs=2, progress=progress)
    assert max(shares) < 1
    assert (predict(build, images).outputs == build.graph.forward(images)).all()


def test_a_model_that_ends_is_one_line(built: Path, images: np.ndarray) -> None:
    build = api.load_build(built)
    build.predict(images[:1], jobs=1)
    models = running(built)

    def kill(stage: str, fraction: float) -> None:
        if stage == "simulate":
            models[0]._process.kill()
    with pytest.raises(N2uqError, match="simulation: ended by SIGKILL"):
        predict(build, np.tile(images, (2000, 1, 1, 1)), jobs=1, progress=kill)
    assert np.array_equal(build.predict(images, jobs=1).outputs, build.graph.forward(images))


def test_nothing_outlives_a_caller_that_is_killed(built: Path, tmp_path: Path) -> None:
    code = ("import sys, time, n2uq_hw as n2; build = n2.load_build(sys.argv[1]); "
            "build.predict(jobs=2); print('ready', flush=True); time.sleep(60)")
    mark = f"N2UQ_TEST={tmp_path}"
    process = subprocess.Popen([sys.executable, "-c", code, built], stdout=subprocess.PIPE,
                               env={**os.environ, "N2UQ_TEST": str(tmp_path)}, text=True)
    assert process.stdout.readline() == "ready\n" and len(marked(mark)) == 3
    process.kill()
    process.wait()
    assert not left(mark, 2.0)


@pytest.mark.slow
def test_class_indices(net: Net, images: np.ndarray, tmp_path: Path) -> None:
    graph = lower(net, top1=True)
    build = api.build(graph, None, tmp_path / "top1", images=images[:4])
    got = build.predict(images)
    assert np.array_equal(got.outputs, graph.forward(images)) and got.outputs.shape == (40,)
    assert np.array_equal(got.classes, got.outputs)


@pytest.mark.slow
def test_maps_and_their_labels(tmp_path: Path) -> None:
    block = n2uq_block("block", (5, 4, 3), 4, stride=2)  # trailing pixels that nothing reads
    build = api.build(block, choose(block), tmp_path / "map")
    maps = np.random.default_rng(0).integers(block.input.lo, block.input.hi + 1, (30, 3, 5, 4))
    got = build.predict(maps, np.zeros((30, 3, 2), int), jobs=2)
    golden = block.forward(maps)
    assert np.array_equal(got.outputs, golden) and got.classes.shape == (30, 3, 2)
    assert got.counted == "pixels" and got.accuracy == (golden.argmax(axis=1) == 0).mean()
    assert got.cycles_per_image == build.cycles(images=15).cycles_per_image


@pytest.mark.parametrize("change,message", [
    (lambda x: x[:0], "images must be at least 1, not 0"),
    (lambda x: x[:, :1], r"images of small must be integers \[N, 2, 5, 5\], not int64"),
    (lambda x: x + 1, r"images of small must lie in 0..15, not 1..16"),
    (lambda x: x / 2, r"images of small must be integers")])
def test_images_that_do_not_fit(built: Path, images: np.ndarray, change, message: str) -> None:
    with pytest.raises(N2uqError, match=message):
        predict(api.load_build(built), change(images))
    with pytest.raises(N2uqError, match="jobs must be at least 1, not 0"):
        predict(api.load_build(built), images, jobs=0)


def test_a_traced_unit_is_goldens(built: Path, images: np.ndarray) -> None:
    build = api.load_build(built)
    for name in ("conv1", "quan1", "dw2", "pool3", "fc"):
        got = build.trace(images[:5], name)
        assert np.array_equal(got, build.graph.trace(images[:5], name)), name
    with pytest.raises(N2uqError, match=r"small: traced must be one of the units conv1_pad, .*, "
                       "not 'flatten'"):
        build.trace(images, "flatten")


@pytest.mark.slow
def test_a_traced_product_without_its_offset(net: Net, images: np.ndarray, tmp_path: Path) -> None:
    """Form "pairs" moves its sums, and the thresholds behind it."""
    graph = lower(net)
    folding = choose(graph)
    folding["conv3"] = MatVecFold(pe=2, simd=2, form="pairs")
    build = api.build(graph, folding, tmp_path / "pairs", images=images[:4])
    assert np.array_equal(build.trace(images[:3], "conv3"), graph.trace(images[:3], "conv3"))


def test_a_build_that_was_moved(built: Path, images: np.ndarray, tmp_path: Path,
                                monkeypatch: pytest.MonkeyPatch) -> None:
    """It has its simulator with it; its path is relative here."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(built, tmp_path / "elsewhere" / "small")
    build = api.load_build("elsewhere/small")
    assert np.array_equal(build.predict(images[:3]).outputs, build.graph.forward(images[:3]))
