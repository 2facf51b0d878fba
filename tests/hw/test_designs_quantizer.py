# amaranth: UnusedElaboratable=no
"""Quantizers with and without a codebook against golden at every integer that they can get."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import Whole
from loading import Loading
from units import SCENARIOS, Bench, edge_of

from n2uq_hw.compare.wholes import quantizers
from n2uq_hw.errors import N2uqError
from n2uq_hw.hw.designs.quantizer import Codebook
from n2uq_hw.hw.threshold import threshold_latency
from n2uq_hw.ir import golden, infer

CHANNELS, PE, SUM_BITS = 6, 2, 6
COMPARED = [whole for whole in quantizers(bits=2, channels=CHANNELS, pe=PE, sum_bits=SUM_BITS)
            if getattr(whole.graph.nodes[-1], "bits", 8) == 8]


def cases() -> list[Whole]:
    wholes = []
    for whole in COMPARED:
        half, book = 2**(SUM_BITS - 1), whole.graph.nodes[-1]
        x = np.repeat(np.arange(-half, half), CHANNELS).reshape(-1, 1, 1, CHANNELS)
        unit = whole.create()
        if isinstance(book, Codebook) and book.writable:
            unit = Loading(unit, {"book_": book})
        wholes.append(Whole(whole.graph.name, unit, x, golden.run(whole.graph, x)))
    return wholes


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(cases(), tmp_path_factory)


@pytest.mark.parametrize("source,sink,resets", SCENARIOS[:5])
def test_bit_exact(bench: Bench, source: float, sink: float, resets: tuple[int, ...]) -> None:
    bench.run(source, sink, resets)


def test_stream_rules(bench: Bench) -> None:
    bench.check_rules()


def test_a_codebook_takes_a_cycle(bench: Bench) -> None:
    for whole in COMPARED:
        node, style = whole.graph["quan"], whole.folding["quan"].style
        accepted, emitted = bench.timing[whole.graph.name]
        latency = threshold_latency(node, whole.graph.edges["input"], PE, style)
        assert np.array_equal(np.diff(accepted), np.ones(len(accepted) - 1))
        assert np.array_equal(emitted, accepted + latency + ("book" in whole.folding))


def test_golden_is_the_entry_of_the_code() -> None:
    node, edge = Codebook("book", values=np.array([0, 3, 10, -200])), edge_of((1, 1, 1), 0, 3)
    codes = np.array([0, 3, 2, 2, 1]).reshape(-1, 1, 1, 1)
    assert golden.evaluate(node, (edge,), codes).ravel().tolist() == [0, -200, 10, 10, 3]
    assert (infer(node, edge).lo, infer(node, edge).hi) == (-200, 10)
    some = infer(node, edge_of((1, 1, 2), [1, 0], [2, 0]))
    assert (some.lo.tolist(), some.hi.tolist()) == ([3, 0], [10, 0])


@pytest.mark.parametrize("values,writable,message", [
    ([0, 1, 2], False, r"^Codebook book: codes must lie in 0\.\.2, not 0\.\.3$"),
    ([0, 1, 2, 256], True, r"^Codebook book: values must lie in 0\.\.255, not 0\.\.256$"),
    ([-1, 1, 2, 3], True, r"^Codebook book: values must lie in 0\.\.255, not -1\.\.3$")])
def test_what_is_no_codebook(values: list[int], writable: bool, message: str) -> None:
    with pytest.raises(N2uqError, match=message):
        infer(Codebook("book", values=np.array(values), writable=writable),
              edge_of((1, 1, 1), 0, 3))
