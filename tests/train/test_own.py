"""Training of one's own module: it learns, goes on after a break, and says what is wrong."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from conftest import Cli

import n2uq_hw as n2
from n2uq_hw import data
from n2uq_hw.builds import report
from n2uq_hw.errors import N2uqError
from n2uq_hw.model import load_net
from n2uq_hw.train import own
from n2uq_hw.train.own import Settings, train_own

MODEL = '''
from torch import nn
from n2uq_hw.nn import LTQ, QuantizedConv2d

def make():
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.PReLU(6), LTQ(2),
        QuantizedConv2d(6, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU(), nn.Dropout(0.05),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 10))

def float_model():
    return nn.Sequential(nn.Conv2d(1, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(),
                         nn.Conv2d(6, 10, 3), nn.Flatten(), nn.Linear(40, 10))

def teacher():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

def three():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

def fails():
    raise ValueError("of my own")

number = 5
def nothing():
    pass
'''


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    torch.set_num_threads(1)
    (tmp_path / "my_net.py").write_text(MODEL)
    train, test = data.load("digits", split="train"), data.load("digits")
    np.savez(tmp_path / "digits.npz", images=train.images, labels=train.labels, max=16,
             test_images=test.images, test_labels=test.labels)
    return Settings(f"{tmp_path / 'my_net.py'}:make", str(tmp_path / "digits.npz"), epochs=3,
                    lr=2e-2)


def test_it_learns_and_goes_on_after_a_break(settings: Settings, tmp_path: Path,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    """The net of a run that was interrupted in its third epoch is that of one that was not."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # of the user's module
    out = tmp_path / "own.safetensors"
    net = train_own(settings, out, quiet=True)
    whole = out.read_bytes()
    assert net.meta["accuracy"]["float"] > 0.5 and len(net.meta["history"]) == 3
    assert net.meta["validation"] == max(row["validation"] for row in net.meta["history"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "digits.npz", "my_net.py", "own.safetensors", "own.svg"]
    assert ElementTree.parse(tmp_path / "own.svg").getroot().tag.endswith("svg")
    out.unlink()
    epoch = own._epoch

    def broken(run: own._Run, train: data.Dataset, k: int, *rest: object) -> dict[str, float]:
        if k == 2:
            raise KeyboardInterrupt
        return epoch(run, train, k, *rest)

    monkeypatch.setattr(own, "_epoch", broken)
    with pytest.raises(KeyboardInterrupt):
        train_own(settings, out, quiet=True)
    assert not out.exists() and (tmp_path / "own.safetensors.training").is_file()
    monkeypatch.setattr(own, "_epoch", epoch)
    with pytest.raises(N2uqError, match="must be of a run with the same epochs, lr; remove it"):
        train_own(replace(settings, epochs=4, lr=1e-3), out, quiet=True)
    train_own(settings, out, quiet=True)
    assert out.read_bytes() == whole
    graph = n2.lower(load_net(out))
    assert len(graph.meta["history"]) == 3
    page = report._training(graph.meta["history"])
    assert page is not None and "Loss of 3 epochs" in page
    assert report._training(None) is None and report._training([{"loss": "x"}]) is None


@pytest.mark.slow
def test_a_killed_run_loses_an_epoch_at_most(settings: Settings, tmp_path: Path) -> None:
    out = tmp_path / "own.safetensors"
    command = [sys.executable, "-c", "from n2uq_hw.cli import main; main()", "train", "--model",
               settings.model, "--data", settings.data, "--epochs", "400", "--out", str(out)]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    while "epoch    2" not in child.stderr.readline():
        assert child.poll() is None
    time.sleep(0.05)
    child.kill()
    child.wait()
    child.stderr.close()
    kept = torch.load(f"{out}.training", weights_only=True)
    assert len(kept["history"]) >= 2 and not out.exists()


def test_a_float_model_is_converted_and_a_teacher_taught(settings: Settings, tmp_path: Path,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    path = settings.model.removesuffix(":make")
    net = train_own(replace(settings, model=f"{path}:float_model", convert=True, epochs=2),
                    tmp_path / "converted.safetensors", quiet=True)
    kinds = [type(layer).__name__ for layer in net.layers]
    assert kinds.count("LTQ") == 2 and kinds.count("Conv") == 2 and "ReLU" not in kinds
    assert net.meta["training"]["convert"] is True
    # The cross entropy with the teacher's softmax, by hand.
    x, logits = torch.rand(3, 1, 8, 8), torch.randn(3, 10)
    teacher = own.module_of(f"{path}:teacher")
    wanted = torch.exp(teacher(x) - torch.logsumexp(teacher(x), 1, keepdim=True))
    expected = -(wanted * (logits - torch.logsumexp(logits, 1, keepdim=True))).sum(1).mean()
    torch.testing.assert_close(own._loss(teacher)(x, logits, torch.zeros(3).long()), expected)
    net = train_own(replace(settings, teacher=f"{path}:teacher", epochs=1),
                    tmp_path / "taught.safetensors", quiet=True)
    assert net.meta["training"]["teacher"].endswith(":teacher")


def test_faults_are_one_line(settings: Settings, tmp_path: Path) -> None:
    path = settings.model.removesuffix(":make")
    out = tmp_path / "own.safetensors"
    for model, message in {
            "my_net.py": r"a model must be FILE\.py:FUNCTION, not 'my_net\.py'",
            f"{tmp_path}/none.py:make": "no such file",
            f"{path}:absent": "must define a function absent, and does not",
            f"{path}:number": "must define a function number",
            f"{path}:nothing": "must return a torch module, not NoneType",
            f"{path}:fails": "must run, and fails: ValueError: of my own",
            f"{path}:three": "must give 10 logits, one per class"}.items():
        with pytest.raises(N2uqError, match=message):
            train_own(replace(settings, model=model), out, quiet=True)
    for change, message in (({"epochs": 0}, "epochs must be in"), ({"lr": 2.0}, "lr must be above"),
                            ({"weight_bits": 9}, "weight_bits must be in")):
        with pytest.raises(N2uqError, match=message):
            replace(settings, **change)
    # A checkpoint that would run code if it were unpickled.
    (tmp_path / "own.safetensors.training").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(N2uqError, match="must be a whole checkpoint of this model: "):
        train_own(settings, out, quiet=True)
    assert not (tmp_path / "gone").exists() and not out.exists()


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit(9)",)


def test_the_command(settings: Settings, tmp_path: Path, run: Cli) -> None:
    out = tmp_path / "own.safetensors"
    own_model = ("--model", settings.model, "--data", settings.data)
    code, text, _ = run("train", *own_model, "--epochs", "1", "--out", str(out))
    assert code == 0 and "loss curve in" in text and "on the test split" in text
    assert json.loads(json.dumps(load_net(out).meta))["dataset"] == "digits.npz"
    for arguments, message in (
            (("--widths", "3", *own_model), "--model must come with --data"),
            (("mnist", *own_model), "--model must come with --data"),
            (("digits", "mlp", "--teacher", settings.model),
             "--teacher and --convert must come with --model"),
            ((), "a data set or --model must be given")):
        code, _, err = run("train", *arguments, "--out", str(out))
        assert code == 2 and message in err and err.count("\n") == 1
