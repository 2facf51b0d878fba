"""Compressor trees: heaps of bits that carry chains of LUTs with two outputs add up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["ANOTHER", "BELOW", "NONE", "Cell", "Chain", "Tree", "compressor_tree",
           "product_columns"]

NONE, ANOTHER, BELOW = "", "another", "below"  # what a cell adds beside its terms
GATE_LEVELS = 6  # that take gates where they can: what these are made of waits in registers
GAP = 0.02       # LUTs of the last level that better chains may spare
WHOLE = 1e-4     # flows are multiples of small fractions: what differs less from a number is it


class Cell(NamedTuple):
    """A position of a chain: a LUT of five inputs and two outputs, and its carry.

    Its terms, three at most, are `gates`, products of two bits that the LUT makes itself, and
    `plain` bits.  Of two terms the LUT gives sum and carry to the chain.  Of three, or where there
    is `more`, it gives their sum, and their majority by its other output; beside their sum the
    chain adds the majority of the cell BELOW, or ANOTHER bit, which is an input of the LUT.
    """

    gates: int
    plain: int
    more: str = NONE

    @property
    def wide(self) -> bool:
        """Whether its majority can be 1: a bit for the next column."""
        terms = self.gates + self.plain
        return terms == 3 or (terms == 2 and self.more != NONE)

    @property
    def bits(self) -> int:
        """Plain bits that it takes of the heap."""
        return self.plain + (self.more == ANOTHER)


CELLS = (*(Cell(gates, plain, more) for gates, plain in ((2, 0), (1, 2), (0, 3), (1, 1), (0, 2))
           for more in (NONE, ANOTHER, BELOW)), Cell(1, 0, BELOW), Cell(0, 1, BELOW), Cell(1, 0))


class Chain(NamedTuple):
    """Cells from a `column` on, upwards; `carry` says whether a plain bit is its first carry.

    It gives a sum in each column, the majorities that no cell takes, and its last carry.
    """

    level: int
    column: int
    carry: bool
    cells: tuple[Cell, ...]

    def takes(self) -> Iterator[tuple[int, int, int]]:
        """Of each cell: its column, gates and plain bits."""
        for i, cell in enumerate(self.cells):
            yield self.column + i, cell.gates, cell.bits + (self.carry and i == 0)

    def gives(self) -> Iterator[tuple[str, int, int]]:
        """Its results: "sum", "majority" or "carry", the cell, and the column they count in."""
        for i, cell in enumerate(self.cells):
            yield "sum", i, self.column + i
            if cell.wide and (i + 1 == len(self.cells) or self.cells[i + 1].more != BELOW):
                yield "majority", i, self.column + i + 1
        yield "carry", len(self.cells) - 1, self.column + len(self.cells)


class Tree(NamedTuple):
    """Chains, level by level, that leave two bits in each column at most, three in the lowest.

    Members
    -------
    levels: chains behind each other; there may be none of some.
    rest: how many bits are left, by column.
    """

    chains: tuple[Chain, ...]
    levels: int
    rest: tuple[int, ...]

    @property
    def luts(self) -> int:
        """One for each cell."""
        return sum(len(chain.cells) for chain in self.chains)


def product_columns(simd: int, code_bits: int, activation_bits: int) -> tuple[tuple[int, ...], int]:
    """Gates of `simd` products of codes and activations, by column, and bits of the greatest sum.
    """
    columns = [simd * min(c + 1, code_bits, activation_bits, code_bits + activation_bits - 1 - c)
               for c in range(code_bits + activation_bits - 1)]
    most = simd * (2**code_bits - 1) * (2**activation_bits - 1)
    return tuple(columns), most.bit_length()


class _Program:
    """Chains that cost the fewest LUTs, as the flow of a linear program.

    A chain is a path: it starts in a column, with or without a carry, each cell leads to the next
    column, with or without a majority, and there it ends.  All gates are taken, in the levels that
    there are; a plain bit in the level in which it is made cannot be.
    """

    def __init__(self, gates: Sequence[int], plain: Sequence[int], new: Sequence[int], level: int,
                 levels: int) -> None:
        self.gates, self.plain, self.level, self.levels = gates, plain, level, levels
        self.top = len(gates)
        self.costs, self.most = list[float](), list[float]()
        self.arcs = list[tuple[int, int, int, Cell | bool | None]]()  # level, column, from, what
        self.rows = defaultdict[Hashable, list[tuple[int, int]]](list)
        for at in range(level, levels + 1):
            for column in range(self.top):
                self._starts(at, column)
                self._cells(at, column)
                self._ends(at, column + 1)
        self._bits(new)

    def _variable(self, cost: float = 0, most: float = np.inf) -> int:
        self.costs.append(cost)
        self.most.append(most)
        return len(self.costs) - 1

    def _arc(self, arc: tuple[int, int, int, Cell | bool | None], cost: float = 0) -> int:
        self.arcs.append(arc)
        return self._variable(cost)

    def _starts(self, level: int, column: int) -> None:
        """States of a flow: 0 as it is, 1 with a majority, 2 before the first cell, 3 and carry."""
        for carry in (False, True):
            arc = self._arc((level, column, -1, carry))
            self.rows["flow", level, column, 2 + carry].append((arc, 1))
            self.rows["taken", level, column].append((arc, carry))

    def _cells(self, level: int, column: int) -> None:
        for state in range(4):
            for cell in CELLS:
                have = self.plain[column] if level == self.level else np.inf
                gates = self.gates[column] if level <= max(GATE_LEVELS, self.level) else 0
                if (cell.gates > gates or cell.bits + (state == 3) > have
                        or (cell.more == BELOW and state != 1)
                        # The slice has one way to the carry's input and to the chain's other one.
                        or (state == 3 and (cell.more or cell.gates + cell.plain == 3))):
                    continue
                arc = self._arc((level, column, state, cell), 1)
                left = state == 1 and cell.more != BELOW  # the majority below is a bit of the heap
                self.rows["flow", level, column, state].append((arc, -1))
                self.rows["flow", level, column + 1, int(cell.wide)].append((arc, 1))
                self.rows["gates", column].append((arc, cell.gates))
                self.rows["taken", level, column].append((arc, cell.bits))
                self.rows["made", level, column].append((arc, 1 + left))

    def _ends(self, level: int, column: int) -> None:
        for state in range(2):
            arc = self._arc((level, column, state, None))
            self.rows["flow", level, column, state].append((arc, -1))
            self.rows["made", level, column].append((arc, 1 + state))

    def _bits(self, new: Sequence[int]) -> None:
        """What is left of a level, and what is made in it, is there in the next."""
        for column in range(self.top):
            before, there = list[tuple[int, int]](), self.plain[column]
            for level in range(self.level, self.levels + 1):
                after = self._variable(most=np.inf if level < self.levels else 2 + (column == 0))
                taken = self.rows.pop(("taken", level, column))
                left = [*before, *((arc, -n) for arc, n in taken)]
                self.rows["left", level, column, there] = [(arc, -n) for arc, n in left]
                self.rows["next", there + (new[column] if level == self.level else 0), level,
                          column] = [(after, 1), *((arc, -n) for arc, n in (
                              *left, *self.rows.pop(("made", level, column), [])))]
                before, there = [(after, 1)], 0

    def solve(self) -> dict[tuple[int, int, Cell | bool | None], float] | None:
        """The flow of the first level by column, state and what is there; None if there is none.

        In the last level it is whole numbers.
        """
        from scipy.optimize import linprog  # takes a while to load, and few networks need it

        equal, below, values, limits = [], [], list[float](), list[float]()
        for key, row in self.rows.items():
            match key:
                case "flow", *_:
                    equal.append(row)
                    values.append(0)
                case "gates", int(column):
                    equal.append(row)
                    values.append(self.gates[column])
                case "next", int(bits), *_:
                    equal.append(row)
                    values.append(bits)
                case "left", _, _, int(bits):
                    below.append(row)
                    limits.append(bits)
        result = linprog(
            self.costs, A_ub=self._matrix(below), b_ub=limits, A_eq=self._matrix(equal),
            b_eq=values, bounds=np.stack([np.zeros(len(self.most)), self.most], axis=1),
            **({"integrality": 1, "options": {"mip_rel_gap": GAP}} if self.level == self.levels
               else {"method": "highs-ds"}))
        if result.x is None:
            return None
        return {arc[1:]: flow for arc, flow in zip(self.arcs, result.x, strict=False)
                if arc[0] == self.level and flow > WHOLE}

    def _matrix(self, rows: Sequence[Sequence[tuple[int, int]]]) -> csr_matrix:
        from scipy.sparse import csr_matrix

        entries = [(k, at, n) for k, row in enumerate(rows) for at, n in row]
        i, j, x = zip(*entries, strict=True)
        return csr_matrix((x, (i, j)), shape=(len(rows), len(self.costs)))


def _paths(flow: Mapping[tuple[int, int, Cell | bool | None], float], level: int
           ) -> list[tuple[float, Chain]]:
    """The flow of a level as chains, each so many times, the most first."""
    left, found = dict(flow), list[tuple[float, Chain]]()
    while starts := [arc for arc in left if arc[1] == -1]:
        start = max(starts, key=lambda arc: (left[arc], -arc[0], arc[2]))
        at, carry = start[0], bool(start[2])
        way, state, cells = [start], 2 + carry, list[Cell]()
        while True:
            arc = max((arc for arc in left if arc[:2] == (at, state)),
                      key=lambda arc: (left[arc], str(arc[2])), default=None)
            if arc is None:
                break
            way.append(arc)
            if not isinstance(arc[2], Cell):
                break
            cells.append(arc[2])
            at, state = at + 1, int(arc[2].wide)
        times = min(left[arc] for arc in way)
        if cells and way[-1][2] is None:
            found.append((times, Chain(level, start[0], carry, tuple(cells))))
        for step in way:
            left[step] -= times
            if left[step] <= WHOLE:
                del left[step]
    return sorted(found, key=lambda path: -path[0])


class _Heap:
    """What is left of a heap while chains take and give, so many levels at most."""

    def __init__(self, gates: Sequence[int], top: int, levels: int) -> None:
        self.gates = [*gates[:top], *[0] * (top - len(gates))]
        self.plain, self.new = [0] * top, [0] * top
        self.level, self.levels, self.chains = 1, levels, list[Chain]()

    def flow(self) -> dict[tuple[int, int, Cell | bool | None], float] | None:
        """See `_Program`."""
        return _Program(self.gates, self.plain, self.new, self.level, self.levels).solve()

    def _add(self, chain: Chain) -> bool:
        """Whether the chain has what it takes."""
        for column, gates, bits in chain.takes():
            self.gates[column] -= gates
            self.plain[column] -= bits
        for _, _, column in chain.gives():
            if column < len(self.new):
                self.new[column] += 1
        self.chains.append(chain)
        return min(*self.gates, *self.plain) >= 0

    def advance(self) -> None:
        """Go on to the next level, in which the new bits are there."""
        self.plain = [a + b for a, b in zip(self.plain, self.new, strict=True)]
        self.new = [0] * len(self.new)
        self.level += 1

    @property
    def done(self) -> bool:
        """Whether there is nothing left that a last chain cannot take."""
        rest = [a + b for a, b in zip(self.plain, self.new, strict=True)]
        return not any(self.gates) and all(n <= 2 + (k == 0) for k, n in enumerate(rest))

    def step(self, tries: Sequence[Sequence[Chain]]
             ) -> dict[tuple[int, int, Cell | bool | None], float] | None:
        """The flow behind the first of `tries`, chains or nothing more in this level, that has one;
        these are done."""
        for chains in tries:
            kept = [*self.gates], [*self.plain], [*self.new], self.level, [*self.chains]
            if not chains:
                self.advance()
            if self.level <= self.levels and all(map(self._add, chains)):
                flow = self.flow()
                if flow is not None:
                    return flow
            self.gates, self.plain, self.new, self.level, self.chains = kept
        return None


@lru_cache(256)
def compressor_tree(gates: tuple[int, ...], top: int) -> Tree:
    """The tree of a heap of so many `gates` by column, whose sum has `top` bits.

    Level after level: a linear program says which chains make the rest cheapest, those that it
    wants whole are taken, and of the others one that leaves a way to the end.  There is a level
    more than the fewest, and one more again where chains that are whole need it.
    """
    levels, flow = 0, None
    while flow is None:
        levels += 1
        flow = _Heap(gates, top, levels).flow()
    heap = _Heap(gates, top, levels + 1)
    flow = heap.flow()
    while not heap.done:
        assert flow is not None
        paths = _paths(flow, heap.level)
        whole = [chain for times, chain in paths for _ in range(int(times + WHOLE))]
        some: list[list[Chain]] = [[chain] for times, chain in paths if times % 1 >= 0.5]
        few: list[list[Chain]] = [[chain] for times, chain in paths if times % 1 < 0.5]
        flow = heap.step([*([whole] if whole else []), *([chain] for chain in whole), *some, [],
                          *few])
        if flow is None:
            heap.levels += 1
            flow = heap.flow()
    heap.advance()
    return Tree(tuple(heap.chains), max((chain.level for chain in heap.chains), default=0),
                tuple(heap.plain))
