"""Threshold quantizers: general step functions per channel, by comparators or binary search."""

from __future__ import annotations

from operator import add
from typing import Any

import numpy as np
from amaranth.hdl import Cat, Const, Module, Shape, Signal
from amaranth.hdl import Value as HdlValue

from ..errors import N2uqError
from ..ir import Edge, Threshold, threshold_values
from ..ir.folding import PARALLEL, SEARCH, STYLES
from .memory import bits_of, rom
from .stream import Unit, beats, divides, element, let, shape_for, tree, wraps
from .writable import Table, Writable

__all__ = ["ThresholdUnit", "comparator_table", "search_table", "threshold_latency",
           "threshold_styles"]

TERMS = 64  # bits that one expression counts; Amaranth recurses into each term


def _steps(node: Threshold, edge: Edge) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thresholds [C, S], no further out than the range of `edge` needs, signs [C, S], base [C].

    C is 1 if all channels are alike.
    """
    t = np.clip(node.thresholds, edge.lo.min(), edge.hi.max() + 1)
    channels = max(len(node.signs), len(node.base))
    t, signs, base = (np.broadcast_to(values, (channels, *values.shape[1:]))
                      for values in (t, node.signs, node.base))
    alike = not node.room and all((values == values[0]).all() for values in (t, signs, base))
    return (t[:1], signs[:1], base[:1]) if alike else (t, signs, base)


def _search_depth(node: Threshold) -> int:
    """Levels of the search tree over the steps of a channel."""
    return max(node.signs.shape[1].bit_length(), 1)


def threshold_latency(node: Threshold, edge: Edge, pe: int, style: str) -> int:
    """Cycles of a `ThresholdUnit`: 4 (parallel), 2 with constants; ``2⌈log2(S + 1)⌉ + 2`` (search).

    A search has one level or more.
    """
    if style == SEARCH:
        return 2 * (_search_depth(node) + 1)
    if node.room:
        return 4
    return 2 if len(_steps(node, edge)[0]) == 1 or edge.channels == pe else 4


def comparator_table(node: Threshold, edge: Edge) -> tuple[np.ndarray, np.ndarray, int]:
    """The steps as S comparators per channel: ``out = base + Σᵢ ([x >= t[c, i]] ^ turn[c, i])``.

    Returns `t` int64 [C, S], `turn` bool [C, S] and the one `base`.  A step down counts as its
    complement.  Channels with fewer steps or a higher base fill up with comparators that always
    or never hold, so that no table of bases is needed.  C is 1 if all channels are alike, and
    cannot be written.  What can be is as large as any may be; if there are just the steps from
    `lo` to `hi` of the room, a channel rises or falls.
    """
    steps, signs, base = _steps(node, edge)
    base = base - (signs < 0).sum(axis=1)
    least, room = int(base.min()), _comparators(node)
    if room:
        least = min(least, room[1])
    always = base - least
    size = max(int(((signs != 0).sum(axis=1) + always).max()), room[0] if room else 0)
    t = np.full((len(signs), size), edge.hi.max() + 1)
    turn = np.zeros(t.shape, bool)
    for c, used in enumerate(signs != 0):
        end = np.count_nonzero(used)
        t[c, :end] = steps[c, used]
        turn[c, :end] = signs[c, used] < 0
        t[c, end:end + always[c]] = edge.lo.min()
    return t, turn, least


def _comparators(node: Threshold) -> tuple[int, ...]:
    """Comparators per channel and the one base with which any steps fit that can be written."""
    if not node.room:
        return ()
    (lo, hi), count = node.room, node.signs.shape[1]
    return (hi - lo, lo) if count <= hi - lo else (hi - lo + count, lo - count // 2)


def threshold_styles(node: Threshold, edge: Edge) -> tuple[str, ...]:
    """The styles that a `ThresholdUnit` can have: of steps that can be written, parallel only if
    the comparators for any of them take those that there are."""
    if node.room:
        t, _, base = comparator_table(node, edge)
        if (t.shape[1], base) != _comparators(node):
            return (SEARCH,)
    return STYLES


def search_table(node: Threshold, edge: Edge) -> tuple[np.ndarray, np.ndarray]:
    """Sorted thresholds int64 [C, 2**depth - 1] and the value between them, int64 [C, 2**depth].

    C is 1 if all channels are alike.
    """
    steps, signs, base = _steps(node, edge)
    depth = _search_depth(node)
    never = edge.hi.max() + 1
    t = np.full((len(signs), 2**depth - 1), never)
    t[:, :signs.shape[1]] = np.where(signs != 0, steps, never)
    t.sort(axis=1)
    ends = np.concatenate([np.full((len(t), 1), edge.lo.min() - 1), t], axis=1)
    alone = Threshold(node.name, thresholds=steps, signs=signs, base=base)
    return t, threshold_values(alone, ends.T).T


class ThresholdUnit(Writable, Unit):
    """``o = base + Σ signs·[i >= thresholds]`` on PE channels per beat.

    Channel tables sit in a memory that steps through the channel groups; constants if there is one
    group or all channels are alike.  Latency 4 cycles (parallel; 2 with constants) or
    ``2⌈log2(S + 1)⌉ + 2``, at least 4 (search); II = 1.

    Parameters
    ----------
    node, edge: the step function and the edge that it reads.
    out: the edge that it makes.
    pe: channels per beat, a divisor of C; of H·W·C where one table serves all channels.
    style: "parallel" (S comparators per lane) or "search" (depth comparators and table reads).
    """

    def __init__(self, node: Threshold, edge: Edge, out: Edge, *, pe: int,
                 style: str = PARALLEL) -> None:
        # One table for all channels serves any number of elements.
        shared = len(node.signs) == len(node.base) == 1
        of, total = ("elements", edge.size) if shared else ("channels", edge.channels)
        groups = divides(f"{node.name}: PE", pe, of, total)
        self.groups = 1 if shared else groups
        if style not in STYLES:
            raise N2uqError(f"{node.name}: threshold style must be one of {', '.join(STYLES)}, "
                            f"not {style}")
        if style not in threshold_styles(node, edge):
            raise N2uqError(f"{node.name}: steps of a channel must only rise or only fall "
                            f"in a unit of style {PARALLEL}; style {SEARCH} takes any")
        self.node, self.edge, self.out, self.pe, self.style = node, edge, out, pe, style
        self.tables_ = [] if not node.room else (
            self._rows() if style == PARALLEL else self._levels())
        super().__init__(beats(element(edge), pe), beats(element(out), pe),
                         **self.bus(self.tables_))

    def _comparators(self) -> tuple[np.ndarray, np.ndarray, int, Shape]:
        """As `comparator_table` has them, and the shape of a threshold."""
        t, turn, base = comparator_table(self.node, self.edge)
        ends = [t.min(initial=0), t.max(initial=0)]
        if self.node.room:
            ends = [min(self.edge.lo.min(), 0), self.edge.hi.max() + 1]
        return t, turn, base, shape_for(*map(int, ends))

    def _rows(self) -> list[Table]:
        """The table of all comparators: a row for each channel group."""
        t, turn, _, shape = self._comparators()
        bits = np.hstack([bits_of(t % 2**shape.width, shape.width),
                          turn[:, :turn.shape[1] * self._mixed(turn)]])
        return [Table("table", bits.reshape(self.groups, -1))]

    def _mixed(self, turn: np.ndarray) -> bool:
        """Whether a row says which comparators turn round."""
        return bool(self.node.room or (turn.any() and not turn.all()))

    def _levels(self) -> list[Table]:
        """The tables of a search by level and lane: thresholds, then results."""
        t, values = search_table(self.node, self.edge)
        shape, out = self._searched(t), element(self.out)
        depth, groups = t.shape[1].bit_length(), self.groups if len(t) > 1 else 1
        tables = []
        for level in range(depth + 1):
            for lane in range(self.pe):
                c = (np.arange(groups) * self.pe + lane) % len(t)
                if level < depth:
                    step = 2**(depth - level)
                    entries, width = t[c][:, step // 2 - 1::step], shape.width
                else:
                    entries, width = values[c], out.width
                tables.append(Table(f"table_{level}_{lane}", bits_of(
                    entries.reshape(-1, 1) % 2**width, width)))
        return tables

    def _searched(self, t: np.ndarray) -> Shape:
        """The shape of a threshold of a search."""
        if self.node.room:
            return shape_for(int(self.edge.lo.min()), int(self.edge.hi.max()) + 1)
        return shape_for(int(t.min()), int(t.max()))

    def elaborate(self, platform):
        m = Module()
        enable = Signal()
        m.d.comb += [enable.eq(~self.o.valid | self.o.ready), self.i.ready.eq(enable)]
        build = self._parallel if self.style == PARALLEL else self._search
        build(m, enable, platform)
        return m

    def _delay(self, m: Module, enable: Signal, values: list, names: list[str]) -> list[Signal]:
        """One pipeline register for each value."""
        registers = [Signal.like(value, name=name) for value, name in
                     zip(values, names, strict=True)]
        with m.If(enable):
            m.d.sync += [r.eq(v) for r, v in zip(registers, values, strict=True)]
        return registers

    def _word(self, m: Module, groups: int, enable: Signal) -> HdlValue:
        """Step through the channel groups; with them, the bank above."""
        group, taken = Signal(range(groups), name="group_index"), enable & self.i.valid
        last = wraps(m, group, groups, taken)
        if not self.tables_:
            return group
        height, width, _ = self.edge.shape
        return Cat(group, self.bank(m, height * width, taken & last))

    def _parallel(self, m: Module, enable: Signal, platform: Any) -> None:
        t, turn, base, shape = self._comparators()
        size, shared = t.shape[1], not self.tables_ and (len(t) == 1 or self.groups == 1)
        # One row per channel group: all thresholds, then the turned comparators.
        mixed = self._mixed(turn)
        lanes_x = [self.i.payload[lane] for lane in range(self.pe)]
        valid = self.i.valid
        if shared:
            rows = [[Const(int(v), shape) for v in t[lane % len(t)]] for lane in range(self.pe)]
            turns = [Const(_bits(turn[lane % len(t)]), max(size, 1)) for lane in range(self.pe)]
        else:
            # Cycles 1 and 2: the row of this channel group is read.
            fields = shape.width * size + (size if mixed else 0)
            port = self.table(m, "table") if self.tables_ else rom(
                m, "table", self._rows()[0].bits, platform)
            word = self._word(m, self.groups, enable)
            m.d.comb += [port.addr.eq(word), port.en.eq(enable)]
            for cycle in (1, 2):
                valid, *lanes_x = self._delay(
                    m, enable, [valid, *lanes_x],
                    [f"valid_{cycle}", *(f"x{k}_{cycle}" for k in range(self.pe))])
            rows, turns, row = [], [], port.registered(m, "table")
            for lane in range(self.pe):
                word = row.word(lane, fields)
                rows.append([_as(word.word_select(i, shape.width), shape) for i in range(size)])
                turns.append(word[shape.width * size:] if mixed else
                             Const(_bits(turn[0]), max(size, 1)))
        # Cycle 3: compare. Cycle 4: count.
        held = [Cat(x >= row[i] for i in range(size)) ^ turns[lane][:size]
                for lane, (x, row) in enumerate(zip(lanes_x, rows, strict=True))]
        valid, *held = self._delay(m, enable, [valid, *held],
                                   ["compared", *(f"held_{k}" for k in range(self.pe))])
        with m.If(enable):
            m.d.sync += self.o.valid.eq(valid)
            totals = []
            for lane in range(self.pe):
                counts = [sum((held[lane][i] for i in range(at, min(at + TERMS, size))),
                              Const(0 if at else base)) for at in range(0, max(size, 1), TERMS)]
                totals.append(tree(m, f"count{lane}", counts, add))
            m.d.sync += let(self.o.payload, totals)

    def _search(self, m: Module, enable: Signal, platform: Any) -> None:
        t, _ = search_table(self.node, self.edge)
        depth, tables = t.shape[1].bit_length(), iter(self._levels())
        shape, out = self._searched(t), self.o.payload[0].shape()
        group_index = self._word(m, self.groups if len(t) > 1 else 1, enable)
        valid, x = self.i.valid, [self.i.payload[lane] for lane in range(self.pe)]
        paths = [Const(0, 0)] * self.pe
        # Cycles 1 + 2·level and 2 + 2·level: each lane reads its threshold at this level of its
        # search tree.
        for level in range(depth + 1):
            ports = []
            for lane in range(self.pe):
                table = next(tables)
                port = self.table(m, table.name) if self.tables_ else rom(
                    m, table.name, table.bits, platform)
                m.d.comb += [port.en.eq(enable), port.addr.eq(Cat(paths[lane], group_index))]
                ports.append(port.registered(m, table.name).data)
            if level == depth:
                (valid,) = self._delay(m, enable, [valid], [f"valid_{level}"])
                break
            index = paths
            names = ["valid", "group_index", *(f"{what}{lane}" for what in ("x", "index")
                                                 for lane in range(self.pe))]
            for part in ("", "_held"):
                valid, group_index, *rest = self._delay(
                    m, enable, [valid, group_index, *x, *index],
                    [f"{name}_{level}{part}" for name in names])
                x, index = rest[:self.pe], rest[self.pe:]
            paths = [Cat(x[lane] >= _as(ports[lane], shape), index[lane])
                     for lane in range(self.pe)]
        with m.If(enable):
            m.d.sync += self.o.valid.eq(valid)
        m.d.comb += let(self.o.payload, (_as(ports[lane], out) for lane in range(self.pe)))


def _as(value, shape: Shape):
    return value.as_signed() if shape.signed else value


def _bits(row: np.ndarray) -> int:
    return int(sum(int(bit) << i for i, bit in enumerate(row)))
