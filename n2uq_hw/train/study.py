"""Accuracy of number formats that are trained alike: methods × bits × seeds on a shipped net.

``python -m n2uq_hw.train.study NET FILE`` trains what FILE lacks of the study of NET, of STUDIES.
A run starts from the same weights, sees the same images in the same order and takes as many steps
of the same optimizer as those of all other methods with its bits and seed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from scipy.special import stdtrit

from ..errors import N2uqError
from ..files import read_text, write_file
from ..hw.designs import Trained
from ..jobs import Failure, Job, run_jobs
from ..shipping import Reads

if TYPE_CHECKING:
    from .fit import Recipe

__all__ = ["LEARNED", "SEEDS", "STUDIES", "Row", "Study", "Summary", "load_rows", "run", "studies",
           "study", "summaries"]

SEEDS = (1, 2, 3, 4, 5)
LIMIT = 24 * 3600.0  # seconds for one net
BITS = ("weight_bits", "act_bits", "first_last_bits", "input_bits")  # of a recipe
LEARNED = ("LSQ", "LQ-Nets", "k-means", "k-means, 4-bit levels", "LCQ")  # of its own levels
Row = dict[str, Any]


@dataclass(frozen=True)
class Study:
    """The nets that are trained in each method, and what is said of them.

    Members
    -------
    net, title: the shipped net's name without its bits, and what it is called.
    bits: of weights and activations; of all layers that have as few bits in the shipped net.
    epochs: of training.
    layers: those in the methods' bits, and what makes their inputs; that with the most multiplies
        first.
    images: of the test split.
    """

    net: str
    title: str
    bits: tuple[int, ...]
    epochs: int
    layers: dict[str, str]
    images: int

    @property
    def results(self) -> Path:
        """The file of results in the package."""
        return Path(__file__).parent / f"study_{self.net}.json"

    def recipe(self, bits: int, seed: int) -> Recipe:
        """That of the shipped net with 2 bits, with `bits` in their place."""
        from .fit import RECIPES

        shipped = RECIPES[f"{self.net}_w2a2"]
        few: Any = {name: bits for name in BITS if getattr(shipped, name) == 2}
        return replace(shipped, **few, epochs=self.epochs, seed=seed)

    def shared(self) -> Row:
        """What all recipes have in common."""
        held = asdict(self.recipe(2, SEEDS[0])), asdict(self.recipe(3, SEEDS[1]))
        return {key: list(value) if isinstance(value, tuple) else value
                for key, value in held[0].items() if value == held[1][key]}

    def levels(self, rows: Sequence[Row]) -> list[dict[str, Trained]]:
        """By layer, levels of each of the first seed's nets that no design has by itself.

        Those of the weights of a layer and of its inputs.  LQ-Nets' weights are those of its first
        output channel.
        """
        return [{layer: _levels(row, layer, inputs) for layer, inputs in self.layers.items()}
                for row in rows if row["seed"] == SEEDS[0] and row["method"] in LEARNED]


# Epochs of the digits CNN were chosen by the validation accuracy of N2UQ and LSQ on a seed that is
# not of the study, before any other method had been trained for so long; those of the MLP by time.
STUDIES = {each.net: each for each in (
    Study("digits_cnn", "digits CNN", (2, 3, 4), 24, {"conv2": "quan1", "conv3": "quan2"}, 360),
    Study("mnist_mlp", "MNIST MLP", (2,), 30, {
        "fc1": "input_quan", "fc2": "quan1", "fc3": "quan2", "fc": "quan3"}, 10_000))}

LAYER_OF = "digits_cnn"  # whose layer lanes and MVUs have the levels of


def studies(level: str) -> list[Study]:
    """Whose levels are compared at a level of `levels.LEVELS`: each network's own, or a layer's."""
    return [*STUDIES.values()] if level == "network" else [STUDIES[LAYER_OF]]


def run(method: str, chosen: Recipe, folder: Path | None = None) -> Row:
    """Train a net by a method of `quantizers.METHODS`; a row of the results.

    `folder` holds the files of the data set, where it has any.

    Members of a row
    ----------------
    accuracy: of the integer model (`coded.Coded`) on the test images; float: of torch.
    validation: of the epoch that was kept, chosen by it.
    levels: integer levels of each layer and quantizer that the method quantizes; for LQ-Nets
        `basis` in their place, a row per output channel of weights.
    """
    import torch

    from .. import data
    from .fit import fit, start
    from .quantizers import Basis, coded, of_fewest_bits, use

    dataset, test = data.load(chosen.dataset, folder, "train"), data.load(chosen.dataset, folder)
    network, spec = start(chosen, dataset)
    use(method, network)
    best = fit(network, chosen, dataset, method, quiet=True)
    integers = coded(network, spec)
    with torch.no_grad():
        classes = network.eval()(torch.from_numpy(test.images) / test.max).argmax(1).numpy()
    levels = {layer.name: integers.weights[layer.name].levels.tolist()
              for layer in of_fewest_bits(network)}
    levels |= {name: each.levels.tolist() for name, each in integers.activations.items()}
    bases = {name.split(".")[0]: module.rounded()[0].int().tolist()
             for name, module in network.named_modules() if isinstance(module, Basis)}
    return {"method": method, "bits": chosen.weight_bits, "seed": chosen.seed,
            "accuracy": round(integers.accuracy(test.images, test.labels), 6),
            "float": round(float((classes == test.labels).mean()), 6),
            "validation": round(best, 6),
            **({"basis": bases} if bases else {"levels": levels})}


def load_rows(path: Path) -> list[Row]:
    """The rows of a file of results; N2uqError if it is none."""
    try:
        return list(json.loads(read_text(path))["rows"])
    except (ValueError, KeyError, TypeError):
        raise N2uqError(f"{path}: must be a file of results of a study, and is not") from None


def study(asked: Study, path: Path, methods: Sequence[str], *, seeds: Sequence[int] = SEEDS,
          folder: Path | None = None, workers: int = 1, cluster: str = "",
          progress: Callable[[int, int, Row], None] = lambda done, all, row: None) -> list[Row]:
    """Train what the file `path` lacks of methods × bits × seeds; all of its rows.

    The file grows by a row with each net, and is whole at any time.

    Parameters
    ----------
    folder: of the data set's files, where it has any.
    workers: processes that train at a time.
    cluster: as for `run_jobs`.
    progress: called after each net with how many there are, how many there will be, and its row.
    """
    from .quantizers import METHODS

    rows, shared = list[Row](), asked.shared()
    if not path.parent.is_dir() or path.is_dir():
        raise N2uqError(f"{path}: must be a file in a folder that exists")
    if path.exists():
        rows = load_rows(path)
        if json.loads(read_text(path)).get("recipe") != shared:
            raise N2uqError(f"{path}: must hold results of this recipe, not of another")
    wanted = [(method, each, seed) for seed, each, method in product(seeds, asked.bits, methods)
              if each <= getattr(METHODS[method], "most_bits", each)]
    there = {_point(row) for row in rows}
    missing = [point for point in wanted if point not in there]

    def keep(place: int, row: Row | Failure) -> None:
        if isinstance(row, Failure):
            method, each, seed = missing[place]
            raise N2uqError(f"{method}, {each} bits, seed {seed}: {row.text}")
        there.add(_point(row))
        rows.append(row)
        rows.sort(key=lambda row: wanted.index(_point(row)) if _point(row) in wanted else -1)
        lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        write_file(path, f'{{"recipe": {json.dumps(shared)},\n"rows": [\n{lines}\n]}}\n')
        progress(len(there & {*wanted}), len(wanted), row)

    files = None if folder is None else Reads(folder)
    run_jobs([Job("", run, (method, asked.recipe(each, seed), files))
              for method, each, seed in missing], path.parent, workers=workers, limit=LIMIT,
             cluster=cluster, each=keep)
    return rows


def _point(row: Row) -> tuple[str, int, int]:
    return row["method"], row["bits"], row["seed"]


@dataclass(frozen=True)
class Summary:
    """Test accuracies of one method and number of bits, in percent, over seeds.

    Members
    -------
    seeds: how many; mean, std (of the sample), least, most.
    ahead: by how many points N2UQ is ahead, the mean over the seeds of both; `margin` either side
        of it is where the true mean lies with a confidence of 95 % (Student's t, paired).
    """

    method: str
    bits: int
    seeds: int
    mean: float
    std: float
    least: float
    most: float
    ahead: float
    margin: float

    @property
    def differs(self) -> bool:
        """Whether 0 lies outside of `ahead` ± `margin`."""
        return abs(self.ahead) > self.margin


def summaries(rows: Sequence[Row]) -> list[Summary]:
    """One for each method and number of bits with two seeds or more, by bits."""
    accuracies: dict[tuple[int, str], dict[int, float]] = {}
    for row in rows:
        accuracies.setdefault((row["bits"], row["method"]), {})[row["seed"]] = 100 * row["accuracy"]
    lines = []
    for (bits, method), by_seed in sorted(accuracies.items(), key=lambda item: item[0][0]):
        values, ours = [*by_seed.values()], accuracies.get((bits, "N2UQ"), {})
        ahead = [ours[seed] - value for seed, value in by_seed.items() if seed in ours]
        if len(values) > 1 and len(ahead) > 1:
            lines.append(Summary(
                method, bits, len(values), mean(values), stdev(values), min(values), max(values),
                round(mean(ahead), 6) + 0.0,
                float(stdtrit(len(ahead) - 1, 0.975)) * stdev(ahead) / len(ahead)**0.5))
    return lines


def _levels(row: Row, layer: str, inputs: str) -> Trained:
    if "basis" not in row:
        return Trained(row["method"], tuple(row["levels"][layer]), tuple(row["levels"][inputs]))
    v, u = row["basis"][layer][0], row["basis"][inputs][0]
    return Trained(row["method"], _sums((-each, each) for each in v),
                   _sums((0, each) for each in u), tuple(v), tuple(u))


def _sums(terms: Iterable[tuple[int, int]]) -> tuple[int, ...]:
    return tuple(sorted(map(sum, product(*terms))))


def _main(arguments: Sequence[str]) -> int:
    from .quantizers import METHODS

    parser = argparse.ArgumentParser("python -m n2uq_hw.train.study", allow_abbrev=False,
                                     description="Train what FILE lacks of the study of NET.")
    parser.add_argument("net", metavar="NET", choices=STUDIES, help=f"of {', '.join(STUDIES)}")
    parser.add_argument("file", metavar="FILE", type=Path, help="of results")
    parser.add_argument("--data", type=Path, help="the folder of the MNIST files")
    parser.add_argument("--jobs", type=int, default=1, help="nets that are trained at a time")
    parser.add_argument("--cluster", metavar="ADDRESS", default="", help="of dask, tcp://HOST:PORT,"
                        " which trains them")
    options, began = parser.parse_args(arguments), time.monotonic()

    def told(done: int, all: int, row: Row) -> None:
        print(f"{done}/{all} {row['method']}, {row['bits']} bits, seed {row['seed']}: "
              f"{100 * row['accuracy']:.2f} %, {time.monotonic() - began:.0f} s",
              file=sys.stderr, flush=True)

    try:
        if options.jobs < 1:
            raise N2uqError(f"--jobs must be 1 or more, not {options.jobs}")
        study(STUDIES[options.net], options.file, [*METHODS], folder=options.data,
              workers=options.jobs, cluster=options.cluster, progress=told)
    except N2uqError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; what is done is kept", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    from n2uq_hw.train import study as importable  # whose functions other processes find by name

    sys.exit(importable._main(sys.argv[1:]))
