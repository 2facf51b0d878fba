"""Training of one's own module on one's own data, resumable, with a teacher or without."""

from __future__ import annotations

import copy
import importlib.util
import io
import pickle
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

from .. import datasets
from ..charts import loss_curve, style
from ..data import Dataset
from ..errors import N2uqError
from ..files import readable, write_file
from ..model import InputSpec, Net
from ..nn import convert
from ..nn.trace import trace
from .fit import LIMITS, VALIDATION, WARM_UP, shifted

__all__ = ["Settings", "module_of", "train_own"]

CALIBRATION = 256  # images that a conversion starts from
BATCH_OF_TEST = 500
LIMITS = {key: LIMITS[key] for key in ("weight_bits", "act_bits", "epochs", "batch", "shift",
                                       "seed")} | {"first_last_bits": (0, 8)}


@dataclass(frozen=True)
class Settings:
    """All that a run depends on beside the module's own code; the same settings resume it.

    Parameters
    ----------
    model, teacher: ``FILE.py:FUNCTION``, which returns a torch module; a teacher is trained already
        and takes the same images.  With a teacher the loss is the cross entropy with its softmax,
        as the paper trains; the labels still choose the best epoch.
    convert: train the N2UQ model of a float one, `n2uq_hw.nn.convert` with the bits that follow.
    """

    model: str
    data: str
    teacher: str = ""
    convert: bool = False
    weight_bits: int = 2
    act_bits: int = 2
    first_last_bits: int = 8
    epochs: int = 60
    batch: int = 64
    lr: float = 2e-3
    shift: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for what, (least, most) in LIMITS.items():
            if not least <= getattr(self, what) <= most:
                raise N2uqError(f"{what} must be in {least}..{most}, not {getattr(self, what)}")
        if not 0 < self.lr <= 1:
            raise N2uqError(f"lr must be above 0 and at most 1, not {self.lr}")


def module_of(what: str) -> nn.Module:
    """The torch module that ``FILE.py:FUNCTION`` returns; the file is run, as Python code."""
    file, _, name = what.rpartition(":")
    if not file or not name.isidentifier():
        raise N2uqError(f"a model must be FILE.py:FUNCTION, not {what!r}")
    path = readable(Path(file))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise N2uqError(f"{path}: must be a Python file, .py")
    loaded = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))  # for what it imports from beside it
    try:
        spec.loader.exec_module(loaded)
        if not callable(make := getattr(loaded, name, None)):
            raise N2uqError(f"{path}: must define a function {name}, and does not")
        module = make()
    except N2uqError:
        raise
    except Exception as error:
        raise N2uqError(f"{what}: must run, and fails: {type(error).__name__}: "
                        f"{str(error).splitlines()[0] if str(error) else ''}") from error
    finally:
        sys.path.pop(0)
    if not isinstance(module, nn.Module):
        raise N2uqError(f"{what}: must return a torch module, not {type(module).__name__}")
    return module


@dataclass
class _Run:
    """A run between two epochs; `history` has a row per epoch."""

    settings: Settings
    module: nn.Module
    steps: int
    best: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.Adam(self.module.parameters(), self.settings.lr)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, self.settings.lr, self.steps, pct_start=WARM_UP)

    def save(self, path: Path) -> None:
        """Write all that the next epoch needs; the file is whole at any time."""
        content = io.BytesIO()
        torch.save({"settings": asdict(self.settings), "history": self.history, "best": self.best,
                    "module": self.module.state_dict(), "optimizer": self.optimizer.state_dict(),
                    "schedule": self.schedule.state_dict()}, content)
        write_file(path, content.getvalue())

    def resume(self, path: Path) -> None:
        """Go on from a file of `save`, of the same settings; nothing in it is run."""
        try:
            kept = torch.load(path, map_location="cpu", weights_only=True)
            if kept["settings"] != asdict(self.settings):
                changed = [key for key, value in asdict(self.settings).items()
                           if kept["settings"].get(key) != value]
                raise N2uqError(f"{path}: must be of a run with the same {', '.join(changed)}; "
                                "remove it to start anew")
            self.module.load_state_dict(kept["module"])
            self.optimizer.load_state_dict(kept["optimizer"])
            self.schedule.load_state_dict(kept["schedule"])
            self.history, self.best = kept["history"], kept["best"]
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, EOFError,
                pickle.UnpicklingError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise N2uqError(f"{path}: must be a whole checkpoint of this model: {reason}; "
                            "remove it to start anew") from None


def train_own(settings: Settings, out: Path, *, quiet: bool = False) -> Net:
    """Train, and write the net file `out`; its loss curve is beside it, as ``.svg``.

    After every epoch ``OUT.training`` holds the run: the same call goes on from there, and ends as
    it would have without a break.  The net is that of the epoch that did best on every tenth of the
    training images, which are not learned.
    """
    Net(out.stem, InputSpec((1, 1, 1)), (), {})  # says what is wrong with the name
    if not out.parent.is_dir() or out.is_dir():
        raise N2uqError(f"{out}: must be a file in a folder that exists")
    splits = datasets.read(Path(settings.data))
    train, checkpoint = splits.train, out.with_name(f"{out.name}.training")
    spec = InputSpec(train.images.shape[1:], train.max, 1 / train.max)
    torch.manual_seed(settings.seed)
    module = module_of(settings.model)
    if settings.convert:
        first = torch.from_numpy(train.images[:CALIBRATION].astype(np.float32)) / train.max
        module = convert(module, settings.weight_bits, settings.act_bits,
                         settings.first_last_bits, batches=first)
    if trace(module.eval(), spec, out.stem).forward(train.images[:1]).shape != (1, train.classes):
        raise N2uqError(f"{settings.model}: must give {train.classes} logits, one per class")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    teacher = module_of(settings.teacher).to(device).eval() if settings.teacher else None
    learned = len(train.labels) - -(-len(train.labels) // VALIDATION)
    run = _Run(settings, module.to(device), settings.epochs * -(-learned // settings.batch))
    if checkpoint.exists():
        run.resume(checkpoint)
    console = Console(stderr=True, quiet=quiet)
    for epoch in range(len(run.history), settings.epochs):
        began = time.monotonic()
        row = _epoch(run, train, epoch, teacher, device)
        run.save(checkpoint)
        console.print(f"epoch {epoch + 1:>4}  loss {row['loss']:.4f}  validation "
                      f"{row['validation']:.4f}  {time.monotonic() - began:.1f} s", highlight=False)
    module.load_state_dict(run.best)
    net = _net(module.cpu().eval(), spec, out.stem, run, splits.test)
    with style("training"):
        drawn = io.StringIO()
        loss_curve(run.history).savefig(drawn, format="svg", metadata={"Date": None})
    write_file(out.with_suffix(".svg"), drawn.getvalue())
    net.save(out)
    checkpoint.unlink(missing_ok=True)
    return net


def _net(module: nn.Module, spec: InputSpec, name: str, run: _Run, test: Dataset | None) -> Net:
    meta: dict[str, Any] = {
        "dataset": Path(run.settings.data).name, "training": asdict(run.settings),
        "history": run.history, "validation": max(row["validation"] for row in run.history)}
    net = trace(module, spec, name, meta)
    if test is not None:
        places = range(0, len(test.images), BATCH_OF_TEST)
        classes = np.concatenate([net.forward(test.images[at:at + BATCH_OF_TEST]).argmax(1)
                                  for at in places])
        net.meta["accuracy"] = {"float": float((classes == test.labels).mean())}
    return net


def _batches(dataset: Dataset, chosen: np.ndarray, size: int, device: torch.device
             ) -> Iterator[tuple[Tensor, Tensor]]:
    for at in range(0, len(chosen), size):
        batch = chosen[at:at + size]
        images = torch.from_numpy(dataset.images[batch].astype(np.float32)) / dataset.max
        yield images.to(device), torch.from_numpy(dataset.labels[batch]).to(device)


def _epoch(run: _Run, train: Dataset, epoch: int, teacher: nn.Module | None,
           device: torch.device) -> dict[str, float]:
    """One pass, seeded by its number; the row of the history."""
    torch.manual_seed(run.settings.seed * 1_000_003 + epoch)
    rng = np.random.default_rng((run.settings.seed, epoch))
    places = np.arange(len(train.labels))
    held = places[::VALIDATION]
    learned = rng.permutation(np.setdiff1d(places, held))
    run.module.train()
    total = 0.0
    for x, y in _batches(train, learned, run.settings.batch, device):
        if len(y) == 1:
            run.schedule.step()  # batch normalization cannot learn from one
            continue
        x = shifted(x, run.settings.shift, rng)
        loss = _loss(teacher)(x, run.module(x), y)
        if not torch.isfinite(loss):
            raise N2uqError(f"the loss must stay finite, not {float(loss)} in epoch {epoch + 1}; "
                            "a lower --lr may help")
        run.optimizer.zero_grad()
        loss.backward()
        run.optimizer.step()
        run.schedule.step()
        total += float(loss.detach()) * len(y)
    run.module.eval()
    with torch.no_grad():
        hits = sum(int((run.module(x).argmax(1) == y).sum())
                   for x, y in _batches(train, held, BATCH_OF_TEST, device))
    row = {"loss": total / len(learned), "validation": hits / len(held)}
    if row["validation"] >= max((each["validation"] for each in run.history), default=-1.0):
        run.best = copy.deepcopy({key: value.cpu() for key, value in
                                  run.module.state_dict().items()})
    run.history.append(row)
    return row


def _loss(teacher: nn.Module | None) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Of images, logits and labels."""
    if teacher is None:
        return lambda x, logits, y: F.cross_entropy(logits, y)

    def distilled(x: Tensor, logits: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = teacher(x).softmax(1)
        return F.cross_entropy(logits, wanted)

    return distilled
