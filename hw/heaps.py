"""Constant matrices as logic: heaps of bits that carry chains add up.

A product with a constant vector is a sum of bits: every bit of every input, shifted and negated as
the signed digits of its weight say.  ``-b = ~b - 1`` makes all of them positive and leaves one
constant.  Chains then add up the bits of such a heap (Dadda's scheme, with carry chains in the
place of full adders).  Position i of a chain adds a bit ``x[i]`` and ``y[i]``, a function of a few
bits that the LUT in front of the carry holds at no cost: with LUT6, five bits of weights 1, 1, 1,
2, 2 are functions for three positions, so that three LUTs take nine bits, carry included, and
leave four.  A LUT4 in front of a carry of ECP5 holds one bit.

Odd weights are ``w = 2k + c`` with one c, 1 or -1, per input: the k have half the digits of the w,
and ``Σ c·a`` is added up once for all outputs.  So are sums and differences of two inputs that many
outputs have.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product

import numpy as np

from ..errors import N2uqError
from ..ir import bits_for
from ..ir.folding import LUTS

__all__ = ["FALSE", "TRUE", "Chain", "HeapGraph", "Sum", "evaluate", "optimize",
           "signed_digits"]

FALSE, TRUE = 0, 1  # literals: 2b is the bit of number b, 2b + 1 its complement; bit 0 is 0
ABSORBED = {4: 1, 6: 5}  # bits that the LUT of a position takes beside x
POSITIONS = 4            # of a function, at most
MOST_OTHERS = 5, 5, 3, 1  # literals that a function takes of each column, and x and carry beside it
MOST_PLAIN = 7, 6, 4, 2
LEVEL = 4                # LUTs that a level less of chains is worth
MIXED = 0.9              # what a chain of plain and complemented bits is worth with LUT4
TRIALS = 4               # per output and unit of effort
OUTPUTS = 256            # that have so many each; more share as many, for 2 % more LUTs
# Bits removed per LUT that a chain must reach, or wait for more bits; drawn anew for each level.
RATIOS = {4: (0.79, 0.74, 0.6, 0.5, 0.3), 6: (1.66, 1.45, 1.3, 1.0)}
# LUTs that a bit of a heap costs in the mean: what a word that heaps share spares.
PRICES = {4: 1.3, 6: 0.62}

Columns = list[list[int]]  # literals by the power of two that they count for


@dataclass(frozen=True)
class Chain:
    """``z = carry + Σ 2^i·(x[i] + y[i])``, of which the low `width` bits are kept.

    Members
    -------
    x, carry: literals.
    y: of each position the literals that its function takes, none of a complement, and the
        function: bit ``Σ 2^k·v[k]`` of a number, v the values of the literals.
    first: the number of z's lowest bit; the others follow.
    level: 1 above the highest level of what it adds; inputs have level 0.
    """

    x: tuple[int, ...]
    y: tuple[tuple[tuple[int, ...], int], ...]
    carry: int
    first: int
    width: int
    level: int

    @property
    def reads(self) -> Iterator[int]:
        """The literals that it takes."""
        yield from (self.carry, *self.x, *(b for literals, _ in self.y for b in literals))

    @property
    def complements(self) -> tuple[int, int]:
        """Complements that it takes if y is added, and if y's complement is subtracted."""
        turned = sum(len(literals) == 1 and table == 1 for literals, table in self.y)
        x = sum(literal & 1 for literal in self.x if literal > TRUE)
        carry = self.carry > TRUE
        plain = sum(bool(literals) for literals, _ in self.y) - turned
        return x + turned + (carry and self.carry & 1), x + plain + carry

    def luts(self, lut: int) -> int:
        """LUTs of so many inputs; on LUT4 each position is one, and the one below the chain."""
        if lut == 4:
            return len(self.x) + 1 + min(self.complements)
        return sum(bool(literals) for literals, _ in self.y)


@dataclass(frozen=True)
class Sum:
    """An output in `lo`..`hi`: ``offset + Σ 2^i·bits[i]`` (literals), modulo ``2^len(bits)``."""

    bits: tuple[int, ...]
    offset: int
    lo: int
    hi: int


@dataclass
class HeapGraph:
    """Chains, each after those whose bits it adds, and the outputs.

    Members
    -------
    widths: bits of each input, two's complement if `signed`; they are numbered from 1, input by
        input, lowest first.
    lut: inputs of a LUT, one of `LUTS`.
    levels: of every bit.
    """

    widths: list[int]
    signed: list[bool]
    lut: int
    levels: list[int]
    chains: list[Chain] = field(default_factory=list)
    sums: list[Sum] = field(default_factory=list)

    @property
    def firsts(self) -> list[int]:
        """The number of each input's lowest bit."""
        return [1 + sum(self.widths[:i]) for i in range(len(self.widths))]

    @property
    def depth(self) -> int:
        """The most chains behind each other."""
        return max(self.levels)

    @property
    def luts(self) -> int:
        """LUTs of all chains."""
        return sum(chain.luts(self.lut) for chain in self.chains)


def signed_digits(value: int) -> list[tuple[int, int]]:
    """(shift, 1 or -1) of the fewest signed powers of two whose sum is `value`."""
    digits, shift = [], 0
    while value:
        if value & 1:
            digit = 2 - (value & 3)
            digits.append((shift, digit))
            value -= digit
        value >>= 1
        shift += 1
    return digits


def evaluate(graph: HeapGraph, x: np.ndarray) -> np.ndarray:
    """The outputs int64 [n, N] for inputs [n, K], from the graph's bits alone."""
    bits = np.zeros((len(graph.levels), len(x)), np.int64)
    for i, (first, width) in enumerate(zip(graph.firsts, graph.widths, strict=True)):
        bits[first:first + width] = x[:, i] >> np.arange(width)[:, None] & 1

    def number(literals: Sequence[int]) -> np.ndarray:
        total = np.zeros(len(x), np.int64)
        for i, literal in enumerate(literals):
            total += (bits[literal >> 1] ^ literal & 1) << i
        return total

    for chain in graph.chains:
        z = number([chain.carry]) + number(chain.x)
        for i, (literals, table) in enumerate(chain.y):
            z += (table >> number(literals) & 1) << i
        bits[chain.first:chain.first + chain.width] = z >> np.arange(chain.width)[:, None] & 1
    return np.stack([s.lo + (number(s.bits) + s.offset - s.lo) % (1 << len(s.bits))
                     for s in graph.sums], axis=1)


@lru_cache
def _shapes(absorbed: int) -> tuple[tuple[int, ...], ...]:
    """Bits per position that a function can take, their sum within its positions; maximal ones."""
    shapes = []
    for n in range(1, POSITIONS + 1):
        fits = [c for c in product(range(absorbed + 1), repeat=n)
                if 0 < sum(c) <= absorbed and sum(k << i for i, k in enumerate(c)) < 2**n]
        shapes += [c for c in fits if not any(
            d != c and all(x >= y for x, y in zip(d, c, strict=True)) for d in fits)]
    return tuple(shapes)


def _plain(literal: int) -> bool:
    return not literal & 1 or literal == TRUE


@lru_cache
def _positions(shape: tuple[int, ...]) -> int:
    """How many positions a function of so many bits per position is not constant at."""
    total = sum(count << i for i, count in enumerate(shape))
    first = next((i for i, count in enumerate(shape) if count), len(shape))
    return max(min(total.bit_length(), len(shape)) - first, 0)


@lru_cache(2**16)
def _function(weights: tuple[tuple[int, int], ...], constant: int, n: int
              ) -> tuple[tuple[tuple[int, ...], int], ...]:
    """Of n bits of ``constant + Σ weight·(bit ^ turn)``: which of the bits each needs, its table.

    `weights` has pairs (weight, turn).
    """
    index = np.arange(2**len(weights))
    total = np.full(len(index), constant)
    for k, (weight, turn) in enumerate(weights):
        total += weight * (index >> k & 1 ^ turn)
    pieces = []
    for i in range(n):
        values = total >> i & 1
        needs = [k for k in range(len(weights)) if (values != values[index ^ 1 << k]).any()]
        at = sum(((np.arange(2**len(needs)) >> j & 1) << k for j, k in enumerate(needs)),
                 start=np.zeros(2**len(needs), np.int64))
        pieces.append((tuple(needs), sum(int(v) << j for j, v in enumerate(values[at]))))
    return tuple(pieces)


@lru_cache
def _candidates(room: int) -> tuple[tuple[tuple[int, ...], ...], np.ndarray, np.ndarray]:
    """The shapes that fit into `room` columns with LUT6, ascending: as they are, as rows
    [n, POSITIONS], and their lengths [n]."""
    shapes = sorted(shape for shape in _shapes(ABSORBED[6]) if len(shape) <= room)
    rows = [shape + (0,) * (POSITIONS - len(shape)) for shape in shapes]
    return tuple(shapes), np.array(rows), np.array([*map(len, shapes)])


@lru_cache(2**18)
def _best_shape(plain: tuple[int, ...], others: tuple[int, ...], room: int
                ) -> tuple[float, tuple[tuple[int, ...], ...]]:
    """Bits removed per LUT6, and the shape, of the best chain at a column and those above.

    Parameters
    ----------
    plain, others: literals in POSITIONS columns, those that x can be, and those that it cannot.
    room: columns that there are.
    """
    shapes, wants, lengths = _candidates(min(room, POSITIONS))
    column = np.arange(POSITIONS)
    inside = np.minimum(wants, np.add(plain, others))
    direct = np.where(column < lengths[:, None], np.minimum(
        plain - np.maximum(0, inside - others), 1 + (column == 0)), 0)
    ends = np.minimum(np.frexp(inside @ 2**column)[1], lengths)  # see _positions
    luts = np.maximum(ends - (inside > 0).argmax(axis=1), 0)
    sums = (inside + direct) @ 2**column
    removed = (inside + direct).sum(axis=1) - np.minimum(np.frexp(sums)[1], room)
    ratios = np.divide(removed, luts, out=np.zeros(len(luts)), where=luts > 0)
    k = len(luts) - 1 - int(ratios[::-1].argmax())  # of equal ones, the last shape
    return (float(ratios[k]), (shapes[k],)) if ratios[k] > 0 else (0.0, ())


@lru_cache(2**18)
def _best_length(plain: tuple[int, ...], others: tuple[int, ...], room: int
                 ) -> tuple[float, tuple[tuple[int, ...], ...]]:
    """The same with LUT4, whose chains add two or three literals at each position.

    The columns end before the first with less than two `plain` literals.
    """
    best: tuple[float, tuple[tuple[int, ...], ...]] = (0.0, ())
    bits = total = 0
    for i, (have, rest) in enumerate(zip(plain, others, strict=True)):
        added = 1 + min(have - (not rest), 1 + (i == 0))
        bits, total = bits + added, total + (added << i)
        removed = bits - min(total.bit_length(), room)
        best = max(best, (removed / (i + 2), ((1,),) * (i + 1)))
    return best


def _most_per_lut(lut: int, plain: list[int], others: list[int], room: int
                  ) -> tuple[float, tuple[tuple[int, ...], ...]]:
    """The best chain at a column and those above; so many literals count as it can take."""
    if lut == 6:
        return _best_shape(tuple(map(min, plain, MOST_PLAIN)), tuple(map(min, others, MOST_OTHERS)),
                           min(room, POSITIONS + 2))
    most = next((n for n, k in enumerate(plain) if k < 2), len(plain))
    return _best_length(tuple(min(k, 3) for k in plain[:most]),
                        tuple(min(k, 1) for k in others[:most]), min(room, most + 2))


@lru_cache(2**16)
def _ending(both: tuple[int, ...], direct: tuple[int, ...]
            ) -> tuple[int, list[tuple[int, ...]]] | None:
    """LUT6s and shapes of the least chain that adds all of `both` literals up to the last column.

    `direct` of them are for x, and for the carry in the first column.
    """
    top = len(both)
    best: dict[int, tuple[int, list[tuple[int, ...]]]] = {top: (0, [])}
    for column in range(top - 1, -1, -1):
        shape: list[int] = []
        for n in range(1, min(POSITIONS, top - column) + 1):
            at = column + n - 1
            shape.append(both[at] - direct[at])
            total = sum(count << i for i, count in enumerate(shape))
            # What goes beyond the top is known to be 0, or wraps.
            if (sum(shape) > ABSORBED[6] or column + n not in best
                    or (total >> n and column + n < top)):
                continue
            luts = _positions(tuple(shape)) + best[column + n][0]
            if column not in best or luts < best[column][0]:
                best[column] = luts, [tuple(shape), *best[column + n][1]]
    return best.get(0)


class _Heap:
    """Columns of literals to add up, chain after chain, until one chain can add the rest.

    Time goes by levels: the literals in `late` are not there yet.  Bits are `plain` or complements,
    the `others`.  With LUT6, x is a plain one, for it also enters the carry by itself, and y takes
    both.  With LUT4 a complement is a LUT; but a chain of others alone is, with all complemented, a
    chain of plain bits whose sum comes complemented, and y may be subtracted.
    """

    def __init__(self, graph: HeapGraph, columns: Columns, top: int, rng: random.Random) -> None:
        self.graph, self.levels, self.top, self.rng = graph, graph.levels, top, rng
        self.base, self.chains, self.spent = len(graph.levels), list[Chain](), 0
        self._fill(columns, 0)

    def _fill(self, columns: Columns, now: int) -> None:
        self.now, self.ratio = now, self.rng.choice(RATIOS[self.graph.lut])
        self.plain, self.others, self.late = (
            [list[int]() for _ in range(self.top)] for _ in range(3))
        for column, literals in enumerate(columns[:self.top]):
            for literal in literals:
                self._put(literal, column)

    def _put(self, literal: int, column: int) -> None:
        late = self.levels[literal >> 1] > self.now
        (self.late if late else self.plain if _plain(literal) else self.others)[
            column].append(literal)

    def _rest(self) -> Columns:
        return [a + b + c for a, b, c in zip(self.plain, self.others, self.late, strict=True)]

    def _advance(self) -> bool:
        """Go on to the next level at which there are more literals."""
        waiting = [self.levels[b >> 1] for column in self.late for b in column]
        if waiting:
            self._fill(self._rest(), min(waiting))
        return bool(waiting)

    def _step(self, ratio: float) -> bool:
        """Apply a chain that removes the most bits per LUT, unless that is less than `ratio`."""
        pad = [0] * POSITIONS
        plain, others = ([*map(len, side), *pad] for side in (self.plain, self.others))
        none, both = [0] * len(plain), [a + b for a, b in zip(plain, others, strict=True)]
        sides = [(plain, others, 1.0)] if self.graph.lut == 6 else [
            (plain, none, 1.0), (others, none, 1.0), (both, none, MIXED)]
        best: tuple[float, float, int, bool, tuple[tuple[int, ...], ...]] = ratio, 0, 0, False, ()
        for k, (side, rest, worth) in enumerate(sides):
            for column in range(self.top):
                if side[column] + rest[column] > 1:
                    end = self.top if self.graph.lut == 4 else column + POSITIONS
                    removed, shapes = _most_per_lut(
                        self.graph.lut, side[column:end], rest[column:end], self.top - column)
                    if removed * worth >= best[0] and shapes:
                        best = max(best, (
                            removed * worth, self.rng.random(), column, k == 1, shapes))
        _, _, column, turn, shapes = best
        if shapes:
            self._apply(column, shapes, turn)
        return bool(shapes)

    def _apply(self, column: int, shapes: Sequence[tuple[int, ...]], turned: bool = False) -> None:
        """Replace literals by the bits of a chain with functions of such `shapes`.

        A `turned` one is of others, two at each position and a carry: they are ``2^(n + 1) - 1``
        less their complements, whose sum is added up; its bits come complemented.
        """
        xs, ys, at = list[int](), list[tuple[tuple[int, ...], int]](), column
        carry, most = int(turned), 0

        def pop(*stacks: list[int]) -> int:
            return next((stack.pop() ^ turned for stack in stacks if stack), FALSE)

        for shape in shapes:
            inside: list[tuple[int, int]] = []
            for i, count in enumerate(shape):
                plain, others = self.plain[at], self.others[at]
                direct = [others] if turned else [plain, others][:1 + (self.graph.lut == 4)]
                inside += [(pop(others, plain), 1 << i)
                           for _ in range(min(count, len(plain) + len(others)))]
                xs.append(pop(*direct))
                if at == column and any(direct):
                    carry = pop(*direct)
                at += 1
            bits = [(literal, weight) for literal, weight in inside if literal != TRUE]
            constant = sum(weight for literal, weight in inside if literal == TRUE)
            for needs, table in _function(
                    tuple((weight, literal & 1) for literal, weight in bits), constant, len(shape)):
                ys.append((tuple(bits[k][0] & ~1 for k in needs), table))
            most += sum(weight for _, weight in inside) << at - len(shape) - column
        most += sum((x != FALSE) << i for i, x in enumerate(xs)) + (carry != FALSE)
        reads = (carry, *xs, *(literal for literals, _ in ys for literal in literals))
        chain = Chain(tuple(xs), tuple(ys), carry, len(self.levels),
                      min(most.bit_length(), self.top - column),
                      1 + max(self.levels[literal >> 1] for literal in reads))
        self.levels += [chain.level] * chain.width
        self.chains.append(chain)
        self.spent += chain.luts(self.graph.lut)
        for i in range(chain.width):
            self._put(2 * (chain.first + i) + turned, column + i)

    def _finish(self) -> tuple[int, int, list[tuple[int, ...]]] | None:
        """LUTs, first column and shapes of the least chain that adds all that is left."""
        absorbed = ABSORBED[self.graph.lut]
        both = [len(a) + len(b) + len(c)
                for a, b, c in zip(self.plain, self.others, self.late, strict=True)]
        start = next((p for p, count in enumerate(both) if count > 1), self.top)
        if max(both, default=0) > absorbed + 2:
            return None
        plain = [len(a) + sum(map(_plain, c)) for a, c in zip(self.plain, self.late, strict=True)]
        if self.graph.lut == 4:
            return self._finish_direct(start, both, plain)
        ending = _ending(tuple(both[start:]), tuple(
            min(count, 1 + (at == 0)) for at, count in enumerate(plain[start:])))
        return ending and (ending[0], start, ending[1])

    def _finish_direct(self, start: int, both: list[int], plain: list[int]
                       ) -> tuple[int, int, list[tuple[int, ...]]] | None:
        """The same with LUT4: no functions, x and y in each column and a carry in the first."""
        if start == self.top:
            return 0, start, []
        if max(both[start + 1:], default=0) > 2:
            return None
        carry = both[start] > 2
        rows = list(zip(both, plain, strict=True))[start:]
        added = sum(n - p for n, p in rows)
        subtracted = carry + sum(p in (0, n) for n, p in rows if n > 1)
        shapes: list[tuple[int, ...]] = [(int(n > 1 or p < n),) for n, p in rows]
        return len(rows) + 1 + min(added, subtracted), start, shapes

    def compress(self) -> tuple[int, list[int]]:
        """LUTs, and the literals of the sum, lowest first."""
        best: tuple[int, int, tuple, Columns] | None = None
        while True:
            end = self._finish()
            if end is not None and (best is None or self.spent + end[0] < best[0]):
                best = self.spent + end[0], len(self.chains), end, self._rest()
            if not (self._step(self.ratio) or self._advance() or self._step(0.01)):
                break
        assert best is not None  # in the end no column has more literals than a chain takes
        luts, count, (_, start, shapes), columns = best
        del self.levels[self.base + sum(chain.width for chain in self.chains[:count]):]
        del self.chains[count:]
        self._fill(columns, max(self.levels))
        if shapes:
            self._apply(start, shapes)
        assert max(map(len, self._rest()), default=0) <= 1
        return luts, [column[0] if column else FALSE for column in self._rest()]


def _compress(graph: HeapGraph, columns: Columns, top: int, rng: random.Random, trials: int
              ) -> list[int]:
    """Add chains to the graph that add up the columns, modulo ``2^top``; returns the sum's bits."""
    best: tuple[int, list[Chain], list[int], list[int]] | None = None
    for _ in range(trials):
        heap = _Heap(graph, columns, top, rng)
        luts, bits = heap.compress()
        score = luts + LEVEL * max((graph.levels[b >> 1] for b in bits), default=0)
        if best is None or score < best[0]:
            best = score, heap.chains, graph.levels[heap.base:], bits
        del graph.levels[heap.base:]
    assert best is not None
    _, chains, levels, bits = best
    graph.chains += chains
    graph.levels += levels
    return bits


_digits = np.vectorize(lambda value: len(signed_digits(int(value))), otypes=[np.int64])


def _common(weights: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """c [K] of ±1 so that the heaps of ``(weights - c)/2`` are the least; or 0, if that is less."""
    c = np.zeros(weights.shape[1], np.int64)
    if (weights % 2 == 0).any():
        return c
    digits = [_digits((weights - sign) // 2).sum(axis=0) for sign in (1, -1)]
    sums = len(weights) * int(widths.max() + len(widths)).bit_length()
    if np.minimum(*digits) @ widths + widths.sum() + sums < _digits(weights).sum(axis=0) @ widths:
        c[:] = np.where(digits[0] <= digits[1], 1, -1)
    return c


class _Words:
    """What heaps are made of: the inputs, and sums and differences that several heaps have.

    Members
    -------
    literals, offsets: a word is worth ``offset + Σ 2^i·literals[i]``.
    widths, most: bits of a word and the largest of these sums, int64 [T].
    terms: which words a column adds (1) or subtracts (-1), [T, columns].
    """

    def __init__(self, graph: HeapGraph, terms: np.ndarray) -> None:
        self.graph, self.terms = graph, terms
        self._rows = terms  # with room for more words
        self.literals = [[2 * (first + k) for k in range(width)] for first, width in
                         zip(graph.firsts, graph.widths, strict=True)]
        self.offsets = [0] * len(self.literals)
        for i, literals in enumerate(self.literals):
            if graph.signed[i]:  # the top bit counts for -2^(w - 1): its complement, less that
                literals[-1] ^= 1
                self.offsets[i] = -2**(len(literals) - 1)
        self.widths = np.array(graph.widths)
        self.most = 2**self.widths - 1

    def gains(self, a: int) -> np.ndarray:
        """LUTs that a chain for the sum, or the difference, of words a and b spares, [2, T]."""
        lut, wide = self.graph.lut, self.widths >= self.widths[a]
        columns = np.flatnonzero(self.terms[a])
        terms = self.terms[:, columns]
        both, product = np.abs(terms).sum(axis=1), terms @ self.terms[a, columns]
        full = 2**self.widths - 1  # what a complement adds
        sums = np.stack([self.most + self.most[a], np.where(
            wide, self.most + full[a], self.most[a] + full)])
        spared = self.widths + self.widths[a] - np.frexp(sums)[1]
        gains = (both + np.array([[1], [-1]]) * product) / 2 * spared * PRICES[lut] - (
            np.minimum(self.widths, self.widths[a]) + (lut == 4))
        gains[:, a] = -1
        return gains

    def add(self, a: int, b: int, sign: int) -> None:
        """The word ``a ± b``, b no wider than a, where columns have both."""
        graph, wide = self.graph, self.literals[a]
        narrow = [literal ^ (sign < 0) for literal in self.literals[b]]
        most = int(self.most[a] + (self.most[b] if sign > 0 else 2**len(narrow) - 1))
        chain = Chain(
            tuple(wide), (*(((literal & ~1,), 1 + (~literal & 1)) for literal in narrow),
                          *(((), 0),) * (len(wide) - len(narrow))), FALSE, len(graph.levels),
            most.bit_length(), 1 + max(graph.levels[literal >> 1] for literal in (*wide, *narrow)))
        graph.levels += [chain.level] * chain.width
        graph.chains.append(chain)
        self.literals.append([2 * (chain.first + i) for i in range(chain.width)])
        self.offsets.append(self.offsets[a] + sign * self.offsets[b]
                            - (sign < 0) * (2**len(narrow) - 1))
        self.widths, self.most = np.append(self.widths, chain.width), np.append(self.most, most)
        shared = self.terms[a] * self.terms[b] == sign
        row = np.where(shared, self.terms[a], 0)
        self.terms[[a, b]] *= ~shared
        n = len(self.terms)
        if n == len(self._rows):
            self._rows = np.vstack([self.terms, np.zeros_like(self.terms)])
        self._rows[n] = row
        self.terms = self._rows[:n + 1]

    def share(self) -> None:
        """Add words that spare LUTs, always the one that spares the most."""
        if any(self.graph.signed):  # x would be a complement
            return
        bound = np.array([self.gains(a).max() for a in range(len(self.terms))])
        while bound.max() > 0:
            a = int(bound.argmax())
            gains = self.gains(a)
            if gains.max() < bound[a]:  # what it had in common has gone since
                bound[a] = gains.max()
                continue
            k, b = (int(i) for i in np.unravel_index(gains.argmax(), gains.shape))
            a, b = sorted((a, b), key=lambda word: -self.widths[word])
            self.add(a, b, 1 - 2 * k)
            new = self.gains(len(self.terms) - 1).max(axis=0)
            bound = np.append(np.maximum(bound, new[:-1]), new.max())


def optimize(weights: np.ndarray, lo: np.ndarray, hi: np.ndarray, *, lut: int = 6,
             wraps: bool = False, seed: int = 0, effort: int = 1,
             progress: Callable[[float], None] = lambda done: None) -> HeapGraph:
    """Chains that compute ``weights · x``.

    Parameters
    ----------
    weights: integers [N, K].
    lo, hi: integers [K], the ranges of x.
    lut: inputs of a LUT, one of `LUTS`.
    wraps: whether outputs must come with an offset of 0, in two's complement; else their bits are
        an unsigned number and the offset is left to the thresholds.
    seed, effort: of the search, `TRIALS` times `effort` chains of choices for each of `OUTPUTS`,
        fewer for each of more; the time it takes grows with it.
    progress: is told the share of the outputs that are done.

    Raises N2uqError for shapes that do not fit and empty ranges.
    """
    weights, lo, hi = (np.asarray(a).astype(np.int64) for a in (weights, lo, hi))
    if weights.ndim != 2 or not weights.size or not lo.shape == hi.shape == weights.shape[1:]:
        raise N2uqError(f"weights and ranges must be [N, K], [K] and [K], not "
                        f"{list(weights.shape)}, {list(lo.shape)} and {list(hi.shape)}")
    if (lo > hi).any():
        raise N2uqError(f"ranges must not be empty, as that of input {int((lo > hi).argmax())}")
    if lut not in LUTS or effort < 1:
        raise N2uqError(f"LUTs must have {' or '.join(map(str, LUTS))} inputs and effort be at "
                        f"least 1, not {lut} and {effort}")
    forms = [bits_for(*ends) for ends in zip(lo.tolist(), hi.tolist(), strict=True)]
    graph = HeapGraph([width for width, _ in forms], [signed for _, signed in forms], lut,
                      [0] * (1 + sum(width for width, _ in forms)))
    rng = random.Random(seed)
    trials = max(TRIALS * effort * OUTPUTS // max(len(weights), OUTPUTS), 1)

    def place(columns: Columns, literal: int, column: int, sign: int) -> int:
        columns.extend([] for _ in range(column + 1 - len(columns)))
        columns[column].append(literal if sign > 0 else literal ^ 1)
        return min(sign, 0) << column

    common = _common(weights, np.array(graph.widths))
    halved = bool(common.any())
    vectors = [*((row - common) >> halved for row in weights), *([common] * halved)]
    digits = [[signed_digits(weight) for weight in vector.tolist()] for vector in vectors]
    shifts = 1 + max((shift for vector in digits for weight in vector for shift, _ in weight),
                     default=0)
    terms = np.zeros((len(lo), len(vectors), shifts), np.float32)
    for n, vector in enumerate(digits):
        for i, weight in enumerate(vector):
            for shift, sign in weight:
                terms[i, n, shift] = sign
    words = _Words(graph, terms.reshape(len(lo), -1))
    words.share()

    def heap(n: int, shift: int) -> tuple[Columns, int]:
        """Columns and the constant beside them whose sum is ``2^shift·Σ vectors[n]·x``."""
        columns, offset = Columns(), 0
        digits = words.terms.reshape(len(words.terms), len(vectors), -1)[:, n]
        for word, digit in zip(*(at.tolist() for at in digits.nonzero()), strict=True):
            sign = int(digits[word, digit])
            offset += sign * words.offsets[word] << digit + shift
            for k, literal in enumerate(words.literals[word]):
                offset += place(columns, literal, k + digit + shift, sign)
        return columns, offset

    shared, shared_offset = list[int](), 0
    if halved:
        columns, shared_offset = heap(len(weights), 0)
        most = int(np.maximum(common * lo, common * hi).sum()) - shared_offset
        shared = _compress(graph, columns, most.bit_length(), rng, trials)
    for n, row in enumerate(weights):
        columns, offset = heap(n, int(halved))
        for k, literal in enumerate(shared):
            place(columns, literal, k, 1)
        offset += shared_offset
        least, most = (int(end(row * lo, row * hi).sum()) for end in (np.minimum, np.maximum))
        top = (most - offset).bit_length()
        if wraps:
            top = bits_for(least, most)[0]
            for k in range(top):
                if offset >> k & 1:
                    place(columns, TRUE, k, 1)
            offset = 0
        graph.sums.append(Sum(tuple(_compress(graph, columns, top, rng, trials)), offset,
                              least, most))
        progress((n + 1) / len(weights))
    return graph
