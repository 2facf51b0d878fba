"""Agreement of golden with floats, and the table of the shipped networks."""

from __future__ import annotations

import json

import numpy as np
import pytest

from n2uq_hw import data, nets
from n2uq_hw.builds import accuracy
from n2uq_hw.builds.accuracy import agreement, shipped_table, topology
from n2uq_hw.errors import N2uqError
from n2uq_hw.ir import golden
from n2uq_hw.lowering.lower import lower
from n2uq_hw.model import Net
from n2uq_hw.nets import find_net


def test_agreement_is_what_both_models_say(net: Net, images: np.ndarray) -> None:
    graph, labels = lower(net), np.arange(40) % 5
    real = net.forward(images)
    whole = golden.run(graph, images.transpose(0, 2, 3, 1)).reshape(40, 5)
    agreed = agreement(net, graph, images, labels)
    assert agreed.images == 40
    assert agreed.top1_agreement == (real.argmax(1) == whole.argmax(1)).mean()
    assert agreed.worst_logit_error == np.abs(whole * graph.meta["output_scale"] - real).max()
    assert agreed.accuracy == (whole.argmax(1) == labels).mean()
    assert agreed.accuracy_float == (real.argmax(1) == labels).mean()
    assert agreement(net, graph, images, None).accuracy is None
    with pytest.raises(N2uqError, match="images of small must be at least 1, not 0"):
        agreement(net, graph, images[:0], None)


def test_topology_in_short() -> None:
    assert topology(find_net("mnist_cnn_w2a2")) == "16c3-p2-32c3-p2-64c3-p2-10"
    assert topology(find_net("mnist_mlp_w2a2")) == "64-64-64-10"


def test_recorded_accuracies_are_those_of_golden_and_floats() -> None:
    rows = shipped_table()
    test = data.load("digits")
    for name, row in rows.items():
        assert row["mismatches"] == 0 and row["rtl_images"] in (360, 1000)
        if name.startswith("digits"):
            net = find_net(name)
            agreed = agreement(net, lower(net), test.images, test.labels)
            assert (row["images"], row["rtl_images"]) == (360, 360)
            assert (row["float"], row["golden"]) == (agreed.accuracy_float, agreed.accuracy)
            assert row["rtl"] == row["golden"]  # every bit alike, on the same images


def test_the_table_lists_what_was_never_measured(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(nets, "ACCURACY", tmp_path / "none.json")
    rows = shipped_table()
    assert set(rows) == set(nets.shipped()) and "golden" not in rows["digits_mlp_w2a2"]
    assert rows["digits_mlp_w2a2"]["weights"] == 64 * 64 + 64 * 64 + 64 * 10


@pytest.mark.slow
def test_measuring_keeps_the_rows_without_data(tmp_path, monkeypatch) -> None:
    """With no MNIST at hand, its figures stay; digits MLP is measured in float, golden and RTL."""
    path = tmp_path / "accuracy.json"
    old = {"mnist_mlp_w2a2": {"images": 10000, "float": 0.5}}
    path.write_text(json.dumps(old))
    monkeypatch.setattr(nets, "ACCURACY", path)
    shipped = nets.shipped()
    monkeypatch.setattr(nets, "shipped", lambda: {
        name: shipped[name] for name in ("digits_mlp_w2a2", "mnist_mlp_w2a2")})
    accuracy.measure_shipped(None)
    rows = json.loads(path.read_text())
    assert rows["mnist_mlp_w2a2"] == old["mnist_mlp_w2a2"]
    assert rows["digits_mlp_w2a2"]["mismatches"] == 0
    assert rows["digits_mlp_w2a2"]["rtl"] == rows["digits_mlp_w2a2"]["golden"] > 0.95
