"""The study: it grows row by row and goes on where it was; what it says; what is shipped."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from n2uq_hw import study
from n2uq_hw.errors import N2uqError
from n2uq_hw.quantizers import METHODS
from n2uq_hw.train import RECIPES

POINTS = [(method, bits) for method, bits in product(METHODS, study.BITS)
          if bits < 4 or method != "k-means, 4-bit levels"]


def test_a_study_grows_and_goes_on_where_it_was(tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    trained, path = [], tmp_path / "study.json"

    def run(method, recipe):
        if len(trained) == 3 and method == "LSQ":
            raise KeyboardInterrupt
        trained.append((method, recipe.weight_bits, recipe.act_bits, recipe.seed))
        return {"method": method, "bits": recipe.weight_bits, "seed": recipe.seed}

    monkeypatch.setattr(study, "run", run)
    told = []

    def go_on(most: int | None = None) -> list[study.Row]:
        return study.study(path, ["N2UQ", "LSQ"], bits=(2, 3), seeds=(7, 8), most=most,
                           progress=lambda done, all, row: told.append((done, all)))

    assert len(go_on(1)) == 1
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
    monkeypatch.setattr(study, "run", lambda method, recipe: {
        "method": method, "bits": recipe.weight_bits, "seed": recipe.seed})
    rows = study.study(tmp_path / "study.json", [*METHODS], seeds=(1,))
    assert sorted((row["method"], row["bits"]) for row in rows) == sorted(POINTS)


def test_a_file_of_another_study_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.json"
    path.write_text(json.dumps({"recipe": {"epochs": 1}, "rows": []}))
    with pytest.raises(N2uqError, match="must hold results of this recipe, not of another"):
        study.study(path, ["N2UQ"])
    for text in ("{}", "[]", "{"):
        path.write_text(text)
        with pytest.raises(N2uqError, match="must be a file of results of a study, and is not"):
            study.load_rows(path)
    with pytest.raises(N2uqError, match="cannot be read: No such file"):
        study.load_rows(tmp_path / "none")
    with pytest.raises(N2uqError, match="must be a file in a folder that exists"):
        study.study(tmp_path / "none" / "study.json", ["N2UQ"])


def test_a_bad_call_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["a", "b"], ["a", "1", "2"]):
        assert study._main(arguments) == 2
        assert capsys.readouterr().err.startswith("error: give the file of results and")


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


def test_levels_to_make_designs_with() -> None:
    row = {"method": "LQ-Nets", "bits": 2, "seed": 1, "basis": {
        "conv2": [[30, 97], [40, 87]], "conv3": [[1, 126]], "quan1": [[85, 170]]}}
    one = {"method": "LCQ", "bits": 2, "seed": 1, "levels": {
        "conv2": [-127, 0, 0, 127], "quan1": [0, 90, 171, 255]}}
    lq, lcq = study.trained([row, row | {"seed": 2}, one, one | {"method": "APoT"}])
    assert (lq.weights, lq.activations) == ((-127, -67, 67, 127), (0, 85, 170, 255))
    assert (lq.basis, lq.act_basis) == ((30, 97), (85, 170))
    assert (lcq.weights, lcq.activations) == ((-127, 0, 0, 127), (0, 90, 171, 255))
    assert lcq.method == "LCQ" and not lcq.basis


def rows(method: str, *accuracies: float) -> list[study.Row]:
    return [{"method": method, "bits": 2, "seed": seed, "accuracy": accuracy}
            for seed, accuracy in enumerate(accuracies)]


def test_summaries_by_hand() -> None:
    ours, theirs = study.summaries([*rows("N2UQ", 0.9, 0.92, 0.94), *rows("LSQ", 0.9, 0.91, 0.89)])
    assert (ours.seeds, ours.ahead, ours.margin, ours.differs) == (3, 0, 0, False)
    assert ours.mean == pytest.approx(92) and ours.std == pytest.approx(2)
    assert (theirs.least, theirs.most) == (89, 91)
    # Ahead by 0, 1 and 5 points: mean 2, standard deviation √7, and t is 4.303 of 2 degrees.
    assert theirs.ahead == pytest.approx(2)
    assert theirs.margin == pytest.approx(4.303 * (7 / 3)**0.5) and not theirs.differs
    _, steady = study.summaries([*rows("N2UQ", 0.9, 0.92), *rows("LSQ", 0.8, 0.82)])
    assert steady.differs and steady.ahead == pytest.approx(10)


def test_shipped_results_are_whole() -> None:
    found = study.load_rows()
    there = [(row["method"], row["bits"], row["seed"]) for row in found]
    assert sorted(there) == sorted((*point, seed) for point in POINTS for seed in study.SEEDS)
    assert json.loads(study.RESULTS.read_text())["recipe"] == study._shared()
    assert study.RESULTS.stat().st_size < 500_000
    assert all(0.9 < row["accuracy"] <= 1 for row in found)
    # The integers are the trained nets: up to an image whose value lies on a threshold.
    assert all(abs(row["accuracy"] - row["float"]) < 1.5 / study.IMAGES for row in found)
    assert len(study.summaries(found)) == len(POINTS)
