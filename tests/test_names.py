"""Names of users that meet ours, keywords, files of Windows and each other, through everything."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from conftest import random_net
from hypothesis import example, given, settings
from hypothesis import strategies as st

from n2uq_hw import cli, model
from n2uq_hw.builds.emit import accelerator_verilog, emit, load_build
from n2uq_hw.builds.report import write_report
from n2uq_hw.builds.verify import verify
from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.accelerator import TOP, WRAPPER, module_name, module_names
from n2uq_hw.hw.passes import hardware_graph
from n2uq_hw.ir import Graph, MatVec, golden, load_graph
from n2uq_hw.ir.folding import Folding
from n2uq_hw.lowering.lower import lower
from n2uq_hw.model import Net
from n2uq_hw.names import LONGEST, fresh, identifier, identifiers, is_name
from n2uq_hw.plan.choice import choose, load_folding, save_folding, unrolled
from n2uq_hw.sim.timing.fifos import size_fifos
from n2uq_hw.sim.timing.forecast import forecast, pattern, plot
from n2uq_hw.tools import run_yosys

OURS = ["i", "o", "input", "input_", "logits", "top1", "pixels", "source", "sink", "fifos", "clk",
        "rst", "accelerator", "axis", "harness", "dut0", "_unit", "pe", "product", "n2uq", "time"]
EACH_OTHERS = ["conv1", "conv1_pad", "conv1_window", "conv1_pad_", "Conv1", "CONV1_PAD", "conv.1",
               "conv_1", "conv1_fixed", "conv1 in", "sum_i0_fifo", "sum", "sum_i0", "sum_fork",
               "conv1.0", "conv1_fifo", "conv1_width"]
TEXTS = ["table", "module", "endmodule", "comb", "until_with", "con", "NUL", "com1", "0", "1.2",
         "..", "a b", "β", "层", "层1", "a/b:0", "x" * 300, "x" * 300 + "y", "$display", "\\esc",
         "a$b$", "<b>&\"", "a|b`c", "[red]x[/]", "{{x}}", "# y: z", "'", "~", "null", "1e3", "- a",
         "verilator public", "*/", "//", "%d", "é\u0301"]
NAMES = OURS + EACH_OTHERS + TEXTS
NETS = [*NAMES, "always", "pulsestyle", "s", "pe_planes", "../up"]
SHAPE = (2, 4, 4)


def net_of(name: str, names: Sequence[str]) -> Net:
    """A stem, and a branch around a convolution, under nine names; what is read twice is one."""
    a, b, c, d, e, f, g, h, j = names
    return random_net(name, (
        model.Conv(a, 2, 3, 3, 1, 1), model.BatchNorm(b, 3), model.LTQ(c, 2, inputs=(b,)),
        model.Conv(d, 3, 3, 3, 1, 1), model.BatchNorm(e, 3), model.Add(f, inputs=(e, b)),
        model.Pact(g, 2), model.Flatten(h), model.Linear(j, 48, 4)), SHAPE)


@cache
def plain() -> tuple[Net, Graph, Folding]:
    net = net_of("net", [*"abcdefghj"])
    graph = lower(net)
    return net, graph, choose(graph)


def called(name: str, names: Sequence[str]) -> tuple[Net, Graph, Folding]:
    """The plain net under other names, its graph, and the same folding of it."""
    net, graph, folding = plain()
    own = dict(zip("abcdefghj", names, strict=True))
    # Parameters are drawn by the layer's order, and so are the same.
    renamed = lower(named := net_of(name, names))
    assert all((named.params[f"{own[key[0]]}{key[1:]}"] == value).all()
               for key, value in net.params.items())
    return named, renamed, {new.name: folding[old.name]
                            for old, new in zip(graph.nodes, renamed.nodes, strict=True)
                            if old.name in folding}


@pytest.mark.slow
@given(st.sampled_from(NETS), st.lists(st.sampled_from(NAMES), min_size=9, max_size=9, unique=True))
@example("always", ["comb", "conv1", "conv1_pad", "Conv1", "i", "o", "input", "logits", "conv1.0"])
@example("n2uq", ["stall", "axis", "accelerator", "conv1 in", "conv1", "sum", "fifos", "x", "X"])
@settings(max_examples=12, deadline=None)
def test_names_change_nothing_but_names(tmp_path_factory: pytest.TempPathFactory, name: str,
                                        names: list[str]) -> None:
    _, before, before_folding = plain()
    net, graph, folding = called(name, names)
    folder = tmp_path_factory.mktemp("names")
    images = np.random.default_rng(0).integers(0, 16, (3, *SHAPE))
    nhwc = images.transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(golden.run(graph, nhwc), golden.run(before, nhwc))
    # Users' names are those of their layers' nodes, everywhere.
    own = dict(zip("abcdefghj", names, strict=True))
    for old, new in zip(before.nodes, graph.nodes, strict=True):
        assert old.name not in own or new.name == own[old.name]
        assert old.name in own or new.name not in names
    # Files hold them.
    net.save(folder / "net.safetensors")
    assert model.load_net(folder / "net.safetensors").layers == net.layers
    graph.save(folder / "graph.safetensors")
    assert load_graph(folder / "graph.safetensors").digest == graph.digest
    folding = size_fifos(graph, folding).folding
    sized = size_fifos(before, before_folding).folding
    assert sorted(map(repr, folding.values())) == sorted(map(repr, sized.values()))
    save_folding(folding, graph, folder / "f.yaml")
    assert load_folding(folder / "f.yaml", graph) == folding
    # The timing model, folded and in logic.
    for these, those in ((folding, sized), (unrolled(graph), unrolled(before))):
        rows, expected = forecast(graph, these).as_dict(), forecast(before, those).as_dict()
        assert rows["cycles"] == expected["cycles"]
        for row, right in zip(rows["layers"], expected["layers"], strict=True):
            assert row["name"] == own.get(right["name"], row["name"])
            assert {**row, "name": 0, "fifos": [*row["fifos"].values()]} == {
                **right, "name": 0, "fifos": [*right["fifos"].values()]}
    # Verilog: no two modules or files are one, and Yosys finds each that is used.
    hardware, _ = hardware_graph(graph, folding)
    modules = [*module_names(hardware).values(), module_name(graph), module_name(graph, WRAPPER)]
    assert len({module.lower() for module in modules}) == len(modules) == len(hardware.nodes) + 2
    texts = accelerator_verilog(graph, folding)
    for file, text in texts.items():
        assert re.fullmatch(r"\w[\w.]{,200}\.(v|hex)", file, re.ASCII)
        assert file.split(".")[0].lower() not in ("con", "nul", "com1")
        (folder / file).write_text(text, encoding="ascii")
    run_yosys(f"read_verilog {' '.join(texts)}\nhierarchy -check -top {modules[-1]}\nproc\n"
              "check -assert", folder)


@pytest.mark.slow
def test_in_simulation_and_on_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong layer is found under the name that the user gave it; reports show all of them."""
    names = ["o", "i", "logits", "conv1", "conv1_pad", "sum_i0_fifo", "a|[b]<β>$x$", "Conv1", "0"]
    net, graph, folding = called("n2uq", names)
    images = np.random.default_rng(0).integers(0, 16, (4, *SHAPE))
    wrong = graph.with_nodes(replace(node, weights=node.weights[::-1].copy())
                             if node.name == "0" and isinstance(node, MatVec) else node
                             for node in graph.nodes)
    emit(wrong, size_fifos(wrong, folding), tmp_path / "b", images, None)
    build = load_build(tmp_path / "b")
    verdict = verify(replace(build, graph=graph), images, None, stalls=0.2)
    assert verdict.mismatches and "layer 0 first differs" in verdict.first_mismatch
    assert {"o", "conv1", "0"} == set(verdict.layers)
    plot(forecast(graph, folding), tmp_path / "plot.svg")
    write_report(build)
    page = (tmp_path / "b" / "report.html").read_text()
    assert "a|[b]&lt;β&gt;$x$" in page and "[b]<β>" not in page
    assert r"| a\|\[b\]\<β\>$x$ | Threshold" in (tmp_path / "b" / "report.md").read_text()
    net.save(tmp_path / "net.safetensors")
    monkeypatch.chdir(tmp_path)
    for command in ("lower", "cycles", "fold"):
        for more in ((), ("--json",)):
            monkeypatch.setattr("sys.argv", ["n2uq-hw", command, "net.safetensors", *more])
            with pytest.raises(SystemExit) as end:
                cli.main()
            out = capsys.readouterr().out
            assert end.value.code == 0
            if more:
                rows = {row["name"] for row in json.loads(out)["layers"]}
                assert rows >= {"o", "conv1", "conv1_pad", "conv1_pad_", "logits_", "0", names[6]}
            else:
                assert names[6] in out and re.search(r"^logits_ ", out, re.MULTILINE)


@given(st.lists(st.text(min_size=1, max_size=12) | st.sampled_from(NAMES), unique=True))
def test_identifiers(names: list[str]) -> None:
    words = identifiers(names, ("Axis",))
    assert list(words) == names
    assert len({text.lower() for text in words.values()} | {"axis"}) == len(names) + 1
    for name, text in words.items():
        assert re.fullmatch(r"[A-Za-z_]\w*", text, re.ASCII)
        assert len(text) <= LONGEST + len(names) + 1
        if re.fullmatch(r"[a-z]\w*", name, re.ASCII) and len(names) == 1 and name != "axis":
            assert text == name[:LONGEST - 9] + text[LONGEST - 9:]


def test_beats_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    _, graph, folding = plain()
    monkeypatch.setattr("n2uq_hw.hw.accelerator.WIDEST", 4)
    with pytest.raises(N2uqError, match=r"\w: must give 4 bits per cycle at most, not \d"):
        accelerator_verilog(graph, folding)


def test_names_by_hand() -> None:
    assert identifiers(["layer1.0.conv1", "layer1_0_conv1", "LAYER1.0_conv1", "2", "é x"]) == {
        "layer1.0.conv1": "layer1_0_conv1", "layer1_0_conv1": "layer1_0_conv1_",
        "LAYER1.0_conv1": "LAYER1_0_conv1__", "2": "_2", "é x": "ue9_x"}
    assert fresh("a", {"a", "a_"}) == "a__" and fresh("a", {"b"}) == "a"
    assert identifier("x" * 80) == "x" * 80 and len({identifier("x" * k) for k in (81, 82)}) == 2
    assert [is_name(name) for name in ("a b", "é", "", " ", "a\n", "a\u202e", 3)] == [
        True, True, False, False, False, False, False]
    graph = plain()[1]
    for name, module in [("pe", "net_pe_"), ("pe_planes", "net_pe_planes_"), ("per", "per_"),
                         ("CON", "net_CON_"), ("console", "console_"), ("n2uq", "net_n2uq_")]:
        assert module_name(replace(graph, name=name)) == module + TOP
    for name, rest in (("always", "comb"), ("s", "until_with"), ("pulsestyle", "onevent")):
        assert module_names(called(name, [rest, *"bcdefghj"])[1])[rest] == f"{name}_{rest}_"
    _, graph, folding = called("net", ["source", "sink_", *"cdefghj"])
    rare = pattern("every:50")
    assert forecast(graph, folding, source=rare).bottleneck == "source_"
    assert forecast(graph, folding, sink=pattern("every:1000")).bottleneck == "sink"
