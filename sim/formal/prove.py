"""Proofs: Yosys makes formulas of a circuit, and Bitwuzla, an SMT solver, finds no input that
breaks its assertions.

Bounded: from any state, a reset of one cycle and then so many cycles.  By induction: from any state
in which the assertions held for k cycles they hold in the next one, resets at any time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amaranth.back import rtlil

from ... import tools
from ..contract import CONTRACT
from .miter import COUNT, Miter

__all__ = ["Invariant", "Verdict", "bounded", "formulas", "independent", "induction"]

TOP = "miter"
CIRCUIT = f"""
read_rtlil {TOP}.il
read_verilog units.v
hierarchy -check -top {TOP}
proc
flatten
opt_clean
memory_nordff
memory_collect
opt_mem
memory_map
opt -purge
chformal -lower
async2sync
dffunmap
opt_clean"""
FORMULAS = f"""
setundef -undriven -anyseq
opt_clean
write_smt2 -stbv -wires {TOP}.smt2"""


# What holds in every state that is reached, as a formula, from a function that turns the name of a
# signal into its value.
Invariant = Callable[[Callable[[str], str]], str]


@dataclass(frozen=True)
class Verdict:
    """What a proof found.

    Members
    -------
    proven: whether no input breaks the assertions; None if the time was up.
    cycles: of a bounded proof, or of the assertions that an induction presumes.
    seconds: it took.
    images: that can leave the unit in these cycles, at each output.
    trace: without proof, the streams cycle by cycle until an assertion fails.
    """

    proven: bool | None
    cycles: int
    seconds: float
    images: int = 0
    trace: tuple[dict[str, int], ...] = ()


@contextmanager
def _circuit(miter: Miter, verilog: str) -> Iterator[Path]:
    """A folder with what `CIRCUIT` reads."""
    text = rtlil.convert(miter, name=TOP, ports=miter.ports, emit_src=False)
    with tools.scratch() as folder:
        (folder / f"{TOP}.il").write_text(text, encoding="utf-8")
        (folder / "units.v").write_text(
            CONTRACT.read_text(encoding="utf-8") + verilog, encoding="utf-8")
        yield folder


def formulas(miter: Miter, verilog: str = "") -> str:
    """The circuit in SMT-LIB 2, by Yosys; `verilog` is the text of an `instance`."""
    with _circuit(miter, verilog) as folder:
        tools.run_yosys(CIRCUIT + FORMULAS, folder)
        return (folder / f"{TOP}.smt2").read_text(encoding="utf-8")


def independent(miter: Miter, verilog: str = "") -> bool:
    """Whether no logic leads from the ready of an output to its valid, but through a register."""
    paths = "".join(f"\nselect -set back w:{s.valid.name} %ci*:-$dff w:{s.ready.name} %i"
                    f"\nselect -count @back" for s in miter.outs)
    with _circuit(miter, verilog) as folder:
        log = tools.run_yosys(CIRCUIT + paths, folder)
    counts = re.findall(r"^(\d+) objects\.", log, re.MULTILINE)
    assert len(counts) == len(miter.outs)
    return not any(map(int, counts))


class _Solver:
    """States s0, s1, ... of the circuit, each the next of the one before."""

    def __init__(self, text: str, seconds: float, invariant: Invariant) -> None:
        tools.need_module("bitwuzla", "formal proofs", "formal")
        import bitwuzla

        self.sat, self.unsat = bitwuzla.Result.SAT, bitwuzla.Result.UNSAT
        options = bitwuzla.Options()
        options.set(bitwuzla.Option.PRODUCE_MODELS, True)
        self.parser = bitwuzla.Parser(bitwuzla.TermManager(), options)
        self.parser.parse("(set-logic QF_BV)\n" + text, True, False)
        self.solver = self.parser.bitwuzla()
        self.until = time.monotonic() + seconds
        self.states, self.invariant = 0, invariant

    def say(self, text: str) -> None:
        self.parser.parse(text, True, False)

    def term(self, text: str) -> Any:
        return self.parser.parse_term(text)

    def add(self) -> str:
        """One more state."""
        s = f"s{self.states}"
        self.say(f"(declare-const {s} |{TOP}_s|)(assert (|{TOP}_h| {s}))(assert (|{TOP}_u| {s}))")
        if self.states:
            self.say(f"(assert (|{TOP}_t| s{self.states - 1} {s}))")
        self.states += 1
        return s

    def holds(self, s: str) -> str:
        """That all assertions hold in state s."""
        return f"(and (|{TOP}_a| {s}) {self.invariant(lambda name: f'(|{TOP}_n {name}| {s})')})"

    def can(self, terms: str) -> bool:
        """Whether all `terms` can be true at once."""
        return bool(self.solver.check_sat(self.term(f"(and true {terms})")) == self.sat)

    def breaks(self, s: str) -> bool | None:
        """Whether an assertion fails in state s; None if the time is up."""
        self.solver.configure_terminator(lambda: time.monotonic() > self.until)
        result = self.solver.check_sat(self.term(f"(not {self.holds(s)})"))
        return {self.sat: True, self.unsat: False}.get(result)

    def trace(self, signals: Sequence[str]) -> tuple[dict[str, int], ...]:
        """The values of `signals` in every state."""
        def value(name: str, k: int) -> int:
            said = str(self.solver.get_value(self.term(f"(|{TOP}_n {name}| s{k})")))
            said = {"true": "1", "false": "0"}.get(said, said)
            return int(said.removeprefix("#b"), 2)
        return tuple({name: value(name, k) for name in signals} for k in range(self.states))


def bounded(text: str, cycles: int, signals: Sequence[str] = (), *, outputs: Sequence[str] = (),
            seconds: float = 600, invariant: Invariant = lambda name: "true") -> Verdict:
    """Whether the assertions, and an `invariant`, hold for so many `cycles` behind a reset.

    `outputs` are those whose images are counted: none could mean that nothing was shown.
    """
    begin, solver = time.monotonic(), _Solver(text, seconds, invariant)
    solver.say(f"(assert (|{TOP}_n rst| {solver.add()}))")
    for k in range(1, cycles + 1):
        s = solver.add()
        solver.say(f"(assert (not (|{TOP}_n rst| {s})))")
        broken = solver.breaks(s)
        if broken is not False:
            return Verdict(broken and False, k, time.monotonic() - begin,
                           trace=solver.trace(signals) if broken else ())
        solver.say(f"(assert {solver.holds(s)})")
    images = 0
    while outputs and solver.can(" ".join(
            f"(bvugt (|{TOP}_n {o}_image| {s}) (_ bv{images} {COUNT}))" for o in outputs)):
        images += 1
    return Verdict(True, cycles, time.monotonic() - begin, images)


def induction(text: str, most: int = 4, signals: Sequence[str] = (), *, seconds: float = 600,
              invariant: Invariant = lambda name: "true") -> Verdict:
    """Whether the assertions hold for ever: the least k up to `most` for which that follows."""
    begin, solver = time.monotonic(), _Solver(text, seconds, invariant)
    s, broken = solver.add(), None
    for k in range(1, most + 1):
        solver.say(f"(assert {solver.holds(s)})")
        s = solver.add()
        broken = solver.breaks(s)
        if not broken:
            return Verdict(None if broken is None else True, k, time.monotonic() - begin)
    return Verdict(False, most, time.monotonic() - begin, trace=solver.trace(signals))
