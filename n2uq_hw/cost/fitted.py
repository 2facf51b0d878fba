"""Every number that the estimator has from measurements of Yosys: all are in `fitted.json`.

Weights are fitted by `samples.fit`, and ``python bench/units.py --fit`` writes them; the other
numbers were read off series of units.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Numbers", "Weights", "numbers", "save_weights", "weights"]

FITTED = Path(__file__).with_name("fitted.json")
# By family, key of `Parts`, "lut" or "ff", name of the count.
Weights = dict[str, dict[str, dict[str, dict[str, float]]]]


class Numbers(NamedTuple):
    """Of one family, in LUTs.

    Members
    -------
    block: what a block RAM is taken for: those of a ZU3EG, of an LFE5U-85F.
    unrolled_least: per weight and bit of an input, unrolled: half the fewest of a trained layer;
        what is dearer by that is not looked at.
    unrolled_compared: of the comparators of a channel, unrolled.
    rom: of a bit of a ROM in logic that has many words: per word, for up to 64 words and for more,
        and how many fewer.
    rom_small: of a column of a ROM of 3 or 4 words.
    rom_late: of a bit of a ROM of 64 words, and of twice as many twice that, where time is short.
    compared, compared_late: of a comparison that a LUT almost takes, and per input beyond it.
    ones: of a full adder where ones are counted.
    product, product_narrow: of a full adder, a half adder and a bit of the last addition in a
        product with a constant; and where x has no more bits than a LUT takes.
    """

    block: float
    unrolled_least: float
    unrolled_compared: float
    rom: tuple[float, float, float]
    rom_small: float
    rom_late: float
    compared: tuple[float, float]
    compared_late: tuple[float, float]
    ones: float
    product: tuple[float, float, float]
    product_narrow: tuple[float, float, float]


@cache
def _stored() -> dict[str, dict[str, Any]]:
    stored: dict[str, dict[str, Any]] = json.loads(FITTED.read_text(encoding="utf-8"))
    return stored


@cache
def numbers(family: str) -> Numbers:
    """Those of `family`."""
    return Numbers(**_stored()[family]["numbers"])


def weights(family: str, key: str) -> dict[str, dict[str, float]]:
    """The weights of `family` for units of the `key` of `Parts`: "lut" and "ff", by count."""
    fitted: dict[str, dict[str, float]] = _stored()[family]["weights"][key]
    return fitted


def save_weights(fitted: Mapping[str, Any], path: Path = FITTED) -> None:
    """Write `fitted`, as `samples.fit` returns them, beside the other numbers."""
    text = json.dumps({family: {"numbers": of["numbers"], "weights": fitted[family]}
                       for family, of in _stored().items()}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")
