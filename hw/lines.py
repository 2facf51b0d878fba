"""Lines in fixed point, lane by lane: what Scale and PiecewiseLinear are made of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal
from amaranth.hdl import Value as HdlValue
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..ir import Edge, PiecewiseLinear, Scale, scale_ends
from .library import inner, instantiate
from .memory import bits_of, rom
from .stream import Unit, beats, divides, element, let, shape_for, wraps
from .writable import Table as Stored
from .writable import Writable

__all__ = ["LinesUnit"]

PIECE = 17       # bits of a multiplier's operand; DSP blocks take them and a sign


@dataclass(frozen=True)
class Parameter:
    """How a lane gets a parameter: `rows` of it, a cycle before it is used, or one that is fixed.

    Of two rows, whether x reached the turn chooses.
    """

    shape: Shape
    rows: int
    fixed: bool


@dataclass(frozen=True)
class Line:
    """What the lanes of a unit have in common; see `LinesUnit`.

    Members
    -------
    x, product, out: shapes of the element, of the product, of the result.
    turn, multiplier, offset: the parameters that are read.
    schedule: that of the unit.
    around: the power of an upper line that goes round the multiplier.
    reach: the ends of the line, before the clip.
    """

    x: Shape
    product: Shape
    out: Shape
    turn: Parameter | None
    multiplier: Parameter | None
    offset: Parameter
    schedule: tuple[int, int, int]
    around: int | None
    shift: int
    even: bool
    reach: tuple[int, int]
    clip: tuple[int, ...]

    @property
    def parameters(self) -> dict[str, Parameter]:
        """Those that are read, by name."""
        return {name: parameter for name in ("turn", "multiplier", "offset")
                if (parameter := getattr(self, name))}


class Pipeline:
    """Values by name and cycle, in registers that hold while `enable` is low.

    Cycle 0 is the one in which the beat is taken.
    """

    def __init__(self, m: Module, enable: Signal, **start: Any) -> None:
        self.m, self.enable = m, enable
        self._values = {(name, 0): value for name, value in start.items()}

    def at(self, name: str, cycle: int) -> Any:
        """The value `name` in `cycle`, delayed by registers that all who ask share."""
        if (name, cycle) not in self._values:
            before = self.at(name, cycle - 1)
            return self.set(name, cycle, before, before.shape())
        return self._values[name, cycle]

    def set(self, name: str, cycle: int, value: HdlValue, shape: Shape) -> Signal:
        """Let `name` be in `cycle` what `value` is in the cycle before."""
        register = self._values[name, cycle] = Signal(shape, name=f"{name}_{cycle}")
        with self.m.If(self.enable):
            self.m.d.sync += register.eq(value)
        return register


class Lane(wiring.Component):
    """One lane of a `LinesUnit`: its arithmetic, and all that waits for it.

    Latency `line.schedule[-1]` cycles, and 1 for a clip; II = 1.

    Parameters
    ----------
    line: what the lanes have in common.
    power: of two, that the element is multiplied by if nothing else multiplies.

    Members
    -------
    enable: while it is low, registers hold.
    x: the element.
    turn, multiplier, offset: parameters as `line` has them, rows in an array.
    o: the result.
    """

    def __init__(self, line: Line, power: int) -> None:
        self.line, self.power = line, power
        super().__init__({"enable": In(1), "x": In(line.x), "o": Out(line.out), **{
            name: In(beats(parameter.shape, parameter.rows))
            for name, parameter in line.parameters.items()}})

    def elaborate(self, platform):
        m = Module()
        line, p = self.line, Pipeline(m, self.enable, x=self.x)
        above, operands, last = line.schedule
        if line.turn:
            turn = self._parameter(p, "turn", above - 1)
            p.set("above", above, p.at("x", above - 1) >= turn, Shape(1))
        term = self._term(p, operands, last - 1)
        total = term + self._parameter(p, "offset", last - 1)
        result = p.set("line", last, self._shifted(total), shape_for(*line.reach))
        if line.clip:
            held, _ = _clamp(result, line.clip, line.reach)
            result = p.set("held", last + 1, held, line.out)
        m.d.comb += self.o.eq(result)
        return m

    def _parameter(self, p: Pipeline, name: str, cycle: int) -> HdlValue:
        """A parameter in `cycle`, in a register unless it is fixed."""
        parameter, rows = self.line.parameters[name], getattr(self, name)
        if parameter.fixed:
            return rows[0]
        chosen = rows[0] if parameter.rows == 1 else Mux(
            p.at("above", cycle - 1), rows[1], rows[0])
        return p.set(name, cycle, chosen, parameter.shape)

    def _shifted(self, total: HdlValue) -> HdlValue:
        """The bits above the shift."""
        line = total.shift_right(self.line.shift)
        if not self.line.even:
            return line
        held = Cat(line[0] & total[:self.line.shift].any(), line[1:])
        return held.as_signed() if line.shape().signed else held

    def _term(self, p: Pipeline, operands: int, cycle: int) -> HdlValue:
        """In `cycle`, the element times its multiplier, read from cycle `operands` on."""
        if self.line.multiplier:
            product = _product(p, operands + 1, p.at("x", operands),
                               self._parameter(p, "multiplier", operands))
            p.set("product", operands + 2, product, self.line.product)
            term = p.at("product", cycle)
        else:
            term = p.at("x", cycle).shift_left(self.power)
        if self.line.around is None:
            return term
        return Mux(p.at("above", cycle), p.at("x", cycle).shift_left(self.line.around), term)


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

    @property
    def parameter(self) -> Parameter:
        """How a lane gets it."""
        return Parameter(self.shape, self.rows, bool(self.constants))

    def ready(self, above: int) -> int:
        """The first cycle in which a beat's values can be there, `above` that of its choice."""
        return max(2 * (self.groups > 1 or self.unit is not None), (above + 1) * (self.rows > 1))

    def read(self, p: Pipeline, cycle: int, platform: Any) -> list[HdlValue]:
        """A word for each lane, its rows side by side, for lanes that use it in `cycle`."""
        width = self.shape.width
        if self.groups == 1 and self.unit is None:
            return [Cat(Const(v, self.shape) for v in rows) for rows in self.words[0].T.tolist()]
        port = self.unit.table(p.m, self.name) if self.unit else rom(
            p.m, self.name, self.bits, platform)
        p.m.d.comb += [port.addr.eq(p.at("word", cycle - 2)), port.en.eq(p.enable)]
        return [Cat(port.word(row * self.pe + k, width) for row in range(self.rows))
                for k in range(self.pe)]


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


def _product(p: Pipeline, cycle: int, x: HdlValue, factor: HdlValue) -> HdlValue:
    """``x·factor``, a sum of products that fit one DSP block each.

    The wider operand is cut into pieces, whose products are registers in `cycle`.
    """
    wide, narrow = (x, factor) if len(x) >= len(factor) else (factor, x)
    width, signed = wide.shape().width, wide.shape().signed
    terms = []
    for first in range(0, max(width - signed, 1), PIECE):
        last = first + PIECE >= width - signed
        piece = wide[first:] if last else wide[first:first + PIECE]
        part = (piece.as_signed() if last and signed else piece) * narrow
        terms.append(p.set(f"part_{first}", cycle, part, part.shape()).shift_left(first))
    return sum(terms[1:], terms[0])


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
        p = Pipeline(m, enable, valid=self.i.valid, word=word)
        above, operands, last = self.schedule()
        tables = {"offset": (self.offset, last - 1)}
        if self.around is not None or max(self.multiplier.rows, self.offset.rows) > 1:
            tables["turn"] = self.turn, above - 1
        if not self.powers:
            tables["multiplier"] = self.multiplier, operands
        line = Line(
            self.i.payload.shape().elem_shape, self.product, self.o.payload.shape().elem_shape,
            turn=self.turn.parameter if "turn" in tables else None,
            multiplier=self.multiplier.parameter if "multiplier" in tables else None,
            offset=self.offset.parameter, schedule=(above, operands, last), around=self.around,
            shift=self.shift, even=self.even, reach=self.reach, clip=self.clip)
        words = {name: table.read(p, cycle, platform) for name, (table, cycle) in tables.items()}
        results = []
        for k in range(self.i.payload.shape().length):
            power = self.powers[k % len(self.powers)] if self.powers else 0
            results.append(instantiate(
                m, partial(Lane, line, power), f"lane{k}", inner(f"lane_{power}", platform),
                platform, enable=enable, x=self.i.payload[k],
                **{name: of[k] for name, of in words.items()}).o)
        m.d.comb += [enable.eq(~self.o.valid | self.o.ready), self.i.ready.eq(enable),
                     self.o.valid.eq(p.at("valid", last + bool(self.clip))),
                     let(self.o.payload, results)]
        return m
