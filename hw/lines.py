"""Lines in fixed point, lane by lane: what Scale and PiecewiseLinear are made of."""

from __future__ import annotations

from typing import Any

import numpy as np
from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal
from amaranth.hdl import Value as HdlValue

from ..ir import Edge, PiecewiseLinear, Scale, scale_ends
from .memory import bits_of, rom
from .stream import Unit, beats, divides, element, let, shape_for, wraps
from .writable import Table as Stored
from .writable import Writable

__all__ = ["LinesUnit"]

PIECE = 17       # bits of a multiplier's operand; DSP blocks take them and a sign


class Pipeline:
    """Values of a beat by name and cycle, in registers that hold while `enable` is low.

    Cycle 0 is the one in which the beat is taken.
    """

    def __init__(self, m: Module, enable: Signal, platform: Any, **start: Any) -> None:
        self.m, self.enable, self.platform = m, enable, platform
        self._values = {(name, 0): value for name, value in start.items()}

    def at(self, name: str, cycle: int) -> Any:
        """The value `name` in `cycle`, delayed by registers that all who ask share."""
        if (name, cycle) not in self._values:
            before = self.at(name, cycle - 1)
            register = self._values[name, cycle] = Signal.like(before, name=f"{name}_{cycle}")
            with self.m.If(self.enable):
                self.m.d.sync += register.eq(before)
        return self._values[name, cycle]

    def lanes(self, name: str, cycle: int) -> list[HdlValue]:
        """The lanes of `at(name, cycle)`."""
        value = self.at(name, cycle)
        return [value[lane] for lane in range(value.shape().length)]

    def set(self, name: str, cycle: int, lanes: list, shape: Shape) -> None:
        """Let `name` be in `cycle` what `lanes` are in the cycle before."""
        register = self._values[name, cycle] = Signal(beats(shape, len(lanes)),
                                                      name=f"{name}_{cycle}")
        with self.m.If(self.enable):
            self.m.d.sync += let(register, lanes)


class Table:
    """Parameters [S, C] of PE lanes that step through the channel groups; constant if all agree.

    With two rows, the bits `above` of a beat choose a lane's row.  With `room`, the least and the
    greatest value, they can be written: then there is one row, in a memory of `unit`.
    """

    def __init__(self, name: str, values: np.ndarray, groups: int, room: tuple[int, ...] = (),
                 unit: Writable | None = None) -> None:
        self.name, self.shape, self.unit = name, shape_for(*_ends(values)), unit
        if room:
            self.shape = shape_for(*room)
            self.words = values[:1].reshape(1, groups, -1).swapaxes(0, 1)
            self.groups, self.rows, self.pe = self.words.shape
            return
        values = values[:1] if (values == values[:1]).all() else values
        words = values.reshape(len(values), groups, -1).swapaxes(0, 1)
        self.words = words[:1] if (words == words[:1]).all() else words
        self.groups, self.rows, self.pe = self.words.shape

    @property
    def constants(self) -> list[int]:
        """The values of the lanes, if they never change; else none."""
        return self.words.reshape(-1).tolist() if (
            self.groups == self.rows == 1 and self.unit is None) else []

    @property
    def bits(self) -> np.ndarray:
        """The rows of the memory."""
        return bits_of(self.words.reshape(self.groups, -1), self.shape.width)

    def ready(self, above: int) -> int:
        """The first cycle in which a beat's values can be there, `above` that of its choice."""
        return max(2 * (self.groups > 1 or self.unit is not None), (above + 1) * (self.rows > 1))

    def lookup(self, p: Pipeline, cycle: int) -> list[HdlValue]:
        """A beat's values in `cycle`, in registers unless constant."""
        if self.constants:
            return [Const(v, self.shape) for v in self.constants]
        if self.groups == 1 and self.unit is None:
            read = [[Const(v, self.shape) for v in row] for row in self.words[0].tolist()]
        else:
            width = self.shape.width
            port = self.unit.table(p.m, self.name) if self.unit else rom(
                p.m, self.name, self.bits, p.platform)
            p.m.d.comb += [port.addr.eq(p.at("word", cycle - 2)), port.en.eq(p.enable)]
            entries = [port.word(k, width) for k in range(self.rows * self.pe)]
            entries = [word.as_signed() for word in entries] if self.shape.signed else entries
            read = [entries[row * self.pe:][:self.pe] for row in range(self.rows)]
        chosen = read[0] if self.rows == 1 else [
            Mux(above, upper, lower) for above, lower, upper in
            zip(p.lanes("above", cycle - 1), *read, strict=True)]
        p.set(self.name, cycle, chosen, self.shape)
        return p.lanes(self.name, cycle)


def _ends(values: np.ndarray) -> tuple[int, int]:
    return int(values.min()), int(values.max())


def _powers(values: list[int]) -> list[int]:
    """The exponents of `values` if all are powers of two; else none."""
    return [v.bit_length() - 1 for v in values] if all(
        v > 0 and v & (v - 1) == 0 for v in values) else []


def _clamp(x: HdlValue, clip: tuple[int, ...], reach: tuple[int, int]
           ) -> tuple[HdlValue, HdlValue]:
    """`x` held in `clip`, and whether it was outside; compares only with what `reach` exceeds."""
    lo, hi = clip
    low = x < lo if reach[0] < lo else Const(0)
    high = x > hi if reach[1] > hi else Const(0)
    return Mux(high, hi, Mux(low, lo, x)), low | high


def _products(p: Pipeline, cycle: int, xs: list[HdlValue], factors: list[HdlValue]
              ) -> list[HdlValue]:
    """``x·factor`` of each lane, sums of products that fit one DSP block each.

    The wider operand is cut into pieces, whose products are registers in `cycle`.
    """
    wide, narrow = (xs, factors) if len(xs[0]) >= len(factors[0]) else (factors, xs)
    width, signed = wide[0].shape().width, wide[0].shape().signed
    sums: list[HdlValue] = [Const(0)] * len(xs)
    for first in range(0, max(width - signed, 1), PIECE):
        last = first + PIECE >= width - signed
        pieces = [x[first:] if last else x[first:first + PIECE] for x in wide]
        parts = [(piece.as_signed() if last and signed else piece) * y
                 for piece, y in zip(pieces, narrow, strict=True)]
        p.set(f"part_{first}", cycle, parts, parts[0].shape())
        sums = [total + part.shift_left(first) for total, part in
                zip(sums, p.lanes(f"part_{first}", cycle), strict=True)]
    return sums


class LinesUnit(Writable, Unit):
    """``o = clip((i·multiplier[s] + offset[s]) >> shift)`` (floor), ``s = [i >= turn]``.

    PE channels per beat, II = 1; latency: see `schedule`.  Parameters that differ between the
    channel groups come from memories.  A lane has one multiplier, or one for each piece of a wide
    operand, between registers; none if it always multiplies by one power of two.  An upper line
    whose multipliers are one power of two, as in a PReLU, goes round the multiplier.

    Parameters
    ----------
    node: the name and the shift.
    edge, out: the edge that is read, the edge that is made.
    pe: channels per beat, a divisor of C.
    turn, multiplier, offset: [C] or [1]; [2, C] or [2, 1].
    clip: () or (lo, hi).
    even: a result whose bits below the shift were all zero has its lowest bit cleared.
    room: of a Scale whose multipliers and offsets, one for each channel, can be written.
    """

    def __init__(self, node: Scale | PiecewiseLinear, edge: Edge, out: Edge, *, pe: int,
                 turn: np.ndarray, multiplier: np.ndarray, offset: np.ndarray,
                 clip: tuple[int, ...] = (), even: bool = False, room: tuple[int, ...] = ()
                 ) -> None:
        groups = divides(f"{node.name}: PE", pe, "channels", edge.channels)
        self.groups, self.shift, self.even = groups, node.shift, even
        self.pixels, self.tables_ = edge.shape[0] * edge.shape[1], []
        streams = beats(element(edge), pe), beats(element(out), pe)
        if room and isinstance(node, Scale):
            self._make_room(node, edge, room, multiplier, offset, clip)
            super().__init__(*streams, **self.bus(self.tables_))
            return
        super().__init__(*streams)
        turn = np.broadcast_to(turn, (1, edge.channels)).clip(edge.lo.min(), edge.hi.max() + 1)
        ends = np.stack([[edge.lo, np.maximum(edge.lo, turn[0])],
                         [np.minimum(edge.hi, turn[0] - 1), edge.hi]])
        reached = ends[0] <= ends[1]
        # Where no channel reaches one of the lines, the other serves for both.
        rows = [s if line.any() else 1 - s for s, line in enumerate(reached)]
        m, c = (np.broadcast_to(values, reached.shape)[rows].astype(np.int64)
                for values in (multiplier, offset))
        lo, hi = _ends(((ends * m + c) >> node.shift)[:, reached])
        self.reach = lo, hi = lo - (lo & even), hi
        self.clip = clip if clip and (lo < clip[0] or clip[1] < hi) else ()
        around = _powers(np.unique(m[1, reached[1]]).tolist()) if (m[0] != m[1]).any() else []
        self.around = around[0] if len(around) == 1 else None
        used = slice(2 if self.around is None else 1)
        self.product = shape_for(*_ends((ends * m)[:, used][:, reached[used]]))
        self.multiplier = Table("multipliers", m[used], groups)
        self.offset, self.turn = Table("offsets", c, groups), Table("turns", turn, groups)
        self.powers = _powers(self.multiplier.constants)

    def _make_room(self, node: Scale, edge: Edge, room: tuple[int, ...], multiplier: np.ndarray,
                   offset: np.ndarray, clip: tuple[int, ...]) -> None:
        """One line, for all that may be written."""
        ends, half = scale_ends(node, edge), node.half
        lo, hi = _ends(node.rounded(ends))
        self.reach = lo, hi = lo - (lo & self.even), hi
        self.clip = clip if clip and (lo < clip[0] or clip[1] < hi) else ()
        self.around, self.powers = None, []
        self.product = shape_for(*_ends(np.outer(_ends(np.stack([edge.lo, edge.hi])), room[:2])))
        self.multiplier = Table("multipliers", multiplier, self.groups, room[:2], self)
        self.offset = Table("offsets", offset, self.groups, (room[2] + half, room[3] + half), self)
        self.turn = Table("turns", np.zeros((1, edge.channels), np.int64), self.groups)
        self.tables_ = [Stored(table.name, table.bits) for table in (self.multiplier, self.offset)]

    def schedule(self) -> tuple[int, int, int]:
        """The cycles in which a lane has chosen its line, has its operands, has its sum.

        What comes from memory is there in cycle 2.  The line is chosen 1 cycle after the turn is
        there, and a parameter that depends on it 1 cycle later.  Operands are there in cycle 1 or
        later, the product 2 cycles after them, the sum 1 cycle after product, line and offset.
        This is the latency, but for a clip, which takes 1 cycle.
        """
        above = self.turn.ready(0) + 1
        operands = max(self.multiplier.ready(above), 1)
        terms = 0 if self.powers else operands + 2
        if self.around is not None:
            terms = max(terms, above)
        return above, operands, max(terms, self.offset.ready(above)) + 1

    @property
    def latency(self) -> int:
        """Cycles from a beat to its result."""
        return self.schedule()[-1] + bool(self.clip)

    def elaborate(self, platform):
        m = Module()
        enable = Signal()
        word: HdlValue = Signal(range(self.groups), name="word")
        last_word = wraps(m, word, self.groups, enable & self.i.valid)
        if self.tables_:
            word = Cat(word, self.bank(m, self.pixels, enable & self.i.valid & last_word))
        p = Pipeline(m, enable, platform, valid=self.i.valid, x=self.i.payload, word=word)
        above, operands, last = self.schedule()
        if self.around is not None or max(self.multiplier.rows, self.offset.rows) > 1:
            turns = self.turn.lookup(p, above - 1)
            p.set("above", above, [x >= turn for x, turn in
                                   zip(p.lanes("x", above - 1), turns, strict=True)], Shape(1))
        terms, offsets = self._terms(p, operands, last - 1), self.offset.lookup(p, last - 1)
        p.set("line", last, [self._shifted(term + offset) for term, offset in
                             zip(terms, offsets, strict=True)], shape_for(*self.reach))
        if self.clip:
            last += 1
            p.set("line", last, [_clamp(x, self.clip, self.reach)[0]
                                 for x in p.lanes("line", last - 1)],
                  self.o.payload.shape().elem_shape)
        m.d.comb += [enable.eq(~self.o.valid | self.o.ready), self.i.ready.eq(enable),
                     self.o.valid.eq(p.at("valid", last)), self.o.payload.eq(p.at("line", last))]
        return m

    def _shifted(self, total: HdlValue) -> HdlValue:
        """The bits above the shift."""
        line = total >> self.shift
        if not self.even:
            return line
        held = Cat(line[0] & total[:self.shift].any(), line[1:])
        return held.as_signed() if line.shape().signed else held

    def _terms(self, p: Pipeline, operands: int, cycle: int) -> list[HdlValue]:
        """In `cycle`, each lane's element times its multiplier, read from cycle `operands` on."""
        if self.powers:
            terms = [x.shift_left(k) for x, k in zip(p.lanes("x", cycle), self.powers, strict=True)]
        else:
            p.set("product", operands + 2, _products(
                p, operands + 1, p.lanes("x", operands), self.multiplier.lookup(p, operands)),
                self.product)
            terms = p.lanes("product", cycle)
        if self.around is None:
            return terms
        return [Mux(above, x.shift_left(self.around), term) for above, x, term in
                zip(p.lanes("above", cycle), p.lanes("x", cycle), terms, strict=True)]
