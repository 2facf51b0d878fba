"""The study: it grows row by row and goes on where it was; what it says; what is shipped."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from n2uq_hw.errors import N2uqError
from n2uq_hw.jobs import Job
from n2uq_hw.nn import Network
from n2uq_hw.train import study
from n2uq_hw.train.fit import ARCHITECTURES, RECIPES
from n2uq_hw.train.quantizers import METHODS, Companded, use

DIGITS, MNIST = study.STUDIES.values()


def points(asked: study.Study) -> list[tuple[str, int]]:
    return [(method, bits) for method, bits in product(METHODS, asked.bits)
            if bits < 4 or method != "k-means, 4-bit levels"]


def here(jobs: list[Job], cache: Path, *, workers: int, limit: float, cluster: str,
         each: Callable[[int, study.Row], None]) -> None:
    """`run_jobs` in this process, which a test can reach into."""
    for place, job in enumerate(jobs):
        each(place, job.call(*job.args))


def test_a_study_grows_and_goes_on_where_it_was(tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    trained, path = [], tmp_path / "study.json"

    def run(method, recipe, folder):
        if len(trained) == 3 and method == "LSQ":
            raise KeyboardInterrupt
        trained.append((method, recipe.weight_bits, recipe.act_bits, recipe.seed))
        return {"method": method, "bits": recipe.weight_bits, "seed": recipe.seed}

    monkeypatch.setattr(study, "run_jobs", here)
    monkeypatch.setattr(study, "run", run)
    told = []

    def go_on() -> list[study.Row]:
        return study.study(replace(DIGITS, bits=(2, 3)), path, ["N2UQ", "LSQ"], seeds=(7, 8),
                           progress=lambda done, all, row: told.append((done, all)))

    with pytest.raises(KeyboardInterrupt):
        go_on()
    assert len(study.load_rows(path)) == 3 and told == [(1, 8), (2, 8), (3, 8)]
    trained.append("from here on LSQ goes through")
    assert len(go_on()) == 8 and told[-1] == (8, 8)
    expected = [(method, bits, bits, seed) for seed in (7, 8) for bits in (2, 3)
                for method in ("N2UQ", "LSQ")]
    assert [each for each in trained if isinstance(each, tuple)] == expected
    count = len(trained)
    assert len(go_on()) == 8 and len(trained) == count
    assert [each.name for each in tmp_path.iterdir()] == ["study.json"]


def test_levels_of_more_codes_than_integers_are_left_out(tmp_path: Path,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "run_jobs", here)
    monkeypatch.setattr(study, "run", lambda method, recipe, folder: {
        "method": method, "bits": recipe.weight_bits, "seed": recipe.seed})
    rows = study.study(DIGITS, tmp_path / "study.json", [*METHODS], seeds=(1,))
    assert sorted((row["method"], row["bits"]) for row in rows) == sorted(points(DIGITS))


@pytest.mark.slow
def test_nets_that_are_trained_side_by_side(tmp_path: Path) -> None:
    """The same rows in the same order, whichever is ready first."""
    small = replace(DIGITS, bits=(2,), epochs=1)
    files = [tmp_path / f"{workers}.json" for workers in (1, 2)]
    for workers, path in enumerate(files, 1):
        study.study(small, path, ["LCQ", "LSQ"], seeds=(1,), workers=workers)
    assert files[0].read_text() == files[1].read_text()
    assert [row["method"] for row in study.load_rows(files[0])] == ["LCQ", "LSQ"]


def test_what_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(N2uqError, match=r"^N2UQ, 2 bits, seed 1: mnist needs the folder"):
        study.study(MNIST, tmp_path / "study.json", ["N2UQ"], seeds=(1,))


def test_a_file_of_another_study_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.json"
    path.write_text(json.dumps({"recipe": {"epochs": 1}, "rows": []}))
    with pytest.raises(N2uqError, match="must hold results of this recipe, not of another"):
        study.study(DIGITS, path, ["N2UQ"])
    for text in ("{}", "[]", "{"):
        path.write_text(text)
        with pytest.raises(N2uqError, match="must be a file of results of a study, and is not"):
            study.load_rows(path)
    with pytest.raises(N2uqError, match="no such file"):
        study.load_rows(tmp_path / "none")
    with pytest.raises(N2uqError, match="must be a file in a folder that exists"):
        study.study(DIGITS, tmp_path / "none" / "study.json", ["N2UQ"])


def test_a_bad_call_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["digits_cnn"], ["imagenet", "a"], ["digits_cnn", "a", "--jobs", "b"]):
        with pytest.raises(SystemExit) as ended:
            study._main(arguments)
        assert ended.value.code == 2
    capsys.readouterr()
    file = str(tmp_path / "study.json")
    for more, line in ((["--jobs", "0"], "--jobs must be 1 or more, not 0"),
                       ([], "N2UQ, 2 bits, seed 1: mnist needs the folder of its IDX files, "
                            "not None")):
        assert study._main(["mnist_mlp", file, *more]) == 2
        assert capsys.readouterr().err == f"error: {line}\n"
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("method", ["LSQ", "LQ-Nets"])
def test_a_run_is_a_whole_row_and_repeats_itself(method: str) -> None:
    recipe = replace(RECIPES["digits_cnn_w2a2"], widths=(4, 4, 4), epochs=1, lr=1e-2, seed=3)
    row = study.run(method, recipe)
    assert row == study.run(method, recipe)
    assert (row["method"], row["bits"], row["seed"]) == (method, 2, 3)
    assert 0.1 < row["accuracy"] <= 1 and abs(row["accuracy"] - row["float"]) < 0.02
    if method == "LSQ":
        assert row["levels"] == {"conv2": [-2, -1, 0, 1], "conv3": [-2, -1, 0, 1],
                                 **{f"quan{k}": [0, 1, 2, 3] for k in (1, 2, 3)}}
    else:
        shapes = {name: np.shape(basis) for name, basis in row["basis"].items()}
        assert shapes == {"conv2": (4, 2), "conv3": (4, 2), "quan1": (1, 2), "quan2": (1, 2),
                          "quan3": (1, 2)}


def test_all_layers_of_as_few_bits_are_in_the_methods_format() -> None:
    """Of the MNIST MLP all of them, with what quantizes the pixels."""
    recipe = MNIST.recipe(2, 1)
    assert (recipe.first_last_bits, recipe.input_bits) == (2, 2)
    assert MNIST.shared().keys() == DIGITS.shared().keys() - {"first_last_bits", "input_bits"}
    network = Network(ARCHITECTURES["mlp"](recipe, (1, 28, 28), 10))
    use("LCQ", network)
    quantizers = [name for name, module in network.named_modules() if isinstance(module, Companded)]
    assert {name.split(".")[0] for name in quantizers} == {*MNIST.layers, *MNIST.layers.values()}


def test_levels_to_make_designs_with() -> None:
    row = {"method": "LQ-Nets", "bits": 2, "seed": 1, "basis": {
        "conv2": [[30, 97], [40, 87]], "conv3": [[1, 126]], "quan1": [[85, 170]],
        "quan2": [[1, 254]]}}
    one = {"method": "LCQ", "bits": 2, "seed": 1, "levels": {
        "conv2": [-127, 0, 0, 127], "quan1": [0, 90, 171, 255],
        "conv3": [-127, -9, 9, 127], "quan2": [0, 1, 2, 255]}}
    lq, lcq = DIGITS.levels([row, row | {"seed": 2}, one, one | {"method": "APoT"}])
    assert [*lq] == ["conv2", "conv3"] == [*lcq]
    assert (lq["conv2"].weights, lq["conv2"].activations) == (
        (-127, -67, 67, 127), (0, 85, 170, 255))
    assert (lq["conv2"].basis, lq["conv2"].act_basis) == ((30, 97), (85, 170))
    assert lq["conv3"].weights == (-127, -125, 125, 127)
    assert (lcq["conv2"].weights, lcq["conv2"].activations) == (
        (-127, 0, 0, 127), (0, 90, 171, 255))
    assert (lcq["conv3"].weights, lcq["conv3"].activations) == ((-127, -9, 9, 127), (0, 1, 2, 255))
    assert lcq["conv2"].method == "LCQ" and not lcq["conv2"].basis


def rows(method: str, *accuracies: float) -> list[study.Row]:
    return [{"method": method, "bits": 2, "seed": seed, "accuracy": accuracy}
            for seed, accuracy in enumerate(accuracies)]


def test_summaries_by_hand() -> None:
    ours, theirs = study.summaries([*rows("N2UQ", 0.9, 0.92, 0.94), *rows("LSQ", 0.9, 0.91, 0.89)])
    assert (ours.seeds, ours.ahead, ours.margin, ours.differs) == (3, 0, 0, False)
    assert ours.mean == pytest.approx(92) and ours.std == pytest.approx(2)
    assert (theirs.least, theirs.most) == (89, 91)
    # Ahead by 0, 1 and 5 points: mean 2, standard deviation √7; of 2 degrees of freedom the p-th
    # quantile of t is (2p - 1)/√(2p(1 - p)), 4.303.
    t = 0.95 / (2 * 0.975 * 0.025)**0.5
    assert theirs.ahead == pytest.approx(2)
    assert theirs.margin == pytest.approx(t * (7 / 3)**0.5) and not theirs.differs
    _, steady = study.summaries([*rows("N2UQ", 0.9, 0.92), *rows("LSQ", 0.8, 0.82)])
    assert steady.differs and steady.ahead == pytest.approx(10)


@pytest.mark.parametrize("asked", study.STUDIES.values(), ids=study.STUDIES)
def test_shipped_results_are_whole(asked: study.Study) -> None:
    shipped = study.load_rows(asked.results)
    there = [(row["method"], row["bits"], row["seed"]) for row in shipped]
    assert sorted(there) == sorted((*point, seed) for point in points(asked)
                                   for seed in study.SEEDS)
    assert json.loads(asked.results.read_text())["recipe"] == asked.shared()
    assert asked.results.stat().st_size < 500_000
    assert all(0.9 < row["accuracy"] <= 1 for row in shipped)
    # The integers are the trained nets: up to an image whose value lies on a threshold.
    assert all(abs(row["accuracy"] - row["float"]) < 1.5 / asked.images for row in shipped)
    assert len(study.summaries(shipped)) == len(points(asked))
    assert len(asked.levels(shipped)) == sum(name in study.LEARNED for name, _ in points(asked))
