"""Accuracy of number formats that are trained alike: methods × bits × seeds on the digits CNN.

``python -m n2uq_hw.study FILE [RUNS]`` trains what FILE lacks, at most RUNS nets.  A run starts
from the same weights, sees the same images in the same order and takes as many steps of the same
optimizer as those of all other methods with its bits and seed.

The number of epochs was chosen by the validation accuracy of N2UQ and LSQ on a seed that is not of
the study, before any other method had been trained for so long.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from .errors import N2uqError
from .hw.designs import Trained

if TYPE_CHECKING:
    from .train import Recipe

__all__ = ["BITS", "RESULTS", "SEEDS", "Summary", "load_rows", "run", "study", "summaries",
           "trained", "trained_layers"]

RESULTS = Path(__file__).parent / "study.json"
BITS = (2, 3, 4)
SEEDS = (1, 2, 3, 4, 5)
EPOCHS = 24
IMAGES = 360  # of the test split
# Student's t that a value of so many exceeds, on either side, once in 20 times.
T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
Row = dict[str, Any]
LAYERS = {"conv2": "quan1", "conv3": "quan2"}  # in the methods' bits, and what makes their inputs
LEARNED = ("LSQ", "LQ-Nets", "k-means", "k-means, 4-bit levels", "LCQ")  # of its own levels


def recipe(bits: int, seed: int) -> Recipe:
    """That of the shipped digits CNN, with weights and activations of `bits`."""
    from .train import RECIPES

    return replace(RECIPES["digits_cnn_w2a2"], weight_bits=bits, act_bits=bits, epochs=EPOCHS,
                   seed=seed)


def run(method: str, chosen: Recipe) -> Row:
    """Train a net by a method of `quantizers.METHODS`; a row of the results.

    Members of a row
    ----------------
    accuracy: of the integer model (`coded.Coded`) on the test images; float: of torch.
    validation: of the epoch that was kept, chosen by it.
    levels: integer levels of each layer and quantizer that the method quantizes; for LQ-Nets
        `basis` in their place, a row per output channel of weights.
    """
    import torch

    from . import data
    from .quantizers import Basis, coded, use
    from .train import fit, start

    given = data.load(chosen.dataset, split="train")
    test = data.load(chosen.dataset)
    network, spec = start(chosen, given)
    use(method, network)
    best = fit(network, chosen, given, method, quiet=True)
    made = coded(network, spec)
    with torch.no_grad():
        classes = network.eval()(torch.from_numpy(test.images) / test.max).argmax(1).numpy()
    levels = {name: made.weights[name].levels.tolist() for name in [*made.weights][1:-1]}
    levels |= {name: each.levels.tolist() for name, each in made.activations.items()}
    bases = {name.split(".")[0]: module.rounded()[0].int().tolist()
             for name, module in network.named_modules() if isinstance(module, Basis)}
    return {"method": method, "bits": chosen.weight_bits, "seed": chosen.seed,
            "accuracy": round(made.accuracy(test.images, test.labels), 6),
            "float": round(float((classes == test.labels).mean()), 6),
            "validation": round(best, 6),
            **({"basis": bases} if bases else {"levels": levels})}


def _shared() -> Row:
    """What all rows of a study have in common."""
    held = asdict(recipe(BITS[0], SEEDS[0]))
    return {key: list(value) if isinstance(value, tuple) else value for key, value in held.items()
            if key not in ("weight_bits", "act_bits", "seed")}


def load_rows(path: Path = RESULTS) -> list[Row]:
    """The rows of a file of results; N2uqError if it is none."""
    try:
        return list(json.loads(path.read_text())["rows"])
    except OSError as error:
        raise N2uqError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise N2uqError(f"{path}: must be a file of results of a study, and is not") from None


def study(path: Path, methods: Sequence[str], *, bits: Sequence[int] = BITS,
          seeds: Sequence[int] = SEEDS, most: int | None = None,
          progress: Callable[[int, int, Row], None] = lambda done, all, row: None) -> list[Row]:
    """Train what the file `path` lacks of methods × bits × seeds; all of its rows.

    The file grows by a row with each net, and is whole at any time.

    Parameters
    ----------
    most: nets to train now.
    progress: called after each net with how many there are, how many there will be, and its row.
    """
    from .quantizers import METHODS

    rows, shared = [], _shared()
    if not path.parent.is_dir() or path.is_dir():
        raise N2uqError(f"{path}: must be a file in a folder that exists")
    if path.exists():
        rows = load_rows(path)
        if json.loads(path.read_text()).get("recipe") != shared:
            raise N2uqError(f"{path}: must hold results of this recipe, not of another")
    wanted = [(method, each, seed) for seed, each, method in product(seeds, bits, methods)
              if each <= getattr(METHODS[method], "most_bits", each)]
    there = {(row["method"], row["bits"], row["seed"]) for row in rows}
    missing = [point for point in wanted if point not in there]
    for method, each, seed in missing[:most]:
        rows.append(run(method, recipe(each, seed)))
        part = path.with_name(f"{path.name}.part")
        lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        part.write_text(f'{{"recipe": {json.dumps(shared)},\n"rows": [\n{lines}\n]}}\n')
        part.replace(path)
        progress(len(wanted) - len(missing) + 1, len(wanted), rows[-1])
        missing = missing[1:]
    return rows


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
    found: dict[tuple[int, str], dict[int, float]] = {}
    for row in rows:
        found.setdefault((row["bits"], row["method"]), {})[row["seed"]] = 100 * row["accuracy"]
    made = []
    for (bits, method), by_seed in sorted(found.items(), key=lambda item: item[0][0]):
        values, ours = [*by_seed.values()], found.get((bits, "N2UQ"), {})
        ahead = [ours[seed] - value for seed, value in by_seed.items() if seed in ours]
        if len(values) > 1 and len(ahead) > 1:
            made.append(Summary(
                method, bits, len(values), mean(values), stdev(values), min(values), max(values),
                round(mean(ahead), 6) + 0.0, T95[len(ahead)] * stdev(ahead) / len(ahead)**0.5))
    return made


def trained(rows: Sequence[Row], layer: str = "conv2") -> list[Trained]:
    """Levels of the first seed's nets, for each method that no design has the levels of by itself.

    Those of the weights of `layer`, of LAYERS, and of its inputs; by default of the layer with the
    most multiplies.  LQ-Nets' weights are those of its first output channel.
    """
    found = []
    for row in rows:
        if row["seed"] != SEEDS[0] or row["method"] not in LEARNED:
            continue
        if "basis" in row:
            v, u = row["basis"][layer][0], row["basis"][LAYERS[layer]][0]
            found.append(Trained(row["method"], _sums((-each, each) for each in v),
                                 _sums((0, each) for each in u), tuple(v), tuple(u)))
        else:
            found.append(Trained(row["method"], tuple(row["levels"][layer]),
                                 tuple(row["levels"][LAYERS[layer]])))
    return found


def trained_layers(rows: Sequence[Row]) -> list[dict[str, Trained]]:
    """`trained` of all LAYERS, by layer, for each net."""
    return [dict(zip(LAYERS, each, strict=True))
            for each in zip(*(trained(rows, layer) for layer in LAYERS), strict=True)]


def _sums(terms: Iterable[tuple[int, int]]) -> tuple[int, ...]:
    return tuple(sorted(map(sum, product(*terms))))


def _main(arguments: Sequence[str]) -> int:
    from .quantizers import METHODS

    began = time.monotonic()

    def told(done: int, all: int, row: Row) -> None:
        print(f"{done}/{all} {row['method']}, {row['bits']} bits, seed {row['seed']}: "
              f"{100 * row['accuracy']:.2f} %, {time.monotonic() - began:.0f} s", file=sys.stderr)

    try:
        if not 1 <= len(arguments) <= 2 or not all(each.isdigit() for each in arguments[1:]):
            raise N2uqError("give the file of results and, if you like, how many nets to train, "
                            f"not {' '.join(arguments) or 'nothing'}")
        study(Path(arguments[0]), [*METHODS], progress=told,
              most=int(arguments[1]) if len(arguments) > 1 else None)
    except N2uqError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; what is done is kept", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
