# amaranth: UnusedElaboratable=no
"""What a design is: codes of weights and activations, their dot product, and gateware for it.

The designs are compared with each other, so all of them share what does not set them apart: codes
come from registers, every adder level of a sum ends in a register, the result is in a register, and
every node is as wide as the range of its values needs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from typing import Any, Protocol

import numpy as np
from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.hdl import Value as HdlValue
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from ...errors import N2uqError
from ..stream import shape_for

__all__ = ["DESIGNS", "Datapath", "Design", "Lanes", "Tabled", "Term", "Trained", "add",
           "datapath", "designs", "load_ports"]

READS = 7  # of one memory in LUTs: what UltraScale's have beside the port that writes
LEAST = 16  # entries of one: fewer become registers, and multiplexers that are as large

DESIGNS: list[type[Design]] = []  # every class of designs, in the order of the tables


@dataclass(frozen=True)
class Term:
    """A value in hardware, the range that it keeps to, and the registers that it has passed."""

    value: HdlValue
    lo: int
    hi: int
    cycle: int = 0

    def times(self, factor: int) -> Term:
        """Multiplied by a constant: a shift, or an adder for each further bit of it."""
        ends = self.lo * factor, self.hi * factor
        low = (factor & -factor).bit_length() - 1 if factor else 0
        return Term((self.value * (factor >> low)) << low, min(ends), max(ends), self.cycle)


class Tabled(Protocol):
    """What has tables, constant or written while the hardware runs, and the range of their entries.
    """

    @property
    def writable(self) -> bool: ...

    @property
    def tables(self) -> Mapping[str, np.ndarray]: ...

    @property
    def ranges(self) -> Mapping[str, tuple[int, int]]: ...


class Datapath:
    """Where a design builds its gateware: a module, its enable, and the design's tables.

    A table that is written while the hardware runs is one memory in LUTs wherever it is read, all
    of them written at once.
    """

    def __init__(self, m: Module, enable: HdlValue, tables: Mapping[str, np.ndarray],
                 ranges: Mapping[str, tuple[int, int]], load: Load | None = None) -> None:
        self.m, self.enable, self.tables, self.ranges, self.load = m, enable, tables, ranges, load
        self._count = 0
        self._later: dict[int, tuple[Term, Term]] = {}
        self._free: dict[str, Iterator[memory.ReadPort]] = {}

    def name(self, what: str) -> str:
        """`what`, with a number that no other signal has."""
        self._count += 1
        return f"{what}_{self._count}"

    def register(self, term: Term, what: str = "stage") -> Term:
        """The term a cycle later, in a register as wide as its range needs."""
        held = Signal(shape_for(term.lo, term.hi), name=self.name(what), reset_less=True)
        with self.m.If(self.enable):
            self.m.d.sync += held.eq(term.value)
        return Term(held, term.lo, term.hi, term.cycle + 1)

    def until(self, term: Term, cycle: int) -> Term:
        """The term at that cycle."""
        while term.cycle < cycle:
            if id(term.value) not in self._later:
                self._later[id(term.value)] = term, self.register(term, "delayed")
            term = self._later[id(term.value)][1]
        return term

    def signal(self, term: Term, what: str) -> Term:
        """The term as a signal of its own, as wide as its range needs."""
        held = Signal(shape_for(term.lo, term.hi), name=self.name(what))
        self.m.d.comb += held.eq(term.value)
        return Term(held, term.lo, term.hi, term.cycle)

    def sum(self, terms: Iterable[Term], what: str = "sum") -> Term:
        """The sum: a balanced tree with a register after each level, ``⌈log2(terms)⌉`` cycles."""
        terms = list(terms)
        cycle = max(term.cycle for term in terms)
        terms = [self.until(term, cycle) for term in terms]
        while len(terms) > 1:
            odd = terms[len(terms) & ~1:]
            pairs = zip(terms[0::2], terms[1::2], strict=False)
            terms = [self.register(term, what) for term in [*(add(a, b) for a, b in pairs), *odd]]
        return terms[0]

    def signed_sum(self, signs: Iterable[Term], terms: Iterable[Term], what: str = "sum"
                   ) -> tuple[Term, Term]:
        """``Σ (sign ? -term : term)``: a sign, and a sum whose sign that changes.

        A pair makes ``a ± b`` and waits with the sign of a, so that no term is negated on its own:
        the xor lies in the adder's LUTs, the 1 in its carry.  As many cycles as `sum`.
        """
        pairs = list(zip(signs, terms, strict=True))
        while len(pairs) > 1:
            partial = [(sign, _add_signed(a, sign.value ^ other.value, b))
                       for (sign, a), (other, b) in zip(pairs[0::2], pairs[1::2], strict=False)]
            partial += pairs[len(pairs) & ~1:]
            pairs = [(self.register(sign, "sign"), self.register(term, what))
                     for sign, term in partial]
        return pairs[0]

    def signed(self, sign: Term, term: Term, what: str = "signed") -> Term:
        """``sign ? -term : term``, in a register."""
        return self.register(_add_signed(Term(Const(0), 0, 0, term.cycle), sign.value, term), what)

    def pairs(self, terms: Sequence[Term]) -> list[tuple[Term, Term, Term]]:
        """Terms two by two, and their sums: what `selected` takes, a cycle later.

        A last one without another is beside a 0.
        """
        rows = []
        for a, b in zip(terms[0::2], [*terms[1::2], *[None] * (len(terms) % 2)], strict=True):
            held = self.register(a, "held")
            if b is None:
                rows.append((held, Term(Const(0), 0, 0, held.cycle), held))
            else:
                rows.append((held, self.register(b, "held"), self.register(add(a, b), "pair")))
        return rows

    def selected(self, selects: Sequence[Term], pairs: Sequence[tuple[Term, Term, Term]],
                 what: str = "selected") -> Term:
        """``Σ (select ? term : 0)`` over the terms of `pairs`.

        A pair gives 0, either term or their sum: with two selects a LUT a bit, which an adder's
        LUTs hold for one of two pairs.  Many sums of the same terms may share their `pairs`.
        """
        return self.sum((self.select(selects[2 * k:2 * k + 2], pair, what)
                         for k, pair in enumerate(pairs)), what)

    def select(self, selects: Sequence[Term], pair: Sequence[Term], what: str) -> Term:
        """What one or two selects choose of a pair: 0, either term or their sum."""
        a, b, both = pair
        first, *second = (select.value for select in selects)
        beside, alone = (Mux(second[0], x.value, y) for x, y in (
            (both, a.value), (b, Const(0)))) if second else (a.value, Const(0))
        return self.signal(Term(Mux(first, beside, alone), min(a.lo, b.lo, both.lo, 0),
                                max(a.hi, b.hi, both.hi, 0), both.cycle), what)

    def case(self, values: Sequence[int], index: HdlValue, cycle: int, what: str = "case") -> Term:
        """``values[index]``, constants: a table for each bit, as `DigitProduct` has them."""
        lo, hi = min(values), max(values)
        result = Signal(shape_for(lo, hi), name=self.name(what))
        for bit in range(len(result)):
            column = sum((value >> bit & 1) << k for k, value in enumerate(values))
            self.m.d.comb += result[bit].eq(Const(column, len(values)).bit_select(index, 1))
        return Term(result, lo, hi, cycle)

    def cases(self, values: Sequence[int], indices: Sequence[Term],
              signs: Sequence[Term] = (), what: str = "case") -> Term:
        """``Σ values[index]``, or, of values from 0 on, ``Σ (sign ? -1 : 1)·values[index]``.

        Values are constants, indices and signs of one cycle.  Three lanes make a chain: a table for
        the first, and two adders, in whose LUTs the tables of the others are as far as they fit.
        So that no adder extends signs, what is added is raised to be from 0 on; the first lane of
        all makes up for it.  Takes ``max(⌈lanes/c⌉ - 1, 1) + ⌈log2(c)⌉`` cycles, ``c = ⌈lanes/3⌉``.
        """
        lo, hi = min(values), max(values)
        by = 2**hi.bit_length() if signs else 2**(shape_for(lo, hi).width - 1) if lo < 0 else 0
        whole = [*values, *(-value for value in values)] if signs else values
        chains, totals = -(-len(indices) // 3), []
        lanes = list(zip_longest(indices, signs))
        for chain in range(chains):
            (index, sign), *more = lanes[chain::chains]
            lift = by if chain else by - by * len(lanes)
            total = self.case([value + lift for value in whole], Cat(
                index.value, *([sign.value] if sign else [])), index.cycle, what)
            for index, sign in more:
                at = self.until(index, total.cycle).value
                if sign is None:
                    raised = [value + by for value in values]
                    added = absorbed(total, self.case(raised, at, total.cycle, what))
                else:  # -v + by is the complement of v's bits and 1
                    turn = self.until(sign, total.cycle).value
                    entry = self.case(values, at, total.cycle, what).value
                    added = absorbed(total, Term(
                        Cat(entry ^ turn.replicate(len(entry)), ~turn), by - hi, by + hi,
                        total.cycle), turn)
                total = self.register(added, what)
            totals.append(total if more else self.register(total, what))
        # The last one of an odd number waits longest.
        totals.sort(key=lambda total: total.cycle)
        return self.sum((self.until(total, totals[-1].cycle) for total in totals), what)

    def lookup(self, table: str, index: HdlValue, cycle: int) -> Term:
        """An entry of one of the design's tables, which is constant or a memory that is written."""
        values = self.tables[table]
        if self.load is None:
            return self.case([int(value) for value in values], index, cycle, table)
        if table not in self._free:
            self._free[table] = self._memories(table)
        read = next(self._free[table])
        self.m.d.comb += read.addr.eq(index)
        return Term(read.data, *self.ranges[table], cycle)


    def _memories(self, table: str) -> Iterator[memory.ReadPort]:
        """Read ports of as many memories as it takes, with the same entries."""
        assert self.load is not None
        values, shape = self.tables[table], shape_for(*self.ranges[table])
        while True:
            name = self.name(table)
            self.m.submodules[name] = entries = memory.Memory(
                shape=shape, depth=max(len(values), LEAST), init=[])
            write = entries.write_port()
            place, chosen = list(self.tables).index(table), self.load.table
            self.m.d.comb += [
                write.en.eq(self.load.en if chosen is None else self.load.en & (chosen == place)),
                write.addr.eq(self.load.addr), write.data.eq(self.load.data)]
            for _ in range(READS):
                yield entries.read_port(domain="comb")


def add(a: Term, b: Term) -> Term:
    """The sum of two terms that have passed as many registers."""
    assert a.cycle == b.cycle
    return Term(a.value + b.value, a.lo + b.lo, a.hi + b.hi, a.cycle)


def absorbed(a: Term, b: Term, carry: HdlValue | None = None) -> Term:
    """``a + b``, or with 1 more: b's logic is in the LUTs of the adder, a bit of a beside it.

    Synthesis gives the first operand of a difference to the carry as it is, of a sum either one.
    The lowest position makes ``a + b + carry`` of ``a - ~b = a + b + 1``.  The carry, a bit, is in
    the range of b.
    """
    assert a.cycle == b.cycle
    shape = shape_for(a.lo + b.lo, a.hi + b.hi)
    low = Const(0, 1) if carry is None else carry
    first, second = (Cat(low, extended(term, shape.width)) for term in (a, b))
    total = (first - ~second)[1:shape.width + 1]
    return Term(total.as_signed() if shape.signed else total, a.lo + b.lo, a.hi + b.hi, a.cycle)


def extended(term: Term, width: int) -> HdlValue:
    """The low `width` bits of the term."""
    sign = term.value[-1] if term.value.shape().signed else Const(0, 1)
    return Cat(term.value, sign.replicate(width))[:width]


def _add_signed(a: Term, sign: HdlValue, b: Term) -> Term:
    """``sign ? a - b : a + b``, one adder."""
    assert a.cycle == b.cycle
    limit = max(abs(b.lo), abs(b.hi))
    wide = Cat(b.value, b.value[-1] if b.value.shape().signed else 0)
    turned = Cat(sign, wide ^ sign.replicate(len(wide))).as_signed()
    carried = Cat(Const(1, 1), a.value)  # 1 and the sign carry where the sign is 1
    return Term(((carried.as_signed() if a.value.shape().signed else carried) + turned) >> 1,
                a.lo - limit, a.hi + limit, a.cycle)


@dataclass(frozen=True)
class Load:
    """The signals that write an entry of a table: the entry, its value, the table by its place.

    None for `table` where there is one.
    """

    en: HdlValue
    addr: HdlValue
    data: HdlValue
    table: HdlValue | None = None


@dataclass(frozen=True)
class Trained:
    """Levels of a trained layer, to make designs with: integers, ascending.

    Members
    -------
    method: whose, by its name in `study`.
    weights: 2^weight_bits of them; activations: 2^act_bits, of the layer's inputs.
    basis, act_basis: of LQ-Nets: levels are ``Σ ±v``, and ``Σ (u or 0)``.
    """

    method: str
    weights: tuple[int, ...]
    activations: tuple[int, ...]
    basis: tuple[int, ...] = ()
    act_basis: tuple[int, ...] = ()


class Design(ABC):
    """A number format for weights and activations, and a way to compute dot products in it.

    A dot product is taken in two parts: `partial` sums that add up over the beats of a vector, and
    `finish`, once per vector.  What depends on activations alone is in `shared`, which many outputs
    may share.

    Members
    -------
    weight_bits, act_bits: bits of a code.
    lanes: products per beat.
    writable: whether the tables are written while the hardware runs, instead of constant.
    trained: the method whose nets, trained in `study`, this design computes; "" if there are none.
    tables: int64 values by name; what a writable design is loaded with.
    """

    method: str            # whose number format this is, in the tables
    uniform: bool = False  # equidistant levels on both sides, as N2UQ's
    trained: str = ""

    def __init__(self, *, weight_bits: int, act_bits: int, lanes: int, writable: bool = False
                 ) -> None:
        for what, value, limit in (("weight bits", weight_bits, 8),
                                   ("activation bits", act_bits, 8), ("lanes", lanes, 4096)):
            if not 1 <= value <= limit:
                raise N2uqError(f"{self.method}: {what} must be 1..{limit}, not {value}")
        self.weight_bits, self.act_bits, self.lanes = weight_bits, act_bits, lanes
        self.writable, self.tables = writable, dict[str, np.ndarray]()

    @classmethod
    def variants(cls, **point: Any) -> Iterator[Design]:
        """Every design of this class at `weight_bits`, `act_bits` and `lanes`."""
        yield cls(**point)

    @classmethod
    def with_levels(cls, trained: Trained, **point: Any) -> Iterator[Design]:
        """Every design of this class with these levels; none where they are no choice."""
        return iter(())

    @property
    @abstractmethod
    def name(self) -> str:
        """What this design is called in the tables, unique among `designs`."""

    @property
    @abstractmethod
    def weights(self) -> np.ndarray:
        """int64 [2^weight_bits], the value of each code of a weight."""

    @property
    def activations(self) -> np.ndarray:
        """int64 [2^act_bits], the value of each code of an activation; equidistant by default."""
        return np.arange(2**self.act_bits)

    @property
    def ranges(self) -> dict[str, tuple[int, int]]:
        """The least and greatest entry that each table may get; by default that it has."""
        return {name: (int(values.min()), int(values.max()))
                for name, values in self.tables.items()}

    @property
    def rounding(self) -> float:
        """Root-mean-square error of a product, as a part of the largest; 0 where it is exact."""
        return 0.0

    def golden(self, w: np.ndarray, a: np.ndarray) -> np.ndarray:
        """Dot products int64 [N] of codes of weights and activations, each [N, K], any K."""
        return (self.weights[w] * self.activations[a]).sum(axis=-1)

    @property
    def products(self) -> np.ndarray:
        """int64 [2^weight_bits, 2^act_bits]: the product of each pair of codes."""
        w, a = np.indices((2**self.weight_bits, 2**self.act_bits))
        return self.golden(w.reshape(-1, 1), a.reshape(-1, 1)).reshape(w.shape)

    @property
    def addends(self) -> np.ndarray | None:
        """int64 [sums, 2^weight_bits, 2^act_bits]: what a lane adds to each sum of `partial`.

        None where that depends on tables that are written, or where a design does not say it.
        """
        said = not self.writable and not self.finishes
        return self.products[None] if said else None

    @property
    def finishes(self) -> bool:
        """Whether `finish` has something to do."""
        return type(self).finish is not Design.finish

    def shared(self, d: Datapath, a: Sequence[Term]) -> list[Any]:
        """What `partial` takes of the activations alone."""
        return []

    @abstractmethod
    def partial(self, d: Datapath, w: Sequence[Term], a: Sequence[Term], shared: Sequence[Any]
                ) -> list[Term]:
        """Sums over the lanes of one beat, which add up over beats; all after as many cycles.

        Parameters
        ----------
        w, a: codes of each lane, unsigned, in registers; shared: what `shared` made of `a`.
        """

    def finish(self, d: Datapath, sums: Sequence[Term]) -> Term:
        """The dot product, in a register, of the sums over all beats; by default the one sum."""
        (total,) = sums
        return total

    @cached_property
    def sums(self) -> list[Term]:
        """Ranges and latency of the sums of one beat, codes registered first."""
        return _sums(self, self.scratch(), Const(0, self.weight_bits * self.lanes),
                     Const(0, self.act_bits * self.lanes))

    @cached_property
    def dot(self) -> Term:
        """Range and latency of the dot product of one beat, codes registered first."""
        return self.finish(self.scratch(), self.sums)

    def scratch(self) -> Datapath:
        """A datapath that nobody keeps, to learn ranges and latencies."""
        load = Load(*(Signal() for _ in range(4))) if self.writable else None
        return Datapath(Module(), Const(1), self.tables, self.ranges, load)

    @property
    def latency(self) -> int:
        """Cycles from the codes at the ports of `Lanes` to their dot product."""
        return self.dot.cycle

    def create(self) -> Lanes:
        """The gateware."""
        return Lanes(self)


def _sums(design: Design, d: Datapath, w: HdlValue, a: HdlValue) -> list[Term]:
    """The sums of packed codes."""
    codes: list[list[Term]] = []
    for what, word, bits in (("w", w, design.weight_bits), ("a", a, design.act_bits)):
        held = d.register(Term(word, 0, 2**len(word) - 1), what)
        codes.append([Term(held.value.word_select(lane, bits), 0, 2**bits - 1, 1)
                      for lane in range(design.lanes)])
    w_codes, a_codes = codes
    return design.partial(d, w_codes, a_codes, design.shared(d, a_codes))


def load_ports(of: Tabled) -> dict[str, wiring.Member]:
    """The ports `load_en`, `load_table`, `load_addr`, `load_data`, where tables are written.

    Without `load_table` where there is one table.
    """
    if not of.writable:
        return {}
    sizes = [len(values) for values in of.tables.values()]
    widths = [shape_for(*ends).width for ends in of.ranges.values()]
    table = {"load_table": In(range(len(sizes)))} if len(sizes) > 1 else {}
    return {"load_en": In(1), **table, "load_addr": In(range(max(sizes))),
            "load_data": In(max(widths))}


def datapath(of: Tabled, component: Any, m: Module, enable: HdlValue) -> Datapath:
    """Where `component`, which has the `load_ports`, builds its gateware."""
    ports = {port.removeprefix("load_"): getattr(component, port) for port in load_ports(of)}
    return Datapath(m, enable, of.tables, of.ranges,
                    Load(**ports) if ports else None)


class Lanes(wiring.Component):
    """The dot product of one beat of a design; II = 1, latency `design.latency` enabled cycles.

    Members
    -------
    enable: everything holds while low.
    w, a: codes, lane 0 in the low bits.
    dot: their dot product.
    load_en, load_table, load_addr, load_data: write an entry of the table of that place in
        `design.tables`; only where the design is writable, and whether `enable` is high or not.
    """

    def __init__(self, design: Design) -> None:
        self.design = design
        super().__init__({
            "enable": In(1), "w": In(design.weight_bits * design.lanes),
            "a": In(design.act_bits * design.lanes),
            "dot": Out(shape_for(design.dot.lo, design.dot.hi)), **load_ports(design)})

    def elaborate(self, platform):
        m = Module()
        d = datapath(self.design, self, m, self.enable)
        sums = _sums(self.design, d, self.w, self.a)
        m.d.comb += self.dot.eq(self.design.finish(d, sums).value)
        return m


def designs(**point: Any) -> list[Design]:
    """Every design at `weight_bits`, `act_bits` and `lanes`."""
    return [design for cls in DESIGNS for design in cls.variants(**point)]
