"""One heap of bits, chain after chain, until one chain adds up the rest."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache
from itertools import product

import numpy as np

from .chains import FALSE, TRUE, Chain, Columns, HeapGraph

__all__ = ["LEVEL", "compress"]

ABSORBED = {4: 1, 6: 5}  # bits that the LUT of a position takes beside x
POSITIONS = 4            # of a function, at most
WEIGHTS = 2**np.arange(POSITIONS)
MOST_OTHERS = 5, 5, 3, 1  # literals that a function takes of each column, and x and carry beside it
MOST_PLAIN = 7, 6, 4, 2
LEVEL = 4                # LUTs that a level less of chains is worth
MIXED = 0.9              # what a chain of plain and complemented bits is worth with LUT4
# Bits removed per LUT that a chain must reach, or wait for more bits; drawn anew for each level.
RATIOS = {4: (0.79, 0.74, 0.6, 0.5, 0.3), 6: (1.66, 1.45, 1.3, 1.0)}


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
def _candidates(room: int
                ) -> tuple[tuple[tuple[int, ...], ...], np.ndarray, np.ndarray, np.ndarray]:
    """The shapes that fit into `room` columns with LUT6, ascending: as they are, as rows
    [n, POSITIONS], their lengths [n], and the bits that x and carry take beside them, at most,
    [n, POSITIONS]."""
    shapes = sorted(shape for shape in _shapes(ABSORBED[6]) if len(shape) <= room)
    rows = [shape + (0,) * (POSITIONS - len(shape)) for shape in shapes]
    lengths, column = np.array([*map(len, shapes)]), np.arange(POSITIONS)
    beside = (column < lengths[:, None]) * (1 + (column == 0))
    return tuple(shapes), np.array(rows), lengths, beside


@lru_cache(2**18)
def _best_shape(plain: tuple[int, ...], others: tuple[int, ...], room: int
                ) -> tuple[float, tuple[tuple[int, ...], ...]]:
    """Bits removed per LUT6, and the shape, of the best chain at a column and those above.

    Parameters
    ----------
    plain, others: literals in POSITIONS columns, those that x can be, and those that it cannot.
    room: columns that there are.
    """
    shapes, wants, lengths, beside = _candidates(min(room, POSITIONS))
    inside = np.minimum(wants, np.add(plain, others))
    added = inside + np.minimum(plain - np.maximum(0, inside - others), beside)
    ends = np.minimum(np.frexp(inside @ WEIGHTS)[1], lengths)  # see _positions
    luts = np.maximum(ends - (inside > 0).argmax(axis=1), 0)
    removed = added.sum(axis=1) - np.minimum(np.frexp(added @ WEIGHTS)[1], room)
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


class _Search:
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
            for stack in stacks:
                if stack:
                    return stack.pop() ^ turned
            return FALSE

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

    def _straighten(self) -> bool:
        """Make two complements of one column plain bits of their sum, where no chain removes any.

        With LUT6, complements of a column carry through functions of POSITIONS at most.
        """
        column = next((at for at, literals in enumerate(self.others) if len(literals) > 1), None)
        if column is None or self.graph.lut == 4:
            return False
        self._apply(column, [(2, 0)[:self.top - column]])
        return True

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
            if not (self._step(self.ratio) or self._advance() or self._step(0.01)
                    or (best is None and self._straighten())):
                break
        assert best is not None  # in the end no column has more literals than a chain takes
        luts, count, (_, start, shapes), columns = best
        del self.levels[self.base + sum(chain.width for chain in self.chains[:count]):]
        del self.chains[count:]
        self._fill(columns, max((self.levels[b >> 1] for column in columns for b in column),
                                default=0))
        if shapes:
            self._apply(start, shapes)
        assert max(map(len, self._rest()), default=0) <= 1
        return luts, [column[0] if column else FALSE for column in self._rest()]


def compress(graph: HeapGraph, columns: Columns, top: int, rng: random.Random, trials: int
             ) -> list[int]:
    """Add chains to the graph that add up the columns, modulo ``2^top``; returns the sum's bits."""
    best: tuple[int, list[Chain], list[int], list[int]] | None = None
    for _ in range(trials):
        search = _Search(graph, columns, top, rng)
        luts, bits = search.compress()
        score = luts + LEVEL * max((graph.levels[b >> 1] for b in bits), default=0)
        if best is None or score < best[0]:
            best = score, search.chains, graph.levels[search.base:], bits
        del graph.levels[search.base:]
    assert best is not None
    _, chains, levels, bits = best
    graph.chains += chains
    graph.levels += levels
    return bits
